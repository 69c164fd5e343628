"""What a recorded graph holds."""

from collections import Counter
from dataclasses import dataclass

from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.tensor import Tensor


@dataclass(frozen=True)
class TapeStats:
    """The nodes that can be reached from some Tensors, and the values that they save (each array counted once)."""

    nodes: int
    leaves: int
    saved_values: int
    saved_bytes: int
    names: Counter[str]


def stats(*tensors: Tensor) -> TapeStats:
    """Counts the graph behind ``tensors``."""
    seen: set[Node | AccumulateGrad] = set()
    stack = [tensor._edge[0] for tensor in tensors if tensor._edge is not None]
    saved = {}
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(next_node for next_node, _ in node.edges)
        if isinstance(node, Node):
            saved.update((id(value), value) for value in node.saved or ())
    ops = [node for node in seen if isinstance(node, Node)]
    return TapeStats(
        nodes=len(ops),
        leaves=len(seen) - len(ops),
        saved_values=len(saved),
        saved_bytes=sum(value.nbytes for value in saved.values()),
        names=Counter(node.name() for node in ops),
    )
