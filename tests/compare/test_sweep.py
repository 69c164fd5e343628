"""The sweep: its verdicts on made-up times, whose winners are known, its map, and a whole small run."""

import dataclasses
import math
import types

import pytest

from twograd.compare import charts, program, report, runner, stats, sweep, terminal
from twograd.compare import results as rs
from twograd.pictures import style


def row(engine, once, each, flops=0.0):
    stages = {"first call": rs.Measurement((once + each,) * 7), "forward+backward": rs.Measurement((each,) * 7)}
    return rs.Row(engine, "ok", stages=stages, counts={"flops": flops, "bytes accessed": 10.0} if flops else {})


def case(*rows, length=1, size=1):
    axes: dict[str, int | float | str] = {"length": length, "size": size}
    return rs.CaseResult(runner.case_name(axes), axes, [*rows])


COMPILED, RECORDING = row("graph", 10.0, 1.0), row("tape", 1.0, 2.0)


@pytest.mark.parametrize("rate", [0.0, 0.0625, 0.109375, 0.5, 1.0])
def test_break_even_with_new_shapes_is_where_the_sums_cross(rate):
    def total(once, each, n):
        return sum(each + (once if i == 0 else rate * once) for i in range(n))

    sums = [n for n in range(1, 2000) if total(10.0, 1.0, n) <= total(1.0, 2.0, n) + 1e-9]
    found = stats.break_even(COMPILED, RECORDING, new_shapes=rate)
    assert found.estimate == (sums[0] if sums else math.inf)
    assert (found.estimate == math.inf) == (rate > 1 / 9)


@pytest.mark.parametrize(
    ("rate", "names", "after"), [(0.0, ["graph"], 9.0), (0.0625, ["graph"], 20.0), (0.5, ["tape"], 1.0)]
)
def test_who_wins_and_after_how_many_gradients(rate, names, after):
    found, interval, never = sweep.verdict(case(COMPILED, RECORDING, row("slow", 20.0, 3.0)), rate)
    assert (found, interval.estimate) == (names, after)
    assert never == (["slow"] if names == ["graph"] else ["graph", "slow"])


def test_engines_that_do_not_differ_win_together():
    found, after, never = sweep.verdict(case(COMPILED, row("jax-jit", 10.5, 1.0), RECORDING), 0.0)
    assert (found[0], after.estimate, never) == ("graph", 9.0, ["jax-jit"])
    noisy = rs.Measurement((0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4))
    level = row("jax-jit", 11.0, 1.0)
    level.stages["forward+backward"] = noisy
    found, after, never = sweep.verdict(case(row("graph", 12.0, 1.0), level, RECORDING), 0.0)
    assert set(found) == {"graph", "jax-jit"}
    assert never == []


def test_the_map_says_its_verdicts_in_words_and_a_hostile_name_stays_text(tmp_path):
    hostile = "</text><script>alert(1)</script>"
    cases = [case(COMPILED, RECORDING), case(row("graph", 10.0, 3.0), row(hostile, 1.0, 2.0), size=2)]
    winners, table, *_ = sweep.winners(cases, 0.0)
    assert isinstance(winners, rs.Winners)
    assert isinstance(table, rs.Table)
    assert winners.engines == [["graph", hostile]]
    assert winners.texts == [["graph\nafter 9", f"{hostile}\nfrom the first"]]
    assert table.rows[0][:6] == [1, 1, "graph", 9.0, 9.0, 9.0]
    with style.drawing():
        chart = charts.winners(winners, "sweep-0", "sweep", "float32, cpu")
    assert "In brackets, size. length 1: graph after 9 (1)" in chart.description
    assert "graph\nafter 9" in [text.get_text() for text in chart.figure.axes[0].texts]
    assert len(chart.figure.axes[0].patches) == 2
    found = rs.ComparisonResult("sweep", "q", "", "", cases=cases, findings=[rs.plain(winners), rs.plain(table)])
    page = report.write_report(rs.Results(rs.Settings(), comparisons=[found]), tmp_path).read_text(encoding="utf-8")
    assert "after 9" in page
    assert "<script>alert" not in page


