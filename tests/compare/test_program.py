"""Finding, reading and refusing comparison files."""

import numpy as np
import pytest
from stand_ins import quadratic

from twograd.compare import CompareError, Comparison, Unsupported, grid, program
from twograd.compare.engines import Ops

NUMPY = Ops("numpy", None, "NumPy")


def test_grid_is_the_product_of_its_axes():
    assert grid(size=(8, 64), depth=(1,)) == [{"size": 8, "depth": 1}, {"size": 64, "depth": 1}]


def test_the_projects_comparisons_all_load_and_ask_a_question():
    found = program.find()
    assert "op_chain" in [declaration.name for declaration in found]
    for declaration in found:
        assert declaration.question.endswith("?"), declaration.path
        assert isinstance(declaration.load(), Comparison)


def test_a_comparison_is_found_by_name_and_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('"""Why?\n\nBecause.\n"""\nfrom twograd.compare import Comparison\ncomparison = 1\n')
    by_name, by_path = program.find(["op_chain", str(path), "op_chain"])
    assert by_name.name == "op_chain"
    assert (by_path.name, by_path.question, by_path.description) == ("mine", "Why?", "Because.")


def test_two_files_of_one_name_are_refused(tmp_path):
    path = tmp_path / "op_chain.py"
    path.write_text("")
    with pytest.raises(CompareError, match=r"op_chain.py and \S+op_chain.py have the same name in the results"):
        program.find(["op_chain", str(path)])


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(CompareError, match=r"unknown comparison 'op_chian'. Did you mean 'op_chain'\?"):
        program.find(["op_chian"])
    with pytest.raises(CompareError, match=r"unknown comparison 'zzz'. There are: .*op_chain"):
        program.find(["zzz"])


def test_a_path_that_does_not_exist_is_named():
    with pytest.raises(CompareError, match=r"no such comparison file: nowhere/mine.py"):
        program.find(["nowhere/mine.py"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module\n", r"mine.py:1: does not import \(ModuleNotFoundError: No module named"),
        ("x = 1\ndef (\n", r"mine.py:2: does not import \(SyntaxError"),
        ("x = 1\n\ny = 1 / 0\n", r"mine.py:3: does not import \(ZeroDivisionError: division by zero\)"),
        ("comparison = 3\n", r"declares no comparison; it needs a line 'comparison = Comparison\(...\)'"),
        ("from twograd.compare import Comparison\ncomparison = Comparison()\n", "needs a loss or an experiment"),
        (
            "from twograd.compare import Comparison\ncomparison = Comparison(loss=print)\n",
            "Comparison with a loss needs inputs",
        ),
    ],
)
def test_a_file_that_declares_nothing_usable_is_refused_by_line(declare, text, message):
    with pytest.raises(CompareError, match=message) as error:
        declare(text).load()
    assert "\n" not in str(error.value)


def test_a_file_may_define_dataclasses(declare):
    text = (
        "from dataclasses import dataclass\nfrom twograd.compare import Comparison\n"
        "@dataclass\nclass Layer:\n    size: 'int'\n"
        "comparison = Comparison(inputs=lambda rng: (1.0,), loss=lambda ops, p: p)\n"
    )
    assert declare(text).load().cases == ({},)


def test_keyword_only_parameters_are_given_the_cases_axes():
    def loss(ops, params, x, *, order):
        return params * x + order

    comparison = quadratic(loss=loss)
    bound = comparison.program("tape", "twograd", {"size": 3, "order": 5})
    assert bound(NUMPY, 2.0, 3.0) == 11.0


def test_variants_by_the_longer_name_win():
    comparison = quadratic(
        variants={
            "twograd": lambda ops: "family",
            "graph": lambda ops: "all graphs",
            "graph-eager": lambda ops: "engine",
            "torch": "no loop",
        }
    )
    assert comparison.program("graph", "twograd", {})(NUMPY) == "all graphs"
    assert comparison.program("graph-backprop", "twograd", {})(NUMPY) == "all graphs"
    assert comparison.program("graph-eager", "twograd", {})(NUMPY) == "engine"
    assert comparison.program("tape-primitive", "twograd", {})(NUMPY) == "family"
    assert comparison.program("tape", "twograd", {})(NUMPY) == "family"
    assert comparison.program("jax-jit", "jax", {})(NUMPY, {"w": np.ones(2)}, np.ones(2)) == 2.0
    with pytest.raises(Unsupported, match="no loop"):
        comparison.program("torch", "torch", {})
