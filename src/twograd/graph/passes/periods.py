"""Where a sequence repeats itself: maximal stretches w w w ..., found in O(n log n).

What flows in: one integer per equation, equal for equations that look the same. What flows out: where a stretch begins,
the length of its period, and the length of the whole. Read :func:`repeats`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PER_WIDTH = 8  # periods that are tried for each width of window: programs have few, and one more costs one comparison


class Repeat(NamedTuple):
    """``length`` tokens from ``start`` on, each equal to the one ``period`` tokens later while inside."""

    start: int
    period: int
    length: int

    @property
    def saved(self) -> int:
        """How many tokens are left out where only the first period is written."""
        return (self.length // self.period - 1) * self.period


def repeats(tokens: np.ndarray, least: int) -> list[Repeat]:
    """The maximal stretches of at least ``least`` periods, those that save most first."""
    found = []
    for period in likely_periods(tokens):
        equal = np.concatenate(([False], tokens[:-period] == tokens[period:], [False]))
        edges = np.flatnonzero(equal[1:] != equal[:-1])
        starts, stops = edges[::2], edges[1::2]
        long = stops - starts >= (least - 1) * period
        found += [
            Repeat(start, period, stop - start + period)
            for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True)
        ]
    return sorted(found, key=lambda repeat: (-repeat.saved, repeat.period, repeat.start))


def likely_periods(tokens: np.ndarray) -> list[int]:
    """The distances at which windows of 1, 2, 4, ... tokens most often occur again."""
    return sorted({period for distances in distances_by_width(tokens) for period in most_frequent(distances)})


def distances_by_width(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """For each width, how far it is from each window to the next that is equal (by a hash: callers compare)."""
    windows = tokens.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    width, factor = 1, np.uint64(0xD6E8FEB86659FD93)
    while True:
        order = np.argsort(windows, kind="stable")
        same = windows[order[1:]] == windows[order[:-1]]
        yield (order[1:] - order[:-1])[same]
        if 4 * width > len(tokens):
            return
        with np.errstate(over="ignore"):
            windows = windows[:-width] * factor + windows[width:]
            windows ^= windows >> np.uint64(29)
            factor = factor * factor
        width *= 2


def most_frequent(distances: np.ndarray) -> list[int]:
    votes = np.bincount(distances) if distances.size else np.zeros(0, int)
    best = np.argsort(votes, kind="stable")[-PER_WIDTH:]
    return [int(distance) for distance in best if votes[distance] > 0]
