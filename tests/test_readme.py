"""The README's programs run as printed, one after the other, and say what it says they say."""

import re
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parents[1]
README, IN_CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def run(readme):
    """Runs the programs of a page, and returns the names that they define."""
    names = {}
    for program in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        if "import" in program:
            exec(compile(program, "README.md", "exec"), names)
    return names


def test_the_programs_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(README)
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


def test_the_programs_in_chinese_run(capsys):
    names = run(IN_CHINESE)
    x = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(names["x"].grad.array, np.sin(x) + x * np.cos(x), rtol=1e-5)
    np.testing.assert_allclose(names["gradients"][0], jax.grad(names["f"])(x, x), rtol=1e-5)
    assert names["deployed"].run(x, x) == names["value"]
    assert "<- sin.1" in capsys.readouterr().out


def counts(table):
    """The lines of a printed table of corners, without rows of times and rounding errors.

    How often a first call calls rules depends on what this process has traced already.
    """
    return [line for line in table.splitlines() if not line.strip().startswith(("time", "=", "rules, first call"))]


def test_files_that_it_names_exist():
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README + IN_CHINESE):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(bench_\w+\.py)`", README):
        assert (ROOT / "benchmarks" / name).exists(), name
