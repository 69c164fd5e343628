"""``torch.fft`` on Tensors: ``jax.numpy.fft`` with PyTorch's parameters, ``n``/``s``, ``dim``, ``norm``."""

from typing import Any

import jax.numpy as jnp

from twograd.tape.dtypes import default_float, narrowed
from twograd.tape.schema import operation
from twograd.tape.tensor import Tensor

ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
TWO = ["fft2", "ifft2", "rfft2", "irfft2"]
MANY = ["fftn", "ifftn", "rfftn", "irfftn"]


def _transform(name: str) -> Any:
    function = getattr(jnp.fft, name)
    if name in ONE:
        return operation(f"fft_{name}", "t.d.", lambda input, n=None, dim=-1, norm=None: function(input, n, dim, norm))
    if name in TWO:
        return operation(
            f"fft_{name}", "t.d.", lambda input, s=None, dim=(-2, -1), norm=None: function(input, s, dim, norm)
        )
    return operation(f"fft_{name}", "t.d.", lambda input, s=None, dim=None, norm=None: function(input, s, dim, norm))


fftshift = operation("fft_fftshift", "td", lambda input, dim=None: jnp.fft.fftshift(input, dim))
ifftshift = operation("fft_ifftshift", "td", lambda input, dim=None: jnp.fft.ifftshift(input, dim))


def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None) -> Tensor:
    """The frequencies of ``fft``'s results."""
    return Tensor(jnp.fft.fftfreq(n, d).astype(default_float() if dtype is None else narrowed(dtype)))


def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None) -> Tensor:
    """The frequencies of ``rfft``'s results."""
    return Tensor(jnp.fft.rfftfreq(n, d).astype(default_float() if dtype is None else narrowed(dtype)))


def __getattr__(name: str) -> Any:
    if name not in (*ONE, *TWO, *MANY):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = _transform(name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *ONE, *TWO, *MANY})
