"""One check for every derivative rule: a module lists its cases, and :func:`check` holds each against outside oracles.

    CASES = [Case(lax.sin_p, lax.sin, [real(3, 4)]), Case(lax.sin_p, lax.sin, [compl(3, 4)], "complex")]

    @pytest.mark.parametrize("case", each(CASES))
    def test_rule(case):
        check(case)

No expected value is written by hand: the oracles are ``jax.vjp`` and central finite differences in float64. Complex
cotangents follow JAX: the pairing of a cotangent with a direction is the sum of the real parts of their products.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive

from twograd.graph.transform import backward_pass, forward_pass

Draw = Callable[[np.random.Generator], Any]
"""An operand drawn from a generator that is seeded with the case's name."""

STEP = 1e-5


# --- operands ---------------------------------------------------------------------------------------------------------


def between(low: float, high: float, *shape: int) -> Draw:
    """Uniform float64 numbers."""
    return lambda rng: rng.uniform(low, high, shape)


def compl(*shape: int) -> Draw:
    """Normal complex128 numbers."""
    return lambda rng: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def distinct(*shape: int) -> Draw:
    """Float64 numbers that lie at least 1/8 from each other and from 0, in random order: no ties, no kinks."""
    count = int(np.prod(shape))
    return lambda rng: ((rng.permutation(count) - count // 2 + 0.5) / 4).reshape(shape)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int64) -> Draw:
    """Integers from ``low`` up to, not including, ``high``."""
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def real(*shape: int) -> Draw:
    """Normal float64 numbers."""
    return lambda rng: rng.standard_normal(shape)


def ties(*shape: int) -> Draw:
    """-1, 0 and 1 as float64: many equal numbers, and zeros."""
    return lambda rng: rng.integers(-1, 2, shape).astype(np.float64)


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A function in whose jaxpr ``primitive`` occurs, with operands to differentiate it at.

    ``operands`` are draws or NumPy arrays (float64, complex128, integer or boolean). ``wrt`` are the positions of those
    to differentiate: by default all that are real or complex. ``smooth`` is False at ties and kinks, where finite
    differences mean nothing and JAX's convention is all there is. ``order`` is 1 where JAX has no second derivative to
    compare with, 0 where it has none at all (then finite differences alone are the oracle, to second order).
    ``highest`` is 1 where our own second derivative raises. ``dtypes`` are the other real types in which every
    cotangent must keep its operand's dtype. ``rtol`` is the accuracy asked against JAX, and its root against finite
    differences. A ``slow`` case runs only where slow tests are asked for.
    """

    primitive: Primitive
    fn: Callable[..., Any]
    operands: Sequence[Any]
    name: str = ""
    wrt: tuple[int, ...] | None = None
    smooth: bool = True
    order: int = 2
    highest: int = 2
    dtypes: tuple[str, ...] = ("float32",)
    rtol: float = 1e-10
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.primitive.name}-{self.name}" if self.name else self.primitive.name

    def draw(self) -> list[Any]:
        """The operands; the same at every call."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        return [jnp.asarray(operand(rng) if callable(operand) else operand) for operand in self.operands]


def each(cases: Sequence[Case]) -> list[Any]:
    """``cases`` as parameters of a test, named and marked."""
    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.slow else []) for case in cases]


@dataclass(frozen=True)
class Problem:
    """A case made uniform: ``fn(*xs) -> tuple`` of its inexact results, a function of the differentiated operands."""

    fn: Callable[..., tuple[Any, ...]]
    xs: tuple[Any, ...]


def inexact(x: Any) -> bool:
    """Whether ``x`` is an array of real or complex numbers."""
    return jax.dtypes.issubdtype(x.dtype, np.inexact)


