"""Sentences follow from the data: who is faster, by how much and how surely, when compiling pays, what is missing."""

import itertools
import re

import example_results as example
import pytest

from twograd.compare import results as rs
from twograd.compare import sentences

TAPE = rs.EngineInfo("tape", "", "dynamic", "twograd", "", True)
GRAPH = rs.EngineInfo("graph", "", "static", "twograd", "", True)
TORCH = rs.EngineInfo("torch", "", "dynamic", "torch", "", True)


def row(engine, seconds, once=0.0, spread=0.001):
    """An engine that needs so many seconds per gradient, and so many once."""
    samples = tuple(seconds * (1 + spread * i) for i in (-2, -1, 0, 1, 2))
    stages = {"forward+backward": rs.Measurement(samples)}
    if once:
        stages["compile" if engine == "graph" else "first call"] = rs.Measurement((once + seconds,))
    return rs.Row(engine, "ok", stages=stages)


def case(*rows, **axes):
    axes = axes or {"size": 8}
    return rs.CaseResult(", ".join(f"{k}={v}" for k, v in axes.items()), axes, list(rows))


def run(*cases, engines=(TAPE, GRAPH)):
    comparison = rs.ComparisonResult("chain", "?", "", "", cases=list(cases))
    return rs.Results(rs.Settings(), engines=list(engines), comparisons=[comparison])


def summary(*cases, **options):
    return "\n".join(said(run(*cases, **options))).replace("\u00a0", " ")


def said(results):
    return list(itertools.chain.from_iterable(sentences.summary(results).values()))


def about(*cases, engines=(TAPE, GRAPH)):
    return "\n".join(sentences.about(run(*cases).comparisons[0], engines)).replace("\u00a0", " ")


def test_when_the_first_changes_and_who_never_is_it():
    slow, twice = row("torch", 9e-3, once=9.0), case(row("tape", 1e-3), row("graph", 5e-4, once=1.0), depth=2)
    text = summary(case(row("tape", 1e-3), row("graph", 1e-4, once=0.9), slow), twice, engines=(TAPE, GRAPH, TORCH))
    assert (
        "Which engine is done first depends on the number of gradients in 2 of 2 compared cases: the fastest in the "
        "long run is ahead after 1000 gradients (`graph` before `tape` in chain, size=8; 99 % interval"
    ) in text
    assert " at the earliest, 2000 gradients (`graph` before `tape` in chain, depth=2; 99 % interval" in text
    assert "for whatever number of gradients, nor level with the first in any of 10 cells of the map: `torch`." in text


def test_a_change_of_the_first_that_is_not_clear_is_none():
    level = case(row("tape", 1e-3, spread=0.1), row("graph", 0.99e-3, once=0.5, spread=-0.1))
    assert "done first does not clearly depend on the number of gradients." in summary(level)
    text = summary(level, case(row("tape", 1e-3), row("graph", 2e-3, once=1.0), depth=2))
    assert "done first does not clearly depend on the number of gradients in any of 2 compared cases." in text
    close = case(row("tape", 1e-3), row("graph", 1e-4, once=0.9, spread=0.1), row("jax-jit", 0.99e-4, once=2.0))
    assert "is ahead after 2220 gradients (`jax-jit` before `tape` in chain, size=8; 99 % interval" in summary(close)


def test_of_a_single_case_sentences_say_no_more():
    text = summary(case(row("tape", 1e-3), row("graph", 1e-4, once=0.9)))
    assert "comes fastest from `graph` in the one compared case, clearly." in text
    assert "depends on the number of gradients: the fastest in the long run is ahead after 1000 gradients (" in text
    text = summary(case(row("tape", 1e-3), row("graph", 1e-3)))
    assert "in the one compared case, with no clear difference from the next." in text
    assert "clearly ahead of all others: 0 of 1." in text


def test_what_a_map_says_comes_to_the_opening_page():
    found = rs.ComparisonResult("grid", "?", "", "", findings=[rs.Observation("First."), rs.Observation("Second.")])
    results = rs.Results(rs.Settings(), comparisons=[found])
    assert said(results) == []
    found.findings.append(rs.Winners("", "", "", [], [], [], []))
    assert said(results) == ["`grid`: First."]


def test_a_clear_difference_is_told_with_ratio_interval_and_n():
    text = about(case(row("tape", 4e-3), row("graph", 1e-3)))
    assert "At size=8 `graph` computes a gradient fastest, in 1 ms; the next, `tape`, takes 4" in text
    assert re.search(r"`tape`, takes 4\.?0* \(99 % interval [\d.]+ to [\d.]+\) times as long \(n = 5\)", text)


