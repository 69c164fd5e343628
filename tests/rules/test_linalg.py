"""Rules for linear algebra, of real and complex matrices, alone and in batches, to second order.

Finite differences mean nothing where LAPACK chooses a phase or an order anew at every call. There the cases have
functions that do not depend on the choice, beside cases that hold the chosen one against JAX (``smooth=False``).
"""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from .checks import Case, check, compl, each, real

linalg = lax.linalg


# --- operands ---------------------------------------------------------------------------------------------------------


def spread(*shape, draw=real):
    """Matrices with singular values well apart: 1, 2, 3 ... in random directions."""
    m, n = shape[-2:]
    k = min(m, n)

    def drawn(rng):
        u, v = (np.linalg.qr(draw(*shape[:-2], size, k)(rng))[0] for size in (m, n))
        return (u * np.arange(1.0, k + 1)) @ v.conj().swapaxes(-1, -2)

    return drawn


def hermitian(*shape, draw=real):
    """Hermitian matrices with the eigenvalues 1, 2, 3 ... in random directions."""

    def drawn(rng):
        q = np.linalg.qr(draw(*shape)(rng))[0]
        x = (q * np.arange(1.0, shape[-1] + 1)) @ q.conj().swapaxes(-1, -2)
        return (x + x.conj().swapaxes(-1, -2)) / 2

    return drawn


def triangular(*shape, draw=real):
    """Matrices whose triangles can be solved with; both triangles, and a diagonal away from 0, are filled."""
    return lambda rng: draw(*shape)(rng) / 2 + 2 * np.eye(shape[-1])


# --- triangular factors -----------------------------------------------------------------------------------------------


def cholesky(x):
    return linalg.cholesky(x, symmetrize_input=True)


FACTORS = [
    Case(linalg.cholesky_p, cholesky, [hermitian(3, 3)]),
    Case(linalg.cholesky_p, cholesky, [hermitian(2, 3, 3, draw=compl)], "complex, batch"),
    Case(
        linalg.cholesky_p,
        lambda x: jnp.tril(linalg.cholesky_p.bind(x)),
        [hermitian(3, 3, draw=compl)],
        "as it stands",
        smooth=False,
    ),
    Case(linalg.cholesky_p, cholesky, [hermitian(1, 1)], "one by one"),
    Case(linalg.lu_p, lambda x: linalg.lu(x)[0], [spread(3, 3)]),
    Case(linalg.lu_p, lambda x: linalg.lu(x)[0], [spread(2, 4, 2, draw=compl)], "tall, complex, batch"),
    Case(linalg.lu_p, lambda x: linalg.lu(x)[0], [spread(2, 4)], "wide"),
]


@pytest.mark.parametrize("case", each(FACTORS))
def test_triangular_factors(case):
    check(case)


# --- QR ---------------------------------------------------------------------------------------------------------------


def qr(full=False, pivoting=False):
    return lambda x: linalg.qr(x, full_matrices=full, pivoting=pivoting)


QR = [
    Case(linalg.qr_p, qr(), [spread(3, 3)]),
    Case(linalg.qr_p, qr(), [spread(2, 4, 2, draw=compl)], "tall, complex, batch"),
    Case(linalg.qr_p, qr(), [spread(2, 4, draw=compl)], "wide, complex"),
    Case(linalg.qr_p, qr(full=True), [spread(5, 3)], "full"),
    Case(linalg.qr_p, qr(full=True), [spread(2, 4, 2, draw=compl)], "full, complex, batch"),
    Case(linalg.qr_p, qr(full=True), [spread(2, 3)], "full, wide"),
    Case(linalg.qr_p, qr(pivoting=True), [spread(4, 3, draw=compl)], "pivoting"),
    Case(linalg.qr_p, qr(pivoting=True), [spread(2, 2, 4)], "pivoting, wide, batch", order=0),
]


@pytest.mark.parametrize("case", each(QR))
def test_qr(case):
    check(case)


