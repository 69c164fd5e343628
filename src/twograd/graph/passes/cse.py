"""Common-subexpression elimination: what was computed once is not computed again."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, primitives

from twograd.graph.passes.report import PassReport
from twograd.graph.passes.rewriting import Atom, Visitor, Walk, rewrite

NOT_A_FUNCTION = {primitives.rng_uniform_p, lax.optimization_barrier_p}
"""Hidden state; and a barrier is there so that the same thing is computed twice (``jax.checkpoint`` uses it)."""


def cse(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Lets the results of an equation stand for those of every later one that computes the same.

    The same means: the same primitive, parameters and operands, under the same settings, with results of the same type.
    Equations with effects are never merged. Random numbers in JAX are functions of their key, so they are.
    """

    def visitor_of(walk: Walk) -> Visitor:
        computed: dict[Hashable, Sequence[Atom]] = {}

        def visit(eqn: JaxprEqn):
            if eqn.effects or eqn.primitive in NOT_A_FUNCTION:
                return None
            key = identity(eqn)
            if key is None or computed.setdefault(key, eqn.outvars) is eqn.outvars:
                return None
            return eqn.primitive.name, computed[key]

        return visit

    return rewrite("cse", closed, visitor_of)


def identity(eqn: JaxprEqn) -> Hashable | None:
    """What two equations that compute the same have in common; None for one that cannot be compared."""
    key = (
        eqn.primitive,
        tuple(operand(atom) for atom in eqn.invars),
        tuple(eqn.params.items()),
        tuple(var.aval for var in eqn.outvars),
        eqn.ctx,
    )
    try:
        hash(key)
    except TypeError:  # a parameter is an array or a list
        return None
    return key


def operand(atom: Atom) -> Any:
    """A variable is itself; a literal is its bits (0.0 is not -0.0) and type."""
    return (np.asarray(atom.val).tobytes(), atom.aval) if isinstance(atom, Literal) else atom
