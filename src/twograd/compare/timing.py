"""The clock: what is paid once is timed as it happens, what is paid at each call is sampled in interleaved rounds.

What flows in: functions that take nothing, run one stage once, and return when its result is there. What flows out:
:class:`~twograd.compare.results.Measurement`, raw samples. Read :func:`measure`.

Beside the subjects a kernel is timed that has nothing to do with them. A round in which it took much longer than it
does was disturbed by something else; its samples are thrown away whatever they are, and it is done again.

The rules are those of timeit, pyperf and torch.utils.benchmark: ``perf_counter_ns``; enough calls per sample that the
clock does not matter; no garbage collection within a sample; a warm-up until the time has settled; and one sample of
every subject per round, in an order drawn anew for each round, so that a machine that slows down slows all of them.
"""

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from twograd.compare import stats
from twograd.compare.results import FEWEST_SAMPLES, Conditions, Measurement

Subject = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)

MIN_SAMPLE = 1e-3
"""Seconds that a sample must last."""

SETTLED = 0.05
"""Relative difference of two successive medians at which the warm-up ends."""

DISTURBED = 1.25
"""How many times its median the reference kernel may take in a round that counts."""

MOST_REPEATED = 0.5
"""Rounds that may be done again, as a share of those that count: where more are disturbed, that is how it is here."""

GRACE = 3.0
"""Seconds past its deadline that a measurement may take to reach :data:`FEWEST_SAMPLES`."""


@dataclass(frozen=True)
class Plan:
    """How long to sample: per subject ``min_time`` seconds in at least ``min_rounds`` samples, and on until the ratio
    of each to the fastest is known to ``precision`` (half of its interval, relative), but never more than ``max_time``
    once there are :data:`FEWEST_SAMPLES`; and a warm-up of at most ``warmup_cap`` seconds."""

    min_time: float = 0.5
    min_rounds: int = 20
    max_time: float = 2.0
    warmup_cap: float = 1.0
    precision: float = math.inf


class Samples(dict[Key, Measurement]):
    """What was measured, by subject, and the conditions under which."""

    conditions = Conditions()


