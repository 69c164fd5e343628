"""What follows from raw samples: ratios and break-even points with their intervals, and marks for noise.

What flows in: :class:`~twograd.compare.results.Measurement` and :class:`~twograd.compare.results.Row`. What flows out:
numbers with 99 % intervals by the percentile bootstrap (Efron and Tibshirani 1993, section 13.3), seeded, so that the
same file always gives the same report. Read :func:`ratio`.

99 and not 95, for a difference that is called clear must not be there by chance: of a hundred engines that are held
against themselves, at most five may seem to differ, and at 95 % five would on average (``tests/compare/test_timing.py``
does it).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from twograd.compare.results import FEWEST_SAMPLES, ONE_TIME_STAGES, Measurement, Row

RESAMPLES = 4000
CONFIDENCE = 0.99
MANY_ROUNDS = 12
"""Fewer are too few to be drawn from: most draws would have the same median."""
NOISY, VERY_NOISY = 0.10, 0.25
"""Interquartile range over median, above which a timing is marked ``!`` or ``!!`` (torch.utils.benchmark's limits)."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 99 % interval. Any of the three may be ``inf``."""

    estimate: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the interval reaches from the estimate, relative to this."""
        return max(self.high - self.estimate, self.estimate - self.low) / self.estimate


def ratio(a: Measurement, b: Measurement, seed: int = 0) -> Interval:
    """How many times as long ``a`` takes as ``b``, by their medians."""
    medians_a, medians_b = _resampled_medians(a, b, seed)
    return _interval(a.median / b.median, medians_a / medians_b)


def change(
    before: Measurement, after: Measurement, references: tuple[Measurement, Measurement] | None = None, seed: int = 0
) -> Interval:
    """How many times as long ``after`` takes as ``before``, a measurement of another run.

    With ``references``, one measurement of each of both runs, each time counts as a multiple of its run's reference.
    """
    if references is None:
        new, old = _resampled_medians(after, before, seed, same_rounds=False)
        return _interval(after.median / before.median, new / old)
    estimate = (after.median / references[1].median) / (before.median / references[0].median)
    if min(len(m.seconds) for m in (before, after, *references)) < FEWEST_SAMPLES:
        return Interval(estimate, 0.0, math.inf)
    old, old_reference = _resampled_medians(before, references[0], seed)
    new, new_reference = _resampled_medians(after, references[1], seed + 1)
    new, old = new / new_reference, old / old_reference
    return _interval(estimate, new / old if len(new) == len(old) == RESAMPLES else np.divide.outer(new, old).ravel())


def clearly_different(interval: Interval) -> bool:
    """Whether the interval of a ratio leaves out 1; otherwise the report says "no clear difference"."""
    return not interval.low <= 1.0 <= interval.high


def time_to_first(row: Row) -> float:
    """Seconds from a program to its first gradient: all that is paid once, and the first call."""
    return sum(row.stages[stage].median for stage in ONE_TIME_STAGES if stage in row.stages)


def one_time_cost(row: Row) -> float:
    """The seconds of :func:`time_to_first` that no later call pays again."""
    return max(0.0, time_to_first(row) - row.stages["forward+backward"].median)


def total_time(row: Row, gradients: float) -> float:
    """Seconds for so many gradients of one program, from nothing: what is paid once, and the steady time of each."""
    return one_time_cost(row) + gradients * row.stages["forward+backward"].median


def total_ratio(a: Row, b: Row, gradients: float, seed: int = 0) -> Interval:
    """How many times as long so many gradients take by ``a`` as by ``b``, from nothing; of infinitely many, each.

    The interval reflects the spread of the steady times and what was paid once in each of the builds, however few.
    """
    steady = a.stages["forward+backward"], b.stages["forward+backward"]
    if math.isinf(gradients):
        return ratio(*steady, seed)
    estimate = total_time(a, gradients) / total_time(b, gradients)
    if min(len(m.seconds) for m in steady) < FEWEST_SAMPLES:
        return Interval(estimate, 0.0, math.inf)
    rng = np.random.default_rng(seed)
    medians = _resampled_medians(*steady, seed)
    drawn = rng.integers(len(medians[0]), size=RESAMPLES)
    each = [of_row[drawn] for of_row in medians]
    once = [rng.choice(_paid_by_build(row), RESAMPLES) for row in (a, b)]
    return _interval(estimate, (once[0] + gradients * each[0]) / (once[1] + gradients * each[1]))


def surely_behind(a: Row, b: Row, gradients: float) -> bool:
    """Whether the least that was measured of ``a`` is above the most of ``b``: no interval has to be computed then."""
    steady = [row.stages["forward+backward"].seconds for row in (a, b)]
    if min(map(len, steady)) < FEWEST_SAMPLES:
        return False
    least, most = min(steady[0]), max(steady[1])
    if math.isinf(gradients):
        return least > most
    return _paid_by_build(a).min() + gradients * least > _paid_by_build(b).max() + gradients * most


def _paid_by_build(row: Row) -> np.ndarray:
    """:func:`one_time_cost`, but of each build."""
    builds = zip(*(row.stages[stage].seconds for stage in ONE_TIME_STAGES if stage in row.stages), strict=False)
    steady = row.stages["forward+backward"].median
    return np.array([max(0.0, sum(seconds) - steady) for seconds in builds] or [0.0])


def break_even(compiled: Row, uncompiled: Row, seed: int = 0, new_shapes: float = 0.0) -> Interval:
    """After how many gradients the ``compiled`` row has caught up with the ``uncompiled`` one; ``inf`` means never.

    It solves ``C1 + n s1 = C0 + n s0`` for n, where C is what each pays once and s the steady time per gradient. At
    least 1: the first gradient is the first chance to be ahead. The interval reflects the spread of the steady times;
    what is paid once is sampled too rarely to have a distribution of its own.

    ``new_shapes`` is the share of the gradients after the first that come with a shape that was not met before: each
    pays C again, so that the equation is ``(1 + r (n - 1)) C1 + n s1 = (1 + r (n - 1)) C0 + n s0``.
    """
    a, b = compiled.stages["forward+backward"], uncompiled.stages["forward+backward"]
    extra = one_time_cost(compiled) - one_time_cost(uncompiled)
    medians_a, medians_b = _resampled_medians(a, b, seed)
    gains, once, again = medians_b - medians_a, (1 - new_shapes) * extra, new_shapes * extra
    return _interval(_catch_up(once, b.median - a.median - again), np.vectorize(_catch_up)(once, gains - again))


def caught_up(a: Row, b: Row) -> float:
    """The estimate of :func:`break_even` alone."""
    gain = b.stages["forward+backward"].median - a.stages["forward+backward"].median
    return _catch_up(one_time_cost(a) - one_time_cost(b), gain)


def noise_mark(measurement: Measurement) -> str:
    """``!`` or ``!!`` where a timing is noisy, else nothing."""
    return "!!" if measurement.spread > VERY_NOISY else "!" if measurement.spread > NOISY else ""


def _catch_up(extra: float, gain: float) -> float:
    """The first n >= 1 with ``extra <= n * gain``."""
    if extra <= gain:
        return 1.0
    return float(math.ceil(extra / gain)) if gain > 0 else math.inf


@functools.lru_cache(256)
def _resampled_medians(
    a: Measurement, b: Measurement, seed: int, same_rounds: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Medians of bootstrap resamples of both.

    Sample i of both was taken in round i, so rounds are resampled, not samples: what slowed a whole round cancels. An
    engine that left early has fewer rounds; the two are then resampled apart, as are those of two runs. A few rounds
    are not resampled, but stand for what the medians may be: the least and the largest of n hold the median with a
    probability of 1 - 2^(1 - n).
    """
    rng = np.random.default_rng(seed)
    x, y = np.array(a.seconds), np.array(b.seconds)
    if min(len(x), len(y)) < FEWEST_SAMPLES:
        return np.array([0.0, np.inf]), np.array([1.0, 1.0])
    same_rounds = same_rounds and len(x) == len(y)
    if min(len(x), len(y)) < MANY_ROUNDS:
        return (x, y) if same_rounds else (np.repeat(x, len(y)), np.tile(y, len(x)))
    rounds_x = rng.integers(len(x), size=(RESAMPLES, len(x)))
    rounds_y = rounds_x if same_rounds else rng.integers(len(y), size=(RESAMPLES, len(y)))
    return np.median(x[rounds_x], axis=1), np.median(y[rounds_y], axis=1)


def _interval(estimate: float, resampled: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    # "inverted_cdf" picks a sample; interpolating between a number and infinity would be NaN.
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(estimate), float(low), float(high))
