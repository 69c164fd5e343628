"""The four kinds of Fourier transform, of one to three axes, of even and odd lengths."""

import pytest
from jax import lax
from jax.lax import FftType

from .checks import Case, check, compl, each, real


def transform(kind, *lengths):
    """The transform of the last axes, of ``lengths``, as the primitive itself (lax.fft wraps it in a jit)."""
    return lambda x: lax.fft_p.bind(x, fft_type=kind, fft_lengths=lengths)


LENGTHS = [(1,), (2,), (5,), (6,), (3, 4), (2, 3, 5)]
SLOW = [(1,), (2,), (2, 3, 5)]


def cases(kind, draw, last):
    """One case for each of LENGTHS; ``last(n)`` is the length of the operand's last axis."""
    for lengths in LENGTHS:
        shape = (*lengths[:-1], last(lengths[-1]))
        name = f"{kind.name.lower()} {'x'.join(map(str, lengths))}"
        batch = (2,) if lengths == (6,) else ()
        yield Case(lax.fft_p, transform(kind, *lengths), [draw(*batch, *shape)], name, slow=lengths in SLOW)


CASES = [
    *cases(FftType.FFT, compl, lambda n: n),
    *cases(FftType.IFFT, compl, lambda n: n),
    *cases(FftType.RFFT, real, lambda n: n),
    *cases(FftType.IRFFT, compl, lambda n: n // 2 + 1),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)
