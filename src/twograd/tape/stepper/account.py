"""A walk as text and numbers alone: what a page shows of it, and what is kept where its arrays and nodes are not.

What flows in: a stepper. What flows out: an :class:`Account`. Read :func:`account`.
"""

import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from twograd.pictures.account import Account, Block, Section, ToldStep
from twograd.pictures.picture import cut
from twograd.tape.stepper.record import Step
from twograd.tape.stepper.show import MOST_ROWS, origin, sections

if TYPE_CHECKING:
    from twograd.tape.stepper.walk import Stepper

MAX_STEPS = 1000
"""Of a longer walk an account tells the beginning."""

REPEATED = 80
"""Characters of the longest rule that is written at each step that calls it."""


def account(
    walk: "Stepper", most_steps: int = MAX_STEPS, most_rows: int = MOST_ROWS, longest: int = sys.maxsize
) -> Account:
    """The account of ``walk``; lines longer than ``longest`` are cut."""
    told = walk.steps[:most_steps]
    found = walk.linked
    equations = () if found is None else found.equations
    if len(told) < len(walk.steps):
        equations = tuple(equation for equation in equations if equation.step is not None and equation.step < len(told))
    shown = (dataclasses.replace(equation, text=cut(equation.text, longest), line=None) for equation in equations)
    said: dict[str, int] = {}
    return Account(
        walk.title,
        len(walk.steps),
        walk.bytes_at_first,
        tuple(
            ToldStep(
                step.label,
                origin(walk, step),
                "error" if step.error else "leaf" if step.leaf else "node",
                boxes,
                tuple(_sections(walk, step, most_rows, longest, said)),
            )
            for step, boxes in zip(told, walk.boxes, strict=False)
        ),
        walk.picture,
        () if found is None else found.inputs,
        "" if found is None else found.outputs,
        tuple(shown),
        0 if found is None else len(found.equations),
        0 if found is None else found.unlinked,
        walk.no_jaxpr,
        walk.error is not None,
    )


def _sections(walk: "Stepper", step: Step, most: int, longest: int, said: dict[str, int]) -> Iterator[Section]:
    """A step's sections; a long text in them that is in ``said`` is told at the step that stands there."""
    for section in sections(walk, step, most):
        yield dataclasses.replace(
            section,
            rows=tuple(tuple(cut(cell, longest) for cell in row) for row in section.rows),
            blocks=tuple(_once(block, step.index, longest, said) for block in section.blocks),
        )


def _once(block: Block, step: int, longest: int, said: dict[str, int]) -> Block:
    before = said.setdefault(block.text, step)
    if before < step and len(block.text) > REPEATED:
        return dataclasses.replace(block, text="", step=before)
    return dataclasses.replace(block, text="\n".join(cut(line, longest) for line in block.text.splitlines()))
