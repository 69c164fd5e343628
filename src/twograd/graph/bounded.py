"""A loop of unknown length that can be differentiated in reverse, because its length is bounded."""

from collections.abc import Callable
from typing import Any

from jax import lax

from twograd._protocol import front_end


@front_end
def bounded_while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, max_steps: int
) -> Any:
    """``lax.while_loop(cond_fun, body_fun, init_val)``, of at most ``max_steps`` steps, with a derivative.

    ``lax.while_loop`` has no derivative in reverse mode: how much its steps will keep is not known beforehand. Here
    there is room for ``max_steps``. It is a scan of that length; steps after the condition has failed cost as much as
    testing it. Where the condition still holds after ``max_steps`` the loop ends all the same: test ``cond_fun`` of the
    result to find out. Raises ValueError for a negative ``max_steps``; carries are checked as ``lax.scan`` does.
    """
    if max_steps < 0:
        raise ValueError(f"bounded_while_loop: max_steps must not be negative, got {max_steps}")

    def step(value, _):
        return lax.cond(cond_fun(value), body_fun, lambda value: value, value), None

    return lax.scan(step, init_val, None, length=max_steps)[0]
