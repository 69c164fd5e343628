"""The whole walk back as one compiled call, for tapes of a structure that was met before.

What flows in: the roots, cotangents and targets of a walk. What flows out: what ``backward_pass`` would have returned
and done. Read :func:`walk`, then :func:`_read` and :class:`_Structure`.

The compiled call is the plain walk itself, traced: ``backward_pass`` walks a copy of the tape that has tracers in the
place of what was saved. So there is one walk, and what it does to leaves and targets, and what it frees, is read off
the copy. Two tapes have the same structure if they consist of the same plans, joined in the same way, and share saved
arrays in the same way; a plan fixes shapes and dtypes. What a compiled call cannot do (retained gradients, an error on
the way) is left to the plain walk.
"""

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from twograd.tape.backward import backward_pass, is_alone, put_grad
from twograd.tape.deferred import Noted, Program, replay, saved_of, structures
from twograd.tape.modes import mode
from twograd.tape.node import AccumulateGrad, Edge, Node
from twograd.tape.storage import check_versions, superseded
from twograd.tape.structures import Structures
from twograd.tape.tensor import make_tensor
from twograd.tape.value import Value

MAX_NODES = 2048  # the time to compile grows faster than the number of nodes

LEAF, HELD, TARGETS, NEEDED = "a leaf", "a leaf that holds a gradient", "the targets", "the results to keep"
NEW, UNTRACEABLE = "its structure was new", "it could not be traced"


@dataclass(frozen=True)
class CompiledStats:
    """How the walks inside ``compiled_backward()`` were done since the last ``clear()``, in all threads.

    ``hits`` ran a compiled call that was there, and ``compiles`` made one and ran it. The others were done plainly;
    ``plain`` counts them by the reason.
    """

    hits: int
    compiles: int
    plain: dict[str, int]


class compiled_backward(contextlib.ContextDecorator):
    """Inside, ``backward()`` and ``grad()`` run as one compiled call where a tape of the same structure was met before.

    A structure is compiled when it is met for the ``meetings``-th time: by default the second, so that a program whose
    structure is another each time does not compile each time. All other walks are done plainly, among them those with
    ``create_graph``. The gradients are those of the plain walk up to rounding: the compiler fuses across ops. What was
    saved is freed when the call is done, not op by op, so its peak of memory is higher.

    With ``forward`` ops are put off as well: called, they are only recorded, and the first to look at elements has all
    of them done in one call; the walk back takes them into its own. So a loop that looks only at its loss is one call
    for each step, its changes of the weights in place with it. Errors of shapes and dtypes come where an op is called.
    A view of what was put off has it done, and ops are done at once where hooks pack what is saved, in inference mode
    and inside of JAX's traces.

    A context manager and a decorator, for the thread that enters it.
    """

    def __init__(self, meetings: int = 2, forward: bool = False):
        if meetings < 1:
            raise ValueError(f"a structure can be compiled when it is met first or later, not at meeting {meetings}")
        self._meetings = meetings
        self._forward = forward
        self._previous: list[tuple[int, Program | None]] = []  # a stack, for the same object may be entered again

    def _recreate_cm(self) -> "compiled_backward":
        # Each call of a decorated function has its own, in any thread.
        return compiled_backward(self._meetings, self._forward)

    def __enter__(self) -> None:
        self._previous.append((mode.compile_at, mode.program))
        mode.set(compile_at=self._meetings, program=Program(self._meetings) if self._forward else mode.program)

    def __exit__(self, *exc_info: Any) -> None:
        program = mode.program
        compile_at, previous = self._previous.pop()
        mode.set(compile_at=compile_at, program=previous)
        if program is not None and program is not previous:
            program.run()

    @staticmethod
    def stats() -> CompiledStats:
        """How many walks ran compiled calls, and why others did not."""
        with _counting:
            plain = dict(_counts)
        return CompiledStats(plain.pop("hits", 0), plain.pop("compiles", 0), plain)

    @staticmethod
    def clear() -> None:
        """Forgets all structures, and sets the counts to zero."""
        with _counting:
            _counts.clear()
        _structures.clear()
        structures.clear()


_counting = threading.Lock()
_counts: Counter[str] = Counter()
_structures: "Structures[_Structure]" = Structures()


