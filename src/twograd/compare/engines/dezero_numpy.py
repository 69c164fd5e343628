"""``dezero.functions`` under NumPy's names, and what networks are made of under PyTorch's. Only this module's importer
needs DeZero.

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


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return functions.linear(x, functions.transpose(weight), bias)


def max_pool2d(x: Any, kernel_size: int) -> Any:
    return functions.pooling(x, kernel_size, stride=kernel_size)


def cross_entropy(scores: Any, labels: Any) -> Any:
    return functions.softmax_cross_entropy(scores, labels)
