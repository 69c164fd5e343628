"""What the report says in words, computed from the data: which engine is faster, by how much, and how sure that is.

What flows in: results. What flows out: lists of sentences, in which names of engines stand between backticks. Read
:func:`summary`, then :func:`about`. No sentence is there without its number, and every number comes from the samples.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twograd.compare import budgets, stats, timing
from twograd.compare.results import (
    DEVICE,
    ONE_TIME_STAGES,
    CaseResult,
    ComparisonResult,
    EngineInfo,
    Measurement,
    Observation,
    Results,
    Row,
    Winners,
)
from twograd.compare.tables import timed_rows
from twograd.compare.units import duration, listed, percent, plural, significant, size

GRADIENT = "forward+backward"

CONFIDENCE = f"{percent(stats.CONFIDENCE)} interval"


def summary(results: Results) -> dict[str, list[str]]:
    """Over all comparisons: questions, each with the sentences that answer it; what has no answer is left out."""
    cases = results.cases()
    answers = {
        "Which engine?": [
            *_winners(cases),
            *_across(cases, "tape", "graph"),
            *_across(cases, "graph", "jax-jit"),
            *_across(cases, "tape", "torch"),
            *_across_devices(cases),
        ],
        "When?": [
            *_by_budget(cases),
            *_break_even_range(cases, results.engines),
            *_first_gradients(cases),
            *_maps(results),
        ],
        "Why?": [*_dispatch(cases), *_paid(cases, results.engines), *_bytes_kept(cases)],
        "How far can this be trusted?": [
            *_correctness(results),
            *_noise(case for _, case in cases),
            *_missing(results),
        ],
    }
    return {question: sentences for question, sentences in answers.items() if sentences}


def about(comparison: ComparisonResult, engines: Sequence[EngineInfo]) -> list[str]:
    """What was found in one comparison."""
    cases = comparison.cases
    ends = cases if len(cases) < 2 else [cases[0], cases[-1]]
    sentences = _ranking(cases)
    for compiled, recording in pairs(engines, cases):
        for case in ends:
            sentences += _pair_sentence(case, compiled, recording)
    return [*sentences, *_noise(cases)]


def line_times(comparison: ComparisonResult) -> str:
    """What the seconds of a program's lines are, and are not; nothing where its equations were not timed."""
    trace = comparison.trace
    if not trace.passes:
        return ""
    by_themselves = (
        f"each equation by itself, with what it costs to call it and to wait for its result; the medians of "
        f"{plural(trace.passes, 'pass', 'passes')} add up to {duration(sum(line.seconds for line in trace.lines))}. "
    )
    case = next((case for case in comparison.cases if case.name == trace.name), CaseResult("", {}))
    row = next((row for engine in ("graph", "jax-jit") if (row := timed(case, engine)) is not None), None)
    if row is None:
        return f"{by_themselves}Compiled together, lines have no times of their own."
    return (
        f"{by_themselves}Compiled together, lines have no times of their own: {code(row.engine)} takes "
        f"{duration(median(row))} for all of them."
    )


# --- who is fastest ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """The two fastest engines of a case. ``ratio`` is the second's time over the first's."""

    first: Row
    second: Row
    ratio: stats.Interval

    @property
    def clear(self) -> bool:
        return stats.clearly_different(self.ratio)


def ranking(case: CaseResult) -> Ranking | None:
    """By the steady time of a gradient; None where fewer than two engines were timed."""
    rows = sorted(timed_rows(case), key=lambda row: row.stages[GRADIENT].median)
    if len(rows) < 2:
        return None
    first, second = rows[:2]
    return Ranking(first, second, stats.ratio(second.stages[GRADIENT], first.stages[GRADIENT]))


def _ranking(cases: Sequence[CaseResult]) -> list[str]:
    """One sentence for each run of successive cases with one winner."""
    ranked = [(case, found) for case in cases if (found := ranking(case)) is not None]
    groups: list[list[tuple[CaseResult, Ranking]]] = []
    for case, found in ranked:
        if groups and _same_outcome(groups[-1][-1][1], found):
            groups[-1].append((case, found))
        else:
            groups.append([(case, found)])
    return [_outcome(group) for group in groups]


def _same_outcome(a: Ranking, b: Ranking) -> bool:
    same_pair = {a.first.engine, a.second.engine} == {b.first.engine, b.second.engine}
    return a.clear == b.clear and (a.first.engine == b.first.engine if a.clear else same_pair)


