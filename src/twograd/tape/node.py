"""Nodes: what the tape records about one op.

A :class:`Node` says how to turn the cotangents of an op's results into those of its operands, and where these go. It
points only backwards, to the nodes of its operands, so a graph has no cycle and dies with its last Tensor.
"""

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twograd.tape.plan import Plan
    from twograd.tape.tensor import Tensor

Edge = tuple["Node", int]

next_order = itertools.count(0, -1).__next__


class Node:
    """One recorded op.

    ``plan`` is what all calls of this op at these shapes share: its pullback and what that reads. ``edges`` has, for
    each operand that requires a gradient, the node and output that made it. ``saved`` are the values for the pullback;
    it is None once they are freed. Nodes are numbered as they are made, so every node's number is higher than its
    operands' nodes': walking back in falling order meets a node only when all that uses it has been done. ``order`` is
    that number negated, for a heap that yields the smallest.
    """

    __slots__ = ("__weakref__", "edges", "order", "plan", "retained", "saved")

    plan: "Plan"
    edges: Sequence[Edge]
    saved: Sequence[Any] | None
    retained: "dict[int, Tensor | None] | None"
    order: int

    def __init__(self, plan: "Plan", edges: Sequence[Edge], saved: Sequence[Any]):
        self.plan = plan
        self.edges = edges
        self.saved = saved
        self.retained = None
        self.order = next_order()

    def name(self) -> str:
        """PyTorch's kind of name: ``MulBackward0``."""
        return self.plan.name

    @property
    def next_functions(self) -> tuple[tuple["Node | None", int], ...]:
        """For each operand the node and output it came from; ``(None, 0)`` for one that requires no gradient."""
        edges = iter(self.edges)
        return tuple(next(edges) if want else (None, 0) for want in self.plan.wanted)

    @property
    def sequence_nr(self) -> int:
        """How many nodes were made before this one."""
        return -self.order

    @property
    def num_results(self) -> int:
        """How many results a cotangent may arrive for."""
        return self.plan.num_results

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad:
    """The end of the graph at a leaf: adds what arrives to ``grad``, which the leaf shows as its ``.grad``."""

    __slots__ = ("__weakref__", "_leaf", "grad", "order")

    grad: "Tensor | None"
    edges = ()
    num_results = 1
    retained = None

    def __init__(self, leaf: "Tensor"):
        self._leaf = weakref.ref(leaf)
        self.grad = None
        self.order = next_order()

    @property
    def variable(self) -> "Tensor | None":
        """The leaf; None if nobody holds it any more."""
        return self._leaf()

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    @property
    def sequence_nr(self) -> int:
        """How many nodes were made before this one."""
        return -self.order

    @property
    def next_functions(self) -> tuple[()]:
        return ()

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self):#x}>"
