"""What the tests of the graph engine share: results must be JAX's, to the structure and the type of every leaf."""

from typing import Any

import jax
import numpy as np
import pytest


def same(ours: Any, theirs: Any, rtol: float = 1e-5) -> None:
    """Asserts that two results have one structure, and leaves of one shape and dtype and of near values."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        kind = jax.typeof(other)
        assert (jax.typeof(mine).shape, jax.typeof(mine).dtype) == (kind.shape, kind.dtype)
        if jax.dtypes.issubdtype(kind.dtype, jax.dtypes.prng_key):
            mine, other = jax.random.key_data(mine), jax.random.key_data(other)
        if kind.dtype != jax.dtypes.float0:
            wide = np.complex128 if np.iscomplexobj(other) else np.float64
            mine, other = np.asarray(mine).astype(wide), np.asarray(other).astype(wide)
            scale = np.abs(other[np.isfinite(other)]).max(initial=0.0)
            np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * min(scale, 1.0))


def raises(error: type[Exception], text: str) -> Any:
    """Expects ``error``, with ``text`` (not a regular expression) in its message."""
    return pytest.RaisesExc(error, check=lambda raised: text in str(raised) or pytest.fail(f"{text!r} not in {raised}"))
