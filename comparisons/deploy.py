"""What of a training graph is left for those who only want its predictions?

A network with dropout learns handwritten digits; its whole step (loss, gradient, update) is one graph, which also
computes the scores without dropout. To be deployed, the graph is stripped to the scores, its weights become constants,
and it is written to a file, which a fresh process runs that imports twograd.deploy and nothing else of twograd. What
goes is listed with a reason. Where gradients are values, on the tape and by backprop, no graph ever held them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import twograd
from twograd import data, graph, nn, tape
from twograd.compare import Comparison, Listing, Observation, Table
from twograd.compare.engines.xla import blocked
from twograd.compare.training import between, ulps
from twograd.compare.units import duration, listed, size
from twograd.errors import ExportError
from twograd.graph.strip import GRADIENT
from twograd.nn import functional as F

BATCH, TEST, RATE, WIDTH = 96, 4 * 96, 0.1, 128  # digits held out: four batches, for the graph's shapes are fixed
STEPS, QUICK_STEPS = 600, 200
SCORES = "result['scores']"  # the output that is deployed

ELSEWHERE = """
import json, sys, time
began = time.perf_counter()
import numpy as np
from twograd import deploy

seconds = {"import": time.perf_counter() - began}
path, images, scores = sys.argv[1:]
batches = np.load(images)
def timed(name, call):
    began = time.perf_counter()
    result = call()
    seconds[name] = time.perf_counter() - began
    return result
