"""Products that are linear in each of two operands: dot products and convolutions.

The pullback for one operand is again such a product, of ct and the other operand, with the dimension numbers turned
round; so it can be differentiated without end. Nothing is conjugated: a complex pullback is the transpose.

On the CPU, where XLA's convolution is slow for some of these products, they are made of dot products, one for each tap
of the kernel; ``benchmarks/bench_conv_grad.py`` measures both. These many equations stand in one ``jit`` call, which is
traced once for each geometry.
"""

import functools
import math
import operator
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.lax import (
    ConvDimensionNumbers,
    RaggedDotDimensionNumbers,
    add,
    conv_general_dilated,
    convert_element_type,
    dot_general,
    full,
    pad,
    reshape,
    rev,
    stack,
    transpose,
    unstack,
)

from twograd.rules.common import constant, real_if, unlisted
from twograd.rules.registry import vjp


def as_operand(ct, aval):
    """ct in its operand's dtype: a product may be of a wider one (``preferred_element_type``), or complex."""
    return convert_element_type(real_if(ct, aval), aval.dtype)


# --- dot products -----------------------------------------------------------------------------------------------------


def dot_general_lhs(ct, lhs_aval, rhs, *, dimension_numbers, precision, preferred_element_type):
    """d(L·R)/dL = ct·Rᵀ; the axes of ct are (batch, free in L, free in R)."""
    (contracted, rhs_contracted), (batch, rhs_batch) = dimension_numbers
    rhs_free = free_axes(rhs.ndim, rhs_contracted, rhs_batch)
    numbers = ((range(ct.ndim - len(rhs_free), ct.ndim), rhs_free), (range(len(batch)), rhs_batch))
    sorted_contracted = [contracted[i] for i in np.argsort(rhs_contracted)]
    axes = batch, free_axes(lhs_aval.ndim, contracted, batch), sorted_contracted
    return as_operand(_product(ct, rhs, numbers, axes, precision, preferred_element_type), lhs_aval)


def dot_general_rhs(ct, lhs, rhs_aval, *, dimension_numbers, precision, preferred_element_type):
    """d(L·R)/dR = Lᵀ·ct."""
    (lhs_contracted, contracted), (lhs_batch, batch) = dimension_numbers
    lhs_free = free_axes(lhs.ndim, lhs_contracted, lhs_batch)
    numbers = ((lhs_free, range(len(batch), len(batch) + len(lhs_free))), (lhs_batch, range(len(batch))))
    sorted_contracted = [contracted[i] for i in np.argsort(lhs_contracted)]
    axes = batch, sorted_contracted, free_axes(rhs_aval.ndim, contracted, batch)
    return as_operand(_product(lhs, ct, numbers, axes, precision, preferred_element_type), rhs_aval)


def _product(x, y, numbers, axes, precision, preferred_element_type):
    """x·y, whose axes (batch, free in x, free in y) are ``axes`` of the result; as y·x where only that needs no
    transposition, which XLA for the CPU would put between the product and its faster kernel."""
    batch, x_free, y_free = axes
    order, other = [*batch, *x_free, *y_free], [*batch, *y_free, *x_free]
    if other == sorted(other) != order:
        (x_contracted, y_contracted), (x_batch, y_batch) = numbers
        x, y, order, numbers = y, x, other, ((y_contracted, x_contracted), (y_batch, x_batch))
    out = dot_general(x, y, numbers, precision=precision, preferred_element_type=preferred_element_type)
    return transpose(out, np.argsort(order))


def free_axes(rank, contracted, batch):
    """The axes of an operand that are neither contracted nor batch axes."""
    return [axis for axis in range(rank) if axis not in contracted and axis not in batch]


vjp(lax.dot_general_p, lhs=dot_general_lhs, rhs=dot_general_rhs)

# --- dot products by groups: an axis of L is cut into groups, each with an R or a product of its own ------------------


