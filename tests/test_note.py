"""The programs of the note PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍, as they stand there, after other imports.

Each is a text that is run word for word, with the tape and, where it is installed, with PyTorch.
"""

import contextlib
import doctest
import io

import numpy as np
import pytest

import twograd
from twograd import data, models, nn, optim, tape

EXCLUSION = """
>>> x = torch.randn(5, 5)  # requires_grad=False by default
>>> y = torch.randn(5, 5)  # requires_grad=False by default
>>> z = torch.randn((5, 5), requires_grad=True)
>>> a = x + y
>>> a.requires_grad
False
>>> b = a + z
>>> b.requires_grad
True
"""

FREEZING = """
model = torchvision.models.resnet18(pretrained=True)
# 让resnet18的所有的参数都不参与BP过程
for param in model.parameters():
    param.requires_grad = False
# Replace the last fully-connected layer
# Parameters of newly constructed modules have requires_grad=True by default
model.fc = nn.Linear(512, 100)

# 只对分类器进行优化
optimizer = optim.SGD(model.fc.parameters(), lr=1e-2, momentum=0.9)
"""

TRAINING = """
for epoch in range(2):  # loop over the dataset multiple times

    running_loss = 0.0
    for i, data in enumerate(trainloader, 0):
        # get the inputs
        inputs, labels = data

        # 情况参数梯度
        optimizer.zero_grad()

        # forward + backward + optimize
        outputs = net(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()

        # print statistics
        running_loss += loss.item()
        if i % 2000 == 1999:    # print every 2000 mini-batches
            print('[%d, %5d] loss: %.3f' %
                  (epoch + 1, i + 1, running_loss / 2000))
            running_loss = 0.0

print('Finished Training')
"""


@pytest.mark.parametrize("name", ["twograd.tape", "torch"])
def test_a_result_requires_a_gradient_if_an_operand_does(name):
    torch = pytest.importorskip(name)
    session = doctest.DocTestParser().get_doctest(EXCLUSION, {"torch": torch}, "the note, 1.1", None, 0)
    assert len(session.examples) == 7
    said = io.StringIO()
    failed, attempted = doctest.DocTestRunner().run(session, out=said.write)
    assert (failed, attempted) == (0, 7), said.getvalue()


def test_freezing_resnet18_and_training_its_last_layer():
    tape.manual_seed(0)
    program = {"torchvision": twograd, "nn": nn, "optim": optim}
    with pytest.warns(UserWarning, match="twograd ships no trained weights"):
        exec(FREEZING, program)
    model, optimizer = program["model"].eval(), program["optimizer"]
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    rng = np.random.default_rng(0)
    x, y = tape.tensor(rng.standard_normal((2, 3, 32, 32)).astype(np.float32)), tape.tensor(np.array([3, 97]))
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        features = []
        with tape.live_bytes("plain") as live:
            handle = model.avgpool.register_forward_hook(lambda *seen, features=features: features.append(seen[2]))
            loss = nn.functional.cross_entropy(model(x), y)
            handle.remove()
            # no intermediate buffers are saved until the computation gets to the last layer
            assert not features[0].requires_grad
            assert [node.name() for node in nodes_of(loss)] == ["CrossEntropyBackward0", "LinearBackward0"]
            loss.backward()
        assert live.peak < 2 * 512 * 4 * 100
        assert {name for name, p in model.named_parameters() if p.grad is not None} == {"fc.weight", "fc.bias"}
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
    for name, value in model.state_dict().items():
        assert name.startswith("fc.") != np.array_equal(value.numpy(), before[name]), name


def nodes_of(tensor):
    """The nodes behind a Tensor, but for those of leaves."""
    found = [tensor.grad_fn]
    for node in found:
        found += [n for n, _ in node.next_functions if n is not None and n.next_functions and n not in found]
    return found


