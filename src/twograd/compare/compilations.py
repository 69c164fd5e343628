"""How often XLA compiles: counted by JAX's own monitoring, and so alike for every engine that stands on JAX.

with compilations() as found:
    f(x)
found.count, found.seconds
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax.monitoring

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
