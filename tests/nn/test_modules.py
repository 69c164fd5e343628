"""nn's Modules against PyTorch's: text, names, values, gradients, states; and as functions under the graph engine."""

import copy
import os
import subprocess
import sys
import warnings
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph, nn, tape

rng = np.random.default_rng(0)


def real(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.abs(real(*shape)) + 0.1


class Case:
    """``text`` makes a Module where ``nn`` is this package's, or PyTorch's; it is called with ``inputs``."""

    def __init__(self, text, *inputs, evaluated=False, tolerance=2e-5):
        self.text, self.inputs, self.evaluated, self.tolerance = text, inputs, evaluated, tolerance

    def make(self, nn):
        module = eval(self.text, {"nn": nn, "OrderedDict": OrderedDict})  # a line of this file
        return module.eval() if self.evaluated else module


def integers(high, *shape):
    return rng.integers(high, size=shape).astype(np.int32)


LAYERS = [
    Case("nn.Linear(4, 3)", real(5, 4)),
    Case("nn.Linear(4, 3, bias=False)", real(2, 5, 4)),
    Case("nn.Identity(7, extra=True)", real(2, 3)),
    Case("nn.Conv1d(4, 6, 3, padding=1, groups=2)", real(2, 4, 7)),
    Case("nn.Conv1d(2, 3, 3, padding='same', padding_mode='reflect')", real(2, 2, 7)),
    Case("nn.Conv2d(3, 4, 3, stride=2, padding=(1, 0))", real(2, 3, 7, 6)),
    Case("nn.Conv2d(3, 4, (3, 2), dilation=2, bias=False)", real(3, 7, 6)),
    Case("nn.Conv2d(2, 2, 3, padding=1, padding_mode='circular')", real(1, 2, 5, 4)),
    Case("nn.Conv3d(1, 2, 2)", real(2, 1, 3, 4, 3)),
    Case("nn.ConvTranspose1d(4, 2, 3, stride=2)", real(2, 4, 5)),
    Case("nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, groups=1)", real(2, 3, 4, 5)),
    Case("nn.ConvTranspose3d(2, 2, 2, bias=False)", real(1, 2, 2, 3, 2)),
    Case("nn.MaxPool1d(3)", real(2, 3, 8)),
    Case("nn.MaxPool2d(3, stride=2, padding=1)", real(2, 3, 7, 8)),
    Case("nn.MaxPool3d(2)", real(1, 2, 4, 4, 5)),
    Case("nn.AvgPool1d(2)", real(2, 3, 8)),
    Case("nn.AvgPool2d((2, 3), ceil_mode=True)", real(2, 3, 7, 8)),
    Case("nn.AvgPool3d(2)", real(1, 2, 4, 4, 5)),
    Case("nn.AdaptiveAvgPool1d(3)", real(2, 3, 8)),
    Case("nn.AdaptiveAvgPool2d((1, 1))", real(2, 3, 5, 4)),
    Case("nn.AdaptiveAvgPool2d((2, None))", real(2, 3, 5, 4)),
    Case("nn.AdaptiveAvgPool3d(2)", real(1, 2, 4, 4, 5)),
    Case("nn.AdaptiveMaxPool1d(3)", real(2, 3, 8)),
    Case("nn.AdaptiveMaxPool2d((2, None))", real(2, 3, 5, 4)),
    Case("nn.AdaptiveMaxPool3d(2)", real(1, 2, 4, 4, 5)),
    Case("nn.Embedding(7, 3, padding_idx=2)", integers(7, 2, 5)),
    Case("nn.Dropout(0.4)", real(3, 4), evaluated=True),
    Case("nn.Flatten()", real(2, 3, 4)),
    Case("nn.Unflatten(1, (2, 3))", real(2, 6)),
    Case("nn.Upsample(scale_factor=2.0, mode='bilinear')", real(1, 2, 3, 4)),
    *(
        Case(f"nn.{name}", real(3, 4))
        for name in (
            *("ELU(0.7)", "GELU()", "GELU('tanh')", "GLU()", "Hardtanh(-0.5, 0.8)", "LeakyReLU(0.2)", "LogSigmoid()"),
            *("LogSoftmax(dim=1)", "ReLU()", "ReLU6()", "SELU()", "SiLU()", "Sigmoid()", "Softmax(dim=1)"),
            *("Softplus(2.0)", "Tanh()", "PReLU()", "PReLU(4)"),
        )
    ),
    Case("nn.BatchNorm1d(4)", real(6, 4)),
    Case("nn.BatchNorm1d(4, momentum=None, affine=False)", real(3, 4, 5)),
    Case("nn.BatchNorm2d(3)", real(4, 3, 5, 4)),
    Case("nn.BatchNorm2d(3)", real(4, 3, 5, 4), evaluated=True),
    Case("nn.BatchNorm2d(3, track_running_stats=False)", real(4, 3, 5, 4), evaluated=True),
    Case("nn.BatchNorm3d(2)", real(2, 2, 3, 2, 2)),
    Case("nn.LayerNorm((3, 4))", real(2, 3, 4)),
    Case("nn.LayerNorm(4, bias=False)", real(2, 3, 4)),
    Case("nn.RMSNorm(4)", real(2, 3, 4)),
    Case("nn.GroupNorm(2, 4)", real(2, 4, 3)),
    Case("nn.InstanceNorm2d(3, affine=True)", real(2, 3, 4, 5)),
    Case("nn.InstanceNorm1d(3)", real(3, 5)),
    Case("nn.RNNCell(3, 4)", real(2, 3)),
    Case("nn.RNNCell(3, 4, nonlinearity='relu')", real(3), real(4)),
    Case("nn.LSTMCell(3, 4)", real(2, 3), (real(2, 4), real(2, 4))),
    Case("nn.GRUCell(3, 4, bias=False)", real(2, 3), real(2, 4)),
    Case("nn.RNN(3, 4, 2, nonlinearity='relu')", real(5, 2, 3)),
    Case("nn.LSTM(3, 4)", real(5, 2, 3), (real(1, 2, 4), real(1, 2, 4))),
    Case("nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)", real(2, 5, 3)),
    Case("nn.GRU(3, 4, num_layers=2, bias=False)", real(5, 3)),
    Case("nn.GRU(3, 4, bidirectional=True)", real(5, 2, 3), real(2, 2, 4)),
    Case("nn.MultiheadAttention(6, 2)", *[real(5, 2, 6)] * 3),
    Case("nn.MultiheadAttention(6, 3, batch_first=True, kdim=4, vdim=5)", real(2, 3, 6), real(2, 5, 4), real(2, 5, 5)),
    Case("nn.MultiheadAttention(6, 2, bias=False)", *[real(4, 6)] * 3),
    Case("nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0)", real(5, 2, 6), tolerance=2e-4),
    Case("nn.TransformerEncoderLayer(6, 2, 8, 0.0, 'gelu', batch_first=True, norm_first=True)", real(2, 5, 6)),
    Case("nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0), 2)", real(5, 2, 6), tolerance=2e-4),
    Case("nn.Sequential(OrderedDict(a=nn.Linear(3, 4), b=nn.ReLU(inplace=True), c=nn.Linear(4, 2)))", real(5, 3)),
    Case("nn.MSELoss()", real(3, 4), real(3, 4)),
    Case("nn.L1Loss(reduction='sum')", real(3, 4), real(3, 4)),
    Case("nn.SmoothL1Loss(beta=0.5)", real(3, 4), real(3, 4)),
    Case("nn.HuberLoss(delta=0.7)", real(3, 4), real(3, 4)),
    Case("nn.KLDivLoss(reduction='batchmean')", real(3, 4), positive(3, 4)),
    Case("nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1)", real(5, 4), integers(4, 5)),
    Case("nn.NLLLoss(reduction='none')", real(5, 4), integers(4, 5)),
    Case("nn.BCELoss()", np.clip(positive(3, 4), 0, 0.9), np.clip(positive(3, 4), 0, 1)),
    Case("nn.BCEWithLogitsLoss()", real(3, 4), np.clip(positive(3, 4), 0, 1)),
]


def leaves(tree):
    """The floating-point arrays of results: of lists, tuples, and None for what there is not."""
    if tree is None:
        return []
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, (tuple, list)) else [tree]


