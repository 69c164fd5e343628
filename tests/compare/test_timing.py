"""The clock, driven by subjects whose cost is set by a fake clock: no test here depends on the machine's speed."""

import gc
import itertools

import numpy as np
import pytest

from twograd.compare import timing
from twograd.compare.results import FEWEST_SAMPLES
from twograd.compare.stats import clearly_different, ratio


class Clock:
    """``perf_counter_ns`` and ``monotonic`` that move only when a subject works."""

    def __init__(self, monkeypatch):
        self.now = 0
        monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now * 1e-9)

    def subject(self, seconds, log=None, name=""):
        costs = iter(seconds) if hasattr(seconds, "__iter__") else None

        def work():
            cost = next(costs) if costs is not None else seconds
            self.now += round(cost * 1e9)
            if log is not None:
                log.append(name)

        return work


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


PLAN = timing.Plan(min_time=0.05, min_rounds=10, max_time=0.2, warmup_cap=1.0)


def test_a_fast_subject_gets_enough_calls_per_sample(clock):
    (found,) = timing.measure({"fast": clock.subject(1e-6)}, PLAN).values()
    assert found.loops * 1e-6 >= timing.MIN_SAMPLE
    assert found.median == pytest.approx(1e-6)
    assert len(found.seconds) * found.loops * 1e-6 >= 0.999 * PLAN.min_time


def test_a_slow_subject_leaves_early_and_the_others_go_on(clock):
    found = timing.measure({"slow": clock.subject(0.1), "fast": clock.subject(0.002)}, PLAN)
    assert len(found["slow"].seconds) == FEWEST_SAMPLES
    assert len(found["fast"].seconds) >= PLAN.min_rounds


def test_nothing_is_sampled_while_threads_of_the_one_before_spin(clock, monkeypatch):
    log = []
    monkeypatch.setattr(timing.time, "sleep", log.append)
    subjects = {name: clock.subject(0.01, log, name) for name in "ab"}
    timing.measure(subjects, timing.Plan(0.05, 6, 0.2, warmup_cap=0.0), pauses={"a": 0.02, "b": 0.0})
    log = log[2:]  # behind the one warm-up call of each
    assert log.count(0.02) == log.count("a") > 5
    assert set(log) == {"a", "b", 0.02}
    assert all(after == 0.02 for before, after in itertools.pairwise(log) if before == "a")


