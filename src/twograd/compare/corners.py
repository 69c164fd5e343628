"""The four corners of one program: graph rebuilt per call or built once, symbol-to-value or symbol-to-symbol.

What flows in: a scalar program and its arguments. What flows out: :class:`Corners`, a table in which every cell was
measured. Read :func:`corners`, then the four classes below it.

At the corners of the tape each primitive is recorded on its own, so that nodes and rules can be compared with those of
the graph one by one.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from twograd import graph, rules, tape
from twograd._arguments import check_callable
from twograd._table import TextTable
from twograd.compare import check, timing, units
from twograd.compare.engines.graph_engines import Graph
from twograd.compare.engines.tape_engines import recordable
from twograd.compare.errors import CompareError, Unsupported
from twograd.compare.program import Comparison, Declaration, plain_function
from twograd.compare.results import Check, Settings
from twograd.compare.runner import case_name, cast, make_inputs
from twograd.graph.advice import explaining
from twograd.tape.node import Node

SAMPLING = timing.Plan(min_time=0.05, min_rounds=11, max_time=0.3, warmup_cap=0.1)


@dataclass(frozen=True)
class SecondOrder:
    """The gradient of the sum of the gradient's elements: how many nodes stand for it (all lower orders included), how
    long both gradients take together relative to the first alone, and the check against ``jax.grad``."""

    nodes: int
    slowdown: float
    check: Check


@dataclass(frozen=True)
class Corner:
    """What was measured at one corner.

    ``nodes`` are those of the program, ``derivative_nodes`` those that were added for its gradient.
    ``rules_at_first`` counts the rules called from nothing to the first gradient, ``rules_again`` those of a further
    call; ``rebuilt`` the nodes that a further call builds, and ``python_again`` how often it runs the Python function.
    ``order_2`` is the error message where the gradient cannot be differentiated.
    """

    name: str
    value: float
    checks: tuple[Check, ...]
    nodes: int
    derivative_nodes: int
    rules_at_first: int
    rules_again: int
    saved_bytes: int
    rebuilt: int
    python_again: int
    seconds: float
    order_2: SecondOrder | str


@dataclass(frozen=True)
class Corners:
    """The table of the four; printed as text, shown as HTML in a notebook."""

    program: str
    corners: tuple[Corner, ...]

    def __getitem__(self, name: str) -> Corner:
        """The corner of that name: ``result["graph backprop"]``."""
        return {corner.name: corner for corner in self.corners}[name]

    @property
    def agree(self) -> bool:
        """Whether all gradients, also those of second order, agree with ``jax.grad`` and finite differences."""
        seconds = [c.order_2.check for c in self.corners if isinstance(c.order_2, SecondOrder)]
        return all(c.passed is not False for c in (*seconds, *(c for row in self.corners for c in row.checks)))

    @functools.cached_property
    def table(self) -> TextTable:
        """The corners as columns, what was measured as rows."""
        notes = [
            f"{corner.name}: no order 2: {corner.order_2}" for corner in self.corners if isinstance(corner.order_2, str)
        ]
        rows = [(label, *(cell(corner) for corner in self.corners)) for label, cell in ROWS]
        notes.insert(
            0, "'=': agrees, and the largest relative difference; derivatives of JAX and differences are in float64."
        )
        return TextTable(f"The four corners of {self.program}", ("", *(c.name for c in self.corners)), rows, notes)

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def corners(f: Callable[..., Any], *args: Any) -> Corners:
    """Measures the gradient of ``f(*args)`` with respect to the first argument at all four corners.

    ``f`` returns a real scalar of float32 or float64, and the first argument is a pytree of real arrays or numbers.
    ``f`` may be written in ``twograd.numpy``, and then runs on Tensors, or in ``jax.numpy``, and is then recorded
    through ``tape.apply``, which remembers what it traced.

    Raises TypeError where ``f`` does not return such a scalar, and what ``f`` raises: it must be traceable.
    """
    check_callable(f, "corners")
    name = getattr(f, "__name__", type(f).__name__)
    if not args or not all(jnp.issubdtype(jnp.result_type(leaf), np.floating) for leaf in tree_leaves(args[0])):
        raise TypeError(f"corners differentiates {name} in its first argument, which must hold real numbers")
    args = jax.tree.map(jnp.asarray, args)
    out = check_scalar(f, args, "corners")
    host = jax.tree.map(np.asarray, args)
    known = check.witnesses(f, host, np.random.default_rng(0))
    steep = check.witnesses(_slope(f), host, np.random.default_rng(0))
    calls: list[None] = []

    @functools.wraps(f)
    def counted(*operands):
        calls.append(None)
        return f(*operands)

    measured: list[Corner] = []
    subjects: dict[tuple[str, int], timing.Subject] = {}
    for kind in (Backward, CreateGraph, Backprop, Gradients):
        with rules.recording() as at_first:
            corner = kind(counted, args)
            corner.gradient()
        calls.clear()
        with rules.recording() as again:
            rebuilt, (value, found) = corner.again(calls)
        python_again = len(calls)
        subjects[kind.name, 1] = corner.gradient
        try:
            nodes, second = corner.second_order()
            subjects[kind.name, 2] = second
            order_2 = SecondOrder(nodes, math.nan, _checks(steep, value, second(), args[0], out.dtype)[0])
        except Unsupported as error:
            order_2 = str(error)
        measured.append(
            Corner(
                kind.name,
                float(value),
                _checks(known, value, found, args[0], out.dtype),
                *corner.nodes(),
                len(at_first),
                len(again),
                corner.saved_bytes(),
                rebuilt,
                python_again,
                math.nan,
                order_2,
            )
        )
    # The shortest sample: what disturbs a run only ever makes it longer, and short runs are disturbed most.
    times = {key: min(found.seconds) for key, found in timing.measure(subjects, SAMPLING).items()}
    return Corners(name, tuple(_timed(corner, times) for corner in measured))


def check_scalar(f: Callable[..., Any], args: Sequence[Any], who: str) -> jax.ShapeDtypeStruct:
    """The type of ``f(*args)``. Raises TypeError where that is no real scalar, and what tracing it raises."""
    with explaining(f):
        out = jax.eval_shape(f, *args)
    if getattr(out, "shape", None) != () or str(out.dtype) not in check.TOLERANCES:
        name = getattr(f, "__name__", type(f).__name__)
        raise TypeError(
            f"{who} needs a program that returns a real scalar, of float32 or float64; {name} returns {out}"
        )
    return out


def declared(
    declaration: Declaration, dtype: Literal["float32", "float64"], seed: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The program of a file and its arguments: of a comparison the first quick case, or else its ``f`` and ``args``.

    Raises CompareError where there is neither.
    """
    module = declaration.run()
    comparison = getattr(module, "comparison", None)
    if not isinstance(comparison, Comparison):
        plain = plain_function(module)
        if plain is None:
            raise CompareError(
                f"{declaration.path}: has neither 'comparison = Comparison(...)' nor a function f and its arguments, "
                "a tuple args."
            )
        f, args = plain
        return f, jax.tree.map(lambda leaf: cast(leaf, dtype), args)
    axes = (comparison.quick or comparison.cases)[0]
    try:
        loss = comparison.program("graph", "twograd", axes)
    except Unsupported as error:
        raise CompareError(f"{declaration.path}: {error}") from error

    def program(*inputs):
        return loss(Graph.ops, *inputs)

    program.__name__ = f"{declaration.name} [{case_name(axes)}]" if axes else declaration.name
    settings = Settings(dtype=dtype, seed=seed)
    return program, make_inputs(comparison, declaration.name, axes, settings)


