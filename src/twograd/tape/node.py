"""Nodes: what the tape records about one op.

A :class:`Node` says how to turn the cotangents of an op's results into those of its operands, and where these go. It
points only backwards, to the nodes of its operands, so a graph has no cycle and dies with its last Tensor. What few
nodes have (hooks, retained gradients, ...) is in one slot, :class:`Rare`, which is None for the others.
"""

import functools
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from twograd.errors import FREED
from twograd.tape.lines import Position, here

if TYPE_CHECKING:
    from twograd.tape.plan import Plan
    from twograd.tape.tensor import Tensor

Edge = tuple["Node", int]

next_order = itertools.count(0, -1).__next__
walks: deque[int] = deque(maxlen=4096)
"""How many nodes there were as each call of ``backward`` ended: what lies between two numbers is one iteration."""
next_hook = itertools.count().__next__
leaves_with_hooks: "weakref.WeakSet[AccumulateGrad]" = weakref.WeakSet()


class Hooks(dict[int, Any]):
    """Hooks by the number of their registration, in that order."""


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook away, as does the end of a ``with`` block."""

    def __init__(self, hooks: Hooks, hook: Any):
        self.id = next_hook()
        self._hooks = weakref.ref(hooks)
        hooks[self.id] = hook

    def remove(self) -> None:
        """Takes the hook away; nothing happens if it is gone."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.remove()


class Rare:
    """What few nodes have. Each is None where there is none.

    ``tensor_hooks`` are those of the results, as pairs ``(output_nr, hook)``; ``retained`` the gradients that results
    keep; ``prehooks`` and ``posthooks`` the node's own; ``accumulated`` those of a leaf, called when its ``.grad`` is
    new. ``metadata`` is the user's. ``packed`` says that ``saved`` has values that hooks packed; see ``saved.py``.
    ``frozen`` says that a leaf requires no gradient at present: what arrives is lost.
    """

    __slots__ = (
        "accumulated", "frozen", "metadata", "packed", "posthooks", "prehooks", "retained", "tensor_hooks",
    )  # fmt: skip

    tensor_hooks: Hooks | None
    retained: "dict[int, Tensor | None] | None"
    prehooks: Hooks | None
    posthooks: Hooks | None
    accumulated: Hooks | None
    metadata: dict[Any, Any] | None
    packed: bool
    frozen: bool

    def __init__(self) -> None:
        self.tensor_hooks = self.retained = self.prehooks = self.posthooks = self.accumulated = self.metadata = None
        self.packed = self.frozen = False


class GradientEdge(NamedTuple):
    """Where in the graph a Tensor's gradient is computed. ``backward`` and ``grad`` take it in a Tensor's place."""

    node: "Node | AccumulateGrad"
    output_nr: int


class InputMetadata(NamedTuple):
    """The type of a cotangent that a node takes."""

    shape: tuple[int, ...]
    dtype: Any
    is_tensor_subclass: bool = False