def test_rounds_are_interleaved_and_shuffled_by_the_seed(clock):
    def order(seed):
        log = []
        subjects = {name: clock.subject(0.01, log, name) for name in "abc"}
        timing.measure(subjects, timing.Plan(0.05, 6, 0.2, warmup_cap=0.0), seed)
        return log[3:]  # behind the one warm-up call of each

    log = order(seed=0)
    rounds = [log[i : i + 3] for i in range(0, len(log), 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert order(seed=0) == log
    assert order(seed=1) != log


def test_the_warm_up_ends_when_two_medians_agree(clock):
    slow_start = [0.1] * 3 + [0.05] * 3 + [0.02] * 3
    (found,) = timing.measure({"x": clock.subject(slow_start + [0.01] * 1000)}, PLAN).values()
    assert found.settled
    assert found.warmup_calls == 15  # three slow medians, and two that agree
    assert set(found.seconds) == {0.01}


def test_a_subject_that_never_settles_says_so(clock):
    growing = (0.01 * 1.2**i for i in range(100_000))
    (found,) = timing.measure({"x": clock.subject(growing)}, timing.Plan(0.01, 1, 0.01, warmup_cap=0.5)).values()
    assert not found.settled


def test_after_the_deadline_everything_still_has_a_sample(clock):
    found = timing.measure({"a": clock.subject(1.0), "b": clock.subject(2.0)}, PLAN, deadline=0.5)
    assert {name: m.seconds for name, m in found.items()} == {"a": (1.0,), "b": (2.0,)}


def test_a_warm_up_after_the_deadline_is_one_call(clock):
    (found,) = timing.measure({"a": clock.subject(1.0)}, PLAN, deadline=-1.0 - timing.GRACE).values()
    assert (found.warmup_calls, found.settled, found.seconds) == (1, False, (1.0,))


def test_what_is_quick_reaches_the_fewest_samples_also_after_the_deadline(clock):
    (found,) = timing.measure({"a": clock.subject(0.01)}, PLAN, deadline=0.0).values()
    assert len(found.seconds) == FEWEST_SAMPLES


def test_no_garbage_is_collected_within_a_sample():
    states = []
    timing.sample(lambda: states.append(gc.isenabled()), loops=2)
    assert states == [False, False]
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_an_error():
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        timing.sample(fails, loops=1)
    assert gc.isenabled()


def test_a_stopwatch_keeps_every_time_and_drops_what_failed(clock):
    stopwatch = timing.Stopwatch()
    for seconds in (1.0, 2.0):
        with stopwatch("trace"):
            clock.subject(seconds)()
    with pytest.raises(ZeroDivisionError), stopwatch("compile"):
        raise ZeroDivisionError
    assert {name: m.seconds for name, m in stopwatch.measurements().items()} == {"trace": (1.0, 2.0)}


def test_a_real_clock_tells_slow_from_fast():
    x = np.ones(200_000)
    found = timing.measure({"less": x[:1000].sum, "more": x.sum}, timing.Plan(0.01, 5, 0.1, 0.05))
    assert found["more"].median > found["less"].median


def disturbed_by(clock, monkeypatch, costs):
    """The reference kernel takes these times, two for each round."""
    monkeypatch.setattr(timing, "_reference", clock.subject(costs))


def test_a_round_in_which_the_reference_was_slow_is_done_again(clock, monkeypatch):
    fast, slow = 1e-4, 3e-4
    disturbed_by(clock, monkeypatch, [fast] * 14 + [fast, slow] + [fast] * 100)
    found = timing.measure({"x": clock.subject([0.01] * 100)}, timing.Plan(0.0, 10, 1.0, 0.0))
    assert found.conditions.repeated == 1
    assert len(found.conditions.reference) == len(found["x"].seconds) == 10
    assert max(found.conditions.reference) == pytest.approx(fast)


def test_what_was_measured_in_a_disturbed_round_is_not_kept_though_it_be_fast(clock, monkeypatch):
    disturbed_by(clock, monkeypatch, [1e-4] * 14 + [1e-3] * 2 + [1e-4] * 100)
    costs = [0.01] + [0.01] * 7 + [0.001] + [0.01] * 100  # the first is the warm-up's
    found = timing.measure({"x": clock.subject(costs)}, timing.Plan(0.0, 10, 1.0, 0.0))
    assert min(found["x"].seconds) == pytest.approx(0.01)


def test_where_most_rounds_are_disturbed_they_are_kept(clock, monkeypatch):
    disturbed_by(clock, monkeypatch, [1e-4] * 10 + [1e-3] * 1000)
    found = timing.measure({"x": clock.subject(0.01)}, timing.Plan(0.0, 20, 1.0, 0.0))
    assert len(found["x"].seconds) == 20
    assert found.conditions.repeated <= timing.MOST_REPEATED * 20
    assert found.conditions.drift > 5


def test_rounds_go_on_until_the_ratio_is_as_precise_as_was_asked_for(clock):
    rng = np.random.default_rng(0)
    subjects = {name: clock.subject(mean * rng.uniform(0.8, 1.2, 9999)) for name, mean in (("x", 0.01), ("y", 0.02))}
    rough = timing.measure(subjects, timing.Plan(0.0, 15, 100.0, 0.0, precision=0.5))
    fine = timing.measure(subjects, timing.Plan(0.0, 15, 100.0, 0.0, precision=0.03))
    assert rough.conditions.precise
    assert fine.conditions.precise
    assert len(rough["x"].seconds) == 15 < len(fine["x"].seconds)
    assert ratio(fine["y"], fine["x"]).width <= 0.03
    short = timing.measure(subjects, timing.Plan(0.0, 15, 0.3, 0.0, precision=0.001))
    assert not short.conditions.precise


@pytest.mark.slow
def test_an_engine_held_against_itself_differs_clearly_in_at_most_five_of_a_hundred(monkeypatch):
    monkeypatch.setattr(timing.gc, "collect", lambda: 0)  # a hundred times all that the tests before have left
    x = np.linspace(0, 1, 3000)
    plan = timing.Plan(min_time=0.0, min_rounds=15, max_time=1.0, warmup_cap=0.02)

    def clear(i):
        found = timing.measure({"a": lambda: np.sin(x), "b": lambda: np.sin(x)}, plan, seed=i)
        return clearly_different(ratio(found["a"], found["b"]))

    assert sum(map(clear, range(100))) <= 5
