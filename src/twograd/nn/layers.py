"""Linear maps, convolutions, pooling, embedding, dropout and shape as Modules.

Weights have PyTorch's names, shapes and first values: uniform within 1 / √fan_in.
"""

import math
from collections.abc import Sequence
from typing import Any

from twograd.nn import functional as F
from twograd.nn import init
from twograd.nn.module import Module, Parameter, blank
from twograd.nn.settled import settled
from twograd.tape import no_grad
from twograd.tape.factories import next_key

PerAxis = int | Sequence[int]


def per_axis(value: PerAxis, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def parameter(*shape: int, fan_in: int, device: Any = None, dtype: Any = None) -> Any:
    """A Parameter of numbers uniform within 1 / √fan_in: what PyTorch's layers start from."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0
    return init.uniform_(blank(shape, device, dtype), -bound, bound)


class Identity(Module):
    """Returns what it is given; takes any arguments."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """x Wᵀ + b: (*, in_features) to (*, out_features); ``weight`` is (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        made = {"fan_in": in_features, "device": device, "dtype": dtype}
        self.weight = parameter(out_features, in_features, **made)
        self.register_parameter("bias", parameter(out_features, **made) if bias else None)

    def forward(self, input: Any) -> Any:
        bias = self.bias
        return F.linear(input, self.weight) if bias is None else F.linear(input, self.weight, bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


# --- convolutions -----------------------------------------------------------------------------------------------------


class _Convolution(Module):
    """What the convolutions of all ranks share; ``rank`` is the number of spatial axes."""

    rank: int
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis,
        padding: PerAxis | str,
        dilation: PerAxis,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ):
        super().__init__()
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = per_axis(kernel_size, self.rank), per_axis(stride, self.rank)
        self.dilation, self.padding_mode = per_axis(dilation, self.rank), padding_mode
        self.padding = padding if isinstance(padding, str) else per_axis(padding, self.rank)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        made = {"fan_in": math.prod(shape[1:]), "device": device, "dtype": dtype}
        self.weight = parameter(*shape, **made)
        self.register_parameter("bias", parameter(out_channels, **made) if bias else None)

    def _operands(self, input: Any) -> tuple[Any, ...]:
        bias = self.bias
        return (input, self.weight) if bias is None else (input, self.weight, bias)

    def extra_repr(self) -> str:
        said = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in ((0,) * self.rank, "valid"):
            said += f", padding={self.padding}"
        if self.transposed and any(self.output_padding):
            said += f", output_padding={self.output_padding}"
        if self.dilation != (1,) * self.rank:
            said += f", dilation={self.dilation}"
        said += f", groups={self.groups}" if self.groups != 1 else ""
        said += ", bias=False" if self.bias is None else ""
        return said + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Forward(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis | str = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {set(PADDING_MODES)}, but got padding_mode='{padding_mode}'")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Any) -> Any:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = settled(F.pad, pad=self._amounts(), mode=self.padding_mode)(input)
            padding = 0
        function = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        op = settled(function, stride=self.stride, padding=padding, dilation=self.dilation, groups=self.groups)
        return op(*self._operands(input))

    def _amounts(self) -> tuple[int, ...]:
        """The padding as ``F.pad`` takes it: the last axis first."""
        if isinstance(self.padding, str):
            totals = [
                d * (k - 1) if self.padding == "same" else 0
                for d, k in zip(self.dilation, self.kernel_size, strict=True)
            ]
            return tuple(amount for total in reversed(totals) for amount in (total // 2, total - total // 2))
        return tuple(amount for amount in reversed(self.padding) for _ in range(2))


class Conv1d(_Forward):
    """Cross-correlation of (N, C, L) or (C, L) with ``weight`` (out, in / groups, k); see :func:`functional.conv1d`."""

    rank = 1


class Conv2d(_Forward):
    """Cross-correlation of (N, C, H, W) or (C, H, W) with ``weight`` (out, in / groups, kH, kW)."""

    rank = 2


class Conv3d(_Forward):
    """Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with ``weight`` (out, in / groups, kD, kH, kW)."""

    rank = 3


class _Transposed(_Convolution):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.output_padding = per_axis(output_padding, self.rank)

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        extra = self.output_padding if output_size is None else self._reaching(input, output_size)
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.rank - 1]
        op = settled(
            function,
            stride=self.stride,
            padding=self.padding,
            output_padding=extra,
            groups=self.groups,
            dilation=self.dilation,
        )
        return op(*self._operands(input))

    def _reaching(self, input: Any, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding that gives the spatial sizes ``output_size``."""
        sizes = tuple(output_size)[-self.rank :]
        assert not isinstance(self.padding, str)
        axes = zip(input.shape[-self.rank :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in axes]
        extra = tuple(size - smallest for size, smallest in zip(sizes, least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = [smallest + s - 1 for smallest, s in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"requested an output size of {list(sizes)}, but valid sizes range from {least} to {most} (for an "
                f"input of {list(input.shape[-self.rank :])})"
            )
        return extra


class ConvTranspose1d(_Transposed):
    """The transpose of :class:`Conv1d`; ``weight`` is (in, out / groups, k)."""

    rank = 1


class ConvTranspose2d(_Transposed):
    """The transpose of :class:`Conv2d`; ``weight`` is (in, out / groups, kH, kW)."""

    rank = 2


class ConvTranspose3d(_Transposed):
    """The transpose of :class:`Conv3d`; ``weight`` is (in, out / groups, kD, kH, kW)."""

    rank = 3


# --- pooling ----------------------------------------------------------------------------------------------------------


class _Pool(Module):
    """Applies a function of nn.functional with the settings that it was made with."""

    function: Any
    said: tuple[str, ...]

    def __init__(self, **settings: Any):
        super().__init__()
        self._settings = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)

    def forward(self, input: Any) -> Any:
        settings = {name: getattr(self, name) for name in self._settings}
        return settled(type(self).function, **settings)(input)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.said)


class _MaxPool(_Pool):
    said = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        if return_indices:
            raise NotImplementedError(f"{type(self).__name__}: return_indices is not supported")
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """The maximum of each window of (N, C, L) or (C, L)."""

    function = F.max_pool1d


class MaxPool2d(_MaxPool):
    """The maximum of each window of (N, C, H, W) or (C, H, W)."""

    function = F.max_pool2d


class MaxPool3d(_MaxPool):
    """The maximum of each window of (N, C, D, H, W) or (C, D, H, W)."""

    function = F.max_pool3d


class _AvgPool(_Pool):
    said = ("kernel_size", "stride", "padding")
    divisor_override: int | None = None

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            **({} if divisor_override is None else {"divisor_override": divisor_override}),
        )


class AvgPool1d(_AvgPool):
    """The mean of each window of (N, C, L) or (C, L)."""

    function = F.avg_pool1d

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        stride = per_axis(kernel_size if stride is None else stride, 1)
        super().__init__(per_axis(kernel_size, 1), stride, per_axis(padding, 1), ceil_mode, count_include_pad)


class AvgPool2d(_AvgPool):
    """The mean of each window of (N, C, H, W) or (C, H, W)."""

    function = F.avg_pool2d


class AvgPool3d(_AvgPool):
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W)."""

    function = F.avg_pool3d


class _AdaptivePool(_Pool):
    said = ("output_size",)

    def __init__(self, output_size: Any):
        super().__init__(output_size=output_size)


class AdaptiveAvgPool1d(_AdaptivePool):
    """Means over windows that divide (N, C, L) evenly into ``output_size``."""

    function = F.adaptive_avg_pool1d


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means over windows that divide (N, C, H, W) evenly into ``output_size``."""

    function = F.adaptive_avg_pool2d


class AdaptiveAvgPool3d(_AdaptivePool):
    """Means over windows that divide (N, C, D, H, W) evenly into ``output_size``."""

    function = F.adaptive_avg_pool3d


class AdaptiveMaxPool1d(_AdaptivePool):
    """The largest elements of windows that divide (N, C, L) evenly into ``output_size``."""

    function = F.adaptive_max_pool1d


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest elements of windows that divide (N, C, H, W) evenly into ``output_size``."""

    function = F.adaptive_max_pool2d


class AdaptiveMaxPool3d(_AdaptivePool):
    """The largest elements of windows that divide (N, C, D, H, W) evenly into ``output_size``."""

    function = F.adaptive_max_pool3d


# --- embedding, dropout, shape ----------------------------------------------------------------------------------------


class Embedding(Module):
    """Rows of ``weight`` (num_embeddings, embedding_dim) at integers (*): (*, embedding_dim); first values N(0, 1)."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise AssertionError("Padding_idx must be within num_embeddings")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx % num_embeddings if padding_idx is not None else None
        self.weight = init.normal_(blank((num_embeddings, embedding_dim), device, dtype))
        if padding_idx is not None:
            with no_grad():
                self.weight.select(0, padding_idx).zero_()

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None) -> "Embedding":
        """An Embedding with these rows, frozen by default."""
        module = cls(*embeddings.shape, padding_idx=padding_idx)
        module.weight = Parameter(embeddings, requires_grad=not freeze)
        return module

    def forward(self, input: Any) -> Any:
        return settled(F.embedding, padding_idx=self.padding_idx)(input, self.weight)

    def extra_repr(self) -> str:
        padding = f", padding_idx={self.padding_idx}" if self.padding_idx is not None else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _dropped(input: Any, key: Any, *, p: float, free: int | None) -> Any:
    """Dropout; of whole channels where only the first ``free`` axes are drawn for."""
    if free is None:
        return F.dropout(input, p, key=key)
    mask = F.dropout((input[(..., *[slice(1)] * (input.ndim - free))] * 0 + 1), p, key=key)
    return input * mask


class Dropout(Module):
    """When training, zeroes each element with probability p and divides the others by 1 - p.

    Draws from this thread's generator (``tape.manual_seed``); in a traced program from the key that
    :func:`functional_call` is given.
    """

    free: int | None = None

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Any:
        if not self.training or self.p == 0:
            return input
        return settled(_dropped, p=self.p, free=self.free)(input, next_key())

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout1d(Dropout):
    """Dropout of whole channels of (N, C, L)."""

    free = 2


class Dropout2d(Dropout):
    """Dropout of whole channels of (N, C, H, W)."""

    free = 2


class Dropout3d(Dropout):
    """Dropout of whole channels of (N, C, D, H, W)."""

    free = 2


class Flatten(Module):
    """Makes one axis of the axes from ``start_dim`` to ``end_dim``."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Makes axes of sizes ``unflattened_size`` of the axis ``dim``."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Any) -> Any:
        axis = self.dim % input.ndim
        return input.reshape(*input.shape[:axis], *self.unflattened_size, *input.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Module):
    """Resizes the spatial axes; see :func:`functional.interpolate`."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ):
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def forward(self, input: Any) -> Any:
        size = tuple(self.size) if isinstance(self.size, list) else self.size
        op = settled(
            F.interpolate, size=size, scale_factor=self.scale_factor, mode=self.mode, align_corners=self.align_corners
        )
        return op(input)

    def extra_repr(self) -> str:
        what = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode='{self.mode}'"
