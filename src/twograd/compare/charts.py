"""The charts: one function per kind, data in, Figure out.

What flows in: one case, or the cases of one comparison. What flows out: :class:`Chart`, a figure with the words that go
with it. Read :func:`of_comparison`, then :func:`steady_times`. How things look is in :mod:`twograd.pictures.style`.

matplotlib is imported where a figure is made, and only by its object-oriented interface: no window, no global state.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from twograd.compare import budgets, sentences, stats
from twograd.compare.results import (
    ONE_TIME_STAGES,
    CaseResult,
    ComparisonResult,
    Curves,
    EngineInfo,
    Measurement,
    Row,
    Winners,
)
from twograd.compare.tables import timed_rows
from twograd.compare.units import SECONDS, common_unit, duration, listed, plural, scientific, significant
from twograd.pictures import style
from twograd.pictures.picture import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRADIENT = "forward+backward"


@dataclass(frozen=True)
class Chart:
    """A figure. ``stem`` names its files, ``caption`` stands below it, ``description`` says in words what it shows."""

    stem: str
    caption: str
    description: str
    figure: "Figure"


def of_comparison(comparison: ComparisonResult, engines: Sequence[EngineInfo], setup: str) -> Iterator[Chart]:
    """All charts of one comparison, kind by kind. ``setup`` is dtype and device, for the footnotes.

    Cases are drawn one by one only at both ends of the comparison's list, so that in two columns they stand side by
    side (or, of a single case, the two low charts); the tables and the scaling charts have all.
    Must be called, and its figures used, within :func:`style.drawing`.
    """
    cases = [case for case in comparison.cases if timed_rows(case)]
    ends = [(case, f"{comparison.name}, {case.name}") for case in (cases if len(cases) < 2 else (cases[0], cases[-1]))]
    for case, note in ends:
        yield steady_times(case, note, setup)
    for case, note in ends:
        if (chart := one_time_costs(case, note, setup)) is not None:
            yield chart
    pairs = sentences.pairs(engines, comparison.cases)
    for case, note in ends:
        yield cumulative_times(case, pairs, note, setup)
    for part in by_text_axes(cases):
        for axis in comparison.axes:
            if (group := longest_line(part, axis)) is not None:
                yield scaling(group, axis, comparison.name, setup)


def of_summary(cases: Sequence[tuple[str, CaseResult]], setup: str) -> Iterator[Chart]:
    """The map of which engine is done first, of all cases by the names of their comparisons; nothing without any."""
    if (found := budgets.budgets(cases)) is not None:
        counts = _gradient_counts([row for _, case in found.cases for row in timed_rows(case)])
        name = f"{plural(len(found.cases), 'case')}, n = {counts}"
        yield winners(budgets.winners_by_budget(found), "summary", name, setup)


def of_findings(comparison: ComparisonResult, setup: str) -> Iterator[tuple[Curves | Winners, Chart]]:
    """The charts that an experiment asks for."""
    for position, finding in enumerate(comparison.findings):
        if isinstance(finding, Curves):
            yield finding, curves(finding, f"{comparison.name}-{position}", f"{comparison.name}", setup)
        elif isinstance(finding, Winners):
            yield finding, winners(finding, f"{comparison.name}-{position}", f"{comparison.name}", setup)


# --- a case -----------------------------------------------------------------------------------------------------------


def steady_times(case: CaseResult, note: str, setup: str) -> Chart:
    """Per engine, on a logarithmic axis: median, interquartile range and all samples, of gradient and forward."""
    rows = sorted(timed_rows(case), key=lambda row: -row.stages[GRADIENT].median)
    names = [_name(row.engine) for row in rows]
    figure, axes = style.new_axes(height=1.12 + 0.3 * len(rows), left=_left(names), right=0.82, top=0.34)
    for y, row in enumerate(rows):
        look = style.engine_style(row.engine)
        gradient, forward = row.stages[GRADIENT], row.stages.get("forward")
        if forward is not None and forward.median > 0:
            _spread_mark(axes, forward, y, look, hollow=True)
        _spread_mark(axes, gradient, y, look, hollow=False)
        axes.text(
            1.02, y, duration(gradient.median), transform=axes.get_yaxis_transform(), va="center", ha="left",
            fontsize=style.FONT - 0.5,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    _time_axis(axes, "x", [s for row in rows for stage in (GRADIENT, "forward") for s in _samples(row, stage)])
    axes.set_xlabel("steady time per call")
    _key(figure, axes, [("o", True, "gradient (forward+backward)"), ("o", False, "forward only")])
    counts = sorted({len(row.stages[GRADIENT].seconds) for row in rows})
    style.footnote(
        figure,
        _note(note, f"median, bar p25 to p75, ticks: samples; n = {_range(counts)}", setup),
    )
    fastest, slowest = rows[-1], rows[0]
    return Chart(
        f"{_stem(note)}-steady",
        f"Steady time per gradient at {case.name}, fastest on top: medians, interquartile ranges and every sample.",
        "Medians of the steady time per gradient: "
        + ", ".join(f"{row.engine} {duration(row.stages[GRADIENT].median)}" for row in reversed(rows))
        + f". Fastest {fastest.engine}, slowest {slowest.engine}.",
        figure,
    )


def _spread_mark(axes: "Axes", measurement: Measurement, y: float, look: style.LineStyle, hollow: bool) -> None:
    color = look.color.light
    ticks = [(s, s, np.nan) for s in sorted(measurement.seconds)]  # one path, not one element per sample
    heights = (y - 0.16, y + 0.16, np.nan) * len(ticks)
    axes.plot(np.ravel(ticks), heights, color=color, alpha=0.35, linewidth=0.7, marker="", label="_samples")
    axes.plot(measurement.quartiles, (y, y), "-", color=color, linewidth=4, alpha=0.55, solid_capstyle="butt")
    axes.plot(
        [measurement.median], [y], look.marker, color=color, markersize=6.5, markeredgewidth=1.4,
        markerfacecolor=style.PAPER.light if hollow else color,
    )  # fmt: skip


def one_time_costs(case: CaseResult, note: str, setup: str) -> Chart | None:
    """What each engine pays until the first gradient is there, stage upon stage; None where no stage was timed."""
    rows = [row for row in case.rows if row.status == "ok" and any(stage in row.stages for stage in ONE_TIME_STAGES)]
    if not rows:
        return None
    rows.reverse()  # the first on top
    totals = [sum(row.stages[stage].median for stage in ONE_TIME_STAGES if stage in row.stages) for row in rows]
    unit = common_unit([max(totals)], SECONDS)
    names = [_name(row.engine) for row in rows]
    figure, axes = style.new_axes(height=1.14 + 0.28 * len(rows), left=_left(names), right=0.82, top=0.36)
    for y, row in enumerate(rows):
        left = 0.0
        for stage in ONE_TIME_STAGES:
            if stage in row.stages:
                width = row.stages[stage].median / unit.size
                axes.barh(
                    y, width, left=left, height=0.62, color=style.STAGES[stage].light, edgecolor=style.MUTED.light,
                    linewidth=0.5, label=stage,
                )  # fmt: skip
                left += width
        axes.text(
            1.02, y, duration(left * unit.size), transform=axes.get_yaxis_transform(), va="center", ha="left",
            fontsize=style.FONT - 0.5,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1.02 * max(totals) / unit.size)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"time until the first gradient ({unit.name})")
    shown = [stage for stage in ONE_TIME_STAGES if any(stage in row.stages for row in rows)]
    _stage_key(figure, axes, shown)
    counts = sorted({len(m.seconds) for row in rows for s, m in row.stages.items() if s in ONE_TIME_STAGES})
    style.footnote(figure, _note(note, f"medians of n = {_range(counts)}, from empty caches", setup))
    return Chart(
        f"{_stem(note)}-first",
        f"What is paid until the first gradient is there, at {case.name}, from empty caches.",
        "Time until the first gradient: "
        + ", ".join(f"{row.engine} {duration(total)}" for row, total in reversed(list(zip(rows, totals, strict=True))))
        + ".",
        figure,
    )


def cumulative_times(case: CaseResult, pairs: Sequence[tuple[str, str]], note: str, setup: str) -> Chart:
    """Time for n gradients from nothing, both axes logarithmic; each of ``pairs`` (compiled, recording) is marked where
    its lines cross."""
    rows = timed_rows(case)
    crossings = [(pair, even) for pair in pairs if (even := sentences.break_even(case, *pair)) is not None]
    latest = max([1e4, *(8 * even.estimate for _, even in crossings if math.isfinite(even.estimate))])
    end = 10.0 ** math.ceil(math.log10(latest))
    figure, axes = _axes_of_lines([_name(row.engine) for row in rows])
    axes.set_xscale("log")
    axes.set_xlim(1, end)
    decades = round(math.log10(end))
    steps = np.geomspace(1, end, 12 * decades + 1)
    lines = {row.engine: np.array([stats.total_time(row, n) for n in steps]) for row in rows}
    _time_axis(axes, "y", [float(v) for line in lines.values() for v in (line[0], line[-1])])
    for row in rows:
        look = style.engine_style(row.engine)
        axes.plot(
            steps, lines[row.engine], color=look.color.light, linestyle=look.line, marker=look.marker,
            markevery=12, clip_on=False, label=_name(row.engine),
        )  # fmt: skip
    axes.set_xlabel("gradients computed with one program")
    _y_label(axes, "time since the start")
    style.log_ticks(axes, "x", scientific)
    for (compiled, recording), even in crossings:
        row = sentences.timed(case, compiled)
        if row is not None and 1 < even.estimate < math.inf:
            text = f"{compiled} passes {recording}: {sentences.steps(even.estimate)}"
            _mark_crossing(axes, even, stats.total_time(row, even.estimate), plain(text))
    style.label_line_ends(
        axes, [(end, float(lines[row.engine][-1]), _name(row.engine), style.engine_style(row.engine)) for row in rows]
    )
    style.footnote(figure, _note(note, f"computed from medians, n = {_gradient_counts(rows)}", setup))
    found = "; ".join(sentences.catches_up(case, *pair) for pair, _ in crossings)
    return Chart(
        f"{_stem(note)}-cumulative",
        f"Time for n gradients at {case.name}, from empty caches: what is paid once plus n times the steady median. "
        + (f"{found}." if found else ""),
        "; ".join(
            f"{row.engine}: {duration(stats.total_time(row, 1))} for one gradient, "
            f"{duration(stats.total_time(row, 1000))} for 1000"
            for row in rows
        )
        + ".",
        figure,
    )


def _mark_crossing(axes: "Axes", even: stats.Interval, height: float, text: str) -> None:
    """A ring where two lines cross, a band for its interval, and the text where fewer lines are in its way."""
    low, high = axes.get_xlim()
    left, right = max(even.low, low), min(even.high, high)
    if (left, right) != (low, high):  # a band over everything would say nothing
        axes.axvspan(left, right, color=style.MUTED.light, alpha=0.15, linewidth=0, label="_interval")
    axes.plot(
        [even.estimate], [height], "o", markersize=11, markerfacecolor="none", markeredgecolor=style.INK.light,
        markeredgewidth=1.3, label="_crossing",
    )  # fmt: skip
    place = math.log(even.estimate / low) / math.log(high / low)
    width = 0.0185 * len(text)
    start = place + 0.015 if place + width < 1 else max(place - 0.015 - width, 0.01)
    edge = _free_edge(axes, start, start + width)
    axes.plot(
        [even.estimate] * 2, [height, axes.get_ylim()[edge]], color=style.INK.light, linewidth=0.8,
        linestyle="dotted", marker="", label="_crossing line",
    )  # fmt: skip
    axes.text(
        start if start > place else start + width, (0.025, 0.975)[edge], text, transform=axes.transAxes,
        ha="left" if start > place else "right", va=("bottom", "top")[edge],
        fontsize=style.FONT - 1.5, label="_crossing text",
    )  # fmt: skip


def _free_edge(axes: "Axes", start: float, stop: float) -> int:
    """0 or 1, the lower or the upper edge: the one freer of lines and texts between two fractions of the width."""
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [to_axes.transform(line.get_xydata()) for line in axes.lines if not str(line.get_label()).startswith("_")]
    heights = np.array([y for line in points for x, y in line if start <= x <= stop])
    taken = {round(text.get_position()[1]) for text in axes.texts if text.get_label() == "_crossing text"}
    near = [math.inf if edge in taken else float((np.abs(heights - edge) < 0.13).sum()) for edge in (0, 1)]
    return int(near[1] < near[0])


# --- a comparison -----------------------------------------------------------------------------------------------------


def by_text_axes(cases: Sequence[CaseResult]) -> list[list[CaseResult]]:
    """The cases apart by their axes that are no numbers, such as the device: each part has charts of its own."""
    parts: dict[tuple[tuple[str, object], ...], list[CaseResult]] = {}
    for case in cases:
        key = tuple((axis, value) for axis, value in case.axes.items() if isinstance(value, str))
        parts.setdefault(key, []).append(case)
    return list(parts.values())


def longest_line(cases: Sequence[CaseResult], axis: str) -> list[CaseResult] | None:
    """The most cases that differ in ``axis`` alone, sorted by it; None where fewer than two do, or it is no number."""
    groups: dict[tuple[tuple[str, object], ...], dict[float, CaseResult]] = {}
    for case in cases:
        value = case.axes.get(axis)
        if isinstance(value, int | float) and math.isfinite(value):
            others = tuple((name, other) for name, other in case.axes.items() if name != axis)
            groups.setdefault(others, {})[value] = case
    longest = max(groups.values(), key=len, default={})
    return [longest[value] for value in sorted(longest)] if len(longest) > 1 else None


def scaling(cases: Sequence[CaseResult], axis: str, name: str, setup: str) -> Chart:
    """The steady time of a gradient against one axis: medians, with a band from p25 to p75."""
    first = cases[0]
    fixed = [f"{other}={value}" for other, value in first.axes.items() if other != axis]
    engines = list(dict.fromkeys(row.engine for case in cases for row in timed_rows(case)))
    xs = [float(case.axes[axis]) for case in cases]
    lines: dict[str, list[tuple[float, Measurement]]] = {engine: [] for engine in engines}
    for x, case in zip(xs, cases, strict=True):
        for row in timed_rows(case):
            lines[row.engine].append((x, row.stages[GRADIENT]))
    figure, axes = _axes_of_lines([_name(engine) for engine in engines])
    axes.set_yscale("log")
    if min(xs) > 0:
        axes.set_xscale("log")
        axes.set_xlim(xs[0] * (xs[0] / xs[-1]) ** 0.03, xs[-1] * (xs[-1] / xs[0]) ** 0.03)
    _time_axis(axes, "y", [q for line in lines.values() for _, m in line for q in m.quartiles])
    _value_ticks(axes, xs)
    for engine, line in lines.items():
        look = style.engine_style(engine)
        at, medians = [x for x, _ in line], [m.median for _, m in line]
        low, high = zip(*(m.quartiles for _, m in line), strict=True)
        axes.fill_between(at, low, high, color=look.color.light, alpha=0.18, linewidth=0)
        axes.plot(at, medians, color=look.color.light, linestyle=look.line, marker=look.marker, label=_name(engine))
    axes.set_xlabel(plain(axis))
    _y_label(axes, "steady time per gradient")
    style.label_line_ends(
        axes,
        [(line[-1][0], line[-1][1].median, _name(e), style.engine_style(e)) for e, line in lines.items()],
    )
    where = f"{name}, {', '.join(fixed)}" if fixed else name
    counts = sorted({len(m.seconds) for line in lines.values() for _, m in line})
    style.footnote(figure, _note(where, f"median, band p25 to p75; n = {_range(counts)}", setup))
    return Chart(
        f"{_stem(where)}-by-{_stem(axis)}",
        f"Steady time per gradient against {axis}" + (f" at {listed(fixed)}." if fixed else "."),
        f"From {axis} {significant(xs[0])} to {significant(xs[-1])}: "
        + "; ".join(
            f"{engine} from {duration(line[0][1].median)} to {duration(line[-1][1].median)}"
            for engine, line in lines.items()
        )
        + ".",
        figure,
    )


def curves(found: Curves, stem: str, name: str, setup: str) -> Chart:
    """The chart of an experiment: its series as lines, in its scales; what cannot be drawn on them is left out."""
    from matplotlib.ticker import MaxNLocator

    looks = _series_looks(found)
    figure, axes = _axes_of_lines([_name(series.label) for series in found.series])
    points = []
    for series in found.series:
        keep = [
            (float(x), float(y))
            for x, y in zip(series.x, series.y, strict=False)
            if _drawable(x, found.x_scale) and _drawable(y, found.y_scale)
        ]
        points.append(sorted(keep))
    xs = [x for line in points for x, _ in line]
    if not xs:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", color=style.MUTED.light)
        axes.set_axis_off()
    for position, (line, series, look) in enumerate(zip(points, found.series, looks, strict=True)):
        many, every = len(line) > 24, max(1, len(line) // 8)
        axes.plot(
            [x for x, _ in line], [y for _, y in line], color=look.color.light, marker=look.marker, markersize=4.5,
            linestyle="solid" if many else look.line,  # dashes that cover one another are noise
            linewidth=1.1 if many else 1.6, label=plain(series.label),
            markevery=(position * every // len(looks), every) if many else 1,
        )  # fmt: skip
    if xs:
        if found.x_scale == "log":
            axes.set_xscale("log")
        if found.y_scale == "log":
            axes.set_yscale("log")
        axes.set_ylim(*axes.get_ylim())  # final before ticks and labels are placed
        axes.set_xlim(*axes.get_xlim())
        if found.y_scale == "log":
            style.log_ticks(axes, "y", scientific)
        if len(set(xs)) <= 8:
            _value_ticks(axes, sorted(set(xs)))
        elif found.x_scale == "log":
            style.log_ticks(axes, "x", scientific)
        elif all(x == int(x) for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.label_line_ends(
            axes,
            [
                (*line[-1], _name(s.label), look)
                for line, s, look in zip(points, found.series, looks, strict=True)
                if line
            ],
        )
    axes.set_xlabel(plain(found.x_label))
    _y_label(axes, plain(found.y_label))
    style.footnote(figure, _note(name, f"{listed(_lengths(points))} per line", setup))
    ranges = "; ".join(
        f"{series.label} from {significant(line[0][1])} to {significant(line[-1][1])}"
        if line
        else f"{series.label}: none"
        for line, series in zip(points, found.series, strict=True)
    )
    left_out = sum(len(s.x) for s in found.series) - len(xs)
    caption = (
        found.title if not left_out else f"{found.title} ({plural(left_out, 'value')} that cannot be drawn left out)"
    )
    return Chart(
        f"{_stem(stem)}-{_stem(found.title)}", caption, f"{found.y_label} against {found.x_label}: {ranges}.", figure
    )


def winners(found: Winners, stem: str, name: str, setup: str) -> Chart:
    """A map: fields tinted in the colour of their engine, with the verdict in words.

    Rows are as high as their words need, and those of a group stand below its heading.
    """
    from matplotlib.patches import Rectangle

    groups, labels = [row.rpartition("\n")[0] for row in found.rows], [row.rpartition("\n")[2] for row in found.rows]
    wrapped = [_lines(label, 0.9) for label in labels]
    left = max([0.72, *(0.2 + _inches(line) for lines in wrapped for line in lines)])
    right, top, bottom = 0.1, 0.36, 0.78
    column = (style.WIDTH - left - right) / max(len(found.columns), 1)
    rows = [
        _fields(engines[: len(found.columns)], texts, column)
        for engines, texts in itertools.zip_longest(found.engines, found.texts, fillvalue=())
    ]
    starts = [bool(group) and group != before for before, group in itertools.pairwise(["", *groups])]
    spans, end = [], 0.0
    for fields, label, is_start in zip(rows, wrapped, starts, strict=False):
        top_edge = end + 0.24 * is_start
        end = top_edge + 0.15 + 0.125 * max([1, len(label), *(len(field.lines) for field in fields)])
        spans.append((top_edge, end))
    high = end > 4
    figure, axes = style.new_axes((end or 0.3) + top + bottom + 0.2 * high, left, right, bottom, top + 0.2 * high)
    axes.set_xlim(-0.5, max(len(found.columns), 1) - 0.5)
    axes.set_ylim(end or 0.3, 0)
    said = []
    for i, (fields, (y, low)) in enumerate(zip(rows, spans, strict=False)):
        if starts[i]:
            axes.text(
                -(left - 0.08) / (style.WIDTH - left - right), y - 0.05, plain(groups[i]), va="bottom",
                fontsize=style.SMALL_FONT, fontweight="bold", transform=axes.get_yaxis_transform(), label="_group",
            )  # fmt: skip
        for field in fields:
            color = style.engine_style(field.engine).color.light
            at, width = field.start - 0.49, field.stop - field.start - 0.02
            axes.add_patch(Rectangle((at, y + 0.02), width, low - y - 0.04, facecolor=color, alpha=0.22, linewidth=0))
            axes.plot((at, at), (y + 0.02, low - 0.02), color=color, linewidth=3, solid_capstyle="butt", marker="")
            axes.text(
                at + width / 2, (y + low) / 2, "\n".join(field.lines), ha="center", va="center",
                fontsize=style.SMALL_FONT, linespacing=1.15,
            )  # fmt: skip
        row = ", ".join(found.rows[i].split("\n"))
        said.append(f"{found.y_label} {row}: {', '.join(field.spoken(found.columns) for field in fields)}")
    axes.set_xticks(range(len(found.columns)), [plain(column) for column in found.columns])
    axes.set_yticks([sum(span) / 2 for span in spans], ["\n".join(lines) for lines in wrapped[: len(spans)]])
    axes.tick_params(axis="y", labelsize=style.SMALL_FONT, length=0)
    axes.tick_params(axis="x", labeltop=high)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel(plain(found.x_label))
    _y_label(axes, plain(found.y_label))
    cells = sum(field.stop - field.start for fields in rows for field in fields)
    style.footnote(figure, _note(name, plural(cells, "cell"), setup))
    description = f"In brackets, {found.x_label}. {'; '.join(said) or 'No cases'}."
    return Chart(f"{_stem(stem)}-{_stem(found.title)}", found.title, description, figure)


@dataclass(frozen=True)
class _Field:
    """Neighbouring cells of a map's row that say the same: from ``start`` to before ``stop``, in ``lines`` that fit."""

    start: int
    stop: int
    engine: str
    text: str
    lines: list[str]

    def spoken(self, columns: Sequence[str]) -> str:
        where = " to ".join(dict.fromkeys((columns[self.start], columns[self.stop - 1])))
        return f"{' '.join(self.text.split())} ({where})"


