"""A loop of unknown length that can be differentiated in reverse, because its length is bounded."""

import operator
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
    result to find out.

    Raises TypeError where ``max_steps`` is no integer (it is the length of a compiled loop), or ``body_fun`` returns
    values of other shapes and dtypes than ``init_val``; ValueError where it is negative.
    """
    for name, function in (("cond_fun", cond_fun), ("body_fun", body_fun)):
        if not callable(function):
            raise TypeError(f"bounded_while_loop: {name} must be a function, got {type(function).__name__}")
    try:
        max_steps = operator.index(max_steps)
    except TypeError:
        raise TypeError(
            f"bounded_while_loop: max_steps is the length of a compiled loop, an integer, not {max_steps!r}"
        ) from None
    if max_steps < 0:
        raise ValueError(f"bounded_while_loop: max_steps must not be negative, got {max_steps}")

    def step(value, _):
        return lax.cond(cond_fun(value), body_fun, lambda value: value, value), None

    return lax.scan(step, init_val, None, length=max_steps)[0]
