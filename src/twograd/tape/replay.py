"""The program as it ran, run again: with a change that may mend it, and as a function without any change in place.

What flows in: what a thread's tape did while it was watched. What flows out: fixes of an in-place error, each tried.
Read :func:`explaining`, then :meth:`Recording.refused`, then the two ways to run a program: :func:`replay`, on Tensors,
and :func:`functional`, on arrays, where the history that each alias shows is a value of its own.

A fix works if with it the walk back raises nothing, the roots are what they were, and the gradients of all leaves are
those of ``jax.vjp`` of the functional program.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves

from twograd.rules import carries_gradient
from twograd.tape import anomaly
from twograd.tape.apply import recorder
from twograd.tape.backward import backward_pass
from twograd.tape.blame import Fix, ModifiedInPlace
from twograd.tape.lines import Place, Position, here, place
from twograd.tape.modes import Watcher, granularity, mode, set_grad_enabled, watched_by
from twograd.tape.node import AccumulateGrad, Edge, Node
from twograd.tape.storage import INFERENCE, NO_GRAD, superseded
from twograd.tape.tensor import Tensor
from twograd.tape.views import attached, path_functions, write

MAX_EVENTS = 20_000
MAX_ROUNDS = 16  # further errors that one kind of fix may run into, each mended in the same way
TOLERANCE = 1e-4
TOO_LONG = f"more than {MAX_EVENTS} operations were recorded"
STILL_RAISED = "the error is still raised"
FOREIGN = "it depends on a Tensor with a history that was recorded before, or by a walk back"

Key = int
"""The number of a Tensor, in the order in which they were met."""


@dataclass(slots=True)
class Op:
    """``function`` of Tensors was computed, and made ``nodes``."""

    function: Callable[..., Any]
    operands: list[Key]
    outputs: list[Key]
    enabled: bool
    level: Any
    where: Position | None
    nodes: list["weakref.ref[Node]"]


@dataclass(slots=True)
class Share:
    """``tensor`` shows ``owner``: as a view by ``step``, or cut off from its history; ``counted`` with it, or apart."""

    tensor: Key
    owner: Key
    step: tuple[Any, ...] | None
    counted: bool


@dataclass(slots=True)
class Write:
    """``result`` took the place of the elements of ``x``; and of its history, if ``tracked``."""

    x: Key
    result: Key
    tracked: bool
    where: Position | None


@dataclass(slots=True)
class Given:
    """A Tensor that was not computed here, or became a leaf; its array, and whether it is a leaf with a gradient."""

    tensor: Key
    array: Any
    leaf: bool


Event = Op | Share | Write | Given


@dataclass
class Program:
    """What was done, in order; the ``roots`` of a walk back, their values and their cotangents."""

    events: list[Event] = field(default_factory=list)
    roots: list[Key] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    cts: list[Any] = field(default_factory=list)


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Inside, this thread's tape remembers what it does, so that an in-place error can try fixes before it offers them.

    The forward pass and ``backward`` must both be inside. What is remembered is forgotten when the graph is, so a
    training loop may run in it; each operation costs more, and arrays that no one else needs live until the next walk.
    """
    with watched_by(Recording(), instead_of=Recording):
        yield


