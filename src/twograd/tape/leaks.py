"""Who keeps graphs alive that nobody will walk again: ``total_loss += loss``, lists of losses, cycles, closures.

What flows in: the objects that Python's garbage collector knows. What flows out: for each variable that holds a graph
of several iterations, its name and place, the nodes and the bytes, and what to do. Read :func:`leaks`, then
:class:`_Search`.

An iteration is what lies between two calls of ``backward``: the nodes between them are numbered in a row, so the graph
of a clean training step has nodes of one iteration, or of two if something was computed once before the loop.
"""

import bisect
import gc
import inspect
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from twograd._compat import is_user_file
from twograd._table import TextTable
from twograd.tape.lines import Place, place
from twograd.tape.node import AccumulateGrad, Hooks, Node, Rare, walks
from twograd.tape.tensor import Tensor

MIN_ITERATIONS = 3  # from so many on a graph is a leak; weights prepared before the loop make two
DEEPEST = 8  # containers between a variable and a Tensor
FEW = 16  # objects whose referrers the garbage collector finds faster than a pass over all objects does
REMEDIES = {
    "sum": "add loss.item() or loss.detach(): a sum of Tensors is the root of all their graphs",
    "container": "keep loss.item() or loss.detach(), not the Tensor that is the root of a graph",
    "grad": "autograd.grad(..., create_graph=True) returns the gradient and stores it nowhere; or set .grad to None",
    "closure": "the function keeps what it mentions: mention x.detach(), or hand it over as an argument",
    "hook": "the hook keeps what it mentions, and lives as long as the graph: hand on x.detach(), or remove() it",
    "cycle": "only the garbage collector frees a cycle: break it, or call gc.collect()",
}


@dataclass(frozen=True)
class Leak:
    """A variable that keeps a graph: which, where, how much.

    ``name`` is as Python writes it (``trainer.losses``), ``kind`` how it holds: a key of :data:`REMEDIES`. ``file`` and
    ``line`` say where the variable lives: the running function's line, or the module. ``made_at`` is the line that made
    the newest node. ``iterations`` counts the calls of ``backward`` between which the graph was recorded.
    """

    name: str
    kind: str
    file: str
    line: int | None
    made_at: Place | None
    tensors: int
    nodes: int
    bytes: int
    iterations: int

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind]


class Leaks(Sequence[Leak]):
    """The leaks found, the largest first; prints itself, also in a notebook. ``complete`` is False if time ran out."""

    def __init__(self, found: Sequence[Leak], alive: int, complete: bool):
        self.found, self.alive, self.complete = tuple(found), alive, complete

    def __getitem__(self, index: Any) -> Any:
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    @property
    def table(self) -> TextTable:
        rows = [
            [f"{leak.name} ({leak.file}{f':{leak.line}' if leak.line else ''})", str(leak.tensors), str(leak.nodes),
             f"{leak.bytes:,}", str(leak.iterations), f"{leak.made_at}: {leak.made_at.code}" if leak.made_at else ""]
            for leak in self.found
        ]  # fmt: skip
        columns = ["what keeps a graph", "Tensors", "nodes", "bytes saved", "iterations", "made at"]
        notes = [f"{leak.name}: {leak.remedy}." for leak in self.found]
        notes += [] if self.complete else ["Time ran out: there may be more (time_limit=)."]
        title = f"{len(self)} leak{'s' * (len(self) != 1)}; {self.alive} nodes are alive"
        return TextTable(title, columns if rows else [""], rows, notes)

    def __str__(self) -> str:
        return str(self.table) if self.found or not self.complete else f"no leaks; {self.alive} nodes are alive"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def leaks(time_limit: float = 10.0, everything: bool = False) -> Leaks:
    """The variables that keep graphs of several iterations alive, or a gradient with a history in a leaf's ``.grad``.

    Looks at all objects that are alive, in about ``time_limit`` seconds at most, and changes nothing: nothing is
    collected. With ``everything`` also variables that hold one iteration's graph, as ``loss`` does. To be called after
    a few steps of the training loop, where its variables are: at the end of the loop's body, say.
    """
    search = _Search(time.monotonic() + time_limit)
    found = [leak for leak in search.run() if everything or leak.kind in ("grad",) or leak.iterations >= MIN_ITERATIONS]
    found.sort(key=lambda leak: (-leak.bytes, -leak.nodes, leak.name))
    return Leaks(found, search.alive, search.in_time())


@dataclass
class _Holder:
    """Something between a variable and Tensors: how the variable's name goes on, and which Tensors are behind it.

    ``parts`` are those that it refers to, one step nearer to the Tensors.
    """

    obj: Any
    suffix: str
    kind: str
    heads: set[int]
    parts: "list[_Holder]" = field(default_factory=list)


