"""``dezero.functions`` under NumPy's names. Only this module's importer needs DeZero.

Importing DeZero needs ``numpy.int``, which NumPy no longer has: it is there while that happens, and not longer.
"""

import math
from typing import Any

import numpy as np

np.__dict__["int"] = int
try:
    import dezero
    import dezero.functions as functions
finally:
    del np.__dict__["int"]

dezero.Variable.__matmul__ = functions.matmul


def __getattr__(name: str) -> Any:
    return getattr(functions, name)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = functions.sum(x, axis, keepdims)
    return total * np.asarray(math.prod(total.shape) / x.size, x.dtype)
