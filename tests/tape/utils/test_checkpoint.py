"""Checkpoints beside PyTorch's: the same gradients, and fewer saved bytes; random numbers, nesting, errors."""

import math
import warnings
import weakref

import numpy as np
import pytest

from tape.both import both
from tape.torch_says import agrees
from twograd import tape
from twograd.tape.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential, set_checkpoint_early_stop

X = np.array([0.5, -1.0])


def m_checkpoint(m):
    if m is tape:
        return tape.utils.checkpoint
    import torch.utils.checkpoint

    return torch.utils.checkpoint


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


def block(x, w):
    return (x * w).sin() * x + w


def program_of(call):
    """Gradients of a chain whose middle goes through ``call(module, function, *args)``."""

    def program(m):
        x, w = leaf(m, 0.5, -1.0, 2.0), leaf(m, 1.5, 0.25, -0.75)
        y = call(m_checkpoint(m), block, x.exp(), w)
        (y * y).sum().backward()
        return y, x.grad, w.grad

    return program


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_same_gradients(reentrant):
    plain = agrees(program_of(lambda c, f, *args: f(*args)))
    ours = agrees(program_of(lambda c, f, *args: c.checkpoint(f, *args, use_reentrant=reentrant)))
    for x, y in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(x, y)


@both
def test_what_the_function_closes_over_gets_its_gradient(m):
    for reentrant in (False, True):
        x, w = leaf(m, 0.5, -1.0), leaf(m, 2.0, 3.0)
        m_checkpoint(m).checkpoint(lambda x, w=w: x * w, x, use_reentrant=reentrant).sum().backward()
        assert w.grad.tolist() == [0.5, -1.0]
        assert x.grad.tolist() == [2.0, 3.0]


def test_nothing_is_saved():
    def f(x):
        for _ in range(5):
            x = x.sin()
        return x

    x = tape.ones(1000, requires_grad=True)
    assert tape.stats(f(x)).saved_bytes == 5 * 4000
    for reentrant in (False, True):
        y = checkpoint(f, x, use_reentrant=reentrant)
        assert tape.stats(y).saved_bytes <= 4000
    y.sum().backward()


def count_calls(f):
    def counted(*args, **kwargs):
        counted.calls += 1
        return f(*args, **kwargs)

    counted.calls = 0
    return counted


@both
def test_how_often_it_runs(m):
    c = m_checkpoint(m)
    x = leaf(m, 0.5)
    f = count_calls(lambda x: x.sin().cos().exp())
    y = c.checkpoint(f, x, use_reentrant=False)
    assert f.calls == 1
    m.autograd.grad(y, x, retain_graph=True)
    assert f.calls == 2
    (g,) = m.autograd.grad(y, x, create_graph=True)
    assert f.calls == 3
    g.backward()
    with m.no_grad():
        f.calls = 0
        c.checkpoint(f, x, use_reentrant=False)
    assert f.calls == 1


def test_second_derivatives():
    def program(m):
        x, w = leaf(m, 0.5, -1.0), leaf(m, 1.5, 0.25)
        y = m_checkpoint(m).checkpoint(block, x, w, use_reentrant=False)
        first = m.autograd.grad(y.sum(), (x, w), create_graph=True)
        return first, m.autograd.grad((first[0] * first[1]).sum(), (x, w))

    agrees(program)


def test_nested():
    def program(m):
        c = m_checkpoint(m)
        calls = []

        def inner(x):
            calls.append("inner")
            return x.sin().exp()

        def outer(x):
            calls.append("outer")
            return c.checkpoint(inner, x.cos(), use_reentrant=False) * x

        x = leaf(m, 0.5, -1.0)
        y = c.checkpoint(outer, x * 2, use_reentrant=False)
        y.sum().backward()
        return x.grad, len(calls)

    gradient, _ = agrees(program)
    assert gradient.shape == (2,)


def test_keywords_several_results_and_other_arguments():
    def program(m):
        def f(x, n, *, scale, w):
            return x * n * scale, [3], (w * x).sum()

        x, w = leaf(m, 0.5, -1.0), leaf(m, 2.0, 3.0)
        y, rest, z = m_checkpoint(m).checkpoint(f, x, 3, scale=2.0, w=w, use_reentrant=False)
        (y.sum() * z).backward()
        return rest, x.grad, w.grad

    agrees(program)


