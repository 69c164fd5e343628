"""What is done with many parameters at once; and, in ``rnn``, sequences of different lengths."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

import twograd.numpy as tnp
from twograd.nn.utils import rnn as rnn
from twograd.tape import Tensor
from twograd.tape.views import write_arrays


def _grads(parameters: Any) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scales all gradients, in place, so that the norm of them together is at most ``max_norm``; returns that norm."""
    grads = _grads(parameters)
    if not grads:
        return Tensor(0.0)
    total, scaled = _clipped([grad.array for grad in grads], float(max_norm), order=float(norm_type))
    if error_if_nonfinite and not bool(jnp.isfinite(total)):
        raise RuntimeError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot "
            "be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    write_arrays(grads, scaled, "clip_grad_norm_")
    return Tensor(total)


def _clipped_impl(grads: list[Any], max_norm: Any, *, order: float) -> tuple[Any, list[Any]]:
    norms = jnp.stack([jnp.linalg.norm(jnp.ravel(grad), order) for grad in grads])
    total = jnp.linalg.norm(norms, order)
    factor = jnp.minimum(max_norm / (total + 1e-6), 1.0)
    return total, [grad * factor.astype(grad.dtype) for grad in grads]


_clipped = jax.jit(_clipped_impl, static_argnames="order")


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamps every element of every gradient to [-clip_value, clip_value], in place."""
    grads = _grads(parameters)
    write_arrays(grads, [jnp.clip(grad.array, -clip_value, clip_value) for grad in grads], "clip_grad_value_")


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements in one row, differentiable."""
    return tnp.concatenate([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Any, parameters: Iterable[Tensor]) -> None:
    """Puts pieces of ``vec`` in the place of the parameters' elements, one after the other."""
    position = 0
    for parameter in parameters:
        size = math.prod(parameter.shape)
        parameter.data = vec[position : position + size].reshape(*parameter.shape).detach()
        position += size
