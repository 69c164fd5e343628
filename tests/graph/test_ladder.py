"""The ladder of orders: its derivatives are right, its counts are those of its graphs."""

import jax
import jax.numpy as jnp
import numpy as np

from graph.same import raises, same
from twograd import graph


def test_orders():
    def f(x, scale):
        return jnp.sum(jnp.sin(x) ** 3 * scale)

    x = np.linspace(0.1, 1.0, 3, dtype=np.float32)
    found = graph.ladder(f, x, 2.0, orders=3)
    derivatives = [f]
    for _ in range(3):
        derivatives.append(jax.grad(lambda x, scale, g=derivatives[-1]: jnp.sum(g(x, scale))))
    expected = [g(x, 2.0) for g in derivatives]
    for rungs in (found.raw, found.optimized):
        assert [rung.order for rung in rungs] == [0, 1, 2, 3]
        same(jax.tree.leaves(rungs[-1].graph.run(x, 2.0)), expected, rtol=1e-4)
        assert [rung.nodes for rung in rungs] == [rung.graph.stats().equations for rung in rungs]
        assert [rung.graph.stats().order for rung in rungs] == [0, 1, 2, 3]
        assert all(rung.seconds > 0 for rung in rungs)
        assert sorted(rung.flops for rung in rungs) == [rung.flops for rung in rungs]
    assert all(after.nodes <= raw.nodes for raw, after in zip(found.raw, found.optimized, strict=True))
    assert found.optimized[-1].nodes < found.raw[-1].nodes
    assert len(str(found).splitlines()) == 3 + 4
    assert str(found.raw[3].nodes) in str(found)
    assert found._repr_html_().count("<tr>") == 1 + 4


def test_pytrees_and_derivatives_that_vanish():
    found = graph.ladder(lambda p: p["a"] * 3 + p["b"], {"a": 1.0, "b": 2.0}, orders=2)
    same(jax.tree.leaves(found.raw[-1].graph.run({"a": 1.0, "b": 2.0})), [5.0, 3.0, 1.0, 0.0, 0.0])


def test_what_has_no_ladder():
    with raises(TypeError, "returns one real scalar; sin returns float32[2]"):
        graph.ladder(jnp.sin, np.ones(2, np.float32))
    with raises(ValueError, "orders=0"):
        graph.ladder(jnp.sin, 1.0, orders=0)
    with raises(TypeError, "has dtype int32"):
        graph.ladder(lambda n: n * 2.0, 1)
    with raises(TypeError, "ladder expects a function as its first argument, got Graph: <Graph"):
        graph.ladder(graph.trace(jnp.sin, 1.0), 1.0)
