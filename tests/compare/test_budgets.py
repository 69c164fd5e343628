"""Who is done first for how many gradients: against sums that are written out, and the map and table of it."""

import itertools
import json
import math

import example_results as example
import numpy as np
import pytest

from twograd.compare import budgets, charts, engines, stats, units
from twograd.compare import results as rs
from twograd.pictures import style


def row(engine, once, each, spread=0.0, builds=5):
    steady = tuple(each * (1 + spread * k) for k in (-3, -2, -1, 0, 1, 2, 3))
    stages = {"forward+backward": rs.Measurement(steady)}
    if once:
        stages["compile"] = rs.Measurement((once,) * builds)
        stages["first call"] = rs.Measurement((each,) * builds)
    return rs.Row(engine, "ok", stages=stages)


def case(*rows, **axes):
    axes = axes or {"size": 8}
    return rs.CaseResult(", ".join(f"{name}={value}" for name, value in axes.items()), axes, [*rows])


def names(rows):
    return [row.engine for row in rows]


def first_by_sums(rows, gradients):
    totals = {r.engine: stats.one_time_cost(r) + sum([r.stages["forward+backward"].median] * gradients) for r in rows}
    return min(totals, key=totals.get)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_to_be_done_is_the_one_whose_sum_is_the_least(seed):
    rng = np.random.default_rng(seed)
    rows = [row(f"e{i}", once, each) for i, (once, each) in enumerate(10 ** rng.uniform(-1, 2, (6, 2)))]
    found = case(*rows)
    takeovers = budgets.takeovers(found)
    assert takeovers[0][0] == 1
    for n in range(1, 400):
        expected = first_by_sums(rows, n)
        assert names(budgets.done_first(found, n))[0] == expected
        assert [r.engine for gradients, r in takeovers if gradients <= n][-1] == expected
    assert names(budgets.done_first(found, math.inf)) == [takeovers[-1][1].engine]


def test_what_is_not_clearly_behind_is_named_and_what_is_clearly_behind_is_not():
    found = case(row("autograd", 0, 5.0), row("graph", 100.0, 1.0, 0.01), row("jax-jit", 300.0, 1.001, -0.01))
    assert names(budgets.done_first(found, 1)) == ["autograd"]
    assert names(budgets.done_first(found, 1000)) == ["graph"]
    assert names(budgets.done_first(found, math.inf)) == ["graph", "jax-jit"]


def test_builds_that_differ_leave_a_first_gradient_open():
    compiled = row("graph", 1.0, 0.01)
    compiled.stages["compile"] = rs.Measurement((0.8, 0.9, 1.0, 1.1, 1.2))
    assert names(budgets.done_first(case(compiled, row("tape", 1.05, 0.02)), 1)) == ["graph", "tape"]
    assert names(budgets.done_first(case(compiled, row("tape", 1.3, 0.02)), 1)) == ["graph"]


def test_of_too_few_samples_nothing_is_claimed():
    rows = [row("graph", 1.0, 1.0), row("tape", 0, 100.0)]
    rows[1].stages["forward+backward"] = rs.Measurement((100.0,) * 4)
    assert names(budgets.done_first(case(*rows), 10)) == ["graph", "tape"]
    assert names(budgets.done_first(case(*rows), math.inf)) == ["graph", "tape"]


def test_what_is_surely_behind_is_what_the_interval_would_say():
    rng = np.random.default_rng(0)
    skipped = 0
    for once, each, gradients in itertools.product((0.0, 3.0), (1.0, 1.05, 1.4, 2.0), (1, 10, math.inf)):
        a, b = row("a", once, each, 0.02), row("b", 1.0, 1.0, 0.02)
        a.stages["forward+backward"] = rs.Measurement(tuple(each * rng.uniform(0.9, 1.1, 20)))
        if stats.surely_behind(a, b, gradients):
            skipped += 1
            assert stats.total_ratio(a, b, gradients).low > 1
    assert 5 < skipped < 24


def test_all_of_the_few_rounds_of_an_engine_that_left_early_are_drawn():
    early, late = row("a", 0, 1.0), row("b", 0, 1.0)
    early.stages["forward+backward"] = rs.Measurement((0.8, 0.9, 1.0, 1.1, 1.2))
    late.stages["forward+backward"] = rs.Measurement(tuple(np.random.default_rng(0).uniform(0.99, 1.01, 2000)))
    found, steady = stats.total_ratio(early, late, 10**9), stats.total_ratio(early, late, math.inf)
    assert (found.low, found.high) == pytest.approx((steady.low, steady.high), rel=0.01)
    assert found.low < 0.85 < 1.15 < found.high


