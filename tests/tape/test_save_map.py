"""The save map says what the tape does: an edit that it calls illegal raises, a legal one changes no gradient."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import twograd.numpy as tnp
from twograd import rules, tape
from twograd.tape import save_map
from twograd.tape.blame import ModifiedInPlace

UNARY = [
    "abs", "acos", "asin", "atan", "cbrt", "cos", "cosh", "erf", "exp", "expm1", "lgamma", "log", "log1p", "logistic",
    "neg", "rsqrt", "sin", "sinh", "sqrt", "square", "tan", "tanh",
]  # fmt: skip
BINARY = ["add", "atan2", "div", "max", "mul", "pow", "rem", "sub"]
FUNCTIONS = {name: getattr(lax, name) for name in [*UNARY, *BINARY]}
POINTS = ([0.3, 0.6], [0.7, 0.4])
ROWS = [row for row in save_map() if row.op in FUNCTIONS]


def attempt(row, edited):
    """The gradient with the operand (or the result) ``edited`` changed after the op, or None for the in-place error."""
    names = [name.removeprefix("*") for name in rules.table[primitive(row.op)].operands]
    leaves = {name: tape.tensor(at, requires_grad=name in row.wrt) for name, at in zip(names, POINTS, strict=False)}
    operands = {name: leaf * 1.0 for name, leaf in leaves.items()}
    result = tape.apply(FUNCTIONS[row.op], *operands.values())
    if edited is not None:
        {**operands, "": result}[edited].add_(1.0)
    try:
        result.sum().backward()
    except ModifiedInPlace:
        return None
    return [leaves[name].grad.tolist() for name in row.wrt]


def primitive(name):
    return next(p for p in rules.table if p.name == name)


QUICK = {"add", "div", "exp", "mul", "neg", "sin", "sqrt", "sub", "tanh"}


@pytest.mark.parametrize(
    "rows",
    [
        [row for row in ROWS if row.op in QUICK],
        pytest.param([row for row in ROWS if row.op not in QUICK], marks=pytest.mark.slow),
    ],
)
def test_the_map_of_primitives_is_what_the_tape_does(rows):
    with tape.granularity("primitive"):
        for row in rows:
            expected = attempt(row, None)
            for name in rules.table[primitive(row.op)].operands:
                outcome = attempt(row, name)
                assert outcome == (expected if name in row.may_change else None), (row, name)
            assert attempt(row, "") == (expected if row.result_may_change else None), row


def test_every_rule_has_its_rows():
    assert {row.op for row in ROWS} == set(FUNCTIONS)
    assert len(save_map()) == len(list(rules.save_map()))
    assert {(row.op, row.kind) for row in ROWS} >= {
        ("exp", "result"),
        ("sin", "operand"),
        ("add", "neither"),
        ("div", "both"),
    }
    (row,) = save_map().of("exp")
    assert (row.saves, row.may_change, row.result_may_change) == (("out",), ("x",), False)


OPS = {"exp": lambda x: x.exp(), "pow": lambda x: x**2, "10 *": lambda x: 10 * x, "x * x": lambda x: x * x}
LEGAL = {"exp": (True, False), "pow": (False, True), "10 *": (True, True), "x * x": (False, True)}


@pytest.mark.parametrize("level", ["op", "primitive"])
@pytest.mark.parametrize("name", OPS)
def test_the_map_of_a_function_is_what_the_tape_does(name, level):
    with tape.granularity(level):
        rows = save_map(OPS[name], tape.tensor(POINTS[0]))
        said = all(set(row.wrt) <= set(row.may_change) for row in rows), rows[-1].result_may_change
        assert said == LEGAL[name]
        for legal, edit_result in zip(said, (False, True), strict=True):
            leaf = tape.tensor(POINTS[0], requires_grad=True)
            operand = leaf * 1.0
            result = OPS[name](operand)
            (result if edit_result else operand).add_(1.0)
            if legal:
                result.sum().backward()
                slope = {"exp": np.exp(POINTS[0]), "pow": 2 * np.array(POINTS[0]), "10 *": [10, 10]}
                np.testing.assert_allclose(leaf.grad.array, slope.get(name, slope["pow"]), rtol=1e-6)
            else:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    result.sum().backward()


def test_what_is_kept_by_an_op_of_several_primitives():
    rows = save_map(tnp.tanh, np.array(POINTS[0], np.float32))
    assert [(row.op, row.kind) for row in rows] == [("TanhBackward0", "result")]
    (row,) = save_map(lambda x, w: x @ w, np.ones((2, 3), np.float32), jnp.ones((3, 2)))
    assert (row.kind, row.may_change, row.result_may_change) == ("operand", (), True)
    assert save_map(lambda n: n + 1, np.array([1, 2])).rows == ()


def test_it_prints_as_text_and_as_html():
    text, html = str(save_map()), save_map()._repr_html_()
    assert "exp" in text
    assert "operands that may change" in text.splitlines()[1]
    assert html.startswith("<table>")
    assert html.count("<tr>") == len(save_map()) + 1
    (row,) = save_map(lambda x: x.exp(), tape.tensor(1.0))
    assert "&lt;lambda&gt;" in save_map(lambda x: x.exp(), tape.tensor(1.0))._repr_html_()
    assert row.saves == ("result",)
