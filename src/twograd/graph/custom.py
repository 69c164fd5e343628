"""Functions with derivative rules of their own, as jaxprs: of the function, and of its rules.

What flows in: a ``custom_jvp_call`` or ``custom_vjp_call`` equation, whose rules are Python functions. What flows out:
its parts, which a text can hold (:func:`parts_of`), and of parts the function that they are of (:func:`apply_parts`).
Read :class:`Rules`, which gives equations with equal parts one name: a rule may call the function that it is the rule
of (relu's does), so parts refer to each other, and to themselves, by name.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, primitives

from twograd._compat import called_here, custom_jvp_jaxpr, custom_vjp_backward, custom_vjp_forward, emitting
from twograd.graph.transform import evaluate

CUSTOM = (primitives.custom_jvp_call_p, primitives.custom_vjp_call_p)
DEEPEST = 6
"""How many rules may stand inside of one another until they are taken for ones that never repeat."""

Parts = dict[str, Any]
"""``num_consts``, ``call_jaxpr`` and, of a custom JVP, ``jvp``: primals and tangents -> results and their tangents.

Of a custom VJP ``fwd``: primals -> residuals and results; ``residuals``: for each the operand that it is, or None for
the next output of ``fwd``; ``bwd``: residuals and cotangents -> cotangents; and ``zeros``: which of these are zero, and
no outputs. ``num_consts`` and ``zeros`` may be absent. The first ``num_consts`` operands are what the function closes
over; rules have what they close over as constants.
"""


class HasNoText(Exception):
    """A rule that is no jaxpr, or not always the same one."""


def parts_of(eqn: JaxprEqn) -> Parts:
    """The parts of a custom call, its rules traced as a gradient of ``eqn`` would trace them. Raises HasNoText."""
    params, num_consts = eqn.params, eqn.params["num_consts"]
    if params["symbolic_zeros"]:
        raise HasNoText("a rule that asks which tangents are zero has several jaxprs")
    primals = [atom.aval for atom in eqn.invars[num_consts:]]
    parts: Parts = {"num_consts": num_consts} if num_consts else {}
    parts["call_jaxpr"] = params["call_jaxpr"]
    try:
        with emitting(eqn):
            if eqn.primitive is primitives.custom_jvp_call_p:
                parts["jvp"], _ = custom_jvp_jaxpr(params, (False,) * len(primals))
            else:
                parts["fwd"], forwarded, count = custom_vjp_forward(params, (True,) * len(primals))
                parts["residuals"] = tuple(None if index is None else index - num_consts for index in forwarded)
                kept = residuals(parts, parts["fwd"].out_avals[:count], primals)
                parts["bwd"], zeros = _backward(eqn, kept)
                parts |= {"zeros": zeros} if any(zeros) else {}
    except Exception as error:  # whatever the user's function raises when it is traced here
        raise HasNoText(f"tracing its rule raises {type(error).__name__}") from error
    rules = [parts[key] for key in ("jvp", "fwd", "bwd") if key in parts]
    if any(isinstance(const, Tracer) for rule in rules for const in rule.consts):
        raise HasNoText("its rule closes over values of a trace")
    return parts


def _backward(eqn: JaxprEqn, residuals: Sequence[Any]) -> tuple[ClosedJaxpr, tuple[bool, ...]]:
    zeros: tuple[bool, ...] = ()

    def backward(residuals: list[Any], cts: list[Any]) -> list[Any]:
        nonlocal zeros
        found = custom_vjp_backward(eqn.params, residuals, cts)
        zeros = tuple(ct is None for ct in found)
        return [ct for ct in found if ct is not None]

    cts = [var.aval.to_ct_aval() for var in eqn.outvars]
    closed = jax.make_jaxpr(backward)(list(residuals), cts)
    return closed, zeros


def residuals(parts: Parts, computed: Iterable[Any], operands: Sequence[Any]) -> list[Any]:
    """The residuals, of which some are operands."""
    rest = iter(computed)
    return [next(rest) if index is None else operands[index] for index in parts["residuals"]]


# --- parts to names ---------------------------------------------------------------------------------------------------


@dataclass
class Rule:
    """A name for the parts of equations: ``text``, and ``key``, what is known of it without tracing a rule."""

    name: str
    primitive: Primitive
    key: tuple[Any, ...]
    text: str | None = None
    claims: list[JaxprEqn] = field(default_factory=list)


class Rules:
    """The named rules of one text, ``named``, in the order in which they are met.

    Whether two equations have the same rule is asked of the texts of their parts. A function that its own rule calls is
    that function by assumption, as long as its text is written (:attr:`_assumed`); then each such assumption is tried:
    the rule of the function that was called must have this very text.
    """

    def __init__(self, write: Callable[[Parts], str]):
        self.named: list[Rule] = []
        self._write = write
        self._assumed: list[Rule] = []

    def name(self, eqn: JaxprEqn) -> str | None:
        """The name of the rule of ``eqn``, or ``<why it has no text>``; None where ``eqn`` is no custom call."""
        if eqn.primitive not in CUSTOM:
            return None
        if self._assumed:
            return self._find(eqn)
        before = len(self.named)
        try:
            return self._find(eqn)
        except HasNoText as why:
            del self.named[before:]
            self._assumed.clear()
            return f"<{why}>"

    def _find(self, eqn: JaxprEqn) -> str:
        body = eqn.params["call_jaxpr"]
        word = re.sub(r"\W+", "_", body.jaxpr.debug_info.func_name.partition("-")[0]).strip("_") or "rule"
        key = (eqn.primitive, word, eqn.params["num_consts"], self._write({"": body}))
        known = [rule for rule in self.named if rule.key == key]
        for rule in known:
            if rule not in self._assumed and self._is(eqn, rule):
                return rule.name
        for rule in reversed(self._assumed):
            if rule in known:
                if rule.text is None:
                    rule.claims.append(eqn)
                return rule.name
        number = 1 + sum(rule.key[1] == word for rule in self.named)
        rule = Rule(word if number == 1 else f"{word}-{number}", eqn.primitive, key)
        self.named.append(rule)
        rule.text = self._text(eqn, rule)
        if not all(self._is(claim, rule) for claim in rule.claims):
            raise HasNoText("its rule calls what looks like the function itself, and has another rule")
        return rule.name

    def _is(self, eqn: JaxprEqn, rule: Rule) -> bool:
        before = len(self.named)
        if self._text(eqn, rule) == rule.text:
            return True
        del self.named[before:]
        return False

    def _text(self, eqn: JaxprEqn, rule: Rule) -> str:
        """The parts of ``eqn`` in the words of a text in which it is ``rule``."""
        if len(self._assumed) == DEEPEST:
            raise HasNoText("its rule calls a function with another rule, and so on")
        self._assumed.append(rule)
        text = self._write(parts_of(eqn))
        self._assumed.pop()
        return text


# --- parts to functions -----------------------------------------------------------------------------------------------


def shapes(avals: Iterable[Any]) -> str:
    """Types without weakness, which a rule may change."""
    return " ".join(aval.strip_weak_type().str_short(short_dtypes=True) for aval in avals) or "nothing"


def mismatch(primitive: Primitive, parts: Parts) -> str | None:
    """What is wrong with parts that somebody wrote; None where they fit together."""
    is_jvp = primitive is primitives.custom_jvp_call_p
    needed = ["call_jaxpr", "jvp"] if is_jvp else ["call_jaxpr", "fwd", "residuals", "bwd"]
    optional = ["num_consts"] if is_jvp else ["num_consts", "zeros"]
    if not set(needed) <= parts.keys() <= {*needed, *optional}:
        return f"it needs {', '.join(needed)}, and may have {' and '.join(optional)}"
    jaxprs = [parts[key] for key in ("call_jaxpr", "jvp", "fwd", "bwd") if key in needed]
    if not all(isinstance(jaxpr, ClosedJaxpr) for jaxpr in jaxprs):
        return "its functions must be closed: { lambda ...}"
    body = parts["call_jaxpr"]
    primals, results = body.in_avals[parts.get("num_consts", 0) :], body.out_avals
    zeros = parts.get("zeros", (False,) * len(primals))
    tangents = [[aval.to_tangent_aval() for aval in avals] for avals in (primals, results)]
    if is_jvp:
        expected = {"jvp": ([*primals, *tangents[0]], [*results, *tangents[1]])}
    elif not all(index is None or index in range(len(primals)) for index in parts["residuals"]):
        return "residuals are None, or the numbers of operands"
    elif len(zeros) != len(primals):
        return "zeros says something of another number of operands"
    else:
        computed = parts["fwd"].out_avals[: sum(index is None for index in parts["residuals"])]
        kept = residuals(parts, computed, primals)
        cts = list(itertools.compress(tangents[0], (not zero for zero in zeros)))
        expected = {"fwd": (primals, [*computed, *results]), "bwd": ([*kept, *tangents[1]], cts)}
    for key, ends in expected.items():
        found = parts[key].in_avals, parts[key].out_avals
        for what, mine, wanted in zip(("takes", "returns"), found, ends, strict=True):
            if shapes(mine) != shapes(wanted):
                return f"{key} {what} {shapes(mine)}, where {shapes(wanted)} is expected"
    return None


def apply_parts(primitive: Primitive, name: str, parts: Parts, operands: Sequence[Any]) -> list[Any]:
    """Calls the function of these parts, by ``primitive``. ``parts`` need have rules only once these are used."""
    num_consts = parts.get("num_consts", 0)
    consts, primals = operands[:num_consts], operands[num_consts:]

    def function(*primals: Any) -> list[Any]:
        return _call(parts["call_jaxpr"], [*consts, *primals])

    def jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        results = _call(parts["jvp"], [*primals, *tangents])
        return results[: len(results) // 2], results[len(results) // 2 :]

    def fwd(*primals: Any) -> tuple[list[Any], list[Any]]:
        results = _call(parts["fwd"], primals)
        count = len(results) - len(parts["call_jaxpr"].out_avals)
        return results[count:], residuals(parts, results[:count], primals)

    def bwd(residuals: list[Any], cts: list[Any]) -> tuple[Any, ...]:
        given = iter(_call(parts["bwd"], [*residuals, *cts]))
        zeros = parts.get("zeros", (False,) * len(primals))
        return tuple(None if zero else next(given) for zero in zeros)

    function.__name__ = name
    if primitive is primitives.custom_jvp_call_p:
        custom = jax.custom_jvp(function)
        custom.defjvp(jvp)
    else:
        custom = jax.custom_vjp(function)
        custom.defvjp(fwd, bwd)
    return list(custom(*primals))


def _call(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    return evaluate(called_here(closed.jaxpr), closed.consts, args)
