"""Rules for linear algebra, of real and complex matrices, alone and in batches, to second order.

Finite differences mean nothing where LAPACK chooses the phases of complex vectors anew at every call. There one case
holds the vectors as they come against JAX (``smooth=False``), and another has a function that no phase changes.
"""

import itertools

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from twograd.errors import NoRule
from twograd.rules.linalg import eigh_x

from .checks import Case, check, compl, each, our_vjp, real

linalg = lax.linalg


# --- operands ---------------------------------------------------------------------------------------------------------


def spread(*shape, draw=real):
    """Matrices with the singular values 1, 2, 3 ... in random directions."""
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
    """Matrices with a large diagonal, that are full beside it."""
    return lambda rng: draw(*shape)(rng) / 2 + 2 * np.eye(shape[-1])


def off_zero(*shape, draw=real):
    """Numbers whose real part is at least 4 or so: the diagonal of a tridiagonal matrix that can be solved with."""
    return lambda rng: draw(*shape)(rng) / 2 + 5


# --- triangular factors -----------------------------------------------------------------------------------------------


def lu(x):
    return linalg.lu(x)[0]


FACTORS = [
    Case(linalg.cholesky_p, linalg.cholesky, [hermitian(2, 2, draw=compl)], "complex"),
    Case(linalg.cholesky_p, linalg.cholesky, [hermitian(2, 3, 3, draw=compl)], "complex, batch", slow=True),
    Case(linalg.cholesky_p, linalg.cholesky, [hermitian(3, 3)], slow=True),
    Case(
        linalg.cholesky_p,
        lambda x: linalg.cholesky(x, symmetrize_input=False),
        [hermitian(3, 3, draw=compl)],
        "as it stands",
        smooth=False,
        slow=True,
    ),
    Case(linalg.lu_p, lu, [spread(3, 2, draw=compl)], "tall, complex"),
    Case(linalg.lu_p, lu, [spread(2, 4, 2, draw=compl)], "tall, complex, batch", slow=True),
    Case(linalg.lu_p, lu, [spread(2, 4)], "wide", slow=True),
    Case(linalg.lu_p, lu, [spread(3, 3)], slow=True),
]


@pytest.mark.parametrize("case", each(FACTORS))
def test_triangular_factors(case):
    check(case)


# --- QR ---------------------------------------------------------------------------------------------------------------


def qr(full=False, pivoting=False):
    return lambda x: linalg.qr(x, full_matrices=full, pivoting=pivoting)


QR = [
    Case(linalg.qr_p, qr(), [spread(3, 2)], "tall"),
    Case(linalg.qr_p, qr(full=True), [spread(2, 4, 2, draw=compl)], "full, complex, batch", slow=True),
    Case(linalg.qr_p, qr(), [spread(3, 3)], slow=True),
    Case(linalg.qr_p, qr(), [spread(2, 4, 2, draw=compl)], "tall, complex, batch", slow=True),
    Case(linalg.qr_p, qr(), [spread(2, 4, draw=compl)], "wide, complex", slow=True),
    Case(linalg.qr_p, qr(full=True), [spread(5, 3)], "full", slow=True),
    Case(linalg.qr_p, qr(full=True), [spread(2, 3)], "full, wide", slow=True),
    Case(linalg.qr_p, qr(pivoting=True), [spread(4, 3, draw=compl)], "pivoting, complex", slow=True),
    # JAX takes the columns of a wide operand without permuting them, and permutes those of a batch wrongly.
    Case(linalg.qr_p, qr(pivoting=True), [spread(2, 4)], "pivoting, wide", order=0, slow=True),
    Case(linalg.qr_p, qr(pivoting=True), [spread(2, 3, 2)], "pivoting, batch", order=0, slow=True),
]


@pytest.mark.parametrize("case", each(QR))
def test_qr(case):
    check(case)


# --- eigenvalues ------------------------------------------------------------------------------------------------------


def eig(left=True, right=True):
    return lambda x: linalg.eig(
        x,
        compute_left_eigenvectors=left,
        compute_right_eigenvectors=right,
        enable_eigvec_derivs=left or right,
    )


def without_phase(x):
    v, w = linalg.eigh(x)
    return jnp.abs(v) ** 2, w


