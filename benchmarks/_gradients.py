"""One program's gradient by twograd.graph against JAX's: how fast it runs, and how fast it is traced."""

import jax
import numpy as np
from _bench import against
from _programs import Program

from twograd import graph


def run_against_jax(title: str, program: Program) -> float:
    """The ratio of the compiled gradients' run times, after a check that they agree."""
    loss, params, batch = program
    params, batch = jax.device_put((params, batch))
    ours, peer = (jax.jit(engine.value_and_grad(loss)) for engine in (graph, jax))
    for mine, theirs in zip(*(jax.tree.leaves(f(params, batch)) for f in (ours, peer)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-5)
    return against(
        title,
        lambda: jax.block_until_ready(ours(params, batch)),
        lambda: jax.block_until_ready(peer(params, batch)),
    )


def trace_against_jax(title: str, program: Program) -> float:
    """The ratio of the times for tracing a loss and its gradient.

    Every sample differentiates a new function object, because JAX keeps what it traced by the function's identity.
    """
    loss, params, batch = program

    def trace(value_and_grad):
        def fresh(params, batch):
            return loss(params, batch)

        return jax.jit(value_and_grad(fresh)).trace(params, batch)

    return against(title, lambda: trace(graph.value_and_grad), lambda: trace(jax.value_and_grad))
