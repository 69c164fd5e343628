"""What a process without training code can run, and what it says about files that it cannot."""

import json
import subprocess
import sys
import zipfile
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graph.same import raises, same
from twograd import graph
from twograd.deploy import MANIFEST, PROGRAM
from twograd.errors import ExportError

X = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)
PARAMS = {"b": np.ones(3, np.float32), "w": np.linspace(0.0, 1.0, 3, dtype=np.float32)}
Point = namedtuple("Point", "x y")


def model(params, x):
    return {"out": jax.nn.relu(x * params["w"] + params["b"]), "none": None}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.twograd"
    graph.trace(model, PARAMS, X).export(path)
    return path


def rewritten(source, path, program=None, **changes):
    """A copy of an export with another manifest or program."""
    with zipfile.ZipFile(source) as archive:
        manifest, payload = json.loads(archive.read(MANIFEST)), archive.read(PROGRAM)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest | changes))
        archive.writestr(PROGRAM, payload if program is None else program)
    return path


def test_a_loaded_program_computes_what_the_graph_does(file):
    program = graph.load(file)
    same(program(PARAMS, X), jax.jit(model)(PARAMS, X))
    assert repr(program) == "<Program model(params['b']: float32[3], params['w']: float32[3], x: float32[2,3]) for cpu>"
    assert program.manifest["outputs"] == [{"name": "result['out']", "shape": [2, 3], "dtype": "float32"}]
    assert program.manifest["versions"]["jax"] == jax.__version__


def test_loading_needs_no_training_code(file):
    code = f"""
import sys, numpy as np
for name in ("tape", "rules", "graph", "_compat", "nn", "numpy"):
    sys.modules["twograd." + name] = None  # importing it raises
from twograd import deploy
out = deploy.load({str(file)!r})({{"b": np.ones(3, "f"), "w": np.zeros(3, "f")}}, np.ones((2, 3), "f"))
assert out["out"].tolist() == [[1, 1, 1], [1, 1, 1]] and out["none"] is None
print(sorted(name for name, module in sys.modules.items() if name.startswith("twograd.") and module))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['twograd._trees', 'twograd.deploy']"


def test_structures_survive(tmp_path):
    def f(pair, *, scale):
        return Point(pair.x * scale, [pair.y, None])

    graph.trace(f, Point(X, X), scale=2.0).export(tmp_path / "f")
    found = graph.load(tmp_path / "f")(Point(X, X), scale=3.0)
    assert type(found).__name__ == "Point"
    assert found._fields == ("x", "y")
    same(found.x, jnp.asarray(3 * X))
    assert found.y[1] is None


def test_the_same_graph_is_the_same_file_and_a_batch_may_be_symbolic(tmp_path):
    (batch,) = jax.export.symbolic_shape("b")
    traced = graph.trace(model, PARAMS, jax.ShapeDtypeStruct((batch, 3), np.float32))
    traced.export(tmp_path / "one", platforms=["cpu", "cuda"])
    traced.export(tmp_path / "two", platforms=["cpu", "cuda"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    program = graph.load(tmp_path / "one")
    for x in (X, X[:1]):
        same(program(PARAMS, x), jax.jit(model)(PARAMS, x))
    with raises(TypeError, "x: float32[b,3], and called with float32[2,2]"):
        program(PARAMS, X[:, :2])


def test_wrong_arguments(file):
    program = graph.load(file)
    with raises(
        TypeError, "in the structure (({'b': *, 'w': *}, *), {}) of (args, kwargs), and called with ((*,), {})"
    ):
        program(X)
    with raises(TypeError, "x: float32[2,3], and called with int32[2,3]"):
        program(PARAMS, X.astype(np.int32))


def test_another_platform(tmp_path):
    graph.trace(jnp.sin, X).export(tmp_path / "f", platforms=["tpu"])
    with raises(ValueError, "platform"):
        graph.load(tmp_path / "f")(X)


def test_what_cannot_be_exported(tmp_path):
    def f(x):
        return jax.pure_callback(np.sin, x, x)

    with raises(ExportError, "f cannot be exported"):
        graph.trace(f, X).export(tmp_path / "f")
    with raises(ExportError, "cannot be written"):
        graph.trace(jnp.sin, X).export(tmp_path / "no" / "such" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_damaged_foreign_and_newer_files(file, tmp_path):
    whole, path = file.read_bytes(), tmp_path / "x"
    with raises(graph.LoadError, f"{path}: cannot be read (No such file"):
        graph.load(path)
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:60] + b"????" + whole[64:]):
        path.write_bytes(content)
        with raises(graph.LoadError, f"{path}: "):
            graph.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with raises(graph.LoadError, "an archive, but not one of Graph.export"):
        graph.load(path)
    for changes, text in (
        ({"format": "other"}, "an archive with a manifest, but not one of Graph.export"),
        ({"version": 2}, "of format 2; this twograd reads formats up to 1. Install a newer twograd"),
        ({"inputs": None}, "its manifest has no 'inputs', or not a list there. Export it again."),
        ({"inputs": [1]}, "describes an input or output as 1"),
        ({"inputs": []}, "its manifest describes another program"),
        ({"program": b"another"}, "the program is not the one that its manifest describes (SHA-256)"),
    ):
        with raises(graph.LoadError, text):
            graph.load(rewritten(file, path, **changes))
    digest = "f0e4c2f76c58916ec258f246851bea091d14d4247a2fc3e18694461b1816e13b"  # of b"asdf"
    with raises(graph.LoadError, "does not read this program"):
        graph.load(rewritten(file, path, program=b"asdf", sha256=digest))


def test_without_the_package_that_writes(file, tmp_path, monkeypatch):
    monkeypatch.setattr("twograd.deploy.find_spec", lambda name: None)
    monkeypatch.setattr("twograd.graph.export.find_spec", lambda name: None)
    with raises(graph.LoadError, "pip install 'twograd[export]'"):
        graph.load(file)
    with raises(ExportError, "pip install 'twograd[export]'"):
        graph.trace(jnp.sin, X).export(tmp_path / "f")