EIGENVALUES = [
    Case(linalg.eigh_p, linalg.eigh, [hermitian(3, 3)]),
    Case(linalg.eigh_p, linalg.eigh, [hermitian(2, 3, 3, draw=compl)], "complex, batch", smooth=False, slow=True),
    Case(linalg.eigh_p, without_phase, [hermitian(3, 3, draw=compl)], "complex, without phase", slow=True),
    Case(linalg.eigh_p, lambda x: linalg.eigh(x)[1], [hermitian(3, 3)], "values", slow=True),
    # JAX has no second derivative of the eigenvalues alone.
    Case(linalg.eig_p, eig(False, False), [spread(3, 3)], "values, real", order=1),
    Case(linalg.eig_p, eig(), [spread(3, 3)], "left and right, real", slow=True),
    Case(linalg.eig_p, eig(), [spread(2, 3, 3, draw=compl)], "left and right, complex, batch", slow=True),
    Case(linalg.eig_p, eig(left=False), [spread(3, 3, draw=compl)], "right", slow=True),
    Case(linalg.eig_p, eig(right=False), [spread(3, 3, draw=compl)], "left", slow=True),
]


@pytest.mark.parametrize("case", each(EIGENVALUES))
def test_eigenvalues(case):
    check(case)


# --- singular values --------------------------------------------------------------------------------------------------


def svd(x):
    return linalg.svd(x, full_matrices=False)


def svd_without_phase(x):
    u, s, vh = svd(x)
    return (u * jnp.exp(s)[..., None, :]) @ vh, s


SINGULAR_VALUES = [
    Case(linalg.svd_p, lambda x: svd(x)[::2], [spread(3, 2)], "tall, vectors"),
    Case(linalg.svd_p, svd_without_phase, [spread(4, 2, draw=compl)], "tall, complex, without phase", slow=True),
    Case(linalg.svd_p, svd, [spread(2, 2, 4, draw=compl)], "wide, complex, batch", smooth=False, slow=True),
    Case(linalg.svd_p, svd_without_phase, [spread(2, 4, draw=compl)], "wide, complex, without phase", slow=True),
    Case(linalg.svd_p, svd, [spread(4, 2, draw=compl)], "tall, complex", smooth=False, slow=True),
    Case(linalg.svd_p, svd, [spread(2, 2, draw=compl)], "square, complex", smooth=False, slow=True),
    Case(linalg.svd_p, svd, [spread(3, 3)], slow=True),
    Case(linalg.svd_p, svd, [spread(2, 4, 2)], "tall, real, batch", slow=True),
    Case(linalg.svd_p, svd, [spread(2, 4)], "wide", slow=True),
    Case(linalg.svd_p, lambda x: linalg.svd(x, compute_uv=False), [spread(4, 2, draw=compl)], "values", slow=True),
]


@pytest.mark.parametrize("case", each(SINGULAR_VALUES))
def test_singular_values(case):
    check(case)


# --- solves -----------------------------------------------------------------------------------------------------------

FLAGS = [
    dict(zip(("left_side", "lower", "transpose_a", "conjugate_a", "unit_diagonal"), flags, strict=True))
    for flags in itertools.product([False, True], repeat=5)
]


def solves(left_side, flags=FLAGS):
    """All those on one side, with weights that tell them apart."""
    mine = [how for how in flags if how["left_side"] is left_side]
    return lambda a, b: sum(weight * linalg.triangular_solve(a, b, **how) for weight, how in enumerate(mine, 1))


MATRICES = triangular(2, 3, 3, draw=compl)
SOLVES = [
    Case(linalg.triangular_solve_p, solves(True, FLAGS[-6:-4]), [MATRICES, compl(2, 3, 2)], "left"),
    Case(linalg.triangular_solve_p, solves(True), [MATRICES, compl(2, 3, 2)], "left, all", slow=True),
    Case(linalg.triangular_solve_p, solves(False), [MATRICES, compl(2, 2, 3)], "right, all", slow=True),
    Case(linalg.triangular_solve_p, solves(True), [triangular(2, 2), real(2, 4)], "real", slow=True),
    Case(
        linalg.tridiagonal_solve_p,
        linalg.tridiagonal_solve,
        [compl(2, 4), off_zero(2, 4, draw=compl), compl(2, 4), compl(2, 4, 2)],
        "complex, batch",
        slow=True,
    ),
    Case(linalg.tridiagonal_solve_p, linalg.tridiagonal_solve, [real(3), off_zero(3), real(3), real(3, 1)]),
]


@pytest.mark.parametrize("case", each(SOLVES))
def test_solves(case):
    check(case)


# --- empty matrices ---------------------------------------------------------------------------------------------------

