"""What users of Torch7 expect of a module: its protocol, its containers, and its silent mistakes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph, tape
from twograd.fronts import torch7 as nn


@pytest.fixture(autouse=True)
def seeded():
    nn.manualSeed(0)
    return np.random.default_rng(0)


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def vjp(f, ct, *primals):
    """By JAX's own rules."""
    ct = jax.tree.map(jnp.asarray, ct)
    return jax.vjp(f, *(jnp.asarray(x) for x in primals))[1](ct)


# 1. the protocol


def test_backward_is_update_grad_input_and_acc_grad_parameters():
    layer, x, ct = nn.Linear(3, 2), draw(4, 3), draw(4, 2)
    assert layer.forward(x) is layer.output
    np.testing.assert_allclose(layer.output, x @ layer.weight.T + layer.bias, rtol=1e-5)
    expected = vjp(lambda x, w, b: x @ w.T + b, ct, x, layer.weight, layer.bias)
    layer.updateGradInput(x, ct)
    np.testing.assert_allclose(layer.gradInput, expected[0], rtol=1e-5)
    assert not layer.gradWeight.any()
    layer.accGradParameters(x, ct, 0.5)
    layer.backward(x, ct, 2.0)
    np.testing.assert_allclose(layer.gradWeight, 2.5 * expected[1], rtol=1e-5)
    np.testing.assert_allclose(layer.gradBias, 2.5 * expected[2], rtol=1e-5)


def test_output_and_grad_input_are_the_same_objects_with_other_contents():
    net = nn.Sequential().add(nn.Linear(3, 2)).add(nn.ConcatTable().add(nn.Tanh()).add(nn.Sigmoid()))
    x = draw(4, 3)
    table = net.forward(x)
    net.backward(x, [np.ones((4, 2)), np.ones((4, 2))])
    kept, before = [*table, net.gradInput], [value.copy() for value in (*table, net.gradInput)]
    assert net.forward(x + 1) is table
    net.backward(x + 1, [np.ones((4, 2)), np.ones((4, 2))])
    for now, then, old in zip([*net.output, net.gradInput], kept, before, strict=True):
        assert now is then
        assert not np.array_equal(now, old)
    assert net.forward(draw(5, 3))[0].shape == (5, 2)  # NumPy's arrays keep their size: another one is made


def test_errors_name_what_does_not_fit():
    layer = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="backward assumes that forward was called before; it was not"):
        layer.backward(draw(4, 3), draw(4, 2))
    layer.forward(draw(4, 3))
    with pytest.raises(ValueError, match=re.escape("the input of backward is of size [5, 3], but forward has seen [4")):
        layer.backward(draw(5, 3), draw(4, 2))
    with pytest.raises(ValueError, match=re.escape("gradOutput of backward is of size [2, 4], but the output is [4, ")):
        layer.backward(draw(4, 3), draw(2, 4))
    with pytest.raises(TypeError, match=re.escape("Linear.weight is a NumPy array of size [2, 3] that can be written")):
        layer.weight = jnp.zeros((2, 3))
    with pytest.raises(AttributeError, match="Tanh has no 'weight'"):
        nn.Tanh().weight  # noqa: B018
    with pytest.raises(TypeError, match="float64, and JAX computes in 32 bits"):
        nn.Tanh().type(np.float64).forward(draw(2))


# 2. backward with another input


def siamese():
    """One module for two inputs, both forward before the backward of the first; and what differences give for that."""
    net, first, second = nn.Sequential().add(nn.Linear(3, 2)).add(nn.Tanh()), draw(4, 3), draw(4, 3) + 1
    (right,) = vjp(lambda x: jnp.tanh(x @ net.get(0).weight.T + net.get(0).bias), np.ones((4, 2), np.float32), first)
    return net, first, second, np.asarray(right)


def test_backward_with_another_input_is_wrong_and_silent():
    net, first, second, right = siamese()
    net.forward(first)
    np.testing.assert_allclose(net.backward(first, np.ones((4, 2))), right, rtol=1e-5)
    net.forward(second)
    wrong = net.backward(first, np.ones((4, 2)))
    assert np.abs(wrong - right).max() > 0.05


