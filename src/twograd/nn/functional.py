"""``torch.nn.functional`` on JAX arrays: PyTorch's names, arguments, defaults, layouts and reductions.

What flows in: arrays, tape Tensors, graph Symbols or JAX tracers. What flows out: the same kind. Each function here is
an ordinary JAX function behind :func:`twograd._protocol.front_end`; none knows anything of an engine. Read
:func:`linear` and :func:`cross_entropy` first; convolutions of all ranks are :func:`_convolution`, pooling windows are
:func:`_Windows`.

Deviations from PyTorch, each forced by pure functions, and repeated where it applies:

- What is random takes an explicit JAX key (:func:`dropout`, :func:`scaled_dot_product_attention`).
- Nothing is written in place: :func:`batch_norm` leaves running statistics alone,
  :func:`batch_norm_statistics` returns the new ones. There is no ``inplace``.
- A class index out of range cannot raise in a compiled program: the loss, or the embedding's row, is NaN.
- :func:`one_hot` needs ``num_classes``, since a shape cannot depend on values.
- Losses raise where input and target differ in shape, where PyTorch warns and broadcasts.
- The deprecated ``size_average`` and ``reduce`` do not exist, so what follows them is keyword-only.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from twograd._protocol import front_end

# Anything that a front-end function takes: an array, a tracer, a Tensor, a Symbol.
Array: TypeAlias = Any
PerAxis: TypeAlias = int | Sequence[int]
Reduction: TypeAlias = Literal["none", "mean", "sum"]


# --- what the functions share -----------------------------------------------------------------------------------------


def _per_axis(name: str, argument: str, value: PerAxis, rank: int) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all or a sequence of them."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) == 1:
        values *= rank
    if len(values) != rank:
        raise ValueError(f"{name}: {argument} must be an integer or {rank} of them, got {value!r}")
    return tuple(operator.index(v) for v in values)


def _batched(name: str, input: Array, rank: int) -> Array:
    """``input`` with a batch axis: (N, C, *spatial), from that or from (C, *spatial)."""
    if input.ndim == rank + 2:
        return input
    if input.ndim == rank + 1:
        return lax.expand_dims(input, (0,))
    raise ValueError(
        f"{name}: expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input, (N, C, {rank} spatial axes), "
        f"but got input of size {list(input.shape)}"
    )


def _like(out: Array, input: Array, rank: int) -> Array:
    """``out`` without the batch axis if ``input`` had none."""
    return out if input.ndim == rank + 2 else lax.squeeze(out, (0,))


def _same_dtype(name: str, **operands: Array) -> None:
    found = {key: operand.dtype for key, operand in operands.items() if operand is not None}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{key} {dtype}" for key, dtype in found.items())
        raise TypeError(f"{name}: expected operands of one dtype, but got {listed}. Convert them with .astype().")


def _same_shape(name: str, input: Array, target: Array) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: the target's size {list(target.shape)} differs from the input's {list(input.shape)}. "
            "Reshape or broadcast the target to the input's size."
        )


def _floating(name: str, input: Array) -> None:
    if not jnp.issubdtype(input.dtype, np.inexact):
        raise TypeError(
            f"{name}: expected floating-point input, but got {input.dtype}. Convert it with .astype(float)."
        )


def _along(vector: Array, axis: int, rank: int) -> Array:
    """A vector laid along ``axis`` of an array of ``rank`` axes, to be broadcast over the others."""
    return lax.broadcast_in_dim(vector, [vector.shape[0] if i == axis else 1 for i in range(rank)], (axis,))


def _channels(name: str, argument: str, vector: Array, count: int) -> None:
    if vector.shape != (count,):
        raise ValueError(f"{name}: expected {argument} of size [{count}], one per channel, got {list(vector.shape)}")


def _reduced(name: str, loss: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss
    if reduction == "mean":
        return jnp.mean(loss)
    if reduction == "sum":
        return jnp.sum(loss)
    raise ValueError(f"{name}: {reduction!r} is not a valid value for reduction; use 'none', 'mean' or 'sum'")


def _where(condition: Array, x: Array, y: Array) -> Array:
    """``jnp.where`` without a nested jit; of the two cases one may be a Python number."""
    if isinstance(x, (int, float)):
        x = lax.full_like(y, x)
    elif isinstance(y, (int, float)):
        y = lax.full_like(x, y)
    return lax.select(condition, x, y)


def _absolute(x: Array) -> Array:
    """abs(x) with derivative 0 at 0, as in PyTorch; JAX's is 1."""
    return x * lax.sign(x)


# --- linear maps and convolutions -------------------------------------------------------------------------------------


@front_end
def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b: input (*, in), weight (out, in) or (in,), bias (out,) or () -> (*, out) or (*)."""
    _same_dtype("linear", input=input, weight=weight, bias=bias)
    if weight.ndim not in (1, 2) or input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"linear: input of size {list(input.shape)} and weight of size {list(weight.shape)} cannot be multiplied; "
            "the input's last axis must have the weight's in_features, weight being (out_features, in_features)"
        )
    out = lax.dot_general(input, weight, (((input.ndim - 1,), (weight.ndim - 1,)), ((), ())))
    return out if bias is None else lax.add(out, _along(bias, out.ndim - 1, out.ndim) if bias.ndim else bias)


@front_end
def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """Cross-correlation: input (N, C, L) or (C, L), weight (out, C / groups, k), bias (out,) -> (N, out, L')."""
    return _convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@front_end
def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """Cross-correlation: input (N, C, H, W) or (C, H, W), weight (out, C / groups, kH, kW), bias (out,).

    ``padding`` is per side, or "valid", or "same" (stride 1 only; an odd remainder goes to the right, as in PyTorch).
    Returns (N, out, H', W') with H' = ⌊(H + 2 padding - dilation (kH - 1) - 1) / stride⌋ + 1.
    """
    return _convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@front_end
def conv3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis | str = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """Cross-correlation: input (N, C, D, H, W) or without N, weight (out, C / groups, kD, kH, kW), bias (out,)."""
    return _convolution("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def _convolution(name, rank, input, weight, bias, stride, padding, dilation, groups):
    x = _batched(name, input, rank)
    _check_convolution(name, rank, x, weight, bias, groups)
    strides = _per_axis(name, "stride", stride, rank)
    dilations = _per_axis(name, "dilation", dilation, rank)
    pads = _padding_pairs(name, padding, weight.shape[2:], strides, dilations)
    for length, (low, high), k, d in zip(x.shape[2:], pads, weight.shape[2:], dilations, strict=True):
        if low + length + high < d * (k - 1) + 1:
            raise ValueError(
                f"{name}: input{list(x.shape)} with padding {padding!r} is smaller than the kernel "
                f"{list(weight.shape[2:])} with dilation {dilations}; the output would be empty"
            )
    out = lax.conv_general_dilated(x, weight, strides, pads, rhs_dilation=dilations, feature_group_count=groups)
    out = out if bias is None else lax.add(out, _along(bias, 1, rank + 2))
    return _like(out, input, rank)


def _check_convolution(name, rank, x, weight, bias, groups):
    _same_dtype(name, input=x, weight=weight, bias=bias)
    if weight.ndim != rank + 2:
        raise ValueError(
            f"{name}: expected {rank + 2}D weight, (out_channels, in_channels / groups, {rank} kernel sizes), "
            f"but got weight of size {list(weight.shape)}"
        )
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"{name}: groups={groups} must divide the {weight.shape[0]} output channels of the weight")
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"{name}: given groups={groups}, weight of size {list(weight.shape)}, expected input{list(x.shape)} to "
            f"have {weight.shape[1] * groups} channels, but got {x.shape[1]} channels instead. The layout is (N, C, "
            "spatial axes); move a last channel axis to position 1."
        )
    if bias is not None:
        _channels(name, "bias", bias, weight.shape[0])


