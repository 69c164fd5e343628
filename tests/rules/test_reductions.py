"""Sums, products, maxima and minima along axes."""

import numpy as np
import pytest
from jax import lax

from .checks import Case, check, compl, distinct, each, real, ties

LOW = ("float32", "bfloat16")


def along(reduce, *axes):
    """``reduce`` along ``axes``, as a function of the operand alone."""
    return lambda x: reduce(x, axes)


REDUCTIONS = {
    lax.reduce_max_p: (lax.reduce_max, distinct),
    lax.reduce_min_p: (lax.reduce_min, distinct),
    lax.reduce_prod_p: (lax.reduce_prod, real),
    lax.reduce_sum_p: (lax.reduce_sum, real),
}

EXTREMES = {lax.reduce_max_p, lax.reduce_min_p}

CASES = [
    *(Case(p, along(fn, 1), [draw(3, 4)], dtypes=LOW) for p, (fn, draw) in REDUCTIONS.items()),
    *(
        Case(p, along(fn, 2, 0), [draw(3, 2, 3)], "two axes", slow=p is not lax.reduce_sum_p)
        for p, (fn, draw) in REDUCTIONS.items()
    ),
    *(Case(p, along(fn, 0, 1), [draw(3, 4)], "all axes") for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn), [draw(3, 4)], "no axes", slow=True) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [draw(3, 0)], "empty result", slow=True) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 1), [draw(3, 0)], "empty axis", smooth=False) for p, (fn, draw) in REDUCTIONS.items()),
    *(Case(p, along(fn, 0), [compl(3, 4)], "complex", slow=p in EXTREMES) for p, (fn, _) in REDUCTIONS.items()),
    Case(lax.reduce_max_p, along(lax.reduce_max, 1), [ties(5, 6)], "ties", smooth=False),
    Case(lax.reduce_max_p, along(lax.reduce_max, 0, 1), [np.ones((2, 3))], "all equal", smooth=False),
    Case(lax.reduce_min_p, along(lax.reduce_min, 0, 2), [ties(3, 2, 3)], "ties", smooth=False),
    *(Case(lax.reduce_prod_p, along(lax.reduce_prod, 0), [real(n)], f"of {n}", slow=n < 7) for n in (1, 2, 3, 7)),
    Case(lax.reduce_prod_p, along(lax.reduce_prod, 1), [ties(4, 3)], "zeros"),
    Case(lax.reduce_prod_p, along(lax.reduce_prod, 0), [np.array([2.0, 0, 3, 0, -1])], "two zeros"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)
