"""Which engine wins, for graphs of which length, on tensors of which size, and how often may the shape change?

The program is a chain of links, each a matrix product, a tanh and a sum. Its time is measured for every length and
size; that of n gradients of which a share has a new shape is computed: each new shape costs again what the first one
did. What an op costs on one element is dispatch; the rest is arithmetic, whose floor is what XLA counts in the compiled
gradient, at the rates of a matrix product and of a copy that are measured beside it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.compare import stats
from twograd.compare.budgets import together
from twograd.compare.engines.xla import blocked
from twograd.compare.program import Comparison, grid
from twograd.compare.results import CaseResult, Curves, Finding, Observation, Row, Series, Table, Winners
from twograd.compare.sentences import tally
from twograd.compare.tables import timed_rows
from twograd.compare.units import listed, percent, plural, significant

PATH = Path(__file__)

RATES = (0.0, 0.01, 1.0)
"""Shares of the calls that come with a shape that was not met before."""

QUICK_BUDGET = 50.0
"""Seconds, with ``--quick``."""

OPS_PER_LINK = 3
GRADIENT = "forward+backward"
COUNTED = ("flops", "bytes accessed")


def inputs(rng: Any, *, length: int, size: int) -> tuple[Any, ...]:
    # Scaled by the length too: a long chain of larger weights is chaotic, and no float32 gradient of it can be checked.
    weights = [rng.standard_normal((size, size)) / (size * length) ** 0.5 for _ in range(length)]
    return weights, rng.standard_normal((size, size))


def loss(ops: Any, weights: Any, x: Any) -> Any:
    for weight in weights:
        x = x + ops.np.tanh(x @ weight)
    return ops.np.mean(x * x)


def experiment(context: Any) -> Iterator[Finding]:
    """Read :func:`verdict`, then :func:`roofline`."""
    cases = [case for case in context.cases if timed_rows(case)]
    if not cases:
        return
    contested = [case for case in cases if len(timed_rows(case)) > 1]
    if contested:
        yield summary(contested)
        found = [finding for rate in RATES for finding in winners(contested, rate)]
        yield from sorted(found, key=lambda finding: isinstance(finding, Table))  # maps side by side, then tables
    yield from cost_per_op(cases)
    yield from roofline(cases, peaks(context))


def summary(cases: Sequence[CaseResult]) -> Observation:
    """Who wins how many of the cases in the long run, for each share of new shapes."""
    parts = []
    for rate in RATES:
        found = [names for names, *_ in (verdict(case, rate) for case in cases)]
        unclear = sum(len(names) > 1 for names in found)
        doubt = f" (no clear difference from another in {unclear})" if unclear else ""
        won = tally(names[0] for names in found)
        parts.append(f"where {percent(rate)} of the calls have a new shape, {won}{doubt}")
    return Observation(f"The winner in the long run: {'; '.join(parts)}.")


def verdict(case: CaseResult, rate: float) -> tuple[list[str], stats.Interval, list[str]]:
    """Who wins in the long run, with those from whom it does not differ clearly; after how many gradients they have
    caught up with all others; and who is ahead of the winner after no number of gradients."""
    rows = timed_rows(case)
    best = min(rows, key=lambda row: row.stages[GRADIENT].median + rate * stats.one_time_cost(row))
    even = {row.engine: stats.break_even(best, row, new_shapes=rate) for row in rows if row is not best}
    level = [name for name, interval in even.items() if math.isinf(interval.high)]
    behind = [interval for name, interval in even.items() if name not in level]
    after = max(behind, key=lambda interval: interval.estimate, default=stats.Interval(1.0, 1.0, 1.0))
    return [best.engine, *level], after, [name for name, interval in even.items() if interval.high == 1]


def winners(cases: Sequence[CaseResult], rate: float) -> Iterator[Finding]:
    """The map for one share of new shapes, and the same as a table with intervals."""
    lengths, sizes = (sorted({case.axes[axis] for case in cases}) for axis in ("length", "size"))
    found = {(case.axes["length"], case.axes["size"]): verdict(case, rate) for case in cases}
    where = f"{percent(rate)} of the calls with a new shape"
    cells = [[found.get((length, size)) for size in sizes] for length in lengths]
    yield Winners(
        f"Which engine wins in the long run, {where}",
        "size",
        "length",
        [str(size) for size in sizes],
        [str(length) for length in lengths],
        [[cell[0][0] if cell else "" for cell in row] for row in cells],
        [[_label(*cell[:2]) if cell else "" for cell in row] for row in cells],
        "After so many gradients all others have been caught up with. Engines named together do not differ clearly.",
    )
    yield Table(
        f"The winners, {where}",
        ["length", "size", "wins in the long run", "after gradients", "99 % from", "to", "never ahead of it"],
        [
            [length, size, ", ".join(names), after.estimate, after.low, after.high, ", ".join(never) or "none"]
            for (length, size), (names, after, never) in found.items()
        ],
        note="Intervals are of the steady times; what is paid once is sampled too rarely to have one of its own.",
    )
    everywhere = set.intersection(*(set(never) for *_, never in found.values()))
    if everywhere:
        yield Observation(
            f"With {where}, never ahead of the winner, after whatever number of gradients and in any of "
            f"{len(found)} cases: {listed(f'`{name}`' for name in sorted(everywhere))}."
        )


def _label(names: Sequence[str], after: stats.Interval) -> str:
    at = "from the first" if after.estimate == 1 else f"after {significant(after.estimate, 3)}"
    return f"{together(names)}\n{at}"


def cost_per_op(cases: Sequence[CaseResult]) -> Iterator[Finding]:
    """Dispatch against arithmetic: the time of an op on one element, and what larger tensors add to it."""
    longest = max(case.axes["length"] for case in cases)
    line = sorted((case for case in cases if case.axes["length"] == longest), key=lambda case: case.axes["size"])
    first, last = line[0], line[-1]
    if first is last:
        return
    rows = []
    for row in timed_rows(last):
        small = first.row(row.engine)
        if small is not None and GRADIENT in small.stages:
            least, most = (r.stages[GRADIENT].median / (OPS_PER_LINK * float(longest)) for r in (small, row))
            rows.append([row.engine, 1e6 * least, 1e6 * most, 1e6 * (most - least), 100 * least / most])
    size = last.axes["size"]
    yield Table(
        f"Dispatch against arithmetic, per op, forward and backward, {plural(int(longest), 'link')}",
        ["engine", f"on {first.axes['size']} x {first.axes['size']}", f"on {size} x {size}", "the difference", "share"],
        sorted(rows, key=lambda row: row[1]),
        ["", "µs", "µs", "µs", "%"],
        "The first column is dispatch, the difference arithmetic; the last is dispatch in the time on the larger ones.",
    )


@dataclass(frozen=True)
class Peaks:
    """Operations per second of a matrix product; bytes per second, read and written, of a copy from memory, and of one
    that stays in a cache."""

    flops: float
    memory: float
    cache: float


def peaks(context: Any) -> Peaks:
    """Of the run's dtype. The best sample and the best size count: a roof is what can be reached."""
    sides, large = ((128, 512), 1 << 22) if context.quick else ((128, 256, 512, 1024), 1 << 24)
    counts = (1 << 16, 1 << 18, large)
    dtype = context.settings.dtype
    product, copy = jax.jit(jnp.matmul), jax.jit(jnp.copy)
    products = {f"product {side}": blocked(product, *[jnp.ones((side, side), dtype)] * 2) for side in sides}
    copies = {f"copy {count}": blocked(copy, jnp.ones(count, dtype)) for count in counts}
    best = {name: min(found.seconds) for name, found in context.measure({**products, **copies}).items()}
    flops = max(2.0 * side**3 / best[f"product {side}"] for side in sides)
    rates = {count: 2.0 * count * np.dtype(dtype).itemsize / best[f"copy {count}"] for count in counts}
    return Peaks(flops, rates[large], max(rates.values()))


