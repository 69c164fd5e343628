"""Special functions: error, gamma, beta, zeta and Bessel families."""

import numpy as np
import pytest
from jax import lax

from .checks import Case, between, check, each, our_vjp, real

LOW = ("float32", "bfloat16")
POSITIVE = between(0.3, 4, 3, 4)

CASES = [
    Case(lax.bessel_i0e_p, lax.bessel_i0e, [real(3, 4)], dtypes=LOW),
    Case(lax.bessel_i0e_p, lax.bessel_i0e, [np.array([0.0, 30.0, -700.0])], "zero and large", smooth=False),
    Case(lax.bessel_i1e_p, lax.bessel_i1e, [real(3, 4)], dtypes=LOW),
    Case(lax.bessel_i1e_p, lax.bessel_i1e, [np.array([0.0, 1e-18, 1e-5, 30.0, -700.0])], "zero, large", smooth=False),
    Case(lax.digamma_p, lax.digamma, [POSITIVE], dtypes=LOW, rtol=1e-9),
    Case(lax.digamma_p, lax.digamma, [between(-2.9, -2.1, 3)], "negative", rtol=1e-9),
    Case(lax.erf_p, lax.erf, [real(3, 4)], dtypes=LOW),
    Case(lax.erfc_p, lax.erfc, [real(3, 4)], dtypes=LOW),
    Case(lax.erf_inv_p, lax.erf_inv, [between(-0.9, 0.9, 3, 4)], dtypes=LOW),
    Case(
        lax.igamma_p, lax.igamma, [between(0.3, 4), between(0.3, 4)], "both", order=1, highest=1, dtypes=LOW, rtol=1e-9
    ),
    Case(lax.igamma_p, lax.igamma, [POSITIVE, POSITIVE], "x", (1,), rtol=1e-9, slow=True),
    Case(lax.igamma_p, lax.igamma, [between(0.5, 3), POSITIVE], "scalar a", order=1, highest=1, rtol=1e-9, slow=True),
    Case(
        lax.igammac_p, lax.igammac, [POSITIVE, POSITIVE], "both", order=1, highest=1, dtypes=LOW, rtol=1e-9, slow=True
    ),
    Case(lax.igammac_p, lax.igammac, [between(0.3, 4), between(0.3, 4)], "x", (1,), rtol=1e-9),
    Case(lax.igamma_grad_a_p, lax.igamma_grad_a, [between(0.3, 4), between(0.3, 4)], "x", (1,), order=0, rtol=1e-9),
    Case(lax.lgamma_p, lax.lgamma, [POSITIVE], dtypes=LOW, rtol=1e-9),
    Case(lax.lgamma_p, lax.lgamma, [between(-2.9, -2.1, 3)], "negative", rtol=1e-9),
    Case(lax.polygamma_p, lax.polygamma, [np.array([0.0, 1.0, 2.0]), between(0.5, 3, 3)], "x", (1,), rtol=1e-9),
    Case(
        lax.regularized_incomplete_beta_p,
        lax.betainc,
        [between(0.5, 3, 3), between(0.5, 3, 3), between(0.1, 0.9, 3)],
        "x",
        (2,),
        rtol=1e-9,
    ),
    Case(lax.zeta_p, lax.zeta, [between(2, 4, 3), between(0.5, 3, 3)], "q", (1,), order=0, rtol=1e-9),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)


@pytest.mark.parametrize(
    ("fn", "operands", "text"),
    [
        (lax.igamma_grad_a, (1.5, 2.0), "igamma_grad_a in a"),
        (lax.polygamma, (1.0, 2.0), "polygamma in its order"),
        (lax.betainc, (1.5, 2.0, 0.5), "betainc in [ab]"),
        (lax.zeta, (2.0, 2.0), "zeta in its exponent"),
    ],
)
def test_a_derivative_without_a_formula_raises_and_is_not_zero(fn, operands, text):
    operands = [np.float32(x) for x in operands]
    with pytest.raises(NotImplementedError, match=text):
        our_vjp(lambda x: (fn(x, *operands[1:]),), operands[:1], [np.float32(1)])
