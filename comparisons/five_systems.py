"""What do PyTorch, Torch7, Caffe, TensorFlow 1 and Theano each build, keep and free in the same step of training?

LeNet learns handwritten digits, each enlarged to 24 x 24 with a margin, in the manner of each system: a tape; modules
with updateOutput, updateGradInput and accGradParameters; a net of layers read from text, with a solver; a graph of
placeholders and variables, run by a session; symbolic variables, and a function with updates. All five stand on this
project's rules, start from the same weights and see the same batches. What differs is what is measured: what is built,
and when; what is held between forward and backward, and afterwards; what a second gradient finds if nothing is cleared;
and whether a gradient can be differentiated again, which is tried. The weights are held against those that JAX's own
derivative gives in float64.
"""

import functools
import gc
import tracemalloc
from typing import Any

import jax
import numpy as np

import twograd.numpy as tnp
from twograd import data, graph, nn, tape
from twograd.compare import Comparison, Curves, Listing, Observation, Series, Table
from twograd.fronts import caffe, torch7
from twograd.graph import symbolic
from twograd.nn import functional as F
from twograd.tape.stats import graph_behind

BATCH, RATE = 32, 0.1
STEPS, QUICK_STEPS = 40, 4
LAST = -2  # of the weights, those of the last layer, without their bias


def loss_of(w, x, y):
    """The loss of images and labels as a function, of Symbols and of arrays."""
    x = F.avg_pool2d(F.tanh(F.conv2d(x, w[0], w[1], padding=2)), 2)
    x = F.avg_pool2d(F.tanh(F.conv2d(x, w[2], w[3])), 2)
    x = F.tanh(F.linear(x.reshape(-1, 400), w[4], w[5]))
    return F.cross_entropy(F.linear(x, w[6], w[7]), y)


