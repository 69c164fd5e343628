"""Hooks: what is called as the walk back comes to a Tensor or a node.

What flows in: a node with hooks and the cotangents of its results. What flows out: those cotangents, or what hooks put
in their place. Read :func:`around`, which is the order of things at one node, PyTorch's: first the hooks of its
results' Tensors in the order of their registration, then the gradients that these retain, the hooks before the node,
the node itself, the hooks after it.

A hook belongs to the edge that a Tensor has when it is registered. So after a change in place an old hook still sees
the gradient with respect to what was there before, as in PyTorch; only retained gradients move to the new history.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax

from twograd.tape.apply import apply
from twograd.tape.chain import settled
from twograd.tape.modes import mode
from twograd.tape.node import (
    AccumulateGrad,
    Edge,
    Hooks,
    Node,
    Nowhere,
    Rare,
    RemovableHandle,
    leaves_with_hooks,
    next_order,
    rarely,
)
from twograd.tape.plan import add
from twograd.tape.storage import type_name
from twograd.tape.tensor import Tensor, make_tensor

NO_GRADIENT = "cannot register a hook on a tensor that doesn't require gradient"

FIRST = -(2**64)  # before all nodes that are walked by their number

Grads = list[Tensor | None]
Hook = Callable[..., Any]


def around(
    node: Node | AccumulateGrad,
    cts: Sequence[Any],
    visit: Callable[..., Sequence[Any]],
    keep: bool,
    needed: set[Node] | None,
    recorded: bool,
    shown: set[int],
) -> Sequence[Any]:
    """Walks one node that has hooks: ``visit(node, cts, keep, needed)`` is the walk itself, and returns the cotangents
    for its edges.

    Cotangents are arrays, or Tensors if derivatives are ``recorded``. Hooks get Tensors; what they have seen, and may
    keep, is added to ``shown``.
    """
    if type(node) is Nowhere:
        return ()
    rare = rarely(node)
    if called_at(node):
        grads = _before_node(node, _of_tensors(node, _as_grads(cts[: node.num_outs])))
        in_cts = visit(node, [*_as_cts(grads, recorded, shown), *cts[node.num_outs :]], keep, needed)
        if rare.posthooks:
            in_grads = _aligned(node, _as_grads(in_cts))
            for hook in tuple(rare.posthooks.values()):
                in_grads = _replaced(hook, hook(tuple(in_grads), tuple(grads)), in_grads)
            in_cts = _as_cts(_unaligned(node, in_grads), recorded, shown)
        return in_cts
    return visit(node, cts, keep, needed)


def called_at(node: Node | AccumulateGrad) -> bool:
    """Whether there is anything to do at a node but to walk it."""
    rare = node.rare
    return rare is not None and bool(
        rare.tensor_hooks or rare.retained or rare.prehooks or rare.posthooks or rare.accumulated
    )


def at_end(node: Node | AccumulateGrad, cts: Sequence[Any], recorded: bool, shown: set[int]) -> list[Any]:
    """The cotangents of a node that is not walked, because they are what was asked for, after its results' hooks."""
    grads = _of_tensors(node, _as_grads(cts[: node.num_outs]))
    return [*_as_cts(grads, recorded, shown), *cts[node.num_outs :]]


def eagerly(
    accumulate: Callable[..., None], roots: Sequence[Edge], needed: set[Node] | None, ends: set[Node]
) -> Callable[[Edge, Any], None]:
    """``accumulate`` where leaves have hooks: such a leaf is given its cotangents when the last of them has come, and
    is then the next to be walked. So its hooks are called as early as PyTorch calls them, which counts what uses each
    node; as walking in falling order needs no counts, they are made here only."""
    uses: dict[Any, int] = {}
    reached: set[Any] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()[0]
        if node in leaves_with_hooks:
            uses[node] = uses.get(node, 0) + 1
        elif node not in reached:
            reached.add(node)
            if needed is None or (node in needed and (node not in ends or any(n in needed for n, _ in node.edges))):
                stack.extend(node.edges)
    held: dict[Any, list[Any]] = {leaf: [] for leaf in uses}

    def hold(edge: Edge, ct: Any) -> None:
        leaf = edge[0]
        if leaf not in uses:
            accumulate(edge, ct)
            return
        held[leaf].append(ct)
        if len(held[leaf]) == uses[leaf]:
            order = FIRST - next_order()
            for one in held.pop(leaf):
                accumulate(edge, one, order)

    return hold


def _of_tensors(node: Node | AccumulateGrad, grads: Grads) -> Grads:
    """The gradients after the hooks of the node's results; and those that are retained, from now on are."""
    rare = rarely(node)
    for i, hook in tuple((rare.tensor_hooks or {}).values()):
        replaced = hook(grads[i])
        if replaced is not None:
            grads[i] = _checked(hook, replaced, grads[i])
    if rare.retained is not None:
        for i, kept in rare.retained.items():
            rare.retained[i] = added(kept, grads[i])
    return grads


def _before_node(node: Node | AccumulateGrad, grads: Grads) -> Grads:
    """The gradients after the node's own hooks."""
    for hook in tuple((rarely(node).prehooks or {}).values()):
        grads = _replaced(hook, hook(tuple(grads)), grads)
    return grads


