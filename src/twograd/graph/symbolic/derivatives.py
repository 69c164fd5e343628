"""Derivatives of a symbolic graph: nodes that are added to the same graph.

What flows in: Symbols. What flows out: Symbols. Read :func:`backward_pass`, the walk of ``graph/transform.py`` over
operations: the pullback of each is one new operation, of which there is again a pullback.
"""

import enum
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax

from twograd import rules
from twograd.errors import DisconnectedInput, NoRule, NotReversible
from twograd.graph import functional
from twograd.graph.symbolic import errors
from twograd.graph.symbolic.build import add, apply, as_symbol, identity
from twograd.graph.symbolic.container import Gradient, Graph, Operation, Symbol, home_of
from twograd.graph.symbolic.plan import function_of, pullback_of

Symbols = Symbol | Sequence[Symbol]
DISCONNECTED = enum.Enum("Disconnected", "DISCONNECTED").DISCONNECTED  # pyright: ignore[reportAttributeAccessIssue]
"""What ``grad`` returns for a disconnected input where ``return_disconnected`` is "disconnected"."""


def backward_pass(
    graph: Graph,
    cts: Mapping[Symbol, Sequence[Symbol]],
    xs: Sequence[Symbol],
    stops: Collection[Symbol] = (),
    known: Collection[Symbol] = (),
) -> list[Symbol | None]:
    """Walks back from the cotangents ``cts``, and returns those of ``xs``; None where nothing is connected.

    A Symbol that is used several times gets the sum of its uses' cotangents, but for the ``known`` ones, of which the
    cotangent is given. Nothing flows through ``stops``.
    """
    ct_env: dict[Symbol, list[Symbol]] = {symbol: list(given) for symbol, given in cts.items()}
    depends = set(xs)  # Symbols that have a cotangent that an x needs
    ops: list[Operation] = []
    for op in graph.operations:
        if not depends.isdisjoint(op.inputs):
            ops.append(op)
            depends.update(out for out in op.outputs if out not in stops and rules.carries_gradient(out))

    def collected(symbol: Symbol) -> Symbol | None:
        given = ct_env.get(symbol, [])
        if len(given) > 1:
            ct_env[symbol] = given = [add(graph, add_n, given)]
        return given[0] if given else None

    for op in reversed(ops):
        out_cts = [None if out in stops else collected(out) for out in op.outputs]
        if all(ct is None for ct in out_cts):
            continue
        wanted = tuple(symbol in depends and rules.carries_gradient(symbol) for symbol in op.inputs)
        for symbol, ct in zip(op.inputs, pullback(op, out_cts, wanted), strict=True):
            if ct is not None and symbol not in known:
                ct_env.setdefault(symbol, []).append(ct)
    return [collected(x) for x in xs]


def pullback(op: Operation, out_cts: Sequence[Symbol | None], wanted: tuple[bool, ...]) -> list[Symbol | None]:
    """Adds the pullback of ``op``; returns the cotangents of its inputs, None for what is zero or not ``wanted``."""
    in_cts: list[Symbol | None] = [None] * len(op.inputs)
    if not any(wanted):
        return in_cts
    complaint = f"No gradient defined for operation '{op.name}' (op type: {op.type})"
    if op.writes is not None or op.call is None:
        raise errors.NoGradient(f"{complaint}: it stores a value. Differentiate with respect to what is stored.")
    present = tuple(ct is not None for ct in out_cts)
    try:
        pull = pullback_of(op.call, tuple(symbol.type for symbol in op.inputs), wanted, present)
    except (NoRule, NotReversible) as error:
        hint = " A while_loop with maximum_iterations has one." if isinstance(error, NotReversible) else ""
        raise errors.NoGradient(f"{complaint}, added at {op.line}: {error}{hint}") from error
    except Exception as error:
        error.add_note(f"in the gradient of the operation {op.name}, added at {op.line}")
        raise
    if pull.yields:
        inputs = [*(op.inputs[i] for i in pull.reads), *(ct for ct in out_cts if ct is not None)]
        types = [op.inputs[i].type._replace(weak_type=False) for i in pull.yields]
        added = op.graph.add(pull.__name__, pull, inputs, types, f"{op.name}_grad", kind=Gradient)
        assert isinstance(added, Gradient)
        added.forward, added.wanted, added.present = op, wanted, present
        for i, out in zip(pull.yields, added.outputs, strict=True):
            in_cts[i] = out
    return in_cts


def add_n(*values: Any) -> Any:
    """The sum of values of one type."""
    total, *rest = values
    for value in rest:
        total = lax.add(total, value)
    return total


# --- TensorFlow's call --------------------------------------------------------------------------------------------


