"""What does Session.run cost above the compiled call? A training step of a small MLP, against the same by jax.jit.

Both update their parameters: the session in its variables, the peer by passing on what the step returns.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from _bench import against, summary

import twograd.numpy as tnp
from twograd.graph import symbolic
from twograd.nn import functional as F

RATE = 0.1


def parameters(sizes):
    rng = np.random.default_rng(0)
    return [
        array
        for m, n in pairwise(sizes)
        for array in ((rng.standard_normal((m, n)) / np.sqrt(m)).astype(np.float32), np.zeros(n, np.float32))
    ]


def network(params, x, y, tanh):
    *hidden, (w, b) = zip(params[::2], params[1::2], strict=True)
    for weights, bias in hidden:
        x = tanh(x @ weights + bias)
    return F.cross_entropy(x @ w + b, y)


def main() -> None:
    ratios = []
    for sizes, batch in (([64, 32, 10], 32), ([64, 32, 10], 256), ([64, 64, 64, 64, 10], 64)):
        rng = np.random.default_rng(1)
        data = jnp.asarray(rng.standard_normal((batch, sizes[0])), jnp.float32)
        labels = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)

        @jax.jit
        def step(params, x, y):
            loss, grads = jax.value_and_grad(network)(params, x, y, jnp.tanh)
            return loss, [p - RATE * g for p, g in zip(params, grads, strict=True)]

        state = [jax.device_put(parameters(sizes))]

        def peer(state=state, step=step, data=data, labels=labels):
            loss, state[0] = step(state[0], data, labels)
            return jax.block_until_ready(loss)

        with symbolic.Graph().as_default():
            x, y = symbolic.placeholder(shape=(None, sizes[0])), symbolic.placeholder(np.int32, (None,))
            params = [symbolic.variable(array) for array in parameters(sizes)]
            loss = network(params, x, y, tnp.tanh)
            gradients = symbolic.gradients(loss, params)
            train = symbolic.group(*(p.assign_sub(RATE * g) for p, g in zip(params, gradients, strict=True)))
            session = symbolic.Session()
            session.run(symbolic.global_variables_initializer())

        def ours(session=session, fetches=[loss, train], x=x, y=y, data=data, labels=labels):  # noqa: B006
            return jax.block_until_ready(session.run(fetches, {x: data, y: labels})[0])

        for _ in range(3):
            np.testing.assert_allclose(ours(), peer(), rtol=1e-5)
        ratios.append(against(f"layers {sizes}, batch {batch}", ours, peer))
    summary("a training step, Session.run / jax.jit", ratios, goal=1.5)


if __name__ == "__main__":
    main()