EIGEN = [
    Case(linalg.eigh_p, lambda x: linalg.eigh(x), [hermitian(3, 3)]),
    Case(linalg.eigh_p, lambda x: linalg.eigh(x), [hermitian(2, 3, 3, draw=compl)], "complex, batch", smooth=False),
    Case(
        linalg.eigh_p,
        lambda x: (lambda v, w: (jnp.abs(v) ** 2, w))(*linalg.eigh(x)),
        [hermitian(3, 3, draw=compl)],
        "complex, invariant",
    ),
    Case(linalg.eigh_p, lambda x: linalg.eigh(x)[1], [hermitian(3, 3)], "values"),
    Case(linalg.eig_p, lambda x: linalg.eig(x, enable_eigvec_derivs=True), [spread(3, 3)]),
    Case(linalg.eig_p, lambda x: linalg.eig(x, enable_eigvec_derivs=True), [spread(2, 3, 3, draw=compl)], "c b"),
    Case(
        linalg.eig_p,
        lambda x: linalg.eig(x, compute_left_eigenvectors=False, enable_eigvec_derivs=True),
        [spread(2, 3, 3, draw=compl)],
        "right",
    ),
    Case(
        linalg.eig_p,
        lambda x: linalg.eig(x, compute_right_eigenvectors=False, enable_eigvec_derivs=True),
        [spread(2, 3, 3, draw=compl)],
        "left",
    ),
    Case(
        linalg.eig_p,
        lambda x: linalg.eig(x, compute_right_eigenvectors=False, compute_left_eigenvectors=False),
        [spread(2, 3, 3)],
        "values",
    ),
]


@pytest.mark.parametrize("case", each(EIGEN))
def test_eig(case):
    check(case)


SVD = [
    Case(linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(3, 3)]),
    Case(linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(2, 4, 2)], "tall batch"),
    Case(linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(2, 4)], "wide"),
    Case(
        linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(4, 2, draw=compl)], "tall c", smooth=False
    ),
    Case(
        linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(2, 4, draw=compl)], "wide c", smooth=False
    ),
    Case(linalg.svd_p, lambda x: linalg.svd(x, full_matrices=False), [spread(2, 2, draw=compl)], "sq c", smooth=False),
    Case(linalg.svd_p, lambda x: linalg.svd(x, compute_uv=False), [spread(4, 2, draw=compl)], "values"),
    Case(
        linalg.svd_p,
        lambda x: (lambda u, s, v: (u @ jnp.diag(jnp.exp(s)) @ v, s))(*linalg.svd(x, full_matrices=False)),
        [spread(4, 2, draw=compl)],
        "inv",
    ),
    Case(
        linalg.svd_p,
        lambda x: (lambda u, s, v: (u @ jnp.diag(jnp.exp(s)) @ v, s))(*linalg.svd(x, full_matrices=False)),
        [spread(2, 4, draw=compl)],
        "inv w",
    ),
]


@pytest.mark.parametrize("case", each(SVD))
def test_svd(case):
    check(case)


import itertools


def tri(**how):
    return lambda a, b: linalg.triangular_solve(a, b, **how)


SOLVES = [
    Case(
        linalg.triangular_solve_p,
        tri(left_side=l, lower=lo, transpose_a=t, conjugate_a=c, unit_diagonal=u),
        [triangular(2, 3, 3, draw=compl), compl(*((2, 3, 2) if l else (2, 2, 3)))],
        f"{l}{lo}{t}{c}{u}",
    )
    for l, lo, t, c, u in itertools.product([False, True], repeat=5)
] + [
    Case(
        linalg.tridiagonal_solve_p,
        linalg.tridiagonal_solve,
        [real(4), lambda rng: rng.uniform(3, 4, 4), real(4), real(4, 2)],
    ),
    Case(
        linalg.tridiagonal_solve_p,
        linalg.tridiagonal_solve,
        [compl(2, 4), lambda rng: compl(2, 4)(rng) + 6, compl(2, 4), compl(2, 4, 2)],
        "c",
    ),
]


@pytest.mark.parametrize("case", each(SOLVES))
def test_solves(case):
    check(case)
