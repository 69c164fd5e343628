"""Primitives that read or write at indices: slices, gathers, scatters, sorts.

Reading and writing are each other's transposes: a gather's pullback is a scatter-add with the same dimension numbers,
a scatter's is a gather, a slice's is a padding. Conventions are JAX's: an index that is out of bounds is treated on the
way back as it was on the way there; where several updates contend for one place, ``scatter`` lets one of them win, and
``scatter_min`` and ``scatter_max`` share the cotangent equally among the winners.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.lax import (
    GatherDimensionNumbers,
    GatherScatterMode,
    ScatterDimensionNumbers,
    add,
    associative_scan,
    bitwise_or,
    broadcast_in_dim,
    broadcasted_iota,
    concatenate,
    convert_element_type,
    div,
    dynamic_slice,
    dynamic_update_slice,
    eq,
    expand_dims,
    full,
    full_like,
    gather,
    iota,
    mul,
    ne,
    neg,
    pad,
    reshape,
    scatter,
    scatter_add,
    scatter_mul,
    select,
    slice_in_dim,
)

from twograd.rules.common import constant, nonzero, where
from twograd.rules.registry import vjp, vjp_call
from twograd.rules.shape import zeros

# --- slices -----------------------------------------------------------------------------------------------------------


def slice_x(ct, x_aval, *, start_indices, strides):
    """ct with zeros around it and, where the stride is not 1, between its elements."""
    steps = strides or (1,) * len(start_indices)
    reach = [(n - 1) * step + 1 if n else 0 for n, step in zip(ct.shape, steps, strict=True)]
    config = [
        (start, size - start - length, step - 1)
        for start, size, length, step in zip(start_indices, x_aval.shape, reach, steps, strict=True)
    ]
    return pad(ct, constant(ct, 0), config)


def dynamic_slice_x(ct, x_aval, start_indices):
    """ct written into zeros; the primitive's indices are clamped on the way back as on the way there."""
    return dynamic_update_slice(zeros(x_aval), ct, start_indices, allow_negative_indices=False)


def dynamic_update_slice_operand(ct, update_aval, start_indices):
    """ct with zeros where the update was written."""
    return dynamic_update_slice(ct, zeros(update_aval), start_indices, allow_negative_indices=False)


def dynamic_update_slice_update(ct, update_aval, start_indices):
    """ct read where the update was written."""
    return dynamic_slice(ct, start_indices, update_aval.shape, allow_negative_indices=False)


vjp(lax.dynamic_slice_p, "x *start_indices", x=dynamic_slice_x)
vjp(
    lax.dynamic_update_slice_p,
    "operand update *start_indices",
    operand=dynamic_update_slice_operand,
    update=dynamic_update_slice_update,
)
vjp(lax.slice_p, x=slice_x)

# --- gather -----------------------------------------------------------------------------------------------------------


def gather_x(ct, x_aval, indices, *, dimension_numbers, unique_indices, indices_are_sorted, mode):
    """ct added up in zeros at the places that were read."""
    return scatter_add(
        zeros(x_aval),
        indices,
        ct,
        written_as(dimension_numbers),
        unique_indices=unique_indices,
        indices_are_sorted=indices_are_sorted,
        mode=mode,
    )


def written_as(read):
    """The dimension numbers of the scatter that writes where a gather reads."""
    return ScatterDimensionNumbers(
        update_window_dims=read.offset_dims,
        inserted_window_dims=read.collapsed_slice_dims,
        scatter_dims_to_operand_dims=read.start_index_map,
        operand_batching_dims=read.operand_batching_dims,
        scatter_indices_batching_dims=read.start_indices_batching_dims,
    )


vjp(lax.gather_p, "x indices", x=gather_x)

# --- scatter ----------------------------------------------------------------------------------------------------------


