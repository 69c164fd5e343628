"""The operators and methods of Tensor.

What flows in: the table of operations (``operations.py``), whose entries become methods here, and the methods of
``indexing.py`` and ``shapes.py``. What flows out: nothing but attributes of Tensor. Read the loop over ``functions``.

Names are PyTorch's; NumPy's spellings ``axis`` and ``keepdims`` are taken too, as in PyTorch. Dtypes and promotion are
told in ``dtypes.py``.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape import autograd, shapes
from twograd.tape.apply import SCALARS, apply, recorder
from twograd.tape.dtypes import (
    DTYPES,
    device,
    device_of,
    is_complex,
    is_floating,
    narrowed,
    placed,
)
from twograd.tape.indexing import method, structured
from twograd.tape.operations import extreme, functions
from twograd.tape.printing import text
from twograd.tape.schema import operation
from twograd.tape.storage import type_name
from twograd.tape.tensor import Tensor
from twograd.tape.views import strides

# --- the table as methods ---------------------------------------------------------------------------------------------

for _name, _function in functions.items():
    setattr(Tensor, _name, _function)

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder",
    "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}  # fmt: skip
"""Python's names of operators between two operands, and PyTorch's of their operations."""


def _attach_operator(name: str, record: Callable[..., Any]) -> None:
    def reflected(self, other):
        return record(other, self)

    setattr(Tensor, f"__{name}__", record)
    setattr(Tensor, f"__r{name}__", reflected)


for _name, _function in OPERATORS.items():
    _attach_operator(_name, functions[_function].usual)  # pyright: ignore[reportFunctionMemberAccess]
for _name in ("lt", "le", "gt", "ge"):
    setattr(Tensor, f"__{_name}__", functions[_name].usual)  # pyright: ignore[reportFunctionMemberAccess]
for _name, _function in {"neg": "neg", "abs": "abs", "invert": "bitwise_not", "pos": "positive"}.items():
    setattr(Tensor, f"__{_name}__", functions[_function].usual)  # pyright: ignore[reportFunctionMemberAccess]


@method
def __eq__(self: Tensor, other: Any) -> Any:
    """Elementwise equality; a Tensor is not equal to None, a string, a list."""
    return functions["eq"].usual(self, other) if _is_data(other) else NotImplemented  # pyright: ignore


@method
def __ne__(self: Tensor, other: Any) -> Any:
    """Elementwise inequality; a Tensor is not equal to None, a string, a list."""
    return functions["ne"].usual(self, other) if _is_data(other) else NotImplemented  # pyright: ignore


def _is_data(other: Any) -> bool:
    return type(other) in SCALARS or isinstance(other, (Tensor, jax.Array, np.ndarray, np.generic))


@structured
def _integer_power(exponent: int) -> Callable[[Any], Any]:
    def power(x):
        if exponent < 0 and not jnp.issubdtype(x.dtype, np.inexact):
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        return x**exponent

    return power


_power = operation("pow", "nn", jnp.power, ["input", "exponent"])


@method
def pow(self: Tensor, exponent: Any) -> Tensor:
    """``self ** exponent``; a Python integer stays an integer power, whose derivative needs no logarithm."""
    if isinstance(exponent, (int, np.integer)) and isinstance(self, Tensor):
        return apply(_integer_power(int(exponent)), self)
    return _power(self, exponent)


Tensor.__pow__ = pow  # pyright: ignore[reportAttributeAccessIssue]
Tensor.__rpow__ = lambda self, base: _power(base, self)  # pyright: ignore[reportAttributeAccessIssue]

# --- what is not one line ---------------------------------------------------------------------------------------------


def _extreme(name: str) -> None:
    reduced, elementwise = extreme[name], functions[f"{name}imum"]

    def either(self, *args, axis=None, keepdims=False, **kwargs):
        """Over all elements; along ``dim``, values and indices, as PyTorch; along ``axis``, values only, as NumPy; or
        elementwise with another Tensor. Equal extremes share the gradient; along ``dim`` the first has it all."""
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, (Tensor, jax.Array, np.ndarray)):
            return elementwise(self, *args, **kwargs)
        if axis is not None:
            return functions[f"a{name}"](self, axis, bool(keepdims or kwargs.get("keepdim")))
        if keepdims:
            kwargs["keepdim"] = keepdims
        return reduced(self, *args, **kwargs)

    either.__name__ = name
    method(either)


_extreme("max")
_extreme("min")

_where = operation("where", "tnn", lambda condition, input, other: jnp.where(_condition(condition), input, other))


def _condition(condition: Any) -> Any:
    if jnp.asarray(condition).dtype != np.bool_:
        kind = type_name(condition.dtype)
        raise RuntimeError(f"where expected condition to be a boolean tensor, but got a tensor with dtype {kind}")
    return condition


@method
def where(self: Tensor, condition: Any, other: Any) -> Tensor:
    """The elements where ``condition`` holds, else those of ``other``."""
    return _where(condition, self, other)


order_first = operation("polygamma", ".t", lambda n, input: jax.scipy.special.polygamma(n, input))


@method
def polygamma(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of the digamma function."""
    return order_first(n, self)


