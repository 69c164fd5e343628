"""Exercises with a checker: a rule that is missing, a walk over a tape, a pass to write.

What flows in: an exercise's name, and an answer, which is a function. What flows out: a :class:`Report`, which says of
every check whether the answer passes it, and if not, what was found instead. Read :func:`check`, then ``EXERCISES``.
The notebooks of ``docs/notebooks/`` are around these.

Expected values come from central differences in float64, and, for a rule, from JAX.
"""

import functools
import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, Var, jaxpr_as_fun

import twograd.lax as tlax
import twograd.numpy as tnp
from twograd import graph, rules
from twograd.graph.passes import rewrite
from twograd.lore.museum import agree
from twograd.lore.mutations import POSITIVE, X, Y, examine, of, replaced, spread_to, weighted


class Wrong(AssertionError):
    """An answer that is not right, and how one can tell."""


@dataclass(frozen=True, eq=False)
class Exercise:
    """``checks`` are by name: each takes an answer, and raises where it is wrong. ``solution`` is one that is right."""

    name: str
    task: str
    solution: Callable[..., Any]
    checks: Mapping[str, Callable[[Any], None]]


@dataclass(frozen=True)
class Report:
    """What each check says of an answer: nothing where it passes. Printed as a list, in a notebook too."""

    exercise: str
    said: Mapping[str, str]

    @property
    def passed(self) -> bool:
        return not any(self.said.values())

    def __str__(self) -> str:
        width = max(map(len, self.said))
        lines = [f"  {name.ljust(width)}  " + (f"WRONG: {said}" if said else "ok") for name, said in self.said.items()]
        return "\n".join([f"{self.exercise}: {'right' if self.passed else 'not yet'}", *lines])

    __repr__ = __str__


def check(name: str, answer: Callable[..., Any]) -> Report:
    """Runs every check of an exercise on an ``answer``. Raises LookupError for an exercise that does not exist."""
    exercise = _exercise(name)
    if not callable(answer):
        raise TypeError(f"the answer to {name} is a function, got {type(answer).__name__}: {exercise.task}")
    return Report(name, {each: _said(run, answer) for each, run in exercise.checks.items()})


def solution(name: str) -> str:
    """The text of an answer that is right."""
    return inspect.getsource(_exercise(name).solution).rstrip()


def _exercise(name: str) -> Exercise:
    for exercise in EXERCISES:
        if exercise.name == name:
            return exercise
    raise LookupError(f"no exercise is called {name!r}; there are {', '.join(e.name for e in EXERCISES)}")


def _said(run: Callable[[Any], None], answer: Callable[..., Any]) -> str:
    """What a check says: nothing if it passes. An answer may raise anything."""
    try:
        run(answer)
    except AssertionError as error:
        return str(error)
    except Exception as error:
        return f"it raises {type(error).__name__}: {str(error).partition(chr(10))[0]}{_where(error, answer)}"
    return ""


def _where(error: Exception, answer: Callable[..., Any]) -> str:
    """The line of the answer that was being run, where it can be told."""
    file = getattr(getattr(inspect.unwrap(answer), "__code__", None), "co_filename", "")
    line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == file:
            line = linecache.getline(file, number).strip()
    return line and f", in the line: {line}"


# --- a missing rule ---------------------------------------------------------------------------------------------------


def rule_check(
    primitive: Primitive, operand: str, what: Sequence[str], program: Callable[..., Any], *args: np.ndarray
) -> Callable[[Any], None]:
    """Holds the answer, a rule of ``primitive`` for ``operand``, to some of what :func:`examine` asks."""

    def run(answer):
        with replaced(primitive, **{operand: returning_something(answer)}):
            outcomes = examine(program, *args)
        for name in ("types", *what):
            if name in outcomes and outcomes[name].caught:
                raise Wrong(outcomes[name].said)

    return run


def returning_something(rule: Callable[..., Any]) -> Callable[..., Any]:
    """``rule``, with an error where it returns None, which in a rule says that the cotangent is zero."""

    @functools.wraps(rule)
    def checked(*args, **kwargs):
        ct = rule(*args, **kwargs)
        if ct is None:
            raise Wrong("the rule returns None: is there a return?")
        return ct

    return checked


def keeps(*names: str) -> Callable[[Any], None]:
    """That a rule saves no more than these: its signature says what it saves."""

    def run(answer):
        read = [p.name for p in inspect.signature(answer).parameters.values() if p.kind is not p.KEYWORD_ONLY][1:]
        more = [name for name in read if name not in names and not name.endswith("_aval")]
        if more:
            raise Wrong(f"it keeps {', '.join(more)}, and can do with {', '.join(names) or 'nothing'}")

    return run


