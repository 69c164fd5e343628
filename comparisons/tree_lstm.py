"""What do networks cost whose structure is another for each example: recorded, traced again, cached, or padded?

A tree-structured LSTM reads expressions of Python's own library, as trees of their parts, and says whether an ``if``
or ``while`` asks for their truth, or they are assigned or returned. A tape records each tree as it comes. A graph is
traced and compiled for each tree; or for each structure, the words being its inputs, and kept for when that structure
comes again; or once, for a batch of the largest trees: a scan over their nodes, which is a second definition of the
network.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid

import twograd
from twograd import data, graph, lax, models, nn, tape
from twograd.compare import Comparison, Curves, Observation, Series, Table
from twograd.compare.compilations import compilations
from twograd.compare.training import between, loss_curves
from twograd.compare.units import duration
from twograd.nn import functional as F

WIDTH, BATCH, RATE = 16, 16, 0.01
LONGEST = 12  # words of an expression; what is longer is left out
STEPS, QUICK_STEPS = 300, 20
TEST = 1024
EXAMPLES = {"tape": 320, "tape, cached": 20, "graph, retraced": 4, "graph, cached": 20, "graph, padded": 320}
QUICK_EXAMPLES = {"tape": 64, "graph, retraced": 1, "graph, cached": 2, "graph, padded": 64}


def network(trees, seed):
    tape.manual_seed(seed)
    return models.TreeLSTM(len(trees.words), len(trees.classes), WIDTH)


def words_of(tree):
    """The words of a tree, from left to right."""
    return [*words_of(tree[0]), *words_of(tree[1])] if isinstance(tree, tuple) else [tree]


def structure_of(tree):
    return tuple(map(structure_of, tree)) if isinstance(tree, tuple) else ()


# --- the tree as it is: on the tape, and as a graph of its own --------------------------------------------------------


def loss_of(net, tree, label):
    return F.cross_entropy(net(tree), tape.tensor(label))


def traced_loss(net):
    """Of parameters, a tree, whose words may be traced, and a label."""

    def loss(params, tree, label):
        return F.cross_entropy(nn.functional_call(net, params, (tree,)), label)

    return loss


# --- the same network once more, for batches of padded trees ----------------------------------------------------------


def padded(trees):
    """Trees as arrays: words (N, LONGEST), children of inner nodes (N, LONGEST - 1, 2), roots (N,).

    Nodes are numbered: first the words, then the inner nodes, children before parents. What is missing reads node 0,
    and is read by nothing.
    """
    words, children = np.zeros((len(trees), LONGEST), np.int32), np.zeros((len(trees), LONGEST - 1, 2), np.int32)
    roots = np.zeros(len(trees), np.int32)
    for row, tree in enumerate(trees):
        leaves, inner = [], []
        roots[row] = number_of_root(tree, leaves, inner)
        words[row, : len(leaves)] = leaves
        children[row, : len(inner)] = np.reshape(inner, (-1, 2))
    return words, children, roots


def number_of_root(tree, leaves, inner):
    """Appends the words of a tree, and the numbers of its inner nodes' children."""
    if not isinstance(tree, tuple):
        leaves.append(tree)
        return len(leaves) - 1
    inner.append([number_of_root(child, leaves, inner) for child in tree])
    return LONGEST + len(inner) - 1


def scores_of_padded(params, words, children, roots):
    """What TreeLSTM computes, of a batch of trees at once: (N, classes)."""
    rows = jnp.arange(len(words))

    def linear(name, x):
        return x @ params[f"{name}.weight"].T + params.get(f"{name}.bias", 0)

    def node(state, place):
        (h, c), (number, (left, right)) = state, place
        gates = linear("left", h[rows, left]) + linear("right", h[rows, right])
        i, f_left, f_right, o, u = jnp.split(gates, 5, axis=-1)
        new = sigmoid(i) * jnp.tanh(u) + sigmoid(f_left) * c[rows, left] + sigmoid(f_right) * c[rows, right]
        return (h.at[:, number].set(sigmoid(o) * jnp.tanh(new)), c.at[:, number].set(new)), None

    i, o, u = jnp.split(linear("leaf", params["words.weight"][words]), 3, axis=-1)
    c = sigmoid(i) * jnp.tanh(u)
    state = (sigmoid(o) * jnp.tanh(c), c)
    state = tuple(jnp.pad(x, ((0, 0), (0, LONGEST - 1), (0, 0))) for x in state)
    (h, _), _ = lax.scan(node, state, (LONGEST + jnp.arange(LONGEST - 1), jnp.transpose(children, (1, 2, 0))))
    return linear("head", h[rows, roots])


