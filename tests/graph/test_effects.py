"""Callbacks and calls: what is told happens once, what is asked for is refused, and bodies are walked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from graph.same import raises, same
from twograd import graph
from twograd.errors import NoRule

X = np.linspace(0.2, 1.0, 4, dtype=np.float32)


def test_what_is_printed_is_printed_once(capfd):
    def f(x):
        y = jnp.sin(x)
        jax.debug.print("first {}", y[0])
        return jnp.sum(y)

    same(graph.grad(f)(X), np.cos(X))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("first") == 1


@pytest.mark.parametrize("callback", [jax.pure_callback, io_callback])
def test_a_callback_is_refused_where_a_cotangent_arrives(callback):
    def f(x):
        return jnp.sum(callback(np.sin, jax.typeof(x), x) * x)

    with raises(NoRule, "give its derivative by jax.custom_vjp or jax.custom_jvp") as caught:
        jax.jit(graph.grad(f))(X)
    assert "test_effects.py" in str(caught.value)
    same(graph.grad(lambda x: f(lax.stop_gradient(x)) + jnp.sum(x))(X), np.ones_like(X))


def test_a_custom_vmap_function_is_its_body():
    @jax.custom_batching.custom_vmap
    def f(x):
        return jnp.sin(x) * x

    @f.def_vmap
    def rule(size, batched, x):
        return jnp.sin(x) * x, True

    expected = jax.grad(lambda x: jnp.sum(jnp.sin(x) * x))
    same(graph.grad(lambda x: jnp.sum(f(x)))(X), expected(X))
    batch = np.stack([X, 2 * X])
    same(jax.vmap(graph.grad(lambda x: jnp.sum(f(x))))(batch), jax.vmap(expected)(batch))
    same(graph.grad(lambda x: jnp.sum(jax.vmap(f)(x)))(batch), jax.vmap(expected)(batch))


def test_a_composite_is_its_decomposition():
    f = lax.composite(lambda x: jnp.sin(x) * x, "example.sin_times")
    same(graph.grad(lambda x: jnp.sum(f(x)))(X), jax.grad(lambda x: jnp.sum(jnp.sin(x) * x))(X))