def mapped(function, tree):
    return tuple(mapped(function, part) for part in tree) if isinstance(tree, tuple) else function(tree)


def identified(function, inputs):
    """``inputs`` converted; one that is given several times stays one."""
    done = {}
    return [done.setdefault(id(x), mapped(function, x)) for x in inputs]


def as_numpy(x):
    return np.asarray(x.detach().numpy())


def is_real(x):
    return x.dtype.kind == "f"


def with_states(case, torch):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "enable_nested_tensor is True")
        theirs = case.make(torch.nn)
    ours = case.make(nn)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.text)
def test_a_module_is_as_pytorchs(case):
    torch = pytest.importorskip("torch")
    ours, theirs = with_states(case, torch)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizable", "")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]

    x = identified(lambda a: tape.tensor(a, requires_grad=is_real(a)), case.inputs)
    y = identified(
        lambda a: torch.tensor(a, requires_grad=is_real(a)) if is_real(a) else torch.tensor(a.astype(np.int64)),
        case.inputs,
    )
    mine, expected = leaves(ours(*x)), leaves(theirs(*y))
    assert len(mine) == len(expected)
    for a, b in zip(mine, expected, strict=True):
        np.testing.assert_allclose(as_numpy(a), as_numpy(b), rtol=case.tolerance, atol=case.tolerance)
    differentiable = [i for i, b in enumerate(expected) if b.requires_grad]
    cts = [real(*expected[i].shape) for i in differentiable]
    if not cts:
        return
    tape.autograd.backward([mine[i] for i in differentiable], [tape.tensor(ct) for ct in cts])
    torch.autograd.backward([expected[i] for i in differentiable], [torch.tensor(ct) for ct in cts])
    pairs = [*zip(ours.parameters(), theirs.parameters(), strict=True)]
    pairs += [(a, b) for a, b in zip(leaves(x), leaves(y), strict=True) if b.requires_grad]
    for a, b in pairs:
        assert (a.grad is None) == (b.grad is None)
        if b.grad is not None:
            np.testing.assert_allclose(as_numpy(a.grad), as_numpy(b.grad), rtol=50 * case.tolerance, atol=1e-4)
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        np.testing.assert_allclose(as_numpy(a), as_numpy(b), rtol=1e-5, atol=1e-6, err_msg=name)


