"""Primitives of JAX's own machinery: what stands for no computation, and what a traced program never has.

They are here so that the table says of every primitive that JAX has a derivative rule for what becomes of it.
"""

from jax import lax

from twograd.rules.common import unlisted
from twograd.rules.registry import nondifferentiable, refused

IN_NO_PROGRAM = "a program that is traced has none, so it was bound by hand; call the public function instead"

for name in ("custom_lin", "stage"):
    refused(unlisted[name], IN_NO_PROGRAM)

for name in ("from_edtype", "to_edtype"):
    refused(unlisted[name], "a value of an extended dtype carries no cotangent; convert it to a real dtype first")

for name in ("box_get", "box_set", "call_hi_primitive", "log_extend", "log_read", "new_box", "new_log"):
    refused(unlisted[name], "JAX's high-level types are experimental and not part of a jaxpr here; use a jax.Ref")

# They have no results: a check that raises, and a use that keeps a value alive.
nondifferentiable(unlisted["check"], lax.dce_sink_p)
