"""Recording: run a JAX function on Tensors, and remember how to differentiate it.

What flows in: a JAX-traceable function and its operands. What flows out: Tensors with an edge to a new node. Read
:func:`apply`, then :func:`recorder`; everything that one can do with a Tensor, except autograd itself, is a call of it.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd._compat import DTYPE_PROMOTION, MATMUL_PRECISION, X64
from twograd.tape.deferred import Pending, Program
from twograd.tape.lines import here
from twograd.tape.modes import Deferring, Level, Watched, deferring_to, mode
from twograd.tape.node import Edge, Node, next_order
from twograd.tape.plan import RESULT, CompiledPlan
from twograd.tape.primitive import equation_plan, record_primitives
from twograd.tape.tensor import Tensor, as_array, make_tensor
from twograd.tape.value import Value
from twograd.tape.watched import record_watched, unflatten

SCALARS = frozenset({float, int, complex, bool})
PLAIN = frozenset({int, bool, str, type(None)})  # arguments that are structure, if they are not an operand
MAX_FUNCTIONS = 4096  # whose plans are kept; a lambda made anew for each call is a new function each time
MAX_SCALARS = 4096
MAX_CALLS = 4096

NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)

_structural: set[Callable[..., Any]] = {jnp.power, jax.lax.fori_loop, jax.lax.reduce, jax.lax.reduce_window}
"""Functions whose Python numbers are structure: tracing them as data failed, or is not meant."""

_scalars: dict[tuple[Any, ...], Tensor] = {}
_calls: dict[tuple[Any, ...], Callable[..., Any]] = {}
"""By function and structure, where that is plain to see, the op: calls as frequent as ``tnp.sum(x, axis=0)``."""
_recorders: weakref.WeakSet[Any] = weakref.WeakSet()


def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Runs ``function``, which takes and returns (pytrees of) arrays, as one op on Tensors.

    Its forward pass is one compiled call and its pullback another, both made once per signature: the function, the
    operands' shapes and dtypes, and which of them require a gradient. It saves what the rules of its primitives name.

    A Python number is data where it can be (it is traced, so ``x * i`` in a loop compiles once) and structure where it
    must be (an axis, a shape, an integer exponent). Booleans, strings and the like are structure.

    Raises what ``function`` raises on these operands; NoRule on the way back if a derivative is missing.
    """
    return _apply_structured(function, args, kwargs) if kwargs else recorder(function)(*args)


