"""Dtypes, promotion and devices: what PyTorch's names mean over JAX's arrays.

What flows in: ``torch.float32``, ``dtype=``, ``device=``, operands of several dtypes. What flows out: NumPy's dtypes
and JAX's devices. Read :func:`result_type`, then :func:`narrowed`.

Where this is PyTorch's behaviour, and where it is not:

- A dtype is NumPy's: ``x.dtype == torch.float32`` and ``x.dtype is torch.float32`` hold, and JAX takes it; it prints as
  ``float32`` and has no ``is_floating_point`` (``x.is_floating_point()`` has).
- JAX is 32 bits wide unless ``jax_enable_x64`` is set. Until then ``torch.int64`` is int32, silently, and
  ``torch.float64`` is float32, with a warning. Integers are int32 where PyTorch's are int64.
- The default dtype, of ``torch.tensor(1.5)``, ``torch.zeros(2)`` or ``1 / x`` of integers, is JAX's: float32, and
  float64 under ``jax_enable_x64`` until :func:`set_default_dtype` says otherwise.
- Promotion in PyTorch's operators and functions is PyTorch's: a Tensor of no dimensions, or a Python number, widens
  another only if it is of a higher category (bool, integer, float, complex). In ``twograd.numpy`` it is JAX's.
- A device is a platform of JAX's, with PyTorch's name: ``cpu``, ``cuda``, ``xla`` (a TPU).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from twograd.tape.apply import clear_caches

DTYPES = {
    "float32": "float32", "float": "float32", "float64": "float64", "double": "float64", "float16": "float16",
    "half": "float16", "bfloat16": "bfloat16", "float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2",
    "complex64": "complex64", "cfloat": "complex64", "complex128": "complex128", "cdouble": "complex128",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "int8": "int8", "int16": "int16",
    "short": "int16", "int32": "int32", "int": "int32", "int64": "int64", "long": "int64", "bool": "bool",
}  # fmt: skip
"""PyTorch's names of dtypes, and NumPy's."""

PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "xla": "tpu"}
"""PyTorch's names of kinds of devices, and JAX's."""

_default: np.dtype | None = None


# --- dtypes -----------------------------------------------------------------------------------------------------------


def narrowed(dtype: Any, stacklevel: int = 3) -> np.dtype:
    """``dtype`` (NumPy's, JAX's or Python's, or its name) as JAX keeps it just now. Warns where precision is lost."""
    if isinstance(dtype, str):
        dtype = DTYPES.get(dtype.removeprefix("torch."), dtype)
    wide = np.dtype(dtype)
    kept = jax.dtypes.canonicalize_dtype(wide)
    if kept is not wide and wide.kind in "fc" and kept != wide:
        warnings.warn(
            f"{wide} is {kept} here, as JAX computes with 32 bits by default. For {wide} say "
            'jax.config.update("jax_enable_x64", True) first.',
            UserWarning,
            stacklevel=stacklevel,
        )
    return kept


def default_float() -> np.dtype:
    """The dtype of what is made from Python floats."""
    return jax.dtypes.canonicalize_dtype(np.float64) if _default is None else _default


def default_complex() -> np.dtype:
    """The dtype of what is made from Python's complex numbers."""
    return complex_of(default_float())


def complex_of(dtype: Any) -> np.dtype:
    """The complex dtype whose parts have ``dtype``; JAX has none of less than 64 bits."""
    return np.dtype(np.complex128 if dtype == np.float64 else np.complex64)


def get_default_dtype() -> np.dtype:
    """The dtype of floating point Tensors made without one."""
    return default_float()


def set_default_dtype(dtype: Any) -> None:
    """Makes ``dtype``, a floating point one, that of Tensors made without one; None is JAX's own default again."""
    global _default  # noqa: PLW0603 # PyTorch's is global state
    if dtype is not None and not is_floating(dtype := narrowed(dtype)):
        raise TypeError(f"only floating-point types are supported as the default type, not {dtype}")
    if dtype != _default:
        _default = dtype
        clear_caches()


def is_floating(dtype: Any) -> bool:
    """Whether it is a real floating point dtype."""
    return bool(jnp.issubdtype(dtype, np.floating))


def is_complex(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, np.complexfloating))


