"""What do inputs whose shape changes from call to call cost?

Sentences have different lengths, and a compiled program has fixed shapes: XLA compiles it again for each new length,
once for a whole graph, and once for every op of a tape. Padding every sentence to a power of two, and masking what was
added, leaves few lengths; what it costs is arithmetic on padding.
"""

import numpy as np

from twograd.compare import Comparison, Curves, Observation, Series, Table, grid
from twograd.compare.compilations import two_passes
from twograd.compare.units import duration

FEATURES, HIDDEN = 16, 32
STREAMS = {"count": 200, "longest": 200, "lengths": (1, 4, 16, 64)}
QUICK_STREAMS = {"count": 16, "longest": 32, "lengths": (1, 3, 6)}


def weights(rng):
    return {"in": rng.standard_normal((FEATURES, HIDDEN)) / 4, "out": rng.standard_normal(HIDDEN) / 6}


def inputs(rng, *, length):
    return weights(rng), rng.standard_normal((length, FEATURES)), np.ones(length)


def loss(ops, layers, words, mask):
    """The mean square of a small network's output over the words of a sentence, not counting those with mask 0."""
    scores = ops.np.tanh(words @ layers["in"]) @ layers["out"]
    return ops.np.sum(mask * scores * scores) / ops.np.sum(mask)


def padded(words, mask):
    """The same sentence with words of zero up to the next power of two, and their mask."""
    missing = 2 ** int(np.ceil(np.log2(len(words)))) - len(words)
    return np.pad(words, ((0, missing), (0, 0))), np.pad(mask, (0, missing))


def sentences(rng, lengths, distinct, count):
    """``count`` random sentences with ``distinct`` different lengths, each of which occurs."""
    chosen = rng.choice(lengths, distinct, replace=False)
    order = rng.permutation(np.resize(chosen, count))
    return [(rng.standard_normal((length, FEATURES)), np.ones(length)) for length in order]


def experiment(context):
    count, longest, numbers = (QUICK_STREAMS if context.quick else STREAMS).values()
    names = [name for name in ("tape", "graph", "jax-jit", "torch") if name in context.engines]
    layers = context.cast(weights(context.rng("weights")))
    streams = {
        number: context.cast(sentences(context.rng("sentences", str(number)), np.arange(2, longest + 1), number, count))
        for number in numbers
    }
    most = numbers[-1]
    cured = [padded(*sentence) for sentence in streams[most]]
    buckets = len({len(words) for words, _ in cured})
    results, losses = {}, {}
    for name in names:
        program = context.program(name)
        for number, stream in streams.items():
            results[name, number], losses[name] = two_passes(context.engines[name], program, layers, stream)
        results[name, "padded"], cured_losses = two_passes(context.engines[name], program, layers, cured)
        losses[name] = float(np.max(np.abs(cured_losses / losses[name] - 1)))

    yield Table(
        f"{count} sentences of 2 to {longest} words, gone through twice from empty caches",
        ["engine", "lengths", "compilations, 1st pass", "time, 1st pass", "compilations, 2nd pass", "time, 2nd pass"],
        [
            [name, f"{most}, padded to {buckets}" if number == "padded" else number, *found]
            for (name, number), found in results.items()
        ],
        units=["", "", "", "s", "", "s"],
        note="Compilations are XLA's, as JAX's monitoring counts them; PyTorch's eager mode compiles nothing.",
    )
    series = [Series(name, list(numbers), [results[name, n][1] for n in numbers], engine=name) for name in names]
    yield Curves("The first pass", "different lengths among the sentences", "seconds", series)
    for name in names:
        yield from observations(name, {key: found for (engine, key), found in results.items() if engine == name}, most)
    added = sum(len(words) for words, _ in cured) / sum(len(words) for words, _ in streams[most]) - 1
    yield Observation(
        f"The cure: padding to powers of two leaves {buckets} lengths of {most}, and {100 * added:.0f} % more words to "
        f"compute on. No loss changes by more than {max(losses.values(), default=0.0):.1e} of its value."
    )


def observations(name, found, most):
    compiled, seconds, again, seconds_again = found[most]
    fewest = min(number for number in found if number != "padded")
    if not compiled:
        yield Observation(
            f"`{name}` compiles nothing, whatever the lengths: with {most} lengths the passes take {duration(seconds)} "
            f"and {duration(seconds_again)}."
        )
        return
    each = (compiled - found[fewest][0]) / (most - fewest)
    programs = f"{each:.3g} program{'' if each == 1 else 's'}"
    yield Observation(
        f"`{name}` compiles {programs} for each new length, and {again or 'none'} when the same lengths come again: "
        f"with {most} lengths the first pass takes {duration(seconds)}, the second {duration(seconds_again)}. With "
        f"padding they take {duration(found['padded'][1])} and {duration(found['padded'][3])}."
    )


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=grid(length=(8, 32, 128)),
    quick=grid(length=(32,)),
    experiment=experiment,
    engines=("tape", "graph", "jax-jit", "torch", "autograd"),
)
