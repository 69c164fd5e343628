"""Forward mode: dual numbers, whose tangents are pushed through each op as it runs.

What flows in: Tensors, each with a tangent (:func:`make_dual`). What flows out: the tangent of what was computed from
them (:func:`unpack_dual`), one Jacobian-vector product per pass. Read :class:`_Level`, which watches the ops of its
thread; where no level is entered nothing of this costs anything.

The names, and the texts of the errors, are PyTorch's; so is that there is one level at a time. A tangent is computed by
an op of its own, ``jax.jvp`` of the op's function. It is recorded as any other, so a tangent can be differentiated in
reverse; and what the tape saves has tangents too, so a gradient computed within a level has one (forward over reverse).
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twograd.rules import carries_gradient
from twograd.tape.apply import apply
from twograd.tape.modes import Watcher, mode, watched_by
from twograd.tape.node import Node
from twograd.tape.plan import CompiledPlan
from twograd.tape.storage import Path
from twograd.tape.tensor import Tensor
from twograd.tape.views import put, shown, view

MAX_FUNCTIONS = 4096


class UnpackedDualTensor(NamedTuple):
    """What :func:`unpack_dual` returns."""

    primal: Tensor
    tangent: Tensor | None


class _Level(Watcher):
    """The tangents of the Tensors, and of the values that nodes saved, since the level was entered."""

    pulls_on_tensors = True

    def __init__(self) -> None:
        self._tangents: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._of_saved: weakref.WeakKeyDictionary[Node, list[Tensor | None]] = weakref.WeakKeyDictionary()
        self._duals: list[Tensor] = []  # what make_dual made: changes in place are followed up to here

    def tangent(self, tensor: Tensor) -> Tensor | None:
        found = self._tangents.get(id(tensor))
        return None if found is None else found[1]

    def set(self, tensor: Tensor, tangent: Tensor | None) -> None:
        key, tangents = id(tensor), self._tangents
        if tangent is None:
            tangents.pop(key, None)
        else:
            tangents[key] = weakref.ref(tensor, lambda _: tangents.pop(key, None)), tangent

    def make(self, primal: Tensor, tangent: Tensor) -> Tensor:
        with watched_by(instead_of=_Level):
            dual = view(primal, _identity, in_row=True)
        self.set(dual, tangent)
        self._duals.append(dual)
        return dual

    # --- what it watches ----------------------------------------------------------------------------------------------

    def op_done(self, function: Callable[..., Any], operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        tangents = [self.tangent(x) for x in operands]
        if all(t is None for t in tangents):
            return
        node = next((y._edge[0] for y in outputs if y._edge is not None), None)
        if isinstance(node, Node) and mode.granularity == "primitive":
            raise NotImplementedError(
                "a dual Tensor that is also recorded, at granularity('primitive'): only at op level has what the tape "
                "saves a tangent"
            )
        plan = node.plan if isinstance(node, Node) and isinstance(node.plan, CompiledPlan) else None
        push = _pushforward(function if plan is None else plan.forward, tuple(t is not None for t in tangents))
        with watched_by(instead_of=_Level):
            pushed = iter(apply(push, *operands, *[t for t in tangents if t is not None]))
        of_outputs = [next(pushed) if carries_gradient(y._data.aval) else None for y in outputs]
        for y, tangent in zip(outputs, of_outputs, strict=True):
            self.set(y, tangent)
        if isinstance(node, Node) and plan is not None:
            rest = plan.result_avals[len(outputs) :]
            found = [*tangents, *of_outputs, *(next(pushed) if carries_gradient(aval) else None for aval in rest)]
            self._of_saved[node] = [found[i] for i in plan.positions or ()]

    def function_done(self, function: Any, ctx: Any, args: Sequence[Any], outputs: Sequence[Any]) -> None:
        tangents = [self.tangent(x) if isinstance(x, Tensor) else None for x in args]
        if all(t is None for t in tangents):
            return
        if ctx.materialize_grads:
            tangents = [
                _zeros(x) if t is None and isinstance(x, Tensor) else t for x, t in zip(args, tangents, strict=True)
            ]
        with watched_by(instead_of=_Level):
            given = function.jvp(ctx, *tangents)
        given = given if isinstance(given, tuple) else (given,)
        for i, t in enumerate(given):
            if not (t is None or isinstance(t, Tensor)):
                raise RuntimeError(f"expected Variable or None (got {type(t).__name__}) for grad output {i}.")
        if len(given) != len(outputs):
            raise RuntimeError(
                f"Function's jvp returned an invalid number of forward gradients (expected {len(outputs)} but got "
                f"{len(given)})"
            )
        for y, t in zip(outputs, given, strict=True):
            if isinstance(y, Tensor):
                if t is not None:
                    _check_shape(y, t)
                self.set(y, t)
        positions = ctx.plan.positions
        of_saved = self._of_saved.get(ctx, [None] * len(positions))
        self._of_saved[ctx] = [
            given[p - len(args)] if p >= len(args) else t for p, t in zip(positions, of_saved, strict=True)
        ]

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        tangents = [self.tangent(x) for x in saved_from]
        if any(t is not None for t in tangents):
            self._of_saved[node] = tangents

    def saved_read(self, node: Node, i: int, tensor: Tensor) -> None:
        of_saved = self._of_saved.get(node)
        if of_saved is not None and of_saved[i] is not None:
            self.set(tensor, of_saved[i])

    def written(self, x: Tensor, result: Tensor) -> None:
        """A change in place changes the tangents of all that show it: of the root that ``x`` is a view of, and of the
        root's other views."""
        root = self._root(x)
        family = [t for t in x._alias.storage.tensors() if self._root(t) is root] if x._alias else [x]
        tangent = self.tangent(result)
        if tangent is None and all(self.tangent(t) is None for t in family):
            return
        with watched_by(instead_of=_Level):
            if tangent is None:
                tangent = _zeros(x)
            if x is root:
                whole = tangent
            else:
                of_root = self.tangent(root)
                whole = put(x, self._start(x), _zeros(root) if of_root is None else of_root, tangent)
            for t in family:
                self.set(t, whole if t is root else tangent if t is x else shown(t, self._start(t), whole))

    def _dual(self, tensor: Tensor) -> Tensor | None:
        """The dual that ``tensor`` is a view of, if any."""
        alias = tensor._alias
        paths = {id(dual._alias.path): dual for dual in self._duals if dual._alias is not None}
        path = None if alias is None or alias.base is None else alias.path
        while path is not None and id(path) not in paths:
            path = path[0]
        return None if path is None else paths[id(path)]

    def _root(self, tensor: Tensor) -> Tensor:
        """The dual, or else the base, that ``tensor`` is a differentiable view of; itself if it is none."""
        dual = self._dual(tensor)
        if dual is not None:
            return dual
        return tensor if tensor._alias is None or tensor._alias.base is None else tensor._alias.base

    def _start(self, tensor: Tensor) -> Path:
        """The path of the root, behind which that of its view ``tensor`` goes on."""
        dual = self._dual(tensor)
        alias = tensor._alias if dual is None else dual._alias
        return None if alias is None else alias.start if dual is None else alias.path