class Recording(Watcher):
    """Writes the program down, and tries fixes when an in-place error is about to be raised."""

    def __init__(self) -> None:
        self.program = Program()
        self._keys: dict[int, tuple[weakref.ref[Tensor], Key]] = {}
        self._leaves: set[Key] = set()
        self._count = 0
        self._nodes: list[weakref.ref[Node]] = []
        self._trouble: str | None = None

    # --- what it is told ---

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        self._nodes.append(weakref.ref(node))

    def op_done(self, function: Callable[..., Any], operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        keys = [self._known(operand) for operand in operands]
        made = [self._new(output) for output in outputs]
        nodes, self._nodes = self._nodes, []
        self._add(Op(function, keys, made, mode.enabled, mode.granularity, here(), nodes))

    def shared(self, tensor: Tensor, owner: Tensor, step: tuple[Any, ...] | None) -> None:
        owner_key = self._known(owner)
        key = self._key_of(tensor)
        counters = [t._alias and t._alias.counter for t in (tensor, owner)]
        self._add(Share(self._new(tensor) if key is None else key, owner_key, step, counters[0] is counters[1]))

    def written(self, x: Tensor, result: Tensor) -> None:
        base = None if x._alias is None else x._alias.base
        tracked = mode.enabled and (result._edge is not None or (base is not None and base._edge is not None))
        self._add(Write(self._known(x), self._known(result), tracked, here()))

    def walk_began(self, roots: Sequence[Edge], cts: Sequence[Any]) -> None:
        alive = [(tensor, key) for ref, key in self._keys.values() if (tensor := ref()) is not None]
        by_edge = {tensor._edge: (tensor, key) for tensor, key in alive if _has_edge(tensor)}
        found = [by_edge[edge] for edge in roots if edge in by_edge]
        known = len(found) == len(roots)
        self.program.roots = [key for _, key in found] if known else []
        self.program.values = [tensor._data for tensor, _ in found]
        self.program.cts = [ct._data if isinstance(ct, Tensor) else ct for ct in cts]

    def walk_ended(self) -> None:
        if not self._any_graph():  # what nobody can walk back over any more
            self.program = Program()
            self._keys.clear()
            self._leaves.clear()
            self._trouble = None

    def refused(self, error: Exception) -> None:
        if not isinstance(error, ModifiedInPlace):
            return
        anomaly_before = mode.anomaly
        mode.set(anomaly=None)
        try:
            with watched_by(instead_of=Watcher):
                fixes = self._fixes(error)
        except _Impossible as reason:
            error.add_note(f"No fix was tried: {reason}.")
        else:
            error.tell(fixes)
        finally:
            mode.set(anomaly=anomaly_before)

    # --- Tensors by number ---

    def _key_of(self, tensor: Tensor) -> Key | None:
        entry = self._keys.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _new(self, tensor: Tensor) -> Key:
        self._count += 1
        number = id(tensor)
        self._keys[number] = (weakref.ref(tensor, functools.partial(_forget, self._keys, number)), self._count)
        return self._count

    def _known(self, tensor: Tensor) -> Key:
        """The number of a Tensor that is used; one that nobody computed here is a value that is given."""
        key = self._key_of(tensor)
        # A view made under no_grad, whose base requires grad, says so too, and no gradient comes to it.
        node = None if tensor._edge is None else tensor._edge[0]
        leaf = type(node) is AccumulateGrad
        if key is None:
            key = self._new(tensor)
            if isinstance(node, Node):
                self._trouble = FOREIGN
            self._add(Given(key, tensor._data, leaf))
        elif leaf and key not in self._leaves:
            self._add(Given(key, tensor._data, True))  # requires_grad_() made it a leaf
        if leaf:
            self._leaves.add(key)
        return key

    def _add(self, event: Event) -> None:
        if len(self.program.events) < MAX_EVENTS:
            self.program.events.append(event)
        else:
            self._trouble = TOO_LONG

    def _any_graph(self) -> bool:
        """Whether some node of the program still has saved values, which a change could spoil."""
        return any(
            (node := ref()) is not None and bool(node.saved)
            for event in self.program.events
            if isinstance(event, Op)
            for ref in event.nodes
        )

    # --- trying ---

    def _fixes(self, error: ModifiedInPlace) -> list[Fix]:
        if self._trouble is not None:
            raise _Impossible(self._trouble)
        program = self.program
        if not program.roots:
            raise _Impossible("the walk back began at a Tensor that was not computed while it was watched")
        if self._event_of(error.node) is None:
            raise _Impossible("the op that saved the value was not watched")
        expected = functional(program)
        if not all(_close(a, b) for a, b in zip(expected[0], program.values, strict=True)):
            raise _Impossible("something changed that was not watched, so that the program cannot be run again")
        return [
            _tried(program, expected, Clone()),
            _tried(program, expected, Reorder()),
            _tried(program, expected, OutOfPlace()),
        ]

    def _event_of(self, node: Node) -> int | None:
        for i, event in enumerate(self.program.events):
            if isinstance(event, Op) and any(ref() is node for ref in event.nodes):
                return i
        return None


anomaly.WATCHERS.append(Recording)


class _Impossible(Exception):
    """Why a program cannot be run again."""


def _forget(keys: dict[int, tuple[Any, Key]], number: int, ref: Any) -> None:
    if keys.get(number, (None,))[0] is ref:
        del keys[number]


def _has_edge(tensor: Tensor) -> bool:
    try:
        return object.__getattribute__(tensor, "_edge") is not None
    except AttributeError:
        return False  # a view whose history is computed when it is looked at


# --- fixes ------------------------------------------------------------------------------------------------------------


class Mend:
    """A way to change a program: grows by each error that a try runs into, and refuses where it is no way out."""

    kind: str

    def __init__(self) -> None:
        self.clones: set[tuple[int, int]] = set()  # (event, operand) or, for results, (event, -1 - output)
        self.left_out: set[int] = set()  # writes that are not done until the walk is
        self.rebound: set[int] = set()  # writes that bind the name to the result instead

    def grow(self, program: Program, event: int, position: int) -> None:
        """Takes notice of an error at ``event``, of which the operand or result ``position`` was changed.

        Raises RuntimeError if that cannot be mended in this way.
        """
        raise NotImplementedError

    def text(self, program: Program) -> str:
        """What to do, in words."""
        raise NotImplementedError


class Clone(Mend):
    kind = "clone"

    def grow(self, program: Program, event: int, position: int) -> None:
        op = program.events[event]
        assert isinstance(op, Op)
        count = len(op.operands)
        spot = (event, position) if position < count else (event, -1 - min(position - count, len(op.outputs) - 1))
        if spot in self.clones:
            raise RuntimeError(STILL_RAISED)
        self.clones.add(spot)

    def text(self, program: Program) -> str:
        parts = []
        for event, operand in sorted(self.clones):
            op = program.events[event]
            assert isinstance(op, Op)
            if operand >= 0:
                what = f"hand a clone() to {_name(op)} as operand {operand}"
            else:
                what = f"clone() what {_name(op)} returns, and go on with that"
            parts.append(f"{what}, at {_code(place(op.where))}")
        return "; ".join(parts)


class Reorder(Mend):
    kind = "reorder"

    def grow(self, program: Program, event: int, position: int) -> None:
        _add_writes(self.left_out, program, event, position)

    def text(self, program: Program) -> str:
        return f"do it after backward(): {_lines(program, self.left_out)}"


class OutOfPlace(Mend):
    kind = "out of place"

    def grow(self, program: Program, event: int, position: int) -> None:
        _add_writes(self.rebound, program, event, position)
        changed = {e.x for i in self.rebound if isinstance(e := program.events[i], Write)}
        if any(isinstance(e, Given) and e.leaf and e.tensor in changed for e in program.events):
            raise RuntimeError("it is a leaf that is changed, and the name would be bound to a Tensor that is none")

    def text(self, program: Program) -> str:
        lines = _lines(program, self.rebound)
        return f"bind the name to a new Tensor instead (x = x.mul(2), not x.mul_(2)): {lines}"


def _add_writes(chosen: set[int], program: Program, event: int, position: int) -> None:
    """Adds the writes behind ``event`` to what its operand or result at ``position`` shows."""
    storages = _storages(program)
    op = program.events[event]
    assert isinstance(op, Op)
    keys = [*op.operands, *op.outputs]
    touched = storages[keys[min(position, len(keys) - 1)]]
    behind = list(enumerate(program.events))[event + 1 :]
    writes = {i for i, other in behind if isinstance(other, Write) and storages[other.x] == touched}
    if writes <= chosen:
        raise RuntimeError(STILL_RAISED)
    chosen |= writes


def _lines(program: Program, writes: set[int]) -> str:
    places = [place(e.where) for i in sorted(writes) if isinstance(e := program.events[i], Write)]
    return "; ".join(dict.fromkeys(map(_code, places)))


def _name(op: Op) -> str:
    node = next((made for ref in op.nodes if (made := ref()) is not None), None)
    return node.name().removesuffix("Backward0") if node is not None else getattr(op.function, "__name__", "the op")


def _code(where: Place | None) -> str:
    if where is None:
        return "an unknown line"
    return f"line {where.line}: {where.code}" if where.code else str(where)


def _storages(program: Program) -> dict[Key, Key]:
    """For each Tensor the first one that had its elements."""
    storages: dict[Key, Key] = {}
    for event in program.events:
        if isinstance(event, Op):
            storages.update((key, key) for key in event.outputs)
        elif isinstance(event, Given):
            storages[event.tensor] = event.tensor
        elif isinstance(event, Share):
            storages[event.tensor] = storages[event.owner]
    return storages


def _tried(program: Program, expected: tuple[list[Any], dict[Key, Any]], mend: Mend) -> Fix:
    """Applies ``mend`` to every error that the program runs into, and compares what comes out."""
    try:
        for _ in range(MAX_ROUNDS):
            try:
                roots, grads = replay(program, mend)
                return Fix(mend.kind, mend.text(program), *_verdict(expected, roots, grads))
            except _Modified as found:
                mend.grow(program, found.event, found.position)
    except RuntimeError as error:
        return Fix(mend.kind, "", False, str(error).partition("\n")[0][:160])
    return Fix(mend.kind, "", False, STILL_RAISED)


def _verdict(expected: tuple[list[Any], dict[Key, Any]], roots: list[Any], grads: dict[Key, Any]) -> tuple[bool, str]:
    if not all(_close(a, b) for a, b in zip(roots, expected[0], strict=True)):
        return False, "the loss would be another, since what is computed later reads the changed elements"
    if not all(_close(grads[key], expected[1][key]) for key in grads):
        return False, "the gradient would not be that of the program"
    return True, "works"


def _close(a: Any, b: Any) -> bool:
    scale = float(np.max(np.abs(b), initial=0.0)) or 1.0
    return bool(np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))


