"""What users of Theano expect of a graph: its calls, and the texts of its errors, verbatim."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd.graph import symbolic as theano
from twograd.graph.symbolic import matrix, scalar, vector


@pytest.fixture(autouse=True)
def own_graph():
    with theano.Graph().as_default() as graph:
        yield graph


def says(error, text):
    return pytest.raises(error, match=re.escape(text))


# 1. function, shared


def test_compile_once_call_many_times():
    x, y = scalar("x"), scalar("y")
    f = theano.function([x, y], [x + y, x * y])
    assert [f(1, 2), f(3, 4)] == [[3, 2], [7, 12]]
    assert len(f.plan.signatures) == 1


def test_the_accumulator_of_the_tutorial():
    state, inc = theano.shared(0), theano.iscalar("inc")
    accumulator = theano.function([inc], state, updates=[(state, state + inc)])
    decrementor = theano.function([inc], state, updates=[(state, state - inc)])
    assert state.get_value() == 0
    assert accumulator(1) == 0
    assert accumulator(300) == 1
    assert state.get_value() == 301
    state.set_value(-1)
    assert accumulator(3) == -1
    assert decrementor(2) == 2
    assert state.get_value() == 0
    foo = theano.iscalar("foo")
    skip_shared = theano.function([inc, foo], state * 2 + inc, givens=[(state, foo)])
    assert skip_shared(1, 3) == 7
    assert state.get_value() == 0


def test_the_logistic_regression_of_the_tutorial():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((40, 7)).astype(np.float32)
    target = (data[:, 0] > 0).astype(np.float32)
    x, y = matrix("x"), vector("y")
    w, b = theano.shared(rng.standard_normal(7).astype(np.float32), name="w"), theano.shared(0.0, name="b")
    p_1 = 1 / (1 + tnp.exp(-tnp.dot(x, w) - b))
    prediction = p_1 > 0.5
    xent = -y * tnp.log(p_1) - (1 - y) * tnp.log(1 - p_1)
    cost = xent.mean() + 0.01 * (w**2).sum()
    gw, gb = theano.grad(cost, [w, b])
    train = theano.function(inputs=[x, y], outputs=[prediction, xent], updates=((w, w - 0.1 * gw), (b, b - 0.1 * gb)))
    predict = theano.function(inputs=[x], outputs=prediction)

    @jax.jit
    def step(w, b):
        def loss(w, b):
            p = 1 / (1 + jnp.exp(-data @ w - b))
            return jnp.mean(-target * jnp.log(p) - (1 - target) * jnp.log(1 - p)) + 0.01 * jnp.sum(w**2)

        gw, gb = jax.grad(loss, (0, 1))(w, b)
        return w - 0.1 * gw, b - 0.1 * gb

    expected = w.get_value(), b.get_value()
    for _ in range(100):
        train(data, target)
        expected = step(*expected)
    np.testing.assert_allclose(w.get_value(), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(b.get_value(), expected[1], rtol=1e-4, atol=1e-5)
    assert (np.asarray(predict(data)) == target).mean() > 0.9


def test_unused_and_missing_inputs():
    x, y = scalar("x"), scalar("y")
    text = (
        "theano.function was asked to create a function computing outputs given certain inputs, but the provided input "
        "variable at index 1 is not part of the computational graph needed to compute the outputs: "
    )
    with says(theano.UnusedInput, text):
        theano.function([x, y], x * 2)
    with pytest.warns(UserWarning, match=re.escape(text)):
        theano.function([x, y], x * 2, on_unused_input="warn")
    assert theano.function([x, y], x * 2, on_unused_input="ignore")(1.0, 2.0) == 2
    with says(ValueError, "Input 1 of the graph (indices start from 0), used to compute"):
        theano.function([x], x + y)
    with pytest.raises(theano.MissingInput, match="was not provided and not given a value"):
        theano.function([], [y])


# 2. grad


def test_consider_constant_and_known_grads():
    x = scalar("x")
    h = x**2
    y = h * x
    full, partial = theano.grad(y, x), theano.grad(y, x, consider_constant=[h])
    assert theano.function([x], [full, partial])(3.0) == [27, 9]
    known = theano.grad(None, x, known_grads={h: theano.constant(10.0)})
    assert theano.function([x], known)(3.0) == 60
    both = theano.grad(y, x, known_grads={h: theano.constant(10.0)})  # what is known is not computed
    assert theano.function([x], both)(3.0) == 69
    with says(ValueError, "cost and known_grads can't both be None."):
        theano.grad(None, x)


def test_disconnected_inputs():
    x, y = scalar("x"), scalar("y")
    cost = theano.identity(x * 2, "cost")
    text = (
        "grad method was asked to compute the gradient with respect to a variable that is not part of the "
        "computational graph of the cost, or is used only by a non-differentiable operator: "
    )
    with says(theano.DisconnectedInput, text + repr(y)):
        theano.grad(cost, y)
    with says(ValueError, text):
        theano.grad(tnp.argmax(tnp.stack([x, x])) * 1.0, x)
    with pytest.warns(UserWarning, match=re.escape(text)):
        theano.grad(cost, y, disconnected_inputs="warn")
    zero = theano.grad(cost, y, disconnected_inputs="ignore")
    assert theano.function([y], zero, on_unused_input="ignore")(1.0) == 0
    assert theano.grad(cost, y, disconnected_inputs="ignore", return_disconnected="None") is None
    assert theano.grad(cost, [y], disconnected_inputs="ignore", return_disconnected="disconnected") == [
        theano.DISCONNECTED
    ]
    for option in ("disconnected_inputs", "return_disconnected"):
        with pytest.raises(ValueError, match="valid"):
            theano.grad(cost, x, **{option: "perhaps"})


def test_names():
    x, w = scalar("x"), scalar("w")
    cost = theano.identity(x * w, "cost")
    dx, dw = theano.grad(cost, [x, w])
    assert (dx.op.name, dw.op.name) == ("(dcost/dx)", "(dcost/dw)")
    assert theano.grad(cost, x, add_names=False).op.name == "grad_1/multiply_grad"


# 3. texts


def test_cost_must_be_a_scalar():
    x = vector("x")
    with says(TypeError, "cost must be a scalar."):
        theano.grad(x * 2, x)
    with says(TypeError, "cost must be a scalar."):
        theano.hessian(x * 2, x)


def test_variables_do_not_support_boolean_operations():
    x = scalar("x")
    with says(TypeError, "Variables do not support boolean operations."):
        if x:
            pass
    with says(TypeError, "Variables do not support boolean operations."):
        0 < x < 1  # noqa: B015


# 6. Rop, Lop, jacobian, hessian; scan; ifelse and switch


def test_rop_lop_jacobian_and_hessian():
    w, v, x = matrix("W"), matrix("V"), vector("x")
    y = tnp.dot(x, w)
    jv = theano.function([w, v, x], theano.Rop(y, w, v))
    np.testing.assert_allclose(jv([[1, 1], [1, 1]], [[2, 2], [2, 2]], [0, 1]), [2, 2])
    u = vector("u")
    vj = theano.function([u, x, w], theano.Lop(y, w, u), on_unused_input="ignore")
    np.testing.assert_allclose(vj([2, 2], [0, 1], [[1, 1], [1, 1]]), [[0, 0], [2, 2]])
    z = x**2
    np.testing.assert_allclose(theano.function([x], theano.jacobian(z, x))([4, 4]), [[8, 0], [0, 8]])
    np.testing.assert_allclose(theano.function([x], theano.hessian(z.sum(), x))([4, 4]), [[2, 0], [0, 2]])


def test_ifelse_is_lazy_and_switch_is_not():
    ran = []

    def loud(name):
        def f(x):
            jax.debug.callback(lambda: ran.append(name))
            return x * 1.0

        return lambda x: theano.apply(f, x)

    a, b = scalar("a"), scalar("b")
    lazy = theano.function([a, b], theano.ifelse(a < b, loud("then")(a), loud("else")(b)))
    both = theano.function([a, b], theano.switch(a < b, loud("left")(a), loud("right")(b)))
    assert lazy(1.0, 2.0) == both(1.0, 2.0) == 1
    jax.effects_barrier()
    assert sorted(ran) == ["left", "right", "then"]


def test_the_scan_examples_of_the_tutorial():
    x, w, b = matrix("X"), matrix("W"), vector("b")
    results, updates = theano.scan(lambda v: tnp.tanh(tnp.dot(v, w) + b), sequences=x)
    rows, weights, bias = np.eye(2, dtype=np.float32), np.ones((2, 2), np.float32), np.array([0.5, 0.5], np.float32)
    elements = theano.function([x, w, b], results, updates=updates)
    np.testing.assert_allclose(elements(rows, weights, bias), np.tanh(rows @ weights + bias), rtol=1e-6)

    k = theano.shared(0, name="k")
    values, updates = theano.scan(lambda: {k: k + 1}, n_steps=5)
    assert values is None
    theano.function([], [], updates=updates)()
    assert k.get_value() == 5


# 7. debugprint


def test_debugprint_shows_ids_and_no_shared_node_twice():
    x = scalar("x")
    h = tnp.exp(x)
    assert theano.debugprint(h * h) == (
        "multiply [id A] 'multiply' float32[]\n"
        " |exp [id B] 'exp' float32[]\n"
        " | |placeholder [id C] 'x' float32[]\n"
        " |exp [id B] 'exp' float32[]\n"
        " | |..."
    )
    assert theano.pp(x**2 + h) == "((x ** 2) + exp(x))"