@method
def scatter(self: Tensor, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: Any = None) -> Tensor:
    """With ``src`` (or one ``value``) at the places ``index`` along ``dim``; ``reduce`` is "add" or "multiply"."""
    return functions["scatter"](self, dim, index, src if value is None else value, reduce=reduce)


@method
def masked_select(self: Tensor, mask: Any) -> Tensor:
    """The elements where ``mask``, broadcast, holds, in one dimension."""
    shape = np.broadcast_shapes(self.shape, mask.shape)
    return self.expand(*shape)[mask.expand(*shape)]  # pyright: ignore


@method
def index_put(self: Tensor, indices: Any, values: Any, accumulate: bool = False) -> Tensor:
    """With ``values`` at ``indices``, a tuple of index Tensors; added there if asked to accumulate."""
    index = tuple(indices)
    return getattr(self.at[index], "add" if accumulate else "set")(values)  # pyright: ignore


@method
def __iter__(self: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    if not self.shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter(shapes.unbind(self))


@method
def __reversed__(self: Tensor) -> Tensor:
    """The elements in the reverse order along all dimensions, as in PyTorch."""
    return shapes.flip(self) if self.shape else self


@method
def __contains__(self: Tensor, element: Any) -> bool:
    """Whether some element equals ``element``."""
    if not _is_data(element):
        raise RuntimeError(f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}.")
    return bool(jnp.any(self._data == jnp.asarray(element)))


@method
def __format__(self: Tensor, spec: str) -> str:
    """One element is formatted as the Python number it is."""
    return format(self.item(), spec) if not self.shape else object.__format__(self, spec)


Tensor.__repr__ = text  # pyright: ignore[reportAttributeAccessIssue]


@method
def __reduce_ex__(self: Tensor, protocol: Any) -> Any:
    """Pickled by value: elements, dtype and requires_grad, no history."""
    return _restored, (np.asarray(self._data), self.requires_grad)


def _restored(array: np.ndarray, requires_grad: bool) -> Tensor:
    return Tensor(array, requires_grad)


@method
def __copy__(self: Tensor) -> Tensor:
    """A leaf of the same elements."""
    return Tensor(self._data, self.requires_grad)


# --- comparisons with one answer --------------------------------------------------------------------------------------


@method
def allclose(self: Tensor, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are within ``atol + rtol * abs(other)`` of those of ``other``."""
    return bool(functions["isclose"](self, other, rtol, atol, equal_nan).all())


@method
def equal(self: Tensor, other: Tensor) -> bool:
    """Whether shape and elements are the same."""
    return self.shape == other.shape and bool(jnp.all(self._data == other._data))


@method
def is_same_size(self: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return self.shape == other.shape


@method
def is_nonzero(self: Tensor) -> bool:
    """Whether the one element is not zero."""
    if self._data.size != 1:
        values = "more than one value" if self._data.size else "no values"
        raise RuntimeError(f"Boolean value of Tensor with {values} is ambiguous")
    return bool(self._data)


# --- what a Tensor is -------------------------------------------------------------------------------------------------


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size of it; NumPy's ``size`` is ``numel()``."""
    if dim is None:
        return self.shape
    return self.shape[shapes._checked(self, dim)]


@method
def dim(self: Tensor) -> int:
    """How many dimensions there are."""
    return self.ndim


@method
def numel(self: Tensor) -> int:
    """How many elements there are."""
    return self._data.size


Tensor.ndimension, Tensor.nelement = dim, numel  # pyright: ignore[reportAttributeAccessIssue]


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """How far, in elements of its storage, one step along each dimension goes: what PyTorch would say."""
    return strides(self) if dim is None else strides(self)[shapes._checked(self, dim)]


@method
def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements would lie in a row in PyTorch's memory; JAX's arrays always do."""
    row = tuple(math.prod(self.shape[i + 1 :]) for i in range(self.ndim))
    return not self._data.size or all(
        own == expected or n == 1 for own, expected, n in zip(strides(self), row, self.shape, strict=True)
    )


@method
def element_size(self: Tensor) -> int:
    """How many bytes an element has."""
    return self.dtype.itemsize


@method
def is_floating_point(self: Tensor) -> bool:
    """Whether the dtype is a real floating point one."""
    return is_floating(self.dtype)


Tensor.is_complex = lambda self: is_complex(self.dtype)  # pyright: ignore[reportAttributeAccessIssue]
Tensor.is_signed = lambda self: self.dtype.kind not in "bu"  # pyright: ignore[reportAttributeAccessIssue]
Tensor.is_conj = Tensor.is_neg = lambda self: False  # pyright: ignore[reportAttributeAccessIssue]
Tensor.resolve_conj = Tensor.resolve_neg = lambda self: self  # pyright: ignore[reportAttributeAccessIssue]
Tensor.get_device = lambda self: -1 if self.device.type == "cpu" else self.device.index or 0  # pyright: ignore

for _name, _getter in {
    "device": lambda self: device_of(self._data),
    "itemsize": element_size,
    "nbytes": lambda self: self._data.nbytes,
    "is_cpu": lambda self: self.device.type == "cpu",
    "is_cuda": lambda self: self.device.type == "cuda",
    "is_sparse": lambda self: False,
    "is_quantized": lambda self: False,
    "is_meta": lambda self: False,
}.items():
    setattr(Tensor, _name, property(_getter))

# --- type, device and copies ------------------------------------------------------------------------------------------


@structured
def _converter(dtype: np.dtype) -> Callable[[Any], Any]:
    def to(x):
        return jnp.real(x).astype(dtype) if is_complex(x.dtype) and not is_complex(dtype) else x.astype(dtype)

    return to


@structured
def _mover(where: device) -> Callable[[Any], Any]:
    def to(x):
        return jax.device_put(x, where.in_jax())

    return to


@method
def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False, **ignored: Any) -> Tensor:
    """Converted to a dtype, moved to a device, or both, as another Tensor has them: ``to(torch.float64)``,
    ``to("cpu")``, ``to(other)``. The Tensor itself if there is nothing to do; gradients flow through."""
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, bool):
            continue  # non_blocking
        elif _is_device(arg):
            device = arg
        elif arg is not None:
            dtype = arg
    x = self
    if device is not None:
        x = _moved(x, device)
    if dtype is not None and x.dtype != (kept := narrowed(dtype)):
        x = apply(_converter(kept), x)
    return clone(x) if copy and x is self else x


def _is_device(arg: Any) -> bool:
    if isinstance(arg, str):
        return arg.removeprefix("torch.") not in DTYPES and not _is_dtype(arg)
    return isinstance(arg, (device, int))


def _is_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


def _moved(x: Tensor, where: Any) -> Tensor:
    if not isinstance(where, device):
        where = device(where)
    return x if placed(x._data, where) is x._data else apply(_mover(where), x)


def _type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Converted to a dtype; without one the name of the type, as PyTorch says it."""
    return f"torch.{type_name(self.dtype)}Tensor" if dtype is None else to(self, dtype)


Tensor.type = _type  # pyright: ignore[reportAttributeAccessIssue]


@method
def astype(self: Tensor, dtype: Any) -> Tensor:
    """NumPy's name of ``to``."""
    return to(self, dtype=dtype)


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """Converted to the dtype of ``other``."""
    return to(self, dtype=other.dtype)


@method
def cpu(self: Tensor) -> Tensor:
    """On the CPU; itself if it is there."""
    return _moved(self, "cpu")


@method
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """On a GPU. Raises RuntimeError where JAX has none."""
    return _moved(self, "cuda" if device is None else device)


def _conversion(name: str, dtype: str) -> None:
    def convert(self):
        return to(self, dtype=dtype)

    convert.__name__, convert.__doc__ = name, f"Converted to {dtype}."
    method(convert)


for _name, _dtype in {
    "bfloat16": "bfloat16", "bool": "bool", "byte": "uint8", "cdouble": "complex128", "cfloat": "complex64",
    "char": "int8", "double": "float64", "float": "float32", "half": "float16", "int": "int32", "long": "int64",
    "short": "int16",
}.items():  # fmt: skip
    _conversion(_name, _dtype)


def _identity(x: Any) -> Any:
    return jnp.copy(x)


_identity.__name__ = "clone"
_clone = recorder(_identity)


@method
def clone(self: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy that gradients flow through."""
    return _clone(self)


@method
def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The Tensor itself if it is contiguous, else a copy, as in PyTorch."""
    return self if is_contiguous(self) else _clone(self)


# --- new Tensors of the same kind -------------------------------------------------------------------------------------


def _new(name: str, make: Callable[..., Any]) -> None:
    def new(self, *size, dtype=None, device=None, requires_grad=False, **ignored):
        kind = self.dtype if dtype is None else narrowed(dtype)
        made = placed(make(size, kind), device or self.device)
        return Tensor(made, requires_grad)

    new.__name__, new.__doc__ = name, f"``{name.removeprefix('new_')}`` of this dtype and on this device."
    method(new)


_new("new_zeros", lambda size, dtype: jnp.zeros(shapes.sizes_of(size), dtype))
_new("new_ones", lambda size, dtype: jnp.ones(shapes.sizes_of(size), dtype))
_new("new_empty", lambda size, dtype: jnp.empty(shapes.sizes_of(size), dtype))
_new("new_full", lambda size, dtype: jnp.full(shapes.sizes_of(size[:1]), size[1], dtype))
_new("new_tensor", lambda size, dtype: jnp.asarray(size[0]._data if isinstance(size[0], Tensor) else size[0], dtype))


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
