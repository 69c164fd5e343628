"""Operations as PyTorch calls them, from one line each: a name, what kind each parameter is of, and a JAX function.

    "lerp": ("nnn", lambda input, end, weight: input + weight * (end - input))
    "sum": ("td..", lambda input, dim=None, keepdim=False, *, dtype=None: ...)

What flows in: such lines (``operations.py``, ``functions.py``). What flows out: functions that take Tensors, which are
the methods of Tensor and the functions of ``twograd.tape`` alike. Read :func:`operation`, then :class:`Schema`.

The JAX function has PyTorch's names and defaults; a letter says of each parameter what becomes of its argument:

    n   a number: an operand, broadcast against the other ``n`` and converted as PyTorch promotes
    t   a Tensor: an operand, left as it is
    l   a sequence of Tensors: operands
    i   an index Tensor: an operand, whose values must lie within the size of the ``d`` parameter's dimension
    v   a Tensor whose values decide the result's shape: an operand that no gradient flows to
    d   a dimension, or several, or None: must be one of the first operand's
    .   anything else: part of the signature, as a shape is

Everything but operands is structure: one function, and so one compiled program, per structure. Dimensions, dtypes and
shapes are looked at while that is traced, and cost a later call nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from twograd.tape.apply import recorder
from twograd.tape.dtypes import promoted
from twograd.tape.tensor import Tensor, make_tensor

MAX_STRUCTURES = 4096
OPERANDS = "ntiv"
OPERAND = "operand"  # stands for an operand in a structure
MISSING = object()
ALIASES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
"""NumPy's names of parameters, which PyTorch takes too."""

NO_DERIVATIVE = frozenset({"floor_divide", "heaviside"})
"""Operations that PyTorch records, and refuses to differentiate. (Its ``floor`` and ``div(rounding_mode="floor")`` have
the derivative zero.)"""

DATA = (Tensor, jax.Array, np.ndarray, np.generic)


