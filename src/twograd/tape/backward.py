"""The walk back over a tape.

What flows in: edges of the graph (the roots), and their cotangents. What flows out: gradients, accumulated in the
leaves or returned. Read :func:`backward_pass`; ``graph/transform.py`` has its twin, which emits what this computes.
What happens at a node with hooks is in ``hooks.py``.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any

import jax.numpy as jnp
from jax import lax

from twograd.errors import FREED
from twograd.rules import carries_gradient
from twograd.tape import anomaly, chain, hooks
from twograd.tape.apply import apply
from twograd.tape.chain import settled
from twograd.tape.hooks import added, as_tensor
from twograd.tape.modes import Walk, mode
from twograd.tape.node import AccumulateGrad, Edge, Node, leaves_with_hooks
from twograd.tape.saved import unpacked
from twograd.tape.storage import check_versions, superseded
from twograd.tape.tensor import Tensor, make_tensor
from twograd.tape.views import write

ALONE = 2, 2  # the counts of references to what an attribute alone holds, as sys.getrefcount sees them

_accumulating = threading.RLock()  # walks of several threads may come to the same leaf


def backward_pass(
    roots: Sequence[Edge],
    cts: Sequence[Any],
    targets: Iterable[Edge] | None = None,
    retain_graph: bool = False,
    on_tensors: bool = False,
    accumulating: bool = False,
    batched: bool = False,
) -> dict[Edge, Any]:
    """Walks back from the ``roots`` with their cotangents, a node at a time, in falling order of their numbers.

    Cotangents are arrays; ``on_tensors`` they are Tensors, and every pullback is an op on these, recorded if the thread
    records: so the gradients can be differentiated again. Without ``targets`` what arrives at a leaf is added to its
    ``.grad``. With ``targets`` only nodes that lead to one of these edges are walked, and their cotangents are
    returned; or, if ``accumulating``, the targets' nodes are walked too, so that leaves among them get their ``.grad``.
    ``batched`` cotangents, for which there are targets, have a leading axis, and all this is done for each entry of it.

    Saved values are freed as the walk passes, unless ``retain_graph``; RuntimeError where they were freed before.
    """
    ct_env: dict[Node, list[Any]] = {}
    ready: list[tuple[int, Any]] = []
    needed = None if targets is None else _leading_to(roots, targets)
    found: dict[Edge, Any] = {} if accumulating else dict.fromkeys(targets or ())
    ends = {node for node, _ in found}
    sum_of = (lambda x, y: apply(lax.add, x, y)) if on_tensors else chain.add
    pull: Callable[..., Sequence[Any]] = partial(_recorded_pull if on_tensors else _pull, batched=batched)
    own_pull = partial(_own_pull, on_tensors)
    if mode.anomaly is not None:
        pull, own_pull = anomaly.checked(pull), anomaly.checked(own_pull)
    given = set(map(id, cts))

    def owned(ct):
        """A cotangent that nobody else has as a gradient, or gave: it may be changed in place."""
        if ct is None:
            return None
        if id(ct) in given:
            return apply(jnp.copy, ct) if on_tensors else jnp.copy(ct)
        given.add(id(ct))
        return ct

    def add_up(edge, ct, order=None):
        node, output_nr = edge
        buffer = ct_env.get(node)
        if buffer is None:
            if needed is not None and node not in needed:
                return
            ct_env[node] = buffer = [None] * node.num_results
            heappush(ready, (node.order if order is None else order, node))
        previous = buffer[output_nr]
        if previous is None:
            buffer[output_nr] = ct
        elif ct is not None:
            buffer[output_nr] = sum_of(previous, ct)

    def accumulate_grad(leaf, cts, *_):
        """The walk of a leaf's node: to ``.grad``, where it ends."""
        ct = settled(cts[0])
        if ct is not None and not (leaf.rare is not None and leaf.rare.frozen):
            with _accumulating:
                put_grad(leaf, owned(ct) if leaf.grad is None else added(leaf.grad, ct))
        hooks.after_accumulation(leaf)
        return ()

    def one_entry(node, cts):
        """The walk of a node with hooks, or of a user's own, for one entry of a batch."""
        visit = partial(pull, batched=False) if node.own_pull is None else own_pull
        return hooks.around(node, cts, visit, True, needed, on_tensors, given)

    accumulate = hooks.eagerly(add_up, roots, needed, ends) if leaves_with_hooks else add_up
    for edge, ct in zip(roots, cts, strict=True):
        accumulate(edge, ct)
    mode.walk, outer = Walk(roots, needed), mode.walk
    try:
        while ready:
            node = heappop(ready)[1]
            out_cts = ct_env.pop(node)
            if ends and node in ends:
                out_cts = [settled(ct) for ct in out_cts]
                last = not any(next_node in (needed or ()) for next_node, _ in node.edges)
                if last and node.rare is not None:
                    end = partial(hooks.at_end, node, recorded=on_tensors, shown=given)
                    out_cts = list(_row_by_row(end, out_cts) if batched else end(out_cts))
                found.update(((node, i), owned(ct)) for i, ct in enumerate(out_cts) if (node, i) in found)
                if last:
                    continue  # what is asked for is found here, not behind: this node keeps what it saved
            visit: Any = accumulate_grad if type(node) is AccumulateGrad else pull
            if node.rare is None:
                in_cts = visit(node, out_cts, retain_graph, needed)
            elif batched and (node.own_pull is not None or hooks.called_at(node)):
                in_cts = _row_by_row(partial(one_entry, node), out_cts)
            else:
                visit = visit if node.own_pull is None else own_pull
                in_cts = hooks.around(node, out_cts, visit, retain_graph, needed, on_tensors, given)
            edges = node.edges
            for i, ct in enumerate(in_cts):
                accumulate(edges[i], ct)
    finally:
        mode.walk = outer
    return found