def problem(case: Case, dtype: str = "float64") -> Problem:
    """``case`` at its operands, the inexact ones converted to ``dtype`` (or to complex numbers of that width)."""
    operands = case.draw()
    if dtype != "float64":
        narrow = {"float64": dtype, "complex128": "complex64"}
        operands = [x.astype(narrow.get(x.dtype.name, x.dtype)) for x in operands]
    wrt = tuple(i for i, x in enumerate(operands) if inexact(x)) if case.wrt is None else case.wrt

    def fn(*xs):
        full = list(operands)
        for position, x in zip(wrt, xs, strict=True):
            full[position] = x
        return tuple(out for out in jax.tree.leaves(case.fn(*full)) if inexact(out))

    return Problem(fn, tuple(operands[position] for position in wrt))


# --- the two sides ----------------------------------------------------------------------------------------------------


def our_vjp(fn: Callable[..., tuple[Any, ...]], xs: Sequence[Any], cts: Sequence[Any]) -> tuple[Any, ...]:
    """The two passes over the jaxpr of ``fn``; a cotangent of None is a zero, in both directions."""
    closed = jax.make_jaxpr(fn)(*xs)
    _, applications = forward_pass(closed.jaxpr, closed.consts, xs, [True] * len(xs))
    in_cts = backward_pass(closed.jaxpr, applications, cts)
    assert not applications
    for x, ct in zip(xs, in_cts, strict=True):
        assert ct is None or (ct.shape, ct.dtype) == (x.shape, x.dtype), f"{jax.typeof(ct)} for {jax.typeof(x)}"
    return tuple(lax.full_like(x, 0) if ct is None else ct for x, ct in zip(xs, in_cts, strict=True))


def jax_vjp(fn: Callable[..., tuple[Any, ...]], xs: Sequence[Any], cts: Sequence[Any]) -> tuple[Any, ...]:
    """The same by JAX."""
    return jax.vjp(fn, *xs)[1](tuple(cts))


def pairing(cts: Sequence[Any], vs: Sequence[Any]) -> Any:
    """What the cotangents ``cts`` make of the direction ``vs``, and the size of the sum's terms."""
    terms = [(ct * v).real for ct, v in zip(cts, vs, strict=True)]
    return sum(term.sum() for term in terms), sum(abs(term).sum() for term in terms)


def slopes(around: Sequence[Any]) -> list[Any]:
    """Derivatives along a direction by central differences: each array holds a function's values at 0, 1, -1 steps."""
    return [(values[1] - values[2]) / (2 * STEP) for values in around]


def agree(what: str, ours: Sequence[Any], theirs: Sequence[Any], rtol: float) -> None:
    """Asserts that ours are as theirs; where theirs are not finite, ours may be anything."""
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        mine, other = np.asarray(mine), np.asarray(other)
        assert mine.dtype == other.dtype, f"{what} {index}: dtype {mine.dtype}, not {other.dtype}"
        finite = np.isfinite(other)
        scale = np.abs(other[finite]).max(initial=0.0)
        np.testing.assert_allclose(
            mine[finite], other[finite], rtol=rtol, atol=rtol * min(scale, 1.0), err_msg=f"{what} {index}"
        )


def near(what: str, found: tuple[Any, Any], expected: tuple[Any, Any], rtol: float) -> None:
    """Asserts that two pairings are equal, relative to the size of their terms."""
    (value, size), (other, other_size) = found, expected
    error = abs(float(value) - float(other)) / (1e-3 + float(size) + float(other_size))
    assert error < np.sqrt(rtol), f"{what}: {value} against finite differences {other}, relative error {error:.1e}"


# --- the check --------------------------------------------------------------------------------------------------------


def check(case: Case) -> None:
    """Holds the rules that ``case`` meets against JAX and finite differences, by value and by symbol."""
    with jax.enable_x64(True):
        p = problem(case)
        rng = np.random.default_rng(1)
        jaxpr = jax.make_jaxpr(p.fn)(*p.xs)
        found = {eqn.primitive for eqn in jaxpr.eqns}
        assert case.primitive in found, f"{case}: its jaxpr has {sorted(map(str, found))}"
        cts = tuple(random_like(aval, rng) for aval in jaxpr.out_avals)
        check_symbols(case, p, cts, rng)
        check_each_result(case, p, cts)
        for dtype in case.dtypes:
            check_dtype(case, dtype)


