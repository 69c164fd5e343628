"""What the engines that stand on JAX have in common: arrays, blocking, sizes of jaxprs, XLA's own figures."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from twograd.compare.engines.protocol import LEARNING_RATE, Engine

MAX_LINES = 400
"""A longer program is shown by its first lines; a report of megabytes helps nobody."""


class JaxArrays(Engine):
    """An engine whose arrays are JAX's."""

    distribution = "jax"

    def arrays(self, tree: Any) -> Any:
        return jax.block_until_ready(jax.tree.map(jnp.asarray, tree))

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(np.asarray, tree)


def blocked(f: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """``f(*args)`` as a function that returns when every array of the result is there."""
    return lambda: jax.block_until_ready(f(*args))


def sgd(params: Any, grads: Any) -> Any:
    """One SGD update, out of place."""
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)


def count_equations(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """How many equations compute something: those of a called jaxpr count, the call itself does not."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    inner = [[count_equations(sub) for sub in _subjaxprs(eqn.params)] for eqn in jaxpr.eqns]
    return sum(sum(counts) if counts else 1 for counts in inner)


def _subjaxprs(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def compiled_counts(compiled: Any) -> dict[str, int | float]:
    """XLA's own memory and cost figures of a compiled program, those that this backend gives."""
    counts: dict[str, int | float] = {}
    memory = compiled.memory_analysis()
    if memory is not None:
        counts |= {
            "temp bytes": memory.temp_size_in_bytes,
            "argument bytes": memory.argument_size_in_bytes,
            "output bytes": memory.output_size_in_bytes,
        }
    cost = compiled.cost_analysis() or {}
    return counts | {key: cost[key] for key in ("flops", "bytes accessed") if key in cost}


def saved_bytes(f: Callable[..., Any], params: Any, *batch: Any) -> int:
    """The bytes that ``jax.vjp`` keeps between the forward and the backward pass."""
    pullback = jax.eval_shape(lambda p: jax.vjp(lambda q: f(q, *batch), p)[1], params)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))


def shortened(text: str) -> str:
    """A program's text, cut where it is too long to be read."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... {len(lines) - MAX_LINES} more lines"]
    return "\n".join(lines)
