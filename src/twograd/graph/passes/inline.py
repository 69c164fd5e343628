"""Inlining: a call of a jitted function becomes the equations of its body."""

import functools

from jax.extend.core import ClosedJaxpr, JaxprEqn, primitives

from twograd._compat import body_of, is_plain_jit, scoped
from twograd.graph.passes.report import PassReport
from twograd.graph.passes.rewriting import Visitor, Walk, rewrite


def inline(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Puts the bodies of ``jit`` equations in their place, at every depth.

    An equation of a body keeps its source line and its scopes, below those of the call and one of the call's name, so
    profiles and provenance stay true. Calls that say more than "compile this" stay: those with shardings, layouts or
    compiler options, and those that read or write references.
    """

    def visitor_of(walk: Walk) -> Visitor:
        def visit(eqn: JaxprEqn):
            if eqn.primitive is not primitives.jit_p or not is_plain_jit(eqn):
                return None
            consts, name = eqn.params["jaxpr"].consts, eqn.params["name"]
            if consts and not walk.takes_constants:
                return None
            sources = functools.partial(scoped, outer=eqn, scope=f"jit({name})")
            return name, walk.splice(body_of(eqn), consts, eqn.invars, sources)

        return visit

    return rewrite("inline", closed, visitor_of)
