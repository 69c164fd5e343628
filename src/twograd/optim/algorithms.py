"""The algorithms, each as the optax transformation that computes what PyTorch's optimiser of that name does.

Where PyTorch's and optax's defaults differ (where an epsilon stands, what moments begin with), PyTorch's are taken.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twograd.optim.optimizer import Optimizer, optax


def _on_the_way(maximize: bool, weight_decay: Any) -> list[Any]:
    """What happens to a gradient first: its sign, and the decay of weights as a part of the loss."""
    return [*([optax.scale(-1.0)] if maximize else []), *_decay(weight_decay)]


def _decay(weight_decay: Any) -> list[Any]:
    return [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay)]


def _is_zero(number: Any) -> bool:
    return isinstance(number, (int, float)) and number == 0


class _Algorithm(Optimizer):
    """An optimiser whose settings are the arguments of its ``transform``, in PyTorch's order, with those defaults."""

    def __init__(self, params: Any, *args: Any, **settings: Any):
        bound = inspect.signature(self.transform).bind(*args, **settings)
        bound.apply_defaults()
        super().__init__(params, bound.arguments)


class SGD(_Algorithm):
    """Stochastic gradient descent: b = momentum b + (1 - dampening) g, p = p - lr b; the first b is g itself.

    With ``nesterov`` p = p - lr (g + momentum b). ``weight_decay`` adds weight_decay p to g.
    """

    @classmethod
    def transform(
        cls,
        lr: Any = 1e-3,
        momentum: Any = 0,
        dampening: Any = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> Any:
        steps = _on_the_way(maximize, weight_decay)
        if not _is_zero(dampening):
            steps.append(_dampened_trace(momentum, dampening))
        elif not _is_zero(momentum):
            steps.append(optax.trace(momentum, nesterov))
        return optax.chain(*steps, optax.scale_by_learning_rate(lr))

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")


class _Dampened(NamedTuple):
    started: Any
    trace: Any


def _dampened_trace(momentum: Any, dampening: Any) -> Any:
    """b = momentum b + (1 - dampening) g, which optax has not; the first b is g."""

    def init(params: Any) -> _Dampened:
        return _Dampened(jnp.zeros((), bool), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _Dampened]:
        def moved(b: Any, g: Any) -> Any:
            return jnp.where(state.started, momentum * b + (1 - dampening) * g, g).astype(b.dtype)

        trace = jax.tree.map(moved, state.trace, updates)
        return trace, _Dampened(jnp.ones((), bool), trace)

    return optax.GradientTransformation(init, update)


class Adam(_Algorithm):
    """m = β₁ m + (1 - β₁) g, v = β₂ v + (1 - β₂) g², p = p - lr m̂ / (√v̂ + ε), m̂ and v̂ without the bias of the first
    steps (Kingma and Ba, 2014, arXiv:1412.6980). ``weight_decay`` adds weight_decay p to g.
    """

    @classmethod
    def transform(
        cls,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> Any:
        _without_amsgrad(amsgrad)
        steps = _on_the_way(maximize, weight_decay)
        return optax.chain(*steps, optax.scale_by_adam(betas[0], betas[1], eps), optax.scale_by_learning_rate(lr))

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
        _without_amsgrad(group["amsgrad"])


def _without_amsgrad(amsgrad: bool) -> None:
    if amsgrad:
        raise NotImplementedError("amsgrad is not supported: optax corrects the maximum's bias, and PyTorch does not")


class AdamW(Adam):
    """:class:`Adam` that shrinks weights by lr weight_decay p beside the gradient's step (Loshchilov and Hutter, 2017,
    arXiv:1711.05101).
    """

    @classmethod
    def transform(
        cls,
        lr: Any = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> Any:
        _without_amsgrad(amsgrad)
        steps = [*_on_the_way(maximize, 0), optax.scale_by_adam(betas[0], betas[1], eps), *_decay(weight_decay)]
        return optax.chain(*steps, optax.scale_by_learning_rate(lr))


class RMSprop(_Algorithm):
    """v = α v + (1 - α) g², p = p - lr g / (√v + ε) (Hinton, 2012), ``centered`` with the variance in the place of v.

    With ``momentum`` that quotient is summed: b = momentum b + g / (√v + ε), p = p - lr b.
    """

    @classmethod
    def transform(
        cls,
        lr: Any = 1e-2,
        alpha: Any = 0.99,
        eps: Any = 1e-8,
        weight_decay: Any = 0,
        momentum: Any = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> Any:
        scale = optax.scale_by_stddev if centered else optax.scale_by_rms
        steps = [*_on_the_way(maximize, weight_decay), scale(alpha, eps, eps_in_sqrt=False)]
        if not _is_zero(momentum):
            steps.append(optax.trace(momentum))
        return optax.chain(*steps, optax.scale_by_learning_rate(lr))
