"""Functions that make Tensors, with PyTorch's names.

What flows in: sizes, numbers, seeds. What flows out: leaf Tensors. All take ``dtype=``, ``device=`` and
``requires_grad=``, and ignore ``layout``, ``pin_memory`` and ``memory_format``; random ones take ``generator=``. Read
:func:`tensor` and :class:`Generator`.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.tape.dtypes import default_complex, default_float, is_complex, is_floating, narrowed, placed
from twograd.tape.shapes import sizes_of
from twograd.tape.tensor import Tensor


def tensor(
    data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A leaf Tensor of ``data`` (numbers, nested lists, an array, a Tensor), copied from the graph it may have.

    64-bit types need ``jax_enable_x64``; otherwise JAX makes them 32 bits wide. Raises RuntimeError where integers are
    to require a gradient.
    """
    return Tensor(placed(_array(data, dtype), device), requires_grad)


def _array(data: Any, dtype: Any) -> jax.Array:
    given = data._data if isinstance(data, Tensor) else data
    if dtype is not None:
        return jnp.array(given, narrowed(dtype))
    try:
        array = jnp.array(given)
    except TypeError as error:
        raise RuntimeError(f"Could not infer dtype of {type(data).__name__}") from error
    if not isinstance(given, (jax.Array, np.ndarray, np.generic)):
        array = array.astype(_of_python(array.dtype))
    return jax.lax.convert_element_type(array, array.dtype) if array.weak_type else array


def _of_python(dtype: Any) -> Any:
    """The dtype of what was made from Python numbers, which JAX made ``dtype``."""
    return default_complex() if is_complex(dtype) else default_float() if is_floating(dtype) else dtype


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a Tensor; itself if it is one of that dtype, on that device."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)  # pyright: ignore[reportAttributeAccessIssue]
    return tensor(data, dtype, device)


def asarray(
    data: Any, *, dtype: Any = None, device: Any = None, copy: Any = None, requires_grad: bool = False
) -> Tensor:
    """``data`` as a Tensor."""
    return (
        as_tensor(data, dtype, device).requires_grad_(requires_grad)
        if requires_grad
        else as_tensor(data, dtype, device)
    )


def from_numpy(array: np.ndarray) -> Tensor:
    """A NumPy array as a Tensor. The elements are copied: unlike PyTorch's, it does not see later changes."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    return Tensor(jnp.array(array))


def scalar_tensor(value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of no dimensions, of the default dtype."""
    return tensor(value, dtype or default_float(), device, requires_grad)


def _made(make: Callable[[Any], Any], dtype: Any, device: Any, requires_grad: bool, default: Any = None) -> Tensor:
    kind = (default or default_float()) if dtype is None else narrowed(dtype)
    return Tensor(placed(make(kind), device), requires_grad)