class Places(NamedTuple):
    """Where a scatter writes: the same places can be read from, and written to in other ways."""

    indices: Any
    dimension_numbers: ScatterDimensionNumbers
    indices_are_sorted: bool
    unique_indices: bool
    mode: GatherScatterMode

    def read(self, x, updates):
        """For each of ``updates`` what ``x`` has at its place; 0 where it was dropped, being out of bounds."""
        indices, d, indices_are_sorted, unique_indices, mode = self
        if x.size == 0:  # there is nowhere to read, and gather would not allow it
            return full(updates.shape, 0, x.dtype)
        single = {*d.inserted_window_dims, *d.operand_batching_dims}
        window = iter(updates.shape[axis] for axis in d.update_window_dims)
        return gather(
            x,
            indices,
            GatherDimensionNumbers(
                offset_dims=tuple(d.update_window_dims),
                collapsed_slice_dims=tuple(d.inserted_window_dims),
                start_index_map=tuple(d.scatter_dims_to_operand_dims),
                operand_batching_dims=tuple(d.operand_batching_dims),
                start_indices_batching_dims=tuple(d.scatter_indices_batching_dims),
            ),
            slice_sizes=[1 if axis in single else next(window) for axis in range(x.ndim)],
            indices_are_sorted=indices_are_sorted,
            unique_indices=unique_indices,
            mode=mode,
            fill_value=0,
        )

    def write(self, scatter, x, updates):
        """``x`` after the updates were written to it by ``scatter`` or one of its kin."""
        indices, dimension_numbers, indices_are_sorted, unique_indices, mode = self
        return scatter(
            x,
            indices,
            updates,
            dimension_numbers,
            indices_are_sorted=indices_are_sorted,
            unique_indices=unique_indices,
            mode=mode,
        )


def refuse_function(update_jaxpr):
    """``scatter_apply`` is a scatter with a function, which JAX does not differentiate either."""
    if update_jaxpr is not None:
        raise NotImplementedError("x.at[...].apply(f) has no derivative rule; use x.at[...].set(f(x[...])) instead")


def scatter_operand(
    ct, indices, updates_aval, *, update_jaxpr, dimension_numbers, indices_are_sorted, unique_indices, mode
):
    """ct with zeros where the updates were written."""
    refuse_function(update_jaxpr)
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    return at.write(scatter, ct, zeros(updates_aval))


def scatter_updates(
    ct, indices, updates_aval, *, update_jaxpr, dimension_numbers, indices_are_sorted, unique_indices, mode
):
    """ct read where the updates were written, for those that won.

    Which of several updates wins a place is not specified. So they are numbered, the numbers are scattered in their
    stead, and an update has won where its own number is read back.
    """
    refuse_function(update_jaxpr)
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    found = at.read(ct, updates_aval)
    slots = [1 if axis in dimension_numbers.update_window_dims else n for axis, n in enumerate(updates_aval.shape)]
    count = math.prod(slots)
    if unique_indices or count <= 1:
        return found
    numbers = broadcast_in_dim(reshape(iota(np.int32, count), slots), updates_aval.shape, range(len(slots)))
    written = at.write(scatter, full(ct.shape, np.int32(-1)), numbers)
    return where(eq(numbers, at.read(written, updates_aval)), found)


def scatter_add_updates(ct, indices, updates_aval, *, dimension_numbers, indices_are_sorted, unique_indices, mode):
    """ct read where the updates were added."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    return at.read(ct, updates_aval)


def scatter_sub_updates(ct, indices, updates_aval, *, dimension_numbers, indices_are_sorted, unique_indices, mode):
    """-ct read where the updates were subtracted."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    return neg(at.read(ct, updates_aval))


def scatter_mul_operand(ct, indices, updates, *, dimension_numbers, indices_are_sorted, unique_indices, mode):
    """ct times the updates, place by place."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    return at.write(scatter_mul, ct, updates)


def scatter_mul_updates(ct, operand, indices, updates, *, dimension_numbers, indices_are_sorted, unique_indices, mode):
    """ct times the operand, read at the update's place, times the other updates of that place."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    found = at.read(mul(ct, operand), updates)
    if unique_indices or updates.size <= 1:
        return found
    place = reshape(add(iota(np.int32, ct.size), np.int32(1)), ct.shape)
    return mul(found, product_of_others(updates, at.read(place, updates)))


def product_of_others(x, place):
    """For each element of x the product of all others with the same ``place``, without a division, so that x may be 0.

    Sorted by place, the others are those before and those after within a run of equal places.
    """
    size, index = x.size, iota(np.int32, x.size)
    place, order = lax.sort((reshape(place, (size,)), index), num_keys=1)
    x_sorted = take_along(reshape(x, (size,)), order, 0)
    starts = ne(slice_in_dim(place, 1, size), slice_in_dim(place, 0, size - 1))
    edge, one = full((1,), True), full((1,), 1, x.dtype)
    before = concatenate([one, slice_in_dim(x_sorted, 0, size - 1)], 0)
    after = concatenate([slice_in_dim(x_sorted, 1, size), one], 0)
    before = running_product(concatenate([edge, starts], 0), before)
    after = running_product(concatenate([starts, edge], 0), after, reverse=True)
    return reshape(put_along(mul(before, after), order, 0, jax.typeof(x_sorted)), x.shape)