def walk(
    roots: Sequence[Edge],
    cts: Sequence[Any],
    targets: Sequence[Edge] | None,
    retain_graph: bool,
    create_graph: bool,
    accumulating: bool,
) -> dict[Edge, Any]:
    """As ``backward_pass``; by a compiled call, if a tape of this structure was met before."""
    program = mode.program
    with contextlib.nullcontext() if program is None else program.lock:
        tape = _read(program, roots, targets, retain_graph, accumulating)
        done = tape if isinstance(tape, str) else _walked(tape, cts, retain_graph)
        if not isinstance(done, str):
            if program is not None:
                program.done()
            return dict(zip(targets or (), done, strict=not accumulating))
        tape = None  # it refers to what is counted
        if program is not None:
            program.run()
    _count(done)
    return backward_pass(roots, cts, targets, retain_graph, create_graph, accumulating)


def _walked(tape: "_Tape", cts: Sequence[Any], keep: bool) -> list[Any] | str:
    """Walks by a compiled call, and returns the cotangents of the targets; or why not."""
    structure = _structures.find(tape.key, mode.compile_at, lambda key: _Structure(key, tape.nodes))
    if structure is None:
        return NEW
    if structure.refused:
        return UNTRACEABLE
    traced = structure.traced
    try:
        found, grads, computed = structure.call(tape.donate)(tape.noted.inputs, cts, tape.held)
    except Exception:  # nothing was done yet; if this is the program's error the plain walk raises it
        structure.refused = True
        return UNTRACEABLE
    _count("hits" if structure.traced == traced else "compiles")
    for i, array in zip(structure.computed, computed, strict=True):
        tape.noted.results[i].array = array
    for i in () if keep else structure.freed:
        tape.nodes[i].saved = None  # pyright: ignore[reportAttributeAccessIssue]
    tape.held.clear()
    for i, grad in zip(structure.leaves, grads, strict=True):
        put_grad(tape.nodes[i], make_tensor(grad, None))  # pyright: ignore[reportArgumentType]
    return found


def _count(what: str) -> None:
    with _counting:
        _counts[what] += 1


class _Tape(NamedTuple):
    """What is reached from the roots: nodes, the gradients that leaves hold already, and whether nobody else holds
    these. ``noted`` has the ops that were put off, and among its inputs the arrays that nodes saved. The key says how
    all this hangs together."""

    key: tuple[Any, ...]
    nodes: list[Node | AccumulateGrad]
    held: list[Any]
    donate: bool
    noted: Noted


def _read(
    program: Program | None, roots: Sequence[Edge], targets: Sequence[Edge] | None, keep: bool, accumulating: bool
) -> _Tape | str:
    """The tape behind ``roots``, or why it has to be walked plainly. One pass over nodes, edges and saved values.

    In the key a node has the number of its turn. For each there are its plan, its edges (as many as the plan has
    wanted operands), and what it saved (as many as it has positions), as operands are in :class:`Noted`.
    """
    if mode.watchers or mode.anomaly is not None:
        return "somebody watches"
    noted = Noted([0], [], {}, [], []) if program is None else program.read()
    key, inputs, places, _, uses = noted
    key.append(len(roots))
    nodes: list[Any] = []
    numbers: dict[Any, int] = {}
    held: list[Any] = []
    grads: list[int] = []
    fills = targets is None or accumulating
    changed = False
    donate = targets is None
    for node, output_nr in roots:
        number = numbers.setdefault(node, len(nodes))
        if number == len(nodes):
            nodes.append(node)
        key.append((number, output_nr) if output_nr else number)
    for node in nodes:  # which grow meanwhile
        if node.rare is not None:
            return "a node has hooks, or keeps its gradient"
        if type(node) is AccumulateGrad:
            if not fills or node.grad is None:
                key.append(LEAF)
                continue
            key.append(HELD)
            alias = node.grad._alias
            grads.append(id(node.grad if alias is None else alias.storage))
            donate = donate and is_alone(node)
            held.append(node.grad._data)
            continue
        values = saved_of(node)
        if values is None:
            return "values that it saved were freed"
        if node.own_pull is not None:
            return "a node is the user's own"
        key.append(node.plan)
        for next_node, output_nr in node.edges:
            number = numbers.get(next_node)
            if number is None:
                number = numbers[next_node] = len(nodes)
                nodes.append(next_node)
            key.append((number, output_nr) if output_nr else number)
        for value in values:
            if type(value) is Value:
                if value.array is None and value.program is program:
                    key.append(value.number)
                    if not keep:
                        uses[value.number] += 1  # it is freed by the walk; or else the walk computes it
                    continue
                value = value.computed()
            if superseded and id(value) in superseded:
                changed = True
            place = places.setdefault(id(value), len(inputs))
            if place == len(inputs):
                inputs.append(value)
            key.append(~place)
    node = value = values = None  # they refer to what is counted
    if len(set(grads)) < len(grads):
        return "leaves share a gradient"
    if len(nodes) > MAX_NODES:
        return f"it has more than {MAX_NODES} nodes"
    if changed and ((program is not None and program.count) or not _unchanged(nodes)):
        return "a value that it saved was changed in place"
    key.append(TARGETS)
    key.append(None if targets is None else accumulating)
    key += [(numbers.get(node, -1), output_nr) for node, output_nr in targets or ()]
    key.append(NEEDED)
    key += noted.needed()
    return _Tape(tuple(key), nodes, held, donate and bool(held), noted)


