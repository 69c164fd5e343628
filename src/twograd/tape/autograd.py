"""``backward`` and ``grad`` on Tensors, with the semantics of ``torch.autograd``.

One difference: the gradient of a real function of a complex Tensor is, as in JAX, df/dx - i df/dy; PyTorch's is its
conjugate.
"""

import contextlib
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twograd.tape.apply import apply
from twograd.tape.backward import added, as_tensor, backward_pass
from twograd.tape.modes import enable_grad
from twograd.tape.node import AccumulateGrad, Edge
from twograd.tape.tensor import Tensor

Tensors = Tensor | Sequence[Tensor]
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
        x.retain_grad()
    targets = _targets(leaves)
    found = _walk(edges, cts, targets, retain_graph, create_graph)
    for node, _ in dict.fromkeys(targets):
        if isinstance(node, AccumulateGrad):
            node.grad = added(node.grad, found[(node, 0)])


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Cotangents = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of the ``outputs`` with respect to the ``inputs``; no ``.grad`` is touched.

    Only nodes that lead to an input are walked. An input that the outputs do not depend on is an error, or None with
    ``allow_unused``, or zeros with ``materialize_grads``.
    """
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False."
        )
    leaves = _tuple(inputs)
    if not leaves:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    edges, cts = _roots(outputs, grad_outputs, create_graph)
    targets = _targets(leaves)
    found = _walk(edges, cts, targets, retain_graph, create_graph)
    grads = [as_tensor(found[edge]) for edge in targets]
    if materialize_grads:
        return tuple(Tensor(jnp.zeros_like(x._data)) if g is None else g for g, x in zip(grads, leaves, strict=True))
    if not allow_unused and any(g is None for g in grads):
        raise RuntimeError(
            f"The differentiated Tensor at index {grads.index(None)} appears to not have been used in the graph. Set "
            "allow_unused=True if this is the desired behavior."
        )
    return tuple(grads)


def _walk(
    edges: Sequence[Edge], cts: Sequence[Any], targets: Sequence[Edge] | None, retain: bool | None, create_graph: bool
) -> dict[Edge, Any]:
    keep = create_graph if retain is None else retain
    with enable_grad() if create_graph else contextlib.nullcontext():
        return backward_pass(edges, cts, targets, keep, create_graph)


def _tuple(tensors: Tensors) -> tuple[Tensor, ...]:
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def _targets(inputs: Sequence[Tensor]) -> list[Edge]:
    for x in inputs:
        if x._edge is None:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    return [x._edge for x in inputs if x._edge is not None]


def _roots(outputs: Tensors, cotangents: Cotangents, create_graph: bool) -> tuple[list[Edge], list[Any]]:
    """The edges to start from, and their cotangents: arrays, or Tensors to be recorded on."""
    outs = _tuple(outputs)
    given = (cotangents,) if cotangents is None or isinstance(cotangents, Tensor) else tuple(cotangents)
    if cotangents is None:
        given = (None,) * len(outs)
    if len(given) != len(outs):
        raise RuntimeError(f"got {len(outs)} tensors and {len(given)} gradients")
    edges, cts = [], []
    for i, (out, ct) in enumerate(zip(outs, given, strict=True)):
        if not isinstance(out, Tensor):
            raise TypeError(f"element {i} of tensors is a {type(out).__name__}, not a Tensor")
        if out._edge is None:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        edges.append(out._edge)
        cts.append(_cotangent(out, ct, i, create_graph))
    return edges, cts


def _converted(x: Tensor, dtype: Any) -> Tensor:
    return apply(jnp.astype, x, dtype)


@functools.cache
def _ones(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The cotangent to start from; there are few shapes of one element, and making an array costs more than an op."""
    with jax.ensure_compile_time_eval():
        return jnp.ones(shape, dtype)


def _is_complex(x: Tensor) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)


def _cotangent(out: Tensor, ct: Tensor | None, i: int, create_graph: bool) -> Any:
    if ct is None:
        if out._data.size != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        if _is_complex(out):
            raise RuntimeError(f"grad can be implicitly created only for real scalar outputs but got {out.dtype}")
        ct = Tensor(_ones(out.shape, out.dtype))
    if not isinstance(ct, Tensor):
        raise TypeError(f"gradients can be either Tensors or None, but got {type(ct).__name__}")
    if ct.shape != out.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {ct.shape!r} and output[{i}] has a shape of "
            f"{out.shape!r}."
        )
    if _is_complex(ct) != _is_complex(out):
        raise RuntimeError(
            "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
            f"grad_output[{i}] has a dtype of {ct.dtype} and output[{i}] has a dtype of {out.dtype}."
        )
    if ct.dtype != out.dtype:
        ct = _converted(ct, out.dtype)
    return ct if create_graph else ct._data
