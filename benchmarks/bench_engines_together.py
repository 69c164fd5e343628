"""Do engines that share a process disturb each other? What is called right after an engine's gradient, against the same
after itself: XLA's compiled gradient, a product of NumPy's, whose threads and caches are those of the process."""

import random

import numpy as np
from _bench import summary

from twograd.compare.engines import ENGINES, create
from twograd.compare.results import Measurement
from twograd.compare.stats import ratio
from twograd.compare.timing import Stopwatch, sample

SIZE, DEPTH, ROUNDS = 256, 4, 100


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
    square = np.random.default_rng(0).standard_normal((2 * SIZE, 2 * SIZE)).astype(np.float32)
    shared = {"a compiled gradient": gradient("jax-jit"), "a product of NumPy's": lambda: square @ square}
    ratios = []
    for name in ENGINES:
        reason = create(name).unavailable()
        if reason:
            print(f"{name}: {reason}\n")
            continue
        before = gradient(name)
        for title, subject in shared.items():
            taken = {"after it": [], "after itself": []}
            for _ in range(ROUNDS):
                for when in random.sample(list(taken), 2):
                    (before if when == "after it" else subject)()
                    taken[when].append(sample(subject, 1))
            after, alone = (Measurement(tuple(seconds)[3:]) for seconds in taken.values())
            interval = ratio(after, alone)
            ratios.append(interval.estimate)
            print(
                f"{title:20} after {name:20} {1e3 * after.median:7.3f} ms   after itself {1e3 * alone.median:7.3f} ms  "
                f"ratio {interval.estimate:5.2f} [{interval.low:.2f}, {interval.high:.2f}]",
                flush=True,
            )
    summary("right after an engine's gradient / right after itself", ratios, goal=None)


if __name__ == "__main__":
    main()
