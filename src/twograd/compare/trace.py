"""A program's lines, each beside its nodes on the tape, its equations, and the equations of its derivative.

What flows in: a scalar program, its arguments and its file. What flows out: :class:`Trace`, one
of :mod:`twograd.compare.results`. Read :func:`linked_lines`.

It is the walk of ``tape.step``, ordered by the user's lines: a step of it is a node, and is linked to the equation that
it was recorded for and to those that its rule emits; an equation carries the line that it came from. The clock is held
to the equations, one at a time, which is what an interpreter of them would take: compiled together they have no times
of their own.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from twograd import tape
from twograd._compat import bind_again
from twograd.compare.engines.tape_engines import recordable
from twograd.compare.results import Line, Part, Trace
from twograd.compare.timing import no_garbage_collection
from twograd.pictures.account import Equation
from twograd.tape.stats import kept_arrays
from twograd.tape.stepper import Step
from twograd.tape.stepper.account import account
from twograd.tape.stepper.linked import Linked

MOST = 12
"""Of nodes or equations of one line that are shown."""

MOST_STEPS, MOST_ROWS, LONGEST_LINE = 24, 5, 100
"""Of the walk that is kept: steps, rows of a section, and columns of a line."""

MOST_PASSES, TIMED = 15, 0.2
"""Over all equations, by the clock: passes, and seconds after which no other begins."""

LONGEST = 24
"""Characters of an equation's parameters; longer ones are left out."""

NOWHERE = 0


def linked_lines(f: Callable[..., Any], args: Sequence[Any], path: Path) -> Trace:
    """``f(*args)`` and its gradient with respect to the first argument, by the lines of the file ``path``.

    Raises what ``tape.step`` raises: ``f`` must return one scalar; and TypeError where ``f`` cannot be traced.
    """
    walk = tape.step(recordable(f), *args, argnums=0)
    if walk.linked is None:
        raise TypeError(walk.no_jaxpr)
    nodes: dict[int, list[Part]] = {}
    kept: dict[int, dict[int, int]] = {}  # by line, the bytes of each array
    program: dict[int, list[Part]] = {}
    derivative: dict[int, list[Part]] = {}
    for step in reversed(walk.steps):  # nodes in the order in which they were recorded
        if step.leaf is None:
            number = _number(_line_of(step, walk.linked), path)
            part = Part(_node_text(step), walk.linked.forward.get(step.index), step.index)
            nodes.setdefault(number, []).append(part)
            arrays = [array for saved in step.saved for array in kept_arrays(saved.value)]
            kept.setdefault(number, {}).update((id(array), array.nbytes) for array in arrays)
    times, passes = timed(walk.linked.derivative.jaxpr, walk.linked.values)
    spent: dict[int, list[float]] = {}  # by line, in the program and in its derivative
    for equation in walk.linked.equations:
        own, number = equation.source is None, _number(equation.line, path)
        of = equation.index if own else walk.linked.forward.get(-1 if equation.step is None else equation.step)
        part = Part(_equation_text(equation), of, equation.step, times[equation.index])
        (program if own else derivative).setdefault(number, []).append(part)
        spent.setdefault(number, [0.0, 0.0])[not own] += times[equation.index]
    sizes = {number: sum(arrays.values()) for number, arrays in kept.items()}
    lines = tuple(_lines(path, sizes, spent, nodes, program, derivative))
    told = account(walk, MOST_STEPS, MOST_ROWS, LONGEST_LINE)
    return Trace(walk.title, walk.linked.inputs, walk.linked.outputs, lines, "", passes, told)


def timed(program: ClosedJaxpr, values: Sequence[Any]) -> tuple[list[float], int]:
    """For each equation the median of the seconds that it takes by itself, its result waited for, over several passes
    over all of them; and how many passes. Zeros and none for a program with effects, which must not have them again.
    """
    equations = program.jaxpr.eqns
    if program.jaxpr.effects:
        return [0.0] * len(equations), 0
    passes: list[list[float]] = []
    with no_garbage_collection():
        _pass(program, values)  # which compiles, and does not count
        end = time.monotonic() + TIMED
        while not passes or (len(passes) < MOST_PASSES and time.monotonic() < end):
            passes.append(_pass(program, values))
    return list(map(statistics.median, zip(*passes, strict=True))), len(passes)


def _pass(program: ClosedJaxpr, values: Sequence[Any]) -> list[float]:
    jaxpr, times = program.jaxpr, []
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *values], strict=True))
    for eqn in jaxpr.eqns:
        operands = [atom.val if isinstance(atom, Literal) else env[atom] for atom in eqn.invars]
        start = time.perf_counter()
        results = jax.block_until_ready(bind_again(eqn, operands))
        times.append(time.perf_counter() - start)
        env.update(zip(eqn.outvars, results, strict=True))
    return times


def _line_of(step: Step, linked: Linked) -> str | None:
    """The equation knows it better: a program in jax.numpy is traced at its own lines, and recorded at one."""
    if step.index in linked.forward:
        return linked.equations[linked.forward[step.index]].line
    return step.line


def _number(line: str | None, path: Path) -> int:
    """Of ``file:line (function)`` the number, where it is of that file."""
    found = re.fullmatch(r"(?P<file>.*):(?P<number>\d+) \(.*\)", line or "")
    return int(found["number"]) if found and Path(found["file"]).resolve() == path.resolve() else NOWHERE


def _node_text(step: Step) -> str:
    saved = ", ".join(f"{value.name} {value.type}" for value in step.saved)
    return f"{step.label}" + (f": saved {saved}" if saved else "")


def _equation_text(equation: Equation) -> str:
    text = f"{equation.index} {_without_long_parameters(equation.text)}"
    return f"{text}  <- {equation.source}" if equation.source else text


def _without_long_parameters(text: str) -> str:
    """``c:f32[2] = dot_general[...] a b``."""
    start = re.search(r" = [\w-]+\[", text)
    if start is None:
        return text
    depth, end = 1, start.end()
    while depth and end < len(text):
        depth += {"[": 1, "]": -1}.get(text[end], 0)
        end += 1
    return text if end - start.end() <= LONGEST else f"{text[: start.end()]}...]{text[end:]}"


def _lines(
    path: Path,
    sizes: Mapping[int, int],
    spent: Mapping[int, Sequence[float]],
    *columns: Mapping[int, Sequence[Part]],
) -> Iterable[Line]:
    """The file's lines from the first to the last that has anything, blank ones left out, and what is of no line."""
    numbers = [number for number in set().union(*columns) if number != NOWHERE]
    source = path.read_text(encoding="utf-8").split("\n")  # where Python begins lines: not at a form feed
    shown = [
        n for n in range(min(numbers, default=1), max(numbers, default=0) + 1) if n in numbers or source[n - 1].strip()
    ]
    texts = {number: source[number - 1] for number in shown}
    if any(NOWHERE in column for column in columns):
        texts[NOWHERE] = "(of no line of this file)"
    for number, text in texts.items():
        nodes, program, derivative = (_shortened(column.get(number, ())) for column in columns)
        own, back = spent.get(number, (0.0, 0.0))
        yield Line(number, text, nodes, program, derivative, sizes.get(number, 0), own, back)


def _shortened(parts: Sequence[Part]) -> tuple[Part, ...]:
    more = len(parts) - MOST
    return tuple(parts) if more <= 0 else (*parts[:MOST], Part(f"... {more} more"))
