"""Rerolling: a block of equations that a program repeats becomes the body of a ``lax.scan``.

What flows in: a program that was unrolled, as a Python loop over layers or time steps leaves it, or the derivative of
one. What flows out: the program with loops, whose size does not grow with the depth, nor the time to compile it. Read
:func:`reroll`, then :meth:`Rolling.plan` and :class:`Loop`; ``blocks.py`` finds the blocks.

What an operand of a block is, says what it becomes: one that is carried is a carry of the loop; one that is the same
for all is read from outside by the body; and those that differ are the rows of a stack. Results that are read outside
are stacked by the loop, or are the last value of a carry.

Stacks are what a loop costs, so :meth:`Rolling._assemble` looks first for an array that has the rows already: an input
(the weights of all layers); what an earlier loop has stacked (the residuals of the forward loop, which the backward
loop reads from the end); the values that an earlier loop's carry had; a stack made for an earlier loop.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, primitives

from twograd._compat import bind_again, emitting, fresh_var, user_line
from twograd.graph.passes.blocks import Block, Carried, Each, Inside, Place, Program, Reading, Same, find_blocks
from twograd.graph.passes.cost import flops
from twograd.graph.passes.cse import operand
from twograd.graph.passes.dce import dce
from twograd.graph.passes.report import PassReport, count
from twograd.graph.passes.rewriting import Atom, Walk, aval_of, rewrite, size_of, substitute

WORK_PER_COPY = 4  # operations for each number that must be copied into a stack or out of it
TOGETHER = 64  # rows that are copied out of a stack by one kernel


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


class Piece(NamedTuple):
    """Rows ``first``, ``first + step``, ... (``length`` of them) of ``array``; or, with ``array`` None, one atom."""

    array: Var | None
    first: Any
    step: int = 1
    length: int = 1

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.step * self.length, self.step)


class Given:
    """The atoms that a function is given from the program around it, and their values while it is traced."""

    def __init__(self, env: dict[Var, Atom]):
        self._env = env
        self.atoms: dict[Var, None] = {}
        self.values: dict[Var, Any] = {}

    def take(self, atom: Atom) -> None:
        atom = substitute(atom, self._env)
        if isinstance(atom, Var):
            self.atoms[atom] = None

    def aval(self, atom: Atom) -> Any:
        return aval_of(substitute(atom, self._env))

    def __getitem__(self, atom: Atom) -> Any:
        atom = substitute(atom, self._env)
        return atom.val if isinstance(atom, Literal) else self.values[atom]


class Rolling(Walk):
    """A walk that writes loops in the places of blocks."""

    def walk(self, env: dict[Var, Atom]) -> None:
        program, blocks = find_blocks(self.jaxpr)
        if not (blocks := self.plan(program, blocks)):
            return super().walk(env)
        for eqn in program.views:
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
            """Stacks of atoms from outside; the first loop that reads one makes it for all."""
            self._stacked: dict[tuple[Block, Place], Var] = {}
            """What stands for the stacks that loops could hand out, until there is one."""
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
            if piece.array is None:
                copied += aval_of(piece.first).size
            elif piece.array in self._gathered and piece.length == len(self._gathered[piece.array]):
                copied += aval_of(piece.array).size
        last = block.repetitions - 1
        copied += sum(aval_of(var).size for (_, j), var in block.single.items() if j != last)
        work = sum(map(flops, program.eqns[block.start : block.start + block.period]))
        return work * block.repetitions >= WORK_PER_COPY * copied

    def _row(self, atom: Atom) -> tuple[Var, int] | None:
        """The array that ``atom`` is a row of, and which row."""
        if isinstance(atom, Literal) or atom in self._rows:
            return None if isinstance(atom, Literal) else self._rows[atom]
        if atom not in self._owner:
            return None
        block, place, j = self._owner[atom]
        array = self._stacked.setdefault((block, place), stack_var(atom, block.repetitions))
        return array, block.repetitions - 1 - j if block.reverse else j

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
            array, index = row
            if pieces and pieces[-1].array is array:
                last = pieces[-1]
                step = index - last.first if last.length == 1 else last.step
                if step and last.first + last.length * step == index:
                    pieces[-1] = Piece(array, last.first, step, last.length + 1)
                    continue
            pieces.append(Piece(array, index))
        if all(piece.array is None and isinstance(piece.first, Var) for piece in pieces) and len(set(atoms)) > 1:
            array = stack_var(atoms[0], len(atoms))
            self._gathered[array] = atoms
            self._rows.update((atom, (array, index)) for index, atom in enumerate(atoms))
            return [Piece(array, 0, 1, len(atoms))]
        result = []
        for piece in pieces:
            atom = atoms[sum(done.length for done in result)]
            if piece.length == 1:
                self._demand_one(atom)
                piece = Piece(None, atom)
            elif piece.array is not None and atom in self._owner:
                block, place, _ = self._owner[atom]
                block.stacked[place] = piece.array
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
                array = block.entering.setdefault(carried, stack_var(initial, block.repetitions))
                return Piece(array, indices[0], steps.pop(), len(indices))
        return None

    # --- the loop itself ----------------------------------------------------------------------------------------------

    def roll(self, program: Program, block: Block, env: dict[Var, Atom]) -> None:
        """Writes the loop, and enters into ``env`` what stands for the results of the block that are read outside."""
        eqns = program.eqns[block.start : block.start + block.period]
        source, given = eqns[0].source_info, Given(env)
        for readings in block.readings:
            for reading in readings:
                if isinstance(reading, Same):
                    given.take(reading.atom)
        for atom in itertools.chain(*block.initials.values()):
            given.take(atom)
        for piece in itertools.chain(*self._pieces[block]):
            if piece.array in self._gathered and piece.array not in env:
                rows = [substitute(atom, env) for atom in self._gathered[piece.array]]
                closed = jax.make_jaxpr(lambda *rows: lax.stack(rows))(*map(aval_of, rows))
                (env[piece.array],) = self.splice(closed.jaxpr, closed.consts, rows, lambda _: source)
            given.take(piece.first if piece.array is None else piece.array)
        loop = Loop(block, eqns, self._pieces[block], given, self.takes_constants)
        closed = jax.make_jaxpr(loop)(*map(aval_of, given.atoms))
        results = self.splice(closed.jaxpr, closed.consts, [*given.atoms], lambda _: source)
        env.update(
            zip([*block.stacked.values(), *block.entering.values(), *block.single.values()], results, strict=True)
        )
        self.changed = True
        self.fired[described(eqns)] += block.repetitions


class Loop:
    """A block as a function of what it is given, to be traced: the stacks, entering carries and results read outside.

    ``__init__`` decides what the loop scans over, counts and hands out; read :meth:`__call__`, then :meth:`_step`.
    """

    def __init__(
        self, block: Block, eqns: Sequence[JaxprEqn], pieces: list[list[Piece]], given: Given, takes_constants: bool
    ):
        self.block, self.eqns, self.pieces, self.given = block, eqns, pieces, given
        self.takes_constants = takes_constants
        self.last = block.repetitions - 1
        self.indexed: dict[int, tuple[Var, tuple[int, ...]]] = {}
        """Rows that the body takes by number, from a part of an array or in another order."""
        for row, (piece, *more) in enumerate(pieces):
            if piece.array is not None and not more and piece.numbers != range(given.aval(piece.array).shape[0]):
                self.indexed[row] = piece.array, tuple(piece.numbers)
        self.scanned = [row for row in range(len(block.rows)) if row not in self.indexed]
        self.starts = {
            slot: [axis if isinstance(axis, int) else tuple(block.order(axis)) for axis in by_axis]
            for slot, by_axis in block.starts.items()
        }
        self.counters = {ns for _, ns in self.indexed.values()}
        """Numbers that each step needs one of; the ``uneven`` ones are looked up, the others computed from a count."""
        self.counters.update(ns for ns in itertools.chain(*self.starts.values()) if isinstance(ns, tuple))
        self.uneven = [ns for ns in self.counters if len(set(np.diff(ns))) > 1]
        self.final = {line.place: line for line in block.initials if line.delay == 1}
        alone = [place for place, j in block.single if j != self.last or place not in self.final]
        self.places = list(dict.fromkeys([*block.stacked, *alone]))
        """The results that are stacked."""
        self.scattered = [place for place in dict.fromkeys(alone) if 2 * alone.count(place) > block.repetitions]
        self.sums = sums_of_paddings(block, eqns, {place for place, _ in block.single} | set(block.stacked))

    def __call__(self, *values: Any) -> Any:
        block, given = self.block, self.given
        given.values = dict(zip(given.atoms, values, strict=True))
        carry, (out, entered) = lax.scan(
            self._step,
            [[given[atom] for atom in reversed(atoms)] for atoms in block.initials.values()],
            (
                [self._stack(row) for row in self.scanned],
                lax.iota(np.int32, block.repetitions) if self.counters else None,
                {ns: lax.stack([np.int32(number) for number in ns]) for ns in self.uneven},
            ),
            length=block.repetitions,
            reverse=block.reverse,
        )
        of_place = dict(zip(self.places, out, strict=True))
        of_line = dict(zip(block.initials, carry, strict=True))
        return [of_place[place] for place in block.stacked], entered, self._singles(of_place, of_line)

    def _step(self, carry: Any, slices: Any) -> Any:
        """One repetition of the block."""
        initials, starts = self.block.initials, self.starts
        entering = dict(zip(initials, carry, strict=True))
        rows = dict(zip(self.scanned, slices[0], strict=True))
        numbers = {ns: slices[2][ns] if ns in self.uneven else reached(ns, slices[1]) for ns in self.counters}
        for row, (array, number) in self.indexed.items():
            rows[row] = lax.dynamic_index_in_dim(
                in_rows(self.given[array], self.block.rows[row][0]),
                numbers[number],
                keepdims=False,
                allow_negative_indices=False,
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
                    return self.given[atom]

        for slot, (eqn, readings) in enumerate(zip(self.eqns, self.block.readings, strict=True)):
            if slot in self.sums:
                total, padding = self.sums[slot]
                begin = start_indices(starts[padding], numbers)
                made.append([added_at(eqn, read(total), read(self.block.readings[padding][0]), begin)])
            elif slot in starts:
                made.append([moved(eqn, read(readings[0]), start_indices(starts[slot], numbers))])
            else:
                made.append(bind_again(eqn, [read(reading) for reading in readings]))
        leaving = [[made[line.place[0]][line.place[1]], *entering[line][:-1]] for line in initials]
        return leaving, (
            [made[slot][out] for slot, out in self.places],
            [entering[line][0] for line in self.block.entering],
        )

    def _singles(self, of_place: dict[Place, Any], of_line: dict[Carried, Any]) -> list[Any]:
        """The results of single repetitions that are read outside: the last of a carry, or rows of a stack."""
        block = self.block
        cut = {place: block.order(unstacked(of_place[place])) for place in self.scattered}
        singles = []
        for place, j in block.single:
            if j == self.last and place in self.final:
                singles.append(of_line[self.final[place]][0])
            elif place in cut:
                singles.append(cut[place][j])
            else:
                index = self.last - j if block.reverse else j
                singles.append(lax.index_in_dim(of_place[place], index, keepdims=False))
        return singles

    def _stack(self, row: int) -> Any:
        """The rows for all repetitions as one array, made without a copy where there is one piece.

        Literals become a constant array, where the program can take one.
        """
        pieces, given = self.pieces[row], self.given
        if all(piece.array is None for piece in pieces):
            values = [given[piece.first] for piece in pieces]
            literal = self.takes_constants and all(isinstance(piece.first, Literal) for piece in pieces)
            return np.stack(values) if literal else lax.stack(values)
        parts = []
        for piece in pieces:
            if piece.array is None:
                parts.append(lax.expand_dims(given[piece.first], (0,)))
                continue
            part = in_rows(given[piece.array], self.block.rows[row][0])
            if piece.length < len(part):
                low, high = sorted((piece.numbers[0], piece.numbers[-1]))
                part = lax.slice_in_dim(part, low, high + 1, abs(piece.step))
            parts.append(part if piece.step > 0 else lax.rev(part, (0,)))
        return parts[0] if len(parts) == 1 else lax.concatenate(parts, 0)


def stack_var(row: Atom, length: int) -> Var:
    """A variable for a stack of so many rows."""
    aval = aval_of(row)
    return fresh_var(aval.update(shape=(length, *aval.shape)))


@jax.custom_jvp
def unstacked(stack: Any) -> list[Any]:
    """The rows of ``stack``, as :func:`jax.lax.unstack` has them, which compile seven times faster on the CPU.

    XLA makes a kernel of each slice; to compile them takes longer than the loop. But all results of one reduction are
    made by one kernel, so each row is summed with a row of -0.0, which changes no number.
    """
    if jax.default_backend() != "cpu" or not jnp.issubdtype(stack.dtype, np.number) or stack.dtype.itemsize == 1:
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


def in_rows(array: Any, row: Atom) -> Any:
    """``array`` with rows of the shape of ``row``."""
    return lax.reshape(array, (array.shape[0], *aval_of(row).shape))


def reached(numbers: Sequence[int], count: Any) -> Any:
    """Which of the evenly spaced ``numbers`` the loop is at, when it has counted to ``count``."""
    step = numbers[1] - numbers[0]
    count = count if step == 1 else lax.mul(count, np.int32(step))
    return count if numbers[0] == 0 else lax.add(count, np.int32(numbers[0]))


def start_indices(by_axis: Sequence[Any], numbers: dict[tuple[int, ...], Any]) -> list[Any]:
    """Where a piece begins in this iteration: fixed, or the number that the loop is at."""
    return [np.int32(axis) if isinstance(axis, int) else numbers[axis] for axis in by_axis]


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