def network():
    """Its scores as a module."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 10),
    )  # fmt: skip


class ByValue:
    """What finds its gradients by value: forward and backward are two calls, and a derivative is no program."""

    forward: Any
    backward: Any
    gradients: Any
    derivative_nodes = 0

    def gradient(self, x, y):
        self.forward(x, y)
        self.backward()
        return np.array(self.gradients()[LAST])

    def order_2(self, x, y):
        return graph.trace(lambda x: self.forward(x, y), x)


class PyTorch(ByValue):
    """A tape. Each forward records a graph, backward() adds to .grad."""

    def __init__(self, weights):
        self.net = network()
        self.parameters = list(self.net.parameters())
        for parameter, w in zip(self.parameters, weights, strict=True):
            parameter.data = tape.tensor(w)

    def forward(self, x, y):
        self.loss = F.cross_entropy(self.net(tape.tensor(x)), tape.tensor(y))
        return self.loss.item()

    def backward(self):
        self.loss.backward()

    def clear(self):
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, x, y):
        self.clear()
        loss = self.forward(x, y)
        self.backward()
        with tape.no_grad():
            for parameter in self.parameters:
                parameter.sub_(RATE * parameter.grad)
        return loss

    def gradients(self):
        return [parameter.grad.array for parameter in self.parameters]

    def weights(self):
        return [parameter.array for parameter in self.parameters]

    def program(self):
        return graph_behind([self.loss.grad_fn])

    def order_2(self, x, y):
        self.forward(x, y)
        last = self.parameters[LAST]
        first: Any = tape.autograd.grad(self.loss, last, create_graph=True)
        second: Any = tape.autograd.grad((first[0] ** 2).sum(), last)
        return second[0].numpy()


class Torch7(ByValue):
    """Modules, which keep their output, and a criterion."""

    def __init__(self, weights):
        self.net, self.criterion = torch7.Sequential(), torch7.CrossEntropyCriterion()
        for layer in (
            torch7.SpatialConvolution(1, 6, 5, 5, 1, 1, 2, 2), torch7.Tanh(), torch7.SpatialAveragePooling(2, 2),
            torch7.SpatialConvolution(6, 16, 5, 5), torch7.Tanh(), torch7.SpatialAveragePooling(2, 2),
            torch7.Reshape(400), torch7.Linear(400, 120), torch7.Tanh(), torch7.Linear(120, 10),
        ):  # fmt: skip
            self.net.add(layer)
        for parameter, w in zip(self.weights(), weights, strict=True):
            parameter[...] = w

    def forward(self, x, y):
        self.x, self.y = x, y
        return self.criterion.forward(self.net.forward(x), y)

    def backward(self):
        self.net.backward(self.x, self.criterion.backward(self.net.output, self.y))

    def clear(self):
        self.net.zeroGradParameters()

    def step(self, x, y):
        self.clear()
        loss = self.forward(x, y)
        self.backward()
        self.net.updateParameters(RATE)
        return loss

    def gradients(self):
        return self.net.parameters()[1]

    def weights(self):
        return self.net.parameters()[0]

    def program(self):
        return [*self.net.listModules(), self.criterion]


NET = """
    layer { name: "digits" type: "MemoryData" top: "x" top: "y"
            memory_data_param { batch_size: %d channels: 1 height: 28 width: 28 } }
    layer { name: "conv1" type: "Convolution" bottom: "x" top: "h1"
            convolution_param { num_output: 6 kernel_size: 5 pad: 2 } }
    layer { name: "tanh1" type: "TanH" bottom: "h1" top: "h1" }
    layer { name: "pool1" type: "Pooling" bottom: "h1" top: "p1" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
    layer { name: "conv2" type: "Convolution" bottom: "p1" top: "h2"
            convolution_param { num_output: 16 kernel_size: 5 } }
    layer { name: "tanh2" type: "TanH" bottom: "h2" top: "h2" }
    layer { name: "pool2" type: "Pooling" bottom: "h2" top: "p2" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
    layer { name: "fc1" type: "InnerProduct" bottom: "p2" top: "h3" inner_product_param { num_output: 120 } }
    layer { name: "tanh3" type: "TanH" bottom: "h3" top: "h3" }
    layer { name: "fc2" type: "InnerProduct" bottom: "h3" top: "scores" inner_product_param { num_output: 10 } }
    layer { name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "y" top: "accuracy" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "y" top: "loss" }
"""


class Caffe(ByValue):
    """A net of layers over blobs, and a solver."""

    iter_size = 1

    def __init__(self, weights):
        self.net = caffe.Net(NET % (BATCH // self.iter_size))
        self.solver = caffe.Solver(f"base_lr: {RATE} iter_size: {self.iter_size}", self.net)
        for blob, w in zip(self.net.learnable_params, weights, strict=True):
            blob.data[...] = w

    def forward(self, x, y):
        self.net.set_input_arrays(x, y)
        self.net.forward()
        return self.net.loss

    def backward(self):
        self.net.backward()

    def clear(self):
        self.net.clear_param_diffs()

    def step(self, x, y):
        self.net.set_input_arrays(x, y)
        return self.solver.step(1)  # which clears first

    def gradients(self):
        return [blob.diff for blob in self.net.learnable_params]

    def weights(self):
        return [blob.data for blob in self.net.learnable_params]

    def program(self):
        return self.net.layers


class CaffeInParts(Caffe):
    """Each batch as two half ones, whose gradients accumulate."""

    iter_size = 2


class TensorFlow1:
    """A graph of placeholders, variables and gradients, and a session that runs parts of it."""

    def __init__(self, weights):
        self.graph = symbolic.Graph()
        with self.graph.as_default():
            self.x = symbolic.placeholder(np.float32, (BATCH, 1, 28, 28), "x")
            self.y = symbolic.placeholder(np.int32, (BATCH,), "y")
            self.rate = symbolic.placeholder(np.float32, (), "rate")
            self.w = [symbolic.variable(w) for w in weights]
            self.differentiate(symbolic.gradients)
            descent = [w.assign_sub(self.rate * g) for w, g in zip(self.w, self.gradients, strict=True)]
            self.train = symbolic.group(*descent)
            self.session = symbolic.Session()
            self.session.run(symbolic.global_variables_initializer())

    def differentiate(self, gradients):
        self.loss = loss_of(self.w, self.x, self.y)
        forward = len(self.graph.operations)
        self.gradients: Any = gradients(self.loss, self.w)
        self.derivative_nodes = len(self.graph.operations) - forward

    def run(self, x, y, rate):
        feeds = {self.x: x, self.y: y, self.rate: rate}
        return self.session.run([self.loss, self.gradients[LAST], self.train], feeds)

    def clear(self):
        """There is nothing to clear."""

    def step(self, x, y):
        return float(self.run(x, y, RATE)[0])

    def gradient(self, x, y):
        return np.asarray(self.run(x, y, 0.0)[1])

    def weights(self):
        return self.session.run(self.w)

    def program(self):
        return list(self.graph.operations)

    def read_back(self, x, y):
        """The bytes of what the derivative's operations read of the others. They live within one run."""
        return symbolic.trace([self.loss, *self.gradients], {self.x: x, self.y: y}).stats().saved_bytes

    def order_2(self, x, y):
        with self.graph.as_default():
            second: Any = symbolic.gradients(tnp.sum(self.gradients[LAST] ** 2), self.w[LAST])
        return np.asarray(self.session.run(second[0], {self.x: x, self.y: y}))


class Theano(TensorFlow1):
    """Shared variables, and a function compiled with updates."""

    def __init__(self, weights):
        self.graph = symbolic.Graph()
        with self.graph.as_default():
            self.x, self.y, self.rate = symbolic.tensor4("x"), symbolic.ivector("y"), symbolic.scalar("rate")
            self.w = [symbolic.shared(w) for w in weights]
            self.differentiate(symbolic.grad)
            descent = [(w, w - self.rate * g) for w, g in zip(self.w, self.gradients, strict=True)]
            self.run = symbolic.function(
                [self.x, self.y, self.rate], [self.loss, self.gradients[LAST]], updates=descent
            )

    def weights(self):
        return [w.get_value() for w in self.w]

    def order_2(self, x, y):
        with self.graph.as_default():
            second = symbolic.grad(tnp.sum(self.gradients[LAST] ** 2), self.w[LAST])
        return np.asarray(symbolic.function([self.x, self.y], second)(x, y))


SYSTEMS = {"PyTorch": PyTorch, "Torch7": Torch7, "Caffe": Caffe, "TensorFlow 1": TensorFlow1, "Theano": Theano}
IN_PARTS = {"Caffe, iter_size: 2": CaffeInParts}

# --- what is measured -------------------------------------------------------------------------------------------------


def held():
    """The bytes of all arrays that are alive, JAX's and NumPy's (those made since tracemalloc was started)."""
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    by_numpy = tracemalloc.take_snapshot().filter_traces([domain]).traces
    return sum(trace.size for trace in by_numpy) + sum(array.nbytes for array in jax.live_arrays())


class Trial:
    """A system, trained on some batches: what it held around its first step, beside its weights, and what it built."""

    def __init__(self, kind, weights, batches):
        by_value = ByValue in kind.__mro__
        if by_value:
            kind(weights).step(*batches[0])  # what compiling leaves behind is not the system's
        tracemalloc.start()
        try:
            before = held() + sum(w.nbytes for w in weights)
            self.system: Any = kind(weights)
            self.before = held() - before
            x, y = batches[0]
            if by_value:
                self.system.forward(x, y)
                self.between = held() - before
                self.system.backward()
            else:
                self.between = self.system.read_back(x, y)
            self.losses = [self.system.step(x, y)]
            self.after = held() - before
        finally:
            tracemalloc.stop()
        self.weights = [self._weights()]
        program = self.system.program()
        for x, y in batches[1:]:
            self.losses.append(self.system.step(x, y))
            self.weights.append(self._weights())
        self.size = len(program)
        self.rebuilt = sum(not any(one is other for other in program) for one in self.system.program())

    def _weights(self):
        return [np.array(w) for w in self.system.weights()]

    def growth(self, x, y):
        """How many times as large a second gradient is, with nothing cleared after the first."""
        self.system.clear()
        first, second = (np.linalg.norm(self.system.gradient(x, y)) for _ in range(2))
        return float(second / first)

    def order_2(self, x, y, direction, slope):
        """Whether the gradient of the squared norm of the last layer's gradient is right; or what is said instead.

        It is held against its ``slope`` along a ``direction``, by differences.
        """
        try:
            found = np.vdot(self.system.order_2(x, y), direction)
        except TypeError as error:
            return "no", str(error)
        return ("yes" if abs(found / slope - 1) < 1e-3 else "WRONG"), ""


class Reference:
    """Gradient descent in float64 by JAX's own derivatives: the weights after each batch."""

    def __init__(self, weights, batches):
        self._gradient = jax.jit(jax.grad(loss_of))
        self.weights, now = [], [np.asarray(w, np.float64) for w in weights]
        for x, y in batches:
            now = [w - RATE * slope for w, slope in zip(now, self.gradient(now, x, y), strict=True)]
            self.weights.append(now)

    def gradient(self, weights, x, y):
        with jax.enable_x64(True):
            return [np.asarray(slope) for slope in self._gradient(weights, x.astype(np.float64), y)]

    def slope(self, x, y, direction, step=1e-5):
        """Of the squared norm of the last layer's gradient, along a direction of the last layer, by differences."""
        norms = []
        for sign in (1, -1):
            weights = list(self.weights[-1])
            weights[LAST] = weights[LAST] + sign * step * direction
            norms.append(np.sum(self.gradient(weights, x, y)[LAST] ** 2))
        return (norms[0] - norms[1]) / (2 * step)

    def apart(self, trial):
        """After each batch, how far the weights are, in ulp of the largest of their tensor: the furthest tensor."""
        return [max(map(ulps, *weights)) for weights in zip(trial.weights, self.weights, strict=True)]


def ulps(found, exact):
    largest = np.abs(exact).max()
    return float(np.abs(found - exact).max() / np.spacing(np.float32(largest)))


def batches_of(digits, rng, count):
    """Batches of digits, three times as large, with a margin of two: (N, 1, 28, 28) and labels."""
    for _ in range(count):
        rows = rng.choice(len(digits), BATCH, replace=False)
        images = np.pad(digits.images[rows].repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
        yield images[:, None], digits.labels[rows]


# --- what is shown ----------------------------------------------------------------------------------------------------


def experiment(context):
    digits = data.digits()
    batches = list(batches_of(digits, context.rng("batches"), QUICK_STEPS if context.quick else STEPS))
    tape.manual_seed(context.settings.seed)
    weights = [np.array(parameter.array) for parameter in network().parameters()]
    trials = {}
    for name, kind in (SYSTEMS if context.quick else SYSTEMS | IN_PARTS).items():
        context.tell(name)
        trials[name] = Trial(kind, weights, batches)
    context.tell("float64")
    reference = Reference(weights, batches)
    yield Table("The data", ["what", "which"], [[key, value] for key, value in digits.about().items()])
    yield from steps(context, {name: trials[name] for name in SYSTEMS}, reference, *batches[-1])
    yield from weights_apart(trials, reference, len(batches))


def steps(context, trials, reference, x, y):
    direction = context.rng("direction").standard_normal(reference.weights[-1][LAST].shape)
    slope = reference.slope(x, y, direction)
    growth = {name: trial.growth(x, y) for name, trial in trials.items()}
    again = {name: trial.order_2(x, y, direction, slope) for name, trial in trials.items()}
    times = context.measure({name: functools.partial(trial.system.step, x, y) for name, trial in trials.items()})
    yield Table(
        f"A step of LeNet on {BATCH} images",
        [
            "system", "its program", "derivative", "built anew", "held before", "between", "after",
            "2nd gradient", "order 2", "a step",
        ],
        [
            [
                name, trial.size, trial.system.derivative_nodes, trial.rebuilt,
                *(size / 2**10 for size in (trial.before, trial.between, trial.after)),
                growth[name], again[name][0], times[name].median * 1e3,
            ]
            for name, trial in trials.items()
        ],
        units=["", "nodes", "nodes", "nodes", "KiB", "KiB", "KiB", "x the 1st", "", "ms"],
        note=(
            "Nodes are those of the tape, modules, layers or operations; how many are of the derivative, and how many "
            "a further step builds. Held, beside the weights: the arrays that are alive before the first step, between "
            "its forward and backward, and after it. With TensorFlow 1 and Theano one run is both: 'between' is what "
            "its derivative reads. The 2nd gradient, of the same batch, follows the 1st with nothing cleared. Order 2: "
            "whether there is a gradient of the squared norm of the last layer's, and differences in float64 agree."
        ),
    )  # fmt: skip
    rebuilding = [name for name, trial in trials.items() if trial.rebuilt]
    clearing = [name for name in trials if growth[name] > 1.5]
    yield Observation(
        f"A step builds a program of its own with {listed(rebuilding)}. Gradients have to be cleared with "
        f"{listed(clearing)}."
    )
    twice = [name for name, found in again.items() if found[0] == "yes"]
    yield Observation(
        f"A gradient can be differentiated again with {listed(twice)}"
        + "".join(f"; {name}: {found[1].partition(':')[0]}" for name, found in again.items() if found[0] == "no")
        + "."
    )
    net = trials["Caffe"].system.net
    yield Listing(
        "Caffe's list of layers, with the Splits that it puts in",
        "\n".join(
            f"{layer.type:16}{', '.join(layer.param.bottom):40} -> {', '.join(layer.param.top):44} "
            f"{'needs' if needs else 'does not need'} backward computation"
            for layer, needs in zip(net.layers, net.layer_need_backward, strict=True)
        ),
    )
    by_size = sorted(trials, key=lambda name: trials[name].after)
    yield Observation(
        f"After a step, {by_size[-1]} holds {trials[by_size[-1]].after / 2**10:.0f} KiB beside the weights, "
        f"{by_size[0]} {trials[by_size[0]].after / 2**10:.0f}."
    )


def listed(names):
    return ", ".join(names) or "none"


def weights_apart(trials, reference, count):
    apart = {name: reference.apart(trial) for name, trial in trials.items()}
    yield Table(
        "The weights, and how far they are from those of gradient descent in float64",
        ["system", "first loss", "last loss", "after 1 step", f"after {count}"],
        [[name, trial.losses[0], trial.losses[-1], apart[name][0], apart[name][-1]] for name, trial in trials.items()],
        units=["", "nats", "nats", "ulp", "ulp"],
        note=f"Learning rate {RATE}. A unit in the last place is that of the largest weight of each layer's tensor.",
    )
    yield Curves(
        "How far the weights are from float64", "step", "units in the last place",
        [Series(name, list(range(1, count + 1)), found) for name, found in apart.items()],
    )  # fmt: skip
    yield Observation(
        f"After one step no system's weights are further than {max(found[0] for found in apart.values()):.2g} units in "
        f"the last place from float64's, and after {count} steps {max(found[-1] for found in apart.values()):.2g}."
    )


comparison = Comparison(experiment=experiment, engines=("tape", "graph"))
