"""Cumulative reductions: y[k] combines x[0] to x[k] along an axis, or x[k] to the last element in reverse.

A cumulative sum is linear, and its transpose is the cumulative sum from the other end. The other reductions differ in
how two values are combined and in the two slopes of that; read :func:`scan_back`, which they share.
"""

from functools import partial

from jax import lax
from jax.lax import add, concatenate, eq, exp, full_like, log, mul, select, sub

from twograd.rules.common import constant, where
from twograd.rules.elementwise import share
from twograd.rules.registry import vjp


def scan_back(combine, slopes, ct, x, out, axis):
    """The pullback of ``out = scan(x)``, backwards through the tree of a parallel prefix scan.

    The tree, with e and o for the elements of even and odd index:

        pairs = combine(x_e, x_o);  out_o = scan(pairs);  out_e = [x_e[0], combine(out_o, x_e[1:])]

    ``slopes(x, y, out)`` are the derivatives of ``out = combine(x, y)`` in x and in y. Nothing is divided by an
    element, so zeros of a product are no exception. At a tie of more than two maxima the tree decides the shares, and
    this tree is the one of ``jax.lax.associative_scan``.
    """
    n = x.shape[axis]
    if n < 2:
        return ct
    take = partial(lax.slice_in_dim, axis=axis)
    x_e, out_e, ct_e = (take(value, 0, None, 2) for value in (x, out, ct))
    x_o, out_o, ct_o = (take(value, 1, None, 2) for value in (x, out, ct))
    pairs, rest = n // 2, (n - 1) // 2

    slope_o, slope_e = slopes(take(out_o, 0, rest), take(x_e, 1, None), take(out_e, 1, None))
    ct_rest = take(ct_e, 1, None)
    ct_o = concatenate([add(take(ct_o, 0, rest), mul(ct_rest, slope_o)), take(ct_o, rest, None)], axis)
    ct_e = concatenate([take(ct_e, 0, 1), mul(ct_rest, slope_e)], axis)

    paired = combine(take(x_e, 0, pairs), x_o)
    ct_paired = scan_back(combine, slopes, ct_o, paired, out_o, axis)
    slope_e, slope_o = slopes(take(x_e, 0, pairs), x_o, paired)
    ct_e = concatenate([add(take(ct_e, 0, pairs), mul(ct_paired, slope_e)), take(ct_e, pairs, None)], axis)
    return interleave(ct_e, mul(ct_paired, slope_o), axis)


def interleave(even, odd, axis):
    """The elements of ``even`` at even places and those of ``odd``, as many or one fewer, at odd places."""
    more = even.shape[axis] - odd.shape[axis]

    def spaced(x, before, after):
        return lax.pad(x, constant(x, 0), [(before, after, 1) if i == axis else (0, 0, 0) for i in range(x.ndim)])

    return add(spaced(even, 0, 1 - more), spaced(odd, 1, more))


def cumulative(combine, slopes):
    """The rule of the cumulative reduction by ``combine``."""

    def rule(ct, x, out, *, axis, reverse):
        if not reverse:
            return scan_back(combine, slopes, ct, x, out, axis)
        ct, x, out = (lax.rev(value, [axis]) for value in (ct, x, out))
        return lax.rev(scan_back(combine, slopes, ct, x, out, axis), [axis])

    return rule


def logsumexp(x, y):
    """log(eˣ + eʸ), shifted by the larger one against overflow; the larger one itself where that is infinite."""
    top = lax.max(x, y)
    finite = lax.is_finite(lax.abs(top))
    x, y, shift = (where(finite, value) for value in (x, y, top))
    return select(finite, add(shift, log(add(exp(sub(x, shift)), exp(sub(y, shift))))), top)


def logsumexp_slopes(x, y, out):
    """eˣ⁻ᵒᵘᵗ and eʸ⁻ᵒᵘᵗ; the difference of equal infinities counts as 0."""
    return tuple(exp(select(eq(value, out), full_like(out, 0), sub(value, out))) for value in (x, y))


vjp(lax.cumlogsumexp_p, x=cumulative(logsumexp, logsumexp_slopes))
vjp(lax.cummax_p, x=cumulative(lax.max, lambda x, y, out: (share(x, y, lax.max), share(y, x, lax.max))))
vjp(lax.cummin_p, x=cumulative(lax.min, lambda x, y, out: (share(x, y, lax.min), share(y, x, lax.min))))
vjp(lax.cumprod_p, x=cumulative(mul, lambda x, y, out: (y, x)))
vjp(lax.cumsum_p, x=lambda ct, *, axis, reverse: lax.cumsum(ct, axis, reverse=not reverse))
