"""The walk back: order, fan-out, deep graphs, memory, threads, and random programs."""

import gc
import sys
import threading
import weakref

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import same
from hypothesis import strategies as st

from twograd import tape

GRANULARITIES = pytest.mark.parametrize("level", ["op", "primitive"])


def leaf(*values):
    return tape.tensor(values, requires_grad=True)


@GRANULARITIES
def test_diamond(level):
    with tape.granularity(level):
        x = leaf(0.3, 0.7)
        a = x.sin()
        b, c = a * 2, a.exp()
        (b * c + a).sum().backward()
    expected = jax.grad(lambda x: (2 * jnp.sin(x) * jnp.exp(jnp.sin(x)) + jnp.sin(x)).sum())(x.array)
    same(x.grad.array, expected)


@GRANULARITIES
def test_fan_out_of_a_node_walked_once(level):
    """Were a node walked once per path, and not when all its cotangents have come, this would take 2**40 steps."""
    with tape.granularity(level):
        x = leaf(1.0)
        y = x
        for _ in range(40):
            y = y + y
        y.backward()
    assert x.grad.tolist() == [2.0**40]


def test_outputs_of_one_node_that_are_used_in_part():
    x = leaf(3.0, 1.0, 2.0)
    values, indices = x.sort()
    assert indices.tolist() == [1, 2, 0]
    (values[0] * 5 + values[2]).backward()
    assert x.grad.tolist() == [1.0, 5.0, 0.0]

    def three(a):
        return a * 2, jnp.exp(a), jnp.sin(a)

    a, b, c = tape.apply(three, x)
    assert (a.output_nr, b.output_nr, c.output_nr) == (0, 1, 2)
    (g,) = tape.autograd.grad(b.sum() + a[0], x, retain_graph=True)
    same(g.array, jnp.exp(x.array) + jnp.array([2.0, 0, 0]))
    (g,) = tape.autograd.grad([a, c], x, [tape.ones(3), tape.ones(3)])
    same(g.array, 2 + jnp.cos(x.array))


def test_retained_and_returned_in_the_middle_of_a_chain():
    """Pullbacks of consecutive ops may be put off and done together; what somebody asks for is there all the same."""
    x = leaf(0.5)
    steps = [x]
    for _ in range(30):
        steps.append(steps[-1].sin())
    for i in (5, 12, 29):
        steps[i].retain_grad()
    steps[-1].backward(retain_graph=True)
    for i in (0, 5, 12, 29):
        expected = np.prod([np.cos(step.item()) for step in steps[i:-1]])
        np.testing.assert_allclose(steps[i].grad.item(), expected, rtol=1e-5)
    found = tape.autograd.grad(steps[-1], [steps[7], x, steps[12]])
    for i, g in zip((7, 0, 12), found, strict=True):
        np.testing.assert_allclose(g.item(), np.prod([np.cos(step.item()) for step in steps[i:-1]]), rtol=1e-5)


@GRANULARITIES
def test_a_deep_chain(level):
    """10^5 nodes at op level: recording, the walk and the end of the graph do not recurse."""
    depth = 100_000 if level == "op" else 5_000
    limit = sys.getrecursionlimit()
    x = leaf(1.0)
    with tape.granularity(level):
        y = x
        for _ in range(depth):
            y = y * 1.00001
    node = weakref.ref(y.grad_fn.next_functions[0][0])
    y.backward()
    np.testing.assert_allclose(x.grad.item(), 1.00001**depth, rtol=0.05)
    assert node() is not None
    del y
    assert node() is None
    assert sys.getrecursionlimit() == limit


def test_a_deep_chain_that_is_never_walked_ends_in_a_small_thread():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = -y
    held = [y]
    del y
    previous = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(previous)
    assert not held


def test_deep_in_create_graph():
    x = leaf(1.0)
    y = x
    for _ in range(2_000):
        y = y.sin()
    (g,) = tape.autograd.grad(y, x, create_graph=True)
    (h,) = tape.autograd.grad(g, x)
    assert np.isfinite(h.item())


@pytest.mark.parametrize("walk", [False, True])
@GRANULARITIES
def test_a_graph_dies_by_reference_count(level, walk):
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        with tape.granularity(level):
            hidden = (x * x).exp()
            loss = (hidden + x).sum()
        stack, nodes, saved = [loss.grad_fn], [], [weakref.ref(hidden.array)]
        while stack:
            node = stack.pop()
            nodes.append(weakref.ref(node))
            stack.extend(n for n, _ in node.next_functions if isinstance(n, tape.Node))
        del node, stack, hidden
        assert all(node() is not None for node in nodes)
        assert saved[0]() is not None
        if walk:
            loss.backward()
            assert saved[0]() is None  # freed by the walk, though the nodes are still there
        del loss
        assert all(node() is None for node in nodes)
        assert saved[0]() is None
    finally:
        gc.enable()


