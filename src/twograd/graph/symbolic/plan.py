"""Running: the operations that some fetches need, in order, as one compiled function.

What flows in: fetches, and Symbols that are fed. What flows out: a :class:`Plan`. Read :func:`schedule`, which decides
what runs, and :func:`execute`, which runs it on values, or, under ``jax.jit``, emits it.
"""

import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Var
from jax.tree_util import tree_flatten

from twograd._arguments import zero_gradient
from twograd._compat import on_behalf_of
from twograd.graph.passes import dce
from twograd.graph.symbolic.build import MAX_CACHED, avals, fitted, is_shared, sizes_in, trials
from twograd.graph.symbolic.container import Gradient, Graph, Operation, Symbol, Type
from twograd.graph.symbolic.lazy import branches_of, deferred
from twograd.graph.transform import backward_pass, forward_pass

NOTHING: Mapping[Symbol, Symbol] = {}


# --- what runs, and in which order ------------------------------------------------------------------------------------


def schedule(
    elements: Iterable[Symbol | Operation], feeds: Iterable[Symbol], givens: Mapping[Symbol, Symbol] = NOTHING
) -> list[Operation]:
    """The ancestors of ``elements``, cut at ``feeds``, so that each comes after what it needs.

    A Symbol among ``givens`` is replaced by its value there. Where nothing else is said, an operation that writes a
    variable comes after all that do not, and the others in the order in which they were added: so a gradient is that
    of the variables before a step, whatever was added first. Raises ValueError where ``givens`` make a cycle.
    """
    fed = frozenset(feeds)
    needs: dict[Operation, set[Operation]] = {}
    users: dict[Operation, list[Operation]] = {}

    def producers(symbols: Iterable[Symbol]) -> list[Operation]:
        return [symbol.op for symbol in (replaced(s, givens) for s in symbols) if symbol not in fed]

    stack: list[Operation] = []
    for element in elements:
        stack += producers([element]) if isinstance(element, Symbol) else [element]
    while stack:
        op = stack.pop()
        if op in needs:
            continue
        needs[op] = {*producers(op.inputs), *op.control_inputs}
        for needed in needs[op]:
            users.setdefault(needed, []).append(op)
        stack.extend(needs[op])
    waiting = {op: len(needed) for op, needed in needs.items()}
    ready = [(op.writes is not None, op.index, op) for op, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[Operation] = []
    while ready:
        op = heapq.heappop(ready)[2]
        order.append(op)
        for user in users.get(op, ()):
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, (user.writes is not None, user.index, user))
    if len(order) < len(needs):
        names = ", ".join(op.name for op, count in waiting.items() if count)
        raise ValueError(f"the givens make a cycle: each of these operations needs another of them: {names}")
    return order


def replaced(symbol: Symbol, givens: Mapping[Symbol, Symbol]) -> Symbol:
    """What stands for ``symbol``; ValueError where that comes back to ``symbol``."""
    seen = {symbol}
    while symbol in givens:
        symbol = givens[symbol]
        if symbol in seen:
            raise ValueError(f"the givens make a cycle: {symbol} stands for itself")
        seen.add(symbol)
    return symbol


# --- running it -------------------------------------------------------------------------------------------------------


