"""Reductions over sliding windows, as in pooling, and the two primitives in which JAX writes their derivatives.

A window's sum hands ct to all its elements; a maximum or minimum hands it to the one that is selected: as in JAX, the
first in row-major order. Windows of few elements are taken apart, one strided slice for each place in a window:
``select_and_scatter`` and overlapping ``reduce_window`` are slow in XLA (``benchmarks/bench_pool_grad.py``).
"""

import functools
import math

import numpy as np
from jax import lax
from jax.lax import add, broadcast_in_dim, eq, full, pad, reshape, select

from twograd.rules.common import constant, where
from twograd.rules.linear import Axis, dilated
from twograd.rules.registry import vjp

FEW = 32
"""Windows of up to so many elements are taken apart."""


def window_axes(x, out, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """One :class:`Axis` for each axis: windows slide as a convolution's kernel does, their elements being its taps."""
    lows = [low for low, _ in padding]
    geometry = (x.shape, window_dimensions, out.shape, window_strides, lows, base_dilation, window_dilation)
    return [Axis(*axis) for axis in zip(*geometry, strict=True)]


def places(axes):
    """The places in a window, in row-major order."""
    return list(np.ndindex(*(axis.taps for axis in axes)))


def placed(part, axes, place):
    """``part``, one number for each window, put where the windows have ``place``; in the operand with its holes."""
    return pad(part, constant(part, 0), [axis.tap_padding(tap) for axis, tap in zip(axes, place, strict=True)])


def without_holes(x, axes):
    """The elements of ``x`` that are the operand's, without those that base_dilation put between them."""
    return lax.slice(x, [0] * x.ndim, x.shape, [axis.spread for axis in axes])


# --- sums -------------------------------------------------------------------------------------------------------------


def reduce_window_sum_x(ct, x_aval, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """For each element the sum of ct over the windows that it is in."""
    if ct.size == 0:
        return None
    axes = window_axes(x_aval, ct, window_dimensions, window_strides, padding, base_dilation, window_dilation)
    if all(axis.stride == axis.taps and axis.step == 1 for axis in axes):
        return without_holes(repeated(ct, axes), axes)
    if math.prod(window_dimensions) <= FEW:
        return without_holes(functools.reduce(add, [placed(ct, axes, place) for place in places(axes)]), axes)
    ones = (1,) * ct.ndim
    return lax.reduce_window_sum_p.bind(
        pad(ct, constant(ct, 0), [(*axis.lhs_padding, axis.stride - 1) for axis in axes]),
        window_dimensions=window_dimensions,
        window_strides=base_dilation,
        padding=((0, 0),) * ct.ndim,
        base_dilation=ones,
        window_dilation=window_dilation,
    )


def repeated(ct, axes):
    """ct at every element of its window, where window stands beside window; 0 where there is none."""
    shape = [size for axis in axes for size in (axis.out_size, axis.taps)]
    ct = broadcast_in_dim(ct, shape, range(0, len(shape), 2))
    ct = reshape(ct, [axis.out_size * axis.taps for axis in axes])
    ends = [dilated(axis.size, axis.spread) + axis.low - axis.out_size * axis.taps for axis in axes]
    return pad(ct, constant(ct, 0), [(-axis.low, end, 0) for axis, end in zip(axes, ends, strict=True)])


vjp(lax.reduce_window_sum_p, x=reduce_window_sum_x)

# --- maxima and minima ------------------------------------------------------------------------------------------------


def elements(x, axes, padding, value):
    """For each place in a window, what the windows have there; ``value`` in the padding and in the holes."""
    x = pad(x, constant(x, value), [(*ends, axis.spread - 1) for ends, axis in zip(padding, axes, strict=True)])
    lengths = [dilated(axis.out_size, axis.stride) for axis in axes]
    strides = [axis.stride for axis in axes]
    for place in places(axes):
        starts = [tap * axis.step for tap, axis in zip(place, axes, strict=True)]
        yield lax.slice(x, starts, np.add(starts, lengths), strides)


def selected(x, axes, padding, select_prim):
    """For each window the number of the element that is selected: the first that no other exceeds.

    The padding takes part with -inf (inf for a minimum). Numbers that compare as nothing does, NaN, are passed over.
    """
    best = which = None
    for number, element in enumerate(elements(x, axes, padding, -np.inf if select_prim is lax.ge_p else np.inf)):
        index = full(element.shape, np.int32(number))
        if best is None:
            best, which = element, index
        else:
            stays = select_prim.bind(best, element)
            best, which = select(stays, best, element), select(stays, which, index)
    return which


def to_selected(ct, x, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """ct at the selected element of each window, added up where windows select the same one."""
    if ct.size == 0:
        return None
    axes = window_axes(x, ct, window_dimensions, window_strides, padding, base_dilation, window_dilation)
    if math.prod(window_dimensions) <= FEW or any(axis.step != 1 for axis in axes):
        which = selected(x, axes, padding, select_prim)
        parts = [where(eq(which, np.int32(i)), ct) for i in range(math.prod(window_dimensions))]
        total = functools.reduce(
            add, [placed(part, axes, place) for part, place in zip(parts, places(axes), strict=True)]
        )
        return without_holes(total, axes)
    holes = [(0, 0, axis.spread - 1) for axis in axes]
    total = lax.select_and_scatter_add_p.bind(
        ct,
        pad(x, constant(x, -np.inf if select_prim is lax.ge_p else np.inf), holes),
        select_prim=select_prim,
        window_dimensions=window_dimensions,
        window_strides=window_strides,
        padding=padding,
    )
    return without_holes(total, axes)


def select_and_scatter_add_source(ct, source_aval, operand, *, select_prim, window_dimensions, window_strides, padding):
    """For each window, ct at the element that the operand selects: the transpose of :func:`to_selected`."""
    if source_aval.size == 0:
        return None
    ones = (1,) * ct.ndim
    axes = window_axes(ct, source_aval, window_dimensions, window_strides, padding, ones, ones)
    if math.prod(window_dimensions) <= FEW:
        which = selected(operand, axes, padding, select_prim)
        parts = [where(eq(which, np.int32(i)), element) for i, element in enumerate(elements(ct, axes, padding, 0))]
        return functools.reduce(add, parts)
    return lax.select_and_gather_add_p.bind(
        ct,
        operand,
        select_prim=select_prim,
        window_dimensions=window_dimensions,
        window_strides=window_strides,
        padding=padding,
        base_dilation=ones,
        window_dilation=ones,
    )


def reduce_window_max_x(ct, x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """ct at the first largest element of each window."""
    return to_selected(ct, x, lax.ge_p, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def reduce_window_min_x(ct, x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """ct at the first smallest element of each window."""
    return to_selected(ct, x, lax.le_p, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def select_and_gather_add_tangents(
    ct, operand, *, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    """ct at the element of each window that the operand selects."""
    return to_selected(
        ct, operand, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation
    )


vjp(lax.reduce_window_max_p, x=reduce_window_max_x)
vjp(lax.reduce_window_min_p, x=reduce_window_min_x)
vjp(lax.select_and_gather_add_p, "tangents operand", tangents=select_and_gather_add_tangents)
vjp(lax.select_and_scatter_add_p, "source operand", source=select_and_scatter_add_source)
