"""Building: a JAX function of Symbols becomes one operation.

What flows in: a JAX-traceable function and its arguments. What flows out: Symbols, in the structure that the function
returns. Read :func:`apply`; all of ``twograd.numpy``, ``twograd.lax`` and ``twograd.nn.functional`` arrives there.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd._compat import DTYPE_PROMOTION, X64
from twograd.graph.symbolic.container import Graph, Symbol, Type, get_default_graph, home_of, sizes
from twograd.graph.symbolic.text import arguments_of

MAX_CACHED = 4096
OPERAND = object()  # stands for a Symbol among the arguments of a call


def apply(function: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> Any:
    """Adds one operation that calls ``function``, which takes and returns (pytrees of) arrays, on Symbols.

    Arguments that are no Symbols are part of the operation: numbers and arrays as constants, others as structure. The
    function is called once now, with shapes only, and once for every new signature of a run.

    Raises what ``function`` raises on operands of these shapes and dtypes; ValueError for Symbols of several graphs.
    """
    return build(function, args, kwargs, name)


def build(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None) -> Any:
    """:func:`apply`, for a function that may have a keyword ``name`` of its own."""
    leaves, tree = tree_flatten((args, kwargs))
    inputs = [leaf for leaf in leaves if isinstance(leaf, Symbol)]
    graph = home_of(inputs)
    statics = tuple(OPERAND if isinstance(leaf, Symbol) else _constant(leaf) for leaf in leaves)
    call = specialised(function, tree, statics)
    return add(graph, call, inputs, name)


def add(
    graph: Graph,
    call: Callable[..., Any],
    inputs: Sequence[Symbol],
    name: str | None = None,
    writes: Symbol | None = None,
) -> Any:
    """Adds an operation of which the results' types are found by tracing ``call``; returns its outputs."""
    types = tuple(symbol.type for symbol in inputs)
    try:
        out_types, out_tree = infer(call, types)
    except Exception as error:
        arguments = arguments_of(call, [f"{symbol.name}: {symbol.type}" for symbol in inputs])
        error.add_note(f"in the operation {call.__name__}({', '.join(arguments)})")
        raise
    op = graph.add(call.__name__, call, inputs, out_types, name, writes=writes)
    return tree_unflatten(out_tree, op.outputs)


def _constant(leaf: Any) -> Any:
    """An argument that is no Symbol; an array as a copy, as the operation outlives what is done to it."""
    if isinstance(leaf, Tracer):
        raise TypeError(
            f"a Symbol and a JAX tracer ({leaf.aval.str_short()}) meet in one operation. A function given to "
            "twograd.lax takes the Symbols that it uses as operands; graph.symbolic.cond, while_loop and scan also "
            "take functions that close over Symbols."
        )
    if hasattr(type(leaf), "__twograd_function__"):
        raise TypeError(
            f"a Symbol and a {type(leaf).__name__} meet in one operation, but a graph holds no recorded values. Take "
            "the array out of it (`.array`), or feed it."
        )
    return leaf.copy() if type(leaf) is np.ndarray else leaf


def specialised(function: Callable[..., Any], tree: Any, statics: tuple[Any, ...]) -> Callable[..., Any]:
    """``function`` of its Symbols only; the same object for the same structure, so that what it returns is known."""
    try:
        # 1, 1.0 and True are equal, and 0.0 and -0.0, but not the same structure.
        return _specialised_once(function, tree, statics, tuple(map(_identity, statics)))
    except TypeError:  # not hashable
        return _specialised(function, tree, statics)


def _identity(static: Any) -> Any:
    return type(static), repr(static) if type(static) in (float, complex) else None


@functools.lru_cache(MAX_CACHED)
def _specialised_once(function: Callable[..., Any], tree: Any, statics: Any, identities: Any) -> Callable[..., Any]:
    call: Any = _specialised(function, tree, statics)
    call.shared = True
    return call


