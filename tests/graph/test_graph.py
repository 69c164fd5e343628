"""A graph in the hand: running, differentiating, counting, and what it says when it is used wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graph.same import raises, same
from twograd import graph
from twograd._compat import scope_of

X = np.linspace(0.2, 1.2, 6, dtype=np.float32).reshape(2, 3)
V = np.linspace(-1.0, 1.0, 3, dtype=np.float32)


def loss(params, x):
    hidden = jnp.tanh(x * params["w"] + params["b"])
    return jnp.mean(jnp.where(hidden > 0, hidden, 0.1 * hidden) ** 2)


PARAMS = {"w": V, "b": V + 1}


@pytest.fixture(scope="module")
def traced():
    return graph.trace(loss, PARAMS, X)


def test_names(traced):
    assert traced.inputs == ("params['b']", "params['w']", "x")
    assert traced.outputs == ("result",)
    assert traced.name == "loss"
    assert repr(traced).startswith("<Graph loss: 3 inputs, 1 outputs, ")
    derivative = traced.gradients()
    assert derivative.inputs == traced.inputs
    assert derivative.optimize().inputs == traced.inputs


def test_run_and_compile(traced):
    same(traced.run(PARAMS, X), loss(PARAMS, X))
    same(traced.compile()(*jax.tree.leaves((PARAMS, X))), [loss(PARAMS, X)])
    same(jax.jit(traced.run)(PARAMS, X), loss(PARAMS, X))
    same(jax.vmap(lambda x: traced.run(PARAMS, x))(np.stack([X, X])), jnp.stack([loss(PARAMS, X)] * 2))
    same(jax.grad(traced.run)(PARAMS, X), jax.grad(loss)(PARAMS, X))
    same(graph.grad(traced.run)(PARAMS, X), jax.grad(loss)(PARAMS, X))


def test_python_numbers_and_keywords():
    scaled = graph.trace(lambda x, *, scale: x * scale, 1.0, scale=2.0)
    same(scaled.run(3.0, scale=4.0), jnp.asarray(12.0))
    same(scaled.run(np.float32(3), scale=4.0), jnp.asarray(12.0))


def test_shapes_are_enough_to_trace():
    traced = graph.trace(jnp.sin, jax.ShapeDtypeStruct((2, 3), np.float32))
    same(traced.run(X), jnp.sin(X))


def test_wrong_shapes_dtypes_and_structures(traced):
    with raises(TypeError, "loss was traced with x: float32[2,3], and called with float32[3,2]"):
        traced.run(PARAMS, X.T)
    with raises(TypeError, "params['b']: float32[3], and called with int32[3]"):
        traced.run({"w": V, "b": np.arange(3)}, X)
    with raises(TypeError, "was traced with the inputs"):
        traced.run(PARAMS)
    with raises(TypeError, "was traced with the inputs"):
        traced.run({"w": V}, X)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_value_and_grad(traced):
    same(traced.value_and_grad().run(PARAMS, X), jax.value_and_grad(loss)(PARAMS, X))
    same(traced.value_and_grad((1, 0)).run(PARAMS, X), jax.value_and_grad(loss, (1, 0))(PARAMS, X))
    same(traced.value_and_grad(-1).run(PARAMS, X), jax.value_and_grad(loss, -1)(PARAMS, X))


def test_gradients_return_outputs_and_gradients(traced):
    out, gradients = traced.gradients().run(PARAMS, X)
    same((out, gradients), (loss(PARAMS, X), jax.tree.leaves(jax.grad(loss, (0, 1))(PARAMS, X))))


def test_gradients_of_named_inputs_and_outputs():
    g = graph.trace(lambda x, y: {"s": jnp.sum(x * y), "t": jnp.sum(x), "v": x}, X, 2 * X)
    assert g.outputs == ("result['s']", "result['t']", "result['v']")
    _, (by_name,) = g.gradients("result['s']", "y").run(X, 2 * X)
    same(by_name, X)
    _, (by_index,) = g.gradients(-2, [0]).run(X, 2 * X)
    same(by_index, np.ones_like(X))
    _, (total,) = g.gradients(["result['s']", "result['t']"], "x").run(X, 2 * X)
    same(total, 2 * X + 1)
    _, (with_ct,) = g.gradients("result['v']", "x", grad_ys=[X]).run(X, 2 * X)
    same(with_ct, X)
    _, (unconnected,) = g.gradients("result['t']", "y").run(X, 2 * X)
    same(unconnected, np.zeros_like(X))


def test_unknown_or_undifferentiable_inputs_and_outputs():
    g = graph.trace(lambda x, n: (jnp.sum(x) * n, n + 1, x), X, 3)
    with raises(ValueError, "has no input 'z'; it has x, n"):
        g.gradients(0, "z")
    with raises(ValueError, "has no output 7; it has 3"):
        g.gradients(7)
    with raises(TypeError, "the input n has dtype int32"):
        g.gradients(0, "n")
    with raises(TypeError, "the output result[1] has dtype int32"):
        g.gradients(1)
    with raises(TypeError, "the output result[2] is float32[2,3], not a scalar: give its cotangent in grad_ys"):
        g.gradients(2, "x")
    with raises(ValueError, "grad_ys has 2 cotangents for 1 output(s)"):
        g.gradients(2, "x", grad_ys=[X, X])
    with raises(TypeError, "float32[3]"):
        g.gradients(2, "x", grad_ys=[V])


def test_value_and_grad_of_what_is_no_scalar(traced):
    with raises(TypeError, "scalar"):
        graph.trace(jnp.sin, X).value_and_grad()
    with raises(TypeError, "has 2 outputs, not one"):
        graph.trace(lambda x: (jnp.sum(x), x), X).value_and_grad()
    with raises(ValueError, "argument 2"):
        traced.value_and_grad(2)


def test_gradients_of_gradients():
    g = graph.trace(lambda x: jnp.sum(jnp.sin(x) * x), X)
    first = g.gradients()
    second = first.gradients([first.outputs[1]], "x", grad_ys=[np.ones_like(X)])
    (_, _), (found,) = second.run(X)
    same(found, 2 * np.cos(X) - X * np.sin(X))
    assert (g.stats().order, first.stats().order, second.stats().order) == (0, 1, 2)
    assert g.stats().derivative_equations == 0


def test_gradients_do_not_change_the_graph(traced):
    before = traced.text()
    first, again = traced.gradients(), traced.gradients()
    assert traced.text() == before
    assert first.text() == again.text()


def test_special_outputs():
    g = graph.trace(lambda x: (jnp.sum(x), x, 2.0, jnp.sum(x)), X)
    outs, (ct,) = g.gradients([0, 2, 3]).run(X)
    same((outs[0], ct), (jnp.sum(X), 2 * np.ones_like(X)))
    same(g.run(X), (jnp.sum(X), jnp.asarray(X), 2.0, jnp.sum(X)))


def test_backprop_by_value(traced):
    same(traced.backprop(PARAMS, X), traced.gradients().run(PARAMS, X))
    with_integer = graph.trace(lambda x, n, u: jnp.sum(x) * n, X, 3, V)
    same(with_integer.backprop(X, 3, V)[1], [3 * np.ones_like(X), np.zeros_like(V)])


# --- provenance and counts --------------------------------------------------------------------------------------------


def origins(g):
    """For each derivative equation its own number, and the name and number of the equation it comes from."""
    for index, eqn in enumerate(g.jaxpr.eqns):
        scopes = [scope[4:-1] for scope in scope_of(eqn) if scope.startswith("vjp(")]
        if scopes:
            primitive, number = scopes[-1].rsplit(".", 1)
            yield index, primitive, int(number)


@pytest.mark.parametrize("optimized", [False, True])
def test_every_derivative_equation_names_a_forward_equation(traced, optimized):
    forward = traced.optimize() if optimized else traced
    first = forward.gradients()
    second = first.gradients(first.outputs[1:], "x", grad_ys=[V, V, X])
    for g in (first, second):
        found = list(origins(g))
        assert found
        for index, primitive, number in found:
            assert number < index
            assert g.jaxpr.eqns[number].primitive.name == primitive
    for index, _, number in origins(first):
        assert not any(scope.startswith("vjp(") for scope in scope_of(first.jaxpr.eqns[number])), index


def test_stats():
    g = graph.trace(lambda x: jnp.sum(jnp.exp(jnp.sin(x))), X)
    assert g.stats().primitives == {"sin": 1, "exp": 1, "reduce_sum": 1}
    stats = g.gradients().stats()
    assert stats.equations == 3 + stats.derivative_equations
    assert stats.saved_values == 2  # the operand of sin, the result of exp
    assert stats.saved_bytes == 2 * X.nbytes
    keyed = graph.trace(lambda key, x: jnp.sum(x * jax.random.normal(key, (3,))), jax.random.key(0), V)
    assert keyed.gradients(0, "x").stats().saved_values == 1
