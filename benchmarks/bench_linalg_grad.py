"""Is a compiled gradient of linear algebra as fast as JAX's? Run: python benchmarks/bench_linalg_grad.py

Each is the gradient of a sum of squares of all results, of 64x64 matrices in float32 and float64. LAPACK's own threads
disturb such short times: set OPENBLAS_NUM_THREADS=1, and bind the process to one core.
"""

import jax
import numpy as np
from _bench import against, summary
from jax import lax
from jax import numpy as jnp

from twograd import graph

SIZE = 64
PROGRAMS = {
    "cholesky": (jnp.linalg.cholesky, "definite"),
    "qr": (jnp.linalg.qr, "general"),
    "lu": (lambda x: lax.linalg.lu(x)[0], "general"),
    "eigh": (jnp.linalg.eigh, "definite"),
    "eigvalsh": (jnp.linalg.eigvalsh, "definite"),
    "svd": (lambda x: jnp.linalg.svd(x, full_matrices=False), "general"),
    "svdvals": (jnp.linalg.svdvals, "general"),
    "solve_triangular": (lambda x: jax.scipy.linalg.solve_triangular(x, x @ x), "definite"),
    "solve": (lambda x: jnp.linalg.solve(x, x @ x), "general"),
    "slogdet": (lambda x: jnp.linalg.slogdet(x)[1], "definite"),
}


def operand(kind: str, dtype: str) -> jax.Array:
    """A random matrix, well conditioned."""
    x = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    return jnp.asarray(x @ x.T / SIZE + 2 * np.diag(np.linspace(1, 2, SIZE)) if kind == "definite" else x, dtype)


def main() -> None:
    ratios = []
    for dtype in ("float32", "float64"):
        for title, (fn, kind) in PROGRAMS.items():
            x = operand(kind, dtype)

            def loss(x, fn=fn):
                return sum(
                    jnp.sum(jnp.square(out * jnp.arange(1, SIZE + 1, dtype=x.dtype))) for out in jax.tree.leaves(fn(x))
                )

            ours, peer = (jax.jit(engine.grad(loss)) for engine in (graph, jax))
            np.testing.assert_allclose(ours(x), peer(x), rtol=1e-2, atol=1e-2 * float(abs(peer(x)).max()))
            ratios.append(
                against(
                    f"{title}, {dtype}",
                    lambda f=ours, x=x: jax.block_until_ready(f(x)),
                    lambda f=peer, x=x: jax.block_until_ready(f(x)),
                )
            )
    summary("compiled gradient, twograd.graph / jax.jit(jax.grad)", ratios, goal=1.1)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
