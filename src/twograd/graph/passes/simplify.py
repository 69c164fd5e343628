"""Algebra: rewrites that look at one equation, and at most at those that made its operands.

Read :data:`REWRITES`. Each function there gets a walk and an equation, and answers with None, or with the name of the
rewrite and what stands for the result.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Primitive

from twograd.graph.passes.cse import operand
from twograd.graph.passes.report import PassReport
from twograd.graph.passes.rewriting import Atom, Visitor, Walk, aval_of, rewrite

Outcome = tuple[str, Sequence[Atom]] | None


def simplify(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Applies :data:`REWRITES` until none fires on an equation.

    Values stay bit for bit what they were, NaN, infinities and rounding included, with one exception: x + 0 and x - 0
    become x, which keeps the sign of x = -0.0 (-0.0 + 0.0 is 0.0; XLA does the same). So x - x and x * 0 become 0 for
    integers only, complex x * 1 stays (it is not x where x is infinite), and nothing is reassociated or distributed.
    """

    def visitor_of(walk: Walk) -> Visitor:
        def visit(eqn: JaxprEqn) -> Outcome:
            rule = REWRITES.get(eqn.primitive)
            return None if rule is None or eqn.effects else rule(walk, eqn)

        return visit

    return rewrite("simplify", closed, visitor_of)


# --- what the rewrites are made of ------------------------------------------------------------------------------------


def instead(name: str, eqn: JaxprEqn, atom: Atom) -> Outcome:
    """``atom`` in the place of the one result of ``eqn``, if it has its very type."""
    return (name, [atom]) if atom.aval == eqn.outvars[0].aval else None


def computed(name: str, results: Sequence[Atom] | None) -> Outcome:
    """The outcome of :meth:`Walk.emit`."""
    return None if results is None else (name, results)


def zeros(name: str, walk: Walk, eqn: JaxprEqn) -> Outcome:
    """Zeros in the place of the one result of ``eqn``."""
    aval = aval_of(eqn.outvars[0])
    return computed(name, walk.emit(eqn, lax.full, shape=aval.shape, fill_value=0, dtype=aval.dtype))


def is_real(eqn: JaxprEqn) -> bool:
    return not jnp.issubdtype(aval_of(eqn.outvars[0]).dtype, np.complexfloating)


def is_integer(eqn: JaxprEqn) -> bool:
    return jnp.issubdtype(aval_of(eqn.outvars[0]).dtype, np.integer)


def same(x: Atom, y: Atom) -> bool:
    """Whether two operands are one value."""
    return operand(x) == operand(y) if isinstance(x, Literal) else x is y


# --- arithmetic -------------------------------------------------------------------------------------------------------


def add(walk: Walk, eqn: JaxprEqn) -> Outcome:
    for x, y in (eqn.invars, eqn.invars[::-1]):
        if walk.uniform(y) == 0:
            return instead("x + 0", eqn, x)
        negation = walk.producer(y, lax.neg_p)
        if negation is not None and aval_of(x).shape == aval_of(y).shape:
            return computed("x + (-y)", walk.emit(eqn, lax.sub, x, negation.invars[0]))
    return None