def gradients(
    ys: Symbols,
    xs: Symbols,
    grad_ys: Any = None,
    name: str = "gradients",
    stop_gradients: Symbols | None = None,
    unconnected_gradients: Literal["none", "zero"] = "none",
) -> list[Symbol | None]:
    """The sums of the derivatives of all ``ys`` with respect to each of ``xs``, as Symbols of the same graph.

    ``grad_ys`` are the cotangents of the ys, None for one of them (or for all) means ones. Nothing flows through
    ``stop_gradients``, so ``gradients(y, xs, stop_gradients=xs)`` are partial derivatives. Where no y depends on an x
    the result is None, or, with ``unconnected_gradients="zero"``, zeros. Nodes are named ``NAME/OPERATION_grad``.

    Raises NoGradient (a LookupError) where an operation has none; TypeError for an x or y that is no real or complex
    number, or a cotangent that does not fit; ValueError for Symbols of several graphs.
    """
    if unconnected_gradients not in ("none", "zero"):
        raise ValueError(f"Unknown value for unconnected_gradients: {unconnected_gradients!r}")
    ys, xs, stops = listed(ys), listed(xs), listed(stop_gradients)
    given = [None] * len(ys) if grad_ys is None else list(grad_ys) if isinstance(grad_ys, (list, tuple)) else [grad_ys]
    if len(given) != len(ys):
        raise ValueError(f"Passed {len(given)} grad_ys for {len(ys)} ys")
    graph = home_of([*ys, *xs, *stops])
    check_differentiable(graph, [*ys, *xs])
    with graph.as_default(), graph.name_scope(name):
        cts: dict[Symbol, list[Symbol]] = {}
        for i, (y, ct) in enumerate(zip(ys, given, strict=True)):
            cts.setdefault(y, []).append(cotangent(y, ct, f"grad_ys_{i}"))
        results = backward_pass(graph, cts, xs, frozenset(stops))
        if unconnected_gradients == "zero":
            return [apply(jnp.zeros_like, x) if ct is None else ct for x, ct in zip(xs, results, strict=True)]
    return results


def listed(symbols: Symbols | None) -> list[Symbol]:
    """One Symbol, several, or None, as a list. TypeError for what is none."""
    found = [] if symbols is None else list(symbols) if isinstance(symbols, (list, tuple)) else [symbols]
    for symbol in found:
        if not isinstance(symbol, Symbol):
            raise TypeError(
                f"a derivative is taken of, and with respect to, Symbols, got {type(symbol).__name__}: {symbol!r}"
            )
    return found  # pyright: ignore[reportReturnType]


def check_differentiable(graph: Graph, symbols: Sequence[Symbol]) -> None:
    for symbol in symbols:
        if symbol.graph is not graph:
            raise ValueError(f"{symbol} is outside of the body in which its gradient is taken: take it outside")
        if not rules.carries_gradient(symbol):
            raise TypeError(f"{symbol} has dtype {symbol.dtype}: it has no derivative")


def cotangent(y: Symbol, ct: Any, name: str | None = None) -> Symbol:
    """``ct`` for ``y``, by default ones. TypeError if it is of another type."""
    if ct is None:
        if not y.type.known:
            return apply(jnp.ones_like, y, name=name)
        return apply(jnp.ones, y.shape, y.dtype, name=name)
    ct = as_symbol(ct)
    if not y.type.fits(ct.type):
        raise TypeError(f"a cotangent of type {ct.type} was given for {y.name}, which is {y.type}")
    return ct


# --- Theano's ---------------------------------------------------------------------------------------------------------


