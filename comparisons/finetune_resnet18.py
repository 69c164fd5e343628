"""What does freezing a network save, and who finds out that its gradient is not needed?

The example of the note PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍: every parameter of a ResNet-18 is frozen, its
last layer replaced by a new one, and only that is trained, by SGD with momentum; here on handwritten digits, behind
weights as they are drawn at first (trained ones come with no package) and the digits' own batch statistics. A tape
records nothing before the first Tensor that requires a gradient. A graph that is asked for the gradient of everything,
of which only the last layer's is used, holds the rest as equations that nobody reads, until dead code is removed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import twograd
from twograd import data, graph, models, nn, tape
from twograd.compare import Comparison, Observation, Table
from twograd.compare.engines.xla import blocked
from twograd.compare.training import between, loss_curves
from twograd.nn import functional as F

BLOCKS, QUICK_BLOCKS = (2, 2, 2, 2), (1, 1, 1)  # those of ResNet-18; fewer
BATCH, QUICK_BATCH = 32, 16
SIDE, QUICK_SIDE = 32, 16
STEPS, QUICK_STEPS = 200, 40
CLASSES, TEST = 10, 320
HEAD = ("fc.weight", "fc.bias")


def network(seed, blocks, statistics, frozen):
    """A ResNet in evaluation, with these statistics; its last layer is new, and the rest frozen or not."""
    tape.manual_seed(seed)
    model = models.ResNet(blocks).eval()
    model.load_state_dict(statistics, strict=False)
    if frozen:
        for param in model.parameters():
            param.requires_grad = False
    # Parameters of newly constructed modules have requires_grad=True by default
    model.fc = nn.Linear(model.fc.in_features, CLASSES)
    return model


def statistics_of(seed, blocks, images):
    """What batch normalisation keeps, of these images alone."""
    tape.manual_seed(seed)
    model = models.ResNet(blocks)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    return jax.jit(lambda images: nn.functional_call(model, {}, images, mutable=True)[1])(images)


def images_of(digits, side):
    """Digits of 8 x 8 as images of 3 x side x side, from -1 to 1."""
    larger = np.kron(2 * digits.images - 1, np.ones((side // 8, side // 8), np.float32))
    return np.repeat(larger[:, None], 3, axis=1)


def by_tape(model):
    """``step(images, labels)`` trains the last layer, and returns the loss before it."""
    optimizer = twograd.optim.SGD(model.fc.parameters(), lr=1e-2, momentum=0.9)

    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tape.tensor(images)), tape.tensor(labels))
        loss.backward()
        optimizer.step()
        return loss.numpy(force=True)

    return step


def finished(step, model, batch):
    """A step that is over when all gradients are there, those that nobody uses too."""
    step(*batch)
    jax.block_until_ready([param.grad.array for param in model.parameters() if param.grad is not None])


def parts(model):
    """The arrays of the last layer, and of the rest."""
    params = {name: param.array for name, param in model.named_parameters()}
    return {name: params.pop(name) for name in HEAD}, params


def loss_of(model):
    def loss(head, body, images, labels):
        return F.cross_entropy(nn.functional_call(model, {**head, **body}, images), labels)

    return loss


def by_graph(model):
    """The same as one compiled program; at the end of each step the model has the new last layer."""
    transform = twograd.optim.SGD.transform(lr=1e-2, momentum=0.9)
    head, body = parts(model)
    state, gradient_of_head = transform.init(head), graph.value_and_grad(loss_of(model))

    @jax.jit
    def update(head, state, images, labels):
        value, gradient = gradient_of_head(head, body, images, labels)
        changes, state = transform.update(gradient, state, head)
        return jax.tree.map(lambda p, change: p + change, head, changes), state, value

    def step(images, labels):
        nonlocal head, state
        head, state, value = update(head, state, images, labels)
        model.load_state_dict(head, strict=False)
        return np.asarray(value)

    return step


def experiment(context):
    try:
        twograd.optim  # noqa: B018
    except ImportError as missing:
        yield Observation(f"Nothing was trained: {missing}.")
        return
    blocks, side, size = (QUICK_BLOCKS, QUICK_SIDE, QUICK_BATCH) if context.quick else (BLOCKS, SIDE, BATCH)
    digits, seed = data.digits(), context.settings.seed
    learn, held_out = digits.split(test=TEST, seed=seed)
    yield Table("The data", ["what", "which"], [[key, value] for key, value in digits.about().items()])
    images = images_of(learn, side)
    make = functools.partial(network, seed, blocks, statistics_of(seed, blocks, images[:size]))
    batch = images[:size], learn.labels[:size]
    about = f"{size} images of {side} x {side}, a ResNet of {' + '.join(map(str, blocks))} blocks"
    if "tape" in context.engines:
        yield from steps_of_tape(context, make, batch, about)
    if "graph" in context.engines:
        yield from gradients_of_graph(context, make(frozen=False), batch, about)
    yield from training(context, make, (images, learn.labels), (images_of(held_out, side), held_out.labels), size)


def steps_of_tape(context, make, batch, about):
    rows, steps = [], {}
    for name, frozen in (("not frozen", False), ("frozen", True)):
        context.tell(f"tape, {name}")
        model = make(frozen=frozen)
        stats = tape.stats(F.cross_entropy(model(tape.tensor(batch[0])), tape.tensor(batch[1])))
        rows.append([name, stats.nodes, stats.saved_bytes / 1e6])
        steps[name] = functools.partial(finished, by_tape(model), model, batch)
    times = context.measure(steps)
    yield Table(
        f"A step of the tape: {about}",
        ["network", "nodes walked", "saved", "a step"],
        [[*row, times[row[0]].median * 1e3] for row in rows],
        units=["", "", "MB", "ms"],
        note="Both train the last layer only; where nothing is frozen, all other gradients are computed in vain.",
    )
    (_, nodes, saved), (_, nodes_left, saved_left) = rows
    yield Observation(
        f"Frozen, the tape walks {nodes_left} nodes in place of {nodes}, and saves {saved_left:.3f} MB in place of "
        f"{saved:.1f}; a step is {times['not frozen'].median / times['frozen'].median:.1f} times as fast."
    )


def gradients_of_graph(context, model, batch, about):
    """Graphs of the gradient: of the last layer, of everything, and of everything with only the last layer's used."""
    loss, inputs = loss_of(model), (*parts(model), *map(jnp.asarray, batch))
    of_all = graph.value_and_grad(loss, argnums=(0, 1))
    programs = {
        "the last layer": graph.value_and_grad(loss),
        "everything": of_all,
        "everything, of which only the last layer's is used": lambda *inputs: of_all(*inputs)[1][0],
    }
    rows, runs = [], {}
    for name, program in programs.items():
        context.tell(f"graph, {name}")
        found = graph.trace(program, *inputs)
        cleaned = found.optimize()
        rows.append([name, found.stats().equations, cleaned.stats().equations, cleaned.stats().saved_bytes / 1e6])
        runs[name] = blocked(cleaned.run, *inputs)
    least, most, used = rows
    text = (
        f"Asked for the last layer only, the graph's gradient has {least[2]} equations after the passes, asked for "
        f"everything {most[2]}; where everything is asked for and only the last layer's kept, {used[2]}."
    )
    if not context.quick:  # compiling them takes longer than all else here
        times = {name: found.median for name, found in context.measure(runs).items()}
        text += f" The gradient of everything takes {times[most[0]] / times[least[0]]:.1f} times as long as the last"
        text += f" layer's, and {times[most[0]] / times[used[0]]:.1f} times as long as where only that is kept."
    yield Table(
        f"The graph's gradient: {about}",
        ["the gradient of", "equations as transformed", "after the passes", "saved"],
        rows,
        units=["", "", "", "MB"],
        note="As transformed, a call is one equation; passes inline it, and remove what no result depends on.",
    )
    yield Observation(text)


