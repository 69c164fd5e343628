"""Running exported programs, where nothing can be traced, differentiated or trained.

What flows in: a file that ``Graph.export`` wrote. What flows out: a :class:`Program`, which is called like the function
that was traced. Read :func:`load`. This module and ``_trees.py`` need JAX (and its package for files, flatbuffers) and
nothing else: no rule, no tape, no graph.

A file is a zip archive of two members: ``manifest.json`` (names, shapes, dtypes, structure, versions, the SHA-256 of
the program) and ``program.bin`` (StableHLO, serialized by ``jax.export``). Neither is code, and nothing is unpickled.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from twograd import _trees

FORMAT = "twograd.export"
VERSION = 1
MANIFEST, PROGRAM = "manifest.json", "program.bin"
MISSING = "JAX writes and reads programs by the package flatbuffers: pip install 'twograd[export]'"
AGAIN = "Export it again."

_EXPECTED = {"name": str, "args": dict, "inputs": list, "outputs": list, "platforms": list, "sha256": str}


class LoadError(ValueError):
    """A file that is no exported program, or a damaged one, or one that this version cannot read."""


class Program:
    """An exported program: compiled at its first call, for the platforms in its manifest."""

    def __init__(self, manifest: Mapping[str, Any], call: Callable[..., Any], out_tree: Any):
        self.manifest = manifest
        """What the file says about the program: see :mod:`twograd.graph.export` for its keys."""
        self._compiled = jax.jit(call)
        self._out_tree = out_tree

    def __repr__(self) -> str:
        inputs = ", ".join(f"{described['name']}: {typed(described)}" for described in self.manifest["inputs"])
        return f"<Program {self.manifest['name']}({inputs}) for {', '.join(self.manifest['platforms'])}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The results on these arguments. Raises TypeError where their structure, shapes or dtypes do not fit."""
        name, leaves = self.manifest["name"], []
        given, tree = tree_flatten((args, kwargs))
        plain = _trees.to_plain(tree)
        if not _trees.same(plain, self.manifest["args"]):
            expected = _trees.shown(self.manifest["args"])
            names = ", ".join(described["name"] for described in self.manifest["inputs"])
            raise TypeError(
                f"{name} was exported with the inputs {names}, in the structure {expected} of (args, kwargs), and "
                f"called with {_trees.shown(plain)}"
            )
        for described, leaf in zip(self.manifest["inputs"], given, strict=True):
            found = jax.typeof(leaf)
            shape = described["shape"]
            fits = len(shape) == len(found.shape) and all(
                not isinstance(size, int) or size == has for size, has in zip(shape, found.shape, strict=True)
            )
            if not fits or (str(found.dtype) != described["dtype"] and not found.weak_type):
                raise TypeError(
                    f"{name} was exported with {described['name']}: {typed(described)}, and called with "
                    f"{found.str_short()}. {wide_types(described['dtype'])}"
                )
            leaves.append(jnp.asarray(leaf, described["dtype"]) if found.weak_type else jnp.asarray(leaf))
        return tree_unflatten(self._out_tree, self._compiled(*leaves))


def typed(described: Mapping[str, Any]) -> str:
    """The type of an input or output, as in ``float32[2,3]``."""
    return f"{described['dtype']}[{','.join(map(str, described['shape']))}]"


def wide_types(dtype: str) -> str:
    if dtype in ("float64", "int64", "uint64", "complex128") and not jax.config.read("jax_enable_x64"):
        return "64-bit types are off in this process: jax.config.update('jax_enable_x64', True) turns them on."
    return "An exported program has fixed shapes and dtypes: convert the argument, or export a program for these."


def load(path: str | Path) -> Program:
    """Reads what ``Graph.export`` wrote. Raises LoadError, naming the file, what is wrong with it, and the way out."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            program = archive.read(PROGRAM)
    except OSError as error:
        raise LoadError(f"{path}: cannot be read ({error.strerror}).") from error
    except KeyError as error:
        raise LoadError(f"{path}: an archive, but not one of Graph.export ({error.args[0]}).") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, RecursionError, ValueError) as error:
        what = f"damaged, truncated, or not a file of Graph.export ({error})"
        raise LoadError(f"{path}: {what}. Copy it again, or export it again.") from error
    except Exception as error:  # what zlib raises is not documented to be one class
        raise LoadError(
            f"{path}: its members cannot be unpacked ({error}). Copy it again, or export it again."
        ) from error
    check_manifest(path, manifest)
    if hashlib.sha256(program).hexdigest() != manifest["sha256"]:
        raise LoadError(f"{path}: the program is not the one that its manifest describes (SHA-256). {AGAIN}")
    if find_spec("flatbuffers") is None:
        raise LoadError(f"{path}: {MISSING}")
    try:
        out_tree = _trees.from_plain(manifest["results"])
        args = _trees.from_plain(manifest["args"])
        exported = jax.export.deserialize(bytearray(program))
    except Exception as error:
        wrote, here = manifest["versions"].get("jax"), jax.__version__
        raise LoadError(
            f"{path}: JAX {here} does not read this program, which JAX {wrote} wrote ({error}). Install that or a "
            "newer JAX, or export it again with this one."
        ) from error
    counts = (args.num_leaves, len(manifest["inputs"]), out_tree.num_leaves, len(manifest["outputs"]))
    takes, gives = len(exported.in_avals), len(exported.out_avals)
    if counts != (takes, takes, gives, gives):
        raise LoadError(f"{path}: its manifest describes another program (inputs and outputs differ). {AGAIN}")
    return Program(manifest, exported.call, out_tree)


def check_manifest(path: Path, manifest: Any) -> None:
    """Raises LoadError unless ``manifest`` is one of Graph.export, of a version known here, with all that is read."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise LoadError(f"{path}: an archive with a manifest, but not one of Graph.export.")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise LoadError(
            f"{path}: of format {version}; this twograd reads formats up to {VERSION}. Install a newer twograd, or "
            "export it again with this one."
        )
    for key, kind in (*_EXPECTED.items(), ("versions", dict)):
        if not isinstance(manifest.get(key), kind):
            raise LoadError(f"{path}: its manifest has no '{key}', or not a {kind.__name__} there. {AGAIN}")
    if "results" not in manifest:
        raise LoadError(f"{path}: its manifest has no 'results'. {AGAIN}")
    for described in (*manifest["inputs"], *manifest["outputs"]):
        match described:
            case {"name": str(), "dtype": str(), "shape": list()}:
                continue
        raise LoadError(f"{path}: its manifest describes an input or output as {described!r}. {AGAIN}")
