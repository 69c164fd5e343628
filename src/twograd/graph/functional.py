"""Derivatives of functions: ``grad`` and its family, in JAX's call shapes.

What flows in: a JAX-traceable function. What flows out: a function of the same arguments. Read :func:`vjp` and
:func:`value_and_grad` first. Called on arrays, such a function is traced and differentiated once per signature of its
arguments, compiled and cached; called under somebody's trace (``jax.jit``, ``jax.vmap``, another derivative) it emits
its equations there and nothing else. So all of them compose with JAX's transformations and with each other.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr
from jax.tree_util import (
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_map,
    tree_structure,
    tree_unflatten,
)

from twograd import rules
from twograd._arguments import (
    argument_positions,
    check_arrays,
    check_callable,
    check_differentiable,
    check_scalar,
    check_tangents,
    zero_gradient,
)
from twograd._compat import check_leaks, is_traced
from twograd.graph.advice import definition, explain, explaining
from twograd.graph.passes.checking import described
from twograd.graph.references import without_references
from twograd.graph.transform import backward_pass, forward_pass

Argnums = int | Sequence[int]


def compiled(transform: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """Lets what ``transform(f, ...)`` returns be compiled when it is called on arrays, and inlined under a trace.

    The compiled function counts how often it was traced (``.traces``), tells the signatures (``.signatures``), and why
    it was traced again each time (``.retraces``).
    """

    @functools.wraps(transform)
    def transformed(f, *settings, **options):
        emit = transform(f, *settings, **options)
        signatures: list[Any] = []

        def traced(*args, **kwargs):
            signatures.append(jax.tree.map(jax.typeof, (args, kwargs)))
            return emit(*args, **kwargs)

        jitted = jax.jit(traced)

        def called(*args, **kwargs):
            if is_traced():
                return emit(*args, **kwargs)
            try:
                return jitted(*args, **kwargs)
            except jax.errors.UnexpectedTracerError as error:
                explain(error, f)
                raise
            except TypeError:
                check_arrays(args, kwargs, f"the derivative of {definition(f)}")
                raise

        derivative: Any = functools.wraps(f)(called)
        derivative.signatures = lambda: [signature_of(*types) for types in signatures]
        derivative.traces = lambda: len(signatures)
        derivative.retraces = lambda: [why(types, signatures[:i]) for i, types in enumerate(signatures) if i]
        derivative.lower = jitted.lower
        derivative.trace = jitted.trace
        return derivative

    return transformed


def signature_of(args: Any, kwargs: Any) -> str:
    """The types of all arguments, as one line."""
    leaves, _ = tree_flatten_with_path((args, kwargs))
    return ", ".join(f"{keystr(path[1:])}: {described(aval)}" for path, aval in leaves)


def why(types: Any, known: Sequence[Any]) -> str:
    """What is new about the arguments' ``types``, compared with the ``known`` ones that differ in the fewest places."""
    differences = [_differences(types, other) for other in known]
    nearest = min(differences, key=len)
    return "; ".join(nearest) or "the same types, under other settings of JAX (x64, matmul precision, promotion ...)"


def _differences(types: Any, known: Any) -> list[str]:
    leaves, structure = tree_flatten_with_path(types)
    if structure != tree_structure(known):
        return [f"the structure of the arguments is {structure}, and was {tree_structure(known)}"]
    return [
        f"{keystr(path[1:])} is {described(new)}, and was {described(old)}"
        for (path, new), old in zip(leaves, jax.tree.leaves(known), strict=True)
        if new != old
    ]


@contextlib.contextmanager
def blaming(f: Callable[..., Any]) -> Iterator[None]:
    """Notes in an error that is raised within which function was being differentiated."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"in the derivative of {definition(f)}")
        raise


# --- the pullback -----------------------------------------------------------------------------------------------------


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of ``f`` at ``primals`` and its pullback there, as ``jax.vjp``.

    Returns ``(out, pullback)``, or ``(out, pullback, aux)`` with ``has_aux``. ``pullback(ct)`` takes a cotangent of the
    structure of ``out`` and returns a tuple of cotangents, one per primal; an integer operand's has dtype ``float0``.
    ``f`` is evaluated now, and what the rules name is kept for the pullback, which may be called many times.

    Raises TypeError for what is no array, and for a cotangent of another structure, shape or dtype than ``out``;
    NoRule, when the pullback is called, where a cotangent arrives at an equation that has no derivative.
    """
    check_callable(f, "vjp")
    check_arrays(primals, {}, "vjp")
    return pulled_back(f, primals, has_aux, without_references)


