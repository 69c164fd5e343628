"""Rules that are wrong on purpose, and which check tells: a test of the tests.

What flows in: a :class:`Mutation`, which is another rule for a primitive and a program that meets it; or any program,
with a rule that :func:`replaced` has put in the table. What flows out: of each check, whether it tells. Read
:func:`examine`, then any entry of ``MUTATIONS``.

Two engines that read one table agree on whatever stands in it. So agreement says that the two walks are the same, and
nothing about the rules; for these something is needed that does not read the table.

``python -m twograd.lore.mutations`` writes ``docs/mutations.md``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.lax import (
    convert_element_type,
    cos,
    exp,
    full_like,
    ge,
    index_in_dim,
    mul,
    neg,
    reshape,
    select,
    stop_gradient,
)

import twograd.lax as tlax
import twograd.numpy as tnp
from twograd import graph, rules, tape
from twograd.errors import CotangentMismatch
from twograd.lore.museum import STEP, TOLERANCE, Disagreement, agree, at_a_glance, rounded

CHECKS = {
    "types": "the cotangents have the types of their operands: `accumulate` asserts it at each equation",
    "engines": "`tape` and `graph` agree, the rule called on values and on tracers",
    "differences": "central differences of the program, in float64; no verdict at a kink",
    "jax.vjp": "JAX's own derivative, made of other rules",
    "order 2": "differences of the gradient against its derivative, as a gradgradcheck does; no verdict at a kink",
    "save map": "what is kept is what `docs/primitives.md` says",
}
"""By name, in order, what each check asks. None after ``types`` is run where that one tells."""


@dataclass(frozen=True)
class Outcome:
    """What a check says: True in ``caught`` where it tells, None where it cannot know; and its words."""

    caught: bool | None
    said: str = ""

    def __str__(self) -> str:
        return {True: "caught", False: "passes", None: "no verdict"}[self.caught]


@dataclass(frozen=True, eq=False)
class Mutation:
    """One wrong rule: that of ``primitive`` for ``operand``, and a ``program`` of float64 arrays that meets it.

    The program returns a number. ``args`` are its arguments.
    """

    name: str
    primitive: Primitive
    operand: str
    what: str
    rule: Callable[..., Any]
    program: Callable[..., Any]
    args: tuple[np.ndarray, ...]

    def outcomes(self) -> dict[str, Outcome]:
        """Puts the wrong rule in the table, runs all checks, and puts the right one back."""
        kept = tuple(rules.save_map())
        with replaced(self.primitive, **{self.operand: self.rule}):
            return examine(self.program, *self.args) | {"save map": _save_map_since(kept)}


@contextmanager
def replaced(primitive: Primitive, **by_operand: Callable[..., Any]) -> Iterator[None]:
    """Inside, these are the rules of ``primitive`` for these operands; afterwards, the table is as it was.

    The rules are written as for :func:`twograd.rules.vjp`; operands that are not named keep theirs. The table is one
    for all threads. A derivative that was compiled before does not see the change, and one that was made inside keeps
    it: make both anew. Raises ValueError for a primitive without such rules, and for an operand that has none.
    """
    before = rules.table.get(primitive)
    if before is None or not before.by_operand:
        raise ValueError(
            f"{primitive} has no rules by operand to replace; twograd.rules.save_map() lists those that do"
        )
    unknown = set(by_operand) - set(before.by_operand)
    if unknown:
        raise ValueError(f"{primitive} has rules for {', '.join(before.by_operand)}, not for {', '.join(unknown)}")
    others = {name: rule.function for name, rule in before.by_operand.items()}
    del rules.table[primitive]
    try:
        rules.vjp(primitive, " ".join(before.operands), **(others | by_operand))
        tape.clear_caches()
        yield
    finally:
        rules.table[primitive] = before
        tape.clear_caches()


def examine(f: Callable[..., Any], *args: Any) -> dict[str, Outcome]:
    """What the checks say of the gradient of ``f``, a program of float64 arrays that returns a number.

    ``f`` is written in ``twograd.numpy`` or ``twograd.lax``, so that all can run it. The save map is not asked: it
    needs to know what was there before.
    """
    with jax.enable_x64(True):
        args = tuple(np.asarray(arg, np.float64) for arg in args)
        wrt = tuple(range(len(args)))
        by_symbol = graph.grad(f, wrt)
        try:
            ours = by_symbol(*args)
            with tape.granularity("primitive"):
                by_value = tape.grad(f, wrt)(*args)
        except CotangentMismatch as error:
            return {"types": Outcome(True, str(error))}
        kink = any(_bent(_of_one(f, args, i), arg) for i, arg in enumerate(args))
        unknown = Outcome(None, "there is a kink: the slopes on its two sides differ")
        return {
            "types": Outcome(False),
            "engines": _compared(by_value, ours, "by value"),
            "differences": unknown if kink else _against_differences(f, ours, args),
            "jax.vjp": _compared(ours, jax.grad(f, wrt)(*args), "JAX gives"),
            "order 2": unknown if kink else _order_2(f, by_symbol, args),
        }


def _of_one(f: Callable[..., Any], args: Sequence[np.ndarray], i: int) -> Callable[[np.ndarray], Any]:
    """``f`` as a function of its argument ``i``."""
    return lambda x: f(*args[:i], x, *args[i + 1 :])


def _bent(f: Callable[[np.ndarray], Any], x: np.ndarray) -> bool:
    """Whether somewhere the slope to the right of ``x`` is not that to the left."""
    moves = [STEP * unit.reshape(x.shape) for unit in np.eye(x.size)]
    return any(abs(f(x + move) - 2 * f(x) + f(x - move)) / STEP > TOLERANCE for move in moves)


def _compared(found: Sequence[Any], expected: Sequence[Any], who: str) -> Outcome:
    for mine, other in zip(found, expected, strict=True):
        if not np.allclose(mine, other, rtol=1e-9, atol=1e-9):
            return Outcome(True, f"got {rounded(mine)}, {who} {rounded(other)}{at_a_glance(mine, other)}")
    return Outcome(False)


def _against_differences(f: Callable[..., Any], gradients: Sequence[Any], args: Sequence[np.ndarray]) -> Outcome:
    try:
        for i, gradient in enumerate(gradients):
            agree(gradient, _of_one(f, args, i), args[i])
    except Disagreement as error:
        return Outcome(True, str(error))
    return Outcome(False)


def _order_2(f: Callable[..., Any], gradient: Callable[..., Any], args: Sequence[np.ndarray]) -> Outcome:
    """Our second derivative along a direction against differences of our first: of its truth they know nothing."""

    def slope(*args):
        return sum(tnp.sum(ct * tnp.cos(tnp.arange(ct.size).reshape(ct.shape))) for ct in gradient(*args))

    try:
        seconds = graph.grad(slope, tuple(range(len(args))))(*args)
        for i, second in enumerate(seconds):
            agree(second, _of_one(slope, args, i), args[i])
    except (CotangentMismatch, Disagreement) as error:
        return Outcome(True, str(error))
    return Outcome(False)


def _save_map_since(before: Sequence[rules.SaveMapRow]) -> Outcome:
    rows = zip(rules.save_map(), before, strict=True)
    said = [
        f"{new.primitive} keeps {', '.join(new.saves) or 'nothing'}, and kept {', '.join(old.saves) or 'nothing'}"
        for new, old in rows
        if new != old
    ]
    return Outcome(bool(said), "; ".join(said))


# --- the mutations ----------------------------------------------------------------------------------------------------

X = np.array([0.3, -1.2, 0.8])
Y = np.array([0.3, 0.5, -0.7])  # its first element ties with that of X
POSITIVE = np.array([0.4, 1.5, 2.0])
WEIGHTS = np.arange(1.0, 13.0)
"""Every result counts by another number, so that cotangents which change places are not the same by chance."""


def weighted(results: Any) -> Any:
    return tnp.sum(results * WEIGHTS[: math.prod(results.shape)].reshape(results.shape))


def of(op: Callable[..., Any]) -> Callable[..., Any]:
    """The program that weighs the results of ``op``."""
    return lambda *args: weighted(op(*args))


def first_copy(ct, x_aval, *, shape, broadcast_dimensions):
    """The cotangent of one of the copies that a broadcast made, in place of the sum of all."""
    for axis in range(len(shape)):
        if axis not in broadcast_dimensions:
            ct = index_in_dim(ct, 0, axis)
    return reshape(ct, x_aval.shape)


def winner_takes_all(ct, x, y):
    """All of ct to x at a tie, where the convention is half."""
    return mul(ct, convert_element_type(ge(x, y), ct.dtype))


def spread_to(*shape: int, along: int) -> Callable[..., Any]:
    return lambda x: weighted(tlax.broadcast_in_dim(x, shape, (along,)))


MUTATIONS = [
    Mutation("sign", lax.sin_p, "x", "the sign is flipped",
             lambda ct, x, *, accuracy: neg(mul(ct, cos(x, accuracy=accuracy))), of(tnp.sin), (X,)),
    Mutation("factor", lax.square_p, "x", "the factor 2 is dropped", lambda ct, x: mul(ct, x), of(tnp.square), (X,)),
    Mutation("operand", lax.mul_p, "x", "reads x, not y", lambda ct, x: mul(ct, x), of(tnp.multiply), (X, POSITIVE)),
    Mutation("result", lax.log_p, "x", "divides by the result, not by the operand",
             lambda ct, out: lax.div(ct, out), of(tnp.log), (POSITIVE,)),
    Mutation("permutation", lax.transpose_p, "x", "the permutation is not inverted",
             lambda ct, *, permutation: lax.transpose(ct, permutation),
             of(lambda x: tnp.transpose(x, (1, 2, 0))), (WEIGHTS[:8].reshape(2, 2, 2),)),
    Mutation("permutation-of-two", lax.transpose_p, "x", "the same, on a matrix: it is its own inverse",
             lambda ct, *, permutation: lax.transpose(ct, permutation),
             of(tnp.transpose), (WEIGHTS[:4].reshape(2, 2),)),
    Mutation("one-copy", lax.broadcast_in_dim_p, "x", "un-broadcasts by taking one copy, not the sum",
             first_copy, spread_to(3, 4, along=0), (X,)),
    Mutation("no-unbroadcast", lax.broadcast_in_dim_p, "x", "does not un-broadcast: (3,) to (3, 4)",
             lambda ct: ct, spread_to(3, 4, along=0), (X,)),
    Mutation("no-unbroadcast-square", lax.broadcast_in_dim_p, "x",
             "the same, (3,) to (3, 3): summed, along the other axis", lambda ct: ct, spread_to(3, 3, along=0), (X,)),
    Mutation("no-unbroadcast-leading", lax.broadcast_in_dim_p, "x", "the same, (3,) to (4, 3): `accumulate` mends it",
             lambda ct: ct, spread_to(4, 3, along=1), (X,)),
    Mutation("tie", lax.max_p, "x", "a tie gives all to x, not half", winner_takes_all, of(tnp.maximum), (X, Y)),
    Mutation("no-tie", lax.max_p, "x", "the same, where there is no tie", winner_takes_all, of(tnp.maximum),
             (X, POSITIVE)),
    Mutation("order-2", lax.tanh_p, "x", "the result is taken for a constant",
             lambda ct, out: mul(ct, lax.sub(full_like(out, 1), lax.square(stop_gradient(out)))), of(tnp.tanh), (X,)),
    Mutation("kept", lax.exp_p, "x", "keeps the operand, and computes the result again",
             lambda ct, x: mul(ct, exp(x)), of(tnp.exp), (X,)),
    Mutation("kink", lax.abs_p, "x", "the slope at 0 is -1, not +1",
             lambda ct, x: select(lax.gt(x, full_like(x, 0)), ct, neg(ct)), of(tnp.abs), (X - X[0],)),
]  # fmt: skip


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = """\
# Which check catches a wrong rule