@pytest.mark.parametrize("reentrant", [False, True])
def test_random_numbers_come_again(reentrant):
    def noisy(x):
        noise = tape.randn(3)
        seen.append(noise.tolist())
        return (x * noise).sin()

    for preserve in (True, False):
        seen = []
        tape.manual_seed(1)
        x = leaf(tape, 0.5, -1.0, 2.0)
        y = checkpoint(noisy, x, use_reentrant=reentrant, preserve_rng_state=preserve)
        after = tape.get_rng_state().tolist()
        y.sum().backward()
        assert (seen[0] == seen[1]) == preserve
        assert (tape.get_rng_state().tolist() == after) == preserve


@both
def test_sequential(m):
    functions = [lambda x, i=i: (x * (0.5 + i)).sin() for i in range(7)]
    expected = leaf(m, 0.5, -1.0)
    value = expected
    for f in functions:
        value = f(value)
    value.sum().backward()
    for reentrant, segments in ((False, 1), (False, 3), (True, 3), (False, 7)):
        x = leaf(m, 0.5, -1.0)
        m_checkpoint(m).checkpoint_sequential(functions, segments, x, use_reentrant=reentrant).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), expected.grad.numpy())


def peak(n, segments, reentrant):
    """The most outputs of layers alive at once while a chain of ``n`` is computed and walked back."""
    alive, most = {}, 0

    def layer(x):
        nonlocal most
        y = x.sin()
        key = id(y._data)
        alive[key] = weakref.ref(y._data, lambda _: alive.pop(key, None))
        most = max(most, len(alive))
        return y

    x = tape.ones(3, requires_grad=True)
    checkpoint_sequential([layer] * n, segments, x, use_reentrant=reentrant).sum().backward()
    assert not alive
    return most


@pytest.mark.parametrize("reentrant", [False, True])
def test_memory_grows_as_the_square_root(reentrant):
    most = {n: peak(n, math.isqrt(n), reentrant) for n in (25, 100)}
    assert all(count <= 3 * math.isqrt(n) + 6 for n, count in most.items()), most
    assert peak(100, 1, reentrant) >= 100


def differing(x, state):
    state.append(None)
    return x.sin() if len(state) == 1 else x.sin().cos().exp()


def fewer(x, state):
    state.append(None)
    return x.sin().cos().exp() if len(state) == 1 else x.sin()


def reshaped(x, state):
    state.append(None)
    return x.sin() if len(state) == 1 else x[:1].sin()


def error_of(function, **options):
    def program(m):
        x, state = leaf(m, 0.5, -1.0), []
        m_checkpoint(m).checkpoint(function, x, state, use_reentrant=False, **options).sum().backward()

    return program


def test_a_function_that_does_something_else():
    with pytest.raises(CheckpointError, match="A different number of tensors was saved") as caught:
        error_of(fewer)(tape)
    assert "Number of tensors saved during forward: 3\nNumber of tensors saved during recomputation: 1." in str(
        caught.value
    )
    with pytest.raises(CheckpointError, match="trying to save more tensors during recomputation than during the"):
        error_of(differing, early_stop=False)(tape)
    with set_checkpoint_early_stop(False), pytest.raises(CheckpointError, match="trying to save more tensors"):
        error_of(differing)(tape)
    with pytest.raises(CheckpointError, match=r"have different metadata than during the forward pass\.\ntensor at p"):
        error_of(reshaped, early_stop=True)(tape)
    with pytest.raises(CheckpointError, match=r"recomputation:\n\nsin\(float32\[2\]\) -> float32\[2\]$"):
        error_of(fewer, debug=True)(tape)
    pytest.importorskip("torch")
    for case, options in ((fewer, {}), (differing, {"early_stop": False})):
        theirs = _message(case, options)
        assert theirs.splitlines()[0].startswith("torch.utils.checkpoint: ")
        with pytest.raises(CheckpointError) as caught:
            error_of(case, **options)(tape)
        assert str(caught.value).splitlines()[0] == theirs.splitlines()[0]


def _message(case, options):
    import torch

    with pytest.raises(torch.utils.checkpoint.CheckpointError) as caught:
        error_of(case, **options)(torch)
    return str(caught.value)