EMPTY = {
    "cholesky": linalg.cholesky,
    "eigh": linalg.eigh,
    "eig": eig(),
    "lu": lu,
    "qr": qr(),
    "qr full": qr(full=True),
    "svd": svd,
    "svd values": lambda x: linalg.svd(x, compute_uv=False),
    "triangular_solve": lambda x: linalg.triangular_solve(x, x),
}
SQUARE = {"cholesky", "eig", "eigh", "triangular_solve"}


@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (3, 0)], ids=str)
def test_empty_matrices_have_empty_gradients(shape):
    """To second order, all compiled together."""

    def gradient(fn, x):
        cts = [jnp.ones(out.shape, out.dtype) for out in jax.tree.leaves(jax.eval_shape(fn, x))]
        return our_vjp(lambda x: tuple(jax.tree.leaves(fn(x))), [x], cts)

    @jax.jit
    def gradients(x):
        given = [fn for name, fn in EMPTY.items() if shape[-1] == shape[-2] or name not in SQUARE]
        return [(gradient(fn, x), our_vjp(lambda x, fn=fn: gradient(fn, x), [x], [x])) for fn in given]

    for gradient_of in jax.tree.leaves(gradients(np.zeros(shape, np.float32))):
        assert gradient_of.shape == shape


# --- coincident values ------------------------------------------------------------------------------------------------


def test_coincident_eigenvalues_have_derivatives_and_their_vectors_have_not():
    x = jnp.eye(3)
    vectors = linalg.eigh(x)[0]
    of_values = our_vjp(lambda x: (linalg.eigh(x)[1],), [x], [jnp.arange(3.0)])[0]
    np.testing.assert_allclose(of_values, vectors @ jnp.diag(jnp.arange(3.0)) @ vectors.T)
    assert not np.isfinite(our_vjp(lambda x: (linalg.eigh(x)[0],), [x], [jnp.ones((3, 3))])[0]).all()
    of_values = our_vjp(lambda x: (linalg.svd(x, compute_uv=False),), [x], [jnp.ones(3)])[0]
    np.testing.assert_allclose(of_values, x, atol=1e-6)


# --- what is refused --------------------------------------------------------------------------------------------------

SQUARE_MATRIX, TALL = np.diag(np.float32([1, 2, 3])), np.eye(3, 2, dtype=np.float32)
REFUSED = {
    "eig": (lambda x: linalg.eig(x)[1], SQUARE_MATRIX, "enable_eigvec_derivs=True"),
    "hessenberg": (lambda x: linalg.hessenberg(x)[0], SQUARE_MATRIX, "eigvals, which needs none"),
    "householder_product": (lambda x: linalg.householder_product(x, x[0]), TALL, "qr, which makes such a product"),
    "schur": (lambda x: linalg.schur(x)[0], SQUARE_MATRIX, "eig or eigh"),
    "svd": (lambda x: linalg.svd(x)[0], TALL, "full_matrices=False"),
    "tridiagonal": (lambda x: linalg.tridiagonal(x)[0], SQUARE_MATRIX, "eigh, which needs none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_derivative_says_why(name):
    fn, x, way_out = REFUSED[name]
    out = jax.eval_shape(fn, x)
    with pytest.raises(NoRule, match=f"'{name}' has no derivative .*test_linalg.py.*{way_out}"):
        our_vjp(lambda x: (fn(x),), [x], [jnp.ones(out.shape, out.dtype)])


def test_a_subset_has_a_derivative_of_its_values_alone():
    """CPUs compute no subset: the rule is given a part of what they find."""
    v, w = linalg.eigh(SQUARE_MATRIX)
    found = eigh_x((None, jnp.ones(2)), (v[:, :2], w[:2]), subset_by_index=(0, 2))
    expected = our_vjp(lambda x: (linalg.eigh(x)[1][:2],), [SQUARE_MATRIX], [jnp.ones(2)])[0]
    np.testing.assert_allclose(found, expected)
    with pytest.raises(NotImplementedError, match="without a subset"):
        eigh_x((jnp.ones((3, 2)), None), (v[:, :2], w[:2]), subset_by_index=(0, 2))


def test_the_values_of_a_full_decomposition_have_a_derivative():
    """JAX refuses it, because of the vectors that are not used."""
    full = our_vjp(lambda x: (linalg.svd(x)[1],), [TALL], [jnp.ones(2)])[0]
    np.testing.assert_allclose(full, our_vjp(lambda x: (svd(x)[1],), [TALL], [jnp.ones(2)])[0])
