"""Cumulative sums, products, maxima, minima and logarithms of sums of exponentials, in both directions."""

import numpy as np
import pytest
from jax import lax

from .checks import Case, check, compl, distinct, real

LOW = ("float32", "bfloat16")


def along(cumulative, axis, reverse=False):
    """``cumulative`` along ``axis``, as a function of the operand alone."""
    return lambda x: cumulative(x, axis, reverse)


def ties(*shape):
    """Few different values, zeros among them."""
    return lambda rng: rng.integers(-1, 2, shape).astype(np.float64)


REDUCTIONS = {
    lax.cumlogsumexp_p: (lax.cumlogsumexp, real),
    lax.cummax_p: (lax.cummax, distinct),
    lax.cummin_p: (lax.cummin, distinct),
    lax.cumprod_p: (lax.cumprod, real),
    lax.cumsum_p: (lax.cumsum, real),
}

CASES = [
    *(Case(p, along(fn, 0), [draw(7)], dtypes=LOW) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1, True), [draw(2, 6, 2)], "reverse") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [draw(1, 3)], "of one") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0, True), [draw(2, 3)], "of two") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1), [draw(3, 0)], "of none") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [compl(5)], "complex") for p, (fn, _) in REDUCTIONS.items()),
    Case(lax.cumlogsumexp_p, along(lax.cumlogsumexp, 0), [ties(5)], "ties"),
    Case(lax.cumlogsumexp_p, along(lax.cumlogsumexp, 0), [np.array([-900.0, 0, 900, 901, -5])], "large", smooth=False),
    Case(lax.cummax_p, along(lax.cummax, 0), [ties(13)], "ties", smooth=False),
    Case(lax.cummax_p, along(lax.cummax, 0), [np.ones(11)], "all equal", smooth=False),
    Case(lax.cummin_p, along(lax.cummin, 1, True), [ties(2, 9)], "ties", smooth=False),
    Case(lax.cumprod_p, along(lax.cumprod, 0), [ties(9)], "zeros"),
    Case(lax.cumprod_p, along(lax.cumprod, 1, True), [ties(3, 6)], "zeros, reverse"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case):
    check(case)
