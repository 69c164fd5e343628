"""The checks of arguments and results that both engines' ``grad`` families share, with one text each."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_structure

from twograd.rules import carries_gradient
from twograd.rules.shape import zeros


def check_callable(f: Any, name: str) -> None:
    """Raises TypeError unless ``f`` can be called."""
    if not callable(f):
        raise TypeError(f"{name} expects a function as its first argument, got {type(f).__name__}: {f!r}")


def check_arrays(args: Any, kwargs: Any, name: str) -> None:
    """Raises TypeError for a leaf of the arguments that is no array, number or type of one, naming it."""
    for path, leaf in tree_flatten_with_path((args, kwargs))[0]:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        try:
            jax.typeof(leaf)
        except TypeError:
            which = path[1].key if path[0].idx else f"argument {path[1].idx}"
            raise TypeError(
                f"{name} takes arrays and numbers, but {which}{keystr(path[2:])} is {type(leaf).__name__}: {leaf!r}. A "
                "function can close over what is no array: lambda x: f(x, option)"
            ) from None


def check_tangents(primals: Any, tangents: Any, name: str) -> None:
    """Raises TypeError unless both are tuples or lists, an entry per argument of a function, of matching types."""
    if not (isinstance(primals, (tuple, list)) and isinstance(tangents, (tuple, list))):
        raise TypeError(
            f"{name} takes primals and tangents as tuples, one entry for each argument of the function, got "
            f"{type(primals).__name__} and {type(tangents).__name__}"
        )
    structures = tree_structure(tuple(primals)), tree_structure(tuple(tangents))
    if structures[0] != structures[1]:
        raise TypeError(f"primals and tangents must have one structure, got {structures[0]} and {structures[1]}")
    check_arrays((*primals, *tangents), {}, name)
    for primal, tangent in zip(jax.tree.leaves(primals), jax.tree.leaves(tangents), strict=True):
        p, t = jax.typeof(primal), jax.typeof(tangent)
        if p.shape != t.shape or (carries_gradient(p) and p.dtype != t.dtype):
            raise TypeError(f"a tangent of type {t.str_short()} was given for a primal of type {p.str_short()}")


def argument_positions(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    """``argnums`` as indices into ``count`` positional arguments; TypeError or ValueError where it cannot be."""
    positions = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    for position in positions:
        if not isinstance(position, (int, np.integer)):
            raise TypeError(f"argnums must be an integer or a sequence of integers, got {argnums!r}")
        if not -count <= position < count:
            given = f"{count or 'no'} positional one{'s' * (count != 1)}"
            raise ValueError(f"argnums={argnums} asks for argument {position}; the call has {given}")
    return tuple(int(position) % count for position in positions)


def check_differentiable(argument: Any, position: int, holomorphic: bool, allow_int: bool) -> None:
    """Raises TypeError for a leaf of ``argument`` that has no derivative, naming it."""
    kind = np.complexfloating if holomorphic else np.generic if allow_int else np.inexact
    if all(jax.dtypes.issubdtype(jax.typeof(leaf).dtype, kind) for leaf in jax.tree.leaves(argument)):
        return
    for path, leaf in tree_flatten_with_path(argument)[0]:
        dtype = jax.typeof(leaf).dtype
        name = f"argument {position}{keystr(path)}"
        if holomorphic and not jax.dtypes.issubdtype(dtype, np.complexfloating):
            raise TypeError(f"grad with holomorphic=True needs complex inputs, but {name} has dtype {dtype}")
        if not jax.dtypes.issubdtype(dtype, np.inexact) and not allow_int:
            raise TypeError(
                f"grad needs real or complex inputs, but {name} has dtype {dtype}. Convert it to floating point, leave "
                "it out of argnums, or pass allow_int=True for a zero derivative of dtype float0."
            )


def check_scalar(value: Any, holomorphic: bool) -> None:
    """Raises TypeError unless ``value`` is one real scalar (a complex one if ``holomorphic``)."""
    if tree_structure(value) != tree_structure(0):
        raise TypeError(
            f"grad is defined for functions that return one scalar; this one returned {tree_structure(value)}. "
            "For more outputs use vjp or jacobian; for extra outputs pass has_aux=True."
        )
    aval = jax.typeof(value)
    if aval.shape != ():
        raise TypeError(
            f"grad is defined for functions that return a scalar; this one returned {aval.str_short()}. "
            "Reduce it (a sum or a mean), or use vjp or jacobian."
        )
    kind = np.complexfloating if holomorphic else np.floating
    if not jax.dtypes.issubdtype(aval.dtype, kind):
        hint = "" if holomorphic else " For the derivative of a holomorphic function pass holomorphic=True."
        raise TypeError(f"grad needs a {'complex' if holomorphic else 'real'} output, got {aval.str_short()}.{hint}")


def zero_gradient(aval: Any) -> Any:
    """The zero cotangent of a value of type ``aval``; of dtype ``float0`` where it has no derivative, as in JAX."""
    if carries_gradient(aval):
        return zeros(aval)
    return np.zeros(aval.shape, jax.dtypes.float0)
