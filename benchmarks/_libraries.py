"""Programs of other libraries, unchanged: each a scalar loss of (params, batch), as in ``_programs.py``.

Their libraries are imported when a program is made, so one that is not installed costs its own programs only. ``scale``
multiplies the sizes.
"""

from typing import Any

import jax
import numpy as np
from _programs import Program, normal
from jax import lax
from jax import numpy as jnp


def equinox_attention(scale: int = 4) -> Program:
    """A transformer encoder layer: attention with a mask and dropout, layer norms, an MLP."""
    import equinox as eqx

    width, length = 8 * scale, 4 * scale

    class Layer(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        dropout: eqx.nn.Dropout
        norms: list
        mlp: eqx.nn.MLP

        def __init__(self, key):
            keys = jax.random.split(key)
            self.attention = eqx.nn.MultiheadAttention(4, width, key=keys[0])
            self.dropout = eqx.nn.Dropout(0.1)
            self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]
            self.mlp = eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=keys[1])

        def __call__(self, x, key):
            h = jax.vmap(self.norms[0])(x)
            h = self.attention(h, h, h, mask=jnp.tril(jnp.ones((length, length), bool)))
            x = x + self.dropout(h, key=key)
            return x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))

    params, static = eqx.partition(Layer(jax.random.key(0)), eqx.is_inexact_array)

    def loss(params, batch):
        layer = eqx.combine(params, static)
        x, y = batch
        keys = jax.random.split(jax.random.key(1), x.shape[0])
        return jnp.mean((jax.vmap(layer)(x, keys) - y) ** 2)

    return loss, params, (normal(scale, length, width), normal(scale, length, width))


def equinox_gru(scale: int = 4) -> Program:
    """A GRU cell in a scan, its last state classified."""
    import equinox as eqx

    width = 8 * scale

    class Classifier(eqx.Module):
        cell: eqx.nn.GRUCell
        out: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key)
            self.cell = eqx.nn.GRUCell(4, width, key=keys[0])
            self.out = eqx.nn.Linear(width, 3, key=keys[1])

        def __call__(self, xs):
            state, _ = lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(width), xs)
            return self.out(state)

    params, static = eqx.partition(Classifier(jax.random.key(0)), eqx.is_inexact_array)

    def loss(params, batch):
        xs, labels = batch
        logits = jax.vmap(eqx.combine(params, static))(xs)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))

    return loss, params, (normal(2 * scale, 5 * scale, 4), np.arange(2 * scale, dtype=np.int32) % 3)


def flax_convnet(scale: int = 4) -> Program:
    """Linen: convolutions, batch norm that updates its statistics, pooling, dropout, one block rematerialised."""
    import flax.linen as nn

    class Block(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            x = nn.Conv(self.features, (3, 3))(x)
            return nn.relu(nn.BatchNorm(use_running_average=False)(x))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.avg_pool(Block(4)(x), (2, 2), (2, 2))
            x = nn.max_pool(nn.remat(Block)(8)(x), (2, 2), (2, 2))
            x = nn.Dropout(0.2, deterministic=False)(x.reshape(x.shape[0], -1))
            return nn.Dense(3)(x)

    net = Net()
    x = normal(2 * scale, 4 * scale, 4 * scale, 3)
    variables = jax.jit(net.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)

    def loss(params, batch):
        x, labels = batch
        variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, _ = net.apply(variables_now, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))

    return loss, variables["params"], (x, np.arange(len(x), dtype=np.int32) % 3)


def flax_layers_in_scan(scale: int = 4) -> Program:
    """Linen: one attention layer scanned over the depth with stacked parameters, each step rematerialised."""
    import flax.linen as nn

    width, length = 8 * scale, 4 * scale

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            causal = nn.make_causal_mask(jnp.ones(x.shape[:2]))
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x), mask=causal)
            return x + nn.Dense(width)(nn.gelu(nn.Dense(2 * width)(nn.LayerNorm()(x)))), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            layers = nn.scan(
                nn.remat(Layer, prevent_cse=False), {"params": 0}, split_rngs={"params": True}, length=1 + scale
            )
            return layers()(x, None)[0]

    net, x = Net(), normal(scale, length, width)

    def loss(params, batch):
        x, y = batch
        return jnp.mean((net.apply(params, x) - y) ** 2)

    return loss, jax.jit(net.init)(jax.random.key(0), x), (x, normal(scale, length, width))


