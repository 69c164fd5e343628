"""How fast does the compiled gradient run, against jax.jit(jax.value_and_grad)?"""

import jax
import numpy as np
from _bench import against, summary
from _programs import PROGRAMS

from twograd import graph


def main() -> None:
    ratios = []
    for title, make in PROGRAMS.items():
        loss, params, batch = jax.tree.map(lambda x: x, make())
        params, batch = jax.device_put((params, batch))
        ours, peer = (jax.jit(engine.value_and_grad(loss)) for engine in (graph, jax))
        for mine, theirs in zip(*(jax.tree.leaves(f(params, batch)) for f in (ours, peer)), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)

        def run(f, params=params, batch=batch):
            return jax.block_until_ready(f(params, batch))

        ratios.append(against(title, lambda f=ours, r=run: r(f), lambda f=peer, r=run: r(f)))
    summary("compiled gradient, twograd.graph / jax.jit(jax.value_and_grad)", ratios, goal=1.05)


if __name__ == "__main__":
    main()
