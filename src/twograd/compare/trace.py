"""A program's lines, each beside its nodes on the tape, its equations, and the equations of its derivative.

What flows in: a scalar program, its arguments and its file. What flows out: :class:`Trace`, one
of :mod:`twograd.compare.results`. Read :func:`linked_lines`.

It is the walk of ``tape.step``, ordered by the user's lines: a step of it is a node, and is linked to the equation that
it was recorded for and to those that its rule emits; an equation carries the line that it came from.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twograd import tape
from twograd.compare.engines.tape_engines import recordable
from twograd.compare.results import Line, Trace
from twograd.tape.stats import kept_arrays
from twograd.tape.stepper import Step
from twograd.tape.stepper.linked import Equation, Linked

MOST = 12
"""Of nodes or equations of one line that are shown."""

LONGEST = 24
"""Characters of an equation's parameters; longer ones are left out."""

NOWHERE = 0


def linked_lines(f: Callable[..., Any], args: Sequence[Any], path: Path) -> Trace:
    """``f(*args)`` and its gradient with respect to the first argument, by the lines of the file ``path``.

    Raises what ``tape.step`` raises: ``f`` must return one scalar.
    """
    walk = tape.step(recordable(f), *args, argnums=0)
    assert walk.linked is not None, walk.no_jaxpr
    nodes: dict[int, list[str]] = {}
    kept: dict[int, dict[int, int]] = {}  # by line, the bytes of each array
    program: dict[int, list[str]] = {}
    derivative: dict[int, list[str]] = {}
    for step in reversed(walk.steps):  # nodes in the order in which they were recorded
        if step.leaf is None:
            number = _number(_line_of(step, walk.linked), path)
            nodes.setdefault(number, []).append(_node_text(step))
            arrays = [array for saved in step.saved for array in kept_arrays(saved.value)]
            kept.setdefault(number, {}).update((id(array), array.nbytes) for array in arrays)
    for equation in walk.linked.equations:
        kind = program if equation.source is None else derivative
        kind.setdefault(_number(equation.line, path), []).append(_equation_text(equation))
    sizes = {number: sum(arrays.values()) for number, arrays in kept.items()}
    lines = tuple(_lines(path, sizes, nodes, program, derivative))
    return Trace(walk.title, walk.linked.inputs, walk.linked.outputs, lines)


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


def _lines(path: Path, sizes: Mapping[int, int], *columns: Mapping[int, Sequence[str]]) -> Iterable[Line]:
    """The file's lines from the first to the last that has anything, blank ones left out, and what is of no line."""
    numbers = [number for number in set().union(*columns) if number != NOWHERE]
    source = path.read_text(encoding="utf-8").splitlines()
    shown = [
        n for n in range(min(numbers, default=1), max(numbers, default=0) + 1) if n in numbers or source[n - 1].strip()
    ]
    for number in shown:
        found = (_shortened(column.get(number, ())) for column in columns)
        yield Line(number, source[number - 1], *found, saved_bytes=sizes.get(number, 0))
    if any(NOWHERE in column for column in columns):
        found = (_shortened(column.get(NOWHERE, ())) for column in columns)
        yield Line(NOWHERE, "(of no line of this file)", *found, saved_bytes=sizes.get(NOWHERE, 0))


def _shortened(texts: Sequence[str]) -> tuple[str, ...]:
    more = len(texts) - MOST
    return tuple(texts) if more <= 0 else (*texts[:MOST], f"... {more} more")
