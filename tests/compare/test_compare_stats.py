"""Ratios, intervals and break-even points on samples whose answer is known."""

import math

import numpy as np
import pytest

from twograd.compare import stats
from twograd.compare.results import Measurement, Row


def measured(seconds, n=21, noise=0.01, seed=0):
    samples = seconds * (1 + noise * np.random.default_rng(seed).standard_normal(n))
    return Measurement(tuple(samples.tolist()))


def row(once, steady, noise=0.01, seed=0):
    stages = {"first call": Measurement((once + steady,)), "forward+backward": measured(steady, noise=noise, seed=seed)}
    return Row("engine", "ok", stages=stages)


def test_ratio_of_different_timings_is_clear():
    found = stats.ratio(measured(2.0, seed=1), measured(1.0, seed=2))
    assert found.low <= found.estimate <= found.high
    assert found.low > 1.9
    assert found.high < 2.1
    assert stats.clearly_different(found)


def test_too_few_samples_support_no_claim():
    few, many = Measurement((2.0,) * 4), Measurement((1.0,) * 20)
    found = stats.ratio(few, many)
    assert (found.estimate, found.low, found.high) == (2.0, 0.0, math.inf)
    assert not stats.clearly_different(found)


def test_ratio_of_equal_timings_shows_no_clear_difference():
    found = stats.ratio(measured(1.0, noise=0.2, seed=1), measured(1.0, noise=0.2, seed=2))
    assert not stats.clearly_different(found)


def test_what_slows_a_whole_round_cancels():
    drift = np.linspace(1.0, 3.0, 31)
    a, b = Measurement(tuple(1.2 * drift)), Measurement(tuple(drift))
    paired = stats.ratio(a, b)
    assert (paired.low, paired.high) == pytest.approx((1.2, 1.2))
    assert stats.clearly_different(paired)
    unpaired = stats.ratio(a, Measurement(tuple(drift[:-1])))  # a different number of rounds
    assert not stats.clearly_different(unpaired)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(100):
        found = stats.ratio(measured(1.0, noise=0.1, seed=2 * seed), measured(1.0, noise=0.1, seed=2 * seed + 1), seed)
        hits += found.low <= 1.0 <= found.high
    assert hits >= 88


def test_the_same_seed_gives_the_same_interval():
    a, b = measured(1.0, noise=0.3, seed=1), measured(1.1, noise=0.3, seed=2)
    assert stats.ratio(a, b, seed=3) == stats.ratio(a, b, seed=3)
    assert stats.ratio(a, b, seed=3) != stats.ratio(a, b, seed=4)


def test_break_even_solves_for_the_number_of_steps():
    # Compiling costs 9.9 s more and gains 0.9 s per step: after 11 steps it is even.
    even = stats.break_even(row(once=9.9, steady=0.1, noise=0.0), row(once=0.0, steady=1.0, noise=0.0))
    assert even == stats.Interval(11, 11, 11)
    noisy = stats.break_even(row(9.9, 0.1, noise=0.2, seed=1), row(0.0, 1.0, noise=0.2, seed=2))
    assert noisy.low < noisy.high
    assert noisy.low <= noisy.estimate <= noisy.high


def test_break_even_never_and_at_once():
    slower = stats.break_even(row(once=5.0, steady=2.0), row(once=0.0, steady=1.0))
    assert slower == stats.Interval(math.inf, math.inf, math.inf)
    at_once = stats.break_even(row(once=0.0, steady=0.1), row(once=1.0, steady=1.0))
    assert at_once == stats.Interval(1, 1, 1)


def test_break_even_that_may_never_come_has_an_infinite_end():
    found = stats.break_even(row(9.9, 0.98, noise=0.1, seed=1), row(0.0, 1.0, noise=0.1, seed=2))
    assert found.high == math.inf
    assert math.isfinite(found.low)


def test_what_is_paid_once_leaves_out_the_first_calls_own_work():
    assert stats.one_time_cost(row(once=3.0, steady=0.5, noise=0.0)) == pytest.approx(3.0)
    assert stats.time_to_first(row(once=3.0, steady=0.5, noise=0.0)) == pytest.approx(3.5)


@pytest.mark.parametrize(("spread", "mark"), [(0.05, ""), (0.2, "!"), (0.5, "!!")])
def test_noise_marks(spread, mark):
    measurement = Measurement((1.0 - spread / 2, 1.0 - spread / 2, 1.0, 1.0 + spread / 2, 1.0 + spread / 2))
    assert measurement.spread == pytest.approx(spread)
    assert stats.noise_mark(measurement) == mark
