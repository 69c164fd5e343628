"""Primitives that move numbers without changing them: broadcasting, reshaping, joining, cutting, padding, placement.

All are linear, so a pullback is a transpose and saves nothing: what was copied is summed, what was joined is cut, what
was cut is joined with zeros, and what was moved is moved back. ``zeros`` is what the other sections use for "cut with
zeros around it".
"""

import jax
import numpy as np
from jax import lax
from jax.lax import (
    concatenate,
    expand_dims,
    full,
    index_in_dim,
    pad,
    reduce_sum,
    reshape,
    rev,
    slice_in_dim,
    split,
    stack,
    transpose,
    unstack,
)

from twograd._compat import like_varying
from twograd.rules.common import constant, unlisted, where
from twograd.rules.registry import vjp


def zeros(aval):
    """Zeros of the type ``aval``, as varied over the devices of a ``shard_map`` as its values are."""
    return like_varying(full(aval.shape, 0, aval.dtype, sharding=aval.sharding), aval)


def filled(cts, avals):
    """``cts`` with zeros for None: the transpose of a primitive that cut its operand into pieces joins them all."""
    return [zeros(aval) if ct is None else ct for ct, aval in zip(cts, avals, strict=True)]


# --- broadcasting -----------------------------------------------------------------------------------------------------


def broadcast_in_dim_x(ct, x_aval, *, shape, broadcast_dimensions):
    """Broadcasting copies, so its transpose sums: over the axes that are new and over those that were stretched."""
    kept = [axis for axis, size in zip(broadcast_dimensions, x_aval.shape, strict=True) if size == shape[axis]]
    summed = [axis for axis in range(len(shape)) if axis not in kept]
    ct = reduce_sum(ct, summed) if summed else ct
    return reshape(transpose(ct, ranks(kept)), x_aval.shape)


def ranks(axes):
    """The place of each of ``axes`` when they are sorted."""
    return np.argsort(np.argsort(axes, kind="stable"))


def tile_x(ct, x_aval, *, reps):
    """The sum of all copies: each axis of ct is the copies' axis followed by the operand's."""
    pairs = [size for pair in zip(reps, x_aval.shape, strict=True) for size in pair]
    return reduce_sum(reshape(ct, pairs), range(0, len(pairs), 2))


vjp(lax.broadcast_in_dim_p, x=broadcast_in_dim_x)
vjp(lax.tile_p, x=tile_x)

# --- the same numbers in another order or shape -----------------------------------------------------------------------


def reshape_x(ct, x_aval, *, dimensions):
    """The shape of before; where the operand was transposed on the way (``dimensions``), so is ct, back."""
    if dimensions is None:
        return reshape(ct, x_aval.shape, out_sharding=x_aval.sharding)
    return transpose(reshape(ct, [x_aval.shape[axis] for axis in dimensions]), np.argsort(dimensions))


vjp(lax.reshape_p, x=reshape_x)
vjp(lax.rev_p, x=lambda ct, *, dimensions: rev(ct, dimensions))
vjp(lax.squeeze_p, x=lambda ct, *, dimensions: expand_dims(ct, dimensions))
vjp(lax.transpose_p, x=lambda ct, *, permutation: transpose(ct, np.argsort(permutation)))

# --- joining and cutting ----------------------------------------------------------------------------------------------


def concatenate_operands(ct, operands_avals, *, dimension, wanted):
    """To each operand its piece of ct."""
    sizes = [aval.shape[dimension] for aval in operands_avals]
    if all(wanted):
        return split(ct, sizes, axis=dimension)
    stops = np.cumsum(sizes).tolist()
    return [
        slice_in_dim(ct, stop - size, stop, axis=dimension) if want else None
        for size, stop, want in zip(sizes, stops, wanted, strict=True)
    ]


def stack_operands(ct, *, axis, wanted):
    """To each operand its layer of ct."""
    if all(wanted):
        return unstack(ct, axis=axis)
    return [index_in_dim(ct, i, axis, keepdims=False) if want else None for i, want in enumerate(wanted)]


vjp(lax.concatenate_p, "*operands", operands=concatenate_operands)
vjp(lax.split_p, x=lambda cts, outs_avals, *, axis: concatenate(filled(cts, outs_avals), axis))
vjp(lax.stack_p, "*operands", operands=stack_operands)
vjp(lax.unstack_p, x=lambda cts, outs_avals, *, axis: stack(filled(cts, outs_avals), axis=axis))

# --- padding ----------------------------------------------------------------------------------------------------------


def pad_operand(ct, *, padding_config):
    """What lies where the operand went; 0 for what a negative padding cut off."""
    cut_off = [(max(-low, 0), max(-high, 0), 0) for low, high, _ in padding_config]
    ct = pad(ct, constant(ct, 0), cut_off) if np.any(cut_off) else ct
    starts = [max(low, 0) for low, _, _ in padding_config]
    stops = [size - max(high, 0) for size, (_, high, _) in zip(ct.shape, padding_config, strict=True)]
    return lax.slice(ct, starts, stops, [interior + 1 for _, _, interior in padding_config])


def pad_padding_value(ct, operand_aval, *, padding_config):
    """The sum of ct over all places that the operand did not reach."""
    is_padding = pad(full(operand_aval.shape, False), True, padding_config)
    return reduce_sum(where(is_padding, ct), range(ct.ndim))


vjp(lax.pad_p, "operand padding_value", operand=pad_operand, padding_value=pad_padding_value)

# --- placement, and what is there for the compiler only ---------------------------------------------------------------


def device_put_operands(cts, operands_avals, *, srcs, wanted):
    """Each ct goes back to where its operand came from, as far as that is known."""

    def back(ct, aval, src):
        home = aval.memory_space if src is None and aval.memory_space != jax.typeof(ct).memory_space else src
        return ct if home is None else jax.device_put(ct, home)

    return [
        back(ct, aval, src) if want and ct is not None else None
        for ct, aval, src, want in zip(cts, operands_avals, srcs, wanted, strict=True)
    ]


def optimization_barrier_operands(cts, *, wanted):
    """The cotangents pass a barrier of their own, all those that there are together."""
    passing = [ct for ct, want in zip(cts, wanted, strict=True) if want and ct is not None]
    passed = iter(lax.optimization_barrier(passing))
    return [next(passed) if want and ct is not None else None for ct, want in zip(cts, wanted, strict=True)]


def sharding_constraint_x(ct, *, sharding, layout, context_mesh, unconstrained_dims):
    """The cotangent is laid out over the devices like the value."""
    return lax.sharding_constraint_p.bind(
        ct, sharding=sharding, layout=layout, context_mesh=context_mesh, unconstrained_dims=unconstrained_dims
    )


def reshard_x(ct, x_aval):
    """ct as the operand was, if that was sharded at all."""
    return ct if x_aval.sharding.mesh.empty else jax.sharding.reshard(ct, x_aval.sharding)


vjp(lax.device_put_p, "*operands", operands=device_put_operands)
vjp(lax.optimization_barrier_p, "*operands", operands=optimization_barrier_operands)
vjp(lax.sharding_constraint_p, x=sharding_constraint_x)
vjp(unlisted["layout_constraint"], x=lambda ct, *, layout: unlisted["layout_constraint"].bind(ct, layout=layout))
vjp(unlisted["reshard"], x=reshard_x)
vjp(unlisted["tie"], "x y", y=lambda ct: ct)