def flax_nnx(scale: int = 4) -> Program:
    """NNX: a graph of modules, split into its state and the rest."""
    from flax import nnx

    width = 16 * scale

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(3)])
            self.norm = nnx.RMSNorm(width, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = x + nnx.silu(layer(self.dropout(self.norm(x))))
            return x

    definition, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, batch):
        x, y = batch
        return jnp.mean((nnx.merge(definition, params, rest, copy=True)(x) - y) ** 2)

    return loss, params, (normal(8 * scale, width), normal(8 * scale, width))


def haiku_lstm(scale: int = 4) -> Program:
    """An LSTM, unrolled by Haiku's own scan, with a layer norm; a language model's cross entropy."""
    import haiku as hk

    vocabulary, width = 11, 8 * scale

    @hk.without_apply_rng
    @hk.transform
    def logits(tokens):
        x = hk.Embed(vocabulary, width)(tokens)
        core = hk.LSTM(width)
        x, _ = hk.dynamic_unroll(core, x, core.initial_state(tokens.shape[1]))
        return hk.Linear(vocabulary)(hk.LayerNorm(-1, True, True)(x))

    tokens = np.arange(6 * scale * scale, dtype=np.int32).reshape(6 * scale, scale) * 7 % vocabulary

    def loss(params, batch):
        scores = jax.nn.log_softmax(logits.apply(params, batch[:-1]))
        return -jnp.mean(jnp.take_along_axis(scores, batch[1:][..., None], axis=-1))

    return loss, jax.jit(logits.init)(jax.random.key(0), tokens), tokens


def haiku_mlp(scale: int = 4) -> Program:
    """Batch norm with state, dropout and a rematerialised MLP."""
    import haiku as hk

    @hk.transform_with_state
    def net(x):
        x = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
        x = hk.remat(hk.nets.MLP([8 * scale, 8 * scale]))(x)
        return hk.Linear(1)(hk.dropout(hk.next_rng_key(), 0.1, jnp.tanh(x)))

    x = normal(8 * scale, 4 * scale)
    params, state = jax.jit(net.init)(jax.random.key(0), x)

    def loss(params, batch):
        out, _ = net.apply(params, state, jax.random.key(1), batch)
        return jnp.mean((out - jnp.sum(batch, axis=1, keepdims=True)) ** 2)

    return loss, params, x


def optax_unrolled(scale: int = 4) -> Program:
    """The loss after steps of Adam with a schedule, as a function of the initial weights and the learning rate."""
    import optax

    def loss(params, batch):
        x, y = batch
        rate, weights = params
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale_by_schedule(lambda i: -rate / (1 + i))
        )

        def inner(w):
            return jnp.mean(optax.huber_loss(jnp.tanh(x @ w), y))

        def step(carry, _):
            w, state = carry
            value, gradient = jax.value_and_grad(inner)(w)
            updates, state = optimizer.update(gradient, state, w)
            return (optax.apply_updates(w, updates), state), value

        (w, _), values = lax.scan(step, (weights, optimizer.init(weights)), None, length=2 * scale)
        return inner(w) + jnp.mean(values)

    x = normal(8 * scale, 4 * scale)
    return loss, (np.float32(0.1), normal(4 * scale, 2)), (x, np.sin(x[:, :2]))


