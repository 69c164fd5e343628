"""A text reads back: print, parse, print is the identity, and what is read computes the same."""

from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from graph.same import raises, same
from twograd import graph
from twograd.errors import ParseError

X = np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(3, 4)
S = np.eye(3, dtype=np.float32) * 2
KEY = jax.random.key(0)
Point = namedtuple("Point", "x y")

PROGRAMS = {
    "elementwise": (lambda x: jnp.sum(jnp.sin(x) * jnp.exp(x) / 3 - x**3), X),
    "matmul and where": (lambda x: jnp.sum(jnp.where(x @ x.T > 1, 0.5, jnp.tanh(x @ x.T))), X),
    "gather and scatter": (lambda x: jnp.sum(x.at[jnp.array([0, 1])].add(1.0)[jnp.array([0, 0])] ** 2), X),
    "convolution": (lambda x: jnp.sum(lax.conv(x[None, None], jnp.ones((1, 1, 2, 2)), (1, 1), "SAME")), X),
    "cond": (lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.sum(jnp.sin(x)), jnp.sum, x), X),
    "remat": (lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x)), X),
    "sort and softmax": (lambda x: jnp.sum(jax.nn.softmax(jnp.sort(x)) ** 2), X),
    "windows": (lambda x: jnp.sum(lax.reduce_window(x, -np.inf, lax.max, (2, 2), (1, 1), "VALID")), X),
}
FORWARD = {
    "scan": (lambda x: lax.scan(lambda c, a: (c + a, c * a), x[0], x), X),
    "while": (lambda x: lax.while_loop(lambda a: a.sum() < 99, lambda a: a * 2, x), X),
    "random": (lambda k: jax.random.normal(k, (3,)), KEY),
    "seed": (lambda x: jax.random.uniform(jax.random.PRNGKey(0), (3,)) * x[0, 0], X),
    "linear algebra": (lambda s: [jnp.linalg.solve(s, s), jnp.linalg.svd(s), jnp.linalg.eigh(s)], S),
    "reduce": (lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + 1, (0,)), X),
    "fft, dtypes": (lambda x: (jnp.fft.fft(x), x.astype(jnp.bfloat16), x.astype(int) > 2), X),
    "structure": (lambda p, *, k: {"s": Point(p[0]["a"] * k, [None, p[1]]), "t": OrderedDict(z=k)}, ({"a": X}, X)),
    "a complex literal": (lambda x: x * np.complex64(1 - 2j), X),
    "nothing": (lambda x: x, X),
}


def held(g):
    text = str(g)
    read = graph.parse(text, g.jaxpr.consts)
    assert str(read) == text
    assert (read.stats(), read.inputs, read.outputs, read.name) == (g.stats(), g.inputs, g.outputs, g.name)
    assert read.jaxpr.in_avals == g.jaxpr.in_avals
    assert read.jaxpr.out_avals == g.jaxpr.out_avals
    bare = g.text(provenance=False)
    assert graph.parse(bare, g.jaxpr.consts).text(provenance=False) == bare
    return read


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_and_derivatives_read_back(name):
    f, *args = PROGRAMS[name]
    g = graph.trace(f, *args)
    held(g)
    derivative = g.gradients()
    held(derivative)
    held(derivative.optimize())
    if name in ("elementwise", "cond"):
        again = graph.parse(str(derivative))
        same(again.run(*args), derivative.run(*args))


@pytest.mark.parametrize("name", FORWARD)
def test_other_programs_read_back(name):
    f, *args = FORWARD[name]
    kwargs = {"k": 2.0} if name == "structure" else {}
    g = graph.trace(f, *args, **kwargs)
    read = held(g)
    if name in ("scan", "structure", "random"):
        out = [jax.tree.leaves(h.run(*args, **kwargs)) for h in (read, g)]
        same(*out)


def test_a_second_derivative_keeps_its_scopes():
    g = graph.trace(lambda x: jnp.sin(x) * x, 1.0).gradients().gradients(1, 0)
    assert g.stats().order == 2
    assert " <- sin.0" in str(g)
    same(held(g).run(2.0), g.run(2.0))


def test_numbers_are_read_to_the_bit():
    odd = np.array([0.1, -0.0, np.nan, np.inf, -np.inf, 1e-45], np.float32)
    odd_nan = np.array([0x7FC00001], np.uint32).view(np.float32)
    others = (np.arange(3) > 1, np.int8([-128, 5]))
    for array in (odd, odd_nan, odd.astype(jnp.bfloat16), *others, np.array([complex(-0.0, np.inf), 1j], np.complex64)):
        g = graph.trace(lambda x, array=array: (x + array, x), jnp.zeros_like(array))
        (found,) = held(g).jaxpr.consts
        assert np.asarray(found).tobytes() == array.tobytes()


def test_large_constants_are_given():
    g = graph.trace(lambda x: x * np.arange(100, dtype=np.float32), np.ones(100, np.float32))
    assert "=sha256:" in str(g)
    held(g)
    with raises(ParseError, "line 1, column"):
        graph.parse(str(g))
    with raises(ParseError, "pass the array in constants"):
        graph.parse(str(g), [np.zeros(100, np.float32)])


def test_settings_of_random_bits_are_kept():
    with jax.threefry_partitionable(False):
        g = graph.trace(lambda k: jax.random.bits(k, (3,)), KEY)
    assert "@threefry_partitionable=False" in str(g)
    same(held(g).run(KEY), g.run(KEY))


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("", (1, 1), "a program starts with its name"),
        ("f { lambda ; a:f32[2]. let\n  b:f32[2] = sine a\n in (b,) }", (2, 14), "no primitive is called 'sine'"),
        ("f { lambda ; a:f32[2]. let\n  b:f32[2] = sin c\n in (b,) }", (2, 18), "no value is called 'c'"),
        ("f { lambda ; a:f32[2]. let\n  b:f32[3] = sin a\n in (b,) }", (2, 14), "returns f32[2] here, not f32[3]"),
        ("f { lambda ; a:f99[2]. let in (a,) }", (1, 15), "no type is called 'f99'"),
        ("f { lambda ; a:f32[2@x]. let in (a,) }", (1, 15), "sizes must be numbers"),
        ("f { lambda ; a:f32[2]. let in (a,) } x", (1, 38), "the program has ended"),
        ("f { lambda ; a:f32[2]. let in (a,", (1, 34), "expected"),
        (
            "f { lambda ; a:f32[2]. let\n b:f32[2] = sin[accuracy=__import__] a\n in (b,) }",
            (2, 26),
            "nothing is called",
        ),
        ("f { lambda ; a:f32[2]. let\n b:f32[2] = add a\n in (b,) }", (2, 13), "add cannot be applied like this"),
        ("f { lambda b:f32[2]=[1.0]; a:f32[2]. let in (a,) }", (1, 21), "not the numbers of f32[2]"),
        ("f { lambda ; a:f32[2]. let ~ in (a,) }", (1, 28), "nothing starts with '~'"),
    ],
)
def test_errors_name_line_and_column(text, where, problem):
    with raises(ParseError, problem) as caught:
        graph.parse(text)
    assert (caught.value.line, caught.value.column) == where


def test_what_a_text_cannot_hold():
    g = graph.trace(lambda x: jnp.sum(jax.nn.relu(x)), X)
    with raises(ParseError, "custom_jvp_call has a WrappedFun here, which a text cannot hold"):
        graph.parse(str(g))
    held(g.gradients().strip([0, 1], check=False))