def ragged_dot_lhs(ct, lhs_aval, rhs, group_sizes, *, ragged_dot_dimension_numbers, precision, preferred_element_type):
    """ct·Rᵀ: each part of ct with the R of its group, or each part of R with the ct of its group.

    Where a batch axis is in groups, these make no difference. Derived like JAX's own rule, which has no derivative
    where a contracted axis is in groups, and so no second one.
    """
    how = {"precision": precision, "preferred_element_type": preferred_element_type}
    (batch, contracted, free), (rhs_batch, rhs_contracted, rhs_free), ragged = roles(
        ragged_dot_dimension_numbers, lhs_aval, rhs
    )
    groups = ragged_dot_dimension_numbers.rhs_group_dimensions
    if ragged in batch:
        numbers = ragged_dot_dimension_numbers.dot_dimension_numbers
        return dot_general_lhs(ct, lhs_aval, rhs, dimension_numbers=numbers, **how)
    if ragged in contracted:
        x, y, axes = transpose(rhs, [*rhs_batch, *rhs_contracted, *rhs_free]), ct, [*batch, *contracted, *free]
        index = contracted.index(ragged)
    else:
        x, y = ct, transpose(rhs, [*groups, *rhs_batch, *rhs_contracted, *rhs_free])
        axes, index = [*batch, *free, *contracted], free.index(ragged)
    out = dot_by_group(x, y, group_sizes, len(batch), index, len(rhs_free), how)
    return as_operand(transpose(out, np.argsort(axes)), lhs_aval)


def ragged_dot_rhs(ct, lhs, rhs_aval, group_sizes, *, ragged_dot_dimension_numbers, precision, preferred_element_type):
    """Lᵀ·ct, of the parts of both in a group; or each part of L with the ct of its group."""
    how = {"precision": precision, "preferred_element_type": preferred_element_type}
    (batch, contracted, free), (rhs_batch, rhs_contracted, rhs_free), ragged = roles(
        ragged_dot_dimension_numbers, lhs, rhs_aval
    )
    groups = ragged_dot_dimension_numbers.rhs_group_dimensions
    if ragged in batch:
        numbers = ragged_dot_dimension_numbers.dot_dimension_numbers
        return dot_general_rhs(ct, lhs, rhs_aval, dimension_numbers=numbers, **how)
    if ragged in contracted:
        x = transpose(lhs, [*batch, *contracted, *free])
        left, right = range(1 + len(batch), ct.ndim - len(rhs_free)), range(ct.ndim - len(rhs_free), ct.ndim)
        y = transpose(ct, [*range(1 + len(batch)), *right, *left])
        out = dot_by_group(x, y, group_sizes, len(batch), contracted.index(ragged), len(free), how)
    else:
        summed = range(len(batch), len(batch) + len(free))
        numbers = RaggedDotDimensionNumbers(
            ((free, summed), (batch, range(len(batch)))), lhs_ragged_dimensions=[ragged], rhs_group_dimensions=[]
        )
        out = lax.ragged_dot_general(lhs, ct, group_sizes, numbers, **how)
        sorted_contracted = [rhs_contracted[i] for i in np.argsort(contracted)]
        return as_operand(transpose(out, np.argsort([*groups, *rhs_batch, *sorted_contracted, *rhs_free])), rhs_aval)
    return as_operand(transpose(out, np.argsort([*rhs_batch, *rhs_contracted, *rhs_free])), rhs_aval)


def roles(numbers, lhs, rhs):
    """The (batch, contracted, free) axes of L, and of R without its groups; and the axis of L that is in groups."""
    (contracted, rhs_contracted), (batch, rhs_batch) = numbers.dot_dimension_numbers
    free = free_axes(lhs.ndim, contracted, batch)
    rhs_free = free_axes(rhs.ndim, [*rhs_contracted, *numbers.rhs_group_dimensions], rhs_batch)
    (ragged,) = numbers.lhs_ragged_dimensions
    return (batch, contracted, free), (rhs_batch, rhs_contracted, rhs_free), ragged


def dot_by_group(x, y, group_sizes, batch, index, contracted, how):
    """(batch, free in x, free in y) from x with axes (batch, free, contracted) and y (group, batch, free, contracted).

    Free axis ``index`` of x is in groups. ``batch`` and ``contracted`` count axes.
    """
    summed = [range(operand.ndim - contracted, operand.ndim) for operand in (x, y)]
    batches = [range(batch), range(1, 1 + batch)]
    numbers = RaggedDotDimensionNumbers((summed, batches), [batch + index], [0])
    return lax.ragged_dot_general(x, y, group_sizes, numbers, **how)


vjp(unlisted["ragged_dot_general"], "lhs rhs group_sizes", lhs=ragged_dot_lhs, rhs=ragged_dot_rhs)

