"""Special functions of the error, gamma, zeta, beta and Bessel families.

The formulas are those of the NIST Digital Library of Mathematical Functions (chapters 7, 8, 10, 5 and 25). A derivative
for which no formula is known raises, like one for which there is no rule; it is never taken for zero.
"""

import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.lax import (
    add,
    digamma,
    div,
    exp,
    full_like,
    le,
    lgamma,
    log,
    log1p,
    mul,
    neg,
    polygamma,
    select,
    sign,
    square,
    sub,
)

from twograd.rules.common import constant
from twograd.rules.registry import vjp


def unknown(name):
    """The rule of an operand in which the derivative has no formula."""

    def rule(ct):
        raise NotImplementedError(f"no formula for the derivative of {name}; only numerical methods give it")

    return rule


# --- error functions --------------------------------------------------------------------------------------------------

vjp(lax.erf_inv_p, x=lambda ct, out: mul(ct, mul(exp(square(out)), constant(out, np.sqrt(np.pi) / 2))))
vjp(lax.erf_p, x=lambda ct, x: mul(ct, mul(exp(neg(square(x))), constant(x, 2 / np.sqrt(np.pi)))))
vjp(lax.erfc_p, x=lambda ct, x: mul(ct, mul(exp(neg(square(x))), constant(x, -2 / np.sqrt(np.pi)))))

# --- gamma, beta and zeta functions -----------------------------------------------------------------------------------


def gamma_density(a, x):
    """dP(a, x)/dx = xᵃ⁻¹ e⁻ˣ / Γ(a), the density of the gamma distribution."""
    return exp(sub(sub(mul(sub(a, constant(a, 1)), log(x)), x), lgamma(a)))


def beta_density(a, b, x):
    """dIₓ(a, b)/dx = xᵃ⁻¹ (1 - x)ᵇ⁻¹ / B(a, b), the density of the beta distribution."""
    log_beta = sub(add(lgamma(a), lgamma(b)), lgamma(add(a, b)))
    log_power = add(mul(sub(a, constant(a, 1)), log(x)), mul(sub(b, constant(b, 1)), log1p(neg(x))))
    return exp(sub(log_power, log_beta))


vjp(lax.digamma_p, x=lambda ct, x: mul(ct, polygamma(constant(x, 1), x)))
vjp(
    lax.igamma_grad_a_p,  # dP(a, x)/da
    a=unknown("igamma_grad_a in a"),
    x=lambda ct, a, x: mul(ct, mul(gamma_density(a, x), sub(log(x), digamma(a)))),
)
vjp(
    lax.igamma_p,
    a=lambda ct, a, x: mul(ct, lax.igamma_grad_a(a, x)),
    x=lambda ct, a, x: mul(ct, gamma_density(a, x)),
)
vjp(
    lax.igammac_p,
    a=lambda ct, a, x: neg(mul(ct, lax.igamma_grad_a(a, x))),
    x=lambda ct, a, x: neg(mul(ct, gamma_density(a, x))),
)
vjp(lax.lgamma_p, x=lambda ct, x: mul(ct, digamma(x)))
vjp(
    lax.polygamma_p,
    m=unknown("polygamma in its order"),
    x=lambda ct, m, x: mul(ct, polygamma(add(m, constant(m, 1)), x)),
)
vjp(
    lax.regularized_incomplete_beta_p,
    a=unknown("betainc in a"),
    b=unknown("betainc in b"),
    x=lambda ct, a, b, x: mul(ct, beta_density(a, b, x)),
)
vjp(
    lax.zeta_p,
    x=unknown("zeta in its exponent"),
    q=lambda ct, x, q: neg(mul(ct, mul(x, lax.zeta(add(x, constant(x, 1)), q)))),
)

# --- Bessel functions -------------------------------------------------------------------------------------------------


def bessel_i1e_x(ct, x, out):
    """d(e⁻ˡˣˡ I₁(x))/dx = e⁻ˡˣˡ I₀(x) - (sign(x) + 1/x) out, which tends to 1/2 at 0."""
    tiny = constant(x, jnp.finfo(x.dtype).eps)
    near_0 = le(lax.abs(x), tiny)
    away = select(near_0, full_like(x, tiny), x)
    slope = sub(lax.bessel_i0e(away), mul(out, add(sign(away), div(constant(x, 1), away))))
    return mul(ct, select(near_0, full_like(x, 0.5), slope))


vjp(lax.bessel_i0e_p, x=lambda ct, x, out: mul(ct, sub(lax.bessel_i1e(x), mul(sign(x), out))))
vjp(lax.bessel_i1e_p, x=bessel_i1e_x)
