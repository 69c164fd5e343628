"""How much memory does the way back need, and what does a checkpoint save and cost?

A chain of n equal blocks keeps n times what one block keeps, until the way back is done with it. Cut into sqrt(n)
segments, of which only the beginnings are kept, it needs memory for about 2 sqrt(n) blocks, and computes everything
twice (T. Chen et al., "Training deep nets with sublinear memory cost", 2016). On the tape that is utils.checkpoint; in
a graph it is jax.checkpoint around each segment, or the pass remat, which is given a budget and finds the segments. XLA
may still merge what is computed twice with what was there, and then keeps it: that shows in its own figure, the peak.
Powers are fitted to the bytes, beside a constant.
"""

import functools
import math

import jax
import numpy as np

import twograd.numpy as tnp
from twograd import graph, tape
from twograd.compare import Comparison, Curves, Observation, Series, Table
from twograd.compare.engines.xla import blocked, compiled_counts
from twograd.compare.units import size
from twograd.graph.passes import remat
from twograd.tape.utils.checkpoint import checkpoint_sequential

BATCH, WIDTH = 1024, 16  # what flows is much larger than a block's weights, which are there anyway
DEPTHS, QUICK_DEPTHS = (16, 64, 144, 256), (9, 36, 100)  # squares


def block(layer, x):
    return tnp.tanh(x @ layer["weight"] + layer["bias"])


def weights(rng, depth):
    return [{"weight": rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5, "bias": np.zeros(WIDTH)} for _ in range(depth)]


def chain(layers, x):
    for layer in layers:
        x = block(layer, x)
    return x


# --- on the tape ------------------------------------------------------------------------------------------------------


def recorded(layers, x, checkpointed):
    """Parameters and the loss, its tape recorded."""
    params = jax.tree.map(lambda array: tape.tensor(array, requires_grad=True), layers)
    if checkpointed:
        blocks = [functools.partial(block, layer) for layer in params]
        x = checkpoint_sequential(blocks, math.isqrt(len(blocks)), x, use_reentrant=False)
    else:
        x = chain(params, x)
    return params, tnp.mean(x * x)


def walked(layers, x, checkpointed):
    """The gradients, leaf by leaf."""
    params, loss = recorded(layers, x, checkpointed)
    loss.backward()
    return jax.block_until_ready([param.grad.array for param in jax.tree.leaves(params)])


# --- in the graph -----------------------------------------------------------------------------------------------------


def plain(layers, x):
    x = chain(layers, x)
    return tnp.mean(x * x)


def checkpointed(layers, x):
    length = math.isqrt(len(layers))
    for i in range(0, len(layers), length):
        x = jax.checkpoint(chain)(layers[i : i + length], x)
    return tnp.mean(x * x)


def gradient_graphs(layers, x):
    whole, in_segments = (graph.trace(f, layers, x).value_and_grad().optimize() for f in (plain, checkpointed))
    budget = int(2 * math.sqrt(len(layers)) * x.nbytes)
    return {"graph": whole, "graph, checkpoint": in_segments, "graph, remat": whole.optimize(remat(budget))}


# --- what is shown ----------------------------------------------------------------------------------------------------


def experiment(context):
    depths = QUICK_DEPTHS if context.quick else DEPTHS
    kept, peak, subjects, gradients, events = {}, {}, {}, {}, {}
    for depth in depths:
        rng = context.rng("weights", str(depth))
        layers, x = context.cast((weights(rng, depth), rng.standard_normal((BATCH, WIDTH))))
        if "tape" in context.engines:
            for name, way in (("tape", False), ("tape, checkpoint", True)):
                context.tell(f"{name}, {depth} blocks")
                subjects[name, depth] = functools.partial(walked, layers, tape.tensor(x), way)
                kept[name, depth] = tape.stats(recorded(layers, tape.tensor(x), way)[1]).saved_bytes
                with tape.live_bytes() as live:
                    gradients[name, depth] = subjects[name, depth]()
                peak[name, depth] = live.peak
                if depth == depths[1]:
                    events[name] = [event.bytes / 1e3 for event in live.events]
        if "graph" in context.engines:
            arrays = context.engines["graph"].arrays((layers, x))
            for name, g in gradient_graphs(layers, x).items():
                context.tell(f"{name}, {depth} blocks")
                compiled = jax.jit(g.run).lower(*arrays).compile()
                subjects[name, depth] = blocked(compiled, *arrays)
                gradients[name, depth] = jax.tree.leaves(subjects[name, depth]()[1])
                kept[name, depth] = g.reports[-1].fired.get("byte kept after", g.stats().saved_bytes)
                peak[name, depth] = compiled_counts(compiled)["temp bytes"]
    context.tell("timing")
    times = {key: found.median for key, found in context.measure(subjects).items()}
    names = list(dict.fromkeys(name for name, _ in kept))
    yield Table(
        f"A gradient of a chain of blocks, each of which passes on {size(BATCH * WIDTH * 4)}",
        ["blocks", "way", "kept for the way back", "peak", "time", "time, of that without", "gradient: furthest"],
        [
            [
                depth, name, kept[name, depth] / 1e3, peak[name, depth] / 1e3, times[name, depth] * 1e3,
                times[name, depth] / times[without(name), depth],
                furthest(gradients[name, depth], gradients[names[0], depth]),
            ]
            for depth in depths
            for name in names
        ],
        units=["", "", "kB", "kB", "ms", "times", "of its largest"],
        note="Kept by remat: with the largest part computed again at once. The peak: on the tape, the most that "
        f"nodes keep at once; in the graph, what XLA allocates for temporary values. Gradients: from {names[0]}'s.",
    )  # fmt: skip
    for title, found in (("Kept for the way back", kept), ("Peak", peak)):
        series = [Series(name, depths, [found[name, n] / 1e3 for n in depths], engine=name) for name in names]
        yield Curves(title, "blocks", "kB", series, x_scale="log", y_scale="log")
    for name in names:
        most, plainly = peak[name, depths[-1]], without(name)
        text = (
            f"`{name}`: what is kept grows with n to the power {power(depths, kept, name):.2f}, the peak with n to "
            f"the power {power(depths, peak, name):.2f}. At {depths[-1]} blocks the peak is {size(most)}"
        )
        if name != plainly:
            text += (
                f", {most / peak[plainly, depths[-1]]:.2f} times that without checkpoints, and a gradient takes "
                f"{times[name, depths[-1]] / times[plainly, depths[-1]]:.2f} times as long"
            )
        yield Observation(f"{text}.")
    if events:
        yield Curves(
            f"{depths[1]} blocks on the tape, event by event",
            "events: a node saves, or frees what it saved",
            "kept, kB",
            [Series(name, range(len(found)), found, engine=name) for name, found in events.items()],
        )


def without(name):
    """The same engine's way without checkpoints."""
    return name.partition(",")[0]


def furthest(found, expected):
    """How far gradients are from others, of these's largest element."""
    return float(max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True)))


def power(depths, found, name):
    """The p of ``a + b n**p`` that fits the bytes best, by least squares; a is what does not depend on n."""
    n, measured = np.array(depths, float), np.array([found[name, depth] for depth in depths])

    def residual(p):
        model = np.stack([np.ones_like(n), n**p], axis=1)
        return np.sum(np.square(model @ np.linalg.lstsq(model, measured)[0] - measured))

    return min(np.linspace(0.05, 1.5, 146), key=residual)


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
