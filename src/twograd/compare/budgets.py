"""Which engine is done first, for how many gradients: the map of the report's opening page, and the same as a table.

What flows in: cases by the names of their comparisons. What flows out: :class:`Budgets`, and of it a
:class:`~twograd.compare.results.Winners` to be drawn and a :class:`~twograd.compare.tables.TextTable`. Read
:func:`done_first`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twograd.compare import stats
from twograd.compare.results import CaseResult, Row, Winners
from twograd.compare.tables import Heading, Item, TextTable, timed_rows
from twograd.compare.units import duration, scientific

GRADIENT = "forward+backward"

BUDGETS = (1, 10, 100, 1_000, 10_000, 100_000, math.inf)
"""Numbers of gradients, from a single one to a long training run, and beyond any: there the steady time decides."""


@dataclass(frozen=True)
class Budgets:
    """Who has so many gradients first: ``first`` holds, for each of ``cases`` and each of ``counts``, the row that is
    done first, then those that are not clearly behind it. After the last of the counts nothing changes."""

    counts: Sequence[float]
    cases: Sequence[tuple[str, CaseResult]]
    first: Sequence[Sequence[Sequence[Row]]]

    @property
    def headings(self) -> list[str]:
        last = self.counts[-1]
        return [*map(scientific, self.counts[:-1]), "∞" if math.isinf(last) else f"≥ {scientific(last)}"]


def budgets(named_cases: Sequence[tuple[str, CaseResult]]) -> Budgets | None:
    """Of the cases in which more than one engine was timed; None where there is none."""
    cases = [(comparison, case) for comparison, case in named_cases if len(timed_rows(case)) > 1]
    if not cases:
        return None
    lines = [[done_first(case, gradients) for gradients in BUDGETS] for _, case in cases]
    shown = len(BUDGETS)
    while shown > 1 and all(_names(line[shown - 1]) == _names(line[shown - 2]) for line in lines):
        shown -= 1
    return Budgets(BUDGETS[:shown], cases, [line[:shown] for line in lines])


def done_first(case: CaseResult, gradients: float) -> list[Row]:
    """The row that has so many gradients first, from empty caches, then those that are not clearly behind it."""
    rows = timed_rows(case)
    first = min(rows, key=lambda row: _time(row, gradients))
    return [
        first,
        *(
            row
            for row in rows
            if row is not first
            and not stats.surely_behind(row, first, gradients)
            and not stats.clearly_different(stats.total_ratio(row, first, gradients))
        ),
    ]


def _time(row: Row, gradients: float) -> float:
    """Seconds for so many gradients from empty caches; of infinitely many, for each."""
    return row.stages[GRADIENT].median if math.isinf(gradients) else stats.total_time(row, gradients)


def _names(rows: Sequence[Row]) -> list[str]:
    return [row.engine for row in rows]


def takeovers(case: CaseResult) -> list[tuple[float, Row]]:
    """Who is done first, by the medians, from which number of gradients on: each is faster than the one before it."""
    rows, gradients, found = timed_rows(case), 1.0, []
    while rows:
        first = min(rows, key=lambda row: (stats.total_time(row, gradients), row.stages[GRADIENT].median))
        found.append((gradients, first))
        steady = first.stages[GRADIENT].median
        rows = [row for row in rows if row.stages[GRADIENT].median < steady]
        gradients = min((stats.caught_up(row, first) for row in rows), default=math.inf)
    return found


def together(names: Sequence[str]) -> str:
    """Engines that do not differ clearly, the first of them by name."""
    return ", ".join(names[:2]) + (f" +{len(names) - 2}" if len(names) > 2 else "")


BUDGET_NOTE = (
    "Times are what is paid once plus the number of gradients times the steady median, from empty caches. Engines "
    "named together do not differ clearly."
)


def winners_by_budget(found: Budgets) -> Winners:
    """The map of them, to be drawn."""
    return Winners(
        "Which engine is done first, by the number of gradients",
        "gradients computed with one program",
        "program",
        found.headings,
        [_program_name(comparison, case) for comparison, case in found.cases],
        [[rows[0].engine for rows in line] for line in found.first],
        [[together(_names(rows)) for rows in line] for line in found.first],
        BUDGET_NOTE,
    )


def fastest_by_budget(found: Budgets) -> TextTable:
    """The same as a table, with the times, and with the names of all that do not differ clearly."""

    def item(rows: Sequence[Row], gradients: float) -> Item:
        first, *level = rows
        last = f" for {scientific(gradients)}" if gradients == found.counts[-1] else ""
        each = " each" if math.isinf(gradients) else last
        details = [
            f"{duration(_time(first, gradients))}{each}",
            *([f"no clear difference: {', '.join(_names(level))}"] if level else []),
        ]
        return Item(first.engine, "; ".join(details), quoted=True)

    return TextTable(
        "The engine that is done first, and its time, by the number of gradients",
        [Heading("program", numeric=False), *(Heading(heading, numeric=False) for heading in found.headings)],
        [
            [Item(comparison, case.name), *map(item, line, found.counts)]
            for (comparison, case), line in zip(found.cases, found.first, strict=True)
        ],
        BUDGET_NOTE,
    )


def _program_name(comparison: str, case: CaseResult) -> str:
    return f"{comparison}\n{case.name}" if case.axes else comparison
