"""The four corners: what one program costs at each; and the proof, by counting, that the two walks are one."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import twograd
import twograd.nn.functional as F
import twograd.numpy as tnp
from twograd import cli, graph, rules, tape
from twograd._compat import scope_of
from twograd.compare.corners import SecondOrder
from twograd.rules.registry import OperandRule

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def mlp(params, x, target):
    (w, b), (v, c) = params
    return F.cross_entropy(tnp.tanh(x @ w + b) @ v + c, target)


def convnet(params, x, target):
    x = F.max_pool2d(F.relu(F.conv2d(x, params["kernel"], params["shift"])), 2)
    return F.cross_entropy(F.linear(tnp.reshape(x, (x.shape[0], -1)), params["w"], params["b"]), target)


def fan_out(params, x):
    """Values that are used several times, operands that are broadcast, an aggregate that two sums read."""
    a, b = params
    product = a * b
    u = tnp.sin(product) + a
    v = u * product + tnp.exp(u)
    return tnp.sum(v * x / (1 + product * product)) + tnp.sum(a)


TARGET = np.array([0, 2], np.int32)
PROGRAMS = [
    (mlp, ([(normal(4, 5), normal(5)), (normal(5, 3), normal(3))], normal(2, 4), TARGET)),
    (
        convnet,
        (
            {"kernel": normal(2, 1, 3, 3), "shift": normal(2), "w": normal(3, 8), "b": normal(3)},
            normal(2, 1, 6, 6),
            TARGET,
        ),
    ),
    (fan_out, ((normal(3, 1), normal(4)), normal(2, 3, 4))),
]


@pytest.mark.parametrize(("f", "args"), PROGRAMS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_tape_executes_the_rules_that_the_transform_emits(f, args):
    """The same rules, for the same shapes and operands, in the same order: by value on the tape, as equations in the
    graph, and by value on the graph."""
    arrays, tree = jax.tree.flatten(args[0])
    xs = range(len(arrays))
    with tape.granularity("primitive"), rules.recording() as executed:
        leaves = [tape.tensor(array, requires_grad=True) for array in arrays]
        f(tree.unflatten(leaves), *args[1:]).backward()
    g = graph.trace(f, *args)
    with rules.recording() as emitted:
        extended = g.gradients(0, xs)
    with rules.recording() as walked:
        _, by_value = graph.backprop(g, args, 0, xs)
    assert executed == emitted
    assert walked == emitted
    # What was emitted is in the graph: its derivative equations name forward equations in the order of these calls.
    scopes = [scope for eqn in extended.jaxpr.eqns for scope in scope_of(eqn) if scope.startswith("vjp(")]
    origins = [scope[4:-1].rpartition(".")[0] for scope in dict.fromkeys(scopes)]
    calls = iter(emitted)
    assert all(any(call.primitive == origin for call in calls) for origin in origins)
    assert len(emitted) >= 12
    expected = jax.tree.leaves(jax.grad(f)(*args))
    for found, leaf, correct in zip(by_value, leaves, expected, strict=True):
        np.testing.assert_allclose(found, correct, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(leaf.grad.array, correct, rtol=1e-4, atol=1e-6)


def test_a_recording_hears_only_its_own_block():
    x = np.ones(3, np.float32)
    with rules.recording() as outer:
        graph.trace(lambda x: jnp.sum(jnp.sin(x)), x).gradients()
        with rules.recording() as inner:
            graph.trace(lambda x: jnp.sum(x * x[0]), x).gradients()
    graph.trace(jnp.sum, x).gradients()
    assert [call.primitive for call in outer[:2]] == ["reduce_sum", "sin"]
    assert outer[1].shapes == ((3,),)
    assert outer[1].wanted == (True,)
    assert outer[2:] == inner
    assert "mul" in {call.primitive for call in inner}


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return twograd.corners(fan_out, *PROGRAMS[2][1])


def test_every_cell_is_measured(found):
    backward, create_graph, backprop, gradients = found.corners
    assert found.agree
    assert {check.passed for corner in found.corners for check in corner.checks} == {True}
    np.testing.assert_allclose([c.value for c in found.corners], fan_out(*PROGRAMS[2][1]), rtol=1e-5)
    assert {c.nodes for c in found.corners} == {len(graph.trace(fan_out, *PROGRAMS[2][1]).jaxpr.eqns)}
    assert [c.derivative_nodes > 0 for c in found.corners] == [False, True, False, True]
    assert backward.rules_at_first == backward.rules_again == backprop.rules_again == gradients.rules_at_first
    assert gradients.rules_again == 0
    assert len({c.saved_bytes for c in found.corners}) == 1
    assert backward.rebuilt == backward.nodes
    assert create_graph.rebuilt == create_graph.nodes + create_graph.derivative_nodes
    assert backprop.rebuilt == gradients.rebuilt == 0
    assert [c.python_again for c in found.corners] == [1, 1, 0, 0]
    assert all(c.seconds > 0 for c in found.corners)


def test_the_second_order_exists_where_the_gradient_is_symbols(found):
    backward, create_graph, backprop, gradients = (corner.order_2 for corner in found.corners)
    assert "does not require grad and does not have a grad_fn" in backward
    assert "no equation computes it" in backprop
    for order_2 in (create_graph, gradients):
        assert isinstance(order_2, SecondOrder)
        assert order_2.check.passed
        assert order_2.slowdown > 0
    assert gradients.nodes > found["graph gradients"].nodes + found["graph gradients"].derivative_nodes


def test_text_and_html(found):
    lines = str(found).splitlines()
    assert lines[0] == "The four corners of fan_out"
    assert len({len(line) for line in lines[3:5]}) == 1
    assert str(found).count("yes, ") == 4 + 4 + 2
    html = found._repr_html_()
    assert html.count("<tr>") == len(found.table.rows) + 1
    named = dataclasses.replace(found, program="<script>")
    assert "<script>" not in named._repr_html_()


def test_programs_in_jax_numpy_and_constant_gradients():
    found = twograd.corners(lambda x: jnp.sum(3 * x) + jnp.float32(2), normal(2))
    assert found.agree
    assert found["tape backward"].rebuilt > 0
    assert isinstance(found["tape create_graph"].order_2, SecondOrder)


def test_a_wrong_rule_is_found_out(monkeypatch):
    rule = rules.table[lax.sin_p]
    wrong = dataclasses.replace(rule, by_operand={"x": OperandRule.of(lambda ct, x: ct * lax.cos(x) * 1.01)})
    monkeypatch.setitem(rules.table, lax.sin_p, wrong)
    found = twograd.corners(lambda x: tnp.sum(tnp.sin(x)), normal(2, 7))
    monkeypatch.undo()
    tape.clear_caches()
    assert not found.agree
    assert {check.passed for corner in found.corners for check in corner.checks} == {False}
    assert "NO" in str(found)


def test_what_has_no_corners():
    with pytest.raises(TypeError, match="corners needs a program that returns a real scalar"):
        twograd.corners(lambda x: x, np.ones(2, np.float32))
    with pytest.raises(TypeError, match="in its first argument, which must hold real numbers"):
        twograd.corners(lambda n: n * 2.0, np.ones(2, int))
    with pytest.raises(TypeError, match="expects a function"):
        twograd.corners(3.0, 1.0)


# --- the command ------------------------------------------------------------------------------------------------------

PLAIN = """
import numpy as np
import twograd.numpy as tnp

