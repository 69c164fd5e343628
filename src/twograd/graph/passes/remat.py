"""Rematerialisation: what the derivative would keep from the program is computed again where it is needed.

What flows in: a program with its derivative, and the bytes that may be kept. What flows out: the same program, in which
some values are not kept but computed a second time. Read :func:`remat`, then :class:`Selection`.

Which values, is chosen greedily, cheapest operations per byte first; what a value costs is what must be computed for it
again, from the nearest values that are kept. Values that are not kept and need each other form a region, which is
computed as a whole and then lives as a whole. Evicting between two regions joins them, which costs more and more, so on
a deep chain the regions grow alike, to the checkpoints of T. Chen et al., "Training deep nets with sublinear memory
cost" (2016); the heuristic is that of M. Kirisame et al., "Dynamic tensor rematerialization" (2021).
"""

import heapq
import math
import numbers
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from twograd._compat import scoped
from twograd.graph.passes.cost import flops
from twograd.graph.passes.cse import NOT_A_FUNCTION
from twograd.graph.passes.report import Pass, PassReport, check_program, count, derivative_order
from twograd.graph.passes.rewriting import Walk, is_plain, size_of


def remat(budget_bytes: int) -> Pass:
    """A pass that lets a derivative keep at most ``budget_bytes`` of values that its program computes.

    Counted are the values that the equations of the (highest) derivative read and that other equations made; inputs,
    constants and results live anyway. To these are added those that live at once while they are computed again: the
    largest region. Values that are recomputed are the program's own, from barriers (``lax.optimization_barrier``) that
    wait for the derivative to arrive there, so neither XLA nor :func:`cse` merges them with the first.

    The report says what was kept before and after and how many operations were added. Values are the same up to the
    rounding of how XLA fuses. Raises ValueError, naming the least that was found, where the budget cannot be met.
    Equations with effects, random state and while loops are not evaluated twice. Only the outermost jaxpr is looked at.
    TypeError for a budget that is no number.
    """
    if isinstance(budget_bytes, ClosedJaxpr):
        kept = Selection(budget_bytes.jaxpr).bytes
        raise TypeError(
            "remat is told how many bytes may be kept, and then is a pass: g.optimize(passes.remat(budget_bytes)). "
            f"This program keeps {kept:,} bytes; for half of them, passes.remat({kept // 2})"
        )
    if not isinstance(budget_bytes, numbers.Real):
        raise TypeError(f"remat: budget_bytes is a number of bytes, not {budget_bytes!r}")
    if not budget_bytes >= 0:
        raise ValueError(f"remat: budget_bytes is {budget_bytes}; it must not be negative")

    def remat(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
        check_program(closed, "remat")
        start = time.perf_counter()
        selection = Selection(closed.jaxpr)
        before = selection.bytes
        selection.shrink_to(budget_bytes)
        fired: Counter[str] = Counter()
        rewritten = closed
        if selection.recomputed:
            walk = Recomputing(closed.jaxpr, closed.consts, lambda walk: lambda eqn: None)
            walk.selection = selection
            jaxpr, consts = walk.run()
            rewritten = ClosedJaxpr(jaxpr, consts)
            fired["equation recomputed"] = walk.copies
            fired["value not kept"] = len(selection.evicted)
            fired["byte kept before"], fired["byte kept after"] = before, selection.bytes
            fired["operation added"] = int(walk.operations)
        return rewritten, PassReport("remat", count(closed), count(rewritten), fired, time.perf_counter() - start)

    return remat


class Selection:
    """Which of the values that the derivative reads are kept."""

    def __init__(self, jaxpr: Jaxpr):
        orders = [derivative_order(eqn) for eqn in jaxpr.eqns]
        self.order = max(orders, default=0)
        self.is_derivative = [order == self.order > 0 for order in orders]
        """Per equation, whether it belongs to the highest derivative."""
        self.maker: dict[Var, JaxprEqn] = {}
        self.readers: dict[Var, list[Var]] = {}
        read: dict[Var, None] = {}
        for eqn, late in zip(jaxpr.eqns, self.is_derivative, strict=True):
            variables = [atom for atom in eqn.invars if isinstance(atom, Var)]
            if late:
                read.update(dict.fromkeys(variables))
                continue
            self.maker.update(dict.fromkeys(eqn.outvars, eqn))
            for var in variables:
                self.readers.setdefault(var, []).extend(eqn.outvars)
        results = set(jaxpr.outvars)
        self.kept = {var for var in read if var in self.maker and var not in results}
        self.fixed = results | {var for var, eqn in self.maker.items() if not is_repeatable(eqn)}
        self.evicted: set[Var] = set()
        self.recomputed: set[Var] = set()
        """The evicted values, and those between them and what is kept."""
        self._region: dict[Var, Var] = {}
        self._cost: dict[Var, float] = {}
        self._size: dict[Var, int] = {}
        self._largest = 0
        self._kept_bytes = size_of(*self.kept)

    @property
    def bytes(self) -> int:
        """Kept, and the largest region."""
        return self._kept_bytes + self._largest

    def shrink_to(self, budget: int) -> None:
        """Evicts values until no more than ``budget`` bytes are left."""
        least = self.bytes
        heap = [(self._rank(var), index, var) for index, var in enumerate(self.kept_in_order()) if size_of(var)]
        heapq.heapify(heap)
        while self.bytes > budget:
            if not heap:
                raise ValueError(
                    f"remat: a budget of {budget} bytes cannot be met; the least that was found is {least} bytes"
                )
            rank, index, var = heapq.heappop(heap)
            now = self._rank(var)
            if now > rank:  # its neighbours have been evicted since
                if now < math.inf:
                    heapq.heappush(heap, (now, index, var))
                continue
            if now < math.inf:
                self._evict(var)
                least = min(least, self.bytes)

    def kept_in_order(self) -> Iterator[Var]:
        return (var for var in self.maker if var in self.kept and var not in self.fixed)

    def region_of(self, var: Var) -> Var:
        """What stands for the region of a recomputed value."""
        root = var
        while self._region[root] is not root:
            root = self._region[root]
        while self._region[var] is not root:
            self._region[var], var = root, self._region[var]
        return root

    def is_available(self, var: Var) -> bool:
        """Whether the derivative can read ``var``: it is an input, or kept, or cannot be computed again."""
        return var not in self.maker or var in self.kept or var in self.fixed

    def _needed(self, var: Var) -> list[Var] | None:
        """What would have to be computed besides for ``var`` that is not in a region yet; None if it cannot be."""
        needed, todo, seen = [], [var], {var}
        while todo:
            made = todo.pop()
            needed.append(made)
            if len(needed) > 64:  # a value far from all that is kept is no bargain, and the search stays linear
                return None
            for atom in self.maker[made].invars:
                if isinstance(atom, Var) and atom not in seen and not self.is_available(atom):
                    seen.add(atom)
                    if atom not in self._region:
                        todo.append(atom)
        return needed

    def _neighbours(self, members: Sequence[Var]) -> set[Var]:
        """The regions that read one of ``members``, or that one of them reads."""
        near = [atom for var in members for atom in self.maker[var].invars if isinstance(atom, Var)]
        near += [out for var in members for out in self.readers.get(var, ())]
        return {self.region_of(var) for var in near if var in self._region}

    def _rank(self, var: Var) -> float:
        """Operations that would be added, or be done in one go with them, per byte that is freed."""
        needed = self._needed(var)
        if needed is None:
            return math.inf
        cost = sum(self._own_cost(member) for member in needed)
        return (1 + cost + sum(self._cost[region] for region in self._neighbours(needed))) / size_of(var)

    def _own_cost(self, var: Var) -> float:
        eqn = self.maker[var]
        return (flops(eqn) + 1) / len(eqn.outvars)

    def _evict(self, var: Var) -> None:
        needed = self._needed(var)
        assert needed is not None
        regions = self._neighbours(needed)
        self.kept.remove(var)
        self.evicted.add(var)
        self.recomputed.update(needed)
        self._kept_bytes -= size_of(var)
        self._region.update(dict.fromkeys(needed, var))
        self._region.update(dict.fromkeys(regions, var))
        self._cost[var] = sum(map(self._own_cost, needed)) + sum(self._cost[region] for region in regions)
        self._size[var] = size_of(var) + sum(self._size[region] for region in regions)
        self._largest = max(self._largest, self._size[var])


def is_repeatable(eqn: JaxprEqn) -> bool:
    """Whether the equation may be evaluated twice."""
    plain = all(is_plain(atom.aval) for atom in [*eqn.invars, *eqn.outvars])
    return plain and not eqn.effects and eqn.primitive not in NOT_A_FUNCTION and flops(eqn) < math.inf


class Recomputing(Walk):
    """A walk that computes a value again before the first equation of the derivative that reads it."""

    selection: Selection

    def walk(self, env: dict[Var, Any]) -> None:
        self.copies, self.operations = 0, 0.0
        again: dict[Var, Any] = dict(env)
        behind: dict[Var, dict[Var, Any]] = {}
        latest: Var | None = None
        for eqn, late in zip(self.jaxpr.eqns, self.selection.is_derivative, strict=True):
            if not late:
                self.visit(eqn, env)
                continue
            for atom in eqn.invars:
                if isinstance(atom, Var) and atom in self.selection.recomputed and atom not in again:
                    self._recompute(atom, eqn, env, again, behind, latest)
            self.visit(eqn, again)
            latest = next((var for var in eqn.outvars if is_plain(var.aval) and size_of(var)), latest)
        env.update((var, again[var]) for var in self.jaxpr.outvars if isinstance(var, Var) and var in again)

    def _recompute(
        self,
        wanted: Var,
        reader: JaxprEqn,
        env: dict[Var, Any],
        again: dict[Var, Any],
        behind: dict[Var, dict[Var, Any]],
        latest: Var | None,
    ) -> None:
        """Computes ``wanted`` and what it needs, from values that wait for the latest one of the derivative.

        ``behind`` has, for each region, what stands for its sources behind the barrier: of the operands of an equation
        one is enough, rather a kept value than an input.
        """
        selection = self.selection
        todo, order = [wanted], {}
        while todo:  # depth first, each value after those that it needs
            var = todo[-1]
            missing = [
                atom
                for atom in (selection.maker[var].invars if var not in order else ())
                if isinstance(atom, Var) and not (atom in again or atom in order or selection.is_available(atom))
            ]
            todo += missing
            if not missing:
                order[todo.pop()] = None
        known = behind.setdefault(selection.region_of(wanted), {})
        waiting: dict[Var, None] = {}
        for var in order:
            atoms = [atom for atom in selection.maker[var].invars if isinstance(atom, Var)]
            if atoms and not any(
                atom in known or atom in waiting or not selection.is_available(atom) for atom in atoms
            ):
                waiting[min(atoms, key=lambda atom: (atom not in selection.maker, size_of(atom)))] = None
        if waiting:
            tied = [] if latest is None else [latest]
            atoms = [*waiting, *(again.get(var, var) for var in tied)]
            closed = jax.make_jaxpr(barrier if tied else lax.optimization_barrier)([atom.aval for atom in atoms])
            results = self.splice(closed.jaxpr, closed.consts, atoms, lambda _: reader.source_info)
            known.update(zip(waiting, results, strict=False))
            again.update(zip(tied, results[len(waiting) :], strict=True))
        for var in order:
            if var in again:
                continue  # another result of the same equation
            eqn = selection.maker[var]
            local = {atom: known.get(atom, again.get(atom, atom)) for atom in eqn.invars if isinstance(atom, Var)}
            self.visit(eqn, local, scoped(eqn, reader, "remat"))
            again.update((out, local[out]) for out in eqn.outvars if not selection.is_available(out))
            self.copies += 1
            self.operations += flops(eqn)
        self.changed = True


def barrier(values: Sequence[Any]) -> list[Any]:
    """The values, which wait for the last of them.

    XLA's compiler for the CPU removes barriers before it merges equal operations, those of ``jax.checkpoint`` too. What
    it cannot see through is a choice by a number that is not known before it runs: here one that is never 0.
    """
    *values, last = lax.optimization_barrier(list(values))
    if jax.default_backend() == "cpu":
        first = lax.reshape(lax.slice(last, (0,) * last.ndim, (1,) * last.ndim), ())
        always = lax.ne(lax.bitwise_or(as_integer(first), np.int32(1)), np.int32(0))
        values = [lax.select(lax.broadcast(always, x.shape), x, lax.full_like(x, 0)) for x in values]
    return [*values, last]


def as_integer(number: Any) -> Any:
    """Some integer that depends on ``number``."""
    if np.iscomplexobj(number):
        number = lax.real(number)
    if number.dtype != np.bool_ and not np.issubdtype(number.dtype, np.integer):
        number = lax.bitcast_convert_type(lax.convert_element_type(number, np.float32), np.int32)
    return lax.convert_element_type(number, np.int32)