# --- the program again, on Tensors ------------------------------------------------------------------------------------


class _Modified(Exception):
    """The replay ran into a changed value: of which event, and where among its operands and results."""

    def __init__(self, event: int, position: int):
        super().__init__()
        self.event, self.position = event, position


class _Nodes(Watcher):
    """Which event of a replay made a node, and what the node's values are to the event."""

    def __init__(self) -> None:
        self.event = 0
        self.made: dict[Node, int] = {}

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        self.made[node] = self.event


def replay(program: Program, mend: Mend) -> tuple[list[Any], dict[Key, Any]]:
    """Runs the program on new Tensors, with the changes of ``mend``: the roots, and the leaves' gradients.

    Raises _Modified where a saved value was changed, RuntimeError for what else the program raises.
    """
    env: dict[Key, Tensor] = {}
    leaves: dict[Key, Tensor] = {}
    nodes = _Nodes()
    with watched_by(nodes):
        for i, event in enumerate(program.events):
            nodes.event = i
            if isinstance(event, Given):
                array = jnp.copy(event.array) if id(event.array) in superseded else event.array  # there, not here
                env[event.tensor] = Tensor(array, requires_grad=event.leaf)
                if event.leaf:
                    leaves[event.tensor] = env[event.tensor]
            elif isinstance(event, Share):
                _share(event, env)
            elif isinstance(event, Write):
                if i in mend.rebound:
                    env[event.x] = env[event.result]
                elif i not in mend.left_out:
                    with set_grad_enabled(event.tracked):
                        write(env[event.x], env[event.result])
            else:
                _run(i, event, env, mend)
    roots = [env[key] for key in program.roots]
    targets = {key: leaf._edge for key, leaf in leaves.items() if leaf._edge is not None}
    edges = [root._edge for root in roots]
    if any(edge is None for edge in edges):
        raise RuntimeError("the loss does not require grad")
    try:
        found = backward_pass(edges, program.cts, list(targets.values()))  # pyright: ignore[reportArgumentType]
    except ModifiedInPlace as error:
        event = nodes.made[error.node]
        raise _Modified(event, _position(program, event, error)) from None
    zero = {key: np.zeros(leaf.shape, leaf.dtype) for key, leaf in leaves.items()}
    grads = {key: zero[key] if found[edge] is None else np.asarray(found[edge]) for key, edge in targets.items()}
    return [np.asarray(root._data) for root in roots], grads


