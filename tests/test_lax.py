"""twograd.lax, and what all namespaces share: their contents, and what is passed on unwrapped."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import twograd.lax as tlax
import twograd.numpy as tnp
from twograd._namespace import is_function_of_arrays

PAIRS = [(tlax, lax), (tlax.linalg, lax.linalg), (tnp, jnp), (tnp.linalg, jnp.linalg), (tnp.fft, jnp.fft)]
every_namespace = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.__name__ for ours, _ in PAIRS])


@every_namespace
def test_all_public_names_are_there(ours, theirs):
    names = [name for name in dir(theirs) if not name.startswith("_")]
    assert dir(ours) == ours.__all__ == names
    assert all(hasattr(ours, name) for name in names)
    assert all(name in vars(ours) for name in names), "what was looked up is kept"


@every_namespace
def test_functions_are_wrapped_and_nothing_else(ours, theirs):
    for name in dir(theirs):
        value = getattr(theirs, name)
        if name.startswith("_") or name in ("linalg", "fft"):
            continue
        if is_function_of_arrays(value):
            assert getattr(ours, name) is not value, name
            assert getattr(ours, name).__wrapped__ is value, name
        else:
            assert getattr(ours, name) is value, name


@every_namespace
def test_what_is_no_name_is_an_attribute_error(ours, theirs):
    for name in ("no_such_function", "_private"):
        with pytest.raises(AttributeError, match=rf"module '{ours.__name__}' has no attribute '{name}'"):
            getattr(ours, name)


def test_constants_classes_and_primitives_are_passed_on():
    assert tnp.pi is jnp.pi
    assert tnp.newaxis is None
    assert tnp.float32 is jnp.float32
    assert tnp.ndarray is jax.Array
    assert tnp.finfo is jnp.finfo
    assert tlax.add_p is lax.add_p
    assert tlax.Precision is lax.Precision
    assert tlax.GatherDimensionNumbers is lax.GatherDimensionNumbers


def test_a_star_import_brings_every_name():
    names: dict = {}
    exec("from twograd.lax import *", names)
    assert set(names) >= set(tlax.__all__)


def test_nothing_is_wrapped_before_it_is_used():
    code = "import twograd.numpy as n; assert 'sin' not in vars(n); n.sin; assert 'sin' in vars(n)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_give_what_lax_gives():
    x, w = jnp.arange(6.0).reshape(2, 3), jnp.ones((3, 2))
    np.testing.assert_array_equal(tlax.dot(x, w), lax.dot(x, w))
    np.testing.assert_array_equal(tlax.cumsum(x, axis=1), lax.cumsum(x, axis=1))
    np.testing.assert_array_equal(tlax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), jnp.cos(x))
    carry, rows = tlax.scan(lambda c, row: (c + row, c), jnp.zeros(3), x)
    np.testing.assert_array_equal(carry, x.sum(0))
    np.testing.assert_array_equal(rows, [[0, 0, 0], [0, 1, 2]])


TENSOR_CALLS = {
    "sin": lambda lax, x, y: lax.sin(x),
    "dot_general": lambda lax, x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))),
    "reduce_sum": lambda lax, x, y: lax.reduce_sum(x, (0,)),
    "reduce_max": lambda lax, x, y: lax.reduce_max(x, (1,)),
    "select": lambda lax, x, y: lax.select(np.array([[True, False, True]] * 2), x, y),
    "concatenate": lambda lax, x, y: lax.concatenate([x, y], 0),
    "dynamic_slice": lambda lax, x, y: lax.dynamic_slice(x, (0, 1), (2, 2)),
    "cumprod": lambda lax, x, y: lax.cumprod(x, axis=1),
    "clamp": lambda lax, x, y: lax.clamp(-0.5, x, 0.5),
    "conv": lambda lax, x, y: lax.conv(lax.expand_dims(x, (0, 1)), lax.expand_dims(y, (0, 1)), (1, 1), "SAME"),
    "erf": lambda lax, x, y: lax.erf(x),
    "stop_gradient": lambda lax, x, y: lax.mul(lax.stop_gradient(x), y),
    "reduce_precision": lambda lax, x, y: lax.reduce_precision(x, 11, 52),
    "top_k": lambda lax, x, y: lax.top_k(x, 2)[0],
}


@pytest.mark.parametrize("name", TENSOR_CALLS)
def test_tensors_give_the_values_and_gradients_of_jax(name):
    tape = pytest.importorskip("twograd.tape")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        operands = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
        tensors = [tape.tensor(operand, requires_grad=True) for operand in operands]
        out = TENSOR_CALLS[name](tlax, *tensors)
        expected, pullback = jax.vjp(lambda *xs: TENSOR_CALLS[name](lax, *xs), *map(jnp.asarray, operands))
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12)
        ct = rng.standard_normal(expected.shape)
        out.backward(tape.tensor(ct))
        for tensor, gradient in zip(tensors, pullback(jnp.asarray(ct)), strict=True):
            found = 0.0 if tensor.grad is None else tensor.grad.numpy()
            np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-12)
