"""What makes Tensors: shapes, dtypes, values, and reproducible random numbers."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises, same

from tape.both import both
from twograd import tape


@both
def test_shapes_and_values(m):
    assert m.zeros(2, 3).tolist() == m.zeros((2, 3)).tolist() == [[0.0] * 3] * 2
    assert m.ones([2]).tolist() == [1.0, 1.0]
    assert m.zeros(()).tolist() == 0.0
    assert tuple(m.empty(2, 0).shape) == (2, 0)
    assert m.full((2,), 7).tolist() == [7, 7]
    assert m.eye(2, 3).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert m.arange(3).tolist() == [0, 1, 2]
    assert m.arange(1, 4, 2).tolist() == [1, 3]
    assert m.arange(0.0, 1.0, 0.5).tolist() == [0.0, 0.5]
    assert m.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
    x = m.tensor([1.0, 2.0])
    assert m.zeros_like(x).tolist() == [0.0, 0.0]
    assert m.ones_like(x).tolist() == [1.0, 1.0]
    assert m.full_like(x, 3).tolist() == [3.0, 3.0]
    assert m.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert m.tensor(True).tolist() is True
    assert m.tensor([m.tensor(1.0), m.tensor(2.0)]).tolist() == [1.0, 2.0]


@both
def test_requires_grad(m):
    for make in (m.zeros, m.ones, m.randn, m.rand, m.empty):
        assert make(2, requires_grad=True).requires_grad
        assert not make(2).requires_grad
    for x in (
        m.full((2,), 1.0, requires_grad=True),
        m.eye(2, requires_grad=True),
        m.linspace(0, 1, 2, requires_grad=True),
    ):
        assert x.requires_grad
        assert x.is_leaf
    assert m.arange(2.0, requires_grad=True).requires_grad
    with raises(RuntimeError, "Only Tensors of floating point and complex dtype can require gradients"):
        m.arange(2, requires_grad=True)


def test_dtypes():
    assert tape.zeros(2).dtype == tape.tensor(1.0).dtype == tape.randn(1).dtype == np.float32
    assert tape.tensor(1).dtype == tape.arange(2).dtype == tape.randint(3, (2,)).dtype == np.int32
    assert tape.zeros(2, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    assert tape.tensor([1], dtype=np.float32).dtype == np.float32
    assert tape.ones_like(tape.tensor([1]), dtype=np.float32).dtype == np.float32
    with jax.enable_x64(True):
        assert tape.zeros(2).dtype == tape.randn(1).dtype == np.float64
        assert tape.tensor(1).dtype == np.int64


def test_no_weak_types():
    for x in (
        tape.tensor(1.0),
        tape.full((), 1.0),
        tape.zeros(2),
        tape.full_like(tape.tensor(1.0), 2.0),
        tape.arange(2.0),
    ):
        assert not x.array.weak_type


def test_tensor_of_a_tensor_has_no_history():
    x = tape.ones(2, requires_grad=True)
    assert tape.tensor((x * 2).detach()).is_leaf
    assert not tape.tensor(x * 2).requires_grad


def test_as_tensor():
    x = tape.ones(2, requires_grad=True)
    assert tape.as_tensor(x) is x
    assert tape.as_tensor(x, dtype=x.dtype) is x
    assert tape.as_tensor(x, dtype=jnp.bfloat16).grad_fn is not None
    same(tape.as_tensor([1, 2]).array, jnp.array([1, 2]))


@both
def test_random_numbers(m):
    m.manual_seed(3)
    first = [
        m.randn(100).tolist(),
        m.rand((50, 2)).tolist(),
        m.randint(2, 5, (100,)).tolist(),
        m.randint(4, (9,)).tolist(),
    ]
    m.manual_seed(3)
    again = [
        m.randn(100).tolist(),
        m.rand((50, 2)).tolist(),
        m.randint(2, 5, (100,)).tolist(),
        m.randint(4, (9,)).tolist(),
    ]
    assert first == again
    assert m.randn(100).tolist() != first[0]
    assert abs(np.mean(first[0])) < 0.5
    assert 0.7 < np.std(first[0]) < 1.3
    assert 0 <= np.min(first[1]) < np.max(first[1]) < 1
    assert set(first[2]) == {2, 3, 4}
    assert set(first[3]) <= {0, 1, 2, 3}
    x = m.zeros(3)
    assert m.randn_like(x).shape == m.rand_like(x).shape == x.shape


def test_seed_is_the_threads_own():
    tape.manual_seed(1)
    expected = tape.randn(2).tolist()
    tape.manual_seed(1)
    other = threading.Thread(target=lambda: (tape.manual_seed(2), tape.randn(5)))
    other.start()
    other.join()
    assert tape.randn(2).tolist() == expected


def test_errors():
    with raises(RuntimeError, "zeros: Dimension size must be non-negative."):
        tape.zeros(-1)
    with raises(RuntimeError, "Could not infer dtype of object"):
        tape.tensor(object())
    with pytest.warns(UserWarning, match="float64"):
        tape.tensor([1.0], dtype=np.float64)
