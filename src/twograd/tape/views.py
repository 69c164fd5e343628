"""Views: Tensors that show elements of another, over arrays that cannot change.

What flows in: a Tensor and a function that picks or rearranges its elements. What flows out: a Tensor that sees each
change in place of the other, and the other way round. Read :func:`view`, :class:`Stale`, then :func:`write`.

A view is its base and the functions that lead to it. A write through it is a write of the whole base, by the inverse
of these functions, which is found by transposing them; so the base's history gains a node, as PyTorch's ``CopySlices``.
Of the other Tensors that show the storage each forgets its elements, and computes them, and its history, from the base
when it is next looked at.
"""

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.apply import apply, recorder
from twograd.tape.deferred import Pending
from twograd.tape.modes import enable_grad, mode, no_grad
from twograd.tape.node import Edge, rarely
from twograd.tape.plan import node_name
from twograd.tape.storage import INFERENCE, NO_GRAD, Alias, Path, Refusal, Retained, alias_of, supersede, type_name
from twograd.tape.tensor import Tensor

MAX_PATHS = 4096
MAX_TOGETHER = 64  # views that one op returns; beyond, to compile it costs more than as many calls

LEAF = "a leaf Variable that requires grad is being used in an in-place operation."
VIEW_OF_LEAF = f"a view of {LEAF}"
AMBIGUOUS = (
    "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both "
    "the view and the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or "
    "both outside (if you want the inplace to be tracked)."
)
SEVERAL = (
    "This view is the output of a function that returns multiple views. Such functions do not allow the output views "
    "to be modified inplace. You should replace the inplace operation by an out-of-place one."
)
CUSTOM = (
    "This view was created inside a custom Function (or because an input was returned as-is) and the autograd logic to "
    "handle view+inplace would override the custom backward associated with the custom Function, leading to incorrect "
    "gradients. This behavior is forbidden. You can fix this by cloning the output of the custom Function."
)
IS_CHANGED, WAS_CHANGED = "is being", "its base or another view of its base has been"


def _refused(refusal: Refusal, what: str) -> RuntimeError:
    """PyTorch's error for a view that must not be changed in place, or whose base must not have been."""
    if refusal.custom:
        text = f"Output {refusal.output_nr} of {refusal.name} is a view and {what} modified inplace."
        return RuntimeError(f"{text} {CUSTOM}")
    if refusal.inference:
        text = f"A view was created in inference mode and {what} modified inplace in normal mode."
        return RuntimeError(f"{text} {AMBIGUOUS.replace('no_grad', 'inference_mode')}")
    if not refusal.name:
        text = f"A view was created in no_grad mode and {what} modified inplace with grad mode enabled."
    elif refusal.several:
        text = f"Output {refusal.output_nr} of {refusal.name} is a view and {what} modified inplace."
    else:
        text = (
            f"Output {refusal.output_nr} of {refusal.name} is a view of a view which was created in no_grad mode and "
            f"{what} modified inplace with grad mode enabled."
        )
    return RuntimeError(f"{text} {SEVERAL if refusal.several else AMBIGUOUS}")


class Stale(Tensor):
    """A Tensor whose storage was changed through another: its elements, or its history, are computed when looked at.

    It is a class of its own so that asking whether this is needed costs other Tensors nothing: the slots are deleted,
    and Python calls ``__getattr__`` for what is missing.
    """

    __slots__ = ()
    _fresh = Tensor

    @property
    def requires_grad(self) -> bool:
        """As of every Tensor. It is known without the history, so asking is no error where the history is refused."""
        if _has(self, "_edge"):
            return self._edge is not None
        alias = self._alias
        return alias is not None and alias.base is not None and alias.base.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        Tensor.requires_grad.__set__(self, value)

    def __getattr__(self, name: str) -> Any:
        alias = self._alias
        if alias is None or name not in ("_data", "_edge", "_elements"):
            raise AttributeError(f"'Tensor' object has no attribute {name!r}")
        if name != "_edge":
            with no_grad():
                self._data = shown(self, None, Tensor(alias.storage.array))._data
            alias.storage.add(self, alias.counter)
        elif alias.refusal is not None and not mode.enabled:
            return None  # what is not recorded asks for no history, and may read a view that has none any more
        else:
            self._edge = _regenerated(self, alias)
            _retain(self._edge, alias.retained)
            alias.retained = None
        if _has(self, "_data") and _has(self, "_edge"):
            self.__class__ = self._fresh  # pyright: ignore[reportAttributeAccessIssue]
        return object.__getattribute__(self, name)


Tensor._stale = Stale
Stale.__name__ = Stale.__qualname__ = "Tensor"


def _has(tensor: Tensor, slot: str) -> bool:
    try:
        object.__getattribute__(tensor, slot)
    except AttributeError:
        return False
    return True


