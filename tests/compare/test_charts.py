"""What the charts hold: data, labels, units, n; and that a drawing is the same bytes twice."""

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ET

import example_results as example
import numpy as np
import pytest

from twograd.compare import charts, engines, sentences, stats, units
from twograd.compare import results as rs
from twograd.compare.tables import timed_rows
from twograd.pictures import style

SETUP = "float32, cpu, Example CPU, 2 cores"


@pytest.fixture(scope="module")
def results():
    return example.results()


@pytest.fixture
def case(results):
    return results.comparisons[0].cases[0]


@pytest.fixture(autouse=True)
def drawing():
    with style.drawing():
        yield


def lines_of(chart):
    """The lines that stand for engines or series, by their label."""
    return {line.get_label(): line for line in chart.figure.axes[0].lines if not str(line.get_label()).startswith("_")}


def texts_of(chart):
    return [text.get_text() for text in (*chart.figure.axes[0].texts, *chart.figure.texts)]


# --- style ------------------------------------------------------------------------------------------------------------


def test_every_line_stands_out_from_both_pages():
    for look in (*style.ENGINES.values(), *style.SERIES):
        assert style.contrast(look.color.light, style.PAPER.light) >= 3, look
        assert style.contrast(look.color.dark, style.PAPER.dark) >= 3, look
    for text in (style.INK, style.MUTED):
        assert style.contrast(text.light, style.PAPER.light) >= 4.5
        assert style.contrast(text.dark, style.PAPER.dark) >= 4.5


def test_every_engine_has_a_look_of_its_own():
    assert [*style.ENGINES] == [*engines.ENGINES]
    for attribute in ("color", "marker", "dashes"):
        assert len({getattr(style.ENGINES[name], attribute) for name in engines.USUAL}) == len(engines.USUAL), attribute
    looks = list(style.ENGINES.values())
    assert len({look.color for look in looks}) == len(looks)
    assert len({(look.marker, look.dashes) for look in looks}) == len(looks)  # in grey


def test_colours_and_variables_are_one_to_one():
    colors = style.colors()
    assert len({color.light for color in colors}) == len({color.variable for color in colors}) == len(colors)


def test_an_unknown_engine_has_a_look_that_does_not_change():
    assert style.engine_style("someone-elses") is style.engine_style("someone-elses")


@pytest.mark.parametrize(
    "wanted", [[0.5] * 8, [0.0, 0.0, 1.0, 1.0], [0.9, 0.1, 0.5], [0.98, 0.99, 1.2], [-0.4, 0.0, 0.01], [0.3], []]
)
def test_labels_keep_their_order_and_their_distance_within_the_axes(wanted):
    gap = 0.1
    places = style.spread(wanted, gap)
    ordered = sorted(places)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(ordered))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert np.array_equal(np.argsort(wanted, kind="stable"), np.argsort(places, kind="stable"))


def test_labels_that_have_room_stay_where_they_are():
    assert style.spread([0.2, 0.8, 0.5], 0.1) == [0.2, 0.8, 0.5]
    assert style.spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(
    ("low", "high"),
    [(280e-6, 1.6e-3), (880e-6, 1.17e-3), (0.96e-3, 1.3e-3), (1e-6, 1.3e-4), (3e-9, 40.0), (5e-5, 2.0), (1e-12, 1e90)],
)
def test_labels_along_a_logarithmic_axis_keep_apart_and_differ(which, low, high):
    figure, axes = style.new_axes(3.3, left=1.12, right=0.82)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    style.log_ticks(axes, which, units.scientific)
    figure.draw_without_rendering()
    axis = axes.xaxis if which == "x" else axes.yaxis
    ends = [
        (box.x0, box.x1) if which == "x" else (box.y0, box.y1)
        for box in (label.get_window_extent() for label in axis.get_ticklabels())
    ]
    assert 2 <= len(ends) <= 12
    assert all(after[0] - before[1] >= 3 for before, after in itertools.pairwise(ends))
    assert all(low <= tick <= high for tick in axis.get_majorticklocs())
    texts = [label.get_text() for label in axis.get_ticklabels()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("fastest", "slowest"), [(310e-6, 1.35e-3), (950e-6, 1.05e-3), (1.01e-3, 1.02e-3), (1e-8, 9.0)]
)
def test_times_along_an_axis_have_their_units_and_keep_apart(fastest, slowest):
    rows = [
        rs.Row(name, "ok", stages={"forward+backward": rs.Measurement((seconds,))})
        for name, seconds in (("tape", fastest), ("graph", slowest))
    ]
    chart = charts.steady_times(rs.CaseResult("c", {}, rows), "c", SETUP)
    chart.figure.draw_without_rendering()
    labels = chart.figure.axes[0].get_xticklabels()
    assert len({label.get_text() for label in labels}) == len(labels) >= 2
    assert all(label.get_text().split()[1] in ("ns", "µs", "ms", "s") for label in labels)
    boxes = [label.get_window_extent() for label in labels]
    assert all(before.x1 + 3 <= after.x0 for before, after in itertools.pairwise(boxes))


