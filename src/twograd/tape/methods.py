"""The operators and methods of Tensor: each one line on top of :func:`twograd.tape.apply.apply`.

Names are NumPy's and PyTorch's; where both name an argument, both are taken (``axis`` and ``dim``, ``keepdims`` and
``keepdim``). Where the two libraries differ a method does as PyTorch does, and its docstring says so. Dtypes are JAX's:
integers have 32 bits unless ``jax_enable_x64`` is set.

A method's function is cached per structure (an axis, a shape), so that its plan is found by identity. The caches are
bounded, for structure may vary without end (``x[i : i + 2]`` in a loop).
"""

import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from twograd.tape import autograd
from twograd.tape.apply import SCALARS, apply, recorder
from twograd.tape.tensor import Tensor
from twograd.tape.views import can_view, view, views

MAX_STRUCTURES = 4096

structured = functools.lru_cache(maxsize=MAX_STRUCTURES)


def method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Attaches ``function`` to Tensor under its own name."""
    setattr(Tensor, function.__name__, function)
    return function


# --- operators --------------------------------------------------------------------------------------------------------


def _attach_operator(name: str, function: Callable[..., Any]) -> None:
    def reflected(self, other):
        return apply(function, other, self)

    setattr(Tensor, f"__{name}__", recorder(function))
    setattr(Tensor, f"__r{name}__", reflected)


for _name, _function in {
    "add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "truediv": jnp.true_divide, "floordiv": jnp.floor_divide,
    "mod": jnp.remainder, "matmul": jnp.matmul, "and": jnp.bitwise_and, "or": jnp.bitwise_or, "xor": jnp.bitwise_xor,
    "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal,
}.items():  # fmt: skip
    _attach_operator(_name, _function)


@method
def __eq__(self: Tensor, other: Any) -> Any:
    """Elementwise equality; a Tensor is not equal to None, a string, a list."""
    return apply(jnp.equal, self, other) if _is_data(other) else NotImplemented


@method
def __ne__(self: Tensor, other: Any) -> Any:
    """Elementwise inequality; a Tensor is not equal to None, a string, a list."""
    return apply(jnp.not_equal, self, other) if _is_data(other) else NotImplemented


def _is_data(other: Any) -> bool:
    return type(other) in SCALARS or isinstance(other, (Tensor, jax.Array, np.ndarray, np.generic))


def _abs(x: Any) -> Any:
    """The absolute value, with the derivative 0 at 0, as in PyTorch; JAX's is 1 there."""
    return x * jnp.sign(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.abs(x)


_abs.__name__ = "abs"

for _name, _function in {"neg": jnp.negative, "abs": _abs, "invert": jnp.bitwise_not, "pos": jnp.positive}.items():
    setattr(Tensor, f"__{_name}__", recorder(_function))


@structured
def _integer_power(exponent: int) -> Callable[[Any], Any]:
    def power(x):
        return x**exponent

    return power


def _power(x: Any, y: Any) -> Any:
    return jnp.power(x, y)


@method
def pow(self: Tensor, exponent: Any) -> Tensor:
    """``self ** exponent``; a Python integer stays an integer power, whose derivative needs no logarithm."""
    if isinstance(exponent, (int, np.integer)):
        return apply(_integer_power(int(exponent)), self)
    return apply(_power, self, exponent)


Tensor.__pow__ = pow  # pyright: ignore[reportAttributeAccessIssue]
Tensor.__rpow__ = lambda self, base: apply(_power, base, self)  # pyright: ignore[reportAttributeAccessIssue]

# --- indexing ---------------------------------------------------------------------------------------------------------

OPERAND = "operand"  # stands for an index array among the static parts of an index
UPDATES = ("set", "add", "subtract", "multiply", "mul", "divide", "power", "min", "max")


@structured
def _indexer(spec: tuple[Any, ...], basic: bool) -> Callable[..., Any]:
    def index(x, *operands):
        return x[_rebuild(spec, operands)]

    if basic:
        index.__name__ = _indexing(spec)
    return index


def _indexing(spec: tuple[Any, ...]) -> str:
    """PyTorch's name for the last of the steps that an index without arrays is."""
    steps = {type(None): "unsqueeze", tuple: "slice", str: "select"}
    done = [steps[type(part)] for part in spec if type(part) in steps and part != (None, None, None)]
    return done[-1] if done else "alias"


@structured
def _updater(spec: tuple[Any, ...], how: str) -> Callable[..., Any]:
    def update(x, value, *operands):
        return getattr(x.at[_rebuild(spec, operands)], how)(value)

    update.__name__ = f"index_{how}"
    return update


@structured
def assigner(spec: tuple[Any, ...]) -> Callable[..., Any]:
    """What ``x[index] = value`` computes: ``(x, value, *operands)`` to a new ``x``."""

    def CopySlices(x, value, *operands):  # PyTorch's name for the node
        index = _rebuild(spec, operands)
        shown = jax.eval_shape(lambda x: x[index], x).shape
        value = jnp.asarray(value)
        while value.ndim > len(shown) and value.shape[0] == 1:  # these PyTorch ignores
            value = value[0]
        for i, (own, size) in enumerate(zip(reversed(value.shape), reversed(shown), strict=False)):
            if own not in (1, size):
                raise RuntimeError(
                    f"The expanded size of the tensor ({size}) must match the existing size ({own}) at non-singleton "
                    f"dimension {len(shown) - 1 - i}.  Target sizes: {list(shown)}.  Tensor sizes: {list(value.shape)}"
                )
        return x.at[index].set(value.astype(x.dtype))

    return CopySlices


def _rebuild(spec: tuple[Any, ...], operands: tuple[Any, ...]) -> tuple[Any, ...]:
    given = iter(operands)
    return tuple(next(given) if s == OPERAND else slice(*s) if isinstance(s, tuple) else s for s in spec)


def split_index(x: Tensor, index: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """The static part of an index, hashable, and its arrays. An integer is data: ``x[i]`` in a loop compiles once."""
    spec: list[Any] = []
    operands: list[Any] = []
    parts = [_index_part(part) for part in (index if isinstance(index, tuple) else (index,))]
    used = sum(map(_axes_used, parts))
    if used > x.ndim:
        raise IndexError(
            f"too many indices for tensor of dimension {x.ndim}"
            if x.ndim
            else "invalid index of a 0-dim tensor. Use `tensor.item()` to convert a 0-dim tensor to a number"
        )
    axis = 0
    for part in parts:
        if isinstance(part, slice):
            bounds = (part.start, part.stop, part.step)
            spec.append(tuple(None if bound is None else operator.index(bound) for bound in bounds))
        elif part is None or part is Ellipsis or isinstance(part, bool):
            spec.append(part)
        elif isinstance(part, int):
            size = x.shape[axis]
            if not -size <= part < size:
                raise IndexError(f"index {part} is out of bounds for dimension {axis} with size {size}")
            spec.append(OPERAND)
            operands.append(part % size)
        elif part.dtype == np.bool_:
            _check_mask(part, x.shape, axis)
            for where in jnp.nonzero(part):  # how many elements a mask picks is structure
                spec.append(OPERAND)
                operands.append(where)
        else:
            _check_bounds(part, axis, x.shape[axis])
            spec.append(OPERAND)
            operands.append(part)
        axis = x.ndim - (used - axis) if part is Ellipsis else axis + _axes_used(part)
    return tuple(spec), operands


def _index_part(part: Any) -> Any:
    """One part of an index as a slice, None, Ellipsis, a bool, an int, or an array; IndexError for what is none."""
    if part is None or part is Ellipsis or isinstance(part, (slice, bool, int)):
        return part
    if isinstance(part, np.integer):
        return int(part)
    if isinstance(part, list):
        part = np.asarray(part, None if part else np.int32)
    array = part._data if isinstance(part, Tensor) else part
    if not isinstance(array, (jax.Array, np.ndarray, np.bool_)):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got "
            f"{type(part).__name__})"
        )
    if array.dtype == np.bool_:
        return array if array.ndim else bool(array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise IndexError(f"tensors used as indices must be integer or bool tensors, not {array.dtype}")
    return array


def _axes_used(part: Any) -> int:
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if getattr(part, "dtype", None) == np.bool_ else 1


def _check_mask(mask: Any, shape: tuple[int, ...], axis: int) -> None:
    for i, (size, along) in enumerate(zip(mask.shape, shape[axis:], strict=False)):
        if size != along:
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape of the indexed tensor "
                f"{list(shape)} at index {axis + i}"
            )


def _check_bounds(index: Any, axis: int, size: int) -> None:
    """Raises IndexError for an index outside of ``size``, which JAX would clamp. Not looked at: the values of a traced
    index, and of one on an accelerator, as that would wait for it."""
    if isinstance(index, Tracer) or (
        isinstance(index, jax.Array) and any(d.platform != "cpu" for d in index.devices())
    ):
        return
    values = np.asarray(index)
    outside = values[(values < -size) | (values >= size)]
    if outside.size:
        raise IndexError(f"index {outside[0]} is out of bounds for dimension {axis} with size {size}")


@method
def __getitem__(self: Tensor, index: Any) -> Tensor:
    """Elements by integers, slices (of any step), None, Ellipsis, integer arrays and boolean masks, as in NumPy.

    An integer counts among the index arrays, so ``x[0, :, [1, 2]]`` has the arrays' dimension first, as NumPy has it
    and PyTorch has not. Raises IndexError out of bounds.
    """
    spec, operands = split_index(self, index)
    basic = is_basic(spec, operands)
    function = _indexer(spec, basic)
    return view(self, function, *operands) if basic else apply(function, self, *operands)


def is_basic(spec: tuple[Any, ...], operands: list[Any]) -> bool:
    """Whether an index has neither arrays nor truth values: what it picks is a view."""
    return all(type(operand) is int for operand in operands) and not any(isinstance(part, bool) for part in spec)


@method
def __iter__(self: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    if not self.shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(self))


@method
def __contains__(self: Tensor, element: Any) -> bool:
    """Whether some element equals ``element``."""
    return bool(jnp.any(self._data == jnp.asarray(element)))


@method
def __format__(self: Tensor, spec: str) -> str:
    """One element is formatted as the Python number it is."""
    return format(self.item(), spec) if spec and not self.shape else object.__format__(self, spec)


class _Update(NamedTuple):
    x: Tensor
    index: Any

    def __getattr__(self, how: str) -> Callable[[Any], Tensor]:
        if how not in UPDATES:
            raise AttributeError(f"x.at[index] has no {how!r}; it has {', '.join(UPDATES)}")
        spec, operands = split_index(self.x, self.index)
        return lambda value: apply(_updater(spec, how), self.x, value, *operands)


class _At(NamedTuple):
    x: Tensor

    def __getitem__(self, index: Any) -> _Update:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Update(self.x, index)


Tensor.at = property(_At, doc="Functional updates, as JAX's: ``x.at[index].set(value)`` is a new Tensor.")  # pyright: ignore

# --- elementwise ------------------------------------------------------------------------------------------------------


def _rsqrt(x: Any) -> Any:
    return jax.lax.rsqrt(x.astype(jnp.result_type(x, 1.0)))


_rsqrt.__name__ = "rsqrt"

for _name, _function in {
    "abs": _abs, "absolute": _abs, "acos": jnp.acos, "asin": jnp.asin, "atan": jnp.atan, "ceil": jnp.ceil,
    "conj": jnp.conj, "cos": jnp.cos, "cosh": jnp.cosh, "erf": jax.scipy.special.erf, "exp": jnp.exp, "exp2": jnp.exp2,
    "expm1": jnp.expm1, "floor": jnp.floor, "isfinite": jnp.isfinite, "isinf": jnp.isinf, "isnan": jnp.isnan,
    "log": jnp.log, "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2, "logical_not": jnp.logical_not,
    "neg": jnp.negative, "negative": jnp.negative, "reciprocal": jnp.reciprocal, "relu": jax.nn.relu,
    "round": jnp.round, "rsqrt": _rsqrt, "sigmoid": jax.nn.sigmoid, "sign": jnp.sign, "sin": jnp.sin,
    "sinh": jnp.sinh, "sqrt": jnp.sqrt, "square": jnp.square, "tan": jnp.tan, "tanh": jnp.tanh, "trunc": jnp.trunc,
}.items():  # fmt: skip
    setattr(Tensor, _name, recorder(_function))

for _name, _function in {
    "add": jnp.add, "atan2": jnp.arctan2, "div": jnp.true_divide, "dot": jnp.dot, "eq": jnp.equal,
    "ge": jnp.greater_equal, "gt": jnp.greater, "le": jnp.less_equal, "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or, "lt": jnp.less, "matmul": jnp.matmul, "maximum": jnp.maximum, "minimum": jnp.minimum,
    "mm": jnp.matmul, "mul": jnp.multiply, "mv": jnp.matmul, "ne": jnp.not_equal, "outer": jnp.outer,
    "remainder": jnp.remainder, "sub": jnp.subtract,
}.items():  # fmt: skip
    setattr(Tensor, _name, recorder(_function))


@method
def clamp(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """The elements, none below ``min`` and none above ``max``. At a bound the gradient is the element's, as in PyTorch;
    ``jnp.clip`` gives each half."""
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    return apply(_clamp, self, min, max)


def _clamp(x: Any, low: Any, high: Any) -> Any:
    x = x if low is None else jnp.where(x < low, low, x)
    return x if high is None else jnp.where(x > high, high, x)


_clamp.__name__ = "clamp"
Tensor.clip = clamp  # pyright: ignore[reportAttributeAccessIssue]


@method
def where(self: Tensor, condition: Any, other: Any) -> Tensor:
    """The elements where ``condition`` holds, else those of ``other``."""
    return apply(jnp.where, condition, self, other)


@method
def masked_fill(self: Tensor, mask: Any, value: Any) -> Tensor:
    """The elements where ``mask`` is False, else ``value``."""
    return apply(_masked_fill, self, mask, value)


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return jnp.where(mask, value, x)


# --- reductions -------------------------------------------------------------------------------------------------------


def _checked(x: Tensor, dims: Any, extra: int = 0) -> Any:
    """``dims`` (an integer, several, or None) as a hashable axis argument; an error of both NumPy's kinds, and
    PyTorch's text, where there is no such dimension. ``extra`` dimensions are about to be made."""
    rank = x.ndim + extra
    dims = tuple(dims) if isinstance(dims, (list, tuple)) else dims
    for dim in dims if isinstance(dims, tuple) else () if dims is None else (dims,):
        if not -rank <= operator.index(dim) < rank:
            raise np.exceptions.AxisError(
                f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})"
                if rank
                else f"Dimension specified as {dim} but tensor has no dimensions"
            )
    return dims


