"""``grad`` and ``value_and_grad`` in JAX's call shapes, on a tape."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd._arguments import argument_positions, check_callable, check_differentiable, check_scalar, zero_gradient
from twograd.rules import carries_gradient
from twograd.tape import autograd
from twograd.tape.modes import enable_grad
from twograd.tape.tensor import Tensor

Argnums = int | Sequence[int]


def value_and_grad(
    f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, allow_int: bool = False
) -> Callable[..., Any]:
    """A function that returns ``(f(*args), gradient)``, as ``jax.value_and_grad``, by recording ``f`` as it runs.

    ``f`` is given Tensors in place of the arrays in its arguments, so that it may branch on their values; it must
    return a real scalar (a pair ``(scalar, aux)`` with ``has_aux``). Called with arrays it returns arrays. Called with
    Tensors it returns Tensors, and what it does is recorded in its turn: ``grad(grad(f))`` is the second derivative.
    """
    check_callable(f, "value_and_grad")

    @functools.wraps(f)
    def value_and_grad_of_f(*args: Any, **kwargs: Any) -> Any:
        positions = argument_positions(argnums, len(args))
        flat = [tree_flatten(arg) for arg in args]
        nested = any(isinstance(leaf, Tensor) for leaves, _ in flat for leaf in leaves)
        variables: dict[int, list[Any]] = {}
        tensors = []
        for i, (leaves, tree) in enumerate(flat):
            if i in positions:
                check_differentiable(tree_unflatten(tree, [_array(leaf) for leaf in leaves]), i, False, allow_int)
                leaves = variables[i] = [_variable(leaf) for leaf in leaves]
            else:
                leaves = [Tensor(leaf) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
            tensors.append(tree_unflatten(tree, leaves))
        with enable_grad():
            result = f(*tensors, **kwargs)
            value, aux = _split_aux(result) if has_aux else (result, None)
            check_scalar(_array(value), False)
            inputs = [leaf for leaves in variables.values() for leaf in leaves if leaf.requires_grad]
            grads: dict[Tensor, Any] = {}
            if isinstance(value, Tensor) and value.requires_grad and inputs:
                found = autograd.grad(value, inputs, create_graph=nested, allow_unused=True)
                grads = {leaf: g for leaf, g in zip(inputs, found, strict=True) if g is not None}
        give = (lambda x: x) if nested else _array
        gradients = [
            tree_unflatten(flat[i][1], [give(grads[x] if x in grads else _zeros(x)) for x in variables[i]])
            for i in positions
        ]
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        value = give(value)
        return ((value, jax.tree.map(give, aux)), gradient) if has_aux else (value, gradient)

    return value_and_grad_of_f


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


def _variable(leaf: Any) -> Tensor:
    """An argument to differentiate: a new leaf, or, within an outer derivative, a Tensor with the outer's history."""
    if isinstance(leaf, Tensor) and leaf.requires_grad:
        return leaf.clone()  # pyright: ignore[reportAttributeAccessIssue] # another edge, so that only f's uses count
    array = jnp.asarray(_array(leaf))
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
