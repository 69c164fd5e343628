"""A recorded graph as a picture: ops going down, their nodes going up beside them, and what is saved between the two.

What flows in: Tensors, and names for some. What flows out: a :class:`~twograd.pictures.Drawing`. Read :func:`draw`,
then :class:`Drawer`.

The colours are torchviz's: leaves are blue, saved values orange, outputs green, nodes gray. Only what requires a
gradient was recorded, so only that is drawn, and those constants that were saved. An op and its node have one number.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from twograd.pictures import Drawing, Edge, Engine, Picture, printable
from twograd.pictures import Node as Box
from twograd.tape.describe import (
    SavedValue,
    callers_tensors,
    named_tensors,
    node_title,
    op_name,
    result_avals,
    saved_values,
    type_of,
)
from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.stats import graph_behind, stats
from twograd.tape.tensor import Tensor

MAX_NODES = 120
MOST_LEAVES = 40
LANES = ("forward", "saved", "backward")
MOST_LINES = 6


def draw(
    *tensors: Tensor,
    params: Any = None,
    path: str | Path | None = None,
    engine: Engine = "own",
    max_nodes: int = MAX_NODES,
) -> Drawing:
    """The graph behind ``tensors`` as a picture, forward and backward: for a notebook, or ``.save(path)``.

    Leaves are blue, saved values orange (an array that several nodes keep is one box), outputs green and the nodes of
    the backward pass gray, as in torchviz, and no Graphviz is needed. Where a Tensor was changed in place its version
    stands in its box; a saved value that was changed since, so that the walk back will fail there, has a red dashed
    border; a view is joined to the Tensor that it is a view of.

    ``params`` names Tensors: a dict, or any structure of dicts, lists and tuples. Those that it has not are called as
    the variables of the calling code are. With more than about ``max_nodes`` boxes the middle of the graph is one box.
    With a ``path`` the picture is saved there (see :meth:`twograd.pictures.Drawing.save`).

    Raises TypeError for what is no Tensor, ValueError for no Tensor at all, one without a graph, and a ``max_nodes``
    below 12.
    """
    if not tensors:
        raise ValueError("draw takes the Tensors whose graph is to be drawn, and got none")
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"argument {i} of draw is a {type(tensor).__name__}, not a Tensor")
        if tensor._edge is None:
            raise ValueError(f"argument {i} of draw does not require grad and does not have a grad_fn: nothing to draw")
    if max_nodes < 12:
        raise ValueError(f"max_nodes must be at least 12, got {max_nodes}")
    named = {**callers_tensors(), **(named_tensors(params) if params is not None else {})}
    drawing = Drawing(Drawer(tensors, named, max_nodes).picture(), engine)
    if path is not None:
        drawing.save(path)
    return drawing


class Drawer:
    """Turns a graph into boxes and edges; :meth:`key` says which box stands for a node, in either lane."""

    def __init__(self, tensors: Sequence[Tensor], named: dict[str, Tensor], max_nodes: int):
        self.tensors = tensors
        self.names = {id(tensor): name for name, tensor in named.items()}
        found = graph_behind([tensor._edge[0] for tensor in tensors if tensor._edge is not None])
        self.ops = [node for node in found if isinstance(node, Node)]
        self.leaves = [node for node in found if isinstance(node, AccumulateGrad)]
        self.number = {node: i for i, node in enumerate(self.ops)}
        self.boxes: dict[str, Box] = {}
        self.edges: dict[Edge, None] = {}
        self.asides: dict[int, str] = {}
        known = [*tensors, *named.values(), *(leaf.variable for leaf in self.leaves)]
        self.known = {id(tensor): tensor for tensor in known if tensor is not None}
        for tensor in list(self.known.values()):
            aliases = [] if tensor._alias is None else tensor._alias.storage.tensors()
            self.known.update((id(other), other) for other in aliases)
        fresh = [tensor for tensor in self.known.values() if type(tensor) is Tensor]
        self.of_edge: dict[Hashable, Tensor] = {t._edge: t for t in fresh if t._edge is not None}
        self.of_array = {id(t._data): self.names[id(t)] for t in fresh if id(t) in self.names}
        room = max(max_nodes - min(len(self.leaves), MOST_LEAVES) - len(tensors), 12) // 3
        self.middle = self._middle(room)

    def _middle(self, room: int) -> set[Node | AccumulateGrad]:
        """The ops that are drawn as one box: all but the first and the last, where there is no room for them."""
        if len(self.ops) <= room:
            return set()
        head, tail = (room + 1) // 2, room // 2
        return {*self.ops[head : len(self.ops) - tail]}

    def picture(self) -> Picture:
        drawn, many = self.leaves[:MOST_LEAVES], self.leaves[MOST_LEAVES:]
        for i, leaf in enumerate(drawn):
            self._leaf(leaf, i)
        if many:
            self._many_leaves(len(many))
        self.leaf_key = {leaf: f"leaf{i}" for i, leaf in enumerate(drawn)} | dict.fromkeys(many, "leaves")
        for node in self.ops:
            if node not in self.middle:
                self._op(node)
        if self.middle:
            self._fold()
        for node in self.ops:
            self._connect(node)
        self._saved()
        for i, tensor in enumerate(self.tensors):
            self._output(tensor, i)
        for tensor in list(self.known.values()):
            self._view(tensor)
        counts = stats(*self.tensors)
        about = (
            f"{counts.nodes} ops, {counts.leaves} leaves; {counts.saved_values} values are saved, "
            f"{counts.saved_bytes:,} bytes."
        )
        title = f"graph of {', '.join(self._name(tensor, 'output') for tensor in self.tensors)}"
        boxes = sorted(self.boxes.values(), key=lambda box: box.lane)
        lanes = {box.lane for box in boxes}
        return Picture(
            printable(title, 60), tuple(boxes), tuple(self.edges), about, (), LANES if len(lanes) > 1 else ()
        )

    # --- boxes --------------------------------------------------------------------------------------------------------

    def _name(self, tensor: Tensor, otherwise: str) -> str:
        return self.names.get(id(tensor), otherwise)

    def _about(self, tensor: Tensor) -> tuple[str, ...]:
        """Small print on a Tensor: its type, and its version if it was ever changed in place."""
        return (type_of(tensor._data.aval), *([f"version {tensor._version}"] if tensor._version else []))

    def _leaf(self, leaf: AccumulateGrad, i: int) -> None:
        variable = leaf.variable
        name = f"leaf {i}" if variable is None else self._name(variable, f"leaf {i}")
        details = ("held by nobody any more",) if variable is None else self._about(variable)
        grad = "None" if leaf.grad is None else type_of(leaf.grad._data.aval)
        self._add(Box(f"leaf{i}", (printable(name),), "leaf", details))
        about = (printable(f"{name}.grad: {grad}", 40),)
        self._add(Box(f"leaf{i}.grad", ("AccumulateGrad",), "backward", about, lane=2))

    def _many_leaves(self, count: int) -> None:
        self._add(Box("leaves", (f"… {count} more leaves",), "leaf"))
        self._add(Box("leaves.grad", (f"… {count} AccumulateGrad",), "fold backward", lane=2))

    def _op(self, node: Node) -> None:
        i = self.number[node]
        details = [type_of(aval) for aval in result_avals(node.plan)[:3]]
        tensors = [self.of_edge.get((node, output)) for output in range(node.num_results)]
        outputs = list(map(id, self.tensors))
        names = [self.names[id(t)] for t in tensors if id(t) in self.names and id(t) not in outputs]
        details += [printable(f"= {', '.join(names)}")] if names else []
        details += [f"version {t._version}" for t in tensors if t is not None and t._version]
        self._add(Box(f"op{i}", (printable(op_name(node)),), "forward", tuple(details), tag=f"#{i}"))
        kept = "freed" if node.saved is None else "" if node.saved else "keeps nothing"
        self._add(
            Box(
                f"node{i}", (printable(node_title(node)),), "backward", tuple(filter(None, [kept])), tag=f"#{i}", lane=2
            )
        )

    def _fold(self) -> None:
        ops = [node for node in self.ops if node in self.middle]
        tag = f"#{self.number[ops[0]]}…{self.number[ops[-1]]}"
        for key, kind, name, lane in (
            ("middle", "fold forward", op_name, 0),
            ("middle.back", "fold backward", node_title, 2),
        ):
            counts = Counter(map(name, ops)).most_common()
            details = [printable(f"{times} {text}") for text, times in counts[:MOST_LINES]]
            details += [f"{len(counts) - MOST_LINES} other kinds"] if len(counts) > MOST_LINES else []
            self._add(Box(key, (f"… {len(ops)} more",), kind, tuple(details), tag=tag, lane=lane))

    def _saved(self) -> None:
        """A box for what is kept, between what made it and the nodes that keep it: one for each array that is a value
        of the program, and one for all those that an op computed for its own node."""
        readers: dict[int, list[tuple[Node, SavedValue]]] = {}
        for node in self.ops:
            for saved in saved_values(node):
                readers.setdefault(id(saved.value), []).append((node, saved))
        boxes: dict[Hashable, list[tuple[str, SavedValue]]] = {}
        for key, found in readers.items():
            node, saved = found[0]
            source, targets = self._source(node, saved.position), tuple(self.key(n, back=True) for n, _ in found)
            inside = saved.position >= len(node.plan.wanted) + len(result_avals(node.plan))
            name = self.of_array.get(key) or " = ".join(dict.fromkeys(s.name for _, s in found))
            where = (source, targets) if inside or "middle.back" in targets else (source, targets, key)
            boxes.setdefault(where, []).append((name, next((s for _, s in found if s.changed), saved)))
        for i, ((source, targets, *_), values) in enumerate(boxes.items()):  # pyright: ignore[reportGeneralTypeIssues]
            self._kept(f"saved{i}", values, "middle.back" in targets)
            self._edge(source, f"saved{i}", "saved")
            for target in targets:
                self._edge(f"saved{i}", target, "saved")

    def _kept(self, key: str, values: list[tuple[str, SavedValue]], fold: bool) -> None:
        sizes = [f"{saved.type}, {saved.nbytes:,} B" for _, saved in values]
        if len(values) == 1:
            title, details = values[0][0], sizes
        else:
            title = f"{len(values)} values"
            details = [f"{name}: {size}" for (name, _), size in zip(values, sizes, strict=True)]
            if len(values) > MOST_LINES:
                size = sum(saved.nbytes for _, saved in values[MOST_LINES - 1 :])
                details[MOST_LINES - 1 :] = [f"… {len(values) - MOST_LINES + 1} more, {size:,} B"]
        changed = [saved.changed for _, saved in values if saved.changed]
        details += [f"saved at version {at}, now at {now}" for at, now in changed[:1]]
        kind = "spoiled" if changed else "fold saved" if fold and len(values) > 1 else "saved"
        self._add(Box(key, (printable(title),), kind, tuple(printable(line, 40) for line in details), lane=1))

    def _output(self, tensor: Tensor, i: int) -> None:
        node, port = tensor._edge  # pyright: ignore[reportGeneralTypeIssues] # draw has made sure that there is one
        name = self._name(tensor, "output" if len(self.tensors) == 1 else f"output {i}")
        self._add(Box(f"output{i}", (printable(name),), "output", self._about(tensor)))
        self._edge(self.key(node), f"output{i}", "value", port)
        self._edge(f"output{i}", self.key(node, back=True), "cotangent", up=True)

    def _view(self, tensor: Tensor) -> None:
        """Joins a view to its base. Either gets a box if it has none; a view that is to be computed anew when it is
        next looked at is not looked at."""
        base = None if tensor._alias is None else tensor._alias.base
        if base is None:
            return
        own = tensor._edge if type(tensor) is Tensor else None
        if type(tensor) is not Tensor:
            view = self._aside(tensor, "computed anew when read")
        elif own is not None and self._has(own[0]):
            view = self.key(own[0])
        else:
            return  # in another graph
        edge = base._edge if type(base) is Tensor else None
        shown = self.key(edge[0]) if edge is not None and self._has(edge[0]) else self._aside(base)
        self._edge(view, shown, "view", up=True)

    def _aside(self, tensor: Tensor, *details: str) -> str:
        key = self.asides.setdefault(id(tensor), f"aside{len(self.asides)}")
        known = self._about(tensor) if type(tensor) is Tensor else (f"version {tensor._version}",)
        self._add(Box(key, (printable(self._name(tensor, "a Tensor")),), "aside", (*known, *details)))
        return key

    # --- edges --------------------------------------------------------------------------------------------------------

    def _add(self, box: Box) -> None:
        self.boxes[box.key] = box

    def _edge(self, source: str | None, target: str, kind: str, port: int = 0, up: bool = False) -> None:
        if source is not None and source != target:
            self.edges[Edge(source, target, kind, min(port, 7), up)] = None

    def _has(self, node: Node | AccumulateGrad) -> bool:
        return node in self.number or node in self.leaf_key

    def key(self, node: Node | AccumulateGrad, back: bool = False) -> str:
        """The key of the node's box: that of its op, or with ``back`` that of the node itself."""
        if isinstance(node, AccumulateGrad):
            return self.leaf_key[node] + ".grad" * back
        if node in self.middle:
            return "middle" + ".back" * back
        return f"{'node' if back else 'op'}{self.number[node]}"

    def _source(self, node: Node, position: int) -> str | None:
        """What a saved value comes from; None for a constant."""
        source = node.source(position)[0]
        return None if source is None else self.key(source)

    def _connect(self, node: Node) -> None:
        for source, port in node.edges:
            self._edge(self.key(source), self.key(node), "value", port)
            self._edge(self.key(node, back=True), self.key(source, back=True), "cotangent", up=True)