@structured
def _along(function: Callable[..., Any], axis: Any, *extra: tuple[str, Any]) -> Callable[..., Any]:
    """``function`` of an array along ``axis``, with other keyword arguments as pairs."""

    @functools.wraps(function)
    def along(x):
        return function(x, axis=axis, **dict(extra))

    along.structure = (axis,)  # pyright: ignore[reportAttributeAccessIssue] # the name of its node depends on it
    return along


def _reduce(
    self: Tensor, function: Callable[..., Any], dim: Any, keepdim: bool, axis: Any, keepdims: bool, *extra: Any
) -> Any:
    axis = _checked(self, dim if axis is None else axis)
    return apply(_along(function, axis, ("keepdims", bool(keepdim or keepdims)), *extra), self)


def _reduction(name: str, function: Callable[..., Any]) -> None:
    def reduction(self, dim=None, keepdim=False, *, axis=None, keepdims=False):
        return _reduce(self, function, dim, keepdim, axis, keepdims)

    reduction.__name__ = name
    reduction.__doc__ = f"``{name}`` of all elements, or along ``dim`` (one or several); JAX's ``{function.__name__}``."
    setattr(Tensor, name, reduction)


for _name, _function in {
    "all": jnp.all, "any": jnp.any, "logsumexp": jax.nn.logsumexp, "mean": jnp.mean, "prod": jnp.prod, "sum": jnp.sum,
    "amax": jnp.max, "amin": jnp.min, "argmax": jnp.argmax, "argmin": jnp.argmin,
}.items():  # fmt: skip
    _reduction(_name, _function)


