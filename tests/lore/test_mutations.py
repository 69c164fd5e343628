"""A wrong rule is caught by the check that the page says, is gone afterwards, and never by the engines' agreement."""

from pathlib import Path

import numpy as np
import pytest
from jax import lax

import twograd.numpy as tnp
from twograd import cli, graph, rules, tape
from twograd.lore import mutations
from twograd.lore.mutations import CHECKS, MUTATIONS, examine, replaced

PAGE = (Path(__file__).parents[2] / "docs" / "mutations.md").read_text(encoding="utf-8")
QUICK = {"sign", "one-copy", "no-unbroadcast", "tie", "order-2", "kept"}
HARMLESS = {"permutation-of-two", "no-unbroadcast-leading", "no-tie", "kept"}
X = np.array([0.3, -1.2])


def cells(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    found = [cell.strip(" *") for cell in row.split("|")[4:-1]]
    return {check: cell for check, cell in zip(CHECKS, found, strict=True) if cell}


def parameters():
    for mutation in MUTATIONS:
        yield pytest.param(mutation, id=mutation.name, marks=[] if mutation.name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("mutation", list(parameters()))
def test_what_each_check_says_is_on_the_page_and_the_rule_is_back(mutation):
    before = dict(rules.table)
    outcomes = mutation.outcomes()
    assert {check: str(outcome) for check, outcome in outcomes.items()} == cells(mutation.name), (
        "run: python -m twograd.lore.mutations > docs/mutations.md"
    )
    told = [check for check, outcome in outcomes.items() if outcome.caught and check != "save map"]
    assert bool(told) == (mutation.name not in HARMLESS)
    assert rules.table == before


def test_the_right_rules_pass_every_check():
    for mutation in MUTATIONS[:1] + MUTATIONS[6:7]:
        assert not any(outcome.caught for outcome in examine(mutation.program, *mutation.args).values())


def test_an_engine_that_walks_otherwise_is_caught_by_agreement(monkeypatch):
    monkeypatch.setattr(tape, "grad", lambda f, wrt: lambda *args: [2 * x for x in graph.grad(f, wrt)(*args)])
    outcomes = examine(lambda x: tnp.sum(tnp.sin(x)), X)
    assert [check for check, outcome in outcomes.items() if outcome.caught] == ["engines"]


def test_replaced_reaches_both_engines_and_is_undone_by_an_error():
    x = tape.tensor(X, requires_grad=True)

    def gradients():
        by_symbol = graph.grad(lambda x: tnp.sum(tnp.sin(x)))(np.float32(X))
        with tape.granularity("primitive"):
            (by_rule,) = tape.autograd.grad(tnp.sum(tnp.sin(x)), x)
        (by_op,) = tape.autograd.grad(tnp.sum(tnp.sin(x)), x)
        return [np.asarray(found) for found in (by_symbol, by_rule.array, by_op.array)]

    np.testing.assert_allclose(gradients(), [np.cos(X)] * 3, rtol=1e-6)

    def all_wrong():
        with replaced(lax.sin_p, x=lambda ct, out: lax.mul(ct, out)):
            np.testing.assert_allclose(gradients(), [np.sin(X)] * 3, rtol=1e-6)
            raise KeyError

    with pytest.raises(KeyError):
        all_wrong()
    np.testing.assert_allclose(gradients(), [np.cos(X)] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("primitive", "operands", "words"),
    [(lax.floor_p, {"x": 0}, "no rules by operand"), (lax.sin_p, {"y": 0}, "rules for x, not for y")],
)
def test_what_cannot_be_replaced(primitive, operands, words):
    before = dict(rules.table)
    with pytest.raises(ValueError, match=words), replaced(primitive, **operands):
        pass
    assert rules.table == before


def test_a_rule_that_cannot_be_entered_leaves_the_table_as_it_was():
    with pytest.raises(AssertionError, match="names"), replaced(lax.sin_p, x=lambda ct, z: ct):
        pass
    assert np.allclose(graph.grad(lambda x: tnp.sum(tnp.sin(x)))(X.astype("float32")), np.cos(X))


def test_the_page_counts_what_its_table_says():
    counted = {check: sum(cells(m.name).get(check) == "caught" for m in MUTATIONS) for check in CHECKS}
    assert ", ".join(f"{count} by {check}" for check, count in counted.items()) in PAGE
    assert counted["engines"] == 0 < counted["differences"] < counted["jax.vjp"]


def test_the_command(capsys):
    assert cli.main(["mutate", "sign", "--color", "never"]) == 0
    out = capsys.readouterr().out
    assert "sign: sin, for x: the sign is flipped" in out
    assert "engines: passes" in out
    assert "jax.vjp: caught: got" in out
    assert cli.main(["mutate", "sing"]) == 2
    assert "no change is called sing; there are sign, factor" in capsys.readouterr().err


def test_the_command_shows_all_as_a_table(capsys, monkeypatch):
    monkeypatch.setattr(mutations, "MUTATIONS", MUTATIONS[:1])
    assert cli.main(["mutate", "--color", "never"]) == 0
    out = capsys.readouterr().out
    assert "no verdict" not in out
    assert "Changes caught, of 1: 0 by types, 0 by engines, 1 by differences, 1 by jax.vjp" in " ".join(out.split())
