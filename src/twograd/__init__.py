"""twograd: one table of derivative rules, two autodiff engines, and the means to compare them.

    import twograd as tg
    import twograd.numpy as tnp
    from twograd import tape, graph
    print(tg.corners(f, x))  # one program at the four corners: rebuilt or built once, by value or by symbols
    print(tg.compare(f, x))  # its gradient by several engines: checked, timed, in words, tables and charts

``tape`` records as it runs and differentiates by value; ``graph`` traces and rewrites a program into a bigger one that
holds its derivative; ``rules`` is the table that both read. Sub-modules are imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {"compare", "data", "deploy", "fronts", "graph", "lax", "models", "nn", "numpy", "optim", "rules", "saving", "tape"}
)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"twograd.{name}")
    if name in ("load", "save"):
        return getattr(importlib.import_module("twograd.saving"), name)
    if name == "corners":
        return importlib.import_module("twograd.compare.corners").corners
    raise AttributeError(f"module 'twograd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, "corners", "load", "save"})
