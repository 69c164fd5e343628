"""What becomes of a loop whose length depends on the data?

The square root of x by Heron's method: y is replaced by the mean of y and x / y until y * y is x. How often depends on
x. A tape runs the loop and records what happened. A trace sees no value, so it cannot know when to stop: either it
refuses, or it holds a count that was found on some other x, or the loop becomes part of the program. The table tries
five ways to write the loop with each engine; a gradient counts as right if it is that of the square root itself.
"""

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import twograd.numpy
from twograd import graph, lax, tape
from twograd.compare import Comparison, Listing, Observation, Table, grid, stats

TOLERANCE = 1e-5  # of y * y, relative to x
BOUND = 24  # iterations that suffice for every x here
SEEN = 2  # the x that a fixed count is found on
XS = (2, 50, 10_000, 1_000_000)
RIGHT = "right for every x"


def inputs(rng, *, x):
    return (np.array(float(x)),)


def improved(y, x):
    return (y + x / y) / 2


def unfinished(np, y, x):
    return np.abs(y * y - x) > TOLERANCE * x


# --- five ways to write the loop --------------------------------------------------------------------------------------


def python_while(ops, x):
    """As one writes it: Python asks for a truth value at each turn."""
    y = x
    while unfinished(ops.np, y, x):
        y = improved(y, x)
    return y


def fixed_count(ops, x):
    """As many turns as x = 2 takes: what a trace that had looked at x = 2 would hold."""
    y = x
    for _ in range(iterations(SEEN)):
        y = improved(y, x)
    return y


def masked(ops, x):
    """A bound that is known beforehand, unrolled; a turn that is not needed keeps y. No branch, no question."""
    y = x
    for _ in range(BOUND):
        y = ops.np.where(unfinished(ops.np, y, x), improved(y, x), y)
    return y


def masked_fori_loop(ops, x):
    """The same bound with the loop in the program: one equation, however many turns."""

    def turn(_, carry):
        y, x = carry
        return ops.np.where(unfinished(ops.np, y, x), improved(y, x), y), x

    return lax.fori_loop(0, BOUND, turn, (x, x))[0]


def while_loop(ops, x):
    """The condition in the program too: it stops by itself, and how often it turned is known only when it runs."""
    return lax.while_loop(lambda c: unfinished(ops.np, *c), lambda c: (improved(*c), c[1]), (x, x))[0]


WAYS = {
    "Python's while": python_while,
    f"for with the count of x = {SEEN}": fixed_count,
    "for with a bound and a mask": masked,
    "lax.fori_loop with a bound and a mask": masked_fori_loop,
    "lax.while_loop": while_loop,
}


def iterations(x):
    """How many turns the loop takes, counted on NumPy's float32."""
    x = y = np.float32(x)
    count = 0
    while unfinished(np, y, x):
        y, count = np.float32(improved(y, x)), count + 1
    return count


# --- what is shown ----------------------------------------------------------------------------------------------------


def experiment(context):
    yield from recorded()
    yield from tried(context)
    yield from timed(context)


def recorded():
    """A tape is as long as the data make it; a graph is as long as it was when it was traced."""
    ops = SimpleNamespace(np=twograd.numpy)
    baked, bounded = (graph.trace(functools.partial(way, ops), float(SEEN)) for way in (fixed_count, masked))
    rows = []
    for x in XS:
        root = python_while(ops, tape.tensor(float(x), requires_grad=True))
        held = [
            baked.stats().equations,
            float(baked.run(float(x))),
            bounded.stats().equations,
            float(bounded.run(float(x))),
        ]
        rows.append([x, x**0.5, iterations(x), tape.stats(root).nodes, root.item(), *held])
    fixed, bound = f"traced with the count at x = {SEEN}", f"traced with the bound {BOUND}"
    yield Table(
        "What is recorded, and what was traced",
        ["x", "sqrt(x)", "turns", "nodes on the tape", "its result",
         f"equations, {fixed}", f"result, {fixed}", f"equations, {bound}", f"result, {bound}"],
        rows,
    )  # fmt: skip
    (few, *_), (x, root, turns, nodes, _, equations, result, *_) = rows[0], rows[-1]
    yield Observation(
        f"At x = {few} the loop takes {rows[0][2]} turns and the tape holds {rows[0][3]} nodes; at x = {x} it is "
        f"{turns} turns and {nodes} nodes. A graph traced with the count of x = {SEEN} keeps its {equations} "
        f"equations and returns {result:.6g} for the root of {x}, which is {root:.6g}. It raises nothing."
    )


