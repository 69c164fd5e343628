"""Branches and loops: derivatives are JAX's, to second order and in batches, and loops keep no more than JAX's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graph.same import raises, same
from twograd import graph
from twograd.graph.split import split_vjp

W = np.linspace(-0.7, 0.9, 9, dtype=np.float32).reshape(3, 3)
XS = np.sin(np.arange(15, dtype=np.float32)).reshape(5, 3)
H = np.float32([0.3, -0.2, 0.5])


def recurrent(w, xs):
    """A constant that is transformed in the loop, a carry, slices, results."""

    def step(h, x):
        h = jnp.tanh(jnp.tanh(w) @ h + x)
        return h, h

    h, ys = lax.scan(step, jnp.asarray(H), xs)
    return jnp.sum(ys**2) + jnp.sum(h)


def counting(w, xs):
    """An integer in the carry, a branch on it, several results, backwards and unrolled by two."""

    def step(carry, x):
        i, h = carry
        h = jnp.where(i % 2 == 0, jnp.sin(w @ h) * x, h * x)
        return (i + 1, h), (i, h[0], x[1])

    (_, h), (_, ys, zs) = lax.scan(step, (0, jnp.asarray(H)), xs, reverse=True, unroll=2)
    return jnp.sum(ys**2 * zs) * jnp.sum(h)


def delayed(w, xs):
    """The carry comes to depend on what is differentiated step by step."""

    def step(carry, _):
        p, q, r = carry
        return (jnp.sin(q), jnp.cos(r), r * w[0, 0]), p

    _, ys = lax.scan(step, (1.0, 2.0, xs[0, 0]), None, length=6)
    return jnp.sum(ys * jnp.arange(6))


def nested(w, xs):
    def outer(c, x):
        def inner(d, row):
            return jnp.sin(d * jnp.sum(row)) + jnp.sum(x), d

        d, ys = lax.scan(inner, c, w)
        return d, jnp.sum(ys)

    c, ys = lax.scan(outer, 0.5, xs)
    return c + jnp.sum(ys)


def branching(w, xs):
    """Branches that need different values, in a loop; one needs none, one its operand, one its result."""
    branches = [jnp.sin, lambda x: x * x * jnp.cos(x), lambda x: x, lambda x: jnp.exp(w @ x), jnp.zeros_like]

    def step(h, pair):
        i, x = pair
        return lax.switch(i, branches, h + x), i

    return jnp.sum(lax.scan(step, jnp.asarray(H), (jnp.arange(5), xs))[0])


PROGRAMS = {
    "recurrent": recurrent,
    "counting": counting,
    "delayed": delayed,
    "nested": nested,
    "branching": branching,
    "no steps": lambda w, xs: recurrent(w, xs[:0]),
    "no slices": lambda w, xs: jnp.sum(lax.fori_loop(0, 4, lambda i, x: jnp.sin(w @ x) + i, xs[0])),
    "map": lambda w, xs: jnp.sum(lax.map(lambda x: jnp.sum(jnp.sin(w @ x) ** 2), xs)),
    "associative scan": lambda w, xs: jnp.sum(lax.associative_scan(lambda a, b: a * b + jnp.sin(a), xs @ w)),
    "checkpoint in scan": lambda w, xs: jnp.sum(
        lax.scan(jax.checkpoint(lambda h, x: (jnp.sin(w @ h) * x, h)), jnp.asarray(H), xs)[1]
    ),
    "scan in checkpoint": jax.checkpoint(recurrent),
    "bounded while": lambda w, xs: jnp.sum(
        graph.bounded_while_loop(lambda x: jnp.sum(x) < 2.0, lambda x: 1.3 * x + jnp.sin(w[0] * x), xs[0] ** 2, 9)
    ),
    "while beside": lambda w, xs: jnp.sum(w * xs[0]) * lax.while_loop(lambda c: c < 9, lambda c: 2 * c, 1.0),
    "while, counting": lambda w, xs: jnp.sum(xs[lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0)] @ w),
    "complex": lambda w, xs: jnp.abs(lax.scan(lambda c, x: (c * (1 + 1j * x[0]) + w[0, 0], None), 1.0 + 0.5j, xs)[0]),
}


@pytest.mark.parametrize("f", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(f):
    @jax.jit
    def everything(w, xs):
        pairs = {}
        for name, engine in (("ours", graph), ("JAX's", jax)):
            first = engine.value_and_grad(f, (0, 1))
            second = engine.grad(lambda w, xs, first=first: sum(map(jnp.sum, map(jnp.cos, first(w, xs)[1]))), (0, 1))
            pairs[name] = first(w, xs), second(w, xs), jax.vmap(first, (None, 0))(w, jnp.stack([xs, 2 * xs]))
        return pairs

    found = everything(W, XS)
    same(found["ours"], found["JAX's"], rtol=1e-4)


@pytest.mark.parametrize("name", ["recurrent", "counting", "branching", "nested"])
def test_by_value(name):
    """The walk by value runs the same loops."""
    f = PROGRAMS[name]
    same(graph.trace(f, W, XS).backprop(W, XS)[1], list(jax.grad(f, (0, 1))(W, XS)), rtol=1e-4)
    out, pullback = graph.vjp(f, W, XS)
    same(pullback(jnp.ones_like(out)), jax.grad(f, (0, 1))(W, XS), rtol=1e-4)


@pytest.mark.parametrize("taken", [True, False])
def test_the_branch_taken_is_walked_back(taken):
    def f(taken, x):
        y = lax.cond(taken, lambda a: jnp.sin(a) * a, lambda a: a**2, x)
        return jnp.sum(lax.switch(jnp.argmax(x), [lambda a: a, lambda a: a**3, jnp.zeros_like] * 2, y))

    same(graph.grad(f, 1)(taken, H), jax.grad(f, 1)(taken, H))
    same(graph.hessian(f, 1)(taken, H), jax.hessian(f, 1)(taken, H))
    both = np.array([True, False])
    same(jax.vmap(graph.grad(f, 1), (0, None))(both, H), jax.vmap(jax.grad(f, 1), (0, None))(both, H))


def test_a_while_loop_has_no_way_back():
    def f(x):
        return lax.while_loop(lambda c: c < 3, lambda c: 2 * c, x)

    with raises(ValueError, "Reverse-mode differentiation does not work for lax.while_loop") as raised:
        graph.grad(f)(2.0)
    assert "test_control.py" in str(raised.value)
    assert "graph.bounded_while_loop(cond_fun, body_fun, init_val, max_steps)" in str(raised.value)
    assert graph.trace(f, 2.0).run(2.0) == 4.0
    with raises(ValueError, "Reverse-mode differentiation does not work"):
        graph.grad(lambda x: lax.fori_loop(0, jnp.int32(x), lambda i, c: c * x, 1.0))(2.0)


def test_a_bounded_loop_stops():
    def below(x):
        return x < 100

    assert graph.bounded_while_loop(below, lambda x: 2 * x, 3, 20) == 192
    assert graph.bounded_while_loop(below, lambda x: 2 * x, 3, 2) == 12
    assert graph.bounded_while_loop(below, lambda x: 2 * x, 3, 0) == 3
    with raises(ValueError, "max_steps must not be negative, got -1"):
        graph.bounded_while_loop(below, lambda x: 2 * x, 3, -1)


def stacked(f, *args):
    """The bytes that the forward half of a derivative hands to the backward half."""
    closed = jax.make_jaxpr(f)(*args)
    split = split_vjp(closed, (True,) * len(args))
    avals = [*split.forward.in_avals, *split.forward.out_avals]
    return sum(avals[i].size * avals[i].dtype.itemsize for i in split.saved if i >= len(args))


def test_a_loop_stacks_what_the_rules_name_and_nothing_twice():
    w, xs, h = np.ones((3, 3), np.float32), np.ones((50, 3), np.float32), np.ones(3, np.float32)

    def run(step):
        return lambda w, xs, h: lax.scan(lambda h, x: step(w, h, x), h, xs)

    # tanh names its result, which is a y; the product names the old carry, and w, which is a constant.
    assert stacked(run(lambda w, h, x: (y := jnp.tanh(w @ h + x), y)), w, xs, h) == 2 * xs.nbytes
    # tanh(w) is the same in all steps: kept once.
    invariant = stacked(run(lambda w, h, x: (y := jnp.tanh(jnp.tanh(w) @ h + x), y)), w, xs, h)
    assert invariant <= 2 * xs.nbytes + 2 * w.nbytes
    # Linear in all: nothing but what is there already.
    assert stacked(lambda xs: lax.scan(lambda h, x: (h + 2 * x, h), jnp.zeros(3), xs), xs) == 0
    # sin names its operand, a slice of xs.
    assert stacked(lambda xs: lax.scan(lambda h, x: (h + jnp.sin(x), None), jnp.zeros(3), xs)[0], xs) == 0


def test_the_body_is_traced_and_not_unrolled():
    counts = {n: graph.trace(recurrent, W, np.ones((n, 3), np.float32)).gradients().stats().equations for n in (2, 200)}
    assert counts[2] == counts[200]
    loops = graph.trace(recurrent, W, XS).gradients().stats().primitives["scan"]
    assert loops == 2


def test_results_that_do_not_depend_are_not_walked():
    """A carry that no differentiated operand reaches costs nothing on the way back."""

    def f(x):
        def step(carry, _):
            a, b = carry
            return (a * x, jnp.sin(b)), jnp.sin(b)

        (a, b), ys = lax.scan(step, (1.0, 0.5), None, length=3)
        return a + jnp.exp(b) + jnp.sum(jnp.exp(ys))

    text = str(graph.trace(f, 2.0).gradients())
    backward = [line for line in text.splitlines() if "<-" in line]
    assert not any("<- exp" in line for line in backward)
    same(graph.grad(f)(2.0), jax.grad(f)(2.0))