def _sqrt_from_zero(x: Any) -> Any:
    """The root of what is never negative, with the derivative 0 at 0, as PyTorch's ``norm`` and ``std`` have it."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), x)


def _std(x: Any, **options: Any) -> Any:
    return _sqrt_from_zero(jnp.var(x, **options))


_std.__name__ = "std"


def _deviation(name: str, function: Callable[..., Any]) -> None:
    def deviation(self, dim=None, unbiased=True, keepdim=False, *, correction=1, axis=None, keepdims=False):
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        ddof = correction if unbiased else 0
        return _reduce(self, function, dim, keepdim, axis, keepdims, ("ddof", ddof))

    deviation.__name__ = name
    deviation.__doc__ = f"``{name}``, with Bessel's correction by default, as in PyTorch; NumPy's is ``correction=0``."
    setattr(Tensor, name, deviation)


_deviation("std", _std)
_deviation("var", jnp.var)


class ValuesAndIndices(NamedTuple):
    """What ``max``, ``min`` and ``sort`` along a dimension return: Tensors."""

    values: Any
    indices: Any


@structured
def _picked(choose: Callable[..., Any], name: str, axis: int, keepdim: bool) -> Callable[..., Any]:
    """The elements along ``axis`` at the indices that ``choose`` finds there, and these indices."""

    def pick(x):
        indices = choose(x, axis=axis)
        values = jnp.take_along_axis(x, indices, axis)
        return ValuesAndIndices(*(a if keepdim else jnp.squeeze(a, axis) for a in (values, indices)))

    pick.__name__ = name
    return pick


def _extreme(name, values, indices, elementwise):
    choose = functools.partial(indices, keepdims=True)

    def extreme(self, dim=None, keepdim=False, *, axis=None, keepdims=False):
        if isinstance(dim, Tensor):
            return apply(elementwise, self, dim)
        if dim is None or axis is not None:
            return _reduce(self, values, dim, keepdim, axis, keepdims)
        return apply(_picked(choose, name, _checked(self, dim), keepdim), self)

    extreme.__name__ = name
    extreme.__doc__ = (
        "Over all elements; along ``axis``, values only, as NumPy; along ``dim``, values and indices, as PyTorch; or "
        "elementwise with another Tensor. Equal extremes share the gradient; along ``dim`` the first has it all."
    )
    setattr(Tensor, name, extreme)


_extreme("max", jnp.max, jnp.argmax, jnp.maximum)
_extreme("min", jnp.min, jnp.argmin, jnp.minimum)


@method
def norm(self: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The p-norm of the elements, along ``dim`` or of all; its derivative at zero is 0."""
    return apply(_along(_norm, _checked(self, dim), ("p", p), ("keepdims", keepdim)), self)