def padded_loss(params, labels, *arrays):
    return F.cross_entropy(scores_of_padded(params, *arrays), labels)


# --- the first examples of a stream -----------------------------------------------------------------------------------


of_padded = jax.jit(graph.value_and_grad(padded_loss))


def ways(net):
    """How many examples at a time, and a function that computes the gradients of trees and their labels."""
    params = {name: p.array for name, p in net.named_parameters()}
    loss = traced_loss(net)
    of_structure = jax.jit(graph.value_and_grad(loss))

    def recorded(trees, labels):
        loss_of(net, trees[0], labels[0]).backward()

    def compiled_when_met_again(trees, labels):
        with tape.compiled_backward(forward=True):
            recorded(trees, labels)

    def traced_again(trees, labels):
        f = graph.value_and_grad(lambda params: loss(params, trees[0], labels[0]))
        jax.block_until_ready(jax.jit(f)(params))

    def cached(trees, labels):
        jax.block_until_ready(of_structure(params, trees[0], labels[0]))

    def in_batches(trees, labels):
        jax.block_until_ready(of_padded(params, labels, *padded(trees)))

    return {
        "tape": (1, recorded),
        "tape, cached": (1, compiled_when_met_again),
        "graph, retraced": (1, traced_again),
        "graph, cached": (1, cached),
        "graph, padded": (BATCH, in_batches),
    }


def walk(run, size, examples):
    """Seconds until each next ``size`` examples are done."""
    start, seconds = time.perf_counter(), []
    for i in range(0, len(examples), size):
        run(examples.trees[i : i + size], examples.labels[i : i + size])
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def first_examples(context, net, trees):
    """One pass over the first examples by each way, from empty caches, and a second one."""
    asked = QUICK_EXAMPLES if context.quick else EXAMPLES
    counts = {title: count for title, count in asked.items() if title.partition(",")[0] in context.engines}
    if not counts:
        return
    whole = trees.take(np.arange(max(counts.values())))
    structures = [structure_of(tree) for tree in whole.trees]
    programs = {"graph, retraced": len(whole), "graph, cached": len(set(structures))}
    jax.clear_caches()
    rows, passes = [], {}
    for title, count in counts.items():
        context.tell(title)
        size, run = ways(net)[title]
        examples = trees.take(np.arange(count))
        with compilations() as found:
            seconds = walk(run, size, examples)
        passes[title] = size * (1 + np.arange(len(seconds))), seconds
        again = None
        if title != "graph, retraced":
            walk(run, size, examples)  # a tape compiles what it meets a second time
            again = walk(run, size, examples)[-1] / count * 1e3
        for_all = seconds[-1] if count == len(whole) else None
        if title in programs:
            for_all = seconds[-1] / found.count * programs[title]
        rows.append([title, count, found.count, seconds[0], seconds[-1], for_all, again])
    yield Table(
        "The gradients of the first examples one after the other, from empty caches",
        ["way", "examples", "compilations", "the first", "these", f"all {len(whole)}", "each, when they come again"],
        rows,
        units=["", "", "", "s", "s", "s", "ms"],
        note=f"Where fewer were done, the time for all is estimated: of what one program took, for as many programs as "
        f"are needed. Padded trees come {BATCH} at a time, each with room for {LONGEST} words.",
    )
    series = [Series(title, n, seconds, engine=title.partition(",")[0]) for title, (n, seconds) in passes.items()]
    yield Curves("Seconds after n examples", "examples", "seconds", series, x_scale="log", y_scale="log")
    most = 100 * max(map(structures.count, structures)) / len(structures)
    yield Observation(
        f"{len(whole)} examples have {programs['graph, cached']} structures; {most:.0f} % have the most frequent one."
    )
    for_all, again = ({row[0]: row[i] for row in rows if row[i] is not None} for i in (5, 6))
    yield Observation(
        f"To have done all {len(whole)} takes {in_order(for_all)}; an example that comes again takes "
        f"{in_order({title: found / 1e3 for title, found in again.items()})}."
    )
    ahead = []
    for n in range(1, len(whole) + 1):
        elapsed = {title: seconds[np.argmax(at >= n)] for title, (at, seconds) in passes.items() if at[-1] >= n}
        fastest = min(elapsed, key=elapsed.__getitem__)
        if not ahead or ahead[-1][0] != fastest:
            ahead.append((fastest, n))
    yield Observation("Ahead after n examples: " + ", ".join(f"`{title}` from n = {n}" for title, n in ahead) + ".")


