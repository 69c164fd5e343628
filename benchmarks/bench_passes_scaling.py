"""Is every pass linear in the length of the program? Time per equation from 10^3 to 10^5 equations, and its ratio.

Two programs and their derivatives: a chain of equations that each read the one before, and layers of eight equations
with an invariant and a literal of their own. The passes are given the derivative. Reports too are timed: stats, text.
"""

import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from twograd import graph
from twograd.graph import passes

LENGTHS = (1_000, 10_000, 100_000)
X = np.ones(8, np.float32)


def chain(length: int) -> graph.Graph:
    """sin(sin(...))."""

    def f(x):
        for _ in range(length // 4):
            x = lax.sin(x)
        return lax.reduce_sum(x, (0,))

    return graph.trace(f, X).value_and_grad()


def layers(length: int) -> graph.Graph:
    """x + tanh(sin(x w) + cos(x) c), c another number in each layer."""

    def f(x, w):
        for layer in range(length // 30):
            inner = lax.add(lax.sin(lax.mul(x, w)), lax.mul(lax.cos(x), np.float32(layer)))
            x = lax.add(x, lax.tanh(inner))
        return lax.reduce_sum(x, (0,))

    return graph.trace(f, X, X).value_and_grad()


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()  # one thread's work: what other processes take is not counted
    work()
    return time.process_time() - start


def times(g: graph.Graph) -> dict[str, float]:
    """Seconds per equation of each pass."""
    size = g.stats().equations
    budget = g.stats().saved_bytes // 2
    works: dict[str, Callable[[], Any]] = {
        apply.__name__: functools.partial(apply, g.jaxpr)
        for apply in (*passes.PASSES, passes.reroll, passes.remat(budget))
    }
    works |= {"stats": g.stats, "text": g.text}
    return {name: seconds(work) / size for name, work in works.items()}


def main() -> None:
    gc.freeze()
    worst = 0.0
    for make in (chain, layers):
        found: dict[int, dict[str, float]] = {}
        for length in LENGTHS:
            g = make(length)
            gc.disable()  # a full collection visits all that lives, whoever made it
            rounds = [times(g) for _ in range(3 if length < LENGTHS[-1] else 1)]
            gc.enable()
            found[length] = {name: min(r[name] for r in rounds) for name in rounds[0]}
        for name, first in found[LENGTHS[0]].items():
            ratios = [found[length][name] / first for length in LENGTHS]
            worst = max(worst, *ratios)
            line = "   ".join(
                f"{1e6 * found[length][name]:7.2f} us ({ratio:4.2f})"
                for length, ratio in zip(LENGTHS, ratios, strict=True)
            )
            print(f"{make.__name__:8} {name:10} {line}", flush=True)
    print(f"worst ratio to 10^3: {worst:.2f} (goal: at most 2)")


if __name__ == "__main__":
    main()