def logistic_rule(ct, out):
    """The slope is s (1 - s), of the result s."""
    return ct * out * (1 - out)


def broadcast_rule(ct, x_aval, *, shape, broadcast_dimensions):
    """Copying, backwards, is summing: over the axes that are new, and over those that were stretched."""
    kept = [axis for axis, n in zip(broadcast_dimensions, x_aval.shape, strict=True) if n == shape[axis]]
    summed = [axis for axis in range(len(shape)) if axis not in kept]
    return lax.reshape(lax.reduce_sum(ct, summed), x_aval.shape)


def max_rule(ct, x, y):
    """All to the larger one; at a tie half to each."""
    return ct * jnp.where(x == y, 0.5, jnp.where(x > y, 1.0, 0.0)).astype(ct.dtype)


# --- a walk over a tape -----------------------------------------------------------------------------------------------


DEEP = 1201
NESTED = 1000
"""Python's own limit of calls within calls, which other libraries may have raised."""


class Variable:
    """A value that is recorded, and its type."""

    def __init__(self, value: Any):
        self.value, self.aval = value, jax.typeof(value)

    def __repr__(self) -> str:
        return f"<Variable {self.aval.str_short()}>"


class Entry(NamedTuple):
    """One line of a tape: a primitive that was applied, what it was applied to, and what its rules have to read."""

    eqn: JaxprEqn
    operands: tuple[Variable, ...]
    result: Variable
    wanted: tuple[bool, ...]
    saved: Any


def record(tape: list[Entry], op: Callable[..., Any], *operands: Variable) -> Variable:
    """Applies ``op`` of ``jax.lax``, one primitive, and appends an entry to ``tape``."""
    values = [x.value for x in operands]
    (eqn,) = jax.make_jaxpr(op)(*values).eqns
    wanted = rules.wanted_operands(eqn, [True] * len(operands))
    (value,), saved = rules.forward(eqn, values, wanted)
    tape.append(Entry(eqn, operands, Variable(value), wanted, saved))
    return tape[-1].result


def tape_check(program: Callable[..., Variable], *xs: Any) -> Callable[[Any], None]:
    """``program(tape, *variables)`` records something; the answer walks back over it from a number."""

    def variables_of(values):
        return [Variable(jnp.asarray(value, jnp.float64)) for value in values]

    @jax.enable_x64(True)
    def run(answer):
        tape: list[Entry] = []
        variables = variables_of(xs)
        result = program(tape, *variables)
        ct_env = walked(answer, tape, result)
        for i, (variable, x) in enumerate(zip(variables, xs, strict=True)):
            found = cotangent(ct_env, variable)
            if found.shape != variable.aval.shape:
                raise Wrong(f"the cotangent of operand {i}, of shape {variable.aval.shape}, has shape {found.shape}")
            agree(found, lambda moved, i=i: program([], *variables_of([*xs[:i], moved, *xs[i + 1 :]])).value, x)

    return run


def walked(answer: Callable[..., Any], tape: list[Entry], result: Variable) -> Mapping[Any, Any]:
    ct_env = answer(tape, result, lax.full_like(result.value, 1))
    if not isinstance(ct_env, Mapping):
        raise Wrong(f"a walk returns a dict from each Variable to its cotangent, not {type(ct_env).__name__}")
    return ct_env


def cotangent(ct_env: Mapping[Any, Any], variable: Variable) -> Any:
    ct = ct_env.get(variable)
    if ct is None:
        raise Wrong(f"the dict has no cotangent of {variable}, an operand of the program; it has {[*ct_env]}")
    return ct


def chain(tape, x):
    return record(tape, _sum, record(tape, lax.exp, record(tape, lax.sin, x)))


def _sum(x: Any) -> Any:
    return lax.reduce_sum(x, list(range(x.ndim)))


def fan_out(tape, x):
    return record(tape, _sum, record(tape, lax.mul, x, record(tape, lax.mul, x, x)))


def diamond(tape, x):
    """One way from h to the result is shorter than the other."""
    h = record(tape, lax.exp, x)
    long_way = record(tape, lax.sin, record(tape, lax.tanh, h))
    return record(tape, _sum, record(tape, lax.mul, h, long_way))


def broadcasting(tape, x, y):
    return record(tape, _sum, record(tape, lax.mul, record(tape, lax.sin, x), y))


def unused(tape, x):
    record(tape, lax.exp, x)  # nobody reads it
    return record(tape, _sum, record(tape, lax.sin, x))


