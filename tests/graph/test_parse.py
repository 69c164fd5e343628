"""A text reads back: print, parse, print is the identity, and what is read computes the same."""

import importlib
from collections import OrderedDict, namedtuple
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _comparisons import comparison_programs
from _libraries import LIBRARIES
from _programs import PROGRAMS as BENCHMARKS
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from rules.checks import Case, problem

from graph.same import raises, same
from twograd import graph
from twograd.errors import ParseError

X = np.linspace(0.1, 1.2, 12, dtype=np.float32).reshape(3, 4)
S = np.eye(3, dtype=np.float32) * 2
KEY = jax.random.key(0)
Point = namedtuple("Point", "x y")
TESTS = Path(__file__).parents[1]
COMPARED = sorted(  # those that time a program
    path.stem for path in (TESTS.parent / "comparisons").glob("*.py") if "\n    loss=" in path.read_text("utf-8")
)
RULE_MODULES = sorted(path.stem[5:] for path in (TESTS / "rules").glob("test_*.py") if path.stem != "test_registry")

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
        same(jax.tree.leaves(read.run(*args, **kwargs)), jax.tree.leaves(g.run(*args, **kwargs)))


def test_a_second_derivative_keeps_its_scopes():
    g = graph.trace(lambda x: jnp.sin(x) * x, 1.0).gradients().gradients(1, 0)
    assert g.stats().order == 2
    assert " <- sin.0" in str(g)
    same(held(g).run(2.0), g.run(2.0))


def test_numbers_are_read_to_the_bit():
    odd = np.array([0.1, -0.0, np.nan, np.inf, -np.inf, 1e-45], np.float32)
    odd_nan = np.array([0x7FC00001], np.uint32).view(np.float32)
    others = (np.arange(3) > 1, np.array([-128, 5], np.int8))
    for array in (odd, odd_nan, odd.astype(jnp.bfloat16), *others, np.array([complex(-0.0, np.inf), 1j], np.complex64)):
        g = graph.trace(lambda x, array=array: (x + array, x), jnp.zeros_like(array))
        (found,) = held(g).jaxpr.consts
        assert np.asarray(found).tobytes() == array.tobytes()


def test_policies_of_checkpoints_stand_by_name():
    """The derivative, which asks the policy, is that of the program before it was printed."""
    policies = jax.checkpoint_policies
    offloaded = {"names_which_can_be_saved": ["s"], "names_which_can_be_offloaded": ["e"]}
    spaces = {"offload_src": "device", "offload_dst": "pinned_host"}
    either = policies.save_from_both_policies(policies.dots_saveable, policies.save_only_these_names("s", "e"))
    for policy, text in (
        (None, "policy=None"),
        (policies.everything_saveable, "policy=everything_saveable"),
        (policies.nothing_saveable, "policy=nothing_saveable"),
        (policies.dots_with_no_batch_dims_saveable, "dots_with_no_batch_dims_saveable"),
        (policies.save_only_these_names("s", "e"), 'policy=save_only_these_names("e", "s")'),
        (policies.save_any_names_but_these("s"), 'policy=save_any_names_but_these("s")'),
        (either, 'policy=save_from_both_policies(dots_saveable, save_only_these_names("e", "s"))'),
        (
            policies.save_and_offload_only_these_names(**offloaded, **spaces),
            'save_and_offload_only_these_names(names_which_can_be_saved=("s",), names_which_can_be_offloaded=("e",), ',
        ),
        (policies.offload_dot_with_no_batch_dims("device", "pinned_host"), '_dims("device", "pinned_host")'),
    ):

        def f(x, policy=policy):
            @partial(jax.checkpoint, policy=policy)
            def body(x):
                return jnp.exp(checkpoint_name(jnp.sin(x @ x.T), "s")) * checkpoint_name(jnp.exp(x[0, 0]), "e")

            return jnp.sum(body(x))

        g = graph.trace(f, X)
        assert text in str(g)
        read, derivative = held(g), g.gradients()
        assert read.gradients().text(provenance=False) == derivative.text(provenance=False)
    with raises(ParseError, "nothing is called 'save_nothing'"):
        graph.parse(str(g).replace("offload_dot_with_no_batch_dims", "save_nothing"))
    own = graph.trace(jax.checkpoint(jnp.sin, policy=lambda *_, **__: True), X)
    with raises(ParseError, "has a function here, which a text cannot hold"):
        graph.parse(str(own))


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


# --- derivative rules of the user's -----------------------------------------------------------------------------------


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


@jax.custom_jvp
def cosine(x):
    return jnp.cos(x)


sine.defjvp(lambda p, t: (sine(*p), t[0] * cosine(*p)))
cosine.defjvp(lambda p, t: (cosine(*p), -t[0] * sine(*p)))


@jax.custom_jvp
def times_table(x, n):
    return x * X * n, n + 1


@times_table.defjvp
def _times_table_jvp(p, t):
    assert t[1].dtype == jax.dtypes.float0
    return times_table(*p), (t[0] * X * 3, t[1])


