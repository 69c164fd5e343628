"""The operators and methods of Symbol: NumPy's, each one operation (see :func:`twograd.graph.symbolic.build.apply`)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from twograd.graph.symbolic.build import apply
from twograd.graph.symbolic.container import Symbol

BINARY = {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "truediv": jnp.true_divide, "floordiv": jnp.floor_divide,
    "mod": jnp.remainder, "matmul": jnp.matmul, "and": jnp.bitwise_and, "or": jnp.bitwise_or, "xor": jnp.bitwise_xor,
    "lshift": jnp.left_shift, "rshift": jnp.right_shift, "pow": jnp.power,
}  # fmt: skip
COMPARISONS = {"lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal}
UNARY = {"neg": jnp.negative, "abs": jnp.abs, "invert": jnp.bitwise_not, "pos": jnp.positive}
METHODS = (
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "conj", "cumprod", "cumsum", "diagonal", "dot",
    "flatten", "max", "mean", "min", "prod", "ravel", "repeat", "reshape", "round", "sort", "squeeze", "std", "sum",
    "swapaxes", "take", "trace", "transpose", "var",
)  # fmt: skip
PROPERTIES = ("T", "imag", "mT", "real")
UPDATES = ("add", "apply", "divide", "get", "max", "min", "mul", "multiply", "power", "set", "subtract")


def attach(name: str, function: Callable[..., Any]) -> None:
    """Lets ``Symbol`` have ``function`` as the method ``name``."""

    def method(self, *args, **kwargs):
        return apply(function, self, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"``jax.Array.{name}`` as one operation."
    setattr(Symbol, name, method)


def reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: apply(function, other, self)


def array_method(name: str) -> Callable[..., Any]:
    """A function that calls the method ``name`` of an array."""

    def call(x, *args, **kwargs):
        return getattr(x, name)(*args, **kwargs)

    call.__name__ = name
    return call


def array_property(name: str) -> property:
    """A property that reads the one of this name of an array."""

    def read(x):
        return getattr(x, name)

    read.__name__ = name
    return property(lambda self: apply(read, self))


for _name, _function in {**BINARY, **COMPARISONS, **UNARY}.items():
    attach(f"__{_name}__", _function)
for _name, _function in BINARY.items():
    setattr(Symbol, f"__r{_name}__", reflected(_function))
for _name in METHODS:
    attach(_name, array_method(_name))
for _name in PROPERTIES:
    setattr(Symbol, _name, array_property(_name))


# --- indexing ---------------------------------------------------------------------------------------------------------


def getitem(x: Any, index: Any) -> Any:
    return x[index]


def _checked(index: Any) -> Any:
    """``index``, which has no Symbols as bounds of slices: those would decide a shape."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, slice) and any(isinstance(bound, Symbol) for bound in (part.start, part.stop, part.step)):
            raise TypeError(
                f"a Symbol cannot bound a slice ({part}): the result's shape would depend on a value. Use "
                "twograd.lax.dynamic_slice, with a fixed size."
            )
        if isinstance(part, Symbol) and part.dtype == np.bool_ and part.ndim:
            raise TypeError(
                f"a boolean Symbol cannot be an index ({part}): the result's shape would depend on values. Use "
                "twograd.numpy.where."
            )
    return index


def _getitem(self: Symbol, index: Any) -> Symbol:
    return apply(getitem, self, _checked(index))


Symbol.__getitem__ = _getitem  # pyright: ignore[reportAttributeAccessIssue]


class _At:
    """``x.at``, waiting for an index."""

    def __init__(self, symbol: Symbol):
        self._symbol = symbol

    def __getitem__(self, index: Any) -> "_Updates":
        return _Updates(self._symbol, _checked(index))


class _Updates:
    """``x.at[index]``, with JAX's methods: ``set``, ``add`` ..."""

    def __init__(self, symbol: Symbol, index: Any):
        self._symbol, self._index = symbol, index

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in UPDATES:
            raise AttributeError(f"x.at[...] has no method {name!r}; it has {', '.join(UPDATES)}")
        return lambda *args, **kwargs: apply(_UPDATERS[name], self._symbol, self._index, *args, **kwargs)


def _updater(name: str) -> Callable[..., Any]:
    def update(x, index, *args, **kwargs):
        return getattr(x.at[index], name)(*args, **kwargs)

    update.__name__ = f"index_{name}"
    return update


_UPDATERS = {name: _updater(name) for name in UPDATES}
Symbol.at = property(_At)  # pyright: ignore[reportAttributeAccessIssue]