# --- promotion --------------------------------------------------------------------------------------------------------


def result_type(*operands: Any) -> np.dtype:
    """The dtype in which PyTorch computes an elementwise op of these arrays and Python numbers.

    Arrays with dimensions decide; one without counts only if it is of a higher category, and a number (for JAX a weakly
    typed array) only if it is of a higher one than both. From PyTorch's ``ATen/native/TypeProperties.cpp``.
    """
    found: list[Any] = [None, None, None]
    for operand in operands:
        array = operand if isinstance(operand, jax.Array) else jnp.asarray(operand)
        weak = jax.typeof(array).weak_type or isinstance(operand, (bool, int, float, complex))
        rank = 0 if array.ndim else 2 if weak else 1
        dtype = np.dtype(array.dtype)
        if rank == 2:
            dtype = default_complex() if is_complex(dtype) else default_float() if is_floating(dtype) else dtype
        found[rank] = dtype if found[rank] is None else jnp.promote_types(found[rank], dtype)
    return np.dtype(_combined(found[0], _combined(found[1], found[2])))


def _combined(higher: Any, lower: Any) -> Any:
    if higher is None or lower is None:
        return lower if higher is None else higher
    if is_complex(higher):
        return higher
    if is_floating(higher):
        return complex_of(higher) if is_complex(lower) else higher
    if higher == np.bool_ or jnp.issubdtype(lower, np.inexact):
        return jnp.promote_types(higher, lower)
    return higher


def promoted(arrays: Sequence[Any]) -> Sequence[Any]:
    """Arrays for one elementwise op: as they are where JAX's own promotion does as PyTorch's, else converted."""
    first = arrays[0].dtype
    if all(a.dtype == first for a in arrays):
        return arrays
    wanted = result_type(*arrays)
    return arrays if wanted == jnp.result_type(*arrays) else [a.astype(wanted) for a in arrays]


def promote_types(type1: Any, type2: Any) -> np.dtype:
    """The smallest dtype that holds both."""
    return np.dtype(jnp.promote_types(type1, type2))


# --- devices ----------------------------------------------------------------------------------------------------------


class device:
    """A device by PyTorch's name: ``device("cpu")``, ``device("cuda:1")``, ``device("cuda", 1)``."""

    __slots__ = ("index", "type")

    def __init__(self, type: Any, index: Any = None):
        self.type: str
        self.index: Any
        if isinstance(type, device):
            type, index = type.type, type.index if index is None else index
        kind, _, number = ("cuda", "", str(type)) if isinstance(type, int) else str(type).partition(":")
        if kind not in PLATFORMS or (number and not number.isdigit()):
            raise RuntimeError(f"Expected one of {', '.join(PLATFORMS)} device type at start of device string: {type}")
        self.type = kind
        self.index = int(number) if number else index

    @property
    def platform(self) -> str:
        """JAX's word for its kind."""
        return PLATFORMS[self.type]

    def in_jax(self) -> Any:
        """The device of JAX's that this names. Raises RuntimeError where there is none."""
        try:
            return jax.devices(self.platform)[self.index or 0]
        except (RuntimeError, IndexError) as error:
            has = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
            raise RuntimeError(
                f"there is no device {str(self)!r} here: JAX has {has}. For an NVIDIA GPU: pip install "
                "'twograd[cuda12]'; on a CPU leave the Tensors where they are, device='cpu'."
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"


def device_of(array: Any) -> device:
    """Where an array is; the first of its devices if it has several."""
    if isinstance(array, Tracer):
        where = jax.devices()[0]
    else:
        where = next(iter(array.devices()))
    kind = next((name for name, platform in PLATFORMS.items() if platform == where.platform), where.platform)
    made = object.__new__(device)
    made.type, made.index = kind, None if kind == "cpu" else where.id
    return made


def placed(array: jax.Array, where: Any) -> jax.Array:
    """``array`` on the device ``where``; itself if that is None, or where it is, or while it is traced."""
    if where is None or isinstance(array, Tracer):
        return array
    wanted = (where if isinstance(where, device) else device(where)).in_jax()
    return array if array.devices() == {wanted} else jax.device_put(array, wanted)
