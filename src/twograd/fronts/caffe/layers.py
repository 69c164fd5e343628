"""Blobs, and the layers that compute one from another: each a function, with its derivative by the table of rules.

What flows in: the message of a layer, and blobs. What flows out: data in the tops, or diffs in the bottoms. Read
:class:`Layer`; what the types are is a few lines each, below it.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from twograd.errors import TwogradError
from twograd.fronts.caffe.prototxt import FillerParameter, LayerParameter, Phase, parse
from twograd.fronts.kernel import Kernel, copies, kernel_of, numbers
from twograd.nn import functional as F

Program = tuple[Callable[..., Any], dict[str, Hashable]]


class NetError(TwogradError, ValueError):
    """A net that cannot be made or run, in Caffe's words where Caffe has some."""


class Blob:
    """An array of numbers, ``data``, and one of the same shape for its cotangent, ``diff``; each made when first used.

    A blob stays the same object while its shape and its contents change.
    """

    def __init__(self, *shape: int, dtype: Any = np.float32):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._arrays: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        return f"<Blob {' '.join(map(str, self.shape))} ({self.count})>"

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def data(self) -> np.ndarray:
        return self._array("data")

    @property
    def diff(self) -> np.ndarray:
        return self._array("diff")

    def _array(self, which: str) -> np.ndarray:
        if which not in self._arrays:
            self._arrays[which] = np.zeros(self.shape, self.dtype)
        return self._arrays[which]

    def reshape(self, *shape: int) -> None:
        """Another shape; contents are lost unless it is the same."""
        if shape != self.shape:
            self.shape = tuple(shape)
            self._arrays.clear()

    def share_data(self, other: "Blob") -> None:
        """Has the data of ``other`` for its own from now on."""
        self.reshape(*other.shape)
        self._arrays["data"] = other.data

    def fill(self, filler: FillerParameter, rng: np.random.Generator) -> None:
        """Draws first values. Raises NetError for an unknown filler."""
        fan_in = self.count // (self.shape[0] if self.shape else 1) or 1
        draw: dict[str, Callable[[], Any]] = {
            "constant": lambda: filler.value,
            "uniform": lambda: rng.uniform(filler.min, filler.max, self.shape),
            "gaussian": lambda: rng.normal(filler.mean, filler.std, self.shape),
            "xavier": lambda: rng.uniform(-1, 1, self.shape) * math.sqrt(3 / fan_in),
            "msra": lambda: rng.normal(0, math.sqrt(2 / fan_in), self.shape),
        }
        if filler.type not in draw:
            raise NetError(f"Unknown filler name: {filler.type} (known fillers: {', '.join(draw)})")
        self.data[...] = draw[filler.type]()


# --- layers: a function, and its derivative by the rules --------------------------------------------------------------


