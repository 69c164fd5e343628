"""The table of derivative rules: one entry per JAX primitive, one rule per operand.

What flows in: calls of :func:`vjp`, :func:`vjp_call`, :func:`nondifferentiable` and :func:`refused` from this folder's
other modules.
What flows out: :func:`forward` and :func:`pullback`, the only two functions by which an engine meets a rule, and
:func:`save_map`, the table as data. Read :func:`vjp` first.

A rule is a pullback for one operand. **What its signature names is what is saved** between the forward pass and the
backward pass; nothing else is kept alive:

=====================  =========================================================================================
a parameter            is given
=====================  =========================================================================================
``ct`` (the first)     the cotangent of the (first) output
``cts`` (the first)    the cotangents of all outputs, a tuple with None where one is zero
an operand's name      that operand's value (a tuple of values where the operand is declared with a star)
``out``, ``outs``      the primitive's result, or all its results
``NAME_aval(s)``       only the shape and dtype of one of the above; nothing is saved
=====================  =========================================================================================

A keyword-only parameter is given the primitive's static parameter of that name; ``wanted`` is the mask of operands
whose cotangent is asked for (rules for starred operands return one cotangent per operand, None where not wanted).

A rule speaks ``jax.lax`` only, so it runs on values and on tracers alike. It may return a cotangent that is broader
than its operand: :func:`twograd.rules.accumulate` sums it down. It returns None for a cotangent that is zero. Where
there is no derivative it raises NotImplementedError with the reason, and the user meets a NoRule with that reason.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, Primitive

from twograd._compat import bind_again, emitting
from twograd.errors import NoRule

Values = Sequence[Any]


@dataclass(frozen=True, slots=True)
class OperandRule:
    """The pullback with respect to one operand, and what its signature asks for."""

    function: Callable[..., Any]
    reads: tuple[str, ...]
    statics: tuple[str, ...]
    all_cts: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "OperandRule":
        parameters = [*inspect.signature(function).parameters.values()]
        first, rest = parameters[0].name if parameters else None, parameters[1:]
        assert first in ("ct", "cts"), f"{function}: the first parameter is ct or cts, not {first}"
        statics = tuple(p.name for p in rest if p.kind is p.KEYWORD_ONLY)
        reads = tuple(p.name for p in rest if p.kind is not p.KEYWORD_ONLY)
        return cls(function, reads, statics, all_cts=first == "cts")

    @property
    def saves(self) -> tuple[str, ...]:
        """The values that are kept for this rule: operands by name, ``out`` or ``outs``."""
        return tuple(name for name in self.reads if not name.endswith(("_aval", "_avals")))


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A table entry.

    ``operands`` are the names of the primitive's operands in order; the last may stand for all that are left (``*``).
    ``by_operand`` has a rule for each differentiable one. A primitive that carries jaxprs has ``forward`` and
    ``backward`` instead (see :func:`vjp_call`), and one that is refused has a ``reason`` (see :func:`refused`).
    """

    primitive: Primitive
    operands: tuple[str, ...] = ()
    by_operand: dict[str, OperandRule] = field(default_factory=dict)
    forward: Callable[..., tuple[list[Any], Any]] | None = None
    backward: Callable[..., Sequence[Any]] | None = None
    reached: Callable[..., Sequence[bool]] | None = None
    reason: str | None = None

    def positions(self, name: str, count: int) -> slice | int:
        """Where operand ``name`` stands among ``count`` operands: an index, or a slice where it is starred."""
        star = "*" + name
        return slice(self.operands.index(star), count) if star in self.operands else self.operands.index(name)

    def differentiable(self, count: int) -> tuple[bool, ...]:
        """For each of ``count`` operands, whether a cotangent can flow into it."""
        if self.forward is not None or self.reason is not None:
            return (True,) * count
        mask = [False] * count
        for name in self.by_operand:
            where = self.positions(name, count)
            if isinstance(where, slice):
                mask[where] = [True] * (count - where.start)
            else:
                mask[where] = True
        return tuple(mask)


table: dict[Primitive, Rule] = {}


def _enter(rule: Rule) -> None:
    assert rule.primitive not in table, f"two rules for {rule.primitive}"
    table[rule.primitive] = rule