def _slope(f: Callable[..., Any]) -> Callable[..., Any]:
    """The sum of all elements of the gradient of ``f``: what is differentiated for the second order."""
    return lambda *args: sum(jnp.sum(leaf) for leaf in tree_leaves(jax.grad(f)(*args)))


def _checks(known: check.Witnesses, value: Any, found: Sequence[Any], like: Any, dtype: Any) -> tuple[Check, ...]:
    """The gradient whose leaves are ``found``, against ``jax.grad`` in float64, and against finite differences."""
    assert known.gradient is not None
    gradient = check.Gradient.of(value, tree_unflatten(jax.tree.structure(like), found))
    return (
        check.against(check.REFERENCE, True, gradient, known.gradient, str(dtype)),
        check.along_directions(gradient, known.directionals, str(dtype)),
    )


def _timed(corner: Corner, times: dict[tuple[str, int], float]) -> Corner:
    seconds, order_2 = times[corner.name, 1], corner.order_2
    if isinstance(order_2, SecondOrder):
        order_2 = dataclasses.replace(order_2, slowdown=times[corner.name, 2] / seconds)
    return dataclasses.replace(corner, seconds=seconds, order_2=order_2)


def _agreement(found: Check) -> str:
    mark = "–" if found.passed is None else "yes" if found.passed else "NO"
    return f"{mark}, {found.max_rel:.0e}"