def _specialised(function: Callable[..., Any], tree: Any, statics: tuple[Any, ...]) -> Callable[..., Any]:
    def arguments(operands: Sequence[Any]) -> Any:
        given = iter(operands)
        return tree_unflatten(tree, [next(given) if leaf is OPERAND else leaf for leaf in statics])

    def call(*operands):
        args, kwargs = arguments(operands)
        return function(*args, **kwargs)

    call.__name__ = getattr(function, "__name__", type(function).__name__).strip("<>")
    known = {leaf for leaf in statics if type(leaf) is int and leaf > 1}
    known.update(*(leaf.shape for leaf in statics if isinstance(leaf, (jax.Array, np.ndarray))))
    call.function, call.arguments = function, arguments  # pyright: ignore[reportFunctionMemberAccess]
    call.sizes = known | getattr(function, "sizes", set())  # pyright: ignore[reportFunctionMemberAccess]
    return call


# --- what an operation returns ----------------------------------------------------------------------------------------

SIZES = (840, 1680)
"""What stands for unknown sizes in two traces. A result's size that is the same in both does not depend on them; the
first is divisible by all of 1 to 8, so that it can be reshaped and strided, and none is likely to be a known size."""
MAX_TRIALS = 64


def infer(call: Callable[..., Any], types: tuple[Type, ...]) -> tuple[tuple[Type, ...], Any]:
    """The types of the leaves of what ``call`` returns on operands of ``types``, and their structure.

    Nothing is computed. Where sizes are unknown, all are first taken to be one size. If that is impossible (a matrix of
    unknown sizes times one of 784 rows), some are taken to be one of the known sizes, as few as will do.
    """
    return _infer_once(call, types, X64.value, DTYPE_PROMOTION.value) if is_shared(call) else _infer(call, types)


def _infer(call: Callable[..., Any], types: tuple[Type, ...], *settings: Any) -> tuple[tuple[Type, ...], Any]:
    small, large = trials(lambda *operands: jax.eval_shape(call, *fitted(call, operands)), types, sizes_in(call))
    leaves, tree = tree_flatten(small)
    found = []
    for a, b in zip(leaves, jax.tree.leaves(large), strict=True):
        shape = tuple(n if n == m else None for n, m in zip(a.shape, b.shape, strict=True))
        found.append(Type(shape, a.dtype, getattr(a, "weak_type", False)))
    return tuple(found), tree


_infer_once = functools.lru_cache(MAX_CACHED)(_infer)


def is_shared(call: Callable[..., Any]) -> bool:
    """Whether equal operations share ``call``. One that holds an array is not shared, lest a cache keep the array."""
    return getattr(call, "shared", False)


def sizes_in(call: Callable[..., Any]) -> Collection[int]:
    """Sizes that occur inside of ``call``, which unknown ones may have to equal."""
    return getattr(call, "sizes", ())


def fitted(call: Callable[..., Any], operands: Sequence[Any]) -> Sequence[Any]:
    """``operands`` without values, of sizes that are possible together, if ``call`` knows which are."""
    return call.fitted(operands) if hasattr(call, "fitted") else operands


def trials(trace: Callable[..., Any], types: Sequence[Type], inside: Collection[int] = ()) -> tuple[Any, Any]:
    """``trace`` of operands in which unknown sizes are small, and of operands in which they are large.

    ``inside`` are sizes that some may have to equal, besides those of other operands. Raises what ``trace`` raises
    where they are all one size, if no other choice works either.
    """
    if all(of.known for of in types):
        result = trace(*avals(types, (), 0))
        return result, result
    unknown = [(i, axis) for i, of in enumerate(types) for axis, size in enumerate(of.shape) if size is None]
    first: Exception | None = None
    for chosen in itertools.islice(_choices(unknown, types, inside), MAX_TRIALS):
        try:
            small, large = (trace(*avals(types, chosen, size)) for size in SIZES)
        except Exception as error:
            first = first or error
            continue
        if tree_structure(small) == tree_structure(large):
            return small, large
    assert first is not None
    first.add_note(f"({SIZES[0]} stands for a size that is not known yet)")
    raise first


