"""A symbolic graph: a growing list of operations, and Symbols, which stand for what they will compute.

Read :class:`Graph` first. Nothing is computed here: ``build.py`` adds operations, ``plan.py`` runs them. (The traced
program of ``graph.trace`` is another thing, :class:`twograd.graph.Graph`; :func:`twograd.graph.symbolic.trace` makes
one out of this.)
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from twograd._compat import here, line_of
from twograd.graph.symbolic import errors


class Type(NamedTuple):
    """The shape, with None for a size that only a run will tell, and dtype of a Symbol."""

    shape: tuple[int | None, ...]
    dtype: Any
    weak_type: bool = False

    def __str__(self) -> str:
        return f"{self.dtype}{sizes(self.shape)}"

    @property
    def known(self) -> bool:
        """Whether all sizes are known."""
        return None not in self.shape

    def accepts(self, shape: tuple[int | None, ...]) -> bool:
        """Whether a value of this shape may stand here; what is not known may be equal."""
        pairs = zip(self.shape, shape, strict=False)
        return len(shape) == len(self.shape) and all(a == b or a is None or b is None for a, b in pairs)

    def fits(self, other: "Type") -> bool:
        """Whether a value of the type ``other`` may stand here."""
        return self.dtype == other.dtype and self.accepts(other.shape)


def sizes(shape: Iterable[int | None]) -> str:
    """A shape as TensorFlow prints it: ``[?,784]``."""
    return f"[{','.join('?' if size is None else str(size) for size in shape)}]"


def size_tuple(shape: Iterable[int | None]) -> str:
    """A shape as Python prints it: ``(?, 784)``."""
    return str(tuple(shape)).replace("None", "?")


class Operation:
    """A node: ``call`` maps the values of ``inputs`` to a pytree of results, one Symbol of ``outputs`` per leaf.

    ``call`` is None for a source (a placeholder, a variable), whose value comes from a feed or a session. An operation
    that ``writes`` a variable stores its only result there. ``control_inputs`` run before it.
    """

    __slots__ = ("call", "control_inputs", "graph", "index", "inputs", "name", "outputs", "source", "type", "writes")

    graph: "Graph"
    index: int
    name: str
    type: str
    call: Callable[..., Any] | None
    inputs: "tuple[Symbol, ...]"
    control_inputs: "tuple[Operation, ...]"
    outputs: "tuple[Symbol, ...]"
    writes: "Symbol | None"
    source: Any

    def __repr__(self) -> str:
        return f"<Operation {self.name!r} type={self.type}>"

    @property
    def line(self) -> str:
        """The user's line that added this operation."""
        return line_of(self.source) or "an unknown line"

    def run(self, feed_dict: Any = None, session: Any = None) -> None:
        """Runs this operation in ``session``, by default the default session."""
        evaluate(self, feed_dict, session)


class Gradient(Operation):
    """The pullback of ``forward``: from the inputs that it reads and the ``present`` cotangents of its results to
    cotangents of the ``wanted`` inputs."""

    __slots__ = ("forward", "present", "wanted")

    forward: Operation
    wanted: tuple[bool, ...]
    present: tuple[bool, ...]


class Symbol:
    """What an operation will compute. Two Symbols are equal if they are one (``twograd.numpy.equal`` compares values).

    Operators and methods, attached in ``methods.py``, are NumPy's; each adds an operation to the graph.
    """

    __slots__ = ("__weakref__", "index", "op", "type")
    __array_ufunc__ = None  # NumPy arrays leave mixed arithmetic to Symbol's reflected operators

    def __init__(self, op: Operation, index: int, type: Type):
        self.op, self.index, self.type = op, index, type

    @property
    def name(self) -> str:
        """The operation's name, and which of its results this is: ``add_1:0``."""
        return f"{self.op.name}:{self.index}"

    @property
    def graph(self) -> "Graph":
        """The graph that holds the operation."""
        return self.op.graph

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape, with None for a size that only a run will tell."""
        return self.type.shape

    @property
    def dtype(self) -> Any:
        """The dtype."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.type.shape)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} shape={size_tuple(self.shape)} dtype={self.dtype}>"

    def eval(self, feed_dict: Any = None, session: Any = None) -> jax.Array:
        """The value in ``session``, by default the default session."""
        return evaluate(self, feed_dict, session)

    # --- what a Symbol is not -----------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        raise TypeError(errors.NOT_A_BOOL.format(symbol=self))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(errors.NOT_ITERABLE.format(symbol=self))

    def __contains__(self, item: Any) -> bool:
        raise TypeError(errors.NOT_ITERABLE.format(symbol=self))

    def __len__(self) -> int:
        raise TypeError(errors.NO_LEN.format(symbol=self))

    def __float__(self) -> float:
        raise TypeError(errors.NOT_A_NUMBER.format(symbol=self, kind="float"))

    def __int__(self) -> int:
        raise TypeError(errors.NOT_A_NUMBER.format(symbol=self, kind="int"))

    def __index__(self) -> int:
        raise TypeError(errors.NOT_A_NUMBER.format(symbol=self, kind="integer"))

    def __complex__(self) -> complex:
        raise TypeError(errors.NOT_A_NUMBER.format(symbol=self, kind="complex number"))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(errors.NOT_A_NUMBER.format(symbol=self, kind="array"))


