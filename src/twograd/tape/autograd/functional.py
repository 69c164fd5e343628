"""Derivatives of functions of Tensors, with the names, arguments and error texts of ``torch.autograd.functional``.

What flows in: a function of Tensors and the Tensors to take its derivative at. What flows out: Jacobians, Hessians, and
products of them with vectors. Read :func:`vjp`; each of the others is a few calls of :func:`twograd.tape.autograd.grad`
more. Forward products are found in reverse, as PyTorch finds them: what is pulled back is linear in its cotangent, and
the pullback of that is the product with the Jacobian itself.

Wherever one Tensor may be given or returned, so may a tuple of Tensors; the results are nested accordingly. What is
returned has a history only with ``create_graph``. Where an output does not depend on an input the result is zero, or,
with ``strict``, a RuntimeError.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.apply import apply
from twograd.tape.autograd.forward_ad import dual_level, make_dual, unpack_dual
from twograd.tape.gradients import grad
from twograd.tape.modes import enable_grad
from twograd.tape.tensor import Tensor
from twograd.tape.views import view

Function = Callable[..., Any]
Tensors = Tensor | tuple[Tensor, ...]
STRATEGIES = ("forward-mode", "reverse-mode")


def vjp(
    func: Function, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(outputs, v @ J)``: ``v`` has the shape of the outputs, and may be left out where these are one number."""
    with enable_grad():
        xs, several = _variables(inputs, "inputs", "vjp", create_graph)
        ys, several_out = _outputs(func, xs, "vjp", strict)
        if v is None and (len(ys) != 1 or ys[0]._data.size != 1):
            raise RuntimeError(
                "The vector v can only be None if the user-provided function returns a single Tensor with a single "
                "element."
            )
        vs = _vector(v, ys, several_out, "vjp", create_graph)
    found = _filled(_grad(ys, xs, vs, create_graph), xs, strict, create_graph, "back")
    return _returned(ys, several_out, create_graph), _returned(found, several, create_graph)


