"""What does a gradient of a small convolutional network cost, and does the network learn with every engine?

The network is the classifier of PyTorch's CIFAR-10 tutorial, whose training loop is the example in the note
PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍: two convolutions of 5 x 5, each followed by a maximum over 2 x 2, and
three linear layers, on images of 3 x 32 x 32. The timed cases run on random images of that shape, the training on real
digits of MNIST, framed to 32 x 32, with one channel.
"""

import numpy as np

from twograd import data
from twograd.compare import Comparison, Observation, Table, grid
from twograd.compare.training import between, loss_curves

TEST = 1000  # images held out, drawn at random
BATCH, RATE, MOMENTUM = 32, 0.03, 0.9
STEPS, QUICK_STEPS = 1000, 100
TRAINED = ("graph", "tape", "jax-jit", "torch")  # the first is what the others are held against
QUICK_TRAINED = TRAINED[:2]


def initial_weights(rng, channels):
    """PyTorch's own initialisation: uniform within one over the root of the number of a unit's inputs."""

    def layer(*shape):
        bound = np.prod(shape[1:]) ** -0.5
        return {"weight": rng.uniform(-bound, bound, shape), "bias": rng.uniform(-bound, bound, shape[0])}

    return {
        "conv1": layer(6, channels, 5, 5), "conv2": layer(16, 6, 5, 5),
        "fc1": layer(120, 400), "fc2": layer(84, 120), "fc3": layer(10, 84),
    }  # fmt: skip


def scores(ops, layers, images):
    def parameters(name):
        return layers[name]["weight"], layers[name]["bias"]

    x = ops.F.max_pool2d(ops.F.relu(ops.F.conv2d(images, *parameters("conv1"))), 2)
    x = ops.F.max_pool2d(ops.F.relu(ops.F.conv2d(x, *parameters("conv2"))), 2)
    x = x.reshape((x.shape[0], -1))
    x = ops.F.relu(ops.F.linear(x, *parameters("fc1")))
    x = ops.F.relu(ops.F.linear(x, *parameters("fc2")))
    return ops.F.linear(x, *parameters("fc3"))


def loss(ops, layers, images, labels):
    return ops.F.cross_entropy(scores(ops, layers, images), labels)


def inputs(rng, *, batch):
    return initial_weights(rng, channels=3), rng.standard_normal((batch, 3, 32, 32)), rng.integers(10, size=batch)


def framed(images):
    """28 x 28 pixels in the middle of 32 x 32, from -1 to 1 as in the tutorial, with an axis for the one channel."""
    return np.pad(images * 2 - 1, ((0, 0), (2, 2), (2, 2)), constant_values=-1)[:, None]


def train(context, engine, digits, steps):
    """The loss of each step, and the weights after the last one; SGD with momentum, in NumPy for every engine."""
    value_and_grad = engine.value_and_grad(context.program(engine.name))
    layers = context.cast(initial_weights(context.rng("weights"), channels=1))
    velocity = {name: {key: np.zeros_like(w) for key, w in layer.items()} for name, layer in layers.items()}
    order, losses = context.rng("batches"), []
    for _ in range(steps):
        rows = order.choice(len(digits), BATCH, replace=False)
        batch = engine.arrays(context.cast((framed(digits.images[rows]), digits.labels[rows])))
        value, gradient = engine.numpy(value_and_grad(engine.arrays(layers), *batch))
        losses.append(value)
        for name, layer in layers.items():
            for key in layer:
                velocity[name][key] = velocity[name][key] * np.float32(MOMENTUM) + gradient[name][key]
                layer[key] = layer[key] - np.float32(RATE) * velocity[name][key]
    return np.array(losses), layers


def experiment(context):
    try:
        digits = data.mnist_5k()
    except data.MissingData as missing:
        yield Observation(
            f"No training on real images, since {missing}. With it, this section shows loss and accuracy."
        )
        return
    learn, held_out = digits.split(test=TEST, seed=context.settings.seed)
    steps = QUICK_STEPS if context.quick else STEPS
    yield Table("The data", ["what", "which"], [[key, value] for key, value in digits.about().items()])

    rows, losses = [], {}
    for name in QUICK_TRAINED if context.quick else TRAINED:
        if name in context.engines:
            engine = context.engines[name]
            losses[name], layers = train(context, engine, learn, steps)
            images = engine.arrays(context.cast(framed(held_out.images)))
            guesses = engine.numpy(scores(engine.ops, engine.arrays(layers), images)).argmax(axis=1)
            right = int((guesses == held_out.labels).sum())
            rows.append([name, float(losses[name][0]), float(losses[name][-1]), right, 100 * right / TEST])
    yield Table(
        f"{steps} steps of training",
        ["engine", "first loss", "last loss", "right", "test accuracy"],
        rows,
        units=["", "", "", f"of {TEST}", "%"],
        note=(
            f"SGD with learning rate {RATE} and momentum {MOMENTUM}, batches of {BATCH} out of {len(learn)} images; "
            f"the {TEST} test images are drawn at random and never trained on."
        ),
    )
    if rows:
        yield Observation(
            f"After {steps} steps from the same weights and over the same batches, the network recognises "
            f"{between(row[3] / TEST for row in rows)} of {TEST} digits that were never trained on, whichever of "
            f"{len(rows)} engines computed the gradients; guessing would give 10 %."
        )
        yield from loss_curves(losses)


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=grid(batch=(1, 4, 32, 128)),
    quick=grid(batch=(4,)),
    variants={
        "autograd": "HIPS autograd has no convolution (conv2d)",
        "pytensor": "PyTensor has no convolution of several channels (conv2d)",
    },
    experiment=experiment,
    engines=("tape", "graph", "jax-jit", "torch", "autograd"),
)
