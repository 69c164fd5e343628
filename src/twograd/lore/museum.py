"""Wrong gradients that no error told of: each in a few lines that run, with its check off and on.

What flows in: nothing. What flows out: for each exhibit the number that the real system gives, the right one, and what
each check says. Read :class:`Exhibit`, then any exhibit. Each system is emulated by the smallest program which
makes the same mistake for the same reason, and is labelled as an emulation; where the real one is installed, the tests
hold the emulation to it. Caffe's and Torch7's are the nets and modules of ``twograd.fronts``.

The right number of each exhibit comes from central differences in float64, which share no code with any of this.
"""

# Tensor gets its operators and methods when the package is imported: a type checker does not see them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import twograd.tape as torch
from twograd import graph
from twograd.fronts import caffe, torch7

EXHIBITS: list["Exhibit"] = []
STEP = 1e-5
TOLERANCE = 1e-3  # of a float32 gradient against differences


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One silent mistake.

    ``culprit`` emulates the system, ``wrong()`` is its gradient, with the check off, and ``right()`` the true one.
    ``checks`` are what could have told: by name, a function that raises an error where the mistake is made, which
    ``caught`` runs.
    """

    name: str
    system: str
    title: str
    story: str
    culprit: Callable[..., Any]
    wrong: Callable[[], np.ndarray]
    right: Callable[[], np.ndarray]
    checks: dict[str, Callable[[], Any]]
    threads: tuple[str, ...]

    def caught(self, check: str) -> str | None:
        """The error that the check raises, or None if it lets the mistake pass."""
        try:
            self.checks[check]()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None


class Disagreement(AssertionError):
    """A derivative is not the one that differences give."""


def differences(f: Callable[[np.ndarray], Any], x: Any) -> np.ndarray:
    """The gradient of a number (or of the sum of an array) by central differences in float64."""
    x = np.asarray(x, np.float64)
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += sign * STEP
            ends.append(np.sum(f(moved)))
        slopes[i] = (ends[0] - ends[1]) / (2 * STEP)
    return slopes


def agree(gradient: Any, f: Callable[[np.ndarray], Any], x: Any) -> None:
    """Raises Disagreement where ``gradient`` is not that of ``f`` at ``x`` by differences: what a gradcheck does."""
    expected = differences(f, x)
    if not np.allclose(gradient, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise Disagreement(
            f"got {rounded(gradient)}, differences give {rounded(expected)}{at_a_glance(gradient, expected)}"
        )


def at_a_glance(found: Any, expected: Any) -> str:
    """What one sees in wrong numbers: that they are zero, of the other sign, or all too large by one factor."""
    found, expected = np.asarray(found), np.asarray(expected)
    if not found.any():
        return ": nothing has arrived"
    if found.shape == expected.shape and expected.any():
        factor = np.vdot(expected, found) / np.vdot(expected, expected)
        if np.allclose(found, factor * expected, rtol=TOLERANCE, atol=TOLERANCE):
            if abs(factor + 1) < TOLERANCE:
                return ": the sign is wrong"
            if expected.size > 1:
                return f": {factor:.3g} times as much"
    return ""


def rounded(value: Any) -> Any:
    """A number, or nested lists of numbers, to four digits after the point."""
    array = np.asarray(value)
    return np.round(array.astype(np.result_type(array, np.float64)), 4).tolist()


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# --- Caffe: a layer in place over what the layer below reads on its way back ------------------------------------------

BOTTOM = np.array([2.0, -1.0, 0.5])


def caffe_net(x: np.ndarray) -> np.ndarray:
    """What the net computes: a sigmoid layer, and upon it one that squares."""
    return sigmoid(x) ** 2


def caffe_backward(x: np.ndarray, checks: Literal["on", "off"] = "off") -> np.ndarray:
    """Sigmoid's backward reads its top, where the next layer has written, since it is in place."""
    text = """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 } } }
        layer { name: "sigmoid" type: "Sigmoid" bottom: "x" top: "y" }
        layer { name: "square" type: "Power" bottom: "y" top: "y" loss_weight: 1 power_param { power: 2 } }
    """
    net = caffe.Net(text, checks=checks)
    net.forward(x=x)
    net.backward()
    return net.blobs["x"].diff


def caffe_version_counter() -> None:
    x = torch.tensor(BOTTOM, requires_grad=True)
    top = x.sigmoid()
    top.square_()
    top.sum().backward()


EXHIBITS.append(
    Exhibit(
        "caffe-in-place",
        "Caffe",
        "a layer in place over a top that the layer below reads",
        "Caffe saves memory by letting a layer write its top over its bottom. Whether the layer below reads that blob "
        "on the way back is not checked. ReLU over a convolution is fine, over a layer whose derivative is computed "
        "from its top it is not.",
        caffe_backward,
        lambda: caffe_backward(BOTTOM),
        lambda: differences(caffe_net, BOTTOM),
        {
            "what the rules read (a net with checks)": lambda: caffe_backward(BOTTOM, checks="on"),
            "version counter (the tape)": caffe_version_counter,
            "gradcheck": lambda: agree(caffe_backward(BOTTOM), caffe_net, BOTTOM),
        },
        ("BVLC/caffe#2015", "BVLC/caffe#2853", "BVLC/caffe#4388"),
    )
)