# --- convolutions -----------------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """A spatial axis of a convolution: out[o] = Σₖ x[o·stride + k·step - low] w[k].

    ``x`` has ``spread - 1`` zeros between its elements and ``low`` and ``high`` zeros around them.
    """

    size: int
    taps: int
    out_size: int
    stride: int
    low: int
    spread: int
    step: int

    @property
    def lhs_padding(self):
        """The padding with which ct, dilated by ``stride``, is convolved to the operand's size."""
        low = dilated(self.taps, self.step) - 1 - self.low
        high = dilated(self.size, self.spread) + self.low - dilated(self.out_size, self.stride)
        return low, high

    @property
    def rhs_padding(self):
        """The padding with which the operand is convolved with ct, dilated by ``stride``, to the kernel's size."""
        reach = dilated(self.taps, self.step) + dilated(self.out_size, self.stride) - 1
        return self.low, reach - dilated(self.size, self.spread) - self.low

    def tap_padding(self, tap):
        """The padding that puts the part of ct for this ``tap`` where the (spread) operand met it."""
        start = tap * self.step - self.low
        return start, dilated(self.size, self.spread) - start - dilated(self.out_size, self.stride), self.stride - 1


def spatial_axes(lhs, rhs, out, dimension_numbers, window_strides, padding, lhs_dilation, rhs_dilation):
    """One :class:`Axis` for each spatial axis of a convolution of these three types."""
    specs = [spec[2:] for spec in dimension_numbers]
    shapes = [[x.shape[axis] for axis in spec] for x, spec in zip((lhs, rhs, out), specs, strict=True)]
    lows = [low for low, _ in padding]
    geometry = (*shapes, window_strides, lows, lhs_dilation, rhs_dilation)
    return tuple(Axis(*axis) for axis in zip(*geometry, strict=True))


def dilated(size, dilation):
    """The size of an axis with ``dilation - 1`` zeros between its elements."""
    return (size - 1) * dilation + 1 if size else 0


def features_swapped(spec):
    """``spec`` with its first two axes swapped: batch and features, or output and input features."""
    return (spec[1], spec[0], *spec[2:])


