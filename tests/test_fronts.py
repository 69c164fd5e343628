"""A layer's kernel: what its derivative reads, and where, and what it is asked for."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd.fronts.kernel import copies, kernel_of, numbers
from twograd.nn import functional as F

X, W = np.array([[0.5, -1.0]], np.float32), np.array([[2.0, 1.0], [0.5, 3.0]], np.float32)


def made(function, *args, wanted=lambda _: True, **options):
    return kernel_of(function, options, args, wanted)


def test_the_rules_say_what_a_derivative_reads():
    """Positions among the operands, then the results, then what is neither."""
    assert made(F.tanh, X).reads == (1,)
    assert made(F.linear, X, W).reads == (0, 1)
    assert made(F.linear, X, W, wanted=lambda i: i == 0).reads == (1,)
    assert made(F.relu, X).reads == (2,)  # a mask
    results, own = made(F.relu, X).run([X])
    np.testing.assert_array_equal(results[0], [[0.5, 0]])
    assert [value.dtype for value in own] == [bool]


def test_it_reads_where_it_stands_now():
    kernel, ct = made(jnp.square, X), [np.ones_like(X)]
    x = X.copy()
    kernel.run([x])
    np.testing.assert_allclose(kernel.cotangents(kernel.read([x], [], []), ct)[0], 2 * X)
    x += 1
    np.testing.assert_allclose(kernel.cotangents(kernel.read([x], [], []), ct)[0], 2 * (X + 1))


def test_nothing_is_found_for_operands_that_are_not_asked_for():
    kernel = made(F.linear, X, W)
    read, ct = kernel.read([X, W], [X @ W.T], []), np.array([[1.0, 2.0]], np.float32)
    dx, dw = kernel.cotangents(read, [ct])
    np.testing.assert_allclose(dx, ct @ W)
    np.testing.assert_allclose(dw, ct.T @ X)
    assert kernel.cotangents(read, [ct], (True, False))[1] is None
    assert made(F.linear, X, W, wanted=lambda i: i == 1).cotangents([X], [ct])[0] is None
    assert made(F.cross_entropy, X, np.array([1])).wanted == (True, False)


def test_it_is_made_once_and_shared():
    assert made(F.tanh, X) is made(F.tanh, X + 1)
    assert made(F.tanh, X) is not made(F.tanh, np.zeros(3, np.float32))
    assert copy.deepcopy(made(F.tanh, X)) is made(F.tanh, X)
    assert made(copies, X, count=2) is not made(copies, X, count=3)


def test_copies_add_up():
    kernel = made(copies, X, count=3)
    (ct,) = kernel.cotangents([], [X, 2 * X, 4 * X])
    np.testing.assert_array_equal(ct, 7 * X)


def test_what_cannot_be_computed_is_said():
    with pytest.raises(TypeError, match="a layer was given float64, and JAX computes in 32 bits"):
        made(F.tanh, np.zeros(2))
    with jax.enable_x64(True):
        assert made(F.tanh, np.zeros(2)).run([np.zeros(2)])[0][0].dtype == np.float64
    with pytest.raises(TypeError, match=r"a traced array \(float32\[\]\), and its buffers hold numbers"):
        jax.jit(numbers)(np.float32(1))