# --- Torch7: backward with another input than forward's ---------------------------------------------------------------


FIRST, SECOND = np.array([2.0, -1.0]), np.array([0.0, 0.0])


def torch7_backward(guarded: bool) -> np.ndarray:
    """One module used for two inputs, as in a siamese network: both forward, then backward of the first."""
    module = torch7.Sigmoid().guard(guarded)  # its updateGradInput reads its output
    module.forward(FIRST)
    module.forward(SECOND)
    return module.backward(FIRST, np.ones(2))


EXHIBITS.append(
    Exhibit(
        "torch7-other-input",
        "Torch7",
        "backward with an input that forward has not seen last",
        "A module keeps the state of its last forward, and backward trusts that it belongs to the input it is given. "
        "A module used twice before backward gives the derivative at the wrong point. A tape makes a node per call, "
        "with its own saved values, so there the mistake cannot be written.",
        torch7_backward,
        lambda: torch7_backward(guarded=False),
        lambda: differences(sigmoid, FIRST),
        {
            "a guard in backward": lambda: torch7_backward(guarded=True),
            "gradcheck": lambda: agree(torch7_backward(guarded=False), sigmoid, FIRST),
        },
        ("torch/nn#1145", "torch/nn#422"),
    )
)

# --- HIPS autograd: a plain array changed between forward and backward ------------------------------------------------

SCALE = np.array([3.0, 4.0])


def hips_backward() -> np.ndarray:
    """A tape of closures over NumPy arrays: the pullback of x * scale reads scale when it is called."""
    scale, closures = SCALE.copy(), []

    def multiply(x, y):
        closures.append(lambda ct: ct * y)
        return x * y

    multiply(np.ones(2), scale)
    scale[:] = 0  # a buffer is used again for the next batch
    return closures[0](np.ones(2))


def hips_version_counter() -> None:
    scale, x = torch.tensor(SCALE), torch.ones(2, requires_grad=True)
    y = x * scale
    scale.zero_()
    y.sum().backward()


EXHIBITS.append(
    Exhibit(
        "autograd-numpy-buffer",
        "HIPS autograd",
        "a NumPy array is changed between the forward pass and the backward pass",
        "Autograd's pullbacks close over the arrays themselves, and NumPy's arrays have no version. Its tutorial warns "
        "of operations in place; nothing checks for those on arrays that are not traced. JAX's arrays cannot change, "
        "and the tape counts the changes of Tensors.",
        hips_backward,
        hips_backward,
        lambda: differences(lambda x: x * SCALE, np.ones(2)),
        {
            "version counter (the tape)": hips_version_counter,
            "gradcheck": lambda: agree(hips_backward(), lambda x: x * SCALE, np.ones(2)),
        },
        (),
    )
)

# --- TensorFlow 1: the second derivative of a fused loss --------------------------------------------------------------

LOGITS, LABEL = np.array([0.5, -0.2, 0.1]), np.array([0.0, 1.0, 0.0])


def cross_entropy(logits: Any) -> Any:
    return jax.nn.logsumexp(logits) - jnp.sum(jnp.asarray(LABEL, logits.dtype) * logits)


@jax.custom_vjp
def fused_cross_entropy(logits: Any) -> Any:
    """The fused op: it returns the loss, and computes on the side the gradient that its derivative hands out."""
    return cross_entropy(logits)


def _fused_forward(logits):
    backprop = jax.nn.softmax(logits) - jnp.asarray(LABEL, logits.dtype)
    return cross_entropy(logits), jax.lax.stop_gradient(backprop)  # a second output, with no derivative of its own


fused_cross_entropy.defvjp(_fused_forward, lambda backprop, ct: (ct * backprop,))


def curvature(loss: Callable[[Any], Any]) -> np.ndarray:
    """The Hessian times a vector of ones, weighted so that it is not zero: d/dx of w · ∇loss."""
    weights = jnp.array([1.0, 2.0, 3.0])
    return np.asarray(graph.grad(lambda x: jnp.sum(weights * graph.grad(loss)(x)))(jnp.asarray(LOGITS, jnp.float32)))


def softmax_slopes(x: np.ndarray) -> np.ndarray:
    """w · ∇loss in NumPy, for differences."""
    exponentials = np.exp(x - x.max())
    return np.array([1.0, 2.0, 3.0]) * (exponentials / exponentials.sum() - LABEL)


