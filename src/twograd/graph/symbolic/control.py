"""Control flow as nodes: ``cond``, ``while_loop`` and ``carry_scan``.

Their bodies are functions of Symbols. A body is built once, in a graph of its own (read :class:`Body`), and may use
Symbols from outside: those become operands of the node. So only what is built inside of a branch depends on it. The
functions of ``twograd.lax`` work on Symbols, too; their bodies are functions of JAX arrays that close over no Symbol.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd.graph.bounded import bounded_while_loop
from twograd.graph.symbolic.build import as_symbol, build, sizes_in
from twograd.graph.symbolic.container import Graph, Symbol, Type, home_of
from twograd.graph.symbolic.plan import function_of


class Body:
    """A function of Symbols, built in a graph inside of ``outer`` for arguments of ``types``.

    ``captures`` are the Symbols from outside that it uses; :meth:`given` takes the JAX arrays that stand for them.
    """

    def __init__(self, outer: Graph, function: Callable[..., Any], tree: Any, types: Sequence[Type], name: str):
        self.graph = Graph(outer, f"{outer.name}/{name}")
        with self.graph.as_default():
            self.inputs = [self.graph.add("argument", None, (), [of], "argument").outputs[0] for of in types]
            results, self.tree = tree_flatten(function(*tree_unflatten(tree, self.inputs)))
            self.outputs = [self.graph.inside(as_symbol(result)) for result in results]
        self.graph.results = tuple(self.outputs)
        self.graph.finalize()
        self.types = [symbol.type for symbol in self.outputs]
        self.captures = list(self.graph.captures)
        self.sizes = {size for op in self.graph.operations for out in op.outputs for size in out.shape if size}
        self.sizes.update(*(sizes_in(op.call) for op in self.graph.operations if op.call is not None))
        self._part, self._others = function_of(self.outputs, self.inputs)

    def given(self, captured: dict[Symbol, Any]) -> Callable[..., list[Any]]:
        """The body as a function of JAX arrays, a flat list of results; all strongly typed, as carries must be."""
        outside = {inner: captured[symbol] for symbol, inner in self.graph.captures.items()}

        def body(*args):
            results = self._part(*args, *(outside[symbol] for symbol in self._others))
            return [lax.convert_element_type(value, of.dtype) for value, of in zip(results, self.types, strict=True)]

        return body


def _home(operands: Sequence[Any]) -> Graph:
    """The graph that a node with these operands stands in."""
    return home_of([operand for operand in operands if isinstance(operand, Symbol)])


def _node(
    kind: str,
    graph: Graph,
    bodies: Sequence[Body],
    call: Callable[..., Any],
    operands: Any,
    tree: Any,
    name: str | None = None,
) -> Any:
    """Adds ``call(operands, *bodies)`` as one operation; its flat results are returned in the structure ``tree``."""
    captures = list(dict.fromkeys(symbol for body in bodies for symbol in body.captures))

    def node(operands, captured):
        values = dict(zip(captures, captured, strict=True))
        return list(call(operands, *(body.given(values) for body in bodies)))

    node.__name__ = kind
    node.bodies = [body.graph for body in bodies]  # pyright: ignore[reportFunctionMemberAccess]
    node.sizes = {size for body in bodies for size in body.sizes}  # pyright: ignore[reportFunctionMemberAccess]
    with graph.as_default():
        return tree_unflatten(tree, build(node, (operands, captures), {}, name))


def _symbols(graph: Graph, operands: Any) -> list[Symbol]:
    """The leaves of ``operands``, those that are no Symbols as constants."""
    with graph.as_default():
        return [as_symbol(leaf) for leaf in jax.tree.leaves(operands)]


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any, name: str | None = None
) -> Any:
    """``true_fn(*operands)`` where ``pred``, a boolean scalar, is true, else ``false_fn(*operands)``.

    Both are built, and one of them runs. What is built outside of both, and used in one, runs always. To choose element
    by element, evaluating both, use ``twograd.numpy.where``.

    Raises TypeError where the branches return different structures, shapes or dtypes.
    """
    graph = _home([pred, *jax.tree.leaves(operands)])
    symbols = _symbols(graph, (pred, operands))
    if symbols[0].ndim:
        raise TypeError(f"cond: pred must be a scalar, got {symbols[0]}. Element by element: twograd.numpy.where.")
    types, arguments = [symbol.type for symbol in symbols[1:]], tree_structure(operands)
    branches = [Body(graph, f, arguments, types, name) for f, name in ((true_fn, "true"), (false_fn, "false"))]
    one, other = branches
    if one.tree != other.tree or not _fit(one.types, other.types):
        raise TypeError(
            f"cond: the branches must return the same: {_described(one)} where pred is true, {_described(other)} else"
        )

    def call(operands, true_branch, false_branch):
        pred, *rest = operands
        return lax.cond(jnp.asarray(pred, bool), true_branch, false_branch, *rest)

    return _node("cond", graph, branches, call, symbols, one.tree, name)


def _fit(given: Sequence[Type], returned: Sequence[Type]) -> bool:
    return len(given) == len(returned) and all(a.fits(b) for a, b in zip(given, returned, strict=True))


def _described(body: Body) -> str:
    return str(tree_unflatten(body.tree, [str(of) for of in body.types]))


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    maximum_iterations: int | None = None,
    *,
    shape_invariants: Any = None,
    parallel_iterations: int | None = None,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
    return_same_structure: bool = False,
) -> Any:
    """Repeats ``loop_vars = body(*loop_vars)`` while ``cond(*loop_vars)``; returns the last ones.

    ``body`` returns the shapes and dtypes of ``loop_vars``: one Symbol, or a list or tuple. Of a list of one the Symbol
    is returned, unless ``return_same_structure``, as in TensorFlow. With ``maximum_iterations``, a Python integer, it
    is :func:`twograd.graph.bounded_while_loop`, which can be differentiated in reverse; without, it cannot, as it does
    not know how much it must keep. With ``back_prop=False`` no derivative flows through. ``parallel_iterations`` and
    ``swap_memory`` are XLA's to decide, and say nothing here.

    Raises TypeError for a ``cond`` that returns no boolean scalar, and a ``body`` that returns other types; ValueError
    for ``shape_invariants``: sizes stay as they are, in all steps.
    """
    if shape_invariants is not None:
        raise ValueError(
            "while_loop: shape_invariants let sizes change from step to step, and in a compiled loop they cannot. Keep "
            "an array of the largest size, and a count."
        )
    graph = _home(jax.tree.leaves(loop_vars))
    symbols = _symbols(graph, loop_vars)
    types = [symbol.type for symbol in symbols]
    arguments = tree_structure(tuple(loop_vars) if isinstance(loop_vars, (list, tuple)) else (loop_vars,))
    test, step = Body(graph, cond, arguments, types, "cond"), Body(graph, body, arguments, types, "body")
    if len(test.types) != 1 or test.types[0].shape != ():
        raise TypeError(f"while_loop: cond must return one boolean scalar, not {_described(test)}")
    _check_carry("while_loop: body", "loop_vars", types, step.types)

    def call(operands, test, step):
        def goes_on(values):
            return jnp.asarray(test(*values)[0], bool)

        def one_step(values):
            return step(*values)

        values = [lax.convert_element_type(value, of.dtype) for value, of in zip(operands, types, strict=True)]
        values = values if back_prop else lax.stop_gradient(values)
        if maximum_iterations is None:
            found = lax.while_loop(goes_on, one_step, values)
        else:
            found = bounded_while_loop(goes_on, one_step, values, maximum_iterations)
        return found if back_prop else lax.stop_gradient(found)

    found = _node("while_loop", graph, [test, step], call, symbols, tree_structure(loop_vars), name)
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 and not return_same_structure else found


def carry_scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    truncate_gradient: int = -1,
    name: str | None = None,
) -> Any:
    """JAX's half of :func:`twograd.graph.symbolic.scan`: ``carry, y = f(carry, x)`` for each x of ``xs``."""
    if truncate_gradient == 0 or truncate_gradient < -1:
        raise ValueError(f"scan: truncate_gradient must be a number of steps, or -1 for all, got {truncate_gradient}")
    graph = _home(jax.tree.leaves((init, xs)))
    carry, each = _symbols(graph, init), _symbols(graph, xs)
    if any(symbol.ndim == 0 for symbol in each):
        raise TypeError("scan: xs must have an axis to go along, got " + ", ".join(map(str, each)))
    if not each and length is None:
        raise TypeError("scan: without xs, say how many steps there are: length=...")
    types = [symbol.type for symbol in carry]
    of_each = [symbol.type._replace(shape=symbol.shape[1:]) for symbol in each]
    step = Body(graph, f, tree_structure((init, xs)), [*types, *of_each], "body")
    if step.tree.num_nodes < 3 or len(step.tree.children()) != 2:
        raise TypeError(f"scan: f must return a pair (carry, y), not {_described(step)}")
    carry_tree, _ = step.tree.children()
    if carry_tree != tree_structure(init):
        raise TypeError(f"scan: the carry has structure {tree_structure(init)}, and f returns {carry_tree}")
    _check_carry("scan: f", "init", types, step.types[: len(carry)])

    def call(operands, step):
        start, xs = operands
        start = [lax.convert_element_type(value, of.dtype) for value, of in zip(start, types, strict=True)]

        def one_step(carry, x):
            results = step(*carry, *x)
            return results[: len(carry)], results[len(carry) :]

        steps: int = len(xs[0]) if xs else length  # pyright: ignore[reportAssignmentType] (one of them is there)
        if truncate_gradient < 0:
            return jax.tree.leaves(lax.scan(one_step, start, xs, length, reverse))
        first = max(steps - truncate_gradient, 0)
        parts = [slice(None, first), slice(first, None)]
        if reverse:
            parts = [slice(steps - first, None), slice(None, steps - first)]
        early, late = ([x[part] for x in xs] for part in parts)
        middle, ys = lax.stop_gradient(lax.scan(one_step, start, early, first, reverse))
        # Where all steps are among the last, the derivative goes back to the start; that depends on no shape.
        middle = [lax.select(jnp.asarray(first == 0), a, b) for a, b in zip(start, middle, strict=True)]
        end, more = lax.scan(one_step, middle, late, steps - first, reverse)
        pairs = zip(more, ys, strict=True) if reverse else zip(ys, more, strict=True)
        return [*end, *(jnp.concatenate(pair) for pair in pairs)]

    return _node("scan", graph, [step], call, (carry, each), step.tree, name)


def _check_carry(who: str, what: str, given: Sequence[Type], returned: Sequence[Type]) -> None:
    if not _fit(given, returned):
        raise TypeError(
            f"{who} must return values of the types that it is given: {what} is {', '.join(map(str, given))}, and it "
            f"returns {', '.join(map(str, returned))}"
        )
