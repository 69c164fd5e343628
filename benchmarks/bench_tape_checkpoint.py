"""Memory of a chain of layers with checkpoints: the most bytes alive at once, by the number of layers.

A chain of n layers saves n values. Cut into sqrt(n) checkpoints it needs about as many for the inputs of these, and for
the one that is computed again: its peak grows as sqrt(n), for one more forward pass (Chen et al. 2016, "Training Deep
Nets with Sublinear Memory Cost"). Bytes are those of the arrays that layers make, from when an array is made
until it dies, so the peak is exact and does not depend on the machine. Run: python benchmarks/bench_tape_checkpoint.py
"""

import math
import weakref
from collections.abc import Callable

import numpy as np

from twograd import tape
from twograd.tape.utils.checkpoint import checkpoint_sequential

SIZES = (25, 50, 100, 200, 400)
GOAL = 0.5
WIDTH = 256


class Peak:
    """Counts the bytes of the arrays it is shown, while they live."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def shown(self, x: tape.Tensor) -> tape.Tensor:
        size = x.array.nbytes
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(x.array, self._died, size)
        return x

    def _died(self, size: int) -> None:
        self.alive -= size


def peak_bytes(layers: int, segments: int, reentrant: bool = False) -> tuple[int, np.ndarray]:
    """The peak of a pass forward and back, and the gradient."""
    peak = Peak()

    def layer(x: tape.Tensor) -> tape.Tensor:
        return peak.shown(peak.shown(x * 1.01).tanh())

    chain: list[Callable[[tape.Tensor], tape.Tensor]] = [layer] * layers
    x = tape.tensor(np.linspace(-1, 1, WIDTH, dtype=np.float32), requires_grad=True)
    checkpoint_sequential(chain, segments, x, use_reentrant=reentrant).sum().backward()
    assert x.grad is not None
    assert peak.alive == 0
    return peak.most, np.asarray(x.grad.array)


def exponent(peaks: dict[int, int]) -> float:
    """The slope of the peaks over the numbers of layers, both as logarithms."""
    return float(np.polyfit(np.log(list(peaks)), np.log(list(peaks.values())), 1)[0])


def main() -> None:
    ways = {"no checkpoint": None, "checkpoints": False, "checkpoints, reentrant": True}
    peaks: dict[str, dict[int, int]] = {name: {} for name in ways}
    print(f"{'layers':>8}" + "".join(f"{name:>28}" for name in ways))
    for layers in SIZES:
        gradients = []
        for name, reentrant in ways.items():
            segments = 1 if reentrant is None else math.isqrt(layers)
            peaks[name][layers], gradient = peak_bytes(layers, segments, bool(reentrant))
            gradients.append(gradient)
        assert all(np.array_equal(gradient, gradients[0]) for gradient in gradients), "computed again, other values"
        print(f"{layers:>8}" + "".join(f"{peaks[name][layers]:>22,} bytes" for name in ways))
    for name in ways:
        goal = "" if name == "no checkpoint" else f" (goal: about {GOAL})"
        print(f"{name}: peak grows as n to the power {exponent(peaks[name]):.2f}{goal}")


if __name__ == "__main__":
    main()
