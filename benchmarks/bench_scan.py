"""Loops of 1,000 steps: run time of the compiled gradient and bytes kept between the passes, against JAX's."""

import jax
import numpy as np
from _bench import summary
from _gradients import run_against_jax
from _programs import Program, normal
from _saved import saved_against_jax
from jax import lax
from jax import numpy as jnp

STEPS = 1000


def recurrent(width: int = 32, batch: int = 8) -> Program:
    """A tanh recurrence over the steps, all states in the loss."""
    params = {"w": normal(width, width, scale=0.5 * width**-0.5), "u": normal(width, width, scale=0.1)}

    def loss(params, xs):
        def step(h, x):
            h = jnp.tanh(h @ params["w"] + x @ params["u"])
            return h, h

        _, hs = lax.scan(step, jnp.zeros((batch, width)), xs)
        return jnp.mean(hs**2)

    return loss, params, normal(STEPS, batch, width)


def gated(width: int = 32, batch: int = 8) -> Program:
    """An LSTM over the steps, its last state in the loss."""
    params = {"w": normal(2 * width, 4 * width, scale=0.2 * width**-0.5), "b": np.zeros(4 * width, np.float32)}

    def loss(params, xs):
        def step(carry, x):
            h, c = carry
            gates = jnp.concatenate([h, x], axis=1) @ params["w"] + params["b"]
            i, f, g, o = jnp.split(gates, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        (h, _), _ = lax.scan(step, (jnp.zeros((batch, width)),) * 2, xs)
        return jnp.mean(h**2)

    return loss, params, normal(STEPS, batch, width)


def elementwise(size: int = 256) -> Program:
    """A map that is iterated: little work a step, a constant that is transformed in the loop."""

    def loss(rate, x):
        x, _ = lax.scan(lambda x, _: (jnp.sin(x) * jnp.exp(-rate) + 0.1 * x, None), x, None, length=STEPS)
        return jnp.sum(x)

    return loss, normal(size, scale=0.1), normal(size)


def main() -> None:
    programs = {make.__name__: make() for make in (recurrent, gated, elementwise)}
    times = [run_against_jax(title, program) for title, program in programs.items()]
    sizes = [saved_against_jax(f"{title}, kept", program) for title, program in programs.items()]
    summary("gradient of a loop of 1,000 steps, twograd.graph / JAX", times, goal=1.05)
    summary("bytes kept by a loop of 1,000 steps, twograd.graph / JAX", sizes, goal=1.1)


if __name__ == "__main__":
    main()
