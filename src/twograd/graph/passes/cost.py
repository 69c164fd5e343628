"""What an equation costs, read off its shapes: the model by which passes choose."""

import math
from typing import Any

from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, primitives

from twograd.graph.passes.report import bodies

MOVES = {
    lax.broadcast_in_dim_p,
    lax.copy_p,
    lax.dynamic_slice_p,
    lax.iota_p,
    lax.pad_p,
    lax.reshape_p,
    lax.rev_p,
    lax.slice_p,
    lax.squeeze_p,
    lax.transpose_p,
}
"""Moves or repeats numbers, and computes none."""


def flops(eqn: JaxprEqn) -> float:
    """The operations of ``eqn``: exact for products and convolutions, one per element for the rest.

    A loop counts its length times its body, a branch its longest one; a while loop's length is not known: infinity.
    """
    if eqn.primitive in MOVES:
        return 0.0
    if eqn.primitive is lax.dot_general_p:
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = _aval(eqn.invars[0]).shape
        return 2.0 * _size(eqn.outvars[0]) * math.prod(shape[axis] for axis in contracted)
    if eqn.primitive is lax.conv_general_dilated_p:
        kernel, out_axis = _aval(eqn.invars[1]), eqn.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * _size(eqn.outvars[0]) * kernel.size / max(kernel.shape[out_axis], 1)
    if eqn.primitive is primitives.while_p:
        return math.inf
    inside = [total_flops(body) for body in bodies(eqn.params)]
    if not inside:
        return float(max(_size(atom) for atom in [*eqn.invars, *eqn.outvars]))
    return max(inside) if eqn.primitive is primitives.cond_p else sum(inside) * eqn.params.get("length", 1)


def total_flops(jaxpr: Jaxpr | ClosedJaxpr) -> float:
    """Those of all its equations."""
    return sum(map(flops, jaxpr.eqns))


def _aval(atom: Any) -> Any:
    return atom.aval


def _size(atom: Any) -> int:
    return getattr(atom.aval, "size", 0)