def test_create_graph_makes_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (x**3).sum()
        (g,) = tape.autograd.grad(y, x, create_graph=True)
        node, other = weakref.ref(y.grad_fn), weakref.ref(g.grad_fn)
        del y, g
        assert node() is other() is None
    finally:
        gc.enable()


def test_an_error_in_the_walk_leaves_other_graphs_alone():
    x = leaf(1.0)
    z, y = x.sin(), x.exp()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        (y + z).backward()
    grad = x.grad.item()
    z.backward()
    np.testing.assert_allclose(x.grad.item() - grad, np.cos(1.0), rtol=1e-6)


def test_eight_threads_with_graphs_of_their_own():
    failures, barrier = [], threading.Barrier(8)

    def work(seed):
        try:
            barrier.wait()
            rng = np.random.default_rng(seed)
            for i in range(15):
                x = tape.tensor(rng.normal(size=(2 + i % 3,)), requires_grad=True)
                with tape.granularity("primitive" if (seed + i) % 2 else "op"):
                    y = ((x * seed).sin() + x.exp() * (i + 0.5)).sum()
                    with tape.no_grad():
                        assert not (x * 2).requires_grad
                    y.backward()
                array = x.numpy() if not x.requires_grad else x.detach().numpy()
                expected = seed * np.cos(array * seed) + np.exp(array) * (i + 0.5)
                np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-4, atol=1e-4)
                assert tape.is_grad_enabled()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


# --- random programs --------------------------------------------------------------------------------------------------

MENU = [
    (1, lambda x: x.sin(), jnp.sin),
    (1, lambda x: x.tanh(), jnp.tanh),
    (1, lambda x: -x, lambda x: -x),
    (1, lambda x: x * 2, lambda x: x * 2),
    (1, lambda x: x.T, lambda x: x.T),
    (1, lambda x: x.softmax(0), lambda x: jax.nn.softmax(x, 0)),
    (1, lambda x: x.mean(1, keepdim=True).expand(3, 3), lambda x: jnp.broadcast_to(x.mean(1, keepdims=True), (3, 3))),
    (1, lambda x: x[1], lambda x: x[1]),
    (1, lambda x: x.detach(), jax.lax.stop_gradient),
    (1, lambda x: x.at[0].set(0.5), lambda x: jnp.asarray(x).at[0].set(0.5)),
    (2, lambda x, y: x + y, lambda x, y: x + y),
    (2, lambda x, y: x * y, lambda x, y: x * y),
    (2, lambda x, y: x - y[0], lambda x, y: x - y[0]),
    (2, lambda x, y: x @ y, lambda x, y: x @ y),
    (2, lambda x, y: x.where(y > 0, y), lambda x, y: jnp.where(y > 0, x, y)),
    (2, lambda x, y: x.maximum(y * 0.5), lambda x, y: jnp.maximum(x, y * 0.5)),
]


@st.composite
def programs(draw):
    """Steps ``(which of the menu, which earlier values)``; the first three values are the inputs."""
    return [
        (draw(st.integers(0, len(MENU) - 1)), draw(st.integers(0, 2 + i)), draw(st.integers(0, 2 + i)))
        for i in range(15)
    ]


def run(steps, values, column):
    """Runs a program; its value is the sum of the last values, so that some steps are not used."""
    values = list(values)
    for which, *operands in steps:
        count = MENU[which][0]
        result = MENU[which][column](*(values[i] for i in operands[:count]))
        values.append(result if result.shape == (3, 3) else result + values[0] * 0)
    return (values[-1] * values[-2] + values[-3]).sum()


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return [rng.normal(size=(3, 3)).astype(np.float32) * 0.5 for _ in range(3)]


def check_program(inputs, steps):
    value, expected = jax.value_and_grad(lambda *x: run(steps, x, 2), argnums=(0, 1, 2))(*inputs)
    for level in ("op", "primitive"):
        with tape.granularity(level):
            tensors = [tape.tensor(x, requires_grad=True) for x in inputs]
            result = run(steps, tensors, 1)
            np.testing.assert_allclose(result.item(), value, rtol=1e-4, atol=1e-4)
            found = tape.autograd.grad(result, tensors, retain_graph=True, materialize_grads=True)
            result.backward()
        for x, g, e in zip(tensors, found, expected, strict=True):
            scale = max(1.0, float(jnp.abs(e).max()))
            np.testing.assert_allclose(g.numpy(), e, rtol=1e-3, atol=1e-4 * scale)
            same((x.grad if x.grad is not None else tape.zeros(3, 3)).array, g.array, rtol=1e-4)


@hypothesis.settings(derandomize=True, max_examples=6, deadline=None, database=None)
@hypothesis.given(steps=programs())
def test_random_programs(inputs, steps):
    check_program(inputs, steps)


@pytest.mark.slow
@hypothesis.settings(derandomize=True, max_examples=200, deadline=None, database=None)
@hypothesis.given(steps=programs())
def test_many_random_programs(inputs, steps):
    check_program(inputs, steps)
