"""What a thread's tape does just now: whether it records, and how finely."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

Granularity = Literal["op", "primitive"]


class _Mode(threading.local):
    """``recording`` is the granularity at which this thread records, or False under ``no_grad``."""

    granularity: Granularity = "op"
    recording: Granularity | Literal[False] = "op"


mode = _Mode()


class _set_recording(contextlib.ContextDecorator):
    """Sets the grad mode inside a ``with`` block, or in every call of a decorated function; the old one comes back."""

    recording: bool

    def __init__(self):
        self._previous: list[Any] = []

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def in_mode(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)

        return in_mode

    def __enter__(self) -> None:
        self._previous.append(mode.recording)
        mode.recording = self.recording and mode.granularity

    def __exit__(self, *exc_info: Any) -> None:
        mode.recording = self._previous.pop()


class no_grad(_set_recording):
    """Nothing computed inside requires a gradient, whatever its inputs: no node is made and nothing is saved."""

    recording = False


class enable_grad(_set_recording):
    """Recording is on inside, also within a ``no_grad`` block."""

    recording = True


class set_grad_enabled:
    """Switches recording on or off: from now on if called as a function, for a block if used in ``with``."""

    def __init__(self, enabled: bool):
        self._previous = mode.recording
        mode.recording = bool(enabled) and mode.granularity

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: Any) -> None:
        mode.recording = self._previous


def is_grad_enabled() -> bool:
    """Whether this thread records."""
    return mode.recording is not False


@contextlib.contextmanager
def granularity(level: Granularity) -> Iterator[None]:
    """How finely calls inside are recorded: one node per ``"op"`` (a call of a front-end function), or per
    ``"primitive"``.

    At op level an op's forward pass is one compiled call and its pullback another. At primitive level every primitive
    of its jaxpr is executed and recorded on its own and its rule is called by value: the pure algorithm, slower, and
    node for node comparable with the jaxpr.
    """
    if level not in ("op", "primitive"):
        raise ValueError(f"granularity is 'op' or 'primitive', not {level!r}")
    previous = mode.granularity, mode.recording
    mode.granularity, mode.recording = level, mode.recording and level
    try:
        yield
    finally:
        mode.granularity, mode.recording = previous
