"""Making nodes and Tensors one at a time, where there is leisure to tell the thread's watchers.

What flows in: a plan and its operands. What flows out: a node and Tensors, that each special mode of the thread has
seen; see :class:`twograd.tape.modes.Watcher`. Read :func:`record_watched`, which does what the recorder in ``apply.py``
does when somebody watches.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.tree_util import tree_unflatten

from twograd.tape.modes import mode
from twograd.tape.node import Edge, Node
from twograd.tape.plan import RESULT, CompiledPlan, Plan
from twograd.tape.tensor import Tensor, make_tensor

INFERENCE = (
    "Inference tensors cannot be saved for backward. Please do not use Tensors created in inference mode in "
    "computation tracked by autograd. To work around this, you can make a clone to get a normal tensor and use it in "
    "autograd, or use `torch.no_grad()` instead of `torch.inference_mode()`."
)


def record_watched(function: Callable[..., Any], plan: CompiledPlan, operands: Sequence[Tensor]) -> Any:
    """Runs a plan on Tensors; its outputs in the structure that ``function`` returns them in."""
    values = [operand._data for operand in operands]
    results = plan.forward(*values)
    node = make_node(plan, values, results, [operand._edge for operand in operands], operands)
    outputs: list[Tensor] = []
    made = unflatten(plan, results, node, outputs)
    for watcher in mode.watchers:
        watcher.op_done(function, operands, outputs)
    return made


def make_node(
    plan: Plan,
    values: Sequence[Any],
    results: Sequence[Any],
    edges: Sequence[Edge | None],
    operands: Sequence[Tensor] | None = None,
) -> Node | None:
    """The node of one call: the edges of the operands that want a cotangent, and the values its pullback reads.

    ``operands`` are the Tensors that the ``values`` belong to; where there are none, Tensors like them are made for
    those who watch.
    """
    if plan.positions is None:
        return None
    if operands is not None and any(i < len(operands) and operands[i]._inference for i in plan.positions):
        raise RuntimeError(INFERENCE)
    all_values = [*values, *results]
    wanted = tuple(edge for edge, want in zip(edges, plan.wanted, strict=True) if want and edge is not None)
    node = Node(plan, wanted, [all_values[i] for i in plan.positions])
    if mode.watchers:
        made = operands or [make_tensor(value, edge) for value, edge in zip(values, edges, strict=True)]
        made = [*made, *(make_tensor(result, (node, i)) for i, result in enumerate(results))]
        for watcher in mode.watchers:
            watcher.node_made(node, [made[i] for i in plan.positions])
    return node


def unflatten(plan: CompiledPlan, results: Sequence[Any], node: Node | None, outputs: list[Tensor]) -> Any:
    """The results in the structure that the function returned them in; they are also added to ``outputs``."""
    leaves = []
    for leaf in plan.leaves:
        if leaf is RESULT:
            i = len(outputs)
            leaf = make_tensor(results[i], (node, i) if node is not None and plan.differentiable[i] else None)
            outputs.append(leaf)
        leaves.append(leaf)
    return tree_unflatten(plan.out_tree, leaves)