@functools.lru_cache(maxsize=MAX_FUNCTIONS)
def _pushforward(function: Callable[..., Any], moving: tuple[bool, ...]) -> Callable[..., Any]:
    """``(*operands, *tangents)``, with tangents of the ``moving`` operands, to the tangents of those results that can
    have one."""

    def jvp(*values: Any) -> list[Any]:
        operands, tangents = values[: len(moving)], values[len(moving) :]

        def of_moving(*given: Any) -> list[Any]:
            rest = iter(given)
            results = function(*[next(rest) if m else x for m, x in zip(moving, operands, strict=True)])
            return [y for y in jax.tree.leaves(results) if isinstance(y, jax.Array) and carries_gradient(jax.typeof(y))]

        primals = [x for m, x in zip(moving, operands, strict=True) if m]
        return jax.jvp(of_moving, primals, [t.astype(x.dtype) for t, x in zip(tangents, primals, strict=True)])[1]

    jvp.__name__ = f"jvp_of_{getattr(function, '__name__', 'function')}"
    return jvp


def _identity(x: Any) -> Any:
    return x


def _zeros(x: Tensor) -> Tensor:
    return Tensor(jnp.zeros(x.shape, x.dtype))


# --- PyTorch's functions ----------------------------------------------------------------------------------------------