def _outcome(group: Sequence[tuple[CaseResult, Ranking]]) -> str:
    case, found = group[0]
    first, second = code(found.first.engine), code(found.second.engine)
    where = at(case) if len(group) == 1 else f"In {len(group)} cases ({'; '.join(c.name for c, _ in group)})"
    if len(group) > 1:
        estimates = [r.ratio.estimate for _, r in group]
        low, high = significant(min(estimates), 3), significant(max(estimates), 3)
        if not found.clear:
            return (
                f"{where} there is no clear difference between the two fastest, {first} and {second}: "
                f"the ratio of their times is {low} to {high}, and every {CONFIDENCE} holds 1."
            )
        seconds = listed(dict.fromkeys(code(r.second.engine) for _, r in group), "or")
        return (
            f"{where} {first} computes a gradient fastest; the next, {seconds}, takes {low} to {high} times as long "
            f"(no {CONFIDENCE} holds 1)."
        )
    times = f"{duration(median(found.first))} and {duration(median(found.second))}"
    if not found.clear:
        return (
            f"{where} there is no clear difference between the two fastest, {first} and {second} ({times} per "
            f"gradient, ratio {with_interval(found.ratio)}, n = {samples(found.first, found.second)})."
        )
    return (
        f"{where} {first} computes a gradient fastest, in {duration(median(found.first))}; the next, {second}, takes "
        f"{with_interval(found.ratio)} times as long (n = {samples(found.first, found.second)})."
    )