@jax.custom_vjp
def clipped(low, high, x):
    return x


clipped.defvjp(lambda low, high, x: (x, (low, high)), lambda kept, ct: (None, None, jnp.clip(ct, *kept)))


@jax.custom_vjp
def product(d, n):
    return jnp.sin(d["x"]) * d["y"], jnp.floor(d["x"]).astype(int) + n


@partial(product.defvjp, lambda d, n: (product(d, n), (d, jnp.cos(d["x"]))))
def _product_bwd(kept, cts):
    d, cosine_x = kept
    return {"x": cts[0] * cosine_x * d["y"], "y": 2 * cts[0] * jnp.sin(d["x"])}, None


def scaled(factor, jvp_calls=None):
    """Sines that have one name and one body, and different rules."""

    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda p, t: ((jvp_calls or f)(*p), t[0] * factor))
    return f


relu, softplus = jax.nn.relu, jax.nn.softplus
RULES = {
    "relu": lambda x: jnp.sum(relu(x) + relu(2 * x)) + relu(x[0, 0]) + jax.jit(lambda x: jnp.sum(relu(x)))(x),
    "of libraries": lambda x: jnp.sum(jax.nn.silu(x) + softplus(x)) + optax.safe_norm(x, 0.1),
    "mutual recursion": lambda x: jnp.sum(sine(x) * sine(2 * x) * cosine(x)),
    "closing over a constant, integers": lambda x: jnp.sum(times_table(x, 2)[0] * times_table(x, jnp.arange(4))[0]),
    "cotangents of None, residuals that are operands": lambda x: jnp.sum(clipped(-0.1, 0.2, x) ** 2),
    "structures": lambda x: jnp.sum(product({"x": x, "y": 2 * x}, 3)[0]),
    "one name, different rules": lambda x: jnp.sum(scaled(2)(x) * scaled(3)(x) * scaled(2)(2 * x)),
    "in a loop": lambda x: jnp.sum(lax.scan(lambda c, a: (relu(c + a) * sine(c), a), x[0], x)[0]),
    "in a batch": lambda x: jnp.sum(jax.vmap(lambda a: relu(a) + clipped(0.0, 1.0, a))(x)),
    "in a checkpoint": lambda x: jnp.sum(jax.checkpoint(lambda x: relu(jnp.sin(x)))(x)),
}


@pytest.mark.parametrize("name", RULES)
def test_derivative_rules_read_back(name):
    g = graph.trace(RULES[name], X)
    assert "rule " in str(g)
    derivative, again = g.gradients(), held(g).gradients()
    assert again.text(provenance=False) == derivative.text(provenance=False)
    held(derivative.optimize())
    second = held(derivative).gradients(1, 0) if len(derivative.jaxpr.out_avals) == 1 else None
    assert second is None or held(second)


def test_derivatives_of_what_was_read_are_jaxs():
    def f(x):
        return jnp.sum(relu(x) ** 3 * sine(x) + softplus(x) * scaled(2)(x)) + jnp.sum(product({"x": x, "y": x}, 1)[0])

    x = jnp.array([-1.0, 0.0, 0.5, 2.0])  # relu has its kink at 0
    read = graph.parse(str(graph.trace(f, x)))
    kinks = graph.parse(str(graph.trace(lambda x: jnp.sum(relu(x) + relu(-3 * x)), x)))

    def orders(f):
        def slope(x):
            return jnp.sum(jnp.sin(jax.grad(f)(x)))

        return jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.grad(slope)(x)))(x)

    same(orders(read.run), orders(f))
    same(orders(kinks.run), orders(lambda x: jnp.sum(relu(x) + relu(-3 * x))))
    first = graph.parse(str(read.gradients()))
    same(jax.tree.leaves(first.run(x)), jax.tree.leaves(jax.value_and_grad(f)(x)))


def test_equal_rules_stand_once_and_a_print_changes_no_derivative():
    g = graph.trace(lambda x: jnp.sum(relu(relu(x)) + relu(x[0])), X)
    before = g.gradients().text()
    assert [line for line in str(g).splitlines() if line.startswith("rule ")] == [
        "rule relu = custom_jvp_call[",
        "rule relu-2 = custom_jvp_call[",
    ]
    again = graph.trace(lambda x: jnp.sum(relu(relu(x)) + relu(x[0])), X)
    assert str(again)
    assert again.gradients().text(provenance=False) == g.gradients().text(provenance=False)
    assert [line.split("#")[1].split(":")[0] for line in again.gradients().text().splitlines() if "#" in line] == [
        line.split("#")[1].split(":")[0] for line in before.splitlines() if "#" in line
    ]


