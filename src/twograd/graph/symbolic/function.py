"""Theano's way to run a graph: a Python function of some Symbols, compiled once and called many times."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax.tree_util import tree_unflatten

from twograd.graph.symbolic import errors
from twograd.graph.symbolic.build import as_symbol
from twograd.graph.symbolic.container import Symbol, get_default_session, home_of
from twograd.graph.symbolic.plan import Plan, flattened, replaced
from twograd.graph.symbolic.session import Run, Session
from twograd.graph.symbolic.variables import Variable

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]


def function(
    inputs: Sequence[Symbol],
    outputs: Any = None,
    updates: Pairs = (),
    givens: Pairs = (),
    on_unused_input: str = "raise",
    name: str = "function",
) -> "Function":
    """A function of the values of ``inputs`` that returns those of ``outputs`` (a Symbol, or a structure of them).

    ``updates`` are pairs of a variable and its new value, which is computed together with the outputs from the old
    values, and stored after them. ``givens`` are pairs of a Symbol and what stands in its place. For an input that
    nothing depends on, ``on_unused_input`` says "raise", "warn" or "ignore". No operation is added to the graph.

    Variables that are not :func:`shared` have their values in the default session.

    Raises UnusedInput and MissingInput (ValueErrors); TypeError for inputs, updates or givens that do not fit.
    """
    if on_unused_input not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_unused_input must be 'raise', 'warn' or 'ignore', got {on_unused_input!r}")
    if isinstance(inputs, Symbol):
        raise TypeError(f"Inputs of a function should be contained in a list, even when there is one: [{inputs.name}]")
    inputs, leaves = list(inputs), flattened(outputs)[0] if outputs is not None else []
    for what, symbols in (("input", inputs), ("output", leaves)):
        for index, symbol in enumerate(symbols):
            if not isinstance(symbol, Symbol):
                raise TypeError(
                    f"the {what} {index} of {name} must be a Symbol, got {type(symbol).__name__}: {symbol!r}"
                )
    if len(set(inputs)) < len(inputs):
        raise ValueError(f"{name}: an input is given twice: {', '.join(symbol.name for symbol in inputs)}")
    stored = [(variable, as_symbol(new)) for variable, new in _pairs(updates)]
    for variable, new in stored:
        _check_update(name, variable, new)
    if len({variable for variable, _ in stored}) < len(stored):
        raise ValueError(f"{name}: a variable is updated twice: {', '.join(variable.name for variable, _ in stored)}")
    given = {symbol: as_symbol(other) for symbol, other in _pairs(givens)}
    for symbol, other in given.items():
        if not symbol.type.fits(other.type):
            raise TypeError(
                f"{name}: givens puts {other}, of type {other.type}, in the place of {symbol}: {symbol.type}"
            )
    graph = home_of([*inputs, *leaves, *given, *given.values(), *(s for pair in stored for s in pair)])
    plan = Plan(graph, leaves, inputs, given, stored)
    if plan.missing:
        symbol, op, index = plan.missing[0]
        raise errors.MissingInput(
            f"Input {max(index, 0)} of the graph (indices start from 0), used to compute {op}, was not provided and "
            f"not given a value. It is {symbol}, made at {symbol.op.line}: put it among the inputs, or into givens."
        )
    _check_used(plan, inputs, on_unused_input)
    return Function(plan, outputs, name)


def _pairs(pairs: Pairs) -> list[tuple[Any, Any]]:
    return list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs)


def _check_update(name: str, variable: Any, new: Symbol) -> None:
    if not isinstance(variable, Variable):
        raise TypeError(f"{name}: only variables can be updated, not {variable}")
    if not variable.type.fits(new.type):
        raise TypeError(f"{name}: {variable} is {variable.type}, and its update {new} is {new.type}; see .astype")


def _check_used(plan: Plan, inputs: Sequence[Symbol], on_unused_input: str) -> None:
    """Raises, or warns, for the first input that nothing depends on."""
    read = [symbol for op in plan.operations for symbol in op.inputs]
    read += [*plan.outputs, *(new for _, new in plan.updates)]
    used = {replaced(symbol, plan.givens) for symbol in read}
    for index, symbol in enumerate(inputs):
        if symbol not in used and on_unused_input != "ignore":
            message = (
                "theano.function was asked to create a function computing outputs given certain inputs, but the "
                f"provided input variable at index {index} is not part of the computational graph needed to compute "
                f"the outputs: {symbol}.\nTo make this error into a warning, you can pass the parameter "
                "on_unused_input='warn' to function. To disable it completely, use on_unused_input='ignore'."
            )
            if on_unused_input == "raise":
                raise errors.UnusedInput(message)
            warnings.warn(message, stacklevel=3)


class Function:
    """What :func:`function` returns. ``plan`` tells what it runs."""

    def __init__(self, plan: Plan, outputs: Any, name: str):
        self.plan, self.name = plan, name
        session = get_default_session()
        session = session if session is not None and session.graph is plan.graph else Session(plan.graph)
        self._none = outputs is None
        tree = None if self._none else flattened(outputs)[1]
        self._run = Run(plan, session.cell_of, tree, isinstance(outputs, Symbol))

    def __repr__(self) -> str:
        return f"<symbolic.Function {self.name}({', '.join(symbol.op.name for symbol in self.plan.feeds)})>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs; arguments by position, or by the names of the inputs."""
        if kwargs or len(args) != len(self.plan.feeds):
            args = self._bound(args, kwargs)
        values = self._run(args)
        if self._none:
            return None
        return values[0] if self._run.single else tree_unflatten(self._run.tree, values)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        names = [symbol.op.name for symbol in self.plan.feeds]
        if len(args) > len(names):
            raise TypeError(f"Too many parameter passed to {self.name}: it takes {len(names)}, got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key in given or key not in names:
                raise TypeError(f"{self.name} got an unexpected argument {key!r}; it takes {', '.join(names)}")
            given[key] = value
        missing = [name for name in names if name not in given]
        if missing:
            raise TypeError(f"Missing required input: {', '.join(missing)} of {self.name}")
        return tuple(given[name] for name in names)
