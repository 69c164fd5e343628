"""The programs that the graph engine's benchmarks differentiate: each a scalar loss of (params, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

Program = tuple[Callable[[Any, Any], Any], Any, Any]
"""``(loss, params, batch)``."""


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal float32 numbers, the same for the same shape."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32) * np.float32(scale)


def mlp(batch: int = 128, width: int = 256, depth: int = 4) -> Program:
    """tanh layers and a squared error."""
    params = [(normal(width, width, scale=width**-0.5), np.zeros(width, np.float32)) for _ in range(depth)]

    def loss(params, batch):
        x, y = batch
        for w, b in params[:-1]:
            x = jnp.tanh(x @ w + b)
        w, b = params[-1]
        return jnp.mean((x @ w + b - y) ** 2)

    return loss, params, (normal(batch, width), normal(batch, width))


def convnet(batch: int = 16) -> Program:
    """Two convolutions, two poolings, three linear layers and the cross entropy, at CIFAR's shape."""
    params = {
        "conv1": (normal(6, 3, 5, 5, scale=0.1), np.zeros((6, 1, 1), np.float32)),
        "conv2": (normal(16, 6, 5, 5, scale=0.1), np.zeros((16, 1, 1), np.float32)),
        "fc1": (normal(400, 120, scale=0.05), np.zeros(120, np.float32)),
        "fc2": (normal(120, 84, scale=0.1), np.zeros(84, np.float32)),
        "fc3": (normal(84, 10, scale=0.1), np.zeros(10, np.float32)),
    }

    def loss(params, batch):
        x, labels = batch
        for name in ("conv1", "conv2"):
            w, b = params[name]
            x = jax.nn.relu(lax.conv(x, w, (1, 1), "VALID") + b)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.reshape(x.shape[0], -1)
        for name in ("fc1", "fc2"):
            w, b = params[name]
            x = jax.nn.relu(x @ w + b)
        w, b = params["fc3"]
        logits = jax.nn.log_softmax(x @ w + b)
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    return loss, params, (normal(batch, 3, 32, 32), np.arange(batch, dtype=np.int32) % 10)


def chain(length: int = 40, size: int = 10_000) -> Program:
    """A chain of elementwise operations."""

    def loss(scale, x):
        for _ in range(length):
            x = jnp.sin(x * scale)
        return jnp.sum(x)

    return loss, np.float32(0.5), normal(size)


def transformer(batch: int = 4, length: int = 64, width: int = 64, heads: int = 4) -> Program:
    """One block: layer norm, causal attention, layer norm, a GELU layer; and a squared error."""
    names = ("query", "key", "value", "out")
    params: dict[str, Any] = {name: normal(width, width, scale=width**-0.5) for name in names}
    params |= {"up": normal(width, 4 * width, scale=width**-0.5), "down": normal(4 * width, width, scale=0.05)}
    params |= {f"norm{i}": (np.ones(width, np.float32), np.zeros(width, np.float32)) for i in (1, 2)}

    def normed(x, scale, shift):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        return centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift

    def split(x):
        return x.reshape(*x.shape[:-1], heads, -1)

    def loss(params, batch):
        x, y = batch
        h = normed(x, *params["norm1"])
        q, k, v = (split(h @ params[name]) for name in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]).astype(np.float32)
        causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e9))
        x = x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ params["out"]
        x = x + jax.nn.gelu(normed(x, *params["norm2"]) @ params["up"]) @ params["down"]
        return jnp.mean((x - y) ** 2)

    return loss, params, (normal(batch, length, width), normal(batch, length, width))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "MLP": mlp,
    "convolutional net": convnet,
    "elementwise chain": chain,
    "transformer block": transformer,
}
