"""Tensor: the rules of leaves and of .grad, conversions, and their errors, beside PyTorch's."""

import copy
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises, same

from tape.both import both
from twograd import tape
from twograd.tape.tensor import _set_aside


@both
def test_requires_grad_propagates(m):
    x, y = m.randn(5, 5), m.randn(5, 5)
    z = m.randn(5, 5, requires_grad=True)
    a = x + y
    assert not a.requires_grad
    b = a + z
    assert b.requires_grad
    assert a.grad_fn is None
    assert (x.is_leaf, a.is_leaf, z.is_leaf, b.is_leaf) == (True, True, True, False)
    assert b.grad_fn.name() == "AddBackward0"
    assert b.grad_fn.next_functions[0] == (None, 0)
    end, output_nr = b.grad_fn.next_functions[1]
    assert (end.name(), output_nr) == ("torch::autograd::AccumulateGrad", 0)
    assert end.variable is z


@both
def test_results_that_cannot_have_a_gradient(m):
    x = m.tensor([1.0, -2.0], requires_grad=True)
    for y in (x > 0, x.argmax(), x.isnan(), x.int()):
        assert not y.requires_grad
        assert y.grad_fn is None


@both
def test_flags(m):
    x = m.ones(2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    y = x * 2
    y.requires_grad_()
    text = (
        "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
        "subgraph that doesn't require differentiation use var_no_grad = var.detach()."
    )
    with raises(RuntimeError, text):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad
    assert y.requires_grad
    with raises(RuntimeError, "Only Tensors of floating point and complex dtype can require gradients"):
        m.tensor([1, 2], requires_grad=True)


def test_integer_error_names_dtype_and_way_out():
    with raises(RuntimeError, "this one has dtype int32. Convert it first: x.float()."):
        tape.arange(3).requires_grad_()


@both
def test_grad_attribute(m):
    x = m.ones(2, requires_grad=True)
    assert x.grad is None
    x.grad = m.ones(2)
    (x * 3).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0]
    x.grad = None
    assert x.grad is None
    with raises(TypeError, "assigned grad expected to be a Tensor or None but got grad of type int"):
        x.grad = 3
    text = (
        "attempting to assign a gradient of size '[3]' to a tensor of size '[2]'. Please ensure that the gradient and"
    )
    with raises(RuntimeError, text):
        x.grad = m.ones(3)
    with raises(RuntimeError, "attempting to assign a gradient with dtype "):
        x.grad = m.tensor([1, 1])


@both
@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
def test_a_gradient_that_somebody_holds_is_added_to_in_place(m):
    x, w = m.ones(2, requires_grad=True), m.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    held, shown = x.grad, x.grad.detach()
    (x * 3).sum().backward()
    assert x.grad is held
    assert (held.tolist(), shown.tolist(), held._version) == ([5.0, 5.0], [5.0, 5.0], 1)
    (x * x).sum().backward(create_graph=True)  # recorded, so that another takes its place
    assert x.grad is not held
    assert held.tolist() == [5.0, 5.0]
    x.grad = m.zeros(2)
    loss = (x.grad * w).sum()
    (x * 3).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    del x.grad
    assert x.grad is None
    with raises(RuntimeError, "can't assign Variable as its own grad"):
        x.grad = x


@both
def test_a_frozen_leaf_keeps_its_grad_and_its_hooks(m):
    x = m.ones(2, requires_grad=True)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_post_accumulate_grad_hook(lambda x: seen.append(x.grad.tolist()))
    early = x * 2
    node = early.grad_fn.next_functions[0][0]
    (x * 1).sum().backward()
    x.requires_grad_(False)
    assert x.grad.tolist() == [1.0, 1.0]
    assert (x * 2).grad_fn is None
    early.sum().backward(retain_graph=True)  # its hooks are called, and the gradient is lost
    assert x.grad.tolist() == [1.0, 1.0]
    x.requires_grad_()
    handle.remove()
    early.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert (x * 3).grad_fn.next_functions[0][0] is node
    assert seen == [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]
    x.detach_()
    assert (x.requires_grad, x.grad.tolist()) == (False, [3.0, 3.0])
    y = m.ones(2)
    y.grad = m.ones(2)
    assert copy.deepcopy(y).grad.tolist() == [1.0, 1.0]
    (y.requires_grad_() * 2).sum().backward()
    assert y.grad.tolist() == [3.0, 3.0]
    z = y * 2
    z.grad = m.ones(2)
    z.sum().backward()
    assert z.grad.tolist() == [1.0, 1.0]


