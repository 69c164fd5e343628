"""A whole training step (forward, gradient, update) as one compiled graph, against a step written by hand for jax.jit.

Ours is a Module run as a function, `graph.value_and_grad` and a transformation of `twograd.optim`. The peer is plain
jax.numpy and jax.lax, `jax.value_and_grad` and optax, as a user of JAX writes it. Both start from the same weights,
donate them and the optimiser's state, and are checked to take the same steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from _bench import against, summary
from _programs import normal
from jax import lax
from jax import numpy as jnp

from twograd import graph, models, nn, optim, tape
from twograd.nn import functional as F

GOAL = 1.03
CHECKED = 3
Params = dict[str, Any]


def linear(p: Params, name: str, x: Any) -> Any:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def mlp_by_hand(p: Params, x: Any) -> Any:
    return linear(p, "4", jnp.tanh(linear(p, "2", jnp.tanh(linear(p, "0", x)))))


def net_by_hand(p: Params, x: Any) -> Any:
    for name in ("conv1", "conv2"):
        x = lax.conv(x, p[f"{name}.weight"], (1, 1), "VALID") + p[f"{name}.bias"][:, None, None]
        x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(x.shape[0], -1)
    return linear(p, "fc3", jax.nn.relu(linear(p, "fc2", jax.nn.relu(linear(p, "fc1", x)))))


HEADS, LAYERS, LENGTH, VOCABULARY, WIDTH = 4, 2, 64, 96, 64


def normed(p: Params, name: str, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def attention(p: Params, name: str, x: Any) -> Any:
    n, length, width = x.shape
    q, k, v = jnp.split(linear(p, f"{name}.qkv", x), 3, axis=-1)
    q, k, v = (a.reshape(n, length, HEADS, -1).swapaxes(1, 2) for a in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(width // HEADS).astype(np.float32)
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf))
    return linear(p, f"{name}.out", (weights @ v).swapaxes(1, 2).reshape(n, length, width))


def gpt_by_hand(p: Params, tokens: Any) -> Any:
    x = p["tokens.weight"][tokens] + p["places.weight"][: tokens.shape[1]]
    for i in range(LAYERS):
        x = x + attention(p, f"blocks.{i}.attention", normed(p, f"blocks.{i}.norm1", x))
        h = jax.nn.gelu(linear(p, f"blocks.{i}.mlp.0", normed(p, f"blocks.{i}.norm2", x)), approximate=False)
        x = x + linear(p, f"blocks.{i}.mlp.2", h)
    return linear(p, "head", normed(p, "norm", x))


def text(batch: int) -> tuple[Any, Any]:
    codes = np.random.default_rng(0).integers(VOCABULARY, size=(batch, LENGTH + 1)).astype(np.int32)
    return codes[:, :-1], codes[:, 1:]


def labels(batch: int) -> Any:
    return np.arange(batch, dtype=np.int32) % 10


PROGRAMS: dict[str, Callable[[], tuple[Any, Any, tuple[Any, Any], Any, Any]]] = {
    "MLP 784-256-128-10, batch 128": lambda: (
        models.mlp([784, 256, 128, 10]), mlp_by_hand, (normal(128, 784), labels(128)),
        optim.SGD.transform(lr=1e-2, momentum=0.9), optax.sgd(1e-2, momentum=0.9),
    ),
    "CIFAR net, batch 64": lambda: (
        models.Net(), net_by_hand, (normal(64, 3, 32, 32), labels(64)),
        optim.SGD.transform(lr=1e-2, momentum=0.9), optax.sgd(1e-2, momentum=0.9),
    ),
    "GPT, 2 layers of 64, 8 texts of 64": lambda: (
        models.GPT(VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS), gpt_by_hand, text(8),
        optim.AdamW.transform(lr=1e-3), optax.adamw(1e-3, weight_decay=1e-2),
    ),
}  # fmt: skip
"""For each title the model, its forward pass by hand, a batch, and the update of ours and of optax."""


def ours_loss(model: nn.Module, params: Params, x: Any, y: Any) -> Any:
    scores = nn.functional_call(model, params, x)
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))


def peer_loss(by_hand: Callable[[Params, Any], Any], params: Params, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(by_hand(params, x), y).mean()


def compiled(loss: Callable[..., Any], value_and_grad: Any, transform: Any) -> Any:
    """The step of ``(params, state, x, y)``, one call."""

    def step(params, state, x, y):
        value, gradient = value_and_grad(loss)(params, x, y)
        changes, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, value

    return jax.jit(step, donate_argnums=(0, 1))


def running(step: Any, transform: Any, params: Params, batch: Any) -> Callable[[], float]:
    """Takes one step per call."""
    params = jax.tree.map(jnp.array, params)
    state, batch = transform.init(params), jax.device_put(batch)

    def run() -> float:
        nonlocal params, state
        params, state, value = step(params, state, *batch)
        return float(jax.block_until_ready(value))

    return run


def steps(title: str) -> tuple[tuple[Any, Any, Any, Any], tuple[Any, Any, Any, Any]]:
    """The arguments of :func:`running`, for ours and for the peer."""
    tape.manual_seed(0)
    model, by_hand, batch, transform, optax_transform = PROGRAMS[title]()
    params = {name: p.array for name, p in model.named_parameters()}
    ours = compiled(lambda *args: ours_loss(model, *args), graph.value_and_grad, transform)
    peer = compiled(lambda *args: peer_loss(by_hand, *args), jax.value_and_grad, optax_transform)
    return (ours, transform, params, batch), (peer, optax_transform, params, batch)


def main() -> None:
    ratios = []
    for title in PROGRAMS:
        ours, peer = (running(*arguments) for arguments in steps(title))
        np.testing.assert_allclose([ours() for _ in range(CHECKED)], [peer() for _ in range(CHECKED)], rtol=1e-3)
        ratios.append(against(title, ours, peer))
    summary("whole step, twograd.graph / jax.jit with optax", ratios, goal=GOAL)


if __name__ == "__main__":
    main()
