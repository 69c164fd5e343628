"""The graph that is deployed: what goes, why, and that what stays computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graph.same import raises, same
from twograd import graph
from twograd.errors import StripError
from twograd.graph import strip as module

X = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)
P = {"b": np.ones(3, np.float32), "w": np.linspace(0.0, 1.0, 3, dtype=np.float32)}
KEY = jax.random.key(0)


def model(p, x):
    return jax.nn.relu(x * p["w"] + p["b"])


def loss(p, x, key):
    kept = jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.mean((model(p, x) * kept) ** 2)


def step(gradient):
    def train(p, momentum, x, key):
        value, g = gradient(loss)(p, x, key)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, g)
        return jax.tree.map(lambda p, m: p - 0.1 * m, p, momentum), momentum, value, model(p, x)

    return train


@pytest.fixture(scope="module")
def trained():
    return graph.trace(step(graph.value_and_grad), P, P, X, KEY)


def test_a_training_step_becomes_a_model(trained):
    deployed = trained.strip("result[3]")
    assert deployed.inputs == ("p['b']", "p['w']", "x")
    assert deployed.outputs == ("result[3]",)
    same(deployed.run(P, X), jax.jit(model)(P, X))
    assert deployed.stats().order == 0
    report = deployed.reports[-1]
    assert report.checked
    assert {item.reason for item in report.removed} >= {
        "gradient",
        "optimiser update",
        "dropout and random bits",
        "loss",
    }
    by_reason = {item.reason: item for item in report.removed}
    assert "random_bits" in by_reason["dropout and random bits"].primitives
    assert set(by_reason["optimiser update"].primitives) == {"mul", "add", "sub"}
    assert by_reason["optimiser update"].equations == 8
    assert report.inputs == {"momentum['b']": 12, "momentum['w']": 12, "key": 8}
    assert "result[2]" in report.outputs
    assert "kept outputs: equal to 0 ulp" in str(report)


def test_gradients_of_jax_are_gradients_too():
    theirs = graph.trace(step(jax.value_and_grad), P, P, X, KEY)
    report = theirs.strip(-1, check=False).reports[-1]
    reasons = {item.reason for item in report.removed}
    assert {"gradient", "optimiser update", "loss"} <= reasons
    assert theirs.strip(check=False).outputs == ("result[2]", "result[3]")


def test_by_default_the_derivative_goes():
    g = graph.trace(lambda x: {"s": jnp.sum(jnp.sin(x)), "c": jnp.cos(x)}, X)
    again = g.gradients("result['s']", "x").strip(check=False)
    same(again.run(X), g.run(X))
    assert again.stats().derivative_equations == 0
    assert graph.trace(loss, P, X, KEY).value_and_grad().strip(check=False).out_tree == jax.tree.structure(0)


def test_an_output_that_is_an_identity_survives():
    g = graph.trace(lambda x, y: (jax.lax.optimization_barrier(x), jax.lax.stop_gradient(y), x * y), X, X)
    kept = g.strip([1, 0])
    assert kept.outputs == ("result[1]", "result[0]")
    assert kept.stats().equations == 0
    same(kept.run(X, 2 * X), (jnp.asarray(2 * X), jnp.asarray(X)))
    assert "identity" in {item.reason for item in kept.reports[-1].removed}


def test_rules_and_remat_are_opened_and_partly_needed_arguments_keep_their_place():
    def f(p, q):
        return jax.checkpoint(jnp.sin)(jax.nn.softplus(p[1])) + 0 * q["a"]

    g = graph.trace(f, [X, X, X], {"a": X, "b": X})
    deployed = g.strip()
    assert deployed.in_tree == jax.tree.structure((([None, 0, None], {"a": 0, "b": None}), {}))
    same(deployed.run([None, X, None], {"a": X, "b": None}), jax.jit(g.run)([X, X, X], {"a": X, "b": X}))
    assert not {"custom_jvp_call", "remat2", "checkpoint"} & set(deployed.stats().primitives)


def test_a_wrong_strip_is_found(monkeypatch):
    def wrong(eqn):
        return ("wrong", [eqn.invars[0]]) if eqn.primitive.name == "sin" else None

    monkeypatch.setattr(module, "identity", wrong)
    with raises(StripError, "changed the output result on random inputs"):
        graph.trace(lambda x: jnp.sin(x) * 2, X).strip()


def test_unknown_outputs(trained):
    with raises(ValueError, "has no output 'logits'; it has result[0]"):
        trained.strip("logits")
    with raises(ValueError, "has no output 9"):
        trained.strip([9])


# --- freeze -----------------------------------------------------------------------------------------------------------


def test_frozen_arguments_are_constants_and_what_follows_is_computed():
    def normalised(p, x, scale):
        return x @ (p["w"] / jnp.sum(p["w"])) * scale + p["b"]

    p = {"w": np.ones((3, 500), np.float32), "b": np.ones(500, np.float32)}
    g = graph.trace(normalised, p, X, 2.0)
    frozen = g.freeze({"p": p, "scale": 3.0})
    assert frozen.inputs == ("x",)
    same(frozen.run(X), normalised(p, X, 3.0))
    assert "div" not in frozen.stats().primitives
    by_leaf = g.freeze({"p['b']": p["b"], -1: 3.0})
    same(by_leaf.run({"w": p["w"], "b": None}, X), normalised(p, X, 3.0))
    same(frozen.gradients([], []).run(X)[0], normalised(p, X, 3.0))


def test_what_cannot_be_frozen():
    g = graph.trace(model, P, X)
    with raises(ValueError, "has no input 'z'; it has p['b'], p['w'], x"):
        g.freeze({"z": 1.0})
    with raises(TypeError, "was traced with p['b']: float32[3], and called with float32[2]"):
        g.freeze({"p['b']": np.ones(2, np.float32)})
    with raises(TypeError, "was traced with p of structure"):
        g.freeze({"p": {"w": X}})


def test_a_part_of_the_results_is_kept_by_its_name():
    def f(x, w):
        return {"loss": jnp.sum(x * w["k"]), "metrics": {"deep": {"sines": jnp.sin(x)}, "sum": jnp.sum(x)}}

    x, w = np.linspace(0.0, 1.0, 3, dtype=np.float32), {"k": np.float32(2)}
    g = graph.trace(f, x, w)
    value = f(x, w)
    derivative = g.gradients("result['loss']")
    assert derivative.outputs[0] == "result[0]['loss']"  # by its place, also after the gradients have been added
    for owner, prefix in ((g, "result"), (derivative, "result[0]")):
        same(owner.strip(f"{prefix}['metrics']").run(x), value["metrics"])
        same(owner.strip(f"{prefix}['metrics']['deep']").run(x), value["metrics"]["deep"])
        two = owner.strip([f"{prefix}['metrics']['deep']['sines']", f"{prefix}['loss']"])
        same(two.run(x, w), (value["metrics"]["deep"]["sines"], value["loss"]))
    same(derivative.strip("result[0]").run(x, w), value)
    same(derivative.strip("result").run(x, w), derivative.run(x, w))
    with raises(ValueError, "f has no output \"result['metric']\""):
        g.strip(outputs="result['metric']")
