"""``torch.nn.functional`` on Tensors, with PyTorch's signatures.

What flows in: Tensors. What flows out: Tensors. The mathematics is :mod:`twograd.nn.functional`'s, whose functions are
pure; here they get what PyTorch's signatures have beyond: ``inplace``, the deprecated ``size_average`` and ``reduce``,
random numbers from a generator, running statistics that are updated, errors that need values. Read :data:`ADAPTED`,
then :func:`_adapted`. Activations and losses that are not there are lines of :data:`OPERATIONS`.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.nn import functional as pure
from twograd.tape.factories import next_key
from twograd.tape.functions import find
from twograd.tape.modes import no_grad
from twograd.tape.operations import absolute, norm
from twograd.tape.schema import operation
from twograd.tape.tensor import Tensor
from twograd.tape.views import check_writable, without_hooks, write

LEGACY = "size_average reduce"
ADAPTED = {
    **dict.fromkeys(("mse_loss", "l1_loss"), f"input target {LEGACY} reduction weight"),
    "smooth_l1_loss": f"input target {LEGACY} reduction beta",
    "huber_loss": "input target reduction delta weight",
    "kl_div": f"input target {LEGACY} reduction log_target",
    "binary_cross_entropy": f"input target weight {LEGACY} reduction",
    "binary_cross_entropy_with_logits": f"input target weight {LEGACY} reduction pos_weight",
    "cross_entropy": "input target weight size_average ignore_index reduce reduction label_smoothing",
    "nll_loss": "input target weight size_average ignore_index reduce reduction",
    "softmax": "input dim _stacklevel dtype",
    "log_softmax": "input dim _stacklevel dtype",
    "elu": "input alpha inplace",
    "hardtanh": "input min_val max_val inplace",
    "leaky_relu": "input negative_slope inplace",
    "relu": "input inplace",
    "relu6": "input inplace",
    "selu": "input inplace",
    "silu": "input inplace",
    "dropout": "input p training inplace",
    "embedding": "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse",
}
"""The functions whose parameters are not those of the pure one, and PyTorch's parameters in their order."""

BROADCASTING = frozenset({"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"})
ABSENT = {
    "weight": (None, BROADCASTING), "max_norm": (None, {"embedding"}), "norm_type": (2.0, {"embedding"}),
    "scale_grad_by_freq": (False, {"embedding"}), "sparse": (False, {"embedding"}),
}  # fmt: skip
"""Parameters that are not supported: their defaults, and the functions that have them."""


def _adapted(name: str) -> Callable[..., Any]:
    base, names = getattr(pure, name), ADAPTED[name].split()

    @functools.wraps(base)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > len(names) or not kwargs.keys() <= set(names):
            raise TypeError(f"{name}() takes {', '.join(names)}")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for parameter, (default, owners) in ABSENT.items():
            if name in owners and given.pop(parameter, default) != default:
                raise NotImplementedError(f"{name}(): {parameter}= is not supported")
        inplace = given.pop("inplace", False)
        _reduce_legacy(given)
        _as_dtype(name, given)
        if name in BROADCASTING:
            _broadcast(given)
        if name in ("cross_entropy", "nll_loss"):
            _check_classes(given)
        if name == "embedding":
            _check_rows(given)
        if name == "dropout":
            given["key"] = Tensor(next_key()) if given.get("training", True) and given.get("p", 0.5) else None
        operands = [given.pop(parameter) for parameter in names[:2] if isinstance(given.get(parameter), Tensor)]
        if not inplace:
            return base(*operands, **given)
        check_writable(operands[0])
        return write(operands[0], base(without_hooks(operands[0]), *operands[1:], **given))

    call.__module__ = __name__
    return call


def _reduce_legacy(given: dict[str, Any]) -> None:
    size_average, reduce = given.pop("size_average", None), given.pop("reduce", None)
    if size_average is not None or reduce is not None:
        given["reduction"] = "none" if reduce is False else "sum" if size_average is False else "mean"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{given['reduction']}' instead.",
            UserWarning,
            stacklevel=3,
        )


def _as_dtype(name: str, given: dict[str, Any]) -> None:
    given.pop("_stacklevel", None)
    if (dtype := given.pop("dtype", None)) is not None:
        given["input"] = given["input"].to(dtype)
    if name.endswith("softmax") and given.get("dim") is None:
        given["dim"] = 0 if given["input"].ndim in (0, 1, 3) else 1
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
            "argument.",
            UserWarning,
            stacklevel=3,
        )


