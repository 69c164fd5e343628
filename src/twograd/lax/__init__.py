"""``jax.lax`` for arrays, JAX tracers, tape Tensors and graph Symbols.

Names, arguments and behaviour are those of the installed ``jax.lax``, control flow (``scan``, ``cond``, ``while_loop``)
included: operands may be Tensors or Symbols, and the functions given to it see JAX tracers. Primitives (``add_p``),
enumerations and classes are ``jax.lax``'s own.
"""

import jax.lax

from twograd._namespace import namespace
from twograd.lax import linalg as linalg

__getattr__, __dir__ = namespace(jax.lax, globals())
