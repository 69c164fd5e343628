"""``torch.linalg`` on Tensors: lines of a table, explained in ``schema.py``."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twograd.tape.operations import OPERATIONS as TABLE
from twograd.tape.operations import norm as _norm
from twograd.tape.schema import operation


class EigenvaluesAndVectors(NamedTuple):
    """What ``eig`` and ``eigh`` return: Tensors."""

    eigenvalues: Any
    eigenvectors: Any


class SingularValues(NamedTuple):
    """What ``svd`` returns: Tensors, of which the last is the conjugated transpose of the right singular vectors."""

    U: Any
    S: Any
    Vh: Any


class QR(NamedTuple):
    """What ``qr`` returns: Tensors."""

    Q: Any
    R: Any


def _matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    if ord in ("fro", "nuc"):
        return _norm(A, ord, dim, keepdim, dtype)
    return jnp.linalg.norm(A, ord, dim, keepdim)


def _vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _norm(x, ord, dim, keepdim, dtype)


def _any_norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if ord is None:
        return _norm(A, 2, dim, keepdim, dtype)
    if dim is None:
        dim = tuple(range(A.ndim))
    if isinstance(dim, int) or len(dim) == 1:
        return _norm(A, ord, dim, keepdim, dtype)
    return _matrix_norm(A, ord, dim, keepdim, dtype=dtype)


def _svd(A: Any, full_matrices: bool = True, *, driver: Any = None) -> Any:
    return SingularValues(*jnp.linalg.svd(A, full_matrices=full_matrices))


def _qr(A: Any, mode: str = "reduced") -> Any:
    found = jnp.linalg.qr(A, mode=mode)
    return QR(*found) if mode != "r" else QR(jnp.zeros(0, A.dtype), found)


def _solve(A: Any, B: Any, *, left: bool = True) -> Any:
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.solve: A must be batches of square matrices, but they are {list(A.shape)}")
    if not left:
        return jnp.swapaxes(_solve(jnp.swapaxes(A, -2, -1), jnp.swapaxes(B, -2, -1)), -2, -1)
    vector = B.ndim == 1 or B.shape == A.shape[:-1]
    return jnp.linalg.solve(A, B[..., None])[..., 0] if vector else jnp.linalg.solve(A, B)


def _solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    shape = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    A, B = (jnp.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (A, B))
    return jax.lax.linalg.triangular_solve(A, B, left_side=left, lower=not upper, unit_diagonal=unitriangular)


def _lstsq(A: Any, B: Any, rcond: Any = None) -> Any:
    """The least squares solution of full rank, by QR."""
    q, r = jnp.linalg.qr(A)
    product = jnp.swapaxes(jnp.conj(q), -2, -1) @ (B if B.ndim > 1 else B[:, None])
    solution = jax.scipy.linalg.solve_triangular(r, product)
    return solution if B.ndim > 1 else solution[:, 0]


def _cond(A: Any, p: Any = None) -> Any:
    return jnp.linalg.cond(A, p)


def _multi_dot(tensors: Any) -> Any:
    return jnp.linalg.multi_dot(tensors)


OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "cholesky":      ("t.", lambda A, *, upper=False: TABLE["cholesky"][1](A, upper)),
    "cond":          ("t.", _cond),
    "cross":         ("nn.", lambda input, other, *, dim=-1: jnp.cross(input, other, axis=dim)),
    "det":           TABLE["det"],
    "diagonal":      ("t...", lambda A, *, offset=0, dim1=-2, dim2=-1: jnp.diagonal(A, offset, dim1, dim2)),
    "eig":           ("t", lambda A: EigenvaluesAndVectors(*jnp.linalg.eig(A))),
    "eigh":          ("t.", lambda A, UPLO="L": EigenvaluesAndVectors(*jnp.linalg.eigh(A, UPLO, False))),
    "eigvals":       ("t", lambda A: jnp.linalg.eigvals(A)),
    "eigvalsh":      ("t.", lambda A, UPLO="L": jnp.linalg.eigh(A, UPLO, False)[0]),
    "inv":           TABLE["inverse"],
    "matmul":        TABLE["matmul"],
    "matrix_exp":    TABLE["matrix_exp"],
    "matrix_norm":   ("t....", _matrix_norm),
    "matrix_power":  TABLE["matrix_power"],
    "matrix_rank":   ("t", lambda A: jnp.linalg.matrix_rank(A)),
    "multi_dot":     ("l", _multi_dot),
    "norm":          ("t.d..", _any_norm),
    "pinv":          ("t.", lambda A, *, rtol=None: jnp.linalg.pinv(A, rtol=rtol)),
    "qr":            ("t.", _qr),
    "slogdet":       TABLE["slogdet"],
    "solve":         ("tt.", _solve),
    "solve_triangular": ("tt...", _solve_triangular),
    "svd":           ("t..", _svd),
    "svdvals":       ("t", lambda A: jnp.linalg.svd(A, compute_uv=False)),
    "tensorinv":     ("t.", lambda A, ind=2: jnp.linalg.tensorinv(A, ind)),
    "tensorsolve":   ("tt.", lambda A, B, dims=None: jnp.linalg.tensorsolve(A, B, dims)),
    "vander":        ("t.", lambda x, *, N=None: jnp.vander(x, N, increasing=True)),
    "vecdot":        ("tt.", lambda x, y, *, dim=-1: jnp.sum(jnp.conj(x) * y, dim)),
    "vector_norm":   ("t.d..", _vector_norm),
}  # fmt: skip
"""Of each function the kinds of its parameters, and what it computes of arrays."""


class LeastSquares(NamedTuple):
    """What ``lstsq`` returns: the solution; the rest PyTorch's drivers do not all compute either."""

    solution: Any


@functools.wraps(_lstsq)
def lstsq(A: Any, B: Any, rcond: Any = None, *, driver: Any = None) -> LeastSquares:
    return LeastSquares(operation("lstsq", "tt.", _lstsq)(A, B, rcond))


def __getattr__(name: str) -> Any:
    if name not in OPERATIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = operation(f"linalg_{name}", *OPERATIONS[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *OPERATIONS})
