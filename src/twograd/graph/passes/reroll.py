"""Rerolling: a block of equations that a program repeats becomes the body of a ``lax.scan``.

What flows in: a program that was unrolled, as a Python loop over layers or time steps leaves it, or the derivative of
one. What flows out: the program with loops, whose size does not grow with the depth, nor the time to compile it. Read
:func:`reroll`, then :func:`block_at`, which decides what each operand of a block is, then :meth:`Rolling.roll`, which
writes the loop.

Blocks are found in two steps. Equations that look alike (primitive, parameters, types) get the same number, and
``periods.py`` finds where the numbers repeat. Then the flow of data is verified exactly: an operand must be made in the
same block, or so many blocks before (a carry), or outside; and outside the same for all blocks, or one for each.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, primitives

from twograd._compat import bind_again, emitting, fresh_var, user_line
from twograd.graph.passes.cost import MOVES, flops
from twograd.graph.passes.cse import operand
from twograd.graph.passes.dce import dce
from twograd.graph.passes.periods import Repeat, repeats
from twograd.graph.passes.report import PassReport, count
from twograd.graph.passes.rewriting import Atom, Walk, aval_of, rewrite, size_of
from twograd.graph.passes.simplify import keeps_elements

LEAST_SAVED = 32
"""Equations that a loop must save: a few repeated operations are better fused than looped over."""

LEAST_PERIODS = 4
LONGEST_DELAY = 4  # blocks that a value may be carried before it is read
ROUNDS = 8
WORK_PER_COPY = 4  # operations for each number that must be copied into a stack or out of it

Place = tuple[int, int]
"""Where in a block a value is made: which of the equations, which of its results."""


def reroll(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Rolls blocks of equations that are repeated at least four times into loops; at every depth.

    Blocks may differ in what they read: operands from outside, literals, and where a slice or a padding begins. What
    differs is stacked for the loop, and taken as it is where it already is one array (slices of the weights of all
    layers; the residuals that another loop made). Results that are read outside are stacked by the loop.

    Values are those of the unrolled program up to rounding: XLA compiles the body on its own. Not among the default
    passes, because stacking copies, and because XLA fuses short unrolled blocks better than it runs loops; blocks that
    compute little for what would have to be copied stay as they are. Use it where compile time matters:
    ``g.value_and_grad().optimize().optimize(passes.reroll)``. A loop can be differentiated again, in blocks.
    """
    rolled, report = rewrite("reroll", closed, lambda walk: lambda eqn: None, Rolling)
    if rolled is closed:
        return closed, report
    rolled, cleaning = dce(rolled)  # the slices that nobody reads any more
    return rolled, dataclasses.replace(report, after=count(rolled), seconds=report.seconds + cleaning.seconds)


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
    stacked: dict[Place, Atom | None] = field(default_factory=dict)
    """Results that are read outside as a whole; and once it is written, what holds them."""
    entering: dict[Carried, Atom | None] = field(default_factory=dict)
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
    """The equations of a jaxpr in one order, without those that only take a row out of an input."""

    def __init__(self, jaxpr: Jaxpr, order: Sequence[JaxprEqn], rows_of: dict[Var, tuple[Var, int]]):
        self.jaxpr = jaxpr
        self.eqns = order
        self.rows_of = rows_of
        self.made_at: dict[Any, tuple[int, int]] = {
            var: (position, out) for position, eqn in enumerate(order) for out, var in enumerate(eqn.outvars)
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


def find_blocks(program: Program, likeness: Likeness) -> list[Block]:
    """Blocks that do not overlap, in the order of the program."""
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
    return sorted(blocks, key=lambda block: block.start)


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


# --- writing the loop -------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Rows ``first``, ``first + step``, ... (``length`` of them) of what :func:`Rolling.array_of` gives for ``source``;
    or, with ``source`` None, one atom."""

    source: Any
    first: Any
    step: int = 1
    length: int = 1


class Rolling(Walk):
    """A walk that writes loops in the places of blocks."""

    _likeness: Likeness

    def walk(self, env: dict[Var, Atom]) -> None:
        rows, views = rows_of_inputs(self.jaxpr)
        likeness = Likeness()
        skipped = set(map(id, views))
        program = Program(self.jaxpr, [eqn for eqn in self.jaxpr.eqns if id(eqn) not in skipped], rows)
        blocks = find_blocks(program, likeness)
        if not self.jaxpr.effects and 2 * saved_by(blocks) < len(program.eqns):
            order = [eqn for eqn in depth_first(self.jaxpr) if id(eqn) not in skipped]
            canonical = Program(self.jaxpr, order, rows)
            others = find_blocks(canonical, likeness)
            if saved_by(others) > saved_by(blocks):
                program, blocks = canonical, others
        if not (blocks := self.plan(program, blocks)):
            return super().walk(env)
        for eqn in views:
            self.visit(eqn, env)
        position = 0
        for block in blocks:
            for eqn in program.eqns[position : block.start]:
                self.visit(eqn, env)
            self.roll(program, block, env)
            position = block.stop
        for eqn in program.eqns[position:]:
            self.visit(eqn, env)

    # --- what is stacked, and from where ------------------------------------------------------------------------------

    def plan(self, program: Program, blocks: list[Block]) -> list[Block]:
        """Decides the direction of each loop and what it hands out; leaves out blocks that copy too much."""
        while True:
            self._owner: dict[Var, tuple[Block, Place, int]] = {
                var: (block, (slot, out), j)
                for block in blocks
                for j in range(block.repetitions)
                for slot in range(block.period)
                for out, var in enumerate(program.eqns[block.at(j, slot)].outvars)
            }
            self._rows = dict(program.rows_of)
            self._gathered: dict[Var, list[Atom]] = {}
            """Stacks of atoms from outside, that the first loop that reads them makes for all."""
            self._pieces: dict[Block, list[list[Piece]]] = {}
            self._demand(program, blocks)
            worth = [block for block in blocks if self._is_worth_it(program, block)]
            if len(worth) == len(blocks):
                return blocks
            blocks = worth

    def _demand(self, program: Program, blocks: list[Block]) -> None:
        for block in blocks:
            block.stacked, block.entering, block.single = {}, {}, {}
        for block in blocks:
            block.reverse = self._runs_backwards(block)
            self._pieces[block] = [self._assemble(block.order(row)) for row in block.rows]
            for readings in block.readings:
                for reading in readings:
                    if isinstance(reading, Same):
                        self._demand_one(reading.atom)
            for atoms in block.initials.values():
                for atom in atoms:
                    self._demand_one(atom)
        position = 0
        for start, stop in [*((block.start, block.stop) for block in blocks), (len(program.eqns),) * 2]:
            for eqn in program.eqns[position:start]:
                for atom in eqn.invars:
                    self._demand_one(atom)
            position = stop
        for atom in program.jaxpr.outvars:
            self._demand_one(atom)

    def _demand_one(self, atom: Atom) -> None:
        if isinstance(atom, Var) and atom in self._owner:
            block, place, j = self._owner[atom]
            block.single[place, j] = atom

    def _is_worth_it(self, program: Program, block: Block) -> bool:
        """Whether the block computes enough for the numbers that must be copied, per repetition."""
        copied = 0
        for piece in itertools.chain(*self._pieces[block]):
            if piece.source is None:
                copied += aval_of(piece.first).size
            elif piece.source[0] in self._gathered and piece.length == len(self._gathered[piece.source[0]]):
                copied += aval_of(piece.source[0]).size
        last = block.repetitions - 1
        copied += sum(aval_of(var).size for (_, j), var in block.single.items() if j != last)
        work = sum(map(flops, program.eqns[block.start : block.start + block.period]))
        return work * block.repetitions >= WORK_PER_COPY * copied

    def _row(self, atom: Atom) -> tuple[Any, int] | None:
        """The array that ``atom`` is a row of, and which row."""
        if isinstance(atom, Literal):
            return None
        if atom in self._rows:
            array, index = self._rows[atom]
            return (array, aval_of(atom).shape), index
        if atom in self._owner:
            block, place, j = self._owner[atom]
            return (block, place), block.repetitions - 1 - j if block.reverse else j
        return None

    def _runs_backwards(self, block: Block) -> bool:
        """Whether most of the bytes that the loop reads lie in arrays in the opposite order."""
        balance = 0
        for atoms in block.rows:
            first, second = (self._row(atom) for atom in atoms[len(atoms) // 2 :][:2])
            if first is not None and second is not None and first[0] == second[0]:
                balance += size_of(atoms[0]) * (1 if second[1] > first[1] else -1)
        return balance < 0

    def _assemble(self, atoms: list[Atom]) -> list[Piece]:
        """What to concatenate for a stack of ``atoms``; and demands it of the loops that make it."""
        entering = self._entering(atoms)
        if entering is not None:
            return [entering]
        pieces: list[Piece] = []
        for atom in atoms:
            row = self._row(atom)
            if row is None:
                pieces.append(Piece(None, atom))
                continue
            source, index = row
            if pieces and pieces[-1].source == source and pieces[-1].source is not None:
                last = pieces[-1]
                step = index - last.first if last.length == 1 else last.step
                if step and last.first + last.length * step == index:
                    pieces[-1] = Piece(source, last.first, step, last.length + 1)
                    continue
            pieces.append(Piece(source, index))
        if all(piece.source is None and isinstance(piece.first, Var) for piece in pieces) and len(set(atoms)) > 1:
            aval = aval_of(atoms[0])
            array = fresh_var(aval.update(shape=(len(atoms), *aval.shape)))
            self._gathered[array] = atoms
            self._rows.update((atom, (array, index)) for index, atom in enumerate(atoms))
            return [Piece((array, aval.shape), 0, 1, len(atoms))]
        result = []
        for piece in pieces:
            if piece.length == 1 and len(atoms) > 1:
                atom = atoms[sum(done.length for done in result)]
                self._demand_one(atom)
                result.append(Piece(None, atom))
                continue
            if piece.source is not None and isinstance(piece.source[0], Block):
                block, place = piece.source
                block.stacked[place] = None
            result.append(piece)
        return result

    def _entering(self, atoms: list[Atom]) -> Piece | None:
        """The stack of ``atoms`` as the values that a carry of an earlier loop had at the beginning of its blocks."""
        owner = next(
            (self._owner[a] for a in atoms[len(atoms) // 2 :] if isinstance(a, Var) and a in self._owner), None
        )
        if owner is None:
            return None
        block, place, _ = owner
        for carried, (initial, *_) in block.initials.items():
            if carried.place != place or carried.delay != 1:
                continue
            indices = []
            for atom in atoms:
                made = self._owner.get(atom) if isinstance(atom, Var) else None
                if atom is initial or operand(atom) == carried.initial[0]:
                    indices.append(0)
                elif made is not None and made[:2] == (block, place) and made[2] + 1 < block.repetitions:
                    indices.append(made[2] + 1)
                else:
                    break
            if len(indices) < len(atoms) or 0 not in indices:
                continue
            if block.reverse:
                indices = [block.repetitions - 1 - index for index in indices]
            steps = {after - before for before, after in itertools.pairwise(indices)}
            if len(steps) == 1 and steps != {0}:
                block.entering[carried] = None
                return Piece((block, carried), indices[0], steps.pop(), len(indices))
        return None

    # --- the loop itself ----------------------------------------------------------------------------------------------

    def roll(self, program: Program, block: Block, env: dict[Var, Atom]) -> None:
        """Writes the loop, and enters into ``env`` what stands for the results of the block that are read outside."""
        eqns = program.eqns[block.start : block.start + block.period]
        last = block.repetitions - 1
        given: dict[Any, Atom] = {}

        def take(atom: Atom) -> Any:
            """The key by which the traced function finds the value of ``atom``; a literal is its own."""
            if isinstance(atom, Literal):
                return atom
            atom = env.get(atom, atom)
            given[operand(atom)] = atom
            return operand(atom)

        def taken(piece: Piece) -> Piece:
            if piece.source is None:
                return piece._replace(first=take(piece.first))
            array, shape = self._array_of(piece.source)
            if array in self._gathered and array not in env:
                atoms = [env.get(atom, atom) for atom in self._gathered[array]]
                closed = jax.make_jaxpr(lambda *rows: lax.stack(rows))(*map(aval_of, atoms))
                (env[array],) = self.splice(closed.jaxpr, closed.consts, atoms, lambda _: eqns[0].source_info)
            return piece._replace(source=(take(array), shape))

        counters: dict[tuple[int, ...], int] = {}

        def counter(numbers: Sequence[int]) -> int:
            """Which of the counters, one number per iteration, these are."""
            return counters.setdefault(tuple(numbers), len(counters))

        pieces = [[taken(piece) for piece in stack] for stack in self._pieces[block]]
        indexed: dict[int, tuple[Any, int]] = {}
        for row, (piece, *more) in enumerate(pieces):
            if piece.source is None or more:
                continue
            numbers = range(piece.first, piece.first + piece.step * piece.length, piece.step)
            if numbers != range(aval_of(given[piece.source[0]]).shape[0]):
                indexed[row] = piece.source, counter(numbers)
        scanned = [row for row in range(len(pieces)) if row not in indexed]
        starts = {
            slot: [axis if isinstance(axis, int) else [counter(block.order(axis))] for axis in by_axis]
            for slot, by_axis in block.starts.items()
        }
        initials = {line: [take(atom) for atom in atoms] for line, atoms in block.initials.items()}
        same = {
            id(reading.atom): take(reading.atom)
            for readings in block.readings
            for reading in readings
            if isinstance(reading, Same)
        }
        final = {line.place: line for line in initials if line.delay == 1}
        alone = [place for place, j in block.single if j != last or place not in final]
        places = list(dict.fromkeys([*block.stacked, *alone]))
        scattered = [place for place in dict.fromkeys(alone) if 2 * alone.count(place) > block.repetitions]
        sums = sums_of_paddings(block, eqns, {place for place, _ in block.single} | set(block.stacked))

        def written(*values):
            known = dict(zip(given, values, strict=True))

            def value(key):
                return key.val if isinstance(key, Literal) else known[key]

            def body(carry, slices):
                entering = dict(zip(initials, carry, strict=True))
                rows = dict(zip(scanned, slices[0], strict=True))
                numbers = slices[1]
                for row, ((key, shape), number) in indexed.items():
                    rows[row] = lax.dynamic_index_in_dim(
                        in_rows(known[key], shape), numbers[number], keepdims=False, allow_negative_indices=False
                    )
                made: list[list[Any]] = []

                def read(reading: Reading) -> Any:
                    match reading:
                        case Inside((slot, out)):
                            return made[slot][out]
                        case Carried():
                            return entering[reading][reading.delay - 1]
                        case Each(row):
                            return rows[row]
                        case Same(atom):
                            return value(same[id(atom)])

                for slot, (eqn, readings) in enumerate(zip(eqns, block.readings, strict=True)):
                    if slot in sums:
                        total, padding = sums[slot]
                        begin = start_indices(starts[padding], numbers)
                        made.append([added_at(eqn, read(total), read(block.readings[padding][0]), begin)])
                    elif slot in starts:
                        begin = start_indices(starts[slot], numbers)
                        made.append([moved(eqn, read(readings[0]), begin)])
                    else:
                        made.append(bind_again(eqn, [read(reading) for reading in readings]))
                leaving = [[made[line.place[0]][line.place[1]], *entering[line][:-1]] for line in initials]
                return leaving, (
                    [made[slot][out] for slot, out in places],
                    [entering[line][0] for line in block.entering],
                )

            carry, (out, entered) = lax.scan(
                body,
                [[value(key) for key in reversed(keys)] for keys in initials.values()],
                ([stack_of(pieces[row], known, self.takes_constants) for row in scanned], [*map(counted, counters)]),
                length=block.repetitions,
                reverse=block.reverse,
            )
            of_place = dict(zip(places, out, strict=True))
            of_line = dict(zip(initials, carry, strict=True))
            cut = {place: block.order(unstacked(of_place[place])) for place in scattered}
            singles = []
            for place, j in block.single:
                if j == last and place in final:
                    singles.append(of_line[final[place]][0])
                elif place in cut:
                    singles.append(cut[place][j])
                else:
                    index = last - j if block.reverse else j
                    singles.append(lax.index_in_dim(of_place[place], index, keepdims=False))
            return [of_place[place] for place in block.stacked], entered, singles

        closed = jax.make_jaxpr(written)(*(atom.aval for atom in given.values()))
        source = eqns[0].source_info
        atoms = iter(self.splice(closed.jaxpr, closed.consts, list(given.values()), lambda _: source))
        block.stacked = {place: next(atoms) for place in block.stacked}
        block.entering = {line: next(atoms) for line in block.entering}
        env.update((var, next(atoms)) for var in block.single.values())
        self.changed = True
        self.fired[described(eqns)] += block.repetitions

    def _array_of(self, source: Any) -> tuple[Atom, Any]:
        """The array that a piece is cut out of, an input or what a loop has stacked; and the shape of a row."""
        what, key = source
        if isinstance(what, Var):
            return what, key
        atom = what.entering[key] if isinstance(key, Carried) else what.stacked[key]
        assert atom is not None
        return atom, None


def saved_by(blocks: Iterable[Block]) -> int:
    return sum((block.repetitions - 1) * block.period for block in blocks)


def stack_of(pieces: list[Piece], known: dict[Any, Any], constants: bool) -> Any:
    """The rows for all repetitions as one array, made without a copy where there is one piece.

    Literals become a constant array, where the program can take one.
    """
    if all(isinstance(piece.first, Literal) for piece in pieces):
        numbers = np.stack([np.asarray(piece.first.val) for piece in pieces])
        return numbers if constants else lax.stack(list(numbers))

    def value(key):
        return key.val if isinstance(key, Literal) else known[key]

    if all(piece.source is None for piece in pieces):
        return lax.stack([value(piece.first) for piece in pieces])
    parts = []
    for source, first, step, length in pieces:
        if source is None:
            parts.append(lax.expand_dims(value(first), (0,)))
            continue
        array = in_rows(known[source[0]], source[1])
        low, high = sorted((first, first + (length - 1) * step))
        part = array if high + 1 - low == len(array) else lax.slice_in_dim(array, low, high + 1, abs(step))
        parts.append(part if step > 0 else lax.rev(part, (0,)))
    return parts[0] if len(parts) == 1 else lax.concatenate(parts, 0)


TOGETHER = 64  # rows that are copied out of a stack by one kernel


@jax.custom_jvp
def unstacked(stack: Any) -> list[Any]:
    """The rows of ``stack``, as :func:`jax.lax.unstack` has them, which compile seven times faster on the CPU.

    XLA makes a kernel of each slice, and to compile one takes longer than a loop over all layers. But all results of one
    reduction are made by one kernel, so each row is summed with a row of -0.0, which changes no number.
    """
    if jax.default_backend() != "cpu" or not np.issubdtype(stack.dtype, np.number):
        return list(lax.unstack(stack))
    flat = lax.reshape(stack, (stack.shape[0], math.prod(stack.shape[1:])))
    nothing = -np.zeros((), stack.dtype)
    rows = [lax.pad(row, nothing, [(0, 1, 0), (0, 0, 0)]) for row in lax.split(flat, [1] * flat.shape[0])]
    groups = [rows[first : first + TOGETHER] for first in range(0, len(rows), TOGETHER)]
    sums = [lax.reduce(some, [nothing] * len(some), lambda xs, ys: [*map(lax.add, xs, ys)], (0,)) for some in groups]
    return [lax.reshape(row, stack.shape[1:]) for row in itertools.chain(*sums)]


@unstacked.defjvp
def _(stacks, tangents):
    return unstacked(*stacks), list(lax.unstack(*tangents))


def in_rows(array: Any, shape: tuple[int, ...] | None) -> Any:
    """``array`` with rows of this shape."""
    return array if shape is None else lax.reshape(array, (array.shape[0], *shape))


def counted(numbers: Sequence[int]) -> Any:
    """Integers, one per iteration: counted where they are evenly spaced."""
    steps = set(np.diff(numbers).tolist())
    if len(steps) > 1:
        return lax.stack([np.int32(number) for number in numbers])
    count, (step,) = lax.iota(np.int32, len(numbers)), steps
    count = count if step == 1 else lax.mul(count, np.int32(step))
    return count if numbers[0] == 0 else lax.add(count, np.int32(numbers[0]))


def start_indices(by_axis: list[Any], numbers: list[Any]) -> list[Any]:
    """Where a piece begins in this iteration: fixed, or the number that a counter has reached."""
    return [np.int32(axis) if isinstance(axis, int) else numbers[axis[0]] for axis in by_axis]


def moved(eqn: JaxprEqn, x: Any, starts: list[Any]) -> Any:
    """The slice or the padding of ``eqn``, that begins at ``starts``."""
    out = aval_of(eqn.outvars[0])
    with emitting(eqn):
        if eqn.primitive is lax.slice_p:
            return lax.dynamic_slice(x, starts, out.shape, allow_negative_indices=False)
        zeros = lax.full(out.shape, 0, out.dtype)
        return lax.dynamic_update_slice(zeros, x, starts, allow_negative_indices=False)


def added_at(eqn: JaxprEqn, total: Any, x: Any, starts: list[Any]) -> Any:
    """``total`` plus a padded ``x``: a loop updates it in place, and touches no more than ``x``."""
    with emitting(eqn):
        piece = lax.dynamic_slice(total, starts, x.shape, allow_negative_indices=False)
        return lax.dynamic_update_slice(total, lax.add(piece, x), starts, allow_negative_indices=False)


def sums_of_paddings(
    block: Block, eqns: Sequence[JaxprEqn], read_outside: set[Place]
) -> dict[int, tuple[Reading, int]]:
    """Sums of a value and a padding that nothing else reads: the sum's place, the value, and the padding's place."""
    uses: dict[Place, int] = {}
    for readings in block.readings:
        for reading in readings:
            if isinstance(reading, (Inside, Carried)):
                uses[reading.place] = uses.get(reading.place, 0) + 1
    found: dict[int, tuple[Reading, int]] = {}
    for slot, (eqn, readings) in enumerate(zip(eqns, block.readings, strict=True)):
        if eqn.primitive not in (lax.add_p, primitives.add_jaxvals_p):
            continue
        for total, padded in (readings, readings[::-1]):
            if not isinstance(padded, Inside) or padded.place in read_outside or uses[padded.place] > 1:
                continue
            if padded.place[0] in block.starts and eqns[padded.place[0]].primitive is lax.pad_p:
                found[slot] = total, padded.place[0]
                break
    return found


def described(eqns: Sequence[JaxprEqn]) -> str:
    """The block, by its size and the first line of the user's that it comes from."""
    line = next(filter(None, map(user_line, eqns)), None)
    return f"block of {len(eqns)} equations" + (f" at {line.rsplit('/', 1)[-1]}" if line else "")
