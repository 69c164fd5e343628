"""Callbacks and other effects, and calls that are no more than their body.

What a program tells the outside (``jax.debug.print``) has no derivative and happens once, on the way forward. What it
is told by the outside has a derivative that only the user knows.
"""

from jax.extend.core import ClosedJaxpr, primitives

from twograd import rules
from twograd.graph.calls import BODY
from twograd.graph.transform import backward_pass, forward_pass
from twograd.rules.common import unlisted


def body_rule(name):
    """Forward and backward of a call whose parameter ``name`` is its body."""

    def body(eqn):
        found = eqn.params[name]
        return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())

    def forward(eqn, operands, wanted):
        return forward_pass(body(eqn).jaxpr, body(eqn).consts, operands, wanted)

    def backward(eqn, applications, cts, wanted):
        return backward_pass(body(eqn).jaxpr, list(applications), cts, BODY)

    return forward, backward


rules.vjp_call(primitives.closed_call_p, *body_rule("call_jaxpr"))
rules.vjp_call(unlisted["custom_vmap_call"], *body_rule("call"))
rules.vjp_call(unlisted["composite"], *body_rule("jaxpr"))
rules.vjp_call(unlisted["eval_jaxpr"], *body_rule("jaxpr"))
rules.vjp_call(unlisted["remat_opt"], *body_rule("fwd_jaxpr"))

rules.nondifferentiable(*(unlisted[name] for name in ("debug_callback", "debug_print", "inspect_sharding")))

for _name, _what in (
    ("ffi_call", "foreign code"),
    ("io_callback", "a function on the host"),
    ("pure_callback", "a function on the host"),
):
    rules.refused(
        unlisted[_name], f"{_what} cannot be differentiated; give its derivative by jax.custom_vjp or jax.custom_jvp"
    )
