"""What does one op cost, and how does that depend on the size of its tensors and the depth of the chain?

Each link of the chain is a matrix product, a bias, a tanh and a residual sum: four ops forward. On small tensors the
time is what an engine spends per op (recording, dispatch, or nothing once compiled); on large ones it is the
arithmetic, which is the same for all.
"""

from twograd.compare import Comparison, Observation, Table, grid, stats

OPS_PER_LINK = 4  # product, bias, tanh, sum
STEADY = "forward+backward"


def inputs(rng, *, size, depth):
    links = [
        {"weight": rng.standard_normal((size, size)) / size**0.5, "bias": 0.1 * rng.standard_normal(size)}
        for _ in range(depth)
    ]
    return links, rng.standard_normal((size, size))


def loss(ops, links, x):
    for link in links:
        x = x + ops.np.tanh(x @ link["weight"] + link["bias"])
    return ops.np.mean(x * x)


def experiment(context):
    yield from cost_of_an_op(context.cases)
    yield from arithmetic(context.cases)
    yield from where_compiling_stops_paying(context.cases)


def cost_of_an_op(cases):
    """What one more op costs on the smallest tensors: the slope of the time over the depth."""
    size = min(case.axes["size"] for case in cases)
    shallow, *_, deep = sorted(
        (case for case in cases if case.axes["size"] == size), key=lambda case: case.axes["depth"]
    )
    ops = OPS_PER_LINK * (deep.axes["depth"] - shallow.axes["depth"])
    found = []
    for engine in (row.engine for row in deep.rows):
        less, more = median(shallow, engine), median(deep, engine)
        if less is not None and more is not None:
            found.append([engine, (more - less) / ops * 1e6])
    if not found:
        return
    yield Table(
        f"One more op, forward and backward, on {size} x {size}",
        ["engine", "time"],
        sorted(found, key=lambda row: row[1]),
        units=["", "µs"],
        note=f"({deep.name} less {shallow.name}) / {ops} ops, so that what is paid once per call does not count.",
    )


def arithmetic(cases):
    """How much of the time the machine computes: the rate of each case over that of the largest one."""
    rates = []
    for case in by_size(cases):
        row, time = case.row("graph"), median(case, "graph")
        if row is not None and time and "flops" in row.counts:
            rates.append((case.axes["size"], row.counts["flops"], time, row.counts["flops"] / time))
    if len(rates) < 2:
        return
    best = max(rate for *_, rate in rates)
    yield Table(
        "Arithmetic by `graph`",
        ["size", "operations", "time", "rate", "of the best rate"],
        [[size, flops / 1e6, time * 1e6, rate / 1e9, 100 * rate / best] for size, flops, time, rate in rates],
        units=["", "Mflop", "µs", "Gflop/s", "%"],
        note="Operations are those that XLA counts in the compiled gradient.",
    )
    size, _, _, rate = rates[0]
    yield Observation(
        f"On {size} x {size} the compiled gradient does arithmetic at {100 * rate / best:.2g} % of the best rate here: "
        f"nearly all of its time is spent on calling."
        if rate < 0.1 * best
        else f"On {size} x {size} the compiled gradient does arithmetic at {100 * rate / best:.2g} % of the best rate."
    )


def where_compiling_stops_paying(cases):
    """A gradient by the tape over one by the compiled graph, by size, at one depth."""
    rows = []
    for case in by_size(cases):
        if median(case, "tape") and median(case, "graph"):
            ratio = stats.ratio(case.row("tape").stages[STEADY], case.row("graph").stages[STEADY])
            rows.append([case.axes["size"], ratio.estimate, ratio.low, ratio.high])
    if not rows:
        return
    yield Table("`tape` over `graph`", ["size", "ratio", "99 % from", "to"], rows)
    (smallest, most, *_), (largest, least, *_) = rows[0], rows[-1]
    clear = [size for size, _, low, _ in rows if low > 1]
    beyond = [size for size, *_ in rows if size > max(clear, default=0)]
    yield Observation(
        f"A gradient by `tape` takes {most:.3g} times as long as by `graph` on {smallest} x {smallest} and {least:.3g} "
        f"times on {largest} x {largest}; "
        + (f"from size {beyond[0]} on the 99 % interval is not above 1." if beyond else "no 99 % interval holds 1.")
    )


def by_size(cases):
    """The cases of the depth that most sizes have, by size."""
    depths = [case.axes["depth"] for case in cases]
    depth = max(depths, key=depths.count)
    return sorted((case for case in cases if case.axes["depth"] == depth), key=lambda case: case.axes["size"])


def median(case, engine):
    """Seconds of a steady gradient, or None."""
    row = case.row(engine)
    return row.stages[STEADY].median if row is not None and STEADY in row.stages else None


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=[*grid(size=(8,), depth=(1, 4, 16, 64)), *grid(size=(32, 128, 512), depth=(4,))],
    quick=[*grid(size=(8,), depth=(2, 16)), *grid(size=(256,), depth=(2,))],
    experiment=experiment,
)
