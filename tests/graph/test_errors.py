"""What a function is told that cannot be traced: the line, and the form that can. JAX's own error types stay."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph
from twograd.errors import NotReversible
from twograd.graph import passes

CALLS = [
    graph.trace,
    lambda f, x: graph.grad(f)(x),
    lambda f, x: graph.value_and_grad(f)(x),
    graph.vjp,
    lambda f, x: graph.jacobian(f)(x),
    lambda f, x: jax.jit(graph.grad(f))(x),
    lambda f, x: graph.grad(graph.grad(f))(x),
]


def notes(error, f, x, call=CALLS[1]):
    """All that is noted in the ``error`` that the call raises, which is of exactly this class."""
    with pytest.raises(error) as raised:
        call(f, x)
    assert raised.type is error
    said = [note for note in raised.value.__notes__ if "test_errors.py" in note]
    assert len(said) == 1, "one note, also from nested traces"
    return said[0]


def line_of(f):
    return f"{__file__}:{f.__code__.co_firstlineno + 1} ({f.__name__}): "


def branching(x):
    if x > 0 and not x > 9:
        return x
    return -x


@pytest.mark.parametrize("call", CALLS)
def test_a_branch_names_its_line_and_the_cond(call):
    note = notes(jax.errors.TracerBoolConversionError, branching, 1.0, call)
    assert note.startswith(line_of(branching) + "if x > 0 and not x > 9:")
    test = "jnp.logical_and(x > 0, jnp.logical_not(x > 9))"
    assert f"jax.lax.cond({test}, if_true, if_false, *operands)" in note
    assert f"jnp.where({test}, a, b)" in note
    assert "twograd.tape" in note


def test_the_advice_works():
    def rewritten(x):
        test = jnp.logical_and(x > 0, jnp.logical_not(x > 9))
        return jax.lax.cond(test, lambda x: x, lambda x: -x, x) + jnp.where(test, x, -x)

    assert [float(graph.grad(rewritten)(x)) for x in (1.0, -1.0, 10.0)] == [2.0, -2.0, -2.0]


def looping(x):
    while 0.5 < abs(x) < 10:
        x = x / 2
    return x


def test_a_loop_names_the_bounded_loop():
    note = notes(jax.errors.TracerBoolConversionError, looping, 1.0)
    assert note.startswith(line_of(looping) + "while 0.5 < abs(x) < 10:")
    test = "jnp.logical_and(0.5 < abs(x), abs(x) < 10)"
    assert f"graph.bounded_while_loop(lambda state: {test}, body, state, max_steps)" in note
    assert "jax.lax.scan(body, state, xs)" in note


def counting(x):
    for _ in range(2, x.astype(int)):
        x = x * x
    return x


def asserting(x):
    assert x > 0
    return x


def nested(x):
    if x.shape == ():
        y = jnp.where(x > 0, x, 0) if x > 1 else x
    return y


VALUES = [1.0, 2.0]


@pytest.mark.parametrize(
    ("error", "f", "form"),
    [
        ("TracerIntegerConversionError", counting, "jax.lax.fori_loop(2, x.astype(int), body, state)"),
        ("TracerBoolConversionError", asserting, 'jax.experimental.checkify.check(x > 0, "...")'),
        ("TracerBoolConversionError", nested, "jax.lax.cond(x > 1, lambda: jnp.where(x > 0, x, 0), lambda: x)"),
        ("TracerBoolConversionError", lambda x: max(x, 0.0), "jnp.maximum(x, 0.0)"),
        ("TracerBoolConversionError", lambda x: x * (x > 0 or x < -3), "jnp.logical_or(x > 0, x < -3)"),
        ("TracerIntegerConversionError", lambda x: VALUES[x.astype(int)], "jnp.stack(VALUES)[x.astype(int)]"),
        ("ConcretizationTypeError", lambda x: float(x * 2), "(x * 2).astype(float)"),
        ("ConcretizationTypeError", lambda x: x.item(), "    x  # an array does"),
        ("ConcretizationTypeError", lambda x: math.exp(x) + 1, "jnp.exp(x)"),
        ("TracerArrayConversionError", lambda x: np.sin(x) + 1, "jnp.sin(x)"),
        ("NonConcreteBooleanIndexError", lambda x: (x[None])[x[None] > 0], "jnp.where(x[None] > 0, x[None], 0)"),
    ],
)  # fmt: skip
def test_other_ways_to_ask_for_a_value(error, f, form):
    note = notes(getattr(jax.errors, error), f, 1.0)
    assert f"({f.__name__}): " in note
    assert "a traced value has a shape and a dtype, but no value yet" in note
    assert form in note


def test_where_the_source_is_not_known():
    names = {}
    exec(compile("def unknown(x):\n    if x > 0:\n        return x", "nowhere.py", "exec"), names)
    with pytest.raises(jax.errors.TracerBoolConversionError) as raised:
        graph.grad(names["unknown"])(1.0)
    assert "nowhere.py:2 (unknown): " in raised.value.__notes__[0]
    assert "no value yet" in raised.value.__notes__[0]


def test_an_error_that_is_no_tracers_stays_as_it_is():
    with pytest.raises(ZeroDivisionError) as raised:
        graph.grad(lambda x: x * (1 // 0))(1.0)
    assert not any("traced value" in note for note in getattr(raised.value, "__notes__", ()))


def test_leaks():
    kept = []

    def keeps(x):
        kept.append(x * 2)
        return x * x

    graph.grad(keeps)(1.0)
    note = notes(jax.errors.UnexpectedTracerError, lambda x: x * kept[0], 1.0)
    assert "A value of one trace was used after that trace had ended" in note
    assert "has_aux=True" in note
    for call in (graph.trace, graph.vjp, lambda f, x: graph.hvp(f, (x,), (x,))):
        note = notes(jax.errors.UnexpectedTracerError, lambda x: x * kept[0], 1.0, call)
        assert note.startswith("<lambda>"), "the user's function is named"
        assert "has_aux=True" in note
    with pytest.raises(jax.errors.UnexpectedTracerError, match=r"keeps at .*test_errors.py"):
        kept[0] + 1


def test_a_value_of_a_trace_that_is_going_on_is_no_leak():
    assert jax.jit(lambda y: graph.trace(lambda x: x * y, 1.0).run(2.0))(3.0) == 6.0
    assert jax.grad(lambda y: graph.trace(lambda x: x * y, 1.0).run(2.0))(3.0) == 2.0


def test_a_while_loop_in_reverse_mode_names_the_bounded_loop():
    with pytest.raises(NotReversible, match=r"bounded_while_loop.*max_steps") as raised:
        graph.grad(lambda x: jax.lax.while_loop(lambda v: v < 9, lambda v: v * v, x))(2.0)
    assert f"{__file__}:" in str(raised.value)


def test_why_it_was_traced_again():
    d = graph.grad(lambda p, x: jnp.sum(p["w"] * x))
    ones = np.ones(3, np.float32)
    d({"w": ones}, 1.0)
    assert d.retraces() == []
    d({"w": ones[:2]}, 1.0)
    d({"w": ones[:2]}, np.float32(1))
    d({"w": ones, "b": 0.0}, 1.0)
    with jax.default_matmul_precision("float32"):
        d({"w": ones}, 1.0)
    assert d.retraces()[:2] == [
        "[0]['w'] is float32[2], and was float32[3]",
        "[1] is float32[], and was float32[] (weakly typed)",
    ]
    assert "the structure of the arguments is" in d.retraces()[2]
    assert "other settings of JAX" in d.retraces()[3]
    assert d.traces() == 5


# --- arguments that cannot be meant -----------------------------------------------------------------------------------


def square(x):
    return jnp.sum(x**2)


X = np.ones(3, np.float32)
G = graph.trace(square, X)
D = graph.trace(lambda x: jnp.sum(jnp.exp(x)), X).gradients()

MISTAKES = [
    (lambda: graph.trace(3), "trace expects a function as its first argument, got int: 3"),
    (lambda: graph.trace(square, {"w": "a"}), "trace takes arrays and numbers, but argument 0['w'] is str: 'a'"),
    (lambda: graph.trace(lambda *, mode: 0.0, mode="fast"), "but mode is str: 'fast'. A function can close over"),
    (lambda: graph.grad(square)("a"), "the derivative of square"),
    (lambda: graph.vjp(square, "a"), "vjp takes arrays and numbers, but argument 0 is str"),
    (lambda: graph.grad(3), "grad expects a function"),
    (lambda: graph.hessian(3), "hessian expects a function"),
    (lambda: graph.hvp(3, (X,), (X,)), "hvp expects a function"),
    (lambda: graph.jvp(square, X, X), "jvp takes primals and tangents as tuples"),
    (lambda: graph.hvp(square, X, X), "hvp takes primals and tangents as tuples"),
    (lambda: graph.grad(square, 2)(X), "argnums=2 asks for argument 2; the call has 1 positional one"),
    (lambda: graph.gradients(square), "gradients takes a Graph, got function: make one of a function by graph.trace"),
    (lambda: graph.diff_passes(square), "diff_passes takes a Graph, got function"),
    (lambda: graph.backprop(G, X), "backprop takes the arguments of square in a list, or by name, got ndarray"),
    (lambda: G.run("a"), "square was traced with x: float32[3], and called with str: 'a'"),
    (lambda: G.strip(1.5), "an output of square is chosen by its index or its name, not by 1.5"),
    (lambda: G.strip([]), "say which outputs of square to keep; it has result"),
    (lambda: G.freeze(3), "freeze takes a mapping of inputs to values, got int: square has the inputs x"),
    (lambda: G.export("f", platforms="cpu"), "platforms are a list of some of cpu, cuda, rocm, tpu, not 'cpu'"),
    (lambda: G.export("f", platforms=["abacus"]), "not ['abacus']"),
    (lambda: graph.parse(G), "parse takes the text of a graph, str(g), got Graph"),
    (lambda: graph.parse(str(G), 3), "constants are arrays, such as g.jaxpr.consts, got 3"),
    (lambda: graph.ladder(square, X, orders="two"), "ladder climbs a number of orders, got orders='two'"),
    (lambda: graph.optimize(G), "optimize takes a ClosedJaxpr, got Graph: a Graph has one, g.jaxpr"),
    (lambda: graph.optimize(G.jaxpr, passes.dce), "optimize takes passes in a list, got <function dce"),
    (lambda: D.optimize(passes.remat), "g.optimize(passes.remat(budget_bytes)). This program keeps 12 bytes; for half"),
    (lambda: passes.remat("1 MB"), "budget_bytes is a number of bytes, not '1 MB'"),
    (lambda: passes.remat(100)(G), "remat takes a ClosedJaxpr, got Graph"),
    (lambda: passes.rewrite("mine", G.jaxpr, lambda walk: lambda eqn: 3), "of integer_pow it answered 3"),
    (lambda: graph.split_vjp(G, [True]), "split_vjp takes a ClosedJaxpr, got Graph"),
    (lambda: graph.split_vjp(G.jaxpr, [True, False]), "a bool for each of the 1 operands, got [True, False]"),
    (lambda: graph.bounded_while_loop(3, square, X, 3), "cond_fun must be a function, got int"),
    (lambda: graph.bounded_while_loop(square, square, X, 1.5), "the length of a compiled loop, an integer, not 1.5"),
] + [(lambda f=f: f(G), f"{f.__name__} takes a ClosedJaxpr, got Graph") for f in (*passes.PASSES, passes.reroll)]


def test_arguments_that_cannot_be_meant_are_named():
    for mistake, text in MISTAKES:
        with pytest.raises((TypeError, ValueError)) as raised:
            mistake()
        assert text in str(raised.value), f"{text!r} not in {raised.value}"
