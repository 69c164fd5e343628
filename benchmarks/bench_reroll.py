"""What does rerolling buy, and what does it cost? Unrolled programs against the same ones rolled into loops.

Lower + compile in one process, one after the other, three times; run time in interleaved rounds. The programs are the
loss and all gradients of networks written as Python loops: over 48 layers whose weights are rows of stacked arrays,
over 48 layers with arrays of their own (which a loop must stack first), and over 50 time steps with shared weights.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from _bench import against
from _programs import normal
from jax import lax
from jax import numpy as jnp

from twograd import graph
from twograd.graph import passes

LAYERS, WIDTH, BATCH, STEPS = 48, 128, 8, 50


def normed(x: Any, scale: Any) -> Any:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale


def stacked() -> tuple[Callable[..., Any], Any, Any]:
    """Residual layers: x + tanh(norm(x) w + b) v, weights of all layers in one array each."""
    params = {
        "w": normal(LAYERS, WIDTH, WIDTH, scale=WIDTH**-0.5),
        "v": normal(LAYERS, WIDTH, WIDTH, scale=0.1 * WIDTH**-0.5),
        "b": normal(LAYERS, WIDTH, scale=0.1),
        "scale": np.ones((LAYERS, WIDTH), np.float32),
    }

    def loss(params, x):
        for layer in range(LAYERS):
            p = jax.tree.map(lambda array, layer=layer: array[layer], params)
            x = x + jnp.tanh(normed(x, p["scale"]) @ p["w"] + p["b"]) @ p["v"]
        return jnp.mean(x**2)

    return loss, params, normal(BATCH, WIDTH)


def separate() -> tuple[Callable[..., Any], Any, Any]:
    """The same network; the weights of each layer are arrays of their own."""
    _, params, x = stacked()
    layers = [jax.tree.map(lambda array, layer=layer: array[layer], params) for layer in range(LAYERS)]

    def loss(layers, x):
        for p in layers:
            x = x + jnp.tanh(normed(x, p["scale"]) @ p["w"] + p["b"]) @ p["v"]
        return jnp.mean(x**2)

    return loss, layers, x


def recurrent() -> tuple[Callable[..., Any], Any, Any]:
    """A tanh network of 50 time steps: the weights are invariants of the loop, their gradients are carried sums."""
    params = {"w": normal(WIDTH, WIDTH, scale=0.1), "u": normal(WIDTH, WIDTH, scale=0.1), "b": normal(WIDTH)}

    def loss(params, xs):
        h = jnp.zeros((BATCH, WIDTH), np.float32)
        for t in range(STEPS):
            h = jnp.tanh(xs[t] @ params["u"] + h @ params["w"] + params["b"])
        return jnp.mean(h**2)

    return loss, params, normal(STEPS, BATCH, WIDTH)


def compile_seconds(g: graph.Graph) -> tuple[float, Any]:
    """The time of lowering and compiling: of a graph whose jaxpr nothing has been cached for."""
    jax.clear_caches()
    start = time.perf_counter()
    compiled = g.optimize(passes.dce).compile()
    return time.perf_counter() - start, compiled


def main() -> None:
    for make in (stacked, separate, recurrent):
        loss, params, x = make()
        unrolled = graph.trace(loss, params, x).value_and_grad().optimize()
        rolled = unrolled.optimize(passes.reroll)
        print(rolled.reports[-1])
        pairs = [(compile_seconds(unrolled), compile_seconds(rolled)) for _ in range(3)]
        slow, fast = (min(seconds[0] for seconds in side) for side in zip(*pairs, strict=True))
        print(f"{make.__name__} lower + compile: unrolled {slow:.2f} s, rolled {fast:.2f} s, {slow / fast:.1f} times")
        leaves = jax.device_put(jax.tree.leaves((params, x)))
        (_, plain), (_, looped) = pairs[-1]
        for mine, theirs in zip(looped(*leaves), plain(*leaves), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
        against(
            f"{make.__name__}, run, rolled / unrolled",
            lambda f=looped, leaves=leaves: jax.block_until_ready(f(*leaves)),
            lambda f=plain, leaves=leaves: jax.block_until_ready(f(*leaves)),
        )


if __name__ == "__main__":
    main()