def _choices(unknown: list[tuple[int, int]], types: Sequence[Type], inside: Collection[int]) -> Iterator[Any]:
    """Ways to take some of the ``unknown`` axes to have a known size: pairs of an axis and a size, fewest first."""
    known = sorted({1, *inside, *(size for of in types for size in of.shape if size is not None)}, reverse=True)
    for count in range(len(unknown) + 1):
        for axes in itertools.combinations(unknown, count):
            for taken in itertools.product(known, repeat=count):
                yield tuple(zip(axes, taken, strict=True))


def avals(types: Sequence[Type], chosen: Any, size: int) -> list[jax.ShapeDtypeStruct]:
    """Operands without values: a size is what the type says, what was ``chosen`` for its axis, or ``size``."""
    taken = dict(chosen)
    return [
        jax.ShapeDtypeStruct(
            tuple(taken.get((i, axis), size) if n is None else n for axis, n in enumerate(of.shape)),
            of.dtype,
            weak_type=of.weak_type,
        )
        for i, of in enumerate(types)
    ]


# --- sources ----------------------------------------------------------------------------------------------------------


def placeholder(dtype: Any = np.float32, shape: Sequence[int | None] = (), name: str | None = None) -> Symbol:
    """A Symbol whose value is fed at each run.

    A size of None is told by each run's feed. ``dtype`` is JAX's version of what is asked for (32 bits unless
    ``jax_enable_x64`` is set).
    """
    of = Type(checked_shape(shape), canonical(dtype))
    return get_default_graph().add("placeholder", None, (), [of], name).outputs[0]


def checked_shape(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    for size in shape:
        if size is not None and (not isinstance(size, (int, np.integer)) or size < 0):
            raise ValueError(f"a shape is made of sizes, or None for one that is not known yet, got {sizes(shape)}")
    return tuple(None if size is None else int(size) for size in shape)


def canonical(dtype: Any) -> Any:
    """``dtype`` as JAX has it in the present configuration."""
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(dtype)


KINDS = (np.bool_, np.integer, np.floating, np.complexfloating)


def converts(dtype: Any, to: Any) -> bool:
    """Whether a number of ``dtype`` is one of ``to``, up to rounding: a bool, an integer, a real, a complex one."""
    return jax.dtypes.issubdtype(dtype, to) or any(
        jnp.issubdtype(dtype, kind) and any(jnp.issubdtype(to, above) for above in KINDS[i:])
        for i, kind in enumerate(KINDS)
    )


def constant(value: Any, dtype: Any = None, shape: Sequence[int] | None = None, name: str = "constant") -> Symbol:
    """A Symbol with a fixed value; with ``shape``, a scalar repeated to that shape."""
    if isinstance(value, Symbol):
        raise TypeError(f"a constant has a value, which {value} has not")
    array = jax.device_get(jnp.asarray(value, None if dtype is None else canonical(dtype)))
    if shape is not None:
        array = np.broadcast_to(array, shape)

    def constant():
        return jnp.asarray(array)

    constant.arguments = lambda operands: ((array,), {})  # pyright: ignore[reportFunctionMemberAccess]
    of = Type(array.shape, array.dtype)
    return get_default_graph().add("constant", constant, (), [of], name).outputs[0]


def as_symbol(value: Any) -> Symbol:
    """``value`` itself if it is a Symbol, a constant otherwise."""
    return value if isinstance(value, Symbol) else constant(value)


def _same(x: Any) -> Any:
    return jnp.asarray(x)


_same.__name__ = "identity"


def identity(x: Any, name: str | None = None) -> Symbol:
    """The same value under another name, and after the control dependencies of the place where it is built."""
    return apply(_same, as_symbol(x), name=name)


def stop_gradient(x: Any, name: str | None = None) -> Symbol:
    """The same value, through which no derivative flows."""
    return apply(lax.stop_gradient, as_symbol(x), name=name)


Symbol.__twograd_function__ = staticmethod(build)  # pyright: ignore[reportAttributeAccessIssue]