def _run(i: int, event: Op, env: dict[Key, Tensor], mend: Mend) -> None:
    operands = [env[key] for key in event.operands]
    copied = recorder(jnp.copy)
    with set_grad_enabled(event.enabled), granularity(event.level):
        operands = [copied(x) if (i, n) in mend.clones else x for n, x in enumerate(operands)]
        made = recorder(event.function)(*operands)
        results = [leaf for leaf in tree_leaves(made, is_leaf=_is_tensor) if isinstance(leaf, Tensor)]
        results = [copied(x) if (i, -1 - n) in mend.clones else x for n, x in enumerate(results)]
    env.update(zip(event.outputs, results, strict=True))


def _share(event: Share, env: dict[Key, Tensor]) -> None:
    owner = env[event.owner]
    if event.step is None:
        env[event.tensor] = owner.detach() if event.counted else owner.data
    else:
        function, operands, refusal, in_row = event.step
        attached(env[event.tensor], owner, function, operands, refusal, in_row)


def _position(program: Program, event: int, error: ModifiedInPlace) -> int:
    """Where the value is among the operands and results of the op; a node of a primitive has its own."""
    op = program.events[event]
    assert isinstance(op, Op)
    if op.level == "op":
        return error.position
    count = len(error.node.plan.wanted)
    if error.position >= count:
        return len(op.operands)
    return min(error.position, len(op.operands) - 1)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