# --- the charts of a case -----------------------------------------------------------------------------------------


def test_steady_times_show_each_engines_median_and_all_samples(case):
    chart = charts.steady_times(case, "op_chain, " + case.name, SETUP)
    axes = chart.figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    medians = {row.engine: row.stages["forward+backward"].median for row in timed_rows(case)}
    assert names == sorted(medians, key=medians.get, reverse=True)  # upwards: the fastest on top
    drawn = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "", None)]
    assert set(medians.values()) <= set(drawn)
    samples = [line for line in axes.lines if line.get_label() == "_samples"]
    assert len(samples) == 2 * len(medians)
    assert np.isfinite(samples[0].get_xdata()).sum() == 2 * 21
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert low < min(medians.values()) < max(medians.values()) < high
    assert any("n = 21" in text and "p25 to p75" in text and SETUP in text for text in texts_of(chart))


def test_the_stack_of_one_time_stages_ends_at_their_sum(case):
    chart = charts.one_time_costs(case, "op_chain", SETUP)
    axes = chart.figure.axes[0]
    assert axes.get_xlabel() == "time until the first gradient (ms)"
    names = [label.get_text() for label in axes.get_yticklabels()]
    ends = {}
    for bar in axes.patches:
        y = round(bar.get_y() + bar.get_height() / 2)
        ends[names[y]] = max(ends.get(names[y], 0.0), bar.get_x() + bar.get_width())
    for row in case.rows:
        if row.status == "ok":
            paid = sum(row.stages[stage].median for stage in rs.ONE_TIME_STAGES if stage in row.stages)
            assert ends[row.engine] == pytest.approx(1e3 * paid)
    legend = [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert legend == list(rs.ONE_TIME_STAGES)


def test_without_one_time_stages_there_is_no_chart_of_them():
    row = rs.Row("tape", "ok", stages={"forward+backward": rs.Measurement((1.0, 1.1))})
    assert charts.one_time_costs(rs.CaseResult("c", {}, [row]), "c", SETUP) is None


def test_cumulative_times_are_what_is_paid_once_plus_n_times_the_median(case):
    chart = charts.cumulative_times(case, [("graph", "tape")], "op_chain", SETUP)
    lines = lines_of(chart)
    assert set(lines) == {row.engine for row in timed_rows(case)}
    for row in timed_rows(case):
        x, y = lines[row.engine].get_data()
        assert y[0] == pytest.approx(stats.total_time(row, 1))
        assert y[-1] == pytest.approx(stats.total_time(row, x[-1]))


def test_the_crossing_is_marked_where_the_lines_cross(case):
    even = sentences.break_even(case, "graph", "tape")
    chart = charts.cumulative_times(case, [("graph", "tape")], "op_chain", SETUP)
    (ring,) = [line for line in chart.figure.axes[0].lines if line.get_label() == "_crossing"]
    assert ring.get_xdata()[0] == even.estimate
    graph, tape = (case.row(name) for name in ("graph", "tape"))
    assert stats.total_time(graph, even.estimate) <= stats.total_time(tape, even.estimate)
    assert stats.total_time(graph, even.estimate - 1) > stats.total_time(tape, even.estimate - 1)
    assert f"graph passes tape: {even.estimate:g}" in texts_of(chart)
    assert f"after {even.estimate:g} gradients" in chart.caption


def test_two_crossings_have_their_texts_at_different_edges(case):
    chart = charts.cumulative_times(case, [("graph", "tape"), ("graph", "autograd")], "op_chain", SETUP)
    edges = [t.get_position()[1] for t in chart.figure.axes[0].texts if t.get_label() == "_crossing text"]
    assert len(edges) == len(set(edges)) == 2


def test_what_never_crosses_is_said_and_not_marked(case):
    chart = charts.cumulative_times(case, [("jax-eager", "autograd")], "op_chain", SETUP)
    assert not [line for line in chart.figure.axes[0].lines if line.get_label() == "_crossing"]
    assert "never catches up" in chart.caption


# --- the charts of a comparison ---------------------------------------------------------------------------------------


def test_scaling_follows_the_longest_line_of_cases_along_an_axis(results):
    cases = results.comparisons[0].cases
    by_size, by_depth = charts.longest_line(cases, "size"), charts.longest_line(cases, "depth")
    assert [case.axes for case in by_size] == [{"size": size, "depth": 2} for size in (8, 32, 256)]
    assert [case.axes for case in by_depth] == [{"size": 8, "depth": depth} for depth in (2, 16)]
    assert charts.longest_line(cases[:1], "size") is None
    assert charts.longest_line([rs.CaseResult("a", {"kind": "x"}), rs.CaseResult("b", {"kind": "y"})], "kind") is None


def test_scaling_shows_medians_and_quartiles_on_log_axes(results):
    cases = charts.longest_line(results.comparisons[0].cases, "size")
    chart = charts.scaling(cases, "size", "op_chain", SETUP)
    axes = chart.figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    x, y = lines_of(chart)["graph"].get_data()
    assert list(x) == [8, 32, 256]
    assert list(y) == [case.row("graph").stages["forward+backward"].median for case in cases]
    assert len(axes.collections) == 7  # one band per engine
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "32", "256"]
    assert "depth=2" in chart.caption