def _filled(name: str, value: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def factory(*sizes, size=None, dtype=None, device=None, requires_grad=False, **ignored):
        shape = _shape(name, sizes, size)
        return _made(lambda kind: jnp.full(shape, value, kind), dtype, device, requires_grad)

    def like(input, *, dtype=None, device=None, requires_grad=False, **ignored):
        kind = input.dtype if dtype is None else dtype
        return _made(lambda kind: jnp.full_like(input._data, value, kind), kind, device, requires_grad)

    factory.__name__, factory.__doc__ = name, f"A Tensor of {value}s: ``{name}(2, 3)`` or ``{name}((2, 3))``."
    like.__name__, like.__doc__ = f"{name}_like", f"A Tensor of {value}s, shaped as another."
    return factory, like


def _shape(name: str, sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    shape = sizes_of(sizes, size)
    if min(shape, default=0) < 0:
        raise RuntimeError(f"{name}: Dimension size must be non-negative.")
    return shape


zeros, zeros_like = _filled("zeros", 0)
ones, ones_like = _filled("ones", 1)
empty, empty_like = _filled("empty", 0)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of one value."""
    value = _array(fill_value, dtype)
    return Tensor(placed(jnp.full(_shape("full", (size,)), value), device), requires_grad)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """A Tensor of one value, shaped as another."""
    kind = input.dtype if dtype is None else dtype
    value = fill_value._data if isinstance(fill_value, Tensor) else fill_value
    return _made(lambda kind: jnp.full_like(input._data, value, kind), kind, device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    return _made(lambda kind: jnp.eye(n, m, dtype=kind), dtype, device, requires_grad)


def arange(
    *args: Any,
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Evenly spaced values: ``arange(end)``, ``arange(start, end)``, ``arange(start, end, step)``; of the default dtype
    if one of these is a float."""
    if len(args) == 1:
        end = args[0]
    elif args:
        start, end, step = (*args, step)[:3]
    bounds = [b.item() if isinstance(b, Tensor) else b for b in (start, end, step)]
    default = default_float() if any(isinstance(b, (float, np.floating)) for b in bounds) else narrowed(np.int64)
    count = max(0, math.ceil((bounds[1] - bounds[0]) / bounds[2]))
    return _made(
        lambda kind: (bounds[0] + bounds[2] * np.arange(count)).astype(kind), dtype, device, requires_grad, default
    )


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` values from ``start`` to ``end``, both included."""
    return _made(lambda kind: jnp.linspace(start, end, steps, dtype=kind), dtype, device, requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``steps`` values from ``base ** start`` to ``base ** end``, both included, evenly spaced in the exponent."""
    return _made(lambda kind: jnp.logspace(start, end, steps, base=base, dtype=kind), dtype, device, requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The rows and the columns of the elements on and below a diagonal."""
    return _made(
        lambda kind: np.stack(np.tril_indices(row, offset, col)).astype(kind), dtype, device, False, narrowed(np.int64)
    )


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The rows and the columns of the elements on and above a diagonal."""
    return _made(
        lambda kind: np.stack(np.triu_indices(row, offset, col)).astype(kind), dtype, device, False, narrowed(np.int64)
    )


def _legacy(name: str, dtype: str) -> Callable[..., Tensor]:
    def make(*args):
        if not args or type(args[0]) is int:
            return empty(*args, dtype=dtype)
        return tensor(args[0], dtype)

    make.__name__, make.__doc__ = name, f"PyTorch's old constructor: of data, or of sizes; {dtype}."
    return make


LEGACY = {
    f"{name}Tensor": _legacy(f"{name}Tensor", dtype)
    for name, dtype in {
        "Float": "float32", "Double": "float64", "Half": "float16", "Long": "int64", "Int": "int32", "Byte": "uint8",
        "Bool": "bool",
    }.items()
}  # fmt: skip

# --- random numbers ---------------------------------------------------------------------------------------------------


class Generator:
    """JAX's keys behind PyTorch's face: a key or the seed of one, and a count of what was drawn since."""

    def __init__(self, device: Any = None, key: Any = None):
        self._seed, self._drawn, self._key = 0, 0, key

    def manual_seed(self, seed: int) -> "Generator":
        """Starts the sequence anew."""
        self._seed, self._drawn = int(seed), 0
        return self

    def seed(self) -> int:
        """Starts a sequence that nobody knows, and returns its seed."""
        self.manual_seed(int.from_bytes(np.random.default_rng().bytes(4), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed."""
        return self._seed

    def get_state(self) -> Tensor:
        """Where the sequence stands, for ``set_state``."""
        return Tensor(jnp.array([self._seed, self._drawn]))

    def set_state(self, state: Tensor) -> None:
        """Goes on from where ``get_state`` was called."""
        self._seed, self._drawn = state.tolist()

    def next_key(self) -> jax.Array:
        """A key of JAX's that was not given out before."""
        self._drawn += 1
        key = jax.random.key(self._seed) if self._key is None else self._key
        return jax.random.fold_in(key, self._drawn)

    def next_seed(self) -> tuple[int, int]:
        """The same for a generator of NumPy's."""
        self._drawn += 1
        return self._seed, self._drawn


class _Current(threading.local):
    """The generator of a thread, and whether its numbers go into a traced program, where they would be constants."""

    def __init__(self) -> None:
        self.generator = Generator()
        self.traced = False


_current = _Current()


def next_key(generator: Generator | None = None) -> jax.Array:
    """A key for what is drawn next, from a generator or in this thread."""
    if generator is None and _current.traced:
        raise RuntimeError(
            "something random is drawn in a traced function, whose numbers would be the same at each run. Give a key: "
            "functional_call(..., rng=jax.random.key(seed)), a new one for each step."
        )
    return (generator or _current.generator).next_key()


def next_seed() -> tuple[int, int]:
    """The same for a generator of NumPy's."""
    return _current.generator.next_seed()


@contextlib.contextmanager
def drawing_from(key: jax.Array | None, traced: bool) -> Iterator[None]:
    """Inside, random numbers come from ``key``; without one from the thread's sequence, but not where ``traced``."""
    before = _current.generator, _current.traced
    if key is not None:
        _current.generator = Generator(key=key)
    _current.traced = traced and key is None
    try:
        yield
    finally:
        _current.generator, _current.traced = before


def manual_seed(seed: int) -> Generator:
    """Starts this thread's sequence of random numbers anew."""
    return _current.generator.manual_seed(seed)


def seed() -> int:
    """Starts a sequence of random numbers that nobody knows, and returns its seed."""
    return _current.generator.seed()


def initial_seed() -> int:
    """The seed of this thread's random numbers."""
    return _current.generator.initial_seed()


def get_rng_state() -> Tensor:
    """Where this thread's random numbers stand."""
    return _current.generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Goes on from where ``get_rng_state`` was called."""
    _current.generator.set_state(state)


def _random(name: str, draw: Callable[..., Any]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def factory(*sizes, size=None, generator=None, dtype=None, device=None, requires_grad=False, **ignored):
        shape, key = _shape(name, sizes, size), next_key(generator)
        return _made(lambda kind: draw(key, shape, kind), dtype, device, requires_grad)

    def like(input, *, generator=None, dtype=None, device=None, requires_grad=False, **ignored):
        kind = input.dtype if dtype is None else dtype
        return factory(input.shape, generator=generator, dtype=kind, device=device, requires_grad=requires_grad)

    factory.__name__, like.__name__ = name, f"{name}_like"
    return factory, like


rand, rand_like = _random("rand", jax.random.uniform)
randn, randn_like = _random("randn", jax.random.normal)
rand.__doc__, randn.__doc__ = "Numbers uniform in [0, 1).", "Standard normal numbers."


def randint(
    *args: Any,
    low: int = 0,
    high: Any = None,
    size: Any = None,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers uniform in [low, high): ``randint(low, high, size)``, or ``randint(high, size)`` from 0."""
    given = list(args)
    if size is None:
        size = given.pop()
    if len(given) == 2:
        low, high = given
    elif given:
        low, high = (low, given[0]) if high is None else (given[0], high)
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    key, shape, wide = next_key(generator), _shape("randint", (size,)), narrowed(np.int64)
    draw = jax.random.randint(key, shape, low, high, wide)
    return _made(lambda kind: draw.astype(kind), dtype, device, requires_grad, wide)


def randint_like(
    input: Tensor, low: Any, high: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Integers uniform in [low, high), shaped as another Tensor and of its dtype."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, generator=generator, dtype=dtype or input.dtype, device=device)


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The integers below ``n`` in random order."""
    key = next_key(generator)
    return _made(lambda kind: jax.random.permutation(key, n).astype(kind), dtype, device, False, narrowed(np.int64))


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None
) -> Tensor:
    """Normal numbers, of ``size`` or shaped as ``mean`` and ``std`` together. No gradient flows to these."""
    mean, std = (x._data if isinstance(x, Tensor) else x for x in (mean, std))
    if np.any(np.asarray(std) < 0):
        raise RuntimeError("normal expects all elements of std >= 0.0")
    kind = default_float() if dtype is None else narrowed(dtype)
    shape = np.broadcast_shapes(np.shape(mean), np.shape(std)) if size is None else _shape("normal", (size,))
    drawn = jnp.asarray(mean + std * jax.random.normal(next_key(generator), shape, kind), kind)
    return Tensor(placed(drawn, device))


def bernoulli(input: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in ``input`` (or with one, ``p``), else zeros."""
    chance = input._data if p is None else p
    if np.any((np.asarray(chance) < 0) | (np.asarray(chance) > 1)):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    drawn = jax.random.bernoulli(next_key(generator), chance, input.shape)
    return Tensor(drawn.astype(input.dtype))


def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Poisson numbers with the rates in ``input``."""
    return Tensor(jax.random.poisson(next_key(generator), input._data).astype(input.dtype))


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
    """Indices drawn with weights: ``num_samples`` for each row of ``input``."""
    weights = np.asarray(input._data)
    if weights.ndim not in (1, 2) or (weights < 0).any() or not np.isfinite(weights).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (weights.sum(-1) <= 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and num_samples > (weights > 0).sum(-1).min():
        raise RuntimeError(
            "invalid multinomial distribution (with replacement=False, not enough non-negative category to sample)"
        )
    logits, key = jnp.log(input._data), next_key(generator)
    if replacement:
        drawn = jnp.moveaxis(jax.random.categorical(key, logits, shape=(num_samples, *weights.shape[:-1])), 0, -1)
    else:  # the largest of perturbed logarithms are a sample without replacement (Gumbel's trick)
        drawn = jax.lax.top_k(logits + jax.random.gumbel(key, logits.shape, logits.dtype), num_samples)[1]
    return Tensor(drawn.astype(narrowed(np.int64)))