TRACED = [
    case for case in LAYERS if "Norm2d(3)" in case.text or not case.text.startswith(("nn.BatchNorm", "nn.Dropout"))
]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.text, marks=[pytest.mark.slow] if i % 5 else []) for i, c in enumerate(TRACED)]
)
def test_the_same_definition_runs_in_the_graph(case):
    module = case.make(nn)
    inputs = identified(jnp.asarray, case.inputs)
    params = {name: p.array for name, p in module.named_parameters()}

    def loss(params):
        result, _ = nn.functional_call(module, params, tuple(inputs), mutable=True)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves(result))

    value, gradient = graph.value_and_grad(loss)(params)
    expected = sum((tape_sum(leaf) for leaf in leaves(module(*identified(tape.tensor, case.inputs)))), tape.tensor(0.0))
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4, atol=1e-5)
    if params:
        expected.backward()
        for name, parameter in module.named_parameters():
            np.testing.assert_allclose(gradient[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def tape_sum(x):
    return x.sin().sum()


# --- the Module -------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """The classifier of PyTorch's CIFAR-10 tutorial, as it is written there."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(nn.functional.relu(self.conv1(x)))
        x = self.pool(nn.functional.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = nn.functional.relu(self.fc1(x))
        x = nn.functional.relu(self.fc2(x))
        return self.fc3(x)


def test_a_users_module_on_the_tape_and_in_the_graph():
    net, x, y = Net(), real(2, 3, 32, 32), np.array([3, 7], np.int32)
    loss = nn.CrossEntropyLoss()(net(tape.tensor(x)), tape.tensor(y))
    loss.backward()

    def of_params(params):
        return nn.functional.cross_entropy(nn.functional_call(net, params, jnp.asarray(x)), y)

    params = {name: p.array for name, p in net.named_parameters()}
    by_graph, by_jax = graph.grad(of_params)(params), jax.grad(of_params)(params)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), by_graph[name], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(by_graph[name], by_jax[name], rtol=1e-3, atol=1e-6)


def test_members_are_found_named_once_and_frozen():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Tanh()))
    net.add_module("tied", net[0])
    assert [name for name, _ in net.named_modules()] == ["", "0", "1", "1.0", "1.1"]
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 6
    assert "tied.weight" in net.state_dict()
    assert net.get_parameter("1.0.weight") is net[1][0].weight
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net[1] = nn.Linear(2, 3)
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
    result = net[1](net[0](tape.randn(4, 2))).sum()
    result.backward()
    assert net[0].weight.grad is None
    assert net[1].weight.grad is not None
    net.zero_grad()
    assert net[1].weight.grad is None


