"""Sessions: where a graph is run, and where its variables have their values.

Read :meth:`Session.run`. For each set of fetches and feeds there is one :class:`twograd.graph.symbolic.plan.Plan`,
compiled per signature; the rest is looking it up, and checking what is fed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_structure, tree_unflatten

from twograd.graph.graph import Graph as TracedGraph
from twograd.graph.graph import trace_leaves
from twograd.graph.symbolic import errors
from twograd.graph.symbolic.build import converts
from twograd.graph.symbolic.container import Graph, Operation, Symbol, _session, get_default_graph, size_tuple, sizes
from twograd.graph.symbolic.plan import Plan, flattened
from twograd.graph.symbolic.variables import Cell, Variable

FETCH = "Fetch argument {} cannot be interpreted as a Tensor."
FEED = "Cannot interpret feed_dict key as Tensor: {}"
Feeds = Mapping[Any, Any] | None


class Session:
    """Runs operations of one graph, by default the default graph. Each session has values of the variables of its own.

    As a context it is the default session, and its graph the default graph. ``config``, TensorFlow's settings of
    devices and threads, is taken, and says nothing here: these are JAX's.
    """

    def __init__(self, graph: Graph | None = None, config: Any = None):
        if not isinstance(graph, Graph | None):
            raise TypeError(f"graph must be a symbolic.Graph, but got {type(graph).__name__}: {graph!r}")
        self.graph = get_default_graph() if graph is None else graph
        self._cells: dict[Symbol, Cell] = {}
        self._runs: dict[Any, Run] = {}
        self._entered: list[Any] = []
        self._closed = False

    def run(self, fetches: Any, feed_dict: Feeds = None) -> Any:
        """The values of ``fetches``: a Symbol, an operation (None is returned for it), or a structure of these.

        Only what the fetches need is computed. ``feed_dict`` maps Symbols to values: placeholders, or any others, which
        are then not computed. All reading of variables comes before writing, where no control dependency says
        otherwise; a fetched variable is read, too. Either all variables that are written get their new value, or none.

        Raises TypeError or ValueError for what cannot be fetched or fed; MissingFeed; UninitializedVariable; and what
        the operations raise on the shapes fed, with a note of the operation and its line.
        """
        if type(feed_dict) is not dict:
            check_feeds(feed_dict)
        key = _key(fetches)
        run = self._runs.get((key, *feed_dict) if feed_dict else key)
        if run is None:
            run = self._new_run(key, fetches, feed_dict or {})
        values = run(feed_dict.values() if feed_dict else ())
        return values[0] if run.single else tree_unflatten(run.tree, values)

    def plan(self, fetches: Any, feeds: Sequence[Any] = ()) -> Plan:
        """What :meth:`run` runs for these: the operations in order, what they read and write, and what was traced."""
        key = _key(fetches)
        run = self._runs.get((key, *feeds) if feeds else key)
        return (self._new_run(key, fetches, dict.fromkeys(feeds)) if run is None else run).plan

    def _new_run(self, key: Any, fetches: Any, feed_dict: Mapping[Any, Any]) -> "Run":
        if self._closed:
            raise RuntimeError("Attempted to use a closed Session.")
        if not self.graph.operations:
            raise RuntimeError("The Session graph is empty. Add operations to the graph before calling run().")
        leaves, tree = flattened(fetches)
        elements = [element_of(self.graph, leaf, FETCH) for leaf in leaves]
        feeds = [element_of(self.graph, feed, FEED) for feed in feed_dict]
        for feed in feeds:
            if not isinstance(feed, Symbol):
                results = ", ".join(repr(out.name) for out in feed.outputs)
                raise TypeError(FEED.format(feed) + f" (It is an operation: feed one of its results, {results}.)")
        run = Run(Plan(self.graph, elements, feeds), self.cell_of, tree, isinstance(fetches, (Symbol, Operation, str)))
        self._runs[(key, *feed_dict) if feed_dict else key] = run
        return run

    def cell_of(self, variable: Symbol) -> Cell:
        """Where this session keeps the value of ``variable``."""
        assert isinstance(variable, Variable)
        return variable.cell or self._cells.setdefault(variable, Cell())

    def close(self) -> None:
        """Forgets values and compiled programs; the session cannot be used any more."""
        self._cells.clear()
        self._runs.clear()
        self._closed = True

    def __enter__(self) -> "Session":
        default = self.graph.as_default()
        default.__enter__()
        self._entered.append((default, _session.set(self)))
        return self

    def __exit__(self, *exc_info: Any) -> None:
        default, token = self._entered.pop()
        _session.reset(token)
        default.__exit__(*exc_info)

    def as_default(self) -> "Session":
        """This session, as a context in which ``Symbol.eval`` and ``Operation.run`` use it."""
        return self


def check_feeds(feed_dict: Any) -> None:
    """Raises TypeError unless ``feed_dict`` is a mapping, or None."""
    if feed_dict is not None and not isinstance(feed_dict, Mapping):
        raise TypeError(f"feed_dict must map Symbols to values, got {type(feed_dict).__name__}: {feed_dict!r}")


def _key(fetches: Any) -> Any:
    """What two structures of the same fetches have in common; quick for one fetch and for a flat list."""
    if isinstance(fetches, (Symbol, Operation)):
        return fetches
    if type(fetches) is list and all(isinstance(fetch, (Symbol, Operation)) for fetch in fetches):
        return (list, *fetches)
    leaves, tree = flattened(fetches)
    return (tree, *leaves)


class Run:
    """A plan, the cells that it reads and writes, and how its results are arranged."""

    __slots__ = ("fitting", "num_fetched", "plan", "positions", "reads", "single", "tree", "writes")

    def __init__(self, plan: Plan, cell_of: Any, tree: Any, single: bool):
        self.plan, self.tree, self.single = plan, tree, single
        self.reads = [(variable, cell_of(variable)) for variable in plan.variables]
        self.writes = [cell_of(variable) for variable in plan.writes]
        self.fitting: list[set[Any]] = [
            set() for _ in plan.feeds
        ]  # per feed, types of arrays that may be fed as they are
        self.num_fetched = len(plan.outputs)
        outputs = iter(range(self.num_fetched))
        self.positions = [next(outputs) if isinstance(fetch, Symbol) else None for fetch in plan.fetches]

    def __call__(self, fed: Any) -> list[Any]:
        """The fetched values; variables are written only after everything has been computed."""
        plan = self.plan
        if plan.missing:
            raise _missing(*plan.missing[0][:2])
        values = []
        for symbol, value, fitting in zip(plan.feeds, fed, self.fitting, strict=True):
            if type(value) not in _plain or (value.dtype, value.shape) not in fitting:
                value = feed_value(symbol, value)
                _plain.add(type(value))
                fitting.add((value.dtype, value.shape))
            values.append(value)
        for variable, cell in self.reads:
            if cell.value is None:
                raise errors.UninitializedVariable(
                    f"Attempting to use uninitialized value {variable.op.name} (made at {variable.op.line}). "
                    "Run graph.symbolic.global_variables_initializer(), or its own initializer, in this session first."
                )
            values.append(cell.value)
        results = plan.compiled(*values)
        for cell, value in zip(self.writes, results[self.num_fetched :], strict=True):
            cell.value = value
        return [None if position is None else results[position] for position in self.positions]


_plain: set[type] = set()  # classes of arrays that hold values; not those of tracers, which are never fed


def _missing(symbol: Symbol, user: Operation) -> errors.MissingFeed:
    dtype = {"float32": "float", "float64": "double", "float16": "half"}.get(str(symbol.dtype), symbol.dtype)
    why = "it is fetched" if symbol.op is user else f"{user.name}, added at {user.line}, needs it"
    return errors.MissingFeed(
        f"You must feed a value for placeholder tensor '{symbol.op.name}' with dtype {dtype} and shape "
        f"{sizes(symbol.shape)}: {why}. (The placeholder was made at {symbol.op.line}.)"
    )


def feed_value(symbol: Symbol, value: Any) -> Any:
    """``value`` as what is fed for ``symbol``: of its shape and dtype."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        if isinstance(value, Symbol):
            raise TypeError(errors.FED_SYMBOL.format(symbol=symbol, value=value))
        if hasattr(type(value), "__twograd_function__"):
            raise TypeError(f"the feed of {symbol} is a {type(value).__name__}: feed its array")
        value = _converted(symbol, np.asarray(value))
    elif isinstance(value, Tracer):
        raise TypeError(
            f"the feed of {symbol} is a JAX tracer, but a session runs on values. graph.symbolic.trace(...) makes a "
            "program that can be traced."
        )
    if value.dtype != symbol.dtype:
        value = _converted(symbol, value)
    if value.shape != symbol.type.shape and not symbol.type.accepts(value.shape):
        raise ValueError(
            f"Cannot feed value of shape {value.shape} for Tensor '{symbol.name}', which has shape "
            f"'{size_tuple(symbol.shape)}'"
        )
    return value


