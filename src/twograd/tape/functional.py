"""``grad`` and ``value_and_grad`` in JAX's call shapes, on a tape."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd._arguments import argument_positions, check_callable, check_differentiable, check_scalar, zero_gradient
from twograd.rules import carries_gradient
from twograd.tape import autograd
from twograd.tape.modes import enable_grad, is_grad_enabled
from twograd.tape.tensor import Tensor, as_array

Argnums = int | Sequence[int]


def value_and_grad(
    f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, allow_int: bool = False
) -> Callable[..., Any]:
    """A function that returns ``(f(*args), gradient)``, as ``jax.value_and_grad``, by recording ``f`` as it runs.

    ``f`` is given Tensors in place of the arrays in its arguments, so that it may branch on their values; it must
    return a real scalar (a pair ``(scalar, aux)`` with ``has_aux``). Called with arrays it returns arrays. Called with
    a Tensor that requires a gradient, or inside of another function that is being differentiated, it returns Tensors,
    and what it does is recorded in its turn: ``grad(grad(f))`` is the second derivative. No ``.grad`` is touched: a
    Tensor that ``f`` merely closes over is a constant, except for an outer derivative.
    """
    check_callable(f, "value_and_grad")

    @functools.wraps(f)
    def value_and_grad_of_f(*args: Any, **kwargs: Any) -> Any:
        positions = argument_positions(argnums, len(args))
        flat = [tree_flatten(arg) for arg in args]
        given = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        nested = is_grad_enabled() and (_level.depth > 0 or any(leaf.requires_grad for leaf in given))
        variables: dict[int, list[Tensor]] = {}
        tensors = []
        for i, (leaves, tree) in enumerate(flat):
            if i in positions:
                check_differentiable(tree_unflatten(tree, [_array(leaf) for leaf in leaves]), i, False, allow_int)
                leaves = variables[i] = [_variable(leaf, nested) for leaf in leaves]
            else:
                leaves = map(_wrapped, leaves)
            tensors.append(tree_unflatten(tree, leaves))
        with enable_grad(), _level:
            result = f(*tensors, **jax.tree.map(_wrapped, kwargs))
        value, aux = _split_aux(result) if has_aux else (result, None)
        check_scalar(_array(value), False)
        gradients = _gradients(value, variables, nested)
        returned = [tree_unflatten(flat[i][1], gradients[i]) for i in positions]
        gradient = returned[0] if isinstance(argnums, (int, np.integer)) else tuple(returned)
        results = ((value, aux) if has_aux else value, gradient)
        return results if nested else jax.tree.map(_detached if given else _array, results)

    return value_and_grad_of_f


def _gradients(value: Any, variables: dict[int, list[Tensor]], nested: bool) -> dict[int, list[Any]]:
    """The gradients of ``value`` with respect to the ``variables``, zero where it does not depend on them."""
    inputs = [leaf for leaves in variables.values() for leaf in leaves if leaf.requires_grad]
    if not inputs or not isinstance(value, Tensor) or not value.requires_grad:
        return {i: list(map(_zeros, leaves)) for i, leaves in variables.items()}
    found = iter(autograd.grad(value, inputs, create_graph=nested, allow_unused=True))
    gradients = {i: [next(found) if leaf.requires_grad else None for leaf in leaves] for i, leaves in variables.items()}
    return {
        i: [_zeros(x) if g is None else g for x, g in zip(variables[i], gradients[i], strict=True)] for i in variables
    }


class _Level(threading.local):
    """How many functions that are being differentiated this thread is inside of."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *exc_info: Any) -> None:
        self.depth -= 1


_level = _Level()


def grad(
    f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, allow_int: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of ``f`` (a pair ``(gradient, aux)`` with ``has_aux``), as ``jax.grad``."""
    of_f = value_and_grad(f, argnums, has_aux, allow_int)

    @functools.wraps(f)
    def grad_of_f(*args: Any, **kwargs: Any) -> Any:
        value, gradient = of_f(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return grad_of_f


def _array(leaf: Any) -> Any:
    return leaf._data if isinstance(leaf, Tensor) else leaf


def _wrapped(leaf: Any) -> Any:
    return Tensor(leaf) if isinstance(leaf, jax.Array) else leaf


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _variable(leaf: Any, nested: bool) -> Tensor:
    """An argument to differentiate: a new leaf, or, within an outer derivative, a Tensor with the outer's history."""
    if nested and isinstance(leaf, Tensor) and leaf.requires_grad:
        return leaf.clone()  # pyright: ignore[reportAttributeAccessIssue] # another edge, so that only f's uses count
    array = as_array(_array(leaf))
    return Tensor(array, requires_grad=carries_gradient(array.aval))


def _zeros(leaf: Tensor) -> Any:
    zero = zero_gradient(leaf._data.aval)
    return Tensor(zero) if isinstance(zero, jax.Array) else zero


def _split_aux(result: Any) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"with has_aux=True the function must return a pair (output, aux), got {tree_structure(result)}"
        )
    return result
