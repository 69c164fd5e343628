"""How often XLA compiles: counted by JAX's own monitoring, and so alike for every engine that stands on JAX.

with compilations() as found:
    f(x)
found.count, found.seconds

:func:`two_passes` is what a stream of inputs costs, and what it costs when it comes again.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.monitoring
import numpy as np

from twograd.compare.engines import Engine

EVENT = "/jax/core/compile/backend_compile_duration"


@dataclass
class Compilations:
    """How many programs XLA compiled, and how long it took for that; tracing and lowering are not in it."""

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """Counts the compilations of the block, in all threads."""
    found = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == EVENT:
            found.count += 1
            found.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def two_passes(
    engine: Engine, program: Any, params: Any, stream: Sequence[tuple[Any, ...]]
) -> tuple[list[int | float], np.ndarray]:
    """Gradients of ``program(params, *inputs)`` for all inputs of a stream, twice, from empty caches.

    Returns the compilations and the seconds of the first pass, and those of the second; and the losses.
    """
    params, stream = engine.arrays(params), [engine.arrays(inputs) for inputs in stream]
    jax.clear_caches()
    value_and_grad, passes, losses = engine.value_and_grad(program), [], []
    for _ in range(2):
        with compilations() as found:
            start = time.perf_counter()
            losses = [float(engine.numpy(value_and_grad(params, *inputs))[0]) for inputs in stream]
            passes += [found.count, time.perf_counter() - start]
    return passes, np.array(losses)