def _converted(symbol: Symbol, value: Any) -> Any:
    """A number of the same or a lower kind is converted, an integer if it fits; nothing is cut off."""
    if not converts(value.dtype, symbol.dtype) and value.size:
        raise TypeError(
            f"Cannot feed value of dtype {value.dtype} for Tensor '{symbol.name}', which has dtype {symbol.dtype}. "
            "Convert the value, or make the placeholder of its dtype."
        )
    if jnp.issubdtype(symbol.dtype, np.integer) and value.size:
        low, high, info = value.min(), value.max(), jnp.iinfo(symbol.dtype)
        if not info.min <= low <= high <= info.max:
            raise TypeError(f"Cannot feed values from {low} to {high} for Tensor '{symbol.name}' of {symbol.dtype}")
    return value.astype(symbol.dtype)


def element_of(graph: Graph, element: Any, complaint: str) -> Any:
    """The Symbol or operation of ``graph`` that ``element`` is or names."""
    if isinstance(element, str):
        try:
            return graph[element]
        except KeyError as error:
            raise ValueError(complaint.format(repr(element)) + f" ({error.args[0]})") from None
    if not isinstance(element, (Symbol, Operation)):
        raise TypeError(
            f"{complaint.format(repr(element))} (It has invalid type {type(element)}: must be a Symbol, an operation "
            "or the name of one. gradients returns None where nothing is connected.)"
        )
    if element.graph is not graph:
        kind = ValueError if complaint is FETCH else TypeError
        raise kind(complaint.format(element) + f" ({errors.NOT_AN_ELEMENT.format(symbol=element)})")
    return element