def _norm(x: Any, p: Any, axis: Any, keepdims: bool) -> Any:
    size = _abs(x)
    if p in (math.inf, -math.inf):
        return (jnp.max if p > 0 else jnp.min)(size, axis=axis, keepdims=keepdims)
    if p == 0:
        return jnp.sum(size != 0, axis=axis, keepdims=keepdims).astype(size.dtype)
    if p in (2, "fro", None):
        return _sqrt_from_zero(jnp.sum(jnp.real(x * jnp.conj(x)), axis=axis, keepdims=keepdims))
    total = jnp.sum(size**p, axis=axis, keepdims=keepdims)
    positive = total > 0
    return jnp.where(positive, jnp.where(positive, total, 1) ** (1 / p), total)


_norm.__name__ = "norm"

# --- along a dimension ------------------------------------------------------------------------------------------------


def _scan(name: str, function: Callable[..., Any], default: int | None, said: str) -> None:
    def scan(self, dim=default, *, axis=None):
        return apply(_along(function, _checked(self, dim if axis is None else axis)), self)

    scan.__name__, scan.__doc__ = name, f"``{name}`` along ``dim``; {said}."
    setattr(Tensor, name, scan)


_scan("cumsum", jnp.cumsum, None, "of all elements in a row without one, as in NumPy (PyTorch asks for one)")
_scan("cumprod", jnp.cumprod, None, "of all elements in a row without one, as in NumPy (PyTorch asks for one)")
_scan("softmax", jax.nn.softmax, -1, "the last by default (PyTorch asks for one)")
_scan("log_softmax", jax.nn.log_softmax, -1, "the last by default (PyTorch asks for one)")


