"""What does freezing a network save, and who finds out that its gradient is not needed?

The example of the note PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍: every parameter of a ResNet-18 is frozen, its
last layer replaced by a new one, and only that is trained, by SGD with momentum. A tape records nothing before the
first Tensor that requires a gradient. A graph that is asked for the gradient of everything, of which only the last
layer's is used, holds the rest as equations that nobody reads, until dead code is removed.
"""

import time

import jax.numpy as jnp
import numpy as np

import twograd
from twograd import graph, models, nn, tape
from twograd.compare import Comparison, Observation, Table
from twograd.nn import functional as F

BATCH, SIDE, CLASSES = 8, 64, 10
QUICK_BATCH, QUICK_SIDE = 2, 32
STEPS = 3
HEAD = ("fc.weight", "fc.bias")


def network(seed, frozen):
    """A ResNet-18 in evaluation, as one that was trained before; with a new last layer, and the rest frozen or not."""
    tape.manual_seed(seed)
    model = models.resnet18().eval()
    if frozen:
        for param in model.parameters():
            param.requires_grad = False
    # Parameters of newly constructed modules have requires_grad=True by default
    model.fc = nn.Linear(512, CLASSES)
    return model


def step_of_tape(model, images, labels):
    """A training step, and what the tape held before its walk back."""
    optimizer = twograd.optim.SGD(model.fc.parameters(), lr=1e-2, momentum=0.9)
    x, y = tape.tensor(images), tape.tensor(labels)
    held = {}

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        held["stats"] = tape.stats(loss)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, held


def gradient_graphs(model, images, labels):
    """Graphs of the gradient: of the last layer, of everything, and of everything with only the last layer's used."""
    params = {name: param.array for name, param in model.named_parameters()}
    head = {name: params.pop(name) for name in HEAD}

    def loss(head, body):
        return F.cross_entropy(nn.functional_call(model, {**head, **body}, jnp.asarray(images)), labels)

    of_all = graph.value_and_grad(loss, argnums=(0, 1))
    programs = {
        "the last layer": graph.value_and_grad(loss),
        "everything": of_all,
        "everything, of which only the last layer's is used": lambda head, params: of_all(head, params)[1][0],
    }
    return {name: graph.trace(program, head, params) for name, program in programs.items()}


def experiment(context):
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    batch, side = (QUICK_BATCH, QUICK_SIDE) if context.quick else (BATCH, SIDE)
    rng = context.rng("images")
    images = rng.standard_normal((batch, 3, side, side)).astype(np.float32)
    labels = rng.integers(CLASSES, size=batch).astype(np.int32)
    seed = context.settings.seed
    rows, unchanged, subjects = [], True, {}
    for frozen in (False, True):
        context.tell(f"tape, {'frozen' if frozen else 'not frozen'}")
        model = network(seed, frozen)
        before = {name: value.numpy().copy() for name, value in model.state_dict().items() if name not in HEAD}
        step, held = step_of_tape(model, images, labels)
        start = time.perf_counter()
        losses = [step() for _ in range(STEPS)]
        first = time.perf_counter() - start
        if frozen:
            unchanged = all(np.array_equal(model.state_dict()[name].numpy(), value) for name, value in before.items())
        name = "frozen" if frozen else "not frozen"
        subjects[name] = step
        stats = held["stats"]
        rows.append([f"tape, {name}", stats.nodes, stats.saved_bytes / 2**20, losses[0], losses[-1], first])
    times = context.measure(subjects)
    yield Table(
        f"A step of the tape: ResNet-18, {batch} images of {side} x {side}",
        ["network", "nodes walked", "saved", "first loss", f"loss after {STEPS} steps", "a step"],
        [[*row[:-1], times[name].median * 1e3] for row, name in zip(rows, subjects, strict=True)],
        units=["", "", "MiB", "nats", "nats", "ms"],
        note="Both train the last layer only; where nothing is frozen, all other gradients are computed in vain.",
    )
    frozen_words = "bit for bit what they were" if unchanged else "NOT what they were"
    ratio = times["not frozen"].median / times["frozen"].median
    yield Observation(
        f"Frozen, the tape walks {rows[1][1]} nodes in place of {rows[0][1]}, and saves {rows[1][2]:.3f} MiB in place "
        f"of {rows[0][2]:.1f}; a step is {ratio:.1f} times as fast. After {STEPS} steps the frozen weights are "
        f"{frozen_words}."
    )
    yield from of_the_graph(context, network(seed, False), images, labels)


def of_the_graph(context, model, images, labels):
    context.tell("graph")
    graphs = gradient_graphs(model, images, labels)
    rows = []
    for name, found in graphs.items():
        cleaned = found.optimize()
        rows.append([name, found.stats().equations, cleaned.stats().equations])
    yield Table(
        "The graph's gradient, in equations",
        ["the gradient of", "as transformed", "after the passes"],
        rows,
        note="As transformed, a call is one equation; passes inline it, and remove what no result depends on.",
    )
    least, used = rows[0], rows[2]
    yield Observation(
        f"Asked for the last layer only, the graph's gradient has {least[2]} equations after the passes; where the "
        f"gradient of everything is asked for and only the last layer's kept, {used[2]}."
    )


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
