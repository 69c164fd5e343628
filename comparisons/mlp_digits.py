"""Does it matter for training which engine computes the gradients?

A network with one hidden layer learns scikit-learn's handwritten digits. Every engine starts from the same weights,
sees the same batches in the same order, and has its gradients applied by the same SGD with momentum, in NumPy: whatever
differs between two loss curves comes from the engine.
"""

import numpy as np

from twograd import data
from twograd.compare import Comparison, Observation, Table, grid
from twograd.compare.training import between, loss_curves, ulps

TEST = 360  # images held out, drawn at random: a fifth
BATCH, RATE, MOMENTUM = 96, 0.1, 0.9
STEPS, QUICK_STEPS = 600, 200
COMPARED = ("graph", "tape", "jax-jit", "torch", "autograd")  # the first is what the others are held against


def initial_weights(rng, width):
    def layer(fan_in, fan_out):
        return {"weight": rng.standard_normal((fan_in, fan_out)) / fan_in**0.5, "bias": np.zeros(fan_out)}

    return {"hidden": layer(64, width), "output": layer(width, 10)}


def scores(np, layers, images):
    hidden = np.tanh(images @ layers["hidden"]["weight"] + layers["hidden"]["bias"])
    return hidden @ layers["output"]["weight"] + layers["output"]["bias"]


def loss(ops, layers, images, targets):
    """The cross-entropy, as a program of NumPy's functions that every engine has; ``targets`` are one-hot."""
    z = scores(ops.np, layers, images)
    z = z - ops.np.max(z, axis=1, keepdims=True)
    return ops.np.mean(ops.np.log(ops.np.sum(ops.np.exp(z), axis=1)) - ops.np.sum(z * targets, axis=1))


def batch_of(digits, rows):
    return digits.images[rows].reshape(-1, 64), np.eye(10)[digits.labels[rows]]


def inputs(rng, *, batch, width):
    digits = data.digits()
    return initial_weights(rng, width), *batch_of(digits, rng.choice(len(digits), batch, replace=False))


def train(context, engine, digits, steps):
    """The loss of each step, and the weights after the last one."""
    value_and_grad = engine.value_and_grad(context.program(engine.name))
    layers = context.cast(initial_weights(context.rng("weights"), 64))
    velocity = {name: {key: np.zeros_like(w) for key, w in layer.items()} for name, layer in layers.items()}
    order, losses = context.rng("batches"), []
    for _ in range(steps):
        batch = context.cast(batch_of(digits, order.choice(len(digits), BATCH, replace=False)))
        value, gradient = engine.numpy(value_and_grad(engine.arrays(layers), *engine.arrays(batch)))
        losses.append(value)
        for name, layer in layers.items():
            for key in layer:
                velocity[name][key] = velocity[name][key] * np.float32(MOMENTUM) + gradient[name][key]
                layer[key] = layer[key] - np.float32(RATE) * velocity[name][key]
    return np.array(losses), layers


def experiment(context):
    digits = data.digits()
    learn, held_out = digits.split(test=TEST, seed=context.settings.seed)
    steps = QUICK_STEPS if context.quick else STEPS
    names = [name for name in COMPARED if name in context.engines]
    trained = {name: train(context, context.engines[name], learn, steps) for name in names}

    reference, (expected, _) = names[0], trained[names[0]]
    rows = []
    for name, (losses, layers) in trained.items():
        guesses = scores(np, layers, held_out.images.reshape(-1, 64)).argmax(axis=1)
        right = int((guesses == held_out.labels).sum())
        apart = float(ulps(losses, expected).max())
        rows.append([name, float(losses[0]), float(losses[-1]), apart, right, 100 * right / TEST])

    yield Table("The data", ["what", "which"], [[key, value] for key, value in digits.about().items()])
    yield Table(
        f"{steps} steps of training",
        ["engine", "first loss", "last loss", f"loss: furthest from {reference}", "right", "test accuracy"],
        rows,
        units=["", "", "", "ulp", f"of {TEST}", "%"],
        note=(
            f"64 inputs, 64 hidden units, 10 classes; SGD with learning rate {RATE} and momentum {MOMENTUM}, batches "
            f"of {BATCH} out of {len(learn)} images. The {TEST} test images are a random fifth that is never trained "
            f"on; the same people wrote both parts."
        ),
    )
    yield Observation(
        f"After {steps} steps, whichever of {len(rows)} engines computed the gradients, the network recognises "
        f"{between(row[4] / TEST for row in rows)} of {TEST} digits that were never trained on."
    )
    yield from loss_curves({name: losses for name, (losses, _) in trained.items()})


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=[*grid(batch=(32, 96, 512), width=(64,)), *grid(batch=(96,), width=(256, 1024))],
    quick=grid(batch=(32, 512), width=(64,)),
    experiment=experiment,
    engines=COMPARED,
)