Each line is a rule of the table, changed; the program that meets it is differentiated by both engines, and every check
is asked. `twograd mutate` runs it, `twograd mutate NAME` shows what each check says, and
`twograd.lore.mutations.replaced` does it to a rule of your choice. Made by `python -m twograd.lore.mutations`.

{checks}

| name | rule | what is wrong with it | {names} |
|---|---|---|{rule}
{rows}

{sentences}
"""


def lab(chosen: Sequence[Mutation] = MUTATIONS) -> Iterator[tuple[Mutation, dict[str, Outcome]]]:
    """Runs the mutations, one after the other."""
    for mutation in chosen:
        yield mutation, mutation.outcomes()


def summary(found: Sequence[tuple[Mutation, dict[str, Outcome]]]) -> str:
    """How many of the changes each check has caught, and which none of those that look at numbers has."""
    counts = [
        f"{sum(outcomes[check].caught is True for _, outcomes in found if check in outcomes)} by {check}"
        for check in CHECKS
    ]
    numbers = [check for check in CHECKS if check != "save map"]
    harmless = [
        mutation.name
        for mutation, outcomes in found
        if not any(outcomes[check].caught for check in numbers if check in outcomes)
    ]
    text = f"Changes caught, of {len(found)}: {', '.join(counts)}."
    if harmless:
        text += f" No number is wrong in {', '.join(harmless)}: with these programs the derivative is right."
    return text


def page() -> str:
    """``docs/mutations.md``."""
    found = list(lab())
    rows = [
        f"| `{m.name}` | `{m.primitive}`, for `{m.operand}` | {m.what} | "
        + " | ".join(_cell(outcomes.get(check)) for check in CHECKS)
        + " |"
        for m, outcomes in found
    ]
    return PAGE.format(
        checks="\n".join(f"- **{name}**: {asks}." for name, asks in CHECKS.items()),
        names=" | ".join(CHECKS),
        rule="---|" * len(CHECKS),
        rows="\n".join(rows),
        sentences=summary(found),
    )


def _cell(outcome: Outcome | None) -> str:
    return "" if outcome is None else f"**{outcome}**" if outcome.caught else str(outcome)


if __name__ == "__main__":
    print(page(), end="")