@method
def flip(self: Tensor, *dims: Any) -> Tensor:
    """The elements in the reverse order along ``dims``; along all without any, as in NumPy."""
    return apply(_along(jnp.flip, _checked(self, _sizes(dims) or None)), self)


@method
def argsort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The indices that sort along ``dim``; equal elements keep their order."""
    return apply(_along(jnp.argsort, _checked(self, dim), ("descending", bool(descending))), self)


@method
def sort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesAndIndices:
    """The elements sorted along ``dim`` and their indices, as in PyTorch; equal elements keep their order."""
    return apply(_picked(_descending if descending else jnp.argsort, "sort", _checked(self, dim), True), self)


_descending = functools.partial(jnp.argsort, descending=True)

# --- shape ------------------------------------------------------------------------------------------------------------


@structured
def _shaped(function: Callable[..., Any], *structure: Any) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def shaped(x):
        return function(x, *structure)

    return shaped


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` are the same."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple(map(operator.index, sizes))


@method
def reshape(self: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1. A view where that is possible, else a copy."""
    sizes = _sizes(shape)
    function = _reshaper(sizes)
    return view(self, function, in_row=True) if can_view(self, sizes) else apply(function, self)


@structured
def _reshaper(sizes: tuple[int, ...]) -> Callable[[Any], Any]:
    known = math.prod(size for size in sizes if size != -1)

    def reshape(x):
        if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
            raise RuntimeError(f"only one dimension can be inferred, and no size is negative, in shape {list(sizes)}")
        if known != x.size and (-1 not in sizes or known == 0 or x.size % known):
            raise RuntimeError(f"shape '{list(sizes)}' is invalid for input of size {x.size}")
        return jnp.reshape(x, sizes)

    return reshape


