"""Holds a pass to its promise: the same types, and the same values on random inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from twograd._compat import evaluating
from twograd.errors import PassError
from twograd.graph.passes.report import PassReport
from twograd.graph.transform import evaluate


def check_types(name: str, before: ClosedJaxpr, outcome: Any) -> None:
    """Raises PassError unless ``outcome`` is a jaxpr with the same inputs and outputs, and a report."""
    types = [type(part) for part in outcome] if isinstance(outcome, tuple) else []
    if types != [ClosedJaxpr, PassReport]:
        raise PassError(name, f"must return a pair (ClosedJaxpr, PassReport), got {type(outcome).__name__}")
    after = outcome[0]
    for kind, old, new in (("input", before.in_avals, after.in_avals), ("output", before.out_avals, after.out_avals)):
        if len(old) != len(new):
            raise PassError(name, f"changed the number of {kind}s from {len(old)} to {len(new)}")
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            if was != now:
                raise PassError(name, f"changed the type of {kind} {index} from {described(was)} to {described(now)}")


def described(aval: Any) -> str:
    return aval.str_short() + (" (weakly typed)" if getattr(aval, "weak_type", False) else "")


def check_values(name: str, before: ClosedJaxpr, after: ClosedJaxpr) -> None:
    """Raises PassError where the two programs, evaluated equation by equation on random inputs, do not agree.

    Integers and booleans must be equal. Real and complex numbers may differ, relative to the largest of an array, by
    the 2/3 power of the rounding unit: inlining lets a body be rounded as a whole or piece by piece.
    """
    rng = np.random.default_rng(0)
    with evaluating():
        inputs = [random_value(aval, rng) for aval in before.in_avals]
        expected = evaluate(before.jaxpr, before.consts, inputs)
        try:
            found = evaluate(after.jaxpr, after.consts, inputs)
        except Exception as error:
            raise PassError(name, f"left a program that does not run ({error})") from error
    for index, (old, new) in enumerate(zip(expected, found, strict=True)):
        error, allowed = difference(old, new)
        if not error <= allowed:
            raise PassError(name, f"changed the values of output {index} on random inputs, by up to {error:.3g}")


def difference(old: Any, new: Any) -> tuple[float, float]:
    """The largest difference of two arrays, and the one that rounding explains; where both are NaN they agree."""
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        old, new = jax.random.key_data(old), jax.random.key_data(new)
    old, new = np.asarray(old), np.asarray(new)
    if not jnp.issubdtype(old.dtype, np.inexact):
        return float(np.count_nonzero(old != new)), 0.0
    unit = float(jnp.finfo(old.dtype).eps)
    wide = np.complex128 if np.iscomplexobj(old) else np.float64
    old, new = old.astype(wide), new.astype(wide)
    alike = (old == new) | (np.isnan(old) & np.isnan(new))
    if not (np.isfinite(old) & np.isfinite(new))[~alike].all():
        return np.inf, 0.0
    largest = np.abs(old[np.isfinite(old)]).max(initial=0.0)
    return np.abs(old - new)[~alike].max(initial=0.0), unit ** (2 / 3) * largest


def random_value(aval: Any, rng: np.random.Generator) -> Any:
    """Normal numbers, booleans, keys, or small counts: what may be an index or the length of a loop stays low."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        numbers = rng.integers(0, 100, aval.size, dtype=np.uint32)
        return jax.vmap(jax.random.fold_in)(jnp.zeros(aval.size, aval.dtype), numbers).reshape(aval.shape)
    if aval.dtype == jax.dtypes.float0:
        return np.zeros(aval.shape, aval.dtype)
    if not jnp.issubdtype(aval.dtype, np.inexact):
        high = 2 if aval.dtype == np.bool_ else 4
        return jnp.asarray(rng.integers(0, high, aval.shape), aval.dtype)
    values = rng.standard_normal(aval.shape)
    if jnp.issubdtype(aval.dtype, np.complexfloating):
        values = values + 1j * rng.standard_normal(aval.shape)
    return jnp.asarray(values, aval.dtype)
