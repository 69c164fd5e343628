"""Methods that show a Tensor's elements in another shape: most are views of it, see ``views.py``.

What flows in: a Tensor and dimensions or sizes, which are structure. What flows out: a Tensor that sees changes of the
first. Read :func:`reshape` and :func:`narrow`.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.apply import apply
from twograd.tape.dtypes import is_complex
from twograd.tape.indexing import method, structured
from twograd.tape.tensor import Tensor
from twograd.tape.views import can_view, view, views


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
def _shaped(function: Callable[..., Any], *structure: Any) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def shaped(x):
        return function(x, *structure)

    return shaped


def sizes_of(sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    """``f(2, 3)``, ``f((2, 3))`` and ``f(size=(2, 3))`` are the same."""
    if size is not None:
        sizes = (size,)
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    return tuple(map(operator.index, sizes))


@method
def reshape(self: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The same elements in another shape; one size may be -1. A view where that is possible, else a copy."""
    sizes = sizes_of(sizes, shape)
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
    if len(shape) == 1 and isinstance(shape[0], (np.dtype, type)):
        raise NotImplementedError(
            "view(dtype) reads the bits of elements as another type, which has no derivative. To convert the values: "
            f"x.to({np.dtype(shape[0])}); for the bits: jax.lax.bitcast_convert_type(x.array, ...)."
        )
    if not can_view(self, sizes_of(shape)):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return reshape(self, *shape)


Tensor.view = _view  # pyright: ignore[reportAttributeAccessIssue]


@method
def permute(self: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """The dimensions in another order."""
    axes = _checked(self, sizes_of(order, dims))
    if len(axes) != self.ndim:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {self.ndim} is not equal to len(dims) = {len(axes)}"
        )
    if len({axis % self.ndim for axis in axes}) != len(axes):
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return view(self, _shaped(jnp.transpose, axes))


@method
def movedim(self: Tensor, source: Any, destination: Any) -> Tensor:
    """The dimensions ``source`` (one or several) at the places ``destination``."""
    return view(self, _shaped(jnp.moveaxis, _checked(self, source), _checked(self, destination)))


