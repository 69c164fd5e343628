"""Why does PyTorch's optimiser have to clear the gradients at each step?

The question of the note PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍. Two causes are named for it: that the graph
is built anew at each iteration, and that ``backward()`` adds to ``.grad``. They can be told apart by an experiment of
two by two: the graph rebuilt or retained, the gradient accumulated or returned. What is accumulated is also of use:
micro batches, one after the other, have the gradient of the whole batch.
"""

from typing import Any

import numpy as np

import twograd.numpy as tnp
from twograd import data, nn, tape
from twograd.compare import Comparison, Observation, Table

ITERATIONS = 3
BATCH, MICRO = 96, (1, 2, 4, 8, 16)


def loss_of(model, images, labels):
    return nn.functional.cross_entropy(model(images), labels)


def gradients(retain, accumulate, model, images, labels):
    """The norm of what a user sees as the gradient in each of some iterations, with nothing cleared between."""
    for parameter in model.parameters():
        parameter.grad = None
    parameters = list(model.parameters())
    found, loss = [], loss_of(model, images, labels)
    for i in range(ITERATIONS):
        if i and not retain:
            loss = loss_of(model, images, labels)
        if accumulate:
            loss.backward(retain_graph=retain)
            seen = [parameter.grad for parameter in parameters]
        else:
            seen = tape.autograd.grad(loss, parameters, retain_graph=retain)
        found.append(float(np.sqrt(sum(np.sum(np.square(g.numpy())) for g in seen if g is not None))))
    return found


def network(seed):
    tape.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def experiment(context):
    digits, seed = data.digits(), context.settings.seed
    rows = context.rng("rows").choice(len(digits), BATCH, replace=False)
    images, labels = digits.images[rows].reshape(BATCH, 64), digits.labels[rows]
    model = network(seed)
    x, y = tape.tensor(images), tape.tensor(labels)
    yield from two_by_two(model, x, y)
    yield from micro_batches(model, x, y)


def two_by_two(model, x, y):
    table, grows = [], {}
    for retain in (False, True):
        for accumulate in (True, False):
            norms = gradients(retain, accumulate, model, x, y)
            ratio = norms[-1] / norms[0]
            grows[retain, accumulate] = ratio
            graph, gradient = "retained" if retain else "rebuilt", "backward(), .grad" if accumulate else "grad()"
            table.append([graph, gradient, *norms, ratio])
    numbers = [f"iteration {i + 1}" for i in range(ITERATIONS)]
    yield Table(
        "The norm of the gradient, nothing cleared between iterations over the same batch",
        ["graph", "gradient by", *numbers, "last / first"],
        table,
    )
    by_graph = max(abs(grows[False, how] - grows[True, how]) for how in (True, False))
    yield Observation(
        f"Accumulated, the gradient is {grows[False, True]:.4g} times as large after {ITERATIONS} iterations where the "
        f"graph is rebuilt, and {grows[True, True]:.4g} times where it is retained; returned, "
        f"{grows[False, False]:.4g} and {grows[True, False]:.4g} times. Rebuilding the graph changes "
        f"these by {by_graph:.2g}: it is the "
        f"accumulation that has to be cleared."
    )


def micro_batches(model, x, y):
    parameters = list(model.parameters())
    whole: Any = tape.autograd.grad(loss_of(model, x, y), parameters)
    whole = tnp.concatenate([g.reshape(-1) for g in whole]).numpy()
    rows = []
    for count in MICRO:
        for parameter in parameters:
            parameter.grad = None
        most, size = 0, BATCH // count
        for i in range(count):
            part = slice(i * size, (i + 1) * size)
            loss = loss_of(model, x[part], y[part]) / count
            most = max(most, tape.stats(loss).saved_bytes)
            loss.backward()
        found = np.concatenate([parameter.grad.numpy().reshape(-1) for parameter in parameters])
        rows.append([count, size, most / 2**10, float(np.abs(found - whole).max() / np.abs(whole).max())])
    yield Table(
        f"A batch of {BATCH} in micro batches, their gradients accumulated",
        ["micro batches", "size", "saved at once", "furthest from the whole batch's gradient"],
        rows,
        units=["", "", "KiB", "of its largest element"],
    )
    yield Observation(
        f"{rows[-1][0]} micro batches, whose losses are divided by their number, have the gradient of the whole batch "
        f"to {rows[-1][3]:.1g} of its largest element, and need {rows[-1][2] / rows[0][2]:.2f} of its memory."
    )


comparison = Comparison(experiment=experiment, engines=("tape",))
