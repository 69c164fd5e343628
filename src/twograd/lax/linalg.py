"""``jax.lax.linalg`` for arrays, JAX tracers, tape Tensors and graph Symbols."""

import jax.lax.linalg

from twograd._namespace import namespace

__getattr__, __dir__ = namespace(jax.lax.linalg, globals())
