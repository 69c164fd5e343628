"""A small comparison and an engine that is wrong, which the tests of the harness share."""

import numpy as np

from twograd.compare import Comparison, grid
from twograd.compare.engines import jax_engines


def quadratic(**changes):
    """sum(x * w * w): its gradient in w is 2 x w."""

    def inputs(rng, *, size):
        return {"w": rng.standard_normal(size)}, rng.standard_normal(size)

    def loss(ops, params, x):
        return ops.np.sum(x * params["w"] * params["w"])

    return Comparison(**{"inputs": inputs, "loss": loss, "cases": grid(size=(3,)), **changes})


class Wrong(jax_engines.JaxEager):
    """jax.value_and_grad whose gradients are changed by ``spoil`` on the way out."""

    name = "jax-eager"
    family = "twograd"

    @staticmethod
    def spoil(leaf):
        return leaf * np.float32(1.001)

    def numpy(self, tree):
        loss, grads = super().numpy(tree)
        return loss, {key: self.spoil(leaf) for key, leaf in grads.items()}
