"""Reductions over sliding windows, as in pooling, and the two primitives in which JAX writes their derivatives.

A window's sum hands ct to all its elements; a maximum or minimum hands it to the one that is selected: as in JAX, the
first in row-major order. Windows of few elements are taken apart, one strided slice for each place in a window:
``select_and_scatter`` and overlapping ``reduce_window`` are slow in XLA (``benchmarks/bench_pool_grad.py``). These many
equations stand in one ``jit`` call, which is traced once for each geometry.
"""

import functools
import math
import operator
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.lax import add, broadcast_in_dim, eq, full_like, pad, reshape, select

from twograd.rules.common import constant, where
from twograd.rules.linear import Axis, dilated
from twograd.rules.registry import vjp

FEW = 32
"""Windows of up to so many elements are taken apart."""


def window_axes(x, out, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """One :class:`Axis` for each axis: windows slide as a convolution's kernel does, their elements being its taps."""
    lows = [low for low, _ in padding]
    geometry = (x.shape, window_dimensions, out.shape, window_strides, lows, base_dilation, window_dilation)
    return tuple(Axis(*axis) for axis in zip(*geometry, strict=True))


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


class Extremum(NamedTuple):
    """What tells a maximum from a minimum: how windows are reduced, how elements compare, and what never wins."""

    reduce_p: Primitive
    select_prim: Primitive
    never: float


MAXIMUM = Extremum(lax.reduce_window_max_p, lax.ge_p, -np.inf)
MINIMUM = Extremum(lax.reduce_window_min_p, lax.le_p, np.inf)
selecting = {extremum.select_prim: extremum for extremum in (MAXIMUM, MINIMUM)}


def elements(x, axes, padding, outside):
    """For each place in a window, what the windows have there; ``outside``, a scalar, in the padding and the holes."""
    x = pad(x, outside, [(*ends, axis.spread - 1) for ends, axis in zip(padding, axes, strict=True)])
    lengths = [dilated(axis.out_size, axis.stride) for axis in axes]
    strides = [axis.stride for axis in axes]
    for place in places(axes):
        starts = [tap * axis.step for tap, axis in zip(place, axes, strict=True)]
        yield lax.slice(x, starts, [*map(operator.add, starts, lengths)], strides)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def to_selected(ct, x, out, axes, padding, extremum):
    """ct at the first element of each window that is its extremum ``out``; a window whose extremum is NaN has none."""
    total, left = None, ct
    for place, element in zip(places(axes), elements(x, axes, padding, constant(x, extremum.never)), strict=True):
        found = eq(element, out)
        part = placed(where(found, left), axes, place)
        total = part if total is None else add(total, part)
        left = select(found, full_like(left, 0), left)
    return without_holes(total, axes)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def from_selected(ct, x, out, axes, padding, extremum):
    """For each window, ct at the first element that is its extremum: the transpose of :func:`to_selected`."""
    fills = constant(x, extremum.never), constant(ct, 0)
    pairs = zip(*(elements(y, axes, padding, fill) for y, fill in zip((x, ct), fills, strict=True)), strict=True)
    result = full_like(out, 0)
    for element, element_ct in reversed(list(pairs)):
        result = select(eq(element, out), element_ct, result)
    return result


def pool(ct, x, out, extremum, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """The pullback of windows' extrema ``out`` (None where they are not at hand): ct at the selected elements."""
    if ct.size == 0:
        return None
    axes = window_axes(x, ct, window_dimensions, window_strides, padding, base_dilation, window_dilation)
    geometry = {"window_dimensions": window_dimensions, "window_strides": window_strides, "padding": padding}
    if math.prod(window_dimensions) <= FEW or any(axis.step != 1 for axis in axes):
        if out is None:
            out = extremum.reduce_p.bind(x, **geometry, base_dilation=base_dilation, window_dilation=window_dilation)
        return to_selected(ct, x, out, axes, padding, extremum)
    x = pad(x, constant(x, extremum.never), [(0, 0, axis.spread - 1) for axis in axes])
    total = lax.select_and_scatter_add_p.bind(ct, x, select_prim=extremum.select_prim, **geometry)
    return without_holes(total, axes)


def reduce_window_max_x(ct, x, out, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """ct at the first largest element of each window."""
    return pool(ct, x, out, MAXIMUM, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def reduce_window_min_x(ct, x, out, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    """ct at the first smallest element of each window."""
    return pool(ct, x, out, MINIMUM, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def select_and_gather_add_tangents(
    ct, operand, *, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    """ct at the element of each window that the operand selects."""
    extremum = selecting[select_prim]
    return pool(ct, operand, None, extremum, window_dimensions, window_strides, padding, base_dilation, window_dilation)


def select_and_scatter_add_source(ct, source_aval, operand, *, select_prim, window_dimensions, window_strides, padding):
    """For each window, ct at the element that the operand selects."""
    if source_aval.size == 0:
        return None
    extremum, ones = selecting[select_prim], (1,) * ct.ndim
    geometry = {
        "window_dimensions": window_dimensions,
        "window_strides": window_strides,
        "padding": padding,
        "base_dilation": ones,
        "window_dilation": ones,
    }
    if math.prod(window_dimensions) > FEW:
        return lax.select_and_gather_add_p.bind(ct, operand, select_prim=select_prim, **geometry)
    out = extremum.reduce_p.bind(operand, **geometry)
    return from_selected(ct, operand, out, window_axes(ct, source_aval, **geometry), padding, extremum)


vjp(lax.reduce_window_max_p, x=reduce_window_max_x)
vjp(lax.reduce_window_min_p, x=reduce_window_min_x)
vjp(lax.select_and_gather_add_p, "tangents operand", tangents=select_and_gather_add_tangents)
vjp(lax.select_and_scatter_add_p, "source operand", source=select_and_scatter_add_source)