def test_train_and_eval_reach_everything_inside():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    assert net.training
    assert not net.eval()[0].training
    assert net.train()[1].training
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train("yes")


def test_containers_are_lists_and_dicts_of_members():
    modules = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 2)])
    modules.append(nn.Linear(2, 3)).insert(0, nn.Tanh())
    assert [type(m).__name__ for m in modules] == ["Tanh", "Linear", "Linear", "Linear"]
    assert [name for name, _ in modules.named_children()] == ["0", "1", "2", "3"]
    del modules[0]
    assert (len(modules), modules[-1].out_features, len(modules[1:])) == (3, 3, 2)
    with pytest.raises(IndexError, match="index 3 is out of range"):
        modules[3]
    named = nn.ModuleDict({"a": nn.Linear(1, 1)})
    named["b"] = nn.Tanh()
    assert (list(named), "b" in named, len(named)) == (["a", "b"], True, 2)
    params = nn.ParameterList([tape.ones(2), tape.zeros(1)])
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in params)
    assert [name for name, _ in params.named_parameters()] == ["0", "1"]
    by_name = nn.ParameterDict({"w": tape.ones(2)})
    assert by_name["w"].requires_grad
    sequential = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 3))
    assert isinstance(sequential[:1], nn.Sequential)
    assert len(sequential[:1]) == 1


def test_a_parameter_is_a_tensor_that_is_told_from_others():
    parameter = nn.Parameter(tape.ones(2))
    assert type(parameter) is tape.Tensor
    assert isinstance(parameter, nn.Parameter)
    assert parameter.requires_grad
    assert not isinstance(tape.ones(2, requires_grad=True), nn.Parameter)
    net = nn.Linear(2, 2)
    twin = copy.deepcopy(net)
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.weight is not net.weight
    with tape.no_grad():
        twin.weight.zero_()
    assert net.weight.abs().sum().item() > 0


def test_wrong_members_are_refused():
    class Early(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(tape.ones(1))

    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        Early()
    net = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="cannot assign 'int' object as parameter 'weight'"):
        net.weight = 3
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'nothing'"):
        _ = net.nothing
    with pytest.raises(KeyError, match="attribute 'forward' already exists"):
        net.add_module("forward", nn.Tanh())
    with pytest.raises(NotImplementedError, match='missing the required "forward" function'):
        nn.Module()(1)
    net.register_buffer("kept", tape.ones(1))
    net.register_buffer("passing", tape.ones(1), persistent=False)
    assert list(net.state_dict()) == ["weight", "bias", "kept"]
    net.weight = None
    assert "weight" not in net.state_dict()


def test_states_that_do_not_fit_are_refused_whole():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = net.state_dict()["0.weight"].numpy().copy()
    state = {name: np.zeros(value.shape, np.float32) for name, value in net.state_dict().items()}
    state["1.weight"] = np.zeros((2, 3), np.float32)
    state["other"] = state.pop("1.bias")
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    assert 'Unexpected key(s) in state_dict: "other"' in str(caught.value)
    assert 'Missing key(s) in state_dict: "1.bias"' in str(caught.value)
    assert "size mismatch for 1.weight: copying a param with shape torch.Size([2, 3])" in str(caught.value)
    np.testing.assert_array_equal(net.state_dict()["0.weight"].numpy(), before)
    found = net.load_state_dict({"0.weight": state["0.weight"]}, strict=False)
    assert found.missing_keys == ["0.bias", "1.weight", "1.bias"]
    assert not net[0].weight.abs().sum().item()


