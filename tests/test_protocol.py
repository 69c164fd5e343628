"""The protocol: a class with ``__twograd_function__`` is handed every call that it takes part in; arrays never are."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.lax as tlax
import twograd.numpy as tnp
from twograd._protocol import front_end
from twograd.nn import functional as F


class Logged:
    """Answers a call with what it was handed."""

    @staticmethod
    def __twograd_function__(function, args, kwargs):
        return function, args, kwargs


x = Logged()


@front_end
def add(a, b, *, scale=1):
    """a + scale b"""
    return a + scale * b


def test_arrays_and_tracers_go_straight_through():
    assert add(1, 2) == 3
    assert add(1, b=2, scale=3) == 7
    np.testing.assert_array_equal(add(np.ones(2), jnp.ones(2)), [2, 2])
    assert jax.jit(add)(1, 2) == 3
    assert jax.grad(add)(1.0, 2.0) == 1
    assert jax.vmap(add)(jnp.arange(3), jnp.arange(3)).tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((x, 1), {}),
        ((1, x), {}),
        ((1,), {"b": x}),
        ((1, 2), {"scale": x}),
        (([x, 1], 2), {}),
        ((1, (2, [3, x])), {}),
        ((1, {"key": x}), {}),
        ((1,), {"b": [x]}),
    ],
    ids=["first", "second", "keyword", "keyword-only", "in a list", "nested", "in a dict", "in a list by keyword"],
)
def test_a_call_is_handed_on(args, kwargs):
    function, *handed = add(*args, **kwargs)
    assert function is add.__wrapped__
    assert handed == [args, kwargs]


def test_the_first_operand_that_asks_is_asked():
    class Other:
        @staticmethod
        def __twograd_function__(function, args, kwargs):
            return "other"

    assert add(Other(), x) == "other"
    assert add([Other()], x) == "other"
    assert add(x, Other()) != "other"


def test_a_wrapped_function_keeps_its_name_text_and_signature():
    assert (add.__name__, add.__doc__) == ("add", "a + scale b")
    assert str(inspect.signature(add)) == "(a, b, *, scale=1)"
    for ours, theirs in ((tnp.where, jnp.where), (tnp.sin, jnp.sin), (tnp.add, jnp.add), (tlax.scan, jax.lax.scan)):
        assert ours.__name__ == theirs.__name__
        assert ours.__doc__ == theirs.__doc__
        assert inspect.signature(ours) == inspect.signature(theirs)


@pytest.mark.parametrize(
    ("call", "function"),
    [
        (lambda: tnp.sin(x), jnp.sin),
        (lambda: tnp.add(1.0, x), jnp.add),
        (lambda: tnp.concatenate([np.ones(2), x]), jnp.concatenate),
        (lambda: tnp.einsum("ij,jk", np.ones((2, 2)), x), jnp.einsum),
        (lambda: tnp.where(x, 1, 2), jnp.where),
        (lambda: tnp.apply_along_axis(jnp.sum, 0, x), jnp.apply_along_axis),
        (lambda: tnp.linalg.norm(x), jnp.linalg.norm),
        (lambda: tnp.fft.fft(x), jnp.fft.fft),
        (lambda: tnp.add.reduce(x), jnp.add.reduce),
        (lambda: tnp.multiply.outer(np.ones(2), x), jnp.multiply.outer),
        (lambda: tlax.cond(True, jnp.sin, jnp.cos, x), jax.lax.cond),
        (lambda: tlax.scan(lambda c, a: (c, a), 0.0, x), jax.lax.scan),
        (lambda: tlax.linalg.cholesky(x), jax.lax.linalg.cholesky),
        (lambda: F.relu(x), F.relu.__wrapped__),
        (lambda: F.cross_entropy(np.ones(3), x, reduction="sum"), F.cross_entropy.__wrapped__),
        (lambda: F.dropout(np.ones(3), key=x), F.dropout.__wrapped__),
    ],
)
def test_every_front_end_hands_on(call, function):
    assert call()[0] == function


def test_functions_that_are_made_hand_on():
    double = tnp.vectorize(lambda a: 2 * a)
    np.testing.assert_array_equal(double(jnp.arange(3)), [0, 2, 4])
    assert double(x)[1] == (x,)
    plus = tnp.frompyfunc(lambda a, b: a + b, 2, 1, identity=0)
    assert plus(1, 2) == 3
    assert plus.reduce(jnp.arange(4)) == 6
    assert plus(x, 2)[1] == (x, 2)


def test_universal_functions_keep_their_methods():
    a = jnp.arange(4.0)
    np.testing.assert_array_equal(tnp.add.reduce(a), 6)
    np.testing.assert_array_equal(tnp.add.accumulate(a), [0, 1, 3, 6])
    np.testing.assert_array_equal(tnp.multiply.outer(a, a), jnp.outer(a, a))
    np.testing.assert_array_equal(tnp.add.at(a, np.array([0, 0]), 1.0, inplace=False), [2, 1, 2, 3])
    np.testing.assert_array_equal(tnp.add.reduceat(a, np.array([0, 2])), [1, 5])
    for name in ("nin", "nout", "nargs", "identity"):
        assert getattr(tnp.add, name) == getattr(jnp.add, name)


@pytest.mark.parametrize("function", [tnp.sin, tnp.add, tnp.vectorize, tnp.linalg.norm, tlax.scan, F.conv2d])
def test_functions_can_be_pickled(function):
    assert pickle.loads(pickle.dumps(function)) is function
