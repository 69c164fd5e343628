"""Gradients checked against finite differences, with the arguments and error texts of ``torch.autograd.gradcheck``.

What flows in: a function of Tensors and inputs that require gradients. What flows out: True, or a GradcheckError that
shows both Jacobians. Read :func:`gradcheck`, then :func:`_slow`: a Jacobian by central differences, column by column,
and one by the walk back, row by row, are compared. :func:`_fast` compares ``v J u`` for one random ``u`` and ``v``.

The differences need double precision: inputs of float64 or complex128, which JAX has only after
``jax.config.update("jax_enable_x64", True)``.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.apply import apply
from twograd.tape.autograd.forward_ad import dual_level, make_dual, unpack_dual
from twograd.tape.backward import backward_pass
from twograd.tape.gradients import grad
from twograd.tape.tensor import Tensor
from twograd.tape.views import strides

Function = Callable[..., Any]
Tensors = Sequence[Any]

BATCHED = "gradcheck or gradgradcheck failed while testing batched gradient computation."
BATCHED_FORWARD = "gradcheck failed while testing batched gradient computation with forward-mode AD."
SLOW = """
The above quantities relating the numerical and analytical jacobians are computed \nin fast mode. See: \
https://github.com/pytorch/pytorch/issues/53876 for more background \nabout fast mode. Below, we recompute numerical \
and analytical jacobians in slow mode:

Numerical:
 {numerical}
Analytical:
{analytical}

