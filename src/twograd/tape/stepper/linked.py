"""The derivative jaxpr beside a walk: which equations say what a step computed.

What flows in: a function that was recorded primitive by primitive, its arguments, and the steps of the walk back. What
flows out: a :class:`Linked`, the program of the derivative with a step for each of its equations. Read :func:`linked`.

A step applies the rule of one primitive. The transform applies the same rule to emit equations, and tags each with the
equation of the program that it is for, ``vjp(tanh.3)``. Steps and equations are both in the order of the walk, so the
two sequences are aligned, by primitive and shapes; what does not fit has no partner, and is said to have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from twograd import graph
from twograd._compat import user_line
from twograd.graph.text import Names, equation_text, sources_of
from twograd.pictures.account import Equation
from twograd.tape.node import Node
from twograd.tape.plan import node_name
from twograd.tape.stepper.record import Step


@dataclass(frozen=True)
class Linked:
    """The derivative's program, line by line, and its links to the steps.

    ``derivative`` is the program itself, and ``values`` what it was walked on. ``forward`` has, by step, the equation
    of the program whose rule the step applies; ``backward`` those that the rule emitted. ``unlinked`` counts the steps
    at nodes for which there are none.
    """

    derivative: graph.Graph
    values: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: str
    equations: tuple[Equation, ...]
    forward: Mapping[int, int]
    backward: Mapping[int, tuple[int, ...]]
    unlinked: int


def linked(program: graph.Graph, values: Sequence[Any], xs: Sequence[int], ct: Any, steps: Sequence[Step]) -> Linked:
    """The derivative of ``program``, which has one output, with respect to its inputs ``xs``, joined to ``steps``; the
    ``values`` are those of all its inputs."""
    question = program.question([0], list(xs), None if ct is None else [ct])
    derivative = program.gradients([0], list(xs), None if ct is None else [ct])
    applied = [
        (i, eqn) for i, (eqn, mask) in enumerate(zip(question.program.eqns, question.active, strict=True)) if any(mask)
    ]
    applied.reverse()
    walked = [step for step in steps if isinstance(step.node, Node)]
    ours = [_of_node(step.node) for step in walked if isinstance(step.node, Node)]
    theirs = [(node_name(eqn.primitive), tuple(_shape(atom.aval) for atom in eqn.invars)) for _, eqn in applied]
    of_application: dict[int, int] = {}
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for k in range(block.size):
            of_application[applied[block.b + k][0]] = walked[block.a + k].index
    step_of = {f"{eqn.primitive}.{i}": of_application.get(i) for i, eqn in applied}
    return _written(derivative, tuple(values), step_of, len(walked))


def _of_node(node: Node) -> tuple[str, tuple[Any, ...]]:
    return node.name(), tuple(_shape(aval) for aval in node.plan._avals[: len(node.plan.wanted)])


def _shape(aval: Any) -> tuple[int, ...]:
    return getattr(aval, "shape", ())


def _written(
    derivative: graph.Graph, values: tuple[Any, ...], step_of: Mapping[str, int | None], walked: int
) -> Linked:
    jaxpr = derivative.jaxpr.jaxpr
    names = Names()
    inputs = tuple(f"{names.binder(var)}  {name}" for var, name in zip(jaxpr.invars, derivative.inputs, strict=True))
    for var in jaxpr.constvars:
        names.binder(var)
    equations = []
    forward: dict[int, int] = {}
    backward: dict[int, list[int]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        source = next(iter(sources_of(eqn)[-1:]), None)
        step = step_of.get(source or f"{eqn.primitive}.{i}")
        if step is not None and source is None:
            forward[step] = i
        elif step is not None:
            backward.setdefault(step, []).append(i)
        equations.append(Equation(i, equation_text(eqn, names), source, user_line(eqn), step))
    linked_steps = {step for step in step_of.values() if step is not None}
    return Linked(
        derivative,
        values,
        inputs,
        ", ".join(names[atom] for atom in jaxpr.outvars),
        tuple(equations),
        forward,
        {step: tuple(found) for step, found in backward.items()},
        walked - len(linked_steps),
    )
