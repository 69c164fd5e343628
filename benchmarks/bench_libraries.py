"""The comparisons and programs of other libraries, against JAX: the gradient's run time, tracing, and bytes kept.

Needs `pip install 'twograd[libraries]'` and, for Haiku's programs, `pip install dm-haiku`; programs whose library is
missing are left out, and named.
"""

import jax
import numpy as np
from _bench import against, summary
from _comparisons import comparison_programs
from _libraries import LIBRARIES
from _saved import saved_bytes_by_jax, saved_bytes_by_twograd

from twograd import graph


def main() -> None:
    runs, traces, sizes = [], [], []
    comparisons = {name: lambda program=program: program for name, program in comparison_programs().items()}
    for title, make in (comparisons | LIBRARIES).items():
        try:
            loss, params, batch = make()
        except ImportError as error:
            print(f"{title}: left out, {error}")
            continue
        params, batch = jax.device_put((params, batch))
        ours, peer = (jax.jit(engine.value_and_grad(loss)) for engine in (graph, jax))
        for mine, theirs in zip(*(jax.tree.leaves(f(params, batch)) for f in (ours, peer)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-5)

        def run(f, params=params, batch=batch):
            return jax.block_until_ready(f(params, batch))

        def trace(value_and_grad, loss=loss, params=params, batch=batch):
            def fresh(params, batch):  # JAX keeps what it traced by the function's identity
                return loss(params, batch)

            return jax.jit(value_and_grad(fresh)).trace(params, batch)

        runs.append(against(f"{title}, run", lambda f=ours, r=run: r(f), lambda f=peer, r=run: r(f)))
        traces.append(
            against(f"{title}, trace", lambda t=trace: t(graph.value_and_grad), lambda t=trace: t(jax.value_and_grad))
        )
        kept = saved_bytes_by_twograd(loss, params, batch), saved_bytes_by_jax(loss, params, batch)
        sizes.append(kept[0] / kept[1])
        print(
            f"{title + ', kept':32} ours {kept[0] / 1e6:10.3f} MB   peer {kept[1] / 1e6:10.3f} MB   {sizes[-1]:11.2f}"
        )
    summary("run, twograd.graph / jax.jit(jax.value_and_grad)", runs, goal=1.03)
    summary("trace and transform, twograd.graph / JAX", traces, goal=0.6)
    summary("bytes kept, twograd.graph / JAX", sizes, goal=1.1)


if __name__ == "__main__":
    main()
