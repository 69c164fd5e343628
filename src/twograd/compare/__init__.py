"""The harness: one program through several engines, its gradients checked, its stages timed, its results kept.

Read :mod:`twograd.compare.program` for what a comparison declares, then :mod:`twograd.compare.runner` for what is done
with it, then :mod:`twograd.compare.results` for what comes out. A comparison file imports all it needs from here.

The package can be called: ``twograd.compare(f, *args)`` is :func:`twograd.compare.notebook.compare`. A function of that
name in ``twograd`` would be replaced by this package as soon as somebody imports it, since Python then sets the name;
but a module may have a class of its own (the language reference, 3.3.2.1), and a class may have a ``__call__``.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from twograd.compare.errors import CompareError as CompareError
from twograd.compare.errors import Unsupported as Unsupported
from twograd.compare.program import Comparison as Comparison
from twograd.compare.program import grid as grid
from twograd.compare.results import Curves as Curves
from twograd.compare.results import Listing as Listing
from twograd.compare.results import Observation as Observation
from twograd.compare.results import Series as Series
from twograd.compare.results import Table as Table
from twograd.compare.results import Winners as Winners


class _Package(ModuleType):
    """This package, which can be called."""

    def __call__(self, f: Any, *args: Any, **options: Any) -> Any:
        return importlib.import_module("twograd.compare.notebook").compare(f, *args, **options)


sys.modules[__name__].__class__ = _Package
