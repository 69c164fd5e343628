"""Arithmetic, powers, exponential and trigonometric functions, selection, complex numbers, conversion."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import primitives

from .checks import Case, between, check, compl, distinct, each, integers, jax_vjp, our_vjp, real, ties

LOW = ("float32", "bfloat16")

UNARY = {  # an interval inside the domain; None where the operand may be any complex number as well
    lax.acos_p: (lax.acos, (-0.9, 0.9)),
    lax.acosh_p: (lax.acosh, (1.1, 3.0)),
    lax.asin_p: (lax.asin, (-0.9, 0.9)),
    lax.asinh_p: (lax.asinh, (-3.0, 3.0)),
    lax.atan_p: (lax.atan, (-3.0, 3.0)),
    lax.atanh_p: (lax.atanh, (-0.9, 0.9)),
    lax.cbrt_p: (lax.cbrt, (0.2, 3.0)),
    lax.cos_p: (lax.cos, (-3.0, 3.0)),
    lax.cosh_p: (lax.cosh, (-3.0, 3.0)),
    lax.exp2_p: (lax.exp2, (-3.0, 3.0)),
    lax.exp_p: (lax.exp, (-3.0, 3.0)),
    lax.expm1_p: (lax.expm1, (-3.0, 3.0)),
    lax.log1p_p: (lax.log1p, (-0.9, 3.0)),
    lax.log_p: (lax.log, (0.1, 3.0)),
    lax.logistic_p: (lax.logistic, (-3.0, 3.0)),
    lax.neg_p: (lax.neg, (-3.0, 3.0)),
    lax.rsqrt_p: (lax.rsqrt, (0.1, 3.0)),
    lax.sin_p: (lax.sin, (-3.0, 3.0)),
    lax.sinh_p: (lax.sinh, (-3.0, 3.0)),
    lax.sqrt_p: (lax.sqrt, (0.1, 3.0)),
    lax.square_p: (lax.square, (-3.0, 3.0)),
    lax.tan_p: (lax.tan, (-1.2, 1.2)),
    lax.tanh_p: (lax.tanh, (-3.0, 3.0)),
}
NOT_COMPLEX = {lax.acosh_p, lax.cbrt_p}
COMMON = {lax.exp_p, lax.log_p, lax.neg_p, lax.sin_p, lax.sqrt_p, lax.square_p, lax.tanh_p}

BINARY = {
    lax.add_p: lax.add,
    lax.div_p: lax.div,
    lax.mul_p: lax.mul,
    lax.sub_p: lax.sub,
    primitives.add_jaxvals_p: primitives.add_jaxvals_p.bind,
}


CASES = [
    *(Case(p, fn, [between(*domain, 3, 4)], dtypes=LOW) for p, (fn, domain) in UNARY.items()),
    *(
        Case(p, fn, [compl(3, 4)], "complex", slow=p not in COMMON)
        for p, (fn, _) in UNARY.items()
        if p not in NOT_COMPLEX
    ),
    *(Case(p, fn, [real(3, 4), between(0.5, 2, 3, 4)], dtypes=LOW) for p, fn in BINARY.items()),
    *(Case(p, fn, [compl(3, 4), compl(3, 4)], "complex") for p, fn in BINARY.items()),
    # JAX's derivative of acosh has the other sign where the real part is negative; finite differences do not
    Case(lax.acosh_p, lax.acosh, [compl(3, 4)], "complex", order=0),
    Case(lax.sin_p, lax.sin, [real()], "scalar"),
    Case(lax.exp_p, lax.exp, [real(0, 4)], "empty"),
    Case(lax.mul_p, lax.mul, [real(3, 4), real()], "scalar-y"),
    Case(lax.mul_p, lambda x: lax.mul(x, x), [compl(3, 4)], "twice"),
    Case(lax.div_p, lax.div, [real(), between(0.5, 2, 3, 4)], "scalar-x"),
    Case(lax.cos_p, lambda x: lax.cos(x, accuracy=lax.AccuracyMode.HIGHEST), [real(3)], "accuracy"),
    Case(lax.sin_p, lambda x: lax.sin(x, accuracy=lax.AccuracyMode.HIGHEST), [real(3)], "accuracy"),
    # powers
    *(Case(lax.integer_pow_p, lambda x, n=n: lax.integer_pow(x, n), [real(3, 4)], f"{n}") for n in (-2, 3)),
    Case(lax.integer_pow_p, lambda x: primitives.integer_pow_p.bind(x, y=0), [real(3, 4)], "0"),
    Case(lax.integer_pow_p, lambda x: primitives.integer_pow_p.bind(x, y=1), [real(3, 4)], "1"),
    Case(lax.integer_pow_p, lambda x: lax.integer_pow(x, 3), [compl(3, 4)], "complex"),
    Case(lax.pow_p, lax.pow, [between(0.5, 2, 3, 4), real(3, 4)], dtypes=LOW),
    Case(lax.pow_p, lax.pow, [compl(3, 4), compl(3, 4)], "complex"),
    Case(lax.pow_p, lax.pow, [between(-2, 2, 3, 4), integers(-2, 4, 3, 4)], "integer exponent"),
    Case(lax.pow_p, lax.pow, [between(-2, 2, 3, 4), integers(-2, 4, dtype=np.int32)], "integer scalar exponent"),
    Case(lax.pow_p, lax.pow, [between(0.5, 2), real(3, 4)], "scalar-x"),
    # two operands
    Case(lax.atan2_p, lax.atan2, [real(3, 4), real(3, 4)], dtypes=LOW),
    Case(lax.atan2_p, lax.atan2, [compl(3, 4), compl(3, 4)], "complex"),
    Case(lax.rem_p, lax.rem, [np.array([7.3, -7.3, 5.1]), np.array([2.1, 2.2, -1.3])], dtypes=LOW),
    # selection and rounding
    Case(lax.abs_p, lax.abs, [distinct(3, 4)], dtypes=LOW),
    Case(lax.abs_p, lax.abs, [compl(3, 4)], "complex"),
    Case(lax.abs_p, lax.abs, [ties(3, 4)], "zero", smooth=False),
    Case(lax.clamp_p, lax.clamp, [between(-2, -1, 3, 4), between(-3, 3, 3, 4), between(1, 2, 3, 4)], dtypes=LOW),
    Case(lax.clamp_p, lax.clamp, [np.float64(-0.5), distinct(3, 4), np.float64(0.6)], "scalar bounds", order=0),
    Case(lax.clamp_p, lax.clamp, [ties(3, 4), ties(3, 4), ties(3, 4)], "ties", smooth=False),
    Case(lax.max_p, lax.max, [real(3, 4), real(3, 4)], dtypes=LOW),
    Case(lax.max_p, lax.max, [real(3, 4), np.float64(0.1)], "scalar-y"),
    Case(lax.max_p, lax.max, [ties(3, 4), ties(3, 4)], "ties", smooth=False),
    Case(lax.min_p, lax.min, [real(3, 4), real(3, 4)], dtypes=LOW),
    Case(lax.min_p, lax.min, [ties(3, 4), ties(3, 4)], "ties", smooth=False),
    Case(lax.select_n_p, lax.select_n, [np.array([[True, False]]), real(1, 2), real(1, 2)], dtypes=LOW),
    Case(lax.select_n_p, lax.select_n, [np.array(True), compl(3), compl(3)], "scalar which, complex"),
    Case(lax.select_n_p, lax.select_n, [integers(0, 3, 5, dtype=np.int32), real(5), real(5), real(5)], "three cases"),
    Case(lax.select_n_p, lax.select_n, [np.array([True, False]), real(2), np.array([1.0, 2.0])], "one wanted", (1,)),
    # complex numbers
    Case(lax.complex_p, lax.complex, [real(3, 4), real(3, 4)]),
    Case(lax.conj_p, lax.conj, [compl(3, 4)]),
    Case(lax.conj_p, lambda x: lax.conj_p.bind(x, input_dtype=x.dtype), [real(3, 4)], "real"),
    Case(lax.imag_p, lax.imag, [compl(3, 4)]),
    Case(lax.real_p, lax.real, [compl(3, 4)]),
    # conversion and identity
    Case(lax.convert_element_type_p, lambda x: lax.convert_element_type(x, np.complex128), [real(3)], "to complex"),
    Case(lax.convert_element_type_p, lambda x: lax.convert_element_type(x, np.float32), [real(3)], smooth=False),
    Case(lax.copy_p, lax.copy_p.bind, [real(3, 4)], dtypes=LOW),
    Case(lax.reduce_precision_p, lambda x: lax.reduce_precision(x, 8, 7), [real(3)], smooth=False),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)


# --- where formulas lose digits ---------------------------------------------------------------------------------------

SIZES = [
    0.0,
    1e-40,
    1e-30,
    1e-20,
    1e-10,
    1e-3,
    0.5,
    1 - 6e-8,
    1,
    1 + 1.2e-7,
    2,
    5,
    9,
    20,
    60,
    88,
    100,
    1e5,
    1e20,
    3e38,
    np.inf,
]
HARD = np.array([sign * size for size in SIZES for sign in (1, -1)], np.float32)
HARD_COMPLEX = np.array([0, 1e-30, 1e-30j, 1e-20 + 1e-20j, 1, -1j, 3 - 4j, 1e10j, 1e19 + 1e19j, 1e30], np.complex64)
EVERY = np.meshgrid(HARD, HARD)
WHOLE = np.meshgrid(HARD, np.arange(-3, 4, dtype=np.int32))

AT_HARD_POINTS = {
    "abs": (lax.abs, [HARD]),
    "abs-complex": (lax.abs, [HARD_COMPLEX]),
    "atan2": (lax.atan2, EVERY),
    "div": (lax.div, EVERY),
    "expm1": (lax.expm1, [HARD]),
    "log1p": (lax.log1p, [HARD]),
    "logistic": (lax.logistic, [HARD]),
    "max": (lax.max, EVERY),
    "mul": (lax.mul, EVERY),
    "pow": (lax.pow, EVERY),
    "pow-integer": (lax.pow, WHOLE),
    "rem": (lax.rem, EVERY),
    "rsqrt": (lax.rsqrt, [HARD]),
    "sqrt": (lax.sqrt, [HARD]),
    "tanh": (lax.tanh, [HARD]),
    "sqrt-complex": (lax.sqrt, [HARD_COMPLEX]),
}
# The slope 1 - out² of tanh keeps all digits of its own derivative at 0; it has fewer where a complex out² is near 1.
SWEEP_OF_HARD_POINTS = {p.name: (fn, [HARD]) for p, (fn, _) in UNARY.items() if p.name not in AT_HARD_POINTS} | {
    f"{p.name}-complex": (fn, [HARD_COMPLEX])
    for p, (fn, _) in UNARY.items()
    if p not in NOT_COMPLEX and p is not lax.tanh_p
}


def check_hard_points(fn, operands):
    """In float32 our derivative is finite wherever JAX's is, and not further from JAX's in float64 than JAX's is."""

    def derivatives(side, wide):
        types = {np.dtype(np.float32): np.float64, np.dtype(np.complex64): np.complex128} if wide else {}
        xs = [jnp.asarray(x.ravel().astype(types.get(x.dtype, x.dtype))) for x in operands]
        wrt = [i for i, x in enumerate(xs) if np.issubdtype(x.dtype, np.inexact)]

        def of_wrt(*given):
            full = list(xs)
            for i, x in zip(wrt, given, strict=True):
                full[i] = x
            return (fn(*full),)

        given = [xs[i] for i in wrt]
        return jax.jit(lambda given: side(of_wrt, given, [jnp.ones_like(of_wrt(*given)[0])]))(given)

    with jax.enable_x64(True), np.errstate(all="ignore"):
        for ours, theirs, truth in zip(
            derivatives(our_vjp, False), derivatives(jax_vjp, False), derivatives(jax_vjp, True), strict=True
        ):
            ours, theirs, truth = (np.asarray(ct) for ct in (ours, theirs, truth))
            assert np.all(np.isfinite(ours) | ~np.isfinite(theirs)), "not finite where JAX's is"
            seen = np.isfinite(ours) & np.isfinite(theirs) & np.isfinite(truth)
            our_error, their_error = (np.abs(ct[seen] - truth[seen]) for ct in (ours, theirs))
            bound = 2 * their_error + 4 * np.finfo(np.float32).eps * np.abs(truth[seen]) + np.finfo(np.float32).tiny
            assert np.all(our_error <= bound), "less accurate than JAX"


@pytest.mark.parametrize("name", AT_HARD_POINTS)
def test_a_derivative_is_as_accurate_as_jax_at_hard_points(name):
    check_hard_points(*AT_HARD_POINTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEP_OF_HARD_POINTS)
def test_every_derivative_is_as_accurate_as_jax_at_hard_points(name):
    check_hard_points(*SWEEP_OF_HARD_POINTS[name])