def execute(
    operations: Sequence[Operation],
    outputs: Sequence[Symbol],
    env: dict[Symbol, Any],
    state: dict[Symbol, Any],
    givens: Mapping[Symbol, Symbol] = NOTHING,
) -> Callable[[Symbol], Any]:
    """Runs ``operations`` in order; ``env`` has the values of fed Symbols, ``state`` those of variables.

    Both are extended in place. Returns the function that reads one of the ``outputs`` (and other Symbols, but for what
    only the branch of an ``ifelse`` needs): a variable has the value of the moment.

    The pullback of an operation that runs here, too, reads what the rules saved when it ran; alone, it evaluates the
    operation again.
    """

    def read(symbol: Symbol) -> Any:
        symbol = replaced(symbol, givens)
        return state[symbol] if symbol in state and symbol not in env else env[symbol]

    wanted: dict[Operation, tuple[bool, ...]] = {}
    for op in operations:
        if isinstance(op, Gradient):
            mask = wanted.get(op.forward, op.wanted)
            wanted[op.forward] = tuple(a or b for a, b in zip(mask, op.wanted, strict=True))
    saved: dict[Operation, Any] = {}

    def producer(symbol: Symbol) -> Operation | None:
        symbol = replaced(symbol, givens)
        return None if symbol in env else symbol.op

    lazy = deferred(operations, outputs, producer)
    later = {op for branches in lazy.values() for branch in branches for op in branch}

    def branch(needed: Sequence[Operation], results: Sequence[Symbol], to: Sequence[Symbol]) -> Callable[..., Any]:
        def run() -> list[Any]:
            read = execute(needed, results, dict(env), dict(state), givens)
            return [lax.convert_element_type(read(s), out.dtype) for s, out in zip(results, to, strict=True)]

        return run

    for op in operations:
        if op.call is None or op in later:
            continue
        if op in lazy:
            runs = [branch(*pair, op.outputs) for pair in zip(lazy[op], branches_of(op), strict=True)]
            with on_behalf_of(op.source, op.name):
                results = lax.cond(jnp.asarray(read(op.inputs[0]), bool), *runs)
            env.update((s, _checked(s, value)) for s, value in zip(op.outputs, results, strict=True) if s not in env)
            continue
        values = [read(symbol) for symbol in op.inputs]
        scope = f"vjp({op.forward.name})" if isinstance(op, Gradient) else op.name
        try:
            with on_behalf_of(op.source, scope):
                if op in wanted:
                    results, saved[op] = _differentiably(op.call, values, wanted[op])
                elif isinstance(op, Gradient) and op.forward in saved:
                    results = _walk_back(op, saved[op.forward], values)
                else:
                    results = jax.tree.leaves(op.call(*values))
        except Exception as error:
            error.add_note(f"in the operation {op.name} ({described(op, values)}), added at {op.line}")
            raise
        if op.writes is not None:
            state[op.writes] = results[0]
        for symbol, value in zip(op.outputs, results, strict=True):
            if symbol not in env:
                env[symbol] = _checked(symbol, value)
    return read


def described(op: Operation, values: Sequence[Any]) -> str:
    """The operation's type with those of its operands."""
    return f"{op.type}({', '.join(jax.typeof(value).str_short() for value in values)})"


def _checked(symbol: Symbol, value: Any) -> Any:
    found = jax.typeof(value)
    if symbol.dtype != found.dtype or not symbol.type.accepts(found.shape):
        raise TypeError(
            f"{symbol} turned out to be {found.str_short()}: {symbol.op.name} was added (at {symbol.op.line}) for "
            "operands of unknown sizes, and for these sizes its result has another type"
        )
    return value


def _differentiably(call: Callable[..., Any], values: Sequence[Any], wanted: Sequence[bool]) -> tuple[list[Any], Any]:
    closed = jax.make_jaxpr(lambda *operands: jax.tree.leaves(call(*operands)))(*values)
    operands = [jnp.asarray(value) for value in values]
    outs, applications = forward_pass(closed.jaxpr, closed.consts, operands, wanted)
    return outs, (closed.jaxpr, applications)


def _walk_back(op: Gradient, saved: Any, values: Sequence[Any]) -> list[Any]:
    jaxpr, applications = saved
    pull = op.call
    assert isinstance(pull, Pullback)
    in_cts = backward_pass(jaxpr, list(applications), pull.spread(values[len(pull.reads) :]), BODY)
    return pull.instantiated(in_cts, jaxpr.invars)


# --- the pullback of an operation -------------------------------------------------------------------------------------

BODY = "body"  # the scope of equations inside an operation


