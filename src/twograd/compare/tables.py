"""The report's tables, as text that needs only to be set: in HTML by the templates, in Markdown by :func:`markdown`.

What flows in: results. What flows out: :class:`TextTable`. Read :func:`stage_tables`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from twograd.compare import stats
from twograd.compare.results import (
    ONE_TIME_STAGES,
    STEADY_STAGES,
    CaseResult,
    Cell,
    Check,
    ComparisonResult,
    EngineInfo,
    Measurement,
    Row,
    Table,
)
from twograd.compare.units import BYTES, FLOPS, NOTHING, SECONDS, Unit, common_unit, significant

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """What stands in one cell: ``text``, and in smaller type ``detail`` (a spread) and ``mark`` (a warning).

    ``tone`` says how it is meant; words say it too. ``quoted`` is text set as code.
    """

    text: str
    detail: str = ""
    mark: str = ""
    tone: Literal["", "good", "bad", "best", "faint"] = ""
    quoted: bool = False


ABSENT = Item(NOTHING, tone="faint")


@dataclass(frozen=True)
class Heading:
    """A column; ``numeric`` columns are set flush right. ``unit`` holds for all its numbers."""

    text: str
    unit: str = ""
    numeric: bool = True


@dataclass
class TextTable:
    """``rows`` begin with their heading."""

    caption: str
    headings: list[Heading]
    rows: list[list[Item]]
    note: str = ""


def markdown(table: TextTable) -> str:
    """As a GitHub table. What is between backticks stays as it is; pipes and line breaks are made harmless."""
    titles = [markdown_text(f"{h.text} ({h.unit})" if h.unit else h.text) for h in table.headings]
    lines = [
        _markdown_row(titles),
        _markdown_row(["---:" if h.numeric else ":---" for h in table.headings]),
        *(_markdown_row([_markdown_item(item) for item in row]) for row in table.rows),
    ]
    parts = [f"**{markdown_text(table.caption)}**", "\n".join(lines)]
    return "\n\n".join([*parts, markdown_text(table.note)] if table.note else parts)


def markdown_text(text: str) -> str:
    """Text in which nothing can open an HTML tag, a picture or a link; backticks still quote."""
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
    return text.replace("[", "\\[").replace("](", "]\\(")


def _markdown_item(item: Item) -> str:
    parts = [item.text, item.detail and f"({item.detail})", item.mark]
    text = markdown_text(" ".join(part for part in parts if part))
    return f"**{text}**" if item.tone in ("best", "bad") else text


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- what engines took ------------------------------------------------------------------------------------------------

SIZES = (
    ("forward nodes", "forward nodes", ()),
    ("derivative nodes", "forward + derivative nodes", ()),
    ("saved bytes", "saved for backward", BYTES),
    ("temp bytes", "XLA temporaries", BYTES),
    ("flops", "XLA operations", FLOPS),
    ("bytes accessed", "XLA bytes accessed", BYTES),
)


def stage_tables(case: CaseResult) -> list[TextTable]:
    """Of one case: what each engine pays once, what it pays at each call, and how large things are."""
    rows = [row for row in case.rows if row.status == "ok"]
    return [
        table
        for table in (
            _times(f"Paid once, {case.name}", rows, ONE_TIME_STAGES),
            _times(f"Paid at each call, {case.name}", rows, STEADY_STAGES),
            _sizes(f"Sizes, {case.name}", rows),
        )
        if table is not None
    ]


def _times(caption: str, rows: Sequence[Row], stages: Sequence[str]) -> TextTable | None:
    shown = [stage for stage in stages if any(stage in row.stages for row in rows)]
    rows = [row for row in rows if any(stage in row.stages for stage in shown)]
    if not rows:
        return None
    units = {s: common_unit((r.stages[s].median for r in rows if s in r.stages), SECONDS) for s in shown}
    return TextTable(
        caption,
        [Heading("engine", numeric=False), *(Heading(stage, units[stage].name) for stage in shown), Heading("n")],
        [
            [
                engine(row.engine),
                *(time_item(row.stages[s], units[s]) if s in row.stages else ABSENT for s in shown),
                Item(_samples(row, shown)),
            ]
            for row in rows
        ],
    )


def _samples(row: Row, stages: Sequence[str]) -> str:
    counts = sorted({len(row.stages[stage].seconds) for stage in stages if stage in row.stages})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _sizes(caption: str, rows: Sequence[Row]) -> TextTable | None:
    shown = [(key, title, units) for key, title, units in SIZES if any(key in row.counts for row in rows)]
    rows = [row for row in rows if row.counts]
    if not rows:
        return None
    units = {key: common_unit((r.counts[key] for r in rows if key in r.counts), u) for key, _, u in shown if u}

    def item(row: Row, key: str) -> Item:
        if key not in row.counts:
            return ABSENT
        return Item(units[key].write(row.counts[key]) if key in units else f"{row.counts[key]:g}")

    return TextTable(
        caption,
        [
            Heading("engine", numeric=False),
            *(Heading(title, units[key].name if key in units else "") for key, title, _ in shown),
        ],
        [[engine(row.engine), *(item(row, key) for key, _, _ in shown)] for row in rows],
    )


def time_item(measurement: Measurement, unit: Unit, tone: Literal["", "best"] = "") -> Item:
    """The median, with the interquartile range below it and a mark where it is wide."""
    detail = ""
    if len(measurement.seconds) > 1:
        detail = "–".join(unit.write(quartile) for quartile in measurement.quartiles)
    mark = stats.noise_mark(measurement)
    return Item(
        unit.write(measurement.median), detail, f"({mark}{100 * measurement.spread:.0f}%)" if mark else "", tone
    )


def gradient_times(cases: Sequence[CaseResult]) -> TextTable | None:
    """The steady time of forward+backward: a row per engine, a column per case; the shortest of each column marked."""
    timed = [(case, timed_rows(case)) for case in cases]
    timed = [(case, rows) for case, rows in timed if rows]
    if not timed:
        return None
    headings, columns = [Heading("engine", numeric=False)], []
    for case, rows in timed:
        unit = common_unit((row.stages["forward+backward"].median for row in rows), SECONDS)
        fastest = min(rows, key=lambda row: row.stages["forward+backward"].median)
        headings.append(Heading(case.name, unit.name))
        columns.append(
            {
                row.engine: time_item(row.stages["forward+backward"], unit, "best" if row is fastest else "")
                for row in rows
            }
        )
    names = list(dict.fromkeys(row.engine for _, rows in timed for row in rows))
    return TextTable(
        "One gradient (forward+backward), steady",
        headings,
        [[engine(name), *(column.get(name, ABSENT) for column in columns)] for name in names],
        "The shortest time of each case is set in bold.",
    )


def timed_rows(case: CaseResult) -> list[Row]:
    """The rows of a case that have a steady time per gradient; a clock that showed nothing has not timed it."""
    rows = [row for row in case.rows if row.status == "ok" and "forward+backward" in row.stages]
    return [row for row in rows if row.stages["forward+backward"].median > 0]


# --- whether they were right ------------------------------------------------------------------------------------------


def verdict(check: Check) -> Item:
    """In words."""
    if check.passed is None:
        return Item("no verdict", check.note, tone="faint")
    return Item("pass", tone="good") if check.passed else Item("FAIL", check.note, tone="bad")


def check_table(comparison: ComparisonResult, engines: Sequence[EngineInfo]) -> TextTable | None:
    """Each engine against the witnesses that decide, the worst over all cases."""
    names = {info.name for info in engines} | {row.engine for case in comparison.cases for row in case.rows}
    worst, counts = _worst(comparison, lambda check: check.witness not in names)
    if not worst:
        return None
    return TextTable(
        "Gradients against the witnesses that decide, worst of all cases",
        [
            Heading("engine", numeric=False),
            Heading("witness", numeric=False),
            Heading("other rules?", numeric=False),
            Heading("max abs error"),
            Heading("max rel error"),
            Heading("max ulp"),
            Heading("cases"),
            Heading("verdict", numeric=False),
        ],
        [
            [
                engine(name),
                Item(check.witness),
                Item("yes, independent") if check.independent else Item("no, shares rules", tone="faint"),
                Item(error_text(check.max_abs)),
                Item(error_text(check.max_rel)),
                ABSENT if check.max_ulps is None else Item(significant(check.max_ulps, 3)),
                Item(str(counts[name, check.witness])),
                verdict(check),
            ]
            for (name, _), check in worst.items()
        ],
        "Tolerance: "
        + "; ".join(dict.fromkeys(f"{c.witness}: {c.tolerance}" for c in worst.values()))
        + ". An error against finite differences is that of a directional derivative, which they do not know to the"
        " last place; ulp are units in the last place.",
    )


def agreement_table(comparison: ComparisonResult, engines: Sequence[EngineInfo]) -> TextTable | None:
    """Engines against each other: the largest relative error over all cases."""
    present = {row.engine for case in comparison.cases for row in case.rows if row.checks}
    names = [info.name for info in engines if info.name in present]
    worst, _ = _worst(comparison, lambda check: check.witness in present)
    if not worst:
        return None

    def item(name: str, witness: str) -> Item:
        check = worst.get((name, witness))
        if check is None:
            return ABSENT
        text = error_text(check.max_rel)
        if check.passed is False:
            return Item(text, "FAIL", tone="bad")
        return Item(text, "" if check.independent else "same rules", tone="" if check.independent else "faint")

    return TextTable(
        "Gradients against each other's, largest relative error of all cases",
        [Heading("engine", numeric=False), *(Heading(name) for name in names)],
        [[engine(name), *(item(name, witness) for witness in names)] for name in names],
        "Recorded, but without a vote: one wrong engine would convict the others.",
    )


def _worst(
    comparison: ComparisonResult, wanted: Callable[[Check], bool]
) -> tuple[dict[tuple[str, str], Check], dict[tuple[str, str], int]]:
    """By engine and witness: the check that went worst, and of how many cases."""
    worst: dict[tuple[str, str], Check] = {}
    counts: dict[tuple[str, str], int] = {}
    for case in comparison.cases:
        for row in case.rows:
            for check in filter(wanted, row.checks):
                key = row.engine, check.witness
                counts[key] = counts.get(key, 0) + 1
                if key not in worst or _badness(check) > _badness(worst[key]):
                    worst[key] = check
    return worst, counts


def _badness(check: Check) -> tuple[bool, float]:
    return check.passed is False, math.inf if math.isnan(check.max_rel) else check.max_rel


def error_text(error: float) -> str:
    """Errors differ by powers of ten."""
    return f"{error:.1e}" if math.isfinite(error) and error else significant(error)


def missing_table(comparison: ComparisonResult) -> TextTable | None:
    """Rows without timings, and why; cases of one engine with one reason are put together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for case in comparison.cases:
        for row in case.rows:
            if row.status != "ok":
                found.setdefault((row.engine, row.status, row.reason), []).append(case.name)
    if not found:
        return None
    tones: dict[str, Literal["bad", "faint"]] = {"mismatch": "bad", "failed": "bad"}
    everywhere = len(comparison.cases)
    return TextTable(
        "Engines without timings here",
        [Heading(text, numeric=False) for text in ("engine", "status", "cases", "reason")],
        [
            [
                engine(name),
                Item(status.upper() if status in tones else status, tone=tones.get(status, "")),
                Item("all" if len(cases) == everywhere else "; ".join(cases)),
                Item(reason),
            ]
            for (name, status, reason), cases in found.items()
        ],
    )


