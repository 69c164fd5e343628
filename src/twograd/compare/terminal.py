"""Results as tables on the terminal, and the progress of a run; everything that needs rich.

Tables follow torch.utils.benchmark: medians, one unit per table, at most four significant figures, a mark where the
interquartile range is more than 10 % (``!``) or 25 % (``!!``) of the median.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from twograd._console import console as console
from twograd.compare import results, stats
from twograd.compare.changes import Changes, summary
from twograd.compare.check import REFERENCE
from twograd.compare.corners import Corners
from twograd.compare.engines import USUAL, Engine
from twograd.compare.program import Declaration
from twograd.compare.results import CaseResult, Check, ComparisonResult, Line, Measurement, Results, Row, Trace
from twograd.compare.runner import Progress
from twograd.compare.units import duration, percent, plural, significant, size

CHANGE_STYLE = {"slower": "bold red", "faster": "green", "no clear difference": "dim"}

STATUS_STYLE = {"ok": "green", "mismatch": "bold red", "failed": "bold red", "skipped": "yellow"}

UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))

BAR = 16
"""Columns of the bar of the slowest line."""

TIMED = ("forward", "forward+backward", "step")


@contextlib.contextmanager
def progress(color: str) -> Iterator[Progress]:
    """One line that changes on a terminal, one line per cell elsewhere. Nothing moves between two calls of it: a screen
    that refreshes itself would disturb what is being timed."""
    screen, start, last = console(color, stderr=True), time.monotonic(), ""
    with Live(console=screen, auto_refresh=False, transient=True) as live:

        def tell(cell: str, doing: str) -> None:
            nonlocal last
            elapsed = f"{time.monotonic() - start:5.0f} s  "
            if screen.is_terminal:
                live.update(Text(f"{elapsed}{cell} {doing}", no_wrap=True, overflow="ellipsis"), refresh=True)
            elif cell != last:
                print(f"{elapsed}{cell}", file=sys.stderr, flush=True)
            last = cell

        yield tell


def show_list(screen: Console, declarations: Sequence[Declaration], engines: Sequence[Engine]) -> None:
    comparisons = _table("Comparisons", "name", "the question that it answers")
    for declaration in declarations:
        comparisons.add_row(declaration.name, escape(declaration.question))
    screen.print(comparisons)
    table = _table("Engines", "name", "what it is", "kind", "runs", "here")
    for engine in engines:
        reason = engine.unavailable()
        here = Text(reason, style="yellow") if reason else Text(engine.version(), style="green")
        runs = "by default" if engine.name in USUAL else "if named"
        table.add_row(engine.name, escape(engine.title), engine.kind, runs, here)
    screen.print(table)
    screen.print("Named by --engines, an engine runs each comparison's timed program, or its row says why it cannot.")


def show_checks(screen: Console, found: Results) -> None:
    """Every gradient with its largest errors."""
    for comparison in found.comparisons:
        for case in comparison.cases:
            table = _table(f"{comparison.name} [{case.name}], gradients", "engine", "status")
            for column in ("max abs", "max rel", "ulps", "agree"):
                table.add_column(column, justify="right")
            for row in case.rows:
                table.add_row(row.engine, _status(row), *_errors(row.checks))
            screen.print(table)
        _show_reasons(screen, comparison)
        _show_findings(screen, comparison)
    if any(comparison.cases for comparison in found.comparisons):
        _footer(
            screen,
            "Errors are against jax.grad in float64. 'agree' counts the witnesses that agree and stand on other "
            "derivative rules than the engine's own (finite differences, JAX, PyTorch, HIPS autograd).",
        )


def show_timings(screen: Console, found: Results) -> None:
    """Per case, the engines and their steady stages, with the ratio of forward+backward to the best."""
    for comparison in found.comparisons:
        for case in comparison.cases:
            screen.print(_timing_table(comparison, case))
        _show_reasons(screen, comparison)
        _show_findings(screen, comparison)
    if any(comparison.cases for comparison in found.comparisons):
        _footer(
            screen,
            "Medians. 'first' is the time from the program to its first gradient (tracing, compiling, first call). '!' "
            "and '!!': the interquartile range exceeds 10 % or 25 % of the median; run again on a quiet machine.",
        )


def show_corners(screen: Console, found: Corners) -> None:
    """The four corners as columns; what does not agree is marked."""
    table = _table(found.table.title, *map(escape, found.table.columns))
    for column in table.columns[1:]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    for label, *cells in found.table.rows:
        table.add_row(label, *(Text(cell, style="bold red" if cell.startswith("NO") else "") for cell in cells))
    screen.print(table)
    for note in found.table.notes:
        _footer(screen, note)


def show_lines(screen: Console, found: Trace) -> None:
    """Each line of the program, and below it its nodes, its equations and its derivative's, side by side."""
    screen.print(Text(found.name, style="bold"))
    for label, text in (
        ("inputs", ", ".join(" is ".join(i.split(maxsplit=1)) for i in found.inputs)),
        ("results", found.outputs),
    ):
        screen.print(Text(f"{label}: {text}"))
    columns = ("tape nodes", "equations of the program", "equations of the derivative")
    screen.print(_side_by_side([[Text(column, style="bold")] for column in columns]))
    slowest = max((line.seconds for line in found.lines), default=0.0)
    for line in found.lines:
        number = f"{line.number:>4}" if line.number else "    "
        screen.print(Text(f"{number}  {line.source}", style="cyan"), soft_wrap=True)
        cells = (line.nodes, line.program, line.derivative)
        if line.seconds or line.saved_bytes:
            screen.print(Text.assemble("      ", _share(line.seconds, slowest), _costs(line)))
        if any(cells):
            screen.print(_side_by_side([[Text(part.text) for part in parts] for parts in cells]))
    _footer(
        screen,
        "A node is recorded for an equation, number by number; '<- sin.3' marks what the rule of equation 3, a sin, "
        "emitted. Parameters that are long are left out.",
    )
    if found.passes:
        _footer(
            screen,
            f"Times are of a line's equations, each by itself, with what it costs to call it and to wait for its "
            f"result: medians of {plural(found.passes, 'pass', 'passes')} over the program and its derivative, "
            f"{duration(sum(line.seconds for line in found.lines))} together. Compiled together, lines have no times "
            f"of their own.",
        )


