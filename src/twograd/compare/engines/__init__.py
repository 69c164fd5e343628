"""The engines by name, each in its own short module that is imported only when the engine is asked for.

Read ``protocol.py`` first.
"""

import importlib
from collections.abc import Iterable

from twograd.compare.engines.protocol import Built as Built
from twograd.compare.engines.protocol import Engine as Engine
from twograd.compare.engines.protocol import Ops as Ops
from twograd.compare.errors import UnknownName

USUAL = {
    "tape": ("twograd.compare.engines.tape_engines", "Tape"),
    "graph": ("twograd.compare.engines.graph_engines", "Graph"),
    "jax-jit": ("twograd.compare.engines.jax_engines", "JaxJit"),
    "torch": ("twograd.compare.engines.torch_engine", "Torch"),
    "autograd": ("twograd.compare.engines.autograd_engine", "Autograd"),
    "tape-primitive": ("twograd.compare.engines.tape_engines", "TapePrimitive"),
    "graph-eager": ("twograd.compare.engines.graph_engines", "GraphEager"),
    "jax-eager": ("twograd.compare.engines.jax_engines", "JaxEager"),
}
"""The engines that run where none is asked for by name. All are in the order in which they are shown and built: those
that share compiled kernels come last."""

ENGINES = USUAL | {
    "tape-compiled": ("twograd.compare.engines.tape_engines", "TapeCompiled"),
    "tape-deferred": ("twograd.compare.engines.tape_engines", "TapeDeferred"),
    "tape-create-graph": ("twograd.compare.engines.tape_engines", "TapeCreateGraph"),
    "graph-backprop": ("twograd.compare.engines.graph_engines", "GraphBackprop"),
    "torch-func": ("twograd.compare.engines.torch_engine", "TorchFunc"),
    "torch-compile": ("twograd.compare.engines.torch_engine", "TorchCompile"),
    "pytensor-jax": ("twograd.compare.engines.pytensor_engine", "PyTensorJax"),
    "pytensor-numba": ("twograd.compare.engines.pytensor_engine", "PyTensorNumba"),
    "dezero": ("twograd.compare.engines.dezero_engine", "Dezero"),
    "tinygrad": ("twograd.compare.engines.tinygrad_engine", "Tinygrad"),
    "tensorflow": ("twograd.compare.engines.tensorflow_engine", "TensorFlow"),
    "tensorflow-function": ("twograd.compare.engines.tensorflow_engine", "TensorFlowFunction"),
    "tensorflow-v1": ("twograd.compare.engines.tensorflow_engine", "TensorFlowV1"),
}
"""Every engine. ``all`` stands for their names on the command line."""


def create(name: str, device: str = "cpu") -> Engine:
    """The engine of this name for ``device``, ``cpu`` or ``gpu``. Raises UnknownName."""
    module, cls = ENGINES[check_names([name])[0]]
    return getattr(importlib.import_module(module), cls)(device)


def check_names(names: Iterable[str]) -> list[str]:
    """The same names (``all``: every one) in the order of :data:`ENGINES`; raises UnknownName. Imports no engine."""
    names = list(names)
    if "all" in names:
        return [*ENGINES]
    for name in names:
        if name not in ENGINES:
            raise UnknownName("engine", name, ENGINES)
    return [name for name in ENGINES if name in names]
