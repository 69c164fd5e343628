"""Functions that make Tensors, with PyTorch's names."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.tensor import Tensor


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A leaf Tensor of ``data`` (numbers, nested lists, an array, a Tensor), copied from the graph it may have.

    64-bit types need ``jax_enable_x64``; otherwise JAX makes them 32 bits wide. Raises RuntimeError where integers are
    to require a gradient.
    """
    array = jnp.array(data._data if isinstance(data, Tensor) else data, dtype)
    return Tensor(jax.lax.convert_element_type(array, array.dtype) if array.weak_type else array, requires_grad)


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """``data`` as a Tensor; itself if it is one of that dtype."""
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == dtype else data.to(dtype)  # pyright: ignore
    return tensor(data, dtype)


def _filled(make: Callable[..., Any]) -> Callable[..., Tensor]:
    @functools.wraps(make)
    def factory(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
        shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
        return Tensor(make(shape, dtype=dtype), requires_grad)

    return factory


zeros = _filled(jnp.zeros)
ones = _filled(jnp.ones)
empty = _filled(jnp.empty)


def full(size: tuple[int, ...], fill_value: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of one value."""
    return tensor(jnp.full(size, fill_value, dtype), requires_grad=requires_grad)


def eye(n: int, m: int | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    return Tensor(jnp.eye(n, m, dtype=dtype), requires_grad)


def arange(*args: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Evenly spaced values: ``arange(end)``, ``arange(start, end)``, ``arange(start, end, step)``."""
    return Tensor(jnp.arange(*args, dtype=dtype), requires_grad)


def linspace(start: float, end: float, steps: int, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """``steps`` values from ``start`` to ``end``, both included."""
    return Tensor(jnp.linspace(start, end, steps, dtype=dtype), requires_grad)


def zeros_like(x: Tensor, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    return Tensor(jnp.zeros_like(x._data, dtype=dtype), requires_grad)


def ones_like(x: Tensor, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    return Tensor(jnp.ones_like(x._data, dtype=dtype), requires_grad)


def full_like(x: Tensor, fill_value: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    return Tensor(jnp.full_like(x._data, fill_value, dtype=dtype), requires_grad)


# --- random numbers ---------------------------------------------------------------------------------------------------


class _Generator(threading.local):
    """JAX's keys behind PyTorch's face: a key or the seed of one, and a count of what was drawn since."""

    seed: int = 0
    key: Any = None
    drawn = 0
    traced = False  # whether the numbers go into a traced program, where they would be constants


_generator = _Generator()


def next_key() -> jax.Array:
    """A key for what is drawn next in this thread."""
    if _generator.traced and _generator.key is None:
        raise RuntimeError(
            "something random is drawn in a traced function, whose numbers would be the same at each run. Give a key: "
            "functional_call(..., rng=jax.random.key(seed)), a new one for each step."
        )
    _generator.drawn += 1
    key = jax.random.key(_generator.seed) if _generator.key is None else _generator.key
    return jax.random.fold_in(key, _generator.drawn)


def next_seed() -> tuple[int, int]:
    """The same for a generator of NumPy's."""
    _generator.drawn += 1
    return _generator.seed, _generator.drawn


def manual_seed(seed: int) -> None:
    """Starts this thread's sequence of random numbers anew."""
    _generator.seed, _generator.drawn = seed, 0


@contextlib.contextmanager
def drawing_from(key: jax.Array | None, traced: bool) -> Iterator[None]:
    """Inside, random numbers come from ``key``; without one from the thread's sequence, but not where ``traced``."""
    before = _generator.key, _generator.drawn, _generator.traced
    _generator.key, _generator.traced = key, traced
    if key is not None:
        _generator.drawn = 0
    try:
        yield
    finally:
        drawn = _generator.drawn
        _generator.key, _generator.drawn, _generator.traced = before
        if key is None:
            _generator.drawn = drawn


def get_rng_state() -> Tensor:
    """Where this thread's random numbers stand."""
    with jax.ensure_compile_time_eval():
        return Tensor(jnp.array([_generator.seed, _generator.drawn]))


def set_rng_state(state: Tensor) -> None:
    """Goes on from where ``get_rng_state`` was called."""
    _generator.seed, _generator.drawn = state.tolist()


def randn(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal numbers."""
    return _random(jax.random.normal, size, dtype, requires_grad)


def rand(*size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Numbers uniform in [0, 1)."""
    return _random(jax.random.uniform, size, dtype, requires_grad)


def randint(low: int, high: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """Integers uniform in [low, high): ``randint(low, high, size)``, or ``randint(high, size)`` from 0."""
    if size is None:
        low, high, size = 0, low, high
    dtype = jax.dtypes.canonicalize_dtype(np.int64) if dtype is None else dtype
    return Tensor(jax.random.randint(next_key(), tuple(size), low, high, dtype))


def randn_like(x: Tensor, requires_grad: bool = False) -> Tensor:
    return randn(x.shape, dtype=x.dtype, requires_grad=requires_grad)


def rand_like(x: Tensor, requires_grad: bool = False) -> Tensor:
    return rand(x.shape, dtype=x.dtype, requires_grad=requires_grad)


def _random(draw: Callable[..., Any], size: tuple[Any, ...], dtype: Any, requires_grad: bool) -> Tensor:
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return Tensor(draw(next_key(), shape, dtype), requires_grad)