def random_like(x: Any, rng: np.random.Generator) -> Any:
    """Normal numbers of the type of ``x``."""
    values = rng.standard_normal(x.shape)
    if np.issubdtype(x.dtype, np.complexfloating):
        values = values + 1j * rng.standard_normal(x.shape)
    return jnp.asarray(values, x.dtype)


def check_symbols(case: Case, p: Problem, cts: tuple[Any, ...], rng: np.random.Generator) -> None:
    """The walk gives the same by value and by symbol, and what it emits can be batched and differentiated again.

    All but the walk by value is computed by one compiled function, because compiling is what takes the time.
    """
    inputs = p.xs + cts
    n = len(p.xs)
    vs = tuple(random_like(x, rng) for x in inputs)
    second_cts = tuple(random_like(x, rng) for x in p.xs)

    def derivative(side):
        return lambda *inputs: side(p.fn, inputs[:n], inputs[n:])

    @jax.jit
    def everything(inputs, vs, second_cts):
        ours, theirs = derivative(our_vjp), derivative(jax_vjp)
        around = [jnp.stack([x, x + STEP * v, x - STEP * v]) for x, v in zip(inputs, vs, strict=True)]
        found = {"first": ours(*inputs), "batch": jax.vmap(ours)(*around)}
        if case.highest > 1:
            found["second"] = our_vjp(ours, inputs, second_cts)
        if case.smooth:
            found["first, direction"] = pairing(found["first"], vs[:n])
            found["first, differences"] = pairing(cts, slopes(jax.vmap(p.fn)(*around[:n])))
        if case.smooth and case.highest > 1:
            found["second, direction"] = pairing(found["second"], vs)
            found["second, differences"] = pairing(second_cts, slopes(found["batch"]))
        if case.order > 0:
            found["first, JAX"] = theirs(*inputs)
        if case.order > 1:
            found["second, JAX"] = jax_vjp(theirs, inputs, second_cts)
        return found

    found = everything(inputs, vs, second_cts)
    first = found["first"]
    agree("first order, by value and by symbol: cotangent", our_vjp(p.fn, p.xs, cts), first, case.rtol)
    agree("first order, in a batch and alone: cotangent", [ct[0] for ct in found["batch"]], first, case.rtol)
    for what in ("first", "second"):
        if f"{what}, JAX" in found:
            agree(f"{what} order: cotangent", found[what], found[f"{what}, JAX"], case.rtol)
        if f"{what}, direction" in found:
            near(f"{what} order", found[f"{what}, direction"], found[f"{what}, differences"], case.rtol)


def check_each_result(case: Case, p: Problem, cts: tuple[Any, ...]) -> None:
    """Where there are several results, a cotangent of one alone, the others being zero, is right as well."""
    for i in range(len(cts) if len(cts) > 1 and case.order > 0 else 0):
        only = [ct if i == j else None for j, ct in enumerate(cts)]
        zeros = [ct if i == j else jnp.zeros_like(ct) for j, ct in enumerate(cts)]
        theirs = jax.jit(lambda xs, cts: jax_vjp(p.fn, xs, cts))(p.xs, zeros)
        agree(f"result {i} alone: cotangent", our_vjp(p.fn, p.xs, only), theirs, case.rtol)


def check_dtype(case: Case, dtype: str) -> None:
    """In another precision every cotangent, also of the derivative, has its operand's dtype (asserted by our_vjp)."""
    p = problem(case, dtype)
    rng = np.random.default_rng(3)
    cts = tuple(random_like(out, rng) for out in jax.eval_shape(p.fn, *p.xs))

    def derivative(*inputs):
        return our_vjp(p.fn, inputs[: len(p.xs)], inputs[len(p.xs) :])

    if case.highest > 1:
        jax.make_jaxpr(lambda *inputs: our_vjp(derivative, inputs, p.xs))(*p.xs, *cts)
    else:
        jax.make_jaxpr(derivative)(*p.xs, *cts)
