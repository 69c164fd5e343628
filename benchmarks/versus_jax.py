"""Compiled pullbacks of one function, twograd's and JAX's, timed in interleaved rounds of one process.

Used by the ``bench_*.py`` scripts beside it. A ratio under 1 means that twograd's is faster.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from twograd import graph
from twograd.compare import stats
from twograd.compare.timing import Plan, measure

PLAN = Plan(min_time=0.2, min_rounds=15, max_time=1.0, warmup_cap=0.3)


def normal(*shape: int) -> Any:
    """Normal float32 numbers, the same for the same shape."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def print_ratios(cases: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...], int]]) -> None:
    """For each ``name: (fn, operands, position)`` a line with the time of the pullback for the operand there."""
    print(f"{'pullback':44} {'twograd':>10} {'JAX':>10} {'ratio':>6}   95 % interval")
    for name, (fn, operands, position) in cases.items():
        measurements = measure(subjects(fn, operands, position), PLAN)
        ratio = stats.ratio(measurements["twograd"], measurements["JAX"])
        times = " ".join(f"{measurements[who].median * 1e3:7.2f} ms" for who in ("twograd", "JAX"))
        print(f"{name:44} {times} {ratio.estimate:6.2f}   {ratio.low:.2f} to {ratio.high:.2f}", flush=True)


def subjects(fn: Callable[..., Any], operands: tuple[Any, ...], position: int) -> dict[str, Callable[[], Any]]:
    """The two compiled pullbacks at the operands, after a check that they agree."""

    def of_one(x, *others):
        return fn(*others[:position], x, *others[position:])

    x, others = operands[position], operands[:position] + operands[position + 1 :]
    ct = normal(*jax.eval_shape(of_one, x, *others).shape)

    def pullback(vjp):
        compiled = jax.jit(lambda ct, x, *others: vjp(lambda x: of_one(x, *others), x)[1](ct)[0])
        return lambda: jax.block_until_ready(compiled(ct, x, *others))

    ours, theirs = pullback(graph.vjp), pullback(jax.vjp)
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-3, atol=1e-3 * float(abs(theirs()).max()))
    return {"twograd": ours, "JAX": theirs}
