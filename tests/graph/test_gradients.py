"""Where a derivative begins and ends: the options of ``gradients``, by equations and by value, against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from graph.same import raises, same
from twograd import graph
from twograd.errors import CotangentMismatch, DisconnectedInput

X = np.linspace(0.2, 1.2, 3, dtype=np.float32)
Y = np.linspace(-1.0, 1.5, 3, dtype=np.float32)


def both(g, args, *selection, **options):
    """The gradients as ``gradients`` and ``backprop`` find them, which must be the same."""
    outs, found = graph.gradients(g, *selection, **options).run(*args)
    same(graph.backprop(g, args, *selection, **options), (outs, found))
    same(outs, g.run(*args))
    return found


def program(x, y):
    """Fan-out, broadcasting, a value of two names, and a call."""
    product = checkpoint_name(x * y, "product")
    hidden = jax.jit(lambda v: checkpoint_name(jnp.sin(v), "inner") * y)(product)
    return jnp.sum(hidden * product + x), jnp.sum(jnp.exp(product)[None, :] * jnp.ones((2, 1)))


@pytest.fixture(scope="module")
def traced():
    return graph.trace(program, X, Y)


# --- the example of TensorFlow's documentation ------------------------------------------------------------------------


def test_partial_and_total_derivatives():
    g = graph.trace(lambda a: a + 2 * a, 0.0)
    assert [eqn.primitive.name for eqn in g.jaxpr.eqns] == ["mul", "add"]
    same(both(g, (0.0,), 0, ["a", "mul.0"], stop_gradients=["a", "mul.0"]), [1.0, 1.0])
    same(both(g, (0.0,), 0, ["a", "mul.0"]), [3.0, 1.0])


# --- values by name ---------------------------------------------------------------------------------------------------


def test_an_x_may_be_any_value(traced):
    expected = jax.grad(lambda p: jnp.sum(jnp.sin(p) * Y * p + X) + 2 * jnp.sum(jnp.exp(p)))(X * Y)
    by_name, by_equation, whole = both(traced, (X, Y), None, ["product", "mul.0", "x"])
    same((by_name, by_equation), (expected, expected))
    same(whole, expected * Y + 1)
    (inner,) = both(traced, (X, Y), 0, "inner")
    same(inner, Y * (X * Y))
    assert traced.jaxpr.eqns[2].primitive.name == "jit"
    (of_the_call,) = both(traced, (X, Y), 0, "jit.2")  # its number is that of the text, before inlining
    same(of_the_call, X * Y)


def test_a_y_may_be_any_value(traced):
    same(both(traced, (X, Y), "product", "x", grad_ys=[X]), [X * Y])
    same(both(traced, (X, Y), ["x", "result[0]"], "x", grad_ys=[Y, None]), [Y + both(traced, (X, Y), 0, "x")[0]])
    same(both(traced, (X, Y), "x", "x", grad_ys=["y"]), [Y])


def test_results_of_an_equation_with_several():
    g = graph.trace(lambda x, y: jnp.vdot(*lax.sort((x, y), num_keys=1)), Y[::-1], X)
    first, second = both(g, (Y[::-1], X), 0, ["sort.0", "sort.0:1"])
    same((first, second), (X[::-1], Y))
    same(both(g, (Y[::-1], X), 0, stop_gradients="sort.0:1"), [X, np.zeros_like(X)])
    # One result is constant and an x, the other is not: what arrives at the first goes no further.
    found = both(g, (Y[::-1], X), 0, ["sort.0", "x", "y"], stop_gradients="sort.0")
    same(found, [X[::-1], np.zeros_like(X), Y[::-1]])
    with raises(ValueError, "has no input 'sort.0:2'"):
        g.gradients(0, "sort.0:2")


def test_a_name_that_nothing_or_too_much_has(traced):
    for name in ("z", "sin.0", "mul.99", "mul", "mul.-1"):
        with raises(ValueError, f"program has no input {name!r}; it has x, y. Other values are named by"):
            traced.gradients(0, name)
    with raises(ValueError, "has no output 'z'; it has result[0], result[1]"):
        traced.gradients("z")
    with raises(ValueError, "has no input 2; it has 2"):
        traced.gradients(0, stop_gradients=2)
    twice = graph.trace(lambda x: checkpoint_name(checkpoint_name(x, "h") * 2, "h"), 1.0)
    with raises(ValueError, "has 2 values of the name 'h'"):
        twice.gradients(0, "h")
    with raises(TypeError, "the input gt.0 has dtype bool"):
        graph.trace(lambda x: lax.select(x > 0, x, -x), 1.0).gradients(0, "gt.0")


# --- what is constant -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["stop_gradients", "consider_constant"])
def test_constants(traced, option):
    def stopped(x, y):
        product = lax.stop_gradient(x * y)
        return jnp.sum(jnp.sin(product) * y * product + x) + 2 * jnp.sum(jnp.exp(product))

    same(both(traced, (X, Y), **{option: "product"}), list(jax.grad(stopped, (0, 1))(X, Y)))
    same(both(traced, (X, Y), xs=["x", "y"], **{option: ["x"]})[1], jax.grad(program_sum, 1)(X, Y))
    first = traced.gradients(xs="y", **{option: "product"})
    _, (second,) = first.gradients("result[1][0]", "y", [X], **{option: "mul.0"}).run(X, Y)
    same(second, jax.vjp(jax.grad(stopped, 1), X, Y)[1](X)[1])


def program_sum(x, y):
    return sum(program(x, y))


def test_nothing_is_emitted_or_kept_for_what_is_constant_or_leads_nowhere():
    g = graph.trace(lambda x: (jnp.sum(jnp.sin(x)), jnp.sum(jnp.exp(x) * x)), X)
    assert g.gradients(0).stats().saved_bytes == X.nbytes
    assert {e.primitive.name for e in g.gradients(0, stop_gradients="sin.0").jaxpr.eqns[len(g.jaxpr.eqns) :]} <= {
        "broadcast_in_dim"
    }
    kept = g.gradients(1, stop_gradients="exp.2")
    derivative = [e.primitive.name for e in kept.jaxpr.eqns[len(g.jaxpr.eqns) :]]
    assert derivative == ["broadcast_in_dim", "mul"]


# --- gradients that are given -----------------------------------------------------------------------------------------


def test_known_gradients(traced):
    same(both(traced, (X, Y), (), ["x", "product"], known_grads={"product": Y}), [Y * Y, Y])
    by_the_call = jax.vjp(lambda x: jnp.sin(x * Y) * Y, X)[1](X)[0]
    product = X * Y
    found = both(traced, (X, Y), 0, "x", known_grads={"jit.2": "x"})
    same(found, [by_the_call + jnp.sin(product) * Y * Y + 1])
    same(both(traced, (X, Y), [0, 1], "x", known_grads={"result[0]": 3.0}), [
        jax.grad(lambda x: 3 * program(x, Y)[0] + program(x, Y)[1])(X)
    ])  # fmt: skip
    same(both(traced, (X, Y), 0, "y", known_grads={"y": X}), [X])


def test_cotangents_that_do_not_fit(traced):
    with raises(TypeError, "the cotangent given for product is float32[2,3], but the value is float32[3]"):
        traced.gradients((), "x", known_grads={"product": np.ones((2, 3), np.float32)})
    with raises(TypeError, "the cotangent given for x is complex64[3]"):
        graph.backprop(traced, (X, Y), "x", "x", grad_ys=[X + 1j])
    with raises(TypeError, "the cotangent given for x is float32[]"):
        traced.gradients("x", grad_ys=[1.0])
    with raises(ValueError, "has no input 'nobody'"):
        traced.gradients("x", grad_ys=["nobody"])
    with raises(TypeError, "the output product is float32[3], not a scalar"):
        traced.gradients("product")
    assert issubclass(CotangentMismatch, TypeError)


# --- what is not connected --------------------------------------------------------------------------------------------


def test_unconnected_gradients(traced):
    g = graph.trace(lambda x, y, z: (jnp.sum(x), jnp.sum(jnp.floor(y))), X, Y, 1.0)
    same(both(g, (X, Y, 1.0), 0), [np.ones_like(X), np.zeros_like(Y), np.float32(0)])
    same(both(g, (X, Y, 1.0), 0, unconnected_gradients="none"), [np.ones_like(X), None, None])
    extended = g.gradients(0, ["z", "x"], unconnected_gradients="none")
    assert extended.outputs[2:] == ("result[1][1]",)
    same(extended.gradients("result[1][1]", "x", [X]).run(X, Y, 1.0)[1], [np.zeros_like(X)])


@pytest.mark.parametrize("x", ["y", "z", "floor.1"])
def test_disconnected_inputs(x):
    g = graph.trace(lambda x, y, z: (jnp.sum(x), jnp.sum(jnp.floor(y))), X, Y, 1.0)
    ys = 0 if x == "floor.1" else 1
    text = (
        "grad method was asked to compute the gradient with respect to a variable that is not part of the "
        f"computational graph of the cost, or is used only by a non-differentiable operator: {x}"
    )
    for call in (g.gradients, lambda *args, **options: graph.backprop(g, (X, Y, 1.0), *args, **options)):
        with raises(DisconnectedInput, text):
            call(ys, x, disconnected_inputs="raise")
        with pytest.warns(UserWarning, match=x) as warned:
            call(ys, x, disconnected_inputs="warn")
        assert [warning.filename for warning in warned] == [__file__], "the line that asked is blamed"
        call(ys, x, disconnected_inputs="ignore")


def test_options_that_do_not_exist(traced):
    with raises(ValueError, "unconnected_gradients is 'zero' or 'none', not 'zeros'"):
        traced.gradients(unconnected_gradients="zeros")
    with raises(ValueError, "disconnected_inputs is 'raise' or 'warn' or 'ignore', not True"):
        traced.gradients(disconnected_inputs=True)


def test_one_cotangent_needs_no_list():
    g = graph.trace(lambda x: x * 2.0, X)
    same(both(g, (X,), 0, 0, Y), [2 * Y])
    same(both(graph.trace(lambda x: x * 2.0, 1.0), (1.0,), 0, 0, 3.0), [6.0])


def test_values_that_are_chosen_by_neither_index_nor_name(traced):
    for wrong in (traced.jaxpr.jaxpr.invars[0], [1.5], [None]):
        with raises(TypeError, "a value of program is chosen by its index or its name, not by "):
            traced.gradients(xs=wrong)
    with raises(TypeError, "known_grads must map values to their gradients, got list"):
        traced.gradients(known_grads=[1.0])


def test_functions_are_no_graphs():
    for call, name in ((graph.gradients, "gradients"), (graph.backprop, "backprop")):
        with raises(TypeError, f"{name} takes a Graph, got function: make one of a function by graph.trace"):
            call(program, (X, Y))
    with raises(TypeError, "trace expects a function as its first argument, got ndarray"):
        graph.trace(X)


def test_complex_values():
    z = np.array([1 + 2j, -0.5j], np.complex64)
    g = graph.trace(lambda z: jnp.sum(jnp.abs(checkpoint_name(z * z, "square"))), z)
    (found,) = both(g, (z,), 0, "square")
    same(found, jax.grad(lambda s: jnp.sum(jnp.abs(s)))(z * z))