def _view(self: Tensor, *shape: Any) -> Tensor:
    """A view in another shape; RuntimeError where its elements cannot be seen that way without a copy."""
    if not can_view(self, _sizes(shape)):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return reshape(self, *shape)


Tensor.view = _view  # pyright: ignore[reportAttributeAccessIssue]


@method
def permute(self: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    return view(self, _shaped(jnp.transpose, _checked(self, _sizes(dims))))


@method
def transpose(self: Tensor, *dims: Any, dim0: int | None = None, dim1: int | None = None) -> Tensor:
    """Two dimensions exchanged, ``transpose(0, 1)``, as in PyTorch; all reversed without arguments, or permuted by all
    of them or by a tuple, as in NumPy (where two integers permute the two dimensions of a matrix)."""
    if dim0 is not None and dim1 is not None:
        dims = (dim0, dim1)
    axes = _checked(self, _sizes(dims))
    if len(dims) == 2:
        return view(self, _shaped(jnp.swapaxes, *axes))
    return view(self, _shaped(jnp.transpose, axes or None))


@method
def t(self: Tensor) -> Tensor:
    """The transpose of a matrix; a vector or a scalar is itself."""
    if self.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.ndim}D")
    return view(self, _t)


def _t(x: Any) -> Any:
    return jnp.transpose(x)


