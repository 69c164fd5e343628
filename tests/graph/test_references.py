"""Mutable references inside of a differentiated function.

The first derivative is held against JAX's, and, since JAX has no second derivative through a reference, both are held
against JAX's of the same program written without references.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import run_state

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


# --- references from outside, in bodies -------------------------------------------------------------------------------

OUTSIDE = np.arange(1, 5, dtype=np.float32)


def tally(ref, c):
    ref[0] += 1.0
    ref[1] = lax.stop_gradient(c)


def in_a_scan(ref, x):
    def step(c, y):
        tally(ref, c)
        return c * ref[0] + jnp.sin(y) * ref[1], None

    return lax.scan(step, x[0], x)[0]


def in_a_loop(ref, x):
    def step(i, c):
        tally(ref, c)
        return jnp.sin(c) * x[i] * ref[0]

    return lax.fori_loop(0, 4, step, x[0])


def in_a_while_loop(ref, x):
    def step(n):
        tally(ref, n)
        return n + 1

    return jnp.sum(jnp.sin(x)) * lax.while_loop(lambda n: n < 3, step, 0.0) * ref[0]


def in_a_branch(ref, x):
    def branch(x):
        tally(ref, x[0])
        return jnp.sin(x[1]) * ref[0]

    return lax.cond(x[0] > 0, branch, jnp.sum, x)


def in_a_call(ref, x):
    @jax.jit
    def call(ref, x):
        tally(ref, x[0])
        return jnp.sum(jnp.sin(x) * ref[...])

    return call(ref, x)


def in_a_checkpoint(ref, x):
    return jnp.sum(jax.checkpoint(lambda x: jnp.sin(x) * ref[...])(x) ** 2)


# What follows hands the cotangent of a value to a reference, as JAX's documentation shows.
@jax.custom_vjp
def stashing(x, ref):
    return x


def stash(ref, ct):
    jax.ref.addupdate(ref, ..., ct)
    return ct, None


stashing.defvjp(lambda x, ref: (x, ref), stash)


def stashed(ref, x):
    return jnp.sum(jnp.sin(stashing(stashing(jnp.sin(x), ref), ref)) * x)


def stashed_in_a_loop(ref, x):
    return jnp.sum(lax.scan(lambda c, y: (jnp.sin(stashing(c * y, ref)), None), x, x)[0])


def stashed_in_checkpoints_in_a_loop(ref, x):
    step = jax.checkpoint(lambda ref, c, y: jnp.sin(stashing(c * y, ref)))
    return jnp.sum(lax.scan(lambda c, y: (step(ref, c, y), None), x, x)[0])


BODIES = [in_a_scan, in_a_loop, in_a_while_loop, in_a_branch, in_a_call, in_a_checkpoint]
BODIES += [stashed, stashed_in_a_loop, stashed_in_checkpoints_in_a_loop]


def test_a_reference_from_outside_in_a_body():
    """The gradient, and what the reference holds afterwards, are those of jax.grad."""

    def everything(x):
        found = []
        for engine in (graph, jax):
            for body in BODIES:
                ref = jax.new_ref(jnp.asarray(OUTSIDE))
                # the reference is made outside of the derivative, though inside of the compiled function
                found.append((engine.grad(lambda x, body=body, ref=ref: body(ref, x))(x), jax.ref.freeze(ref)))
        return found[: len(BODIES)], found[len(BODIES) :]

    ours, theirs = jax.jit(everything, compiler_options={"xla_backend_optimization_level": 0})(X)
    for body, mine, other in zip(BODIES, ours, theirs, strict=True):
        assert not np.array_equal(mine[1], OUTSIDE) or body is in_a_checkpoint, body
        same(mine, other)


def stashed_in_a_branch(ref, x):
    return lax.cond(x[0] > 0, lambda x: jnp.sum(jnp.sin(stashing(jnp.sin(x), ref))), jnp.sum, x)


def test_a_cotangent_is_stashed_in_a_branch():
    """JAX raises a KeyError here."""
    ref = jax.new_ref(jnp.zeros(4))
    same(jax.jit(graph.grad(lambda x: stashed_in_a_branch(ref, x)))(X), np.cos(np.sin(X)) * np.cos(X))
    same(ref[...], np.cos(np.sin(X)))


def test_a_checkpoint_does_not_read_or_write_a_reference_again():
    """JAX does, and so takes the zeros for what was read, and adds twice."""
    ref = jax.new_ref(jnp.asarray(OUTSIDE))
    count = jax.new_ref(jnp.zeros(()))

    @jax.checkpoint
    def body(x):
        count[...] += 1.0
        return jnp.sum(jnp.sin(x * ref[...]))

    def f(x):
        y = body(x)
        ref[...] = jnp.zeros(4)
        return y

    same(jax.jit(graph.grad(f))(X), np.cos(X * OUTSIDE) * OUTSIDE)
    same(count[...], np.float32(1))


def test_references_of_a_checkpoint_become_values():
    """Made in its body, or made outside of it and written in it (which JAX does not differentiate)."""

    def inside(x):
        ref = jax.new_ref(x)
        ref[0] = jnp.sin(x[1])
        return jnp.sum(ref[...] ** 3)

    def across(x):
        ref = jax.new_ref(x)

        @jax.checkpoint
        def write(x):
            ref[0] = jnp.sin(x[1])

        write(x)
        return jnp.sum(ref[...] ** 3)

    expected = jax.grad(lambda x: jnp.sum(x.at[0].set(jnp.sin(x[1])) ** 3))(X)
    same(jax.jit(graph.grad(jax.checkpoint(inside)))(X), expected)
    same(jax.jit(graph.grad(across))(X), expected)


def test_run_state():
    """JAX has no reverse mode for it, but the same program of values has one."""

    def body(refs):
        a, b = refs
        a[...] = jnp.sin(a[...]) * b[0]

        def step(i, _):
            b[i] = a[i] * b[0]

        lax.fori_loop(0, 4, step, None)

    def with_references(x):
        a, b = run_state(body)((x, 2 * x))
        return jnp.sum(a**2) + jnp.sum(jnp.cos(b))

    def of_values(x):
        a = jnp.sin(x) * 2 * x[0]
        first = a[0] * 2 * x[0]
        return jnp.sum(a**2) + jnp.sum(jnp.cos(jnp.concatenate([first[None], a[1:] * first])))

    def both(engine, f):
        first = engine.grad(f)
        return lambda x: (first(x), engine.grad(lambda x: jnp.sum(jnp.sin(first(x))))(x))

    found, expected = jax.jit(lambda x: (both(graph, with_references)(x), both(jax, of_values)(x)))(X)
    same(found, expected, rtol=1e-4)
