"""Is the tape linear in the length of the graph? Time per node from 10^3 to 10^5 nodes, forward and backward.

The walk back is iterative, so a chain of 10^5 nodes needs no deeper stack than one of 10.
"""

import gc
import time

import numpy as np

from twograd import tape

LENGTHS = (1_000, 10_000, 100_000)
ROUNDS = 5


def per_node(length: int) -> tuple[float, float, float]:
    """The best of a few rounds: seconds per node to record, to walk back, and to let the graph die."""
    x = tape.tensor(np.ones(8, np.float32), requires_grad=True)
    best = [float("inf")] * 3
    for _ in range(max(1, ROUNDS if length < 100_000 else 3)):
        gc.collect()
        start = time.perf_counter()
        y = x
        for _ in range(length):
            y = y * 1.0
        recorded = time.perf_counter()
        loss = y.sum()
        loss.backward(retain_graph=True)
        x.grad.array.block_until_ready()
        walked = time.perf_counter()
        del y, loss
        died = time.perf_counter()
        x.grad = None
        spans = (recorded - start, walked - recorded, died - walked)
        best = [min(b, span / length) for b, span in zip(best, spans, strict=True)]
    return best[0], best[1], best[2]


def main() -> None:
    per_node(100)
    base = None
    for length in LENGTHS:
        spans = per_node(length)
        base = base or spans
        ratios = [span / first for span, first in zip(spans, base, strict=True)]
        print(
            f"{length:>7} nodes   record {1e6 * spans[0]:6.2f} us/node ({ratios[0]:.2f} of 10^3)   "
            f"backward {1e6 * spans[1]:6.2f} us/node ({ratios[1]:.2f})   "
            f"freeing {1e6 * spans[2]:6.2f} us/node ({ratios[2]:.2f})"
        )
        total = sum(spans) / sum(base)
        print(f"        all three together: {total:.2f} of 10^3 (goal: at most 1.5)")


if __name__ == "__main__":
    main()
