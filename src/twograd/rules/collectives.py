"""Collectives: sums, gathers and exchanges along a named axis of ``jax.shard_map`` or ``jax.vmap``, and casts of types.

All are linear, so a pullback is a transpose and saves nothing but where things went. Inside a ``jax.shard_map`` that
checks how values vary over the devices (``check_vma=True``), the type of a value says which transpose is meant: a sum
that is the same everywhere (``psum_invariant``) has another one than a plain ``psum``.
"""

import jax.numpy as jnp
from jax import lax
from jax.lax import all_to_all, broadcast_in_dim, full_like, select

from twograd.rules.common import unlisted
from twograd.rules.registry import refused, vjp
from twograd.rules.shape import zeros

all_gather_reduced_p = unlisted["all_gather_reduced"]
reduce_scatter_p = unlisted["reduce_scatter"]
reduced_vary_cast_p = unlisted["reduced_vary_cast_p"]
unreduced_psum_p = unlisted["unreduced_psum"]
unreduced_reduce_scatter_p = unlisted["unreduced_reduce_scatter"]
vary_unreduced_cast_p = unlisted["vary_unreduced_cast_p"]


# --- sums -------------------------------------------------------------------------------------------------------------


def psum_x(ct, x_aval, *, axes, axis_index_groups):
    """A sum along axes of the array is broadcast back; a sum over devices is summed over them again.

    The latter is JAX's convention for values whose replication is not tracked: each device holds a part of the
    cotangent of the sum.
    """
    summed = [axis for axis in axes if isinstance(axis, int)]
    named = tuple(axis for axis in axes if not isinstance(axis, int))
    if summed:
        ct = broadcast_in_dim(ct, x_aval.shape, [axis for axis in range(len(x_aval.shape)) if axis not in summed])
    return lax.psum_p.bind(ct, axes=named, axis_index_groups=axis_index_groups)


vjp(lax.psum_p, x=psum_x)
vjp(unlisted["psum_invariant"], x=lambda ct, *, axes: lax.pcast(ct, axes, to="varying"))
vjp(unlisted["pvary"], x=lambda ct, *, axes: lax.psum(ct, axes))
vjp(unlisted["preduced"], x=lambda ct, *, axes: unreduced_psum_p.bind(ct, axes=axes))
vjp(unreduced_psum_p, x=lambda ct, *, axes: unlisted["preduced"].bind(ct, axes=axes))
vjp(reduced_vary_cast_p, x=lambda ct, *, axes: vary_unreduced_cast_p.bind(ct, axes=axes))
vjp(vary_unreduced_cast_p, x=lambda ct, *, axes: reduced_vary_cast_p.bind(ct, axes=axes))

# --- gathers and scatters ---------------------------------------------------------------------------------------------


def all_gather_x(ct, *, all_gather_dimension, axis_name, axis_index_groups, tiled):
    """Every device has all parts, so each part's cotangents are summed over the devices, to where it came from."""
    return lax.psum_scatter(
        ct, axis_name, scatter_dimension=all_gather_dimension, axis_index_groups=axis_index_groups, tiled=tiled
    )


def all_gather_invariant_x(ct, *, all_gather_dimension, axis_name, axis_size, tiled):
    """What was gathered is one value, the same everywhere: each device takes its own part of the cotangent."""
    size = ct.shape[all_gather_dimension] // axis_size
    own = lax.dynamic_slice_in_dim(ct, lax.axis_index(axis_name) * size, size, all_gather_dimension)
    return own if tiled else lax.squeeze(own, [all_gather_dimension])


def all_gather_reduced_x(ct, *, all_gather_dimension, axis_name, axis_size, tiled):
    return unreduced_reduce_scatter_p.bind(
        ct, scatter_dimension=all_gather_dimension, axis_name=axis_name, axis_size=axis_size, tiled=tiled
    )


def reduce_scatter_x(ct, *, scatter_dimension, axis_name, axis_index_groups, tiled):
    return lax.all_gather(ct, axis_name, axis=scatter_dimension, axis_index_groups=axis_index_groups, tiled=tiled)


def unreduced_reduce_scatter_x(ct, *, scatter_dimension, axis_name, axis_size, tiled):
    return all_gather_reduced_p.bind(
        ct, all_gather_dimension=scatter_dimension, axis_name=axis_name, axis_size=axis_size, tiled=tiled
    )


vjp(lax.all_gather_p, x=all_gather_x)
vjp(unlisted["all_gather_invariant"], x=all_gather_invariant_x)
vjp(all_gather_reduced_p, x=all_gather_reduced_x)
vjp(reduce_scatter_p, x=reduce_scatter_x)
vjp(unreduced_reduce_scatter_p, x=unreduced_reduce_scatter_x)

# --- exchanges --------------------------------------------------------------------------------------------------------


def all_to_all_x(ct, *, axis_name, split_axis, concat_axis, axis_index_groups, tiled):
    """What was split is joined, and the other way round."""
    return lax.all_to_all_p.bind(
        ct,
        axis_name=axis_name,
        split_axis=concat_axis,
        concat_axis=split_axis,
        axis_index_groups=axis_index_groups,
        tiled=tiled,
    )


def pbroadcast_x(ct, *, axis_name, source):
    """The source gets all cotangents, and the others, whose values nobody has seen, nothing."""
    total = lax.psum(ct, axis_name)
    return select(lax.axis_index(axis_name) == source, total, full_like(total, 0))


def ragged_all_to_all_operand(
    ct, operand_aval, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name, axis_index_groups
):
    """Every piece is sent back, from where it arrived to where it was taken."""

    def exchanged(offsets):
        return all_to_all(offsets, axis_name, 0, 0, axis_index_groups=axis_index_groups, tiled=True)

    return lax.ragged_all_to_all_p.bind(
        ct,
        zeros(operand_aval),
        exchanged(output_offsets),
        recv_sizes,
        exchanged(input_offsets),
        send_sizes,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )


def ragged_all_to_all_output(ct, output_offsets, recv_sizes, *, axis_name, axis_index_groups):
    """Rows that a received piece has overwritten get nothing; an empty piece overwrites none."""
    starts = all_to_all(output_offsets, axis_name, 0, 0, axis_index_groups=axis_index_groups, tiled=True)
    edges = jnp.zeros(ct.shape[0] + 1, starts.dtype).at[starts].add(1).at[starts + recv_sizes].add(-1)
    overwritten = broadcast_in_dim(lax.cumsum(edges)[:-1] > 0, ct.shape, [0])
    return select(overwritten, full_like(ct, 0), ct)


vjp(lax.all_to_all_p, x=all_to_all_x)
vjp(unlisted["pbroadcast"], x=pbroadcast_x)
vjp(lax.ppermute_p, x=lambda ct, *, axis_name, perm: lax.ppermute(ct, axis_name, [(to, at) for at, to in perm]))
vjp(
    lax.ragged_all_to_all_p,
    "operand output input_offsets send_sizes output_offsets recv_sizes",
    operand=ragged_all_to_all_operand,
    output=ragged_all_to_all_output,
)

# --- no derivative ----------------------------------------------------------------------------------------------------

for extremum_p, reduction in ((lax.pmax_p, "max"), (lax.pmin_p, "min")):
    refused(
        extremum_p,
        f"JAX defines none, for want of a convention at ties between devices; lax.all_gather followed by "
        f"jnp.{reduction} over the gathered axis has one",
    )
