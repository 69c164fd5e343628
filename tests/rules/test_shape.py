"""Rules that move numbers: every way to broadcast, reshape, join, cut and pad, with empty axes, rank 0 and complex."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.sharding import SingleDeviceSharding

from twograd.rules.common import unlisted

from .checks import Case, check, compl, our_vjp, real

REAL = ("float32", "bfloat16", "float16")


def broadcast(shape, axes):
    return lambda x: lax.broadcast_in_dim_p.bind(x, shape=shape, broadcast_dimensions=axes, sharding=None)


def constrained(x):
    return lax.with_sharding_constraint(x, SingleDeviceSharding(jax.devices()[0]))


def padded(*config):
    return lambda x, value: lax.pad(x, value, config)


def tied(x, y):
    return unlisted["tie"].bind(x, y * 2)


VARIANTS = (
    "complex",
    "empty",
    "interior",
    "negative into interior",
    "nothing",
    "operand alone",
    "rank 0",
    "to nothing",
)
"""The names of the cases that only the long sweep has."""
CASES = [
    Case(lax.broadcast_in_dim_p, broadcast((2, 3), (1,)), [real(3)], "new axis before", dtypes=REAL),
    Case(lax.broadcast_in_dim_p, broadcast((3, 2), (0,)), [real(3)], "new axis after"),
    Case(lax.broadcast_in_dim_p, broadcast((3, 4), (0, 1)), [real(3, 1)], "stretched"),
    Case(lax.broadcast_in_dim_p, broadcast((5, 3, 4, 1), (0, 1, 3)), [real(1, 3, 1)], "new, stretched, kept"),
    Case(lax.broadcast_in_dim_p, broadcast((2, 3), ()), [real()], "rank 0"),
    Case(lax.broadcast_in_dim_p, broadcast((1, 1), ()), [real()], "rank 0 to ones"),
    Case(lax.broadcast_in_dim_p, broadcast((0, 3), (1,)), [real(3)], "to nothing"),
    Case(lax.broadcast_in_dim_p, broadcast((0, 3), (0, 1)), [real(1, 3)], "stretched to nothing"),
    Case(lax.broadcast_in_dim_p, broadcast((4, 0), (1,)), [real(0)], "nothing"),
    Case(lax.broadcast_in_dim_p, broadcast((2, 3), (1,)), [compl(3)], "complex"),
    Case(lax.concatenate_p, lambda *xs: lax.concatenate(xs, 0), [real(2, 3), real(1, 3), real(4, 3)], dtypes=REAL),
    Case(lax.concatenate_p, lambda *xs: lax.concatenate(xs, 1), [compl(2, 3), compl(2, 0), compl(2, 1)], "empty part"),
    Case(lax.concatenate_p, lambda *xs: lax.concatenate(xs, 1), [real(2, 3), real(2, 5), real(2, 4)], "some", (0, 2)),
    Case(lax.concatenate_p, lambda x: lax.concatenate([x, x, x], 0), [real(2)], "the same thrice"),
    Case(lax.device_put_p, jax.device_put, [real(2, 3)], dtypes=REAL),
    Case(lax.device_put_p, lambda x, y: jax.device_put((x, y)), [real(2, 3), compl(2)], "several"),
    Case(lax.optimization_barrier_p, lambda *xs: lax.optimization_barrier(xs), [real(3), compl(2)], dtypes=REAL),
    Case(lax.optimization_barrier_p, lambda *xs: lax.optimization_barrier(xs), [real(3), np.arange(2)], "integer"),
    Case(lax.pad_p, padded((1, 2, 0)), [real(3), real()], dtypes=REAL),
    Case(lax.pad_p, padded((-1, -1, 0)), [real(5), real()], "negative"),
    Case(lax.pad_p, padded((2, -1, 2), (-2, 1, 1)), [real(3, 4), real()], "interior and negative"),
    Case(lax.pad_p, padded((0, 0, 3), (0, 0, 0)), [real(4, 2), real()], "interior"),
    Case(lax.pad_p, padded((-3, 1, 2)), [real(3), real()], "negative into interior"),
    Case(lax.pad_p, padded((-4, -1, 1)), [real(3), real()], "all cut off"),
    Case(lax.pad_p, padded((1, 2, 1)), [real(0), real()], "empty operand"),
    Case(lax.pad_p, padded((-1, -2, 0)), [real(3), real()], "empty result"),
    Case(lax.pad_p, padded(), [real(), real()], "rank 0"),
    Case(lax.pad_p, padded((1, 1, 1), (0, 2, 0)), [compl(2, 2), compl()], "complex"),
    Case(lax.pad_p, padded((1, 2, 0)), [real(3), real()], "operand alone", (0,)),
    Case(lax.pad_p, padded((1, 2, 0)), [real(3), real()], "value alone", (1,), order=0),
    Case(lax.reshape_p, lambda x: lax.reshape(x, (3, 4)), [real(2, 6)], dtypes=REAL),
    Case(lax.reshape_p, lambda x: lax.reshape(x, ()), [compl(1, 1)], "to rank 0"),
    Case(lax.reshape_p, lambda x: lax.reshape(x, (1, 1)), [real()], "rank 0"),
    Case(lax.reshape_p, lambda x: lax.reshape(x, (0, 7)), [real(3, 0)], "empty"),
    Case(lax.reshape_p, lambda x: lax.reshape(x, (4, 6), dimensions=(2, 0, 1)), [real(2, 3, 4)], "transposed"),
    Case(lax.rev_p, lambda x: lax.rev(x, (0, 2)), [real(2, 3, 4)], dtypes=REAL),
    Case(lax.rev_p, lambda x: lax.rev_p.bind(x, dimensions=()), [compl()], "rank 0"),
    Case(lax.sharding_constraint_p, constrained, [real(2, 3)], dtypes=REAL),
    Case(lax.split_p, lambda x: lax.split(x, (1, 0, 3), axis=1), [real(2, 4)], dtypes=REAL),
    Case(lax.split_p, lambda x: lax.split(x, (2, 1)), [compl(3)], "complex"),
    Case(lax.squeeze_p, lambda x: lax.squeeze(x, (0, 2)), [real(1, 3, 1)], dtypes=REAL),
    Case(lax.squeeze_p, lambda x: lax.squeeze(x, (0,)), [compl(1)], "to rank 0"),
    Case(lax.squeeze_p, lambda x: lax.squeeze(x, (1,)), [real(0, 1)], "empty"),
    Case(lax.stack_p, lambda *xs: lax.stack(xs, axis=1), [real(2, 3), real(2, 3)], dtypes=REAL),
    Case(lax.stack_p, lambda *xs: lax.stack(xs), [compl(), compl(), compl()], "rank 0"),
    Case(lax.stack_p, lambda *xs: lax.stack(xs, axis=2), [real(2, 3), real(2, 3), real(2, 3)], "some", (0, 2)),
    Case(lax.tile_p, lambda x: lax.tile(x, (2, 3)), [real(3, 2)], dtypes=REAL),
    Case(lax.tile_p, lambda x: lax.tile(x, (0, 3)), [compl(3, 2)], "to nothing"),
    Case(lax.tile_p, lambda x: lax.tile(x, ()), [real()], "rank 0"),
    Case(lax.transpose_p, lambda x: lax.transpose(x, (2, 0, 1)), [real(2, 3, 4)], dtypes=REAL),
    Case(lax.transpose_p, lambda x: lax.transpose(x, (1, 3, 0, 2)), [compl(2, 1, 0, 2)], "empty"),
    Case(lax.unstack_p, lambda x: lax.unstack(x, axis=1), [real(2, 3)], dtypes=REAL),
    Case(lax.unstack_p, lax.unstack, [compl(3)], "to rank 0"),
    Case(unlisted["tie"], tied, [real(2), real(3)], dtypes=REAL),
]


SWEEP = [case for case in CASES if case.name in VARIANTS]


@pytest.mark.parametrize("case", [case for case in CASES if case not in SWEEP], ids=str)
def test_rule(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_rule_everywhere(case):
    check(case)


@pytest.mark.parametrize("axes", [(1, 0), (2, 0), (2, 1)], ids=str)
def test_broadcast_in_dim_may_also_transpose(axes):
    """The primitive takes any order of axes; JAX's own transpose assumes that they ascend."""
    shape = tuple(4 if axis not in axes else (2, 3)[axes.index(axis)] for axis in range(3))
    x, ct = jnp.ones((2, 3)), jnp.arange(24.0)[: np.prod(shape)].reshape(shape)
    (found,) = our_vjp(lambda x: (broadcast(shape, axes)(x),), [x], [ct])
    summed = ct.sum(next(axis for axis in range(3) if axis not in axes))
    np.testing.assert_array_equal(found, summed if axes[0] < axes[1] else summed.T)


def test_padding_value_is_not_lost_beside_large_cotangents():
    """The padding's cotangents are added up by themselves, not as the difference of two totals."""
    ct = jnp.array([1.0, 1e30, jnp.inf, 1.0])
    _, found = our_vjp(lambda x, value: (lax.pad(x, value, [(1, 1, 0)]),), [jnp.ones(2), jnp.float32(0)], [ct])
    assert found == 2


def test_layout_constraint_and_reshard_pass_the_cotangent():
    x, ct = jnp.ones((2, 3)), jnp.arange(6.0).reshape(2, 3)
    layout = x.format.layout
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        fns = [
            lambda x: unlisted["layout_constraint"].bind(x, layout=layout),
            lambda x: jax.sharding.reshard(x, jax.P("i")),
        ]
        for fn in fns:
            derivative = jax.jit(lambda x, ct, fn=fn: our_vjp(lambda x: (fn(x),), [x], [ct])[0])
            np.testing.assert_array_equal(derivative(x, ct), ct)
