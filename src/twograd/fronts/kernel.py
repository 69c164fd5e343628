"""A layer's two halves, forward and backward, made of a function and the table of rules.

What flows in: a function of arrays, the values that it is called with, and which of them are to be differentiated. What
flows out: a :class:`Kernel`. Read :meth:`Kernel.cotangents`.

Systems whose layers are written by hand have for each a forward and a backward that reads buffers: the layer's bottom,
its top, and what it keeps besides. Here the rules say which of these a backward reads, by position, and it reads them
where they stand when it is called. If somebody has written there meanwhile, the gradient is wrong, as it was there.
"""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun
from jax.tree_util import tree_flatten, tree_unflatten

from twograd.graph.split import split_once
from twograd.rules import carries_gradient

Mask = tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function at some shapes, and its derivative with respect to the ``wanted`` of its operands.

    ``reads`` are the positions, among the operands, then the results, then the values of ``own``, of what the
    derivative reads. ``own`` are those that are neither operand nor result, as a mask is: the layer has to keep them.
    """

    operands: tuple[jax.ShapeDtypeStruct, ...]
    results: tuple[jax.ShapeDtypeStruct, ...]
    out_tree: Any
    wanted: Mask
    reads: tuple[int, ...]
    _forward: Callable[..., Sequence[Any]]
    _backward: Callable[..., Sequence[Any]]

    def __deepcopy__(self, memo: Any) -> "Kernel":
        return self  # it never changes

    def run(self, operands: Sequence[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The results, and the values that are the layer's own."""
        # NumPy's arrays may change as soon as this returns, so nothing may be under way by then.
        values = [np.asarray(value) for value in self._forward(*operands)]
        return values[: len(self.results)], values[len(self.results) :]

    def read(self, operands: Sequence[Any], results: Sequence[Any], own: Sequence[Any]) -> list[Any]:
        """What the derivative reads, as it is now."""
        values = [*operands, *results, *own]
        return [values[position] for position in self.reads]

    def cotangents(self, read: Sequence[Any], cts: Sequence[Any], wanted: Mask | None = None) -> list[Any]:
        """The cotangent of each ``wanted`` operand from those of the results; None for the others, and where zero."""
        found = self._backward(list(read), list(cts), self.wanted if wanted is None else wanted)
        return [None if ct is None else np.asarray(ct) for ct in found]


def numbers(value: Any) -> np.ndarray:
    """``value`` as an array of numbers. Raises TypeError for a traced one: of what layers compute there is no trace."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"a layer was given a traced array ({value.aval.str_short()}), and its buffers hold numbers: what it "
            "computes cannot be traced, and a gradient that it has found cannot be differentiated again. A function of "
            "twograd.nn.functional can: by twograd.graph or twograd.tape."
        )
    return np.asarray(value)


def kernel_of(
    function: Callable[..., Any], options: Mapping[str, Hashable], args: Sequence[Any], wanted: Callable[[int], bool]
) -> Kernel:
    """The kernel of ``function(*args, **options)``; ``wanted(i)`` says whether its i-th leaf is differentiated.

    It is made once for a function, its options and the shapes, whoever asks. Integers are taken at JAX's width; raises
    TypeError for float64 while JAX computes in 32 bits, and what ``function`` raises for such shapes.
    """
    leaves, tree = tree_flatten(tuple(args))
    avals = tuple(jax.ShapeDtypeStruct(np.shape(leaf), _dtype(leaf.dtype)) for leaf in leaves)
    mask = tuple(wanted(i) and carries_gradient(aval) for i, aval in enumerate(avals))
    return _kernel(function, tuple(sorted(options.items())), tree, avals, mask)


def _dtype(dtype: Any) -> Any:
    known = jax.dtypes.canonicalize_dtype(dtype)
    if known != dtype and np.issubdtype(dtype, np.inexact):
        raise TypeError(
            f"a layer was given {dtype}, and JAX computes in 32 bits: give float32, or switch 64 bits on by "
            "jax.config.update('jax_enable_x64', True)"
        )
    return known


@functools.lru_cache(maxsize=4096)
def _kernel(function: Any, options: Any, tree: Any, avals: tuple[jax.ShapeDtypeStruct, ...], wanted: Mask) -> Kernel:
    keywords = dict(options)
    out_tree: Any = None

    def program(*leaves: Any) -> list[Any]:
        nonlocal out_tree
        results, out_tree = tree_flatten(function(*tree_unflatten(tree, leaves), **keywords))
        return results

    closed = jax.make_jaxpr(program)(*avals)
    split = split_once(closed, wanted)  # numbers: nothing will be differentiated again

    @functools.partial(jax.jit, static_argnums=2)
    def backward(read, cts, chosen):
        found = split.backward(read, cts)
        return [ct if choose else None for ct, choose in zip(found, chosen, strict=True)]

    return Kernel(
        avals,
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.out_avals),
        out_tree,
        wanted,
        split.saved,
        jax.jit(jaxpr_as_fun(split.forward)),
        backward,
    )


def copies(value: Any, *, count: int) -> list[Any]:
    """``count`` times the same: where a value is used several times. Its derivative is the sum of theirs."""
    return [value] * count