def _share(seconds: float, slowest: float) -> Text:
    """A bar as long as the line's share of the slowest one's time."""
    length = round(BAR * seconds / slowest) if slowest else 0
    return Text.assemble(("━" * length, "cyan"), ("─" * (BAR - length), "dim"), "  ") if slowest else Text()


def _costs(line: Line) -> str:
    parts = [f"{duration(line.program_seconds)} in the program"] if line.program_seconds else []
    parts += [f"{duration(line.derivative_seconds)} in its derivative"] if line.derivative_seconds else []
    parts += [f"{size(line.saved_bytes)} kept"] if line.saved_bytes else []
    return ", ".join(parts)


def _side_by_side(columns: Sequence[Sequence[Text]]) -> Padding:
    grid = Table.grid(padding=(0, 2), expand=True)
    for _ in columns:
        grid.add_column(ratio=1, overflow="fold")
    grid.add_row(*(Group(*texts) for texts in columns))
    return Padding(grid, (0, 0, 0, 6))


def show_changes(screen: Console, found: Changes, relative_to: str | None) -> None:
    """What else differs, then statuses, times and sizes."""
    if found.environment:
        table = _table("What else differs", "what", "before", "after")
        for difference in found.environment:
            table.add_row(*map(escape, (difference.what, difference.before, difference.after)))
        screen.print(table)
    else:
        screen.print("Versions, machine and settings are the same.")
    if found.statuses:
        table = _table("Rows with another status", "row", "before", "after", "reason")
        for place, difference in found.statuses:
            table.add_row(*map(escape, (str(place), difference.before, difference.after, difference.what)))
        screen.print(table)
    if found.times:
        unit = unit_for([m for change in found.times for m in (change.before, change.after)])
        ratio = "after / before" if relative_to is None else f"the same, in multiples of {relative_to}"
        table = _table(f"Times in {unit}", "row", "stage", "before", "after", escape(ratio), "")
        for column in table.columns[2:5]:
            column.justify = "right"
        for change in found.times:
            table.add_row(
                escape(str(change.place)),
                change.stage,
                in_unit(change.before.median, unit),
                in_unit(change.after.median, unit),
                _interval(change.ratio),
                Text(change.verdict, style=CHANGE_STYLE[change.verdict]),
            )
        screen.print(table)
        screen.print(summary(found))
    if found.sizes:
        table = _table("Sizes that changed", "row", "what", "before", "after")
        for change in found.sizes:
            table.add_row(escape(str(change.place)), change.what, f"{change.before:g}", f"{change.after:g}")
        screen.print(table)
    _footer(
        screen,
        f"Intervals ({percent(stats.CONFIDENCE)}) are of the samples within each run. What differs from run to run as "
        "a whole is not in them: compare two runs of one version to see how much that is, or take times --relative-to "
        "an engine.",
    )


def _interval(ratio: stats.Interval) -> str:
    return f"{ratio.estimate:.3g} ({ratio.low:.3g} to {ratio.high:.3g})"


