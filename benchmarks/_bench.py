"""What the benchmarks share: interleaved timing against a peer in one process, and one line per ratio."""

import math
from collections.abc import Callable

from twograd.compare.stats import ratio
from twograd.compare.timing import Plan, measure

PLAN = Plan(min_time=0.3, min_rounds=30, max_time=2.0)


def against(title: str, ours: Callable[[], object], peer: Callable[[], object], scale: float = 1.0) -> float:
    """Times both in interleaved rounds and prints the ratio of their medians with its bootstrap interval.

    ``scale`` divides the printed times, to give them per op.
    """
    samples = measure({"ours": ours, "peer": peer}, PLAN)
    interval = ratio(samples["ours"], samples["peer"])
    micro = {name: 1e6 * sample.median / scale for name, sample in samples.items()}
    print(
        f"{title:32} ours {micro['ours']:10.2f} us   peer {micro['peer']:10.2f} us   "
        f"ratio {interval.estimate:5.2f} [{interval.low:.2f}, {interval.high:.2f}]",
        flush=True,
    )
    return interval.estimate


def summary(title: str, ratios: list[float], goal: float | None) -> None:
    """Prints the geometric mean of the ratios beside the goal, if there is one."""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    aim = "" if goal is None else f" (goal: at most {goal})"
    print(f"{title}: geometric mean {mean:.3f} over {len(ratios)}{aim}, worst {max(ratios):.3f}\n")
