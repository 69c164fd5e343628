"""Programs of other libraries, unchanged: values and gradients are jax.grad's, to second order and in batches.

The programs are those of ``benchmarks/_libraries.py`` at small sizes. One whose library is not installed is skipped, by
name.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _libraries import LIBRARIES

from graph.same import same
from twograd import graph

FIRST_ORDER_ONLY = {"diffrax ODE"}  # its checkpointed solver has a reverse mode of its own, which has none in turn
QUICK = {"equinox GRU", "haiku LSTM", "Kalman filter"}
BATCHED = {"equinox GRU", "optax CTC loss", "Gaussian process"}
"""Compiling is what takes the time."""


def program(name):
    try:
        return LIBRARIES[name](1)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")


def marked(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def close(ours, theirs):
    """Near, relative to the largest of all: a bias before a normalisation has a gradient of rounding errors."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    scale = max(float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(theirs))
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(mine, other, rtol=2e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", marked(LIBRARIES))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_programs_of_other_libraries(name):
    loss, params, batch = program(name)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), params)

    def everything(engine):
        first = engine.value_and_grad(loss)

        def slope(params, batch):
            products = jax.tree.map(lambda g, t: jnp.sum(g * t), first(params, batch)[1], direction)
            return sum(jax.tree.leaves(products))

        @jax.jit
        def compute(params, batch):
            found = [first(params, batch)]
            if name not in FIRST_ORDER_ONLY:
                found.append(engine.grad(slope)(params, batch))
            if name in BATCHED:
                several = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), params)
                found.append(jax.vmap(first, (0, None))(several, batch))
            return found

        return compute(params, batch)

    for ours, theirs in zip(everything(graph), everything(jax), strict=True):
        close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["haiku LSTM", "optax unrolled Adam"])
def test_checkpoint_around_and_inside(name):
    """jax.checkpoint around a library's program, and around twograd's derivative of it; jax.grad of that derivative."""
    loss, params, batch = program(name)
    around = jax.checkpoint(graph.grad(loss))

    def norm(gradient):
        return lambda params: sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient(params, batch)))

    @jax.jit
    def everything(params):
        inside = graph.grad(jax.checkpoint(loss))(params, batch)
        ours = inside, around(params, batch), jax.grad(norm(around))(params)
        first = jax.grad(loss)(params, batch)
        return ours, (first, first, jax.grad(norm(jax.grad(loss)))(params))

    for ours, theirs in zip(*everything(params), strict=True):
        close(ours, theirs)


def test_odeint():
    """jax.experimental.ode: a while loop behind a custom derivative, which integrates backwards."""
    from jax.experimental.ode import odeint

    def f(w, y0):
        return jnp.sum(odeint(lambda y, t, w: jnp.sin(w @ y) * t, y0, jnp.array([0.0, 0.5, 1.0]), w) ** 2)

    w, y0 = jnp.array([[0.1, 0.9], [-0.8, 0.2]]), jnp.array([1.0, 0.5])
    same(graph.grad(f, (0, 1))(w, y0), jax.grad(f, (0, 1))(w, y0), rtol=1e-3)