def trace(fetches: Any, feed_dict: Feeds = None) -> TracedGraph:
    """What the ``fetches`` need, as a traced program, for passes, text, pictures and export: a ``graph.Graph``.

    Its arguments are the feeds, in the order of ``feed_dict`` (arrays or ``jax.ShapeDtypeStruct``, of which only the
    types matter), then the remaining placeholders, whose sizes must be known, then the variables. It returns the
    structure of ``fetches``, and a list of the new values of variables that are written, if there are any.
    """
    check_feeds(feed_dict)
    leaves, tree = flattened(fetches)
    graph = next((leaf.graph for leaf in leaves if isinstance(leaf, (Symbol, Operation))), get_default_graph())
    elements = [element_of(graph, leaf, FETCH) for leaf in leaves]
    feeds = dict(feed_dict or {})
    plan = Plan(graph, elements, list(feeds))
    feeds.update((symbol, None) for symbol, _, _ in plan.missing)
    plan = Plan(graph, elements, list(feeds))
    inputs = [*feeds, *plan.variables]
    types = [_argument_type(symbol, feeds.get(symbol)) for symbol in inputs]
    closed, _ = trace_leaves(plan.traced, types, [symbol.op.name for symbol in inputs])
    outputs = iter(range(len(plan.outputs)))
    values = tree_unflatten(tree, [next(outputs) if isinstance(element, Symbol) else None for element in elements])
    result = (values, list(plan.writes)) if plan.writes else values
    return TracedGraph(closed, tree_structure((tuple(types), {})), tree_structure(result), graph.name)


def _argument_type(symbol: Symbol, value: Any) -> jax.ShapeDtypeStruct:
    shape = symbol.shape if value is None else np.shape(value)
    if None in shape:
        raise ValueError(f"{symbol} has sizes that are not known: give an array or a jax.ShapeDtypeStruct for it")
    if not symbol.type.accepts(shape):
        raise ValueError(f"{symbol} cannot be of the shape {shape}")
    return jax.ShapeDtypeStruct(shape, symbol.dtype)
