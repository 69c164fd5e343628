"""Constant folding: what does not depend on any input is computed now."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var

from twograd._compat import bind_again, literal
from twograd.graph.passes.cse import NOT_A_FUNCTION
from twograd.graph.passes.report import PassReport, bodies
from twograd.graph.passes.rewriting import SMALL, Atom, Visitor, Walk, aval_of, is_plain, rewrite, size_of
from twograd.rules.common import unlisted

PLACEMENT = {lax.device_put_p, lax.sharding_constraint_p}
"""Says where a value lives, which a constant does not."""

FOR_A_RUN = {*PLACEMENT, unlisted["pure_callback"]}
"""The user's own function on the host, which may raise: in a branch that is never taken, say."""

CHEAP = {lax.broadcast_in_dim_p, lax.iota_p}
"""Cheaper to compute than to keep: evaluated for the equations that read it, but not made a constant itself."""


def _broadcast_in_dim(x: np.ndarray, *, shape: Any, broadcast_dimensions: Any, sharding: Any) -> np.ndarray:
    sizes = [1] * len(shape)
    for dimension, size in zip(broadcast_dimensions, x.shape, strict=True):
        sizes[dimension] = size
    return np.broadcast_to(x.reshape(sizes), shape)


EXACT: dict[Any, Any] = {
    lax.add_p: lambda x, y, **_: x + y,
    lax.sub_p: lambda x, y, **_: x - y,
    lax.mul_p: lambda x, y, **_: x * y,
    lax.div_p: lambda x, y, **_: x / y,
    lax.neg_p: lambda x, **_: -x,
    lax.broadcast_in_dim_p: _broadcast_in_dim,
}
"""IEEE 754 has one answer to each of these: NumPy's is XLA's, and nothing is compiled for it."""


def fold(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Evaluates the equations whose operands are all known.

    Operands and results of more than 4 KiB stay as they are (a big array of ones is cheaper to compute than to keep),
    and so do calls, callbacks, loops, and equations with effects. An array of equal numbers becomes a broadcast scalar.
    Inside of bodies only such are folded, since only the outermost jaxpr can be given further constants. The values are
    those that the primitive has when it is run on its own, which for transcendental functions may differ in the last
    place from those of a compiled program that fuses it.
    """

    def visitor_of(walk: Walk) -> Visitor:
        cheap: dict[Atom, JaxprEqn] = {}  # by their results: evaluated once an equation is that reads them

        def visit(eqn: JaxprEqn):
            if eqn.effects or eqn.primitive in NOT_A_FUNCTION | FOR_A_RUN or any(bodies(eqn.params)):
                return None
            if not all(is_plain(var.aval) for var in eqn.outvars) or size_of(*eqn.outvars) > SMALL:
                return None
            if not all(
                walk.value(atom) is not None or (isinstance(atom, Var) and atom in cheap) for atom in eqn.invars
            ):
                return None
            if eqn.primitive in CHEAP:
                cheap.update(dict.fromkeys(eqn.outvars, eqn))
                return None
            results = evaluated(eqn)
            atoms = None if results is None else as_atoms(walk, eqn, results)
            return None if atoms is None else (eqn.primitive.name, atoms)

        def evaluated(eqn: JaxprEqn) -> Sequence[Any] | None:
            """The results, if their types are those that the program says."""
            for atom in eqn.invars:
                if walk.value(atom) is None:
                    results = evaluated(cheap[atom])
                    if results is None:
                        return None
                    walk.known.update(zip(cheap[atom].outvars, results, strict=True))
            operands = [walk.value(atom) for atom in eqn.invars]
            number = exact(eqn, operands)
            with jax.ensure_compile_time_eval():
                results = bind_again(eqn, operands) if number is None else [jax.device_put(number)]
            types, expected = list(map(jax.typeof, results)), [aval_of(var) for var in eqn.outvars]
            if number is not None:  # NumPy knows no weak type; that of a literal is its variable's
                types = [types[0].update(weak_type=expected[0].weak_type)]
            return results if types == expected else None

        return visit

    return rewrite("fold", closed, visitor_of)


def exact(eqn: JaxprEqn, operands: Sequence[Any]) -> np.ndarray | None:
    """The result by :data:`EXACT`, where no number is subnormal (XLA may take it for zero) or infinite.

    None where it is for XLA to say, and for an array of weak type, which NumPy has not.
    """
    aval = aval_of(eqn.outvars[0])
    dtype = aval.dtype
    if eqn.primitive not in EXACT or dtype not in (np.float32, np.float64) or (aval.shape and aval.weak_type):
        return None
    numbers = [np.asarray(operand, dtype) for operand in operands]
    with np.errstate(all="ignore"):
        numbers.append(np.asarray(EXACT[eqn.primitive](*numbers, **eqn.params)))
    usual = (np.isfinite(x) & ((x == 0) | (np.abs(x) >= np.finfo(dtype).tiny)) for x in numbers)
    return numbers[-1] if all(map(np.all, usual)) else None


def as_atoms(walk: Walk, eqn: JaxprEqn, results: Sequence[Any]) -> Sequence[Atom] | None:
    """The results of ``eqn`` as constants, or as a broadcast scalar."""
    if len(results) == 1 and np.ndim(results[0]) and np.size(results[0]):
        numbers = np.asarray(results[0]).ravel()
        if len({number.tobytes() for number in numbers}) == 1:
            aval = aval_of(eqn.outvars[0])
            number = literal(numbers[0], aval.update(shape=(), sharding=None))
            return walk.emit(eqn, lax.broadcast, number, sizes=aval.shape)
    if not walk.takes_constants and any(map(np.ndim, results)):
        return None
    return [walk.constant(result, var.aval) for result, var in zip(results, eqn.outvars, strict=True)]
