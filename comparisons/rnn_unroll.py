"""What does a recurrent network of T steps cost as a tape, as an unrolled graph, and as a loop inside of the graph?

A tape records one step after the other, as many as there are. A trace of the same Python loop holds T copies of the
cell, which are all transformed and compiled. A scan holds the cell once, whatever T; but T is part of its type, so that
a sequence of another length is another program, or is padded. The cells are nn.LSTMCell and nn.GRUCell, the scans
nn.LSTM and nn.GRU, which are one op on the tape; all compute the same of the same weights.
"""

import jax
import numpy as np

from twograd import data, nn, tape
from twograd.compare import Comparison, Curves, Observation, Series, Table
from twograd.compare.compilations import two_passes
from twograd.compare.timing import Stopwatch
from twograd.compare.units import duration, plural, size

FEATURES, HIDDEN, BATCH = 16, 32, 8
STEPS, QUICK_STEPS = (4, 8, 16, 32), (2, 8)
LINES, QUICK_LINES = {"count": 30, "longest": 80}, {"count": 3, "longest": 80}
CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
STEADY = "forward+backward"


class Loop(nn.Module):
    """A cell, called in turn on each of a list of inputs (N, features); the last h, (N, hidden)."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, xs):
        state = None
        for x in xs:
            state = self.cell(x, state)
        return last_h(state)


def last_h(state):
    return state[0] if isinstance(state, tuple) else state


def looped(kind):
    """The loss of parameters, named as the cell names them, and a list of T inputs."""
    net = Loop(CELLS[kind](FEATURES, HIDDEN))

    def loss(params, xs):
        h = nn.functional_call(net, {f"cell.{name}": p for name, p in params.items()}, (alike(params, xs),))
        return (h * h).mean()

    return loss


def scanned(kind):
    """The same of inputs (T, N, features); with ``last``, of the output at that place in place of the last state."""
    layer = LAYERS[kind](FEATURES, HIDDEN)

    def loss(params, xs, last=None):
        out, state = nn.functional_call(layer, {f"{name}_l0": p for name, p in params.items()}, (alike(params, xs),))
        h = last_h(state)[0] if last is None else out[last]
        return (h * h).mean()

    return loss


def alike(params, xs):
    """The inputs as Tensors where the parameters are."""
    on_tape = isinstance(params["weight_ih"], tape.Tensor)
    return jax.tree.map(tape.tensor, xs) if on_tape else xs


WAYS = {
    "tape, loop": ("tape", looped),
    "tape, one op": ("tape", scanned),
    "graph, unrolled": ("graph", looped),
    "graph, scan": ("graph", scanned),
    "jax-jit, unrolled": ("jax-jit", looped),
    "jax-jit, scan": ("jax-jit", scanned),
}
QUICK_WAYS = ("tape, loop", "graph, unrolled", "graph, scan")


# --- against T --------------------------------------------------------------------------------------------------------


def experiment(context):
    titles = QUICK_WAYS if context.quick else WAYS
    ways = {title: WAYS[title] for title in titles if WAYS[title][0] in context.engines}
    if not ways:
        return
    for kind in ("LSTM",) if context.quick else CELLS:
        yield from against_length(context, kind, ways)
    yield from of_many_lengths(context, ways)


def weights(context, kind):
    """PyTorch's first values, as the cell names them."""
    tape.manual_seed(context.settings.seed)
    return context.cast({name: p.array for name, p in CELLS[kind](FEATURES, HIDDEN).named_parameters()})


