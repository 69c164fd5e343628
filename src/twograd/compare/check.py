"""Are the gradients right? Asked before anything is timed.

What flows in: a program, its inputs, and what each engine found. What flows out: records of the class
:class:`~twograd.compare.results.Check`. Read :func:`witnesses`, then :func:`examine`.

Two witnesses decide, both in float64 whatever the run's dtype: finite differences of the loss along random directions,
which use no derivative rule at all, and ``jax.grad``. The other engines are witnesses too, recorded but without a vote,
since a wrong one would convict the rest. Engines that share derivative rules are not independent evidence for each
other, and the records say which are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd.compare.engines import Engine
from twograd.compare.engines.protocol import Program
from twograd.compare.results import Check

FINITE_DIFFERENCES = "finite differences (float64)"
REFERENCE = "jax.grad (float64)"

DIRECTIONS = 2

STEP = 1e-6
"""Relative to the size of the parameters. The error is of the order of STEP ** 2 by truncation and of 2e-16 / STEP by
rounding; and a short step seldom crosses a kink (relu, max)."""


@dataclass(frozen=True)
class Tolerance:
    """An error may be ``rtol * |expected| + atol * scale``, where ``scale`` is the largest magnitude in the array (or,
    for an array that hardly matters, a thousandth of the largest in the whole gradient)."""

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"{self.rtol:.0e} of the value + {self.atol:.0e} of the array's largest"


TOLERANCES = {"float32": Tolerance(rtol=1e-4, atol=1e-5), "float64": Tolerance(rtol=1e-9, atol=1e-11)}

DIRECTIONAL_TOLERANCES = {"float32": 1e-4, "float64": 1e-6}
"""Of a directional derivative, relative to the root of the sum of the squares of its terms, which is its typical
magnitude; on top of it comes what finite differences say about their own error."""


@dataclass(frozen=True)
class Gradient:
    """A loss and the leaves of its gradient, as NumPy arrays, each leaf with its name in the parameters."""

    loss: float
    leaves: list[np.ndarray]
    names: list[str]

    @classmethod
    def of(cls, loss: Any, grads: Any) -> "Gradient":
        named = jax.tree.leaves_with_path(grads)
        names = [f"params{jax.tree_util.keystr(path)}" for path, _ in named]
        return cls(float(np.asarray(loss)), [np.asarray(leaf) for _, leaf in named], names)

    def not_finite(self) -> str:
        """Which values are NaN or infinite, in words; nothing where all are finite."""
        if not np.isfinite(self.loss):
            return f"the loss is {self.loss}"
        for name, leaf in zip(self.names, self.leaves, strict=True):
            bad = leaf.size - int(np.isfinite(leaf).sum())
            if bad:
                nan = int(np.isnan(leaf).sum())
                what = "NaN" if nan == bad else "infinite" if nan == 0 else "NaN or infinite"
                return f"{bad} of {leaf.size} values of the gradient of {name} are {what}"
        return ""

    def has_structure_of(self, other: "Gradient") -> bool:
        """Whether both have arrays of the same names and shapes."""
        return self.names == other.names and [x.shape for x in self.leaves] == [x.shape for x in other.leaves]


@dataclass(frozen=True)
class Directional:
    """The derivative of the loss along one direction, by the central difference.

    ``uncertainty`` is by how much the forward and the backward difference lie away from it: next to nothing where the
    loss is smooth, and as much as the slopes differ where there is a kink within the step.
    """

    direction: list[np.ndarray]
    derivative: float
    uncertainty: float


@dataclass(frozen=True)
class Witnesses:
    """What is known about the right gradient without asking an engine. ``gradient`` is None where JAX cannot say."""

    gradient: Gradient | None
    directionals: Sequence[Directional]


def witnesses(program: Program, inputs: tuple[Any, ...], rng: np.random.Generator) -> Witnesses:
    """The reference gradient and the finite differences of ``program``, written in jax.numpy, in float64."""
    with jax.enable_x64(True):
        params, *batch = jax.tree.map(lambda array: jnp.asarray(_widened(array)), inputs)
        loss = jax.jit(program)
        gradient = Gradient.of(*jax.jit(jax.value_and_grad(program))(params, *batch))
        leaves, treedef = jax.tree.flatten(params)

        def along(direction, step):
            moved = [leaf + step * d for leaf, d in zip(leaves, direction, strict=True)]
            return float(loss(jax.tree.unflatten(treedef, moved), *batch))

        directionals = []
        for _ in range(DIRECTIONS):
            direction = [rng.standard_normal(leaf.shape) * _typical_size(leaf) for leaf in leaves]
            behind, here, ahead = (along(direction, step) for step in (-STEP, 0.0, STEP))
            central = (ahead - behind) / (2 * STEP)
            directionals.append(Directional(direction, central, abs(ahead - 2 * here + behind) / (2 * STEP)))
    return Witnesses(gradient, directionals)


def unsteady(program: Program, inputs: tuple[Any, ...]) -> str:
    """Why there is no gradient to agree on: that ``program`` returned two values for the same inputs. Or nothing."""
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda array: jnp.asarray(_widened(array)), inputs)
        first, again = (float(program(*arrays)) for _ in range(2))
    if np.isclose(first, again, rtol=1e-9, atol=0, equal_nan=True):
        return ""
    return (
        f"the program returned {first:.6g} and then {again:.6g} for the same inputs, so no gradient can be agreed on; "
        "has it random numbers of its own (make them in inputs, with rng), or does it keep something from call to call?"
    )


def examine(
    engine: Engine, found: Gradient, known: Witnesses, others: Mapping[str, tuple[Engine, Gradient]], dtype: str
) -> tuple[list[Check], str]:
    """All checks of one engine's gradient, and why it is refused, or nothing where it stands."""
    bad = found.not_finite()
    if bad:
        return [], f"{bad}; nothing is timed on such values"
    checks = []
    if known.gradient is not None:
        checks.append(against(REFERENCE, engine.family != "jax", found, known.gradient, dtype))
        if found.has_structure_of(known.gradient):
            checks.append(along_directions(found, known.directionals, dtype))
    failed = [check for check in checks if check.passed is False]
    heard = {"jax"} if known.gradient is not None else set()
    for name, (other, gradient) in others.items():  # one of each family: the next would only repeat it
        if other is not engine and other.family not in heard and not gradient.not_finite():
            heard.add(other.family)
            checks.append(against(name, other.family != engine.family, found, gradient, dtype))
    reason = "; ".join(f"differs from {c.witness} by {c.max_rel:.1e} ({c.note})" for c in failed)
    return checks, reason


