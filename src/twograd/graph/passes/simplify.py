"""Algebra: rewrites that look at one equation, and at most at those that made its operands.

Read :data:`REWRITES`. Each function there gets a walk and an equation, and answers with None, or with the name of the
rewrite and what stands for the result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Primitive, Var, primitives

from twograd.graph.passes.cse import operand
from twograd.graph.passes.report import PassReport
from twograd.graph.passes.rewriting import Atom, Visitor, Walk, aval_of, rewrite

Outcome = tuple[str, Sequence[Atom]] | None

LARGEST_POWER = 4
"""The largest exponent, up to sign, of a power that becomes multiplications."""


def simplify(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, PassReport]:
    """Applies :data:`REWRITES` until none fires on an equation.

    Values stay bit for bit what they were, NaN, infinities and rounding included, with two exceptions, where XLA's own
    simplifier does the same. x + 0, x - 0 and a sum over axes of length 1 become x, which keeps the sign of x = -0.0
    (-0.0 + 0.0 is 0.0). And x ** n with a constant n of at most :data:`LARGEST_POWER` becomes multiplications, each of
    which rounds, and overflows or underflows, on its own.

    So x - x and x * 0 become 0 for integers only: Theano's do for all numbers, and turn the NaN of an infinite x into
    0. Complex x * 1 stays (it is not x where x is infinite), and nothing is reassociated or distributed.
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


def is_floating(eqn: JaxprEqn) -> bool:
    return jnp.issubdtype(aval_of(eqn.outvars[0]).dtype, np.floating)


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
        if factor == -1 and is_real(eqn):
            return computed("x * -1", walk.emit(eqn, lax.neg, x))
    return signs("(-x) * (-y)", walk, eqn)