Tensor.T = property(transpose, doc="All dimensions reversed.")  # pyright: ignore[reportAttributeAccessIssue]
Tensor.mT = property(  # pyright: ignore[reportAttributeAccessIssue]
    lambda self: transpose(self, -2, -1), doc="The last two dimensions exchanged."
)


@method
def flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim`` made one."""
    if not self.shape:
        return reshape(self, 1)
    start, end = (dim % self.ndim for dim in _checked(self, (start_dim, end_dim)))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    return reshape(self, *self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])


@method
def squeeze(self: Tensor, dim: Any = None, *, axis: Any = None) -> Tensor:
    """Without the dimensions of size 1, or without those among ``dim`` that have size 1; others are left, as in
    PyTorch, where NumPy raises."""
    dims = _checked(self, dim if axis is None else axis)
    within = range(self.ndim) if dims is None else (dims,) if isinstance(dims, int) else dims
    ones = tuple(dim for dim in within if self.shape[dim] == 1)
    return view(self, _shaped(jnp.squeeze, ones) if dims is None else _squeezed(ones))


@structured
def _squeezed(dims: tuple[int, ...]) -> Callable[[Any], Any]:
    def squeeze(x):
        return jnp.squeeze(x, dims)

    squeeze.structure = dims  # pyright: ignore[reportFunctionMemberAccess]
    return squeeze


@method
def unsqueeze(self: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``."""
    return view(self, _shaped(jnp.expand_dims, _checked(self, dim, extra=1)))


@method
def expand(self: Tensor, *sizes: Any) -> Tensor:
    """Broadcast to ``sizes``; -1 keeps a size."""
    shape = _sizes(sizes)
    new = len(shape) - self.ndim
    if new < 0:
        raise RuntimeError(
            f"expand({self._data.aval.str_short()}, size={list(shape)}): the number of sizes provided ({len(shape)}) "
            f"must be greater or equal to the number of dimensions in the tensor ({self.ndim})"
        )
    target = (*shape[:new], *(own if size == -1 else size for size, own in zip(shape[new:], self.shape, strict=True)))
    for i, (size, own) in enumerate(zip(target[new:], self.shape, strict=True), new):
        if own not in (1, size):
            raise RuntimeError(
                f"The expanded size of the tensor ({size}) must match the existing size ({own}) at non-singleton "
                f"dimension {i}.  Target sizes: {list(shape)}.  Tensor sizes: {list(self.shape)}"
            )
    return view(self, _shaped(jnp.broadcast_to, target))


@structured
def _slicer(dim: int, length: int) -> Callable[..., Any]:
    def slice_(x, start):
        return jax.lax.dynamic_slice_in_dim(x, start, length, dim)

    return slice_


@structured
def _selector(dim: int) -> Callable[..., Any]:
    def select(x, index):
        return jax.lax.dynamic_index_in_dim(x, index, dim, keepdims=False)

    return select


def _within(self: Tensor, dim: int) -> int:
    return _checked(self, dim) % self.ndim


