"""Ops that are put off, and done together as one compiled call when somebody looks.

What flows in: plans and their operands, op by op. What flows out: Tensors that have no elements yet, though they know
their shape, dtype and history. Read :class:`Program`, then :class:`Pending`.

Only recording is done when an op is called; errors of shapes and dtypes come there. The first to ask for elements, or
for what a node saved, has the program run: all ops put off so far, of whose results those are kept that are still
referred to. A call costs more than the arithmetic of a small op, and a hundred ops in one call cost little more than
one. The walk back takes the ops that are put off into its own call; see ``compiled.py``.
"""

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from twograd._compat import X64
from twograd.tape.lines import here
from twograd.tape.node import Edge, Node, next_order
from twograd.tape.plan import CompiledPlan
from twograd.tape.structures import Structures
from twograd.tape.tensor import Size, Tensor
from twograd.tape.value import Value, computed

MAX_OPS = 1024  # put off at most; the time to compile grows faster than their number

saved_of = Node.__dict__["saved"].__get__  # the slot itself: what it holds is not looked at
_set_saved = Node.__dict__["saved"].__set__


class Pending(Tensor):
    """A Tensor whose elements are a Value. When they are looked at it becomes a Tensor like any other."""

    __slots__ = ()

    @property
    def _data(self) -> jax.Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        value = self._elements
        array = computed(value)
        self._data = array
        if self._alias is not None:
            self._alias.storage.put_computed(value, array)
        return array

    @_data.setter
    def _data(self, array: Any) -> None:
        self._elements = array
        self.__class__ = Tensor  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def shape(self) -> Size:
        return Size(self._elements.aval.shape)

    @property
    def dtype(self) -> Any:
        return self._elements.aval.dtype

    @property
    def ndim(self) -> int:
        return len(self._elements.aval.shape)


Pending.__name__ = Pending.__qualname__ = "Tensor"


@functools.cache
def pending_type(kind: type[Node]) -> type[Node]:
    """The class of the nodes of that kind that saved a Value: when that is looked at they become of their kind."""

    @property
    def saved(self: Node) -> Sequence[Any]:
        values = self.saved = [computed(value) for value in saved_of(self)]
        return values

    @saved.setter
    def saved(self: Node, values: Sequence[Any] | None) -> None:
        _set_saved(self, values)
        self.__class__ = kind

    members = {"__slots__": (), "saved": saved, "pending_type": staticmethod(pending_type)}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})


PendingNode = pending_type(Node)


class Program:
    """The ops that a thread has put off. It is run as a whole, and starts anew.

    If its structure was met ``meetings`` times it is one compiled call; until then its ops run one by one. What is
    noted of an op is said in :class:`Noted`.
    """

    def __init__(self, meetings: int):
        self.lock = threading.RLock()  # another thread may look at what this one made
        self.x64 = X64.value
        self._meetings = meetings
        self.done()

    def done(self) -> None:
        """The ops were run."""
        self.count = 0
        self._key: list[Any] = []
        self._inputs: list[Any] = []
        self._places: dict[int, int] = {}
        self.results: list[Value] = []

    def put_off(self, plan: CompiledPlan, operands: list[Any], edges: list[Edge]) -> tuple[list[Value], Node | None]:
        """One more op on arrays and Values: its results, and its node."""
        new = object.__new__
        results: list[Value] = []
        with self.lock:
            if self.count >= MAX_OPS:
                self.run()
            self.count += 1
            note = self._key.append
            note(plan)
            for operand in operands:
                if type(operand) is Value:
                    if operand.array is None:
                        note(operand.number)
                        continue
                    operand = operand.array  # another thread ran the program in the meantime
                place = self._places.setdefault(id(operand), len(self._inputs))
                if place == len(self._inputs):
                    self._inputs.append(operand)
                note(~place)
            number = len(self.results)
            for aval in plan.result_avals:
                value = new(Value)
                value.program, value.number, value.aval, value.array = self, number, aval, None
                number += 1
                results.append(value)
            self.results += results
        if plan.positions is None:
            return results, None
        node = new(PendingNode)
        node.plan = plan
        node.edges = edges
        _set_saved(node, plan.pick(operands + results))
        node.rare = None
        node.where = here()
        node.order = next_order()
        return results, node

    def run(self) -> None:
        """Computes all that is still referred to."""
        with self.lock:
            if self.count:
                _run(self.read(), self._meetings)
                self.done()

    def read(self) -> "Noted":
        """The ops put off so far."""
        uses = [_ALONE] * len(self.results)
        return Noted([self.count, *self._key], self._inputs.copy(), self._places.copy(), self.results, uses)


class Noted(NamedTuple):
    """Ops that were put off, to be compiled.

    ``key`` has the number of ops, and of each its plan and its operands: the number of a result, or ``~place`` among
    the ``inputs``, each of which is there once, by ``places``. ``uses`` counts the known references to each of the
    ``results``.
    """

    key: list[Any]
    inputs: list[Any]
    places: dict[int, int]
    results: list[Value]
    uses: list[int]

    def needed(self) -> list[int]:
        """The numbers of the results that somebody else refers to."""
        counted = enumerate(zip(_references(self.results), self.uses, strict=True))
        return [i for i, (count, known) in counted if count > known]


def _references(values: Sequence[Any]) -> list[int]:
    return list(map(sys.getrefcount, values))


_ALONE = _references([object()])[0]  # to what a list alone holds


def replay(items: Iterator[Any], inputs: Sequence[Any]) -> list[Any]:
    """All results of the ops whose key ``items`` begin with."""
    results: list[Any] = []
    for _ in range(next(items)):
        plan = next(items)
        operands = [next(items) for _ in plan.wanted]
        results += plan.forward(*[inputs[~i] if i < 0 else results[i] for i in operands])
    return results


structures: Structures[Callable[[Sequence[Any]], Sequence[Any]]] = Structures()


def _run(noted: Noted, meetings: int) -> None:
    needed = noted.needed()

    def compiled(key):
        return jax.jit(lambda inputs: [replay(iter(key), inputs)[i] for i in needed])

    call = structures.find((*noted.key, *needed), meetings, compiled)
    if call is not None:
        for i, array in zip(needed, call(noted.inputs), strict=True):
            noted.results[i].array = array
        return
    for value, array in zip(noted.results, replay(iter(noted.key), noted.inputs), strict=True):
        value.array = array