@functools.lru_cache(maxsize=MAX_FUNCTIONS)
def recorder(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as an op of positional operands, with its plans at hand. Tensor's operators are such functions.

    This is the tape's hot path. What it does for each call: look at the operands, find the plan, run it, make a node
    that holds the edges of the operands and the values that the pullback reads, and make a Tensor that points at it.
    """
    plans: dict[tuple[Any, ...], CompiledPlan] = {}
    find = plans.get
    new = object.__new__  # a Tensor or Node without the call of __init__

    @functools.wraps(function)
    def record(*args: Any) -> Any:
        recording = mode.recording
        if type(recording) is Deferring:
            return put_off(recording.level, args)
        key: list[Any] = [recording, X64.value, MATMUL_PRECISION.value, DTYPE_PROMOTION.value]
        values: list[Any] = []
        edges: list[Edge] = []
        for arg in args:
            if type(arg) is not Tensor:
                arg = _constant(function, arg)
                if arg is None:
                    return _apply_structured(function, args, {})
                if arg._inference:
                    key[0] = Watched(recording)  # no plan's, for it must not be saved
            data = arg._data
            values.append(data)
            key.append(data.aval)
            edge = arg._edge
            if edge is not None and recording:
                key.append(True)
                edges.append(edge)
        plan = find(tuple(key))
        if plan is None:
            return unplanned(key, args, values)
        results = plan.forward(*values)
        if plan.positions is None:
            node = None
        else:
            values += results
            node = new(Node)
            node.plan = plan
            node.edges = edges
            node.saved = plan.pick(values)
            node.rare = None
            node.order = next_order()
            node.where = here()
        if not plan.single:
            return unflatten(plan, results, node, [])
        tensor = new(Tensor)
        tensor._data = results[0]
        tensor._edge = None if node is None else (node, 0)
        tensor._alias = None
        return tensor

    def unplanned(key: list[Any], args: tuple[Any, ...], values: list[Any]) -> Any:
        """Comes here if no plan is found: at the first call at a signature, and if the thread is watched."""
        level = key[0]
        watched = type(level) is Watched
        if watched:
            key[0] = level = level.level
        operands = [
            arg if isinstance(arg, Tensor) else make_tensor(v, None) for arg, v in zip(args, values, strict=True)
        ]
        plan = find(tuple(key))
        if plan is None:
            try:
                if level == "primitive":
                    return record_primitives(function, operands)
                wanted = tuple(bool(level) and operand._edge is not None for operand in operands)
                plan = plans[tuple(key)] = CompiledPlan(function, [value.aval for value in values], wanted)
            except Exception as error:
                return _retry_structured(function, args, {}, error)
        return record_watched(function, plan, operands) if watched else record(*args)

    def put_off(level: Level, args: tuple[Any, ...]) -> Any:
        """As ``record``, but the op is only noted, and done together with others when somebody looks."""
        program: Program = mode.program  # pyright: ignore[reportAssignmentType]
        key: list[Any] = [level, X64.value, MATMUL_PRECISION.value, DTYPE_PROMOTION.value]
        values: list[Any] = []
        edges: list[Edge] = []
        at_once = False  # what is traced must not be looked at later
        for arg in args:
            kind = type(arg)
            value = arg._elements if kind is Pending else None
            if type(value) is not Value or value.array is not None or value.program is not program:
                if kind is not Tensor and kind is not Pending:
                    arg = _constant(function, arg)
                    if arg is None:
                        return _apply_structured(function, args, {})
                value = arg._data
                at_once = at_once or isinstance(value, Tracer) or arg._inference
            values.append(value)
            key.append(value.aval)
            edge = arg._edge
            if edge is not None and level:
                key.append(True)
                edges.append(edge)
        plan = find(tuple(key))
        if plan is None or at_once or X64.value is not program.x64:
            with deferring_to(None):
                return record(*args)
        results, node = program.put_off(plan, values, edges)
        if plan.single:
            tensor = new(Pending)
            tensor._elements = results[0]
            tensor._edge = None if node is None else (node, 0)
            tensor._alias = None
            return tensor
        outputs: list[Tensor] = []
        made = unflatten(plan, results, node, outputs)
        for output in outputs:
            output.__class__ = Pending
        return made

    def donating(*args: Any) -> Any:
        """``record`` of operands that need no gradient, in the memory of the first's array, which is lost; None where
        that cannot be."""
        key: list[Any] = [False, X64.value, MATMUL_PRECISION.value, DTYPE_PROMOTION.value]
        values: list[Any] = []
        for arg in args:
            operand = arg if type(arg) is Tensor else _constant(function, arg)
            if operand is None:
                return None
            values.append(operand._data)
            key.append(values[-1].aval)
        plan = find(tuple(key))
        if plan is None or plan.donating is None:
            return None
        return make_tensor(plan.donating(*values)[0], None)

    record.donating = donating  # pyright: ignore[reportAttributeAccessIssue]
    record.plans = plans  # pyright: ignore[reportAttributeAccessIssue]
    _recorders.add(record)
    return record


def clear_caches() -> None:
    """Forgets every plan: the next call of any op traces and compiles as the first did (see ``jax.clear_caches``)."""
    for record in _recorders:
        record.plans.clear()
    equation_plan.cache_clear()


def _constant(function: Callable[..., Any], arg: Any) -> Tensor | None:
    """An operand that is no Tensor, as one; None if it is structure."""
    kind = type(arg)
    if kind in SCALARS:
        return None if kind is bool or function in _structural else _scalar(kind, arg)
    if isinstance(arg, Tensor):
        return arg  # a view whose elements are computed as they are read; see views.py
    if isinstance(arg, (jax.Array, np.ndarray, np.generic)):
        return make_tensor(as_array(arg), None)
    return None


def _scalar(kind: type, value: Any) -> Tensor:
    """A Python number as a weakly typed array on the device; a small cache, for a transfer costs more than an op."""
    key = (kind, value or repr(value), X64.value)  # 0.0 and -0.0 are equal and different numbers
    tensor = _scalars.get(key)
    if tensor is None:
        array = jnp.asarray(value)
        tensor = make_tensor(array, None)
        if len(_scalars) >= MAX_SCALARS:
            _scalars.clear()
        if not isinstance(array, Tracer):
            _scalars[key] = tensor
    return tensor


# --- calls with structure: keywords, lists of Tensors, axes, shapes ---------------------------------------------------


def _apply_structured(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Splits a call into operands and structure, and applies the function specialised to that structure."""
    tensors = [arg for arg in args if type(arg) is Tensor]
    plain = [arg for arg in args if type(arg) is not Tensor]
    plain += kwargs.values()
    types = (*map(type, args), *map(type, plain))
    key = (function, types, *plain, *kwargs) if PLAIN.issuperset(types[len(args) :]) else None
    record = None if key is None else _calls.get(key)
    if record is not None:
        return record(*tensors)
    leaves, tree = tree_flatten((args, kwargs))
    # A number inside a list, and an integer given by keyword, is structure: a shape, an axis.
    numbers = set() if function in _structural else {float, complex}
    may_be_data = [type(a) in numbers or (type(a) is int and bool(numbers)) for a in args for _ in range(_count(a))]
    may_be_data += [type(kwargs[k]) in numbers for k in sorted(kwargs) for _ in range(_count(kwargs[k]))]
    operands, structure = [], []
    for leaf, may_be in zip(leaves, may_be_data, strict=True):
        is_data = may_be or isinstance(leaf, (Tensor, jax.Array, np.ndarray, np.generic))
        if is_data:
            operands.append(leaf)
        structure.append(RESULT if is_data else leaf)
    try:
        # 1, 1.0 and True are equal, but not the same structure: the types belong to the key.
        specialised = _specialise(function, tree, tuple(structure), tuple(map(type, structure)))
    except TypeError:
        raise TypeError(
            f"{_name(function)}: an argument that is neither an array nor a number must be hashable, to be part of the "
            f"op's signature; got {', '.join(type(s).__name__ for s in structure if s is not RESULT)}"
        ) from None
    record = recorder(specialised)
    if key is not None and len(operands) == len(tensors):
        if len(_calls) >= MAX_CALLS:
            _calls.clear()
        _calls[key] = record
    try:
        return record(*operands)
    except Exception as error:
        return _retry_structured(function, args, kwargs, error)


def _retry_structured(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> Any:
    """Tracing failed with Python numbers as data: takes them as structure, and remembers it if that works."""
    numbers = SCALARS.intersection(map(type, (*args, *kwargs.values())))
    if isinstance(error, NEEDS_VALUES) and not kwargs and not numbers:
        return _apply_by_value(function, args, error)
    if function in _structural or not numbers - {bool}:
        raise _explained(error, function, args, kwargs)
    _structural.add(function)
    try:
        return _apply_structured(function, args, kwargs)
    except Exception as second:
        _structural.discard(function)
        raise _explained(second, function, args, kwargs) from None


def _apply_by_value(function: Callable[..., Any], args: tuple[Any, ...], error: Exception) -> Any:
    """For a function that looks at values (``nonzero``: they decide a shape): what needs no gradient is constant in it.

    Nothing is compiled or cached, since another call has other values.
    """
    constant = [not (mode.enabled and isinstance(arg, Tensor) and arg.requires_grad) for arg in args]
    if constant and not any(constant):
        raise _explained(error, function, args, {})
    arrays = [arg._data if isinstance(arg, Tensor) else arg for arg in args]

    def by_value(*operands):
        given = iter(operands)
        with jax.ensure_compile_time_eval():  # what is computed from constants only has a value, also in a trace
            return function(*[a if fixed else next(given) for a, fixed in zip(arrays, constant, strict=True)])

    by_value.__name__ = _name(function)
    operands = [arg for arg, fixed in zip(args, constant, strict=True) if not fixed]
    if operands:
        return recorder.__wrapped__(by_value)(*operands)
    return jax.tree.map(lambda x: make_tensor(x, None) if isinstance(x, jax.Array) else x, by_value())


@functools.lru_cache(maxsize=MAX_FUNCTIONS)
def _specialise(
    function: Callable[..., Any], tree: Any, structure: tuple[Any, ...], types: tuple[type, ...]
) -> Callable[..., Any]:
    """``function`` of its operands only; the same object for the same structure, as its plans belong to it."""

    @functools.wraps(function)
    def specialised(*operands):
        given = iter(operands)
        args, kwargs = tree_unflatten(tree, [next(given) if leaf is RESULT else leaf for leaf in structure])
        return function(*args, **kwargs)

    return specialised


def _count(argument: Any) -> int:
    return tree_structure(argument).num_leaves


ALIGNED = "Shapes are aligned from the right, and there sizes must be equal or 1: see reshape, unsqueeze, mT."
SUMMED_OVER = "The sizes that are summed over must be equal: see mT, transpose, reshape."
HINTS = {  # by a word of the error, JAX's or PyTorch's
    "broadcast": ALIGNED,
    "must match the size": ALIGNED,
    "contracting": SUMMED_OVER,
    "cannot be multiplied": SUMMED_OVER,
    "dtype": "Other dtypes: x.float(), x.int(), x.bool(), x.to(dtype).",
}


def _explained(error: Exception, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception:
    """``error`` with a note of the op, its operands' types, and what to do about some frequent mistakes."""
    given = [str(jax.tree.map(_type_of, arg)) for arg in args]
    given += (f"{name}={jax.tree.map(_type_of, value)}" for name, value in kwargs.items())
    hints = [hint for word, hint in HINTS.items() if word in str(error)]
    if isinstance(error, NEEDS_VALUES):
        hints = ["A value that decides a shape, or that Python branches on, must not require a gradient: x.detach()."]
    # What an inner call has noted says less: it has the operands only.
    error.__notes__ = [note for note in getattr(error, "__notes__", ()) if not note.startswith("In the op ")]
    error.add_note(" ".join([f"In the op {_name(function)}({', '.join(given)}).", *hints[:1]]))
    return error


def _type_of(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return argument._data.aval.str_short()
    return jax.typeof(argument).str_short() if isinstance(argument, (jax.Array, np.ndarray)) else repr(argument)


def _name(function: Any) -> str:
    return getattr(function, "__name__", repr(function))


def _hand_on(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return apply(function, *args, **kwargs)


Tensor.__twograd_function__ = staticmethod(_hand_on)  # pyright: ignore[reportAttributeAccessIssue]