def _fields(engines: Sequence[str], texts: Sequence[str], column: float) -> list[_Field]:
    """Of columns so many inches wide; without empty cells."""
    found, start = [], 0
    for (engine, text), cells in itertools.groupby(zip(engines, texts, strict=False)):
        stop = start + len(list(cells))
        if engine:
            found.append(_Field(start, stop, engine, text, _lines(text, (stop - start) * column - 0.05)))
        start = stop
    return found


def _lines(text: str, inches: float) -> list[str]:
    """At most five lines of the small font that are at most so wide, broken after spaces; a word that is too long after
    its hyphens and underscores, and elsewhere only where it has none."""
    lines = []
    for line in text[:200].split("\n"):
        lines.append("")
        words = re.findall(r"\S+\s*", plain(line))
        for piece in itertools.chain.from_iterable(
            [word] if _inches(word.rstrip()) <= inches else re.findall(r"[^_-]*[_-]+|[^_-]+", word) for word in words
        ):
            if lines[-1] and _inches((lines[-1] + piece).rstrip()) > inches:
                lines.append("")
            lines[-1] += piece
            while _inches(lines[-1].rstrip()) > inches and len(lines[-1]) > 3:
                fits = max(3, int(len(lines[-1]) * inches / _inches(lines[-1])))
                lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    lines = [line.strip() for line in lines]
    return lines if len(lines) <= 5 else [*lines[:4], "…"]


