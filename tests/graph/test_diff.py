"""Differences of graphs: after a pass, between orders, between versions; as text, counts and picture."""

import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph

X = np.linspace(0.2, 1.2, 6, dtype=np.float32).reshape(2, 3)


def cube(x):
    return jnp.sum(jnp.sin(x) ** 3)


def other(x):
    return jnp.sum(jnp.tanh(x) ** 3)


@pytest.fixture(scope="module")
def first():
    return graph.trace(cube, X).gradients()


def test_a_graph_and_itself(first):
    same = graph.diff(first, graph.trace(cube, X).gradients())
    count = len(first.jaxpr.eqns)
    assert not same
    assert same.pairs == tuple((i, i) for i in range(count))
    assert not same.removed
    assert not same.added
    assert not same.changed
    assert same.text().splitlines()[2:] == [f"@@ {count} kept @@"]


def test_the_next_order_only_adds(first):
    second = first.gradients([1], grad_ys=[X])
    found = graph.diff(first, second)
    assert found
    assert not found.removed
    assert not found.changed
    assert len(found.added) == len(second.jaxpr.eqns) - len(first.jaxpr.eqns)
    assert [i for i, _ in found.pairs] == list(range(len(first.jaxpr.eqns)))


def test_two_versions_of_a_function(first):
    found = graph.diff(first, graph.trace(other, X).gradients())
    named = lambda g, numbers: [str(g.jaxpr.eqns[i].primitive) for i in numbers]  # noqa: E731
    assert named(found.a, found.removed) == ["sin", "cos", "mul"]
    assert named(found.b, found.added) == ["tanh", "square", "sub", "mul"]
    assert named(found.a, [i for i, _ in found.changed]) == ["integer_pow", "integer_pow"]
    lines = found.text().splitlines()
    assert lines[0] == f"--- cube: {len(found.a.jaxpr.eqns)} equations"
    assert any(line.startswith("-  a':f32[2,3] = sin a ") for line in lines)
    assert any(line.startswith("+  b:f32[2,3] = tanh a ") for line in lines)
    assert any(line.startswith("-  c:f32[2,3] = integer_pow[y=3] a'") for line in lines)
    assert any(line.startswith("+  c:f32[2,3] = integer_pow[y=3] b ") for line in lines)
    counts = {count.name: count for count in found.primitives()}
    assert (counts["sin"].before, counts["sin"].after, counts["sin"].removed, counts["sin"].added) == (1, 0, 1, 0)
    sources = {count.name.split()[0]: count.added for count in found.sources()}
    assert sources["tanh.0"] == 3
    pays = {count.name: count for count in found.lines()}
    line = f"test_diff.py:{other.__code__.co_firstlineno + 1}"
    assert (pays[line].before, pays[line].after) == (0, len(found.b.jaxpr.eqns))


def test_an_equation_that_went_from_the_middle():
    def f(x, keep):
        y = jnp.sin(x)
        return jnp.exp(jnp.cos(y) if keep else y) * 2.0

    found = graph.diff(graph.trace(lambda x: f(x, True), X), graph.trace(lambda x: f(x, False), X))
    assert (found.removed, found.added, found.changed) == ((1,), (), ((2, 1),))


def test_parameters_literals_and_bodies_count():
    def pair(f, g):
        return graph.diff(graph.trace(f, X), graph.trace(g, X))

    assert pair(lambda x: x * 2.0, lambda x: x * 3.0).changed == ((0, 0),)
    assert pair(lambda x: x**3, lambda x: x**4).removed == (0,)
    assert pair(jax.jit(jnp.sin), jax.jit(jnp.cos)).removed == (0,)
    assert not pair(jax.jit(jnp.sin), jax.jit(jnp.sin))
    assert not pair(jax.nn.relu, jax.nn.relu)
    assert pair(lambda x: x + X, lambda x: x + 2 * X).changed == ((0, 0),)
    assert not pair(lambda x: x + X, lambda x: x + np.array(X))


def test_what_is_returned_counts():
    found = graph.diff(graph.trace(lambda x: (jnp.sin(x), x), X), graph.trace(lambda x: (x, jnp.sin(x)), X))
    assert found
    assert not found.changed
    assert found.returns_others
    assert found.text().splitlines()[-2:] == ["-  in (b, a)", "+  in (a, b)"]


def test_passes_one_by_one(first):
    found = graph.diff_passes(first)
    assert list(found) == ["inline", "simplify", "fold", "cse", "dce"]
    for before, after in zip(list(found.values()), list(found.values())[1:], strict=False):
        assert before.b is after.a
    assert found["dce"].b.jaxpr.eqns != first.jaxpr.eqns or not any(found.values())
    wasteful = graph.trace(lambda x: (jnp.cos(x), jnp.sin(x) + jnp.sin(x))[1], X)
    one = graph.diff_passes(wasteful, graph.passes.cse, graph.passes.dce)
    assert [str(wasteful.jaxpr.eqns[i].primitive) for i in one["cse"].removed] == ["sin"]
    assert [str(one["dce"].a.jaxpr.eqns[i].primitive) for i in one["dce"].removed] == ["cos"]


def test_pictures(first, tmp_path):
    found = graph.diff(first, graph.trace(other, X).gradients())
    drawing = found.draw(tmp_path / "d.svg")
    ET.fromstring(drawing.svg)
    assert drawing.svg == found.draw().svg
    marks = {mark: sum(node.mark == mark for node in drawing.picture.nodes) for mark in "+-~="}
    kept = len(found.pairs) - len(found.changed)
    assert marks == {"+": len(found.added), "-": len(found.removed), "~": len(found.changed), "=": kept}
    for sign in ("added", "removed", "kept, with other operands"):
        assert f">{sign}<" in drawing.svg
    joined = {(edge.source, edge.target) for edge in drawing.picture.edges}
    key = {node.lines[0]: node.key for node in drawing.picture.nodes}
    assert any((key[name], target) in joined for name in key if name.startswith("sin") for target in key.values())


def test_large_graphs_are_compared_in_one_go():
    def f(x, last):
        for i in range(1500):
            x = jnp.sin(x) * (last if i == 700 else 2.0)
        return x

    found = graph.diff(graph.trace(lambda x: f(x, 2.0), X), graph.trace(lambda x: f(x, 3.0), X))
    assert found.changed == ((1401, 1401),)
    assert not found.removed
    assert not found.added
    ET.fromstring(found.draw(max_nodes=30).svg)


def test_only_graphs_are_compared(first):
    with pytest.raises(TypeError, match="diff takes a Graph, got function: make one of a function"):
        graph.diff(first, cube)  # type: ignore[arg-type]


def test_calls_with_rules_stand_by_the_names_of_these():
    x = np.ones(3, np.float32)
    g = graph.trace(lambda x: jnp.sum(jax.nn.relu(x) ** 2), x)
    text = str(graph.diff(g, g.gradients()))
    assert "custom_jvp_call[rule=relu] a" in text
    assert "WrappedFun" not in text
    inlined = str(graph.diff(g, g.optimize()))  # relu's body is a call, and is inlined
    assert {"custom_jvp_call[rule=relu]", "custom_jvp_call[rule=relu-2]"} <= set(inlined.split())