# --- the program as a function ----------------------------------------------------------------------------------------


@jax.custom_jvp
def _valued(value: Any, history: Any) -> Any:
    """``value``, with the derivative of ``history``: what a change that is not recorded leaves."""
    return value


@_valued.defjvp
def _(primals, tangents):
    return primals[0], tangents[1]


def functional(program: Program) -> tuple[list[Any], dict[Key, Any]]:
    """The roots and the leaves' gradients by ``jax.vjp`` of the program as a function: no tape, no change in place.

    Elements that several Tensors show are one value, and each Tensor with a history of its own (a base, a detached
    alias) sees that value with its own derivative. A write through one changes the value for all, and the derivative
    for itself and its views.
    """
    given = [event for event in program.events if isinstance(event, Given)]
    leaves = [event for event in given if event.leaf]

    def run(*arrays: Any) -> list[Any]:
        leaf = dict(zip(map(id, leaves), arrays, strict=True))
        # Tensor -> (storage, history, path); storage -> history -> value
        shown: dict[Key, tuple[Key, Key, tuple[Any, ...]]] = {}
        values: dict[Key, dict[Key, Any]] = {}

        def enter(key: Key, value: Any) -> None:
            shown[key], values[key] = (key, key, ()), {key: value}

        def read(key: Key) -> Any:
            storage, history, path = shown[key]
            return path_functions(path)[0](values[storage][history])

        for event in program.events:
            if isinstance(event, Given):
                enter(event.tensor, leaf.get(id(event), event.array))
            elif isinstance(event, Op):
                outs = [x for x in tree_leaves(event.function(*map(read, event.operands))) if isinstance(x, jax.Array)]
                for key, out in zip(event.outputs, outs, strict=True):
                    enter(key, out if event.enabled else jax.lax.stop_gradient(out))
            elif isinstance(event, Share):
                storage, history, path = shown[event.owner]
                if event.step is None or event.step[2] in (NO_GRAD, INFERENCE):  # a history that no gradient comes to
                    values[storage][event.tensor] = jax.lax.stop_gradient(values[storage][history])
                    history = event.tensor
                step = () if event.step is None else (event.step[:2],)
                shown[event.tensor] = storage, history, (*path, *step)
            else:
                storage, history, path = shown[event.x]
                old, value = values[storage][history], read(event.result)
                value = jnp.asarray(value, old.dtype)
                new = path_functions(path)[1](old, value)
                for other, past in values[storage].items():
                    keeps = other != history or not event.tracked
                    values[storage][other] = _valued(new, past) if keeps and carries_gradient(past.aval) else new
        return [read(key) for key in program.roots]

    roots, pull = jax.vjp(run, *[event.array for event in leaves])
    cts = pull([jnp.asarray(ct, root.dtype) for ct, root in zip(program.cts, roots, strict=True)])
    return [np.asarray(root) for root in roots], {
        event.tensor: np.asarray(ct) for event, ct in zip(leaves, cts, strict=True)
    }