def _series_looks(found: Curves) -> list[style.LineStyle]:
    """An engine's own look, but only for its first line; any other line the next free one."""
    looks, used, free = [], set(), iter(style.SERIES * len(found.series))
    for series in found.series:
        if series.engine in style.ENGINES and series.engine not in used:
            used.add(series.engine)
            looks.append(style.ENGINES[series.engine])
        else:
            looks.append(next(free))
    return looks


def _drawable(value: float, scale: str) -> bool:
    """Finite, positive on a logarithmic scale, and not so large or small that matplotlib's own arithmetic overflows."""
    return abs(value) < 1e100 and (scale != "log" or value > 1e-100)


def _lengths(points: Sequence[Sequence[object]]) -> list[str]:
    counts = sorted({len(line) for line in points})
    return [f"{counts[0]} points" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} points"] if counts else ["0"]


# --- axes and keys ----------------------------------------------------------------------------------------------------


def _left(names: Sequence[str]) -> float:
    """The margin of a chart with these names at its left edge."""
    return max([1.12, *(0.16 + _inches(name, style.FONT - 0.5) for name in names)])


def _axes_of_lines(names: Sequence[str]) -> "tuple[Figure, Axes]":
    """For :func:`style.label_line_ends` with these names: as high and with as much room at the right as they need."""
    widest = max((_inches(name, style.FONT - 0.5) for name in names), default=0.0)
    left, gap = 0.72, 0.075  # the gap, of the axes' width, is where a name begins
    right = max(1.28, (gap * (style.WIDTH - left) + widest + 0.06) / (1 + gap))
    return style.new_axes(height=max(3.3, 1.2 + 1.22 * style.FONT / 72 * len(names)), left=left, right=right, top=0.36)