def test_no_clear_difference_is_said_plainly():
    text = about(case(row("tape", 1.001e-3, spread=0.1), row("graph", 1e-3, spread=-0.1)))
    assert "there is no clear difference between the two fastest, `graph` and `tape`" in text
    assert "fastest, in" not in text
    assert "in the one compared case, with no clear difference" in summary(
        case(row("tape", 1.001e-3, spread=0.1), row("graph", 1e-3, spread=-0.1))
    )


def test_the_winner_at_each_size_is_named_and_equal_outcomes_are_put_together():
    cases = [case(row("tape", t), row("graph", 1e-3), size=n) for n, t in ((1, 3e-3), (2, 2e-3), (3, 0.5e-3))]
    text = about(*cases)
    assert "In 2 cases (size=1; size=2) `graph` computes a gradient fastest; the next, `tape`, takes 2" in text
    assert "At size=3 `tape` computes a gradient fastest" in text
    assert "from `graph` in 2 and `tape` in 1 of 3 compared cases, each time clearly" in summary(*cases)


def test_break_even_is_told_with_its_interval_and_both_costs():
    text = about(case(row("tape", 3e-3), row("graph", 1e-3, once=0.1)))
    assert "`graph` has caught up with `tape` after 50 gradients (99 % interval 50 to 51)" in text or re.search(
        r"after 5\d gradients \(99 % interval \d+ to \d+\)", text
    )
    assert "what is paid once is 100 ms for `graph` and nothing for `tape`" in text


def test_a_tape_that_has_met_its_ops_before_pays_nothing_once():
    cold = case(row("tape", 3e-3, once=0.5), row("graph", 1e-3, once=0.1))
    text = about(cold)
    assert "`graph` is ahead of `tape` from the first gradient on" in text
    assert re.search(r"Where `tape` has met these ops before, it takes 5\d gradients \(99 % interval", text)
    assert sentences.break_even(cold, "graph", "tape", warm=True).estimate == pytest.approx(50, abs=2)


def test_never_catching_up_is_said():
    never = case(row("tape", 1e-3), row("graph", 2e-3, once=0.1))
    assert "`graph` never catches up with `tape`" in about(never)
    assert "pays never in 1 case (chain, size=8)" in summary(never)


def test_being_ahead_only_at_first_is_said():
    text = about(case(row("tape", 1e-3, once=0.5), row("graph", 2e-3, once=0.1)))
    assert re.search(r"`graph` is ahead of `tape` at first, which has caught up after \d+ gradients", text)
    assert "from the first gradient on" not in text


def test_the_recording_engine_whose_first_gradient_comes_soonest_is_compared_too():
    cases = [case(row("tape", 3e-3, once=0.5), row("graph", 1e-3, once=0.1), row("torch", 2e-3))]
    assert sentences.pairs([TAPE, GRAPH, TORCH], cases) == [("graph", "tape"), ("graph", "torch")]
    assert sentences.pairs([TAPE, GRAPH], cases) == [("graph", "tape")]
    assert sentences.pairs([TAPE], cases) == []
    assert sentences.pairs([GRAPH, TORCH], [case(row("torch", 1.0))]) == []


def test_the_earliest_and_the_latest_break_even_are_told():
    cases = [case(row("tape", t), row("graph", 1e-3, once=0.1), size=n) for n, t in ((1, 2e-3), (2, 11e-3))]
    text = summary(*cases)
    assert re.search(r"pays after 1\d gradients \(chain, size=2; .*\) at the earliest and after 1\d\d gradients", text)


def why(*cases):
    return "\n".join(sentences.summary(run(*cases)).get("Why?", ())).replace("\u00a0", " ")


def test_dispatch_is_told_as_a_share_with_its_interval_and_per_node():
    recorded = row("tape", 4e-3)
    recorded.counts = {"forward nodes": 10}
    text = why(case(recorded, row("graph", 1e-3)), case(row("tape", 1e-3), row("graph", 2e-3), size=99))
    share, low, high = re.search(
        r"(\S+) % in chain, size=8 \(99 % interval ([\d.]+) % to ([\d.]+) %; 300 µs for each of its 10 nodes; n = 5\)",
        text,
    ).groups()
    assert float(low) <= float(share) == 75 <= float(high)
    assert re.search(
        r"; nothing in chain, size=99, where `tape` is faster \(ratio of the times 0\.500? \(99 % interval", text
    )
    unclear = why(case(row("tape", 1.001e-3, spread=0.1), row("graph", 1e-3, spread=-0.1)))
    assert "saves nothing that is sure in chain, size=8: no clear difference (ratio of the times 1.0" in unclear
    assert why(case(row("graph", 1e-3))) == ""


