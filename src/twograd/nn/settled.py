"""Functions of nn.functional with their settings fixed."""

import functools
from collections.abc import Callable
from typing import Any

from twograd._protocol import front_end

MAX_SETTINGS = 4096


@functools.lru_cache(maxsize=MAX_SETTINGS, typed=True)
def settled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """``function`` of its operands only: the same object for the same settings, so that an engine knows it again.

    Called with operands alone it takes the tape's shortest way; keywords would have to be sorted out at each call.
    """
    plain = getattr(function, "__wrapped__", function)

    @functools.wraps(plain)
    def op(*operands: Any) -> Any:
        return plain(*operands, **settings)

    return front_end(op)
