"""``backward`` and ``grad`` on Tensors, with the semantics of ``torch.autograd``.

One difference: the gradient of a real function of a complex Tensor is, as in JAX, df/dx - i df/dy; PyTorch's is its
conjugate.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twograd.tape import compiled
from twograd.tape.apply import apply
from twograd.tape.backward import backward_pass
from twograd.tape.hooks import as_tensor
from twograd.tape.modes import mode
from twograd.tape.node import Edge, GradientEdge, InputMetadata, next_order, walks
from twograd.tape.tensor import Tensor, make_tensor

Differentiable = Tensor | GradientEdge
Tensors = Differentiable | Sequence[Differentiable]
Cotangents = Tensor | Sequence[Tensor | None] | None

CYCLE = (
    "Using backward() with create_graph=True will create a reference cycle between the parameter and its gradient "
    "which can cause a memory leak. We recommend using autograd.grad when creating the graph to avoid this. If you "
    "have to use this function, make sure to reset the .grad fields of your parameters to None after use to break the "
    "cycle and avoid the leak."
)


def backward(
    tensors: Tensors,
    grad_tensors: Cotangents = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Accumulates the gradients of the ``tensors`` into the ``.grad`` of the leaves (or of ``inputs`` only).

    A tensor that is not a scalar needs its cotangent in ``grad_tensors``. Saved values are freed unless
    ``retain_graph`` (by default only with ``create_graph``, under which the gradients can be differentiated again).
    """
    if create_graph:
        warnings.warn(CYCLE, UserWarning, stacklevel=2)
    leaves = None if inputs is None else _tuple(inputs)
    if leaves is not None and not leaves:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    edges, cts = _roots(tensors, grad_tensors, create_graph)
    if leaves is None:
        _walk(edges, cts, None, retain_graph, create_graph)
        return
    for x in leaves:
        if isinstance(x, Tensor):
            x.retain_grad()
    _walk(edges, cts, _targets(leaves), retain_graph, create_graph, accumulating=True)


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Cotangents = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of the ``outputs`` with respect to the ``inputs``; no ``.grad`` is touched.

    Only nodes that lead to an input are walked. An input that the outputs do not depend on is an error, or None with
    ``allow_unused``, or zeros with ``materialize_grads``.

    With ``is_grads_batched`` each of the ``grad_outputs`` has a leading axis, all of one size, and so have the
    gradients: one walk does for all entries what a call for each, and stacking, would. A node with hooks, or a Function
    of the user's own, is walked entry by entry.
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    leaves = _tuple(inputs)
    if not leaves:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    edges, cts = _roots(outputs, grad_outputs, create_graph, is_grads_batched)
    targets = _targets(leaves)
    found = _walk(edges, cts, targets, retain_graph, create_graph, batched=is_grads_batched)
    grads = [as_tensor(found[edge]) for edge in targets]
    if materialize_grads:
        return tuple(_zeros(x) if g is None else g for g, x in zip(grads, leaves, strict=True))
    if not allow_unused and any(g is None for g in grads):
        raise RuntimeError(
            f"The differentiated Tensor at index {grads.index(None)} appears to not have been used in the graph. Set "
            "allow_unused=True if this is the desired behavior."
        )
    return tuple(grads)


def _zeros(x: Differentiable) -> Tensor:
    like = x if isinstance(x, Tensor) else x.node._input_metadata[x.output_nr]
    return Tensor(jnp.zeros(like.shape, like.dtype))


def _walk(
    edges: Sequence[Edge],
    cts: Sequence[Any],
    targets: Sequence[Edge] | None,
    retain: bool | None,
    create_graph: bool,
    accumulating: bool = False,
    batched: bool = False,
) -> dict[Edge, Any]:
    keep = create_graph if retain is None else retain
    on_tensors = _on_tensors(create_graph)
    for watcher in mode.watchers:
        watcher.walk_began(edges, cts)
    before = mode.grad
    mode.set(grad=create_graph)  # for hooks, and the code of users' own Functions
    try:
        if mode.compile_at and not on_tensors and not batched:
            found = compiled.walk(edges, cts, targets, keep, False, accumulating)
        else:
            found = backward_pass(edges, cts, targets, keep, on_tensors, accumulating, batched)
    finally:
        mode.set(grad=before)
    if (targets is None or accumulating) and not create_graph:
        walks.append(-next_order())
    for watcher in mode.watchers:
        watcher.walk_ended()
    return found