def against(witness: str, independent: bool, found: Gradient, expected: Gradient, dtype: str) -> Check:
    """One gradient against another, value by value. ``max_rel`` is relative to the array's scale (see Tolerance)."""
    tolerance = TOLERANCES[dtype]
    if not found.has_structure_of(expected):
        note = "the gradients differ in structure or shapes"
        return Check(witness, independent, False, np.inf, np.inf, np.inf, str(tolerance), note)
    bad = expected.not_finite()
    if bad:
        return Check(witness, independent, False, np.nan, np.nan, np.nan, str(tolerance), f"there {bad}")
    floor = 1e-3 * max((_largest(leaf) for leaf in expected.leaves), default=0.0)
    max_abs, max_rel, max_ulps, worst, passed = 0.0, 0.0, 0.0, "", True
    for name, x, y in zip(expected.names, found.leaves, expected.leaves, strict=True):
        if y.size == 0:
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        error, scale = np.abs(x - y), max(_largest(y), floor)
        passed = passed and bool(np.all(error <= tolerance.rtol * np.abs(y) + tolerance.atol * scale))
        relative = float(error.max() / scale) if scale else float(error.max() > 0)
        if relative >= max_rel:
            max_rel, worst = relative, name
        max_abs = max(max_abs, float(error.max()))
        # Below a thousandth of the scale, units in the last place measure cancellation and nothing else.
        max_ulps = max(max_ulps, float(np.max(error / np.spacing(np.maximum(np.abs(y), 1e-3 * scale).astype(dtype)))))
    return Check(witness, independent, passed, max_abs, max_rel, max_ulps, str(tolerance), f"largest in {worst}")


def along_directions(found: Gradient, directionals: Sequence[Directional], dtype: str) -> Check:
    """A gradient's directional derivatives against finite differences."""
    rtol = DIRECTIONAL_TOLERANCES[dtype]
    tolerance = f"{rtol:.0e} of the terms' root sum of squares + the finite differences' own error"
    max_abs, max_rel, passed, uncertain = 0.0, 0.0, True, 0.0
    for known in directionals:
        if not np.isfinite(known.derivative):
            note = f"the finite difference itself is {known.derivative}: the loss is not finite near these parameters"
            return Check(FINITE_DIFFERENCES, True, False, np.nan, np.nan, None, tolerance, note)
        terms = [x.astype(np.float64) * d for x, d in zip(found.leaves, known.direction, strict=True)]
        derivative = sum(float(t.sum()) for t in terms)
        error = abs(derivative - known.derivative)
        scale = max(sum(float(np.sum(t * t)) for t in terms) ** 0.5, abs(known.derivative))
        passed = passed and error <= rtol * scale + 2 * known.uncertainty
        uncertain = max(uncertain, known.uncertainty / scale if scale else 0.0)
        max_abs, max_rel = max(max_abs, error), max(max_rel, error / scale if scale else float(error > 0))
    note = f"{len(directionals)} random directions"
    if uncertain > 1e-2:  # a kink of the loss lies within the step
        return Check(FINITE_DIFFERENCES, True, None, max_abs, max_rel, None, tolerance, f"{note}; across a kink")
    return Check(FINITE_DIFFERENCES, True, passed, max_abs, max_rel, None, tolerance, note)


def _largest(leaf: np.ndarray) -> float:
    return float(np.abs(leaf).max(initial=0.0))


def _typical_size(leaf: Any) -> float:
    """The root mean square of a parameter, or 1 for one that starts at zero."""
    return (float(jnp.sqrt(jnp.mean(leaf * leaf))) if leaf.size else 0.0) or 1.0


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