def test_rules_that_no_text_can_hold():
    @jax.custom_jvp
    def asks(x, y):
        return x * y

    asks.defjvp(lambda p, t: (asks(*p), t[0]), symbolic_zeros=True)

    def closing(y):
        f = jax.custom_jvp(lambda x: x * y)
        f.defjvp(lambda p, t: (f(*p), t[0] * y))
        return f

    def deeper(n):
        f = jax.custom_jvp(lambda x: x * n)
        f.defjvp(lambda p, t: (f(*p), t[0] * deeper(n + 1)(*p)))
        return f

    def fails(_p, _t):
        raise NotImplementedError("some day")

    failing = jax.custom_jvp(jnp.sin)
    failing.defjvp(fails)
    for f, why in (
        (lambda x: asks(x, x), "asks which tangents are zero"),
        (lambda x: closing(jnp.sin(x))(x), "closes over values of a trace"),
        (deeper(1), "and so on"),
        (jnp.sinc, "and has another rule"),
        (scaled(2, scaled(3)), "and has another rule"),
        (failing, "tracing its rule raises NotImplementedError"),
    ):
        g = graph.trace(f, X)
        with raises(ParseError, "g.strip(outputs) opens calls with derivative rules"):
            graph.parse(str(g))
        with raises(ParseError, why):
            graph.parse(str(g))
        held(g.strip([0], check=False))


RULE = """f { lambda ; a:f32[2]. let
  b:f32[2] = custom_jvp_call[rule=g] a
  in (b,) }
rule g = custom_jvp_call[
  call_jaxpr={ lambda ; a:f32[2]. let
    b:f32[2] = sin a
    in (b,) },
  jvp={ lambda ; a:f32[2] b:f32[2]. let
    c:f32[2] = custom_jvp_call[rule=g] a
    in (c, b) }
]"""


@pytest.mark.parametrize(
    ("old", "new", "where", "problem"),
    [
        ("[rule=g] a\n  in", "[rule=h] a\n  in", (2, 35), "no rule is called 'h'"),
        ("rule=g", "rule=<why>", (2, 35), "no derivative rule that a text can hold: why"),
        ("rule g = custom_jvp_call", "rule g = sin", (4, 10), "a rule is of custom_jvp_call or custom_vjp_call"),
        ("  jvp={", "  fwd={", (4, 6), "it needs call_jaxpr, jvp, and may have num_consts"),
        ("  b:f32[2] = custom_jvp", "  b:f32[2] = custom_vjp", (2, 14), "g is a rule of custom_jvp_call"),
        ("in (c, b)", "in (c,)", (4, 6), "jvp returns f32[2], where f32[2] f32[2] is expected"),
        ("f { lambda ; a:f32[2]", "f { lambda ; a:f32[3]", (2, 14), "g takes f32[2], not f32[3]"),
        ("in (b,) },\n", "in (b,) }, x=1,\n", (4, 6), "and may have num_consts"),
        ("b:f32[2] = sin a", "b:f32[2] = custom_jvp_call[rule=g] a", (6, 16), "must stand before what calls it"),
        ("(c, b) }\n]", "(c, b) }\n]\nrule g = sin[]", (12, 6), "two rules are called 'g'"),
    ],
)
def test_errors_of_rules(old, new, where, problem):
    assert old in RULE
    graph.parse(RULE)
    with raises(ParseError, problem) as caught:
        graph.parse(RULE.replace(old, new, 1))
    assert (caught.value.line, caught.value.column) == where


# --- many programs ----------------------------------------------------------------------------------------------------


def stages(g, derivative):
    """The graph of a program, that of its derivative, this one optimised, and that one stripped."""
    return [g, derivative, derivative.optimize(), derivative.strip([0], check=False)]


QUICK = {"MLP", "mlp_digits"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in (*BENCHMARKS, *COMPARED)]
)
def test_benchmarks_and_comparisons_read_back(name):
    loss, params, batch = BENCHMARKS[name]() if name in BENCHMARKS else comparison_programs()[name]
    g = graph.trace(loss, params, batch)
    read = [held(stage) for stage in stages(g, g.gradients(0))]
    assert read[0].gradients(0).text(provenance=False) == read[1].text(provenance=False)
    same(read[1].run(params, batch), g.gradients(0).run(params, batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_programs_of_libraries_read_back(name):
    loss, params, batch = LIBRARIES[name](1)
    g = graph.trace(loss, params, batch)
    if "pure_callback" in str(g):  # a solver that checks its result calls Python, which no text can hold
        with pytest.raises(ParseError, match="which a text cannot hold"):
            graph.parse(str(g))
        return
    held(g)
    held(g.value_and_grad().optimize())


@pytest.mark.slow
@pytest.mark.parametrize("module", RULE_MODULES)
def test_programs_of_every_derivative_rule_read_back(module):
    values = vars(importlib.import_module(f"rules.test_{module}")).values()
    cases = [item for value in values if isinstance(value, list) for item in value if isinstance(item, Case)]
    assert cases
    with jax.enable_x64(True):
        for case in cases[:: 1 + len(cases) // 50]:
            if not case.slow:
                fn, xs = problem(case).fn, problem(case).xs
                g = graph.trace(lambda *xs, fn=fn: sum(jnp.sum(jnp.real(out)) for out in fn(*xs)), *xs)
                held(g.gradients())
