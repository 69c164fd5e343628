"""The fourth corner: a graph built once, walked back by value."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np

from graph.same import raises, same
from twograd import graph, rules

X = np.linspace(0.2, 1.2, 6, dtype=np.float32).reshape(2, 3)
W = {"w": np.linspace(-1.0, 1.0, 3, dtype=np.float32), "b": np.ones(3, np.float32)}


def loss(params, x, *, scale=1.0):
    hidden = jnp.tanh(x * params["w"] + params["b"])
    return scale * jnp.mean(jnp.where(hidden > 0, hidden, 0.1 * hidden) ** 2)


def test_results_are_those_of_the_compiled_derivative():
    g = graph.trace(loss, W, X)
    found = graph.backprop(g, (W, X))
    same(found, g.gradients().run(W, X))
    same(found, (loss(W, X), jax.tree.leaves(jax.grad(loss, (0, 1))(W, X))))
    same(g.backprop(W, X), found)
    assert all(isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found))


def test_no_equation_is_added():
    g = graph.trace(loss, W, X)
    before = g.text()
    g.backprop(W, X)
    assert g.text() == before


def test_values_by_the_inputs_names():
    g = graph.trace(loss, W, X, scale=2.0)
    values = {"params['w']": W["w"], "params['b']": W["b"], "x": X, "scale": 3.0}
    _, (found,) = graph.backprop(g, values, 0, "x")
    same(found, jax.grad(lambda x: loss(W, x, scale=3.0))(X))
    with raises(ValueError, "loss has the inputs params['b'], params['w'], x, scale; given are x"):
        graph.backprop(g, {"x": X})
    with raises(TypeError, "was traced with the inputs"):
        graph.backprop(g, (W,))


def test_under_a_trace_it_emits_what_it_would_compute():
    g = graph.trace(loss, W, X)
    same(jax.jit(g.backprop)(W, X), g.backprop(W, X))
    slope = lambda x: jnp.sum(graph.backprop(g, (W, x), xs="x")[1][0] ** 2)  # noqa: E731
    same(jax.grad(slope)(X), jax.grad(lambda x: jnp.sum(jax.grad(loss, 1)(W, x) ** 2))(X))


def test_each_residual_is_freed_when_its_equation_has_been_walked(monkeypatch):
    """What an equation alone saved is dead when the walk has come to the next one."""

    def chain(x):
        for i in range(6):
            x = jnp.exp(jnp.sin(x) * (i + 1.5))  # sin saves its operand, exp its result; the product a constant
        return jnp.sum(x)

    g = graph.trace(chain, X)
    walked, alive = [], []
    pullback = rules.pullback

    def watched(eqn, saved, cts, wanted):
        alive.append(sum(residual() is not None for residual in walked))
        found = pullback(eqn, saved, cts, wanted)
        walked.extend(weakref.ref(value) for value in saved.values() if isinstance(value, jax.Array))
        return found

    monkeypatch.setattr(rules, "pullback", watched)
    _, (ct,) = g.backprop(X)
    monkeypatch.undo()
    same(ct, jax.grad(chain)(X))
    assert len(walked) >= 12
    # An exp's result is the next sin's operand: of all that was walked, only this one array may still be needed. The
    # walk holds the equation that it has just left until it has the next one's.
    assert max(alive) <= 2, alive
    assert all(residual() is None for residual in walked[:-1])


def test_bodies_are_freed_as_the_walk_passes(monkeypatch):
    """What scan, cond, custom rules and a checkpoint keep, too, is dead before the next equation is walked."""

    @jax.custom_vjp
    def own(x):
        return jnp.sin(x)

    own.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda slope, ct: (ct * slope,))

    def chain(x):
        for i in range(2):
            x, ys = jax.lax.scan(lambda c, a: (jnp.sin(c * a), jnp.exp(c)), x, x * (i + 0.5))
            x = jax.lax.cond(x[0] > 0, jnp.exp, jnp.sin, x + jnp.sum(ys))
            x = own(jax.nn.silu(x * 0.1) * 2.0)
            x = jax.checkpoint(lambda x: jnp.sin(jnp.exp(x)))(x * 0.3)
        return jnp.sum(x)

    g = graph.trace(chain, X[0])
    walked, alive, inside = [], {}, []
    pullback = rules.pullback

    def watched(eqn, saved, cts, wanted):
        if not inside:  # rules of bodies call this, too
            alive.setdefault(eqn.primitive.name, []).append(sum(residual() is not None for residual in walked))
        inside.append(eqn)
        found = pullback(eqn, saved, cts, wanted)
        inside.pop()
        if not inside:
            values = jax.tree.leaves(saved)
            walked.extend(
                weakref.ref(v) for v in values if isinstance(v, jax.Array) and not isinstance(v, jax.core.Tracer)
            )
        return found

    monkeypatch.setattr(rules, "pullback", watched)
    _, (ct,) = g.backprop(X[0])
    monkeypatch.undo()
    same(ct, jax.grad(chain)(X[0]), rtol=1e-4)
    assert {"scan", "cond", "custom_vjp_call"} <= alive.keys()
    assert len(walked) >= 16
    assert max(max(counts) for counts in alive.values()) <= 1, alive
    assert all(residual() is None for residual in walked[:-1])


def test_nothing_is_kept_for_what_no_gradient_is_asked_of(monkeypatch):
    g = graph.trace(lambda x, y: jnp.sum(jnp.exp(jnp.sin(x))) + jnp.sum(jnp.exp(y)), X, X)
    kept = []
    forward = rules.forward

    def watched(eqn, operands, wanted):
        outs, saved = forward(eqn, operands, wanted)
        kept.extend((eqn.primitive.name, name) for name in saved)
        return outs, saved

    monkeypatch.setattr(rules, "forward", watched)
    graph.backprop(g, (X, X), xs="y")
    assert kept == [("exp", "out")]
