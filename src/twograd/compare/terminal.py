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
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from twograd._console import console as console
from twograd.compare import results, stats
from twograd.compare.check import REFERENCE
from twograd.compare.corners import Corners
from twograd.compare.engines import Engine
from twograd.compare.program import Declaration
from twograd.compare.results import CaseResult, Check, ComparisonResult, Measurement, Results, Row
from twograd.compare.runner import Progress

STATUS_STYLE = {"ok": "green", "mismatch": "bold red", "failed": "bold red", "skipped": "yellow"}

UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))

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
    table = _table("Engines", "name", "what it is", "kind", "here")
    for engine in engines:
        reason = engine.unavailable()
        here = Text(reason, style="yellow") if reason else Text(engine.version(), style="green")
        table.add_row(engine.name, escape(engine.title), engine.kind, here)
    screen.print(table)


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
    _footer(
        screen,
        "Errors are against jax.grad in float64. 'agree' counts the witnesses that agree and stand on other derivative "
        "rules than the engine's own (finite differences, JAX, PyTorch, HIPS autograd).",
    )


def show_timings(screen: Console, found: Results) -> None:
    """Per case, the engines and their steady stages, with the ratio of forward+backward to the best."""
    for comparison in found.comparisons:
        for case in comparison.cases:
            screen.print(_timing_table(comparison, case))
        _show_reasons(screen, comparison)
        _show_findings(screen, comparison)
    _footer(
        screen,
        "Medians. 'first' is the time from the program to its first gradient (tracing, compiling, first call). '!' and "
        "'!!': the interquartile range exceeds 10 % or 25 % of the median; run again on a quiet machine.",
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
        table.add_column(column, no_wrap=column == "engine")
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
    """What an experiment says in words and tables; its curves and listings are the report's."""
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


def _cell(value: results.Cell) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
