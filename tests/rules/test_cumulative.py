"""Cumulative sums, products, maxima, minima and logarithms of sums of exponentials, in both directions."""

import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from .checks import Case, check, compl, distinct, each, our_vjp, real, ties

LOW = ("float32", "bfloat16")


def along(cumulative, axis, reverse=False):
    """``cumulative`` along ``axis``, as a function of the operand alone."""
    return lambda x: cumulative(x, axis, reverse)


REDUCTIONS = {
    lax.cumlogsumexp_p: (lax.cumlogsumexp, real),
    lax.cummax_p: (lax.cummax, distinct),
    lax.cummin_p: (lax.cummin, distinct),
    lax.cumprod_p: (lax.cumprod, real),
    lax.cumsum_p: (lax.cumsum, real),
}

SLOW = {lax.cumlogsumexp_p, lax.cummax_p, lax.cummin_p}

CASES = [
    *(Case(p, along(fn, 0), [draw(4)], dtypes=LOW) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1, True), [draw(2, 4, 2)], "reverse", slow=p in SLOW) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [draw(1, 3)], "of one") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0, True), [draw(2, 3)], "of two", slow=True) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1), [draw(3, 0)], "of none") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [compl(4)], "complex", slow=True) for p, (fn, _) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1), [draw(3, 13)], "of many", slow=True) for p, (fn, draw) in REDUCTIONS.items()),
    Case(lax.cumlogsumexp_p, along(lax.cumlogsumexp, 0), [ties(4)], "ties", slow=True),
    Case(lax.cumlogsumexp_p, along(lax.cumlogsumexp, 0), [np.array([-900.0, 0, 900, 901, -5])], "large", smooth=False),
    Case(lax.cummax_p, along(lax.cummax, 0), [ties(6)], "ties", smooth=False, slow=True),
    Case(lax.cummax_p, along(lax.cummax, 0), [np.ones(5)], "all equal", smooth=False),
    Case(lax.cummax_p, along(lax.cummax, 0), [np.ones(13)], "many equal", smooth=False, slow=True),
    Case(lax.cummin_p, along(lax.cummin, 1, True), [ties(2, 9)], "ties", smooth=False, slow=True),
    Case(lax.cumprod_p, along(lax.cumprod, 0), [np.array([2.0, 0, 3, 0, -1])], "zeros"),
    Case(lax.cumprod_p, along(lax.cumprod, 1, True), [ties(3, 6)], "zeros, reverse", slow=True),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)


@pytest.mark.parametrize("x", [[-np.inf, -np.inf, 0, 1], [0, np.inf, 1, -np.inf], [-np.inf] * 4, [np.inf] * 4], ids=str)
def test_cumlogsumexp_of_infinities_has_a_finite_derivative(x):
    """JAX's is NaN after a leading -inf, and grows with what stands beside +inf."""

    def first(x):
        return our_vjp(lambda x: (lax.cumlogsumexp(x),), [x], [jnp.ones(4)])

    x = jnp.array(x, jnp.float32)
    (found,), (second,) = first(x), our_vjp(first, [x], [jnp.ones(4)])
    assert np.all((found >= 0) & (found <= 10))
    assert np.all(np.isfinite(second))


def test_nan_stays_nan():
    x = jnp.array([1.0, np.nan, 2.0, 3.0])
    for fn in (lax.cumlogsumexp, lax.cumprod, lambda x: lax.reduce_max(x, [0]), lambda x: lax.reduce_prod(x, [0])):
        (found,) = our_vjp(lambda x, fn=fn: (fn(x),), [x], [jnp.ones_like(fn(x))])
        assert np.any(np.isnan(found))