class _Search:
    """One look at all objects.

    ``heads`` are the Tensors that have a graph. From them the search goes upwards, from an object to what refers to it,
    until it comes to a variable: of a running function, of a module, or of a function's closure.
    """

    def __init__(self, deadline: float):
        self.deadline = deadline
        self.heads: dict[int, Tensor] = {}
        self.leaves: list[AccumulateGrad] = []
        self.alive = 0
        self.variables: dict[int, list[tuple[str, str, int | None]]] = {}  # of what they hold: name, file, line
        self.ours: set[int] = set()  # what this search itself keeps
        self.copies: list[dict[str, Any]] = []  # of functions' variables

    def in_time(self) -> bool:
        return time.monotonic() < self.deadline

    def run(self) -> list[Leak]:
        objects = gc.get_objects()
        for obj in objects:
            kind = type(obj)
            if issubclass(kind, Tensor):
                if _graph_of(obj) is not None:
                    self.heads[id(obj)] = obj
            elif issubclass(kind, Node):
                self.alive += 1
            elif kind is AccumulateGrad:
                self.leaves.append(obj)
        del objects, obj
        self._name_variables()
        self.ours |= {id(self.heads), id(self.leaves), id(self.__dict__), id(self.variables), id(self.copies)}
        try:
            return [*self._grads(), *self._held()]
        finally:
            self.heads.clear()
            self.leaves.clear()
            self._forget_variables()

    def _name_variables(self) -> None:
        """What is known by a name: the values of running functions' variables, and of modules'."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            names = getattr(module, "__dict__", None)
            if isinstance(names, dict):
                self.ours.add(id(names))
                if (isinstance(file, str) and is_user_file(file)) or getattr(module, "__name__", "") == "__main__":
                    for name, value in list(names.items()):
                        self.variables.setdefault(id(value), []).append((name, str(file or "<stdin>"), None))
        for frame in sys._current_frames().values():
            while frame is not None:
                code = frame.f_code
                if frame.f_globals.get("__name__") != __name__ and code.co_name != "<module>":
                    values = frame.f_locals
                    self.ours.add(id(values))
                    if type(values) is dict and code.co_flags & inspect.CO_OPTIMIZED:
                        self.copies.append(values)
                    for name, value in values.items():
                        self.variables.setdefault(id(value), []).append((name, code.co_filename, frame.f_lineno))
                self.ours.add(id(frame))
                frame = frame.f_back

    def _forget_variables(self) -> None:
        """Up to Python 3.12 a function's ``f_locals`` is a copy that lives as long as its frame: it would keep alive
        what the function deletes. One that somebody else has asked for stays as it is."""
        while self.copies:
            copy = self.copies.pop()
            if sys.getrefcount(copy) <= 3:  # the frame, this variable, the call
                copy.clear()

    # --- a leaf's .grad that has a history ---

    def _grads(self) -> Iterator[Leak]:
        for accumulator in self.leaves:
            gradient = accumulator.grad
            if isinstance(gradient, Tensor) and _graph_of(gradient) is not None:
                leaf = accumulator.variable
                name, file, line = self._variable(leaf) or ("a leaf", "?", None)
                yield self._leak(f"{name}.grad", "grad", file, line, [gradient])

    def _variable(self, obj: Any) -> tuple[str, str, int | None] | None:
        known = () if obj is None else self.variables.get(id(obj), ())
        return next(iter(known), None)

    # --- what is held by variables ---

    def _held(self) -> Iterator[Leak]:
        grads = {id(accumulator.grad) for accumulator in self.leaves}
        level = [_Holder(t, "", "sum", {key}) for key, t in self.heads.items() if key not in grads]
        found: dict[tuple[str, str, int | None], tuple[str, set[int]]] = {}
        loose = {key for holder in level for key in holder.heads}

        def note(name: str, file: str, line: int | None, holder: _Holder, kind: str | None = None) -> None:
            found.setdefault((name, file, line), (kind or holder.kind, set()))[1].update(holder.heads)
            loose.difference_update(holder.heads)

        seen: dict[tuple[int, str], set[int]] = {}
        for _ in range(DEEPEST):
            for holder in level:
                for name, file, line in self.variables.get(id(holder.obj), ()):
                    note(name + holder.suffix, file, line, holder)
            level = self._above(level, seen, note)
            if not level or not self.in_time():
                break
        if loose:
            found["a reference cycle", "?", None] = "cycle", loose
        for (name, file, line), (kind, heads) in found.items():
            yield self._leak(name, kind, file, line, [self.heads[key] for key in heads])

    def _above(
        self, level: list[_Holder], seen: dict[tuple[int, str], set[int]], note: Callable[..., None]
    ) -> list[_Holder]:
        """What refers to the objects of a level: the next level. Functions and frames are noted, they have a name."""
        below: dict[int, list[_Holder]] = {}
        for holder in level:
            below.setdefault(id(holder.obj), []).append(holder)
        following: dict[tuple[int, str], _Holder] = {}
        skipped = self.ours | {id(level), id(below), id(following), *map(id, below.values())}
        skipped |= {id(part) for holder in level for part in (holder, holder.__dict__)}
        for referrer, targets in _referrers([holders[0].obj for holders in below.values()]):
            if id(referrer) in skipped or isinstance(referrer, (types.ModuleType, Tensor)):
                continue
            for holder in (holder for target in targets for holder in below[target]):
                if isinstance(referrer, types.FunctionType):
                    code = referrer.__code__
                    name = f"the closure of {referrer.__qualname__}"
                    note(name, code.co_filename, code.co_firstlineno, holder, "closure")
                    continue
                frame = referrer.gi_frame if isinstance(referrer, types.GeneratorType) else referrer
                if isinstance(frame, types.FrameType):
                    if frame.f_globals.get("__name__") != __name__:
                        name, code = _local(frame, holder.obj), frame.f_code
                        note(f"{name}{holder.suffix}", code.co_filename, frame.f_lineno, holder)
                    continue
                suffix, kind = _step(referrer, holder)
                fresh = holder.heads - seen.setdefault((id(referrer), suffix), set())
                if fresh:
                    seen[id(referrer), suffix] |= fresh
                    above = following.setdefault((id(referrer), suffix), _Holder(referrer, suffix, kind, set()))
                    above.heads |= fresh
                    above.parts.append(holder)
        return list(following.values())

    # --- how much ---

    def _leak(self, name: str, kind: str, file: str, line: int | None, heads: Sequence[Tensor]) -> Leak:
        nodes: set[Node] = set()
        stack = [node for head in heads if (node := _graph_of(head)) is not None]
        while stack:
            node = stack.pop()
            if node not in nodes and isinstance(node, Node):
                nodes.add(node)
                stack.extend(edge[0] for edge in node.edges)
        ends = list(walks)
        iterations = {bisect.bisect_left(ends, node.sequence_nr) for node in nodes}
        saved = {id(value): getattr(value, "nbytes", 0) for node in nodes for value in node.saved or ()}
        newest = max(nodes, key=lambda node: node.sequence_nr, default=None)
        made_at = None if newest is None else place(newest.where)
        size = sum(saved.values())
        return Leak(name, kind, file, line, made_at, len(heads), len(nodes), size, len(iterations))


def _graph_of(tensor: Tensor) -> Node | None:
    """The node of a Tensor that is no leaf, without making a view compute its history."""
    try:
        edge = object.__getattribute__(tensor, "_edge")
    except AttributeError:
        return None
    return edge[0] if edge is not None and isinstance(edge[0], Node) else None


def _referrers(objects: Sequence[Any]) -> Iterator[tuple[Any, list[int]]]:
    """Each object that refers to some of ``objects``, and the ids of these."""
    ids = set(map(id, objects))
    candidates: Iterable[Any] = gc.get_referrers(*objects) if len(objects) <= FEW else gc.get_objects()
    mine = {id(objects), id(candidates)}
    for candidate in candidates:
        if id(candidate) in mine:
            continue
        targets = ids.intersection(map(id, gc.get_referents(candidate)))
        if targets:
            yield candidate, list(targets)


def _step(referrer: Any, below: _Holder) -> tuple[str, str]:
    """How the name goes on from ``referrer`` to what is below, and how that is held."""
    if isinstance(referrer, (Hooks, Rare)):
        return "", "hook"
    if isinstance(referrer, types.CellType):
        return below.suffix, "closure"
    if isinstance(referrer, tuple) and below.kind in ("closure", "hook"):
        return below.suffix, below.kind
    own = getattr(referrer, "__dict__", None)
    names = [*(own if isinstance(own, dict) else ()), *_slots(referrer)]
    for name in names:
        value = getattr(referrer, name, None)
        if value is below.obj:
            return f".{name}{below.suffix}", "container"
    if own is not None and own is below.obj:
        names = {name: part.suffix for name, value in own.items() for part in below.parts if value is part.obj}
        if names:  # of attributes that are held alike, any one's name
            name = min(names)
            return f".{name}{names[name]}", "container"
    return f"[...]{below.suffix}", "container"


def _slots(obj: Any) -> list[str]:
    return [name for kind in type(obj).__mro__ for name in getattr(kind, "__slots__", ()) if name[:2] != "__"]


def _local(frame: types.FrameType, obj: Any) -> str:
    name = next((name for name, value in frame.f_locals.items() if value is obj), "a variable")
    return f"{name} of {frame.f_code.co_name}"