def vjp(primitive: Primitive, operands: str | None = None, /, **rules: Callable[..., Any]) -> None:
    """Enters the derivative of ``primitive``: one pullback per differentiable operand, by keyword.

    ``operands`` names all operands in order, separated by spaces, the last with a star if there may be several; it is
    needed only where some operand has no rule or is starred.

        vjp(lax.sin_p, x=lambda ct, x: mul(ct, cos(x)))
        vjp(lax.select_n_p, "which *cases", cases=select_n_cases)
    """
    names = tuple(operands.split()) if operands else tuple(rules)
    by_operand = {name: OperandRule.of(function) for name, function in rules.items()}
    known = {name.removeprefix("*") for name in names} | {"out", "outs"}
    for name, rule in by_operand.items():
        assert name in known, f"{primitive} has no operand {name!r}"
        unknown = {read.removesuffix("_avals").removesuffix("_aval") for read in rule.reads} - known
        assert not unknown, (
            f"the rule of {primitive} for {name} names {sorted(unknown)}, which it has not; there are {sorted(known)}"
        )
    _enter(Rule(primitive, names, by_operand))


def nondifferentiable(*primitives: Primitive) -> None:
    """Enters primitives whose derivative is zero wherever it exists, or that take or yield no real numbers."""
    for primitive in primitives:
        _enter(Rule(primitive))


def refused(primitive: Primitive, reason: str) -> None:
    """Enters a primitive that has no derivative, though its results change with its operands.

    A cotangent that arrives at it raises NoRule with ``reason``: a sentence that says why, and what the way out is.
    """
    _enter(Rule(primitive, reason=reason))


def vjp_call(
    primitive: Primitive,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    reached: Callable[..., Any] | None = None,
) -> None:
    """Enters a primitive that carries jaxprs, whose forward pass must be changed to yield residuals.

    ``forward(eqn, operands, wanted) -> (outs, residuals)``: computes the results, and any pytree of residuals.
    ``backward(eqn, residuals, cts, wanted) -> in_cts``: one cotangent per operand, None where zero or not wanted.
    ``reached(eqn, wanted) -> mask``: which results depend on wanted operands; by default all.
    """
    _enter(Rule(primitive, forward=forward, backward=backward, reached=reached))


# --- how an engine meets a rule ---------------------------------------------------------------------------------------


@cache
def _is_inexact(dtype: Any) -> bool:
    return bool(jax.dtypes.issubdtype(dtype, np.inexact))


def carries_gradient(aval: Any) -> bool:
    """Whether a value of this type can have a cotangent: real and complex floating-point numbers of any width."""
    return hasattr(aval, "dtype") and _is_inexact(aval.dtype)


def wanted_operands(eqn: JaxprEqn, depends: Sequence[bool]) -> tuple[bool, ...]:
    """Which operands of ``eqn`` get a cotangent, given which of them depend on a differentiated input.

    A primitive that is not in the table keeps the mask of ``depends``: :func:`pullback` will raise, but only if a
    cotangent really arrives there.
    """
    rule = table.get(eqn.primitive)
    yields = not eqn.outvars or any(carries_gradient(var.aval) for var in eqn.outvars)  # or it writes to a reference
    if not any(depends) or not yields:
        return (False,) * len(depends)
    if rule is None:
        return tuple(depends)
    return tuple(d and r for d, r in zip(depends, _differentiable(rule, len(depends)), strict=True))


def reached_results(eqn: JaxprEqn, wanted: Sequence[bool]) -> Sequence[bool]:
    """Which results of ``eqn`` depend on its ``wanted`` operands, and can have a cotangent."""
    if not any(wanted):
        return (False,) * len(eqn.outvars)
    inexact = [carries_gradient(var.aval) for var in eqn.outvars]
    rule = table.get(eqn.primitive)
    if rule is None or rule.reached is None:
        return inexact
    return [i and r for i, r in zip(inexact, rule.reached(eqn, wanted), strict=True)]


@cache
def _differentiable(rule: Rule, count: int) -> tuple[bool, ...]:
    return rule.differentiable(count)


def forward(eqn: JaxprEqn, operands: Values, wanted: Sequence[bool]) -> tuple[list[Any], Any]:
    """Applies the primitive of ``eqn`` and keeps what :func:`pullback` will need for the ``wanted`` operands.

    Returns ``(outs, saved)``. ``saved`` maps names to the values that the rules' signatures name (to a tuple of values
    for a starred operand); for a primitive entered by :func:`vjp_call` it is that rule's pytree of residuals.
    """
    rule = table.get(eqn.primitive)
    if rule is not None and rule.forward is not None and any(wanted):
        with emitting(eqn):
            return rule.forward(eqn, operands, wanted)
    outs = bind_again(eqn, operands)
    if rule is None or not any(wanted):
        return outs, {}
    values = [*operands, *outs]
    return outs, {
        name: values[where] if isinstance(where, int) else tuple(values[i] for i in where)
        for name, where in saved_positions(eqn, wanted).items()
    }


def saved_positions(eqn: JaxprEqn, wanted: Sequence[bool]) -> Mapping[str, int | tuple[int, ...]]:
    """What is kept when the ``wanted`` operands are differentiated: names, and where among ``(*operands, *outs)``."""
    rule = table.get(eqn.primitive)
    return {} if rule is None else _saved_positions(rule, tuple(wanted), len(eqn.outvars))


