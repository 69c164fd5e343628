"""What a recorded graph holds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.saved import Packed
from twograd.tape.tensor import Tensor


@dataclass(frozen=True)
class TapeStats:
    """The nodes that can be reached from some Tensors, and the values that they save (each array counted once)."""

    nodes: int
    leaves: int
    saved_values: int
    saved_bytes: int
    names: Counter[str]


def graph_behind(roots: Sequence[Node | AccumulateGrad]) -> list[Node | AccumulateGrad]:
    """Every node that can be reached from the ``roots``, in the order in which they were made."""
    seen: dict[Node | AccumulateGrad, None] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen[node] = None
            stack.extend(next_node for next_node, _ in node.edges)
    return sorted(seen, key=lambda node: node.sequence_nr)


def kept_arrays(saved: Any) -> list[jax.Array]:
    """The arrays that a saved value keeps alive: itself, or those that a hook packed it into."""
    if type(saved) is not Packed:
        return [saved]
    leaves = jax.tree.leaves(saved.content)
    arrays = [leaf._data if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return [array for array in arrays if isinstance(array, jax.Array)]


def stats(*tensors: Tensor) -> TapeStats:
    """Counts the graph behind ``tensors``."""
    found = graph_behind([tensor._edge[0] for tensor in tensors if tensor._edge is not None])
    ops = [node for node in found if isinstance(node, Node)]
    saved = {id(array): array for node in ops for value in node.saved or () for array in kept_arrays(value)}
    return TapeStats(
        nodes=len(ops),
        leaves=len(found) - len(ops),
        saved_values=len(saved),
        saved_bytes=sum(array.nbytes for array in saved.values()),
        names=Counter(node.name() for node in ops),
    )
