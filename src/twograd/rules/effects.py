"""Callbacks and other effects.

What a program tells the outside (``jax.debug.print``) has no derivative and happens once, on the way forward. What it
is told by the outside has a derivative that only the user knows.
"""

from twograd.rules.common import unlisted
from twograd.rules.registry import nondifferentiable, refused

nondifferentiable(*(unlisted[name] for name in ("debug_callback", "debug_print", "inspect_sharding")))

for _name, _what in (
    ("ffi_call", "foreign code"),
    ("io_callback", "a function on the host"),
    ("pure_callback", "a function on the host"),
):
    refused(
        unlisted[_name], f"{_what} cannot be differentiated; give its derivative by jax.custom_vjp or jax.custom_jvp"
    )
