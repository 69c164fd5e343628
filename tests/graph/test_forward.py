"""Forward mode: the loops that only it can differentiate. What pullbacks give is in ``test_functional.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graph.same import raises, same
from twograd import graph
from twograd.errors import NotReversible

X = np.linspace(0.1, 1.0, 4).astype(np.float32)
T = np.linspace(1.0, -0.5, 4).astype(np.float32)


def counting(x):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1]) * 1.5), (0, x))[1]


def growing(x):
    """How many steps it takes depends on the values; condition and body close over some."""
    return lax.while_loop(lambda s: jnp.sum(s) < 30 + x[0], lambda s: s * 1.5 + x[1] * jnp.sin(s), x)


LOOPS = {
    "counting": counting,
    "growing": growing,
    "fori_loop": lambda x: lax.fori_loop(0, jnp.asarray(3), lambda i, v: v * jnp.cos(v) + i, x),
    "beside": lambda x: (jnp.sum(counting(x) ** 2) * x, lax.while_loop(lambda i: i < 9, lambda i: 2 * i, 1)),
    "in cond": lambda x: lax.cond(x[0] > 0, counting, growing, x),
    "in jit": jax.jit(counting),
    "in scan": lambda x: lax.scan(lambda c, a: (counting(c) * a, growing(c)), x, x),
    "in checkpoint": jax.checkpoint(growing),
    "in while": lambda x: lax.while_loop(lambda s: jnp.sum(s) < 90, lambda s: s + growing(s) + counting(s), x),
    "complex": lambda x: jnp.real(lax.while_loop(lambda z: jnp.abs(z[0]) < 9, lambda z: z * (1 + 1j), x + 1j * x)),
    "mapped": lambda x: jax.vmap(growing)(jnp.stack([x, x + 1])),
}


def test_a_while_loop_has_a_tangent():
    def everything(engine):
        def found(x, t):
            pairs = {name: engine.jvp(f, (x,), (t,)) for name, f in LOOPS.items()}
            second = engine.jvp(lambda x: engine.jvp(growing, (x,), (t,))[1], (x,), (x,))
            third = jax.jvp(lambda x: engine.jvp(counting, (x,), (t,))[1], (x,), (x,))
            mapped = jax.vmap(lambda x, t: engine.jvp(growing, (x,), (t,)))(jnp.stack([x, 2 * x]), jnp.stack([t, x]))
            return pairs, second, third, mapped

        return found

    ours, theirs = (jax.jit(everything(engine))(X, T) for engine in (graph, jax))
    same(ours, theirs, rtol=1e-4)


def test_a_tangent_by_value_and_by_differences():
    out, tangent = graph.jvp(growing, (X,), (T,))
    same(out, growing(X))
    with jax.enable_x64(True):
        x, t = X.astype(np.float64), T.astype(np.float64)
        _, wide = graph.jvp(growing, (x,), (t,))
        step = 1e-6
        np.testing.assert_allclose(wide, (growing(x + step * t) - growing(x - step * t)) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(tangent, wide, rtol=1e-4)


@pytest.mark.parametrize("engine", [graph, jax])
def test_what_is_differentiated_in_forward_mode_still_has_no_way_back(engine):
    with raises(ValueError, "Reverse-mode differentiation does not work for lax.while_loop"):
        engine.grad(lambda x: jnp.sum(graph.jvp(growing, (x,), (T,))[1]))(X)
    with raises(NotReversible, "graph.jvp differentiates in forward mode"):
        graph.jvp(graph.grad(lambda x: jnp.sum(growing(x))), (X,), (T,))


def test_a_loop_that_tells_is_refused():
    def telling(x):
        return lax.while_loop(lambda s: s < 3, lambda s: (jax.debug.print("{}", s), s * 2)[1], x)

    with raises(NotReversible, "Reverse-mode differentiation does not work"):
        graph.jvp(telling, (1.0,), (1.0,))