program = timed("load", lambda: deploy.load(path))
timed("first call", lambda: np.asarray(program(batches[0])))
np.save(scores, timed("further calls", lambda: [np.asarray(program(batch)) for batch in batches]))
seconds["further calls"] /= len(batches)
modules = sorted(name for name in sys.modules if name.split(".")[0] == "twograd")
print(json.dumps({"modules": modules, "seconds": seconds}))
"""


def network(seed):
    tape.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Dropout(0.3), nn.Linear(WIDTH, 10))


def loss_of(net, params, images, labels, seed):
    scores = nn.functional_call(net.train(), params, images, rng=jax.random.key(seed))
    return F.cross_entropy(scores, labels)


def scores_of(net, params, images):
    return nn.functional_call(net.eval(), params, images)


def step_of(net, transform):
    """The whole step, as a function of all that it changes; and the scores of the weights that it began with."""

    def step(params, state, images, labels, seed):
        loss, gradient = graph.value_and_grad(lambda params: loss_of(net, params, images, labels, seed))(params)
        changes, state = transform.update(gradient, state, params)
        updated = jax.tree.map(lambda p, change: p + change, params, changes)
        return {"params": updated, "state": state, "loss": loss, "scores": scores_of(net, params, images)}

    return step


def elsewhere(path, batches):
    """The scores that a fresh process computes, and what it says of itself."""
    images, scores = (Path(path).with_name(name) for name in ("images.npy", "scores.npy"))
    np.save(images, batches)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, path, images, scores], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the fresh process failed: {done.stderr[-500:]}")
    return np.load(scores), json.loads(done.stdout)


def experiment(context):
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    net, transform = network(context.settings.seed), twograd.optim.SGD.transform(lr=RATE, momentum=0.9)
    digits = data.digits()
    learn, held_out = digits.split(test=TEST, seed=context.settings.seed)
    params = {name: p.array for name, p in net.named_parameters()}
    state = transform.init(params)
    context.tell("training")
    order, steps = context.rng("batches"), QUICK_STEPS if context.quick else STEPS
    trained = graph.trace(step_of(net, transform), params, state, learn.images[:BATCH], learn.labels[:BATCH], 0)
    for seed in range(steps):
        rows = order.choice(len(learn), BATCH, replace=False)
        out = trained.run(params, state, learn.images[rows], learn.labels[rows], seed)
        params, state = out["params"], out["state"]
    yield from deployed(context, net, trained, params, state, held_out)


def deployed(context, net, trained, params, state, held_out):
    batches, labels = held_out.images.reshape(-1, BATCH, 8, 8), held_out.labels
    context.tell("stripping")
    stripped = trained.strip(SCORES)
    frozen = stripped.freeze({"params": params})
    arguments = (params, state, batches[0], labels[:BATCH], 0)
    calls = {
        "trained": (trained, arguments),
        "stripped": (stripped, (params, batches[0])),
        "frozen": (frozen, batches[:1]),
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = {name: g.export(Path(folder, name))["bytes"] for name, (g, _) in calls.items()}
        except ExportError as error:
            yield Observation(f"Nothing was exported: {error}.")
            return
        context.tell("a fresh process")
        scores, said = elsewhere(Path(folder, "frozen"), batches)
    times = context.measure({name: blocked(g.run, *given) for name, (g, given) in calls.items()})
    expected = trained.run(*arguments)["scores"]
    rows = []
    for name, (g, given) in calls.items():
        found = expected if g is trained else g.run(*given)
        needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(given))
        sizes = [g.stats().equations, needed / 1e3, written[name] / 1e3]
        rows.append([name, *sizes, times[name].median * 1e3, furthest(found, expected)])
    seconds = said["seconds"]
    rows.append(["elsewhere", *rows[-1][1:4], seconds["further calls"] * 1e3, furthest(scores[0], expected)])
    yield Table(
        f"The graph that is trained and those that are deployed; a call is a batch of {BATCH} images",
        ["graph", "equations", "arguments", "program", "a call", "scores: furthest from the trained graph's"],
        rows,
        units=["", "", "kB", "kB", "ms", "ulp"],
        note="Arguments: weights, the optimiser's state and the batch, as far as the graph needs them. Programs are "
        "StableHLO; the frozen one's holds the weights. Elsewhere: a fresh process that imports twograd.deploy.",
    )
    yield from what_went(stripped.reports[-1])
    here = np.stack([np.asarray(frozen.run(batch)) for batch in batches])
    right = (scores.argmax(axis=-1).reshape(-1) == labels).mean()
    yield Observation(
        f"In a fresh process the program has scores that are {furthest(scores, here):.3g} units in the last place from "
        f"those of the frozen graph here, on all {TEST} digits held out, and recognises {between([right])} of them."
    )
    yield Observation(
        f"That process has imported, of twograd, {listed(said['modules'])}. Importing them with JAX takes "
        f"{duration(seconds['import'])}, loading the program {duration(seconds['load'])}, the first call, which "
        f"compiles it, {duration(seconds['first call'])}, each further one {duration(seconds['further calls'])}."
    )
    yield from nothing_to_strip(net, trained, arguments)
    yield Listing("What strip says it did", str(stripped.reports[-1]))
    yield Listing("The graph that is deployed", stripped.text(provenance=False))


def furthest(found, expected):
    """The largest distance in units in the last place."""
    return float(ulps(np.asarray(found), np.asarray(expected)).max())


def what_went(report):
    yield Table(
        f"What was removed, of {report.before} equations",
        ["why", "equations", "their results", "the most frequent"],
        [
            [
                item.reason, item.equations, item.bytes / 1e3,
                ", ".join(f"{name} ({times})" for name, times in item.primitives.most_common(4)),
            ]
            for item in report.removed
        ],
        units=["", "", "kB", ""],
    )  # fmt: skip
    yield Observation(
        f"Of {report.before} equations strip leaves {report.after}, and of the inputs it drops {len(report.inputs)} "
        f"({size(sum(report.inputs.values()))}). That the scores are the same to the last bit was "
        f"{'checked' if report.checked else 'not checked'}, equation by equation, on random inputs."
    )


def nothing_to_strip(net, trained, arguments):
    """The same program at the corners where gradients are values."""
    params, _, images, labels, seed = arguments

    def program(params, images, labels, seed):
        return {"loss": loss_of(net, params, images, labels, seed), "scores": scores_of(net, params, images)}

    walked = graph.trace(program, params, images, labels, seed)
    weights = [name for name in walked.inputs if name.startswith("params")]
    graph.backprop(walked, (params, images, labels, seed), "result['loss']", weights)
    rows = []
    for corner, g in (("graph, gradients", trained), ("graph, backprop", walked)):
        of_derivative = g.stats().derivative_equations
        removed = g.strip(SCORES, check=False).reports[-1].fired[GRADIENT]
        rows.append([corner, g.stats().equations - of_derivative, of_derivative, removed])
    loss = F.cross_entropy(net.train()(tape.tensor(images)), tape.tensor(labels))
    loss.backward()
    recorded = tape.stats(loss).nodes
    of_derivative = tape.stats(loss, *(p.grad for p in net.parameters())).nodes - recorded
    rows.append(["tape, backward", recorded, of_derivative, 0])
    yield Table(
        "What there was to strip, when the gradient has been computed",
        ["corner", "nodes of the program", "nodes of the derivative", "stripped as gradient"],
        rows,
        note="The program of the first corner is the whole step with its update, of the others loss and scores. What a "
        "tape has recorded is gone with the loss.",
    )
    yield Observation(
        "; ".join(
            f"`{corner}` has {of_derivative} nodes of a derivative to strip" for corner, _, of_derivative, _ in rows
        )
        + "."
    )


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
