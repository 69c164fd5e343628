"""grad with is_grads_batched: one walk for a batch of cotangents, beside PyTorch's and beside a call for each."""

import jax
import numpy as np
import pytest

from tape.torch_says import agrees
from twograd import tape

BATCH = [[1.0, 0.0, 2.0], [0.5, -1.0, 0.0]]


def made(m):
    x, y = m.tensor([1.0, 2.0, 3.0], requires_grad=True), m.tensor([0.5, 1.5, -1.0], requires_grad=True)
    h = x * y
    return x, y, h, (h * x.sum(), (h * h).sum())


def grad(m, *args, **kwargs):
    return m.autograd.grad(*args, is_grads_batched=True, **kwargs)


CALLS = {
    "one": lambda m, x, y, h, outs: grad(m, outs[0], (x, y), m.tensor(BATCH)),
    "two": lambda m, x, y, h, outs: grad(m, outs, (x, y), (m.tensor(BATCH), m.tensor([1.0, 3.0]))),
    "inside": lambda m, x, y, h, outs: grad(m, outs, h, (m.tensor(BATCH), m.tensor([1.0, 3.0]))),
    "the output itself": lambda m, x, y, h, outs: grad(m, h, h, m.tensor(BATCH)),
    "unused": lambda m, x, y, h, outs: grad(m, h, (x, m.zeros(2, requires_grad=True)), m.tensor(BATCH)),
    "allowed": lambda m, x, y, h, outs: grad(
        m, h, (x, m.zeros(2, requires_grad=True)), m.tensor(BATCH), allow_unused=True
    ),
    "materialized": lambda m, x, y, h, outs: grad(
        m, h, (x, m.zeros(2, requires_grad=True)), m.tensor(BATCH), materialize_grads=True
    ),
    "sizes differ": lambda m, x, y, h, outs: grad(m, outs, x, (m.tensor(BATCH), m.tensor([1.0, 3.0, 2.0]))),
    "none": lambda m, x, y, h, outs: grad(m, h, x),
    "twice": lambda m, x, y, h, outs: [grad(m, h, x, m.tensor(BATCH)), grad(m, h, x, m.tensor(BATCH))],
    "kept": lambda m, x, y, h, outs: [
        grad(m, h, x, m.tensor(BATCH), retain_graph=True), grad(m, h, x, m.tensor(BATCH))
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_as_torch(case):
    agrees(lambda m: CALLS[case](m, *made(m)))


def test_second_order():
    def program(m):
        x, y, _, outs = made(m)
        ct = m.tensor(BATCH, requires_grad=True)
        first = grad(m, outs, (x, y), (ct, m.tensor([1.0, 3.0])), create_graph=True)
        total = sum((g * g).sum() for g in first)
        second = m.autograd.grad(total, (x, y, ct), create_graph=True)
        rows = grad(m, second[0], (x, y), m.tensor(BATCH))
        return first, second, rows

    agrees(program)


def test_a_hook_sees_one_entry_at_a_time():
    def program(m):
        x, _, h, outs = made(m)
        h.register_hook(lambda g: g * g.sum())
        x.register_hook(lambda g: g * 10)
        results = grad(m, outs[0], (x, h), m.tensor(BATCH), retain_graph=True)
        return results, grad(m, outs[0], x, m.tensor(BATCH), create_graph=True)

    agrees(program)


def test_what_is_retained_is_what_a_call_for_each_would_retain():
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    h = x * x
    h.retain_grad()
    tape.autograd.grad(h * 3.0, x, tape.eye(2), is_grads_batched=True)
    assert h.grad.tolist() == [3.0, 3.0]


def test_matrix_product_against_jax():
    a, b = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.ones((3, 2), np.float32)
    x = tape.tensor(a, requires_grad=True)
    with tape.granularity("primitive"):
        y = (x @ tape.tensor(b)).tanh()
    ct = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2)
    (found,) = tape.autograd.grad(y, x, tape.tensor(ct), is_grads_batched=True)
    _, pullback = jax.vjp(lambda a: jax.numpy.tanh(a @ b), a)
    np.testing.assert_allclose(found.array, jax.vmap(pullback)(ct)[0], rtol=1e-5)


def test_errors():
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    with pytest.raises(RuntimeError, match=r"If `is_grads_batched=True`, we interpret .* has a shape of \(3, 3\)"):
        tape.autograd.grad(y, x, tape.ones(3, 3), is_grads_batched=True)
    with pytest.raises(ValueError, match="has no dimension to be the batch"):
        tape.autograd.grad(y.sum(), x, is_grads_batched=True)
    (empty,) = tape.autograd.grad(y, x, tape.zeros(0, 2), is_grads_batched=True)
    assert empty.shape == (0, 2)


def test_a_function_of_the_user_sees_one_entry_at_a_time():
    def program(m):
        class Odd(m.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * 2

            @staticmethod
            def backward(ctx, grad):
                return ctx.saved_tensors[0] * grad * grad.sum()

        x = m.tensor([1.0, 2.0, 3.0], requires_grad=True)
        (first,) = grad(m, Odd.apply(x) * x, x, m.tensor(BATCH), create_graph=True)
        return first, m.autograd.grad((first * first).sum(), x)

    agrees(program)