def roofline(cases: Sequence[CaseResult], peak: Peaks) -> Iterator[Finding]:
    """Where each engine stands below the roof: the counts are those of the compiled gradient, for all engines."""
    counted = [(case, row) for case in cases if (row := _counted(case)) is not None]
    if not counted:
        return
    intensity = {case.name: row.counts["flops"] / row.counts["bytes accessed"] for case, row in counted}
    roofs = {"roof, cache": peak.cache, "roof, memory": peak.memory}
    ends = [*intensity.values(), *(peak.flops / bytes_per_second for bytes_per_second in roofs.values())]
    xs = sorted({*np.geomspace(min(ends), max(ends), 9).tolist(), *ends[len(intensity) :]})
    series = [Series(name, xs, [min(peak.flops, rate * x) / 1e9 for x in xs]) for name, rate in roofs.items()]
    rows, shares = [], []
    longest = max(case.axes["length"] for case, _ in counted)
    for name in dict.fromkeys(row.engine for case, _ in counted for row in timed_rows(case)):
        line = [
            (intensity[case.name], row.counts["flops"] / measured.stages[GRADIENT].median / 1e9)
            for case, row in counted
            if case.axes["length"] == longest
            and (measured := case.row(name)) is not None
            and GRADIENT in measured.stages
        ]
        series.append(Series(name, [x for x, _ in line], [y for _, y in line], name))
    for case, row in counted:
        floor = max(row.counts["flops"] / peak.flops, row.counts["bytes accessed"] / peak.cache)
        fastest = min(timed_rows(case), key=lambda r: r.stages[GRADIENT].median)
        time = fastest.stages[GRADIENT].median
        counts = [row.counts["flops"] / 1e6, row.counts["bytes accessed"] / 1e6]
        rows.append([case.name, *counts, 1e6 * floor, fastest.engine, 1e6 * time, time / floor])
        shares.append((floor / time, case.name, fastest.engine))
    yield Curves(
        f"Roofline, {plural(int(longest), 'link')}",
        "operations per byte, as XLA counts them",
        "Gflop/s",
        series,
        "log",
        "log",
        f"The roofs are a measured matrix product ({significant(peak.flops / 1e9, 3)} Gflop/s) and measured copies "
        f"({significant(peak.cache / 1e9, 3)} GB/s within a cache, {significant(peak.memory / 1e9, 3)} GB/s from "
        f"memory). Counts are those of the compiled gradient.",
    )
    yield Table(
        "The floor of a gradient",
        ["case", "operations", "bytes", "floor", "fastest", "its time", "times the floor"],
        rows,
        ["", "Mflop", "MB", "µs", "", "µs", ""],
    )
    share, where, engine = max(shares)
    yield Observation(
        f"Nearest to the roof comes `{engine}` at {where}: its time is {significant(1 / share, 3)} times the floor "
        f"that XLA's counts and the measured peaks give."
    )


def _counted(case: CaseResult) -> Row | None:
    return next((row for row in timed_rows(case) if all(row.counts.get(key, 0) > 0 for key in COUNTED)), None)


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=grid(length=(1, 8, 64), size=(1, 16, 128, 512)),
    quick=grid(length=(1, 8), size=(1, 128)),
    experiment=experiment,
    engines=("tape", "graph", "jax-jit", "torch", "autograd"),
)
