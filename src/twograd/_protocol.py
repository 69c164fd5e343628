"""The one protocol by which a function of arrays is handed on to an engine.

A front-end function (``twograd.numpy.sin``, ``twograd.nn.functional.conv2d`` ...) is a JAX function behind
:func:`front_end`. Called with arrays or JAX tracers it is that JAX function. Called with a value whose class defines

    __twograd_function__(function, args, kwargs)

(a static method: a tape's Tensor records, a Symbol builds) the call is handed to that class, with ``function`` being
the plain JAX function. This is NumPy's ``__array_function__`` with one method for every function there is.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def front_end(function: F) -> F:
    """``function``, a function of JAX arrays, made to hand its call on where an argument asks for it."""

    @functools.wraps(function)
    def handed_on(*args, **kwargs):
        for arg in args:
            handler = getattr(type(arg), "__twograd_function__", None)
            if handler is not None:
                return handler(function, args, kwargs)
            if type(arg) in CONTAINERS:
                break
        else:
            if not kwargs:
                return function(*args)
        # Rarer: operands inside lists (concatenate), dicts or keywords.
        for leaf in jax.tree.leaves((args, kwargs)):
            handler = getattr(type(leaf), "__twograd_function__", None)
            if handler is not None:
                return handler(function, args, kwargs)
        return function(*args, **kwargs)

    return handed_on  # pyright: ignore[reportReturnType]


CONTAINERS = frozenset({list, tuple, dict})
