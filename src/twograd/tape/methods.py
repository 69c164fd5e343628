"""The operators and methods of Tensor: each one line on top of :func:`twograd.tape.apply.apply`.

Names are NumPy's and PyTorch's; where both name an argument, both are taken (``axis`` and ``dim``, ``keepdims`` and
``keepdim``).
A method's function is cached per structure (an axis, a shape), so that its plan is found by identity.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape import autograd
from twograd.tape.apply import apply, recorder
from twograd.tape.tensor import Tensor


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
    """Elementwise equality; a Tensor is not equal to None."""
    return NotImplemented if other is None else apply(jnp.equal, self, other)


@method
def __ne__(self: Tensor, other: Any) -> Any:
    """Elementwise inequality; a Tensor is not equal to None."""
    return NotImplemented if other is None else apply(jnp.not_equal, self, other)


for _name, _function in {"neg": jnp.negative, "abs": jnp.abs, "invert": jnp.bitwise_not, "pos": jnp.positive}.items():
    setattr(Tensor, f"__{_name}__", recorder(_function))


@functools.cache
def _integer_power(exponent: int) -> Callable[[Any], Any]:
    def power(x):
        return x**exponent

    return power


@method
def pow(self: Tensor, exponent: Any) -> Tensor:
    """``self ** exponent``; a Python integer stays an integer power, whose derivative needs no logarithm."""
    return apply(_integer_power(exponent), self) if type(exponent) is int else apply(jnp.power, self, exponent)


Tensor.__pow__ = pow  # pyright: ignore[reportAttributeAccessIssue]
Tensor.__rpow__ = lambda self, base: apply(jnp.power, jnp.asarray(base), self)  # pyright: ignore[reportAttributeAccessIssue]

# --- indexing ---------------------------------------------------------------------------------------------------------

OPERAND = "operand"  # stands for an index array among the static parts of an index


@functools.cache
def _indexer(spec: tuple[Any, ...]) -> Callable[..., Any]:
    def index(x, *operands):
        return x[_rebuild(spec, operands)]

    return index


@functools.cache
def _updater(spec: tuple[Any, ...], how: str) -> Callable[..., Any]:
    def update(x, value, *operands):
        return getattr(x.at[_rebuild(spec, operands)], how)(value)

    update.__name__ = f"index_{how}"
    return update


def _rebuild(spec: tuple[Any, ...], operands: tuple[Any, ...]) -> tuple[Any, ...]:
    given = iter(operands)
    return tuple(next(given) if s == OPERAND else slice(*s) if isinstance(s, tuple) else s for s in spec)


def _split_index(x: Tensor, index: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """The static part of an index, hashable, and its arrays. An integer is data: ``x[i]`` in a loop compiles once."""
    spec: list[Any] = []
    operands: list[Any] = []
    parts = index if isinstance(index, tuple) else (index,)
    used = sum(_axes_used(part) for part in parts)
    axis = 0
    for part in parts:
        if isinstance(part, (list, np.ndarray)):
            part = jnp.asarray(part)
        if isinstance(part, slice):
            spec.append(tuple(None if s is None else int(s) for s in (part.start, part.stop, part.step)))
        elif part is None or part is Ellipsis or isinstance(part, bool):
            spec.append(part)
        elif isinstance(part, (Tensor, jax.Array)) and part.dtype == np.bool_:
            mask = part._data if isinstance(part, Tensor) else part  # how many elements it picks is structure
            for where in jnp.nonzero(mask):
                spec.append(OPERAND)
                operands.append(where)
        else:
            if isinstance(part, (int, np.integer)) and axis < x.ndim:
                size = x.shape[axis]
                if not -size <= part < size:
                    raise IndexError(f"index {part} is out of bounds for dimension {axis} with size {size}")
                part = int(part) % size
            spec.append(OPERAND)
            operands.append(part)
        axis = x.ndim - (used - axis) if part is Ellipsis else axis + _axes_used(part)
    return tuple(spec), operands


def _axes_used(part: Any) -> int:
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if getattr(part, "dtype", None) == np.bool_ else 1


@method
def __getitem__(self: Tensor, index: Any) -> Tensor:
    spec, operands = _split_index(self, index)
    return apply(_indexer(spec), self, *operands)


@method
def __setitem__(self: Tensor, index: Any, value: Any) -> None:
    raise TypeError("a Tensor's elements cannot be assigned; use x = x.at[index].set(value), which makes a new Tensor")


@method
def __iter__(self: Tensor) -> Iterator[Tensor]:
    if not self.shape:
        raise TypeError("iteration over a 0-d tensor")
    return (self[i] for i in range(self.shape[0]))


class _Update(NamedTuple):
    x: Tensor
    index: Any

    def __getattr__(self, how: str) -> Callable[[Any], Tensor]:
        if how not in ("set", "add", "multiply", "mul", "divide", "power", "min", "max"):
            raise AttributeError(f"x.at[index] has no {how!r}")
        spec, operands = _split_index(self.x, self.index)
        return lambda value: apply(_updater(spec, how), self.x, value, *operands)


class _At(NamedTuple):
    x: Tensor

    def __getitem__(self, index: Any) -> _Update:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Update(self.x, index)


Tensor.at = property(_At, doc="Functional updates, as JAX's: ``x.at[index].set(value)`` is a new Tensor.")  # pyright: ignore

# --- elementwise ------------------------------------------------------------------------------------------------------

for _name, _function in {
    "abs": jnp.abs, "absolute": jnp.abs, "acos": jnp.acos, "asin": jnp.asin, "atan": jnp.atan, "ceil": jnp.ceil,
    "conj": jnp.conj, "cos": jnp.cos, "cosh": jnp.cosh, "erf": jax.lax.erf, "exp": jnp.exp, "exp2": jnp.exp2,
    "expm1": jnp.expm1, "floor": jnp.floor, "isfinite": jnp.isfinite, "isinf": jnp.isinf, "isnan": jnp.isnan,
    "log": jnp.log, "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2, "logical_not": jnp.logical_not,
    "neg": jnp.negative, "negative": jnp.negative, "reciprocal": jnp.reciprocal, "relu": jax.nn.relu,
    "round": jnp.round, "rsqrt": jax.lax.rsqrt, "sigmoid": jax.nn.sigmoid, "sign": jnp.sign, "sin": jnp.sin,
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
    """The elements, none below ``min`` and none above ``max``."""
    return apply(jnp.clip, self, min, max)


Tensor.clip = clamp  # pyright: ignore[reportAttributeAccessIssue]


@method
def where(self: Tensor, condition: Any, other: Any) -> Tensor:
    """The elements where ``condition`` holds, else those of ``other``."""
    return apply(jnp.where, condition, self, other)


@method
def masked_fill(self: Tensor, mask: Any, value: Any) -> Tensor:
    """The elements where ``mask`` is False, else ``value``."""
    return apply(jnp.where, mask, value, self)


# --- reductions -------------------------------------------------------------------------------------------------------


@functools.cache
def _reduced(
    function: Callable[..., Any], axis: Any, keepdims: bool, extra: tuple[Any, ...] = ()
) -> Callable[..., Any]:
    @functools.wraps(function)
    def reduce(x):
        return function(x, axis=axis, keepdims=keepdims, **dict(extra))

    return reduce


def _reduce(self, function, dim, keepdim, axis, keepdims, **extra):
    axis = dim if axis is None else axis
    axis = tuple(axis) if isinstance(axis, list) else axis
    return apply(_reduced(function, axis, bool(keepdim or keepdims), tuple(extra.items())), self)


for _name, _function in {
    "all": jnp.all, "any": jnp.any, "logsumexp": jax.nn.logsumexp, "mean": jnp.mean, "prod": jnp.prod, "sum": jnp.sum,
    "amax": jnp.max, "amin": jnp.min, "argmax": jnp.argmax, "argmin": jnp.argmin,
}.items():  # fmt: skip

    def _method(self, dim=None, keepdim=False, *, axis=None, keepdims=False, _function=_function):
        return _reduce(self, _function, dim, keepdim, axis, keepdims)

    setattr(Tensor, _name, _method)

for _name, _function in {"std": jnp.std, "var": jnp.var}.items():

    def _method(self, dim=None, keepdim=False, *, correction=1, axis=None, keepdims=False, _function=_function):
        """With Bessel's correction by default, as PyTorch; NumPy's default is ``correction=0``."""
        return _reduce(self, _function, dim, keepdim, axis, keepdims, ddof=correction)

    setattr(Tensor, _name, _method)


class ValuesAndIndices(NamedTuple):
    """What ``max``, ``min`` and ``sort`` along a dimension return."""

    values: Tensor
    indices: Tensor


def _extreme(values, indices, elementwise):
    def extreme(self, dim=None, keepdim=False, *, axis=None, keepdims=False):
        if isinstance(dim, Tensor):
            return apply(elementwise, self, dim)
        along = dim if axis is None else axis
        if along is None or axis is not None:
            return _reduce(self, values, along, keepdim, None, keepdims)
        return ValuesAndIndices(
            _reduce(self, values, along, keepdim, None, keepdims),
            _reduce(self, indices, along, keepdim, None, keepdims),
        )

    extreme.__doc__ = (
        "Over all elements, or along ``dim`` (values and indices, as PyTorch) or ``axis`` (values, as NumPy)."
    )
    return extreme


Tensor.max = _extreme(jnp.max, jnp.argmax, jnp.maximum)  # pyright: ignore[reportAttributeAccessIssue]
Tensor.min = _extreme(jnp.min, jnp.argmin, jnp.minimum)  # pyright: ignore[reportAttributeAccessIssue]


@method
def norm(self: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The p-norm of the elements, along ``dim`` or of all."""
    return apply(_norm(p, tuple(dim) if isinstance(dim, list) else dim, keepdim), self)


