"""How a Tensor is printed: as PyTorch prints it.

What flows in: a Tensor. What flows out: its ``repr``. Read :func:`text`; how many digits a number has is decided for
the whole Tensor at once, in :func:`_number_format`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.core import Tracer

from twograd.tape.dtypes import default_complex, default_float, narrowed

if TYPE_CHECKING:
    from twograd.tape.tensor import Tensor


class _Options:
    """PyTorch's own defaults."""

    precision = 4
    threshold = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: int | float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How Tensors are printed: digits after the point, how many elements before only ``edgeitems`` at each end are
    shown, characters in a line; ``profile`` is "default", "short" or "full"."""
    if profile is not None:
        options.precision, options.threshold, options.edgeitems, options.linewidth = {
            "default": (4, 1000, 3, 80),
            "short": (2, 1000, 2, 80),
            "full": (4, math.inf, 3, 80),
        }[profile]
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode


def text(tensor: "Tensor") -> str:
    """``tensor([1.0000, 2.5000], grad_fn=<MulBackward0>)``."""
    data = tensor._data
    notes = []
    if isinstance(data, Tracer):
        body = str(data)
    else:
        array = np.asarray(data)
        if array.dtype.kind == "V":  # bfloat16 and float8, which NumPy does not know how to print
            array = array.astype(np.float32)
        body = _body(array) if array.size else "[]"
        if not array.size and array.ndim != 1:
            notes.append(f"size={tuple(array.shape)}")
    if tensor.dtype not in (default_float(), default_complex(), narrowed(np.int64), np.bool_) or (
        not data.size and tensor.dtype != default_float()
    ):
        notes.append(f"dtype=torch.{tensor.dtype}")
    if not isinstance(data, Tracer) and (where := str(tensor.device)) != "cpu":
        notes.append(f"device='{where}'")
    try:
        node = tensor.grad_fn
        name = node and node.name().rpartition("::")[2]
    except RuntimeError:  # a view whose history is refused
        name = "Invalid"
    if name:
        notes.append(f"grad_fn=<{name}>")
    elif tensor.requires_grad:
        notes.append("requires_grad=True")
    return f"tensor({', '.join([body, *notes])})"


def _body(array: np.ndarray) -> str:
    summarize = array.size > options.threshold
    shown = _edges(array) if summarize else array
    if array.dtype.kind == "c":
        real, imaginary = _number_format(np.real(shown)), _number_format(np.imag(shown))

        def write(value: Any, /) -> str:
            part = imaginary(value.imag).strip()
            return f"{real(value.real)}{'' if part.startswith('-') else '+'}{part}j"

        width = max((len(write(v)) for v in shown.ravel()), default=0)
    else:
        write = _number_format(shown)
        width = max((len(write(v)) for v in shown.ravel()), default=0)
    return _nested(array, len("tensor("), write, width, summarize)


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that are shown of a large array."""
    n = options.edgeitems
    for axis in range(array.ndim):
        if array.shape[axis] > 2 * n:
            array = np.take(array, [*range(n), *range(array.shape[axis] - n, array.shape[axis])], axis)
    return array


def _number_format(array: np.ndarray) -> Callable[[Any], str]:
    """What writes an element, all of them equally wide."""
    digits = options.precision
    if array.dtype.kind != "f":
        width = max((len(str(v)) for v in array.ravel()), default=0)
        return lambda value: str(value).rjust(width)
    finite = np.abs(array[np.isfinite(array) & (array != 0)]).astype(np.float64)
    largest, least = (finite.max(), finite.min()) if finite.size else (0.0, 1.0)
    whole = bool((finite == np.ceil(finite)).all())
    scientific = largest / least > 1000.0 or largest > 1e8 or (not whole and least < 1e-4)
    if options.sci_mode is not None:
        scientific = options.sci_mode

    def plain(value: Any) -> str:
        if scientific:
            return f"{value:.{digits}e}"
        if whole:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{digits}f}"

    width = max((len(plain(v)) for v in array.ravel() if np.isfinite(v) and v != 0), default=1)
    return lambda value: plain(value).rjust(width)


def _nested(array: np.ndarray, indent: int, write: Callable[[Any], str], width: int, summarize: bool) -> str:
    if not array.ndim:
        return write(array[()]).strip()
    n = options.edgeitems
    cut = summarize and len(array) > 2 * n
    if array.ndim == 1:
        per_line = max(1, (options.linewidth - indent) // max(1, width + 2))
        if cut:
            words = [*map(write, array[:n]), " ...", *map(write, array[-n:])]
        else:
            words = list(map(write, array))
        lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    rows = [*array[:n], None, *array[-n:]] if cut else list(array)
    parts = ["..." if row is None else _nested(row, indent + 1, write, width, summarize) for row in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"
