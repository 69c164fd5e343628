"""Small comparisons and stand-in engines that the tests of the harness share."""

import dataclasses

import numpy as np
import pytest

from twograd.compare import Comparison, grid
from twograd.compare.engines import jax_engines
from twograd.compare.program import Declaration
from twograd.compare.results import Settings


def quadratic(**changes):
    """sum(x * w * w): its gradient in w is 2 x w."""

    def inputs(rng, *, size):
        return {"w": rng.standard_normal(size)}, rng.standard_normal(size)

    def loss(ops, params, x):
        return ops.np.sum(x * params["w"] * params["w"])

    return Comparison(**{"inputs": inputs, "loss": loss, "cases": grid(size=(3,)), **changes})


@pytest.fixture
def settings():
    """Checks only: compiling for the clock is what takes time here."""
    return Settings(quick=True, timed=False, engines=["jax-eager", "autograd"])


@pytest.fixture
def timed(settings):
    return dataclasses.replace(settings, timed=True, min_time=0.002, min_rounds=3, warmup_cap=0.01)


@pytest.fixture
def declare(tmp_path):
    """Writes a comparison file and returns its declaration."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return Declaration(name, path, "A question?", "", text)

    return write


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
