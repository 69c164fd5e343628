"""Layers: each a function of ``twograd.nn.functional`` and its parameters."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.fronts.kernel import copies
from twograd.fronts.torch7.module import Layer, generator
from twograd.nn import functional as F


class Linear(Layer):
    """x Wᵀ + b: (inputSize,) or (N, inputSize) to outputSize."""

    function = staticmethod(F.linear)

    def __init__(self, inputSize: int, outputSize: int, bias: bool = True):
        super().__init__({"weight": (outputSize, inputSize)} | ({"bias": (outputSize,)} if bias else {}), inputSize)


class SpatialConvolution(Layer):
    """Images (nInputPlane, H, W), or N of them, correlated with kernels of kH by kW."""

    function = staticmethod(F.conv2d)

    def __init__(
        self, nInputPlane: int, nOutputPlane: int, kW: int, kH: int,
        dW: int = 1, dH: int = 1, padW: int = 0, padH: int = 0,
    ):  # fmt: skip
        shapes = {"weight": (nOutputPlane, nInputPlane, kH, kW), "bias": (nOutputPlane,)}
        super().__init__(shapes, kW * kH * nInputPlane, stride=(dH, dW), padding=(padH, padW))


class _Pooling(Layer):
    def __init__(
        self, kW: int, kH: int, dW: int | None = None, dH: int | None = None, padW: int = 0, padH: int = 0
    ):  # fmt: skip
        stride = (kH if dH is None else dH, kW if dW is None else dW)
        super().__init__(kernel_size=(kH, kW), stride=stride, padding=(padH, padW))


class SpatialMaxPooling(_Pooling):
    """The largest of each window of kH by kW; of equal ones the first has the gradient."""

    function = staticmethod(F.max_pool2d)


class SpatialAveragePooling(_Pooling):
    """The mean of each window of kH by kW."""

    function = staticmethod(F.avg_pool2d)


class Tanh(Layer):
    function = staticmethod(F.tanh)


class Sigmoid(Layer):
    function = staticmethod(F.sigmoid)


class ReLU(Layer):
    function = staticmethod(F.relu)


class SoftPlus(Layer):
    function = staticmethod(F.softplus)


class Square(Layer):
    function = staticmethod(jnp.square)


def _over_classes(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` along the dimension of classes: the first of one or three dimensions, the second of two or four."""
    return lambda x: f(x, (x.ndim + 1) % 2)


class SoftMax(Layer):
    function = staticmethod(_over_classes(F.softmax))


class LogSoftMax(Layer):
    function = staticmethod(_over_classes(F.log_softmax))


class Identity(Layer):
    function = staticmethod(lambda x: x)


def _reshape(x: Any, *, size: tuple[int, ...]) -> Any:
    return x.reshape(size if x.size == math.prod(size) else (x.shape[0], *size))


class Reshape(Layer):
    """An input of another number of elements than ``size`` is a batch, whose first dimension stays."""

    function = staticmethod(_reshape)

    def __init__(self, *size: int):
        super().__init__(size=size)


class Dropout(Layer):
    """Zeroes elements with probability p and divides the others by 1 - p, in training; passes its input on else."""

    function = staticmethod(lambda x, key, *, p: F.dropout(x, p, key=jax.random.wrap_key_data(key)))

    def __init__(self, p: float = 0.5):
        super().__init__(p=p)
        self.p, self._key = p, np.zeros(2, np.uint32)

    def arguments(self, input: Any) -> list[Any]:
        return [*super().arguments(input), self._key]

    def updateOutput(self, input: Any) -> Any:
        self._key = generator.integers(2**32, size=2, dtype=np.uint32)
        self.options["p"] = self.p if self.train else 0.0
        return super().updateOutput(input)


class CAddTable(Layer):
    """The sum of the tensors of a table."""

    function = staticmethod(functools.partial(functools.reduce, operator.add))


class CMulTable(Layer):
    """Their product, element by element."""

    function = staticmethod(functools.partial(functools.reduce, operator.mul))


class CSubTable(Layer):
    """The first of two tensors without the second."""

    function = staticmethod(lambda table: table[0] - table[1])


class JoinTable(Layer):
    """The tensors of a table, one after the other along ``dimension``."""

    function = staticmethod(lambda table, *, dimension: jnp.concatenate(table, dimension))

    def __init__(self, dimension: int):
        super().__init__(dimension=dimension)


class SplitTable(Layer):
    """A table of the slices along ``dimension``, which goes."""

    function = staticmethod(
        lambda x, *, dimension: [jax.lax.index_in_dim(x, i, dimension, False) for i in range(x.shape[dimension])]
    )

    def __init__(self, dimension: int):
        super().__init__(dimension=dimension)


class SelectTable(Layer):
    """One element of a table."""

    function = staticmethod(lambda table, *, index: table[index])

    def __init__(self, index: int):
        super().__init__(index=index)


class Copies(Layer):
    """A table of as many times the input as is told before forward; its gradient is their sum."""

    function = staticmethod(copies)
