"""A program and its derivative as two programs: forward with residuals, and backward from residuals.

The walk of ``transform.py`` does both at once. A tape, or a pullback that is called later, needs them apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal, Var
from jax.ref import AbstractRef
from jax.tree_util import tree_flatten, tree_unflatten

from twograd._compat import new_jaxpr
from twograd.graph.masks import found_again
from twograd.graph.passes.cse import cse
from twograd.graph.passes.report import check_program
from twograd.graph.references import without_references
from twograd.graph.transform import backward_pass, forward_pass
from twograd.rules import carries_gradient

MAX_ROUNDS = 3  # two are enough, but for a custom rule that computes something new each time, as sinc's does


@dataclass(frozen=True, eq=False)
class Split:
    """``forward`` maps operands to ``(*outs, *intermediates)``; ``backward`` reads only what ``saved`` points at.

    ``saved`` are positions in ``(*operands, *outs, *intermediates)``: an operand or a result that a rule names is not
    computed or stored a second time, and an intermediate is a result like any other. So the pair is closed under
    differentiation: whatever ``backward`` reads is something that has a cotangent in this same ``backward``.
    """

    forward: ClosedJaxpr
    saved: tuple[int, ...]
    backward: Callable[[Sequence[Any], Sequence[Any]], list[Any]]


def split_vjp(closed: ClosedJaxpr, wanted: Sequence[bool]) -> Split:
    """Splits the derivative of ``closed`` with respect to the ``wanted`` operands.

    ``backward(saved, cts)`` takes the values at ``saved`` and a cotangent (or None) per result of ``forward``, and
    returns one (or None) per operand. It is traceable, so it may be compiled or differentiated.

    Raises TypeError where ``closed`` is no ClosedJaxpr (a Graph has one, ``g.jaxpr``) and where ``wanted`` is not a
    bool per operand; NoRule, once, for an equation that has no derivative.
    """
    check_program(closed, "split_vjp")
    if not isinstance(wanted, Sequence) or len(wanted) != len(closed.in_avals):
        raise TypeError(f"split_vjp takes a bool for each of the {len(closed.in_avals)} operands, got {wanted!r}")
    program = closed = without_references(closed)
    for _ in range(MAX_ROUNDS):
        split = split_once(program, wanted, len(closed.out_avals))
        if not any(map(carries_gradient, split.forward.out_avals[len(program.out_avals) :])):
            return split
        program = split.forward  # its intermediates are results now: the next round differentiates these too
    return _recomputing(closed, wanted)


def split_once(closed: ClosedJaxpr, wanted: Sequence[bool], at_hand: int = 0) -> Split:
    """Splits the derivative of ``closed``; what ``backward`` reads need not have a cotangent in it.

    Of the results the first ``at_hand`` cost nothing to keep: masks and integers that can be found from these are not
    kept, see :mod:`twograd.graph.masks`.
    """
    jaxpr = closed.jaxpr
    leaves: list[Any] = []
    structure: Any = None
    references: dict[int, int] = {}

    def forward(*operands):
        nonlocal leaves, structure, references
        outs, applications = forward_pass(jaxpr, closed.consts, operands, wanted)
        leaves, structure = tree_flatten(applications)
        # A reference can be no result. It need not be one: those that are left here are operands.
        references = {id(value): i for i, value in enumerate(operands) if isinstance(jax.typeof(value), AbstractRef)}
        return outs, [leaf for leaf in leaves if isinstance(leaf, Tracer) and id(leaf) not in references]

    # A custom rule computes again what the program computed already; merged, it is no new intermediate.
    traced, _ = cse(jax.make_jaxpr(forward)(*closed.in_avals))
    outs, residuals = traced.jaxpr.outvars[: len(jaxpr.outvars)], traced.jaxpr.outvars[len(jaxpr.outvars) :]
    # Positions of variables among operands and results. A residual that is neither is a new result.
    results = list(outs)
    position = {var: i for i, var in reversed(list(enumerate(results, len(jaxpr.invars)))) if isinstance(var, Var)}
    position.update((var, i) for i, var in enumerate(traced.jaxpr.invars))
    # An operand that was made strongly typed is the same number: nothing new to keep.
    strong = {
        eqn.outvars[0]: eqn.invars[0]
        for eqn in traced.jaxpr.eqns
        if eqn.primitive is lax.convert_element_type_p and eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
    }
    residuals = [atom if isinstance(atom, Literal) else strong.get(atom, atom) for atom in residuals]
    again = found_again(traced, residuals if at_hand else (), at_hand)
    sources: list[Any] = []  # of each residual: its position; a number; or a variable whose value is found again
    remaining = iter(residuals)
    for leaf in leaves:
        if not isinstance(leaf, Tracer):
            continue
        if id(leaf) in references:
            sources.append(references[id(leaf)])
            continue
        atom = next(remaining)
        if isinstance(atom, Literal) or atom in again.outvars:
            sources.append(atom)
            continue
        if atom not in position:
            position[atom] = len(jaxpr.invars) + len(results)
            results.append(atom)
        sources.append(position[atom])
    read = [position[var] for var in again.invars]
    saved = tuple(sorted({source for source in (*sources, *read) if isinstance(source, int)}))
    slot = {source: i for i, source in enumerate(saved)}

    def backward(values: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        found = dict(zip(again.outvars, again.program(*[values[slot[i]] for i in read]), strict=True))

        def value_of(source: Any) -> Any:
            if isinstance(source, Literal):
                return source.val
            return values[slot[source]] if isinstance(source, int) else found[source]

        residual = map(value_of, sources)
        filled = [next(residual) if isinstance(leaf, Tracer) else leaf for leaf in leaves]
        return backward_pass(jaxpr, tree_unflatten(structure, filled), cts[: len(jaxpr.outvars)])

    program = ClosedJaxpr(new_jaxpr(traced.jaxpr, outvars=results), traced.consts)
    return Split(program, saved, backward)


def _recomputing(closed: ClosedJaxpr, wanted: Sequence[bool]) -> Split:
    """Keeps the operands only, and evaluates the program again on the way back: closed, whatever the rules do."""

    def backward(values: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        _, applications = forward_pass(closed.jaxpr, closed.consts, values, wanted)
        return backward_pass(closed.jaxpr, applications, cts)

    return Split(closed, tuple(range(len(closed.in_avals))), backward)
