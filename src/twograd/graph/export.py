"""Writing a graph as a file that a process without any training code can run.

What flows in: a :class:`~twograd.graph.graph.Graph`. What flows out: a file, which
:func:`twograd.deploy.load` (``graph.load``) reads; that module also says what is in it. Read :func:`export_graph`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export

import twograd
from twograd import _trees
from twograd._files import write_atomically
from twograd.deploy import FORMAT, MANIFEST, MISSING, PROGRAM, VERSION
from twograd.errors import ExportError
from twograd.graph.strip import StripReport

if TYPE_CHECKING:
    from twograd.graph.graph import Graph

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
WRITTEN_AT = (1980, 1, 1, 0, 0, 0)  # the same program is the same file, byte for byte


def export_graph(path: str | Path, graph: "Graph", platforms: Sequence[str] | None) -> dict[str, Any]:
    """Writes ``graph`` and returns the manifest.

    The manifest's keys: ``format`` and ``version`` (of the file), ``name``, ``args`` and ``results`` (structures, see
    ``twograd/_trees.py``), ``inputs`` and ``outputs`` (leaf by leaf: ``name``, ``shape``, ``dtype``), ``platforms``,
    ``versions`` (of twograd, of JAX, and ``calling_convention`` of ``jax.export``), ``sha256`` and ``bytes`` (of the
    program) and ``stripped`` (what ``Graph.strip`` removed).
    """
    if platforms is not None and (isinstance(platforms, str) or not set(platforms) <= set(PLATFORMS)):
        raise ValueError(f"platforms are a list of some of {', '.join(PLATFORMS)}, not {platforms!r}")
    if find_spec("flatbuffers") is None:
        raise ExportError(MISSING)
    name, closed = graph.name, graph.jaxpr
    try:
        exported = jax.export.export(jax.jit(graph._call), platforms=platforms)(*map(typed, closed.in_avals))
        program = bytes(exported.serialize(vjp_order=0))
    except Exception as error:
        raise ExportError(
            f"{name} cannot be exported: {error} (A program that calls back into Python, or that holds references or "
            "somebody's tracers, has no StableHLO of its own: strip() removes what the outputs do not need.)"
        ) from error
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "args": _trees.to_plain(graph.in_tree),
        "results": _trees.to_plain(graph.out_tree),
        "inputs": [described(*pair) for pair in zip(graph.inputs, closed.in_avals, strict=True)],
        "outputs": [described(*pair) for pair in zip(graph.outputs, closed.out_avals, strict=True)],
        "platforms": list(exported.platforms),
        "versions": {
            "twograd": twograd.__version__,
            "jax": jax.__version__,
            "calling_convention": exported.calling_convention_version,
        },
        "sha256": hashlib.sha256(program).hexdigest(),
        "bytes": len(program),
        "stripped": [report.as_data() for report in graph.reports if isinstance(report, StripReport)],
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        archive.writestr(zipfile.ZipInfo(MANIFEST, WRITTEN_AT), text, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(PROGRAM, WRITTEN_AT), program, zipfile.ZIP_DEFLATED)
    try:
        write_atomically(Path(path), buffer.getvalue())
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}).") from error
    return manifest


def typed(aval: Any) -> jax.ShapeDtypeStruct:
    """``aval`` as an argument of a traced function; weak types stay weak, or the program would be another."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def described(name: str, aval: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return {"name": name, "shape": shape, "dtype": str(aval.dtype)}