def test_a_guard_says_so():
    net, first, second, right = siamese()
    net.guard()
    net.forward(first)
    np.testing.assert_allclose(net.backward(first.copy(), np.ones((4, 2))), right, rtol=1e-5)
    net.forward(second)
    with pytest.raises(nn.OtherInput, match="Linear: backward was given an input that forward has not seen last"):
        net.backward(first, np.ones((4, 2)))
    net.forward(first)
    net.output += 1  # what Tanh reads on its way back
    with pytest.raises(nn.OtherInput, match=r"Tanh: .* its output or parameters have changed since"):
        net.backward(first, np.ones((4, 2)))
    net.guard(False).backward(first, np.ones((4, 2)))
    tanh = nn.Tanh().guard()
    tanh.forward(first)
    with pytest.raises(nn.OtherInput):  # though its derivative reads no input
        tanh.backward(second, np.ones((4, 3)))


# 3. accumulation and updates


def test_gradients_accumulate_until_zeroed_and_updates_take_them_off():
    layer, x, ct = nn.Linear(3, 2), draw(4, 3), draw(4, 2)
    layer.forward(x)
    layer.backward(x, ct)
    once = layer.gradWeight.copy()
    layer.backward(x, ct)
    np.testing.assert_array_equal(layer.gradWeight, 2 * once)
    weight = layer.weight.copy()
    layer.updateParameters(0.25)
    np.testing.assert_array_equal(layer.weight, weight - np.float32(0.25) * (2 * once))
    layer.zeroGradParameters()
    assert not layer.gradWeight.any()
    assert not layer.gradBias.any()


def test_acc_update_grad_parameters_is_a_shortcut():
    net, x, ct = nn.Sequential().add(nn.Linear(3, 2)).add(nn.Linear(2, 2)), draw(4, 3), draw(4, 2)
    twin = net.clone()
    for module in (net, twin):
        module.forward(x)
        module.updateGradInput(x, ct)
    net.accUpdateGradParameters(x, ct, 0.1)
    twin.zeroGradParameters()
    twin.accGradParameters(x, ct)
    twin.updateParameters(0.1)
    for a, b in zip(net.parameters()[0], twin.parameters()[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert not net.get(0).gradWeight.any()  # nothing was added up


def test_the_trainer():
    x = draw(32, 3)
    data = [(row, np.tanh(row[:2])) for row in x]
    net, errors = nn.Sequential().add(nn.Linear(3, 2)).add(nn.Tanh()), []
    trainer = nn.StochasticGradient(net, nn.MSECriterion())
    trainer.learningRate, trainer.learningRateDecay, trainer.maxIteration = 0.3, 0.01, 8
    trainer.hookIteration = lambda trainer, iteration, error: errors.append(error)
    assert trainer.train(data) == errors[-1] < errors[0] / 10
    assert len(errors) == 8


def test_steps_of_the_trainer_are_gradient_descent_with_a_rate_that_decays():
    x, layer = draw(3), nn.Linear(3, 2)
    target, expected = np.zeros(2, np.float32), [tensor.copy() for tensor in layer.parameters()[0]]
    trainer = nn.StochasticGradient(layer, nn.MSECriterion())
    trainer.learningRate, trainer.learningRateDecay, trainer.maxIteration = 0.3, 1.0, 2
    trainer.train([(x, target)])
    for rate in (0.3, 0.15):
        slopes = jax.grad(lambda p: jnp.mean((p[0] @ x + p[1]) ** 2))(expected)
        expected = [tensor - rate * slope for tensor, slope in zip(expected, slopes, strict=True)]
    for found, right in zip(layer.parameters()[0], expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)


# 4. containers, criterions, sharing


def containers():
    """Of each container: how it is made of two layers, and what it computes of their weights and the input."""
    linear = lambda x, w, b: x @ w.T + b  # noqa: E731
    made = {
        "Sequential": (nn.Sequential, 3, lambda p, x: linear(linear(x, *p[:2]), *p[2:])),
        "Concat": (lambda: nn.Concat(1), 3, lambda p, x: jnp.concatenate([linear(x, *p[:2]), linear(x, *p[2:])], 1)),
        "ConcatTable": (nn.ConcatTable, 3, lambda p, x: [linear(x, *p[:2]), linear(x, *p[2:])]),
        "Parallel": (
            lambda: nn.Parallel(1, 1), (2, 3),
            lambda p, x: jnp.concatenate([linear(x[:, 0], *p[:2]), linear(x[:, 1], *p[2:])], 1),
        ),
        "ParallelTable": (nn.ParallelTable, [3, 3], lambda p, x: [linear(x[0], *p[:2]), linear(x[1], *p[2:])]),
    }  # fmt: skip
    return [pytest.param(*case, id=name) for name, case in made.items()]


@pytest.mark.parametrize(("make", "size", "function"), containers())
def test_containers(make, size, function):
    net = make().add(nn.Linear(3, 3)).add(nn.Linear(3, 3))
    assert net.size() == 2
    assert isinstance(net.get(1), nn.Linear)
    if isinstance(size, list):
        x = [draw(4, n) for n in size]
    else:
        x = draw(4, *(size if isinstance(size, tuple) else (size,)))
    weights, gradients = net.parameters()
    assert len(weights) == 4
    expected, pull = jax.vjp(function, weights, x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), net.forward(x), expected)
    ct = jax.tree.map(np.cos, net.output)
    dw, dx = pull(jax.tree.map(jnp.asarray, ct))
    for _ in range(2):  # nothing but parameters' gradients accumulates
        net.backward(x, ct)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, net.gradInput, dx)
    jax.tree.map(close, gradients, [2 * g for g in dw])


