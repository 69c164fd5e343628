"""Callbacks and calls: what is told happens once, what is asked for is refused, and bodies are walked."""

from collections import Counter
from functools import partial

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


def told_in_a_checkpoint(tell, x):
    def body(x):
        y = jnp.sin(x)
        tell(y[0])
        return jnp.sum(jnp.cos(y))

    return jax.checkpoint(body)(x)


def told_in_a_checkpoint_that_keeps(tell, x):
    def body(x):
        y = jnp.sin(x)
        tell(y[0])
        return jnp.sum(jnp.cos(y))

    return jax.checkpoint(body, policy=jax.checkpoint_policies.everything_saveable)(x)


def told_in_a_scan(tell, x):
    def step(c, y):
        c = jnp.sin(c * y)
        tell(c)
        return c, None

    return lax.scan(step, x[0], x)[0]


def told_in_checkpoints_in_a_scan(tell, x):
    @jax.checkpoint
    def step(c, y):
        c = jnp.sin(c * y)
        tell(c)
        return c, None

    return lax.scan(step, x[0], x)[0]


def told_in_a_branch(tell, x):
    def branch(x):
        y = jnp.sin(x[0])
        tell(y)
        return y**2

    return lax.cond(x[0] > 0, branch, lambda x: x[0], x) + lax.cond(x[0] < 0, branch, lambda x: x[1], x)


def told_in_a_branch_in_a_checkpoint(tell, x):
    return jax.checkpoint(lambda x: told_in_a_branch(tell, x))(x)


def told_in_a_custom_rule(tell, x):
    @jax.custom_vjp
    def f(x):
        tell(x)
        return jnp.sin(x)

    def forward(x):
        tell(x)
        return jnp.sin(x), x

    def backward(x, ct):
        tell(ct)
        return (ct * jnp.cos(x),)

    f.defvjp(forward, backward)
    return f(x[0]) ** 2


# How often it is told on the way to a gradient of four elements. A checkpoint tells again, as in JAX.
TELLING = {
    told_in_a_checkpoint: 2,
    told_in_a_checkpoint_that_keeps: 1,
    told_in_a_scan: 4,
    told_in_checkpoints_in_a_scan: 8,
    told_in_a_branch: 1,
    told_in_a_branch_in_a_checkpoint: 2,
    told_in_a_custom_rule: 2,
}


def test_it_is_told_as_often_as_by_jax():
    told = Counter()

    def everything(x):
        def teller(*key):
            return partial(jax.debug.callback, lambda value: told.update([key]))

        return [
            [engine.grad(partial(f, teller(engine.__name__, f.__name__)))(x) for f in TELLING]
            for engine in (graph, jax)
        ]

    ours, theirs = jax.jit(everything)(X)
    jax.effects_barrier()
    same(ours, theirs)
    for f, count in TELLING.items():
        assert told["jax", f.__name__] == told["twograd.graph", f.__name__] == count, f


def test_a_callback_in_a_scan_happens_in_each_step_though_jax_drops_it():
    told = []

    def f(x):
        def step(c, y):
            c = jnp.sin(c * y)
            io_callback(lambda value: told.append(float(value)), None, lax.stop_gradient(c))
            return c, None

        return lax.scan(step, x[0], x)[0]

    expected = jax.grad(lambda x: lax.scan(lambda c, y: (jnp.sin(c * y), None), x[0], x)[0])
    same(jax.jit(graph.grad(f))(X), expected(X))
    jax.effects_barrier()
    assert len(told) == len(X)


def test_a_callback_in_a_checkpoint_is_not_called_again():
    """JAX refuses callbacks there."""
    told = []

    @jax.checkpoint
    def f(x):
        io_callback(lambda value: told.append(float(value)), None, lax.stop_gradient(x[0]))
        return lax.cond(x[0] > 0, lambda x: asked(x[0]) * jnp.sin(x[1]), lambda x: x[0], x)

    def asked(value):
        return io_callback(lambda value: told.append(value) or value, jax.typeof(value), lax.stop_gradient(value))

    same(jax.jit(graph.grad(f))(X), np.array([0, X[0] * np.cos(X[1]), 0, 0], np.float32))
    jax.effects_barrier()
    assert len(told) == 2


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


def test_forward_mode_of_a_custom_vjp_is_refused_with_the_way_out():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    with raises(NoRule, "Use twograd.graph.jvp, which pulls back twice, or give the function its rule by"):
        graph.grad(lambda x: jax.jvp(f, (x,), (1.0,))[1])(0.5)
    same(graph.grad(lambda x: graph.jvp(f, (x,), (jnp.float32(1.0),))[1])(0.5), -jnp.sin(jnp.float32(0.5)))
