"""Pullbacks of consecutive ops as one compiled call.

What flows in: an op's plan, its cotangent and what it saved, one op at a time as the walk back meets them. What flows
out: cotangents, or a :class:`Chain` in the place of one that nobody needs yet. Read :func:`pull`.

Where the cotangent of an op's one operand goes on to one other op, its value is of no interest. So the pullback is put
off, and done together with the next one's, as a composition that is compiled once for its sequence of plans. A compiled
call costs more than the arithmetic of a small op, and a pass over memory more than that of a large one; this divides
both by the chain's length. Where two cotangents meet their sum is put off too. A chain ends where an op has several
operands, and at a leaf.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from twograd.tape.plan import Plan

LONGEST = 8  # pullbacks in one call; beyond, little is saved, and ever more sequences would have to be compiled
MAX_SEQUENCES = 4096


class _Sum:
    """Stands among the plans of a chain for the addition of another cotangent, which is what it "saved"."""

    positions = (0,)

    @staticmethod
    def traceable_pull(*values: Any) -> tuple[Any, ...]:
        return (lax.add(*values),)


SUM = _Sum()


class Chain:
    """A cotangent that is not computed yet.

    ``plans`` are the ops whose pullbacks lead to it, ``values`` the cotangent of the first and what each of them saved.
    """

    __slots__ = ("plans", "values")

    def __init__(self, plan: Plan | _Sum, ct: Any, saved: Sequence[Any]):
        self.plans: tuple[Plan | _Sum, ...] = (plan,)
        self.values = [ct, *saved]

    @classmethod
    def extended(cls, ct: Any, plan: Plan | _Sum, saved: Sequence[Any]) -> "Chain":
        """One op further from ``ct``, which nobody else holds: if it is a Chain it is this that grows."""
        if type(ct) is not Chain or len(ct.plans) >= LONGEST:
            return Chain(plan, settled(ct), saved)
        ct.plans += (plan,)
        ct.values += saved
        return ct


def pull(plan: Plan, ct: Any, saved: Sequence[Any]) -> Sequence[Any]:
    """The cotangents of the operands of an op with one cotangent: now, or, if it is one that may wait, as a Chain."""
    if plan.chains:
        return (Chain.extended(ct, plan, saved),)
    if type(ct) is Chain:
        if plan.compiles:
            return _composition((*ct.plans, plan))(*ct.values, *saved)
        if not plan.relays:
            ct = settled(ct)
    return plan.pull(*saved, ct)


def add(x: Any, y: Any) -> Chain:
    """The sum of two cotangents, each of which may be a Chain, as a Chain."""
    return Chain.extended(y, SUM, (settled(x),)) if type(y) is Chain else Chain.extended(x, SUM, (y,))


def settled(ct: Any) -> Any:
    """The value of a cotangent that may be a Chain."""
    return _composition(ct.plans)(*ct.values)[0] if type(ct) is Chain else ct


def clear() -> None:
    """Forgets what was compiled."""
    _composition.cache_clear()


@functools.lru_cache(maxsize=MAX_SEQUENCES)
def _composition(plans: tuple[Plan | _Sum, ...]) -> Callable[..., tuple[Any, ...]]:
    """The pullbacks of ``plans`` one after the other, compiled: ``(ct, *saved)`` to the last one's cotangents."""

    def chain(ct, *saved):
        values = iter(saved)
        cts = (ct,)
        for plan in plans:
            cts = plan.traceable_pull(*[next(values) for _ in plan.positions or ()], cts[0])
        return cts

    return jax.jit(chain)