def _of_second_order(cell: Callable[[SecondOrder], str]) -> Callable[[Corner], str]:
    return lambda corner: "" if isinstance(corner.order_2, str) else cell(corner.order_2)


ROWS: tuple[tuple[str, Callable[[Corner], str]], ...] = (
    ("value", lambda corner: units.significant(corner.value)),
    ("= jax.grad", lambda corner: _agreement(corner.checks[0])),
    ("= differences", lambda corner: _agreement(corner.checks[1])),
    ("program nodes", lambda corner: str(corner.nodes)),
    ("derivative nodes", lambda corner: str(corner.derivative_nodes)),
    ("rules, first call", lambda corner: str(corner.rules_at_first)),
    ("rules, next call", lambda corner: str(corner.rules_again)),
    ("saved", lambda corner: units.size(corner.saved_bytes)),
    ("rebuilt per call", lambda corner: f"{corner.rebuilt} nodes" if corner.rebuilt else "no"),
    ("Python reruns", lambda corner: str(corner.python_again)),
    ("time per call", lambda corner: units.duration(corner.seconds)),
    ("order 2", lambda corner: "no" if isinstance(corner.order_2, str) else "yes"),
    ("  = jax.grad", _of_second_order(lambda order_2: _agreement(order_2.check))),
    ("  nodes in all", _of_second_order(lambda order_2: str(order_2.nodes))),
    ("  time, x order 1", _of_second_order(lambda order_2: units.significant(order_2.slowdown, 3))),
)


# --- the tape: a graph per call ---------------------------------------------------------------------------------------


class Backward:
    """``loss.backward()``: gradients by value, in the leaves' ``.grad``."""

    name = "tape backward"

    def __init__(self, f: Callable[..., Any], args: Sequence[Any]):
        self._f, self._args = recordable(f), args

    def _record(self) -> tuple[list[Any], Any]:
        arrays, tree = tree_flatten(self._args[0])
        leaves = [tape.tensor(array, requires_grad=True) for array in arrays]
        return leaves, self._f(tree_unflatten(tree, leaves), *self._args[1:])

    def _differentiate(self, leaves: list[Any], loss: Any) -> list[Any]:
        loss.backward()
        return [tape.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]

    def _sum(self, found: list[Any]) -> Any:
        """Of all elements of the gradient."""
        return functools.reduce(lambda x, y: x + y, [tensor.sum() for tensor in found])

    def _both(self) -> tuple[list[Any], Any, list[Any]]:
        with tape.granularity("primitive"):
            leaves, loss = self._record()
            return leaves, loss, self._differentiate(leaves, loss)

    def gradient(self) -> tuple[Any, list[Any]]:
        _, loss, found = self._both()
        return jax.block_until_ready((loss.array, [tensor.array for tensor in found]))

    def again(self, calls: Sequence[None]) -> tuple[int, tuple[Any, list[Any]]]:
        """The nodes that one more call builds, and its results."""
        leaf: Any = tape.tensor(0.0, requires_grad=True)
        before = (leaf * 1).grad_fn.sequence_nr
        _, loss, found = self._both()
        built = sum(node.sequence_nr > before for node in _behind([loss, *found]))
        return built, (loss.array, [tensor.array for tensor in found])

    def nodes(self) -> tuple[int, int]:
        _, loss, found = self._both()
        program = tape.stats(loss).nodes
        return program, tape.stats(loss, *found).nodes - program

    def saved_bytes(self) -> int:
        with tape.granularity("primitive"):
            return tape.stats(self._record()[1]).saved_bytes

    def second_order(self) -> tuple[int, Callable[[], list[Any]]]:
        def both_orders():
            leaves, _, found = self._both()
            with tape.granularity("primitive"):
                second = tape.autograd.grad(self._sum(found), leaves, allow_unused=True)
            arrays = [tape.zeros_like(x).array if g is None else g.array for x, g in zip(leaves, second, strict=True)]
            return jax.block_until_ready(arrays)

        try:
            both_orders()
        except RuntimeError as error:
            raise Unsupported(str(error)) from error
        return sum(self.nodes()), both_orders


