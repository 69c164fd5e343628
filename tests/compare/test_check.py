"""The gradient check: it passes what is right, and refuses each way of being wrong, by name."""

import jax.numpy as jnp
import numpy as np
import pytest
from stand_ins import Wrong

from twograd.compare import check
from twograd.compare.engines import create
from twograd.compare.engines.jax_engines import JaxEager

X = np.array([0.5, -1.0, 2.0], np.float32)


def program(params, x):
    return jnp.sum(jnp.sin(params["w"]) * x) + params["b"]


def params():
    return {"w": np.array([0.1, 0.7, -0.4], np.float32), "b": np.float32(0.0)}


def right():
    w = params()["w"]
    return check.Gradient.of(np.float32(0.1), {"w": X * np.cos(w), "b": np.float32(1.0)})


def changed(**leaves):
    grads = {"w": X * np.cos(params()["w"]), "b": np.float32(1.0)} | leaves
    return check.Gradient.of(np.float32(0.1), grads)


@pytest.fixture(scope="module")
def known():
    return check.witnesses(program, (params(), X), np.random.default_rng(0))


def examine(found, known, others=None, dtype="float32"):
    return check.examine(JaxEager(), found, known, others or {}, dtype)


def test_a_right_gradient_passes_both_oracles(known):
    checks, reason = examine(right(), known)
    assert reason == ""
    assert [(c.witness, c.passed) for c in checks] == [(check.REFERENCE, True), (check.FINITE_DIFFERENCES, True)]
    assert checks[0].max_rel < 1e-6
    assert checks[0].max_ulps is not None
    assert 0 <= checks[0].max_ulps < 4
    assert checks[1].max_ulps is None


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
def test_a_wrong_value_is_refused_by_both_oracles(known, factor):
    checks, reason = examine(changed(b=np.float32(factor)), known)
    assert [c.passed for c in checks] == [False, False]
    assert check.REFERENCE in reason
    assert "params['b']" in reason


def test_an_error_that_float32_hides_shows_in_float64(known):
    grads = {name: leaf * (1 + 1e-7) for name, leaf in zip("bw", known.gradient.leaves, strict=True)}
    found = check.Gradient.of(0.1, grads)
    assert examine(found, known, dtype="float32")[1] == ""
    assert check.REFERENCE in examine(found, known, dtype="float64")[1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.array([np.nan, 1, np.nan], np.float32), "2 of 3 values of the gradient of params['w'] are NaN"),
        (np.array([np.inf, 1, 1], np.float32), "1 of 3 values of the gradient of params['w'] are infinite"),
        (np.array([np.inf, np.nan, 1], np.float32), "2 of 3 values of the gradient of params['w'] are NaN or infinite"),
    ],
)
def test_nan_is_refused_with_its_place(known, bad, words):
    checks, reason = examine(changed(w=bad), known)
    assert checks == []
    assert words in reason


def test_a_loss_that_is_nan_is_refused(known):
    gradient = check.Gradient.of(np.float32(np.nan), {"w": X, "b": np.float32(1.0)})
    assert "the loss is nan" in examine(gradient, known)[1]


def test_nan_in_the_oracle_is_a_failure_and_not_agreement():
    bad = check.witnesses(lambda p, x: jnp.sum(jnp.sqrt(p["w"])) + p["b"], (params(), X), np.random.default_rng(0))
    checks, reason = examine(right(), bad)
    assert [c.passed for c in checks] == [False, False]
    assert "the finite difference itself is nan" in reason
    assert "there the loss is nan" in reason


def test_a_missing_leaf_is_a_failure(known):
    checks, reason = examine(check.Gradient.of(np.float32(0.1), {"w": X * np.cos(params()["w"])}), known)
    assert [c.passed for c in checks] == [False]
    assert "structure" in reason


def test_finite_differences_use_no_derivative_rule():
    """A custom gradient that is wrong deceives jax.grad; finite differences still tell."""
    import jax

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (2 * ct * jnp.cos(x),))
    inputs = ({"w": X, "b": np.float32(0.0)}, X)
    known = check.witnesses(lambda p, x: jnp.sum(f(p["w"])) + p["b"], inputs, np.random.default_rng(0))
    found = check.Gradient.of(np.float32(0.0), {"w": 2 * np.cos(X), "b": np.float32(1.0)})
    checks, reason = examine(found, known)
    assert [c.passed for c in checks] == [True, False]
    assert "finite differences" in reason


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_on_a_kink_finite_differences_abstain(slope):
    """The derivative of max(w, 1) at 1 is whatever a library says; only jax.grad, which says 0.5, has a view."""
    inputs = ({"w": np.array([1.0], np.float32)},)
    known = check.witnesses(lambda p: jnp.sum(jnp.maximum(p["w"], 1.0)), inputs, np.random.default_rng(0))
    checks, _ = examine(check.Gradient.of(np.float32(1.0), {"w": np.array([slope], np.float32)}), known)
    assert {c.witness: c.passed for c in checks} == {check.REFERENCE: slope == 0.5, check.FINITE_DIFFERENCES: None}
    assert "kink" in checks[1].note


def test_finite_differences_of_a_smooth_loss_are_sure(known):
    for directional in known.directionals:
        assert directional.uncertainty < 1e-5 * abs(directional.derivative)


def test_small_arrays_beside_large_ones_are_checked_on_their_own_scale():
    expected = check.Gradient.of(1.0, {"large": np.array([1e3]), "small": np.array([2.0])})
    found = check.Gradient.of(1.0, {"large": np.array([1e3]), "small": np.array([2.001])})
    assert check.against("x", True, found, expected, "float32").passed is False


def test_engines_of_one_family_are_not_independent(known):
    ours, autograd, torch = Wrong(), create("autograd"), create("torch")
    others = {"tape": (ours, right()), "autograd": (autograd, right()), "torch": (torch, right())}

    def independent(engine):
        checks, _ = check.examine(engine, right(), known, others, "float32")
        return {c.witness: c.independent for c in checks}

    oracles = {check.REFERENCE: True, check.FINITE_DIFFERENCES: True}
    peers = {"autograd": True, "torch": True}
    assert independent(Wrong()) == {**oracles, "tape": False, **peers}
    assert independent(JaxEager()) == {**oracles, check.REFERENCE: False, "tape": True, **peers}


def test_a_family_is_heard_once(known):
    others = {"tape": (Wrong(), right()), "graph": (Wrong(), right()), "jax-jit": (JaxEager(), right())}
    checks, _ = check.examine(create("autograd"), right(), known, others, "float32")
    assert [c.witness for c in checks] == [check.REFERENCE, check.FINITE_DIFFERENCES, "tape"]


def test_another_engine_has_no_vote(known):
    """One wrong engine must not convict the right ones."""
    checks, reason = examine(right(), known, {"wrong": (Wrong(), changed(b=np.float32(5.0)))})
    assert checks[-1].passed is False
    assert reason == ""
