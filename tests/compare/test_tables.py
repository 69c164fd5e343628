"""Numbers and tables as text: four figures, one unit per column, nothing that could be taken for markup."""

import math

import example_results as example
import pytest

from twograd.compare import results as rs
from twograd.compare import tables, units


@pytest.fixture(scope="module")
def results():
    return example.results()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"), (1234567.0, "1235000"), (12.0, "12"), (11.99999, "12.00"), (0, "0"),
        (3e-9, "3e-09"), (-3.25, "-3.250"), (5e-324, "4.94e-324"), (1e300, "1e+300"),
        (math.inf, "∞"), (-math.inf, "-∞"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_at_most_four_significant_figures(value, text):
    assert units.significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (9.9996e-4, "1.00 ms"),
        (0.99999, "1.00 s"),
        (1.5e-7, "150 ns"),
        (75.0, "75 s"),
        (0.0, "0 s"),
        (1e-12, "0.00100 ns"),
    ],
)
def test_a_duration_has_the_unit_that_suits_it_after_rounding(seconds, text):
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("values", "unit"),
    [([2e-6, 1e-3], "µs"), ([6e-4, 1.5], "ms"), ([3.0, 9e9], "s"), ([1e-12], "ns"), ([], "s"), ([math.nan, 0.0], "s")],
)
def test_one_unit_for_a_column(values, unit):
    assert units.common_unit(values, units.SECONDS).name == unit


def test_lists_and_plurals():
    assert units.listed([]) == ""
    assert units.listed(["a"]) == "a"
    assert units.listed(["a", "b", "c"]) == "a, b and c"
    assert units.plural(1, "case") == "1 case"
    assert units.plural(2, "case") == "2 cases"


def cells(table, column):
    index = [heading.text for heading in table.headings].index(column)
    return {row[0].text: row[index] for row in table.rows}


def test_a_stage_table_has_medians_in_its_columns_unit_and_dashes_where_a_stage_does_not_apply(results):
    case = results.comparisons[0].cases[0]
    once, steady, sizes = tables.stage_tables(case)
    compile_heading = next(heading for heading in once.headings if heading.text == "compile")
    assert compile_heading.unit == "ms"
    graph = case.row("graph")
    assert cells(once, "compile")["graph"].text == units.significant(graph.stages["compile"].median / 1e-3)
    assert cells(once, "compile")["tape"] is tables.ABSENT
    low, high = graph.stages["forward+backward"].quartiles
    unit = next(u for u in units.SECONDS if u.name == next(h.unit for h in steady.headings if h.text == "forward"))
    assert cells(steady, "forward+backward")["graph"].detail == f"{unit.write(low)}–{unit.write(high)}"
    assert cells(steady, "n")["graph"].text == "21"
    assert cells(sizes, "forward nodes")["tape"].text == "10"
    assert "torch" not in cells(once, "n")


def test_a_noisy_timing_is_marked_with_its_spread():
    quiet, noisy = rs.Measurement((1.0, 1.0, 1.01)), rs.Measurement((1.0, 1.5, 2.0))
    assert tables.time_item(quiet, units.SECONDS[-1]).mark == ""
    assert tables.time_item(noisy, units.SECONDS[-1]).mark == "(!!33%)"
    assert tables.time_item(rs.Measurement((1.0,)), units.SECONDS[-1]).detail == ""


def test_the_fastest_of_each_case_is_marked(results):
    cases = results.comparisons[0].cases
    table = tables.gradient_times(cases)
    for column, case in enumerate(cases, start=1):
        best = [row[0].text for row in table.rows if row[column].tone == "best"]
        timed = {row.engine: row.stages["forward+backward"].median for row in tables.timed_rows(case)}
        assert best == [min(timed, key=timed.get)]


def test_checks_say_in_words_whether_they_passed_and_are_independent(results):
    comparison = results.comparisons[0]
    table = tables.check_table(comparison, results.engines)
    assert len(table.rows) == 14  # seven engines, two witnesses; the other engines have no vote
    assert {row[7].text for row in table.rows} == {"pass"}
    by_jax = {row[0].text: row[2].text for row in table.rows if row[1].text.startswith("jax.grad")}
    assert by_jax["graph"] == "yes, independent"
    assert by_jax["jax-jit"] == "no, shares rules"
    assert {row[6].text for row in table.rows} == {"4"}


def test_the_worst_check_of_all_cases_is_told():
    good = rs.Check("jax.grad (float64)", True, True, 1e-8, 1e-7, 1.0, "t")
    bad = rs.Check("jax.grad (float64)", True, False, 0.5, math.nan, math.nan, "t", "largest in params['w']")
    kink = rs.Check("finite differences (float64)", True, None, 0.1, 0.1, None, "t", "across a kink")
    rows = [rs.Row("tape", "ok", checks=[good, kink]), rs.Row("tape", "mismatch", checks=[bad])]
    comparison = rs.ComparisonResult(
        "x", "", "", "", cases=[rs.CaseResult(str(i), {}, [r]) for i, r in enumerate(rows)]
    )
    table = tables.check_table(comparison, [])
    reference, differences = table.rows
    assert reference[7].text == "FAIL"
    assert reference[7].detail == "largest in params['w']"
    assert reference[4].text == "nan"
    assert differences[7].text == "no verdict"
    assert differences[5] is tables.ABSENT


def test_engines_that_share_rules_are_told_apart_in_the_agreement_table(results):
    table = tables.agreement_table(results.comparisons[0], results.engines)
    assert cells(table, "graph")["tape"].detail == "same rules"
    assert cells(table, "graph")["autograd"].detail == ""
    assert cells(table, "tape")["tape"] is tables.ABSENT


def test_missing_rows_are_named_once_with_their_reason(results):
    table = tables.missing_table(results.comparisons[0])
    (row,) = table.rows
    assert [item.text for item in row] == ["torch", "skipped", "all", "not installed (pip install 'twograd[torch]')"]
    assert tables.missing_table(results.comparisons[1]) is None


def test_break_even_has_its_interval_or_says_never(results):
    cases = results.comparisons[0].cases
    table = tables.break_even_table(cases, [("graph", "tape")])
    assert len(table.rows) == 4
    assert table.rows[0][3].detail
    table = tables.break_even_table(cases[:1], [("jax-eager", "autograd")])
    assert table.rows[0][3].text == "never"


def test_an_experiments_table_keeps_its_units_and_writes_what_is_missing(results):
    table = tables.finding_table(results.comparisons[1].findings[3])
    assert [heading.numeric for heading in table.headings] == [True, True, True, False]
    assert table.headings[2].unit == "ms"
    assert [item.text for item in table.rows[0]] == ["1", "12", "0.01235", "yes"]
    assert table.rows[1][2].text == "nan"
    assert table.rows[1][3] is tables.ABSENT


def test_markdown_cannot_be_broken_out_of():
    headings = [tables.Heading("a|b", numeric=False), tables.Heading("n")]
    hostile = "x | y\n<script>alert(1)</script> [a](javascript:alert(1))"
    lines = tables.markdown(tables.TextTable("t", headings, [[tables.Item(hostile), tables.Item("1")]])).splitlines()
    assert lines[2] == "| a\\|b | n |"
    assert lines[3] == "| :--- | ---: |"
    assert len(lines) == 5
    assert "<" not in lines[4]
    assert "](" not in lines[4]
    assert lines[4].count(" | ") == 1
