"""Normalisation as Modules."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from twograd.nn import functional as F
from twograd.nn import init
from twograd.nn.module import Module, blank
from twograd.nn.settled import settled
from twograd.tape import no_grad, tensor


def affine_parameters(
    module: Module, shape: tuple[int, ...], weight: bool, bias: bool, device: Any, dtype: Any
) -> None:
    """A weight of ones and a bias of zeros, or None."""
    module.register_parameter("weight", init.ones_(blank(shape, device, dtype)) if weight else None)
    module.register_parameter("bias", init.zeros_(blank(shape, device, dtype)) if bias else None)


def given(module: Module) -> list[Any]:
    """The weight and the bias, as far as there are any."""
    return [operand for operand in (module.weight, module.bias) if operand is not None]


def _batch_normed(x: Any, mean: Any, var: Any, *affine: Any, eps: float) -> Any:
    return F.batch_norm(x, mean, var, *affine, eps=eps)


def _batch_normed_by_own(x: Any, *affine: Any, eps: float) -> Any:
    return F.batch_norm(x, None, None, *affine, training=True, eps=eps)


class _BatchNorm(Module):
    """Normalises each channel over the batch (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    When training by the batch's own statistics, and the running ones are updated in place, with weight ``momentum``
    (None: their plain mean); in evaluation by the running ones.
    """

    ndims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        affine_parameters(self, (num_features,), affine, affine and bias, device, dtype)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, blank((num_features,), device, dtype).detach() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(np.int32(0), device=device) if track_running_stats else None)
        self.reset_running_stats()

    def forward(self, input: Any) -> Any:
        if input.ndim not in self.ndims:
            raise ValueError(f"expected {' or '.join(f'{n}D' for n in self.ndims)} input (got {input.ndim}D input)")
        mean, variance = self.running_mean, self.running_var
        affine = given(self)
        if not self.training and mean is not None:
            return settled(_batch_normed, eps=self.eps)(input, mean, variance, *affine)
        if self.training and mean is not None:
            with no_grad():
                self.num_batches_tracked += 1
                momentum = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
                news = F.batch_norm_statistics(input.detach(), mean, variance, momentum)
                for old, new in zip((mean, variance), news, strict=True):
                    old.copy_(new)
        return settled(_batch_normed_by_own, eps=self.eps)(input, *affine)

    def reset_running_stats(self) -> None:
        """The running statistics as at the beginning."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    ndims = (5,)


for _kind, _shape in (
    (BatchNorm1d, "(N, C) or (N, C, L)"),
    (BatchNorm2d, "(N, C, H, W)"),
    (BatchNorm3d, "(N, C, D, H, W)"),
):
    _kind.__doc__ = f"Batch normalisation of {_shape}.\n{(_BatchNorm.__doc__ or '').partition('.')[2]}"


class LayerNorm(Module):
    """Normalises over the last axes, of sizes ``normalized_shape`` (Ba et al., 2016, arXiv:1607.06450)."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        affine_parameters(self, self.normalized_shape, elementwise_affine, elementwise_affine and bias, device, dtype)

    def forward(self, input: Any) -> Any:
        affine = given(self)
        return settled(_layer_normed, shape=self.normalized_shape, eps=self.eps)(input, *affine)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


def _layer_normed(x: Any, *affine: Any, shape: tuple[int, ...], eps: float) -> Any:
    return F.layer_norm(x, shape, *affine, eps=eps)


class RMSNorm(Module):
    """x / √(mean(x²) + ε) over the last axes, times a weight (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        affine_parameters(self, self.normalized_shape, elementwise_affine, False, device, dtype)
        del self._parameters["bias"]

    def forward(self, input: Any) -> Any:
        weight = [] if self.weight is None else [self.weight]
        return settled(_rms_normed, rank=len(self.normalized_shape), eps=self.eps)(input, *weight)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


def _rms_normed(x: Any, *weight: Any, rank: int, eps: float | None) -> Any:
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    out = x / jnp.sqrt(jnp.mean(x * x, axis=tuple(range(-rank, 0)), keepdims=True) + eps)
    return out * weight[0] if weight else out


class GroupNorm(Module):
    """Normalises over each of ``num_groups`` groups of channels of (N, C, *) (Wu and He, 2018, arXiv:1803.08494)."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError("num_channels must be divisible by num_groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        affine_parameters(self, (num_channels,), affine, affine and bias, device, dtype)

    def forward(self, input: Any) -> Any:
        affine = given(self)
        return settled(_group_normed, groups=self.num_groups, eps=self.eps)(input, *affine)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


def _group_normed(x: Any, *affine: Any, groups: int, eps: float) -> Any:
    return F.group_norm(x, groups, *affine, eps=eps)


class _InstanceNorm(Module):
    """Normalises each channel of each sample (Ulyanov et al., 2016, arXiv:1607.08022). No running statistics."""

    ndims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        if track_running_stats:
            raise NotImplementedError(f"{type(self).__name__}: track_running_stats is not supported")
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        affine_parameters(self, (num_features,), affine, affine and bias, device, dtype)

    def forward(self, input: Any) -> Any:
        if input.ndim not in self.ndims:
            raise ValueError(f"expected {' or '.join(f'{n}D' for n in self.ndims)} input (got {input.ndim}D input)")
        batched = input if input.ndim == max(self.ndims) else input.unsqueeze(0)
        affine = given(self)
        out = settled(_instance_normed, eps=self.eps)(batched, *affine)
        return out if batched is input else out.squeeze(0)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats=False"
        )


def _instance_normed(x: Any, *affine: Any, eps: float) -> Any:
    return F.instance_norm(x, None, None, *affine, eps=eps)


class InstanceNorm1d(_InstanceNorm):
    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    ndims = (4, 5)


for _kind in (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d):
    _kind.__doc__ = _InstanceNorm.__doc__