def tried(context):
    """Each way with each engine; what comes out is found out by doing it."""
    names = [name for name in ("tape", "graph", "jax-jit") if name in context.engines]
    errors = {}
    rows = []
    for title, way in WAYS.items():
        outcomes = {name: attempt(context.engines[name], way) for name in names}
        rows.append([title, *(outcome for outcome, _ in outcomes.values())])
        for name, (_, error) in outcomes.items():
            if error:
                errors.setdefault(error, []).append(f"{title}: {name}")
    xs = ", ".join(map(str, XS))
    yield Table(
        "Five ways to write the loop",
        ["way", *names],
        rows,
        note=f"Gradients at x = {xs}, held against 1 / (2 sqrt(x)) to one part in a thousand.",
    )
    for column, name in enumerate(names, start=1):
        right = [row[0] for row in rows if row[column] == RIGHT]
        yield Observation(f"With `{name}` the gradient is right for every x in {len(right)} of {len(rows)} ways"
                          + (f": {', '.join(right)}." if right else "."))  # fmt: skip
    for error, where in errors.items():
        yield Listing("; ".join(where), error)


def attempt(engine, way):
    """What becomes of the gradients of one way to write the loop, in words; and the text of the error, if any."""
    value_and_grad = engine.value_and_grad(functools.partial(way, engine.ops))
    wrong = []
    for x in XS:
        try:
            _, gradient = value_and_grad(engine.arrays(np.float32(x)))
        except Exception as error:  # of whatever type: to see it is the point
            name, text = type(error).__name__, str(error).strip().splitlines()[0]
            return name, f"{name}: {text.replace(__file__, Path(__file__).name)}"
        found, expected = float(engine.numpy(gradient)), 0.5 / x**0.5
        if not abs(found - expected) < 1e-3 * expected:
            wrong.append(f"{x} ({found:.3g}, not {expected:.3g})")
    return (f"wrong at x = {'; '.join(wrong)}" if wrong else RIGHT), ""


def timed(context):
    """Does the time of a gradient follow the number of turns?"""
    few, many = context.cases[0], context.cases[-1]
    stage, rows = "forward+backward", []
    for name in context.engines:
        a, b = few.row(name), many.row(name)
        if a is not None and b is not None and stage in a.stages and stage in b.stages:
            ratio = stats.ratio(b.stages[stage], a.stages[stage])
            rows.append([name, a.stages[stage].median * 1e6, b.stages[stage].median * 1e6, ratio.estimate,
                         f"{ratio.low:.3g} to {ratio.high:.3g}"])  # fmt: skip
    turns = [iterations(case.axes["x"]) for case in (few, many)]
    if rows:
        yield Table(
            f"A gradient when {turns[0]} turns become {turns[1]} ({turns[1] / turns[0]:.3g} times as many)",
            ["engine", few.name, many.name, "factor", "99 % interval"],
            rows,
            units=["", "µs", "µs", "", ""],
            note=f"Compiled engines have the loop with the bound, which is {BOUND} turns for every x.",
        )


comparison = Comparison(
    inputs=inputs,
    loss=python_while,
    variants=dict.fromkeys(("graph", "jax-jit", "pytensor", "tinygrad", "tensorflow-v1"), masked),
    cases=grid(x=(2, 50, 10**4, 10**6)),
    quick=grid(x=(2, 10**6)),
    experiment=experiment,
    engines=("tape", "graph", "jax-jit", "torch", "autograd", "jax-eager"),
)
