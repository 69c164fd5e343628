"""The README's programs run as printed, one after the other, and say what it says they say."""

import re
from pathlib import Path

import jax
import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PROGRAMS = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import" in code]


def test_the_programs_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in PROGRAMS:
        exec(compile(program, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    x = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(names["x"].grad.array, np.sin(x) + x * np.cos(x), rtol=1e-5)
    np.testing.assert_allclose(names["newton"](lambda y: y * y - 2, 1.4), 2**0.5, rtol=1e-3)
    value, gradients = names["d"].run(x, x)
    assert value == names["f"](x, x)
    np.testing.assert_allclose(gradients[0], jax.grad(names["f"])(x, x), rtol=1e-5)
    np.testing.assert_allclose([names["before"], names["after"]], [1, 0.8**2], rtol=1e-5)
    assert "SumBackward0" in printed
    assert "<- sin.1" in printed, "a derivative's line names the forward equation that it comes from"
    table = "The four corners of f"
    assert counts(printed[printed.index(table) :]) == counts(README[README.index(table) :].partition("```")[0])


def counts(table):
    """The lines of a printed table of corners, without rows of times and rounding errors.

    How often a first call calls rules depends on what this process has traced already.
    """
    return [line for line in table.splitlines() if not line.strip().startswith(("time", "=", "rules, first call"))]


def test_files_that_it_names_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target
    for name in re.findall(r"`(bench_\w+\.py)`", README):
        assert (root / "benchmarks" / name).exists(), name
