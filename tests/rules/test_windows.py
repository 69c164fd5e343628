"""Rules for sliding windows: overlapping, apart, padded, dilated, of few and many elements, with ties."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from .checks import Case, check, compl, distinct, our_vjp, real

LOWEST = {lax.reduce_window_max_p: -np.inf, lax.reduce_window_min_p: np.inf, lax.reduce_window_sum_p: 0.0}
OF_TWO = {lax.reduce_window_max_p: lax.max, lax.reduce_window_min_p: lax.min, lax.reduce_window_sum_p: lax.add}
MAX, MIN, SUM = OF_TWO


def windows(primitive, name, shape, size, strides=None, padding="VALID", dilations=(None, None), draw=None, **how):
    """A case of a reduction over windows of ``size``."""

    def fn(x):
        return lax.reduce_window(x, LOWEST[primitive], OF_TWO[primitive], size, strides, padding, *dilations)

    draw = draw or (real if primitive is SUM else distinct)
    return Case(primitive, fn, [draw(*shape)], name, **how)


def ties(*shape):
    return lambda rng: rng.integers(0, 3, shape).astype(float)


def scatter_max(source, operand, **how):
    return lax.select_and_scatter_add_p.bind(source, operand, select_prim=lax.ge_p, **how)


def gather_max(tangents, operand, **how):
    return lax.select_and_gather_add_p.bind(tangents, operand, select_prim=lax.ge_p, **how)


def selecting(size, strides, padding, fn=scatter_max, **how):
    how |= {"window_dimensions": size, "window_strides": strides, "padding": padding}
    return lambda x, y: fn(x, y, **how)


ONE_AXIS = ((33,), (1,), ((3, 2),))
GEOMETRIES = {  # the operand's shape, the windows' size, strides, padding, dilations of the operand and of the windows
    "apart": ((4, 7), (2, 3), (2, 3), "VALID", (None, None)),
    "apart, padded": ((4, 7), (2, 3), (2, 3), ((1, 2), (0, 1)), (None, None)),
    "wide strides": ((8,), (2,), (3,), "VALID", (None, None)),
    "overlapping": ((4, 5), (2, 3), (1, 2), "SAME", (None, None)),
    "dilated operand": ((4,), (2,), (3,), ((1, 2),), ((3,), None)),
    "dilated windows": ((9,), (3,), (2,), ((1, 0),), (None, (3,))),
    "both dilated": ((4, 3), (2, 2), (2, 1), ((1, 2), (0, 1)), ((2, 3), (3, 2))),
    "many": ((36,), (33,), (1,), ((3, 2),), (None, None)),
    "many, dilated operand": ((20,), (33,), (2,), ((3, 2),), ((2,), None)),
    "many apart": ((35, 2), (34, 1), (34, 1), "VALID", (None, None)),
    "one element": ((3, 2), (1, 1), (2, 1), "VALID", (None, None)),
    "no window": ((2,), (3,), (1,), "VALID", (None, None)),
    "nothing": ((0, 3), (1, 2), (1, 1), "VALID", (None, None)),
    "padding alone": ((2,), (2,), (2,), ((4, 3),), (None, None)),
    "rank 0": ((), (), (), (), (None, None)),
}
INFINITE = ("both dilated", "padding alone")
"""Some window has no element, so that its maximum is -inf."""
NOT_IN_JAX = ("dilated windows", "both dilated", "rank 0")
"""JAX has no reverse derivative of their maximum, or one at which XLA aborts."""
QUICK = ("apart, padded", "overlapping", "many")

CASES = [
    *(windows(SUM, name, *GEOMETRIES[name]) for name in (*QUICK, "both dilated")),
    *(windows(MAX, name, *GEOMETRIES[name]) for name in (*QUICK, "no window")),
    *(windows(MIN, name, *GEOMETRIES[name]) for name in ("overlapping", "nothing")),
    windows(MAX, "ties", *GEOMETRIES["overlapping"], draw=ties, smooth=False, dtypes=("float32", "bfloat16")),
    windows(MIN, "ties, many", *GEOMETRIES["many"], draw=ties, smooth=False, dtypes=("float32", "bfloat16")),
    # JAX has no reverse derivative of dilated windows: finite differences alone
    windows(MAX, "dilated windows", *GEOMETRIES["dilated windows"], order=0),
    windows(SUM, "complex", *GEOMETRIES["overlapping"], draw=compl),
    Case(
        lax.select_and_scatter_add_p,
        selecting((2, 2), (2, 1), ((1, 0), (0, 1))),
        [real(2, 4), distinct(3, 4)],
        "few",
        (0,),
    ),
    Case(lax.select_and_scatter_add_p, selecting((33,), (1,), ((3, 2),)), [real(9), distinct(36)], "many", (0,)),
    Case(
        lax.select_and_gather_add_p,
        selecting((2,), (2,), ((1, 0),), gather_max, base_dilation=(2,), window_dilation=(1,)),
        [real(5), distinct(5)],
        "few",
        (0,),
    ),
    Case(
        lax.select_and_gather_add_p,
        selecting((33,), (1,), ((3, 2),), gather_max, base_dilation=(1,), window_dilation=(1,)),
        [real(36), distinct(36)],
        "many",
        (0,),
    ),
]
SWEEP = [
    *(windows(SUM, name + ", all", *GEOMETRIES[name], dtypes=("float32", "bfloat16")) for name in GEOMETRIES),
    *(windows(MAX, name + ", all", *GEOMETRIES[name], order=0) for name in GEOMETRIES if name not in INFINITE),
    windows(MAX, "padding alone", *GEOMETRIES["padding alone"], smooth=False),
    *(
        windows(MIN, name + ", all ties", *GEOMETRIES[name], draw=ties, smooth=False)
        for name in GEOMETRIES
        if name not in NOT_IN_JAX
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_rule_everywhere(case):
    check(case)


@pytest.mark.parametrize("size", [4, 40])
def test_first_of_the_largest_is_selected(size):
    """With few elements in a window as with many; JAX does the same."""
    x = jnp.array([3.0, 1.0, 3.0, 3.0] * (size // 4))

    def fn(x):
        return (lax.reduce_window(x, -jnp.inf, lax.max, (size,), (size,), "VALID"),)

    (found,) = our_vjp(fn, [x], [jnp.ones(1)])
    np.testing.assert_array_equal(found, jax.grad(lambda x: fn(x)[0][0])(x))
    np.testing.assert_array_equal(found, np.eye(1, size)[0])
