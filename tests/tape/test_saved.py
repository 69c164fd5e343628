"""Saved values beside PyTorch: read at the node, packed and unpacked by hooks, changed in place."""

import numpy as np
import pytest

from tape.both import both
from twograd import tape


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


@both
def test_read_at_the_node(m):
    x, y = leaf(m, 0.5, 2.0), leaf(m, 3.0, 4.0)
    node = (x * y).grad_fn
    assert node._saved_self is x
    assert node._saved_other is y
    assert {"_saved_self", "_saved_other", "_raw_saved_self", "metadata"} <= set(dir(node))
    z = x.exp()
    assert z.grad_fn._saved_result.tolist() == z.tolist()
    assert z.grad_fn._saved_result.grad_fn is z.grad_fn
    assert (x @ y).grad_fn._saved_tensor.tolist() == [3.0, 4.0]
    with pytest.raises(AttributeError, match="no attribute '_saved_nothing'"):
        node._saved_nothing  # noqa: B018


@both
def test_reading_checks_versions_and_freedom(m):
    x = leaf(m, 0.5, 2.0)
    y = x * 1
    z = y * y
    z.sum().backward(retain_graph=True)
    assert z.grad_fn._saved_self.tolist() == [0.5, 2.0]
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.grad_fn._saved_self  # noqa: B018
    w = x * x
    raw = w.grad_fn._raw_saved_self
    w.sum().backward()
    for read in (lambda: w.grad_fn._saved_self, lambda: raw.register_hooks(print, print)):
        with pytest.raises(RuntimeError, match="freed"):
            read()


def test_names_of_what_is_saved():
    x, y = leaf(tape, 0.5), leaf(tape, 2.0)
    node = (x * y).grad_fn
    assert sorted(node.saved_names) == ["other", "self"]
    assert {name: t.tolist() for name, t in zip(node.saved_names, node.saved_tensors, strict=True)} == {
        "self": [0.5],
        "other": [2.0],
    }
    assert (x + y).grad_fn.saved_tensors == ()


@both
def test_hooks_of_one_saved_value(m):
    x = leaf(m, 1.0, 2.0)
    y = x * x
    seen = []
    raw = y.grad_fn._raw_saved_self
    with pytest.raises(TypeError):
        raw.register_hooks(3, print)
    raw.register_hooks(lambda t: (seen.append(t.tolist()), t * 10)[1], lambda t: t)
    with pytest.raises(RuntimeError, match=r"^Calling register_hooks on a saved tensor whose hooks have already been"):
        raw.register_hooks(print, print)
    assert y.grad_fn._saved_self.tolist() == [10.0, 20.0]
    y.sum().backward()
    assert x.grad.tolist() == [11.0, 22.0]
    assert seen == [[1.0, 2.0]]


def traced(m, program):
    """What the hooks are given, in order, and the gradient."""
    seen = []

    def pack(t):
        seen.append(("pack", np.round(t.tolist(), 3).tolist(), t.requires_grad, m.is_grad_enabled()))
        return t.detach()

    def unpack(t):
        seen.append(("unpack", np.round(t.tolist(), 3).tolist(), m.is_grad_enabled()))
        return t

    x = leaf(m, 1.0, 2.0)
    with m.autograd.graph.saved_tensors_hooks(pack, unpack):
        y = program(m, x)
    y.sum().backward()
    return seen, np.round(x.grad.tolist(), 4).tolist()