def training(context, make, learn, held_out, size):
    """The last layer's, by both engines from the same weights; and how long a step takes."""
    (images, labels), (test_images, test_labels) = learn, held_out
    steps, order = QUICK_STEPS if context.quick else STEPS, context.rng("batches")
    drawn = [order.choice(len(labels), size, replace=False) for _ in range(steps)]
    rows, losses, running, unchanged = [], {}, {}, True
    for name, step_of in (("graph", by_graph), ("tape", by_tape)):
        if name in context.engines:
            context.tell(f"{name}, training")
            model = make(frozen=True)
            before, running[name] = body_of(model), step_of(model)
            losses[name] = np.array([running[name](images[chosen], labels[chosen]) for chosen in drawn])
            unchanged &= all(np.array_equal(value, before[key]) for key, value in body_of(model).items())
            scores = [model(tape.tensor(part)).numpy(force=True) for part in np.split(test_images, TEST // size)]
            right = int((np.concatenate(scores).argmax(axis=-1) == test_labels).sum())
            rows.append([name, float(losses[name][0]), float(losses[name][-1]), right, 100 * right / TEST])
    if not rows:
        return
    times = context.measure({name: lambda s=step: s(images[:size], labels[:size]) for name, step in running.items()})
    yield Table(
        f"{steps} steps of training the last layer",
        ["engine", "first loss", "last loss", "right", "test accuracy", "a step"],
        [[*row, times[row[0]].median * 1e3] for row in rows],
        units=["", "nats", "nats", f"of {TEST}", "%", "ms"],
        note=f"SGD with learning rate 0.01 and momentum 0.9, batches of {size} out of {len(labels)} digits.",
    )
    yield Observation(
        f"After {steps} steps from the same weights {between(row[3] / TEST for row in rows)} are recognised of {TEST} "
        f"digits that were never trained on; guessing would give 10 %. The frozen weights are "
        f"{'bit for bit what they were' if unchanged else 'NOT what they were'}."
    )
    yield from loss_curves(losses)


def body_of(model):
    """Copies of all values but the last layer's."""
    state = model.state_dict()
    return {name: state[name].numpy(force=True).copy() for name in state.keys() - HEAD}


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