def test_a_state_dict_shows_the_elements_that_the_module_has():
    net = nn.Linear(2, 1)
    state = net.state_dict()
    with tape.no_grad():
        net.weight.fill_(3.0)
    assert state["weight"].numpy().tolist() == [[3.0, 3.0]]
    assert not state["weight"].requires_grad


MADE = [
    "nn.Linear(2, 3, {})", "nn.Conv2d(2, 4, 3, {})", "nn.ConvTranspose1d(2, 4, 3, {})", "nn.Embedding(4, 3, {})",
    "nn.BatchNorm1d(3, {})", "nn.LayerNorm(3, {})", "nn.RMSNorm(3, {})", "nn.GroupNorm(1, 3, {})",
    "nn.InstanceNorm1d(3, affine=True, {})", "nn.PReLU({})", "nn.LSTM(2, 3, bidirectional=True, {})",
    "nn.GRUCell(2, 3, {})", "nn.MultiheadAttention(4, 2, {})", "nn.TransformerEncoderLayer(4, 2, 8, {})",
]  # fmt: skip


@pytest.mark.parametrize("text", MADE)
def test_layers_are_made_in_a_dtype_and_on_a_device(text):
    def made(how):
        return eval(text.format(how), {"nn": nn})  # a line of this file

    where = made("device='cpu:0', dtype='bfloat16'")
    assert {str(p.dtype) for p in where.parameters()} == {"bfloat16"}
    assert {p.device.type for p in (*where.parameters(), *where.buffers())} == {"cpu"}
    with pytest.raises(RuntimeError, match=r"there is no device 'cpu:7' here: JAX has cpu:0\."):
        made("device='cpu:7'")
    with pytest.raises(
        RuntimeError, match=r"Expected one of cpu, cuda, .* device type at start of device string: warp"
    ):
        made("device='warp'")