class Schema:
    """The parameters of an operation, and how to run it for one structure."""

    def __init__(self, name: str, kinds: str, function: Callable[..., Any], names: Sequence[str] = ()):
        self.name, self.kinds, self.function = name, kinds, function
        code = getattr(function, "__code__", None)
        if names or code is None:
            self.names, self.positional, defaults = tuple(names), len(names), ()
            named: dict[str, Any] = {}
        else:
            self.positional = code.co_argcount
            self.names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            defaults = getattr(function, "__defaults__", None) or ()
            named = getattr(function, "__kwdefaults__", None) or {}
        required = self.positional - len(defaults)
        self.defaults = [*[MISSING] * required, *defaults]
        self.defaults += [named.get(name, MISSING) for name in self.names[self.positional :]]
        self.required = required
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(kinds) != len(self.names):
            raise ValueError(f"{name}: {len(self.names)} parameters and {len(kinds)} kinds")

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The argument of each parameter. Raises TypeError where the call does not fit."""
        if len(args) > self.positional:
            raise TypeError(
                f"{self.name}() takes {self.positional} positional arguments but {len(args)} were given: "
                f"{', '.join(self.names)}"
            )
        values = [*args, *self.defaults[len(args) :]]
        for name, value in kwargs.items():
            i = self._index.get(name)
            if i is None and ALIASES.get(name) in self._index:
                i = self._index[ALIASES[name]]
            elif i is None and name == "self":
                i = 0
            if i is None:
                if name == "out":
                    if value is None:
                        continue
                    raise TypeError(
                        f"{self.name}(): out= is not supported: an array cannot be written to. Use the result, or "
                        f"y.copy_({self.name}(...)), which is an operation in place."
                    )
                raise TypeError(f"{self.name}() got an unexpected keyword argument '{name}'")
            if i < len(args):
                raise TypeError(f"{self.name}() got multiple values for argument '{name}'")
            values[i] = value
        for name, value in zip(self.names, values, strict=True):
            if value is MISSING:
                raise TypeError(f'{self.name}() missing 1 required positional arguments: "{name}"')
        return values

    def split(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
        """The structure, hashable, and the operands, of the arguments."""
        structure, operands = [], []
        for kind, name, value in zip(self.kinds, self.names, values, strict=True):
            if kind in OPERANDS and _is_data(value):
                if kind == "v":
                    value = value if not isinstance(value, Tensor) else make_tensor(value._data, None)
                elif kind == "i":
                    self._check_index(values, value)
                structure.append(OPERAND)
                operands.append(value)
            elif kind == "l":
                structure.append((OPERAND,) * len(value))
                operands.extend(value)
            elif kind in OPERANDS and isinstance(value, str):
                position = self.names.index(name) + 1
                raise TypeError(f"{self.name}(): argument '{name}' (position {position}) must be Tensor, not str")
            else:
                structure.append(frozen(value))
        return tuple(structure), operands

    def _check_index(self, values: Sequence[Any], index: Any) -> None:
        dim = values[self.kinds.index("d")] if "d" in self.kinds else 0
        shape = values[0].shape
        check_index(self.name, index, dim, shape[dim] if shape and -len(shape) <= dim < len(shape) else 1)

    def run(self, values: list[Any]) -> Any:
        """Calls the JAX function, with its operands promoted and its dimensions checked."""
        numbers = [i for i, kind in enumerate(self.kinds) if kind == "n" and values[i] is not None]
        if len(numbers) > 1:
            for i in numbers:
                if isinstance(values[i], (str, bytes)):
                    raise TypeError(f"{self.name}(): {self.names[i]} must be a Tensor or a number, not {values[i]!r}")
            arrays = [values[i] if isinstance(values[i], jax.Array) else jnp.asarray(values[i]) for i in numbers]
            check_broadcast(arrays)
            for i, array in zip(numbers, promoted(arrays), strict=True):
                values[i] = array
        dims = [values[i] for i, kind in enumerate(self.kinds) if kind == "d" and values[i] is not None]
        if not dims or self.kinds[0] == "l":
            return self._call(values)
        for dim in dims:
            check_dims(values[0].ndim, dim)
        if values[0].ndim:
            return self._call(values)
        # A Tensor of no dimensions counts as one of a single element, and so do its results.
        lifted = [v.reshape(1) if isinstance(v, jax.Array) and not v.ndim else v for v in values]
        return jax.tree.map(lambda r: r.reshape(()) if r.shape == (1,) else r, self._call(lifted))

    def _call(self, values: list[Any]) -> Any:
        return self.function(
            *values[: self.positional],
            **dict(zip(self.names[self.positional :], values[self.positional :], strict=True)),
        )


@functools.lru_cache(maxsize=MAX_STRUCTURES)
def _specialised(schema: Schema, structure: tuple[Any, ...], types: tuple[type, ...]) -> Callable[..., Any]:
    """The operation of its operands only; 1, 1.0 and True are equal, so the types belong to the key."""

    def specialised(*operands):
        given = iter(operands)
        return schema.run(
            [
                next(given) if s is OPERAND else [next(given) for _ in s] if kind == "l" else s
                for s, kind in zip(structure, schema.kinds, strict=True)
            ]
        )

    specialised.__name__ = schema.name
    specialised.no_derivative = schema.name.removesuffix("_") in NO_DERIVATIVE
    dims = [part for part, kind in zip(structure, schema.kinds, strict=True) if kind == "d"]
    if dims:  # the name of its node depends on it
        specialised.structure = tuple(dims)
    return recorder(specialised)


def operation(name: str, kinds: str, function: Callable[..., Any], names: Sequence[str] = ()) -> Callable[..., Any]:
    """The function of Tensors, Python numbers and structure that a line of a table describes."""
    schema = Schema(name, kinds, function, names)
    required = schema.required

    def general(*args: Any, **kwargs: Any) -> Any:
        structure, operands = schema.split(schema.bound(args, kwargs))
        return _specialised(schema, structure, tuple(map(type, structure)))(*operands)

    if required and set(kinds[:required]) <= set("nt"):
        usual = _specialised(schema, (OPERAND,) * required + tuple(schema.defaults[required:]), ())

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != required:
                return general(*args, **kwargs)
            return usual(*args)

    else:
        usual, call = None, general
    if required == 1 and kinds[0] == "t" and set(kinds[1:]) <= set("d."):
        call = _of_one(schema, general, usual)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = function.__doc__
    call.schema = schema  # pyright: ignore[reportFunctionMemberAccess]
    call.usual = usual  # pyright: ignore[reportFunctionMemberAccess]
    if usual is not None:
        call.donating = functools.partial(_donating, usual, required)  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _donating(usual: Any, required: int, *args: Any) -> Any:
    """The usual call in the memory of its first operand, which is lost; None where that cannot be."""
    return usual.donating(*args) if len(args) == required else None


def _of_one(schema: Schema, general: Callable[..., Any], usual: Any) -> Callable[..., Any]:
    """An operation with one operand, the first: its function is found by the other arguments as they are given."""

    @functools.lru_cache(maxsize=MAX_STRUCTURES, typed=True)
    def find(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        structure, _ = schema.split(schema.bound((None, *args), kwargs))
        structure = (OPERAND, *structure[1:])
        return _specialised(schema, structure, tuple(map(type, structure)))

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            return usual(args[0])
        try:
            record = find(*args[1:], **kwargs) if args else None
        except TypeError:  # a list, which cannot be hashed; or a call that does not fit, which is told now
            record = None
        return general(*args, **kwargs) if record is None else record(args[0])

    return call


def frozen(value: Any) -> Any:
    """``value`` as a part of a structure: hashable, and no Tensor."""
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    if isinstance(value, (Tensor, jax.Array, np.ndarray, np.generic)) and not isinstance(value, Tracer):
        return frozen(value.tolist())
    return value


def _is_data(value: Any) -> bool:
    return isinstance(value, DATA) or type(value) in (int, float, complex)


# --- checks -----------------------------------------------------------------------------------------------------------


def check_dims(rank: int, dims: Any) -> None:
    """Raises an error of both NumPy's kinds, with PyTorch's text, where there is no such dimension."""
    least = max(rank, 1)
    for dim in dims if isinstance(dims, tuple) else (dims,):
        if not isinstance(dim, int):
            raise TypeError(f"a dimension must be an integer, not {type(dim).__name__}: {dim!r}")
        if not -least <= dim < least:
            raise np.exceptions.AxisError(
                f"Dimension out of range (expected to be in range of [-{least}, {least - 1}], but got {dim})"
            )


def check_broadcast(arrays: Sequence[Any]) -> None:
    """Raises RuntimeError, with PyTorch's text, for shapes that do not broadcast."""
    shape = arrays[0].shape
    for array in arrays[1:]:
        other = array.shape
        if shape == other:
            continue
        rank = max(len(shape), len(other))
        a, b = (1,) * (rank - len(shape)) + shape, (1,) * (rank - len(other)) + other
        for i in reversed(range(rank)):
            if a[i] != b[i] and 1 not in (a[i], b[i]):
                raise RuntimeError(
                    f"The size of tensor a ({a[i]}) must match the size of tensor b ({b[i]}) at non-singleton "
                    f"dimension {i}"
                )
        shape = tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


def check_index(name: str, index: Any, dim: int, size: int, negative: bool = False) -> None:
    """Raises for an index outside of ``size``, which JAX would clamp. Not looked at: the values of a traced index, and
    of one on an accelerator, as that would wait for it."""
    data = index._data if isinstance(index, Tensor) else index
    if not jnp.issubdtype(getattr(data, "dtype", type(data)), np.integer):
        raise RuntimeError(
            f"{name}(): Expected dtype int32/int64 for index, but got {getattr(data, 'dtype', type(data))}"
        )
    if isinstance(data, Tracer) or (isinstance(data, jax.Array) and any(d.platform != "cpu" for d in data.devices())):
        return
    values = np.asarray(data)
    outside = values[(values < (-size if negative else 0)) | (values >= size)]
    if outside.size:
        kind = IndexError if name.startswith("index_") else RuntimeError
        raise kind(f"index {outside.flat[0]} is out of bounds for dimension {dim} with size {size}")