def in_order(seconds):
    return ", ".join(f"`{title}` {duration(seconds[title])}" for title in sorted(seconds, key=seconds.__getitem__))


# --- training ---------------------------------------------------------------------------------------------------------


def by_tape(net):
    """A step of the tape, tree by tree: its loss."""
    optimizer = twograd.optim.Adam(net.parameters(), lr=RATE)

    def step(batch):
        optimizer.zero_grad()
        losses = [loss_of(net, *example) for example in zip(batch.trees, batch.labels, strict=True)]
        loss = tape.stack(losses).mean()
        loss.backward()
        optimizer.step()
        return loss.numpy(force=True)

    return step, lambda: {name: p.array for name, p in net.named_parameters()}


def by_graph(net):
    """The same of padded trees, by compiled programs."""
    params = {name: p.array for name, p in net.named_parameters()}
    transform = twograd.optim.Adam.transform(lr=RATE)
    state = transform.init(params)

    @jax.jit
    def update(params, state, gradient):
        changes, state = transform.update(gradient, state, params)
        return jax.tree.map(lambda p, change: p + change, params, changes), state

    def step(batch):
        nonlocal params, state
        loss, gradient = of_padded(params, batch.labels, *padded(batch.trees))
        params, state = update(params, state, gradient)
        return loss

    return step, lambda: params


def train(context, learn, held_out):
    steps, seed = QUICK_STEPS if context.quick else STEPS, context.settings.seed
    order, rows, losses = context.rng("batches"), [], {}
    batches = [learn.take(order.choice(len(learn), BATCH, replace=False)) for _ in range(steps)]
    arrays, scores = padded(held_out.trees), jax.jit(scores_of_padded)
    for name, make in (("graph", by_graph), ("tape", by_tape)):
        if name in context.engines:
            context.tell(f"{name}, training")
            step, params = make(network(learn, seed))
            start = time.perf_counter()
            losses[name] = np.array([step(batch) for batch in batches])
            seconds = time.perf_counter() - start
            right = int((scores(params(), *arrays).argmax(axis=-1) == held_out.labels).sum())
            first, last = float(losses[name][0]), float(losses[name][-1])
            rows.append([name, first, last, seconds, right, 100 * right / len(held_out)])
    if not rows:
        return
    yield Table(
        f"{steps} steps of training",
        ["engine", "first loss", "last loss", "time", "right", "test accuracy"],
        rows,
        units=["", "nats", "nats", "s", f"of {len(held_out)}", "%"],
        note=f"Adam with learning rate {RATE}, {BATCH} of {len(learn)} expressions a step; the graph's are padded. The "
        f"{len(held_out)} held out are drawn at random, from the same modules.",
    )
    majority = np.bincount(held_out.labels).max() / len(held_out)
    yield Observation(
        f"After {steps} steps from the same weights over the same batches the network is right on "
        f"{between(row[4] / len(held_out) for row in rows)} of {len(held_out)} expressions that were never trained on, "
        f"whichever of {len(rows)} engines trained it; to say always the same would be right on {between([majority])}."
    )
    yield from loss_curves(losses, scale="linear")


def experiment(context):
    trees = data.conditions()
    trees = trees.take(np.flatnonzero([len(words_of(tree)) <= LONGEST for tree in trees.trees]))
    learn, held_out = trees.split(test=TEST, seed=context.settings.seed)
    yield Table("The data", ["what", "which"], [[key, value] for key, value in trees.about().items()])
    yield from first_examples(context, network(trees, context.settings.seed), learn)
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    yield from train(context, learn, held_out)


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
