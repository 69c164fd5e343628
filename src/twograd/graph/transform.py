"""Reverse-mode differentiation of a jaxpr: the walk that turns a program into a program with its derivative.

What flows in: a jaxpr, its operands, and which of them to differentiate. What flows out: its results, and the
cotangents of those operands. Read :func:`forward_pass`, then :func:`backward_pass`; ``tape/backward.py`` is its twin.

Both passes are interpreters. Given values they compute values, which is symbol-to-value differentiation
(``Graph.backprop``). Given tracers they emit equations, which is symbol-to-symbol (``graph.grad``). No equation is ever
built by hand, so what comes out is an ordinary program that the same two passes can differentiate again.
"""

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from twograd import rules
from twograd._compat import emitting
from twograd.rules import accumulate

Mask = tuple[bool, ...]


class Application(NamedTuple):
    """One equation on the way back: where it stands, which operands want a cotangent, and what its rule saved."""

    index: int
    eqn: JaxprEqn
    wanted: Mask
    saved: Any


def activity(jaxpr: Jaxpr, sources: Iterable[Var], constant: Collection[Var] = ()) -> tuple[list[Mask], set[Var]]:
    """For each equation, which operands want a cotangent: those that depend on ``sources`` and have a rule; and all
    variables that depend on ``sources``.

    A ``constant`` variable depends on nothing, whatever it is computed from, unless it is a source itself.
    """
    depends = set(sources)
    active = []
    for eqn in jaxpr.eqns:
        wants = rules.wanted_operands(eqn, [isinstance(atom, Var) and atom in depends for atom in eqn.invars])
        if any(wants):
            reached = itertools.compress(eqn.outvars, rules.reached_results(eqn, wants))
            depends.update(var for var in reached if var not in constant)
        active.append(wants)
    return active, depends


def forward_pass(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    wanted: Sequence[bool],
    active: Sequence[Mask] | None = None,
) -> tuple[list[Any], list[Application]]:
    """Evaluates ``jaxpr``, keeping what the rules name for every equation that depends on a ``wanted`` operand.

    Returns the results and the applications in order of execution: this list is what a tape is. Whoever knows better
    which operands want a cotangent says so by ``active``, a mask for each equation.
    """
    env: dict[Var, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    if active is None:
        active, _ = activity(jaxpr, itertools.compress(jaxpr.invars, wanted))
    applications: list[Application] = []

    def read(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    last_use: dict[Var, Any] = {var: eqn for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)}
    last_use.update((var, None) for var in jaxpr.outvars if isinstance(var, Var))
    for index, (eqn, wants) in enumerate(zip(jaxpr.eqns, active, strict=True)):
        outs, saved = rules.forward(eqn, [read(atom) for atom in eqn.invars], wants)
        env.update(zip(eqn.outvars, outs, strict=True))
        if any(wants):
            applications.append(Application(index, eqn, wants, saved))
        for atom in eqn.invars:  # a value lives until its last use, and longer only if a rule saved it
            if isinstance(atom, Var) and last_use[atom] is eqn:
                env.pop(atom, None)
    return [read(atom) for atom in jaxpr.outvars], applications


def backward_pass(
    jaxpr: Jaxpr,
    applications: list[Application],
    cts: Sequence[Any],
    scope: str = "vjp",
    targets: Sequence[Var] | None = None,
) -> list[Any]:
    """Walks back over the ``applications`` (and empties that list), from the cotangents of the results of ``jaxpr``.

    Returns the cotangents of its operands, or of ``targets``, any of its variables. None is a zero, in both directions.
    What is emitted for an equation carries the name ``vjp(PRIMITIVE.INDEX)``; the walk through a body inside an
    equation has another ``scope``.
    """
    ct_env: dict[Var, Any] = {}
    kept = frozenset(targets or ())
    for atom, ct in zip(jaxpr.outvars, cts, strict=True):
        if isinstance(atom, Var):
            accumulate(ct_env, atom, ct, atom.aval)
    while applications:
        index, eqn, wanted, saved = applications.pop()
        out_cts = [ct_env.get(var) if var in kept else ct_env.pop(var, None) for var in eqn.outvars]
        if all(ct is None for ct in out_cts):
            continue
        with emitting(eqn, scope=f"{scope}({eqn.primitive}.{index})"):
            for atom, ct in zip(eqn.invars, rules.pullback(eqn, saved, out_cts, wanted), strict=True):
                if ct is not None:
                    accumulate(ct_env, atom, ct, atom.aval)
    return [ct_env.get(var) for var in (jaxpr.invars if targets is None else targets)]


def evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluates ``jaxpr`` on values, or emits its equations on tracers; nothing is differentiated."""
    return forward_pass(jaxpr, consts, args, (False,) * len(args))[0]


def reached(jaxpr: Jaxpr, wanted: Sequence[bool]) -> list[bool]:
    """Which results of ``jaxpr`` depend on a ``wanted`` operand; nothing is evaluated."""
    _, depends = activity(jaxpr, itertools.compress(jaxpr.invars, wanted))
    return [isinstance(atom, Var) and atom in depends for atom in jaxpr.outvars]