def _broadcast(given: dict[str, Any]) -> None:
    input, target = given["input"], given["target"]
    if input.shape != target.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            UserWarning,
            stacklevel=3,
        )
        given["input"], given["target"] = find("broadcast_tensors")(input, target)


def _check_classes(given: dict[str, Any]) -> None:
    """A class that does not exist is an error, as in PyTorch; a compiled program could only make it NaN."""
    input, target = given["input"], given["target"]
    if not _known(target) or not np.issubdtype(target.dtype, np.integer):
        return
    classes = np.asarray(target._data)
    count = input.shape[1 if input.ndim > 1 else 0]
    wrong = classes[((classes < 0) | (classes >= count)) & (classes != given.get("ignore_index", -100))]
    if wrong.size:
        raise IndexError(f"Target {wrong.flat[0]} is out of bounds.")


def _check_rows(given: dict[str, Any]) -> None:
    indices, rows = given["input"], len(given["weight"])
    if _known(indices) and indices.numel():
        values = np.asarray(indices._data)
        if values.min() < 0 or values.max() >= rows:
            raise IndexError("index out of range in self")


def _known(x: Tensor) -> bool:
    return not isinstance(x._data, jax.core.Tracer) and x.device.type == "cpu"  # pyright: ignore


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Normalised over all dimensions but the second; in training the running statistics are updated, in place."""
    out = pure.batch_norm(input, running_mean, running_var, weight, bias, training=training, eps=eps)
    if training and running_mean is not None and running_var is not None:
        with no_grad():
            mean, var = pure.batch_norm_statistics(input, running_mean, running_var, momentum)
            running_mean.copy_(mean)  # pyright: ignore[reportAttributeAccessIssue]
            running_var.copy_(var)  # pyright: ignore[reportAttributeAccessIssue]
    return out


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Ones at the classes, in a new last dimension; as many classes as occur without a number of them."""
    if num_classes == -1:
        num_classes = int(np.asarray(tensor._data).max()) + 1
    return pure.one_hot(tensor, num_classes)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query key^T * scale) value``."""
    drop: dict[str, Any] = {"dropout_key": Tensor(next_key())} if dropout_p else {}
    options: dict[str, Any] = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    return pure.scaled_dot_product_attention(query, key, value, attn_mask, **options, **drop)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A sample of a relaxed one-hot vector; ``hard`` rounds it, with the gradient of the soft one."""
    noise = Tensor(jax.random.gumbel(next_key(), logits.shape, logits.dtype))
    soft = ((logits + noise) / tau).softmax(dim)  # pyright: ignore
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    return find("zeros_like")(soft).scatter(dim, index, 1.0) - soft.detach() + soft


# --- what the pure functions have not ---------------------------------------------------------------------------------


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return {"none": lambda x: x, "mean": jnp.mean, "sum": jnp.sum}[reduction](loss)


def _relu(x: Any) -> Any:
    return jax.nn.relu(x)


def _gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-06, reduction: str = "mean"
) -> Any:
    var = var if var.ndim == input.ndim or not var.ndim else var[..., None]
    var = var + jax.lax.stop_gradient(jnp.maximum(var, eps) - var)
    loss = 0.5 * (jnp.log(var) + (input - target) ** 2 / var)
    return _reduced(loss + (0.5 * np.log(2 * np.pi) if full else 0), reduction)


def _poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-08, reduction: str = "mean"
) -> Any:
    loss = jnp.exp(input) - target * input if log_input else input - target * jnp.log(input + eps)
    if full:
        stirling = target * jnp.log(target) - target + 0.5 * jnp.log(2 * np.pi * target)
        loss = loss + jnp.where(target > 1, stirling, 0)
    return _reduced(loss, reduction)


def _pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-06, keepdim: bool = False) -> Any:
    return norm(x1 - x2 + eps, p, -1, keepdim)


def _triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-06,
    swap: bool = False, reduction: str = "mean",
) -> Any:  # fmt: skip
    near, far = (_pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = jnp.minimum(far, _pairwise_distance(positive, negative, p, eps))
    return _reduced(_relu(margin + near - far), reduction)


def _cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0, reduction: str = "mean") -> Any:
    cosine = pure.cosine_similarity(input1, input2, -1)
    return _reduced(jnp.where(target == 1, 1 - cosine, _relu(cosine - margin)), reduction)