def _winners(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    ranked = [found for _, case in cases if (found := ranking(case)) is not None]
    if not ranked:
        return []
    unclear = sum(not found.clear for found in ranked)
    doubt = "each time clearly" if len(ranked) > 1 else "clearly"
    if unclear:
        many = f"in {'all' if unclear == len(ranked) else unclear} of them " if len(ranked) > 1 else ""
        doubt = f"{many}with no clear difference from the next"
    return [f"Once all is built, one gradient comes fastest from {tally(x.first.engine for x in ranked)}, {doubt}."]


def tally(winners: Iterable[str]) -> str:
    """``graph in 3 and jax-jit in 1 of 4 compared cases``, the most frequent first.

    ``winners`` has one for each case in which several engines were timed.
    """
    won = Counter(winners)
    total = plural(won.total(), "compared case")
    if len(won) == 1:
        return f"{code(*won)} in {'the one compared case' if won.total() == 1 else f'all {total}'}"
    ordered = sorted(won.items(), key=lambda item: (-item[1], item[0]))
    return f"{listed(f'{code(name)} in {count}' for name, count in ordered)} of {total}"


def _across(cases: Sequence[tuple[str, CaseResult]], slower: str, faster: str) -> list[str]:
    """One engine's time over another's."""
    found = [
        _Ratio.of(a, b, f"{name}, {case.name}")
        for name, case in cases
        if (a := timed(case, slower)) is not None and (b := timed(case, faster)) is not None
    ]
    return _longer(found, f"by {code(slower)}", f"by {code(faster)}")


def _across_devices(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    """An engine's time on one device over that on another, where results of several have been put together."""
    by_device: dict[str, dict[tuple[str, tuple[tuple[str, object], ...]], CaseResult]] = {}
    for name, case in cases:
        if DEVICE in case.axes:
            others = tuple((axis, value) for axis, value in case.axes.items() if axis != DEVICE)
            by_device.setdefault(str(case.axes[DEVICE]), {})[name, others] = case
    engines = list(dict.fromkeys(row.engine for _, case in cases for row in timed_rows(case)))
    sentences = []
    for (one, ones), (other, theirs) in itertools.combinations(by_device.items(), 2):
        for engine in engines:
            found = [
                _Ratio.of(a, b, ", ".join([key[0], *(f"{axis}={value}" for axis, value in key[1])]), False)
                for key, case in ones.items()
                if key in theirs
                and (a := timed(case, engine)) is not None
                and (b := timed(theirs[key], engine)) is not None
            ]
            sentences += _longer(found, f"by {code(engine)} on {one}", f"on {other}")
    return sentences


@dataclass(frozen=True)
class _Ratio:
    """One row's time over another's; ``where`` is the case, ``n`` the numbers of samples."""

    interval: stats.Interval
    where: str
    n: str

    @classmethod
    def of(cls, a: Row, b: Row, where: str, same_run: bool = True) -> "_Ratio":
        times = a.stages[GRADIENT], b.stages[GRADIENT]
        return cls(stats.ratio(*times) if same_run else stats.change(times[1], times[0]), where, samples(a, b))


def _longer(found: Sequence[_Ratio], slower: str, faster: str) -> list[str]:
    """The geometric mean over the cases, and the cases at both ends."""
    if not found:
        return []
    least, most = min(found, key=lambda r: r.interval.estimate), max(found, key=lambda r: r.interval.estimate)
    if len(found) == 1:
        return [
            f"A gradient {slower} takes {with_interval(least.interval)} times as long as {faster} "
            f"({least.where}, n = {least.n}){_no_clear_difference(least.interval)}."
        ]
    mean = math.exp(sum(math.log(r.interval.estimate) for r in found) / len(found))
    unclear = sum(not stats.clearly_different(r.interval) for r in found)
    doubt = f"; no clear difference in {'any' if unclear == len(found) else unclear} of them" if unclear else ""
    return [
        f"A gradient {slower} takes {significant(mean, 3)} times as long as {faster} (geometric mean of {len(found)} "
        f"cases{doubt}), from {with_interval(least.interval)} times in {least.where} (n = {least.n}) to "
        f"{with_interval(most.interval)} times in {most.where} (n = {most.n})."
    ]


def _no_clear_difference(ratio: stats.Interval) -> str:
    return "" if stats.clearly_different(ratio) else ": no clear difference"


# --- when which engine is done first ----------------------------------------------------------------------------------


def _by_budget(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    """What the opening page's map shows: where the first to be done clearly changes, and when; who never is it.

    It changes clearly where the first to have one gradient is clearly behind the fastest in the long run. Between the
    two others may be first for a while, by however little.
    """
    found = budgets.budgets(cases)
    if found is None:
        return []
    total = len(found.cases)
    takeovers = [budgets.takeovers(case) for _, case in found.cases]
    overtaken = []
    for (name, case), line in zip(found.cases, takeovers, strict=True):
        soonest, fastest = line[0][1], line[-1][1]
        if soonest not in budgets.done_first(case, math.inf):
            overtaken.append((stats.break_even(fastest, soonest), fastest, soonest, f"{name}, {case.name}"))
    overtaken.sort(key=lambda entry: entry[0].estimate)
    if overtaken:
        ends = [
            f"{gradients(even.estimate)} ({code(fastest.engine)} before {code(soonest.engine)} in {where}; "
            f"{steps_interval(even)})"
            for even, fastest, soonest, where in (overtaken[0], overtaken[-1])
        ]
        when = ends[0] if len(overtaken) == 1 else f"{ends[0]} at the earliest, {ends[1]} at the latest"
        where = "" if total == 1 else f" in {len(overtaken)} of {plural(total, 'compared case')}"
        text = f"depends on the number of gradients{where}: the fastest in the long run is ahead after {when}."
    else:
        where = "" if total == 1 else f" in any of {plural(total, 'compared case')}"
        text = f"does not clearly depend on the number of gradients{where}."
    cells = [rows for line in found.first for rows in line]
    clear = sum(len(rows) == 1 for rows in cells)
    sentences = [
        f"Which engine is done first {text}",
        f"Cells of the map in which an engine is clearly ahead of all others: {clear} of {len(cells)}.",
    ]
    leading = {row.engine for rows in cells for row in rows} | {row.engine for line in takeovers for _, row in line}
    never = dict.fromkeys(
        row.engine for _, case in found.cases for row in timed_rows(case) if row.engine not in leading
    )
    if never:
        sentences.append(
            "Never done first, for whatever number of gradients, nor level with the first in any of "
            f"{plural(len(cells), 'cell')} of the map: {listed(map(code, never))}."
        )
    return sentences


def _maps(results: Results) -> list[str]:
    """What an experiment says first, where it has drawn a map."""
    return [
        f"{code(comparison.name)}: {first.text}"
        for comparison in results.comparisons
        if any(isinstance(finding, Winners) for finding in comparison.findings)
        and (first := next((f for f in comparison.findings if isinstance(f, Observation)), None)) is not None
    ]


# --- when compiling pays ----------------------------------------------------------------------------------------------


def pairs(engines: Sequence[EngineInfo], cases: Sequence[CaseResult]) -> list[tuple[str, str]]:
    """The compiled and the recording engines whose break-even points are told, those that were timed.

    The first that compiles, against the first that records and, where that is another one, against the one that records
    and has its first gradients soonest.
    """
    present = {row.engine for case in cases for row in timed_rows(case)}
    compiled = next((i.name for i in engines if i.name in present and compiles(i, cases)), None)
    recording = [i.name for i in engines if i.kind == "dynamic" and i.name in present]
    if compiled is None or not recording:
        return []
    soonest = min(recording, key=lambda name: _mean_log_first_gradient(cases, name))
    return [(compiled, name) for name in dict.fromkeys([recording[0], soonest])]


def _mean_log_first_gradient(cases: Sequence[CaseResult], engine: str) -> float:
    rows = [row for case in cases if (row := timed(case, engine)) is not None]
    return sum(math.log(stats.one_time_cost(row) + median(row)) for row in rows) / len(rows)


def compiles(info: EngineInfo, cases: Sequence[CaseResult]) -> bool:
    """Whether a static engine pays for a compilation."""
    rows = (case.row(info.name) for case in cases)
    return info.kind == "static" and any(row is not None and "compile" in row.stages for row in rows)


def break_even(case: CaseResult, compiled: str, recording: str, warm: bool = False) -> stats.Interval | None:
    """Gradients until ``compiled`` has caught up; None where one of the two was not timed.

    ``warm`` takes it that the recording engine has met the program's ops before, in other programs, and pays nothing
    once: what it compiles are single ops.
    """
    a, b = timed(case, compiled), timed(case, recording)
    if a is None or b is None:
        return None
    return stats.break_even(a, replace(b, stages={GRADIENT: b.stages[GRADIENT]}) if warm else b)


def catches_up(case: CaseResult, compiled: str, recording: str) -> str:
    """``graph`` has caught up with ``tape`` after so many gradients, or from the first one on, or never."""
    found = break_even(case, compiled, recording)
    if found is None:
        return ""
    if math.isinf(found.estimate):
        doubt = "" if math.isinf(found.low) else f" ({CONFIDENCE} from {steps(found.low)} to never)"
        return f"{code(compiled)} never catches up with {code(recording)}{doubt}"
    if falls_behind(case, compiled, recording):
        back = break_even(case, recording, compiled)
        assert back is not None
        return (
            f"{code(compiled)} is ahead of {code(recording)} at first, which has caught up after "
            f"{gradients(back.estimate)} ({steps_interval(back)})"
        )
    if found.estimate == found.high == 1:
        return f"{code(compiled)} is ahead of {code(recording)} from the first gradient on"
    return (
        f"{code(compiled)} has caught up with {code(recording)} after {gradients(found.estimate)} "
        f"({steps_interval(found)})"
    )


def falls_behind(case: CaseResult, compiled: str, recording: str) -> bool:
    """Whether ``compiled`` is ahead at the first gradient, and yet slower at each that follows."""
    a, b, found = timed(case, compiled), timed(case, recording), break_even(case, compiled, recording)
    return a is not None and b is not None and found is not None and found.estimate == 1 and median(a) > median(b)


def _pair_sentence(case: CaseResult, compiled: str, recording: str) -> list[str]:
    """How much faster ``compiled`` is once all is built, and when it has made up for what it pays for that."""
    cold, warm = break_even(case, compiled, recording), break_even(case, compiled, recording, warm=True)
    a, b = timed(case, compiled), timed(case, recording)
    if cold is None or warm is None or a is None or b is None:
        return []
    steady = stats.ratio(b.stages[GRADIENT], a.stages[GRADIENT])
    found = [
        f"{at(case)} a steady gradient by {code(recording)} takes {with_interval(steady)} times as long as by "
        f"{code(compiled)} ({duration(median(b))} against {duration(median(a))}, n = {samples(b, a)})"
        f"{_no_clear_difference(steady)}.",
        f"From empty caches, {catches_up(case, compiled, recording)}: what is paid once is "
        f"{_paid_once(a)} for {code(compiled)} and {_paid_once(b)} for {code(recording)}.",
    ]
    warmth_matters = stats.one_time_cost(b) > 0.2 * stats.one_time_cost(a) and warm.estimate > 1.1 * cold.estimate
    if warmth_matters and math.isfinite(warm.estimate):
        found.append(
            f"Where {code(recording)} has met these ops before, it takes {gradients(warm.estimate)} "
            f"({steps_interval(warm)})."
        )
    return [" ".join(found)]


def _paid_once(row: Row) -> str:
    return duration(stats.one_time_cost(row)) if stats.one_time_cost(row) else "nothing"


def _break_even_range(cases: Sequence[tuple[str, CaseResult]], engines: Sequence[EngineInfo]) -> list[str]:
    return [
        sentence
        for compiled, recording in pairs(engines, [case for _, case in cases])
        for sentence in _earliest_and_latest(cases, compiled, recording)
    ]


def _earliest_and_latest(cases: Sequence[tuple[str, CaseResult]], compiled: str, recording: str) -> list[str]:
    found = [
        (even, f"{name}, {case.name}", falls_behind(case, compiled, recording))
        for name, case in cases
        if (even := break_even(case, compiled, recording)) is not None
    ]
    total = plural(len(found), "case")
    later = sorted(
        ((even, where) for even, where, _ in found if 1 < even.estimate < math.inf), key=lambda pair: pair[0].estimate
    )
    at_once = sum(even.estimate == 1 and not behind for even, _, behind in found)
    at_first = [where for _, where, behind in found if behind]
    never = [where for even, where, _ in found if math.isinf(even.estimate)]
    parts = []
    if at_once:
        parts.append(f"from the first gradient on in {at_once} of {total}")
    if at_first:
        parts.append(f"only for the first gradients in {plural(len(at_first), 'case')} ({'; '.join(at_first)})")
    if later:
        ends = [
            f"{gradients(even.estimate)} ({where}; {steps_interval(even)})"
            for even, where in dict.fromkeys((later[0], later[-1]))
        ]
        if len(ends) == 2:
            ends = [
                f"{ends[0]} at the earliest",
                f"{ends[1]} at the latest, in {len(later)} of {plural(len(found), 'case')}",
            ]
        parts.append(f"after {' and after '.join(ends)}")
    if never:
        parts.append(f"never in {plural(len(never), 'case')} ({'; '.join(never)})")
    if not parts:
        return []
    return [
        f"From empty caches, compiling with {code(compiled)} rather than recording with {code(recording)} pays "
        f"{listed(parts)}."
    ]


def _first_gradients(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    """Who is done first when only one gradient is wanted."""
    first = [
        min(rows, key=lambda row: stats.total_time(row, 1)).engine
        for _, case in cases
        if len(rows := timed_rows(case)) > 1
    ]
    if not first:
        return []
    return [
        "Where only a single gradient is wanted, all that is paid once included, the first to be done is "
        f"{tally(first)}."
    ]


# --- why --------------------------------------------------------------------------------------------------------------


def _dispatch(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    """Dispatch against arithmetic: what of the tape's time the compiled program, which is handed over once, needs."""
    found = []
    for name, case in cases:
        recorded, compiled = timed(case, "tape"), timed(case, "graph")
        if recorded is not None and compiled is not None:
            ratio = stats.ratio(recorded.stages[GRADIENT], compiled.stages[GRADIENT])
            found.append((ratio, f"{name}, {case.name}", recorded, compiled))
    if not found:
        return []
    most, least = max(found, key=lambda f: f[0].estimate), min(found, key=lambda f: f[0].estimate)
    ends = "; ".join(_gone(*end) for end in ([most] if most is least else [most, least]))
    return [
        f"Dispatch against arithmetic: {code('tape')} hands op after op to the runtime, {code('graph')} one compiled "
        f"program. Of the time of a gradient by {code('tape')} that saves {ends}."
    ]


def _gone(ratio: stats.Interval, where: str, recorded: Row, compiled: Row) -> str:
    if not stats.clearly_different(ratio):
        return f"nothing that is sure in {where}: no clear difference (ratio of the times {with_interval(ratio)})"
    if ratio.estimate < 1:
        return f"nothing in {where}, where {code('tape')} is faster (ratio of the times {with_interval(ratio)})"
    share, low, high = (percent(1 - 1 / r) for r in (ratio.estimate, ratio.low, ratio.high))
    nodes = recorded.counts.get("forward nodes")
    each = (
        f"; {duration((median(recorded) - median(compiled)) / nodes)} for each of its {nodes:g} nodes" if nodes else ""
    )
    return f"{share} in {where} ({CONFIDENCE} {low} to {high}{each}; n = {samples(recorded, compiled)})"


def _paid(cases: Sequence[tuple[str, CaseResult]], engines: Sequence[EngineInfo]) -> list[str]:
    """What compiling and recording pay once, in how many cases, and how much of it is the compiler."""
    chosen = pairs(engines, [case for _, case in cases])
    parts = []
    for engine in dict.fromkeys(name for pair in chosen for name in pair):
        rows = [row for _, case in cases if (row := timed(case, engine)) is not None]
        costs = [stats.one_time_cost(row) for row in rows]
        shares = [row.stages["compile"].median / stats.time_to_first(row) for row in rows if "compile" in row.stages]
        compiler = f", {span(shares, percent)} of it in the compiler" if shares else ""
        parts.append(f"{code(engine)} {span(costs, duration) if any(costs) else 'nothing'}{compiler}")
    if not parts:
        return []
    counts = [
        len(m.seconds)
        for _, case in cases
        for row in timed_rows(case)
        for s, m in row.stages.items()
        if s in ONE_TIME_STAGES
    ]
    return [
        f"Paid once, before a second gradient costs what it will always cost: {'; '.join(parts)} (medians of "
        f"{plural(len(cases), 'case')}, n = {span(counts, str)}, from empty caches)."
    ]


def _bytes_kept(cases: Sequence[tuple[str, CaseResult]]) -> list[str]:
    """Counted, not sampled, and so without an interval."""
    found = [
        (float(recorded.counts["saved bytes"]), float(compiled.counts["temp bytes"]), f"{name}, {case.name}")
        for name, case in cases
        if (recorded := case.row("tape")) is not None and (compiled := case.row("graph")) is not None
        if "saved bytes" in recorded.counts and "temp bytes" in compiled.counts
    ]
    if not found:
        return []
    least, most = min(found), max(found)
    ends = [
        f"{size(saved)} against {size(temporary)} in {where}"
        for saved, temporary, where in dict.fromkeys((least, most))
    ]
    return [
        f"Bytes kept: {code('tape')} keeps values between forward and backward, the compiled program of "
        f"{code('graph')} has temporaries of its own: {listed(ends)} (counted, not sampled; other things live beside "
        f"each, so that the two are not one quantity)."
    ]


# --- whether it is right, steady and whole ---------------------------------------------------------------------------


def _correctness(results: Results) -> list[str]:
    names = {info.name for info in results.engines}
    checked = wrong = witnessed = 0
    for _, _, row in results.rows():
        deciding = [check for check in row.checks if check.witness not in names]
        checked += bool(deciding)
        wrong += row.status == "mismatch"
        witnessed += any(check.independent and check.passed for check in deciding)
    if not checked and not wrong:
        return []
    which = f"All {checked}" if witnessed == checked else f"{witnessed} of {checked}"
    agree = (
        f"{which} gradients (an engine on a case) agree with at least one witness that shares no derivative rules with "
        f"the engine"
    )
    if not wrong:
        return [f"{agree}; none disagrees with a witness that decides."]
    culprits = listed(
        dict.fromkeys(f"{code(row.engine)} in {c.name}" for c, _, row in results.rows() if row.status == "mismatch")
    )
    return [f"{agree}; {wrong} {'is' if wrong == 1 else 'are'} WRONG or not finite and not timed: {culprits}."]


def _noise(cases: Iterable[CaseResult]) -> list[str]:
    """How far the timings can be trusted: their spread, and what a kernel that ran beside them says of the machine."""
    cases = list(cases)
    spreads = [m.spread for case in cases for row in case.rows for m in row.stages.values() if len(m.seconds) > 1]
    noisy = sum(spread > stats.NOISY for spread in spreads)
    sentences = []
    if noisy:
        very = sum(spread > stats.VERY_NOISY for spread in spreads)
        sentences.append(
            f"Of {len(spreads)} timings, {noisy} {'is' if noisy == 1 else 'are'} noisy (interquartile range over "
            f"{percent(stats.NOISY)} of the median), {very} of them very (over {percent(stats.VERY_NOISY)}); a quieter "
            f"machine or a longer run would tell more."
        )
    conditions = [case.conditions for case in cases if case.conditions.reference]
    repeated = sum(c.repeated for c in conditions)
    if repeated:
        rounds = repeated + sum(len(c.reference) for c in conditions)
        sentences.append(
            f"{repeated} of {rounds} rounds of timing were done again, as something else ran meanwhile: a reference "
            f"kernel beside them took over {significant(timing.DISTURBED, 3)} times its median."
        )
    drifted = max(conditions, key=lambda c: abs(c.drift), default=None)
    if drifted is not None and abs(drifted.drift) > stats.NOISY:
        sentences.append(
            f"The machine became {percent(abs(drifted.drift))} {'slower' if drifted.drift > 0 else 'faster'} within a "
            f"case, by that kernel; engines are timed in turns, so that their ratios are not concerned."
        )
    imprecise = sum(not c.precise for c in conditions)
    if imprecise:
        sentences.append(
            f"In {imprecise} of {len(conditions)} cases the time was up before all ratios were as precise as was asked "
            f"for."
        )
    return sentences


def _missing(results: Results) -> list[str]:
    """Comparisons and engines that have no result, each with its reason."""
    sentences = []
    for comparison in results.comparisons:
        if comparison.status != "done":
            sentences.append(f"Comparison {code(comparison.name)} {comparison.status}: {one_line(comparison.error)}.")
    absent = {info.name: info.reason for info in results.engines if not info.available}
    for name, reason in absent.items():
        sentences.append(f"{code(name)} took no part: {one_line(reason) or 'not available'}.")
    reasons: dict[tuple[str, str, str], dict[str, int]] = {}
    for comparison, _, row in results.rows():
        if row.status not in ("ok", "mismatch") and row.engine not in absent:
            where = reasons.setdefault((row.engine, row.status, row.reason), {})
            where[comparison.name] = where.get(comparison.name, 0) + 1
    for (name, status, reason), where in reasons.items():
        places = listed(f"{code(comparison)} ({plural(count, 'case')})" for comparison, count in where.items())
        sentences.append(f"{code(name)} {status} in {places}: {one_line(reason)}.")
    return sentences


# --- words ------------------------------------------------------------------------------------------------------------


def timed(case: CaseResult, engine: str) -> Row | None:
    """The row of an engine, if it has a steady time per gradient."""
    return next((row for row in timed_rows(case) if row.engine == engine), None)


def median(row: Row) -> float:
    return row.stages[GRADIENT].median


def samples(*rows: Row) -> str:
    """The numbers of samples of the steady gradient."""
    return " and ".join(dict.fromkeys(str(_count(row.stages[GRADIENT])) for row in rows))


def _count(measurement: Measurement) -> int:
    return len(measurement.seconds)


def code(name: str) -> str:
    """A name between backticks, which the report sets as code."""
    return f"`{name.replace('`', chr(39))}`"


def at(case: CaseResult) -> str:
    """Where a sentence about one case begins."""
    return f"At {case.name}" if case.axes else "Here"


def one_line(text: str) -> str:
    """A reason within a sentence: no line breaks, no full stop of its own, not too long."""
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 300 else text[:297] + "..."


def with_interval(interval: stats.Interval) -> str:
    """``1.23 (99 % interval 1.2 to 1.26)``."""
    if interval.low == 0 and math.isinf(interval.high):
        return f"{significant(interval.estimate, 3)} (too few samples for an interval)"
    low, high = significant(interval.low, 3), significant(interval.high, 3)
    return f"{significant(interval.estimate, 3)} ({CONFIDENCE} {low} to {high})"


def span(values: Sequence[Any], write: Callable[[Any], str]) -> str:
    """``60 % to 80 %``, or the one value that all have as they are written."""
    return " to ".join(dict.fromkeys((write(min(values)), write(max(values)))))


def steps(count: float) -> str:
    """A number of gradients, whole up to four figures."""
    return "infinitely many" if math.isinf(count) else significant(count, 4)


def gradients(count: float) -> str:
    """``1 gradient``, ``91 gradients``."""
    return f"{steps(count)} gradient{'' if count == 1 else 's'}"


def steps_interval(interval: stats.Interval) -> str:
    """The interval of a break-even point."""
    high = "never" if math.isinf(interval.high) else steps(interval.high)
    return f"{CONFIDENCE} {steps(interval.low)} to {high}"