@method
def narrow(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A view of ``length`` indices along ``dim``, from ``start`` on."""
    size = self.shape[_within(self, dim)]
    start = operator.index(start)
    if not -size <= start <= size:
        raise IndexError(f"start ({start}) out of range [-{size}, {size}]")
    start = start + size if start < 0 else start
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if start + length > size:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return view(self, _slicer(_within(self, dim), length), start)


@method
def select(self: Tensor, dim: int, index: int) -> Tensor:
    """A view of one index along ``dim``, without that dimension."""
    size = self.shape[_within(self, dim)]
    if not -size <= index < size:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(self.shape)} at dimension {dim}"
        )
    return view(self, _selector(_within(self, dim)), index % size)


@method
def unbind(self: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A view of each index along ``dim``; none of them may be changed in place where gradients are recorded."""
    select = _selector(_within(self, dim))
    return views(self, "UnbindBackward0", [(select, i) for i in range(self.shape[dim])])


@method
def split(self: Tensor, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive parts along ``dim``: of that size, the last perhaps smaller, or of these sizes. None of them
    may be changed in place where gradients are recorded."""
    axis = _within(self, dim)
    size = self.shape[axis]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise RuntimeError(f"split expects split_size be positive, but got split_size={split_size}")
        lengths = [min(split_size, size - start) for start in range(0, size, split_size)] or [0]
    else:
        lengths = list(split_size)
    if sum(lengths) != size or min(lengths) < 0:
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at dimension {dim}), "
            f"but got split_sizes={lengths}"
        )
    starts = (sum(lengths[:i]) for i in range(len(lengths)))
    parts = [(_slicer(axis, length), start) for length, start in zip(lengths, starts, strict=True)]
    return views(self, "SplitBackward0", parts)


@method
def chunk(self: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """``split`` into at most so many equal parts, the last perhaps smaller."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    return split(self, max(1, -(-self.shape[_within(self, dim)] // chunks)), dim)


@structured
def _diagonal(offset: int, dim1: int, dim2: int) -> Callable[..., Any]:
    def diagonal(x):
        return jnp.diagonal(x, offset, dim1, dim2)

    return diagonal


@method
def diagonal(self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, which becomes the last one."""
    return view(self, _diagonal(offset, _within(self, dim1), _within(self, dim2)))


@method
def as_strided(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Raises NotImplementedError: JAX's arrays have no strides."""
    raise NotImplementedError(
        "as_strided() needs memory with strides, which JAX's arrays have not. Use view, narrow, select, transpose, "
        "expand, diagonal, or an index array: x.flatten()[index]."
    )


@method
def repeat(self: Tensor, *sizes: Any) -> Tensor:
    """Tiled ``sizes`` times along each dimension, as in PyTorch; NumPy's ``repeat`` is another function."""
    times = _sizes(sizes)
    if len(times) < self.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    return apply(_shaped(jnp.tile, times), self)


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size of it; NumPy's ``size`` is ``numel()``."""
    return self.shape if dim is None else self.shape[_checked(self, dim)]


@method
def dim(self: Tensor) -> int:
    """How many dimensions there are."""
    return self.ndim


@method
def numel(self: Tensor) -> int:
    """How many elements there are."""
    return self._data.size


# --- type and copies --------------------------------------------------------------------------------------------------


@structured
def _converter(dtype: np.dtype) -> Callable[[Any], Any]:
    def to(x):
        return x.astype(dtype)

    return to


@method
def to(self: Tensor, dtype: Any) -> Tensor:
    """The elements converted to ``dtype``; the Tensor itself if it has that."""
    if self.dtype == dtype:
        return self
    return apply(_converter(np.dtype(dtype)), self)


Tensor.astype = Tensor.type = to  # pyright: ignore[reportAttributeAccessIssue]

for _name, _dtype in {
    "bfloat16": jnp.bfloat16, "bool": np.bool_, "double": np.float64, "float": np.float32, "half": np.float16,
    "int": np.int32, "long": np.int64,
}.items():  # fmt: skip
    setattr(Tensor, _name, lambda self, _dtype=_dtype: to(self, jax.dtypes.canonicalize_dtype(_dtype)))


def _identity(x: Any) -> Any:
    return jnp.copy(x)


_identity.__name__ = "clone"


@method
def clone(self: Tensor) -> Tensor:
    """A copy that gradients flow through."""
    return apply(_identity, self)


@method
def contiguous(self: Tensor) -> Tensor:
    """The Tensor itself: JAX's arrays have no strides."""
    return self


@method
def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs=None,
) -> None:
    """Accumulates this Tensor's gradients into the leaves; see :func:`twograd.tape.autograd.backward`."""
    autograd.backward(self, gradient, retain_graph, create_graph, inputs)