The max per-element difference (slow mode) is: {difference}.
"""
SLOW_IS_CLOSE = """
Fast gradcheck failed but element-wise differences are small. This means that the
test might've passed in slow_mode!
"""


class GradcheckError(RuntimeError):
    """A gradient is not what finite differences say; raised by :func:`gradcheck` and :func:`gradgradcheck`."""


@dataclass(frozen=True)
class _Options:
    eps: float
    atol: float
    rtol: float
    nondet_tol: float
    check_grad_dtypes: bool
    kink: float
    kink_range: float
    forward: bool = False
    complex_indices: tuple[int, ...] = ()
    part: str = "real"

    def kept(self, x: Tensor) -> np.ndarray:
        """Which elements of an input are compared: those that are not near the kink."""
        size = np.abs(_array(x)).ravel()
        return (self.kink - self.kink_range > size) | (size > self.kink + self.kink_range)


def gradcheck(
    func: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
    kink: float = 0.0,
    kink_range: float = -1.0,
) -> bool:
    """Whether the gradients of ``func(*inputs)`` agree with central differences of step ``eps``, for those ``inputs``
    that require gradients: ``|a - n| <= atol + rtol * |n|`` for each element of the Jacobian.

    A complex output is checked as two real ones; for a complex input the derivative is df/dx - i df/dy. Besides: a walk
    back done twice gives the same (up to ``nondet_tol``); cotangents of zero, and with ``check_undefined_grad`` none at
    all, give zero. ``check_batched_grad`` compares ``is_grads_batched`` with a call for each; ``check_forward_ad``
    checks dual Tensors. ``fast_mode`` compares one number per pair of output and input, and takes as many calls as
    there are inputs. ``masked`` lets a cotangent of zero give what is merely close to zero.

    Where a derivative jumps, a difference across the jump is no derivative. As in Caffe's GradientChecker, elements of
    an input whose absolute value lies within ``kink_range`` of ``kink`` are not compared: ``kink_range=0.01`` for ReLU.
    A negative range, the default, leaves none out. Choose it larger than ``eps``.

    Raises GradcheckError where something differs, or returns False if not ``raise_exception``; ValueError if no input
    requires a gradient.
    """
    if not (check_forward_ad or check_backward_ad):
        raise AssertionError("Expected at least one of check_forward_ad or check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    options = _Options(eps, atol, rtol, nondet_tol, check_grad_dtypes, kink, kink_range)
    compare = _fast if fast_mode else _slow
    tensors = _as_tuple(inputs)
    try:
        _check_inputs(tensors)
        func_out = func(*tensors)
        outputs = _differentiable(func_out)
        if check_backward_ad:
            _check_backward(compare, func, func_out, tensors, outputs, options)
        if check_forward_ad:
            _check_forward(compare, func, func_out, tensors, options, check_undefined_grad)
        if check_batched_forward_grad:
            _check_batched_forward(func, tensors)
        if check_backward_ad:
            for i, y in enumerate(outputs if check_batched_grad else ()):
                _check_batched(tensors, y, i)
            _check_zero_cotangents(outputs, tensors, bool(masked))
            if check_undefined_grad:
                _check_no_cotangents(func, tensors)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Function,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
    kink: float = 0.0,
    kink_range: float = -1.0,
) -> bool:
    """:func:`gradcheck` of the gradients of ``func``, in its inputs and in the cotangents ``grad_outputs``, which are
    random if they are not given. ``check_fwd_over_rev`` checks forward over reverse. All arrays being contiguous here,
    ``gen_non_contig_grad_outputs`` makes no difference."""
    del gen_non_contig_grad_outputs
    if not (check_fwd_over_rev or check_rev_over_rev):
        raise AssertionError("Expected at least one of check_fwd_over_rev or check_rev_over_rev to be True")
    if check_undefined_grad and not check_rev_over_rev:
        raise AssertionError("Setting check_undefined_grad=True requires check_rev_over_rev to be True")
    if check_batched_grad and not check_rev_over_rev:
        raise AssertionError("Setting check_batched_grad=True requires check_rev_over_rev to be True")
    tensors = _as_tuple(inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        cts = tuple(
            Tensor(_random(rng, y, low=-1.0).reshape(y.shape), requires_grad=True)
            for y in _differentiable(func(*tensors))
        )
    else:
        cts = _as_tuple(grad_outputs)
    wanted = [isinstance(x, Tensor) and x.requires_grad for x in (*tensors, *cts)]

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        args = tuple(x.requires_grad_() if want else x for x, want in zip(args, wanted, strict=True))
        own, own_cts = args[: len(tensors)], args[len(tensors) :]
        xs = tuple(x for x, want in zip(own, wanted, strict=False) if want)
        found = grad(_differentiable(func(*own)), xs, own_cts, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients,
        (*tensors, *cts),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
        masked=masked,
        kink=kink,
        kink_range=kink_range,
    )


def _as_tuple(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def _differentiable(func_out: Any) -> tuple[Tensor, ...]:
    return tuple(y for y in _as_tuple(func_out) if y.requires_grad)


def _wanted(tensors: Tensors) -> list[tuple[int, Tensor]]:
    return [(j, x) for j, x in enumerate(tensors) if isinstance(x, Tensor) and x.requires_grad]


def _array(x: Tensor) -> np.ndarray:
    return np.asarray(x._data)


def _is_complex(x: Any) -> bool:
    return isinstance(x, Tensor) and jnp.iscomplexobj(x._data)


def _check_inputs(tensors: Tensors) -> None:
    for j, x in _wanted(tensors):
        if x.dtype not in (np.float64, np.complex128):
            hint = "" if jax.config.jax_enable_x64 else "float64 needs jax.config.update('jax_enable_x64', True). "  # pyright: ignore
            warnings.warn(
                f"Input #{j} requires gradient and is not a double precision floating point or complex. This check "
                "will likely fail if all the inputs are not of double precision floating point or complex. " + hint,
                stacklevel=3,
            )
        if any(stride == 0 and size > 1 for stride, size in zip(strides(x), x.shape, strict=True)):
            raise RuntimeError(
                f"The {j}th input has a dimension with stride 0. gradcheck only supports inputs that are "
                "non-overlapping to be able to compute the numerical gradients correctly. You should call .contiguous "
                "on the input before passing it to gradcheck."
            )
    if not _wanted(tensors):
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True."
        )


# --- complex inputs and outputs, as pairs of real ones ----------------------------------------------------------------


def _check_backward(
    compare: Function, func: Function, func_out: Any, tensors: Tensors, outputs: Tensors, options: _Options
) -> None:
    if not any(map(_is_complex, _as_tuple(func_out))):
        compare(func, func_out, tensors, outputs, options)
        return
    indices = tuple(i for i, y in enumerate(outputs) if _is_complex(y))
    for part, take in (("imaginary", jnp.imag), ("real", jnp.real)):

        def of_part(*args: Any, take: Function = take) -> tuple[Tensor, ...]:
            return tuple(apply(take, y) if _is_complex(y) else y for y in _as_tuple(func(*args)))

        out = of_part(*tensors)
        compare(of_part, out, tensors, _differentiable(out), replace(options, complex_indices=indices, part=part))


def _check_forward(
    compare: Function, func: Function, func_out: Any, tensors: Tensors, options: _Options, undefined: bool
) -> None:
    options = replace(options, forward=True)
    indices = tuple(j for j, x in enumerate(tensors) if _is_complex(x))
    if not indices:
        compare(func, func_out, tensors, _differentiable(func_out), options)
        if undefined:
            _check_no_tangents(func, tensors)
        return
    for part, take, other in (("imaginary", jnp.imag, jnp.real), ("real", jnp.real, jnp.imag)):

        def of_part(*args: Any, other: Function = other, imaginary: bool = part == "imaginary") -> Any:
            rest = [apply(other, tensors[j]) if j in indices else None for j in range(len(args))]
            whole = [
                x if r is None else r + x * 1j if imaginary else x + r * 1j for x, r in zip(args, rest, strict=True)
            ]
            return func(*whole)

        parts = [apply(take, x) if _is_complex(x) else x for x in tensors]
        out = of_part(*parts)
        compare(of_part, out, parts, _differentiable(out), replace(options, complex_indices=indices, part=part))
        if undefined:
            _check_no_tangents(of_part, parts)


# --- Jacobians of shape (input elements, output elements) -------------------------------------------------------------


def _slow(func: Function, func_out: Any, tensors: Tensors, outputs: Tensors, options: _Options) -> None:
    func_out = _as_tuple(func_out)
    numerical = [_numerical(func, tensors, j, options) for j, _ in _wanted(tensors)]
    if not outputs:
        if any(np.any(jacobian != 0) for of_input in numerical for jacobian in of_input):
            raise GradcheckError("Numerical gradient for function expected to be zero")
        return
    kept = [options.kept(x) for _, x in _wanted(tensors)]
    numerical = [[n for y, n in zip(func_out, of_input, strict=True) if y.requires_grad] for of_input in numerical]
    analytical = _analytical(func, tensors, outputs, options)
    for i in range(len(outputs)):
        for j, keep in enumerate(kept):
            a, n = analytical[j][i], numerical[j][i]
            if not np.allclose(a[keep], n[keep], options.rtol, options.atol):
                raise GradcheckError(_mismatch(a, n, i, j, options))


def _numerical(func: Function, tensors: Tensors, j: int, options: _Options) -> list[np.ndarray]:
    """For each output the Jacobian with respect to input ``j``, by central differences."""
    x = tensors[j]
    columns = []
    for k in np.ndindex(x.shape):
        step = np.zeros(x.shape, x.dtype)
        step[k] = options.eps
        columns.append(_directional(func, tensors, j, step, step, options, f"on index {k} "))
    return [np.stack(column) for column in zip(*columns, strict=True)]


def _directional(
    func: Function, tensors: Tensors, j: int, real: Any, imaginary: Any, options: _Options, where: str = ""
) -> list[np.ndarray]:
    """The derivative of each output as input ``j`` moves along ``real``, and, if it is complex, 1j * ``imaginary``."""
    found = _difference(func, tensors, j, real, options.eps, where)
    if not _is_complex(tensors[j]):
        return found
    return [
        dx - 1j * dy
        for dx, dy in zip(found, _difference(func, tensors, j, 1j * imaginary, options.eps, where), strict=True)
    ]


def _difference(func: Function, tensors: Tensors, j: int, step: Any, eps: float, where: str) -> list[np.ndarray]:
    x = tensors[j]
    array, alias = x._data, x._alias
    middle = np.asarray(array)

    def moved_to(place: np.ndarray) -> list[np.ndarray]:
        x._data, x._alias = jnp.asarray(place.astype(x.dtype)), None  # in the Tensor itself: func may close over it
        return [_array(y) for y in _as_tuple(func(*tensors))]

    try:
        before, after = moved_to(middle - step), moved_to(middle + step)
    finally:
        x._data, x._alias = array, alias
    for a, b in zip(before, after, strict=True):
        for name, was, got in (("shape", a.shape, b.shape), ("dtype", a.dtype, b.dtype)):
            if was != got:
                raise AssertionError(
                    f"Expected `func` to return outputs with the same {name} when inputs are perturbed {where}by "
                    f"{eps}, but got: {name}s {was} and {got}."
                )
    return [
        _widened(b - a if b.dtype != bool else b ^ a).ravel() / (2 * eps) for a, b in zip(before, after, strict=True)
    ]


def _widened(x: np.ndarray) -> np.ndarray:
    return x if np.issubdtype(x.dtype, np.inexact) and x.dtype.itemsize >= 4 else x.astype(np.float32)


def _analytical(func: Function, tensors: Tensors, outputs: Tensors, options: _Options) -> list[list[np.ndarray]]:
    """For each input that requires a gradient the Jacobians of the differentiable outputs."""
    if options.forward:
        return [
            _transposed([_pushed(func, tensors, j, direction, options) for direction in _basis(x)], outputs)
            for j, x in _wanted(tensors)
        ]
    by_output = [_pulled_twice(tensors, y, _basis(y), options) for y in outputs]
    return [list(of_input) for of_input in zip(*by_output, strict=True)]


def _transposed(columns: list[list[np.ndarray]], outputs: Tensors) -> list[np.ndarray]:
    if not columns:
        return [np.zeros((0, y._data.size)) for y in outputs]
    return [np.stack([column.ravel() for column in of_output]) for of_output in zip(*columns, strict=True)]


def _basis(x: Tensor) -> Iterator[np.ndarray]:
    for k in np.ndindex(x.shape):
        direction = np.zeros(x.shape, x.dtype)
        direction[k] = 1
        yield direction


def _pushed(func: Function, tensors: Tensors, j: int, direction: Any, options: _Options) -> list[np.ndarray]:
    """The tangents of the differentiable outputs, as input ``j`` alone has one."""
    if _is_complex(tensors[j]):
        raise ValueError("Expected inputs to be non-complex for forward-mode AD.")
    found = []
    with dual_level():
        duals = [x.detach() if isinstance(x, Tensor) else x for x in tensors]
        duals[j] = make_dual(duals[j], Tensor(jnp.asarray(direction.astype(tensors[j].dtype))))
        for y, plain in zip(_as_tuple(func(*duals)), _as_tuple(func(*tensors)), strict=True):
            primal, tangent = unpack_dual(y)
            if options.check_grad_dtypes and tangent is not None and _is_complex(primal) != _is_complex(tangent):
                raise GradcheckError("Forward AD gradient has dtype mismatch.")
            if plain.requires_grad:
                found.append(np.zeros_like(_array(y)) if tangent is None else _array(tangent))
    return found


def _pulled_twice(tensors: Tensors, y: Tensor, cts: Any, options: _Options) -> list[np.ndarray]:
    """For each input the gradients of ``y`` for some cotangents, as columns; both times the same, or it is an error."""
    xs = [x for _, x in _wanted(tensors)]
    columns = []
    for ct in cts:
        given = Tensor(jnp.asarray(ct.astype(y.dtype)))
        both = [grad(y, xs, given, retain_graph=True, allow_unused=True) for _ in range(2)]
        for x, g, again in zip(xs, *both, strict=True):
            if g is not None and g.shape != x.shape:
                raise GradcheckError("Analytical gradient has incorrect size")
            if g is not None and g.dtype != x.dtype and options.check_grad_dtypes:
                raise GradcheckError("Gradient has dtype mismatch")
            if g is not None and np.any(np.abs(_array(g) - _array(again)) > options.nondet_tol):  # pyright: ignore
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times "
                    "gives different values, although analytical gradient matches numerical gradient."
                    f"The tolerance for nondeterminism was {options.nondet_tol}."
                )
        columns.append(
            [np.zeros(x.shape, x.dtype) if g is None else _array(g) for x, g in zip(xs, both[0], strict=True)]
        )
    return [
        np.stack([column[j].ravel() for column in columns], axis=1) if columns else np.zeros((x._data.size, 0), x.dtype)
        for j, x in enumerate(xs)
    ]


def _mismatch(a: Any, n: Any, i: int, j: int, options: _Options) -> str:
    concerned = (j if options.forward else i) in options.complex_indices
    element = "inputs" if options.forward else "outputs"
    prefix = f"While considering the {options.part} part of complex {element} only, " if concerned else ""
    mode = "computed with forward mode " if options.forward else ""
    return (
        f"{prefix}Jacobian {mode}mismatch for output {i} with respect to input {j},\n"
        f"numerical:{_shown(n)}\nanalytical:{_shown(a)}\n"
    )


def _shown(array: Any) -> str:
    return repr(Tensor(jnp.asarray(array)))


# --- one number per pair of output and input --------------------------------------------------------------------------


def _fast(func: Function, func_out: Any, tensors: Tensors, outputs: Tensors, options: _Options) -> None:
    """Compares ``v J u`` (of which ``J u`` is a difference, and ``v J`` a walk back), or ``J u`` in forward mode."""
    rng = np.random.default_rng(0)
    func_out = _as_tuple(func_out)
    wanted = _wanted(tensors)
    directions = []
    for _, x in wanted:
        pair = [_random(rng, x, real=True) * options.kept(x) for _ in range(2 if _is_complex(x) else 1)]
        directions.append((pair[0], pair[-1]))
    vs = [np.ones(1)] * len(outputs) if options.forward else [_random(rng, y) for y in outputs]
    numerical = []
    for (j, x), pair in zip(wanted, directions, strict=True):
        real, imaginary = (options.eps * u.reshape(x.shape) for u in pair)
        found = _directional(func, tensors, j, real, imaginary, options)
        if not outputs and any(np.any(np.abs(jvp) > options.nondet_tol) for jvp in found):
            raise GradcheckError("Numerical gradient for function expected to be zero")
        numerical.append([n for y, n in zip(func_out, found, strict=True) if y.requires_grad])
    if not outputs:
        return
    pulled = (
        []
        if options.forward
        else [_pulled_twice(tensors, y, [v.reshape(y.shape)], options) for y, v in zip(outputs, vs, strict=True)]
    )
    for j, ((index, x), (u, ui)) in enumerate(zip(wanted, directions, strict=True)):
        if options.forward:
            pushed = _pushed(func, tensors, index, u.reshape(x.shape), options)
        for i, v in enumerate(vs):
            if options.forward:
                a, n = pushed[i].ravel(), numerical[j][i]
            else:
                vj = pulled[i][j][:, 0]
                a = np.real(vj) @ u + 1j * (np.imag(vj) @ ui) if _is_complex(x) else vj @ u
                n = v @ numerical[j][i]
            size = (u.sum() + ui.sum() if _is_complex(x) else u.sum()) * (1.0 if options.forward else v.sum())
            if not np.allclose(a, n, options.rtol, options.atol * float(np.abs(size))):
                raise GradcheckError(_mismatch(a, n, i, j, options) + _slow_says(func, tensors, outputs, i, j, options))


def _slow_says(func: Function, tensors: Tensors, outputs: Tensors, i: int, j: int, options: _Options) -> str:
    differentiable = [y.requires_grad for y in _as_tuple(func(*tensors))]
    of_outputs = _numerical(func, tensors, _wanted(tensors)[j][0], options)
    n = [jacobian for jacobian, is_one in zip(of_outputs, differentiable, strict=True) if is_one][i]
    a = _analytical(func, tensors, outputs, options)[j][i]
    text = SLOW.format(numerical=_shown(n), analytical=_shown(a), difference=np.max(np.abs(n - a)))
    return text + (SLOW_IS_CLOSE.strip() if np.allclose(a, n, options.rtol, options.atol) else "")


def _random(rng: np.random.Generator, x: Tensor, real: bool = False, low: float = 0.0) -> np.ndarray:
    """A flat vector of numbers between ``low`` and 1 in the type of ``x``; of length 1 if they are not negative."""
    dtype = np.zeros(0, x.dtype).real.dtype
    vector = rng.uniform(low, 1.0, x._data.size).astype(dtype)
    if low == 0.0 and vector.size:
        vector /= np.linalg.norm(vector)
    return vector if real else vector.astype(x.dtype)


# --- what else must hold ----------------------------------------------------------------------------------------------


def _check_zero_cotangents(outputs: Tensors, tensors: Tensors, masked: bool) -> None:
    xs = [x for _, x in _wanted(tensors)]
    if not outputs:
        return
    cts = [Tensor(jnp.zeros_like(y._data)) for y in outputs]
    for g, x in zip(grad(outputs, xs, cts, retain_graph=True, allow_unused=True), xs, strict=True):
        if g is None:
            continue
        if not (np.allclose(_array(g), 0) if masked else np.all(_array(g) == 0)):
            raise GradcheckError("backward not multiplied by grad_output")
        if g.dtype != x.dtype:
            raise GradcheckError("grad is incorrect type")
        if g.shape != x.shape:
            raise GradcheckError("grad is incorrect size")


def _check_no_cotangents(func: Function, tensors: Tensors) -> None:
    """No cotangent at all, or none for one of several outputs, must do as zeros do."""
    xs = [x for _, x in _wanted(tensors)]
    count = len(_differentiable(func(*tensors)))
    missing: list[set[int]] = [set(range(count)), *({i} for i in range(count if count > 1 else 0))]
    for absent in missing:
        outputs = _differentiable(func(*tensors))
        cts = [None if i in absent else jnp.zeros_like(y._data) for i, y in enumerate(outputs)]
        edges = [x._edge for x in xs if x._edge is not None]
        try:
            found = backward_pass([y._edge for y in outputs if y._edge is not None], cts, edges)
        except RuntimeError as error:
            raise GradcheckError("Expected backward function to handle undefined output grads.") from error
        if any(g is not None and np.any(np.asarray(g) != 0) for g in found.values()):
            raise GradcheckError(
                "Expected all input grads to be undefined or zero when all output grads are undefined or zero."
            )


def _check_no_tangents(func: Function, tensors: Tensors) -> None:
    """A Tensor that is not dual must do as one whose tangent is zero."""
    rng = np.random.default_rng(0)
    tangents = {j: Tensor(jnp.asarray(_random(rng, x).reshape(x.shape))) for j, x in _wanted(tensors)}
    for j, x in _wanted(tensors):
        found = []
        with dual_level():
            for other in (Tensor(jnp.zeros_like(x._data)), None):
                given = {**tangents, j: other}
                duals = [
                    x if not isinstance(x, Tensor) or given.get(k) is None else make_dual(x.detach(), given[k])  # pyright: ignore
                    for k, x in enumerate(tensors)
                ]
                found.append([unpack_dual(y).tangent for y in _as_tuple(func(*duals))])
        for i, (zero, none) in enumerate(zip(*found, strict=True)):
            if zero is not None and none is not None and not np.allclose(_array(zero), _array(none)):
                raise GradcheckError(
                    f"Mismatch in tangent values for output with index: {i} when input: {x} has an undefined tangent "
                    f"value.  Got: {zero} but expected: {none}"
                )


def _check_batched(tensors: Tensors, y: Tensor, i: int) -> None:
    xs = [x for _, x in _wanted(tensors)]
    rng = np.random.default_rng(0)
    cts = [jnp.asarray(_random(rng, y, low=-1.0).reshape(y.shape)) for _ in range(2)]
    rows = [grad(y, xs, Tensor(ct), retain_graph=True, allow_unused=True) for ct in cts]
    try:
        found = grad(y, xs, Tensor(jnp.stack(cts)), retain_graph=True, allow_unused=True, is_grads_batched=True)
    except RuntimeError as error:
        raise GradcheckError(f"While computing batched gradients, got: {error}\n\n{BATCHED}") from error
    for j, (batch, *expected) in enumerate(zip(found, *rows, strict=True)):
        if batch is not None:
            _check_same(_array(batch), np.stack([_array(g) for g in expected]), i, j, BATCHED)  # pyright: ignore


def _check_batched_forward(func: Function, tensors: Tensors) -> None:
    rng = np.random.default_rng(0)
    for j, x in _wanted(tensors):

        def jvp(tangent: Any, j: int = j) -> list[Any]:
            with dual_level():
                duals = [x.detach() if isinstance(x, Tensor) else x for x in tensors]
                duals[j] = make_dual(duals[j], Tensor(tangent))
                pairs = [unpack_dual(y) for y in _as_tuple(func(*duals)) if y is not None]
            return [jnp.zeros_like(primal._data) if t is None else t._data for primal, t in pairs]

        tangents = jnp.stack([jnp.asarray(_random(rng, x).reshape(x.shape)) for _ in range(2)])
        rows = [jvp(tangent) for tangent in tangents]
        try:
            found = jax.vmap(jvp)(tangents)
        except RuntimeError as error:
            raise GradcheckError(f"While computing batched gradients, got: {error}\n\n{BATCHED_FORWARD}") from error
        for i, (batch, *expected) in enumerate(zip(found, *rows, strict=True)):
            _check_same(np.asarray(batch), np.stack(expected), i, j, BATCHED_FORWARD)


def _check_same(found: np.ndarray, expected: np.ndarray, i: int, j: int, text: str) -> None:
    tolerance = 1e-5 if found.dtype.itemsize >= 8 else 1e-3
    if not np.allclose(found, expected, tolerance, 1e-8):
        raise GradcheckError(
            f"For output {i} and input {j}:\n\n{text}\n\nGot:\n{_shown(found)}\n\nExpected:\n{_shown(expected)}"
        )