def _unchanged(nodes: Sequence[Node | AccumulateGrad]) -> bool:
    try:
        for node in nodes:
            if isinstance(node, Node):
                check_versions(node, node.saved or ())
    except RuntimeError:
        return False
    return True


class _Structure:
    """The compiled walk of all tapes that have the same ``key``, with the ops that it finds put off.

    What it does is known when it was traced: ``freed`` are the numbers of the nodes that it frees, ``leaves`` of those
    whose gradient it returns, and ``computed`` of the results of ops that it returns.
    """

    def __init__(self, key: tuple[Any, ...], nodes: Sequence[Node | AccumulateGrad]):
        self.refused = False
        self.traced = 0  # how often
        self.freed: list[int] = []
        self.leaves: list[int] = []
        self.computed: list[int] = []
        self._key = key
        self._orders = [node.order for node in nodes]
        self._calls = {donate: jax.jit(self._walk, donate_argnums=(2,) if donate else ()) for donate in (False, True)}

    def call(self, donate: bool) -> Callable[..., tuple[list[Any], list[Any], list[Any]]]:
        """``(inputs, cts, held)`` to the cotangents of the targets, the gradients of the leaves, and results of ops."""
        return self._calls[donate]

    def _walk(self, inputs: Sequence[Any], cts: Sequence[Any], held: Sequence[Any]) -> Any:
        """The plain walk over a copy of the tape, whose saved values are tracers."""
        items = iter(self._key)
        results = replay(items, inputs)
        leaf = make_tensor(jax.numpy.zeros(()), None)  # stands for all leaves: their nodes only want to know one
        grads = iter(held)
        nodes: list[Any] = []
        saved_numbers: list[list[int]] = []

        def numbered(count):
            return [item if isinstance(item, tuple) else (item, 0) for item in itertools.islice(items, count)]

        def joined(edges: Iterable[Any]) -> list[Any]:
            return [(unreached if i < 0 else nodes[i], output_nr) for i, output_nr in edges]

        root_edges = numbered(next(items))
        for order in self._orders:
            plan = next(items)
            numbers: list[int] = []
            if isinstance(plan, str):
                node = AccumulateGrad(leaf)
                node.grad = make_tensor(next(grads), None) if plan is HELD else None
            else:
                edges = numbered(sum(plan.wanted))
                numbers = list(itertools.islice(items, len(plan.positions)))
                node = Node(plan, edges, [inputs[~i] if i < 0 else results[i] for i in numbers])
            node.order = order
            nodes.append(node)
            saved_numbers.append(numbers)
        unreached = AccumulateGrad(leaf)
        for node in nodes:
            if isinstance(node, Node):
                node.edges = joined(node.edges)
        assert next(items) is TARGETS
        accumulating = next(items)
        targets = joined(itertools.takewhile(lambda item: item is not NEEDED, items))
        before = [getattr(getattr(node, "grad", None), "_data", None) for node in nodes]
        found = backward_pass(
            joined(root_edges), cts, None if accumulating is None else targets, accumulating=bool(accumulating)
        )
        self.freed = [i for i, node in enumerate(nodes) if isinstance(node, Node) and node.saved is None]
        leaves = {
            i: node.grad._data
            for i, node in enumerate(nodes)
            if isinstance(node, AccumulateGrad) and node.grad is not None and node.grad._data is not before[i]
        }
        kept = {i for node in set(range(len(nodes))).difference(self.freed) for i in saved_numbers[node] if i >= 0}
        self.leaves = list(leaves)
        self.computed = sorted(kept.union(items))
        self.traced += 1
        return (
            [] if accumulating else [found[edge] for edge in targets],
            list(leaves.values()),
            [results[i] for i in self.computed],
        )