PROGRAMS = {
    "a product": lambda m, x: x * x,
    "a product with a number": lambda m, x: x * 3.0,
    "a chain": lambda m, x: (x * x).exp() * 2.0,
    "matrices": lambda m, x: x.reshape(1, 2) @ x.reshape(2, 1),
    "nothing is saved": lambda m, x: x + x,
    "an operand without gradient": lambda m, x: x * m.ones(2),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_saved_tensors_hooks(name):
    torch = pytest.importorskip("torch")
    ours, theirs = traced(tape, PROGRAMS[name]), traced(torch, PROGRAMS[name])
    assert ours[1] == theirs[1]
    assert sorted(map(str, ours[0])) == sorted(map(str, theirs[0]))  # an op's own operands may come in another order


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_all_that_is_saved_is_packed(level):
    """Were a value kept unpacked, doubling the packed ones would not double every factor of the gradient."""
    x = leaf(tape, 0.3, 0.7)
    with tape.granularity(level), tape.autograd.graph.saved_tensors_hooks(lambda t: t.array, tape.Tensor):
        y = (x.softmax(0) * x.std().exp()).sum()
        assert all(type(value).__name__ == "Packed" for value in y.grad_fn.saved)
    (g,) = tape.autograd.grad(y, x)
    (expected,) = tape.autograd.grad((x.softmax(0) * x.std().exp()).sum(), x)
    np.testing.assert_allclose(g.array, expected.array, rtol=1e-6)


@both
def test_only_the_innermost_hooks_are_called(m):
    seen = []

    def hooks(name):
        return m.autograd.graph.saved_tensors_hooks(
            lambda t: (seen.append(f"pack {name}"), t.detach())[1], lambda t: (seen.append(f"unpack {name}"), t)[1]
        )

    x = leaf(m, 1.0)
    with hooks("outer"):
        with hooks("inner"):
            y = x.exp()
        z = y.exp()
    w = z.exp()
    w.backward()
    assert seen == ["pack inner", "pack outer", "unpack outer", "unpack inner"]


@both
def test_what_hooks_may_do(m):
    graph = m.autograd.graph
    x = leaf(m, 1.0, 2.0)
    with graph.saved_tensors_hooks(lambda t: t, lambda t: 3):
        y = x.exp()
    text = "^Output of saved tensor unpack_hook expected to be a Tensor but got result of type int$"
    with pytest.raises(TypeError, match=text):
        y.sum().backward()
    z = x * 1
    with graph.saved_tensors_hooks(lambda t: t.add_(1), lambda t: t):  # noqa: SIM117
        with pytest.raises(RuntimeError, match="A saved tensor pack hook is modifying its input in place"):
            z * z
    z = x * 1
    with graph.saved_tensors_hooks(lambda t: t.detach() * 1, lambda t: t):
        w = z * z
    z.mul_(5)  # what was packed is not checked
    w.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_what_is_unpacked_must_fit():
    x = leaf(tape, 1.0, 2.0)
    with tape.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), lambda values: tape.tensor(values)[:1]):
        y = x.exp()
    with pytest.raises(RuntimeError, match=r"unpack_hook returned a Tensor of shape \[1\] .* saved with shape \[2\]"):
        y.sum().backward()


@both
def test_second_derivatives_through_packed_values(m):
    x = leaf(m, 1.0, 2.0)
    with m.autograd.graph.saved_tensors_hooks(lambda t: t.detach() * 1, lambda t: t):
        y = x * x * x
        (g,) = m.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = m.autograd.grad(g.sum(), x)
    assert (g.tolist(), h.tolist()) == ([3.0, 12.0], [6.0, 12.0])


@both
def test_disabled(m):
    graph = m.autograd.graph
    with graph.disable_saved_tensors_hooks("not here"), pytest.raises(RuntimeError, match=r"^not here$"):
        graph.save_on_cpu().__enter__()
    with graph.saved_tensors_hooks(lambda t: t, lambda t: t), pytest.raises(RuntimeError, match=r"^not here$"):
        graph.disable_saved_tensors_hooks("not here").__enter__()
    with graph.save_on_cpu():
        leaf(m, 1.0).exp()


@both
def test_save_on_cpu(m):
    x = leaf(m, 1.0, 2.0)
    with m.autograd.graph.save_on_cpu():
        y = x * x
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


@both
def test_mutation_is_allowed(m):
    graph = m.autograd.graph
    x = leaf(m, 1.0, 2.0)
    with graph.allow_mutation_on_saved_tensors():
        y = x.clone()
        z = y**2
        y.sin_()
        y[0] = 5.0
        z.sum().backward()
        with pytest.raises(RuntimeError, match=r"^allow_mutation_on_saved_tensors contexts cannot be nested$"):
            graph.allow_mutation_on_saved_tensors().__enter__()
        w = x.clone()
        out = w * w
        w.mul_(2)
    assert x.grad.tolist() == [2.0, 4.0]
    with pytest.raises(AssertionError, match="Trying to backward outside of the 'allow_mutation_on_saved_tensors'"):
        out.sum().backward()


@both
def test_versions_counted_by_hand(m):
    x = leaf(m, 1.0, 2.0)
    y = x * 1
    z = y * y
    m.autograd.graph.increment_version([y])
    assert y._version == 1
    after = (y * y).sum()
    with pytest.raises(RuntimeError, match="is at version 1; expected version 0"):
        z.sum().backward()
    after.backward()
    assert x.grad.tolist() == [2.0, 4.0]
    m.autograd.graph.increment_version(x)
    assert (x._version, x.is_leaf) == (1, True)