class Pullback:
    """The pullback of ``call`` as a function of the operands that it ``reads`` and the ``present`` cotangents.

    It returns the cotangents of the operands at ``yields``. Those are the ``wanted`` ones, but for such as are zero
    whatever the values. An operand of known shape of which no value is read is no operand of the pullback.
    """

    def __init__(
        self, call: Callable[..., Any], types: tuple[Type, ...], wanted: tuple[bool, ...], present: tuple[bool, ...]
    ):
        self.call, self.types, self.wanted, self.present = call, types, wanted, present
        self.__name__, self.sizes = f"{call.__name__}_grad", sizes_in(call)
        self.shared = is_shared(call)
        small, large = trials(self._traced, types, sizes_in(call))
        (self.yields, read), (others, read_large) = small, large
        assert self.yields == others, f"{self.__name__}: which cotangents are zero depends on shapes"
        self.reads = tuple(i for i, of in enumerate(types) if not of.known or i in read or i in read_large)

    def _traced(self, *operands: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which cotangents are not zero, and which operands are read for them."""
        yields: tuple[int, ...] = ()
        values = fitted(self.call, operands)
        cts = self._cts_of(values)

        def pulled(*arguments):
            nonlocal yields
            in_cts = self._pull(arguments[: len(values)], arguments[len(values) :])
            yields = tuple(i for i, ct in enumerate(in_cts) if ct is not None and self.wanted[i])
            return [in_cts[i] for i in yields]

        needed, _ = dce(jax.make_jaxpr(pulled)(*values, *cts))
        used = {atom for eqn in needed.eqns for atom in eqn.invars if isinstance(atom, Var)}
        used.update(atom for atom in needed.jaxpr.outvars if isinstance(atom, Var))
        return yields, tuple(i for i, var in enumerate(needed.jaxpr.invars[: len(values)]) if var in used)

    def _cts_of(self, operands: Sequence[Any]) -> list[Any]:
        """The types of the present cotangents, where the operands are of these types."""
        outs = jax.tree.leaves(jax.eval_shape(self.call, *operands))
        return list(itertools.compress(outs, self.present))

    def fitted(self, avals: Sequence[Any]) -> Sequence[Any]:
        """Operands that fit together: cotangents are as large as the results for operands of these sizes.

        Sizes that are not known are those of operands that are read: ``reads`` has them all.
        """
        operands = fitted(self.call, self._spread_operands(avals))
        return [*(operands[i] for i in self.reads), *self._cts_of(operands)]

    def _spread_operands(self, given: Sequence[Any]) -> list[Any]:
        """The ``given`` operands that are read, and types in the places of the others, which are of known shape."""
        read = dict(zip(self.reads, given, strict=False))
        absent = [i for i in range(len(self.types)) if i not in read]
        read.update(zip(absent, avals([self.types[i] for i in absent], (), 0), strict=True))
        return [read[i] for i in range(len(self.types))]

    def _pull(self, operands: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
        _, (jaxpr, applications) = _differentiably(self.call, operands, self.wanted)
        return backward_pass(jaxpr, applications, self.spread(cts), BODY)

    def spread(self, cts: Sequence[Any]) -> list[Any]:
        """``cts`` with None for the cotangents that are zero."""
        given = iter(cts)
        return [next(given) if there else None for there in self.present]

    def instantiated(self, in_cts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        """The cotangents at ``yields``, which for these shapes may be zero; others must be."""
        for i, ct in enumerate(in_cts):
            if ct is not None and self.wanted[i] and i not in self.yields:
                raise ValueError(
                    f"{self.__name__}: the cotangent of operand {i} is zero for most sizes, and not for these: such a "
                    "function has no derivative for unknown sizes. Make its placeholders of known shape."
                )
        return [zero_gradient(operands[i].aval) if in_cts[i] is None else in_cts[i] for i in self.yields]

    def __call__(self, *arguments: Any) -> list[Any]:
        operands = [
            lax.full(operand.shape, 0, operand.dtype)
            if isinstance(operand, jax.ShapeDtypeStruct)
            else jnp.asarray(operand)
            for operand in self._spread_operands(arguments)
        ]
        return self.instantiated(self._pull(operands, arguments[len(self.reads) :]), operands)


_pullback_once = functools.lru_cache(MAX_CACHED)(Pullback)


def pullback_of(
    call: Callable[..., Any], types: tuple[Type, ...], wanted: tuple[bool, ...], present: tuple[bool, ...]
) -> Pullback:
    """The :class:`Pullback` of these: one for all uses of a shared ``call``, so that it is found once."""
    return (_pullback_once if is_shared(call) else Pullback)(call, types, wanted, present)


# --- a part of a graph as a function ----------------------------------------------------------------------------------


def function_of(outputs: Sequence[Symbol], inputs: Sequence[Symbol]) -> tuple[Callable[..., list[Any]], list[Symbol]]:
    """The part of a graph that computes ``outputs`` as a JAX function of ``inputs``, and of the list of other sources.

    The function takes the values of ``(*inputs, *others)``, where ``others`` are the variables, placeholders and
    captured Symbols that the outputs depend on, and returns a list. An operation in it that writes is refused.
    """
    operations = schedule(outputs, inputs)
    for op in operations:
        if op.writes is not None:
            raise ValueError(
                f"{op.name} writes {op.writes} inside a function (a body of cond, while_loop or scan, or under a "
                "jacobian). Return the new value from there, and assign it outside."
            )
    others = [op.outputs[0] for op in operations if op.call is None and op.outputs]
    known = [*inputs, *others]

    def part(*values):
        read = execute(operations, outputs, dict(zip(known, values, strict=True)), {})
        return [read(symbol) for symbol in outputs]

    return part, others


# --- a compiled run ---------------------------------------------------------------------------------------------------


class Plan:
    """What a session runs for some fetches and feeds.

    ``operations`` are those that run, in order; ``feeds`` and ``variables`` are the Symbols whose values it is given;
    ``writes`` the variables of which it returns new values. ``signatures`` tells for which types it was traced.
    """

    def __init__(
        self,
        graph: Graph,
        fetches: Sequence[Symbol | Operation],
        feeds: Sequence[Symbol],
        givens: Mapping[Symbol, Symbol] = NOTHING,
        updates: Sequence[tuple[Symbol, Symbol]] = (),
    ):
        self.graph, self.fetches, self.feeds, self.givens = graph, tuple(fetches), tuple(feeds), givens
        self.updates = tuple(updates)
        self.operations = schedule([*fetches, *(new for _, new in updates)], feeds, givens)
        self.outputs = [fetch for fetch in fetches if isinstance(fetch, Symbol)]
        self.signatures: list[str] = []
        self.variables: list[Symbol] = []
        self.writes: list[Symbol] = []
        self.missing: list[tuple[Symbol, Operation, int]] = []
        self._find_state()
        self.compiled = jax.jit(self.traced)

    def _find_state(self) -> None:
        """Which variables are read before they are written, which are written, and which feeds are missing."""
        fed = set(self.feeds)
        uses = [(op, i, symbol) for op in self.operations for i, symbol in enumerate(op.inputs)]
        uses += [(symbol.op, -1, symbol) for symbol in (*self.outputs, *(new for _, new in self.updates))]
        position = {op: i for i, op in enumerate(self.operations)}
        written: dict[Symbol, int] = {}
        for i, op in enumerate(self.operations):
            if op.writes is not None:
                written.setdefault(op.writes, i)
        for op, index, symbol in uses:
            symbol = replaced(symbol, self.givens)
            if symbol.op.call is not None or symbol in fed:
                continue
            if symbol.op.type != "variable":
                self.missing.append((symbol, op, index))
            elif symbol not in self.variables and position[op] <= written.get(symbol, len(self.operations)):
                self.variables.append(symbol)
        self.writes = list(dict.fromkeys([*written, *(variable for variable, _ in self.updates)]))

    def traced(self, *values: Any) -> tuple[Any, ...]:
        """The program: values of ``feeds`` and ``variables`` to values of the fetched Symbols and of ``writes``."""
        self.signatures.append(", ".join(jax.typeof(value).str_short() for value in values))
        typed = [_typed(symbol, value) for symbol, value in zip((*self.feeds, *self.variables), values, strict=True)]
        env = dict(zip(self.feeds, typed, strict=False))
        variables = dict(zip(self.variables, typed[len(self.feeds) :], strict=True))
        start = dict(variables)
        outputs = [*self.outputs, *(new for _, new in self.updates)]
        read = execute(self.operations, outputs, env, variables, self.givens)
        fetched = [start[s] if s in start and s not in env else read(s) for s in self.outputs]
        for variable, new in [(variable, read(new)) for variable, new in self.updates]:
            variables[variable] = _typed(variable, new)
        return (*fetched, *(variables[variable] for variable in self.writes))


def _typed(symbol: Symbol, value: Any) -> Any:
    """``value``, weakly typed if ``symbol`` is, so that it promotes as it did when the graph was built."""
    if jax.typeof(value).weak_type == symbol.type.weak_type:
        return value
    return lax.convert_element_type_p.bind(
        value, new_dtype=symbol.dtype, weak_type=symbol.type.weak_type, sharding=None
    )


def flattened(fetches: Any) -> tuple[list[Any], Any]:
    """The leaves of a structure of fetches, None among them, and the structure."""
    return tree_flatten(fetches, is_leaf=lambda leaf: leaf is None)
