"""A module of JAX's, every function of which hands its call on where an operand asks for it.

What flows in: ``jax.numpy``, say. What flows out: ``__getattr__`` and ``__dir__`` for ``twograd.numpy``. A name is
looked up and wrapped when it is first used, so that importing costs nothing and there is no line per function.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax.numpy

from twograd._protocol import front_end

UFUNC_METHODS = ("accumulate", "at", "outer", "reduce", "reduceat")
UFUNC_NUMBERS = ("identity", "nargs", "nin", "nout")


def namespace(
    source: ModuleType, namespace: dict[str, Any], overrides: Mapping[str, Callable[..., Any]] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for the module with the globals ``namespace``, in which they keep what they find.

    Functions of ``source`` are wrapped by :func:`front_end`, or by their entry in ``overrides``. Everything else, such
    as dtypes, classes, constants and NumPy's own functions (printing, saving), is passed on as it is.
    """
    module, overrides = namespace["__name__"], overrides or {}

    def public() -> list[str]:
        return [name for name in dir(source) if not name.startswith("_")]

    def lookup(name: str) -> Any:
        if name == "__all__":
            value: Any = public()
        elif name.startswith("_") or not hasattr(source, name):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        else:
            value = getattr(source, name)
            if is_function_of_arrays(value):
                value = overrides[name](value) if name in overrides else wrapped(value, module)
        namespace[name] = value
        return value

    return lookup, public


def is_function_of_arrays(value: Any) -> bool:
    """Whether ``value`` is a function of JAX's: not a class, a dtype, a module, nor a function of NumPy's."""
    if isinstance(value, jax.numpy.ufunc):
        return True
    # Of JAX's objects only functions, jitted or not, have a __name__ and a __module__ of JAX and are no classes.
    named = callable(value) and not isinstance(value, type) and hasattr(value, "__qualname__")
    return named and value.__module__.startswith("jax")


def wrapped(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """``function`` behind :func:`front_end`, as a function of ``module``."""
    handed_on: Any = front_end(function)
    handed_on.__module__, handed_on.__qualname__ = module, function.__name__
    if isinstance(function, jax.numpy.ufunc):
        for name in UFUNC_METHODS:
            setattr(handed_on, name, front_end(getattr(function, name)))
        for name in UFUNC_NUMBERS:
            setattr(handed_on, name, getattr(function, name))
    return handed_on
