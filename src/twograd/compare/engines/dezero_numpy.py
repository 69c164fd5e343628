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


def __getattr__(name: str) -> Any:
    return getattr(functions, name)


def matmul(x: Any, y: Any) -> Any:
    """DeZero's own is for matrices: its gradient with a vector is wrong, and nothing is raised."""
    if x.ndim == 1:
        return functions.reshape(matmul(functions.reshape(x, (1, -1)), y), y.shape[1:])
    if y.ndim == 1:
        return functions.reshape(matmul(x, functions.reshape(y, (-1, 1))), x.shape[:-1])
    return functions.matmul(x, y)


dezero.Variable.__matmul__ = matmul


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = functions.sum(x, axis, keepdims)
    return total * np.asarray(math.prod(total.shape) / x.size, x.dtype)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return functions.linear(x, functions.transpose(weight), bias)


def max_pool2d(x: Any, kernel_size: int) -> Any:
    return functions.pooling(x, kernel_size, stride=kernel_size)


def cross_entropy(scores: Any, labels: Any) -> Any:
    return functions.softmax_cross_entropy(scores, labels)
