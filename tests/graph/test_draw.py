"""Graphs as pictures: what is a node, what is folded, which lane and colour it has, and what is in a box."""

import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph
from twograd.graph.draw import picture_of

X = np.linspace(0.2, 1.2, 6, dtype=np.float32).reshape(2, 3)
W = np.ones((3, 4), np.float32)


def loss(params, x):
    hidden = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.sum(hidden * hidden)


PARAMS = {"w": W, "b": np.ones(4, np.float32)}


@pytest.fixture(scope="module")
def derivative():
    return graph.trace(loss, PARAMS, X).value_and_grad()


def titles(picture, kind):
    return [node.lines[0] for node in picture.nodes if node.kind == kind]


def test_program_derivative_and_what_is_saved(derivative):
    picture = derivative.draw().picture
    assert picture.lanes == ("program", "derivative")
    eqns = derivative.jaxpr.eqns
    numbers = [f"{eqn.primitive}.{i}" for i, eqn in enumerate(eqns)]
    assert titles(picture, "op") + titles(picture, "derivative") == numbers
    assert all((node.lane == 1) == (node.kind in ("derivative", "gradient")) for node in picture.nodes)
    assert titles(picture, "input") == ["params['b']", "params['w']", "x"]
    assert titles(picture, "output") == ["result[0]"]
    assert titles(picture, "gradient") == ["result[1]['b']", "result[1]['w']"]
    saved = {edge.source for edge in picture.edges if edge.kind == "saved"}
    assert len(saved) == derivative.stats().saved_values
    lane = {node.key: node.lane for node in picture.nodes}
    for edge in picture.edges:
        assert (edge.kind == "saved") == (lane[edge.source] < lane[edge.target])
        assert edge.up == (edge.kind == "cotangent")
    assert f"{derivative.stats().saved_bytes:,} bytes" in picture.description


def test_colours_are_lines_of_the_program(derivative):
    picture = derivative.draw().picture
    first = loss.__code__.co_firstlineno
    assert [tag for _, tag, _ in picture.legend] == [f":{first + 1}", f":{first + 2}"]
    assert picture.legend[0][2].endswith("""hidden = jnp.tanh(x @ params["w"] + params["b"])""")
    for node in picture.nodes:
        if node.kind == "derivative":
            source = node.details[-1].removeprefix("← ")
            (forward,) = (other for other in picture.nodes if other.lines[0] == source)
            assert (node.hue, node.tag) == (forward.hue, forward.tag)


def test_the_same_bytes_each_time_and_well_formed(derivative):
    svg = derivative.draw().svg
    again = graph.trace(loss, PARAMS, X).value_and_grad().draw().svg
    assert svg == again
    ET.fromstring(svg)
    html = derivative._repr_html_()
    assert html.startswith("<div")
    assert svg in html


def test_notebooks_never_start_graphviz(derivative, monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("started a program"))
    assert "<svg" in derivative._repr_html_()


def test_numbers_are_left_out_where_passes_have_moved_them():
    def f(x):
        return jnp.sum(jnp.sin(x * 1.0))

    g = graph.trace(f, X).gradients()
    assert "sin.1" in titles(g.draw().picture, "op")
    moved = g.optimize()
    assert "sin" in titles(moved.draw().picture, "op")


def test_constants_stand_in_the_nodes():
    picture = graph.trace(lambda x: 1.0 - x * 0.1234567, X).draw().picture
    details = {node.lines[0]: node.details for node in picture.nodes}
    assert details["mul.0"][0] == "(·, 0.1235) f32[2,3]"
    assert details["sub.1"][0] == "(1.0, ·) f32[2,3]"


def test_bodies_are_boxes():
    def f(w, xs):
        def step(carry, x):
            return jnp.tanh(carry @ w + x), jnp.sum(carry)

        carry, ys = jax.lax.scan(step, jnp.ones(4), xs)
        picked = jax.lax.cond(ys[0] > 0, jnp.sin, lambda v: v * 2, carry)
        return jnp.sum(jax.nn.relu(picked)) + jnp.sum(ys)

    g = graph.trace(f, np.ones((4, 4), np.float32), np.ones((5, 4), np.float32))
    nodes = {node.lines[0].partition(".")[0]: node for node in g.draw().picture.nodes}
    scan, cond, relu = nodes["scan"], nodes["cond"], nodes["custom_jvp_call"]
    assert "×5 step" in scan.lines[0]
    (body,) = scan.inside
    assert {"carry", "x"} <= {title.partition(" ")[0] for title in titles(body, "input")}
    assert titles(body, "output") == ["carry", "y"]
    assert [inner.title for inner in cond.inside] == ["branches[0]", "branches[1]"]
    (jit,) = [node for node in relu.inside[0].nodes if node.inside]
    assert jit.lines[0].startswith("jit")
    flat = {node.lines[0].partition(".")[0]: node for node in g.draw(depth=0).picture.nodes}
    assert not flat["scan"].inside
    assert flat["scan"].details[-1] == f"{len(body.nodes) - 5} equations inside"
    outer = g.draw(depth=1).picture
    assert all(not deep.inside for node in outer.nodes for inner in node.inside for deep in inner.nodes)
    for drawing in (g.draw(), g.gradients(xs="w").draw()):
        ET.fromstring(drawing.svg)
        keys = re.findall(r'^ *("[^"]+") \[label', drawing.dot, re.MULTILINE)
        assert len(keys) == len(set(keys))