def sub(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    if walk.uniform(y) == 0:
        return instead("x - 0", eqn, x)
    if same(x, y) and is_integer(eqn):
        return zeros("x - x", walk, eqn)
    negation = walk.producer(y, lax.neg_p)
    if negation is not None and aval_of(x).shape == aval_of(y).shape:
        return computed("x - (-y)", walk.emit(eqn, lax.add, x, negation.invars[0]))
    return None


def mul(walk: Walk, eqn: JaxprEqn) -> Outcome:
    for x, y in (eqn.invars, eqn.invars[::-1]):
        factor = walk.uniform(y)
        if factor == 1 and is_real(eqn):
            return instead("x * 1", eqn, x)
        if factor == 0 and is_integer(eqn):
            return zeros("x * 0", walk, eqn)
    return None


def div(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    return instead("x / 1", eqn, x) if walk.uniform(y) == 1 and is_real(eqn) else None


def pow(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    return instead("x ** 1", eqn, x) if walk.uniform(y) == 1 and is_real(eqn) else None


def integer_pow(walk: Walk, eqn: JaxprEqn) -> Outcome:
    return instead("x ** 1", eqn, eqn.invars[0]) if eqn.params["y"] == 1 else None


def idempotent(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    return instead(f"{eqn.primitive}(x, x)", eqn, x) if same(x, y) else None


def involution(walk: Walk, eqn: JaxprEqn) -> Outcome:
    """f(f(x)), with the same parameters, is x."""
    inner = walk.producer(eqn.invars[0], eqn.primitive)
    if inner is None or inner.params != eqn.params:
        return None
    return instead(f"{eqn.primitive}({eqn.primitive}(x))", eqn, inner.invars[0])


# --- complex numbers, selection, conversion ---------------------------------------------------------------------------


def real(walk: Walk, eqn: JaxprEqn) -> Outcome:
    pair = walk.producer(eqn.invars[0], lax.complex_p)
    return None if pair is None else instead("real(complex)", eqn, pair.invars[0])


def imag(walk: Walk, eqn: JaxprEqn) -> Outcome:
    pair = walk.producer(eqn.invars[0], lax.complex_p)
    return None if pair is None else instead("imag(complex)", eqn, pair.invars[1])


def complex(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = (walk.producer(*pair) for pair in zip(eqn.invars, (lax.real_p, lax.imag_p), strict=True))
    if x is None or y is None or not same(x.invars[0], y.invars[0]):
        return None
    return instead("complex(real, imag)", eqn, x.invars[0])


def select_n(walk: Walk, eqn: JaxprEqn) -> Outcome:
    which, *cases = eqn.invars
    if all(same(cases[0], case) for case in cases[1:]):
        return instead("select of equals", eqn, cases[0])
    taken = walk.uniform(which)
    return None if taken is None else instead("select by a constant", eqn, cases[int(taken)])


def convert(walk: Walk, eqn: JaxprEqn) -> Outcome:
    (x,) = eqn.invars
    inner = walk.producer(x, lax.convert_element_type_p)
    if x.aval == eqn.outvars[0].aval:
        return "convert to the same", [x]
    if inner is None or not lossless(aval_of(inner.invars[0]).dtype, aval_of(x).dtype):
        return None
    source = inner.invars[0]
    if source.aval == eqn.outvars[0].aval:
        return "convert and back", [source]
    dtype = eqn.params["new_dtype"]
    return computed("convert twice", walk.emit(eqn, lax.convert_element_type, source, new_dtype=dtype))


def lossless(dtype: np.dtype, wider: np.dtype) -> bool:
    """Whether every number of type ``dtype`` is one of type ``wider``."""
    if jnp.issubdtype(dtype, np.bool_):
        return True
    if jnp.issubdtype(dtype, np.integer):
        if jnp.issubdtype(wider, np.integer):
            low, high = jnp.iinfo(dtype), jnp.iinfo(wider)
            return high.min <= low.min and low.max <= high.max
        return jnp.issubdtype(wider, np.floating) and jnp.iinfo(dtype).bits <= jnp.finfo(wider).nmant
    if jnp.issubdtype(dtype, np.floating) and jnp.issubdtype(wider, np.floating):
        low, high = jnp.finfo(dtype), jnp.finfo(wider)
        return low.nmant <= high.nmant and low.maxexp <= high.maxexp and low.minexp >= high.minexp
    return dtype == wider


# --- shapes -----------------------------------------------------------------------------------------------------------


def transpose(walk: Walk, eqn: JaxprEqn) -> Outcome:
    (x,), permutation = eqn.invars, eqn.params["permutation"]
    if tuple(permutation) == tuple(range(len(permutation))):
        return instead("transpose to the same", eqn, x)
    inner = walk.producer(x, lax.transpose_p)
    if inner is None:
        return None
    both = tuple(inner.params["permutation"][axis] for axis in permutation)
    return computed("transpose twice", walk.emit(eqn, lax.transpose, inner.invars[0], permutation=both))


def reshape(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x = eqn.invars[0]
    if eqn.params["dimensions"] is not None or len(eqn.invars) > 1:
        return None
    if x.aval == eqn.outvars[0].aval:
        return "reshape to the same", [x]
    inner = walk.producer(x, lax.reshape_p)
    if inner is None or inner.params["dimensions"] is not None or len(inner.invars) > 1:
        return None
    source = inner.invars[0]
    if source.aval == eqn.outvars[0].aval:
        return "reshape and back", [source]
    return computed("reshape twice", walk.emit(eqn, lax.reshape, source, new_sizes=eqn.params["new_sizes"]))


def broadcast(walk: Walk, eqn: JaxprEqn) -> Outcome:
    if len(eqn.invars) > 1:
        return None
    (x,), shape, axes = eqn.invars, eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if x.aval == eqn.outvars[0].aval:
        return "broadcast to the same", [x]
    inner = walk.producer(x, lax.broadcast_in_dim_p)
    if inner is None or len(inner.invars) > 1:
        return None
    both = tuple(axes[axis] for axis in inner.params["broadcast_dimensions"])
    once = walk.emit(eqn, lax.broadcast_in_dim, inner.invars[0], shape=shape, broadcast_dimensions=both)
    return computed("broadcast twice", once)


def whole(walk: Walk, eqn: JaxprEqn) -> Outcome:
    """A slice, of the size of its operand; a concatenation of one; a squeeze or a reduction of no axes."""
    return instead(f"{eqn.primitive} of nothing", eqn, eqn.invars[0])


def pad(walk: Walk, eqn: JaxprEqn) -> Outcome:
    return whole(walk, eqn) if not np.any(eqn.params["padding_config"]) else None


def reduction(walk: Walk, eqn: JaxprEqn) -> Outcome:
    return whole(walk, eqn) if not eqn.params["axes"] else None


REWRITES: dict[Primitive, Callable[[Walk, JaxprEqn], Outcome]] = {
    lax.add_p: add,
    lax.and_p: idempotent,
    lax.broadcast_in_dim_p: broadcast,
    lax.complex_p: complex,
    lax.concatenate_p: lambda walk, eqn: whole(walk, eqn) if len(eqn.invars) == 1 else None,
    lax.conj_p: involution,
    lax.convert_element_type_p: convert,
    lax.div_p: div,
    lax.dynamic_slice_p: whole,
    lax.imag_p: imag,
    lax.integer_pow_p: integer_pow,
    lax.max_p: idempotent,
    lax.min_p: idempotent,
    lax.mul_p: mul,
    lax.neg_p: involution,
    lax.not_p: involution,
    lax.or_p: idempotent,
    lax.pad_p: pad,
    lax.pow_p: pow,
    lax.real_p: real,
    lax.reduce_max_p: reduction,
    lax.reduce_min_p: reduction,
    lax.reduce_prod_p: reduction,
    lax.reduce_sum_p: reduction,
    lax.reshape_p: reshape,
    lax.rev_p: involution,
    lax.select_n_p: select_n,
    lax.slice_p: whole,
    lax.squeeze_p: whole,
    lax.sub_p: sub,
    lax.transpose_p: transpose,
}
