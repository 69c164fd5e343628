"""The table of PyTorch's operations: each a line of JAX, from which a method and a function are made.

What flows in: nothing. What flows out: :data:`UNARY`, :data:`BINARY` and :data:`OPERATIONS`, by PyTorch's name; and
:data:`functions`, what ``schema.operation`` makes of them. The letters are explained in ``schema.py``. Where NumPy and
PyTorch differ a line does as PyTorch does.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
from jax import lax

from twograd.tape.dtypes import default_float, is_floating, narrowed
from twograd.tape.schema import operation


class ValuesAndIndices(NamedTuple):
    """What ``max``, ``min``, ``sort``, ``topk`` ... along a dimension return: Tensors."""

    values: Any
    indices: Any


class MinAndMax(NamedTuple):
    """What ``aminmax`` returns: Tensors."""

    min: Any
    max: Any


class SignAndLogarithm(NamedTuple):
    """What ``slogdet`` returns: Tensors."""

    sign: Any
    logabsdet: Any


# --- what the lines share ---------------------------------------------------------------------------------------------


def _as(x: Any, dtype: Any) -> Any:
    return x if dtype is None else x.astype(narrowed(dtype))


def _float(x: Any) -> Any:
    """Integers as floating point numbers of the default dtype."""
    return x if jnp.issubdtype(x.dtype, np.inexact) else x.astype(default_float())


def absolute(x: Any) -> Any:
    """The absolute value, with the derivative 0 at 0, as in PyTorch; JAX's is 1 there."""
    return x * jnp.sign(x) if is_floating(x.dtype) else jnp.abs(x)


def _negative(x: Any) -> Any:
    if x.dtype == np.bool_:
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )
    return jnp.negative(x)


def _subtract(x: Any, y: Any) -> Any:
    if x.dtype == y.dtype == np.bool_:
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    return jnp.subtract(x, y)


def _scaled(x: Any, factor: Any) -> Any:
    return x if isinstance(factor, int) and factor == 1 else x * factor


def divide(input: Any, other: Any, *, rounding_mode: Any = None) -> Any:
    """The quotient, rounded towards zero (``"trunc"``) or down (``"floor"``) if asked for."""
    if rounding_mode is None:
        return jnp.true_divide(input, other)
    if rounding_mode == "floor":
        return jnp.floor_divide(input, other)
    if rounding_mode == "trunc":
        inexact = jnp.issubdtype(jnp.result_type(input, other), np.inexact)
        return jnp.trunc(input / other) if inexact else lax.div(*jnp.broadcast_arrays(input, other))
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'")


def _nextafter(x: Any, y: Any) -> Any:
    """With the derivative 1 in ``x``, as in PyTorch."""
    return x - lax.stop_gradient(x) + lax.stop_gradient(jnp.nextafter(x, y))


def indices_of(x: Any) -> Any:
    """Integers as indices are: int64, or what JAX keeps for it."""
    return x.astype(narrowed(np.int64))


def _mask(name: str, mask: Any) -> Any:
    if mask.dtype != np.bool_:
        raise RuntimeError(f"{name} only supports boolean masks, but got mask with dtype {mask.dtype}")
    return mask


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """The elements, none below ``min`` and none above ``max``. At a bound the gradient is the element's, as in
    PyTorch; ``jnp.clip`` gives each half."""
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    raised = input if min is None else jnp.where(input < min, min, input)
    return raised if max is None else jnp.where(raised > max, max, raised)


def sqrt_from_zero(x: Any) -> Any:
    """The root of what is never negative, with the derivative 0 at 0, as PyTorch's ``norm`` and ``std`` have it."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), x)


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The p-norm of the elements, along ``dim`` or of all; its derivative at zero is 0. ``"nuc"`` of a matrix is the
    sum of its singular values."""
    x = _as(input, dtype)
    if not jnp.issubdtype(x.dtype, np.inexact):
        raise RuntimeError(f"norm(): the dtype of the input must be floating point or complex, got {x.dtype}")
    over: dict[str, Any] = {"axis": _all(dim), "keepdims": keepdim}
    if p == "nuc":
        return _nuclear(x, dim, keepdim)
    size = absolute(x)
    if p in (math.inf, -math.inf):
        return (jnp.max if p > 0 else jnp.min)(size, **over)
    if p == 0:
        return jnp.sum(size != 0, **over).astype(size.dtype)
    if p in (2, "fro", None):
        return sqrt_from_zero(jnp.sum(jnp.real(x * jnp.conj(x)), **over))
    if p == 1:
        return jnp.sum(size, **over)
    total = jnp.sum(size**p, **over)
    positive = total > 0
    return jnp.where(positive, jnp.where(positive, total, 1) ** (1 / p), total)


def _nuclear(x: Any, dim: Any, keepdim: bool) -> Any:
    dims = (-2, -1) if dim is None else dim
    singular = jnp.linalg.svd(jnp.moveaxis(x, dims, (-2, -1)), full_matrices=False, compute_uv=False)
    total = jnp.sum(singular, -1)
    return jnp.expand_dims(total, [d % x.ndim for d in dims]) if keepdim else total