def after_accumulation(leaf: AccumulateGrad) -> None:
    """Calls the hooks that wait for the ``.grad`` of a leaf, with the leaf."""
    rare, variable = leaf.rare, leaf.variable
    if rare is not None and rare.accumulated and variable is not None:
        for hook in tuple(rare.accumulated.values()):
            returned = hook(variable)
            if returned is not None:
                raise TypeError(
                    f"a post accumulate grad hook must return None, but returned '{type(returned).__name__}'"
                )


def added(previous: Tensor | None, ct: Any) -> Tensor | None:
    """The sum of what a ``.grad`` held and a cotangent; a new Tensor, what was there is not changed."""
    if previous is None or ct is None:
        return previous if ct is None else as_tensor(ct)
    if isinstance(ct, Tensor) and (ct._edge is not None or previous._edge is not None):
        return apply(lax.add, previous, ct)
    return make_tensor(add(previous._data, as_tensor(ct)._data), None)  # pyright: ignore[reportOptionalMemberAccess]


def as_tensor(ct: Any) -> Tensor | None:
    """A cotangent as a Tensor."""
    if ct is None or isinstance(ct, Tensor):
        return ct
    return Tensor(ct) if mode.inference else make_tensor(ct, None)


def _as_grads(cts: Sequence[Any]) -> Grads:
    return [as_tensor(settled(ct)) for ct in cts]


def _as_cts(grads: Grads, recorded: bool, shown: set[int]) -> list[Any]:
    _show(grads, shown)
    return [grad if grad is None or recorded else grad._data for grad in grads]


def _show(grads: Grads, shown: set[int]) -> None:
    for grad in grads:
        if grad is not None:
            shown.update((id(grad), id(grad._data)))


def _aligned(node: Node | AccumulateGrad, in_grads: Grads) -> Grads:
    """One gradient for each of ``next_functions``, where ``in_grads`` has one for each edge."""
    given = iter(in_grads)
    return [None if next_node is None else next(given) for next_node, _ in node.next_functions]


def _unaligned(node: Node | AccumulateGrad, in_grads: Grads) -> Grads:
    return [g for g, (next_node, _) in zip(in_grads, node.next_functions, strict=True) if next_node is not None]


# --- what a hook may return -------------------------------------------------------------------------------------------


def _name(hook: Hook) -> str:
    return getattr(hook, "__name__", "<unknown>")


def _checked(hook: Hook, grad: Any, previous: Tensor | None) -> Tensor:
    """What a hook returned for a gradient, if it can take its place."""
    if not isinstance(grad, Tensor):
        raise TypeError(f"expected Variable, but hook returned '{type(grad).__name__}'")
    if previous is None:
        raise RuntimeError("can't replace a None gradient with a non-None value")
    if grad.dtype != previous.dtype:
        was, got = (f"torch.{type_name(tensor.dtype)}Tensor" for tensor in (previous, grad))
        raise RuntimeError(f"hook '{_name(hook)}' has changed the type of value (was {was} got {got})")
    if grad.shape != previous.shape:
        raise RuntimeError(f"hook '{_name(hook)}' has changed the size of value")
    return grad


def _replaced(hook: Hook, returned: Any, grads: Grads) -> Grads:
    """The gradients after a node's hook, which returned None or a tuple of as many."""
    if returned is None:
        return grads
    if not isinstance(returned, tuple):
        raise TypeError(f"expected tuple, but hook returned '{type(returned).__name__}'")
    if len(returned) != len(grads):
        raise RuntimeError(
            f"hook '{_name(hook)}' has returned an incorrect number of values (got {len(returned)}, but expected "
            f"{len(grads)})"
        )
    return [None if new is None else _checked(hook, new, old) for new, old in zip(returned, grads, strict=True)]


# --- registering ------------------------------------------------------------------------------------------------------


def _rare(x: Tensor) -> Rare:
    if x._edge is None:
        raise RuntimeError(NO_GRADIENT)
    return rarely(x._edge[0])


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Calls ``hook(grad)`` whenever the gradient with respect to this Tensor has been computed; a Tensor that it
    returns is used instead. Raises RuntimeError for a Tensor that does not require grad."""
    rare = _rare(self)
    rare.tensor_hooks = Hooks() if rare.tensor_hooks is None else rare.tensor_hooks
    return RemovableHandle(rare.tensor_hooks, (self.output_nr, hook))


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Calls ``hook(tensor)`` whenever ``backward`` has added to the ``.grad`` of this leaf. Raises RuntimeError for a
    Tensor that is no leaf, or does not require grad."""
    rare = _rare(self)
    if not self.is_leaf:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    rare.accumulated = Hooks() if rare.accumulated is None else rare.accumulated
    return RemovableHandle(rare.accumulated, hook)


Tensor.register_hook = register_hook  # pyright: ignore[reportAttributeAccessIssue]
Tensor.register_post_accumulate_grad_hook = register_post_accumulate_grad_hook  # pyright: ignore[reportAttributeAccessIssue]