def optax_ctc(scale: int = 4) -> Program:
    """Connectionist temporal classification: a scan of log-sum-exps with padding."""
    import optax

    def loss(params, batch):
        x, padding, labels, label_padding = batch
        return jnp.mean(optax.ctc_loss(x @ params, padding, labels, label_padding))

    batch, frames, count = scale, 4 * scale, scale
    padding = (np.arange(frames)[None] >= frames - np.arange(batch)[:, None]).astype(np.float32)
    labels = 1 + np.arange(batch * count, dtype=np.int32).reshape(batch, count) * 3 % 5
    label_padding = (np.arange(count)[None] >= count - np.arange(batch)[:, None] % 2).astype(np.float32)
    return loss, normal(7, 6), (normal(batch, frames, 7), padding, labels, label_padding)


def diffrax_solve(scale: int = 4) -> Program:
    """A neural differential equation, solved with adaptive steps, differentiated through the (checkpointed) solver."""
    import diffrax

    def loss(params, batch):
        y0, target = batch

        def field(t, y, w):
            return jnp.tanh(w @ y) * jnp.cos(t)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            0.0,
            2.0,
            0.1,
            y0,
            params,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4),
            saveat=diffrax.SaveAt(ts=jnp.linspace(0.5, 2.0, 4)),
            max_steps=64,
        )
        return jnp.mean((solution.ys - target) ** 2)

    width = 4 * scale
    return loss, normal(width, width, scale=width**-0.5), (normal(width), normal(4, width))


def kalman_filter(scale: int = 4) -> Program:
    """The log-likelihood of a linear Gaussian state space model: a scan of small solves and Cholesky factors."""
    state, seen = 2 * scale, scale

    def loss(params, batch):
        move, look, noise = params
        process = jnp.eye(state) * jnp.exp(noise[0])
        observation = jnp.eye(seen) * jnp.exp(noise[1])

        def step(carry, y):
            mean, cov = move @ carry[0], move @ carry[1] @ move.T + process
            factor = jnp.linalg.cholesky(look @ cov @ look.T + observation)
            residual = lax.linalg.triangular_solve(factor, (y - look @ mean)[:, None], left_side=True, lower=True)[:, 0]
            gain = jax.scipy.linalg.cho_solve((factor, True), look @ cov).T
            mean, cov = mean + gain @ (y - look @ mean), cov - gain @ look @ cov
            return (mean, cov), 0.5 * jnp.sum(residual**2) + jnp.sum(jnp.log(jnp.diag(factor)))

        _, terms = lax.scan(step, (jnp.zeros(state), jnp.eye(state)), batch)
        return jnp.mean(terms)

    params = (0.9 * np.eye(state, dtype=np.float32), normal(seen, state), np.zeros(2, np.float32))
    return loss, params, normal(10 * scale, seen)


def gaussian_process(scale: int = 4) -> Program:
    """The marginal likelihood of a Gaussian process in its kernel's parameters and inducing inputs."""

    def loss(params, batch):
        (x, y), (length, noise, shift) = batch, params
        x = x + shift
        distance = jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)
        kernel = jnp.exp(-0.5 * distance / jnp.exp(length)) + (1e-2 + jnp.exp(noise)) * jnp.eye(len(x))
        factor = jnp.linalg.cholesky(kernel)
        whitened = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return 0.5 * jnp.sum(whitened**2) + jnp.sum(jnp.log(jnp.diag(factor)))

    x = normal(12 * scale, 2)
    return loss, (np.float32(0.0), np.float32(-1.0), np.zeros_like(x)), (x, np.sin(x[:, 0]))


LIBRARIES: dict[str, Any] = {
    "equinox attention": equinox_attention,
    "equinox GRU": equinox_gru,
    "flax convnet": flax_convnet,
    "flax layers in a scan": flax_layers_in_scan,
    "flax nnx": flax_nnx,
    "haiku LSTM": haiku_lstm,
    "haiku MLP": haiku_mlp,
    "optax unrolled Adam": optax_unrolled,
    "optax CTC loss": optax_ctc,
    "diffrax ODE": diffrax_solve,
    "Kalman filter": kalman_filter,
    "Gaussian process": gaussian_process,
}