def _regenerated(tensor: Tensor, alias: Alias) -> Any:
    base = alias.base
    if base is None or base._edge is None:
        return None
    if alias.refusal is not None:
        raise _refused(alias.refusal, WAS_CHANGED)
    with enable_grad():
        return shown(tensor, alias.start, base)._edge


# --- making views -----------------------------------------------------------------------------------------------------


def view(x: Tensor, function: Callable[..., Any], *operands: Any, in_row: bool = False) -> Tensor:
    """``function`` of ``x`` and operands that carry no gradient, as a view of ``x``.

    The function must be linear in ``x``: each element of its result is one of ``x``. ``in_row`` says that it leaves
    them all in their order, as a reshape does.
    """
    refusal = None if mode.enabled else INFERENCE if mode.inference else NO_GRAD
    return attached(recorder(function)(x, *operands), x, function, operands, refusal, in_row)


def views(x: Tensor, name: str, parts: Sequence[tuple[Any, ...]]) -> tuple[Tensor, ...]:
    """Several views of ``x``, each by a function and its operands, which one op of that name returns together."""
    together = _together(name, tuple(parts))
    if len(parts) <= MAX_TOGETHER:
        results = recorder(together)(x)
    else:
        results = [apply(function, x, *operands) for function, *operands in parts]
    made = []
    for i, (result, (function, *operands)) in enumerate(zip(results, parts, strict=True)):
        refusal = Refusal(True, node_name(together) if result.requires_grad else "", i)
        refusal = refusal if mode.enabled else INFERENCE if mode.inference else NO_GRAD
        made.append(attached(result, x, function, tuple(operands), refusal))
    return tuple(made)


@functools.lru_cache(maxsize=MAX_PATHS)
def _together(name: str, parts: tuple[tuple[Any, ...], ...]) -> Callable[[Any], tuple[Any, ...]]:
    def together(x):
        return tuple(function(x, *operands) for function, *operands in parts)

    together.__name__ = name
    return together


def attached(
    result: Tensor,
    x: Tensor,
    function: Callable[..., Any],
    operands: tuple[Any, ...],
    refusal: Refusal | None,
    in_row: bool = False,
) -> Tensor:
    """``result``, from now on a view of ``x``; or, if that is one, of its base."""
    if result._inference is not x._inference:  # a view is what its base is
        result.__class__ = Tensor._in_inference if x._inference else Tensor
    of = x._alias or alias_of(x)
    base = x if of.base is None else of.base
    start = of.path if base is x else of.start
    if of.refusal is not None and refusal is None:
        refusal = Refusal(of.refusal.several, node_name(function) if base.requires_grad else "", 0)
    path = (of.path, function, operands)
    result._alias = Alias(of.storage, of.counter, path, in_row and of.in_row, base, start, refusal)
    of.storage.add(result, of.counter)
    for watcher in mode.watchers:
        watcher.shared(result, x, (function, operands, refusal, in_row))
    return result


def strides(x: Tensor) -> tuple[int, ...]:
    """How far, in elements of the storage, one step along each dimension goes, as in PyTorch."""
    alias = x._alias
    if alias is None or alias.in_row:
        return tuple(int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim))
    functions, operands = _flat(alias.path)
    return _strides(functions, len(operands), alias.storage.elements.aval.shape)


