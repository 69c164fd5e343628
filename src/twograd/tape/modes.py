"""What a thread's tape does just now: whether it records, how finely, and who watches.

A special mode of a thread (saved-tensor hooks, anomaly detection, inference, dual numbers) is a :class:`Watcher`, which
is told of the nodes and Tensors that are made. Where nobody watches this costs nothing; see ``watched.py``.
"""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from twograd.tape.deferred import Program
    from twograd.tape.node import Edge, Node
    from twograd.tape.tensor import Tensor

Granularity = Literal["op", "primitive"]
Level = Granularity | Literal[False]
Views = Literal["rebase", "error"]


class Watcher:
    """A special mode: what it is told of while it is on. Each method does nothing unless a subclass overrides it.

    ``pulls_on_tensors`` says that the walk back must work on Tensors, so that it is told of what that computes too.
    """

    pulls_on_tensors = False

    def node_made(self, node: "Node", saved_from: "Sequence[Tensor]") -> None:
        """A node was made; ``saved_from`` has the operand or result that each of ``node.saved`` is."""

    def op_done(self, function: Callable[..., Any], operands: "Sequence[Tensor]", outputs: "Sequence[Tensor]") -> None:
        """``function`` of the operands was computed, whether or not it is recorded."""

    def function_done(self, function: Any, ctx: Any, args: Sequence[Any], outputs: Sequence[Any]) -> None:
        """The custom ``autograd.Function`` was applied; ``ctx`` has what it keeps."""

    def saved_read(self, node: "Node", i: int, tensor: "Tensor") -> None:
        """``tensor`` was made of the ``i``-th value that ``node`` saved, for a walk back or its user."""

    def written(self, x: "Tensor", result: "Tensor") -> None:
        """A change in place put the elements and the history of ``result`` in the place of those of ``x``."""

    def shared(self, tensor: "Tensor", owner: "Tensor", step: "tuple[Any, ...] | None") -> None:
        """``tensor`` shows the elements of ``owner`` from now on: all of them, or by the ``step`` of a view."""

    def walk_began(self, roots: "Sequence[tuple[Node, int]]", cts: Sequence[Any]) -> None:
        """A walk back from these edges begins."""

    def walk_ended(self) -> None:
        """That walk is done."""

    def refused(self, error: Exception) -> None:
        """An error is about to be raised for a saved value that was changed in place; notes may be added to it."""


class Watched:
    """What a watched thread has for a level. No plan is kept under it: so the recorder, which finds none, comes to
    where it looks closer, and the other threads' calls test nothing."""

    __slots__ = ("level",)

    def __init__(self, level: "Level | Watched"):
        self.level: Level = level.level if isinstance(level, Watched) else level

    def __bool__(self) -> bool:
        return self.level is not False


class Walk:
    """A walk back that is under way: its roots, and the nodes that lead to what is asked for, or None for all. Where
    anomalies are looked for ``node`` is the one that is being walked."""

    node: "Node | None" = None

    def __init__(self, roots: "Sequence[Edge]", needed: "set[Node] | None"):
        self._roots = roots
        self.needed = needed

    @functools.cached_property
    def _reached(self) -> "set[Node]":
        reached: set[Node] = set()
        stack = [node for node, _ in self._roots]
        while stack:
            node = stack.pop()
            if node not in reached and (self.needed is None or node in self.needed):
                reached.add(node)
                stack.extend(next_node for next_node, _ in node.edges)
        return reached

    def comes_to(self, edge: "Edge") -> bool:
        """Whether this walk computes the cotangent of an edge."""
        return edge[0] in self._reached


class Deferring(Watched):
    """What a thread that puts ops off has for a level, for the same reason."""

    __slots__ = ()


_DEFERRING: dict[Level, Deferring] = {level: Deferring(level) for level in ("op", False)}


class _Mode(threading.local):
    """``grad`` is False under ``no_grad``, ``inference`` is True in inference mode; ``watchers`` are the special modes,
    the innermost last; ``views`` is what a change in place does to Tensors that share a storage; ``compile_at`` is the
    meeting of a structure at which its walk back is compiled, 0 for never; ``program`` is where ops are put off to, if
    they are. ``enabled`` (whether this thread records) and ``recording`` (the granularity at which it does, or False,
    or either as Watched) follow from them. ``walk`` is the innermost walk back under way; ``anomaly`` is set where
    anomalies are looked for."""

    grad: bool = True
    inference: bool = False
    granularity: Granularity = "op"
    watchers: tuple[Watcher, ...] = ()
    views: Views = "rebase"
    compile_at: int = 0
    program: "Program | None" = None
    enabled: bool = True
    recording: Level | Watched = "op"
    walk: Walk | None = None
    anomaly: Any = None

    def set(self, **states: Any) -> None:
        """Changes some of these states, and what follows from them."""
        for name, state in states.items():
            setattr(self, name, state)
        self.enabled = self.grad and not self.inference
        level: Level = self.granularity if self.enabled else False
        deferring = self.program is not None and self.granularity == "op" and not self.inference
        self.recording = Watched(level) if self.watchers else _DEFERRING[level] if deferring else level


mode = _Mode()


@contextlib.contextmanager
def watched_by(*watchers: Watcher, instead_of: type[Watcher] | tuple[type[Watcher], ...] = ()) -> Iterator[None]:
    """Inside, this thread tells ``watchers`` too of what it makes, but no longer those of the kind ``instead_of``."""
    previous = mode.watchers
    mode.set(watchers=(*(w for w in previous if not isinstance(w, instead_of)), *watchers))
    try:
        yield
    finally:
        mode.set(watchers=previous)


@contextlib.contextmanager
def deferring_to(program: "Program | None") -> Iterator[None]:
    """Inside, this thread puts its ops off to ``program``; with None it does them at once."""
    previous = mode.program
    mode.set(program=program)
    try:
        yield
    finally:
        mode.set(program=previous)


class _GradMode:
    """Sets whether this thread records, inside a ``with`` block or in every call of a decorated function.

    The old mode comes back afterwards. A decorated generator function runs in the mode, its caller between two of its
    steps does not.
    """

    enabled: bool

    def __init__(self):
        self._previous: list[bool] = []  # a stack, for the same object may be entered again

    def __enter__(self) -> None:
        self._previous.append(mode.grad)
        mode.set(grad=self.enabled)

    def __exit__(self, *exc_info: Any) -> None:
        mode.set(grad=self._previous.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return decorated(function, enable_grad if self.enabled else no_grad)


class _Constant(_GradMode):
    """A mode that can decorate without parentheses: ``@no_grad`` is ``@no_grad()``."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else decorated(function, cls)

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
        self._before = mode.grad
        mode.set(grad=self.enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: Any) -> None:
        mode.set(grad=self._before)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        mode.set(grad=self._before)
        return super().__call__(function)


def decorated(function: Callable[..., Any], block: Callable[[], Any]) -> Callable[..., Any]:
    """``function``, each call of which, or each step if it is a generator function, runs inside of a ``block()``."""

    def in_mode(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with block():
            return call(*args, **kwargs)

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
    return mode.grad


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
    previous = mode.granularity
    mode.set(granularity=level)
    try:
        yield
    finally:
        mode.set(granularity=previous)


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
