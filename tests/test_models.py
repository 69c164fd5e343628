"""The networks: shapes, weights from PyTorch, the same gradient on both engines, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph, models, nn, tape

rng = np.random.default_rng(0)


def of_both_engines(net, loss, *inputs):
    """Gradients of ``loss(net's results, ...)`` by name: on the tape, by the graph engine and by JAX."""
    params = {name: p.array for name, p in net.named_parameters()}

    def of_params(params):
        result, _ = nn.functional_call(net, params, inputs, mutable=True)
        return loss(result)

    by_graph, by_jax = graph.grad(of_params)(params), jax.grad(of_params)(params)
    loss(net(*[tape.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs])).backward()
    return {name: p.grad.numpy() for name, p in net.named_parameters()}, by_graph, by_jax


CASES = {
    "mlp": (lambda: models.mlp([4, 6, 3]), lambda y: (y * y).sum(), rng.standard_normal((5, 4)).astype(np.float32)),
    "Net": (models.Net, lambda y: (y * y).sum(), rng.standard_normal((2, 3, 32, 32)).astype(np.float32)),
    "lenet5": (models.lenet5, lambda y: (y * y).sum(), rng.standard_normal((2, 1, 28, 28)).astype(np.float32)),
    "ResNet": (lambda: models.ResNet((1, 1), 5), lambda y: (y * y).sum(), np.float32(rng.normal(size=(2, 3, 16, 16)))),
    "CharLSTM": (lambda: models.CharLSTM(7, 8, 2), lambda y: (y[0] * y[0]).sum(), rng.integers(7, size=(2, 5))),
    "GPT": (lambda: models.GPT(11, 8, 12, 3), lambda y: (y * y).sum(), rng.integers(11, size=(2, 6))),
    "TreeLSTM": (lambda: models.TreeLSTM(9, 3, 8), lambda y: (y * y).sum(), ((1, 2), (3, (4, 8)))),
}  # fmt: skip


QUICK = ("mlp", "Net", "GPT")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES]
)
def test_both_engines_have_jaxs_gradient(name):
    make, loss, inputs = CASES[name]
    tape.manual_seed(0)
    by_tape, by_graph, by_jax = of_both_engines(make(), loss, inputs)
    for key, expected in by_jax.items():
        scale = np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(by_tape[key] / scale, expected / scale, atol=2e-3, err_msg=key)
        np.testing.assert_allclose(by_graph[key] / scale, expected / scale, atol=2e-3, err_msg=key)
        assert np.abs(expected).max() > 0 or key.endswith("bias"), key


def test_resnet18_has_torchvisions_layout():
    net = models.resnet18()
    state = net.state_dict()
    assert len(state) == 122
    assert sum(p.size for _, p in net.named_parameters() for p in [p.array]) == 11_689_512
    assert list(state)[:7] == [
        "conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
    ]  # fmt: skip
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.1.bn2.num_batches_tracked"].shape == ()
    assert state["fc.weight"].shape == (1000, 512)


def test_a_gpt_has_no_more_places_than_it_was_made_with():
    net = models.GPT(11, 4, 8, 2, layers=1)
    with pytest.raises(ValueError, match="5 tokens are more than the 4"):
        net(tape.tensor(rng.integers(11, size=(1, 5))))
    with pytest.raises(ValueError, match="must be divisible by the number of heads"):
        models.GPT(11, 4, 9, 2)


def test_the_future_is_masked():
    net = models.GPT(11, 8, 12, 3)
    codes = rng.integers(11, size=(1, 6))
    other = codes.copy()
    other[0, 4] = (other[0, 4] + 1) % 11
    a, b = net(tape.tensor(codes)).detach().numpy(), net(tape.tensor(other)).detach().numpy()
    np.testing.assert_allclose(a[:, :4], b[:, :4], atol=1e-6)
    assert np.abs(a[:, 4:] - b[:, 4:]).max() > 1e-4


def test_a_deep_tree_needs_no_recursion():
    tree = 0
    for word in range(600):
        tree = (tree, word % 9)
    net = models.TreeLSTM(9, 3, 4)
    net(tree).sum().backward()
    assert np.isfinite(net.leaf.weight.grad.numpy()).all()
    assert np.abs(jnp.asarray(net.right.weight.grad.array)).max() > 0
