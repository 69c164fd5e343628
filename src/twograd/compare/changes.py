"""What changed between two runs: of two versions, two machines, two days.

What flows in: two :class:`Results`, before and after. What flows out: :class:`Changes`: first what else differs than
what one asks about (versions, machine, settings), then statuses, times and sizes, row by row. Read :func:`changes`.

A ratio has an interval from the samples of both runs. It does not know of what differs from run to run as a whole, a
warmer machine or a neighbour: ``relative_to`` an engine that both have, that cancels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twograd.compare import stats
from twograd.compare.environment import flat
from twograd.compare.errors import CompareError, UnknownName
from twograd.compare.results import Measurement, Results, Row, encode
from twograd.compare.units import percent, plural

ABSENT = "absent"

SIZES = ("forward nodes", "derivative nodes", "saved bytes", "temp bytes", "argument bytes", "output bytes", "flops")


@dataclass(frozen=True)
class Difference:
    """Something that is not a number, before and after; empty where it was not there."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Place:
    """A row: an engine on a case of a comparison."""

    comparison: str
    case: str
    engine: str

    def __str__(self) -> str:
        return f"{self.comparison} [{self.case}] {self.engine}"


@dataclass(frozen=True)
class TimeChange:
    """A stage's samples, and how many times as long it takes after as before."""

    place: Place
    stage: str
    before: Measurement
    after: Measurement
    ratio: stats.Interval

    @property
    def verdict(self) -> str:
        if not stats.clearly_different(self.ratio):
            return "no clear difference"
        return "slower" if self.ratio.estimate > 1 else "faster"


@dataclass(frozen=True)
class SizeChange:
    """A count that is another one now."""

    place: Place
    what: str
    before: float
    after: float


@dataclass(frozen=True)
class Changes:
    """All that differs; ``times`` has also what does not clearly differ. ``statuses`` are those of rows."""

    environment: list[Difference]
    statuses: list[tuple[Place, Difference]]
    times: list[TimeChange]
    sizes: list[SizeChange]

    def failures(self, conditions: Mapping[str, float]) -> list[str]:
        """What fulfils one of the ``conditions`` of ``--fail-if``, in words.

        ``slower``: the whole interval of a ratio of times lies above the limit. ``larger``: a ratio of sizes does.
        ``worse``: a row was ok and is no longer, or is no longer there; this has no limit.
        """
        found = []
        if "slower" in conditions:
            found += [
                f"{change.place} {change.stage}: {change.ratio.estimate:.3g} times as long, at least "
                f"{change.ratio.low:.3g} ({percent(stats.CONFIDENCE)} interval)"
                for change in self.times
                if change.ratio.low > conditions["slower"]
            ]
        if "larger" in conditions:
            found += [
                f"{change.place}: {change.what} {change.before:g}, now {change.after:g}"
                for change in self.sizes
                if change.after > conditions["larger"] * change.before
            ]
        if "worse" in conditions:
            found += [
                f"{place}: {difference.before}, now {difference.after}"
                for place, difference in self.statuses
                if difference.before == "ok"
            ]
        return found


def changes(
    before: Results, after: Results, stages: Sequence[str] = ("forward+backward",), relative_to: str | None = None
) -> Changes:
    """What changed in the rows that both have, and which of them one of both lacks.

    With ``relative_to``, an engine, times are those of each row over that engine's in the same case and run. Raises
    CompareError where the two have no row in common, or none with that engine beside it.
    """
    old, new = _rows(before), _rows(after)
    common = [place for place in old if place in new]
    if not common:
        raise CompareError("the two results have no row in common (comparison, case and engine): nothing to compare.")
    engines = {place.engine for place in common}
    if relative_to is not None and relative_to not in engines:
        raise UnknownName("engine of both results", relative_to, engines)
    statuses = []
    for place in dict.fromkeys([*old, *new]):
        was, now = (rows[place].status if place in rows else ABSENT for rows in (old, new))
        if was != now:
            reasons = {rows[place].reason for rows in (old, new) if place in rows} - {""}
            statuses.append((place, Difference("; ".join(sorted(reasons)), was, now)))
    times = []
    for place in common:
        for stage in stages:
            found = _time_change(place, stage, old, new, relative_to)
            times += [found] if found is not None else []
    if relative_to is not None and not times:
        raise CompareError(f"no row of both results has a time of {relative_to} beside it.")
    sizes = [
        SizeChange(place, what, old[place].counts[what], new[place].counts[what])
        for place in common
        for what in SIZES
        if what in old[place].counts and what in new[place].counts
        if old[place].counts[what] != new[place].counts[what]
    ]
    return Changes(_environment(before, after), statuses, times, sizes)


def _rows(results: Results) -> dict[Place, Row]:
    return {Place(comparison.name, case.name, row.engine): row for comparison, case, row in results.rows()}


def _time_change(
    place: Place, stage: str, old: Mapping[Place, Row], new: Mapping[Place, Row], relative_to: str | None
) -> TimeChange | None:
    """None where one of both has no time, or there is nothing to relate it to."""
    beside = Place(place.comparison, place.case, relative_to or place.engine)
    if any(stage not in rows[at].stages if at in rows else True for rows in (old, new) for at in (place, beside)):
        return None
    a, b = old[place].stages[stage], new[place].stages[stage]
    if not a.median or not b.median or (relative_to is not None and place == beside):
        return None
    references = (old[beside].stages[stage], new[beside].stages[stage]) if relative_to is not None else None
    return TimeChange(place, stage, a, b, stats.change(a, b, references))


def _environment(before: Results, after: Results) -> list[Difference]:
    old, new = (
        dict(flat({**results.environment, "settings": encode(results.settings)})) for results in (before, after)
    )
    differing = [what for what in dict.fromkeys([*old, *new]) if old.get(what) != new.get(what)]
    sources = {c.name: c.source for c in before.comparisons}
    edited = [c.name for c in after.comparisons if sources.get(c.name, c.source) != c.source]
    return [
        *(Difference(what, old.get(what, ""), new.get(what, "")) for what in differing),
        *(Difference(f"{name}.py", "", "another text") for name in edited),
    ]


def summary(found: Changes) -> str:
    """One sentence: how many times are clearly other ones."""
    verdicts = [change.verdict for change in found.times]
    counts = [f"{verdicts.count(word)} {word}" for word in ("slower", "faster") if word in verdicts]
    rest = verdicts.count("no clear difference")
    return f"Of {plural(len(verdicts), 'time')}: {', '.join([*counts, f'{rest} with no clear difference'])}."
