"""Trees of arrays as files: weights and checkpoints, without pickle.

    twograd.save(net.state_dict(), "weights.safetensors")
    net.load_state_dict(twograd.load("weights.safetensors"))
    twograd.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 7}, "checkpoint.npz")
    params, state = twograd.load("step.npz", like=(params, state))  # of a graph's step: arrays, and optax's state

The suffix says the format: ``.npz``, NumPy's, or ``.safetensors``, which PyTorch's users have too and which needs the
package of that name (``pip install 'twograd[train]'``). A flat dict of arrays is stored under its own names, so that
others can read it; what a tree holds besides arrays is kept beside them as JSON, with a digest of all that is stored.
Read :func:`save`, then :func:`load`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd._files import write_atomically

NOTE = "twograd"
"""The name of what is stored beside the arrays: of an array of bytes (.npz), or among the metadata (.safetensors)."""

FORMATS = (".npz", ".safetensors")


class DamagedFile(ValueError):
    """A file that is not what was saved."""


def save(tree: Any, path: str | Path) -> None:
    """Writes nested dicts, lists and tuples of Tensors, arrays, numbers, strings, booleans and None; atomically.

    Keys are strings or integers. Raises TypeError for anything else, ValueError for another suffix than ``.npz`` and
    ``.safetensors``, and what the operating system raises, in which case a file that was there is as it was.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    structure = _described(tree, "", arrays)
    # What NumPy's format has no name for (bfloat16) goes as bytes.
    dtypes = {name: str(array.dtype) for name, array in arrays.items() if array.dtype.kind == "V"}
    note = json.dumps({"tree": structure, "dtypes": dtypes, "sha256": _digest(arrays)})
    if path.suffix == ".npz":
        stored = {name: array.view(np.uint8) if name in dtypes else array for name, array in arrays.items()}
        stored[f"{NOTE}.json"] = np.frombuffer(note.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **stored)
        content = buffer.getvalue()
    elif path.suffix == ".safetensors":
        content = _safetensors(path).numpy.save(arrays, {NOTE: note})
    else:
        raise ValueError(f"{path}: the suffix says the format, {' or '.join(FORMATS)}, not {path.suffix!r}")
    write_atomically(path, content)


def load(path: str | Path, like: Any = None) -> Any:
    """The tree that :func:`save` wrote, its arrays as NumPy's; or a dict of arrays, of a file that others wrote.

    ``like`` is a tree as it was saved, such as ``(params, transform.init(params))``: the result then has its types too
    (a file knows no NamedTuple, of which optax's states consist), with JAX's arrays.

    Nothing in the file is executed. Raises DamagedFile where it is cut off, changed, or no file of that format;
    ValueError where ``like`` has other names, shapes or dtypes.
    """
    tree = _loaded(Path(path))
    return tree if like is None else _fitted(Path(path), tree, like)


def _loaded(path: Path) -> Any:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the suffix says the format, {' or '.join(FORMATS)}, not {path.suffix!r}")
    content = path.read_bytes()
    try:
        arrays, note = _read_npz(content) if path.suffix == ".npz" else _read_safetensors(path, content)
        if note is None:
            return arrays
        told = json.loads(note)
        arrays = {
            name: array.view(jnp.dtype(told["dtypes"][name]))
            if array.dtype == np.uint8 and name in told["dtypes"]
            else array
            for name, array in arrays.items()
        }
        if _digest(arrays) != told["sha256"]:
            raise DamagedFile("its arrays are not those that were saved")
        return _restored(told["tree"], arrays)
    except DamagedFile as error:
        raise DamagedFile(f"{path}: {error}") from None
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedFile(f"{path}: is damaged, or no {path.suffix} file ({error})") from error


def _fitted(path: Path, tree: Any, like: Any) -> Any:
    """What was loaded, in the structure of ``like``."""
    found: dict[str, np.ndarray] = {}
    wanted: dict[str, np.ndarray] = {}
    _described(tree, "", found)
    _described(like, "", wanted)
    types = [{name: f"{a.dtype}{list(a.shape)}" for name, a in arrays.items()} for arrays in (found, wanted)]
    wrong = sorted(name for name in {*found, *wanted} if types[0].get(name) != types[1].get(name))
    leaves, structure = jax.tree.flatten(like)
    given = jax.tree.leaves(tree)
    if wrong or len(given) != len(leaves):
        said = "; ".join(
            f"{name}: {types[0].get(name, 'nothing')}, not {types[1].get(name, 'nothing')}" for name in wrong[:5]
        )
        raise ValueError(
            f"{path} does not hold what `like` asks for; {len(wrong)} arrays differ: {said or 'the structure'}"
        )
    return jax.tree.unflatten(structure, [jnp.asarray(x) if hasattr(x, "dtype") else x for x in given])


def _described(tree: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON, with the names of its arrays, which are put into ``arrays``."""

    def below(key: Any) -> str:
        return f"{name}.{key}" if name else str(key)

    if tree is None or type(tree) in (bool, int, float, str):
        return {"value": _finite(tree)}
    if isinstance(tree, Mapping):
        wrong = [key for key in tree if not isinstance(key, (str, int))]
        if wrong:
            raise TypeError(f"save: keys are strings or integers, not {type(wrong[0]).__name__}")
        return {"dict": [[key, _described(value, below(key), arrays)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_described(value, below(i), arrays) for i, value in enumerate(tree)]}
    if not (hasattr(tree, "dtype") and hasattr(tree, "shape")):
        raise TypeError(f"save: cannot store {type(tree).__name__} at {name or 'the root'}; arrays and numbers only")
    array = np.asarray(tree.detach().numpy() if hasattr(tree, "detach") else tree)
    if array.dtype.hasobject:
        raise TypeError(f"save: cannot store an array of dtype {array.dtype} at {name or 'the root'}")
    while name in arrays or not name or name == f"{NOTE}.json":  # {"a.b": ...} beside {"a": {"b": ...}}
        name += "_"
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return {"array": name}


def _finite(value: Any) -> Any:
    return {"float": repr(value)} if isinstance(value, float) else value


def _restored(structure: Any, arrays: dict[str, np.ndarray]) -> Any:
    ((kind, content),) = structure.items()
    if kind == "value":
        return float(content["float"]) if isinstance(content, dict) else content
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {key: _restored(value, arrays) for key, value in content}
    values = [_restored(value, arrays) for value in content]
    return values if kind == "list" else tuple(values)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read_npz(content: bytes) -> tuple[dict[str, np.ndarray], Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    note = arrays.pop(f"{NOTE}.json", None)
    return arrays, None if note is None else note.tobytes()


CODES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip
"""The dtypes' names in .safetensors; the package's own function for NumPy lacks bfloat16."""


def _read_safetensors(path: Path, content: bytes) -> tuple[dict[str, np.ndarray], Any]:
    library = _safetensors(path)
    try:
        parts = library.deserialize(content)
    except library.SafetensorError as error:
        raise ValueError(error) from error
    arrays = {
        name: np.frombuffer(bytes(part["data"]), jnp.dtype(CODES[part["dtype"]])).reshape(part["shape"])
        for name, part in parts
    }
    length = int.from_bytes(content[:8], "little")
    return arrays, json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(NOTE)


def _safetensors(path: Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"{path}: needs the package safetensors: pip install 'twograd[train]'") from error
    return safetensors
