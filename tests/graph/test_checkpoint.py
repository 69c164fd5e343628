"""``jax.checkpoint``: derivatives are those without it, and what is kept is what the policy says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from graph.same import same
from twograd import graph
from twograd.graph.split import split_vjp

W = np.linspace(-0.7, 0.9, 9, dtype=np.float32).reshape(3, 3)
X = np.float32([0.3, -0.2, 0.5])

policies = jax.checkpoint_policies
OFFLOAD = policies.save_and_offload_only_these_names(
    names_which_can_be_saved=["sin"],
    names_which_can_be_offloaded=["exp"],
    offload_src="device",
    offload_dst="pinned_host",
)
POLICIES = {
    "none": None,
    "nothing": policies.nothing_saveable,
    "everything": policies.everything_saveable,
    "dots": policies.dots_saveable,
    "one name": policies.save_only_these_names("sin"),
    "two names": policies.save_only_these_names("sin", "exp"),
    "any names but these": policies.save_any_names_but_these("sin"),
    "dots and names": policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names("exp")
    ),
}


def f(w, x):
    h = checkpoint_name(jnp.sin(w @ x), "sin")
    h = checkpoint_name(jnp.exp(jnp.tanh(w @ h)), "exp")
    return jnp.sum(jax.nn.silu(w @ h) * x)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_derivatives(policy):
    @jax.jit
    def everything(w, x):
        def orders(engine, f):
            first = engine.value_and_grad(f, (0, 1))
            second = engine.grad(lambda w, x: sum(map(jnp.sum, map(jnp.cos, first(w, x)[1]))), (0, 1))
            return first(w, x), second(w, x), jax.vmap(first, (None, 0))(w, jnp.stack([x, 2 * x]))

        return orders(graph, jax.checkpoint(f, policy=policy)), orders(jax, f)

    ours, theirs = everything(W, X)
    same(ours, theirs, rtol=1e-4)


def kept(policy, f=f):
    closed = jax.make_jaxpr(jax.checkpoint(f, policy=policy))(W, X)
    split = split_vjp(closed, (True, True))
    return len([i for i in split.saved if i >= 2])


def test_what_is_kept():
    """A value that is named stands for those that lead to it."""
    assert kept(None) == kept(policies.nothing_saveable) == 0
    assert kept(policies.dots_saveable) == 3
    assert kept(policies.save_only_these_names("sin")) == 1
    assert kept(policies.save_only_these_names("sin", "exp")) == 2
    assert kept(policies.save_only_these_names("no such name")) == 0
    assert kept(policies.everything_saveable) >= 4


def test_what_must_be_computed_again_anyway_is_not_kept():
    """One result of an equation is named, another is not, so that the equation is evaluated again for that one."""

    def f(w, x):
        a, b = jax.lax.sort((x, w[0]), num_keys=1)
        return jnp.sum(jnp.sin(checkpoint_name(a, "sorted")) * jnp.cos(b))

    policy = policies.save_only_these_names("sorted")
    assert kept(policy, f) == 0
    remat = jax.checkpoint(f, policy=policy)
    same(graph.grad(remat, (0, 1))(W, X), jax.grad(f, (0, 1))(W, X), rtol=1e-4)


def test_offloaded_values_move_there_and_back():
    remat = jax.checkpoint(f, policy=OFFLOAD)
    closed = jax.make_jaxpr(graph.grad(remat))(W, X)
    there = [eqn for eqn in closed.eqns if eqn.primitive.name == "device_put"]
    assert len(there) == 1
    assert "<host>" in str(there[0].outvars[0].aval)
    same(graph.grad(remat)(W, X), jax.grad(f)(W, X), rtol=1e-4)


@pytest.mark.parametrize("prevent_cse", [True, False, (True, False)])
def test_what_is_computed_again_is_computed_again(prevent_cse):
    """The barrier stands before what XLA could merge, where it is asked for."""
    remat = jax.checkpoint(f, prevent_cse=prevent_cse)
    barriers = jax.jit(graph.grad(remat)).lower(W, X).as_text().count("optimization_barrier")
    assert bool(barriers) == (prevent_cse is not False)
    same(graph.grad(remat, (0, 1))(W, X), jax.grad(f, (0, 1))(W, X), rtol=1e-4)


def test_constants_of_the_body():
    table = np.arange(3, dtype=np.float32)
    remat = jax.checkpoint(lambda x: jnp.sum(jnp.sin(x * table) * jnp.exp(x)), policy=policies.everything_saveable)
    same(graph.grad(remat)(X), jax.grad(remat)(X))
    same(graph.hessian(remat)(X), jax.hessian(remat)(X))


def test_checkpoint_keeps_less_memory():
    """Of a chain of layers, each its input only."""

    def layers(remat):
        def f(x):
            for _ in range(8):
                x = remat(lambda x: jnp.sin(jnp.exp(jnp.sin(x))))(x)
            return jnp.sum(x)

        return graph.trace(f, X).gradients().stats().saved_bytes

    assert layers(jax.checkpoint) == 8 * X.nbytes
    assert layers(lambda f: f) == 16 * X.nbytes
