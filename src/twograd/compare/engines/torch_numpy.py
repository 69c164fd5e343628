"""``torch`` under NumPy's names, as far as PyTorch's own differ; everything else is handed on as it is.

PyTorch takes NumPy's ``axis=`` and ``keepdims=`` for its ``dim=`` and ``keepdim=``. Only this module's importer needs
PyTorch, and only :mod:`twograd.compare.engines.torch_engine` imports it.
"""

from typing import Any

import torch


def __getattr__(name: str) -> Any:
    return getattr(torch, name)


def max(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return torch.amax(x, dim=() if axis is None else axis, keepdim=keepdims)


def min(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return torch.amin(x, dim=() if axis is None else axis, keepdim=keepdims)


def mean(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return torch.mean(x) if axis is None else torch.mean(x, dim=axis, keepdim=keepdims)


def var(x: torch.Tensor, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
    return torch.var(x, dim=axis, keepdim=keepdims, correction=ddof)


def std(x: torch.Tensor, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
    return torch.std(x, dim=axis, keepdim=keepdims, correction=ddof)


def transpose(x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    return torch.permute(x, tuple(reversed(range(x.ndim))) if axes is None else tuple(axes))


def expand_dims(x: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.unsqueeze(x, axis)


def concatenate(arrays: Any, axis: int = 0) -> torch.Tensor:
    return torch.cat(tuple(arrays), dim=axis)


def stack(arrays: Any, axis: int = 0) -> torch.Tensor:
    return torch.stack(tuple(arrays), dim=axis)


def power(x: Any, y: Any) -> torch.Tensor:
    return torch.pow(x, y)


def maximum(x: Any, y: Any) -> torch.Tensor:
    return torch.maximum(*_tensors(x, y))


def minimum(x: Any, y: Any) -> torch.Tensor:
    return torch.minimum(*_tensors(x, y))


def _tensors(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Both operands as tensors of one dtype and device; NumPy takes Python scalars here, PyTorch does not."""
    like = x if isinstance(x, torch.Tensor) else y
    return tuple(v if isinstance(v, torch.Tensor) else like.new_tensor(v) for v in (x, y))  # type: ignore[return-value]
