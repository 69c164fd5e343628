"""Operations in place: each is its operation out of place, whose result takes the Tensor's own place.

What flows in: methods of Tensor that make a new one. What flows out: their twins, with PyTorch's names: ``x.mul_(y)``,
``x *= y``, ``x[i] = y``. Read :func:`in_place`; what it means that elements change is said in ``views.py``.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from twograd.tape import methods
from twograd.tape.apply import apply
from twograd.tape.methods import assigner, is_basic, method, split_index
from twograd.tape.modes import mode
from twograd.tape.tensor import Tensor
from twograd.tape.views import VIEW_OF_LEAF, check_writable, write

NAMES = [
    "abs",
    "absolute",
    "acos",
    "add",
    "asin",
    "atan",
    "atan2",
    "ceil",
    "clamp",
    "clip",
    "conj",
    "cos",
    "cosh",
    "cumprod",
    "cumsum",
    "div",
    "eq",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "ge",
    "gt",
    "le",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "mul",
    "ne",
    "neg",
    "negative",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
    "trunc",
]
OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": None, "mod": "remainder", "pow": "pow",
    "and": None, "or": None, "xor": None,
}  # fmt: skip
EVERYTHING = frozenset({Ellipsis, (None, None, None)})  # x[:] is x itself, not a view of it, to item assignment


DONATED_BYTES = 2**16  # below, looking costs more than it saves


def in_place(operation: Callable[..., Tensor], name: str | None = None) -> Callable[..., Tensor]:
    """The twin of ``operation`` that changes its first Tensor, and returns it.

    Raises RuntimeError for a leaf that requires grad, for a view of one, and for a result of another shape, or of a
    dtype that the Tensor's cannot hold.
    """

    @functools.wraps(operation)
    def changed(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(x, (*args, *kwargs.values()))
        if mode.recording is False and not kwargs and hasattr(operation, "donating") and _may_donate(x, args):
            result = operation.donating(x, *args)  # pyright: ignore[reportFunctionMemberAccess]
            if result is not None:
                return write(x, result, changed.__name__)
        return write(x, operation(x, *args, **kwargs), changed.__name__)

    name = name or operation.__name__
    changed.__name__ = f"{name}_"
    changed.__doc__ = f"``{name}`` in place."
    return changed


def _may_donate(x: Tensor, args: tuple[Any, ...]) -> bool:
    """Whether the memory of ``x`` can be used for its new elements: nobody else refers to its array (no view, no node,
    no user), and it is so large that this pays."""
    if type(x) is not Tensor or isinstance(x._data, Tracer) or x._data.nbytes < DONATED_BYTES:
        return False
    alias = x._alias
    owners = 1
    if alias is not None:
        if alias.path is not None or alias.storage.array is not x._data or len(alias.storage.tensors()) != 1:
            return False
        owners = 2  # the Tensor and its storage
    return sys.getrefcount(x._data) == owners + 1 and all(arg is not x for arg in args)


for _name in NAMES:
    setattr(Tensor, f"{_name}_", in_place(getattr(Tensor, _name), _name))

for _name, _twin in OPERATORS.items():
    _operator = getattr(Tensor, f"{_twin}_") if _twin else in_place(getattr(Tensor, f"__{_name}__"))
    setattr(Tensor, f"__i{_name}__", _operator)


def _scaled(name: str) -> None:
    plain = getattr(Tensor, f"{name}_")

    def scaled(self: Tensor, other: Any, *, alpha: Any = None) -> Tensor:
        return plain(self, other if alpha is None else other * alpha)

    scaled.__name__ = f"{name}_"
    scaled.__doc__ = f"``{name}`` in place, of ``alpha * other``."
    setattr(Tensor, f"{name}_", scaled)


_scaled("add")
_scaled("sub")


def _zero(x: Any) -> Any:
    return jnp.zeros_like(x)


def _fill(x: Any, value: Any) -> Any:
    return jnp.full_like(x, value)


def _copy(x: Any, source: Any) -> Any:
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


_zero.__name__, _fill.__name__, _copy.__name__ = "zero", "fill", "copy"


def write_of(x: Tensor, function: Callable[..., Any], *args: Any) -> Tensor:
    """Puts ``function`` of ``x`` and ``args`` in the place of its elements."""
    check_writable(x, args)
    return write(x, apply(function, x, *args), f"{function.__name__}_")


@method
def zero_(self: Tensor) -> Tensor:
    """Zeros in place of the elements."""
    return write_of(self, _zero)


@method
def fill_(self: Tensor, value: Any) -> Tensor:
    """One value, a number or a Tensor of no dimensions, in place of the elements."""
    return write_of(self, _fill, value)


@method
def copy_(self: Tensor, source: Any) -> Tensor:
    """The elements of ``source``, broadcast and converted, in place of the elements."""
    return write_of(self, _copy, source)


@method
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    """Puts ``value``, broadcast and converted, in the place of the elements that ``index`` picks.

    Differentiable in both. Where an index picks an element twice it is undefined which value stays.
    """
    spec, operands = split_index(self, index)
    basic = is_basic(spec, operands) and not EVERYTHING.issuperset(spec)
    if basic and self._alias is not None and self._alias.path is not None:
        copy_(methods.__getitem__(self, index), value)  # its path tells which elements that writes
        return
    if basic and mode.enabled and self.requires_grad and self.is_leaf:
        raise RuntimeError(VIEW_OF_LEAF)
    check_writable(self, (value,))
    write(self, apply(assigner(spec), self, value, *operands), "item assignment")