def drawn_digits(count, side):
    """That many images of handwritten digits, drawn with repetition, ``side`` times as large; and their labels."""
    pytest.importorskip("sklearn")
    digits = data.digits()
    rows = np.random.default_rng(0).integers(len(digits), size=count)
    images = np.kron(digits.images[rows], np.ones((side, side), np.float32))
    return images, digits.labels[rows].astype(np.int64)


def trained(torch, optim, net, loader, **settings):
    """The two running losses that the note's loop prints."""
    said = io.StringIO()
    program = {
        "trainloader": loader,
        "net": net,
        "criterion": torch.nn.CrossEntropyLoss(),
        "optimizer": optim.SGD(net.parameters(), **settings),
    }
    with contextlib.redirect_stdout(said):
        exec(TRAINING, program)
    lines = said.getvalue().splitlines()
    assert [line[:17] for line in lines] == ["[1,  2000] loss: ", "[2,  2000] loss: ", "Finished Training"]
    return [float(line[17:]) for line in lines[:2]]


def by_hand(weight, bias, batches, lr):
    """The same losses of a linear classifier, with its gradient written down."""
    losses = []
    for x, labels in batches:
        scores = x @ weight.T + bias
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(labels)), labels
        losses.append(-np.log(p[rows]).mean())
        p[rows] -= 1
        weight, bias = weight - lr * p.T @ x / len(labels), bias - lr * p.mean(0)
    return [np.mean(losses[:2000]), np.mean(losses[2000:])]


def accuracy(net, images, labels):
    with tape.no_grad():
        return float((net(tape.tensor(images)).numpy().argmax(1) == labels).mean())


def test_the_training_loop_prints_its_running_loss():
    images, labels = drawn_digits(8000, 1)
    images = images.reshape(-1, 64)
    net, loader = nn.Linear(64, 10), data.DataLoader(data.TensorDataset(images, labels), batch_size=4)
    first = [np.asarray(parameter.array, np.float64) for parameter in net.parameters()]
    batches = [(images[i : i + 4], labels[i : i + 4]) for i in range(0, 8000, 4)]
    expected = by_hand(*first, batches * 2, lr=0.01)
    printed = trained(tape, optim, net, loader, lr=0.01)
    np.testing.assert_allclose(printed, expected, atol=1e-3)
    assert printed[1] < printed[0] / 1.5
    assert accuracy(net, images[:1000], labels[:1000]) > 0.9


@pytest.mark.slow
def test_the_training_loop_of_the_tutorials_network_is_as_pytorchs():
    torch = pytest.importorskip("torch")
    images, labels = drawn_digits(8000, 4)
    images = np.repeat(images[:, None], 3, 1)

    def make(nn):
        return nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip

    def loader(collate_fn=data.default_collate):
        rows = data.TensorDataset(images, labels)
        return data.DataLoader(rows, batch_size=4, shuffle=True, seed=1, collate_fn=collate_fn)

    theirs = make(torch.nn)
    net = models.Net()
    net.load_state_dict(dict(zip(net.state_dict(), theirs.state_dict().values(), strict=True)))
    settings = {"lr": 0.001, "momentum": 0.9}
    printed = trained(tape, optim, net, loader(), **settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    as_tensors = loader(lambda items: [torch.tensor(np.stack(part)) for part in zip(*items, strict=True)])
    expected = trained(torch, torch.optim, theirs, as_tensors, **settings)
    torch.set_num_threads(threads)
    np.testing.assert_allclose(printed, expected, atol=1e-2)  # rounding grows in 4,000 steps
    assert accuracy(net, images[:1000], labels[:1000]) > 0.8


def test_torchvisions_weights_load():
    torch = pytest.importorskip("torch")
    state = {
        name: torch.full(tuple(value.shape), 0.5, dtype=torch.int64 if "num_batches" in name else torch.float32)
        for name, value in models.ResNet((1,), 3).state_dict().items()
    }
    model = models.ResNet((1,), 3)
    model.load_state_dict(state)
    assert all((value.numpy() == np.float32(0.5).astype(value.dtype)).all() for value in model.state_dict().values())