def is_alone(leaf: AccumulateGrad) -> bool:
    """Whether nobody but the leaf, which has one, holds its ``.grad``, or shows or saved the elements of that."""
    counts = sys.getrefcount(leaf.grad), sys.getrefcount(leaf.grad._data)  # pyright: ignore
    return counts == ALONE and leaf.grad._alias is None  # pyright: ignore


def put_grad(leaf: AccumulateGrad, total: Any) -> None:
    """Puts the sum of gradients in the ``.grad`` of a leaf: in place, as in PyTorch, where somebody else holds what is
    there, and nothing is recorded."""
    if leaf.grad is not None and not mode.enabled and not is_alone(leaf):
        write(leaf.grad, as_tensor(total), "backward()")  # pyright: ignore[reportArgumentType]
    else:
        leaf.grad = as_tensor(total)


def _pull(node: Node, cts: list[Any], keep: bool, needed: set[Node] | None, batched: bool) -> Sequence[Any]:
    """The cotangents for the edges of ``node``, by value."""
    saved = _take_saved(node, keep)
    one_ct = cts[0] is not None and (len(cts) == 1 or all(ct is None for ct in cts[1:]))
    if one_ct and not batched and (needed is None or all(next_node in needed for next_node, _ in node.edges)):
        return chain.pull(node.plan, cts[0], saved)
    cts = [settled(ct) for ct in cts]
    return _aligned(node, cts, needed, lambda pullback, cts: pullback(*saved, *cts), True, batched)


def _recorded_pull(node: Node, cts: list[Any], keep: bool, needed: set[Node] | None, batched: bool) -> Sequence[Any]:
    """The same, as an op on Tensors: its operands are the cotangents, and the saved values with their own history."""
    saved = _take_saved(node, keep)
    if superseded:  # what the op itself replaced: a derivative of this derivative must not take it for changed
        saved = [jnp.copy(value) if id(value) in superseded else value for value in saved]
    sources = map(node.source, node.plan.positions or ())
    tensors = [
        make_tensor(value, edge if edge[0] is not None and carries_gradient(value.aval) else None)  # pyright: ignore[reportArgumentType]
        for value, edge in zip(saved, sources, strict=True)
    ]
    for watcher in mode.watchers:
        for i, tensor in enumerate(tensors):
            watcher.saved_read(node, i, tensor)
    return _aligned(node, cts, needed, lambda pullback, cts: apply(pullback, *tensors, *cts), False, batched)


def _own_pull(on_tensors: bool, node: Any, cts: list[Any], keep: bool, needed: set[Node] | None) -> Sequence[Any]:
    """The cotangents from a derivative of the user's own; see ``autograd/function.py``."""
    return node.own_pull(cts, keep, on_tensors)


def _take_saved(node: Node, keep: bool) -> Sequence[Any]:
    saved = node.saved
    if saved is None:
        raise RuntimeError(FREED)
    if superseded:
        check_versions(node, saved)
    if node.rare is not None:
        saved = unpacked(node, saved)
    if not keep and saved:  # an op that saved nothing can be walked any number of times
        node.saved = None
    return saved


def _row_by_row(call: Callable[..., Sequence[Any]], cts: Sequence[Any]) -> Sequence[Any]:
    """What ``call`` returns for each entry of the cotangents' leading axis, stacked: hooks get one entry at a time."""
    cts = [settled(ct) for ct in cts]
    size = next(ct.shape[0] for ct in cts if ct is not None)
    if size == 0:
        return call(cts)
    rows = [[settled(ct) for ct in call([None if ct is None else ct[i] for ct in cts])] for i in range(size)]
    stack = partial(apply, _stack) if any(isinstance(ct, Tensor) for ct in cts) else _stack
    return [None if column[0] is None else stack(list(column)) for column in zip(*rows, strict=True)]


def _stack(rows: list[Any]) -> Any:
    return jnp.stack(rows)


def _aligned(
    node: Node,
    cts: list[Any],
    needed: set[Node] | None,
    call: Callable[..., Sequence[Any]],
    compiled: bool,
    batched: bool,
) -> Sequence[Any]:
    """Calls the pullback for the cotangents that there are and the edges that are needed; None for the other edges."""
    plan = node.plan
    given = [ct for ct in cts if ct is not None]
    to_edges = [bool(given) and (needed is None or edge[0] in needed) for edge in node.edges]
    if not any(to_edges):
        return [None] * len(to_edges)
    asked = iter(to_edges)
    wanted = tuple(want and next(asked) for want in plan.wanted)
    pullback = plan.pullback(tuple(ct is not None for ct in cts), wanted, compiled, batched)
    in_cts = iter(call(pullback, given))
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
