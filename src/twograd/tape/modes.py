"""What a thread's tape does just now: whether it records, and how finely."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

Granularity = Literal["op", "primitive"]
Recording = Granularity | Literal[False]
Views = Literal["rebase", "error"]


class _Mode(threading.local):
    """``recording`` is the granularity at which this thread records, or False under ``no_grad``; ``views`` is what a
    change in place does to Tensors that share a storage."""

    granularity: Granularity = "op"
    recording: Recording = "op"
    views: Views = "rebase"


mode = _Mode()


class _GradMode:
    """Sets whether this thread records, inside a ``with`` block or in every call of a decorated function.

    The old mode comes back afterwards. A decorated generator function runs in the mode, its caller between two of its
    steps does not.
    """

    enabled: bool

    def __init__(self):
        self._previous: list[Recording] = []  # a stack, for the same object may be entered again

    def __enter__(self) -> None:
        self._previous.append(mode.recording)
        _record(self.enabled)

    def __exit__(self, *exc_info: Any) -> None:
        mode.recording = self._previous.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _decorated(function, self.enabled)


class _Constant(_GradMode):
    """A mode that can decorate without parentheses: ``@no_grad`` is ``@no_grad()``."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else _decorated(function, cls.enabled)

    def __init__(self, function: None = None):
        super().__init__()


class no_grad(_Constant):
    """Nothing computed inside requires a gradient, whatever its inputs: no node is made and nothing is saved."""

    enabled = False


class enable_grad(_Constant):
    """Recording is on inside, also within a ``no_grad`` block."""

    enabled = True


class set_grad_enabled(_GradMode):
    """Switches recording on or off: from now on if called as a function, for a block if used in ``with``, for every
    call of a function that it decorates."""

    def __init__(self, enabled: bool):
        super().__init__()
        self.enabled = bool(enabled)
        self._before: Recording = mode.recording
        _record(self.enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: Any) -> None:
        mode.recording = self._before

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode.recording = self._before
        return super().__call__(function)


def _record(enabled: bool) -> None:
    mode.recording = mode.granularity if enabled else False


def _decorated(function: Callable[..., Any], enabled: bool) -> Callable[..., Any]:
    def in_mode(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        previous = mode.recording
        _record(enabled)
        try:
            return call(*args, **kwargs)
        finally:
            mode.recording = previous

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return in_mode(function, *args, **kwargs)

    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Any:
        running = in_mode(function, *args, **kwargs)
        step, value = running.send, None
        while True:
            try:
                produced = in_mode(step, value)
            except StopIteration as stop:
                return stop.value
            try:
                step, value = running.send, (yield produced)
            except GeneratorExit:
                in_mode(running.close)
                raise
            except BaseException as error:
                step, value = running.throw, error

    return generator if inspect.isgeneratorfunction(function) else wrapper


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


@contextlib.contextmanager
def in_place_views(rule: Views) -> Iterator[None]:
    """What a change in place of a Tensor that shares its storage with others does: ``"rebase"`` (the default, and what
    PyTorch does) rewrites the history of them all; ``"error"``, the rule of its first releases, raises RuntimeError.
    """
    if rule not in ("rebase", "error"):
        raise ValueError(f"views is 'rebase' or 'error', not {rule!r}")
    previous = mode.views
    mode.views = rule
    try:
        yield
    finally:
        mode.views = previous