@cache
def _saved_positions(rule: Rule, wanted: tuple[bool, ...], num_outs: int) -> Mapping[str, int | tuple[int, ...]]:
    count = len(wanted)
    positions: dict[str, int | tuple[int, ...]] = {}
    for _, operand_rule in _active(rule, wanted):
        for saved in operand_rule.saves:
            if saved == "out":
                positions[saved] = count
            elif saved == "outs":
                positions[saved] = tuple(range(count, count + num_outs))
            else:
                where = rule.positions(saved, count)
                positions[saved] = tuple(range(where.start, count)) if isinstance(where, slice) else where
    return positions


@cache
def _active(rule: Rule, wanted: tuple[bool, ...]) -> tuple[tuple[int | slice, OperandRule], ...]:
    """The rules of the ``wanted`` operands, each with where its operand stands."""
    placed = [(rule.positions(name, len(wanted)), by_operand) for name, by_operand in rule.by_operand.items()]
    return tuple(pair for pair in placed if np.any(wanted[pair[0]]))


def carries_jaxprs(primitive: Primitive) -> bool:
    """Whether ``primitive`` was entered by :func:`vjp_call`."""
    rule = table.get(primitive)
    return rule is not None and rule.forward is not None


@dataclass(frozen=True, slots=True)
class Called:
    """One call of a rule: of which primitive, for operands of which shapes, and which of them wanted a cotangent."""

    primitive: str
    shapes: tuple[tuple[int, ...], ...]
    wanted: tuple[bool, ...]


_recordings: list[list[Called]] = []


@contextmanager
def recording() -> Iterator[list[Called]]:
    """Lists the rules that are called inside the block, in order: by value or to emit equations, it is one list.

    A compiled derivative has called its rules when it was made, and calls none when it runs. All threads are heard.
    """
    calls: list[Called] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings[:] = [other for other in _recordings if other is not calls]


def pullback(eqn: JaxprEqn, saved: Any, cts: Values, wanted: Sequence[bool]) -> list[Any]:
    """The cotangents of the operands of ``eqn`` from those of its results (None where zero, in both directions)."""
    rule = table.get(eqn.primitive)
    if rule is None or rule.reason is not None:
        raise NoRule(eqn, rule and rule.reason)
    for calls in _recordings:
        calls.append(
            Called(eqn.primitive.name, tuple(getattr(atom.aval, "shape", ()) for atom in eqn.invars), tuple(wanted))
        )
    if rule.backward is not None:
        return list(rule.backward(eqn, saved, cts, wanted))
    in_cts: list[Any] = [None] * len(wanted)
    for where, operand_rule in _active(rule, tuple(wanted)):
        if not operand_rule.all_cts and cts[0] is None:
            continue
        arguments = [tuple(cts) if operand_rule.all_cts else cts[0]]
        arguments += [saved[name] if name in saved else _aval(eqn, rule, name) for name in operand_rule.reads]
        try:
            statics = {key: wanted[where] if key == "wanted" else eqn.params[key] for key in operand_rule.statics}
        except KeyError as error:
            raise TypeError(
                f"a rule of {eqn.primitive} names the parameter {error}, which it has not; there are "
                f"{sorted(eqn.params)}"
            ) from None
        try:
            ct = operand_rule.function(*arguments, **statics)
        except NotImplementedError as error:
            raise NoRule(eqn, str(error)) from None
        if isinstance(where, int) and isinstance(ct, (tuple, list)):
            raise TypeError(f"a rule of {eqn.primitive} returned a {type(ct).__name__}; of one operand it is one array")
        in_cts[where] = ct
    return in_cts


def _aval(eqn: JaxprEqn, rule: Rule, name: str) -> Any:
    """What a parameter ``NAME_aval`` or ``NAME_avals`` is given."""
    name = name.removesuffix("_avals").removesuffix("_aval")
    if name == "out":
        return eqn.outvars[0].aval
    if name == "outs":
        return tuple(var.aval for var in eqn.outvars)
    where = rule.positions(name, len(eqn.invars))
    return tuple(var.aval for var in eqn.invars[where]) if isinstance(where, slice) else eqn.invars[where].aval


# --- the table as data ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveMapRow:
    """One line of the save map: to differentiate ``primitive`` in ``operand``, ``saves`` must be kept."""

    primitive: str
    operand: str
    saves: tuple[str, ...]


def save_map() -> Iterator[SaveMapRow]:
    """What each rule keeps, read off the rules' own signatures; sorted by primitive."""
    for primitive, rule in sorted(table.items(), key=lambda item: item[0].name):
        for name, operand_rule in rule.by_operand.items():
            yield SaveMapRow(primitive.name, name, operand_rule.saves)
