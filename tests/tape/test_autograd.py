"""backward and grad: what they accept, return and raise, beside PyTorch's."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises

from tape.both import both
from twograd import tape
from twograd.errors import FREED

FREED_TEXT = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


@both
def test_accumulation(m):
    x = leaf(m, 1.0, 2.0)
    for times in (1.0, 2.0, 3.0):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0 * times, 4.0 * times]
    before = x.grad
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert before.tolist() == [6.0, 12.0]


@both
def test_micro_batches_sum_to_the_full_batch(m):
    data = m.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    w, v = leaf(m, 0.5, -0.25), leaf(m, 0.5, -0.25)
    (data @ w).square().mean().backward()
    for batch in (data[:2], data[2:]):
        ((batch @ v).square().mean() / 2).backward()
    np.testing.assert_allclose(v.grad.numpy(), w.grad.numpy(), rtol=1e-6)


@both
def test_a_second_walk_over_saved_values(m):
    x = leaf(m, 1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with raises(RuntimeError, FREED_TEXT):
        y.backward()
    assert x.grad.tolist() == [2.0, 4.0]
    with raises(RuntimeError, FREED_TEXT):
        m.autograd.grad(y, x)
    with raises(RuntimeError, FREED_TEXT):
        m.autograd.grad(y, x, create_graph=True)


def test_the_text_is_one():
    assert FREED == FREED_TEXT


@both
def test_ops_that_saved_nothing_may_be_walked_again(m):
    x = leaf(m, 1.0, 2.0)
    y = (-x + 1 - x.t()).reshape(1, 2).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [-4.0, -4.0]


@both
def test_shared_part_is_freed(m):
    x = leaf(m, 1.0, 2.0)
    shared = x.exp()
    first, second = shared.sum(), (shared * 2).sum()
    first.backward()
    with raises(RuntimeError, FREED_TEXT):
        second.backward()


@both
def test_retain_graph(m):
    x = leaf(m, 1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    (g,) = m.autograd.grad(y, x, retain_graph=True)
    assert g.tolist() == [2.0, 4.0]
    y.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with raises(RuntimeError, FREED_TEXT):
        y.backward()


@both
def test_create_graph_to_order_5(m):
    x = leaf(m, 0.5, 2.0)
    y = x**6 + x.exp()
    power, factor = 6, 1.0
    for _ in range(5):
        (y,) = m.autograd.grad(y.sum(), x, create_graph=True)
        factor, power = factor * power, power - 1
        expected = factor * np.array([0.5, 2.0]) ** power + np.exp([0.5, 2.0])
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5)
    assert y.requires_grad


@both
def test_create_graph_implies_retain_graph(m):
    x = leaf(m, 3.0)
    y = x**3
    m.autograd.grad(y, x, create_graph=True)
    (g,) = m.autograd.grad(y, x)
    assert not g.requires_grad
    with raises(RuntimeError, FREED_TEXT):
        m.autograd.grad(y, x)
    z = x**3
    m.autograd.grad(z, x, retain_graph=False, create_graph=True)
    with raises(RuntimeError, FREED_TEXT):
        m.autograd.grad(z, x)


@both
def test_gradient_penalty(m):
    x, w = leaf(m, 1.0, 2.0), leaf(m, 3.0, -1.0)
    (g,) = m.autograd.grad((w * x * x).sum(), x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * np.array([3.0, -1.0]) * 4 * np.array([1.0, 4.0]), rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 8 * np.array([9.0, 1.0]) * np.array([1.0, 2.0]), rtol=1e-6)


@both
def test_backward_with_create_graph_warns_of_a_cycle(m, request):
    if hasattr(m, "set_warn_always"):  # PyTorch says it once per process, and another test may have heard it
        request.addfinalizer(functools.partial(m.set_warn_always, m.is_warn_always_enabled()))
        m.set_warn_always(True)
    x = leaf(m, 2.0)
    with pytest.warns(UserWarning, match="will create a reference cycle between the parameter and its gradient"):
        (x**3).backward(create_graph=True)
    assert x.grad.requires_grad
    (g,) = m.autograd.grad(x.grad, x)
    assert g.tolist() == [12.0]
    x.grad = None


@both
def test_roots(m):
    x = leaf(m, 1.0, 2.0)
    with raises(RuntimeError, "grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with raises(RuntimeError, "element 0 of tensors does not require grad and does not have a grad_fn"):
        m.ones(()).backward()
    with raises(RuntimeError, "element 1 of tensors does not require grad and does not have a grad_fn"):
        m.autograd.backward([x.sum(), m.ones(())])
    with raises(RuntimeError, "element 0 of tensors does not require grad and does not have a grad_fn"):
        m.autograd.grad(m.ones(()), x)
    with raises(RuntimeError, "Mismatch in shape: grad_output[0] has a shape of "):
        (x * 2).backward(m.ones(3))
    with raises(RuntimeError, "grad can be implicitly created only for real scalar outputs but got"):
        (x * 1j).sum().backward()
    with raises(RuntimeError, "For complex Tensors, both grad_output and output are required to have the same dtype"):
        (x * 2).backward(m.ones(2) * 1j)
    with raises(TypeError, "gradients can be either Tensors or None, but got float"):
        m.autograd.backward([x.sum()], [2.0])
    m.autograd.backward([])
    (x[:1] * 3).backward()  # one element is as good as a scalar
    assert x.grad.tolist() == [3.0, 0.0]


def test_more_gradients_than_roots():
    x = leaf(tape, 1.0)
    with raises(RuntimeError, "got 1 tensors and 2 gradients"):
        tape.autograd.backward([x], [None, None])
    with raises(TypeError, "element 0 of tensors is a float, not a Tensor"):
        tape.autograd.backward([1.0])


@both
def test_cotangents(m):
    x = leaf(m, 1.0, 2.0)
    (x * x).backward(m.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 40.0]
    (g,) = m.autograd.grad(x * x, x, m.tensor([1, 2]))  # converted to the output's dtype
    assert g.tolist() == [2.0, 8.0]
    v = leaf(m, 3.0, 4.0)
    (g,) = m.autograd.grad(x * x, x, v, create_graph=True)
    assert m.autograd.grad(g.sum(), v)[0].tolist() == [2.0, 4.0]


@both
def test_several_outputs(m):
    x, y = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)
    gx, gy = m.autograd.grad([(x * y).sum(), x * 2, y], [x, y], [None, m.tensor([1.0, 0.0]), m.tensor([5.0, 5.0])])
    assert gx.tolist() == [5.0, 4.0]
    assert gy.tolist() == [6.0, 7.0]
    assert x.grad is None
    assert y.grad is None
    same_root = (x * y).sum()
    m.autograd.backward([same_root, same_root])
    assert x.grad.tolist() == [6.0, 8.0]


@both
def test_inputs_in_any_number(m):
    x, y = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)
    for inputs in (x, [x], (x,)):
        (g,) = m.autograd.grad((x * y).sum(), inputs)
        assert g.tolist() == [3.0, 4.0]
    a, b = m.autograd.grad((x * y).sum(), [x, x])
    assert a.tolist() == b.tolist() == [3.0, 4.0]
    (g,) = m.autograd.grad(x, x, m.tensor([7.0, 8.0]))  # an output that is an input
    assert g.tolist() == [7.0, 8.0]
    h = x * 2
    gh, gx = m.autograd.grad(h * h, [h, x], m.ones(2))
    assert (gh.tolist(), gx.tolist()) == ([4.0, 8.0], [8.0, 16.0])
    with raises(RuntimeError, "`inputs` argument to `grad()` cannot be empty."):
        m.autograd.grad(x.sum(), [])


@both
def test_unused_inputs(m):
    x, y = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)
    text = "appears to not have been used in the graph. Set allow_unused=True if this is the desired behavior."
    with raises(RuntimeError, text):
        m.autograd.grad((x * 2).sum(), [x, y])
    gx, gy = m.autograd.grad((x * 2).sum(), [x, y], allow_unused=True)
    assert (gx.tolist(), gy) == ([2.0, 2.0], None)
    gx, gy = m.autograd.grad((x * 2).sum(), [x, y], materialize_grads=True)
    assert (gx.tolist(), gy.tolist()) == ([2.0, 2.0], [0.0, 0.0])
    with raises(ValueError, "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "):
        m.autograd.grad((x * 2).sum(), [x, y], materialize_grads=True, allow_unused=False)
    with raises(RuntimeError, "One of the differentiated Tensors does not require grad"):
        m.autograd.grad((x * 2).sum(), m.ones(2))


@both
def test_used_with_a_zero_derivative_is_used(m):
    x = leaf(m, 1.5, -2.0)
    (g,) = m.autograd.grad((x.sign() + x.floor() + x**0).sum(), x)
    assert g.tolist() == [0.0, 0.0]
    x.sign().sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


@both
def test_backward_for_some_inputs(m):
    x, y = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)
    h = x * y
    loss = (h * h).sum()
    loss.backward(inputs=[x], retain_graph=True)
    assert x.grad.tolist() == [18.0, 64.0]
    assert y.grad is None
    loss.backward(inputs=(h, y, y), retain_graph=True)
    assert h.grad.tolist() == [6.0, 16.0]
    assert y.grad.tolist() == [6.0, 32.0]
    loss.backward(inputs=h)
    assert h.grad.tolist() == [12.0, 32.0]
    assert x.grad.tolist() == [18.0, 64.0]
    with raises(RuntimeError, "`inputs` argument to `backward()` cannot be empty."):
        loss.backward(inputs=[])
    with raises(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False"):
        (x * 2).sum().backward(inputs=[m.ones(2)])


@both
def test_retained_gradients_accumulate(m):
    x = leaf(m, 1.0, 2.0)
    h = x * 3
    h.retain_grad()
    h.retain_grad()
    y = (h * h).sum()
    y.backward(retain_graph=True)
    assert h.grad.tolist() == [6.0, 12.0]
    m.autograd.grad(y, x, retain_graph=True)
    y.backward()
    assert h.grad.tolist() == [18.0, 36.0]


@both
def test_what_lies_behind_the_inputs_is_kept(m):
    x = leaf(m, 1.0, 2.0)
    h = x.sin()
    (gh,) = m.autograd.grad(h.sin().sum(), h)
    (gx,) = m.autograd.grad(h, x, gh)
    expected = np.cos(np.sin([1.0, 2.0])) * np.cos([1.0, 2.0])
    np.testing.assert_allclose(gx.numpy(), expected, rtol=1e-5)


@both
def test_only_what_leads_to_the_inputs_is_walked(m):
    x, y = leaf(m, 1.0), leaf(m, 2.0)
    a, b = x.exp(), y.exp()
    (a * b).backward(inputs=[x])
    (g,) = m.autograd.grad(b, y)  # the branch of y was not walked, so it is not freed
    np.testing.assert_allclose(g.numpy(), np.exp([2.0]), rtol=1e-6)
    with raises(RuntimeError, FREED_TEXT):
        m.autograd.grad(a, x)


@both
def test_zero_grad_is_not_needed_without_accumulation(m):
    x = leaf(m, 1.0)
    for _ in range(2):
        assert m.autograd.grad(x * x, x)[0].tolist() == [2.0]
    assert x.grad is None


def test_complex_gradients_are_jaxs():
    z = leaf(tape, 1 + 2j, 0.5 - 1j)
    (z * z).abs().sum().backward()
    expected = jax.grad(lambda z: jnp.abs(z * z).sum())(z.array)
    np.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-6)
    torch = pytest.importorskip("torch")
    w = torch.tensor([1 + 2j, 0.5 - 1j], requires_grad=True)
    (w * w).abs().sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), w.grad.numpy().conj(), rtol=1e-6)


def test_no_warning_without_a_reason():
    x = leaf(tape, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (x * x).backward()
        assert x.grad is not None