def show_outcome(screen: Console, found: Results) -> None:
    """One line per comparison."""
    for comparison in found.comparisons:
        statuses = [row.status for case in comparison.cases for row in case.rows]
        counts = ", ".join(f"{statuses.count(s)} {s}" for s in STATUS_STYLE if s in statuses)
        screen.print(f"{comparison.name}: {comparison.status} in {comparison.seconds:.0f} s ({counts or 'no rows'})")
        _show_reasons(screen, comparison)


def in_unit(seconds: float, unit: str) -> str:
    """Four significant figures, never with an exponent."""
    return np.format_float_positional(seconds / dict(UNITS)[unit], precision=4, fractional=False, trim="-")


def unit_for(measurements: Sequence[Measurement]) -> str:
    """The largest unit in which the fastest of them is at least 1."""
    fastest = min((m.median for m in measurements), default=1.0)
    return next((unit for unit, size in UNITS if fastest >= size), "ns")


def _timing_table(comparison: ComparisonResult, case: CaseResult) -> Table:
    timed = [row for row in case.rows if "forward+backward" in row.stages]
    unit = unit_for([row.stages[stage] for row in timed for stage in TIMED if stage in row.stages])
    table = _table(f"{comparison.name} [{case.name}], times in {unit}", "engine")
    for column in ("first", "forward", "fwd+bwd", "step", "x best"):
        table.add_column(column, justify="right", no_wrap=True)
    fastest = min((row.stages["forward+backward"].median for row in timed), default=0.0)
    for row in case.rows:
        if row not in timed:
            table.add_row(row.engine, _status(row))
            continue
        cells = [_timing(row.stages[stage], unit) if stage in row.stages else "" for stage in TIMED]
        times = f"{row.stages['forward+backward'].median / fastest:.3g}"
        table.add_row(row.engine, in_unit(stats.time_to_first(row), unit), *cells, times)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, no_wrap=column in ("case", "engine", "fastest", "name"), overflow="fold")
    return table


def _timing(measurement: Measurement, unit: str) -> str:
    return f"{in_unit(measurement.median, unit)} {stats.noise_mark(measurement):<2}"


def _errors(checks: Sequence[Check]) -> tuple[str, ...]:
    """Of the check against the reference, where there was one; and how many independent witnesses agree."""
    if not checks:
        return ()
    agreeing = str(sum(check.independent and check.passed is True for check in checks))
    for check in checks:
        if check.witness == REFERENCE and check.max_ulps is not None:
            return f"{check.max_abs:.1e}", f"{check.max_rel:.1e}", f"{check.max_ulps:.3g}", agreeing
    return "", "", "", agreeing


def _footer(screen: Console, text: str) -> None:
    screen.print(Text(text, style="dim"))


def _status(row: Row) -> str:
    return f"[{STATUS_STYLE[row.status]}]{row.status}[/]"


def _show_reasons(screen: Console, comparison: ComparisonResult) -> None:
    reasons: dict[str, list[str]] = {}
    for case in comparison.cases:
        for row in case.rows:
            if row.status != "ok":
                reasons.setdefault(f"{row.engine} {row.status}: {row.reason}", []).append(case.name)
    for reason, cases in reasons.items():
        where = "" if len(cases) == len(comparison.cases) else f" (at {'; '.join(cases)})"
        screen.print(escape(f"  {reason}{where}"), soft_wrap=True)


def _show_findings(screen: Console, comparison: ComparisonResult) -> None:
    """What an experiment says in words, tables and maps; its curves and listings are the report's."""
    for finding in comparison.findings:
        if isinstance(finding, results.Observation):
            screen.print(Text(f"  {finding.text}"))
        elif isinstance(finding, results.Table):
            units = [*finding.units, *[""] * len(finding.columns)]
            headings = [
                f"{column} ({unit})" if unit else column for column, unit in zip(finding.columns, units, strict=False)
            ]
            table = _table(f"{comparison.name}: {finding.title}", *map(escape, headings))
            for row in finding.rows:
                table.add_row(*(escape(_cell(value)) for value in row))
            screen.print(table)
        elif isinstance(finding, results.Winners):
            corner = f"{finding.y_label} \\ {finding.x_label}"
            table = _table(f"{comparison.name}: {finding.title}", *map(escape, (corner, *finding.columns)))
            table.columns[0].no_wrap = True
            for row, texts in zip(finding.rows, finding.texts, strict=False):
                table.add_row(*map(escape, (row, *texts)), end_section=True)
            screen.print(table)
            _footer(screen, finding.note)


def _cell(value: results.Cell) -> str:
    if value is None:
        return ""
    return significant(value) if isinstance(value, float) else str(value)
