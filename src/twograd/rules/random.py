"""Random numbers: keys and bits have no derivative, and neither have the generators that make them.

What is drawn from bits by ordinary arithmetic (normal, uniform, categorical ...) needs no rule. The gamma distribution
is sampled by rejection; its sample has a derivative all the same.
"""

from typing import Any

from jax import lax
from jax import numpy as jnp
from jax.extend.core import primitives
from jax.lax import div, exp, mul

from twograd import _compat
from twograd.rules.registry import nondifferentiable, vjp

random_gamma_grad: Any = lax.random_gamma_grad  # its signature asks for a dtype that it does not take


def random_gamma_a(ct, a, out, *, log_space):
    """How a sample s moves with the shape a at a fixed quantile P(a, s): ds/da = -(∂P/∂a) / (∂P/∂s).

    In log space the result is log s, and the slope is (ds/da) / s, with the least positive s where s underflows.
    """
    if not log_space:
        return mul(ct, random_gamma_grad(a, out))
    sample = lax.max(exp(out), lax.full_like(out, jnp.finfo(out.dtype).tiny))
    return mul(ct, div(random_gamma_grad(a, sample), sample))


vjp(primitives.random_gamma_p, "key a", a=random_gamma_a)

# --- no derivative ----------------------------------------------------------------------------------------------------

nondifferentiable(
    _compat.random_unwrap_p,
    _compat.random_wrap_p,
    lax.rng_bit_generator_p,
    lax.rng_uniform_p,
    primitives.empty2_p,
    primitives.random_bits_p,
    primitives.random_fold_in_p,
    primitives.random_seed_p,
    primitives.random_split_p,
    primitives.threefry2x32_p,
)
