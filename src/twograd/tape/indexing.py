"""Indexing: ``x[index]``, and JAX's functional updates ``x.at[index].set(value)``.

What flows in: a Tensor and an index of integers, slices, None, Ellipsis, lists, arrays and masks. What flows out: a
view where the index is basic, else a Tensor of the elements that it picks. Read :func:`split_index`.

The static part of an index is structure, its arrays and integers are operands: ``x[i]`` in a loop compiles once.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from twograd.tape.apply import apply
from twograd.tape.tensor import Tensor
from twograd.tape.views import view

MAX_STRUCTURES = 4096

structured = functools.lru_cache(maxsize=MAX_STRUCTURES)


def method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Attaches ``function`` to Tensor under its own name."""
    setattr(Tensor, function.__name__, function)
    return function


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

    An integer takes its dimension away before arrays are looked at, as in PyTorch: ``x[0, :, [1, 2]]`` is
    ``x[0][:, [1, 2]]``; for NumPy it counts among the arrays. Raises IndexError out of bounds.
    """
    spec, operands = split_index(self, index)
    if mixes(spec, operands):
        self, spec, operands = at_integers(self, spec, operands)
    basic = is_basic(spec, operands)
    function = _indexer(spec, basic)
    return view(self, function, *operands) if basic else apply(function, self, *operands)


def mixes(spec: tuple[Any, ...], operands: list[Any]) -> bool:
    """Whether an index has both integers and arrays, of which NumPy makes one dimension, first if they stand apart."""
    return len({type(operand) is int for operand in operands}) == 2 and any(part is not OPERAND for part in spec)


def at_integers(x: Tensor, spec: tuple[Any, ...], operands: list[Any]) -> tuple[Tensor, tuple[Any, ...], list[Any]]:
    """A view of ``x`` at the integers of an index, and what is left of the index for it."""
    given = iter(operands)
    parts = [(part, next(given) if part is OPERAND else None) for part in spec]
    whole = (None, None, None)
    first = tuple(
        part if part is Ellipsis or type(operand) is int else whole
        for part, operand in parts
        if part is not None and not isinstance(part, bool)
    )
    rest = [(part, operand) for part, operand in parts if type(operand) is not int]
    shown = view(x, _indexer(first, True), *[operand for operand in operands if type(operand) is int])
    return shown, tuple(part for part, _ in rest), [operand for part, operand in rest if part is OPERAND]


def is_basic(spec: tuple[Any, ...], operands: list[Any]) -> bool:
    """Whether an index has neither arrays nor truth values: what it picks is a view."""
    return all(type(operand) is int for operand in operands) and not any(isinstance(part, bool) for part in spec)


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