def _on_tensors(create_graph: bool) -> bool:
    return create_graph or any(watcher.pulls_on_tensors for watcher in mode.watchers)


def _tuple(tensors: Tensors) -> tuple[Differentiable, ...]:
    return (tensors,) if isinstance(tensors, (Tensor, GradientEdge)) else tuple(tensors)


def _edge(x: Differentiable) -> Edge | None:
    return (x.node, x.output_nr) if isinstance(x, GradientEdge) else x._edge  # pyright: ignore[reportReturnType]


def _targets(inputs: Sequence[Differentiable]) -> list[Edge]:
    edges = [edge for edge in map(_edge, inputs) if edge is not None]
    if len(edges) < len(inputs):
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    return edges


def _roots(
    outputs: Tensors, cotangents: Cotangents, create_graph: bool, batched: bool = False
) -> tuple[list[Edge], list[Any]]:
    """The edges to start from, and their cotangents: arrays, or Tensors to be recorded on."""
    outs = _tuple(outputs)
    given = (cotangents,) if cotangents is None or isinstance(cotangents, Tensor) else tuple(cotangents)
    if cotangents is None:
        given = (None,) * len(outs)
    if len(given) != len(outs):
        raise RuntimeError(f"got {len(outs)} tensors and {len(given)} gradients")
    edges, cts = [], []
    for i, (out, ct) in enumerate(zip(outs, given, strict=True)):
        if batched and isinstance(out, GradientEdge):
            raise RuntimeError("Batched grads are not supported with GradientEdge")
        if not isinstance(out, (Tensor, GradientEdge)):
            raise TypeError(f"element {i} of tensors is a {type(out).__name__}, not a Tensor")
        edge = _edge(out)
        if edge is None:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        edges.append(edge)
        like = out if isinstance(out, Tensor) else edge[0]._input_metadata[edge[1]]
        cts.append(_cotangent(like, ct, i, batched))
    sizes = {ct.shape[0] for ct in cts} if batched else set()
    if len(sizes) > 1:
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{[ct.shape[0] for ct in cts]} for the mapped dimension"
        )
    return edges, cts if _on_tensors(create_graph) else [ct._data for ct in cts]


def _converted(x: Tensor, dtype: Any) -> Tensor:
    return apply(jnp.astype, x, dtype)


@functools.cache
def _ones(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The cotangent to start from; there are few shapes of one element, and making an array costs more than an op."""
    if math.prod(shape) != 1:
        raise RuntimeError("grad can be implicitly created only for scalar outputs")
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise RuntimeError(f"grad can be implicitly created only for real scalar outputs but got {dtype}")
    with jax.ensure_compile_time_eval():
        return jnp.ones(shape, dtype)


def _is_complex(x: Tensor | InputMetadata) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)


def _cotangent(out: Tensor | InputMetadata, ct: Tensor | None, i: int, batched: bool) -> Tensor:
    if ct is None:
        return make_tensor(_ones(out.shape, out.dtype), None)
    if not isinstance(ct, Tensor):
        raise TypeError(f"gradients can be either Tensors or None, but got {type(ct).__name__}")
    if batched and not ct.ndim:
        raise ValueError(
            f"is_grads_batched=True: grad_output[{i}] has no dimension to be the batch; got in_dim=0 for some input, "
            "but that input is a Tensor of dimensionality 0"
        )
    if batched and ct.shape[1:] != out.shape:
        raise RuntimeError(
            "If `is_grads_batched=True`, we interpret the first dimension of each grad_output as the batch dimension. "
            "The sizes of the remaining dimensions are expected to match the shape of corresponding output, but a "
            f"mismatch was detected: grad_output[{i}] has a shape of {tuple(ct.shape)} and output[{i}] has a shape of "
            f"{tuple(out.shape)}. If you only want some tensors in `grad_output` to be considered batched, consider "
            "using vmap."
        )
    if not batched and ct.shape != out.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {ct.shape!r} and output[{i}] has a shape of "
            f"{out.shape!r}."
        )
    if _is_complex(ct) != _is_complex(out):
        raise RuntimeError(
            "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
            f"grad_output[{i}] has a dtype of {ct.dtype} and output[{i}] has a dtype of {out.dtype}."
        )
    return ct if ct.dtype == out.dtype else _converted(ct, out.dtype)