def pulled_back(
    f: Callable[..., Any], primals: Sequence[Any], has_aux: bool, prepared: Callable[[ClosedJaxpr], ClosedJaxpr]
) -> tuple[Any, ...]:
    """:func:`vjp` of what ``prepared`` makes of the traced function."""
    leaves, in_tree = tree_flatten(tuple(primals))
    wanted = [rules.carries_gradient(jax.typeof(leaf)) for leaf in leaves]
    out, pull, aux = _linearized(f, primals, {}, wanted, has_aux, prepared)
    out_leaves, out_tree = tree_flatten(out)

    def pullback(ct):
        ct_leaves, ct_tree = tree_flatten(ct)
        if ct_tree != out_tree:
            raise TypeError(f"vjp: the cotangent has structure {ct_tree}, the output has {out_tree}")
        checked = [_check_cotangent(c, jax.typeof(o)) for c, o in zip(ct_leaves, out_leaves, strict=True)]
        in_cts = pull(checked)
        return tree_unflatten(in_tree, [_instantiate(c, leaf) for c, leaf in zip(in_cts, leaves, strict=True)])

    return (out, pullback, aux) if has_aux else (out, pullback)


def _linearized(f, args, kwargs, wanted, has_aux, prepared=without_references):
    """Evaluates ``f`` and returns ``(out, pull, aux)``; ``pull`` maps cotangent leaves to those of all arguments."""
    call = functools.partial(f, **kwargs) if kwargs else f
    with explaining(f):
        closed, shape = jax.make_jaxpr(call, return_shape=True)(*args)
        check_leaks(closed.consts)
    closed = prepared(closed)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
    outs, applications = forward_pass(closed.jaxpr, closed.consts, leaves, wanted)
    result = tree_unflatten(tree_structure(shape), outs)
    with blaming(f):
        if has_aux and not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"with has_aux=True the function must return a pair (output, aux), got {shape}")
    out, aux = result if has_aux else (result, None)
    num_aux = len(jax.tree.leaves(aux))

    def pull(cts):
        return backward_pass(closed.jaxpr, list(applications), [*cts, *[None] * num_aux])

    return out, pull, aux


def _check_cotangent(ct, aval):
    """``ct`` for an output of type ``aval``; None where that output has no derivative."""
    if not rules.carries_gradient(aval):
        return None
    found = jax.typeof(ct)
    if found.shape != aval.shape or found.dtype != aval.dtype:
        raise TypeError(
            f"vjp: a cotangent of type {found.str_short()} was given for an output of type {aval.str_short()}; "
            "shape and dtype must be the same"
        )
    return ct


def _instantiate(ct, primal):
    """``ct`` as what the caller gets for ``primal``: a symbolic zero as an array; weakly typed if ``primal`` is."""
    aval = jax.typeof(primal)
    ct = zero_gradient(aval) if ct is None else ct
    if not rules.carries_gradient(aval) or jax.typeof(ct).weak_type == aval.weak_type:
        return ct
    return lax.convert_element_type_p.bind(ct, new_dtype=aval.dtype, weak_type=aval.weak_type, sharding=None)


# --- gradients --------------------------------------------------------------------------------------------------------