def test_line_labels_do_not_cover_each_other(results):
    cases = charts.longest_line(results.comparisons[0].cases, "size")
    chart = charts.scaling(cases, "size", "op_chain", SETUP)
    chart.figure.draw_without_rendering()
    axes = chart.figure.axes[0]
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 7
    assert all(above.y0 >= below.y1 - 1 for below, above in itertools.pairwise(boxes))
    assert all(box.x1 <= chart.figure.bbox.x1 for box in boxes)


def test_with_every_engine_all_names_are_there_and_apart():
    def case(size):
        stages = [
            {"first call": rs.Measurement((1.0,)), "forward+backward": rs.Measurement((size + i,))} for i in range(21)
        ]
        rows = [rs.Row(name, "ok", stages=each) for name, each in zip(engines.ENGINES, stages, strict=True)]
        return rs.CaseResult("c", {"size": size}, rows)

    drawn = [
        charts.steady_times(case(1), "c", SETUP),
        charts.one_time_costs(case(1), "c", SETUP),
        charts.cumulative_times(case(1), [], "c", SETUP),
        charts.scaling([case(1), case(2)], "size", "c", SETUP),
    ]
    for chart in drawn:
        chart.figure.draw_without_rendering()
        (axes,) = chart.figure.axes
        names = [text for text in (*axes.texts, *axes.get_yticklabels()) if text.get_text() in engines.ENGINES]
        assert {text.get_text() for text in names} == set(engines.ENGINES)
        boxes = sorted((text.get_window_extent() for text in names), key=lambda box: box.y0)
        assert all(above.y0 >= below.y1 - 1 for below, above in itertools.pairwise(boxes))
        page = chart.figure.bbox
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in boxes)


