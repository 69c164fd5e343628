"""The engines by name, each in its own short module that is imported only when the engine is asked for.

Read ``protocol.py`` first.
"""

import importlib
from collections.abc import Iterable

from twograd.compare.engines.protocol import Built as Built
from twograd.compare.engines.protocol import Engine as Engine
from twograd.compare.engines.protocol import Ops as Ops
from twograd.compare.errors import UnknownName

ENGINES = {
    "tape": ("twograd.compare.engines.tape_engines", "Tape"),
    "graph": ("twograd.compare.engines.graph_engines", "Graph"),
    "jax-jit": ("twograd.compare.engines.jax_engines", "JaxJit"),
    "torch": ("twograd.compare.engines.torch_engine", "Torch"),
    "autograd": ("twograd.compare.engines.autograd_engine", "Autograd"),
    "tape-primitive": ("twograd.compare.engines.tape_engines", "TapePrimitive"),
    "graph-eager": ("twograd.compare.engines.graph_engines", "GraphEager"),
    "jax-eager": ("twograd.compare.engines.jax_engines", "JaxEager"),
}
"""In the order in which they are shown, and in which they are built: those that share compiled kernels come last."""


def create(name: str, device: str = "cpu") -> Engine:
    """The engine of this name for ``device``, ``cpu`` or ``gpu``. Raises UnknownName."""
    module, cls = ENGINES[check_names([name])[0]]
    return getattr(importlib.import_module(module), cls)(device)


def check_names(names: Iterable[str]) -> list[str]:
    """The same names, in the order of :data:`ENGINES`; raises UnknownName. Imports no engine."""
    names = list(names)
    for name in names:
        if name not in ENGINES:
            raise UnknownName("engine", name, ENGINES)
    return [name for name in ENGINES if name in names]
