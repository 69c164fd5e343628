"""docs/primitives.md is what its generator makes, and says what becomes of every primitive of the installed JAX."""

import subprocess
import sys
from pathlib import Path

import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive

from twograd import graph, rules
from twograd._compat import differentiable_primitives
from twograd.graph import coverage

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "primitives.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]


def test_the_page_is_what_its_generator_makes():
    made = subprocess.run([sys.executable, "-m", "twograd.graph.coverage"], capture_output=True, check=True)
    assert made.stdout.decode() == PAGE, "run: python -m twograd.graph.coverage > docs/primitives.md"


def test_every_primitive_has_a_line_and_each_is_explained():
    """JAX's tables grow with what is imported: no line is missing, and those of this process are beside the point."""
    named = {row[0].strip("| `") for row in ROWS}
    assert len(named) == len(ROWS)
    assert {primitive.name for primitive in rules.table} <= named
    assert named <= {primitive.name for primitive in differentiable_primitives() | set(rules.table)}
    assert {row[1] for row in ROWS} <= {"rule", "non-differentiable", "refused", coverage.UNEXPLAINED}
    assert [row[0].strip("| `") for row in ROWS if row[1] == coverage.UNEXPLAINED] == []
    assert all(row[3] for row in ROWS if row[1] == "refused")


def test_a_line_names_a_file_that_is_there():
    files = {name.strip("`") for row in ROWS for name in row[4].rstrip(" |").split()}
    assert "rules/linalg.py" in files
    assert all((Path(graph.__file__).parents[1] / name).is_file() for name in files)


def test_a_line_is_read_off_the_table():
    assert coverage.line(lax.mul_p) == "| `mul` | rule | `x`: `y`; `y`: `x` |  | `rules/elementwise.py` |\n"
    assert coverage.line(lax.floor_p) == "| `floor` | non-differentiable |  |  |  |\n"
    assert "| refused |  | the basis of a Schur form" in coverage.line(lax.linalg.schur_p)
    assert "Φ(Lᴴ L̄)" in coverage.line(lax.linalg.cholesky_p)
    assert coverage.line(Primitive("thrice")) == "| `thrice` | unexplained |  |  |  |\n"


@pytest.mark.parametrize("text", ["a|b", "a*b"])
def test_a_cell_cannot_end_early(text):
    assert coverage.escaped(text) == f"a\\{text[1]}b"


def test_what_leaves_no_equation_is_no_obstacle():
    assert graph.grad(lambda x: lax.stage(x) ** 2)(jnp.float32(3)) == 6