def test_there_are_columns_as_far_as_something_changes():
    def headings(*rows):
        return budgets.budgets([("c", case(*rows))]).headings

    assert headings(row("tape", 0, 2.0), row("torch", 0, 4.0)) == ["≥ 1"]
    assert headings(row("tape", 1.0, 2.0), row("graph", 50.0, 1.0)) == ["1", "10", "≥ 100"]
    assert headings(row("tape", 1.0, 2.0), row("graph", 5e7, 1.0))[-2:] == ["10⁵", "∞"]
    assert budgets.budgets([("c", case(row("tape", 0, 2.0))), ("d", rs.CaseResult("only case", {}))]) is None


@pytest.fixture(scope="module")
def results():
    return example.results()


def test_the_table_says_what_the_map_shows_with_times(results):
    found = budgets.budgets(results.cases())
    shown, table = budgets.winners_by_budget(found), budgets.fastest_by_budget(found)
    assert [heading.text for heading in table.headings[1:]] == shown.columns
    assert [[item.text for item in line[1:]] for line in table.rows] == shown.engines
    for engines_, texts in zip(shown.engines, shown.texts, strict=True):
        assert all(text.split(",")[0] == engine for engine, text in zip(engines_, texts, strict=True))
    first, one = table.rows[0][:2]
    assert (first.text, first.detail, one.text) == ("op_chain", "size=8, depth=2", "autograd")
    row = results.comparisons[0].cases[0].row("autograd")
    assert one.detail.split(";")[0] == units.duration(stats.total_time(row, 1))
    assert shown.columns[-1] == "≥ 10⁴"
    assert all(" for 10⁴" in line[-1].detail for line in table.rows)
    together = [
        (text, item)
        for texts, line in zip(shown.texts, table.rows, strict=True)
        for text, item in zip(texts, line[1:], strict=True)
        if "," in text
    ]
    assert together
    for text, item in together:
        assert f"no clear difference: {text.split(', ')[1].split(' +')[0]}" in item.detail


def made(cases):
    """A map in which each of so many cases is won by other engines from column to column, one and two at a time."""
    everyone, counts = itertools.cycle(engines.ENGINES), len(budgets.BUDGETS)
    cells = [[next(everyone) for _ in range(counts)] for _ in range(cases)]
    texts = [[name if i % 3 else f"{name}, {next(everyone)} +4" for i, name in enumerate(line)] for line in cells]
    rows = [f"data_dependent_loop {i // 2}\nhidden={i}, batch=128" for i in range(cases)]
    columns = [*map(str, range(1, counts)), "≥ 10⁶"]
    return rs.Winners("Who", "gradients", "program", columns, rows, cells, texts)


def test_thirty_cases_and_all_engines_can_be_read():
    with style.drawing():
        chart = charts.winners(made(30), "s", "30 cases", "float32, cpu")
        chart.figure.draw_without_rendering()
        (axes,) = chart.figure.axes
        cells = [patch.get_window_extent() for patch in axes.patches]
        words = [text.get_window_extent() for text in axes.texts if text.get_label() != "_group"]
        above = [text.get_window_extent() for text in axes.texts if text.get_label() == "_group"]
        labels = [label.get_window_extent() for label in axes.get_yticklabels()]
        ticks = [label.get_window_extent() for label in axes.get_xticklabels()[: len(budgets.BUDGETS)]]
    assert len(cells) == len(words) == 210
    for cell, text in zip(cells, words, strict=True):
        assert cell.x0 - 1 <= text.x0
        assert text.x1 <= cell.x1 + 1
        assert cell.y0 <= text.y0
        assert text.y1 <= cell.y1
    assert len(above) == 15
    down = sorted([*labels, *above], key=lambda box: -box.y0)
    assert all(box.x0 >= 0 for box in down)
    assert all(one.y0 >= other.y1 for one, other in itertools.pairwise(down))
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(sorted(ticks, key=lambda box: box.x0)))
    said = {word.strip("-") for text in axes.texts for word in text.get_text().replace("-\n", "-").split()}
    assert set(engines.ENGINES) <= {word.rstrip(",") for word in said}


def test_neighbours_that_say_the_same_are_one_field_and_one_phrase():
    found = rs.Winners(
        "Who", "n", "program", ["1", "10", "≥ 100"], ["a", "b"],
        [["tape", "tape", "graph"], ["graph", "", "graph"]],
        [["tape", "tape", "graph"], ["graph", "", "graph"]],
    )  # fmt: skip
    with style.drawing():
        chart = charts.winners(found, "s", "c", "")
    assert len(chart.figure.axes[0].patches) == 4
    assert chart.description == (
        "In brackets, n. program a: tape (1 to 10), graph (≥ 100); program b: graph (1), graph (≥ 100)."
    )


def test_the_map_is_the_same_bytes_from_the_same_json(results):
    def drawn(found):
        with style.drawing():
            (chart,) = charts.of_summary(found.cases(), "float32, cpu")
            return style.svg_for_page(chart.figure, "map", chart.caption, chart.description)

    svg = drawn(rs.from_json(json.loads(json.dumps(rs.to_json(results)))))
    assert drawn(results) == svg
    assert "var(--graph)" in svg
