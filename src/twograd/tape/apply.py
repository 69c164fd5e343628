"""Recording: run a JAX function on Tensors, and remember how to differentiate it.

What flows in: a JAX-traceable function and its operands. What flows out: Tensors with an edge to a new node. Read
:func:`apply` first; everything that one can do with a Tensor, except autograd itself, is a call of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd._compat import X64
from twograd.tape.modes import mode
from twograd.tape.node import Edge, Node
from twograd.tape.plan import RESULT, CompiledPlan
from twograd.tape.primitive import record_primitives
from twograd.tape.tensor import Tensor, make_tensor

SCALARS = frozenset({float, int, complex, bool})
MAX_CACHED_SCALARS = 4096

new_tensor = object.__new__  # without __init__: this is the one line that runs for every op

_plans: dict[tuple[Any, ...], CompiledPlan] = {}
_scalars: dict[tuple[Any, ...], Tensor] = {}
_specialised: dict[tuple[Any, ...], Callable[..., Any]] = {}
# Functions whose Python numbers are structure: tracing them as data failed.
_structural: set[Callable[..., Any]] = {jnp.power}


def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs ``function``, which takes and returns (pytrees of) arrays, as one op on Tensors.

    Its forward pass is one compiled call and its pullback another, both made once per signature: the function, the
    operands' shapes and dtypes, and which of them require a gradient. It saves what the rules of its primitives name.

    A Python number is data where it can be (it is traced, so ``x * i`` in a loop compiles once) and structure where it
    must be (an axis, a shape, an integer exponent). Booleans, strings and the like are structure.

    Raises what ``function`` raises on these operands, and NoRule if a derivative is missing.
    """
    if kwargs:
        return _apply_structured(function, args, kwargs)
    recording = mode.recording
    key: list[Any] = [function, recording, X64.value]
    arrays: list[Any] = []
    edges: list[Edge] = []
    for arg in args:
        if type(arg) is not Tensor:
            operand = _constant(function, arg)
            if operand is None:
                return _apply_structured(function, args, kwargs)
            arg = operand
        data = arg._data
        arrays.append(data)
        key.append(data.aval)
        edge = arg._edge
        if edge is not None and recording:
            key.append(True)
            edges.append(edge)
    plan = _plans.get(tuple(key))
    if plan is None:
        if recording == "primitive":
            return record_primitives(function, arrays, [a._edge if type(a) is Tensor else None for a in args])
        try:
            plan = _plans[tuple(key)] = _new_plan(function, args, arrays, recording)
        except Exception:
            if SCALARS.isdisjoint(map(type, args)):
                raise
            return _retry_structured(function, args)
    results = plan.forward(*arrays)
    arrays += results
    node = None if plan.positions is None else Node(plan, tuple(edges), plan.pick(arrays))
    if not plan.single:
        return _unflatten(plan, results, node)
    tensor = new_tensor(Tensor)
    tensor._data = results[0]
    tensor._edge = None if node is None else (node, 0)
    return tensor


def _constant(function: Callable[..., Any], arg: Any) -> Tensor | None:
    """An operand that is no Tensor, as one; None if it is structure."""
    kind = type(arg)
    if kind in SCALARS:
        return None if kind is bool or function in _structural else _scalar(kind, arg)
    if isinstance(arg, (jax.Array, np.ndarray, np.generic)):
        return make_tensor(jnp.asarray(arg), None)
    return None


def _new_plan(function, args, arrays, recording) -> CompiledPlan:
    wanted = tuple(recording and type(arg) is Tensor and arg._edge is not None for arg in args)
    return CompiledPlan(function, [array.aval for array in arrays], wanted)


def _unflatten(plan: CompiledPlan, results: list[Any], node: Node | None) -> Any:
    """The results in the structure that the function returned them in."""
    outs = iter(range(plan.num_outs))
    leaves = []
    for leaf in plan.leaves:
        if leaf is RESULT:
            i = next(outs)
            leaf = make_tensor(results[i], (node, i) if node is not None and plan.differentiable[i] else None)
        leaves.append(leaf)
    return tree_unflatten(plan.out_tree, leaves)


def _scalar(kind: type, value: Any) -> Tensor:
    """A Python number as a weakly typed array on the device; a small cache, for a transfer costs more than an op."""
    key = (kind, value, X64.value)
    tensor = _scalars.get(key)
    if tensor is None or not value:  # 0.0 and -0.0 are equal keys and different numbers
        array = jnp.asarray(value)
        tensor = make_tensor(array, None)
        if len(_scalars) >= MAX_CACHED_SCALARS:
            _scalars.clear()
        if not isinstance(array, jax.core.Tracer):
            _scalars[key] = tensor
    return tensor


# --- calls with structure: keywords, lists of Tensors, axes, shapes ---------------------------------------------------


def _apply_structured(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Splits a call into operands and structure, and applies the function specialised to that structure."""
    leaves, tree = tree_flatten((args, kwargs))
    # A number inside a list, and an integer given by keyword, is structure: a shape, an axis.
    numbers = set() if function in _structural else {float, complex}
    may_be_data = [type(a) in numbers or (type(a) is int and bool(numbers)) for a in args for _ in range(_count(a))]
    may_be_data += [type(kwargs[k]) in numbers for k in sorted(kwargs) for _ in range(_count(kwargs[k]))]
    operands, structure = [], []
    for leaf, may_be in zip(leaves, may_be_data, strict=True):
        is_data = may_be or type(leaf) is Tensor or isinstance(leaf, (jax.Array, np.ndarray, np.generic))
        if is_data:
            operands.append(leaf)
        structure.append(RESULT if is_data else leaf)
    try:
        return apply(_specialise(function, tree, tuple(structure)), *operands)
    except Exception:
        if function in _structural or SCALARS.isdisjoint(map(type, operands)):
            raise
        return _retry_structured(function, args, kwargs)


def _count(argument: Any) -> int:
    return tree_structure(argument).num_leaves


def _retry_structured(function, args, kwargs=None) -> Any:
    """Tracing failed with Python numbers as data: take them as structure, and remember it if that works."""
    _structural.add(function)
    try:
        return _apply_structured(function, args, kwargs or {})
    except Exception:
        _structural.discard(function)
        raise


def _specialise(function: Callable[..., Any], tree: Any, structure: tuple[Any, ...]) -> Callable[..., Any]:
    """``function`` of its operands only; the same object for the same structure, as it is part of a plan's key."""
    # 1, 1.0 and True are equal, but not the same structure: the types belong to the key.
    key = (function, tree, structure, tuple(map(type, structure)))
    try:
        known = _specialised.get(key)
    except TypeError:
        raise TypeError(
            f"{getattr(function, '__name__', function)}: an argument that is neither an array nor a number must be "
            f"hashable, to be part of the op's signature; got {[s for s in structure if s is not RESULT]}"
        ) from None
    if known is None:

        @functools.wraps(function)
        def specialised(*operands):
            given = iter(operands)
            args, kwargs = tree_unflatten(tree, [next(given) if leaf is RESULT else leaf for leaf in structure])
            return function(*args, **kwargs)

        known = _specialised[key] = specialised
    return known


def _hand_on(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return apply(function, *args, **kwargs)


Tensor.__twograd_function__ = staticmethod(_hand_on)  # pyright: ignore[reportAttributeAccessIssue]