def move_groups(x, groups, source, target):
    """Takes ``groups``, the outer factor of axis ``source``, and makes it the outer factor of axis ``target``."""
    if groups == 1:
        return x
    split = [*x.shape[:source], groups, x.shape[source] // groups, *x.shape[source + 1 :]]
    order = [axis for axis in range(x.ndim + 1) if axis != source]
    order.insert(order.index(target if target < source else target + 1), source)
    joined = list(x.shape)
    joined[source], joined[target] = joined[source] // groups, joined[target] * groups
    return reshape(transpose(reshape(x, split), order), joined)


def conv_lhs(
    ct,
    lhs_aval,
    rhs,
    *,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    precision,
    preferred_element_type,
):
    """ct convolved with the reversed kernel: input and output features change places, as do stride and spread."""
    if ct.size == 0 or lhs_aval.size == 0:
        return None
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    geometry = (dimension_numbers, window_strides, padding, lhs_dilation, rhs_dilation)
    axes = spatial_axes(lhs_aval, rhs, ct, *geometry)
    rhs = convert_element_type(rhs, ct.dtype)
    groups = max(feature_group_count, batch_group_count)
    if groups == 1 and on_cpu() and rhs.shape[rhs_spec[1]] <= 8 and 1 < math.prod(axis.taps for axis in axes) <= 32:
        return as_operand(conv_lhs_by_taps(ct, rhs, axes, dimension_numbers, precision), lhs_aval)
    out = conv_general_dilated(
        ct,
        move_groups(rev(rhs, rhs_spec[2:]), groups, rhs_spec[0], rhs_spec[1]),
        window_strides=lhs_dilation,
        padding=[axis.lhs_padding for axis in axes],
        lhs_dilation=window_strides,
        rhs_dilation=rhs_dilation,
        dimension_numbers=ConvDimensionNumbers(out_spec, features_swapped(rhs_spec), lhs_spec),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return as_operand(move_groups(out, batch_group_count, lhs_spec[1], lhs_spec[0]), lhs_aval)


def conv_rhs(
    ct,
    lhs,
    rhs_aval,
    *,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    precision,
    preferred_element_type,
):
    """The operand convolved with ct: batch and features change places, as do the stride and the kernel's step."""
    if ct.size == 0 or rhs_aval.size == 0:
        return None
    geometry = (dimension_numbers, window_strides, padding, lhs_dilation, rhs_dilation)
    axes = spatial_axes(lhs, rhs_aval, ct, *geometry)
    lhs = convert_element_type(lhs, ct.dtype)
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    few = lhs.shape[lhs_spec[1]] <= 3 and ct.shape[out_spec[1]] < 8 and batch_group_count == 1 and len(axes) > 0
    if (feature_group_count > 1 or few) and on_cpu():
        out = conv_rhs_by_rows(ct, lhs, axes, dimension_numbers, feature_group_count, precision)
        return as_operand(out, rhs_aval)
    out = conv_general_dilated(
        lhs,
        ct,
        window_strides=rhs_dilation,
        padding=[axis.rhs_padding for axis in axes],
        lhs_dilation=lhs_dilation,
        rhs_dilation=window_strides,
        dimension_numbers=ConvDimensionNumbers(*map(features_swapped, (lhs_spec, out_spec, rhs_spec))),
        feature_group_count=batch_group_count,
        batch_group_count=feature_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return as_operand(out, rhs_aval)


vjp(lax.conv_general_dilated_p, lhs=conv_lhs, rhs=conv_rhs)

# --- convolutions on the CPU, tap by tap ------------------------------------------------------------------------------


def on_cpu():
    """Whether programs are made for a CPU: it decides between two formulations of one derivative."""
    return jax.default_backend() == "cpu"


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def conv_lhs_by_taps(ct, rhs, axes, dimension_numbers, precision):
    """ct times each tap of the kernel, put where the operand met that tap: fast where the operand has few features."""
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    kernel = transpose(rhs, (*rhs_spec[2:], *rhs_spec[:2]))
    kernel = reshape(kernel, (math.prod(kernel.shape[:-2]), *kernel.shape[-2:]))
    parts = unstack(dot_general(kernel, transpose(ct, out_spec), (((1,), (1,)), ((), ())), precision=precision))
    # Added one by one to the whole, in place: a sum of padded parts XLA would compute anew for each of its readers.
    whole = [dilated(axis.taps, axis.step) + dilated(axis.out_size, axis.stride) - 1 for axis in axes]
    total = full((*parts[0].shape[:2], *whole), 0, parts[0].dtype)
    for tap, part in zip(np.ndindex(*(axis.taps for axis in axes)), parts, strict=True):
        start = [0, 0, *(k * axis.step for axis, k in zip(axes, tap, strict=True))]
        if any(axis.stride > 1 for axis in axes):
            part = pad(part, constant(part, 0), [(0, 0, 0), (0, 0, 0), *((0, 0, axis.stride - 1) for axis in axes)])
        there = lax.slice(total, start, [*map(operator.add, start, part.shape)])
        total = lax.dynamic_update_slice(total, add(there, part), start)
    cut = [(-low, -high, 0) for low, high in (axis.rhs_padding for axis in axes)]
    total = pad(total, constant(total, 0), [(0, 0, 0), (0, 0, 0), *cut])
    out = lax.slice(total, [0] * total.ndim, total.shape, [1, 1, *(axis.spread for axis in axes)])
    return transpose(out, np.argsort(features_swapped(lhs_spec)))


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def conv_rhs_by_rows(ct, lhs, axes, dimension_numbers, groups, precision):
    """What each row of the kernel met of the operand, times ct. XLA's CPU convolution is slow where the operand has few
    features, and in groups of a batch."""
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    config = [(*axis.rhs_padding, axis.spread - 1) for axis in axes]
    lhs = pad(transpose(lhs, lhs_spec), constant(lhs, 0), [(0, 0, 0), (0, 0, 0), *config])
    # (groups, features, batch, spatial axes)
    lhs, ct = (
        transpose(split_features(x, groups), (1, 2, 0, *range(3, x.ndim + 1))) for x in (lhs, transpose(ct, out_spec))
    )
    strides = [1, 1, 1, *(axis.stride for axis in axes)]
    lengths = [*lhs.shape[:3], *(dilated(axis.out_size, axis.stride) for axis in axes)]
    ct = reshape(ct, (*ct.shape[:2], math.prod(ct.shape[2:])))

    def met(tap):
        starts = [0, 0, 0, *(k * axis.step for axis, k in zip(axes, tap, strict=True))]
        return lax.slice(lhs, starts, [*map(operator.add, starts, lengths)], strides)

    *others, last = (axis.taps for axis in axes)
    rows = []
    for tap in np.ndindex(*others):
        row = stack([met((*tap, k)) for k in range(last)], axis=1)
        row = reshape(row, (groups, last * lhs.shape[1], ct.shape[2]))
        rows.append(dot_general(ct, row, (((2,), (2,)), ((0,), (0,))), precision=precision))
    kernel = reshape(stack(rows), (len(rows), groups, ct.shape[1], last, lhs.shape[1]))
    kernel = reshape(transpose(kernel, (1, 2, 4, 0, 3)), (groups * ct.shape[1], lhs.shape[1], *others, last))
    return transpose(kernel, np.argsort(rhs_spec))


def split_features(x, groups):
    """Axis 1 of ``x`` as two axes: the groups and the features in each."""
    return reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
