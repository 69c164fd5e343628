"""Elementwise primitives: arithmetic, comparison, selection, complex numbers, conversion.

One line per formula, sorted within a section; a named function where it takes more. ``ct`` is the cotangent of the
output. Conventions are JAX's: a complex pullback is the transpose (not the adjoint) of the derivative; at a tie of
``max`` or ``min`` each side gets half; ``abs`` has slope +1 at 0; ``sign``, ``floor`` and friends have slope 0.
"""

import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.extend.core import primitives
from jax.lax import (
    add,
    bitwise_and,
    complex,
    conj,
    convert_element_type,
    cos,
    cosh,
    div,
    eq,
    full_like,
    ge,
    gt,
    imag,
    integer_pow,
    log,
    lt,
    mul,
    neg,
    pow,
    real,
    rsqrt,
    select,
    sign,
    sin,
    sinh,
    square,
    sub,
)

from twograd.rules.common import constant, is_complex, nonzero, real_if, where
from twograd.rules.registry import nondifferentiable, vjp

# --- arithmetic -------------------------------------------------------------------------------------------------------


def spread(x, like):
    """A rank-0 ``x`` broadcast to the shape of ``like``; ``x`` itself where it has that shape already."""
    return x if x.shape == like.shape else lax.broadcast(x, like.shape)


def truncate(x):
    """x rounded towards zero."""
    return mul(sign(x), lax.floor(lax.abs(x)))


vjp(lax.add_p, x=lambda ct: ct, y=lambda ct: ct)
vjp(lax.div_p, x=lambda ct, y: div(ct, y), y=lambda ct, y, out: neg(mul(ct, div(out, y))))
vjp(lax.mul_p, x=lambda ct, y: mul(ct, y), y=lambda ct, x: mul(ct, x))
vjp(lax.neg_p, x=lambda ct: neg(ct))
vjp(lax.rem_p, x=lambda ct: ct, y=lambda ct, x, y: neg(mul(ct, truncate(div(x, y)))))
vjp(lax.square_p, x=lambda ct, x: mul(ct, mul(x, constant(x, 2))))
vjp(lax.sub_p, x=lambda ct: ct, y=lambda ct: neg(ct))
vjp(primitives.add_jaxvals_p, x=lambda ct: ct, y=lambda ct: ct)

# --- powers and roots -------------------------------------------------------------------------------------------------


def integer_pow_x(ct, x, *, y):
    """d(xʸ)/dx = y xʸ⁻¹ for a static integer y, free of 0/0 at y = 0 and y = 1."""
    if y == 0:
        return None
    return ct if y == 1 else mul(ct, mul(integer_pow(x, y - 1), constant(x, y)))


def pow_x(ct, x, y):
    """d(xʸ)/dx = y xʸ⁻¹; where an integer y is 0 it is 0, also at x = 0."""
    if not jnp.issubdtype(y.dtype, np.integer):
        return mul(ct, mul(y, pow(x, sub(y, constant(y, 1)))))
    slope = mul(convert_element_type(y, x.dtype), pow(x, sub(y, constant(y, 1))))
    return mul(ct, select(spread(eq(y, constant(y, 0)), slope), full_like(slope, 0), slope))


vjp(lax.cbrt_p, x=lambda ct, out: mul(ct, div(integer_pow(out, -2), constant(out, 3))))
vjp(lax.integer_pow_p, x=integer_pow_x)
vjp(lax.pow_p, x=pow_x, y=lambda ct, x, out: mul(ct, mul(log(nonzero(x)), out)))
vjp(lax.rsqrt_p, x=lambda ct, x, out: mul(ct, mul(div(out, x), constant(out, -0.5))))
vjp(lax.sqrt_p, x=lambda ct, out: mul(ct, div(constant(out, 0.5), out)))

# --- exponential, trigonometric, hyperbolic ---------------------------------------------------------------------------


def acosh_x(ct, x):
    """1/√(x²-1); for complex x the root is taken of each factor, for that of the product may have the other sign."""
    if not is_complex(x.dtype):
        return mul(ct, rsqrt(sub(square(x), constant(x, 1))))
    return mul(ct, mul(rsqrt(sub(x, constant(x, 1))), rsqrt(add(x, constant(x, 1)))))


vjp(lax.acos_p, x=lambda ct, x: neg(mul(ct, rsqrt(sub(constant(x, 1), square(x))))))
vjp(lax.acosh_p, x=acosh_x)
vjp(lax.asin_p, x=lambda ct, x: mul(ct, rsqrt(sub(constant(x, 1), square(x)))))
vjp(lax.asinh_p, x=lambda ct, x: mul(ct, rsqrt(add(square(x), constant(x, 1)))))
vjp(
    lax.atan2_p,  # atan2(x, y) is the angle of the point (y, x)
    x=lambda ct, x, y: mul(ct, div(y, add(square(x), square(y)))),
    y=lambda ct, x, y: neg(mul(ct, div(x, add(square(x), square(y))))),
)
vjp(lax.atan_p, x=lambda ct, x: div(ct, add(square(x), constant(x, 1))))
vjp(lax.atanh_p, x=lambda ct, x: div(div(ct, add(x, constant(x, 1))), sub(constant(x, 1), x)))
vjp(lax.cos_p, x=lambda ct, x, *, accuracy: neg(mul(ct, sin(x, accuracy=accuracy))))
vjp(lax.cosh_p, x=lambda ct, x: mul(ct, sinh(x)))
vjp(lax.exp2_p, x=lambda ct, out: mul(ct, mul(out, constant(out, np.log(2)))))
vjp(lax.exp_p, x=lambda ct, out: mul(ct, out))
vjp(lax.expm1_p, x=lambda ct, out: mul(ct, add(out, constant(out, 1))))
vjp(lax.log1p_p, x=lambda ct, x: div(ct, add(x, constant(x, 1))))
vjp(lax.log_p, x=lambda ct, x: div(ct, x))
vjp(lax.logistic_p, x=lambda ct, out: mul(ct, mul(out, sub(constant(out, 1), out))))
vjp(lax.sin_p, x=lambda ct, x, *, accuracy: mul(ct, cos(x, accuracy=accuracy)))
vjp(lax.sinh_p, x=lambda ct, x: mul(ct, cosh(x)))
vjp(lax.tan_p, x=lambda ct, out: mul(ct, add(square(out), constant(out, 1))))
vjp(lax.tanh_p, x=lambda ct, out: mul(ct, sub(constant(out, 1), square(out))))