class _Common:
    """What the nodes of ops and of leaves have in common."""

    __slots__ = ()

    rare: Rare | None
    order: int
    edges: Sequence[Edge]
    own_pull: ClassVar[Callable[..., Any] | None] = None  # of a node that is not walked by its plan's pullback
    pending_type: ClassVar[Any] = None  # of a class whose nodes wait for what they saved; see deferred.py

    def name(self) -> str:
        raise NotImplementedError

    @property
    def sequence_nr(self) -> int:
        """How many nodes were made before this one."""
        return -self.order

    @property
    def requires_grad(self) -> bool:
        """True: there are nodes for nothing else."""
        return True

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dictionary for whatever is to be remembered about this node."""
        rare = rarely(self)
        if rare.metadata is None:
            rare.metadata = {}
        return rare.metadata

    def register_prehook(self, hook: Callable[[tuple[Any, ...]], Any]) -> RemovableHandle:
        """Calls ``hook(grad_outputs)`` before each walk through this node; a tuple that it returns is used instead."""
        rare = rarely(self)
        rare.prehooks = Hooks() if rare.prehooks is None else rare.prehooks
        return RemovableHandle(rare.prehooks, hook)

    def register_hook(self, hook: Callable[[tuple[Any, ...], tuple[Any, ...]], Any]) -> RemovableHandle:
        """Calls ``hook(grad_inputs, grad_outputs)`` after each walk through this node: Tensors, or None where there is
        no gradient. A tuple that it returns replaces ``grad_inputs``."""
        rare = rarely(self)
        rare.posthooks = Hooks() if rare.posthooks is None else rare.posthooks
        return RemovableHandle(rare.posthooks, hook)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object at {id(self):#x}>"


class Node(_Common):
    """One recorded op.

    ``plan`` is what all calls of this op at these shapes share: its pullback and what that reads. ``edges`` has, for
    each operand that requires a gradient, the node and output that made it. ``saved`` are the values for the pullback;
    it is None once they are freed. Nodes are numbered as they are made, so every node's number is higher than its
    operands' nodes': walking back in falling order meets a node only when all that uses it has been done. ``order`` is
    that number negated, for a heap that yields the smallest. ``rare`` is None for most; see :class:`Rare`.
    ``where`` is the user's line that made the node, for :func:`twograd.tape.lines.place`.

    A node that a user looks at gets a class named after its op; see :func:`shown`.
    """

    __slots__ = ("__weakref__", "edges", "order", "plan", "rare", "saved", "where")

    plan: "Plan"
    edges: Sequence[Edge]
    saved: Sequence[Any] | None
    rare: Rare | None
    order: int
    where: Position | None

    def __init__(self, plan: "Plan", edges: Sequence[Edge], saved: Sequence[Any]):
        self.plan = plan
        self.edges = edges
        self.saved = saved
        self.rare = None
        self.order = next_order()
        self.where = here()

    def name(self) -> str:
        """PyTorch's name: ``MulBackward0``. It is the name of the node's class too, for those who look at that."""
        return self.plan.name

    @property
    def operand_edges(self) -> tuple[tuple["Node | None", int], ...]:
        """For each operand the node and output it came from; ``(None, 0)`` for one that requires no gradient."""
        edges = iter(self.edges)
        return tuple(next(edges) if want else (None, 0) for want in self.plan.wanted)

    @property
    def next_functions(self) -> tuple[tuple["Node | None", int], ...]:
        """For each operand that could have a gradient, the node and output it came from; ``(None, 0)`` for one that
        requires none, or has no history."""
        pairs = zip(self.operand_edges, self.plan.could_want, strict=True)
        return tuple((None, 0) if type(node) is Nowhere else (shown(node), i) for (node, i), could in pairs if could)

    @property
    def num_results(self) -> int:
        """How many results a cotangent may arrive for."""
        return self.plan.num_results

    @property
    def num_outs(self) -> int:
        """How many of them are the op's own; intermediates that the pullback reads follow."""
        return self.plan.num_outs

    @property
    def _input_metadata(self) -> list[InputMetadata]:
        return [InputMetadata(aval.shape, aval.dtype) for aval in self.plan.result_avals[: self.num_outs]]

    def source(self, position: int) -> "tuple[Node | None, int]":
        """The edge of what is at ``position`` among the operands and results."""
        operands = self.operand_edges
        return operands[position] if position < len(operands) else (self, position - len(operands))

    def require_saved(self) -> Sequence[Any]:
        """What is saved; RuntimeError if it was freed."""
        if self.saved is None:
            raise RuntimeError(FREED)
        return self.saved


class AccumulateGrad(_Common):
    """The end of the graph at a leaf: adds what arrives to ``grad``, which the leaf shows as its ``.grad``."""

    __slots__ = ("__weakref__", "_leaf", "grad", "order", "rare")

    grad: "Tensor | None"
    edges = ()
    num_results = num_outs = 1

    def __init__(self, leaf: "Tensor"):
        self._leaf = weakref.ref(leaf)
        self.grad = None
        self.rare = None
        self.order = next_order()

    @property
    def variable(self) -> "Tensor | None":
        """The leaf; None if nobody holds it any more."""
        return self._leaf()

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    @property
    def next_functions(self) -> tuple[()]:
        return ()

    @property
    def _input_metadata(self) -> list[InputMetadata]:
        leaf = self.variable
        return [] if leaf is None else [InputMetadata(leaf.shape, leaf.dtype)]


class Nowhere(AccumulateGrad):
    """The end of the graph at a view made under ``no_grad`` of what requires grad. As in PyTorch the view requires grad
    too, but has no history: what arrives is lost, and no hook is called."""

    __slots__ = ()

    def __init__(self, view: "Tensor"):
        super().__init__(view)
        self.rare = Rare()  # so that the walk back looks closer; see hooks.around


def rarely(node: Any) -> Rare:
    """The Rare of a node, which gets one."""
    if node.rare is None:
        node.rare = Rare()
        if type(node) is AccumulateGrad:
            leaves_with_hooks.add(node)
    return node.rare


class ShownNode(Node):
    """A node that somebody looks at: what it saved are its attributes ``_saved_self``, ...; see ``saved.py``."""

    __slots__ = ()


def shown(node: Any) -> Any:
    """``node``, from now on of a class named after its op: ``type(y.grad_fn).__name__`` is ``"MulBackward0"``.

    Only here, for attributes of objects of many classes are found more slowly; the recorder and the walk back see one.
    """
    kind = type(node)
    if kind is Node or (kind.__base__ is Node and kind.pending_type is not None):
        named = _class_named(node.name().rpartition("::")[2])
        node.__class__ = named if kind is Node else kind.pending_type(named)
    return node


@functools.cache
def _class_named(name: str) -> type[ShownNode]:
    return type(name, (ShownNode,), {"__slots__": ()})