CALLS = {
    "grad": lambda m, c, x: m.autograd.grad(c.checkpoint(m.sin, x, use_reentrant=True).sum(), x),
    "inputs": lambda m, c, x: c.checkpoint(m.sin, x, use_reentrant=True).sum().backward(inputs=[x]),
    "keywords": lambda m, c, x: c.checkpoint(m.sin, x, use_reentrant=True, scale=3),
    "debug": lambda m, c, x: c.checkpoint(m.sin, x, use_reentrant=True, debug=True),
    "determinism": lambda m, c, x: c.checkpoint(m.sin, x, use_reentrant=False, determinism_check="all"),
    "nothing to do": lambda m, c, x: c.checkpoint(lambda x: x.detach() * 2, x, use_reentrant=True).sum().backward(),
    "sequential": lambda m, c, x: c.checkpoint_sequential([m.sin], 1, x, use_reentrant=False, scale=3),
    "list": lambda m, c, x: c.detach_variable([x]),
}


@pytest.mark.parametrize("case", CALLS)
def test_errors(case):
    def program(m):
        if m is tape:
            m = _WithSin
        return CALLS[case](m, m_checkpoint(m if m is not _WithSin else tape), leaf(m, 0.5, -1.0))

    error, text = agrees(program)
    assert error.endswith("Error")
    assert text


class _WithSin:
    """The tape, and sin as PyTorch has it."""

    autograd, tensor = tape.autograd, staticmethod(tape.tensor)

    @staticmethod
    def sin(x):
        return x.sin()


@both
def test_an_argument_that_was_changed_since(m):
    x = leaf(m, 0.5, -1.0)
    h = x * 2
    y = m_checkpoint(m).checkpoint(lambda h: h.sin(), h, use_reentrant=False)
    h.add_(1.0)
    with pytest.raises(RuntimeError, match=r"has been modified by an inplace operation.*is at version 1; expected ver"):
        y.sum().backward()


@both
def test_warnings(m):
    c = m_checkpoint(m)
    with pytest.warns(UserWarning, match="the use_reentrant parameter should be passed explicitly"):
        c.checkpoint(lambda x: x * 2, leaf(m, 1.0))
    with pytest.warns(UserWarning, match="the use_reentrant parameter should be passed explicitly"):
        c.checkpoint_sequential([lambda x: x * 2], 1, leaf(m, 1.0))
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True. Gradients will be None"):
        c.checkpoint(lambda x: x * 2, m.ones(1), use_reentrant=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        c.checkpoint(lambda x: x * 2, m.ones(1), use_reentrant=False)


def test_batched_gradients():
    x = leaf(tape, 0.5, -1.0)
    f = count_calls(lambda x: x.sin() * x)
    y = checkpoint(f, x, use_reentrant=False)
    (found,) = tape.autograd.grad(y, x, tape.eye(2), is_grads_batched=True)
    np.testing.assert_allclose(np.diag(found.array), np.sin(X) + np.cos(X) * X, rtol=1e-6)
    assert f.calls == 2


def test_contexts():
    seen = []

    class Noted:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *exc_info):
            pass

    x = leaf(tape, 0.5)
    y = checkpoint(lambda x: x.sin(), x, use_reentrant=False, context_fn=lambda: (Noted("first"), Noted("again")))
    y.backward(retain_graph=True)
    y.backward()
    assert seen == ["first", "again", "again"]


def test_a_walk_inside():
    def f(x):
        y = x.sin()
        (g,) = tape.autograd.grad(y.cos().sum(), x, retain_graph=True)
        return y * g

    x, z = leaf(tape, 0.5, -1.0), leaf(tape, 0.5, -1.0)
    checkpoint(f, x, use_reentrant=False).sum().backward()
    f(z).sum().backward()
    np.testing.assert_array_equal(x.grad.array, z.grad.array)


def test_at_primitive_level():
    x, z = leaf(tape, 0.5, -1.0), leaf(tape, 0.5, -1.0)
    with tape.granularity("primitive"):
        y = checkpoint(block, x, x * 2, use_reentrant=False)
    y.sum().backward()
    block(z, z * 2).sum().backward()
    np.testing.assert_allclose(x.grad.array, z.grad.array, rtol=1e-6)