EXHIBITS.append(
    Exhibit(
        "tf-softmax-order-2",
        "TensorFlow 1",
        "the second derivative of softmax cross-entropy",
        "The fused op computed its gradient as a second output, and the derivative of that output was taken to be "
        "zero. First derivatives are right, so every gradcheck passes; the Hessian is wrong. That S2S systems can go "
        "to any order is true only where each rule is made of ops that have rules; an error, as for max-pooling, "
        "would have been better.",
        _fused_forward,
        lambda: curvature(fused_cross_entropy),
        lambda: differences(softmax_slopes, LOGITS),
        {
            "gradcheck": lambda: agree(
                graph.grad(fused_cross_entropy)(jnp.asarray(LOGITS, jnp.float32)),
                lambda x: np.log(np.exp(x).sum()) - x @ LABEL,
                LOGITS,
            ),
            "order-2 check": lambda: agree(curvature(fused_cross_entropy), softmax_slopes, LOGITS),
        },
        ("tensorflow/tensorflow#7403", "tensorflow/tensorflow#5876", "tensorflow/tensorflow#11435"),
    )
)

# --- PyTorch: writing through .data -----------------------------------------------------------------------------------

POINT = np.array([0.5, -1.0])


def data_backward() -> np.ndarray:
    """exp keeps its result, as an array that .data hands out: what is written there is what the pullback reads."""
    result = np.exp(POINT)
    kept = data = result
    data *= 10
    return np.ones(2) * kept


def data_on_the_tape() -> None:
    x = torch.tensor(POINT, requires_grad=True)
    y = x.exp()
    y.data.mul_(10)
    y.sum().backward()


EXHIBITS.append(
    Exhibit(
        "pytorch-data",
        "PyTorch",
        "a change through .data, which no version counter sees",
        "x.data shares elements with x and counts its changes apart, so a saved value can be changed without an error, "
        "and the gradient is computed from the new one. detach() shares the counter. Here arrays cannot change, and a "
        "Tensor's new array is not the one that was saved: the tape refuses a change through .data as it does one "
        "through detach().",
        data_backward,
        data_backward,
        lambda: differences(np.exp, POINT),
        {
            "version counter (the tape)": data_on_the_tape,
            "gradcheck": lambda: agree(data_backward(), np.exp, POINT),
        },
        ("pytorch/pytorch#96265",),
    )
)

# --- Tracing by example: the branch that was taken is baked in --------------------------------------------------------


def leaky(x: Any) -> Any:
    """A slope that depends on the sign, by Python's if."""
    return 3 * x if x > 0 else x


def traced_by_example(f: Callable[[float], float], example: float, x: float) -> np.ndarray:
    """torch.jit.trace: runs ``f`` once, keeps the operations that were executed, and replays them for other inputs."""
    recorded: list[float] = []

    class Recording:
        def __gt__(self, other):
            return example > other  # the value of the example decides, and the branch leaves no trace

        def __rmul__(self, factor):
            recorded.append(factor)
            return self

    f(Recording())  # pyright: ignore[reportArgumentType]
    return np.asarray(np.prod(recorded or [1.0]) * np.ones_like(x))


EXHIBITS.append(
    Exhibit(
        "traced-branch",
        "torch.jit.trace",
        "a branch of Python is baked into the trace",
        "Tracing by example records the operations of one run; an if over a value leaves no trace. For inputs on the "
        "other side the program and its derivative are those of the wrong branch, after a warning at the time of "
        "tracing. Tracing without values, as JAX does, cannot take the branch and raises.",
        traced_by_example,
        lambda: traced_by_example(leaky, 1.0, -2.0),
        lambda: differences(lambda x: leaky(float(x)), -2.0),
        {
            "tracing without values (the graph)": lambda: graph.grad(leaky)(jnp.float32(-2.0)),
            "gradcheck at another input": lambda: agree(
                traced_by_example(leaky, 1.0, -2.0), lambda x: leaky(float(x)), -2.0
            ),
        },
        ("cornellius-gp/gpytorch#1803",),
    )
)

# --- Torch7: shared gradients are added twice -------------------------------------------------------------------------


def shared_update() -> np.ndarray:
    """What updateParameters(1) takes off a weight that two modules share, used once with 1 and once with 2."""
    first = torch7.Linear(1, 1, bias=False)
    net = torch7.ParallelTable().add(first).add(first.clone("weight", "gradWeight"))
    inputs, ones = [np.array([1.0]), np.array([2.0])], [np.ones(1), np.ones(1)]
    net.forward(inputs)
    net.backward(inputs, ones)
    before = first.weight.copy()
    net.updateParameters(1)  # goes through the list of modules, and finds the summed gradient in each
    return (before - first.weight).reshape(1)


EXHIBITS.append(
    Exhibit(
        "torch7-shared-twice",
        "Torch7",
        "a shared weight is updated once per module that shares it",
        "parameters() listed a weight that two modules share twice, and the summed gradient was applied twice. A tree "
        "of parameters keyed by the Tensor itself has it once.",
        shared_update,
        shared_update,
        lambda: differences(lambda w: w + 2 * w, np.ones(1)),
        {"gradcheck of the whole step": lambda: agree(shared_update(), lambda w: w + 2 * w, np.ones(1))},
        ("torch/nn#422",),
    )
)
