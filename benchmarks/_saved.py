"""The bytes that a program keeps between its passes, for its derivative in ``params``: twograd's and JAX's."""

from collections.abc import Callable
from typing import Any

import jax
from _programs import Program

from twograd.graph.split import split_once


def saved_against_jax(title: str, program: Program) -> float:
    """Prints the bytes kept by both, and returns their ratio."""
    loss, params, batch = program
    params, batch = jax.device_put((params, batch))  # JAX keeps NumPy arrays as they are, and they would not be counted
    ours, peer = saved_bytes_by_twograd(loss, params, batch), saved_bytes_by_jax(loss, params, batch)
    print(f"{title:32} ours {ours / 1e6:10.3f} MB   peer {peer / 1e6:10.3f} MB   ratio {ours / peer:5.2f}")
    return ours / peer


def saved_bytes_by_twograd(loss: Callable[[Any, Any], Any], params: Any, batch: Any) -> int:
    """Of the values that the backward half reads: operands, results and intermediates, each once."""
    closed = jax.make_jaxpr(loss)(params, batch)
    num_params = len(jax.tree.leaves(params))
    wanted = [i < num_params for i in range(len(closed.in_avals))]
    split = split_once(closed, wanted)
    avals = [*split.forward.in_avals, *split.forward.out_avals]
    return sum(avals[i].size * avals[i].dtype.itemsize for i in split.saved)


def saved_bytes_by_jax(loss: Callable[[Any, Any], Any], params: Any, batch: Any) -> int:
    """Of the arrays that the pullback of ``jax.vjp`` holds, each once."""
    _, pullback = jax.vjp(lambda params: loss(params, batch), params)
    arrays = {leaf.unsafe_buffer_pointer(): leaf for leaf in jax.tree.leaves(pullback) if isinstance(leaf, jax.Array)}
    return sum(array.nbytes for array in arrays.values())
