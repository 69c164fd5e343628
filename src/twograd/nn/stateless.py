"""A Module as a function of its state: what the graph engine, and every transformation of JAX's, differentiates.

What flows in: a Module and arrays in the place of its parameters and buffers. What flows out: arrays. Inside, the
Module's ``forward`` runs as it is, on Tensors that record nothing.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.core import Tracer

from twograd.nn.module import Module
from twograd.tape import Tensor, no_grad
from twograd.tape.factories import drawing_from


def functional_call(
    module: Module,
    values: Mapping[str, Any],
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    rng: Any = None,
    mutable: bool = False,
) -> Any:
    """The result of ``module(*args, **kwargs)`` with ``values`` in the place of its parameters and buffers.

    ``values`` maps the paths of ``named_parameters()`` and ``named_buffers()`` to arrays, tracers or Tensors; what is
    not named keeps the Module's own value; Tensors that the Module holds under several paths are replaced under all.
    ``args`` is a tuple, or one operand. If any leaf is an array or a tracer, all operands become Tensors that record
    nothing and results are arrays: so the call can be traced, by ``graph.grad``, ``jax.jit`` and the rest::

        params = {name: p.array for name, p in net.named_parameters()}
        graph.grad(lambda params, x: jnp.mean(nn.functional_call(net, params, x) ** 2))(params, x)

    Given Tensors only, the tape records as usual. What is random draws from the key ``rng``, or, without it, from the
    thread's generator, which a traced call refuses, as its numbers would be the same at each run.

    Buffers that the call changes (batch normalisation's) are returned with ``mutable``: ``(result, buffers)``, by path.
    Without it RuntimeError says which they are, where they would be lost.
    """
    args = args if isinstance(args, tuple) else (args,)
    leaves = jax.tree.leaves((dict(values), args, kwargs), is_leaf=_is_tensor)
    as_arrays = any(isinstance(leaf, jax.Array) for leaf in leaves) or not any(map(_is_tensor, leaves))
    traced = any(isinstance(leaf, Tracer) or (_is_tensor(leaf) and isinstance(leaf.array, Tracer)) for leaf in leaves)
    if as_arrays:
        values, args, kwargs = (jax.tree.map(_to_tensor, tree, is_leaf=_is_tensor) for tree in (values, args, kwargs))
    own = dict(module.named_buffers())
    with contextlib.ExitStack() as stack:
        stack.enter_context(drawing_from(rng, traced))
        stack.enter_context(_replaced(module, values, copy_buffers=as_arrays or mutable))
        if as_arrays:
            stack.enter_context(no_grad())
        before = {path: buffer._version for path, buffer in module.named_buffers()}
        result = module(*args, **(kwargs or {}))
        buffers = dict(module.named_buffers())
        changed = [path for path, buffer in buffers.items() if buffer._version != before.get(path)]
    if as_arrays:
        result = jax.tree.map(_to_array, result, is_leaf=_is_tensor)
    if mutable:
        return result, {path: buffers[path].array if as_arrays else buffers[path] for path in own}
    if as_arrays and changed:
        raise RuntimeError(
            f"functional_call: the call changes the buffers {', '.join(changed)}, which would be lost. Give "
            "mutable=True, and take (result, buffers); or call eval() on the module first."
        )
    return result


@contextlib.contextmanager
def _replaced(module: Module, values: Mapping[str, Any], copy_buffers: bool) -> Iterator[None]:
    """The Module with other values at some paths; as it was, afterwards."""
    places: dict[str, tuple[dict[str, Any], str]] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for members in (owner._parameters, owner._buffers):
            places.update(((f"{path}.{name}" if path else name), (members, name)) for name in members)
    unknown = [path for path in values if path not in places]
    if unknown:
        raise KeyError(
            f"functional_call: {type(module).__name__} has no parameter or buffer {', '.join(map(repr, unknown))}"
        )
    new = {id(places[path][0][places[path][1]]): value for path, value in values.items()}
    saved = {path: members[name] for path, (members, name) in places.items()}
    own_buffers = {id(buffer) for buffer in module.buffers()} if copy_buffers else set()
    try:
        for path, (members, name) in places.items():
            tensor = saved[path]
            if tensor is None:
                continue
            value = new.get(id(tensor), tensor)
            if value.shape != tensor.shape:
                raise ValueError(f"functional_call: {path} has the shape {list(tensor.shape)}, not {list(value.shape)}")
            if value is tensor and id(tensor) in own_buffers:
                value = new[id(tensor)] = Tensor(tensor.array)  # a change must not reach the Module's own
            members[name] = value
        yield
    finally:
        for path, (members, name) in places.items():
            members[name] = saved[path]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _to_tensor(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach()
    return Tensor(leaf) if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else leaf


def _to_array(leaf: Any) -> Any:
    return leaf.array if isinstance(leaf, Tensor) else leaf