def test_higher_orders_have_lanes_of_their_own():
    g = graph.trace(lambda x: jnp.sum(jnp.sin(x) ** 3), X).gradients()
    second = g.gradients([1], grad_ys=[X])
    picture = second.draw().picture
    assert picture.lanes == ("program", "derivative", "second derivative")
    assert {node.lane for node in picture.nodes} == {0, 1, 2}
    ET.fromstring(second.draw().svg)


def test_chains_are_folded_above_a_size():
    def f(x):
        for _ in range(20):
            x = jnp.sin(jnp.exp(x) + 1.0)
        return jnp.sum(x)

    picture = graph.trace(f, X).draw().picture
    (fold,) = (node for node in picture.nodes if node.kind == "fold")
    assert fold.lines[0] == "exp.0"
    assert fold.lines[-1] == "sin.59"
    assert "… 55 more" in fold.lines
    assert len(picture.nodes) == 4

    def once(x):
        return jnp.sum(jnp.sin(jnp.exp(x) + 1.0))

    assert not titles(graph.trace(once, X).draw().picture, "fold")


@pytest.mark.parametrize("most", [10, 30, 200])
def test_large_graphs_are_folded(most):
    def f(x):
        for _ in range(5000):
            x = x * x
        return jnp.sum(x)

    g = graph.trace(f, X)
    picture = g.draw(max_nodes=most).picture
    assert len(picture.nodes) <= most + 4
    more = [int(node.lines[0].split()[1]) for node in picture.nodes if node.lines[0].startswith("…")]
    drawn = sum(node.kind == "op" for node in picture.nodes)
    assert sum(more) + drawn == 5001
    ET.fromstring(g.draw(max_nodes=most).svg)


def test_many_inputs_and_outputs():
    g = graph.trace(lambda xs: [x * 2 for x in xs], [X] * 300)
    picture = g.draw().picture
    assert sum("… 261 more" in node.lines for node in picture.nodes) == 2
    assert len(picture.nodes) < 300
    ET.fromstring(g.draw().svg)


def test_empty_constant_unused_and_returned_as_they_are():
    assert ET.fromstring(graph.trace(lambda: ()).draw().svg) is not None
    picture = graph.trace(lambda x, y: (x, 2.0, x), X, X).draw().picture
    assert [node.details for node in picture.nodes if node.kind == "input"] == [("f32[2,3]",), ("f32[2,3]", "unused")]
    outputs = [node for node in picture.nodes if node.kind == "output"]
    assert outputs[1].details[0] == "= 2.0"
    assert len(picture.edges) == 2
    held = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert titles(graph.trace(lambda x: x + held, X).draw().picture, "constant") == ["constant"]


def test_hostile_names():
    def f(d):
        return d["<script>&\"'"] * 2.0

    f.__name__ = "<b>\"&'\x00"
    g = graph.trace(f, {"<script>&\"'": X})
    for text in (g.draw().svg, g._repr_html_()):
        assert "<script" not in text
        assert "<b>" not in text
    ET.fromstring(g.draw().svg)


def test_bad_arguments(derivative):
    with pytest.raises(ValueError, match="max_nodes must be at least 10, got 3"):
        derivative.draw(max_nodes=3)
    with pytest.raises(ValueError, match="engine must be"):
        derivative.draw(engine="neato")


def test_draw_saves(derivative, tmp_path):
    drawing = derivative.draw(tmp_path / "g.svg")
    assert (tmp_path / "g.svg").read_text() == drawing.svg
    closed = derivative.jaxpr
    alone = picture_of(closed, derivative.inputs, derivative.outputs, "a title")
    assert alone.title == "a title"
