"""What makes the tape and the graph compile again? Counts XLA compilations, by JAX's own monitoring events.

A new value, a varying Python number and a second pass over the same shapes must not; a new shape must.
"""

import jax
import numpy as np

import twograd.numpy as tnp
from twograd import graph, tape

EVENT = "/jax/core/compile/backend_compile_duration"
compilations: list[float] = []


def count(event: str, duration: float, **_: object) -> None:
    if event == EVENT:
        compilations.append(duration)


def program(x, scale):
    return tnp.sum(tnp.tanh(x * scale) ** 3)


def on_tape(x: np.ndarray, scale: float) -> None:
    leaf = tape.tensor(x, requires_grad=True)
    program(leaf, scale).backward()


def main() -> None:
    jax.monitoring.register_event_duration_secs_listener(count)
    gradient = graph.grad(program)
    rng = np.random.default_rng(0)
    draw = [rng.standard_normal(8).astype(np.float32) for _ in range(20)]
    failures = 0
    for name, call in {"tape": on_tape, "graph": gradient}.items():
        for what, inputs, expected in (
            ("first pass", [(draw[0], 1.5)], None),
            ("second pass", [(draw[0], 1.5)], 0),
            ("20 new values", [(x, 1.5) for x in draw], 0),
            ("20 Python numbers", [(draw[0], 0.1 * i) for i in range(1, 21)], 0),
            ("a new shape", [(draw[0][:5], 1.5)], None),
        ):
            compilations.clear()
            for x, scale in inputs:
                call(x, scale)
            found = len(compilations)
            wrong = expected is not None and found != expected
            failures += wrong
            print(f"{name:6} {what:20} {found:3} compilations{'   EXPECTED ' + str(expected) if wrong else ''}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
