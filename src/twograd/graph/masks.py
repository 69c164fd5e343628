"""Residuals that need not be kept, as they are found again from what is kept anyway.

What flows in: a program and the values that its derivative reads. What flows out: those among them that are masks or
integers and cost less computed again: cross entropy then keeps its labels, and not which class is whose. What compares
an operand with a bound is found from the result that is cut off there; so relu keeps its result, which the next op
reads too, as PyTorch's does. Read :func:`found_again`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from twograd.graph.passes.dce import part_of
from twograd.graph.passes.rewriting import size_of
from twograd.rules import carries_gradient

CHEAP = {
    lax.add_p, lax.and_p, lax.broadcast_in_dim_p, lax.clamp_p, lax.convert_element_type_p, lax.eq_p, lax.ge_p, lax.gt_p,
    lax.iota_p, lax.le_p, lax.lt_p, lax.max_p, lax.min_p, lax.ne_p, lax.not_p, lax.or_p, lax.select_n_p, lax.sub_p,
}  # fmt: skip
MAX_EQNS = 16  # for one residual


class FoundAgain(NamedTuple):
    """``program`` computes the values of ``outvars`` from those of ``invars``, which are operands and results."""

    invars: list[Var]
    outvars: list[Var]
    program: Any


def found_again(closed: ClosedJaxpr, residuals: Sequence[Any], num_outs: int) -> FoundAgain:
    """Which of the ``residuals`` can be found from operands and the first ``num_outs`` results, with fewer bytes kept.

    A result costs nothing, as whoever called the program has it. An operand that carries a gradient is read only if it
    is a residual itself.
    """
    jaxpr = closed.jaxpr
    results = dict.fromkeys(atom for atom in jaxpr.outvars[:num_outs] if isinstance(atom, Var))
    made = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    for out in results:
        _compare_result(made, out)
    kept = set(results).union(atom for atom in residuals if atom in jaxpr.invars)
    eqns: dict[int, JaxprEqn] = {}
    found: list[Var] = []
    given: set[Var] = set()
    for atom in residuals:
        if isinstance(atom, Literal) or atom in kept or atom in found or carries_gradient(atom.aval):
            continue
        needed = _needed(atom, made, {*results, *jaxpr.invars})
        if needed is None:
            continue
        read, through = needed
        new = read - kept
        if size_of(*new) < size_of(atom) and not any(carries_gradient(var.aval) for var in new):
            kept |= read
            given |= read
            found.append(atom)
            eqns.update((id(eqn), eqn) for eqn in through)
    invars = [var for var in dict.fromkeys((*jaxpr.invars, *results)) if var in given]
    order = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    body = sorted(eqns.values(), key=lambda eqn: order[eqn.outvars[0]])
    return FoundAgain(invars, found, jaxpr_as_fun(part_of(closed, invars, body, found)))


def _compare_result(made: dict[Var, JaxprEqn], out: Var) -> None:
    """Where ``out`` is ``x`` cut off at a bound, and the mask that was made for this compares ``x`` with the bound, it
    may as well compare ``out``: what is cut off is at the bound."""
    eqn = made.get(out)
    if eqn is None or eqn.primitive is not lax.select_n_p or len(eqn.invars) != 3:
        return
    mask, *cases = eqn.invars
    comparison = made.get(mask) if isinstance(mask, Var) else None
    if not isinstance(mask, Var) or comparison is None or not isinstance(comparison.invars[-1], Literal):
        return
    if comparison.primitive in (lax.le_p, lax.ge_p):
        x, bound = cases
    elif comparison.primitive in (lax.lt_p, lax.gt_p):
        bound, x = cases
    else:
        return
    spread = made.get(bound) if isinstance(bound, Var) else None
    bound = spread.invars[0] if spread is not None and spread.primitive is lax.broadcast_in_dim_p else bound
    limit = comparison.invars[-1]
    if x is comparison.invars[0] and isinstance(bound, Literal) and bound.val == limit.val:
        made[mask] = comparison.replace(invars=[out, limit])


def _needed(atom: Var, made: Mapping[Var, JaxprEqn], at_hand: set[Var]) -> tuple[set[Var], list[JaxprEqn]] | None:
    """What is read of what is ``at_hand`` to compute ``atom``, and by which equations; None if that is not cheap."""
    read: set[Var] = set()
    eqns: list[JaxprEqn] = []
    met, stack = {atom}, [atom]
    while stack:
        var = stack.pop()
        if var in at_hand:
            read.add(var)
            continue
        eqn = made.get(var)
        if eqn is None or eqn.primitive not in CHEAP or carries_gradient(var.aval) or len(eqns) == MAX_EQNS:
            return None
        eqns.append(eqn)
        new = {atom for atom in eqn.invars if isinstance(atom, Var)} - met
        met |= new
        stack += new
    return read, eqns