class Graph:
    """A container of operations, which only grows: ``with graph.as_default():`` makes it the one that is built in.

    A body of a ``cond``, ``while_loop`` or ``scan`` is a graph with an ``outer`` one. A Symbol from outside that is
    used in it is captured: inside, a source stands for it, and the node that holds the body takes it as an operand.
    """

    def __init__(self, outer: "Graph | None" = None, name: str = "graph"):
        self.name, self.outer = name, outer
        self.operations: list[Operation] = []
        self.captures: dict[Symbol, Symbol] = {}
        self.results: tuple[Symbol, ...] = ()  # of a body
        self.finalized = False
        self._named: dict[str, Operation] = {}
        self._used: dict[str, int] = {}
        self._scope = ""
        self._controls: tuple[Operation, ...] = ()

    def __repr__(self) -> str:
        return f"<symbolic.Graph {self.name}: {len(self.operations)} operations>"

    def add(
        self,
        type: str,
        call: Callable[..., Any] | None,
        inputs: Iterable[Symbol],
        types: Iterable[Type],
        name: str | None = None,
        kind: Callable[[], Operation] = Operation,
        symbol: Callable[[Operation, int, Type], Symbol] = Symbol,
        writes: Symbol | None = None,
    ) -> Operation:
        """Appends an operation. Raises RuntimeError if the graph is finalized."""
        if self.finalized:
            hint = errors.LEAKED if self.outer is not None else errors.GROWING
            raise RuntimeError(errors.FINALIZED.format(name=name or type, hint=hint))
        operands = tuple(self.inside(x) for x in inputs)  # first, for a captured one is an operation, too
        op = kind()
        op.graph, op.index, op.name = self, len(self.operations), self.unique_name(name or type)
        op.type, op.call, op.writes, op.source = type, call, writes, here()
        op.inputs, op.control_inputs = operands, self._controls
        op.outputs = tuple(symbol(op, i, of) for i, of in enumerate(types))
        self.operations.append(op)
        self._named[op.name] = op
        return op

    def inside(self, symbol: Symbol) -> Symbol:
        """``symbol`` as a Symbol of this graph: captured where it belongs to an outer one."""
        if symbol.graph is self:
            return symbol
        if symbol not in self.captures:
            assert self.outer is not None
            self.outer.inside(symbol)  # a body in a body captures through both
            (self.captures[symbol],) = self.add("captured", None, (), [symbol.type], symbol.op.name).outputs
        return self.captures[symbol]

    def encloses(self, graph: "Graph") -> bool:
        """Whether ``graph`` is this one, or a body inside of it."""
        inner: Graph | None = graph
        while inner is not None and inner is not self:
            inner = inner.outer
        return inner is not None

    def finalize(self) -> None:
        """Makes the graph read-only: adding to it raises RuntimeError from now on."""
        self.finalized = True

    # --- names --------------------------------------------------------------------------------------------------------

    def unique_name(self, name: str) -> str:
        """``name`` within the present scope, with a number where it is taken: ``add``, ``add_1``."""
        base = unique = f"{self._scope}{name}"
        while unique in self._used:
            unique = f"{base}_{self._used[base]}"
            self._used[base] += 1
        self._used[unique] = 1
        return unique

    @contextlib.contextmanager
    def name_scope(self, name: str) -> Iterator[str]:
        """Operations added inside are named ``name/...``; a second scope of the same name is ``name_1``."""
        before = self._scope
        self._scope = f"{self.unique_name(name)}/"
        try:
            yield self._scope
        finally:
            self._scope = before

    def __getitem__(self, name: str) -> Any:
        """The operation ``add``, or the Symbol ``add:0``. KeyError for one that does not exist."""
        try:
            return self.get_tensor_by_name(name) if ":" in name else self.get_operation_by_name(name)
        except ValueError as error:
            raise KeyError(str(error)) from None

    def get_operation_by_name(self, name: str) -> Operation:
        """The operation ``add``. KeyError for one that does not exist, ValueError for the name of a Symbol."""
        if not isinstance(name, str):
            raise TypeError(f"Operation names are strings, not {type(name).__name__}.")
        if ":" in name:
            raise ValueError(f"Name {name!r} appears to refer to a Tensor, not a Operation.")
        if name not in self._named:
            raise KeyError(f"The name {name!r} refers to an Operation not in the graph.")
        return self._named[name]

    def get_tensor_by_name(self, name: str) -> Symbol:
        """The Symbol ``add:0``. KeyError for one that does not exist, ValueError for what is no name of a Symbol."""
        if not isinstance(name, str):
            raise TypeError(f"Tensor names are strings, not {type(name).__name__}.")
        op, colon, index = name.partition(":")
        form = 'Tensor names must be of the form "<op_name>:<output_index>".'
        if not colon:
            what = "refers to an Operation" if name in self._named else "looks like an (invalid) Operation name"
            raise ValueError(f"The name {name!r} {what}, not a Tensor. {form}")
        if not index.isdecimal():
            raise ValueError(f"The name {name!r} looks a like a Tensor name, but is not a valid one. {form}")
        missing = f"The name {name!r} refers to a Tensor which does not exist. The operation, {op!r}, "
        if op not in self._named:
            raise KeyError(f"{missing}does not exist in the graph.")
        outputs = self._named[op].outputs
        if int(index) >= len(outputs):
            raise KeyError(f"{missing}exists but only has {len(outputs)} outputs.")
        return outputs[int(index)]

    # --- what operations are added to, and after ----------------------------------------------------------------------

    @contextlib.contextmanager
    def control_dependencies(self, controls: "Iterable[Operation | Symbol] | None") -> Iterator[None]:
        """Operations added inside run after all ``controls``; None forgets those of the contexts around it."""
        before = self._controls
        if controls is None:
            self._controls = ()
        else:
            ops = [control.op if isinstance(control, Symbol) else control for control in controls]
            for op in ops:
                if not isinstance(op, Operation) or op.graph is not self:
                    raise ValueError(f"control_dependencies: {op!r} is no operation of {self!r}")
            self._controls = (*before, *(op for op in ops if op not in before))
        try:
            yield
        finally:
            self._controls = before

    @contextlib.contextmanager
    def as_default(self) -> Iterator["Graph"]:
        """Makes this the graph that :func:`get_default_graph` returns in this thread."""
        token = _default.set(self)
        try:
            yield self
        finally:
            _default.reset(token)

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def variables(self) -> tuple[Symbol, ...]:
        """All variables, in the order in which they were made."""
        return tuple(op.outputs[0] for op in self.operations if op.type == "variable")

    def get_operations(self) -> list[Operation]:
        """All operations, in the order in which they were added."""
        return list(self.operations)