class CreateGraph(Backward):
    """``autograd.grad(..., create_graph=True)``: the walk back is recorded in its turn."""

    name = "tape create_graph"

    def _differentiate(self, leaves: list[Any], loss: Any) -> list[Any]:
        found = tape.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        return [tape.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]

    def _sum(self, found: list[Any]) -> Any:
        """What a constant gradient adds has no history; the derivative of nothing but that is zero."""
        with_history = [tensor for tensor in found if tensor.requires_grad]
        return super()._sum(with_history) if with_history else tape.zeros((), requires_grad=True)


def _behind(tensors: Sequence[tape.Tensor]) -> set[Node]:
    """The nodes that can be reached from these Tensors, the ends at leaves left out."""
    reached: set[Any] = set()
    stack = [tensor.grad_fn for tensor in tensors]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in reached:
            reached.add(node)
            stack.extend(next_node for next_node, _ in node.next_functions)
    return reached


# --- the graph: built once --------------------------------------------------------------------------------------------


class Backprop:
    """``graph.backprop``: the graph is evaluated by value, and walked back by value."""

    name = "graph backprop"

    def __init__(self, f: Callable[..., Any], args: Sequence[Any]):
        self._args = args
        self._xs = tuple(range(len(tree_leaves(args[0]))))
        self._graph = graph.trace(f, *args)

    def gradient(self) -> tuple[Any, list[Any]]:
        return jax.block_until_ready(graph.backprop(self._graph, self._args, 0, self._xs))

    def again(self, calls: Sequence[None]) -> tuple[int, tuple[Any, list[Any]]]:
        """The nodes that one more call builds (all, if it runs the Python function again), and its results."""
        results = self.gradient()
        return (sum(self.nodes()) if calls else 0), results

    def nodes(self) -> tuple[int, int]:
        program = self._graph.question(0, self._xs).program
        return len(program.eqns), self._graph.stats().derivative_equations

    def saved_bytes(self) -> int:
        saved = self._graph.question(0, self._xs).saved(tree_leaves(self._args))
        return sum({id(value): value.nbytes for value in saved}.values())

    def second_order(self) -> tuple[int, Callable[[], list[Any]]]:
        try:
            self._graph.gradients("result[1][0]", self._xs)
        except ValueError as error:
            raise Unsupported(f"it is arrays, no equation computes it ({str(error).partition(';')[0]})") from error
        raise AssertionError("a graph that nothing was added to has its gradient among its outputs")


class Gradients(Backprop):
    """``graph.gradients``: the derivative is equations of the graph, which is compiled."""

    name = "graph gradients"

    def __init__(self, f: Callable[..., Any], args: Sequence[Any]):
        super().__init__(f, args)
        self._graph = self._graph.gradients(0, self._xs)

    def gradient(self) -> tuple[Any, list[Any]]:
        return jax.block_until_ready(self._graph.run(*self._args))

    def nodes(self) -> tuple[int, int]:
        stats = self._graph.stats()
        return stats.equations - stats.derivative_equations, stats.derivative_equations

    def saved_bytes(self) -> int:
        return self._graph.stats().saved_bytes

    def second_order(self) -> tuple[int, Callable[[], list[Any]]]:
        leaves = tree_leaves(self._args[0])
        firsts = tuple(range(1, 1 + len(leaves)))
        twice = self._graph.gradients(firsts, self._xs, [jnp.ones_like(leaf) for leaf in leaves])
        return twice.stats().equations, lambda: jax.block_until_ready(twice.run(*self._args)[1])