TABLES = {
    "CAddTable": (nn.CAddTable(), lambda x, y: x + y), "CMulTable": (nn.CMulTable(), lambda x, y: x * y),
    "CSubTable": (nn.CSubTable(), lambda x, y: x - y), "SelectTable": (nn.SelectTable(1), lambda x, y: y),
    "JoinTable": (nn.JoinTable(0), lambda x, y: jnp.concatenate([x, y])),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_layers_of_tables(name):
    layer, function = TABLES[name]
    x, y = draw(4, 3), draw(4, 3) + 1
    np.testing.assert_allclose(layer.forward([x, y]), function(x, y), rtol=1e-6)
    ct = np.cos(layer.output)
    for found, expected in zip(layer.backward([x, y], ct), vjp(function, ct, x, y), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_table_of_tables_has_a_gradient_of_its_structure():
    net = nn.ConcatTable().add(nn.CAddTable()).add(nn.CMulTable())
    x, y = draw(4, 3), draw(4, 3) + 1
    net.forward([x, y])
    (dx, dy) = net.backward([x, y], [np.ones((4, 3)), np.ones((4, 3))])
    np.testing.assert_allclose(dx, 1 + y, rtol=1e-6)
    np.testing.assert_allclose(dy, 1 + x, rtol=1e-6)


def log_probability(x, y):
    return jnp.mean(-jnp.take_along_axis(x, y[:, None], 1))


CRITERIONS = {
    "MSE": (nn.MSECriterion(), lambda x, y: jnp.mean((x - y) ** 2), draw(4, 3)),
    "MSE, summed": (nn.MSECriterion(False), lambda x, y: jnp.sum((x - y) ** 2), draw(4, 3)),
    "Abs": (nn.AbsCriterion(), lambda x, y: jnp.mean(jnp.abs(x - y)), draw(4, 3) * 2),
    "ClassNLL": (nn.ClassNLLCriterion(), log_probability, np.array([2, 0, 1, 1])),
    "CrossEntropy": (
        nn.CrossEntropyCriterion(), lambda x, y: log_probability(jax.nn.log_softmax(x), y), np.array([2, 0, 1, 1])
    ),
    "BCE": (
        nn.BCECriterion(), lambda x, y: -jnp.mean(y * jnp.log(x) + (1 - y) * jnp.log(1 - x)),
        np.array([0.0, 1.0, 1.0, 0.0])[:, None] * np.ones(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CRITERIONS)
def test_backward_of_a_criterion_is_what_made_its_input_is_given(name):
    criterion, function, target = CRITERIONS[name]
    x = np.abs(draw(4, 3)) / 4 + 0.1
    with pytest.raises(RuntimeError, match="backward assumes that forward was called before, on such shapes"):
        type(criterion)().backward(x, target)
    expected, slope = jax.value_and_grad(function)(x, target)
    assert criterion.forward(x, target) == pytest.approx(float(expected), rel=1e-5)
    assert criterion.output == criterion.forward(x, target)
    ct = criterion.backward(x, target)
    np.testing.assert_allclose(ct, slope, rtol=1e-4, atol=1e-6)
    assert criterion.backward(x, target) is ct


def test_share_and_clone_with_shared_weights():
    first, x, ct = nn.Linear(3, 2), draw(4, 3), draw(4, 2)
    twin = first.clone("weight", "gradWeight")
    assert twin.weight is first.weight
    assert twin.gradWeight is first.gradWeight
    assert twin.bias is not first.bias
    np.testing.assert_array_equal(twin.bias, first.bias)
    other = nn.Linear(3, 2).share(first, "bias")
    assert other.bias is first.bias
    net = nn.ParallelTable().add(first).add(twin)
    net.forward([x, x])
    net.zeroGradParameters()
    net.backward([x, x], [ct, ct])
    expected = vjp(lambda w: 2 * (x @ w.T), ct, first.weight)[0]
    np.testing.assert_allclose(first.gradWeight, expected, rtol=1e-5)
    weight = first.weight.copy()
    net.updateParameters(0.1)  # torch/nn#422: for each module that shares it, once
    np.testing.assert_allclose(first.weight, weight - 0.2 * expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"share: nn.Linear and nn.Tanh are not made of the same layers"):
        first.share(nn.Tanh(), "weight")


# 5. getParameters


def test_get_parameters_are_two_vectors_whose_views_the_parameters_become():
    net, x = nn.Sequential().add(nn.Linear(3, 2)).add(nn.Tanh()).add(nn.Linear(2, 2)), draw(4, 3)
    before = np.concatenate([tensor.reshape(-1) for tensor in net.parameters()[0]])
    flat, gradient = net.getParameters()
    np.testing.assert_array_equal(flat, before)
    net.forward(x)
    net.backward(x, np.ones((4, 2)))
    np.testing.assert_array_equal(gradient, np.concatenate([g.reshape(-1) for g in net.parameters()[1]]))
    assert gradient.any()
    flat -= 0.1 * gradient
    np.testing.assert_array_equal(net.get(0).weight.reshape(-1), flat[:6])
    gradient.fill(0)
    assert not net.get(2).gradWeight.any()


def test_shared_parameters_are_in_the_vector_once():
    first = nn.Linear(3, 3)
    net = nn.Sequential().add(first).add(first.clone("weight", "gradWeight", "bias", "gradBias")).add(nn.Linear(3, 1))
    flat, gradient = net.getParameters()
    assert len(flat) == len(gradient) == 12 + 4
    assert net.get(1).weight is first.weight
    flat.fill(7)
    assert (net.get(1).bias == 7).all()


def test_parameters_shared_in_another_way_than_their_gradients():
    first = nn.Linear(3, 3)
    with pytest.raises(AssertionError, match="check that you are sharing parameters and gradParameters"):
        nn.Sequential().add(first).add(first.clone("weight")).getParameters()
    a, b, c = (nn.Linear(3, 3, bias=False) for _ in range(3))
    b.weight, c.gradWeight = a.weight, a.gradWeight  # as many of each, but not the same ones
    with pytest.raises(AssertionError, match="misaligned parameter at 1"):
        nn.Sequential().add(a).add(b).add(c).getParameters()


def test_get_parameters_is_called_once():
    net = nn.Linear(3, 2)
    first, _ = net.getParameters()
    second, _ = net.getParameters()
    first.fill(0)  # moves nothing any more
    assert second.any()
    assert np.shares_memory(net.weight, second)
    assert not np.shares_memory(net.weight, first)


# 6. checking, training and using, buffers


CHECKED = {
    "Linear": (nn.Linear(3, 2), (2, 3)),
    "SpatialConvolution": (nn.SpatialConvolution(2, 2, 2, 3, 2, 1, 1, 0), (2, 3, 4)),
    "SpatialMaxPooling": (nn.SpatialMaxPooling(2, 2), (1, 4, 4)),
    "SpatialAveragePooling": (nn.SpatialAveragePooling(2, 2, 1, 1, 1, 1), (1, 3, 3)),
    "Tanh": (nn.Tanh(), (2, 3)), "Sigmoid": (nn.Sigmoid(), (2, 3)), "SoftPlus": (nn.SoftPlus(), (2, 3)),
    "Square": (nn.Square(), (2, 3)), "SoftMax": (nn.SoftMax(), (2, 3)), "LogSoftMax": (nn.LogSoftMax(), (2, 3)),
    "Identity": (nn.Identity(), (2, 3)), "Reshape": (nn.Reshape(6), (2, 2, 3)),
    "Concat": (nn.Concat(1).add(nn.Linear(3, 2)).add(nn.Sequential().add(nn.Tanh()).add(nn.Linear(3, 1))), (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
def test_jacobian(name):
    module, shape = CHECKED[name]
    input = np.zeros(shape, np.float32)
    assert nn.Jacobian.testJacobian(module, input) < 2e-3
    assert np.abs(input).max() > 0.1
    for param, gradient in zip(*module.parameters(), strict=True):
        assert nn.Jacobian.testJacobianParameters(module, input, param, gradient) < 2e-3


def test_jacobian_finds_a_wrong_derivative():
    class Halved(nn.Linear):
        def updateGradInput(self, input, gradOutput):
            self.gradInput = super().updateGradInput(input, gradOutput) / 2
            return self.gradInput

        def accGradParameters(self, input, gradOutput, scale=1.0):
            super().accGradParameters(input, gradOutput, 2 * scale)

    module, input = Halved(3, 2), np.zeros((2, 3), np.float32)
    assert nn.Jacobian.testJacobian(module, input) > 0.05
    assert nn.Jacobian.testJacobianParameters(module, input, module.weight, module.gradWeight) > 0.1


def test_relu_by_differences_in_double():
    with jax.enable_x64(True):
        module = nn.Sequential().add(nn.Linear(3, 2)).add(nn.ReLU())
        module.type(np.float64)
        assert nn.Jacobian.testJacobian(module, np.zeros((2, 3)), perturbation=1e-6) < 1e-8
        assert module.output.dtype == module.gradInput.dtype == np.float64


def test_a_seed_draws_the_same_again():
    drawn = []
    for _ in range(2):
        nn.manualSeed(3)
        drawn.append(nn.Linear(3, 2).weight)
    np.testing.assert_array_equal(*drawn)
    assert not np.array_equal(nn.Linear(3, 2).weight, drawn[0])
    assert np.abs(nn.Linear(4, 100).weight).max() <= 0.5  # 1 / sqrt(inputs)


def test_training_and_evaluate():
    net, x = nn.Sequential().add(nn.Dropout(0.5)), np.ones((40, 50), np.float32)
    out = net.forward(x).copy()
    assert set(np.unique(out)) == {0, 2}
    np.testing.assert_array_equal(net.backward(x, x), out)
    assert not np.array_equal(net.forward(x), out)
    net.evaluate()
    np.testing.assert_array_equal(net.forward(x), x)
    net.training()
    assert (net.forward(x) == 0).any()


def test_clear_state_frees_the_buffers():
    net, x = nn.Sequential().add(nn.Linear(3, 2)).add(nn.ReLU()), draw(4, 3)
    net.forward(x)
    net.backward(x, np.ones((4, 2)))
    assert net.clearState() is net
    for module in net.listModules():
        assert module.output.size == module.gradInput.size == 0
    assert net.get(0).gradWeight.any()
    with pytest.raises(RuntimeError, match="forward was called before"):
        net.backward(x, np.ones((4, 2)))
    assert net.forward(x).shape == (4, 2)


def test_there_is_no_second_order():
    """The gradient changes with the input, so it has a derivative; but nothing that could be differentiated made it."""
    net, x, ct = nn.Tanh(), draw(4, 3), np.ones((4, 3), np.float32)
    net.forward(x)
    slope = net.backward(x, ct).copy()
    net.forward(x + 0.1)
    assert np.abs(net.backward(x + 0.1, ct) - slope).max() > 0.01
    with pytest.raises(TypeError, match="its buffers hold numbers: what it computes cannot be traced"):
        graph.trace(lambda x: net.backward(x, ct), x)
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        tape.tensor(net.gradInput).sum().backward()