def test_an_axis_that_holds_zero_is_linear():
    def case(x):
        row = rs.Row("tape", "ok", stages={"forward+backward": rs.Measurement((1.0 + x, 1.1 + x))})
        return rs.CaseResult(f"x={x}", {"x": x}, [row])

    chart = charts.scaling([case(0), case(1)], "x", "c", SETUP)
    assert chart.figure.axes[0].get_xscale() == "linear"


def test_an_experiments_curves_keep_their_scales_and_leave_out_what_is_not_finite(results):
    (_, losses), (_, nodes) = charts.of_findings(results.comparisons[1], SETUP)
    assert lines_of(losses)["tape"].get_color() == style.ENGINES["tape"].color.light
    assert losses.figure.axes[0].get_ylabel() == "cross entropy"
    assert nodes.figure.axes[0].get_yscale() == "log"
    assert list(lines_of(nodes)["without passes"].get_ydata()) == [17, 60, 230, 911]
    assert "1 value that cannot be drawn left out" in nodes.caption


@pytest.mark.parametrize("y", [[], [math.nan, math.inf], [0.0, -1.0], [1.0, 1.0], [1e-300, 1e300]])
def test_curves_of_any_values_can_be_drawn(y):
    found = rs.Curves("t", "x", "y", [rs.Series("a", list(range(len(y))), list(y))], y_scale="log")
    chart = charts.curves(found, "stem", "c", SETUP)
    assert style.svg_for_page(chart.figure, "i", chart.caption, chart.description)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_drawing_is_the_same_bytes_twice(case):
    def drawn():
        chart = charts.cumulative_times(case, [("graph", "tape")], "op_chain", SETUP)
        return style.svg_of(chart.figure, "t", "d"), style.svg_for_page(chart.figure, "i", "t", "d")

    assert drawn() == drawn()


def test_a_drawing_for_the_page_takes_its_colours_from_it_and_says_what_it_shows(case):
    chart = charts.steady_times(case, "op_chain", SETUP)
    svg = style.svg_for_page(chart.figure, "chart-1", "The title", "a < b & c")
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "chart-1-title chart-1-desc"
    assert [child.text for child in root[:2]] == ["The title", "a < b & c"]
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    assert "var(--tape)" in svg
    assert not [color.variable for color in style.colors() if color.light in svg]
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("chart-1-") for name in ids)
    assert "<style" not in svg
    assert "<metadata" not in svg


def test_a_file_of_its_own_is_readable_on_any_background(case):
    svg = style.svg_of(charts.steady_times(case, "op_chain", SETUP).figure, "t", "d")
    assert "var(--" not in svg
    assert style.PAPER.light in svg
    assert ">autograd</text>" in svg  # text stays text


def test_png_is_150_dots_per_inch(case):
    png = style.png_of(charts.steady_times(case, "op_chain", SETUP).figure)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[16:20]) == round(style.WIDTH * 150)


def test_names_of_any_kind_can_be_drawn():
    name = "$\\frac{<b>\x00&\n\ud800"
    stages = {stage: rs.Measurement((1.0, 1.2)) for stage in ("forward", "forward+backward", "compile")}
    case = rs.CaseResult(name, {name: 1}, [rs.Row(name, "ok", stages=stages), rs.Row("tape", "ok", stages=stages)])
    comparison = rs.ComparisonResult(name, name, "", "", axes=[name], cases=[case])
    curves = rs.Curves(name, name, name, [rs.Series(name, [1, 2], [1.0, 2.0], name)])
    comparison.findings.append(curves)
    drawn = [*charts.of_comparison(comparison, [], SETUP), *(c for _, c in charts.of_findings(comparison, SETUP))]
    assert len(drawn) == 4
    for chart in drawn:
        root = ET.fromstring(style.svg_for_page(chart.figure, "i", chart.caption, chart.description).encode())
        assert not list(root.iter("{http://www.w3.org/2000/svg}b"))
        assert "/" not in chart.stem


def test_matplotlib_is_imported_only_when_something_is_drawn():
    code = "import sys, twograd.compare.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