def _hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    return _reduced(jnp.where(target == 1, input, 0) + jnp.where(target == -1, _relu(margin - input), 0), reduction)


def _margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0, reduction: str = "mean") -> Any:
    return _reduced(_relu(-target * (input1 - input2) + margin), reduction)


def _soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    return _reduced(jax.nn.softplus(-target * input), reduction)


def _rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    axes = tuple(range(-len(normalized_shape), 0))
    eps = float(jnp.finfo(input.dtype).eps) if eps is None else eps
    out = input * jax.lax.rsqrt(jnp.mean(input**2, axes, keepdims=True) + eps)
    return out if weight is None else out * weight


def _bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    out = jnp.einsum("...i,oij,...j->...o", input1, weight, input2)
    return out if bias is None else out + bias


def _pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    *batch, channels, height, width = input.shape
    r = upscale_factor
    parts = input.reshape(*batch, channels // r**2, r, r, height, width)
    moved = jnp.moveaxis(parts, (-4, -3), (-3, -1))
    return moved.reshape(*batch, channels // r**2, height * r, width * r)


def _pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    *batch, channels, height, width = input.shape
    r = downscale_factor
    parts = input.reshape(*batch, channels, height // r, r, width // r, r)
    return jnp.moveaxis(parts, (-3, -1), (-4, -3)).reshape(*batch, channels * r**2, height // r, width // r)


OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "bilinear":      ("tttt", _bilinear),
    "celu":          ("t..", lambda input, alpha=1.0, inplace=False: jnp.maximum(input, 0) + jnp.minimum(
                          alpha * jnp.expm1(jnp.minimum(input, 0) / alpha), 0)),
    "cosine_embedding_loss": ("ttt..", _cosine_embedding_loss),
    "gaussian_nll_loss": ("ttt...", _gaussian_nll_loss),
    "hardsigmoid":   ("t.", lambda input, inplace=False: jnp.where(
                          jnp.abs(input) < 3, input / 6 + 0.5, input > 0)),
    "hardswish":     ("t.", lambda input, inplace=False: jnp.where(
                          input <= -3, 0, jnp.where(input < 3, input * (input + 3) / 6, input))),
    "hinge_embedding_loss": ("tt..", _hinge_embedding_loss),
    "margin_ranking_loss": ("ttt..", _margin_ranking_loss),
    "mish":          ("t.", lambda input, inplace=False: input * jnp.tanh(jax.nn.softplus(input))),
    "pairwise_distance": ("tt...", _pairwise_distance),
    "pixel_shuffle": ("t.", _pixel_shuffle),
    "pixel_unshuffle": ("t.", _pixel_unshuffle),
    "poisson_nll_loss": ("tt....", _poisson_nll_loss),
    "rms_norm":      ("t.t.", _rms_norm),
    "soft_margin_loss": ("tt.", _soft_margin_loss),
    "softmin":       ("td..", lambda input, dim=-1, _stacklevel=3, dtype=None: jax.nn.softmax(-input, dim)),
    "softshrink":    ("t.", lambda input, lambd=0.5: jnp.where(
                          input > lambd, input - lambd, jnp.where(input < -lambd, input + lambd, 0))),
    "softsign":      ("t", lambda input: input / (1 + absolute(input))),
    "tanhshrink":    ("t", lambda input: input - jnp.tanh(input)),
    "triplet_margin_loss": ("ttt.....", _triplet_margin_loss),
}  # fmt: skip
"""Of each function the kinds of its parameters (see ``schema.py``), and what it computes of arrays."""

FROM_TORCH = frozenset({"hardshrink", "pdist", "prelu", "threshold"})


def __getattr__(name: str) -> Any:
    if name in ADAPTED:
        value = _adapted(name)
    elif name in OPERATIONS:
        value = operation(name, *OPERATIONS[name])
    elif name in FROM_TORCH:
        value = find(name)
    elif not name.startswith("_") and hasattr(pure.__dict__.get(name), "__wrapped__"):
        value = pure.__dict__[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    functions = [name for name, value in pure.__dict__.items() if hasattr(value, "__wrapped__")]
    return sorted({*globals(), *ADAPTED, *OPERATIONS, *FROM_TORCH, *functions})