@functools.lru_cache(maxsize=MAX_PATHS)
def _strides(functions: tuple[Any, ...], num_operands: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Read off the numbers of the elements that the functions lead to; which index is taken only moves them."""
    with jax.ensure_compile_time_eval():
        numbers = jnp.arange(int(np.prod(shape))).reshape(shape)
        shown = np.asarray(jax.jit(_composed(functions))(numbers, *[0] * num_operands))
    if not shown.size:
        return tuple(int(np.prod(shown.shape[i + 1 :])) for i in range(shown.ndim))
    first = shown[(0,) * shown.ndim]
    inner = [int(np.prod(shown.shape[i + 1 :])) for i in range(shown.ndim)]
    return tuple(
        int(shown[tuple(int(i == axis) for i in range(shown.ndim))] - first) if size > 1 else inner[axis]
        for axis, size in enumerate(shown.shape)
    )


def can_view(x: Tensor, sizes: Sequence[int]) -> bool:
    """Whether the elements of ``x`` can be seen in another shape where they are, by PyTorch's rule: each dimension of
    the new shape lies within a run of dimensions that are contiguous to each other."""
    if x._alias is None or x._alias.in_row or 0 in x.shape:
        return True
    runs: list[int] = []
    before = 0
    for size, stride in zip(x.shape, strides(x), strict=True):
        if size == 1:
            continue
        if runs and before == stride * size:
            runs[-1] *= size
        else:
            runs.append(size)
        before = stride
    known = int(np.prod([size for size in sizes if size != -1]))
    left, filled = iter(runs), 1
    run = next(left, 1)
    for size in sizes:
        filled *= math.prod(x.shape) // known if size == -1 else size
        if filled > run:
            return False
        if filled == run and filled > 1:
            run, filled = next(left, 1), 1
    return True


# --- writing ----------------------------------------------------------------------------------------------------------


def check_writable(x: Tensor, others: Sequence[Any] = ()) -> None:
    """Raises RuntimeError where ``x`` must not be changed in place by an op that also reads ``others``."""
    if x._inference and not mode.inference:
        raise RuntimeError(
            "Inplace update to inference tensor outside InferenceMode is not allowed.You can make a clone to get a "
            "normal tensor before doing inplace update.See https://github.com/pytorch/rfcs/pull/17 for more details."
        )
    alias = x._alias
    if mode.views == "error" and alias is not None:
        _check_unshared(x, alias)
    if mode.enabled:
        base = None if alias is None else alias.base
        if alias is not None and base is not None and alias.refusal is not None:
            if base.requires_grad or any(isinstance(other, Tensor) and other.requires_grad for other in others):
                raise _refused(alias.refusal, IS_CHANGED)
        elif base is not None and x.requires_grad and base.is_leaf:
            raise RuntimeError(VIEW_OF_LEAF)
        if x.requires_grad and x.is_leaf:
            raise RuntimeError(LEAF)
    if alias is not None and not alias.in_row and _overlaps(x, alias):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def _overlaps(x: Tensor, alias: Alias) -> bool:
    """Whether some element of ``x`` stands at several places: it was expanded, or its windows overlap."""
    functions, _ = _flat(alias.path)
    return any(s == 0 < n - 1 for s, n in zip(strides(x), x.shape, strict=True)) or any(
        getattr(function, "overlaps", False) for function, _ in functions
    )


def _check_unshared(x: Tensor, alias: Alias) -> None:
    others = [t for t in alias.storage.tensors() if t is not x]
    if others:
        raise RuntimeError(
            f"an in-place operation on a Tensor of shape {list(x.shape)} whose storage is shared by "
            f"{len(others)} other Tensor(s), which in_place_views('error') forbids. clone() it first."
        )


def write(x: Tensor, result: Tensor, op: str = "a change") -> Tensor:
    """Puts ``result`` in the place of the elements and the history of ``x``, and of all that share them.

    ``op`` says what did, for who asks later.
    """
    result = _fitting(x, result)
    alias = alias_of(x)
    storage, base = alias.storage, alias.base
    put_off = type(result) is Pending and alias.path is None and storage.shows_only(x)
    if put_off:
        storage.compute_saved()
    else:
        for tensor in (result, *storage.tensors()):
            tensor._data  # noqa: B018 # it is computed, if it was put off
    node = None if result._edge is None else result.grad_fn
    tracked = mode.enabled and (result._edge is not None or (base is not None and base._edge is not None))
    if tracked and base is not None:
        rewritten = put(x, alias.start, base, result)
        _move_history(base, rewritten)
        whole = rewritten if alias.start is None else None
    else:
        whole = None
        if tracked:
            _move_history(x, result)
    op = op if alias.path is None else f"{op} through a view,"
    supersede(storage, alias.counter, None if node is None else node.order, op, result._elements.aval.shape)
    if put_off:
        storage.shown = []
        storage.elements = x._elements = result._elements
        x.__class__ = Pending
        storage.add(x, alias.counter)
        return x  # nobody watches, for else nothing is put off
    if whole is not None:
        storage.elements = whole._data
    elif alias.path is None:
        storage.elements = result._data
    else:
        with no_grad():
            storage.elements = put(x, None, Tensor(storage.array), Tensor(result._data))._data
    _spread(x, result._data, alias)
    for watcher in mode.watchers:
        watcher.written(x, result)
    return x


def reshaped(x: Tensor, shown: Tensor) -> Tensor:
    """Lets ``x``, which no other Tensor is a view of, be what ``shown``, a view of it, is."""
    alias, new = alias_of(x), alias_of(shown)
    node = shown.grad_fn
    alias.storage.shown = [
        entry for entry in alias.storage.shown if entry[0]() is not shown
    ]  # its array is the new one
    supersede(alias.storage, alias.counter, None if node is None else node.order)
    _move_history(x, shown)
    x._data = shown._data
    base = alias.base
    x._alias = Alias(alias.storage, alias.counter, new.path, new.in_row, base, alias.start, alias.refusal)
    alias.storage.add(x, alias.counter)
    return x


def _spread(x: Tensor, array: Any, alias: Alias) -> None:
    """Gives every Tensor of the storage its new elements, or lets it find them when it is looked at."""
    storage = alias.storage
    tensors = storage.tensors()
    storage.shown = []
    for tensor in tensors:
        other = alias_of(tensor)
        if tensor is x or other.path is None:
            tensor._data = array if tensor is x else storage.array
            storage.add(tensor, other.counter)
        else:
            storage.shown.append((weakref.ref(tensor), None, other.counter))
            if _has(tensor, "_data"):
                del tensor._data
            tensor.__class__ = tensor._stale
        if other.base is not None:
            if _has(tensor, "_edge"):
                other.retained = _take_retained(tensor._edge) or other.retained
                del tensor._edge
            tensor.__class__ = tensor._stale


def _fitting(x: Tensor, result: Tensor) -> Tensor:
    if result._elements.aval is x._elements.aval:
        return result
    if result.shape != x.shape:
        raise RuntimeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(result.shape)}")
    if result.dtype == x.dtype:
        return result
    kinds = [_kind(tensor.dtype) for tensor in (x, result)]
    if kinds[1] > kinds[0]:
        names = [type_name(tensor.dtype) for tensor in (result, x)]
        raise RuntimeError(f"result type {names[0]} can't be cast to the desired output type {names[1]}")
    return apply(jnp.astype, result, x.dtype)


def _kind(dtype: Any) -> int:
    kinds = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def _move_history(x: Tensor, result: Tensor) -> None:
    """The edge of ``result`` becomes that of ``x``; if its gradient was to be retained, the new one's is."""
    retained = _take_retained(x._edge)
    x._edge = result._edge
    _retain(x._edge, retained)


def _take_retained(edge: Edge | None) -> Retained:
    """The gradient that an edge retains, which it no longer does."""
    retained = None if edge is None or edge[0].rare is None else edge[0].rare.retained
    return (retained.pop(edge[1]),) if edge is not None and retained and edge[1] in retained else None


def _retain(edge: Edge | None, retained: Retained) -> None:
    if edge is not None and retained is not None:
        rare = rarely(edge[0])
        rare.retained = {**(rare.retained or {}), edge[1]: retained[0]}


# --- paths ------------------------------------------------------------------------------------------------------------


def _flat(path: Path, start: Path = None) -> tuple[tuple[tuple[Any, int], ...], list[Any]]:
    """The functions of a path behind ``start``, each with the number of its operands; and all operands in a row."""
    steps = []
    while path is not start and path is not None:
        steps.append(path)
        path = path[0]
    steps.reverse()
    return tuple((function, len(given)) for _, function, given in steps), [o for *_, given in steps for o in given]


def shown(x: Tensor, start: Path, whole: Tensor) -> Tensor:
    """What the view ``x`` would show of ``whole``, if that were what its path leads to up to ``start``."""
    functions, operands = _flat(alias_of(x).path, start)
    return apply(_composed(functions), whole, *operands)


def put(x: Tensor, start: Path, whole: Tensor, value: Tensor) -> Tensor:
    """``whole`` with ``value`` where the view ``x`` shows it; the other way round as :func:`shown`."""
    functions, operands = _flat(alias_of(x).path, start)
    return apply(_inverse(_composed(functions)), whole, value, *operands)


def path_functions(
    steps: Sequence[tuple[Any, Sequence[Any]]],
) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """For the steps of a path, each a view function and its operands, two functions of arrays: what the path shows of
    the whole, and the whole with another value there."""
    if not steps:
        return lambda whole: whole, lambda whole, value: value
    shown = _composed(tuple((function, len(given)) for function, given in steps))
    operands = [o._data if isinstance(o, Tensor) else o for _, given in steps for o in given]
    return lambda whole: shown(whole, *operands), lambda whole, value: _inverse(shown)(whole, value, *operands)


@functools.lru_cache(maxsize=MAX_PATHS)
def _composed(functions: tuple[tuple[Any, int], ...]) -> Callable[..., Any]:
    """One function of an array and the operands of all ``functions``: one after the other."""
    if len(functions) == 1:
        return functions[0][0]

    def as_strided(x, *operands):
        given = iter(operands)
        for function, count in functions:
            x = function(x, *[next(given) for _ in range(count)])
        return x

    return as_strided


@functools.lru_cache(maxsize=MAX_PATHS)
def _inverse(function: Callable[..., Any]) -> Callable[..., Any]:
    """``(x, value, *operands)`` to ``x`` with ``value`` where ``function`` shows it. Its transpose says where that is;
    for integers, which have none, the numbers of the elements do, and they are scattered one by one."""

    def CopySlices(x, value, *operands):  # PyTorch's name for the node
        def place(shown):
            return jax.linear_transpose(lambda whole: function(whole, *operands), x)(shown)[0]

        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.where(place(jnp.ones_like(value)) == 1, place(value), x)
        numbers = function(jnp.arange(x.size).reshape(x.shape), *operands)
        return x.ravel().at[numbers.ravel()].set(value.ravel(), unique_indices=True).reshape(x.shape)

    return CopySlices
