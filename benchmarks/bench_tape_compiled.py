"""Forward and backward with `tape.compiled_backward()` against PyTorch's eager mode, and beside it the tape without.

Programs where a call costs more than its arithmetic: chains of 100 ops on 8x8 tensors, and training steps of an MLP and
of the convolutional net of PyTorch's CIFAR-10 tutorial on small batches, with SGD of each library and by hand.
"""

import contextlib
import itertools
from functools import partial

import numpy as np
from _bench import against, summary
from _programs import normal

import twograd.nn.functional as tape_functional
from twograd import optim, tape

MODES = {
    "the tape": contextlib.nullcontext,
    "with compiled_backward()": tape.compiled_backward,
    "with compiled_backward(forward=True)": partial(tape.compiled_backward, forward=True),
}
LENGTH = 100
RATE = 1e-3


def chained(op, ops):
    """The loss of a chain of LENGTH ops, which ``op`` does ``ops`` at a time."""

    def loss(torch, functional, y, x):
        for _ in range(LENGTH // ops):
            x = op(x, y)
        return x.sum()

    return loss


CHAINS = {
    "100 x * y": chained(lambda x, y: x * y, 1),
    "100 sin(x)": chained(lambda x, y: x.sin(), 1),
    "25 x + tanh(x @ y + y)": chained(lambda x, y: x + (x @ y + y).tanh(), 4),
}


def mlp(torch, functional, x, labels, *params):
    *layers, (w, b) = zip(params[::2], params[1::2], strict=True)
    for weight, bias in layers:
        x = (x @ weight + bias).tanh()
    return functional.cross_entropy(x @ w + b, labels)


def convnet(torch, functional, x, labels, *params):
    convolutions, layers = params[:4], params[4:-2]
    for w, b in zip(convolutions[::2], convolutions[1::2], strict=True):
        x = functional.max_pool2d(functional.relu(functional.conv2d(x, w, b)), 2)
    x = x.reshape(x.shape[0], -1)
    for w, b in zip(layers[::2], layers[1::2], strict=True):
        x = functional.relu(functional.linear(x, w, b))
    return functional.cross_entropy(functional.linear(x, *params[-2:]), labels)


def dense(*sizes):
    """Weights ``(in, out)`` and biases."""
    return [a for i, o in itertools.pairwise(sizes) for a in (normal(i, o, scale=i**-0.5), normal(o))]


def convnet_params():
    shapes = [(6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,), (10, 84), (10,)]
    return [normal(*shape, scale=0.1) for shape in shapes]


def labels(batch):
    return np.arange(batch) % 10


def chains():
    """For each title a loss, its inputs and its parameters."""
    matrix = np.eye(8, dtype=np.float32)
    for title, loss in CHAINS.items():
        yield title, loss, [matrix / 8], [matrix]


def trained():
    for batch in (1, 8, 32):
        yield f"MLP 32-64-64-10, batch {batch}", mlp, [normal(batch, 32), labels(batch)], dense(32, 64, 64, 10)
    for batch in (1, 4):
        yield f"convnet, batch {batch}", convnet, [normal(batch, 3, 32, 32), labels(batch)], convnet_params()


def gradient(torch, functional, optim, loss, inputs, params):
    """A function that looks at the gradient of one parameter."""
    inputs = [torch.tensor(a) for a in inputs]
    params = [torch.tensor(a, requires_grad=True) for a in params]

    def run():
        for p in params:
            p.grad = None
        loss(torch, functional, *inputs, *params).backward()
        return params[0].grad.tolist()

    return run


def step(torch, functional, optim, loss, inputs, params):
    """A function that does a training step as a user of PyTorch writes it, and looks at the loss."""
    inputs = [torch.tensor(a) for a in inputs]
    params = [torch.tensor(a, requires_grad=True) for a in params]
    optimizer = optim.SGD(params, lr=RATE, momentum=0.9)

    def run():
        optimizer.zero_grad()
        out = loss(torch, functional, *inputs, *params)
        out.backward()
        optimizer.step()
        return out.item()

    return run


def step_by_hand(torch, functional, optim, loss, inputs, params):
    """The same without an optimiser: each parameter is changed by two ops."""
    inputs = [torch.tensor(a) for a in inputs]
    params = [torch.tensor(a, requires_grad=True) for a in params]

    def run():
        for p in params:
            p.grad = None
        out = loss(torch, functional, *inputs, *params)
        out.backward()
        with torch.no_grad():
            for p in params:
                p.sub_(p.grad * RATE)
        return out.item()

    return run


KINDS = {
    "chains": (gradient, chains, 1.2),
    "training steps": (step, trained, 1.0),
    "training steps, parameters changed by hand": (step_by_hand, trained, None),
}


def main() -> None:
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: pip install 'twograd[torch]'")
        return
    torch.set_num_threads(1)
    for kind, (make, programs, goal) in KINDS.items():
        for name, around in MODES.items():
            print(f"{kind}: {name}, against PyTorch eager")
            ratios = []
            for title, *program in programs():
                ours = make(tape, tape_functional, optim, *program)
                peer = make(torch, torch.nn.functional, torch.optim, *program)
                with around():
                    for _ in range(4):
                        ours()
                    ratios.append(against(title, ours, peer))
            summary(f"{kind}: {name} / PyTorch", ratios, goal=goal)
    print(tape.compiled_backward.stats())


if __name__ == "__main__":
    main()
