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
from twograd.tape.tensor import Tensor

MAX_OPS = 1024  # put off at most; the time to compile grows faster than their number

elements_of = Tensor.__dict__["_data"].__get__  # the slots themselves: what they hold is not looked at
_set_elements = Tensor.__dict__["_data"].__set__
saved_of = Node.__dict__["saved"].__get__
_set_saved = Node.__dict__["saved"].__set__


class Value:
    """An array that may not have been computed yet; ``number`` is its place among its program's results."""

    __slots__ = ("array", "aval", "number", "program")

    program: "Program"
    number: int
    aval: Any
    array: Any

    def computed(self) -> Any:
        """The array."""
        if self.array is None:
            self.program.run()
            if self.array is None:
                raise RuntimeError("another thread has walked back over this value, and freed it")
        return self.array


class Pending(Tensor):
    """A Tensor whose elements are a Value. When they are looked at it becomes a Tensor like any other."""

    __slots__ = ()

    @property
    def _data(self) -> jax.Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        value = elements_of(self)
        array = value.computed() if type(value) is Value else value
        self._data = array
        alias = self._alias
        if alias is not None and alias.path is None:  # it was changed in place
            alias.storage.array = array
            alias.storage.add(self, alias.counter)
        return array

    @_data.setter
    def _data(self, array: Any) -> None:
        _set_elements(self, array)
        self.__class__ = Tensor  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def shape(self) -> tuple[int, ...]:
        return elements_of(self).aval.shape

    @property
    def dtype(self) -> Any:
        return elements_of(self).aval.dtype

    @property
    def ndim(self) -> int:
        return len(elements_of(self).aval.shape)


Pending.__name__ = Pending.__qualname__ = "Tensor"


def pending(value: Value, edge: Edge | None) -> Tensor:
    """A Tensor whose elements are ``value``."""
    tensor = object.__new__(Pending)
    _set_elements(tensor, value)
    tensor._edge = edge
    tensor._alias = None
    return tensor


def take_over(tensor: Tensor, result: Tensor) -> None:
    """Puts the Value of ``result`` in the place of the elements of ``tensor``, whose storage nobody shares."""
    _set_elements(tensor, elements_of(result))
    tensor.__class__ = Pending


@functools.cache
def pending_type(kind: type[Node]) -> type[Node]:
    """The class of the nodes of that kind that saved a Value: when that is looked at they become of their kind."""

    @property
    def saved(self: Node) -> Sequence[Any]:
        computed = [value.computed() if type(value) is Value else value for value in saved_of(self)]
        self.saved = computed
        return computed

    @saved.setter
    def saved(self: Node, values: Sequence[Any] | None) -> None:
        _set_saved(self, values)
        self.__class__ = kind

    members = {"__slots__": (), "saved": saved, "pending_type": staticmethod(pending_type)}
    return type(kind.__name__, (kind,), {**members, "__module__": kind.__module__})


PendingNode = pending_type(Node)


class Program:
    """The ops that a thread has put off. It is run as a whole, and starts anew.

    If its structure was met ``meetings`` times it is one compiled call; until then its ops run one by one.
    """

    def __init__(self, meetings: int):
        self.ops: list[tuple[CompiledPlan, list[Any], list[Value]]] = []  # with operands (arrays or Values) and results
        self.lock = threading.RLock()  # another thread may look at what this one made
        self.x64 = X64.value
        self._meetings = meetings
        self._count = 0

    def put_off(self, plan: CompiledPlan, operands: list[Any], edges: list[Edge]) -> tuple[list[Value], Node | None]:
        """One more op: its results, and its node."""
        new = object.__new__
        results: list[Value] = []
        with self.lock:
            if len(self.ops) >= MAX_OPS:
                self.run()
            for aval in plan.result_avals:
                value = new(Value)
                value.program, value.number, value.aval, value.array = self, self._count, aval, None
                self._count += 1
                results.append(value)
            self.ops.append((plan, operands, results))
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
            if self.ops:
                _run(self.read(), self.ops, self._meetings)
                self.done()

    def done(self) -> None:
        """The ops were run."""
        self.ops, self._count = [], 0

    def read(self) -> "Noted":
        """The ops put off so far."""
        noted = Noted([len(self.ops)], [], {}, [], [])
        key, inputs, places, results, uses = noted
        for plan, operands, op_results in self.ops:
            key.append(plan)
            for operand in operands:
                if type(operand) is Value:
                    if operand.array is None:
                        uses[operand.number] += 1
                        key.append(operand.number)
                        continue
                    operand = operand.array  # another thread ran the program in the meantime
                place = places.setdefault(id(operand), len(inputs))
                if place == len(inputs):
                    inputs.append(operand)
                key.append(~place)
            results += op_results
            uses += [_ALONE + 1] * len(op_results)  # by the op, and by this list
        return noted


class Noted(NamedTuple):
    """Ops that were put off, to be compiled.

    ``key`` says their plans and how they are joined: an operand is the number of a result, or ``~place`` among the
    ``inputs``, each of which is there once, by ``places``. ``uses`` counts the known references to each of the
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


def _run(noted: Noted, ops: Sequence[Any], meetings: int) -> None:
    needed = noted.needed()

    def compiled(key):
        return jax.jit(lambda inputs: [replay(iter(key), inputs)[i] for i in needed])

    call = structures.find((*noted.key, *needed), meetings, compiled)
    if call is not None:
        for i, array in zip(needed, call(noted.inputs), strict=True):
            noted.results[i].array = array
        return
    for plan, operands, results in ops:
        arrays = plan.forward(*[operand.array if type(operand) is Value else operand for operand in operands])
        for value, array in zip(results, arrays, strict=True):
            value.array = array