@dataclass
class Stopwatch:
    """Times blocks by name: ``with stopwatch("trace"): ...``; a name may come up again, in a later build."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with no_garbage_collection():
            start = time.perf_counter_ns()
            yield
            self.seconds.setdefault(name, []).append((time.perf_counter_ns() - start) * 1e-9)

    def measurements(self) -> dict[str, Measurement]:
        return {name: Measurement(tuple(seconds)) for name, seconds in self.seconds.items()}


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Cyclic garbage collection is off within, and as it was afterwards."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def sample(subject: Subject, loops: int) -> float:
    """Seconds per call, over ``loops`` calls."""
    with no_garbage_collection():
        start = time.perf_counter_ns()
        for _ in range(loops):
            subject()
        return (time.perf_counter_ns() - start) * 1e-9 / loops


def measure(
    subjects: Mapping[Key, Subject],
    plan: Plan,
    seed: int = 0,
    deadline: float = float("inf"),
    pauses: Mapping[Key, float] = MappingProxyType({}),
) -> Samples[Key]:
    """Samples all ``subjects`` in interleaved rounds.

    ``deadline`` is a ``time.monotonic()`` after which no further round starts. Every subject has at least one sample.
    ``pauses`` are the seconds for which a subject's threads go on spinning: such a one comes late in a round, and so
    long after the last of them nothing is sampled.
    """
    warm = {}
    for key, subject in subjects.items():
        warm[key] = _warm_up(subject, min(plan.warmup_cap, deadline - time.monotonic()))
    samples: dict[Key, list[float]] = {key: [] for key in subjects}
    spent = dict.fromkeys(subjects, 0.0)
    reference: list[float] = []
    repeated = 0
    rng = np.random.default_rng(seed)
    active = list(subjects)
    imprecise: set[Key] = set()
    check_at = plan.min_rounds
    gc.collect()
    while active:
        found = {}
        before = sample(_reference, 1)
        order = rng.permutation(len(active)).tolist()
        for index in sorted(order, key=lambda index: pauses.get(active[index], 0.0)):
            key = active[index]
            found[key] = sample(subjects[key], warm[key].loops)
            spent[key] += found[key] * warm[key].loops
        if longest := max(pauses.get(key, 0.0) for key in active):
            time.sleep(longest)
        beside = max(before, sample(_reference, 1))
        if _disturbed(beside, reference) and repeated < MOST_REPEATED * len(reference):
            repeated += 1
        else:
            reference.append(beside)
            for key, seconds in found.items():
                samples[key].append(seconds)
        rounds = len(reference)
        if time.monotonic() > deadline + (GRACE if rounds < FEWEST_SAMPLES else 0):
            break
        if rounds >= check_at:
            imprecise = _imprecise(samples, warm, plan.precision)
            check_at = math.ceil(1.5 * rounds)
        active = [key for key in active if not _enough(len(samples[key]), spent[key], plan, key in imprecise)]
    measured = Samples(
        (key, Measurement(tuple(samples[key]), warm[key].loops, warm[key].calls, warm[key].settled)) for key in subjects
    )
    imprecise = _imprecise(samples, warm, plan.precision)
    measured.conditions = Conditions(tuple(reference), repeated, not imprecise)
    return measured


_NUMBERS = np.linspace(0.0, 1.0, 16384)
_RESULT = np.empty_like(_NUMBERS)


def _reference() -> None:
    """Something to do that takes some 0.1 ms, always the same, on one core: how fast is the machine just now?"""
    np.sin(_NUMBERS, out=_RESULT)


def _disturbed(seconds: float, reference: Sequence[float]) -> bool:
    return len(reference) >= FEWEST_SAMPLES and seconds > DISTURBED * statistics.median(reference)


def _imprecise(samples: Mapping[Key, Sequence[float]], warm: "Mapping[Key, _Warm]", precision: float) -> set[Key]:
    """The subjects whose ratio to the fastest is not yet known to ``precision``, and the fastest if there are any."""
    if math.isinf(precision) or len(samples) < 2:
        return set()
    found = {key: Measurement(tuple(seconds), warm[key].loops) for key, seconds in samples.items()}
    fastest = min(found, key=lambda key: found[key].median)
    wide = {key for key in found if key != fastest and stats.ratio(found[key], found[fastest]).width > precision}
    return wide | {fastest} if wide else wide


def _enough(rounds: int, spent: float, plan: Plan, imprecise: bool) -> bool:
    if rounds >= FEWEST_SAMPLES and spent >= plan.max_time:
        return True
    return rounds >= plan.min_rounds and spent >= plan.min_time and not imprecise


@dataclass(frozen=True)
class _Warm:
    loops: int
    calls: int
    settled: bool


def _warm_up(subject: Subject, cap: float) -> _Warm:
    """Calls ``subject`` until two successive medians of three samples agree, for at most ``cap`` seconds.

    The first samples after a compilation are slow, also where nothing is compiled any more (jax-ml/jax#18622).
    """
    end = time.monotonic() + cap
    seconds = [sample(subject, 1)]
    while len(seconds) < 3 and time.monotonic() < end:
        seconds.append(sample(subject, 1))
    loops, calls, previous = _loops(min(seconds)), len(seconds), statistics.median(seconds)
    while time.monotonic() < end:
        median = statistics.median(sample(subject, loops) for _ in range(3))
        calls += 3 * loops
        if abs(median - previous) <= SETTLED * previous:
            return _Warm(_loops(median), calls, settled=True)
        previous = median
    return _Warm(_loops(previous), calls, settled=False)


def _loops(seconds: float) -> int:
    """How many calls of this length make a sample."""
    return max(1, math.ceil(MIN_SAMPLE / max(seconds, 1e-9)))
