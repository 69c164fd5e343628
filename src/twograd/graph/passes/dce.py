"""Dead-code elimination: what nobody reads is not computed."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from twograd._compat import new_jaxpr, without_unused_results
from twograd.graph.passes.report import PassReport, check_program, count, map_bodies


def dce(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Removes the equations whose results are not needed, also inside of bodies, and constants that are not read.

    Of loops, branches and calls the results that nobody reads go, and with them the carries, stacked values, operands
    and equations that only they need: a derivative keeps residuals for all gradients, and a program asks for some.
    Equations with effects stay, and so does what they need. Inputs stay: a program's arguments are its interface.
    """
    check_program(closed, "dce")
    start = time.perf_counter()
    fired: Counter[str] = Counter()
    known: dict[int, tuple[Jaxpr | ClosedJaxpr, Jaxpr | ClosedJaxpr]] = {}

    def without_dead_code(body: Jaxpr | ClosedJaxpr) -> Jaxpr | ClosedJaxpr:
        if id(body) not in known:
            jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
            live = live_equations(jaxpr)
            rewritten = jaxpr if live is None else new_jaxpr(jaxpr, eqns=live)
            if isinstance(body, ClosedJaxpr) and rewritten is not jaxpr:
                rewritten = ClosedJaxpr(rewritten, body.consts)
            known[id(body)] = body, body if rewritten is jaxpr else rewritten
        return known[id(body)][1]

    def live_equations(jaxpr: Jaxpr) -> list[JaxprEqn] | None:
        """The equations that are needed, or None if nothing changes."""
        needed = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
        live: list[JaxprEqn] = []
        changed = False
        for eqn in reversed(jaxpr.eqns):
            if not eqn.effects and not any(var in needed for var in eqn.outvars):
                fired[eqn.primitive.name] += 1
                changed = True
                continue
            smaller = without_unused_results(eqn, [var in needed for var in eqn.outvars])
            if smaller is not eqn:
                fired[f"result of {eqn.primitive}"] += len(eqn.outvars) - len(smaller.outvars)
                eqn, changed = smaller, True
            params = map_bodies(eqn.params, without_dead_code)
            if params is not eqn.params:
                eqn, changed = eqn.replace(params=params), True
            needed.update(atom for atom in eqn.invars if isinstance(atom, Var))
            live.append(eqn)
        return live[::-1] if changed else None

    cleaned = without_dead_code(closed)
    assert isinstance(cleaned, ClosedJaxpr)
    read = {atom for eqn in cleaned.eqns for atom in eqn.invars if isinstance(atom, Var)}
    read.update(atom for atom in cleaned.jaxpr.outvars if isinstance(atom, Var))
    kept = [pair for pair in zip(cleaned.jaxpr.constvars, cleaned.consts, strict=True) if pair[0] in read]
    if len(kept) < len(cleaned.consts):
        fired["constant"] += len(cleaned.consts) - len(kept)
        cleaned = ClosedJaxpr(
            new_jaxpr(cleaned.jaxpr, constvars=[var for var, _ in kept]), [value for _, value in kept]
        )
    return cleaned, PassReport("dce", count(closed), count(cleaned), fired, time.perf_counter() - start)


def part_of(
    closed: ClosedJaxpr, invars: Sequence[Var], eqns: Sequence[JaxprEqn], outvars: Sequence[Any]
) -> ClosedJaxpr:
    """Those of the ``eqns`` of ``closed`` that ``outvars`` need, as a program of the ``invars``."""
    info = closed.jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    changes = {"invars": list(invars), "eqns": list(eqns), "outvars": list(outvars), "debug_info": info}
    return dce(ClosedJaxpr(new_jaxpr(closed.jaxpr, **changes), closed.consts))[0]