def against_length(context, kind, ways):
    lengths, params = QUICK_STEPS if context.quick else STEPS, weights(context, kind)
    inputs = context.cast(context.rng("inputs").standard_normal((max(lengths), BATCH, FEATURES)))
    first, kept, gradients, subjects = {}, {}, {}, {}
    for title, (name, program) in ways.items():
        for length in lengths:
            context.tell(f"{kind}, {title}, {length} steps")
            xs = inputs[:length]
            arrays = context.engines[name].arrays((params, list(xs) if program is looped else xs))
            jax.clear_caches()
            stopwatch = Stopwatch()
            built = context.engines[name].build(program(kind), arrays, stopwatch)
            with stopwatch("first call"):
                _, gradient = built.stages[STEADY]()
            first[title, length] = sum(found.median for found in stopwatch.measurements().values())
            counts = built.counts()
            kept[title, length] = counts.get("temp bytes", counts["saved bytes"])
            gradients[title, length] = np.concatenate([np.ravel(gradient[name]) for name in params])
            subjects[title, length] = built.stages[STEADY]
    context.tell(f"{kind}, timing")
    steady = {key: found.median for key, found in context.measure(subjects).items()}
    reference = next(iter(ways))
    apart = {
        (title, length): np.abs(found - gradients[reference, length]).max() / np.abs(gradients[reference, length]).max()
        for (title, length), found in gradients.items()
    }
    yield Table(
        f"{kind}, {BATCH} sequences of {FEATURES} features, {HIDDEN} hidden units",
        ["way", "T", "first gradient", "each further", "memory", f"gradient: furthest from {reference}"],
        [
            [*key, first[key] * 1e3, steady[key] * 1e3, kept[key] / 1e3, float(apart[key])]
            for key in ((title, length) for length in lengths for title in ways)
        ],
        units=["", "", "ms", "ms", "kB", "of its largest"],
        note="The first gradient is from empty caches: trace, transformation, compilation and the call. Memory: what "
        "the tape saves between the passes, and what XLA allocates for temporary values.",
    )
    for title, label, found in (
        ("time until the first gradient", "ms", {key: 1e3 * value for key, value in first.items()}),
        ("time of each further gradient", "ms", {key: 1e3 * value for key, value in steady.items()}),
        ("memory", "kB", {key: value / 1e3 for key, value in kept.items()}),
    ):
        series = [Series(way, lengths, [found[way, n] for n in lengths], engine=ways[way][0]) for way in ways]
        yield Curves(f"{kind}: {title}", "steps T", label, series, x_scale="log", y_scale="log")
    few, many = lengths[0], lengths[-1]
    for title in ways:
        (a, b), (c, d), (e, f) = ((found[title, few], found[title, many]) for found in (first, steady, kept))
        yield Observation(
            f"{kind}, `{title}`, from {few} to {many} steps: the first gradient goes from {duration(a)} to "
            f"{duration(b)} ({b / a:.2g} times), each further one from {duration(c)} to {duration(d)} ({d / c:.2g} "
            f"times), the memory from {size(e)} to {size(f)} ({f / e:.2g} times)."
        )
    if {"graph, unrolled", "graph, scan"} <= ways.keys():
        a, b = (found["graph, unrolled", many] / found["graph, scan", many] for found in (first, steady))
        yield Observation(
            f"{kind}: at {many} steps the first gradient of the unrolled graph takes {a:.2g} times as long as that of "
            f"the scan, each further one {b:.2g} times."
        )


# --- sequences of many lengths ----------------------------------------------------------------------------------------


def of_many_lengths(context, ways):
    """As many steps as the lines of a real text have characters; one sequence at a time."""
    count, longest = (QUICK_LINES if context.quick else LINES).values()
    known = [len(line) for line in data.pydoc().content.splitlines() if 1 < len(line) <= longest]
    lengths = context.rng("lines").choice(known, count)
    features = context.cast(context.rng("features").standard_normal((longest, 1, FEATURES)))
    params, ends = weights(context, "LSTM"), np.arange(longest)[:, None, None]
    whole = [(features[:n],) for n in lengths]
    walks = {
        "tape, loop": ("tape, loop", [(list(features[:n]),) for n in lengths]),
        "tape, one op": ("tape, one op", whole),
        "graph, scan": ("graph, scan", whole),
        "graph, scan, padded": ("graph, scan", [(np.where(ends < n, features, 0), np.int32(n - 1)) for n in lengths]),
    }
    rows, losses = [], {}
    for title, (way, stream) in walks.items():
        if way in ways:
            context.tell(f"lengths, {title}")
            name, program = ways[way]
            found, losses[title] = two_passes(context.engines[name], program("LSTM"), params, stream)
            rows.append([title, *found])
    distinct = len(set(lengths.tolist()))
    yield Table(
        f"{count} sequences, as long as lines of Python's help texts ({distinct} lengths up to {longest})",
        ["way", "compilations, 1st pass", "time, 1st pass", "compilations, 2nd pass", "time, 2nd pass"],
        rows,
        units=["", "", "s", "", "s"],
        note="From empty caches. Padded: zeros after the end, to the longest; the loss reads the output at the end.",
    )
    for title, compiled, seconds, again, seconds_again in rows:
        yield Observation(
            f"Over {distinct} lengths `{title}` compiles {plural(compiled, 'program')} and takes {duration(seconds)}; "
            f"when the same lengths come again, {again or 'none'} and {duration(seconds_again)}."
        )
    if "graph, scan, padded" in losses:
        plain, padded = losses["graph, scan"], losses["graph, scan, padded"]
        yield Observation(
            f"Padding computes {longest / lengths.mean():.2f} times as many steps, and changes no loss by more than "
            f"{np.max(np.abs(padded / plain - 1)):.1e} of its value."
        )


comparison = Comparison(experiment=experiment, engines=("tape", "graph", "jax-jit"))
