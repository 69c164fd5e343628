"""Mutable references inside of a differentiated function.

The first derivative is held against JAX's, and, since JAX has no second derivative through a reference, both are held
against JAX's of the same program written without references.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graph.same import raises, same
from twograd import graph
from twograd.errors import NoRule

X = np.linspace(0.2, 1.0, 4, dtype=np.float32)


def read_and_written(x):
    ref = jax.new_ref(jnp.zeros(4))
    ref[...] = jnp.sin(x)
    ref[1] = x[0] * x[2]
    ref[2:] += x[:2]
    return jnp.sum(ref[...] ** 2)


def made_in_a_body(x):
    @jax.jit
    def body(y):
        ref = jax.new_ref(y)
        ref[0] = y[1] ** 2
        return ref[...]

    return jnp.sum(body(x) ** 3)


def given_to_a_body(x):
    ref = jax.new_ref(x)

    @jax.jit
    def body(ref, y):
        ref[0] = y[1] ** 2
        jax.ref.addupdate(ref, 1, y[0])

    body(ref, x)
    return jnp.sum(ref[...] ** 3)


def written_in_a_branch(x):
    ref = jax.new_ref(x)

    def write():
        ref[0] = x[1] * 2

    lax.cond(x[0] > 0, write, lambda: None)
    return jnp.sum(jax.ref.freeze(ref) ** 2)


def written_in_a_loop(x):
    ref = jax.new_ref(jnp.ones(()))

    def step(carry, y):
        ref[...] = ref[...] * carry + jnp.sin(y)
        return carry * y, None

    lax.scan(step, x[0], x)
    return ref[...] ** 2


def carried_in_a_loop(x):
    def step(carry, y):
        product, total = carry
        return (product * y, total * product + jnp.sin(y)), None

    (_, total), _ = lax.scan(step, (x[0], jnp.ones(())), x)
    return total**2


@jax.custom_vjp
def with_a_rule(y):
    ref = jax.new_ref(y)
    ref[0] = y[1] ** 2
    return ref[...]


with_a_rule.defvjp(lambda y: (with_a_rule(y), y), lambda y, ct: (7 * ct * y,))

# Each with the same program without references.
PROGRAMS = {
    "read and written": (
        read_and_written,
        lambda x: jnp.sum(jnp.sin(x).at[1].set(x[0] * x[2]).at[2:].add(x[:2]) ** 2),
    ),
    "made in a body": (made_in_a_body, lambda x: jnp.sum(x.at[0].set(x[1] ** 2) ** 3)),
    "given to a body": (given_to_a_body, lambda x: jnp.sum(x.at[0].set(x[1] ** 2).at[1].add(x[0]) ** 3)),
    "written in a branch": (written_in_a_branch, lambda x: jnp.sum(x.at[0].set(x[1] * 2) ** 2)),
    "written in a loop": (written_in_a_loop, carried_in_a_loop),
    "inside of a custom rule": (lambda x: jnp.sum(with_a_rule(x) ** 2), None),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_references(name):
    f, pure = PROGRAMS[name]

    def both(engine, f):
        first = engine.grad(f)
        return first, engine.grad(lambda x: jnp.sum(jnp.cos(first(x))))

    @jax.jit
    def everything(x):
        ours, second_of_ours = both(graph, f)
        theirs, second_of_theirs = both(jax, f if pure is None else pure)
        found = [ours(x), second_of_ours(x), jax.vmap(ours)(jnp.stack([x, 2 * x]))]
        expected = [theirs(x), second_of_theirs(x), jax.vmap(theirs)(jnp.stack([x, 2 * x]))]
        return found, expected, jax.grad(f)(x)

    found, expected, by_jax = everything(X)
    same(found, expected, rtol=1e-4)
    same(found[0], by_jax, rtol=1e-4)


def test_by_value_and_as_a_graph():
    expected = jax.jit(jax.grad(read_and_written))(X)
    traced = graph.trace(read_and_written, X)
    same(traced.backprop(X)[1], [expected])
    same(traced.value_and_grad().run(X)[1], expected)


def test_a_reference_from_outside_takes_what_does_not_depend():
    ref = jax.new_ref(jnp.zeros(()))

    def f(x):
        value = jnp.sum(jnp.sin(x))
        ref[...] = lax.stop_gradient(value)
        return value

    same(jax.jit(graph.grad(f))(X), np.cos(X))
    same(ref[...], np.sin(X).sum())


@pytest.mark.parametrize("add", [False, True])
def test_a_reference_from_outside_refuses_what_depends(add):
    ref = jax.new_ref(jnp.zeros(()))

    def f(x):
        value = jnp.sum(jnp.sin(x))
        if add:
            jax.ref.addupdate(ref, ..., value)
        else:
            ref[...] = value
        return value

    with raises(NoRule, "make the reference inside, with jax.new_ref"):
        jax.jit(graph.grad(f))(X)
