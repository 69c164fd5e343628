"""Operations in place: each is its operation out of place, whose result takes the Tensor's own place.

What flows in: methods of Tensor that make a new one. What flows out: their twins, with PyTorch's names: ``x.mul_(y)``,
``x *= y``, ``x[i] = y``. Read :func:`in_place`; what it means that elements change is said in ``views.py``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape import methods as methods
from twograd.tape.apply import apply
from twograd.tape.factories import next_key
from twograd.tape.indexing import __getitem__ as getitem
from twograd.tape.indexing import assigner, at_integers, is_basic, method, mixes, split_index
from twograd.tape.modes import enable_grad, mode
from twograd.tape.operations import BINARY
from twograd.tape.schema import NO_DERIVATIVE, operation
from twograd.tape.tensor import Tensor, set_aside
from twograd.tape.views import VIEW_OF_LEAF, check_writable, owns_its_array, reshaped, without_hooks, write

NAMES = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addbmm",
    "addcdiv",
    "addcmul",
    "addmm",
    "addmv",
    "addr",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "baddbmm",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "conj",
    "conj_physical",
    "copysign",
    "cos",
    "cosh",
    "cumprod",
    "cumsum",
    "deg2rad",
    "digamma",
    "div",
    "divide",
    "eq",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmod",
    "frac",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "heaviside",
    "hypot",
    "i0",
    "igamma",
    "igammac",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "lcm",
    "ldexp",
    "le",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "lt",
    "masked_fill",
    "masked_scatter",
    "mul",
    "multiply",
    "mvlgamma",
    "nan_to_num",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "not_equal",
    "polygamma",
    "pow",
    "put",
    "rad2deg",
    "reciprocal",
    "relu",
    "remainder",
    "renorm",
    "round",
    "rsqrt",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "sgn",
    "sigmoid",
    "sign",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "tril",
    "triu",
    "true_divide",
    "trunc",
    "xlogy",
]
"""The methods that PyTorch has in place, too; those that are not made of a method follow below."""

RESHAPING = ["squeeze", "t", "transpose", "swapaxes", "swapdims", "unsqueeze"]
"""The views that PyTorch has in place."""

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
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
        return write(x, operation(without_hooks(x), *args, **kwargs), changed.__name__)

    name = name or operation.__name__
    changed.__name__ = f"{name}_"
    changed.__doc__ = f"``{name}`` in place."
    return changed


def _may_donate(x: Tensor, args: tuple[Any, ...]) -> bool:
    """Whether the memory of ``x`` can be used for its new elements, and it is so large that this pays."""
    return owns_its_array(x) and x._data.nbytes >= DONATED_BYTES and all(arg is not x for arg in args)


for _name in NAMES:
    _operation = getattr(Tensor, _name)
    if _name in NO_DERIVATIVE:  # an error names the op
        _operation = operation(f"{_name}_", "nn", BINARY[_name], ["input", "other"])
    setattr(Tensor, f"{_name}_", in_place(_operation, _name))

for _name, _twin in OPERATORS.items():
    setattr(Tensor, f"__i{_name}__", getattr(Tensor, f"{_twin}_"))


def _reshaping(name: str) -> Callable[..., Tensor]:
    """The twin of a view: the Tensor becomes a view of what it was."""
    operation = getattr(Tensor, name)

    @functools.wraps(operation)
    def changed(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(x)
        with enable_grad():  # else a history would lead through another shape
            shown = operation(x, *args, **kwargs)
        return reshaped(x, shown)

    changed.__name__, changed.__doc__ = f"{name}_", f"``{name}`` in place: of the same elements, in another shape."
    return changed


for _name in RESHAPING:
    setattr(Tensor, f"{_name}_", _reshaping(_name))


@method
def detach_(self: Tensor) -> Tensor:
    """Cuts this Tensor off from its graph: it becomes a leaf."""
    alias = self._alias
    if alias is not None and alias.base is not None:
        raise RuntimeError(
            "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel (DDP) for "
            "training, and gradient_as_bucket_view is set as True, gradients are views of DDP buckets, and hence "
            "detach_() cannot be called on these gradients."
        )
    if self.is_leaf:
        set_aside(self)
    self._edge = None
    return self


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
    return write(x, apply(function, without_hooks(x), *args), f"{function.__name__}_")


@method
def zero_(self: Tensor) -> Tensor:
    """Zeros in place of the elements."""
    return write_of(self, _zero)


@method
def fill_(self: Tensor, value: Any) -> Tensor:
    """One value, a number or a Tensor of no dimensions, in place of the elements."""
    return write_of(self, _fill, value)


@method
def copy_(self: Tensor, source: Any, non_blocking: bool = False) -> Tensor:
    """The elements of ``source``, broadcast and converted, in place of the elements."""
    return write_of(self, _copy, source)


@method
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """One value on the main diagonal; ``wrap`` goes on below, in blocks, in a tall matrix."""
    if self.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    return write_of(self, _diagonal_filler(bool(wrap)), fill_value)


@functools.cache
def _diagonal_filler(wrap: bool) -> Callable[..., Any]:
    def fill_diagonal(x, value):
        step = sum(int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim))
        stop = x.size if wrap or x.ndim > 2 else min(x.size, x.shape[1] ** 2)
        return x.ravel().at[np.arange(0, stop, step)].set(jnp.asarray(value).astype(x.dtype)).reshape(x.shape)

    return fill_diagonal


# --- random numbers ---------------------------------------------------------------------------------------------------


def _drawn(name: str, draw: Callable[..., Any], **defaults: Any) -> None:
    """The method ``name`` that puts what ``draw`` makes of a key, a shape, a dtype and numbers into a Tensor."""

    def fill(self, *args, generator=None, **kwargs):
        if len(args) > len(defaults) or not kwargs.keys() <= defaults.keys():
            raise TypeError(f"{name}_() takes {', '.join(defaults)}")
        given = {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}
        drawn = draw(next_key(generator), self.shape, _drawn_as(self), *given.values())
        return copy_(self, Tensor(drawn.astype(self.dtype)))

    fill.__name__, fill.__doc__ = f"{name}_", f"Random numbers in place of the elements: {', '.join(defaults)}."
    method(fill)


def _drawn_as(x: Tensor) -> Any:
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32


def _uniform(key, shape, dtype, low, high):
    return jax.random.uniform(key, shape, dtype, low, high)


def _normal(key, shape, dtype, mean, std):
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    return mean + std * jax.random.normal(key, shape, dtype)


def _integers(key, shape, dtype, low, high):
    if high is None:
        low, high = (0, low) if low is not None else (0, 2**24)
    return jax.random.randint(key, shape, low or 0, high)


def _bernoulli(key, shape, dtype, p):
    return jax.random.bernoulli(key, p._data if isinstance(p, Tensor) else p, shape)


_drawn("uniform", _uniform, **{"from": 0.0, "to": 1.0})
_drawn("normal", _normal, mean=0.0, std=1.0)
_drawn("log_normal", lambda *args: jnp.exp(_normal(*args)), mean=1.0, std=2.0)
_drawn("exponential", lambda key, shape, dtype, lambd: jax.random.exponential(key, shape, dtype) / lambd, lambd=1.0)
_drawn("cauchy", lambda key, shape, dtype, median, sigma: median + sigma * jax.random.cauchy(key, shape, dtype),
       median=0.0, sigma=1.0)  # fmt: skip
_drawn("geometric", lambda key, shape, dtype, p: jax.random.geometric(key, p, shape), p=0.5)
_drawn("bernoulli", _bernoulli, p=0.5)
_drawn("random", _integers, **{"from": None, "to": None})

# --- elements ---------------------------------------------------------------------------------------------------------


@method
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    """Puts ``value``, broadcast and converted, in the place of the elements that ``index`` picks.

    Differentiable in both. Where an index picks an element twice it is undefined which value stays.
    """
    spec, operands = split_index(self, index)
    if mixes(spec, operands):
        self, spec, operands = at_integers(self, spec, operands)
    basic = is_basic(spec, operands) and not EVERYTHING.issuperset(spec)
    if basic and self._alias is not None and self._alias.path is not None:
        copy_(getitem(self, index), value)  # its path tells which elements that writes
        return
    if basic and mode.enabled and self.requires_grad and self.is_leaf:
        raise RuntimeError(VIEW_OF_LEAF)
    check_writable(self, (value,))
    write(self, apply(assigner(spec), without_hooks(self), value, *operands), "item assignment")