def deep(answer):
    """More operations than Python lets calls nest: a walk has to be a loop."""
    tape: list[Entry] = []
    x = Variable(jnp.float32(1))
    result = record(tape, lax.neg, x)
    for _ in range(DEEP - 1):
        tape.append(tape[0]._replace(operands=(result,), result=Variable(result.value)))
        result = tape[-1].result
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(min(limit, NESTED))
        found = cotangent(walked(answer, tape, result), x)
    except RecursionError:
        raise Wrong("it calls itself once for each operation, and Python does not nest calls as deep") from None
    finally:
        sys.setrecursionlimit(limit)
    if found != (-1) ** DEEP:
        raise Wrong(f"the gradient of {DEEP} negations, one upon the other, is {(-1) ** DEEP}")


def backward(tape, result, ct):
    """Backwards over the entries: when one is reached, all that use its result have been."""
    ct_env = {result: ct}
    for entry in reversed(tape):
        if entry.result in ct_env:
            in_cts = rules.pullback(entry.eqn, entry.saved, [ct_env.pop(entry.result)], entry.wanted)
            for x, in_ct in zip(entry.operands, in_cts, strict=True):
                rules.accumulate(ct_env, x, in_ct, x.aval)
    return ct_env


TAPE_CHECKS = {
    "chain": tape_check(chain, X),
    "fan-out": tape_check(fan_out, X),
    "order": tape_check(diamond, X),
    "un-broadcasting": tape_check(broadcasting, 0.5, X),
    "unused result": tape_check(unused, X),
    f"{DEEP} operations": deep,
}


# --- a pass to write --------------------------------------------------------------------------------------------------


def pass_check(fires: Mapping[str, int], program: Callable[..., Any], *args: Any) -> Callable[[Any], None]:
    """The answer changes neither types nor values; afterwards there are so many equations of these primitives."""

    def run(answer):
        g = graph.trace(program, *args)
        expected = jaxpr_as_fun(g.jaxpr)(*args)
        # JAX keeps what it has traced: an answer that deletes equations in place would spoil all later checks.
        changed = answer(g.jaxpr.replace(jaxpr=g.jaxpr.jaxpr.replace(eqns=[*g.jaxpr.eqns])))
        changed = changed[0] if isinstance(changed, tuple) else changed
        if not isinstance(changed, ClosedJaxpr):
            raise Wrong(f"a pass returns a ClosedJaxpr, not {type(changed).__name__}")
        if list(map(str, changed.in_avals)) != list(map(str, g.jaxpr.in_avals)):
            raise Wrong(f"the program took {g.jaxpr.in_avals}, and now takes {changed.in_avals}")
        check_order(changed)
        found = jaxpr_as_fun(changed)(*args)
        if len(found) != len(expected):
            raise Wrong(f"the program returned {len(expected)} results, and now returns {len(found)}")
        for mine, other in zip(found, expected, strict=True):
            if not np.allclose(mine, other, rtol=1e-6):
                raise Wrong(f"the program returned {other}, and now returns {mine}")
        for name, count in fires.items():
            has = sum(eqn.primitive.name == name for eqn in changed.eqns)
            if has != count:
                raise Wrong(f"there are {has} equations of {name}, and there should be {count}")

    return run


def check_order(closed: ClosedJaxpr) -> None:
    """That an equation comes after those whose results it reads."""
    computed = {*closed.jaxpr.constvars, *closed.jaxpr.invars}
    for eqn in closed.eqns:
        for atom in eqn.invars:
            if isinstance(atom, Var) and atom not in computed:
                raise Wrong(f"the equation of {eqn.primitive} reads what no equation before it computes")
        computed.update(eqn.outvars)
    for atom in closed.jaxpr.outvars:
        if isinstance(atom, Var) and atom not in computed:
            raise Wrong("the program returns what no equation computes")


def with_dead_code(x):
    jnp.cos(jnp.exp(x))  # nobody reads it
    return jnp.sin(x)


def with_live_code(x, y):
    h = jnp.exp(x)
    return jnp.sin(h), h * y


def with_an_effect(x):
    jax.debug.callback(print_nothing, jnp.exp(x))
    return jnp.sin(x)


def dead_code(closed):
    """From the results upwards: what is needed, and what that needs in its turn."""
    needed = {atom for atom in closed.jaxpr.outvars if isinstance(atom, Var)}
    live = []
    for eqn in reversed(closed.eqns):
        if eqn.effects or any(var in needed for var in eqn.outvars):
            needed |= {atom for atom in eqn.invars if isinstance(atom, Var)}
            live.append(eqn)
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=live[::-1]))


def double_negation(closed):
    """A visitor sees the equations in order, with what stands for their operands now."""

    def visitor_of(walk):
        negated = {}

        def visit(eqn):
            if eqn.primitive is lax.neg_p:
                (operand,) = eqn.invars
                if isinstance(operand, Var) and operand in negated:
                    return "neg", [negated[operand]]
                negated[eqn.outvars[0]] = operand
            return None

        return visit

    return rewrite("double negation", closed, visitor_of)


