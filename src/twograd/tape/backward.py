"""The walk back over a tape.

What flows in: edges of the graph (the roots), and their cotangents. What flows out: gradients, accumulated in the
leaves or returned. Read :func:`backward_pass`; ``graph/transform.py`` has its twin, which emits what this computes.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import jax.numpy as jnp
from jax import lax

from twograd.errors import FREED
from twograd.rules import carries_gradient
from twograd.tape import chain
from twograd.tape.apply import apply
from twograd.tape.chain import settled
from twograd.tape.node import AccumulateGrad, Edge, Node
from twograd.tape.plan import add
from twograd.tape.storage import check_versions, superseded
from twograd.tape.tensor import Tensor, make_tensor


def backward_pass(
    roots: Sequence[Edge],
    cts: Sequence[Any],
    targets: Iterable[Edge] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> dict[Edge, Any]:
    """Walks back from the ``roots`` with their cotangents, a node at a time, in falling order of their numbers.

    Cotangents are arrays; with ``create_graph`` they are Tensors, every pullback is recorded in its turn, and so the
    gradients can be differentiated again. Without ``targets`` what arrives at a leaf is added to its ``.grad``. With
    ``targets`` only nodes that lead to one of these edges are walked, and their cotangents are returned.

    Saved values are freed as the walk passes, unless ``retain_graph``; RuntimeError where they were freed before.
    """
    ct_env: dict[Node, list[Any]] = {}
    ready: list[tuple[int, Node]] = []
    needed = None if targets is None else _leading_to(roots, targets)
    found = dict.fromkeys(targets or ())
    ends = {node for node, _ in found}
    sum_of = (lambda x, y: apply(lax.add, x, y)) if create_graph else chain.add
    pull = _recorded_pull if create_graph else _pull
    given = set(map(id, cts))

    def owned(ct):
        """A cotangent that nobody else has as a gradient, or gave: it may be changed in place."""
        if ct is None:
            return None
        if id(ct) in given:
            return apply(jnp.copy, ct) if create_graph else jnp.copy(ct)
        given.add(id(ct))
        return ct

    def accumulate(edge, ct):
        node, output_nr = edge
        buffer = ct_env.get(node)
        if buffer is None:
            if needed is not None and node not in needed:
                return
            ct_env[node] = buffer = [None] * node.num_results
            heappush(ready, (node.order, node))
        previous = buffer[output_nr]
        buffer[output_nr] = ct if previous is None else sum_of(previous, ct)

    for edge, ct in zip(roots, cts, strict=True):
        accumulate(edge, ct)
    while ready:
        node = heappop(ready)[1]
        out_cts = ct_env.pop(node)
        if node.retained is not None or node in ends or type(node) is AccumulateGrad:
            out_cts = [settled(ct) for ct in out_cts]
        if node.retained is not None:
            node.retained.update((i, added(node.retained[i], ct)) for i, ct in enumerate(out_cts) if i in node.retained)
        if needed is not None and node in ends:
            found.update(((node, i), owned(ct)) for i, ct in enumerate(out_cts) if (node, i) in found)
            if not any(next_node in needed for next_node, _ in node.edges):
                continue  # what is asked for is found here, not behind: this node keeps what it saved
        elif type(node) is AccumulateGrad:
            node.grad = added(node.grad, owned(out_cts[0]) if node.grad is None else out_cts[0])
            continue
        edges = node.edges
        for i, ct in enumerate(pull(node, out_cts, retain_graph, needed)):
            if ct is not None:
                accumulate(edges[i], ct)
    return found


def _pull(node: Node, cts: list[Any], keep: bool, needed: set[Node] | None) -> Sequence[Any]:
    """The cotangents for the edges of ``node``, by value."""
    saved = _take_saved(node, keep)
    one_ct = cts[0] is not None and (len(cts) == 1 or all(ct is None for ct in cts[1:]))
    if one_ct and (needed is None or all(next_node in needed for next_node, _ in node.edges)):
        return chain.pull(node.plan, cts[0], saved)
    cts = [settled(ct) for ct in cts]
    return _aligned(node, cts, needed, lambda pullback, cts: pullback(*saved, *cts), compiled=True)


def _recorded_pull(node: Node, cts: list[Any], keep: bool, needed: set[Node] | None) -> Sequence[Any]:
    """The same, as an op on Tensors: its operands are the cotangents, and the saved values with their own history."""
    saved = _take_saved(node, keep)
    if superseded:  # what the op itself replaced: a derivative of this derivative must not take it for changed
        saved = [jnp.copy(value) if id(value) in superseded else value for value in saved]
    history: list[Any] = [*node.next_functions, *((node, i) for i in range(node.num_results))]
    tensors = [
        make_tensor(value, history[i] if history[i][0] is not None and carries_gradient(value.aval) else None)
        for value, i in zip(saved, node.plan.positions or (), strict=True)
    ]
    return _aligned(node, cts, needed, lambda pullback, cts: apply(pullback, *tensors, *cts), compiled=False)


def _take_saved(node: Node, keep: bool) -> Sequence[Any]:
    saved = node.saved
    if saved is None:
        raise RuntimeError(FREED)
    if superseded:
        check_versions(node, saved)
    if not keep and saved:  # an op that saved nothing can be walked any number of times
        node.saved = None
    return saved


def _aligned(
    node: Node, cts: list[Any], needed: set[Node] | None, call: Callable[..., Sequence[Any]], compiled: bool
) -> Sequence[Any]:
    """Calls the pullback for the cotangents that there are and the edges that are needed; None for the other edges."""
    plan = node.plan
    to_edges = [needed is None or edge[0] in needed for edge in node.edges]
    asked = iter(to_edges)
    wanted = tuple(want and next(asked) for want in plan.wanted)
    pullback = plan.pullback(tuple(ct is not None for ct in cts), wanted, compiled)
    in_cts = iter(call(pullback, [ct for ct in cts if ct is not None]))
    return [next(in_cts) if to_edge else None for to_edge in to_edges]


def _leading_to(roots: Sequence[Edge], targets: Iterable[Edge]) -> set[Node]:
    """The nodes from which one can walk to a target."""
    reached: set[Node] = set()
    stack = [node for node, _ in roots]
    while stack:
        node = stack.pop()
        if node not in reached:
            reached.add(node)
            stack.extend(next_node for next_node, _ in node.edges)
    needed = {node for node, _ in targets}
    for node in sorted(reached, key=lambda node: -node.order):  # operands before the ops that use them
        if any(next_node in needed for next_node, _ in node.edges):
            needed.add(node)
    return needed


def added(previous: Tensor | None, ct: Any) -> Tensor | None:
    """The sum of what a ``.grad`` held and a cotangent; a new Tensor, what was there is not changed."""
    if previous is None or ct is None:
        return previous if ct is None else as_tensor(ct)
    return apply(lax.add, previous, ct) if isinstance(ct, Tensor) else make_tensor(add(previous._data, ct), None)


def as_tensor(ct: Any) -> Tensor | None:
    """A cotangent as a Tensor."""
    return ct if ct is None or isinstance(ct, Tensor) else make_tensor(ct, None)