def _entered() -> _Level | None:
    return next((watcher for watcher in mode.watchers if isinstance(watcher, _Level)), None)


def enter_dual_level() -> int:
    """Enters the level, and returns its number, 0. Raises RuntimeError if this thread is inside of one."""
    if _entered() is not None:
        raise RuntimeError("Nested forward mode AD is not supported at the moment")
    mode.set(watchers=(*mode.watchers, _Level()))
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Leaves the level; all tangents of it are gone."""
    entered = _entered()
    if level is not None and level != (-1 if entered is None else 0):
        raise RuntimeError(
            "Trying to exit a forward AD level that was not the last one that was created. This is not supported."
        )
    if entered is None:
        raise RuntimeError("Dual level must be a positive number.")
    mode.set(watchers=tuple(watcher for watcher in mode.watchers if watcher is not entered))


class dual_level(contextlib.ContextDecorator):
    """A level for a ``with`` block, or for each call of a function that it decorates."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *exc_info: Any) -> None:
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A view of ``tensor`` that has ``tangent`` in the present level; both may require gradients.

    Raises RuntimeError outside of a level, for a tangent of another shape, and for operands that are dual already;
    ValueError for integers.
    """
    found = _at(level, "_make_dual")
    if found is None:
        raise RuntimeError(
            "Trying to create a dual Tensor for forward AD but no level exists, make sure to enter_dual_level() first."
        )
    for name, x in (("primal", tensor), ("tangent", tangent)):
        if not carries_gradient(x._data.aval):
            raise ValueError(f"Expected {name} to be floating point or complex, but got: {x.dtype}")
    if jnp.iscomplexobj(tangent._data) != jnp.iscomplexobj(tensor._data):
        raise RuntimeError(f"a tangent of dtype {tangent.dtype} for a Tensor of dtype {tensor.dtype}")
    _check_shape(tensor, tangent)
    if found.tangent(tensor) is not None:
        raise RuntimeError(
            "Making a dual Tensor based on a Tensor that already has a forward gradient at the same level 0 is not "
            "supported."
        )
    if found.tangent(tangent) is not None:
        raise RuntimeError(
            "Setting a forward grad that itself has a forward gradient at the same level0 is not supported."
        )
    return found.make(tensor, tangent)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """A Tensor, as a view without a tangent, and its tangent: None where it has none, and outside of a level."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"_unpack_dual(): argument 'dual' (position 1) must be Tensor, not {type(tensor).__name__}")
    found = _at(level, "_fw_primal")
    if found is None:
        return UnpackedDualTensor(tensor, None)
    with watched_by(instead_of=_Level):
        return UnpackedDualTensor(view(tensor, _identity, in_row=True), found.tangent(tensor))


def _check_shape(tensor: Tensor, tangent: Tensor) -> None:
    if tangent.shape != tensor.shape:
        raise RuntimeError(
            "Trying to set a forward gradient that has a different size than that of the original Tensor, this is not "
            f"supported. Tensor is of size {list(tensor.shape)} while the given forward gradient is of size "
            f"{list(tangent.shape)}."
        )


def _at(level: int | None, caller: str) -> _Level | None:
    found = _entered()
    if level is not None and level > 0:
        raise RuntimeError(f"Invalid level given to {caller}")
    return None if level is not None and level < 0 else found
