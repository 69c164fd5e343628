"""Reductions: what is summed, multiplied or searched along some axes of an array.

The cotangent of a reduction has fewer axes than its operand; :func:`restore` puts them back, read it first. Conventions
are JAX's: several elements that attain a maximum or minimum share the cotangent equally.
"""

import math

import numpy as np
from jax import lax
from jax.lax import convert_element_type, div, eq, full_like, mul

from twograd.rules.registry import nondifferentiable, vjp


def restore(reduced, aval, axes):
    """A reduction's result, repeated along the reduced ``axes`` up to the shape of its operand's ``aval``."""
    return lax.broadcast_in_dim(reduced, aval.shape, kept(aval, axes))


def kept(aval, axes):
    """The axes of ``aval`` that are not reduced."""
    return [axis for axis in range(aval.ndim) if axis not in axes]


def extreme_x(ct, x, out, *, axes):
    """The elements that equal the extreme share ct equally: ct [x = out] / |{x = out}|."""
    hits = eq(x, restore(out, x, axes))
    count = lax.reduce_sum(convert_element_type(hits, np.int32), axes)
    return mul(restore(div(ct, convert_element_type(count, ct.dtype)), x, axes), convert_element_type(hits, ct.dtype))


def product_of_others(x):
    """For each x[i] the product of all other x[j] along the first axis, without a division, so also where some are 0.

    Pair the first half with the second: an element's others are the other pairs and its partner.
    """
    if x.shape[0] < 2:
        return full_like(x, 1)
    half = (x.shape[0] + 1) // 2
    first, second = lax.slice_in_dim(x, 0, half), lax.slice_in_dim(x, half, None)
    second = lax.concatenate([second, full_like(x, 1, shape=(half - second.shape[0], *x.shape[1:]))], 0)
    other_pairs = product_of_others(mul(first, second))
    return lax.slice_in_dim(lax.concatenate([mul(other_pairs, second), mul(other_pairs, first)], 0), 0, x.shape[0])


def reduce_prod_x(ct, x, *, axes):
    """d(∏x)/dx[i] is the product of the other elements; the reduced axes are made one for that, and the first."""
    order = [*axes, *kept(x, axes)]
    moved = lax.transpose(x, order)
    others = product_of_others(lax.reshape(moved, (math.prod(moved.shape[: len(axes)]), *moved.shape[len(axes) :])))
    return mul(restore(ct, x, axes), lax.transpose(lax.reshape(others, moved.shape), np.argsort(order)))


vjp(lax.reduce_max_p, x=extreme_x)
vjp(lax.reduce_min_p, x=extreme_x)
vjp(lax.reduce_prod_p, x=reduce_prod_x)
vjp(lax.reduce_sum_p, x=lambda ct, x_aval, *, axes: restore(ct, x_aval, axes))

# --- no derivative ----------------------------------------------------------------------------------------------------

nondifferentiable(
    lax.argmax_p,
    lax.argmin_p,
    lax.reduce_and_p,
    lax.reduce_or_p,
    lax.reduce_xor_p,
)
