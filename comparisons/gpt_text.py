"""Does one definition of a GPT learn the same on a tape and as one compiled graph, and how fast?

A small transformer learns to write Python's help texts, character by character. The Module is written once. On the tape
it is called, ``backward()`` walks what was recorded, and the optimiser changes the parameters in place. For the graph
the same Module is a function of its parameters; loss, gradient and AdamW's update are traced into one program.
"""

import jax
import numpy as np

import twograd
from twograd import data, graph, models, nn, tape
from twograd.compare import Comparison, Listing, Observation, Table
from twograd.compare.training import between, loss_curves
from twograd.compare.units import listed
from twograd.nn import functional as F

BATCH, LENGTH, WIDTH, HEADS, LAYERS = 16, 64, 64, 4, 2
QUICK = {"batch": 8, "length": 32, "width": 32, "heads": 2, "layers": 1}
FULL = {"batch": BATCH, "length": LENGTH, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
STEPS, QUICK_STEPS = 400, 80
HELD_OUT, TEST = 50_000, 16  # the last characters of the text, and how many batches are drawn from them
RATE = 3e-3


def network(text, sizes, seed):
    tape.manual_seed(seed)
    return models.GPT(len(text.alphabet), sizes["length"], sizes["width"], sizes["heads"], sizes["layers"])


def by_tape(net):
    """A step of the tape, ``step(codes, following)``, which returns its loss; and a function for the parameters."""
    optimizer = twograd.optim.AdamW(net.parameters(), lr=RATE)

    def step(codes, following):
        optimizer.zero_grad()
        scores = net(tape.tensor(codes))
        loss = F.cross_entropy(scores.flatten(0, 1), tape.tensor(following).flatten())
        loss.backward()
        optimizer.step()
        return loss.numpy(force=True)

    return step, lambda: {name: parameter.array for name, parameter in net.named_parameters()}


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
        return np.asarray(value)

    return step, lambda: params


def share_foreseen(net, params, batches):
    """How often the most likely next character is the one that follows."""
    net.load_state_dict(params)
    return float(np.mean([(net(tape.tensor(x)).numpy(force=True).argmax(axis=-1) == y).mean() for x, y in batches]))


MAKE = {"graph": by_graph, "tape": by_tape, "jax-jit": lambda net: by_graph(net, jax.value_and_grad)}


def experiment(context):
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    text, sizes = data.pydoc(), QUICK if context.quick else FULL
    learn, held_out = text.split(HELD_OUT)
    steps, seed = QUICK_STEPS if context.quick else STEPS, context.settings.seed
    names = [name for name in MAKE if name in context.engines and not (context.quick and name == "jax-jit")]
    yield Table("The data", ["what", "which"], [[key, value] for key, value in text.about().items()])

    drawn = learn.batches(sizes["batch"], sizes["length"], seed)
    batches = [next(drawn) for _ in range(steps)]
    drawn = held_out.batches(sizes["batch"], sizes["length"], seed)
    test = [next(drawn) for _ in range(TEST)]
    losses, running, rows = {}, {}, []
    for name in names:
        context.tell(f"{name}, training")
        net = network(text, sizes, seed)
        running[name], params = MAKE[name](net)
        losses[name] = np.array([running[name](*batch) for batch in batches])
        shown = [float(losses[name][0]), float(losses[name][-10:].mean()), share_foreseen(net, params(), test)]
        rows.append([name, *shown])
    context.tell("timing")
    times = context.measure({name: lambda step=step: step(*batches[0]) for name, step in running.items()})
    tokens, count = sizes["batch"] * sizes["length"], sum(p.array.size for p in network(text, sizes, seed).parameters())
    yield Table(
        f"{steps} steps of training",
        ["engine", "first loss", "mean of the last 10", "test accuracy", "whole step", "speed"],
        [[*row[:3], 100 * row[3], times[row[0]].median * 1e3, tokens / times[row[0]].median] for row in rows],
        units=["", "nats", "nats", "%", "ms", "characters/s"],
        note=(
            f"{count} parameters; AdamW with learning rate {RATE}; batches of {sizes['batch']} pieces of "
            f"{sizes['length']} characters. A step is loss, gradient and update. Accuracy: how often the most likely "
            f"next character is the right one, at {TEST * tokens} places of the last {HELD_OUT} characters, which are "
            f"not trained on."
        ),
    )
    if names:
        yield from observations(text, test, rows, times)
        yield from loss_curves(losses, "cross-entropy in nats", "linear")
    yield Listing("What it learns to write", text.content[20_000:20_400])


def observations(text, test, rows, times):
    counts = np.bincount(np.ravel([following for _, following in test]))
    yield Observation(
        f"Guessing among {len(text.alphabet)} characters costs {np.log(len(text.alphabet)):.2f} nats; after training "
        + listed(f"{row[2]:.3f} (`{row[0]}`)" for row in rows)
        + f". Of the next characters in text that was never trained on, {between(row[3] for row in rows)} are "
        f"foreseen; to expect always the same character would be right for {between([counts.max() / counts.sum()])}."
    )
    first, *others = (row[0] for row in rows)
    for name in others:
        ratio = times[first].median / times[name].median
        yield Observation(f"A whole step of `{first}` takes {ratio:.2f} times as long as one of `{name}`.")


comparison = Comparison(experiment=experiment, engines=tuple(MAKE))