def test_what_is_paid_once_is_told_with_the_compilers_share():
    compiled = row("graph", 1e-3, once=0.299)
    compiled.stages["trace"] = rs.Measurement((0.1, 0.1))
    text = why(case(row("tape", 3e-3, once=0.05), compiled))
    assert "`graph` 399 ms, 75 % of it in the compiler; `tape` 50 ms (medians of 1 case, n = 1 to 2, from" in text


def test_bytes_kept_are_told_at_both_ends():
    cases = []
    for n, saved in ((1, 40), (2, 4e6), (3, 500)):
        recorded, compiled = row("tape", 1.0), row("graph", 1.0)
        recorded.counts, compiled.counts = {"saved bytes": saved}, {"temp bytes": 10}
        cases.append(case(recorded, compiled, size=n))
    assert "40 B against 10 B in chain, size=1 and 4 MB against 10 B in chain, size=2 (counted" in why(*cases)


def test_wrong_gradients_are_named_loudly():
    good = row("tape", 1e-3)
    good.checks = [rs.Check("jax.grad (float64)", True, True, 0.0, 0.0, 0.0, "t")]
    text = summary(case(good, rs.Row("graph", "mismatch", "differs")))
    assert "1 is WRONG or not finite and not timed: `graph` in chain" in text
    assert "All 1 gradients (an engine on a case) agree with at least one witness" in text


def test_other_engines_are_no_deciding_witnesses():
    only = row("tape", 1e-3)
    only.checks = [rs.Check("graph", True, True, 0.0, 0.0, 0.0, "t")]
    assert "agree with" not in summary(case(only))


def test_skipped_and_failed_rows_and_comparisons_are_named_with_their_reasons():
    results = run(
        case(
            row("tape", 1e-3),
            rs.Row("graph", "failed", "ValueError: no\nsuch  shape."),
            rs.Row("torch", "skipped", "x"),
        ),
        engines=[TAPE, GRAPH, rs.EngineInfo("torch", "", "dynamic", "torch", "", False, "not installed")],
    )
    results.comparisons.append(rs.ComparisonResult("bad", "?", "", "", "failed", "bad.py:3: raises"))
    results.comparisons.append(rs.ComparisonResult("late", "?", "", "", "skipped", "the time budget was spent"))
    text = "\n".join(said(results))
    assert "`graph` failed in `chain` (1 case): ValueError: no such shape." in text
    assert text.count("`torch`") == 1
    assert "`torch` took no part: not installed." in text
    assert "Comparison `bad` failed: bad.py:3: raises" in text
    assert "Comparison `late` skipped: the time budget was spent" in text


def test_noise_is_counted():
    noisy = rs.Row("tape", "ok", stages={"forward+backward": rs.Measurement((1.0, 1.5, 2.0))})
    text = summary(case(noisy))
    assert "Of 1 timings, 1 is noisy (interquartile range over 10 % of the median), 1 of them very (over 25 %)" in text


def test_nothing_is_said_where_there_is_nothing():
    assert sentences.summary(rs.Results(rs.Settings())) == {}
    assert sentences.about(rs.ComparisonResult("x", "", "", ""), []) == []
    assert sentences.about(rs.ComparisonResult("x", "", "", "", cases=[case(row("tape", 1.0))]), [TAPE]) == []


def test_every_sentence_of_a_whole_run_has_its_number_and_ends():
    results = example.results()
    found = said(results)
    for comparison in results.comparisons:
        found += sentences.about(comparison, results.engines)
    for sentence in found:
        assert sentence.endswith("."), sentence
        assert re.search(r"\d", sentence) or "took no part" in sentence or sentence.startswith("Comparison"), sentence
        assert "nan" not in sentence
        assert " 1 gradients" not in sentence


def test_names_cannot_break_out_of_their_backticks():
    assert sentences.code("a`b") == "`a'b`"


def test_the_conditions_are_told_by_the_reference_kernel():
    calm, troubled = case(row("tape", 1e-3), row("graph", 2e-3)), case(row("tape", 1e-3), row("graph", 2e-3))
    calm.conditions = rs.Conditions((1e-4,) * 20)
    troubled.conditions = rs.Conditions((1e-4,) * 10 + (1.5e-4,) * 10, repeated=4, precise=False)
    text = summary(calm, troubled)
    assert "4 of 44 rounds of timing were done again" in text
    assert "became 50 % slower within a case" in text
    assert "In 1 of 2 cases the time was up" in text
    for said in ("done again", "slower within", "the time was up"):
        assert said not in summary(calm)