def _mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if dtype is None and not jnp.issubdtype(input.dtype, np.inexact):
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{input.dtype}"
        )
    return jnp.mean(_as(input, dtype), axis=_all(dim), keepdims=keepdim)


def _reduction(function: Any) -> Callable[..., Any]:
    """A reduction that may convert first."""
    return lambda input, dim=None, keepdim=False, *, dtype=None: function(
        _as(input, dtype), axis=_all(dim), keepdims=keepdim
    )


def _choice(function: Any) -> Callable[..., Any]:
    """A reduction that needs something to choose from."""

    def choose(input, dim=None, keepdim=False):
        dim = _all(dim)
        _nonempty(function.__name__, input, dim)
        return function(input, axis=dim, keepdims=keepdim)

    return choose


def _all(dim: Any) -> Any:
    """PyTorch takes no dimensions for all of them."""
    return None if dim == () else dim


def _nonempty(name: str, x: Any, dim: Any) -> None:
    if dim is None and not x.size:
        raise RuntimeError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with "
            "the 'dim' argument."
        )
    for d in dim if isinstance(dim, tuple) else () if dim is None else (dim,):
        if not x.shape[d]:
            raise IndexError(f"{name}(): Expected reduction dim {d % x.ndim} to have non-zero size.")


def _var(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """With Bessel's correction by default, as in PyTorch; NumPy's is ``correction=0``."""
    if isinstance(dim, bool):  # x.var(False)
        dim, unbiased = None, dim
    ddof = correction if correction is not None else 0 if unbiased is False else 1
    return jnp.var(input, axis=_all(dim), keepdims=keepdim, ddof=ddof)


def _std(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The root of ``var``, with the derivative 0 where that is 0."""
    return sqrt_from_zero(_var(input, dim, unbiased, keepdim, correction=correction))


def _and_mean(function: Any) -> Callable[..., Any]:
    def with_mean(input, dim=None, unbiased=None, keepdim=False, *, correction=None):
        mean = jnp.mean(input, axis=None if isinstance(dim, bool) else _all(dim), keepdims=keepdim)
        return function(input, dim, unbiased, keepdim, correction=correction), mean

    return with_mean


def _at(x: Any, indices: Any, dim: int, keepdim: bool = True) -> ValuesAndIndices:
    """The elements at indices along a dimension, of size 1 there, and these indices."""
    values, indices = jnp.take_along_axis(x, indices, dim), indices_of(indices)
    return ValuesAndIndices(*(a if keepdim else jnp.squeeze(a, dim) for a in (values, indices)))


def _extreme(values: Any, indices: Any) -> Callable[..., Any]:
    def extreme(input, dim=None, keepdim=False):
        _nonempty(values.__name__, input, dim)
        if dim is None:
            return values(input, keepdims=keepdim)
        return _at(input, indices(input, axis=dim, keepdims=True), dim, keepdim)

    return extreme


def _argsort(input: Any, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    return jnp.argsort(input, dim, descending=bool(descending))


def _sort(input: Any, dim: int = -1, descending: bool = False, *, stable: bool = False) -> ValuesAndIndices:
    return _at(input, _argsort(input, dim, descending), dim)


def _ranked(x: Any, rank: Any, dim: int, keepdim: bool) -> ValuesAndIndices:
    """The element that stands at ``rank`` along a dimension in ascending order, NaN last."""
    order = jnp.argsort(x, dim)
    return _at(x, jnp.take_along_axis(order, jnp.broadcast_to(rank, _kept(x, dim)), dim), dim, keepdim)


def _kept(x: Any, dim: int) -> tuple[int, ...]:
    return tuple(1 if i == dim % x.ndim else n for i, n in enumerate(x.shape))


def _median(ignore_nan: bool) -> Callable[..., Any]:
    def median(input, dim=None, keepdim=False):
        """The lower of the two middle elements, as in PyTorch; NaN if there is one and it is not ignored."""
        x = input
        if dim is None:
            return median(x.ravel(), 0).values if x.size else jnp.full((), jnp.nan, x.dtype)
        _nonempty("median", x, dim)
        count = jnp.sum(~jnp.isnan(x), axis=dim, keepdims=True)
        if ignore_nan:
            return _ranked(x, jnp.maximum(count - 1, 0) // 2, dim, keepdim)
        size = x.shape[dim]
        return _ranked(x, jnp.where(count < size, count, (size - 1) // 2), dim, keepdim)

    return median


def _kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> ValuesAndIndices:
    if not 1 <= k <= input.shape[dim]:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {dim}")
    return _ranked(input, k - 1, dim, keepdim)


def _topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesAndIndices:
    if not 0 <= k <= input.shape[dim]:
        raise RuntimeError("selected index k out of range")
    order = _argsort(input, dim, largest)
    return _at(input, lax.slice_in_dim(order, 0, k, axis=dim % input.ndim), dim)


def _mode(input: Any, dim: int = -1, keepdim: bool = False) -> ValuesAndIndices:
    """The most frequent element, the smallest of those: the end of the first longest run of the sorted elements."""
    order = jnp.argsort(input, dim)
    ordered = jnp.moveaxis(jnp.take_along_axis(input, order, dim), dim, -1)
    places = lax.broadcasted_iota(np.int32, ordered.shape, ordered.ndim - 1)
    fresh = jnp.concatenate([jnp.ones_like(ordered[..., :1], bool), ordered[..., 1:] != ordered[..., :-1]], -1)
    start = lax.cummax(jnp.where(fresh, places, 0), axis=ordered.ndim - 1)
    end = jnp.moveaxis(jnp.argmax(places - start, axis=-1, keepdims=True), -1, dim)
    return _at(input, jnp.take_along_axis(order, end, dim), dim, keepdim)


def _running(cumulative: Any) -> Callable[..., Any]:
    def running(input, dim):
        """The extreme so far, and the last index that it was met at, as in PyTorch."""
        dim %= input.ndim
        best = cumulative(lax.stop_gradient(input), axis=dim)
        places = lax.broadcasted_iota(np.int32, input.shape, dim)
        return _at(input, lax.cummax(jnp.where((input == best) | jnp.isnan(input), places, 0), axis=dim), dim)

    return running


def _quantile(function: Any) -> Callable[..., Any]:
    def quantile(input, q, dim=None, keepdim=False, *, interpolation="linear"):
        """The q-quantiles, along ``dim`` or of all elements; those of several q in a new first dimension."""
        return function(input, jnp.asarray(q, input.dtype), axis=dim, keepdims=keepdim, method=interpolation)

    return quantile


def _coordinates(index: Any, dim: int) -> tuple[Any, ...]:
    """The indices of all dimensions that ``gather`` and ``scatter`` mean by those of one."""
    dim %= index.ndim
    return tuple(index if i == dim else lax.broadcasted_iota(index.dtype, index.shape, i) for i in range(index.ndim))


def _fits(name: str, x: Any, dim: int, index: Any, source: Any = None) -> None:
    if index.ndim != x.ndim:
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    of = [(x.shape, "self", dim % x.ndim)] + ([(source.shape, "src", None)] if source is not None else [])
    for shape, what, free in of:
        if any(n > m and i != free for i, (n, m) in enumerate(zip(index.shape, shape, strict=True))):
            apart = "" if free is None else f" apart from dimension {free}"
            raise RuntimeError(
                f"Expected index {list(index.shape)} to be no larger than {what} {list(shape)}{apart}: {name}()"
            )


def _gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    _fits("gather", input, dim, index)
    return input[_coordinates(index, dim)]


REDUCTIONS = {
    None: "set", "add": "add", "sum": "add", "multiply": "multiply", "prod": "multiply", "amax": "max", "amin": "min",
}  # fmt: skip


def _scatter(input: Any, dim: int, index: Any, src: Any, *, reduce: Any = None) -> Any:
    if reduce not in REDUCTIONS:
        raise RuntimeError(f"reduce argument must be one of {', '.join(map(str, REDUCTIONS))}, not {reduce!r}")
    src = jnp.asarray(src, input.dtype)
    _fits("scatter", input, dim, index, src if src.ndim else None)
    src = src[tuple(map(slice, index.shape))] if src.ndim else src
    return getattr(input.at[_coordinates(index, dim)], REDUCTIONS[reduce])(src)


def _scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    x = input
    if reduce != "mean":
        identity = {"sum": 0, "prod": 1}.get(reduce)
        if not include_self:
            neutral = _limit(x.dtype, reduce == "amin") if identity is None else identity
            x = _scatter(x, dim, index, jnp.full(index.shape, neutral, x.dtype))
        return _scatter(x, dim, index, src, reduce=reduce)
    ones = jnp.ones(index.shape, x.dtype)
    count = _scatter(jnp.full(x.shape, int(include_self), x.dtype), dim, index, ones, reduce="sum")
    total = _scatter(x if include_self else _scatter(x, dim, index, 0 * ones), dim, index, src, reduce="sum")
    rounding = None if jnp.issubdtype(x.dtype, np.inexact) else "floor"
    return divide(total, jnp.maximum(count, 1), rounding_mode=rounding)


def _limit(dtype: Any, largest: bool) -> Any:
    if is_floating(dtype):
        return math.inf if largest else -math.inf
    return jnp.iinfo(dtype).max if largest else jnp.iinfo(dtype).min


def _rows(x: Any, dim: int, index: Any) -> Any:
    """``x.at`` the indices along one dimension."""
    if index.ndim > 1:
        raise IndexError(f"Index is supposed to be a vector, not {index.ndim}-dimensional")
    return x.at[(slice(None),) * (dim % x.ndim) + (index.reshape(-1),)]


def _index_reduce(input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Any:
    shape = [-1 if i == dim % input.ndim else 1 for i in range(input.ndim)]
    index = jnp.broadcast_to(index.reshape(shape), source.shape)
    return _scatter_reduce(input, dim, index, source, reduce, include_self=include_self)


def _masked_fill(input: Any, mask: Any, value: Any) -> Any:
    return jnp.where(_mask("masked_fill_", mask), jnp.asarray(value).astype(input.dtype), input)


def _masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    mask, x = jnp.broadcast_arrays(_mask("masked_scatter", mask), input)
    place = jnp.maximum(jnp.cumsum(mask.ravel()) - 1, 0)
    picked = source.ravel()[place].reshape(x.shape) if source.size else jnp.zeros_like(x)
    return jnp.where(mask, picked.astype(x.dtype), x)


def _put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    flat = input.ravel().at[index.ravel()]
    return (flat.add if accumulate else flat.set)(source.ravel().astype(input.dtype)).reshape(input.shape)


def _take_along_dim(input: Any, indices: Any, dim: Any = None) -> Any:
    return input.ravel()[indices.ravel()] if dim is None else jnp.take_along_axis(input, indices, dim)


def _repeat_interleave(input: Any, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Any:
    x, axis = (input.ravel(), 0) if dim is None else (input, dim)
    return jnp.repeat(x, np.asarray(repeats), axis=axis)


def _roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    x = input
    if dims is None or dims == ():
        return jnp.roll(x.ravel(), shifts).reshape(x.shape)
    if (len(shifts) if isinstance(shifts, tuple) else 1) != (len(dims) if isinstance(dims, tuple) else 1):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {shifts}, dims: {dims}")
    return jnp.roll(x, shifts, dims)


def _matrix(name: str, x: Any, rank: int) -> Any:
    if x.ndim != rank:
        raise RuntimeError(f"{name}: Expected a {rank}-dimensional tensor, but got {x.ndim}-dimensional tensor")
    return x


def _shape(x: Any) -> str:
    return "x".join(map(str, x.shape))


def matmul(input: Any, other: Any) -> Any:
    """The product of matrices, vectors and stacks of them; RuntimeError, with PyTorch's text, where they do not fit."""
    x, y = input, other
    if not x.ndim or not y.ndim:
        raise RuntimeError(f"both arguments to matmul need to be at least 1D, but they are {x.ndim}D and {y.ndim}D")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        if x.ndim == y.ndim == 1:
            n, m = x.size, y.size
            raise RuntimeError(
                f"inconsistent tensor size, expected tensor [{n}] and src [{m}] to have the same number of elements, "
                f"but got {n} and {m} elements respectively"
            )
        if y.ndim == 1:
            raise RuntimeError(f"size mismatch, got input ({x.shape[-2]}), mat ({_shape(x)}), vec ({y.size})")
        if x.ndim > 2 and y.ndim > 2:
            raise RuntimeError(
                f"Expected size for first two dimensions of batch2 tensor to be: [{math.prod(x.shape[:-2])}, "
                f"{x.shape[-1]}] but got: [{math.prod(y.shape[:-2])}, {y.shape[-2]}]."
            )
        rows = f"{math.prod(x.shape[:-1])}x{x.shape[-1]}" if x.ndim > 1 else f"1x{x.size}"
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({rows} and {_shape(y)})")
    if x.ndim > 2 and y.ndim > 2:
        for i, (n, m) in enumerate(zip(reversed(x.shape[:-2]), reversed(y.shape[:-2]), strict=False)):
            if n != m and 1 not in (n, m):
                raise RuntimeError(
                    f"The size of tensor a ({n}) must match the size of tensor b ({m}) at non-singleton dimension "
                    f"{max(x.ndim, y.ndim) - 3 - i}"
                )
    return jnp.matmul(x, y)


def _ranks(name: str, x: Any, y: Any, ranks: tuple[int, int]) -> Any:
    if (x.ndim, y.ndim) != ranks:
        raise RuntimeError(
            f"{name}: expected tensors of {ranks[0]} and {ranks[1]} dimensions, got {x.ndim} and {y.ndim}"
        )
    return matmul(x, y)


def _dot(input: Any, tensor: Any) -> Any:
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    return matmul(input, tensor)


def _blend(x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """``beta * x + alpha * product``; of x nothing is seen where beta is 0, as in PyTorch."""
    product = _scaled(product, alpha)
    return product + (jnp.zeros_like(x) if isinstance(beta, int) and beta == 0 else _scaled(x, beta))


def _cross(input: Any, other: Any, dim: Any = None) -> Any:
    x = input
    if dim is None:
        dim = next((i for i, n in enumerate(x.shape) if n == 3), None)
    if dim is None or x.shape[dim] != 3:
        raise RuntimeError(f"linalg.cross: inputs dimension must have length 3. Got {list(x.shape)}, dim {dim}")
    return jnp.cross(x, other, axis=dim)


def _diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    x = input
    n = x.shape[-1] + abs(offset)
    places = jnp.arange(x.shape[-1])
    rows, columns = places - min(offset, 0), places + max(offset, 0)
    placed = jnp.zeros((*x.shape[:-1], n, n), x.dtype).at[..., rows, columns].set(x)
    return jnp.moveaxis(placed, (-2, -1), (dim1, dim2))


def _sub_selected(x: Any, src: Any, pick: Callable[[Any], Any]) -> Any:
    """``x`` with ``src`` in the place of the elements that ``pick`` shows."""
    numbers = pick(jnp.arange(x.size).reshape(x.shape))
    if numbers.shape != src.shape:
        raise RuntimeError(f"expected src to have a size equal to the slice of self: {list(numbers.shape)}")
    return x.ravel().at[numbers.ravel()].set(src.ravel().astype(x.dtype)).reshape(x.shape)


def _diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return _sub_selected(input, src, lambda numbers: jnp.diagonal(numbers, offset, dim1, dim2))


def _select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    return _sub_selected(input, src, lambda numbers: jnp.take(numbers, index, dim))


def _slice_scatter(input: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    part = (slice(None),) * (dim % input.ndim) + (slice(start, end, step),)
    return _sub_selected(input, src, lambda numbers: numbers[part])


def _renorm(input: Any, p: Any, dim: int, maxnorm: Any) -> Any:
    others = tuple(i for i in range(input.ndim) if i != dim % input.ndim)
    size = norm(input, p, others, True)
    return input * jnp.where(size > maxnorm, maxnorm / (size + 1e-7), 1)


def _diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    return jnp.diff(input, n, dim, prepend=prepend, append=append)


def _softmax(function: Any) -> Callable[..., Any]:
    return lambda input, dim=-1, dtype=None: function(_as(input, dtype), axis=dim)


def _unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    return jnp.unique(input, return_inverse=return_inverse, return_counts=return_counts, axis=dim)


def _unique_consecutive(input: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None) -> Any:
    rows = input.ravel() if dim is None else jnp.moveaxis(input, dim, 0)
    differs = np.asarray(jnp.any(rows[1:] != rows[:-1], tuple(range(1, rows.ndim))))
    fresh = np.concatenate([[True], differs])[: len(rows)]
    starts = np.flatnonzero(fresh)
    found = [rows[starts] if dim is None else jnp.moveaxis(rows[starts], 0, dim)]
    if return_inverse:
        inverse = jnp.asarray(np.cumsum(fresh) - 1)
        found.append(inverse.reshape(input.shape) if dim is None else inverse)
    if return_counts:
        found.append(jnp.asarray(np.diff(np.append(starts, len(rows)))))
    return tuple(found) if len(found) > 1 else found[0]


def _nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    found = jnp.nonzero(input.reshape(1) if not input.ndim else input)
    if as_tuple:
        return found
    return jnp.stack(found, -1) if input.ndim else jnp.zeros((found[0].size, 0), found[0].dtype)


def _histc(input: Any, bins: int = 100, min: Any = 0, max: Any = 0) -> Any:
    counts, _ = jnp.histogram(input, bins, None if min == max else (min, max))
    return counts.astype(input.dtype)


def _isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    return jnp.isclose(input, other, rtol, atol, equal_nan)


def _logit(input: Any, eps: Any = None) -> Any:
    x = _float(input) if eps is None else clamp(_float(input), eps, 1 - eps)
    return jnp.log(x / (1 - x))


def _prelu(input: Any, weight: Any) -> Any:
    """A slope for all, or one for each channel, the second dimension."""
    if weight.size > 1 and input.ndim > 1:
        weight = weight.reshape(-1, *[1] * (input.ndim - 2))
    return jnp.where(input > 0, input, input * weight)


def _svd(input: Any, some: bool = True, compute_uv: bool = True) -> Any:
    if not compute_uv:
        raise NotImplementedError("svd(compute_uv=False): use torch.linalg.svdvals(x)")
    u, s, vh = jnp.linalg.svd(input, full_matrices=not some)
    return u, s, jnp.conj(jnp.swapaxes(vh, -2, -1))


def _product(name: str, ranks: tuple[int, int], total: bool = False) -> Callable[..., Any]:
    """``beta * input + alpha * (mat1 @ mat2)``, of tensors of these ranks."""

    def blended(input, mat1, mat2, *, beta=1, alpha=1):
        product = _ranks(name, mat1, mat2, ranks)
        return _blend(input, product.sum(0) if total else product, beta, alpha)

    return blended


def _logdet(input: Any) -> Any:
    sign, logarithm = jnp.linalg.slogdet(_square("logdet", input))
    return jnp.where(sign < 0, jnp.nan, logarithm)


def _square(name: str, x: Any) -> Any:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise RuntimeError(f"{name}: A must be batches of square matrices, but they are {_shape(x)}")
    return x


def _cholesky(input: Any, upper: bool = False) -> Any:
    return jnp.linalg.cholesky(_square("linalg.cholesky", input), upper=upper)


def _cholesky_solve(input: Any, input2: Any, upper: bool = False) -> Any:
    return jax.scipy.linalg.cho_solve((input2, not upper), input)


# --- the table --------------------------------------------------------------------------------------------------------

UNARY: dict[str, Callable[..., Any]] = {
    "abs": absolute, "absolute": absolute, "acos": jnp.acos, "acosh": jnp.acosh, "angle": jnp.angle,
    "arccos": jnp.acos, "arccosh": jnp.acosh, "arcsin": jnp.asin, "arcsinh": jnp.asinh, "arctan": jnp.atan,
    "arctanh": jnp.atanh, "asin": jnp.asin, "asinh": jnp.asinh, "atan": jnp.atan, "atanh": jnp.atanh,
    "bitwise_not": jnp.bitwise_not, "ceil": jnp.ceil, "conj": jnp.conj, "conj_physical": jnp.conj, "cos": jnp.cos,
    "cosh": jnp.cosh, "deg2rad": jnp.deg2rad, "digamma": jsp.digamma, "erf": jsp.erf, "erfc": jsp.erfc,
    "erfinv": jsp.erfinv, "exp": jnp.exp, "exp2": jnp.exp2, "expm1": jnp.expm1, "fix": jnp.trunc, "floor": jnp.floor,
    "frac": lambda input: input - jnp.trunc(input), "i0": jsp.i0, "isfinite": jnp.isfinite, "isinf": jnp.isinf,
    "isnan": jnp.isnan, "isneginf": jnp.isneginf, "isposinf": jnp.isposinf, "isreal": jnp.isreal,
    "lgamma": jsp.gammaln, "log": jnp.log, "log10": jnp.log10, "log1p": jnp.log1p, "log2": jnp.log2,
    "logical_not": jnp.logical_not, "neg": _negative, "negative": _negative, "positive": jnp.positive,
    "rad2deg": jnp.rad2deg, "reciprocal": lambda input: 1 / _float(input), "relu": jax.nn.relu,
    "rsqrt": lambda input: lax.rsqrt(_float(input)), "sgn": jnp.sign,
    "sigmoid": lambda input: jax.nn.sigmoid(_float(input)), "sign": jnp.sign, "signbit": jnp.signbit,
    "sin": jnp.sin, "sinc": jnp.sinc, "sinh": jnp.sinh, "sqrt": jnp.sqrt,
    "square": jnp.square, "tan": jnp.tan, "tanh": jnp.tanh, "trunc": jnp.trunc,
}  # fmt: skip
"""Functions of one operand."""

BINARY: dict[str, Callable[..., Any]] = {
    "arctan2": jnp.arctan2, "atan2": jnp.arctan2, "bitwise_and": jnp.bitwise_and,
    "bitwise_left_shift": jnp.left_shift, "bitwise_or": jnp.bitwise_or, "bitwise_right_shift": jnp.right_shift,
    "bitwise_xor": jnp.bitwise_xor, "copysign": jnp.copysign, "eq": jnp.equal, "floor_divide": jnp.floor_divide,
    "fmax": lambda input, other: jnp.where((input >= other) | jnp.isnan(other), input, other),
    "fmin": lambda input, other: jnp.where((input <= other) | jnp.isnan(other), input, other), "fmod": jnp.fmod,
    "gcd": jnp.gcd, "ge": jnp.greater_equal, "greater": jnp.greater, "greater_equal": jnp.greater_equal,
    "gt": jnp.greater, "heaviside": jnp.heaviside, "hypot": jnp.hypot, "igamma": jsp.gammainc, "igammac": jsp.gammaincc,
    "lcm": jnp.lcm, "ldexp": lambda input, other: input * jnp.exp2(_float(other)), "le": jnp.less_equal,
    "less": jnp.less, "less_equal": jnp.less_equal, "logaddexp": jnp.logaddexp, "logaddexp2": jnp.logaddexp2,
    "logical_and": jnp.logical_and, "logical_or": jnp.logical_or, "logical_xor": jnp.logical_xor, "lt": jnp.less,
    "maximum": jnp.maximum, "minimum": jnp.minimum, "mul": jnp.multiply, "multiply": jnp.multiply,
    "ne": jnp.not_equal, "nextafter": _nextafter, "not_equal": jnp.not_equal, "remainder": jnp.remainder,
    "true_divide": jnp.true_divide, "xlogy": jsp.xlogy,
}  # fmt: skip
"""Functions of two operands, broadcast and promoted."""

OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    # elementwise
    "add":           ("nnt", lambda input, other, *, alpha=1: jnp.add(input, _scaled(other, alpha))),
    "addcdiv":       ("nnnt", lambda input, tensor1, tensor2, *, value=1: input + _scaled(tensor1, value) / tensor2),
    "addcmul":       ("nnnt", lambda input, tensor1, tensor2, *, value=1: input + _scaled(tensor1, value) * tensor2),
    "clamp":         ("nnn", clamp),
    "clamp_max":     ("nn", lambda input, max: clamp(input, None, max)),
    "clamp_min":     ("nn", lambda input, min: clamp(input, min, None)),
    "clip":          ("nnn", clamp),
    "div":           ("nn.", divide),
    "divide":        ("nn.", divide),
    "float_power":   ("nn", lambda input, exponent: jnp.power(_as(input, np.float64), exponent)),
    "hardshrink":    ("tt", lambda input, lambd=0.5: jnp.where(jnp.abs(input) <= lambd, 0, input)),
    "isclose":       ("nn...", _isclose),
    "lerp":          ("nnn", lambda input, end, weight: input + weight * (end - input)),
    "logit":         ("tt", _logit),
    "masked_fill":   ("ttt", _masked_fill),
    "masked_scatter": ("ttt", _masked_scatter),
    "mvlgamma":      ("t.", lambda input, p: jsp.multigammaln(input, p)),
    "nan_to_num":    ("t...", lambda input, nan=0.0, posinf=None, neginf=None: jnp.nan_to_num(
                          input, nan=nan, posinf=posinf, neginf=neginf)),
    "prelu":         ("tt", _prelu),
    "round":         ("t.", lambda input, *, decimals=0: jnp.round(input, decimals)),
    "sub":           ("nnt", lambda input, other, *, alpha=1: _subtract(input, _scaled(other, alpha))),
    "subtract":      ("nnt", lambda input, other, *, alpha=1: _subtract(input, _scaled(other, alpha))),

    # reductions
    "all":           ("td.", lambda input, dim=None, keepdim=False: jnp.all(input, _all(dim), keepdims=keepdim)),
    "amax":          ("td.", _choice(jnp.amax)),
    "amin":          ("td.", _choice(jnp.amin)),
    "aminmax":       ("td.", lambda input, *, dim=None, keepdim=False: MinAndMax(
                          _choice(jnp.amin)(input, dim, keepdim), _choice(jnp.amax)(input, dim, keepdim))),
    "any":           ("td.", lambda input, dim=None, keepdim=False: jnp.any(input, _all(dim), keepdims=keepdim)),
    "argmax":        ("td.", _choice(jnp.argmax)),
    "argmin":        ("td.", _choice(jnp.argmin)),
    "count_nonzero": ("td", lambda input, dim=None: jnp.count_nonzero(input, axis=dim)),
    "dist":          ("nn.", lambda input, other, p=2: norm(input - other, p)),
    "kthvalue":      ("t.d.", _kthvalue),
    "logsumexp":     ("td.", lambda input, dim=None, keepdim=False: jax.nn.logsumexp(
                          _float(input), _all(dim), keepdims=keepdim)),
    "mean":          ("td..", _mean),
    "median":        ("td.", _median(ignore_nan=False)),
    "mode":          ("td.", _mode),
    "nanmean":       ("td..", _reduction(jnp.nanmean)),
    "nanmedian":     ("td.", _median(ignore_nan=True)),
    "nanquantile":   ("ttd..", _quantile(jnp.nanquantile)),
    "nansum":        ("td..", _reduction(jnp.nansum)),
    "norm":          ("t.d..", norm),
    "prod":          ("td..", _reduction(jnp.prod)),
    "quantile":      ("ttd..", _quantile(jnp.quantile)),
    "std":           ("td...", _std),
    "std_mean":      ("td...", _and_mean(_std)),
    "sum":           ("td..", _reduction(jnp.sum)),
    "var":           ("td...", _var),
    "var_mean":      ("td...", _and_mean(_var)),

    # along a dimension
    "argsort":       ("td..", _argsort),
    "cummax":        ("td", _running(lax.cummax)),
    "cummin":        ("td", _running(lax.cummin)),
    "cumprod":       ("td.", lambda input, dim=None, *, dtype=None: jnp.cumprod(_as(input, dtype), dim)),
    "cumsum":        ("td.", lambda input, dim=None, *, dtype=None: jnp.cumsum(_as(input, dtype), dim)),
    "diff":          ("t.dtt", _diff),
    "log_softmax":   ("td.", _softmax(jax.nn.log_softmax)),
    "logcumsumexp":  ("td", lambda input, dim: lax.cumlogsumexp(input, dim % input.ndim)),
    "msort":         ("t", lambda input: jnp.sort(input, 0)),
    "renorm":        ("t.d.", _renorm),
    "softmax":       ("td.", _softmax(jax.nn.softmax)),
    "sort":          ("td..", _sort),
    "topk":          ("t.d..", _topk),

    # picking and placing
    "argwhere":      ("v", lambda input: jnp.argwhere(input)),
    "bincount":      ("vt.", lambda input, weights=None, minlength=0: jnp.bincount(input, weights, minlength)),
    "diagonal_scatter": ("tt...", _diagonal_scatter),
    "gather":        ("tdi.", _gather),
    "histc":         ("v...", _histc),
    "index_add":     ("tditt", lambda input, dim, index, source, *, alpha=1: _rows(input, dim, index).add(
                          _scaled(source, alpha))),
    "index_copy":    ("tdit", lambda input, dim, index, source: _rows(input, dim, index).set(source)),
    "index_fill":    ("tdit", lambda input, dim, index, value: _rows(input, dim, index).set(value)),
    "index_reduce":  ("tdit..", _index_reduce),
    "index_select":  ("tdi", lambda input, dim, index: jnp.take(input, index.reshape(-1), dim)),
    "nonzero":       ("v.", _nonzero),
    "put":           ("ttt.", _put),
    "scatter":       ("tdit.", _scatter),
    "scatter_add":   ("tdit", lambda input, dim, index, src: _scatter(input, dim, index, src, reduce="add")),
    "scatter_reduce": ("tdit..", _scatter_reduce),
    "select_scatter": ("ttd.", _select_scatter),
    "slice_scatter": ("ttd...", _slice_scatter),
    "take":          ("ti", lambda input, index: input.ravel()[index]),
    "take_along_dim": ("ttd", _take_along_dim),
    "unique":        ("v...d", _unique),
    "unique_consecutive": ("v..d", _unique_consecutive),

    # shapes
    "diag":          ("t.", lambda input, diagonal=0: jnp.diag(input, diagonal)),
    "diag_embed":    ("t...", _diag_embed),
    "diagflat":      ("t.", lambda input, offset=0: jnp.diagflat(input, offset)),
    "fliplr":        ("t", lambda input: jnp.fliplr(input)),
    "flipud":        ("t", lambda input: jnp.flipud(input)),
    "repeat_interleave": ("t.d.", _repeat_interleave),
    "roll":          ("t.d", _roll),
    "rot90":         ("t..", lambda input, k=1, dims=(0, 1): jnp.rot90(input, k, dims)),
    "tril":          ("t.", lambda input, diagonal=0: jnp.tril(input, diagonal)),
    "triu":          ("t.", lambda input, diagonal=0: jnp.triu(input, diagonal)),

    # matrices
    "addbmm":        ("ttttt", _product("addbmm", (3, 3), total=True)),
    "addmm":         ("ttttt", _product("addmm", (2, 2))),
    "addmv":         ("ttttt", _product("addmv", (2, 1))),
    "addr":          ("ttttt", lambda input, vec1, vec2, *, beta=1, alpha=1: _blend(
                          input, jnp.outer(vec1, vec2), beta, alpha)),
    "baddbmm":       ("ttttt", _product("baddbmm", (3, 3))),
    "bmm":           ("tt", lambda input, mat2: _ranks("bmm", input, mat2, (3, 3))),
    "cholesky":      ("t.", _cholesky),
    "cholesky_inverse": ("t.", lambda input, upper=False: _cholesky_solve(
                          jnp.eye(input.shape[-1], dtype=input.dtype), input, upper)),
    "cholesky_solve": ("tt.", _cholesky_solve),
    "corrcoef":      ("t", lambda input: jnp.corrcoef(input)),
    "cov":           ("t.tt", lambda input, *, correction=1, fweights=None, aweights=None: jnp.cov(
                          input, ddof=correction, fweights=fweights, aweights=aweights)),
    "cross":         ("nnd", _cross),
    "det":           ("t", lambda input: jnp.linalg.det(_square("linalg.det", input))),
    "dot":           ("tt", _dot),
    "ger":           ("tt", lambda input, vec2: jnp.outer(input, vec2)),
    "inner":         ("tt", lambda input, other: jnp.inner(input, other)),
    "inverse":       ("t", lambda input: jnp.linalg.inv(_square("linalg.inv", input))),
    "kron":          ("tt", lambda input, other: jnp.kron(input, other)),
    "logdet":        ("t", _logdet),
    "matmul":        ("tt", matmul),
    "matrix_exp":    ("t", lambda input: jax.scipy.linalg.expm(_square("matrix_exp", input))),
    "matrix_power":  ("t.", lambda input, n: jnp.linalg.matrix_power(_square("matrix_power", input), n)),
    "mm":            ("tt", lambda input, mat2: _ranks("mm", input, mat2, (2, 2))),
    "mv":            ("tt", lambda input, vec: _ranks("mv", input, vec, (2, 1))),
    "outer":         ("tt", lambda input, vec2: jnp.outer(input, vec2)),
    "pinverse":      ("t.", lambda input, rcond=1e-15: jnp.linalg.pinv(input, rtol=rcond)),
    "qr":            ("t.", lambda input, some=True: tuple(
                          jnp.linalg.qr(input, mode="reduced" if some else "complete"))),
    "slogdet":       ("t", lambda input: SignAndLogarithm(*jnp.linalg.slogdet(_square("linalg.slogdet", input)))),
    "svd":           ("t..", _svd),
    "trace":         ("t", lambda input: jnp.trace(_matrix("trace", input, 2))),
    "vdot":          ("tt", lambda input, other: jnp.vdot(input, other)),
}  # fmt: skip
"""Of each operation the kinds of its parameters, and what it computes of arrays."""

extreme: dict[str, Callable[..., Any]] = {
    "max": operation("max", "td.", _extreme(jnp.max, jnp.argmax)),
    "min": operation("min", "td.", _extreme(jnp.min, jnp.argmin)),
}
"""The extreme over all elements, or along a dimension; ``methods.py`` has what else PyTorch calls by these names."""

functions: dict[str, Callable[..., Any]] = {
    **{name: operation(name, "t", function, ["input"]) for name, function in UNARY.items()},
    **{name: operation(name, "nn", function, ["input", "other"]) for name, function in BINARY.items()},
    **{name: operation(name, *line) for name, line in OPERATIONS.items()},
}
"""The operations as functions of Tensors: the methods of Tensor, and the functions of ``twograd.tape``."""
