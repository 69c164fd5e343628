"""Ops that are put off: what is known before they are done, who has them done, and that nothing is lost."""

import threading

import jax
import numpy as np
import pytest

from twograd import tape
from twograd.tape import deferred
from twograd.tape.deferred import Pending
from twograd.tape.modes import mode


@pytest.fixture(autouse=True)
def _forgotten():
    tape.compiled_backward.clear()
    yield
    tape.compiled_backward.clear()


@pytest.fixture
def x():
    """A leaf, in a thread that puts ops off and whose plans are made."""
    x = tape.tensor(np.arange(6, dtype=np.float32).reshape(2, 3) / 6, requires_grad=True)
    (x.sin() * x + x).sort()[0].sum().backward()
    x.grad = None
    with tape.no_grad():
        x.exp().mul_(2).sub_(x)
        tape.zeros(2, 3).mul_(0.9).add_(x)
    with tape.compiled_backward(1, forward=True):
        yield x


def put_off():
    return mode.program.count


def test_what_is_known_of_a_result_before_it_is_computed(x):
    y = x.sin()
    assert (y.shape, y.dtype, y.ndim, y.requires_grad, y.is_leaf, y._version) == ((2, 3), np.float32, 2, True, False, 0)
    assert type(y.grad_fn).__name__ == y.grad_fn.name() == "SinBackward0"
    assert y.grad_fn.next_functions[0][0].variable is x
    assert (type(y), put_off()) == (Pending, 1)
    assert y.grad_fn._saved_self is not None  # this is looked at
    np.testing.assert_allclose(y.tolist(), np.sin(x.detach().numpy()), rtol=1e-6)
    assert (type(y), type(y.grad_fn).__name__, put_off()) == (tape.Tensor, "SinBackward0", 0)


def test_an_error_of_shapes_comes_where_the_op_is_called(x):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        x.sin() @ x


def test_what_nobody_refers_to_is_not_computed(x):
    y = x.sin()
    z = y * x
    w = z + x
    results = mode.program.results
    del z
    w.tolist()
    computed = [value.array is not None for value in results]
    assert computed == [True, False, True]  # y has a name, and is saved by a node; z has and is neither
    assert y.tolist() == [[pytest.approx(np.sin(v)) for v in row] for row in x.tolist()]


def test_the_whole_step_is_one_call(x):
    def step():
        (x.sin() * x + x).sort()[0].sum().backward()

    step()
    assert tape.compiled_backward.stats().compiles == 1
    assert not deferred.structures  # no op ran but inside of that call
    expected = np.cos(x.detach().numpy()) * x.detach().numpy() + np.sin(x.detach().numpy()) + 1
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5)
    loss = (x.sin() * x + x).sort()[0].sum()
    loss.backward()
    assert tape.compiled_backward.stats().compiles == 2  # the loss is wanted, and .grad is there already
    assert loss.item() == pytest.approx(float((np.sin(x.tolist()) * x.tolist() + x.tolist()).sum()), rel=1e-5)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_what_a_kept_graph_saved_is_computed(x):
    y = (x.sin() * x + x).sort()[0].sum()
    y.backward(retain_graph=True)
    first = x.grad
    x.grad = None
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), first.numpy(), rtol=1e-6)
    a = x.sin()
    b = (a * x + x).sort()[0].sum()
    (g,) = tape.autograd.grad(b, a)  # what leads to a keeps what it saved
    np.testing.assert_allclose(g.numpy(), x.detach().numpy())
    (g,) = tape.autograd.grad(a, x, tape.ones(2, 3))
    np.testing.assert_allclose(g.numpy(), np.cos(x.detach().numpy()), rtol=1e-6)


def test_changes_in_place(x):
    with tape.no_grad():
        y = x.exp()
        other = y.detach()  # now somebody shares it
        y.mul_(2).sub_(x)
    assert (y._version, other._version) == (2, 2)
    np.testing.assert_allclose(other.numpy(), 2 * np.exp(x.detach().numpy()) - x.detach().numpy(), rtol=1e-6)
    w = tape.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    with tape.no_grad():
        for _ in range(3):
            w.mul_(2).sub_(x)
    assert w._version == 6
    z = w.sin()
    with tape.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
    view = w.T
    with tape.no_grad():
        w.mul_(0)
    assert view.tolist() == [[0, 0], [0, 0], [0, 0]]


def test_views_are_put_off_too_and_see_changes(x):
    x.sin().reshape(3, 2).T.split(1)
    y = x.sin()
    v = y.reshape(3, 2).T
    a, b = v.split(1)
    assert [type(t) for t in (y, v, a, b)] == [Pending] * 4
    assert a.grad_fn is b.grad_fn
    with tape.no_grad():
        y.mul_(3)
    expected = 3 * np.sin(x.detach().numpy()).reshape(3, 2).T
    for shown, values in ((v, expected), (a, expected[:1]), (b, expected[1:])):
        np.testing.assert_allclose(shown.detach().numpy(), values, rtol=1e-6)
        assert shown._version == y._version == 1