def _value_and_grad(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    check_callable(f, "value_and_grad")

    def value_and_grad_of_f(*args, **kwargs):
        with blaming(f):
            positions = argument_positions(argnums, len(args))
            for position in positions:
                check_differentiable(args[position], position, holomorphic, allow_int)
        wanted = [
            i in positions and rules.carries_gradient(jax.typeof(leaf))
            for i, argument in enumerate(args)
            for leaf in jax.tree.leaves(argument)
        ]
        value, pull, aux = _linearized(f, args, kwargs, wanted, has_aux)
        with blaming(f):
            seed = _seed(value, holomorphic)
        in_cts = iter(pull([seed]))
        cts = [[next(in_cts) for _ in jax.tree.leaves(argument)] for argument in args]
        grads = tuple(
            tree_unflatten(
                tree_structure(args[i]),
                [_instantiate(*pair) for pair in zip(cts[i], jax.tree.leaves(args[i]), strict=True)],
            )
            for i in positions
        )
        grads = grads[0] if isinstance(argnums, int) else grads
        return ((value, aux), grads) if has_aux else (value, grads)

    return value_and_grad_of_f


@compiled
def value_and_grad(f, argnums=0, has_aux=False, holomorphic=False, allow_int=False):
    """A function that returns ``(f(*args), gradient)``, as ``jax.value_and_grad``.

    ``f`` must return a real scalar (a pair ``(scalar, aux)`` with ``has_aux``; a complex one with ``holomorphic``). The
    gradient has the structure, shapes and dtypes of the argument at ``argnums`` (a tuple of them if ``argnums`` is a
    sequence). With ``allow_int`` an argument may hold integers; their gradient is zero, of dtype ``float0``.

    Raises TypeError where the output is no scalar or an argument holds integers, ValueError for argnums out of range,
    NoRule for an equation that has no derivative, NotReversible for a loop of unknown length.
    """
    return _value_and_grad(f, argnums, has_aux, holomorphic, allow_int)


@compiled
def grad(f, argnums=0, has_aux=False, holomorphic=False, allow_int=False):
    """A function that returns the gradient of ``f`` (a pair ``(gradient, aux)`` with ``has_aux``), as ``jax.grad``.

    ``f`` and the gradient are those of :func:`value_and_grad`, and so are the errors. Called on arrays, it is traced
    and compiled once per signature: ``.traces()`` counts, ``.signatures()`` lists, ``.retraces()`` says why.
    """
    check_callable(f, "grad")
    of_f = _value_and_grad(f, argnums, has_aux, holomorphic, allow_int)

    def grad_of_f(*args, **kwargs):
        value, gradient = of_f(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return grad_of_f


def _seed(value, holomorphic):
    """The cotangent 1 of a scalar result."""
    check_scalar(value, holomorphic)
    (leaf,) = jax.tree.leaves(value)
    return lax.full((), 1, jax.typeof(leaf).dtype)


# --- matrices of derivatives ------------------------------------------------------------------------------------------


@compiled
def jacobian(f, argnums=0, has_aux=False, holomorphic=False, allow_int=False):
    """A function that returns the Jacobian of ``f``, row by row in reverse mode, as ``jax.jacrev``.

    Its structure is that of the output, each leaf holding one of the argument; the shape of an entry is the output
    leaf's followed by the argument leaf's. Arguments are those of :func:`value_and_grad`. Raises TypeError where an
    argument or the output holds integers, and what :func:`value_and_grad` raises.
    """
    check_callable(f, "jacobian")

    def jacobian_of_f(*args, **kwargs):
        with blaming(f):
            positions = argument_positions(argnums, len(args))
            for position in positions:
                check_differentiable(args[position], position, holomorphic, allow_int)

        def partial_f(*chosen):
            full = list(args)
            for position, argument in zip(positions, chosen, strict=True):
                full[position] = argument
            return f(*full, **kwargs)

        chosen = tuple(args[i] for i in positions)
        out, pullback, *aux = vjp(partial_f, *chosen, has_aux=has_aux)
        leaves, out_tree = tree_flatten(out)

        def rows(index):
            aval = jax.typeof(leaves[index])
            basis = jnp.eye(aval.size, dtype=aval.dtype).reshape(aval.size, *aval.shape)
            zeros = [lax.full_like(leaf, 0) for leaf in leaves]

            def row(ct):
                return pullback(tree_unflatten(out_tree, [*zeros[:index], ct, *zeros[index + 1 :]]))

            cts = jax.vmap(row)(basis)
            cts = tree_map(lambda ct: ct.reshape(*aval.shape, *ct.shape[1:]), cts)
            return cts[0] if isinstance(argnums, int) else cts

        for leaf in leaves:
            if not rules.carries_gradient(jax.typeof(leaf)):
                raise TypeError(f"jacobian needs real or complex outputs, got {jax.typeof(leaf).str_short()}")
        matrix = tree_unflatten(out_tree, [rows(i) for i in range(len(leaves))])
        return (matrix, *aux) if has_aux else matrix

    return jacobian_of_f


def hessian(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False):
    """A function that returns the Hessian of ``f``: the Jacobian of its Jacobian, as ``jax.hessian``.

    Its structure is that of the output, each leaf holding a matrix of argument by argument; the shape of an entry is
    the output leaf's followed by twice the argument leaf's. Raises what :func:`jacobian` does.
    """
    check_callable(f, "hessian")
    return jacobian(jacobian(f, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)


def hvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian of a scalar ``f`` at ``primals`` times ``tangents``: a tuple like ``primals``.

    Computed as the gradient of the product of gradient and vector, at the cost of a few gradients and never as a
    matrix (B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994). ``primals`` and ``tangents`` are tuples
    with an entry for each argument of ``f``, of the same structure, shapes and dtypes.

    Raises TypeError where they are not, and where ``f`` returns no real scalar.
    """
    check_callable(f, "hvp")
    check_tangents(primals, tangents, "hvp")
    everything = tuple(range(len(primals)))

    @functools.wraps(f)  # which is what errors name
    def slope(*point):
        gradient = _value_and_grad(f, everything)(*point)[1]
        products = tree_map(lambda g, t: jnp.sum(g * t), gradient, tuple(tangents))
        return jax.tree.reduce(lax.add, products)

    return grad(slope, everything)(*primals)