def div(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    if walk.uniform(y) == 1 and is_real(eqn):
        return instead("x / 1", eqn, x)
    return signs("(-x) / (-y)", walk, eqn)


def signs(name: str, walk: Walk, eqn: JaxprEqn) -> Outcome:
    """f(-x, -y) is f(x, y), for floating-point numbers (integers wrap around)."""
    x, y = (walk.producer(atom, lax.neg_p) for atom in eqn.invars)
    if x is None or y is None or not is_floating(eqn):
        return None
    return computed(name, walk.emit(eqn, OPERATIONS[eqn.primitive], x.invars[0], y.invars[0]))


def even(walk: Walk, eqn: JaxprEqn) -> Outcome:
    """f(-x) is f(x), for floating-point numbers."""
    negation = walk.producer(eqn.invars[0], lax.neg_p)
    if negation is None or not is_floating(eqn):
        return None
    return computed(f"{eqn.primitive}(-x)", walk.emit(eqn, OPERATIONS[eqn.primitive], negation.invars[0]))


def pow(walk: Walk, eqn: JaxprEqn) -> Outcome:
    x, y = eqn.invars
    exponent = walk.uniform(y)
    if exponent is None or not is_real(eqn) or aval_of(x).shape != aval_of(eqn.outvars[0]).shape:
        return None
    if exponent == 1:
        return instead("x ** 1", eqn, x)
    if not abs(exponent) <= LARGEST_POWER or exponent != int(exponent):
        return None
    return computed("x ** n", walk.emit(eqn, lax.integer_pow, x, y=int(exponent)))


def integer_pow(walk: Walk, eqn: JaxprEqn) -> Outcome:
    (x,), exponent, aval = eqn.invars, eqn.params["y"], aval_of(eqn.outvars[0])
    if exponent == 0:
        return computed("x ** 0", walk.emit(eqn, lax.full, shape=aval.shape, fill_value=1, dtype=aval.dtype))
    if exponent == 1:
        return instead("x ** 1", eqn, x)
    negation = walk.producer(x, lax.neg_p)
    if negation is None or exponent % 2 or not is_floating(eqn):
        return None
    return computed("(-x) ** 2n", walk.emit(eqn, lax.integer_pow, negation.invars[0], y=exponent))


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
    """A reshape, squeeze or broadcast that keeps all elements and their order, whatever of these made its operand."""
    x, out = eqn.invars[0], aval_of(eqn.outvars[0])
    if not keeps_elements(eqn):
        return None
    if x.aval == out:
        return f"{eqn.primitive} to the same", [x]
    inner = walk.made_by.get(x) if isinstance(x, Var) else None
    if inner is None or not keeps_elements(inner):
        return None
    source = inner.invars[0]
    if source.aval == out:
        return f"{inner.primitive} and back", [source]
    return computed(f"{inner.primitive} and reshape", walk.emit(eqn, lax.reshape, source, new_sizes=out.shape))


def keeps_elements(eqn: JaxprEqn) -> bool:
    """Whether the result has the elements of the operand, in their order, in another shape."""
    if len(eqn.invars) > 1:  # a size that is not static
        return False
    if eqn.primitive is lax.broadcast_in_dim_p:
        return aval_of(eqn.invars[0]).size == aval_of(eqn.outvars[0]).size > 0
    return eqn.primitive is lax.squeeze_p or (eqn.primitive is lax.reshape_p and eqn.params["dimensions"] is None)


def broadcast(walk: Walk, eqn: JaxprEqn) -> Outcome:
    if len(eqn.invars) > 1:
        return None
    (x,), shape, axes = eqn.invars, eqn.params["shape"], eqn.params["broadcast_dimensions"]
    inner = walk.producer(x, lax.broadcast_in_dim_p)
    if inner is None or len(inner.invars) > 1:
        return reshape(walk, eqn)
    if inner.invars[0].aval == eqn.outvars[0].aval:
        return reshape(walk, eqn)
    both = tuple(axes[axis] for axis in inner.params["broadcast_dimensions"])
    once = walk.emit(eqn, lax.broadcast_in_dim, inner.invars[0], shape=shape, broadcast_dimensions=both)
    return computed("broadcast twice", once)


def whole(walk: Walk, eqn: JaxprEqn) -> Outcome:
    """A slice of the size of its operand; a concatenation of one; a reduction of no axes; a copy."""
    return instead(f"{eqn.primitive} of nothing", eqn, eqn.invars[0])


def pad(walk: Walk, eqn: JaxprEqn) -> Outcome:
    return whole(walk, eqn) if not np.any(eqn.params["padding_config"]) else None


def reduction(walk: Walk, eqn: JaxprEqn) -> Outcome:
    """Over no axes, or over axes of length 1."""
    (x,), axes = eqn.invars, eqn.params["axes"]
    if not axes:
        return whole(walk, eqn)
    if any(aval_of(x).shape[axis] != 1 for axis in axes):
        return None
    return computed(f"{eqn.primitive} of length 1", walk.emit(eqn, lax.squeeze, x, dimensions=axes))


OPERATIONS: dict[Primitive, Callable[..., Any]] = {
    lax.abs_p: lax.abs,
    lax.div_p: lax.div,
    lax.mul_p: lax.mul,
    lax.square_p: lax.square,
}
"""What emits the equations of the rewrites that several primitives share."""


REWRITES: dict[Primitive, Callable[[Walk, JaxprEqn], Outcome]] = {
    lax.abs_p: even,
    lax.add_p: add,
    primitives.add_jaxvals_p: add,
    lax.and_p: idempotent,
    lax.broadcast_in_dim_p: broadcast,
    lax.complex_p: complex,
    lax.concatenate_p: lambda walk, eqn: whole(walk, eqn) if len(eqn.invars) == 1 else None,
    lax.conj_p: involution,
    lax.convert_element_type_p: convert,
    lax.copy_p: whole,
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
    lax.square_p: even,
    lax.squeeze_p: reshape,
    lax.sub_p: sub,
    lax.transpose_p: transpose,
}