def test_what_a_view_showed_and_a_node_saved_is_known_after_the_view_is_gone(x):
    y = x.exp()
    kept = y.reshape(3, 2).sin()
    with tape.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.sum().backward()


def test_a_buffer_changed_twice_is_not_looked_at(x):
    buffer = tape.zeros(2, 3)
    with tape.no_grad():
        for _ in range(2):
            before = mode.program.count
            buffer.mul_(0.9).add_(x).mul_(2)
            assert mode.program.count == before + 3
    a = x.detach().numpy()
    np.testing.assert_allclose(buffer.numpy(), 2 * (0.9 * 2 * a + a), rtol=1e-6)
    assert buffer._version == 6


def test_hooks_and_kept_gradients_are_left_to_the_plain_walk(x):
    seen = []
    y = x.sin()
    y.retain_grad()
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * x + x).sort()[0].sum().backward()
    assert seen == [y.grad.tolist()] == [x.tolist()]
    assert tape.compiled_backward.stats().plain == {"a node has hooks, or keeps its gradient": 1}


def test_watched_ops_are_done_at_once(x):
    packed = []
    with tape.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
        y = x.sin()
    assert (type(y), packed) == (tape.Tensor, [(2, 3)])
    with tape.autograd.inference_mode():
        z = x.sin()
    assert z.is_inference()
    y = x.sin()
    with pytest.warns(UserWarning, match="Anomaly Detection"), tape.autograd.detect_anomaly():
        y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(x.detach().numpy()), rtol=1e-6)


def test_a_users_own_function(x):
    class Double(tape.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 + 0 * x

    (Double.apply(x.sin()) * x).sum().backward()
    a = x.detach().numpy()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (np.sin(a) + a * np.cos(a)), rtol=1e-5)


def test_higher_orders(x):
    (g,) = tape.autograd.grad(x.sin().sum(), x, create_graph=True)
    (h,) = tape.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), -np.sin(x.detach().numpy()), rtol=1e-6)


def test_within_a_trace_nothing_is_put_off(x):
    doubled = jax.jit(lambda a: tape.Tensor(a).sin().array * 2)(x.array)
    np.testing.assert_allclose(doubled, 2 * np.sin(x.detach().numpy()), rtol=1e-6)
    y = x.sin()
    with jax.enable_x64(True):
        z = tape.tensor(np.ones(3), dtype=np.float64) * 2
    assert (y.dtype, z.dtype, type(z)) == (np.float32, np.float64, tape.Tensor)
    assert y.array.dtype == np.float32


def test_more_ops_than_are_put_off(x, monkeypatch):
    monkeypatch.setattr(deferred, "MAX_OPS", 4)
    y = x
    for _ in range(11):
        y = y.sin()
        assert put_off() <= 4
    (g,) = tape.autograd.grad(y.sum(), x)
    expected, a = np.ones((2, 3)), x.detach().numpy()
    for _ in range(11):
        expected, a = expected * np.cos(a), np.sin(a)
    np.testing.assert_allclose(g.numpy(), expected, rtol=1e-5)


def test_at_the_end_of_the_block_and_in_other_threads():
    x = tape.tensor([0.5], requires_grad=True)
    x.sin()
    seen = []
    with tape.compiled_backward(1, forward=True):
        y, z = x.sin(), x.sin()
        thread = threading.Thread(target=lambda: seen.append((type(x.sin()), y.sin().item())))
        thread.start()
        thread.join()
        with tape.compiled_backward(1, forward=True):
            inner = z.sin()
        assert type(inner) is Pending
        assert inner.item() == pytest.approx(np.sin(np.sin(0.5)))
        last = x.sin()
    assert seen == [(tape.Tensor, pytest.approx(np.sin(np.sin(0.5))))]
    assert last.item() == pytest.approx(np.sin(0.5))
    assert type(x.sin()) is tape.Tensor


def test_a_training_step_is_one_call_with_the_change_of_its_weights():
    w = tape.tensor([[0.5, -0.3], [0.2, 0.8]], requires_grad=True)
    b = tape.tensor([0.1, -0.2], requires_grad=True)
    data = tape.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])

    def train(steps):
        for _ in range(steps):
            w.grad = b.grad = None
            loss = ((data @ w + b).tanh() - data).square().sum()
            loss.backward()
            with tape.no_grad():
                w.sub_(w.grad * 0.1)
                b.sub_(b.grad * 0.1)
            loss.item()

    train(1)  # makes the plans
    with tape.compiled_backward(1, forward=True):
        train(2)  # the first step's weights were not put off
        before = tape.compiled_backward.stats()
        train(5)
        after = tape.compiled_backward.stats()
        assert (after.hits - before.hits, after.compiles, len(deferred.structures)) == (5, before.compiles, 0)
    found = w.tolist(), b.tolist()
    with tape.no_grad():
        w.copy_(tape.tensor([[0.5, -0.3], [0.2, 0.8]]))
        b.copy_(tape.tensor([0.1, -0.2]))
    train(8)
    for mine, plain in zip(found, (w, b), strict=True):
        np.testing.assert_allclose(mine, plain.tolist(), rtol=1e-4)