@functools.cache
def _norm(p: float, dim: Any, keepdim: bool) -> Callable[[Any], Any]:
    def norm(x):
        if p == 2:
            return jnp.sqrt(jnp.sum(jnp.real(x * jnp.conj(x)), axis=dim, keepdims=keepdim))
        return jnp.sum(jnp.abs(x) ** p, axis=dim, keepdims=keepdim) ** (1 / p)

    return norm


# --- along a dimension ------------------------------------------------------------------------------------------------


@functools.cache
def _along(function: Callable[..., Any], dim: Any) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def along(x):
        return function(x, axis=dim)

    return along


for _name, _function in {
    "cumprod": jnp.cumprod, "cumsum": jnp.cumsum, "log_softmax": jax.nn.log_softmax, "softmax": jax.nn.softmax,
    "flip": jnp.flip, "argsort": jnp.argsort,
}.items():  # fmt: skip
    setattr(Tensor, _name, lambda self, dim=-1, _function=_function: apply(_along(_function, dim), self))

# --- shape ------------------------------------------------------------------------------------------------------------


@functools.cache
def _shaped(function: Callable[..., Any], *structure: Any) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def shaped(x):
        return function(x, *structure)

    return shaped


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` are the same."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple(int(size) for size in sizes)


@method
def reshape(self: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1."""
    return apply(_shaped(jnp.reshape, _sizes(shape)), self)


Tensor.view = reshape  # pyright: ignore[reportAttributeAccessIssue]


@method
def permute(self: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order."""
    return apply(_shaped(jnp.transpose, _sizes(dims)), self)


@method
def transpose(self: Tensor, *dims: Any) -> Tensor:
    """Two dimensions exchanged (PyTorch); all reversed without arguments, or permuted by all of them (NumPy)."""
    axes = _sizes(dims)
    if len(axes) == 2:
        return apply(_shaped(jnp.swapaxes, *axes), self)
    return apply(_shaped(jnp.transpose, axes or None), self)


@method
def t(self: Tensor) -> Tensor:
    """The transpose of a matrix; a vector or a scalar is itself."""
    if self.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.ndim}D")
    return self.transpose()


Tensor.T = property(lambda self: self.transpose(), doc="All dimensions reversed.")  # pyright: ignore
Tensor.mT = property(lambda self: self.transpose(-2, -1), doc="The last two dimensions exchanged.")  # pyright: ignore


@method
def flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from ``start_dim`` to ``end_dim`` made one."""
    start, end = (dim % max(self.ndim, 1) for dim in (start_dim, end_dim))
    return self.reshape(*self.shape[:start], -1, *self.shape[end + 1 :])


@method
def squeeze(self: Tensor, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1, or without ``dim`` if it has size 1."""
    if isinstance(dim, int) and self.shape[dim] != 1:
        return self
    return apply(_shaped(jnp.squeeze, tuple(dim) if isinstance(dim, list) else dim), self)


@method
def unsqueeze(self: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``."""
    return apply(_shaped(jnp.expand_dims, dim), self)


@method
def expand(self: Tensor, *sizes: Any) -> Tensor:
    """Broadcast to ``sizes``; -1 keeps a size."""
    shape = _sizes(sizes)
    own = (1,) * (len(shape) - self.ndim) + self.shape
    return apply(_shaped(jnp.broadcast_to, tuple(o if s == -1 else s for s, o in zip(shape, own, strict=True))), self)


@method
def repeat(self: Tensor, *sizes: Any) -> Tensor:
    """Tiled ``sizes`` times along each dimension."""
    return apply(_shaped(jnp.tile, _sizes(sizes)), self)


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size of it."""
    return self.shape if dim is None else self.shape[dim]


@method
def dim(self: Tensor) -> int:
    """How many dimensions there are."""
    return self.ndim


@method
def numel(self: Tensor) -> int:
    """How many elements there are."""
    return self._data.size


# --- type and copies --------------------------------------------------------------------------------------------------


@functools.cache
def _converter(dtype: np.dtype) -> Callable[[Any], Any]:
    def to(x):
        return x.astype(dtype)

    return to


@method
def to(self: Tensor, dtype: Any) -> Tensor:
    """The elements converted to ``dtype``."""
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