def _time_axis(axes: "Axes", which: str, seconds: Sequence[float]) -> None:
    """A logarithmic axis of times around ``seconds``, its ticks with their units: 10 µs, 1 ms."""
    known = [s for s in seconds if s > 0 and math.isfinite(s)] or [1.0]
    low, high = min(known), max(known)
    pad = max((high / low) ** 0.06, 1.15)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / pad, high * pad)
    style.log_ticks(
        axes, which, lambda tick: duration(tick, len(f"{tick:.2e}".split("e")[0].rstrip("0.").replace(".", "")))
    )


def _y_label(axes: "Axes", text: str) -> None:
    """Level, above the axis: read without turning one's head, and never cut off."""
    axes.set_ylabel(text, rotation=0, ha="left", va="bottom")
    width, height = (side / axes.figure.dpi for side in (axes.bbox.width, axes.bbox.height))
    axes.yaxis.set_label_coords(-0.62 / width, 1 + 0.075 / height)


def _value_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """Ticks at the values that were measured, and at no others."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_major_formatter(FixedFormatter([significant(value) for value in values]))
    axes.xaxis.set_minor_locator(NullLocator())


def _key(figure: "Figure", axes: "Axes", entries: Sequence[tuple[str, bool, str]]) -> None:
    """What filled and hollow markers mean, in one line above the axes."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], marker=marker, linestyle="", color=style.MUTED.light, markersize=6, label=text,
            markerfacecolor=style.MUTED.light if filled else style.PAPER.light,
        )
        for marker, filled, text in entries
    ]  # fmt: skip
    _legend(figure, axes, handles)


