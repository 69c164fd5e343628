"""Finding blocks of equations that a program repeats, and what the operands of a block are.

What flows in: the equations of a program. What flows out: a :class:`Block` for each stretch that can be a loop. Read
:func:`find_blocks`, then :func:`block_at`. Take layers ``x = tanh(x @ w + b)``, each with a ``w`` of its own::

    c = x0 @ w0     0   carried: x is made one block before (and x0 comes from outside); each block has its own w
    d = c + b       1   inside: c is made in the same block; the same b for all
    x1 = tanh(d)    2   inside
    c = x1 @ w1     0
    ...

1. Equations that look alike (primitive, parameters, types, whatever they read) get the same number: :class:`Likeness`.
2. ``periods.py`` finds where the numbers repeat themselves, 0 1 2 0 1 2 ..., and after how many equations.
3. Such a stretch can be cut into blocks at any equation. :func:`best_offset` cuts where the fewest bytes are carried.
4. :func:`block_at` compares what the equations read, over all repetitions: each operand must be one of the four kinds
   of the example. Where that breaks, the stretch is split in two. This is exact; the steps before it only guess.

An unrolled program may hold its equations in another order than layer by layer. Then :func:`depth_first` sorts them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, primitives

from twograd.graph.passes.cost import MOVES
from twograd.graph.passes.cse import operand
from twograd.graph.passes.periods import Repeat, repeats
from twograd.graph.passes.rewriting import Atom, aval_of, size_of
from twograd.graph.passes.simplify import keeps_elements

LEAST_SAVED = 32
"""Equations that a loop must save: a few repeated operations are better fused than looped over."""

LEAST_PERIODS = 4
LONGEST_DELAY = 4  # blocks that a value may be carried before it is read
ROUNDS = 8

Place = tuple[int, int]
"""Where in a block a value is made: which of the equations, which of its results."""


# --- what looks alike -------------------------------------------------------------------------------------------------


class Likeness:
    """Numbers for equations and jaxprs: equal for those that are the same but for what they read."""

    def __init__(self):
        self._numbers: dict[Any, int] = {}
        self._jaxprs: dict[int, tuple[Any, int]] = {}

    def of_equation(self, eqn: JaxprEqn) -> int:
        """A number of its own for an equation that must stay where it is."""
        if eqn.effects or eqn.primitive is primitives.rng_uniform_p or not all(map(can_be_stacked, ends(eqn))):
            return self._number(object())
        return self._number(self._key(eqn))

    def _key(self, eqn: JaxprEqn) -> Any:
        params = () if moves_by_start(eqn) else tuple((key, self._param(value)) for key, value in eqn.params.items())
        avals = (tuple(atom.aval for atom in eqn.invars), tuple(var.aval for var in eqn.outvars))
        return eqn.primitive, params, avals, eqn.ctx

    def _param(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(self._param(item) for item in value)
        if isinstance(value, ClosedJaxpr):
            return self._of_jaxpr(value.jaxpr), tuple(map(id, value.consts))
        if isinstance(value, Jaxpr):
            return self._of_jaxpr(value)
        try:
            hash(value)
        except TypeError:
            return id(value)
        return value

    def _of_jaxpr(self, jaxpr: Jaxpr) -> Any:
        if id(jaxpr) not in self._jaxprs:
            variables: dict[Var, int] = {}

            def name(atom):
                if isinstance(atom, Literal):
                    return operand(atom)
                return variables.setdefault(atom, len(variables)), atom.aval

            binders = tuple(map(name, [*jaxpr.constvars, *jaxpr.invars]))
            eqns = tuple(
                (self._key(eqn), *((k, self._param(v)) for k, v in eqn.params.items()), *map(name, ends(eqn)))
                for eqn in jaxpr.eqns
            )
            number = self._number((binders, eqns, tuple(map(name, jaxpr.outvars))))
            self._jaxprs[id(jaxpr)] = jaxpr, number
        return "jaxpr", self._jaxprs[id(jaxpr)][1]

    def _number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


def ends(eqn: JaxprEqn) -> Iterator[Atom]:
    return itertools.chain(eqn.invars, eqn.outvars)


def can_be_stacked(atom: Atom) -> bool:
    return isinstance(atom.aval, ShapedArray) and atom.aval.dtype != jax.dtypes.float0


def moves_by_start(eqn: JaxprEqn) -> bool:
    """Whether it only takes a piece out of an array, or puts one among zeros: where the piece begins may differ."""
    if eqn.primitive is lax.slice_p:
        return all(stride == 1 for stride in eqn.params["strides"] or ())
    if eqn.primitive is lax.pad_p:
        value, layout = eqn.invars[1], eqn.params["padding_config"]
        return (
            isinstance(value, Literal)
            and operand(value)[0] == np.zeros((), aval_of(value).dtype).tobytes()
            and all(low >= 0 and high >= 0 and not inside for low, high, inside in layout)
        )
    return False


def starts_of(eqn: JaxprEqn) -> tuple[int, ...]:
    if eqn.primitive is lax.slice_p:
        return tuple(eqn.params["start_indices"])
    return tuple(low for low, _, _ in eqn.params["padding_config"])


# --- the flow of data -------------------------------------------------------------------------------------------------


class Inside(NamedTuple):
    """Made by the same block."""

    place: Place


class Carried(NamedTuple):
    """Made ``delay`` blocks before; ``initial`` are the keys of what the first blocks read instead."""

    place: Place
    delay: int
    initial: tuple[Any, ...]


class Same(NamedTuple):
    """One value from outside for all blocks."""

    atom: Atom


class Each(NamedTuple):
    """A value from outside for each block: the number of a row of :attr:`Block.rows`."""

    row: int


Reading = Inside | Carried | Same | Each


@dataclass(eq=False)
class Block:
    """``repetitions`` times ``period`` equations from ``start`` on, and what their operands are."""

    start: int
    period: int
    repetitions: int
    readings: list[list[Reading]] = field(default_factory=list)
    rows: list[list[Atom]] = field(default_factory=list)
    initials: dict[Carried, list[Atom]] = field(default_factory=dict)
    starts: dict[int, list[list[Atom] | int]] = field(default_factory=dict)
    """For a slice or padding that begins elsewhere in each block: per axis a number, or a row."""
    reverse: bool = False
    stacked: dict[Place, Var] = field(default_factory=dict)
    """Results that are read outside as a whole, and the variable that stands for the stack."""
    entering: dict[Carried, Var] = field(default_factory=dict)
    """Carries that are read outside as a whole, as they were at the beginning of each block."""
    single: dict[tuple[Place, int], Var] = field(default_factory=dict)
    """Results of one block that are read outside."""

    @property
    def stop(self) -> int:
        return self.start + self.period * self.repetitions

    def at(self, block: int, slot: int) -> int:
        return self.start + block * self.period + slot

    def order(self, values: list[Any]) -> list[Any]:
        """Per-block values, in the order in which they are stacked."""
        return values[::-1] if self.reverse else values


class Program:
    """The equations of a jaxpr in one order, without the views: those that only take a row out of an input."""

    def __init__(self, jaxpr: Jaxpr, order: Sequence[JaxprEqn]):
        self.jaxpr = jaxpr
        self.rows_of, self.views = rows_of_inputs(jaxpr)
        views = set(map(id, self.views))
        self.eqns = [eqn for eqn in order if id(eqn) not in views]
        self.made_at: dict[Any, tuple[int, int]] = {
            var: (position, out) for position, eqn in enumerate(self.eqns) for out, var in enumerate(eqn.outvars)
        }

    def source(self, atom: Atom) -> tuple[int, int] | None:
        return None if isinstance(atom, Literal) else self.made_at.get(atom)


def block_at(program: Program, start: int, period: int, repetitions: int) -> Block | int:
    """The block, or, where the data do not flow in the same way everywhere, the repetition to split before."""
    block = Block(start, period, repetitions)
    known_rows: dict[Any, int] = {}
    for slot in range(period):
        eqns = [program.eqns[block.at(j, slot)] for j in range(repetitions)]
        readings: list[Reading] = []
        for position in range(len(eqns[0].invars)):
            atoms = [eqn.invars[position] for eqn in eqns]
            reading = reading_of(program, block, slot, atoms, known_rows)
            if isinstance(reading, int):
                return reading
            readings.append(reading)
        block.readings.append(readings)
        if moves_by_start(eqns[0]):
            by_axis = list(zip(*map(starts_of, eqns), strict=True))
            if any(len(set(numbers)) > 1 for numbers in by_axis):
                block.starts[slot] = [list(ns) if len(set(ns)) > 1 else ns[0] for ns in by_axis]
    return block


def reading_of(
    program: Program, block: Block, slot: int, atoms: list[Atom], known_rows: dict[Any, int]
) -> Reading | int:
    """How the block reads these ``atoms``, one per repetition; or the repetition to split before."""
    sources = [program.source(atom) for atom in atoms]
    inside = [source is not None and source[0] >= block.start for source in sources]
    last = len(atoms) - 1
    if not inside[last]:
        if any(inside):
            return max(j for j, within in enumerate(inside) if within) + 1
        keys = [operand(atom) for atom in atoms]
        if all(key == keys[0] for key in keys):
            return Same(atoms[0])
        return Each(row_number(block, keys, atoms, known_rows))
    final = sources[last]
    assert final is not None
    position, out = final
    made_in, made_at = divmod(position - block.start, block.period)
    delay = last - made_in
    if delay > LONGEST_DELAY:
        return made_in + 1
    for j, source in enumerate(sources):
        expected = (block.at(j - delay, made_at), out) if j >= delay else None
        if (source if inside[j] else None) != expected:
            return made_in + 1 if j == last - 1 and sources[j] == sources[last] else j + 1
    if delay == 0:
        return Inside((made_at, out))
    carried = Carried((made_at, out), delay, tuple(operand(atom) for atom in atoms[:delay]))
    block.initials[carried] = atoms[:delay]
    return carried


def row_number(block: Block, keys: list[Any], atoms: list[Atom], known_rows: dict[Any, int]) -> int:
    number = known_rows.setdefault(tuple(keys), len(block.rows))
    if number == len(block.rows):
        block.rows.append(atoms)
    return number


def best_offset(program: Program, repeat: Repeat) -> tuple[int, int]:
    """Where the first block begins, and how many there are: where the fewest bytes are carried from block to block."""
    start, period, length = repeat
    repetitions, spare = divmod(length, period)
    crossing = np.zeros(period, np.int64)
    middle = start + (repetitions // 2) * period
    distance: dict[tuple[int, int], tuple[int, int]] = {}
    for position in range(middle, middle + period):
        for atom in program.eqns[position].invars:
            source = program.source(atom)
            if source is not None and start <= source[0] and position - source[0] < 2 * period:
                key = ((source[0] - start) % period, source[1])
                distance[key] = max(distance.get(key, (0, 0)), (position - source[0], size_of(atom)))
    for (slot, _), (steps, size) in distance.items():
        for step in range(1, min(steps, period) + 1):
            crossing[(slot + step) % period] += size
    offset = int(np.argmin(crossing[: spare + 1]))
    anywhere = int(np.argmin(crossing))
    if repetitions > LEAST_PERIODS and 2 * crossing[anywhere] < crossing[offset]:
        return anywhere, (length - anywhere) // period
    return offset, repetitions


def find_blocks(jaxpr: Jaxpr) -> tuple[Program, list[Block]]:
    """Blocks that do not overlap, in the order of the program, whose equations may be sorted for it."""
    likeness = Likeness()
    found = program, blocks = blocks_of(Program(jaxpr, jaxpr.eqns), likeness)
    if jaxpr.effects or 2 * saved_by(blocks) >= len(program.eqns):
        return found
    return max(found, blocks_of(Program(jaxpr, depth_first(jaxpr)), likeness), key=lambda pair: saved_by(pair[1]))


def blocks_of(program: Program, likeness: Likeness) -> tuple[Program, list[Block]]:
    tokens = np.array([likeness.of_equation(eqn) for eqn in program.eqns], np.int64)
    blocks: list[Block] = []
    for _ in range(ROUNDS):
        taken = np.zeros(len(tokens), bool)
        for repeat in repeats(tokens, LEAST_PERIODS) if len(tokens) >= LEAST_SAVED else ():
            if repeat.saved < LEAST_SAVED or taken[repeat.start : repeat.start + repeat.length].any():
                continue
            offset, repetitions = best_offset(program, repeat)
            for block in consistent(program, repeat.start + offset, repeat.period, repetitions):
                taken[block.start : block.stop] = True
                blocks.append(block)
        if not taken.any():
            break
        tokens[taken] = -1 - np.flatnonzero(taken)  # equal to nothing
    return program, sorted(blocks, key=lambda block: block.start)


def saved_by(blocks: list[Block]) -> int:
    return sum((block.repetitions - 1) * block.period for block in blocks)


def consistent(program: Program, start: int, period: int, repetitions: int) -> Iterator[Block]:
    """The blocks that are worth a loop, in a stretch that looks periodic."""
    pieces = [(start, repetitions)]
    while pieces:
        start, repetitions = pieces.pop()
        if repetitions < LEAST_PERIODS or (repetitions - 1) * period < LEAST_SAVED:
            continue
        found = block_at(program, start, period, repetitions)
        if isinstance(found, int):
            pieces += [(start, found), (start + found * period, repetitions - found)]
        elif any(eqn.primitive not in MOVES for eqn in program.eqns[start : start + period]):
            yield found


def rows_of_inputs(jaxpr: Jaxpr) -> tuple[dict[Any, tuple[Var, int]], list[JaxprEqn]]:
    """The values that are a row of an input (along the first axis, in any shape), which one; and what takes them."""
    roots = {*jaxpr.invars, *jaxpr.constvars}
    rows: dict[Any, tuple[Var, int]] = {}
    views = []
    for eqn in jaxpr.eqns:
        x = eqn.invars[0] if eqn.invars else None
        if not isinstance(x, Var):
            continue
        if x in roots and eqn.primitive is lax.unstack_p and eqn.params["axis"] == 0:
            rows.update((var, (x, index)) for index, var in enumerate(eqn.outvars))
        elif x in roots and eqn.primitive is lax.slice_p and is_row(eqn):
            rows[eqn.outvars[0]] = x, eqn.params["start_indices"][0]
        elif x in rows and keeps_elements(eqn):
            rows[eqn.outvars[0]] = rows[x]
        else:
            continue
        views.append(eqn)
    return rows, views


def is_row(eqn: JaxprEqn) -> bool:
    shape = aval_of(eqn.invars[0]).shape
    return moves_by_start(eqn) and len(shape) > 0 and aval_of(eqn.outvars[0]).shape == (1, *shape[1:])


def depth_first(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations in the order in which the results need them: the same for all programs that compute the same."""
    made_by = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    order: list[JaxprEqn] = []
    seen: set[int] = set()
    for result in jaxpr.outvars:
        todo: list[tuple[JaxprEqn, Iterator[Atom]]] = []
        atom: Atom | None = result
        while atom is not None or todo:
            eqn = made_by.get(atom) if isinstance(atom, Var) else None
            if eqn is not None and id(eqn) not in seen:
                seen.add(id(eqn))
                todo.append((eqn, iter(eqn.invars)))
            atom = None
            while todo and (atom := next(todo[-1][1], None)) is None:
                order.append(todo.pop()[0])
    return order
