"""``jax.numpy`` for arrays, JAX tracers, tape Tensors and graph Symbols.

    import twograd.numpy as tnp

    tnp.sin(x)   # an array -> jax.numpy.sin(x); a Tensor -> recorded; a Symbol -> built

Names, arguments and behaviour are those of the installed ``jax.numpy``; its documentation applies. Universal functions
keep ``.at``, ``.reduce``, ``.accumulate``, ``.outer``. Dtypes, constants and classes are ``jax.numpy``'s own.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy

from twograd._namespace import namespace, wrapped
from twograd._protocol import front_end
from twograd.numpy import fft as fft
from twograd.numpy import linalg as linalg


def _returning_front_end(maker: Callable[..., Any]) -> Callable[..., Any]:
    """``vectorize`` and ``frompyfunc`` make functions of arrays: those, too, hand their calls on."""

    @functools.wraps(maker)
    def make(*args, **kwargs):
        made = maker(*args, **kwargs)
        return wrapped(made, __name__) if isinstance(made, jax.numpy.ufunc) else front_end(made)

    make.__module__ = __name__
    return make


__getattr__, __dir__ = namespace(
    jax.numpy, globals(), {"vectorize": _returning_front_end, "frompyfunc": _returning_front_end}
)
