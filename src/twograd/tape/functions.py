"""``torch.sin``, ``torch.cat``, ``torch.float32``: what PyTorch has at the top of its module.

What flows in: the table of operations, the methods, and lines here for what is no method. What flows out: :func:`find`,
by which ``twograd.tape`` finds such a name when it is first used. Read :data:`FUNCTIONS`, whose lines are explained in
``schema.py``.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape import dtypes, factories, methods, printing
from twograd.tape.dtypes import DTYPES, default_float, narrowed
from twograd.tape.operations import functions, indices_of, norm
from twograd.tape.schema import operation
from twograd.tape.tensor import Size, Tensor

# --- what no Tensor has as a method -----------------------------------------------------------------------------------


def _cat(tensors: Any, dim: int = 0) -> Any:
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    kept = [t for t in tensors if t.shape != (0,)] or tensors  # PyTorch leaves these out, whatever the others' shapes
    first = kept[0]
    if not first.ndim:
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated")
    _in_range(first.ndim, dim)
    for i, t in enumerate(kept):
        if t.ndim != first.ndim:
            raise RuntimeError(f"Tensors must have same number of dimensions: got {first.ndim} and {t.ndim}")
        for axis, (own, expected) in enumerate(zip(t.shape, first.shape, strict=True)):
            if own != expected and axis != dim % first.ndim:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {dim}. Expected size {expected} but got size "
                    f"{own} for tensor number {i} in the list."
                )
    return jnp.concatenate(kept, dim)


def _stack(tensors: Any, dim: int = 0) -> Any:
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = tensors[0]
    for i, t in enumerate(tensors):
        if t.shape != first.shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first.shape)} at entry 0 and "
                f"{list(t.shape)} at entry {i}"
            )
    _in_range(first.ndim + 1, dim)
    return jnp.stack(tensors, dim)


def _in_range(rank: int, dim: int) -> None:
    if not -rank <= dim < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")


def _einsum(equation: str, operands: Any) -> Any:
    try:
        return jnp.einsum(equation, *operands)
    except (ValueError, TypeError) as error:
        raise RuntimeError(f"einsum(): {error}") from error


def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    return jnp.tensordot(a, b, dims)


def _cdist(x1: Any, x2: Any, p: Any = 2.0, compute_mode: Any = None) -> Any:
    """The p-norm of the difference of each row of ``x1`` and each of ``x2``."""
    return norm(x1[..., :, None, :] - x2[..., None, :, :], p, -1)


def _pdist(input: Any, p: Any = 2.0) -> Any:
    rows, columns = np.triu_indices(len(input), 1)
    return norm(input[rows] - input[columns], p, -1)


def _meshgrid(tensors: Any, indexing: Any = "ij") -> Any:
    return tuple(jnp.meshgrid(*[t.reshape(-1) for t in tensors], indexing=indexing or "ij"))


def _cartesian_prod(tensors: Any) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    return jnp.stack([grid.ravel() for grid in jnp.meshgrid(*tensors, indexing="ij")], -1)


def _combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    picked = np.array(list(choose(range(len(input)), r)), np.int32).reshape(-1, r)
    return input[picked]


def _block_diag(tensors: Any) -> Any:
    return jax.scipy.linalg.block_diag(*[jnp.atleast_2d(t) for t in tensors])


def _trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    return jnp.trapezoid(y, x, dx, dim)


def _cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = 1, dim: int = -1) -> Any:
    y = jnp.moveaxis(y, dim, -1)
    width = dx if x is None else jnp.diff(x)
    return jnp.moveaxis(jnp.cumsum((y[..., 1:] + y[..., :-1]) / 2 * width, -1), -1, dim)


def _searchsorted(sorted_sequence: Any, input: Any, *, right: bool = False, side: Any = None) -> Any:
    side = side or ("right" if right else "left")
    if sorted_sequence.ndim == 1:
        return indices_of(jnp.searchsorted(sorted_sequence, input, side=side))
    find = jnp.vectorize(lambda row, values: jnp.searchsorted(row, values, side=side), signature="(n),(m)->(m)")
    return indices_of(find(sorted_sequence, input))


def _pad_vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    return jnp.vander(x, N, increasing)


def _norm_except(v: Any, pow: Any = 2, dim: int = 0) -> Any:
    return norm(v, pow, tuple(i for i in range(v.ndim) if i != dim % v.ndim), True)


FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "atleast_1d":    ("t", lambda input: jnp.atleast_1d(input)),
    "atleast_2d":    ("t", lambda input: jnp.atleast_2d(input)),
    "atleast_3d":    ("t", lambda input: jnp.atleast_3d(input)),
    "bucketize":     ("tt.", lambda input, boundaries, *, right=False: _searchsorted(
                          boundaries, input, right=right)),
    "cat":           ("l.", _cat),
    "chain_matmul":  ("l", lambda matrices: jnp.linalg.multi_dot(matrices) if len(matrices) > 1 else matrices[0]),
    "cdist":         ("tt..", _cdist),
    "column_stack":  ("l", lambda tensors: jnp.column_stack(tensors)),
    "combinations":  ("t..", _combinations),
    "complex":       ("nn", lambda real, imag: jax.lax.complex(real, imag)),
    "concat":        ("l.", _cat),
    "concatenate":   ("l.", _cat),
    "cumulative_trapezoid": ("tttd", _cumulative_trapezoid),
    "dstack":        ("l", lambda tensors: jnp.dstack(tensors)),
    "einsum":        (".l", _einsum),
    "hstack":        ("l", lambda tensors: jnp.hstack(tensors)),
    "isin":          ("tt..", lambda elements, test_elements, *, assume_unique=False, invert=False: jnp.isin(
                          elements, test_elements, invert=invert)),
    "meshgrid":      ("l.", _meshgrid),
    "norm_except_dim": ("t..", _norm_except),
    "pdist":         ("tt", _pdist),
    "polar":         ("nn", lambda abs, angle: jax.lax.complex(abs * jnp.cos(angle), abs * jnp.sin(angle))),
    "row_stack":     ("l", lambda tensors: jnp.vstack(tensors)),
    "rsub":          ("nnt", lambda input, other, *, alpha=1: other - input * alpha),
    "searchsorted":  ("tt..", _searchsorted),
    "stack":         ("l.", _stack),
    "std_mean":      ("td...", functions["std_mean"].schema.function),  # pyright: ignore[reportFunctionMemberAccess]
    "tensordot":     ("tt.", _tensordot),
    "threshold":     ("ttt", lambda input, threshold, value: jnp.where(input > threshold, input, value)),
    "trapezoid":     ("tttd", _trapezoid),
    "trapz":         ("tttd", _trapezoid),
    "vander":        ("t..", _pad_vander),
    "view_as_complex": ("t", lambda input: jax.lax.complex(input[..., 0], input[..., 1])),
    "view_as_real":  ("t", lambda input: jnp.stack([jnp.real(input), jnp.imag(input)], -1)),
    "vstack":        ("l", lambda tensors: jnp.vstack(tensors)),
}  # fmt: skip
"""Of each function the kinds of its parameters, and what it computes of arrays."""

_made = {name: operation(name, *line) for name, line in FUNCTIONS.items()}


def _gathered(name: str) -> Callable[..., Any]:
    """``f(x, y)`` and ``f((x, y))`` are the same."""
    made = operation(name, "l", {"block_diag": _block_diag, "cartesian_prod": _cartesian_prod}[name])

    def call(*tensors):
        return made(tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors)

    call.__name__ = name
    return call


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Einstein's summation: ``einsum("ij,jk->ik", x, y)``."""
    if not isinstance(equation, str):
        raise TypeError("einsum(): the sublist form is not supported; write the equation as a string: 'ij,jk->ik'")
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    return _made["einsum"](equation, given)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid; ``indexing`` is "ij" (the default) or "xy"."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    return _made["meshgrid"](given, indexing)


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` holds, else ``other``; of one argument the indices where it holds."""
    if input is None and other is None:
        return functions["nonzero"](condition, as_tuple=True)
    return methods._where(condition, input, other)


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that all broadcast to."""
    try:
        return Size(np.broadcast_shapes(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))
    except ValueError as error:
        raise RuntimeError(
            "Shape mismatch: objects cannot be broadcast to a single shape: " + ", ".join(str(list(s)) for s in shapes)
        ) from error


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views of the shape that all broadcast to."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    shape = broadcast_shapes(*[t.shape for t in given])
    return tuple(t.expand(shape) for t in given)


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of matrices, in the order that takes the fewest multiplications."""
    given = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (list, tuple)) else matrices
    return _made["chain_matmul"](given)


def _sparse(name: str) -> Callable[..., Any]:
    def refused(*args, **kwargs):
        raise NotImplementedError(
            f"{name}(): there are no sparse Tensors here. A dense one of indices and values is "
            "torch.zeros(size).index_put(tuple(indices), values, accumulate=True)."
        )

    refused.__name__, refused.__doc__ = name, "Raises NotImplementedError: there are no sparse Tensors here."
    return refused


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(obj, Tensor)


def result_type(tensor1: Any, tensor2: Any) -> np.dtype:
    """The dtype that an operation of the two computes in."""
    return dtypes.result_type(*[t._data if isinstance(t, Tensor) else t for t in (tensor1, tensor2)])


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a result of one dtype may be put into a Tensor of another, in place."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)
    ranks = [next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)) for dtype in (from_, to)]
    return ranks[0] <= ranks[1]


class finfo:
    """The limits of a floating point dtype: ``eps``, ``max``, ``min``, ``tiny``, ``bits``, ``resolution``."""

    def __init__(self, dtype: Any = None):
        self.dtype = default_float() if dtype is None else narrowed(dtype)
        limits = jnp.finfo(self.dtype)
        for name in ("eps", "max", "min", "tiny", "smallest_normal", "resolution"):
            setattr(self, name, float(getattr(limits, name)))
        self.bits = int(limits.bits)


class iinfo:
    """The limits of an integer dtype: ``max``, ``min``, ``bits``."""

    def __init__(self, dtype: Any):
        self.dtype = narrowed(dtype)
        limits = jnp.iinfo(self.dtype)
        self.max, self.min, self.bits = int(limits.max), int(limits.min), int(limits.bits)


def _part(name: str) -> Callable[[Tensor], Tensor]:
    def part(input):
        return getattr(input, name)

    part.__name__, part.__doc__ = name, f"The {name} part."
    return part


real, imag = _part("real"), _part("imag")

SPARSE = [f"sparse_{layout}_tensor" for layout in ("coo", "csr", "csc", "bsr", "bsc", "compressed")]
SPARSE_METHODS = ["to_sparse", "to_sparse_csr", "to_sparse_csc", "to_sparse_bsr", "to_sparse_bsc", "sparse_mask"]
for _name in SPARSE_METHODS:
    setattr(Tensor, _name, _sparse(_name))
Tensor.to_dense = lambda self, *args, **kwargs: self  # pyright: ignore[reportAttributeAccessIssue] # every Tensor is

METHODS = [
    "adjoint",
    "allclose",
    "broadcast_to",
    "chunk",
    "clone",
    "diagonal",
    "dsplit",
    "equal",
    "flatten",
    "flip",
    "hsplit",
    "index_put",
    "is_complex",
    "is_conj",
    "is_floating_point",
    "is_neg",
    "is_nonzero",
    "is_same_size",
    "is_signed",
    "masked_select",
    "max",
    "min",
    "moveaxis",
    "movedim",
    "narrow",
    "narrow_copy",
    "numel",
    "permute",
    "pow",
    "ravel",
    "reshape",
    "resolve_conj",
    "resolve_neg",
    "scatter",
    "select",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "tensor_split",
    "tile",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
    "vsplit",
    "as_strided",
    "detach",
]
"""Methods that PyTorch has as functions, too, and that are not in the table of operations."""

IN_PLACE = [
    "abs",
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "conj_physical",
    "cos",
    "cosh",
    "deg2rad",
    "detach",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "fill",
    "fix",
    "floor",
    "frac",
    "gcd",
    "i0",
    "index_put",
    "lcm",
    "ldexp",
    "log",
    "log10",
    "log1p",
    "log2",
    "logit",
    "nan_to_num",
    "neg",
    "negative",
    "rad2deg",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "xlogy",
    "zero",
]
"""Operations in place that PyTorch has as functions, too: ``torch.relu_(x)``."""

FACTORIES = [
    "arange",
    "as_tensor",
    "asarray",
    "bernoulli",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "get_rng_state",
    "initial_seed",
    "linspace",
    "logspace",
    "multinomial",
    "normal",
    "ones",
    "ones_like",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "scalar_tensor",
    "seed",
    "set_rng_state",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
    "Generator",
    "manual_seed",
]

HERE: dict[str, Any] = {
    **{f.__name__: f for f in (einsum, meshgrid, where, broadcast_shapes, broadcast_tensors, chain_matmul, is_tensor)},
    **{f.__name__: f for f in (result_type, can_cast, finfo, iinfo, real, imag)},
    **{name: _gathered(name) for name in ("block_diag", "cartesian_prod")},
    **{name: _sparse(name) for name in SPARSE},
    **{name: getattr(factories, name) for name in FACTORIES},
    **{name: getattr(dtypes, name) for name in ("device", "get_default_dtype", "set_default_dtype", "promote_types")},
    **{"Size": Size, "set_printoptions": printing.set_printoptions, "polygamma": methods.order_first},
    **{"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan, "newaxis": None},
    **factories.LEGACY,
}
WIDE = frozenset({"float64", "double", "complex128", "cdouble", "int64", "long", "uint64"})
"""Names of dtypes that mean others while JAX computes with 32 bits: looked up each time."""


def find(name: str) -> Any:
    """What ``torch.NAME`` is. Raises KeyError if there is none here."""
    for found in (HERE, _made, functions):
        if name in found:
            return found[name]
    if name in METHODS or (name.endswith("_") and name[:-1] in IN_PLACE):
        return getattr(Tensor, name)
    return narrowed(DTYPES[name], stacklevel=4)


def names() -> list[str]:
    """All names that :func:`find` finds."""
    return [*HERE, *_made, *functions, *METHODS, *(f"{name}_" for name in IN_PLACE), *DTYPES]