# --- selection and rounding -------------------------------------------------------------------------------------------


def share(x, y, extreme):
    """How much of ct goes to x where out = extreme(x, y): 1 where x won, half at a tie."""
    out = extreme(x, y)
    one, half, zero = (full_like(out, fraction) for fraction in (1, 0.5, 0))
    return select(eq(x, out), select(eq(y, out), half, one), zero)


def clamp_min(ct, min, x, max):
    """The lower bound is the result where it exceeds x (and the upper bound exceeds it)."""
    return where(spread(bitwise_and(gt(min, x), lt(min, max)), ct), ct)


def clamp_x(ct, min, x, max):
    """x is the result strictly between the bounds; at a bound the slope is 0."""
    return where(spread(bitwise_and(gt(x, min), lt(x, max)), ct), ct)


def clamp_max(ct, x, max):
    """The upper bound is the result where x exceeds it."""
    return where(spread(lt(max, x), ct), ct)


def select_cases(ct, which, *, wanted):
    """ct goes to the case that was taken, elementwise; ``which`` is a mask of two cases or an index."""
    which = jnp.asarray(which)  # in a jaxpr a literal is a Python number
    if which.dtype == np.bool_:
        takes = [lax.bitwise_not(which), which]
    else:
        takes = [eq(which, constant(which, case)) for case in range(len(wanted))]
    takes = [spread(take, ct) for take in takes]
    return [where(take, ct) if want else None for take, want in zip(takes, wanted, strict=False)]


vjp(lax.clamp_p, "min x max", min=clamp_min, x=clamp_x, max=clamp_max)
vjp(
    lax.max_p,
    x=lambda ct, x, y: mul(ct, share(x, y, lax.max)),
    y=lambda ct, x, y: mul(ct, share(y, x, lax.max)),
)
vjp(
    lax.min_p,
    x=lambda ct, x, y: mul(ct, share(x, y, lax.min)),
    y=lambda ct, x, y: mul(ct, share(y, x, lax.min)),
)
vjp(lax.select_n_p, "which *cases", cases=select_cases)

# --- complex numbers --------------------------------------------------------------------------------------------------


def abs_x(ct, x):
    """For real x its sign (+1 at 0); for complex x the conjugate of its direction (0 at 0)."""
    if not is_complex(x.dtype):
        return select(ge(x, constant(x, 0)), ct, neg(ct))
    size = nonzero(lax.abs(x))
    return mul(convert_element_type(ct, x.dtype), conj(lax.complex(div(real(x), size), div(imag(x), size))))


vjp(lax.abs_p, x=abs_x)
vjp(lax.complex_p, x=lambda ct: real(ct), y=lambda ct: neg(imag(ct)))
vjp(lax.conj_p, x=lambda ct, x_aval: real_if(conj(ct), x_aval))
vjp(lax.imag_p, x=lambda ct: complex(full_like(ct, 0), neg(ct)))
vjp(lax.real_p, x=lambda ct: complex(ct, full_like(ct, 0)))

# --- conversion and identity ------------------------------------------------------------------------------------------

vjp(lax.convert_element_type_p, x=lambda ct, x_aval: convert_element_type(real_if(ct, x_aval), x_aval.dtype))
vjp(lax.copy_p, x=lambda ct: ct)
vjp(
    lax.reduce_precision_p,
    x=lambda ct, *, exponent_bits, mantissa_bits: lax.reduce_precision(ct, exponent_bits, mantissa_bits),
)

# --- no derivative ----------------------------------------------------------------------------------------------------

nondifferentiable(
    lax.and_p,
    lax.bitcast_convert_type_p,
    lax.ceil_p,
    lax.clz_p,
    lax.eq_p,
    lax.floor_p,
    lax.ge_p,
    lax.gt_p,
    lax.is_finite_p,
    lax.le_p,
    lax.lt_p,
    lax.mulhi_p,
    lax.ne_p,
    lax.nextafter_p,
    lax.not_p,
    lax.or_p,
    lax.population_count_p,
    lax.round_p,
    lax.shift_left_p,
    lax.shift_right_arithmetic_p,
    lax.shift_right_logical_p,
    lax.sign_p,
    lax.xor_p,
    primitives.eq_to_p,
    primitives.le_to_p,
    primitives.lt_to_p,
    primitives.stop_gradient_p,
)
