"""Does one definition of a GPT learn the same on a tape and as one compiled graph, and how fast?

A small transformer learns to write Python's help texts, character by character. The Module is written once. On the tape
it is called, ``backward()`` walks what was recorded, and the optimiser changes the parameters in place. For the graph
the same Module is a function of its parameters; loss, gradient and AdamW's update are traced into one program.
"""

import jax
import numpy as np

import twograd
from twograd import data, graph, models, nn, tape
from twograd.compare import Comparison, Curves, Listing, Observation, Series, Table
from twograd.nn import functional as F

BATCH, LENGTH, WIDTH, HEADS, LAYERS = 16, 64, 64, 4, 2
QUICK = {"batch": 8, "length": 32, "width": 32, "heads": 2, "layers": 1}
FULL = {"batch": BATCH, "length": LENGTH, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
STEPS, QUICK_STEPS = 400, 60
RATE = 3e-3


def network(text, sizes, seed):
    tape.manual_seed(seed)
    return models.GPT(len(text.alphabet), sizes["length"], sizes["width"], sizes["heads"], sizes["layers"])


def by_tape(net):
    """A step of the tape: ``step(codes, following)`` is its loss."""
    optimizer = twograd.optim.AdamW(net.parameters(), lr=RATE)

    def step(codes, following):
        optimizer.zero_grad()
        scores = net(tape.tensor(codes))
        loss = F.cross_entropy(scores.flatten(0, 1), tape.tensor(following).flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def by_graph(net, grad=graph.value_and_grad):
    """The same as one compiled program, from the same parameters."""
    transform = twograd.optim.AdamW.transform(lr=RATE)
    params = {name: parameter.array for name, parameter in net.named_parameters()}
    state = transform.init(params)

    def loss(params, codes, following):
        scores = nn.functional_call(net, params, codes)
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), following.reshape(-1))

    @jax.jit
    def update(params, state, codes, following):
        value, gradient = grad(loss)(params, codes, following)
        changes, state = transform.update(gradient, state, params)
        return jax.tree.map(lambda p, change: p + change, params, changes), state, value

    def step(codes, following):
        nonlocal params, state
        params, state, value = update(params, state, codes, following)
        return float(value)

    return step


MAKE = {"tape": by_tape, "graph": by_graph, "jax-jit": lambda net: by_graph(net, jax.value_and_grad)}


def experiment(context):
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    text, sizes = data.pydoc(), QUICK if context.quick else FULL
    steps, seed = QUICK_STEPS if context.quick else STEPS, context.settings.seed
    names = [name for name in MAKE if name in context.engines and not (context.quick and name == "jax-jit")]
    yield Table("The data", ["what", "which"], [[key, value] for key, value in text.about().items()])

    drawn = text.batches(sizes["batch"], sizes["length"], seed)
    batches = [next(drawn) for _ in range(steps)]
    running = {name: MAKE[name](network(text, sizes, seed)) for name in names}
    losses = {name: [step(*batch) for batch in batches] for name, step in running.items()}
    times = context.measure({name: lambda step=step: step(*batches[0]) for name, step in running.items()})

    tokens = sizes["batch"] * sizes["length"]
    rows = [
        [
            name,
            losses[name][0],
            float(np.mean(losses[name][-10:])),
            times[name].median * 1e3,
            tokens / times[name].median,
        ]
        for name in names
    ]
    count = sum(parameter.array.size for parameter in network(text, sizes, seed).parameters())
    yield Table(
        f"{steps} steps of training",
        ["engine", "first loss", "mean of the last 10", "whole step", "speed"],
        rows,
        units=["", "nats", "nats", "ms", "characters/s"],
        note=(
            f"{count} parameters; AdamW with learning rate {RATE}; batches of {sizes['batch']} pieces of "
            f"{sizes['length']} characters. A step is loss, gradient and update."
        ),
    )
    at = list(range(1, steps + 1))
    yield Curves(
        "The loss of each batch", "step", "cross-entropy in nats",
        [Series(name, at, losses[name], engine=name) for name in names],
    )  # fmt: skip
    if names:
        yield from observations(names, losses, times, text)
    if {"tape", "graph"} <= set(names):
        expected = np.array(losses["graph"], np.float32)
        ulps = np.abs(np.array(losses["tape"], np.float32) - expected) / np.spacing(expected)
        yield Curves(
            "How far the tape's loss is from the graph's", "step", "units in the last place",
            [Series("tape", at, ulps.tolist(), engine="tape")],
        )  # fmt: skip
    yield Listing("What it learns to write", text.content[20_000:20_400])


def observations(names, losses, times, text):
    chance, last = np.log(len(text.alphabet)), {name: float(np.mean(losses[name][-10:])) for name in names}
    yield Observation(
        f"Guessing among {len(text.alphabet)} characters costs {chance:.2f} nats; after {len(losses[names[0]])} steps "
        + ", ".join(f"{last[name]:.3f} ({name})" for name in names)
        + "."
    )
    for name in names[1:]:
        ratio = times[names[0]].median / times[name].median
        yield Observation(f"A whole step of `{names[0]}` takes {ratio:.2f} times as long as one of `{name}`.")


comparison = Comparison(experiment=experiment, engines=tuple(MAKE))