def _padding_pairs(name, padding, kernel, strides, dilations):
    """(low, high) per spatial axis, from PyTorch's integers or "same" or "valid"."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        if any(stride != 1 for stride in strides):
            raise ValueError(f"{name}: padding='same' is not supported for strided convolutions, got stride {strides}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding must be 'same', 'valid' or integers, got {padding!r}")
    return [(p, p) for p in _per_axis(name, "padding", padding, len(kernel))]


@front_end
def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """The transpose of :func:`conv1d`: input (N, C, L) or (C, L), weight (C, out / groups, k), bias (out,)."""
    settings = (stride, padding, output_padding, groups, dilation)
    return _transposed_convolution("conv_transpose1d", 1, input, weight, bias, *settings)


@front_end
def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """The transpose of :func:`conv2d`: input (N, C, H, W) or (C, H, W), weight (C, out / groups, kH, kW), bias (out,).

    Returns (N, out, H', W') with H' = (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1.
    """
    settings = (stride, padding, output_padding, groups, dilation)
    return _transposed_convolution("conv_transpose2d", 2, input, weight, bias, *settings)


@front_end
def conv_transpose3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """The transpose of :func:`conv3d`: input (N, C, D, H, W) or without N, weight (C, out / groups, kD, kH, kW)."""
    settings = (stride, padding, output_padding, groups, dilation)
    return _transposed_convolution("conv_transpose3d", 3, input, weight, bias, *settings)


def _transposed_convolution(name, rank, input, weight, bias, stride, padding, output_padding, groups, dilation):
    """A convolution of the input, spread by ``stride``, with the flipped kernel."""
    x = _batched(name, input, rank)
    if weight.ndim == rank + 2 and (groups < 1 or weight.shape[0] % groups):
        raise ValueError(f"{name}: groups={groups} must divide the {weight.shape[0]} input channels of the weight")
    if weight.ndim != rank + 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(
            f"{name}: weight of size {list(weight.shape)}, (in_channels, out_channels / groups, {rank} kernel sizes), "
            f"does not fit input{list(x.shape)}, which has {x.shape[1]} channels"
        )
    # (g c, out / g, k...) -> (g out / g, c, k...), the kernel flipped.
    c, out_per_group, *kernel = weight.shape[0] // groups, *weight.shape[1:]
    flipped = lax.rev(weight, tuple(range(2, rank + 2))).reshape(groups, c, out_per_group, *kernel)
    kernels = jnp.swapaxes(flipped, 1, 2).reshape(groups * out_per_group, c, *kernel)
    _check_convolution(name, rank, x, kernels, bias, groups)
    strides = _per_axis(name, "stride", stride, rank)
    dilations = _per_axis(name, "dilation", dilation, rank)
    extra = _per_axis(name, "output_padding", output_padding, rank)
    if any(e and e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"{name}: output_padding {extra} must be smaller than stride {strides} or dilation {dilations}"
        )
    pads = zip(kernel, dilations, _per_axis(name, "padding", padding, rank), extra, strict=True)
    out = lax.conv_general_dilated(
        x,
        kernels,
        (1,) * rank,
        [(d * (k - 1) - p, d * (k - 1) - p + e) for k, d, p, e in pads],
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=groups,
    )
    out = out if bias is None else lax.add(out, _along(bias, 1, rank + 2))
    return _like(out, input, rank)


# --- pooling ----------------------------------------------------------------------------------------------------------


class _Windows(NamedTuple):
    """The windows of a pooling, one entry per spatial axis; ``padding`` is (low, high), high with ceil_mode's part."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, name, x, rank, kernel_size, stride, padding, dilation, ceil_mode):
        sizes = _per_axis(name, "kernel_size", kernel_size, rank)
        # PyTorch takes an empty stride, too, for "the kernel's size".
        strides = sizes if stride is None or stride == [] else _per_axis(name, "stride", stride, rank)
        dilations = _per_axis(name, "dilation", dilation, rank)
        lows = _per_axis(name, "padding", padding, rank)
        if any(low < 0 or low > size // 2 for low, size in zip(lows, sizes, strict=True)):
            raise ValueError(f"{name}: padding {lows} must be at least 0 and at most half of the kernel size {sizes}")
        if min(*sizes, *strides, *dilations) < 1:
            raise ValueError(f"{name}: kernel_size {sizes}, stride {strides}, dilation {dilations} must be at least 1")
        highs, counts = [], []
        for length, size, step, spread, low in zip(x.shape[2:], sizes, strides, dilations, lows, strict=True):
            reach = spread * (size - 1) + 1
            slack = length + 2 * low - reach
            count = (-(-slack // step) if ceil_mode else slack // step) + 1
            # A window that would start in the padding on the right is dropped.
            if ceil_mode and (count - 1) * step >= length + low:
                count -= 1
            if slack < 0 and not (ceil_mode and count >= 1):
                raise ValueError(
                    f"{name}: input{list(x.shape)} with padding {lows} is smaller than the kernel {sizes} "
                    f"(dilation {dilations}); the output would be empty"
                )
            counts.append(count)
            highs.append(max((count - 1) * step + reach - length - low, 0))
        return cls(sizes, strides, dilations, tuple(zip(lows, highs, strict=True)), tuple(counts))

    def reduce(self, x: Array, initial: Any, computation: Callable[..., Any]) -> Array:
        one, none = (1, 1), ((0, 0), (0, 0))
        return lax.reduce_window(
            x, initial, computation, (*one, *self.sizes), (*one, *self.strides), (*none, *self.padding)
        )

    def taps(self, x: Array, fill: Any):
        """Per position in the window, the elements of all windows at that position, in row-major order."""
        x = lax.pad(x, x.dtype.type(fill), [(0, 0, 0), (0, 0, 0), *((low, high, 0) for low, high in self.padding)])
        for position in np.ndindex(*self.sizes):
            starts = [p * d for p, d in zip(position, self.dilations, strict=True)]
            ends = [s + (c - 1) * step + 1 for s, c, step in zip(starts, self.counts, self.strides, strict=True)]
            yield lax.slice(x, (0, 0, *starts), (*x.shape[:2], *ends), (1, 1, *self.strides))


@front_end
def max_pool1d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest element of each window: input (N, C, L) or (C, L)."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


@front_end
def max_pool2d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest element of each window: input (N, C, H, W) or (C, H, W) -> (N, C, H', W').

    ``stride`` defaults to ``kernel_size``; the padding counts as -∞. Of equal elements the first gets the gradient.
    H' = ⌊(H + 2 padding - dilation (k - 1) - 1) / stride⌋ + 1, or ⌈⌉ with ``ceil_mode``.
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


@front_end
def max_pool3d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest element of each window: input (N, C, D, H, W) or (C, D, H, W)."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def _max_pool(name, rank, input, kernel_size, stride, padding, dilation, ceil_mode):
    x = _batched(name, input, rank)
    windows = _Windows.of(name, x, rank, kernel_size, stride, padding, dilation, ceil_mode)
    lowest = -np.inf if jnp.issubdtype(x.dtype, np.inexact) else jnp.iinfo(x.dtype).min
    if set(windows.dilations) == {1}:
        out = windows.reduce(x, x.dtype.type(lowest), lax.max)
    else:  # XLA has no derivative of a dilated window's maximum, so the windows' elements are compared one by one.
        out = functools.reduce(_first_largest, windows.taps(x, lowest))
    return _like(out, input, rank)


def _first_largest(best, x):
    """The larger of two, the first of equals, NaN if either is."""
    return lax.select(lax.bitwise_or(lax.gt(x, best), lax.ne(x, x)), x, best)


@front_end
def avg_pool1d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The mean of each window: input (N, C, L) or (C, L)."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@front_end
def avg_pool2d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window: input (N, C, H, W) or (C, H, W) -> (N, C, H', W').

    ``stride`` defaults to ``kernel_size``. With ``count_include_pad`` the zeros of ``padding`` count in the mean (those
    that ``ceil_mode`` adds never do); ``divisor_override`` divides the windows' sums instead of their sizes.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@front_end
def avg_pool3d(
    input: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window: input (N, C, D, H, W) or (C, D, H, W); see :func:`avg_pool2d`."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _avg_pool(name, rank, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor):
    _floating(name, input)
    x = _batched(name, input, rank)
    windows = _Windows.of(name, x, rank, kernel_size, stride, padding, 1, ceil_mode)
    blocks = [c * s == n for c, s, n in zip(windows.counts, windows.sizes, x.shape[2:], strict=True)]
    if all(blocks) and windows.strides == windows.sizes and divisor is None:
        return _like(_block_means(x, windows.counts), input, rank)  # the windows tile the input
    if divisor == 0:
        raise ValueError(f"{name}: divisor_override must not be 0")
    sums = windows.reduce(x, x.dtype.type(0), lax.add)
    divisors = divisor if divisor is not None else _window_sizes(windows, x.shape[2:], count_include_pad)
    return _like(sums / jnp.asarray(divisors, x.dtype), input, rank)


def _window_sizes(windows, lengths, count_include_pad):
    """How many elements each window counts: of the output's spatial shape, or one number if all are the same."""
    per_axis = []
    for i, length in enumerate(lengths):
        low = windows.padding[i][0]
        first, last = (-low, length + low) if count_include_pad else (0, length)
        starts = np.arange(windows.counts[i]) * windows.strides[i] - low
        per_axis.append(np.minimum(starts + windows.sizes[i], last) - np.maximum(starts, first))
    sizes = functools.reduce(np.multiply.outer, per_axis)
    return sizes.flat[0] if (sizes == sizes.flat[0]).all() else sizes


def _block_means(x, counts):
    """The mean of each block of ``x``, cut into ``counts`` equal blocks along its spatial axes."""
    split = [part for n, count in zip(x.shape[2:], counts, strict=True) for part in (count, n // count)]
    return jnp.mean(x.reshape(*x.shape[:2], *split), tuple(range(3, 3 + len(split), 2)))


@front_end
def adaptive_avg_pool1d(input: Array, output_size: PerAxis) -> Array:
    """The means of ``output_size`` windows that cover the input evenly: (N, C, L) or (C, L) -> (N, C, output_size)."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


@front_end
def adaptive_avg_pool2d(input: Array, output_size: int | Sequence[int | None] | None) -> Array:
    """The means of windows that cover the input evenly: input (N, C, H, W) or (C, H, W) -> (N, C, *output_size).

    Window i of n over a length L is [⌊i L / n⌋, ⌈(i + 1) L / n⌉); None keeps an axis as it is.
    """
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


@front_end
def adaptive_avg_pool3d(input: Array, output_size: int | Sequence[int | None] | None) -> Array:
    """The means of windows that cover the input evenly: input (N, C, D, H, W) or (C, D, H, W)."""
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def _adaptive_avg_pool(name, rank, input, output_size):
    _floating(name, input)
    x = _batched(name, input, rank)
    counts = _adaptive_counts(name, rank, x, output_size)
    if all(n % count == 0 for n, count in zip(x.shape[2:], counts, strict=True)):
        return _like(_block_means(x, counts), input, rank)
    for axis, count in enumerate(counts, start=2):
        x = _along_axis(x, axis, _evenly_covering(x.shape[axis], count))
    return _like(x, input, rank)


def _adaptive_counts(name, rank, x, output_size):
    """How many windows are asked for along each spatial axis."""
    asked = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(asked) != rank:
        raise ValueError(f"{name}: output_size must be an integer or {rank} of them, got {output_size!r}")
    counts = [n if count is None else operator.index(count) for n, count in zip(x.shape[2:], asked, strict=True)]
    if min(counts) < 1:
        raise ValueError(f"{name}: output_size must be at least 1, got {output_size!r}")
    return counts


def _evenly_covering(length, count):
    """The (count, length) matrix of the means that adaptive pooling takes along one axis."""
    i, position = np.arange(count)[:, None], np.arange(length)
    inside = (position >= i * length // count) & (position < -(-(i + 1) * length // count))
    return inside / inside.sum(1, keepdims=True)


def _along_axis(x, axis, matrix):
    """``matrix`` (new length, length) applied along one axis of ``x``."""
    return jnp.moveaxis(jnp.tensordot(x, jnp.asarray(matrix, x.dtype), (axis, 1)), -1, axis)


@front_end
def adaptive_max_pool1d(input: Array, output_size: PerAxis) -> Array:
    """The largest elements of ``output_size`` windows that cover the input evenly: (N, C, L) or (C, L)."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size)


@front_end
def adaptive_max_pool2d(input: Array, output_size: int | Sequence[int | None] | None) -> Array:
    """The largest elements of windows that cover the input evenly; see :func:`adaptive_avg_pool2d`. Of equal elements
    the first gets the gradient."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size)


@front_end
def adaptive_max_pool3d(input: Array, output_size: int | Sequence[int | None] | None) -> Array:
    """The largest elements of windows that cover the input evenly: input (N, C, D, H, W) or (C, D, H, W)."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size)


def _adaptive_max_pool(name, rank, input, output_size):
    x = _batched(name, input, rank)
    counts = _adaptive_counts(name, rank, x, output_size)
    for axis, count in reversed(list(enumerate(counts, start=2))):  # so the first of equals is that in row-major order
        i, length = np.arange(count), x.shape[axis]
        starts, ends = i * length // count, -(-(i + 1) * length // count)
        # Windows of one size: shorter ones repeat their last element.
        positions = np.minimum(starts[:, None] + np.arange((ends - starts).max()), ends[:, None] - 1)
        windows = jnp.take(x, positions, axis)
        largest = jnp.argmax(windows, axis + 1, keepdims=True)
        x = jnp.squeeze(jnp.take_along_axis(windows, largest, axis + 1), axis + 1)
    return _like(x, input, rank)


# --- activations ------------------------------------------------------------------------------------------------------


@front_end
def relu(input: Array) -> Array:
    """max(x, 0), elementwise; its derivative at 0 is 0, and is told from the result."""
    return _where(lax.le(input, input.dtype.type(0)), 0, input)


@front_end
def leaky_relu(input: Array, negative_slope: float = 0.01) -> Array:
    """x where x > 0, else negative_slope · x (the derivative at 0 is negative_slope, as in PyTorch)."""
    return lax.select(input > 0, input, input * negative_slope)


@front_end
def elu(input: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else α (eˣ - 1). Clevert, Unterthiner and Hochreiter, 2015 (arXiv:1511.07289)."""
    positive = input > 0
    # The branch that is not taken must not overflow: 0 · ∞ would be a NaN in the gradient.
    return lax.select(positive, input, alpha * lax.expm1(_where(positive, 0, input)))


@front_end
def selu(input: Array) -> Array:
    """scale · elu(x, α) with the constants of Klambauer et al., 2017 (arXiv:1706.02515), appendix A1."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * elu(input, alpha)


@front_end
def gelu(input: Array, approximate: Literal["none", "tanh"] = "none") -> Array:
    """x Φ(x), Φ the normal distribution function, or Hendrycks and Gimpel's tanh form of it (arXiv:1606.08415)."""
    _floating("gelu", input)
    if approximate == "none":
        return 0.5 * input * (1 + lax.erf(input * math.sqrt(0.5)))
    if approximate == "tanh":
        return 0.5 * input * (1 + lax.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


@front_end
def silu(input: Array) -> Array:
    """x · sigmoid(x), elementwise."""
    return input * lax.logistic(input)


@front_end
def sigmoid(input: Array) -> Array:
    """1 / (1 + e⁻ˣ), elementwise."""
    return lax.logistic(input)


@front_end
def tanh(input: Array) -> Array:
    """The hyperbolic tangent, elementwise."""
    return lax.tanh(input)


@front_end
def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(β x)) / β, and x where β x > threshold."""
    scaled = input * beta
    return lax.select(scaled > threshold, input, _softplus(scaled) / beta)


def _softplus(x):
    """log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|): no overflow, and right derivatives of every order at 0."""
    positive = x > 0
    return _where(positive, x, 0) + lax.log1p(lax.exp(lax.select(positive, -x, x)))


@front_end
def logsigmoid(input: Array) -> Array:
    """log(sigmoid(x)), elementwise, without overflow."""
    return -_softplus(-input)


@front_end
def hardtanh(input: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x clamped to [min_val, max_val]; the derivative at and beyond the bounds is 0."""
    return lax.clamp(jnp.asarray(min_val, input.dtype), input, jnp.asarray(max_val, input.dtype))


@front_end
def relu6(input: Array) -> Array:
    """min(max(x, 0), 6), elementwise."""
    return hardtanh(input, 0.0, 6.0)


@front_end
def glu(input: Array, dim: int = -1) -> Array:
    """a · sigmoid(b), a and b being the halves of the input along ``dim``, whose length must be even."""
    if input.ndim == 0 or input.shape[dim] % 2:
        raise ValueError(f"glu: the axis to halve must have an even length, got input{list(input.shape)}, dim={dim}")
    a, b = jnp.split(input, 2, dim)
    return a * lax.logistic(b)


@front_end
def softmax(input: Array, dim: int) -> Array:
    """exp(x) / Σ exp(x) along ``dim``."""
    _floating("softmax", input)
    exponentials = lax.exp(_shifted(input, dim))
    return lax.div(exponentials, jnp.sum(exponentials, dim, keepdims=True))


@front_end
def log_softmax(input: Array, dim: int) -> Array:
    """log(softmax(x)) along ``dim``."""
    _floating("log_softmax", input)
    shifted = _shifted(input, dim)
    return lax.sub(shifted, lax.log(jnp.sum(lax.exp(shifted), dim, keepdims=True)))


def _shifted(x, axis):
    """``x`` minus its maximum along an axis. The maximum cancels in every softmax, so it has no derivative here."""
    return lax.sub(x, jnp.max(lax.stop_gradient(x), axis, keepdims=True))


# --- losses -----------------------------------------------------------------------------------------------------------


@front_end
def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """-log softmax(input) at the target class, or averaged over the target's probabilities.

    input: unnormalised, (C,), (N, C) or (N, C, d1, ...). target: class indices, integers of the input's shape without
    C; or probabilities, of the input's shape and a floating-point type. weight: (C,), a factor per class. With
    ``label_smoothing`` ε the target is mixed with the uniform distribution: (1 - ε) target + ε / C
    (Szegedy et al., 2015, arXiv:1512.00567). The mean over class indices is weighted, and leaves out targets equal to
    ``ignore_index``.

    A class index out of range raises in PyTorch; here, where values are not known when a program is compiled, the loss
    is NaN.
    """
    _floating("cross_entropy", input)
    axis = _class_axis("cross_entropy", input)
    shifted = _shifted(input, axis)
    log_normalizer = lax.log(jnp.sum(lax.exp(shifted), axis))
    if weight is not None:
        _channels("cross_entropy", "weight", weight, input.shape[axis])
    if jnp.issubdtype(target.dtype, np.floating):
        _same_shape("cross_entropy", input, target)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / input.shape[axis]
        if weight is not None:
            target = target * _along(weight, axis, input.ndim)
        losses = log_normalizer * jnp.sum(target, axis) - jnp.sum(target * shifted, axis)
        # PyTorch's mean is over the batch and the further axes, whatever the weights.
        return _reduced("cross_entropy", losses, reduction)
    picked, class_weight, kept = _at_class("cross_entropy", shifted, target, weight, ignore_index, axis)
    losses = lax.sub(log_normalizer, picked)
    if weight is not None:
        losses = losses * class_weight
    if label_smoothing:
        if weight is None:
            smooth = log_normalizer * input.shape[axis] - jnp.sum(shifted, axis)
        else:
            weights = _along(weight, axis, input.ndim)
            smooth = log_normalizer * jnp.sum(weight) - jnp.sum(shifted * weights, axis)
        losses = losses * (1 - label_smoothing) + smooth * (label_smoothing / input.shape[axis])
    return _weighted("cross_entropy", losses, class_weight, kept, reduction)


@front_end
def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Array:
    """Minus the input at the target class: input, log-probabilities (C,), (N, C) or (N, C, d1, ...); target, integers.

    The mean is weighted by ``weight`` (C,) and leaves out targets equal to ``ignore_index``. A class index out of range
    gives NaN.
    """
    _floating("nll_loss", input)
    axis = _class_axis("nll_loss", input)
    if weight is not None:
        _channels("nll_loss", "weight", weight, input.shape[axis])
    picked, class_weight, kept = _at_class("nll_loss", input, target, weight, ignore_index, axis)
    losses = -picked if weight is None else -picked * class_weight
    return _weighted("nll_loss", losses, class_weight, kept, reduction)


def _class_axis(name, input):
    if input.ndim == 0:
        raise ValueError(f"{name}: expected input (C,), (N, C) or (N, C, d1, ...), got a scalar")
    return min(1, input.ndim - 1)


def _at_class(name, values, target, weight, ignore_index, axis) -> tuple[Array, Array, Array]:
    """``values`` and ``weight`` at each target's class (NaN for a class out of range), and which targets are kept.

    Picks by a mask over the classes rather than by a gather: the mask fuses with the softmax around it, and its
    derivative is a mask, not a scatter.
    """
    if not jnp.issubdtype(target.dtype, np.integer):
        raise TypeError(f"{name}: expected a target of class indices (integers), got {target.dtype}")
    expected = tuple(n for i, n in enumerate(values.shape) if i != axis)
    if target.shape != expected:
        raise ValueError(
            f"{name}: input of size {list(values.shape)} needs class indices of size {list(expected)} (the "
            f"input's size without its class axis {axis}), but got a target of size {list(target.shape)}"
        )
    classes = lax.broadcasted_iota(target.dtype, values.shape, axis)
    chosen = lax.eq(classes, lax.broadcast_in_dim(target, values.shape, [i for i in range(values.ndim) if i != axis]))
    picked = jnp.sum(_where(chosen, values, 0), axis)
    in_range = lax.eq(target, lax.clamp(target.dtype.type(0), target, target.dtype.type(values.shape[axis] - 1)))
    picked = _where(in_range, picked, math.nan)
    class_weight: Array = None
    if weight is not None:
        class_weight = jnp.sum(
            _where(chosen, jnp.broadcast_to(_along(weight, axis, values.ndim), values.shape), 0), axis
        )
    return picked, class_weight, lax.ne(target, target.dtype.type(ignore_index))


def _weighted(name, losses, class_weight, kept, reduction):
    """The reduction of losses per target, those that are not ``kept`` left out."""
    losses = _where(kept, losses, 0)
    if reduction != "mean":
        return _reduced(name, losses, reduction)
    weights = lax.convert_element_type(kept, losses.dtype) if class_weight is None else _where(kept, class_weight, 0)
    return lax.div(jnp.sum(losses), jnp.sum(weights))


@front_end
def mse_loss(input: Array, target: Array, *, reduction: Reduction = "mean") -> Array:
    """(input - target)²; both of one shape."""
    _same_shape("mse_loss", input, target)
    return _reduced("mse_loss", lax.square(input - target), reduction)


@front_end
def l1_loss(input: Array, target: Array, *, reduction: Reduction = "mean") -> Array:
    """abs(input - target), with derivative 0 where they are equal; both of one shape."""
    _same_shape("l1_loss", input, target)
    return _reduced("l1_loss", _absolute(input - target), reduction)


@front_end
def smooth_l1_loss(input: Array, target: Array, *, reduction: Reduction = "mean", beta: float = 1.0) -> Array:
    """d² / 2β where d = abs(input - target) < β, else d - β / 2 (Girshick, 2015, arXiv:1504.08083)."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    _same_shape("smooth_l1_loss", input, target)
    distance = _absolute(input - target)
    if beta == 0:
        return _reduced("smooth_l1_loss", distance, reduction)
    losses = lax.select(distance < beta, lax.square(distance) * (0.5 / beta), distance - 0.5 * beta)
    return _reduced("smooth_l1_loss", losses, reduction)


@front_end
def huber_loss(input: Array, target: Array, *, reduction: Reduction = "mean", delta: float = 1.0) -> Array:
    """d² / 2 where d = abs(input - target) <= δ, else δ (d - δ / 2) (Huber, 1964)."""
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    _same_shape("huber_loss", input, target)
    distance = _absolute(input - target)
    losses = lax.select(distance <= delta, 0.5 * lax.square(distance), delta * (distance - 0.5 * delta))
    return _reduced("huber_loss", losses, reduction)


@front_end
def binary_cross_entropy(
    input: Array, target: Array, weight: Array | None = None, *, reduction: Reduction = "mean"
) -> Array:
    """-(t log p + (1 - t) log(1 - p)) of probabilities p; both of one shape, ``weight`` broadcast to it.

    Logarithms are cut off at -100, as in PyTorch; there the gradient is 0, where PyTorch's reaches ±1e12.
    """
    _same_shape("binary_cross_entropy", input, target)
    losses = -(target * _cut_log(input) + (1 - target) * _cut_log(1 - input))
    return _reduced("binary_cross_entropy", losses if weight is None else losses * weight, reduction)


def _cut_log(p):
    """max(log p, -100), with derivative 0 beyond the cut, also at p = 0."""
    cut = p <= math.exp(-100)
    return _where(cut, -100.0, lax.log(_where(cut, 1.0, p)))


@front_end
def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: Reduction = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """:func:`binary_cross_entropy` of sigmoid(input), without overflow; ``pos_weight`` is a factor of positive targets.

    (1 - t) x + (1 + (pos_weight - 1) t) log(1 + e⁻ˣ).
    """
    _same_shape("binary_cross_entropy_with_logits", input, target)
    softplus_of_minus = _softplus(-input)
    if pos_weight is not None:
        softplus_of_minus = softplus_of_minus * (1 + (pos_weight - 1) * target)
    losses = (1 - target) * input + softplus_of_minus
    return _reduced("binary_cross_entropy_with_logits", losses if weight is None else losses * weight, reduction)


@front_end
def kl_div(
    input: Array,
    target: Array,
    *,
    reduction: Literal["none", "mean", "sum", "batchmean"] = "mean",
    log_target: bool = False,
) -> Array:
    """Σ t (log t - input), pointwise: input, log-probabilities; target, probabilities (their logs with ``log_target``).

    "mean" divides by the number of elements, as PyTorch's does; the divergence itself is "batchmean".
    """
    _same_shape("kl_div", input, target)
    if log_target:
        losses = lax.exp(target) * (target - input)
    else:
        positive = target > 0
        losses = _where(positive, target * lax.log(_where(positive, target, 1)), 0) - target * input
    if reduction == "batchmean":
        return jnp.sum(losses) / input.shape[0]
    return _reduced("kl_div", losses, reduction)


# --- distances and norms ----------------------------------------------------------------------------------------------


@front_end
def ctc_loss(
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Connectionist temporal classification: minus the log probability of all alignments of the targets.

    ``log_probs`` (T, N, C), or (T, C), are results of :func:`log_softmax`; ``targets`` (N, S), or all in a row, are
    classes other than ``blank``. ``"mean"`` divides each loss by its target's length first. A target that is longer
    than its input allows costs infinity, or nothing with ``zero_infinity``. As in PyTorch the gradient is
    exp(log_probs) minus the posterior of each class: that of what ``log_softmax`` was given.

    Graves et al., Connectionist Temporal Classification, ICML 2006, section 4.1: the forward variable alpha.
    """
    if log_probs.ndim == 2:
        loss = ctc_loss(
            log_probs[:, None], jnp.atleast_2d(targets), jnp.reshape(jnp.asarray(input_lengths), 1),
            jnp.reshape(jnp.asarray(target_lengths), 1), blank, reduction, zero_infinity,
        )  # fmt: skip
        return loss.reshape(()) if reduction == "none" else loss
    if log_probs.ndim != 3:
        raise ValueError(f"ctc_loss: expected log_probs of size (T, N, C) or (T, C), got {list(log_probs.shape)}")
    _floating("ctc_loss", log_probs)
    steps, batch, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise ValueError(f"ctc_loss: blank must be a class, in [0, {classes}), not {blank}")
    lengths, counts = jnp.asarray(input_lengths), jnp.asarray(target_lengths)
    for name, given in (("input_lengths", lengths), ("target_lengths", counts)):
        if given.shape != (batch,):
            raise ValueError(f"ctc_loss: expected {name} of size [{batch}], got {list(given.shape)}")
    if targets.ndim == 1:  # one after the other
        where = (jnp.cumsum(counts) - counts)[:, None] + jnp.arange(targets.shape[0])
        targets = jnp.take(targets, where, mode="clip")
    never = jnp.asarray(-1e30, log_probs.dtype)  # not -inf, whose sums have no derivative

    # A target with blanks around its classes; each of these states may follow itself and the one before, and a class
    # that follows another one may skip the blank between them.
    states = jnp.full((batch, 2 * targets.shape[1] + 1), blank).at[:, 1::2].set(targets)
    skips = (states != blank) & (states != jnp.roll(states, 2, 1)) & (jnp.arange(states.shape[1]) > 1)
    emitted = jnp.take_along_axis(log_probs, jnp.broadcast_to(states, (steps, *states.shape)), 2)
    alpha = jnp.where(jnp.arange(states.shape[1]) < 2, emitted[0], never)

    def step(alpha, at):
        t, emitted = at
        before = [alpha, *(jnp.pad(alpha[:, :-k], ((0, 0), (k, 0)), constant_values=-1e30) for k in (1, 2))]
        before[2] = jnp.where(skips, before[2], never)
        after = jax.nn.logsumexp(jnp.stack(before), 0) + emitted
        return jnp.where((t < lengths)[:, None], jnp.maximum(after, never), alpha), None

    if states.shape[1] > 1:
        alpha, _ = lax.scan(step, alpha, (jnp.arange(1, steps), emitted[1:]))
        ends = jnp.stack([2 * counts, jnp.maximum(2 * counts - 1, 0)], 1)
        last = jnp.take_along_axis(alpha, ends, 1)
        last = jnp.where(jnp.stack([counts >= 0, counts > 0], 1), last, never)
        log_likelihood = jax.nn.logsumexp(last, 1)
    else:
        log_likelihood = jnp.sum(jnp.where(jnp.arange(steps)[:, None] < lengths, emitted[..., 0], 0), 0)
    total = jax.nn.logsumexp(log_probs, 2)  # zero, but for its derivative
    total = jnp.sum(jnp.where(jnp.arange(steps)[:, None] < lengths, total - lax.stop_gradient(total), 0), 0)
    impossible = log_likelihood < -1e29
    loss = jnp.where(impossible, 0.0 if zero_infinity else jnp.inf, total - log_likelihood)
    if reduction == "mean":
        loss = loss / jnp.maximum(counts, 1)
    return _reduced("ctc_loss", loss, reduction)


@front_end
def cosine_similarity(x1: Array, x2: Array, dim: int = 1, eps: float = 1e-8) -> Array:
    """x1 · x2 / (max(‖x1‖, ε) max(‖x2‖, ε)) along ``dim``; x1 and x2 are broadcast against each other."""
    x1, x2 = jnp.broadcast_arrays(x1, x2)
    norms = [lax.sqrt(jnp.maximum(jnp.sum(lax.square(x), dim), eps * eps)) for x in (x1, x2)]
    return jnp.sum(x1 * x2, dim) / (norms[0] * norms[1])


@front_end
def normalize(input: Array, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12) -> Array:
    """x / max(‖x‖ₚ, ε) along ``dim``."""
    if p == math.inf:
        norm = jnp.maximum(jnp.max(abs(input), dim, keepdims=True), eps)
    elif p == 1:
        norm = jnp.maximum(jnp.sum(_absolute(input), dim, keepdims=True), eps)
    elif p == 2:  # The square is clamped, not its root, whose slope at 0 is infinite.
        norm = lax.sqrt(jnp.maximum(jnp.sum(lax.square(input), dim, keepdims=True), eps * eps))
    else:
        norm = jnp.maximum(jnp.sum(abs(input) ** p, dim, keepdims=True) ** (1 / p), eps)
    return input / norm


# --- embeddings, dropout, attention -----------------------------------------------------------------------------------


@front_end
def one_hot(tensor: Array, num_classes: int = -1) -> Array:
    """Integers (*) -> (*, num_classes), 1 at each index and 0 elsewhere, in the integers' own dtype.

    PyTorch finds ``num_classes`` from the largest index; here a shape cannot depend on values, so it must be given. An
    index out of range gives a row of zeros, where PyTorch raises.
    """
    if not jnp.issubdtype(tensor.dtype, np.integer):
        raise TypeError(f"one_hot: expected integers, got {tensor.dtype}")
    if num_classes < 1:
        raise ValueError(f"one_hot: num_classes must be given and positive (got {num_classes}); it sets a shape")
    shape = (*tensor.shape, num_classes)
    classes = lax.broadcasted_iota(tensor.dtype, shape, tensor.ndim)
    return lax.eq(classes, lax.broadcast_in_dim(tensor, shape, range(tensor.ndim))).astype(tensor.dtype)


@front_end
def embedding(input: Array, weight: Array, padding_idx: int | None = None) -> Array:
    """Rows of ``weight`` (num_embeddings, dim) at integers ``input`` (*) -> (*, dim).

    No gradient reaches the row ``padding_idx``. An index out of range gives NaN, where PyTorch raises. ``max_norm``,
    which rewrites the weight in place, ``scale_grad_by_freq`` and ``sparse`` do not exist.
    """
    if not jnp.issubdtype(input.dtype, np.integer):
        raise TypeError(f"embedding: expected integer indices, got {input.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"embedding: expected weight (num_embeddings, dim), got size {list(weight.shape)}")
    if padding_idx is not None:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise ValueError(f"embedding: padding_idx {padding_idx} is out of range for {weight.shape[0]} embeddings")
        padding = lax.broadcasted_iota(np.int32, weight.shape, 0) == padding_idx % weight.shape[0]
        weight = lax.select(padding, lax.stop_gradient(weight), weight)
    return lax.gather(
        weight,
        lax.expand_dims(input, (input.ndim,)),
        lax.GatherDimensionNumbers(offset_dims=(input.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,)),
        (1, weight.shape[1]),
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )


@front_end
def dropout(input: Array, p: float = 0.5, training: bool = True, *, key: Array | None = None) -> Array:
    """Zeroes each element with probability p and divides the others by 1 - p; the identity if not ``training``.

    PyTorch draws from a global generator. Here ``key``, a ``jax.random`` key, must be given whenever something is
    drawn, and the same key draws the same mask. (Srivastava et al., 2014.)
    """
    return _dropped("dropout", "key", input, p if training else 0.0, key)


def _dropped(name, argument, input, p, key):
    """Dropout with the key that the caller of ``name`` gives as ``argument``."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: the probability has to be between 0 and 1, but got {p}")
    if p == 0:
        return input
    if p == 1:
        return input * 0
    if key is None:
        raise ValueError(
            f"{name}: what is random needs an explicit key, {argument}=jax.random.key(seed); split it for each call, "
            "or switch dropout off"
        )
    return _where(jax.random.bernoulli(key, 1 - p, input.shape), input / (1 - p), 0)


@front_end
def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: Array | None = None,
) -> Array:
    """softmax(query keyᵀ · scale + mask) value: query (..., L, E), key (..., S, E), value (..., S, V) -> (..., L, V).

    ``attn_mask``, broadcast to (..., L, S), is boolean (True takes part) or added to the scores; ``is_causal`` masks
    the positions above the diagonal instead. ``scale`` defaults to 1 / √E. With ``enable_gqa`` the heads (axis -3) of
    key and value are repeated to the query's. A row whose mask leaves nothing yields 0, as in PyTorch. Dropout of
    attention weights needs ``dropout_key``, a ``jax.random`` key. (Vaswani et al., 2017, arXiv:1706.03762.)
    """
    name = "scaled_dot_product_attention"
    _same_dtype(name, query=query, key=key, value=value)
    if (
        min(query.ndim, key.ndim, value.ndim) < 2
        or query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
    ):
        raise ValueError(
            f"{name}: expected query (..., L, E), key (..., S, E), value (..., S, V), got sizes {list(query.shape)}, "
            f"{list(key.shape)}, {list(value.shape)}"
        )
    if is_causal and attn_mask is not None:
        raise ValueError(f"{name}: give attn_mask or is_causal=True, not both")
    if enable_gqa:
        key, value = (jnp.repeat(x, query.shape[-3] // x.shape[-3], axis=-3) for x in (key, value))
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if attn_mask is None:
        weights = softmax(scores, -1)
    else:
        weights = _masked_softmax(scores, attn_mask)
    return jnp.matmul(_dropped(name, "dropout_key", weights, dropout_p, dropout_key), value)


def _masked_softmax(scores, mask):
    """Softmax along the last axis of what the mask leaves, 0 where it leaves nothing."""
    if mask.dtype == np.bool_:
        scores = _where(jnp.broadcast_to(mask, scores.shape), scores, -math.inf)
    else:
        scores = scores + mask
    largest = jnp.max(lax.stop_gradient(scores), -1, keepdims=True)
    nothing = largest == -math.inf
    exponentials = lax.exp(scores - _where(nothing, 0, largest))
    total = jnp.sum(exponentials, -1, keepdims=True)
    return exponentials / _where(nothing, 1, total)


# --- normalisation ----------------------------------------------------------------------------------------------------


def _moments(x, axes):
    """The mean and the (biased) variance over ``axes``, which stay with length 1, and ``x`` minus its mean."""
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    return mean, jnp.mean(lax.square(centred), axes, keepdims=True), centred


def _normalised(x, axes, eps):
    """(x - mean) / √(variance + ε) over ``axes``; in float32 at least, then back in the dtype of ``x``."""
    _, variance, centred = _moments(x.astype(jnp.promote_types(x.dtype, np.float32)), axes)
    return (centred * lax.rsqrt(variance + eps)).astype(x.dtype)


def _affine(name, x, weight, bias):
    """x · weight + bias, one factor and one summand per channel (axis 1)."""
    for argument, vector in (("weight", weight), ("bias", bias)):
        if vector is not None:
            _channels(name, argument, vector, x.shape[1])
    x = x if weight is None else x * _along(weight, 1, x.ndim)
    return x if bias is None else x + _along(bias, 1, x.ndim)


@front_end
def layer_norm(
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalises over the last axes, of sizes ``normalized_shape``, as are weight and bias (arXiv:1607.06450)."""
    _floating("layer_norm", input)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(
            f"layer_norm: given normalized_shape={list(shape)}, expected input with shape [*, "
            f"{', '.join(map(str, shape))}], but got input of size {list(input.shape)}"
        )
    for argument, operand in (("weight", weight), ("bias", bias)):
        if operand is not None and operand.shape != shape:
            raise ValueError(f"layer_norm: expected {argument} of size {list(shape)}, got {list(operand.shape)}")
    out = _normalised(input, tuple(range(-len(shape), 0)), eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@front_end
def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Normalises over each group of channels: input (N, C, *), weight and bias (C,) (arXiv:1803.08494)."""
    _floating("group_norm", input)
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ValueError(
            f"group_norm: expected input (N, C, *) with C divisible by num_groups={num_groups}, got input of size "
            f"{list(input.shape)}"
        )
    grouped = input.reshape(input.shape[0], num_groups, -1)
    return _affine("group_norm", _normalised(grouped, 2, eps).reshape(input.shape), weight, bias)


@front_end
def instance_norm(
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalises each channel of each sample: input (N, C, *), all else (C,) (arXiv:1607.08022).

    PyTorch updates the running statistics in place; here they are only read, and only with ``use_input_stats=False``,
    and ``momentum`` has no effect.
    """
    _floating("instance_norm", input)
    if not use_input_stats:
        return _with_statistics("instance_norm", input, running_mean, running_var, weight, bias, eps)
    if input.ndim < 3 or math.prod(input.shape[2:]) < 2:
        raise ValueError(
            f"instance_norm: expected input (N, C, *) with more than one spatial element, got size {list(input.shape)}"
        )
    return _affine("instance_norm", _normalised(input, tuple(range(2, input.ndim)), eps), weight, bias)


@front_end
def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalises each channel over the batch: input (N, C, *), all else (C,) (Ioffe and Szegedy, arXiv:1502.03167).

    With ``training`` by the batch's own mean and variance, else by ``running_mean`` and ``running_var``.

    PyTorch, when training, updates the running statistics in place. A pure function cannot: here they are returned by
    :func:`batch_norm_statistics`, and ``momentum`` has no effect in this one.
    """
    _floating("batch_norm", input)
    if not training:
        return _with_statistics("batch_norm", input, running_mean, running_var, weight, bias, eps)
    return _affine("batch_norm", _normalised(input, _batch_axes("batch_norm", input), eps), weight, bias)


@front_end
def batch_norm_statistics(
    input: Array, running_mean: Array, running_var: Array, momentum: float = 0.1
) -> tuple[Array, Array]:
    """The running mean and variance (C,) after a batch (N, C, *): what PyTorch's :func:`batch_norm` writes in place.

    (1 - momentum) old + momentum new, the new variance being the unbiased one. No gradient flows through them.
    """
    axes = _batch_axes("batch_norm_statistics", input)
    for argument, vector in (("running_mean", running_mean), ("running_var", running_var)):
        _channels("batch_norm_statistics", argument, vector, input.shape[1])
    mean, variance, _ = _moments(lax.stop_gradient(input).astype(running_var.dtype), axes)
    count = input.size // input.shape[1]
    news = mean.reshape(-1), variance.reshape(-1) * (count / (count - 1))
    old_mean, old_var = ((1 - momentum) * lax.stop_gradient(old) for old in (running_mean, running_var))
    return old_mean + momentum * news[0], old_var + momentum * news[1]


def _batch_axes(name, input):
    if input.ndim < 2 or input.size <= input.shape[1]:
        raise ValueError(
            f"{name}: expected more than 1 value per channel when training, got input of size {list(input.shape)}, "
            "which must be (N, C, *)"
        )
    return (0, *range(2, input.ndim))


def _with_statistics(name, input, mean, variance, weight, bias, eps):
    """(input - mean) / √(variance + ε) · weight + bias, all per channel."""
    if mean is None or variance is None:
        raise ValueError(f"{name}: expected running_mean and running_var where the batch's own are not used")
    if input.ndim < 2:
        raise ValueError(f"{name}: expected input (N, C, *), got size {list(input.shape)}")
    _channels(name, "running_mean", mean, input.shape[1])
    _channels(name, "running_var", variance, input.shape[1])
    scale = lax.rsqrt(variance + eps)
    out = (input - _along(mean, 1, input.ndim)) * _along(scale, 1, input.ndim)
    return _affine(name, out, weight, bias)


# --- padding and resizing ---------------------------------------------------------------------------------------------


@front_end
def pad(
    input: Array,
    pad: Sequence[int],
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant",
    value: float | None = None,
) -> Array:
    """Pads the last axes: ``pad`` is (left, right, top, bottom, ...), the last axis first.

    Negative amounts crop (mode "constant" only).
    """
    amounts = [operator.index(amount) for amount in pad]
    if len(amounts) % 2 or len(amounts) > 2 * input.ndim:
        raise ValueError(f"pad: expected pairs for at most {input.ndim} axes, last axis first, got {tuple(pad)}")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    pairs = [(0, 0)] * (input.ndim - len(pairs)) + pairs[::-1]
    if mode == "constant":
        fill = jnp.asarray(0 if value is None else value, input.dtype)
        return lax.pad(input, fill, [(low, high, 0) for low, high in pairs])
    if mode not in PAD_MODES:
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    for (low, high), length in zip(pairs, input.shape, strict=True):
        most = {"reflect": length - 1, "circular": length}.get(mode, max(low, high))
        if min(low, high) < 0 or max(low, high) > most:
            raise ValueError(f"pad: mode {mode!r} cannot pad an axis of length {length} by {(low, high)}")
    return jnp.pad(input, pairs, PAD_MODES[mode])


PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""PyTorch's names of the padding modes, and NumPy's."""


@front_end
def interpolate(
    input: Array,
    size: PerAxis | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: Literal["nearest", "linear", "bilinear", "trilinear", "area"] = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """Resizes the spatial axes: input (N, C, L), (N, C, H, W) or (N, C, D, H, W); give ``size`` or ``scale_factor``.

    "linear", "bilinear" and "trilinear" are for 1, 2 and 3 spatial axes; with ``align_corners`` the centres of the
    corner elements stay where they are, else the corners. There is no "bicubic" and no "nearest-exact".
    """
    rank = input.ndim - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"interpolate: expected input (N, C, 1 to 3 spatial axes), got size {list(input.shape)}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    if scale_factor is None:
        assert size is not None
        lengths = _per_axis("interpolate", "size", size, rank)
        steps = [n / length for n, length in zip(input.shape[2:], lengths, strict=True)]
    else:
        factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * rank
        lengths = tuple(math.floor(n * factor) for n, factor in zip(input.shape[2:], factors, strict=True))
        steps = [1 / factor for factor in factors]
    if mode == "area":
        return _adaptive_avg_pool("interpolate", rank, input, lengths)
    if mode not in ("nearest", ("linear", "bilinear", "trilinear")[rank - 1]):
        raise ValueError(f"interpolate: mode {mode!r} is not one for {rank} spatial axes")
    out = input
    for axis, (length, step) in enumerate(zip(lengths, steps, strict=True), start=2):
        if mode == "nearest":
            nearest = np.minimum(np.floor(np.arange(length) * step).astype(int), input.shape[axis] - 1)
            out = jnp.take(out, nearest, axis, mode="clip")
        else:
            out = _along_axis(out, axis, _linear_weights(input.shape[axis], length, step, align_corners))
    return out


def _linear_weights(length, count, step, align_corners):
    """The (count, length) matrix that interpolates linearly between the elements of one axis."""
    i = np.arange(count)
    source = i * ((length - 1) / max(count - 1, 1)) if align_corners else np.maximum((i + 0.5) * step - 0.5, 0)
    # A tent of width 1 about each source position; positions beyond the last element take that element.
    return np.maximum(1 - np.abs(np.minimum(source, length - 1)[:, None] - np.arange(length)), 0)


@front_end
def affine_grid(theta: Array, size: Sequence[int], align_corners: bool | None = None) -> Array:
    """The grid of an affine map, for :func:`grid_sample`: theta (N, 2, 3) and size (N, C, H, W) -> (N, H, W, 2), or
    theta (N, 3, 4) and size (N, C, D, H, W) -> (N, D, H, W, 3). The last axis is (x, y) or (x, y, z)."""
    rank = len(size) - 2
    if rank not in (2, 3) or theta.shape != (size[0], rank, rank + 1):
        raise ValueError(
            "affine_grid: expected theta (N, 2, 3) with size (N, C, H, W), or theta (N, 3, 4) with size "
            f"(N, C, D, H, W), got theta {list(theta.shape)} with size {list(size)}"
        )
    axes = [np.linspace(-1, 1, n) * (1 if align_corners else (n - 1) / n) if n > 1 else np.zeros(1) for n in size[2:]]
    base = np.stack([*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(size[2:])], -1)
    return jnp.einsum("...j,nij->n...i", jnp.asarray(base, theta.dtype), theta)


@front_end
def grid_sample(
    input: Array,
    grid: Array,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool | None = None,
) -> Array:
    """The input at the places that ``grid`` says: input (N, C, H, W), grid (N, H', W', 2) -> (N, C, H', W'), and alike
    for (N, C, D, H, W) and (N, D', H', W', 3).

    The last axis of the grid is (x, y) or (x, y, z), from -1 to 1: the centres of the corner elements with
    ``align_corners``, else the corners. "bilinear" is trilinear in three dimensions; there is no "bicubic".
    """
    rank = input.ndim - 2
    if rank not in (2, 3) or grid.ndim != rank + 2 or grid.shape[0] != input.shape[0] or grid.shape[-1] != rank:
        raise ValueError(
            "grid_sample: expected input (N, C, H, W) and grid (N, H', W', 2), or input (N, C, D, H, W) and grid "
            f"(N, D', H', W', 3), got {list(input.shape)} and {list(grid.shape)}"
        )
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"grid_sample: mode is 'bilinear' or 'nearest', not {mode!r}")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(f"grid_sample: padding_mode is 'zeros', 'border' or 'reflection', not {padding_mode!r}")
    lengths = input.shape[2:]
    places = [
        _unnormalised(grid[..., rank - 1 - axis], length, padding_mode, align_corners)
        for axis, length in enumerate(lengths)
    ]
    flat = input.reshape(*input.shape[:2], -1)

    def at(positions):
        """The elements at integral positions, zero outside."""
        inside = functools.reduce(operator.and_, [(p >= 0) & (p < n) for p, n in zip(positions, lengths, strict=True)])
        number: Array = 0
        for p, n in zip(positions, lengths, strict=True):
            number = number * n + jnp.clip(p, 0, n - 1).astype(int)
        found = jnp.take_along_axis(flat, number.reshape(number.shape[0], 1, -1), 2)
        return jnp.where(inside[:, None], found.reshape(*input.shape[:2], *grid.shape[1:-1]), 0)

    if mode == "nearest":
        return at([lax.stop_gradient(jnp.round(place)) for place in places])
    below = [lax.stop_gradient(jnp.floor(place)) for place in places]
    out: Array = 0
    for corner in np.ndindex(*[2] * rank):
        positions = [low + i for low, i in zip(below, corner, strict=True)]
        weights = [place - low if i else 1 - (place - low) for place, low, i in zip(places, below, corner, strict=True)]
        out = out + at(positions) * functools.reduce(operator.mul, weights)[:, None]
    return out


def _unnormalised(place, length, padding_mode, align_corners):
    """A coordinate from [-1, 1] as a position among ``length`` elements, led back into the input if asked for."""
    place = (place + 1) * ((length - 1) / 2) if align_corners else ((place + 1) * length - 1) / 2
    if padding_mode == "reflection":
        first, span = (0, length - 1) if align_corners else (-0.5, length)
        if span == 0:
            return jnp.zeros_like(place)
        distance = _absolute(place - first)
        turns = lax.stop_gradient(jnp.floor(distance / span))
        rest = distance - turns * span
        place = jnp.where(turns % 2 == 0, rest, span - rest) + first
    if padding_mode != "zeros":
        place = jnp.where(place <= 0, 0, jnp.where(place >= length - 1, length - 1, place))
    return place
