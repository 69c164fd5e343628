"""Do engines that share a process disturb each other? XLA's compiled gradient after that of another engine, with the
pause that the harness makes there and without one, against the same after itself.

Threads of OpenMP and OpenBLAS spin for a while when their work is done; those of XLA and TensorFlow stop at once.
"""

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")  # as the command line does, and as early

import random
import time

import numpy as np
from _bench import summary

from twograd.compare.engines import ENGINES, create
from twograd.compare.results import Measurement
from twograd.compare.stats import ratio
from twograd.compare.timing import Stopwatch, sample

SIZE, DEPTH, ROUNDS = 256, 4, 40


def gradient(name: str):
    """A gradient by this engine as a function of nothing, of products that use all threads."""
    engine, rng = create(name), np.random.default_rng(0)

    def loss(weights, x):
        for weight in weights:
            x = engine.ops.np.tanh(x @ weight)
        return engine.ops.np.mean(x * x)

    weights = [rng.standard_normal((SIZE, SIZE)).astype(np.float32) / 16 for _ in range(DEPTH)]
    inputs = engine.arrays((weights, rng.standard_normal((SIZE, SIZE)).astype(np.float32)))
    return engine.build(loss, inputs, Stopwatch()).stages["forward+backward"]


def main() -> None:
    subject, ratios = gradient("jax-jit"), []
    for name in ENGINES:
        reason = create(name).unavailable()
        if reason:
            print(f"{name}: {reason}\n")
            continue
        other, pause = gradient(name), create(name).lingers
        ways = {"itself": (subject, 0.0), "at once": (other, 0.0), "paused": (other, pause)}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way in random.sample(list(ways), len(ways)):
                before, seconds = ways[way]
                before()
                time.sleep(seconds)
                taken[way].append(sample(subject, 1))
        samples = {way: Measurement(tuple(seconds)[2:]) for way, seconds in taken.items()}
        at_once, paused = (ratio(samples[way], samples["itself"]) for way in ("at once", "paused"))
        ratios.append(paused.estimate)
        print(
            f"after {name:20} ratio at once {at_once.estimate:5.2f} [{at_once.low:.2f}, {at_once.high:.2f}]   "
            f"after {pause:.3f} s {paused.estimate:5.2f} [{paused.low:.2f}, {paused.high:.2f}]",
            flush=True,
        )
    summary("a compiled gradient after another engine's / after itself", ratios, goal=None)


if __name__ == "__main__":
    main()