def break_even_table(cases: Sequence[CaseResult], pairs: Sequence[tuple[str, str]]) -> TextTable | None:
    """After how many gradients a compiled engine has caught up with one that records."""
    rows = []
    for case in cases:
        timed = {row.engine: row for row in timed_rows(case)}
        for compiled, recording in pairs:
            if compiled in timed and recording in timed:
                a, b = timed[compiled], timed[recording]
                even, steady = (
                    stats.break_even(a, b),
                    stats.ratio(b.stages["forward+backward"], a.stages["forward+backward"]),
                )
                rows.append(
                    [
                        Item(case.name),
                        engine(compiled),
                        engine(recording),
                        interval_item(even, "never"),
                        interval_item(steady),
                    ]
                )
    if not rows:
        return None
    return TextTable(
        "Break-even of compiling",
        [
            Heading("case", numeric=False),
            Heading("compiled", numeric=False),
            Heading("recording", numeric=False),
            Heading("gradients until even"),
            Heading("steady: recording / compiled"),
        ],
        rows,
        "In smaller type: 99 % bootstrap intervals. They reflect the spread of the steady times only.",
    )


def interval_item(interval: stats.Interval, infinite: str = "∞") -> Item:
    """An estimate with its interval."""

    def write(value: float) -> str:
        return infinite if math.isinf(value) else significant(value, 3)

    if interval.low == interval.high == interval.estimate:
        return Item(write(interval.estimate))
    return Item(write(interval.estimate), f"{write(interval.low)}–{write(interval.high)}")