def same_twice(closed):
    """The same primitive with the same parameters of the same operands has the same results."""

    def visitor_of(walk):
        computed = {}

        def visit(eqn):
            operands = tuple(atom if isinstance(atom, Var) else (float(atom.val), atom.aval) for atom in eqn.invars)
            key = (eqn.primitive, operands, str(eqn.params))
            if eqn.effects or key not in computed:
                computed[key] = eqn.outvars
                return None
            return eqn.primitive.name, computed[key]

        return visit

    return rewrite("same twice", closed, visitor_of)


def negations(x, y):
    once = -x
    return lax.neg(once), lax.neg(lax.neg(lax.neg(y))), once


def twice_sine(x):
    return lax.sin(x) * x + lax.sin(x)


def two_powers(x):
    return lax.integer_pow(x, 2) + lax.integer_pow(x, 3)


def two_effects(x):
    for _ in range(2):
        jax.debug.callback(print_nothing, x)
    return lax.sin(x)


def print_nothing(_):
    pass


# --- the exercises ----------------------------------------------------------------------------------------------------

P, Q = np.float32(0.5), np.float32(-1.5)
BROADCAST = lax.broadcast_in_dim_p
stretched = of(lambda x: tlax.broadcast_in_dim(x, (3, 4), (0, 1)))

EXERCISES = [
    Exercise(
        "logistic",
        "a rule of lax.logistic_p for x: a function of ct, and of what it has to read",
        logistic_rule,
        {
            "gradient by differences": rule_check(lax.logistic_p, "x", ["differences"], of(tlax.logistic), X),
            "gradient by jax.vjp": rule_check(lax.logistic_p, "x", ["jax.vjp"], of(tlax.logistic), X),
            "order 2": rule_check(lax.logistic_p, "x", ["order 2"], of(tlax.logistic), X),
            "keeps its result alone": keeps("out"),
        },
    ),
    Exercise(
        "broadcast",
        "a rule of lax.broadcast_in_dim_p for x: a function of ct, x_aval, and by keyword shape, broadcast_dimensions",
        broadcast_rule,
        {
            "(3,) to (4, 3)": rule_check(BROADCAST, "x", ["differences"], spread_to(4, 3, along=1), X),
            "(3,) to (3, 4)": rule_check(BROADCAST, "x", ["differences", "order 2"], spread_to(3, 4, along=0), X),
            "(3,) to (3, 3)": rule_check(BROADCAST, "x", ["differences"], spread_to(3, 3, along=0), X),
            "(3, 1) to (3, 4)": rule_check(BROADCAST, "x", ["differences"], stretched, X.reshape(3, 1)),
            "keeps nothing": keeps(),
        },
    ),
    Exercise(
        "max",
        "a rule of lax.max_p for x: a function of ct, x, y",
        max_rule,
        {
            "gradient by differences": rule_check(lax.max_p, "x", ["differences"], of(tnp.maximum), X, POSITIVE),
            "ties: half to each, by jax.vjp": rule_check(lax.max_p, "x", ["jax.vjp"], of(tnp.maximum), X, Y),
            "order 2": rule_check(
                lax.max_p, "x", ["order 2"], lambda x, y: weighted(tnp.square(tnp.maximum(x, y))), X, POSITIVE
            ),
        },
    ),
    Exercise(
        "backward",
        "a walk: a function of a tape (a list of Entry), the result and its cotangent, to a dict of cotangents",
        backward,
        TAPE_CHECKS,
    ),
    Exercise(
        "dead-code",
        "a pass: a function of a ClosedJaxpr that returns one without the equations that nobody needs",
        dead_code,
        {
            "what is needed stays": pass_check({"exp": 1, "sin": 1, "mul": 1}, with_live_code, P, Q),
            "what is not needed goes": pass_check({"exp": 0, "cos": 0, "sin": 1}, with_dead_code, P),
            "effects stay": pass_check({"exp": 1, "debug_callback": 1}, with_an_effect, P),
        },
    ),
    Exercise(
        "double-negation",
        "a pass that lets x stand for -(-x)",
        double_negation,
        {
            "values": pass_check({}, negations, P, Q),
            "three of five stay": pass_check({"neg": 3}, negations, P, Q),
        },
    ),
    Exercise(
        "same-twice",
        "a pass that lets the result of an equation stand for that of a later one which computes the same",
        same_twice,
        {
            "the same goes": pass_check({"sin": 1}, twice_sine, P),
            "parameters count": pass_check({"integer_pow": 2}, two_powers, P),
            "effects happen twice": pass_check({"debug_callback": 2}, two_effects, P),
        },
    ),
]
"""In the order of the notebooks."""
