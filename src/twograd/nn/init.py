"""First values of parameters: ``torch.nn.init``'s functions. Each changes a Tensor in place, and returns it.

The distributions are PyTorch's, the numbers those of this thread's generator (``tape.manual_seed``).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from twograd.tape import Tensor
from twograd.tape.factories import next_seed
from twograd.tape.views import write_arrays

# The numbers are NumPy's: JAX would compile a program for each shape, which takes longer than to draw them.


def _draws() -> np.random.Generator:
    return np.random.default_rng(next_seed())


def _set(tensor: Tensor, values: Any) -> Tensor:
    array = jnp.asarray(np.asarray(values).astype(tensor.dtype))
    if getattr(tensor.array, "committed", False):  # it was put on a device, not left where arrays are made
        array = jax.device_put(array, tensor.array.sharding)
    write_arrays([tensor], [array], "an initialisation")
    return tensor


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    return _set(tensor, _draws().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal, of that mean and standard deviation."""
    return _set(tensor, _draws().normal(mean, std, tensor.shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Normal, of those numbers only that lie in [a, b]."""
    low, high = ndtr((a - mean) / std), ndtr((b - mean) / std)
    return _set(tensor, np.clip(mean + std * ndtri(_draws().uniform(low, high, tensor.shape)), a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    return _set(tensor, np.full(tensor.shape, val))


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity, of a matrix."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return _set(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """The kernel (out, in / groups, *spatial) of a convolution that hands on as many channels as it can."""
    if not 3 <= tensor.ndim <= 5:
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    out = tensor.shape[0] // groups
    each = np.arange(min(out, tensor.shape[1]))
    centre = tuple(size // 2 for size in tensor.shape[2:])
    kernel = np.zeros(tensor.shape)
    for group in range(groups):
        kernel[(group * out + each, each, *centre)] = 1
    return _set(tensor, kernel)


GAINS = {"sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; ``param`` is leaky_relu's slope."""
    if nonlinearity == "linear" or nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return GAINS[nonlinearity]


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """How many values an output is made of, and how many outputs an input is part of; (out, in, *spatial)."""
    if len(shape) < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform within gain √(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal, of standard deviation gain √(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor.shape))))


Mode = Literal["fan_in", "fan_out"]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor.shape)[mode == "fan_out"])


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Uniform within gain √(3 / fan) (He et al., 2015, arXiv:1502.01852)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal, of standard deviation gain / √fan (He et al., 2015, arXiv:1502.01852)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def orthogonal_(tensor: Tensor, gain: float = 1) -> Tensor:
    """A matrix (rows, rest) with orthonormal rows or columns, times ``gain`` (Saxe et al., 2013, arXiv:1312.6120)."""
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = np.linalg.qr(_draws().standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diagonal(r))
    return _set(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))