@method
def swapaxes(self: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged."""
    return transpose(self, axis0, axis1)


Tensor.moveaxis = movedim  # pyright: ignore[reportAttributeAccessIssue]
Tensor.swapdims = swapaxes  # pyright: ignore[reportAttributeAccessIssue]


@method
def transpose(self: Tensor, *dims: Any, dim0: int | None = None, dim1: int | None = None) -> Tensor:
    """Two dimensions exchanged, ``transpose(0, 1)``, as in PyTorch; all reversed without arguments, or permuted by all
    of them or by a tuple, as in NumPy (where two integers permute the two dimensions of a matrix)."""
    if dim0 is not None and dim1 is not None:
        dims = (dim0, dim1)
    axes = _checked(self, sizes_of(dims))
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


def _swapped(self: Tensor, name: str) -> Tensor:
    if self.ndim < 2:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got {self.ndim}-D tensor."
        )
    return transpose(self, -2, -1)


@method
def adjoint(self: Tensor) -> Tensor:
    """The last two dimensions exchanged, and conjugated if complex (then no view)."""
    swapped = _swapped(self, "adjoint()")
    return apply(jnp.conj, swapped) if is_complex(self.dtype) else swapped


def _H(self: Tensor) -> Tensor:
    if self.ndim not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {self.ndim}-D tensor. For batches of matrices, "
            "consider using tensor.mH"
        )
    return adjoint(self) if self.ndim else self


for _name, _getter, _doc in (
    ("mT", lambda self: _swapped(self, "mT"), "The last two dimensions exchanged."),
    ("mH", adjoint, "The last two dimensions exchanged, and conjugated if complex."),
    ("H", _H, "The conjugated transpose of a matrix."),
):
    setattr(Tensor, _name, property(_getter, doc=_doc))


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
def ravel(self: Tensor) -> Tensor:
    """All dimensions made one."""
    return reshape(self, -1) if self.shape else reshape(self, 1)


@method
def unflatten(self: Tensor, dim: int, sizes: Any) -> Tensor:
    """One dimension made several, of these sizes; one of them may be -1."""
    axis = _within(self, dim)
    sizes, own = sizes_of((sizes,)), self.shape[axis]
    known = math.prod(size for size in sizes if size != -1)
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    if known != own and (-1 not in sizes or known == 0 or own % known):
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {axis} ({own}) in the input "
            "tensor"
        )
    return reshape(self, *self.shape[:axis], *sizes, *self.shape[axis + 1 :])


@method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """A view in the shape of ``other``."""
    return _view(self, *other.shape)


@method
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """The same elements in the shape of ``other``."""
    return reshape(self, *other.shape)


@method
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Broadcast to the shape of ``other``."""
    return expand(self, *other.shape)


@method
def broadcast_to(self: Tensor, size: Any) -> Tensor:
    """Broadcast to ``size``."""
    return expand(self, size)


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

    squeeze.structure = dims  # pyright: ignore[reportFunctionMemberAccess] # the name of its node depends on it
    return squeeze


@method
def unsqueeze(self: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``."""
    return view(self, _shaped(jnp.expand_dims, _checked(self, dim, extra=1)))


@method
def expand(self: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """Broadcast to ``sizes``; -1 keeps a size."""
    shape = sizes_of(sizes, size)
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
    return views(self, "unbind", [(select, i) for i in range(self.shape[dim])])


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
    return views(self, "split" if isinstance(split_size, int) else "split_with_sizes", parts)


@method
def chunk(self: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """``split`` into at most so many equal parts, the last perhaps smaller."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    return split(self, max(1, -(-self.shape[_within(self, dim)] // chunks)), dim)


Tensor.split_with_sizes = split  # pyright: ignore[reportAttributeAccessIssue]


@method
def tensor_split(self: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive parts along ``dim``: so many, their sizes differing by at most one, or cut at these
    indices."""
    axis = _within(self, dim)
    size, cuts = self.shape[axis], indices_or_sections
    cuts = cuts.tolist() if isinstance(cuts, Tensor) else cuts
    if isinstance(cuts, int):
        if cuts <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {cuts}")
        cuts = [i * (size // cuts) + min(i, size % cuts) for i in range(1, cuts)]
    bounds = [slice(start, end).indices(size)[:2] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
    return tuple(view(self, _slicer(axis, max(end - start, 0)), min(start, size)) for start, end in bounds)


def _splitter(name: str, least: int, dim: Callable[[Tensor], int]) -> None:
    def split_along(self, indices_or_sections):
        if self.ndim < least:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {least} dimension{'s' * (least > 1)}, but got a tensor "
                f"with {self.ndim} dimensions!"
            )
        along = dim(self)
        if isinstance(indices_or_sections, int) and self.shape[along] % indices_or_sections:
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {along}, but the size of the dimension "
                f"{self.shape[along]} is not divisible by the split_size {indices_or_sections}!"
            )
        return tensor_split(self, indices_or_sections, along)

    split_along.__name__ = name
    split_along.__doc__ = f"NumPy's ``{name}``, in views."
    method(split_along)


_splitter("hsplit", 1, lambda x: 0 if x.ndim == 1 else 1)
_splitter("vsplit", 2, lambda x: 0)
_splitter("dsplit", 3, lambda x: 2)


@structured
def _unfolder(dim: int, size: int, step: int) -> Callable[[Any], Any]:
    def unfold(x):
        starts = jnp.arange(0, x.shape[dim] - size + 1, step)
        windows = jnp.take(x, starts[:, None] + jnp.arange(size), axis=dim)
        return jnp.moveaxis(windows, dim + 1, -1)

    unfold.overlaps = step < size  # pyright: ignore[reportFunctionMemberAccess] # see views.check_writable
    return unfold


@method
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of ``size`` elements along a dimension, ``step`` apart, in a new last dimension."""
    axis = _within(self, dimension)
    if size > self.shape[axis]:
        raise RuntimeError(f"maximum size for tensor at dimension {axis} is {self.shape[axis]} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    return view(self, _unfolder(axis, size, step))


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
def flip(self: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """The elements in the reverse order along ``dims``; along all without any, as in NumPy."""
    axes = _checked(self, sizes_of(order, dims) or None)
    if axes is not None and len({axis % self.ndim for axis in axes}) != len(axes):
        raise RuntimeError(f"dim {axes[0]} appears multiple times in the list of dims")
    return apply(_shaped(jnp.flip, axes), self)


@method
def repeat(self: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """Tiled ``sizes`` times along each dimension, as in PyTorch; NumPy's ``repeat`` is another function."""
    times = sizes_of(sizes, repeats)
    if len(times) < self.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    return apply(_shaped(jnp.tile, times), self)


@method
def tile(self: Tensor, *sizes: Any, dims: Any = None) -> Tensor:
    """Tiled as NumPy tiles: sizes that are missing in front are 1."""
    return apply(_shaped(jnp.tile, sizes_of(sizes, dims)), self)


@method
def narrow_copy(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``narrow`` as a copy."""
    return apply(jnp.copy, narrow(self, dim, start, length))


def _part(name: str) -> property:
    def part(self):
        if is_complex(self.dtype):
            return apply(getattr(jnp, name), self)
        if name == "real":
            return self
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")

    return property(part, doc=f"The {name} part; of a complex Tensor a copy, no view.")


Tensor.real, Tensor.imag = _part("real"), _part("imag")  # pyright: ignore[reportAttributeAccessIssue]