_root = Graph(name="default")
_default: ContextVar[Graph] = ContextVar("default graph")
_session: ContextVar[Any] = ContextVar("default session", default=None)


def get_default_graph() -> Graph:
    """The graph that placeholders, variables and constants are added to."""
    return _default.get(_root)


def reset_default_graph() -> None:
    """Starts a new graph outside of all ``as_default`` contexts."""
    global _root  # noqa: PLW0603 (there is one such graph, as in TensorFlow)
    _root = Graph(name="default")


def get_default_session() -> Any:
    """The innermost session whose ``with`` block is open in this thread, or None."""
    return _session.get()


def name_scope(name: str) -> Any:
    """:meth:`Graph.name_scope` of the default graph."""
    return get_default_graph().name_scope(name)


def control_dependencies(controls: Iterable[Operation | Symbol] | None) -> Any:
    """:meth:`Graph.control_dependencies` of the default graph."""
    return get_default_graph().control_dependencies(controls)


def home_of(symbols: Iterable[Symbol]) -> Graph:
    """The graph that an operation on ``symbols`` belongs to: the innermost. ValueError where they have none in common.

    It is the default graph if that is theirs, or a body inside of theirs; else the one of theirs that is inside all.
    """
    symbols = tuple(symbols)
    for graph in (get_default_graph(), *(symbol.graph for symbol in symbols)):
        if all(symbol.graph.encloses(graph) for symbol in symbols):
            return graph
    one = symbols[0].graph
    other = next(s for s in symbols if not one.encloses(s.graph) and not s.graph.encloses(one))
    raise ValueError(errors.OTHER_GRAPH.format(other=other, symbol=symbols[0]))


def evaluate(element: Symbol | Operation, feed_dict: Any, session: Any) -> Any:
    """``element`` in ``session``, or in the default session."""
    session = get_default_session() if session is None else session
    if session is None:
        raise ValueError(errors.NO_SESSION)
    if element.graph is not session.graph:
        raise ValueError(errors.OTHER_SESSION)
    return session.run(element, feed_dict)