def test_whoever_was_timed_alone_has_won_nothing(monkeypatch):
    monkeypatch.setattr(sweep, "peaks", lambda _: sweep.Peaks(1.0, 1.0, 1.0))
    cases = [case(COMPILED, RECORDING), case(row("tape", 1.0, 2.0), length=2)]
    found = list(sweep.experiment(types.SimpleNamespace(cases=cases)))
    assert "`graph` in the one compared case" in found[0].text
    drawn = [finding for finding in found if not isinstance(finding, rs.Observation)]
    assert [finding.kind for finding in drawn] == ["winners"] * 3 + ["table"] * 3
    assert all(finding.rows == ["1"] for finding in drawn[:3])
    assert not list(sweep.experiment(types.SimpleNamespace(cases=cases[1:])))


def test_the_summary_counts_the_cases_won_for_each_share_of_new_shapes():
    cases = [case(COMPILED, RECORDING), case(COMPILED, RECORDING, length=2)]
    text = sweep.summary(cases).text.replace("\u00a0", " ")
    assert "where 0 % of the calls have a new shape, `graph` in all 2 compared cases" in text
    assert "where 100 % of the calls have a new shape, `tape` in all 2 compared cases" in text


def test_the_terminal_prints_the_map(capsys):
    found = rs.ComparisonResult("sweep", "q", "", "", cases=[case(COMPILED, RECORDING)])
    found.findings = [*sweep.winners(found.cases, 0.0)]
    terminal.show_timings(terminal.console("never"), rs.Results(rs.Settings(), comparisons=[found]))
    out = " ".join(capsys.readouterr().out.split())
    assert "Which engine wins in the long run" in out
    assert "after 9" in out
    assert "length" in out


def test_no_cell_no_colour():
    found = rs.Winners("t", "x", "y", ["1", "2"], ["1"], [["", "tape"]], [["", "tape"]])
    with style.drawing():
        chart = charts.winners(found, "s", "n", "")
    assert len(chart.figure.axes[0].patches) == 1
    assert chart.description == "In brackets, x. y 1: tape (2)."


def test_the_roof_is_the_lower_of_the_two_peaks():
    cases = [case(row("graph", 1.0, 2.0, flops=f), row("torch", 0.0, 4.0), size=s) for s, f in ((1, 5.0), (2, 1000.0))]
    curves, table, told = sweep.roofline(cases, sweep.Peaks(flops=100.0, memory=10.0, cache=20.0))
    assert isinstance(curves, rs.Curves)
    assert isinstance(table, rs.Table)
    assert isinstance(told, rs.Observation)
    cache, memory, graph, torch = curves.series
    for roof, heights in ((cache, [10e-9, 100e-9, 100e-9]), (memory, [5e-9, 50e-9, 100e-9])):
        height = dict(zip(roof.x, roof.y, strict=True))
        assert [height[x] for x in (min(height), 5.0, max(height))] == pytest.approx(heights)
    assert (list(graph.x), graph.y, torch.y) == ([0.5, 100.0], [2.5e-9, 500e-9], [1.25e-9, 250e-9])
    assert [r[3] for r in table.rows] == pytest.approx([0.5e6, 10e6])
    assert "Nearest to the roof comes `graph` at length=1, size=2" in told.text


def test_dispatch_is_the_time_on_one_element():
    cases = [case(row("tape", 1.0, each), length=2, size=size) for size, each in ((1, 6.0), (8, 24.0))]
    (table,) = sweep.cost_per_op(cases)
    assert isinstance(table, rs.Table)
    assert table.rows == [["tape", 1e6, 4e6, 3e6, 25.0]]


def test_a_whole_sweep(timed, monkeypatch):
    (declaration,) = program.find([str(sweep.PATH)])
    comparison = dataclasses.replace(sweep.comparison, quick=program.grid(length=(1, 2), size=(1, 4)))
    monkeypatch.setattr(type(declaration), "load", lambda _: comparison)
    (found,) = runner.run([declaration], dataclasses.replace(timed, engines=["jax-jit", "autograd"])).comparisons
    assert (found.status, found.error) == ("done", "")
    kinds = [finding.kind for finding in found.findings]
    assert kinds.count("winners") == len(sweep.RATES)
    assert kinds.count("curves") == 1
