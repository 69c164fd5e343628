"""Higher orders as a table: how the same program grows, derivative by derivative.

What flows in: a function and its arguments. What flows out: a :class:`Ladder`. Read :func:`ladder`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves

from twograd._arguments import check_callable
from twograd._table import TextTable
from twograd.graph.graph import Graph, trace

ROUNDS = 7


@dataclass(frozen=True)
class Rung:
    """One order: its graph holds the program and all derivatives up to this one.

    ``flops`` and ``bytes`` are XLA's estimates of the program as it is lowered, before XLA's own optimisations; None
    where the backend has none. ``seconds`` is the median time of a compiled call.
    """

    order: int
    graph: Graph
    nodes: int
    flops: float | None
    bytes: float | None
    seconds: float


@dataclass(frozen=True)
class Ladder:
    """The orders of one program as they are traced, and after all passes; printed as a table."""

    program: str
    raw: tuple[Rung, ...]
    optimized: tuple[Rung, ...]

    @property
    def table(self) -> TextTable:
        """A row per order; of each pair the first number is before all passes, the second after them."""
        columns = ("order", "nodes", "after passes", "flops", "after", "bytes", "after", "time", "after")
        rows = [
            (
                str(raw.order),
                *(str(rung.nodes) for rung in (raw, after)),
                *(_estimate(rung.flops) for rung in (raw, after)),
                *(_estimate(rung.bytes) for rung in (raw, after)),
                *(f"{rung.seconds * 1e6:.0f} µs" for rung in (raw, after)),
            )
            for raw, after in zip(self.raw, self.optimized, strict=True)
        ]
        return TextTable(f"Derivatives of {self.program}", columns, rows)

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def ladder(f: Callable[..., Any], *args: Any, orders: int = 4) -> Ladder:
    """Differentiates ``f`` again and again in its first argument, and counts and times what comes out.

    Order 1 is the gradient of the (scalar) result of ``f``; every further one is that of the sum of all elements of the
    one before, as with TensorFlow's repeated ``gradients``. Each order adds equations to the graph of the one before,
    so its graph computes the value and all derivatives so far.

    Raises TypeError where the result is no real scalar or the first argument holds integers, ValueError for
    ``orders`` below 1.
    """
    check_callable(f, "ladder")
    if not isinstance(orders, int):
        raise TypeError(f"ladder climbs a number of orders, got orders={orders!r}")
    if orders < 1:
        raise ValueError(f"ladder climbs at least one order, got orders={orders}")
    args = jax.tree.map(jnp.asarray, args)
    leaves = tree_leaves(args[:1])
    xs = tuple(range(len(leaves)))
    graphs = [trace(f, *args)]
    outs = graphs[0].jaxpr.out_avals
    if len(outs) != 1 or outs[0].shape != () or not jnp.issubdtype(outs[0].dtype, jnp.floating):
        returned = ", ".join(aval.str_short() for aval in outs)
        raise TypeError(f"ladder needs a program that returns one real scalar; {graphs[0].name} returns {returned}")
    for order in range(orders):
        newest = graphs[-1]
        ys = range(len(newest.outputs))[-len(xs) :] if order else [0]
        graphs.append(newest.gradients(list(ys), xs, [jnp.ones_like(leaf) for leaf in leaves] if order else None))
    optimized = [g.optimize() for g in graphs]
    seconds = _times([*graphs, *optimized], args)
    rungs = [
        Rung(i % len(graphs), g, len(g.jaxpr.eqns), *_estimates(g), seconds[i])
        for i, g in enumerate([*graphs, *optimized])
    ]
    return Ladder(graphs[0].name, tuple(rungs[: len(graphs)]), tuple(rungs[len(graphs) :]))


def _estimates(g: Graph) -> tuple[float | None, float | None]:
    costs = g.lower().cost_analysis() or {}
    return costs.get("flops"), costs.get("bytes accessed")


def _estimate(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _times(graphs: Sequence[Graph], args: Sequence[Any]) -> list[float]:
    """Medians over interleaved rounds, so that a machine that slows down slows all orders."""
    samples: list[list[float]] = [[] for _ in graphs]
    for round in range(ROUNDS + 1):
        for g, seconds in zip(graphs, samples, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(g.run(*args))
            if round:  # the first call compiles
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in samples]
