"""Mutable references (``jax.new_ref``) in a program that is differentiated: they become values that are handed on.

What flows in: a jaxpr that makes references, reads and writes them. What flows out: one that computes the same from
values, to which the ordinary rules apply. Read :func:`without_references`. A reference from outside the program stays
one: it may be read, and written to with what does not depend on the differentiated inputs, as in JAX.
"""

from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, primitives

from twograd import rules
from twograd._compat import discharge, makes_references, without_internal_effect
from twograd.errors import NoRule
from twograd.graph.calls import BODY
from twograd.graph.passes.report import map_bodies
from twograd.graph.transform import backward_pass, forward_pass
from twograd.rules.common import unlisted

CUSTOM = {primitives.custom_jvp_call_p, primitives.custom_vjp_call_p}


def without_references(closed: ClosedJaxpr) -> ClosedJaxpr:
    """``closed`` with the references that it makes, in bodies too, as values; itself if it makes none."""
    return discharge(shielded(closed), operands=False) if makes_references(closed.effects) else closed


def shielded(body: Any) -> Any:
    """``body`` with the references inside of the user's custom rules out of sight: discharge would drop those rules."""
    jaxpr: Jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    eqns = [
        without_internal_effect(eqn)
        if eqn.primitive in CUSTOM
        else eqn.replace(params=map_bodies(eqn.params, shielded))
        if makes_references(eqn.effects)
        else eqn
        for eqn in jaxpr.eqns
    ]
    jaxpr = jaxpr.replace(eqns=eqns)
    return body.replace(jaxpr=jaxpr) if isinstance(body, ClosedJaxpr) else jaxpr


# --- run_state: a body between values and values ----------------------------------------------------------------------


def run_state_forward(eqn, operands, wanted):
    pure = discharge(ClosedJaxpr(eqn.params["jaxpr"], ()), operands=True)
    outs, applications = forward_pass(pure.jaxpr, pure.consts, operands, wanted)
    return outs, (pure.jaxpr, applications)


def run_state_backward(eqn, saved, cts, wanted):
    jaxpr, applications = saved
    return backward_pass(jaxpr, list(applications), cts, BODY)


# --- references from outside ------------------------------------------------------------------------------------------


def write_outside(eqn, operands, wanted):
    raise NoRule(
        eqn,
        "it writes a value that depends on the differentiated inputs to a reference from outside the differentiated "
        "function, where its derivative would be lost; make the reference inside, with jax.new_ref",
    )


def nothing_back(eqn, saved, cts, wanted):
    raise AssertionError(f"{eqn.primitive} was refused on the way forward")


rules.vjp_call(unlisted["run_state"], run_state_forward, run_state_backward)
rules.vjp_call(unlisted["addupdate"], write_outside, nothing_back)
rules.vjp_call(unlisted["swap"], write_outside, nothing_back)
rules.nondifferentiable(unlisted["get"], unlisted["empty_ref"], unlisted["free_ref"])
for _name in ("accum_grad_in_ref", "freeze", "new_ref"):
    rules.refused(unlisted[_name], "the reference was made where it could not be turned into a value; pass values on")
