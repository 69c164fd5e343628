"""Primitives of JAX's own machinery: what stands for no computation, and what a traced program never has.

They are here so that the table says of every primitive that JAX has a derivative rule for what becomes of it.
"""

from jax import lax

from twograd.rules.common import unlisted
from twograd.rules.registry import nondifferentiable, refused

IN_NO_PROGRAM = "a program that is traced has none, so it was bound by hand; call the public function instead"

refused(unlisted["stage"], IN_NO_PROGRAM)
refused(
    unlisted["custom_lin"],
    "it stands for the forward mode derivative (jax.jvp, jax.linearize) of a jax.custom_vjp function, whose rule is "
    "for reverse mode only: not even its value can be computed. Use twograd.graph.jvp, which pulls back twice, or give "
    "the function its rule by jax.custom_jvp",
)

for name in ("from_edtype", "to_edtype"):
    refused(unlisted[name], "a value of an extended dtype carries no cotangent; convert it to a real dtype first")

for name in ("box_get", "box_set", "call_hi_primitive", "log_extend", "log_read", "new_box", "new_log"):
    refused(unlisted[name], "JAX's high-level types are experimental and not part of a jaxpr here; use a jax.Ref")

# They have no results: a check that raises, and a use that keeps a value alive.
nondifferentiable(unlisted["check"], lax.dce_sink_p)
