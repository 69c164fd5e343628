"""What a graph looks like as text."""

import jax
import jax.numpy as jnp
import numpy as np

from twograd import graph
from twograd.graph.text import Names

X = np.ones((2, 3), np.float32)


def loss(w, b):
    hidden = jnp.sin(w) * 2.0
    return jnp.sum(hidden + b)


def test_text_names_inputs_lines_and_origins():
    text = graph.trace(loss, X, X).gradients().text()
    lines = text.splitlines()
    first = loss.__code__.co_firstlineno
    assert lines[0] == "loss { lambda ; a:f32[2,3] b:f32[2,3]. let"
    assert lines[1:3] == ["    # a is w", "    # b is b"]
    assert lines[3] == "    # takes (a, b) and returns (*, [*, *])"
    assert lines[4].startswith("  0  c:f32[2,3] = sin a ")
    assert lines[4].endswith(f"# test_text.py:{first + 1} (loss)")
    (cos,) = (line for line in lines if " cos a" in line)
    assert cos.endswith(f"# <- sin.0  test_text.py:{first + 1} (loss)")
    assert lines[-1].startswith("  in (")


def test_text_without_provenance():
    text = graph.trace(loss, X, X).text(provenance=False)
    assert "test_text" not in text
    assert str(graph.trace(loss, X, X)) == graph.trace(loss, X, X).text()


def test_calls_show_what_they_call_and_nothing_that_is_default():
    text = graph.trace(lambda x: jnp.where(x > 0, x, 0.0), X).text(provenance=False)
    assert 'name="_where"' in text
    assert "in_shardings" not in text
    assert "inline" not in text


def test_constants_are_listed():
    text = graph.trace(lambda x: x * np.arange(6.0, dtype=np.float32).reshape(2, 3), X).text(provenance=False)
    assert text.splitlines()[0].endswith("{ lambda b:f32[2,3]; a:f32[2,3]. let") or "lambda" in text.splitlines()[0]


def test_an_empty_program():
    assert graph.trace(lambda x: x, X).text().splitlines()[-1] == "  in (a,) }"


def test_names_of_many_variables():
    names = Names()
    closed = jax.make_jaxpr(lambda x: [x + i for i in range(800)])(X)
    found = [names[var] for var in closed.jaxpr.outvars]
    assert found[0] == "a"
    assert found[25:28] == ["z", "aa", "ab"]
    assert found[700:703] == ["zz", "aaa", "aab"]
    assert len(set(found)) == 800
