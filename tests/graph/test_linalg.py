"""Functions of jax.numpy.linalg and jax.scipy.linalg have JAX's gradients, to second order."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.numpy import linalg
from jax.scipy import linalg as scipy_linalg
from jax.scipy.sparse import linalg as sparse_linalg

from graph.same import same
from twograd import graph

rng = np.random.default_rng(0)
A, B, V, TALL = (rng.standard_normal(shape) for shape in [(3, 3), (3, 2), (3,), (4, 3)])
GENERAL, DEFINITE = A + 3 * np.eye(3), A @ A.T + 3 * np.eye(3)
COMPLEX = GENERAL + 1j * rng.standard_normal((3, 3))
BATCH = np.stack([GENERAL, DEFINITE])


def of(module, name, *args, **kwargs):
    """The function of that name, with more arguments after its arrays."""
    return lambda *arrays: getattr(module, name)(*arrays, *args, **kwargs)


FEW = {
    "cho_solve": (lambda a, b: scipy_linalg.cho_solve(scipy_linalg.cho_factor(a), b), DEFINITE, B),
    "slogdet": (linalg.slogdet, BATCH),
}
MANY = {
    "cho_factor": (lambda a: scipy_linalg.cho_factor(a)[0], DEFINITE),
    "cholesky": (of(linalg, "cholesky", upper=True), DEFINITE),
    "cond": (linalg.cond, GENERAL),
    "cond, 1": (of(linalg, "cond", 1), GENERAL),
    "conjugate gradients": (lambda a, b: sparse_linalg.cg(lambda x: a @ x, b)[0], DEFINITE, V),
    "det": (linalg.det, BATCH),
    "det, 4": (linalg.det, rng.standard_normal((4, 4))),
    "eigh": (linalg.eigh, DEFINITE),
    "eigh, upper": (of(scipy_linalg, "eigh", lower=False), DEFINITE),
    "eigvalsh": (linalg.eigvalsh, DEFINITE),
    "expm": (scipy_linalg.expm, A),
    "expm_frechet": (scipy_linalg.expm_frechet, A, GENERAL),
    "inv": (linalg.inv, BATCH),
    "lstsq": (linalg.lstsq, TALL, rng.standard_normal(4)),
    "lu": (scipy_linalg.lu, TALL),
    "lu_solve": (lambda a, b: scipy_linalg.lu_solve(scipy_linalg.lu_factor(a), b, 1), GENERAL, B),
    "matrix_power": (of(linalg, "matrix_power", 3), GENERAL),
    "matrix_power, negative": (of(linalg, "matrix_power", -2), GENERAL),
    "norm": (linalg.norm, TALL),
    "norm, nuclear": (of(linalg, "norm", "nuc"), TALL),
    "norm, spectral": (of(linalg, "norm", 2), TALL),
    "pinv": (linalg.pinv, TALL),
    "pinv, Hermitian": (of(linalg, "pinv", hermitian=True), DEFINITE),
    "qr": (linalg.qr, TALL),
    "qr, complete": (of(linalg, "qr", "complete"), TALL),
    "qr, pivoting": (of(scipy_linalg, "qr", mode="economic", pivoting=True), TALL),
    "slogdet, complex": (linalg.slogdet, COMPLEX),
    "slogdet, qr": (of(linalg, "slogdet", method="qr"), GENERAL),
    "solve": (linalg.solve, GENERAL, B),
    "solve, complex": (linalg.solve, COMPLEX, B),
    "solve, definite": (of(scipy_linalg, "solve", assume_a="pos"), DEFINITE, B),
    "solve, vector": (linalg.solve, GENERAL, V),
    "solve_triangular": (of(scipy_linalg, "solve_triangular", trans=1, unit_diagonal=True), GENERAL, V),
    "svd": (of(linalg, "svd", full_matrices=False), TALL),
    "svd, Hermitian": (of(linalg, "svd", hermitian=True), DEFINITE),
    "svdvals": (linalg.svdvals, TALL),
    "tensorsolve": (linalg.tensorsolve, GENERAL, V),
}


def waves(tree):
    """A number that every real or complex part of a tree of arrays changes."""
    return sum(
        jnp.sum(jnp.sin(leaf.real)) + (jnp.sum(jnp.cos(leaf.imag)) if jnp.iscomplexobj(leaf) else 0)
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def derivatives(engine, fn, operands):
    """The gradient of ``waves(fn(*operands))``, and the gradient of the waves of that."""
    everything = tuple(range(len(operands)))
    first = engine.grad(lambda *operands: waves(fn(*operands)), everything)
    return first(*operands), engine.grad(lambda *operands: waves(first(*operands)), everything)(*operands)


def has_gradients_of_jax(fn, *operands):
    with jax.enable_x64(True):
        operands = [jnp.asarray(operand) for operand in operands]
        ours, theirs = jax.jit(lambda *operands: [derivatives(engine, fn, operands) for engine in (graph, jax)])(
            *operands
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(theirs))
        same(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("name", FEW)
def test_some_functions(name):
    has_gradients_of_jax(*FEW[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_many_functions(name):
    has_gradients_of_jax(*MANY[name])


@pytest.mark.slow
def test_the_program_of_a_gaussian_process_is_differentiated_alone_and_in_a_batch():
    def likelihood(params, x, y):
        scale, noise = jnp.exp(params)
        k = jnp.exp(-(((x[:, None] - x) / scale) ** 2)) + noise * jnp.eye(x.size)
        factor = scipy_linalg.cho_factor(k, lower=True)
        return y @ scipy_linalg.cho_solve(factor, y) / 2 + jnp.sum(jnp.log(jnp.diag(factor[0])))

    params, x = np.float32([0.1, -0.3]), np.linspace(0, 3, 5, dtype=np.float32)
    y = np.sin(x)
    same(graph.value_and_grad(likelihood)(params, x, y), jax.value_and_grad(likelihood)(params, x, y))
    batch = np.stack([params, params + 1])
    ours, theirs = (jax.vmap(engine.hessian(likelihood), (0, None, None)) for engine in (graph, jax))
    same(*jax.jit(lambda *operands: (ours(*operands), theirs(*operands)))(batch, x, y), rtol=1e-3)
