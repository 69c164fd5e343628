"""tinygrad's Tensor methods as functions under NumPy's names, and what networks are made of under PyTorch's. Only this
module's importer needs tinygrad."""

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor


def __getattr__(name: str) -> Any:
    return getattr(Tensor, name)


def _reduction(method: Callable[..., Any]) -> Callable[..., Any]:
    """``keepdims`` is tinygrad's ``keepdim``."""

    def reduce(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return method(x, axis=axis, keepdim=keepdims)

    return reduce


sum, mean, max, min = map(_reduction, (Tensor.sum, Tensor.mean, Tensor.max, Tensor.min))


def concatenate(arrays: Any, axis: int = 0) -> Tensor:
    first, *rest = arrays
    return first.cat(*rest, dim=axis)


def stack(arrays: Any, axis: int = 0) -> Tensor:
    first, *rest = arrays
    return first.stack(*rest, dim=axis)


def expand_dims(x: Tensor, axis: int) -> Tensor:
    return x.unsqueeze(axis)


def power(x: Any, y: Any) -> Tensor:
    return x**y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.linear(weight.transpose(), bias)