def grad(
    cost: Symbol | None,
    wrt: Symbols,
    consider_constant: Symbols | None = None,
    disconnected_inputs: Literal["raise", "warn", "ignore"] = "raise",
    add_names: bool = True,
    known_grads: Mapping[Symbol, Any] | None = None,
    return_disconnected: Literal["zero", "None", "disconnected"] = "zero",
) -> Any:
    """The derivative of a scalar ``cost`` with respect to ``wrt``: a Symbol, or a list of them, as ``wrt`` is.

    Nothing flows through ``consider_constant``. ``known_grads`` gives the cotangents of some Symbols, which are then
    not computed; with it ``cost`` may be None. For an input on which the cost does not depend ``disconnected_inputs``
    says whether that is an error, and ``return_disconnected`` what is returned otherwise: zeros, None, or
    :data:`DISCONNECTED`. With ``add_names`` results are named ``(dCOST/dWRT)``.

    Raises DisconnectedInput (a ValueError), NoGradient (a LookupError), and TypeError for a cost that is no scalar.
    """
    if disconnected_inputs not in ("raise", "warn", "ignore"):
        raise ValueError(
            "Invalid value for keyword 'disconnected_inputs', valid values are 'ignore', 'warn' and 'raise'."
        )
    if return_disconnected not in ("zero", "None", "disconnected"):
        raise ValueError("Only 'zero', 'None' and 'disconnected' are valid for return_disconnected")
    if cost is None and not known_grads:
        raise ValueError("cost and known_grads can't both be None.")
    if cost is not None and cost.ndim != 0:
        raise TypeError(f"cost must be a scalar. {cost} is {cost.type}: reduce it by a sum or a mean.")
    xs, stops, known = listed(wrt), listed(consider_constant), dict(known_grads or {})
    graph = home_of([*listed(cost), *xs, *stops, *known])
    check_differentiable(graph, [*listed(cost), *xs, *known])
    with graph.as_default():
        with graph.name_scope("grad"):
            cts = {} if cost is None else {cost: [cotangent(cost, None)]}
            cts.update((symbol, [cotangent(symbol, ct)]) for symbol, ct in known.items())
            results: list[Any] = backward_pass(graph, cts, xs, frozenset(stops), frozenset(known))
        for i, (x, ct) in enumerate(zip(xs, results, strict=True)):
            if ct is None:
                results[i] = _disconnected(x, disconnected_inputs, return_disconnected)
            elif add_names and cost is not None:
                results[i] = identity(ct, f"(d{cost.op.name}/d{x.op.name})")
    return results[0] if isinstance(wrt, Symbol) else results


def _disconnected(x: Symbol, inputs: str, returned: str) -> Any:
    error = DisconnectedInput(str(x))
    if inputs == "raise":
        raise error
    if inputs == "warn":
        warnings.warn(str(error), stacklevel=3)
    return apply(jnp.zeros_like, x) if returned == "zero" else None if returned == "None" else DISCONNECTED


def lop(f: Symbols, wrt: Symbols, eval_points: Any) -> Any:
    """The vector ``eval_points`` times the Jacobian of ``f``: Theano's Lop, a pullback.

    One Symbol of ``f`` has one eval point, of its type, and several a list of them; a Symbol is returned for one of
    ``wrt``, a list for a list. What f does not depend on has zeros.
    """
    results = gradients(f, wrt, grad_ys=_points(f, eval_points), name="lop", unconnected_gradients="zero")
    return results[0] if isinstance(wrt, Symbol) else results


def rop(f: Symbols, wrt: Symbols, eval_points: Any) -> Any:
    """The Jacobian of ``f`` times the vector ``eval_points`` (one per Symbol of ``wrt``): Theano's Rop, a pushforward.

    It is the pullback of the pullback, which is linear in its cotangent (see :func:`twograd.graph.jvp`). A Symbol is
    returned for one of ``f``, a list for a list.
    """
    points, ys = _points(wrt, eval_points), listed(f)
    cts = [apply(jnp.zeros_like, y) for y in ys]
    pulled = gradients(ys, wrt, grad_ys=cts, name="rop", unconnected_gradients="zero")
    pushed = gradients(
        [p for p in pulled if p is not None], cts, grad_ys=points, name="rop", unconnected_gradients="zero"
    )
    return pushed[0] if isinstance(f, Symbol) else pushed


def _points(symbols: Symbols, eval_points: Any) -> list[Any]:
    points = [eval_points] if isinstance(symbols, Symbol) else list(eval_points)
    if len(points) != len(listed(symbols)):
        raise ValueError(f"there must be one eval point for each Symbol: {len(points)} for {len(listed(symbols))}")
    return points


Lop, Rop = lop, rop


def jacobian(expression: Symbol, wrt: Symbols) -> Any:
    """The Jacobian of ``expression`` with respect to ``wrt``, of the shape of the first followed by the second's."""
    return _matrix(functional.jacobian, expression, wrt)


def hessian(cost: Symbol, wrt: Symbols) -> Any:
    """The matrix of second derivatives of a scalar ``cost``; of each Symbol of a list with respect to itself."""
    if cost.ndim:
        raise TypeError(f"cost must be a scalar. {cost} is {cost.type}")
    if not isinstance(wrt, Symbol):
        return [hessian(cost, x) for x in wrt]
    return _matrix(functional.hessian, cost, wrt)


def _matrix(derivative: Callable[..., Any], expression: Symbol, wrt: Symbols) -> Any:
    """One operation that holds the part of the graph between ``wrt`` and ``expression``, and differentiates it."""
    xs = listed(wrt)
    check_differentiable(home_of([expression, *xs]), [expression, *xs])
    part, others = function_of([expression], xs)
    argnums = 0 if isinstance(wrt, Symbol) else tuple(range(len(xs)))

    def matrix(*values):
        return derivative(lambda *operands: part(*operands)[0], argnums)(*values)

    matrix.__name__ = derivative.__name__
    result = apply(matrix, *xs, *others)
    return result if isinstance(wrt, Symbol) else list(result)
