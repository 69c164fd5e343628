"""The discrete Fourier transform, of any number of last axes, between complex numbers or from and to real ones.

A Fourier matrix is symmetric, so that the complex transforms are their own transposes. A real transform keeps only the
frequencies 0 to n/2 of its last axis, for the others are their conjugates; see :func:`multiplicity`.
"""

import math

import numpy as np
from jax import lax
from jax.extend.core.primitives import fft_p
from jax.lax import FftType, conj, div, mul

from twograd.rules.common import constant
from twograd.rules.registry import vjp


def multiplicity(spectrum, n):
    """How often each kept frequency counts among all n of the last axis: twice, but once where it is its own mirror."""
    once = [k in (0, n - k) for k in range(n // 2 + 1)]
    counts = np.where(once, 1, 2).astype(spectrum.dtype)
    return lax.broadcast_in_dim(counts, spectrum.shape, [spectrum.ndim - 1])


def fft_x(ct, *, fft_type, fft_lengths):
    """F for F and F⁻¹ for F⁻¹; the real transforms, which keep part of the spectrum, are each other's up to weights."""
    size, n = math.prod(fft_lengths), fft_lengths[-1]
    if fft_type == FftType.RFFT:
        spectrum = div(conj(ct), multiplicity(ct, n))
        x = fft_p.bind(spectrum, fft_type=FftType.IRFFT, fft_lengths=fft_lengths)
        return mul(x, constant(x, size))
    if fft_type == FftType.IRFFT:
        spectrum = conj(fft_p.bind(ct, fft_type=FftType.RFFT, fft_lengths=fft_lengths))
        return div(mul(spectrum, multiplicity(spectrum, n)), constant(spectrum, size))
    return fft_p.bind(ct, fft_type=fft_type, fft_lengths=fft_lengths)


vjp(fft_p, x=fft_x)