class Layer:
    """A layer computes ``function(*bottoms, *blobs, **options)``; ``blobs`` are its parameters.

    What a layer is, is said by the attributes below and by :meth:`program`. ``takes`` and ``produces`` are how many
    bottoms and tops, None for any number. ``propagate_down`` says for each bottom whether backward finds its diff,
    ``param_propagate_down`` for each parameter; by default all.
    """

    takes: ClassVar[int | None] = 1
    produces: ClassVar[int | None] = 1
    in_place: ClassVar[bool] = True
    labels: ClassVar[tuple[int, ...]] = ()  # the bottoms that are labels, which have no derivative
    default_loss_weight: ClassVar[float] = 0.0
    function: ClassVar[Callable[..., Any]]

    def __init__(self, param: LayerParameter, phase: Phase = "TRAIN", dtype: Any = np.float32, seed: int = 0):
        self.param, self.phase, self.dtype = param, phase, np.dtype(dtype)
        self.name, self.type = param.name, param.type
        self.rng = np.random.default_rng(seed)
        self.blobs: list[Blob] = []
        self.propagate_down: tuple[bool, ...] | None = None
        self.param_propagate_down: list[bool] = []
        self._kernel: Kernel | None = None
        self._own: list[np.ndarray] = []

    def program(self) -> Program:
        """The function, and its options."""
        return type(self).function, {}

    def parameters(self, shape: Sequence[int]) -> list[tuple[Sequence[int], FillerParameter]]:
        """The shapes and the fillers of the parameters, for a bottom of this ``shape``."""
        del shape
        return []

    def extra(self) -> list[np.ndarray]:
        """Operands that stand between the bottoms and the parameters."""
        return []

    def setup(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Makes the parameters, and gives the tops their shapes. Raises NetError where the bottoms do not fit."""
        for found, count, text in (
            (len(bottoms), self.takes, "takes {} bottom blob(s) as input."),
            (len(tops), self.produces, "produces {} top blob(s) as output."),
        ):
            if count is not None and found != count:
                self.fail(f"{self.type} Layer {text.format(count)} There are {found}.")
        if not self.in_place and any(top is bottom for top in tops for bottom in bottoms):
            self.fail(f"{self.type} Layer does not allow in-place computation.")
        if bottoms and not self.blobs:
            for shape, filler in self.parameters(bottoms[0].shape):
                self.blobs.append(Blob(*shape, dtype=self.dtype))
                self.blobs[-1].fill(filler, self.rng)
        self.param_propagate_down = [True] * len(self.blobs)
        self.reshape(bottoms, tops)

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Gives the tops the shapes that follow from those of the bottoms."""
        function, options = self.program()
        try:
            found = jax.eval_shape(functools.partial(function, **options), *self._operands(bottoms))
        except (TypeError, ValueError) as error:
            raise NetError(f"layer '{self.name}' ({self.type}): {error}") from error
        for top, result in zip(tops, jax.tree.leaves(found), strict=True):
            if any(top is bottom for bottom in bottoms) and result.shape != top.shape:
                self.fail(f"{self.type} Layer does not allow in-place computation.")
            top.reshape(*result.shape)

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Writes the data of the tops."""
        self._kernel = self.kernel(bottoms)
        results, self._own = self._kernel.run(self._operands(bottoms))
        for top, result in zip(tops, results, strict=True):
            top.reshape(*result.shape)
            top.data[...] = result

    def backward(self, tops: Sequence[Blob], propagate_down: Sequence[bool], bottoms: Sequence[Blob]) -> None:
        """Writes the diffs of the bottoms for which ``propagate_down`` says so, and adds to those of the parameters.

        Reads bottoms and tops as they are now. Raises NetError for a diff of what has no derivative.
        """
        for i in self.labels:
            if propagate_down[i]:
                self.fail(f"{self.type} Layer cannot backpropagate to label inputs.")
        kernel, operands = self._kernel or self.kernel(bottoms), self._operands(bottoms)
        read = kernel.read(operands, [top.data for top in tops], self._own)
        down = [*propagate_down, *(True for _ in operands[len(bottoms) :])]
        wanted = tuple(want and way for want, way in zip(kernel.wanted, down, strict=True))
        found = kernel.cotangents(read, [top.diff for top in tops], wanted)
        for bottom, ct, way in zip(bottoms, found, propagate_down, strict=False):
            if way:
                bottom.diff[...] = 0 if ct is None else ct
        for blob, ct in zip(self.blobs, found[len(operands) - len(self.blobs) :], strict=True):
            if ct is not None:
                blob.diff[...] += ct

    def kernel(self, bottoms: Sequence[Blob]) -> Kernel:
        """What is computed for bottoms of these shapes, and what the derivative that is asked for reads."""
        function, options = self.program()
        operands = self._operands(bottoms)
        down = (True,) * len(bottoms) if self.propagate_down is None else self.propagate_down
        wanted = [*down, *(False for _ in self.extra()), *self.param_propagate_down]
        return kernel_of(function, options, operands, wanted.__getitem__)

    def _operands(self, bottoms: Sequence[Blob]) -> list[np.ndarray]:
        return [*(bottom.data for bottom in bottoms), *self.extra(), *(blob.data for blob in self.blobs)]

    def fail(self, problem: str) -> NoReturn:
        raise NetError(f"layer '{self.name}': {problem}")


class Input(Layer):
    """Tops that somebody else fills."""

    takes, produces = 0, None

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        if tops[0].shape:  # whoever gave it another shape means that
            return
        shapes = self.param.input_param.shape * (len(tops) if len(self.param.input_param.shape) == 1 else 1)
        if len(shapes) != len(tops):
            self.fail("Must specify 'shape' once, or once for each top.")
        for top, shape in zip(tops, shapes, strict=True):
            top.reshape(*shape.dim)

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        pass


class MemoryData(Layer):
    """Images and labels out of memory, a batch at a time, and from the beginning again."""

    takes, produces = 0, 2
    _data: tuple[np.ndarray, np.ndarray] | None = None

    def reshape(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        size = self.param.memory_data_param
        if not size.batch_size * size.channels * size.height * size.width:
            self.fail("batch_size, channels, height, and width must be specified and positive in memory_data_param")
        tops[0].reshape(size.batch_size, size.channels, size.height, size.width)
        tops[1].reshape(size.batch_size)

    def set_arrays(self, data: Any, labels: Any) -> None:
        """Images (N, channels, height, width) and N labels; N is a multiple of the batch size."""
        data, labels, size = numbers(data), numbers(labels), self.param.memory_data_param
        if data.shape[1:] != (size.channels, size.height, size.width) or labels.shape != data.shape[:1]:
            self.fail(f"data of size {list(data.shape)} and labels of size {list(labels.shape)} do not fit {size}")
        if len(data) % size.batch_size:
            self.fail("Added data must be a multiple of the batch size")
        self._data, self._at = (data, labels), 0

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        if self._data is None:
            self.fail("MemoryDataLayer needs to be initialized by calling Reset, here set_input_arrays")
        rows = slice(self._at, self._at + len(tops[0].data))
        for top, array in zip(tops, self._data, strict=True):
            top.data[...] = array[rows]
        self._at = rows.stop % len(self._data[0])


class InnerProduct(Layer):
    """Each item of the batch, as a vector, times the weights, plus the bias."""

    function = staticmethod(
        lambda x, weight, bias=None: F.linear(x.reshape(x.shape[0], -1), weight, bias)
    )  # fmt: skip

    def parameters(self, shape: Sequence[int]) -> list[tuple[Sequence[int], FillerParameter]]:
        param = self.param.inner_product_param
        weight = (param.num_output, math.prod(shape[1:]))
        both = [(weight, param.weight_filler), ((param.num_output,), param.bias_filler)]
        return both if param.bias_term else both[:1]


class Convolution(Layer):
    def program(self) -> Program:
        param = self.param.convolution_param
        spatial = {"stride": param.stride or 1, "padding": param.pad or 0, "dilation": param.dilation or 1}
        spatial = {name: tuple(value) if isinstance(value, list) else value for name, value in spatial.items()}
        return F.conv2d, {**spatial, "groups": param.group}

    def parameters(self, shape: Sequence[int]) -> list[tuple[Sequence[int], FillerParameter]]:
        param = self.param.convolution_param
        if len(shape) != 4 or len(param.kernel_size) not in (1, 2):
            self.fail(f"takes (N, C, H, W) and one or two numbers as kernel_size, got {list(shape)}")
        sides = (param.kernel_size * 2)[:2]
        weight = (param.num_output, shape[1] // param.group, *sides)
        both = [(weight, param.weight_filler), ((param.num_output,), param.bias_filler)]
        return both if param.bias_term else both[:1]


class Pooling(Layer):
    """Caffe's windows may hang over the edge. Its maximum keeps the places of the largest apart from its top."""

    def program(self) -> Program:
        param = self.param.pooling_param
        if param.global_pooling:
            return (_largest_of_all if param.pool == "MAX" else _mean_of_all), {}
        sizes = {"kernel_size": param.kernel_size, "stride": param.stride, "padding": param.pad, "ceil_mode": True}
        return (_largest if param.pool == "MAX" else F.avg_pool2d), sizes


def _largest(x: Any, **sizes: Any) -> Any:
    return lax.optimization_barrier(F.max_pool2d(x, **sizes))  # what the rule reads is not the top itself


def _largest_of_all(x: Any) -> Any:
    return lax.optimization_barrier(jnp.max(x, (2, 3), keepdims=True))


def _mean_of_all(x: Any) -> Any:
    return jnp.mean(x, (2, 3), keepdims=True)


class ReLU(Layer):
    def program(self) -> Program:
        slope = self.param.relu_param.negative_slope
        return (F.leaky_relu, {"negative_slope": slope}) if slope else (F.relu, {})


class Sigmoid(Layer):
    function = staticmethod(F.sigmoid)


class TanH(Layer):
    function = staticmethod(F.tanh)


class AbsVal(Layer):
    in_place = False
    function = staticmethod(jnp.abs)


class Power(Layer):
    """(shift + scale · x) ** power."""

    function = staticmethod(
        lambda x, power, scale, shift: (shift + scale * x) ** (int(power) if power == int(power) else power)
    )

    def program(self) -> Program:
        return type(self).function, dataclasses.asdict(self.param.power_param)


class Dropout(Layer):
    """In TRAIN, zeroes elements with the probability ``dropout_ratio`` and scales the others; else passes them on."""

    function = staticmethod(lambda x, key, *, p: F.dropout(x, p, key=jax.random.wrap_key_data(key)))

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._key = np.zeros(2, np.uint32)

    def program(self) -> Program:
        return type(self).function, {"p": self.param.dropout_param.dropout_ratio if self.phase == "TRAIN" else 0.0}

    def extra(self) -> list[np.ndarray]:
        return [self._key]

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._key = self.rng.integers(2**32, size=2, dtype=np.uint32)
        super().forward(bottoms, tops)


class Eltwise(Layer):
    """The sum, with a coefficient for each, the product or the maximum of the bottoms, element by element."""

    takes = None

    def program(self) -> Program:
        param = self.param.eltwise_param
        return _eltwise, {"operation": param.operation, "coeff": tuple(param.coeff)}


def _eltwise(*xs: Any, operation: str, coeff: tuple[float, ...]) -> Any:
    if operation == "SUM":
        xs = tuple(c * x for c, x in zip(coeff, xs, strict=True)) if coeff else xs
        return functools.reduce(operator.add, xs)
    return functools.reduce(operator.mul if operation == "PROD" else jnp.maximum, xs)


class Concat(Layer):
    takes = None

    def program(self) -> Program:
        return _concat, {"axis": self.param.concat_param.axis}


def _concat(*xs: Any, axis: int) -> Any:
    return jnp.concatenate(xs, axis)


class Flatten(Layer):
    in_place = False
    function = staticmethod(lambda x: x.reshape(x.shape[0], -1))


class Split(Layer):
    """Hands its bottom on under several names; its backward adds up their diffs. Nets have it where it is needed."""

    produces, in_place = None, False

    def setup(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._count = len(tops)
        super().setup(bottoms, tops)

    def program(self) -> Program:
        return copies, {"count": self._count}

    def forward(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        for top in tops:
            top.share_data(bottoms[0])


class Softmax(Layer):
    function = staticmethod(lambda x, *, axis: F.softmax(x, axis))

    def program(self) -> Program:
        return type(self).function, {"axis": self.param.softmax_param.axis}


class SoftmaxWithLoss(Layer):
    """The cross-entropy of scores (N, C, ...) and labels, its mean over the labels."""

    takes, labels, default_loss_weight = 2, (1,), 1.0
    function = staticmethod(lambda scores, label: F.cross_entropy(scores, _as_classes(scores, label)))


class EuclideanLoss(Layer):
    """Half of the squared differences, summed, over the size of the batch."""

    takes, default_loss_weight = 2, 1.0
    function = staticmethod(lambda x, target: F.mse_loss(x, target, reduction="sum") / (2 * x.shape[0]))


class SigmoidCrossEntropyLoss(Layer):
    """The binary cross-entropy of scores, summed, over the size of the batch."""

    takes, labels, default_loss_weight = 2, (1,), 1.0
    function = staticmethod(
        lambda x, target: F.binary_cross_entropy_with_logits(x, lax.stop_gradient(target), reduction="sum") / x.shape[0]
    )


class Accuracy(Layer):
    """The share of items whose largest score is that of their label."""

    takes, labels = 2, (0, 1)
    function = staticmethod(
        lambda scores, label: jnp.mean(jnp.argmax(scores, 1) == _as_classes(scores, label), dtype=scores.dtype)
    )


def _as_classes(scores: Any, label: Any) -> Any:
    return label.astype(np.int32).reshape(scores.shape[0], *scores.shape[2:])


TYPES: dict[str, type[Layer]] = {kind.__name__: kind for kind in Layer.__subclasses__()}


def make_layer(
    param: LayerParameter | str, phase: Phase = "TRAIN", dtype: Any = np.float32, seed: int = 0
) -> Layer:  # fmt: skip
    """The layer of that type; ``param`` may be the text between the braces of ``layer { ... }``."""
    if isinstance(param, str):
        param = parse(param, LayerParameter)
    if param.type not in TYPES:
        raise NetError(f"Unknown layer type: {param.type} (known types: {', '.join(sorted(TYPES))})")
    return TYPES[param.type](param, phase, dtype, seed)
