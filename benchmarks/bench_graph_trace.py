"""How long do tracing and transforming take, against JAX's own tracing of its gradient?

Every sample differentiates a new function object, because JAX keeps what it traced by the function's identity.
"""

import jax
from _bench import against, summary
from _programs import PROGRAMS

from twograd import graph


def main() -> None:
    ratios = []
    for title, make in PROGRAMS.items():
        loss, params, batch = make()

        def trace(value_and_grad, loss=loss, params=params, batch=batch):
            def fresh(params, batch):
                return loss(params, batch)

            return jax.jit(value_and_grad(fresh)).trace(params, batch)

        ratios.append(against(title, lambda t=trace: t(graph.value_and_grad), lambda t=trace: t(jax.value_and_grad)))
    summary("trace and transform, twograd.graph / JAX", ratios, goal=0.7)


if __name__ == "__main__":
    main()
