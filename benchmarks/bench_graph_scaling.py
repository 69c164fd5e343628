"""Is the graph engine linear in the length of the program? Time per equation from 10^3 to 10^5 equations.

Two shapes: a chain, where each equation reads the one before, and a fan-out, where every one reads the same value (its
cotangent is the sum of as many). For each stage the time per equation of its input, and its ratio to that at 10^3.
"""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax import lax

from twograd import graph
from twograd.graph import passes

LENGTHS = (1_000, 10_000, 100_000)
X = np.ones(8, np.float32)


def chain(length: int) -> Callable[[Any], Any]:
    """y <- sin(y), again and again."""

    def f(x):
        for _ in range(length - 1):
            x = lax.sin(x)
        return lax.reduce_sum(x, (0,))

    return f


def fan_out(length: int) -> Callable[[Any], Any]:
    """A sum of sin(x) + ... + sin(x)."""

    def f(x):
        total = x
        for _ in range((length - 1) // 2):
            total = lax.add(total, lax.sin(x))
        return lax.reduce_sum(total, (0,))

    return f


def stages(f: Callable[[Any], Any]) -> Iterator[tuple[str, float]]:
    """Seconds per equation of each stage."""

    def timed(name, work, size=None):
        gc.collect()
        start = time.process_time()  # one thread's work: what other processes take is not counted
        result = work()
        seconds = time.process_time() - start
        return result, (name, seconds / (size or result.stats().equations))

    traced, span = timed("trace", lambda: graph.trace(f, X))
    yield span
    equations = traced.stats().equations
    derivative, span = timed("value_and_grad", traced.value_and_grad, equations)
    yield span
    for apply in passes.PASSES:
        size = derivative.stats().equations
        _, span = timed(apply.__name__, lambda apply=apply: apply(derivative.jaxpr), size)
        yield span
    _, span = timed("optimize", derivative.optimize, derivative.stats().equations)
    yield span
    _, span = timed("text", derivative.text, derivative.stats().equations)
    yield span


def main() -> None:
    gc.freeze()
    worst = 0.0
    for shape in (chain, fan_out):
        best: dict[int, dict[str, float]] = {}
        for length in LENGTHS:
            for _ in range(5 if length < LENGTHS[-1] else 2):
                gc.disable()  # a full collection visits all that lives, whoever made it: that is not this engine's time
                for name, seconds in stages(shape(length)):
                    found = best.setdefault(length, {})
                    found[name] = min(found.get(name, np.inf), seconds)
                gc.enable()
        for name, first in best[LENGTHS[0]].items():
            ratios = [best[length][name] / first for length in LENGTHS]
            worst = max(worst, *ratios)
            times = "   ".join(
                f"{1e6 * best[length][name]:7.2f} us ({ratio:4.2f})"
                for length, ratio in zip(LENGTHS, ratios, strict=True)
            )
            print(f"{shape.__name__:8} {name:16} {times}", flush=True)
    print(f"worst ratio to 10^3: {worst:.2f} (goal: at most 1.5)")


if __name__ == "__main__":
    main()