def running_product(resets, x, reverse=False):
    """The running product of x, which starts anew from 1 (in place of x) where ``resets`` is true."""

    def combine(left, right):
        (left_resets, left), (right_resets, right) = left, right
        return bitwise_or(left_resets, right_resets), select(right_resets, right, mul(left, right))

    x = select(resets, full_like(x, 1), x)
    return associative_scan(combine, (resets, x), reverse=reverse)[1]


def scatter_extremum_operand(
    ct, operand, indices, updates, out, *, dimension_numbers, indices_are_sorted, unique_indices, mode
):
    """Where the operand was kept, its equal share of ct: the others are the updates that are as large (or small)."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    return where(eq(operand, out), div(ct, add(winners(at, updates, out), constant(out, 1))))


def scatter_extremum_updates(
    ct, operand, indices, updates, out, *, dimension_numbers, indices_are_sorted, unique_indices, mode
):
    """Where an update is the result, its equal share of ct at that place."""
    at = Places(indices, dimension_numbers, indices_are_sorted, unique_indices, mode)
    kept = convert_element_type(eq(operand, out), out.dtype)
    share = div(ct, nonzero(add(winners(at, updates, out), kept)))
    return where(eq(updates, at.read(out, updates)), at.read(share, updates))


def winners(at, updates, out):
    """For each place the number of updates that are the result there."""
    won = eq(updates, at.read(out, updates))
    return at.write(scatter_add, full_like(out, 0), convert_element_type(won, out.dtype))


SCATTER = "operand indices updates"
vjp(lax.scatter_add_p, SCATTER, operand=lambda ct: ct, updates=scatter_add_updates)
vjp(lax.scatter_max_p, SCATTER, operand=scatter_extremum_operand, updates=scatter_extremum_updates)
vjp(lax.scatter_min_p, SCATTER, operand=scatter_extremum_operand, updates=scatter_extremum_updates)
vjp(lax.scatter_mul_p, SCATTER, operand=scatter_mul_operand, updates=scatter_mul_updates)
vjp(lax.scatter_p, SCATTER, operand=scatter_operand, updates=scatter_updates)
vjp(lax.scatter_sub_p, SCATTER, operand=lambda ct: ct, updates=scatter_sub_updates)

# --- sorting: what is saved is the permutation ------------------------------------------------------------------------


def along(rank, axis):
    """The dimension numbers of a gather with one index per element, along ``axis``."""
    others = tuple(other for other in range(rank) if other != axis)
    return GatherDimensionNumbers(
        offset_dims=(),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=others,
        start_indices_batching_dims=others,
    )


def take_along(x, indices, axis):
    """x[..., indices[..., i, ...], ...] for the i along ``axis``; no index may be out of bounds or occur twice."""
    return gather(
        x,
        expand_dims(indices, (x.ndim,)),
        along(x.ndim, axis),
        slice_sizes=(1,) * x.ndim,
        unique_indices=True,
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def put_along(ct, indices, axis, aval):
    """The transpose of :func:`take_along` from an operand of type ``aval``."""
    return scatter_add(
        zeros(aval),
        expand_dims(indices, (ct.ndim,)),
        ct,
        written_as(along(ct.ndim, axis)),
        unique_indices=True,
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def sort_forward(eqn, operands, wanted):
    """Sorts an index along with the operands; it is all that the way back needs."""
    index = broadcasted_iota(np.int32, operands[0].shape, eqn.params["dimension"])
    *outs, order = lax.sort_p.bind(*operands, index, **eqn.params)
    return outs, order


def sort_backward(eqn, order, cts, wanted):
    """Each ct goes back to where its number stood."""
    return [
        put_along(ct, order, eqn.params["dimension"], var.aval) if want and ct is not None else None
        for ct, var, want in zip(cts, eqn.invars, wanted, strict=True)
    ]


def approx_top_k_x(ct, x_aval, outs, *, reduction_dimension):
    """ct at the places of the numbers that were found."""
    return put_along(ct, outs[1], reduction_dimension % len(x_aval.shape), x_aval)


vjp(lax.approx_top_k_p, x=approx_top_k_x)
vjp(lax.top_k_p, x=lambda ct, x_aval, outs, *, axis: put_along(ct, outs[1], axis, x_aval))
vjp_call(lax.sort_p, sort_forward, sort_backward)