def f(x, scale):
    return tnp.sum(tnp.exp(scale * x))

args = np.ones(2), 0.5
"""

COMPARISON = """
from twograd.compare import Comparison, grid

def inputs(rng, *, size):
    return {"w": rng.standard_normal(size)}, rng.standard_normal(size)

comparison = Comparison(
    inputs=inputs, loss=lambda ops, params, x: ops.np.sum(ops.np.exp(params["w"] * x)),
    cases=grid(size=(100,)), quick=grid(size=(2,)),
)
"""


@pytest.mark.parametrize(
    ("source", "title"), [(PLAIN, "The four corners of f"), (COMPARISON, "The four corners of mine [size=2]")]
)
def test_the_command(tmp_path, capsys, source, title):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert cli.main(["corners", str(path), "--dtype", "float64"]) == 0
    printed = capsys.readouterr().out
    assert title in printed
    errors = [float(number) for number in re.findall(r"yes, (\S+)", printed.partition("= differences")[0])]
    assert len(errors) == 4
    assert max(errors) < 1e-12, "computed in float64"
    assert "…" not in printed


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "has neither 'comparison = Comparison(...)' nor a function f and its arguments"),
        ("1 / 0", "mine.py:1: does not import (ZeroDivisionError"),
        (
            "from twograd.compare import Comparison\ncomparison = Comparison(experiment=lambda context: [])",
            "this comparison has no timed program",
        ),
    ],
)
def test_files_without_a_program(tmp_path, capsys, source, says):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert cli.main(["corners", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_a_program_that_cannot_be_traced_is_told_its_line_and_the_way_out(tmp_path, capsys):
    path = tmp_path / "branching.py"
    path.write_text("def f(x):\n    return x if x > 0 else -x\n\nargs = (1.0,)\n")
    assert cli.main(["corners", str(path)]) != 0
    said = capsys.readouterr().err
    assert f"{path}:2: " in said
    assert "jnp.where(x > 0, x, -x)" in said