def test_what_a_frozen_leaf_keeps_dies_with_it():
    before = len(_set_aside)
    x = tape.ones(2, requires_grad=True)
    node = weakref.ref(x._edge[0])
    x.requires_grad_(False)
    assert len(_set_aside) == before + 1
    del x
    assert (len(_set_aside), node()) == (before, None)


@both
def test_grad_of_a_non_leaf(m):
    x = m.ones(2, requires_grad=True)
    y = x * 2
    text = "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be "
    with pytest.warns(UserWarning, match=text + ".*use .retain_grad\\(\\) on the non-leaf Tensor"):
        assert y.grad is None
    y.retain_grad()
    assert y.retains_grad
    assert y.grad is None
    (y * y).sum().backward()
    assert y.grad.tolist() == [4.0, 4.0]
    assert not x.retains_grad
    x.retain_grad()
    assert not x.retains_grad
    with raises(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False"):
        m.ones(2).retain_grad()


@both
def test_detach(m):
    x = m.ones(2, requires_grad=True)
    y = x * 2
    for cut in (y.detach(), y.data, x.detach()):
        assert not cut.requires_grad
        assert cut.is_leaf
    (y.detach() * x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


@both
def test_conversions(m):
    x = m.tensor([[1.5, 2.0]])
    assert (x[0, 0].item(), float(x[0, 0]), int(x[0, 1]), complex(x[0, 1])) == (1.5, 1.5, 2, 2 + 0j)
    assert x.tolist() == [[1.5, 2.0]]
    assert range(4)[m.tensor(2)] == 2
    assert bool(m.tensor([1.0]))
    assert not m.tensor(0)
    np.testing.assert_array_equal(np.asarray(x), [[1.5, 2.0]])
    np.testing.assert_array_equal(x.numpy(), [[1.5, 2.0]])


@both
def test_conversion_errors(m):
    x = m.ones(2, requires_grad=True)
    text = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
    for convert in (x.numpy, lambda: np.asarray(x)):
        with raises(RuntimeError, text):
            convert()
    with raises(RuntimeError, "a Tensor with 2 elements cannot be converted to Scalar"):
        x.item()
    with raises(RuntimeError, "Boolean value of Tensor with more than one value is ambiguous"):
        bool(x)
    with raises(RuntimeError, "Boolean value of Tensor with no values is ambiguous"):
        bool(m.zeros(0))
    with raises(TypeError, "len() of a 0-d tensor"):
        len(m.tensor(1.0))
    with pytest.raises((ValueError, RuntimeError)):
        float(x)


@both
def test_copies(m):
    x = m.ones(2, requires_grad=True)
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.is_leaf
    (y * 2).sum().backward()
    assert x.grad is None
    assert copy.deepcopy({"x": m.ones(1)})["x"].tolist() == [1.0]
    text = "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment."
    with raises(RuntimeError, text):
        copy.deepcopy(x * 2)


def test_numpy_dtype_and_copy():
    x = tape.tensor([1.0, 2.0])
    assert np.asarray(x, np.float64).dtype == np.float64
    assert np.array(x).flags.writeable


def test_made_from_anything_an_array_is_made_from():
    for data in ([1.0, 2.0], np.array([1.0, 2.0], np.float32), jnp.array([1.0, 2.0])):
        x = tape.Tensor(data, requires_grad=True)
        assert isinstance(x.array, jax.Array)
        same(x.array, jnp.array([1.0, 2.0]))


def test_repr():
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 4.], grad_fn=<MulBackward0>)"
    assert repr(tape.ones(1, dtype=jnp.bfloat16)) == "tensor([1.], dtype=torch.bfloat16)"
    seen = []
    jax.jit(lambda a: seen.append(repr(tape.Tensor(a))) or a)(jnp.ones(2))
    assert "float32[2]" in seen[0]


def test_no_cycle_between_a_leaf_and_its_node():
    gc.collect()
    gc.disable()
    try:
        x = tape.ones(2, requires_grad=True)
        (x * x).sum().backward()
        grad, node = weakref.ref(x.grad), weakref.ref(x._edge[0])
        leaf = weakref.ref(x)
        del x
        assert leaf() is grad() is node() is None
    finally:
        gc.enable()


def test_a_leaf_may_die_before_its_graph():
    x = tape.tensor([2.0], requires_grad=True)
    y = x * x
    node = y.grad_fn.next_functions[0][0]
    del x
    assert node.variable is None
    y.backward(retain_graph=True)
    assert node.grad.tolist() == [4.0]
