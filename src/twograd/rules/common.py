"""The few expressions that several sections of the table share."""

import jax
import numpy as np
from jax.lax import eq, full_like, real, select

from twograd._compat import differentiable_primitives

unlisted = {primitive.name: primitive for primitive in differentiable_primitives()}
"""By name, the primitives that ``jax.lax`` does not export."""


def constant(x, value):
    """``value`` as a rank-0 constant of the dtype of ``x``; lax's n-ary primitives broadcast rank-0 operands."""
    return x.dtype.type(value)


def where(condition, ct):
    """``ct`` where the condition (of its shape) holds, else 0."""
    return select(condition, ct, full_like(ct, 0))


def nonzero(x):
    """``x`` with its zeros replaced by ones: for a divisor, or a logarithm's operand, where another factor is 0."""
    return select(eq(x, constant(x, 0)), full_like(x, 1), x)


def is_complex(dtype):
    """Whether ``dtype`` holds complex numbers."""
    return jax.dtypes.issubdtype(dtype, np.complexfloating)


def real_if(ct, aval):
    """The transpose of embedding an operand of type ``aval`` in the complex numbers: its real part if it is real."""
    return ct if is_complex(aval.dtype) else real(ct) if is_complex(ct.dtype) else ct