def engine(name: str) -> Item:
    return Item(name, quoted=True)


def engines_table(engines: Sequence[EngineInfo]) -> TextTable:
    """Who takes part."""
    return TextTable(
        "Engines",
        [Heading(text, numeric=False) for text in ("engine", "what it is", "graph", "derivative rules of", "version")],
        [
            [
                engine(info.name),
                Item(info.title, info.about),
                Item("static: traced once" if info.kind == "static" else "dynamic: recorded at each call"),
                Item(info.rules),
                Item(info.version) if info.available else Item("absent", info.reason, tone="faint"),
            ]
            for info in engines
        ],
    )


# --- what experiments yield -------------------------------------------------------------------------------------------


def finding_table(table: Table) -> TextTable:
    """An experiment's own table; a column is numeric where all that stands in it is a number."""
    width = max([len(table.columns), *map(len, table.rows)])
    columns, units = _padded(table.columns, width, ""), _padded(table.units, width, "")

    def numeric(column: int) -> bool:
        cells = [row[column] for row in table.rows if column < len(row) and row[column] is not None]
        return bool(cells) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)

    return TextTable(
        table.title,
        [Heading(name, units[i], numeric(i)) for i, name in enumerate(columns)],
        [_padded([_cell(cell) for cell in row], width, ABSENT) for row in table.rows],
        table.note,
    )


def _padded(items: Sequence[T], width: int, filler: T) -> list[T]:
    return [*items, *[filler] * (width - len(items))][:width]


def _cell(cell: Cell) -> Item:
    if cell is None:
        return ABSENT
    if isinstance(cell, bool):
        return Item("yes" if cell else "no")
    if isinstance(cell, float):
        return Item(significant(cell))
    return Item(str(cell))
