"""``jax.numpy.linalg`` for arrays, JAX tracers, tape Tensors and graph Symbols."""

import jax.numpy

from twograd._namespace import namespace

__getattr__, __dir__ = namespace(jax.numpy.linalg, globals())