def jvp(
    func: Function, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(outputs, J @ v)``: ``v`` has the shape of the inputs, and may be left out where these are one number."""
    with enable_grad():
        xs, _, vs = _inputs_and_vector(inputs, v, "jvp", create_graph)
        ys, several_out = _outputs(func, xs, "jvp", strict)
        cts = tuple(_zeros(y, requires_grad=True) for y in ys)  # their value does not matter: what follows is linear
        pulled = _grad(ys, xs, cts, create_graph=True)
        _check_requires_grad(pulled, "grad_inputs", strict)
    found = _filled(_grad(pulled, cts, vs, create_graph), ys, strict, create_graph, "back_trick")
    return _returned(ys, several_out, create_graph), _returned(found, several_out, create_graph)


def vhp(
    func: Function, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(output, v @ H)`` of a function that returns one number; ``v`` has the shape of the inputs."""
    with enable_grad():
        xs, several, vs = _inputs_and_vector(inputs, v, "vhp", create_graph)
        ys, gradient = _output_and_gradient(func, xs, "vhp", strict)
    found = _filled(_grad(gradient, xs, vs, create_graph), xs, strict, create_graph, "double_back")
    return _returned(ys, False, create_graph), _returned(found, several, create_graph)


def hvp(
    func: Function, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``(output, H @ v)`` of a function that returns one number. :func:`vhp` is the same, and faster, where the second
    derivatives are continuous."""
    with enable_grad():
        xs, several, vs = _inputs_and_vector(inputs, v, "hvp", create_graph)
        ys, gradient = _output_and_gradient(func, xs, "hvp", strict)
        cts = tuple(_zeros(x, requires_grad=True) for x in xs)
        pulled = _grad(gradient, xs, cts, create_graph=True)
        _check_requires_grad(gradient, "hessian", strict)
    found = _filled(_grad(pulled, cts, vs, create_graph), xs, strict, create_graph, "double_back_trick")
    return _returned(ys, False, create_graph), _returned(found, several, create_graph)


def jacobian(
    func: Function,
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian, of shape ``(*output.shape, *input.shape)``, for each output and, within, each input.

    In reverse it takes a walk back per element of the output, or one for all of them with ``vectorize``. In
    ``"forward-mode"``, which needs ``vectorize``, one pass forward with a tangent for each element of the input.
    """
    if strategy not in STRATEGIES:
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your function has more outputs '
            'than inputs, "forward-mode" tends to be more performant. Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode":
        if create_graph:
            raise NotImplementedError(
                'torch.autograd.functional.jacobian: `create_graph=True` and `strategy="forward-mode"` are not '
                "supported together (yet). Please either set `create_graph=False` or "
                '`strategy="reverse-mode"`.'
            )
        return _forward_jacobian(func, inputs, strict, vectorize)
    with enable_grad():
        xs, several = _variables(inputs, "inputs", "jacobian", create_graph)
        ys, several_out = _outputs(func, xs, "jacobian", strict)
        if vectorize and strict:
            raise RuntimeError(
                "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together. "
                "Please either set `strict=False` or `vectorize=False`."
            )
        rows_of = _all_rows if vectorize else _each_row
        found = tuple(rows_of(y, xs, i, create_graph, strict) for i, y in enumerate(ys))
    return _returned(found, (several_out, several), create_graph)


def hessian(
    func: Function,
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function that returns one number: the Jacobian of its gradient, which is found in reverse."""
    several, inputs = _as_tuple(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in STRATEGIES:
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')

    def of_one_number(*xs: Tensor) -> Tensor:
        y = _single(func(*xs), "hessian", strict)
        return apply(jnp.ravel, y)[0]

    def gradient(*xs: Tensor) -> tuple[Tensor, ...]:
        if outer_jacobian_strategy == "forward-mode":
            xs = tuple(x.requires_grad_() for x in xs)
        found = jacobian(of_one_number, xs, create_graph=True)
        _check_requires_grad(found, "jacobian", strict)
        return found

    found = jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)
    return _unpacked(found, (several, several))


# --- Jacobians, by rows and by columns --------------------------------------------------------------------------------


def _each_row(y: Tensor, xs: tuple[Tensor, ...], i: int, create_graph: bool, strict: bool) -> tuple[Tensor, ...]:
    rows: list[list[Tensor]] = [[] for _ in xs]
    for ct in _basis(y):
        for j, g in enumerate(_grad((y,), xs, (Tensor(ct),), create_graph, retain_graph=True)):
            if strict and g is None:
                raise RuntimeError(
                    f"Output {i} of the user-provided function is independent of input {j}. This is not allowed in "
                    "strict mode."
                )
            if strict and create_graph and g is not None and not g.requires_grad:
                raise RuntimeError(
                    f"The jacobian of the user-provided function is independent of input {i}. This is not allowed in "
                    "strict mode when create_graph=True."
                )
            rows[j].append(_zeros(xs[j]) if g is None else g)
    return tuple(
        apply(_stacked(y.shape), row) if row else Tensor(jnp.zeros((*y.shape, *x.shape), x.dtype))
        for row, x in zip(rows, xs, strict=True)
    )


def _all_rows(y: Tensor, xs: tuple[Tensor, ...], i: int, create_graph: bool, strict: bool) -> tuple[Tensor, ...]:
    found = _grad((y,), xs, (Tensor(_basis(y)),), create_graph, retain_graph=True, is_grads_batched=True)
    return tuple(
        Tensor(jnp.zeros((*y.shape, *x.shape), x.dtype)) if g is None else apply(_shaped((*y.shape, *x.shape)), g)
        for g, x in zip(found, xs, strict=True)
    )


@functools.lru_cache(maxsize=1024)
def _shaped(shape: tuple[int, ...]) -> Function:
    return lambda x: x.reshape(shape)


def _forward_jacobian(func: Function, inputs: Tensors, strict: bool, vectorize: bool) -> Any:
    if strict:
        raise RuntimeError(
            'torch.autograd.functional.jacobian: `strict=True` and `strategy="forward-mode"` are not supported '
            'together (yet). Please either set `strict=False` or `strategy="reverse-mode"`.'
        )
    if not vectorize:
        raise NotImplementedError(
            "Computing Jacobian using forward-AD or forward-over-reverse Hessian is only implemented for "
            "`vectorize=True`."
        )
    several, xs = _as_tuple(inputs, "inputs", "jacobian")
    several_out = False

    def columns(direction: jax.Array) -> list[Any]:
        nonlocal several_out
        with dual_level():
            duals = [make_dual(x, Tensor(t.astype(x.dtype))) for x, t in zip(xs, _split(direction, xs), strict=True)]
            several_out, ys = _as_tuple(func(*duals), "outputs of the user-provided function", "jacobian")
            pairs = [unpack_dual(y) for y in ys]
        return [jnp.zeros_like(primal._data) if t is None else t._data for primal, t in pairs]

    directions = jnp.eye(sum(x._data.size for x in xs), dtype=jnp.result_type(*(x.dtype for x in xs)))
    by_output = jax.vmap(columns, out_axes=-1)(directions)
    return _unpacked(tuple(tuple(map(Tensor, _split(found, xs))) for found in by_output), (several_out, several))


def _split(flat: jax.Array, like: Sequence[Tensor]) -> list[jax.Array]:
    """The parts of the last axis that belong to each of some Tensors, in their shapes."""
    ends = np.cumsum([x._data.size for x in like])
    parts = jnp.split(flat, ends[:-1], axis=-1)
    return [part.reshape(*flat.shape[:-1], *x.shape) for part, x in zip(parts, like, strict=True)]


def _basis(x: Tensor) -> jax.Array:
    return jnp.eye(x._data.size, dtype=x.dtype).reshape(x._data.size, *x.shape)


@functools.lru_cache(maxsize=1024)
def _stacked(shape: tuple[int, ...]) -> Function:
    def stack(rows: Sequence[Any]) -> Any:
        return jnp.stack(rows).reshape(*shape, *rows[0].shape)

    return stack


# --- arguments and results --------------------------------------------------------------------------------------------


def _as_tuple(given: Any, what: str, caller: str) -> tuple[bool, tuple[Tensor, ...]]:
    several = isinstance(given, tuple)
    tensors = given if several else (given,)
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            which = f"value at index {i}" if several else f"given {what}"
            raise TypeError(
                f"The {what} given to {caller} must be either a Tensor or a tuple of Tensors but the {which} has type "
                f"{type(x)}."
            )
    return several, tensors


def _variables(
    given: Any, what: str, caller: str, create_graph: bool, requires_grad: bool = True
) -> tuple[tuple[Tensor, ...], bool]:
    """Tensors of their own, so that what ``func`` closes over counts as a constant; and whether there was a tuple."""
    several, tensors = _as_tuple(given, what, caller)
    return tuple(
        view(x, _identity, in_row=True)
        if create_graph and x.requires_grad
        else x.detach().requires_grad_(requires_grad)
        for x in tensors
    ), several


def _identity(x: Any) -> Any:
    return x


def _inputs_and_vector(
    inputs: Any, v: Any, caller: str, create_graph: bool
) -> tuple[tuple[Tensor, ...], bool, tuple[Tensor, ...] | None]:
    """For a product with a vector of the inputs' shapes."""
    xs, several = _variables(inputs, "inputs", caller, create_graph)
    if v is None and (len(xs) != 1 or xs[0]._data.size != 1):
        raise RuntimeError(
            "The vector v can only be None if the input to the user-provided function is a single Tensor with a single "
            "element."
        )
    return xs, several, _vector(v, xs, several, caller, create_graph)


def _vector(
    v: Any, like: tuple[Tensor, ...], several: bool, caller: str, create_graph: bool
) -> tuple[Tensor, ...] | None:
    if v is None:
        return None
    vs, _ = _variables(v, "v", caller, create_graph, requires_grad=False)
    if len(vs) != len(like):
        raise RuntimeError(
            f"v is a tuple of invalid length: should be {len(like)} but got {len(vs)}."
            if several
            else "The given v should contain a single Tensor."
        )
    for i, (given, other) in enumerate(zip(vs, like, strict=True)):
        if given.shape != other.shape:
            raise RuntimeError(
                f"{f'Entry {i} in ' if several else ''}v has invalid size: should be torch.Size({list(other.shape)}) "
                f"but got torch.Size({list(given.shape)})."
            )
    return vs


def _outputs(func: Function, xs: tuple[Tensor, ...], caller: str, strict: bool) -> tuple[tuple[Tensor, ...], bool]:
    several, ys = _as_tuple(func(*xs), "outputs of the user-provided function", caller)
    _check_requires_grad(ys, "outputs", strict)
    return ys, several


def _single(y: Any, caller: str, strict: bool) -> Tensor:
    several, ys = _as_tuple(y, "outputs of the user-provided function", caller)
    _check_requires_grad(ys, "outputs", strict)
    if several:
        raise RuntimeError(f"The function given to {caller} should return a single Tensor")
    if ys[0]._data.size != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {caller} should contain a single element")
    return ys[0]


def _output_and_gradient(
    func: Function, xs: tuple[Tensor, ...], caller: str, strict: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    ys = (_single(func(*xs), caller, strict),)
    gradient = _grad(ys, xs, None, create_graph=True)
    _check_requires_grad(gradient, "jacobian", strict)
    return ys, gradient


def _grad(
    ys: Sequence[Tensor | None],
    xs: tuple[Tensor, ...],
    cts: tuple[Tensor, ...] | None,
    create_graph: bool,
    **options: Any,
) -> tuple[Tensor | None, ...]:
    """The gradients of those of ``ys`` that have a history."""
    pairs = [(y, ct) for y, ct in zip(ys, cts or (None,) * len(ys), strict=True) if y is not None and y.requires_grad]
    if not pairs:
        return (None,) * len(xs)
    outputs, cotangents = zip(*pairs, strict=True)
    return grad(outputs, xs, cotangents, create_graph=create_graph, allow_unused=True, **options)


def _zeros(x: Tensor, requires_grad: bool = False) -> Tensor:
    return Tensor(jnp.zeros_like(x._data), requires_grad)


def _returned(results: Any, several: Any, create_graph: bool) -> Any:
    detached = results if create_graph else jax.tree.map(Tensor.detach, results)
    return _unpacked(detached, several)


def _unpacked(results: Any, several: bool | tuple[bool, bool]) -> Any:
    """``results`` without the tuples that the caller did not use: one level of them, or two."""
    if isinstance(several, tuple):
        results = results if several[1] else tuple(row[0] for row in results)
        several = several[0]
    return results if several else results[0]


# --- what strict mode refuses -----------------------------------------------------------------------------------------

INDEPENDENT = {
    "outputs": "Output {i} of the user-provided function does not require gradients. The outputs must be computed in a "
    "differentiable manner from the input when running in strict mode.",
    "grad_inputs": "The gradient with respect to input {i} is independent of the inputs of the user-provided function. "
    "This is not allowed in strict mode.",
    "jacobian": "While computing the hessian, found that the jacobian of the user-provided function with respect to "
    "input {i} is independent of the input. This is not allowed in strict mode. You should ensure that your function "
    "is twice differentiable and that the jacobian depends on the inputs (this would be violated by a linear function "
    "for example).",
    "hessian": "The hessian of the user-provided function with respect to input {i} is independent of the input. This "
    "is not allowed in strict mode. You should ensure that your function is thrice differentiable and that the hessian "
    "depends on the inputs.",
    "back": "The output of the user-provided function is independent of input {i}. This is not allowed in strict mode.",
    "back_trick": "The gradient with respect to the input is independent of entry {i} in the grad_outputs when using "
    "the double backward trick to compute forward mode gradients. This is not allowed in strict mode.",
    "double_back": "The jacobian of the user-provided function is independent of input {i}. This is not allowed in "
    "strict mode.",
    "double_back_trick": "The hessian of the user-provided function is independent of entry {i} in the grad_jacobian. "
    "This is not allowed in strict mode as it prevents from using the double backward trick to replace forward mode "
    "AD.",
}


def _check_requires_grad(tensors: Sequence[Tensor | None], kind: str, strict: bool) -> None:
    if not strict:
        return
    for i, x in enumerate(tensors):
        if x is None or not x.requires_grad:
            raise RuntimeError(INDEPENDENT["back" if x is None else kind].format(i=i))


def _filled(
    grads: Sequence[Tensor | None], like: tuple[Tensor, ...], strict: bool, create_graph: bool, stage: str
) -> tuple[Tensor, ...]:
    """The gradients with zeros for those that are None; in strict mode these, and constants, are errors."""
    if strict:
        for i, g in enumerate(grads):
            if g is None:
                raise RuntimeError(INDEPENDENT[stage].format(i=i))
            if create_graph and not g.requires_grad:
                raise RuntimeError(
                    f"The {'hessian' if 'double' in stage else 'jacobian'} of the user-provided function is "
                    f"independent of input {i}. This is not allowed in strict mode when create_graph=True."
                )
    return tuple(_zeros(x) if g is None else g for g, x in zip(grads, like, strict=True))