def test_a_layer_stays_on_its_device():
    """With a second device, which only another process can have; its first values and its training are there."""
    program = """
import jax, numpy as np
from twograd import nn, optim, tape
net = nn.Sequential(nn.Linear(2, 3, device="cpu:1"), nn.BatchNorm1d(3, device="cpu:1"))
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for _ in range(2):
    optimizer.zero_grad()
    net(tape.tensor(np.ones((4, 2), np.float32), device="cpu:1")).sum().backward()
    optimizer.step()
for tensor in (*net.parameters(), *net.buffers()):
    assert tensor.array.devices() == {jax.devices("cpu")[1]}, tensor
"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "XLA_FLAGS": flags}, check=True)


def test_converting_keeps_gradients_and_integers():
    net = nn.BatchNorm1d(2)
    net(tape.randn(3, 2)).sum().backward()
    net.half()
    assert net.weight.dtype == net.running_mean.dtype == net.weight.grad.dtype == np.float16
    assert net.num_batches_tracked.dtype == np.int32


# --- as functions -----------------------------------------------------------------------------------------------------


def test_a_functional_call_returns_what_changes_and_leaves_the_module_alone():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    params = {name: p.array for name, p in net.named_parameters()}
    x = jnp.asarray(real(4, 2))
    with pytest.raises(RuntimeError, match=r"changes the buffers 1.running_mean, 1.running_var, 1.num_batches_tracked"):
        nn.functional_call(net, params, x)
    _, buffers = jax.jit(lambda params, x: nn.functional_call(net, params, x, mutable=True))(params, x)
    assert net[1].num_batches_tracked.item() == 0
    net(tape.tensor(x))
    for name, buffer in net.named_buffers():
        np.testing.assert_allclose(buffers[name], buffer.numpy(), rtol=1e-5, atol=1e-6)
    nn.functional_call(net.eval(), {**params, **buffers}, x)


def test_tensors_given_to_a_functional_call_are_recorded():
    net, x = nn.Linear(2, 1), tape.ones(3, 2)
    weight = tape.ones(1, 2, requires_grad=True)
    nn.functional_call(net, {"weight": weight}, x).sum().backward()
    assert weight.grad.numpy().tolist() == [[3.0, 3.0]]
    assert net.weight.grad is None
    assert net.bias.grad.item() == 3


def test_tied_parameters_are_replaced_together():
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    net.add_module("again", net[0])
    result = nn.functional_call(net, {"0.weight": jnp.eye(2) * 2}, jnp.ones((1, 2)))
    assert np.asarray(result).tolist() == [[4.0, 4.0]]


def test_what_is_random_in_a_trace_needs_a_key():
    net, x = nn.Dropout(0.5), jnp.ones((4, 100))
    with pytest.raises(RuntimeError, match=r"functional_call\(..., rng=jax.random.key\(seed\)\)"):
        jax.jit(lambda x: nn.functional_call(net, {}, x))(x)
    dropped = jax.jit(lambda x, key: nn.functional_call(net, {}, x, rng=key))
    first, again, other = (dropped(x, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert nn.functional_call(net, {}, x).shape == x.shape


def test_wrong_names_and_shapes_of_values_are_refused():
    net = nn.Linear(2, 1)
    with pytest.raises(KeyError, match="Linear has no parameter or buffer 'wieght'"):
        nn.functional_call(net, {"wieght": jnp.ones((1, 2))}, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"weight has the shape \[1, 2\], not \[2, 1\]"):
        nn.functional_call(net, {"weight": jnp.ones((2, 1))}, jnp.ones((3, 2)))
    assert isinstance(net.weight, nn.Parameter)


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_whole_channels_are_dropped(kind):
    shape = (8, 5, *[3] * int(kind.__name__[-2]))
    out = kind(0.5)(tape.ones(*shape)).numpy().reshape(8, 5, -1)
    assert ((out == 0).all(-1) | (out == 2).all(-1)).all()
    assert 0 < (out == 0).mean() < 1


def test_dropout_scales_what_it_keeps_and_its_gradient():
    tape.manual_seed(0)
    x = tape.ones(1000, requires_grad=True)
    out = nn.Dropout(0.25)(x)
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), out.detach().numpy(), rtol=1e-6)
    assert 0.7 < (out.detach().numpy() != 0).mean() < 0.8


# --- masks and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bool", "float", "per head", "padding", "both"])
def test_attention_with_masks_is_as_pytorchs(kind):
    torch = pytest.importorskip("torch")
    ours, theirs = with_states(Case("nn.MultiheadAttention(4, 2, batch_first=True)"), torch)
    x = real(2, 5, 4)
    causal = np.triu(np.ones((5, 5), bool), 1)
    masks = {
        "bool": {"attn_mask": causal},
        "float": {"attn_mask": np.where(causal, -np.inf, 0).astype(np.float32)},
        "per head": {"attn_mask": np.broadcast_to(causal, (4, 5, 5)).copy()},
        "padding": {"key_padding_mask": np.array([[False] * 4 + [True], [False] * 5])},
        "both": {"attn_mask": causal, "key_padding_mask": np.array([[False] * 4 + [True], [False] * 5])},
    }[kind]
    for average in (True, False):
        mine = ours(*[tape.tensor(x)] * 3, **mapped_dict(tape.tensor, masks), average_attn_weights=average)
        expected = theirs(*[torch.tensor(x)] * 3, **mapped_dict(torch.tensor, masks), average_attn_weights=average)
        for a, b in zip(mine, expected, strict=True):
            np.testing.assert_allclose(as_numpy(a), as_numpy(b), rtol=1e-5, atol=1e-6)


def mapped_dict(function, values):
    return {key: function(value) for key, value in values.items()}


@pytest.mark.parametrize("pos", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_weighted_losses_are_as_pytorchs(pos, weighted):
    torch = pytest.importorskip("torch")
    x, t = real(3, 4), np.clip(positive(3, 4), 0, 1)
    weights = {"weight": positive(4)} if weighted else {}
    weights |= {"pos_weight": positive(4)} if pos else {}
    mine = nn.BCEWithLogitsLoss(**mapped_dict(tape.tensor, weights))(tape.tensor(x), tape.tensor(t))
    expected = torch.nn.BCEWithLogitsLoss(**mapped_dict(torch.tensor, weights))(torch.tensor(x), torch.tensor(t))
    np.testing.assert_allclose(mine.item(), expected.item(), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nn.Conv2d(3, 4, 3, groups=2)", "in_channels must be divisible by groups"),
        ("nn.Conv2d(3, 4, 3, padding_mode='same')", "padding_mode must be one of"),
        ("nn.Dropout(1.5)", "dropout probability has to be between 0 and 1, but got 1.5"),
        ("nn.GroupNorm(2, 3)", "num_channels must be divisible by num_groups"),
        ("nn.LSTM(3, 0)", "hidden_size and num_layers must be greater than zero"),
        ("nn.MultiheadAttention(5, 2)", "embed_dim must be divisible by num_heads"),
        ("nn.MSELoss(reduction='average')", "average is not a valid value for reduction"),
        ("nn.BatchNorm2d(3)(x)", r"expected 4D input \(got 2D input\)"),
        ("nn.LSTM(3, 2)(y)", "Expected 3, got 4"),
        ("nn.ConvTranspose1d(2, 2, 2)(z, output_size=(9,))", r"valid sizes range from \[4\] to \[4\]"),
    ],
)
def test_wrong_arguments_are_refused(text, error):
    given = {"nn": nn, "x": tape.ones(2, 3), "y": tape.ones(2, 2, 4), "z": tape.ones(1, 2, 3)}
    with pytest.raises((ValueError, AssertionError, RuntimeError), match=error):
        eval(text, given)  # a line of this file


# --- first values and utilities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("kaiming_uniform_", {"a": 5**0.5}), ("kaiming_normal_", {"nonlinearity": "relu", "mode": "fan_out"}),
        ("xavier_uniform_", {"gain": 2.0}), ("xavier_normal_", {}), ("uniform_", {"a": -1.0}),
        ("normal_", {"std": 0.3}), ("trunc_normal_", {"std": 2.0}), ("constant_", {"val": 3.0}), ("eye_", {}),
        ("orthogonal_", {"gain": 1.5}),
    ],
)  # fmt: skip
def test_first_values_have_pytorchs_distributions(name, settings):
    torch = pytest.importorskip("torch")
    mine, theirs = tape.zeros(60, 80), torch.zeros(60, 80)
    assert getattr(nn.init, name)(mine, **settings) is mine
    getattr(torch.nn.init, name)(theirs, **settings)
    a, b = mine.numpy(), theirs.numpy()
    np.testing.assert_allclose(a.std(), b.std(), rtol=0.06)
    np.testing.assert_allclose(np.abs(a).max(), np.abs(b).max(), rtol=0.35)
    if name == "orthogonal_":
        np.testing.assert_allclose(a @ a.T, 2.25 * np.eye(60), atol=1e-4)


def test_dirac_hands_channels_on():
    conv = nn.Conv1d(4, 4, 3, padding=1, groups=2, bias=False)
    nn.init.dirac_(conv.weight, groups=2)
    x = real(1, 4, 5)
    np.testing.assert_allclose(conv(tape.tensor(x)).detach().numpy(), x)
    with pytest.raises(ValueError, match="Unsupported nonlinearity swish"):
        nn.init.calculate_gain("swish")


@pytest.mark.parametrize("order", [1.0, 2.0, float("inf")])
def test_gradients_are_clipped_as_in_pytorch(order):
    torch = pytest.importorskip("torch")
    arrays = [real(3, 2), real(4)]
    mine, theirs = [tape.ones(3, 2, requires_grad=True), tape.ones(4, requires_grad=True)], []
    for p, g in zip(mine, arrays, strict=True):
        p.grad = tape.tensor(g)
        theirs.append(torch.ones(g.shape, requires_grad=True))
        theirs[-1].grad = torch.tensor(g)
    a = nn.utils.clip_grad_norm_(mine, 1.0, order)
    b = torch.nn.utils.clip_grad_norm_(theirs, 1.0, order)
    np.testing.assert_allclose(a.item(), b.item(), rtol=1e-6)
    nn.utils.clip_grad_value_(mine, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)
    mine[0].grad = tape.full((3, 2), float("nan"))
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        nn.utils.clip_grad_norm_(mine, 1.0, error_if_nonfinite=True)


def test_parameters_as_a_vector_and_back():
    net = nn.Linear(2, 3)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (9,)
    assert vector.requires_grad
    nn.utils.vector_to_parameters(tape.arange(9.0), net.parameters())
    assert net.bias.detach().numpy().tolist() == [6.0, 7.0, 8.0]