def _stage_key(figure: "Figure", axes: "Axes", stages: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=style.STAGES[stage].light, edgecolor=style.MUTED.light, linewidth=0.5, label=stage)
        for stage in stages
    ]
    _legend(figure, axes, handles)


def _legend(figure: "Figure", axes: "Axes", handles: Sequence[object]) -> None:
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=len(handles), frameon=False,
        fontsize=style.FONT - 1, handletextpad=0.35, columnspacing=1.0, handlelength=1.1, borderaxespad=0.15,
    )  # fmt: skip


# --- words ------------------------------------------------------------------------------------------------------------


@functools.cache
def _inches(text: str, size: float = style.SMALL_FONT) -> float:
    """The width of a line."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=[style.FONT_FAMILY[0]], size=size)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def plain(text: str) -> str:
    """Text that can stand in an XML file and on one line of a chart."""
    return "".join(c if c.isprintable() else " " for c in text)


def _name(text: str) -> str:
    """Of an engine or a line, where it stands in a chart."""
    return cut(plain(text), 19)


def _stem(text: str) -> str:
    """``op_chain, size=8`` as the name of a file: ``op_chain-size-8``."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:80] or "chart"


def _note(what: str, how: str, setup: str) -> str:
    """Two lines: the data, and the machine."""
    return f"{plain(cut(what, 60))}: {how}\n{plain(cut(setup, 100))}"


def _samples(row: Row, stage: str) -> Sequence[float]:
    return row.stages[stage].seconds if stage in row.stages else ()


def _gradient_counts(rows: Sequence[Row]) -> str:
    return _range(sorted({len(row.stages[GRADIENT].seconds) for row in rows}))


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
