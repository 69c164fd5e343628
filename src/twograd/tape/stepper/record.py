"""A walk back, recorded node by node while it happens.

What flows in: the roots of a graph, and a call that walks back from them. What flows out: a :class:`Step` for each node
that was walked. Read :class:`Step`, then :func:`recorded`.

Nothing is done twice or instead: the walk is that of ``backward.py``, and this only listens, by hooks on the nodes.
What the hooks do not tell, the queue, is what they have told before: a node waits there from its first cotangent on.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twograd.tape.describe import AppliedRule, SavedValue, applied_rules, node_title, op_name, saved_values
from twograd.tape.node import AccumulateGrad, Edge, Node
from twograd.tape.stats import graph_behind, kept_arrays
from twograd.tape.tensor import Tensor

AnyNode = Node | AccumulateGrad


@dataclass(frozen=True)
class Waiting:
    """A node in the queue: how many of its cotangents have arrived, of how many that may come.

    It is ``ready`` when all nodes that lead to it have been walked. The walk takes nodes in falling order of their
    numbers, so a node that it takes is, but where one that leads to it got no cotangent and is never walked.
    """

    node: AnyNode
    label: str
    arrived: int
    expected: int
    ready: bool


@dataclass(frozen=True)
class Outgoing:
    """A cotangent that a step hands on, along an edge: to which node, and whether one was there already, to which it is
    added. ``ct`` is None where it is zero, and nothing is handed on."""

    node: AnyNode
    label: str
    output_nr: int
    ct: Any
    added: bool


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """One node of the walk back, before and after.

    ``queue`` is what was waiting, this node first. ``incoming`` has the cotangent of each result of the op, None for
    zero; ``saved`` what the node kept; ``rules`` those that its pullback calls; ``outgoing`` what it hands on.
    ``freed`` are the values that no node of the graph keeps any more. ``grads`` are all leaves' ``.grad`` afterwards,
    by their names. ``error`` is what went wrong here, if so; nothing follows then.
    """

    index: int
    node: AnyNode
    label: str
    queue: tuple[Waiting, ...]
    incoming: tuple[Any, ...]
    saved: tuple[SavedValue, ...]
    line: str | None = None
    outgoing: tuple[Outgoing, ...] = ()
    freed: tuple[SavedValue, ...] = ()
    live_bytes: int = 0
    grads: Mapping[str, Any] = field(default_factory=dict)
    leaf: str | None = None
    error: str | None = None

    def __repr__(self) -> str:
        return f"<Step {self.index}: {self.label}>"

    @property
    def name(self) -> str:
        """The node's name, as PyTorch's is: ``MulBackward0``, ``AccumulateGrad``."""
        return node_title(self.node)

    @property
    def op(self) -> str | None:
        """The op that recorded the node; None at a leaf."""
        return op_name(self.node) if isinstance(self.node, Node) else None

    @property
    def rules(self) -> list[AppliedRule]:
        return applied_rules(self.node) if isinstance(self.node, Node) else []


class Recorder:
    """Listens to one walk, and knows the graph it is in."""

    def __init__(self, roots: Sequence[Edge], names: Mapping[int, str], line_of: Callable[[Node], str | None]):
        self.nodes = graph_behind([node for node, _ in roots])
        self.line_of = line_of
        ops = [node for node in self.nodes if isinstance(node, Node)]
        self.leaves = {
            node: names.get(id(node.variable)) or f"leaf {i}"
            for i, node in enumerate(node for node in self.nodes if isinstance(node, AccumulateGrad))
        }
        self.label: dict[AnyNode, str] = {node: f"{node_title(node)} #{i}" for i, node in enumerate(ops)}
        self.label |= {node: f"AccumulateGrad of {name}" for node, name in self.leaves.items()}
        self.left: Counter[AnyNode] = Counter(edge[0] for node in self.nodes for edge in node.edges)
        self.left.update(node for node, _ in roots)
        self.expected = dict(self.left)
        kept = [array for node in ops for value in node.saved or () for array in kept_arrays(value)]
        self.held = Counter(map(id, kept))
        self.bytes_at_first = self.live_bytes = sum({id(array): array.nbytes for array in kept}.values())
        self.arrived: Counter[AnyNode] = Counter()
        self.steps: list[Step] = []
        self.begun: Step | None = None
        for node, _ in roots:
            self._arrive(node)
            self.left[node] -= 1

    def _arrive(self, node: AnyNode) -> None:
        self.arrived[node] += 1

    def before(self, node: AnyNode, cts: Sequence[Any]) -> None:
        """The walk takes ``node`` from the queue."""
        others = sorted((other for other in self.arrived if other is not node), key=lambda other: other.order)
        queue = tuple(
            Waiting(other, self.label[other], self.arrived[other], self.expected[other], self.left[other] == 0)
            for other in (node, *others)
        )
        self.begun = Step(
            len(self.steps),
            node,
            self.label[node],
            queue,
            tuple(map(_array, cts)),
            tuple(saved_values(node)) if isinstance(node, Node) else (),
            self.line_of(node) if isinstance(node, Node) else None,
            leaf=self.leaves.get(node) if isinstance(node, AccumulateGrad) else None,
        )

    def after(self, node: AnyNode, in_cts: Sequence[Any]) -> None:
        """The walk has handed on what ``node`` made of its cotangents."""
        outgoing = []
        for (target, output_nr), ct in zip(node.edges, in_cts, strict=True):
            had = self.arrived[target] > 0
            self.left[target] -= 1
            if ct is not None:
                self._arrive(target)
            outgoing.append(Outgoing(target, self.label[target], output_nr, _array(ct), had))
        del self.arrived[node]
        self.arrived = +self.arrived
        self._finish(outgoing=tuple(outgoing))

    def failed(self, error: Exception) -> bool:
        """The walk ended with an error in the step that had begun; False if none had."""
        if self.begun is None:
            return False
        self._finish(error=f"{type(error).__name__}: {error}")
        return True

    def _finish(self, **outcome: Any) -> None:
        step, self.begun = self.begun, None
        assert step is not None
        freed = []
        if isinstance(step.node, Node) and step.node.saved is None:
            for saved in step.saved:
                arrays = kept_arrays(saved.value)
                self.held.subtract(map(id, arrays))
                gone = [array for array in arrays if not self.held[id(array)]]
                self.live_bytes -= sum(array.nbytes for array in gone)
                if len(gone) == len(arrays):
                    freed.append(saved)
        grads = {name: _array(leaf.grad) for leaf, name in self.leaves.items()}
        known = {name: getattr(step, name) for name in step.__dataclass_fields__}
        known |= {"freed": tuple(freed), "live_bytes": self.live_bytes, "grads": grads, **outcome}
        self.steps.append(Step(**known))


def _array(ct: Any) -> Any:
    return ct._data if isinstance(ct, Tensor) else ct


@contextlib.contextmanager
def listening(recorder: Recorder) -> Iterator[None]:
    """Has the nodes tell ``recorder`` what the walk does, after the hooks that they have: these may change it."""
    with contextlib.ExitStack() as handles:
        for node in recorder.nodes:

            def before(grads: Sequence[Any], node: AnyNode = node) -> None:
                recorder.before(node, grads)

            def after(in_grads: Sequence[Any], _: Any, node: AnyNode = node) -> None:
                sources = zip(in_grads, node.next_functions, strict=True)
                recorder.after(node, [ct for ct, (source, _) in sources if source is not None])

            handles.enter_context(node.register_prehook(before))
            handles.enter_context(node.register_hook(after))
        yield


def recorded(recorder: Recorder, walk: Callable[[], None]) -> None:
    """Calls ``walk`` while the recorder listens. An error within a node ends its record; any other is raised."""
    try:
        with listening(recorder):
            walk()
    except Exception as error:
        if not recorder.failed(error):
            raise
