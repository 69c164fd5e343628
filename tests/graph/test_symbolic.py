"""Graphs that are built first and run later: building, running, differentiating, state, control flow, mistakes."""

import functools
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.lax as tlax
import twograd.numpy as tnp
from graph.same import raises, same
from twograd import graph, tape
from twograd.data import digits
from twograd.graph import symbolic
from twograd.nn import functional as F

X = np.linspace(0.2, 1.2, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """These tests compile many tiny programs, each once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def own_graph():
    """Each test builds in a graph of its own."""
    with symbolic.Graph().as_default() as default:
        yield default


def run(fetches, feed_dict=None):
    """Runs in a new session, with all variables initialised."""
    with symbolic.Session() as session:
        if symbolic.get_default_graph().variables:
            session.run(symbolic.global_variables_initializer())
        return session.run(fetches, feed_dict)


# --- building ---------------------------------------------------------------------------------------------------------


def test_functions_operators_and_methods_build_what_jax_computes():
    x, n = symbolic.placeholder(shape=(2, 3), name="x"), symbolic.placeholder(np.int32, name="n")
    programs = {
        "operators": lambda x, n: (x + 1, 1 - x, x * x, 2 / x, -x, abs(-x), x**2, 2**x, x // 0.3, x % 0.3, +x),
        "integers": lambda x, n: (n & 6, n | 1, n ^ 3, ~n, n << 1, n >> 1, 7 // n, 1 + n),
        "comparisons": lambda x, n: (x < 0.5, x <= 0.5, x > 0.5, x >= 0.5),
        "matmul": lambda x, n: (x @ W, W.T @ x.T),
        "methods": lambda x, n: (x.sum(0), x.mean(axis=1, keepdims=True), x.reshape(3, 2), x.astype(int), x.max()),
        "more methods": lambda x, n: (x.T, x.mT, x.real, x.argmax(1), x.std(), x.clip(0.3, 0.6), x.squeeze(), x.dot(W)),
        "indexing": lambda x, n: (x[0], x[:, 1:], x[..., None], x[n - 3, [0, 2]], x[None, 1, ::-1]),
        "updates": lambda x, n: (x.at[0].set(1.0), x.at[:, n - 3].add(x[:, 0]), x.at[0, 1].get()),
    }
    for name, program in programs.items():
        built = program(x, n)
        expected = jax.jit(program)(X, 4)
        for symbol, value in zip(built, expected, strict=True):
            assert (symbol.shape, symbol.dtype, symbol.ndim) == (value.shape, value.dtype, value.ndim), name
        same(run(built, {x: X, n: 4}), expected)


def test_every_front_end_takes_symbols():
    x = symbolic.placeholder(shape=(2, 3))
    ours = (tnp.concatenate([x, x]), tnp.where(x > 0.5, x, 0), tlax.sin(x), F.softmax(x, -1), tnp.linalg.norm(x))
    ours += tuple(tnp.split(x, 3, axis=1))
    theirs = (np.concatenate([X, X]), np.where(X > 0.5, X, 0), np.sin(X), np.exp(X) / np.exp(X).sum(1, keepdims=True))
    theirs += (np.linalg.norm(X), *np.split(X, 3, axis=1))
    same(run(ours, {x: X}), theirs)


def test_apply_takes_any_jax_function_and_structure():
    x = symbolic.placeholder(shape=(2, 3))
    pair = symbolic.apply(lambda tree, *, k: {"sum": tree["a"] + tree["b"], "k": tree["a"] * k}, {"a": x, "b": X}, k=2)
    same(run(pair, {x: X}), {"sum": jnp.asarray(2 * X), "k": jnp.asarray(2 * X)})
    key = symbolic.placeholder(jax.random.key(0).dtype)
    noise = symbolic.apply(jax.random.normal, key, (3,))
    same(run(noise, {key: jax.random.key(3)}), jax.random.normal(jax.random.key(3), (3,)))


def test_a_constant_is_what_it_was_when_it_was_built():
    array = np.ones(3, np.float32)
    x, c = symbolic.placeholder(shape=(3,)), symbolic.constant(array)
    y = x * array + c
    array[:] = 7
    same(run(y, {x: np.ones(3)}), jnp.full(3, 2.0))
    same(run(symbolic.constant(2, np.float32, (2,))), jnp.full(2, 2.0))
    for minus in (0.0, -0.0):  # equal numbers, different constants
        assert np.signbit(run(x * minus, {x: np.ones(3)})).all() == np.signbit(minus)
    assert run(x**2, {x: np.ones(3)}).dtype == run(x**2.0, {x: np.ones(3)}).dtype == np.float32


def test_names_and_scopes():
    x = symbolic.placeholder(name="x")
    assert [(x + x).name, (x + x).name, symbolic.identity(x, "out").name] == ["add:0", "add_1:0", "out:0"]
    with symbolic.name_scope("layer"):
        y = x * 2
        with symbolic.name_scope("inner"):
            z = y * 2
    with symbolic.name_scope("layer"):
        again = x * 3
    assert [s.op.name for s in (y, z, again)] == ["layer/multiply", "layer/inner/multiply", "layer_1/multiply"]
    assert symbolic.placeholder(name="x").name == "x_1:0"
    default = symbolic.get_default_graph()
    assert default["x"] is x.op
    assert default["x:0"] is x
    for wrong in ("y", "x:1", "x:a"):
        with pytest.raises(KeyError) as caught:
            default[wrong]
        assert repr(wrong) in caught.value.args[0]
    assert repr(symbolic.placeholder(shape=(None, 7), name="p")) == "<Symbol 'p:0' shape=(?, 7) dtype=float32>"


def test_text_tree_and_expression():
    x = symbolic.placeholder(shape=(None, 3), name="x")
    y = tnp.sum(x**2 @ W[:, :1], axis=0) * 3.0
    lines = symbolic.text(symbolic.get_default_graph()).splitlines()
    assert lines[0].split("  ")[0] == "x: float32[?,3] = placeholder()"
    assert lines[1].split("  ")[0] == "power: float32[?,3] = power(x, 2)"
    assert lines[3].split("  ")[0] == "sum: float32[1] = sum(matmul, axis=0)"
    assert all("test_symbolic.py:" in line for line in lines)
    assert symbolic.pp(y) == f"(sum(((x ** 2) @ {W[:, :1].tolist()}), axis=0) * 3.0)"
    z = symbolic.identity(x, "z")
    assert symbolic.debugprint(z * z).splitlines() == [
        "multiply [id A] 'multiply_1' float32[?,3]",
        " |identity [id B] 'z' float32[?,3]",
        " | |placeholder [id C] 'x' float32[?,3]",
        " |identity [id B] 'z' float32[?,3]",
        " | |...",
    ]
    assert symbolic.pp(z * z) == "(identity(x) * identity(x))"


def test_a_long_chain_builds_prints_and_runs():
    x = symbolic.placeholder()
    y = x
    for _ in range(3000):
        y = y + 1.0
    assert len(symbolic.pp(y)) > 3000
    assert len(symbolic.debugprint(y).splitlines()) == 3001
    plan = symbolic.Session().plan(y, [x])
    assert len(plan.operations) == 3000


def test_threads_have_their_own_default_graph():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(symbolic.get_default_graph()))
    thread.start()
    thread.join()
    assert seen[0] is not symbolic.get_default_graph()


# --- sizes that are not known -----------------------------------------------------------------------------------------


def test_unknown_sizes_are_inferred_where_they_can_be():
    x, m = symbolic.placeholder(shape=(None, 3)), symbolic.placeholder(shape=(None, None))
    shapes = {
        "product": (x @ W, (None, 4)),
        "reduction": (x.sum(0), (3,)),
        "mean": (x.mean(), ()),
        "flattened": (x.reshape(-1), (None,)),
        "split": (x.reshape(-1, 1, 3), (None, 1, 3)),
        "doubled": (tnp.concatenate([x, x]), (None, 3)),
        "sum": (x + m, (None, 3)),
        "of a matrix": (m @ W, (None, 4)),
        "with a vector": (m @ W[:, 0], (None,)),
        "with a bias": (m + W[0], (None, 4)),
        "gram": (m.T @ m, (None, None)),
        "halves": (x.reshape(2, -1), (2, None)),
    }
    for name, (symbol, shape) in shapes.items():
        assert symbol.shape == shape, name
    feeds = {x: X, m: X}
    found = run([shapes[name][0] for name in ("product", "sum", "of a matrix", "gram")], feeds)
    same(found, [jnp.asarray(v) for v in (X @ W, X + X, X @ W, X.T @ X)])


def test_gradients_through_unknown_sizes_that_differ():
    x = symbolic.placeholder(shape=(None,))
    y = tnp.sum(tnp.sin(x[1:]) * x[:-1] ** 2) + tnp.sum(tnp.pad(x, 2) ** 3)
    (first,) = symbolic.gradients(y, x)
    (second,) = symbolic.gradients(tnp.sum(first**2), x)
    (third,) = symbolic.gradients(tnp.sum(second), x)
    derivative = jax.grad(lambda x: jnp.sum(jnp.sin(x[1:]) * x[:-1] ** 2) + jnp.sum(x**3))
    above = jax.grad(lambda x: jnp.sum(derivative(x) ** 2))
    expected = jax.jit(lambda x: [derivative(x), above(x), jax.grad(lambda x: jnp.sum(above(x)))(x)])
    for size in (3, 2):
        same(run([first, second, third], {x: X[0, :size]}), expected(X[0, :size]), rtol=1e-4)


def test_one_graph_runs_at_many_sizes_and_says_for_which_it_was_traced():
    x = symbolic.placeholder(shape=(None, 3))
    y = tnp.mean(x @ W, axis=0)
    dy = symbolic.gradients(tnp.sum(y**2), x)[0]
    assert dy.shape == (None, 3)
    session = symbolic.Session()
    for n in (1, 5, 1):
        data = np.ones((n, 3), np.float32) * np.arange(1, n + 1, dtype=np.float32)[:, None]
        same(session.run(dy, {x: data}), np.broadcast_to(2 / n * np.mean(data @ W, axis=0) @ W.T, data.shape))
    assert session.plan(dy, [x]).signatures == ["float32[1,3]", "float32[5,3]"]


def test_a_size_that_was_inferred_wrongly_is_an_error_not_a_wrong_number():
    x = symbolic.placeholder(shape=(None,))
    y = x[:10]
    assert y.shape == (10,)
    same(run(y, {x: np.ones(12)}), jnp.ones(10))
    with raises(TypeError, "turned out to be float32[5]"):
        run(y, {x: np.ones(5)})


def test_sizes_as_symbols():
    x = symbolic.placeholder(shape=(None, 3))
    rows, columns = tnp.shape(x)
    same(run([rows * 2, columns], {x: X}), [jnp.asarray(4), 3])


def test_sizes_that_do_not_fit_name_the_operation_and_the_line():
    x = symbolic.placeholder(shape=(None, 5), name="x")
    with pytest.raises(TypeError) as caught:
        x @ W
    assert "in the operation matmul(x:0: float32[?,5], " in str(caught.value.__notes__), "and what it meets"
    m, v = symbolic.placeholder(shape=(None, None)), symbolic.placeholder(shape=(None,))
    z = m @ v
    with pytest.raises(TypeError) as caught:
        run(z, {m: X, v: np.ones(2)})
    note = str(caught.value.__notes__)
    assert "in the operation matmul" in note
    assert "test_symbolic.py" in note


# --- running ----------------------------------------------------------------------------------------------------------


def counting(counter, name):
    """An identity that counts how often it runs."""

    def counted(x):
        jax.debug.callback(functools.partial(counter.append, name))
        return x * 1.0

    counted.__name__ = name
    return functools.partial(symbolic.apply, counted)


def test_only_ancestors_of_the_fetches_run():
    ran = []
    x = symbolic.placeholder(name="x")
    a = counting(ran, "a")(x)
    b = counting(ran, "b")(a)
    counting(ran, "c")(a)
    session = symbolic.Session()
    same(session.run(b, {x: 3.0}), jnp.asarray(3.0))
    jax.effects_barrier()
    assert sorted(ran) == ["a", "b"]
    assert [op.name for op in session.plan(b, [x]).operations] == ["a", "b"]
    ran.clear()
    same(session.run(b, {a: 4.0}), jnp.asarray(4.0))  # a is fed: neither it nor x is needed
    jax.effects_barrier()
    assert ran == ["b"]
    assert [op.name for op in session.plan(b, [a]).operations] == ["b"]


def test_fetches_have_any_structure():
    x = symbolic.placeholder(name="x")
    y = x * 2
    session = symbolic.Session()
    feed = {x: 3.0}
    for fetches in (y, "multiply:0"):
        same(session.run(fetches, feed), jnp.asarray(6.0))
    for fetches in ([y], (y,), {"a": y, "b": [x, (y, y)]}, [y.op, y], []):
        expected = jax.tree.map({x: 3.0, y: 6.0}.get, fetches)
        found = session.run(fetches, feed)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert jax.tree.leaves(found) == jax.tree.leaves(expected)
    assert session.run(y.op, feed) is None
    with session:
        assert y.eval(feed) == 6
        assert y.op.run(feed) is None


def test_a_set_of_fetches_and_feeds_is_planned_and_compiled_once():
    x = symbolic.placeholder(shape=(None,), name="x")
    y = x * 2
    session = symbolic.Session()
    for _ in range(3):
        session.run([y, x], {x: [1.0]})
    plan = session.plan([y, x], [x])
    session.run([y, x], {x: [1.0]})
    assert session.plan([y, x], [x]) is plan
    assert len(plan.signatures) == 1
    assert session.plan((y, x), [x]) is not plan


def test_feeds_are_converted_and_nothing_is_cut_off():
    x, n = symbolic.placeholder(shape=(2,)), symbolic.placeholder(np.int8)
    b = symbolic.placeholder(jnp.bfloat16)
    for fed in ([1, 2], (1.0, 2.0), np.array([1.0, 2.0]), jnp.array([1, 2]), np.array([1, 2], np.uint8)):
        same(run(x, {x: fed}), jnp.array([1.0, 2.0]))
    same(run([n, b], {n: 100, b: 2.0}), [jnp.asarray(100, jnp.int8), jnp.asarray(2.0, jnp.bfloat16)])
    same(run(x, {x: [True, False]}), jnp.array([1.0, 0.0]))
    with raises(TypeError, "Cannot feed value of dtype float64 for Tensor"):
        run(n, {n: 1.5})
    with raises(TypeError, "Cannot feed values from 300 to 300"):
        run(n, {n: 300})
    with raises(TypeError, "Cannot feed value of dtype complex"):
        run(x, {x: [1j, 2j]})
    with raises(TypeError, "Cannot feed value of dtype int"):
        flag = symbolic.placeholder(np.bool_)
        run(flag, {flag: 2})


def test_weakly_typed_values_promote_as_when_the_graph_was_built():
    x, half = symbolic.placeholder(), symbolic.placeholder(jnp.bfloat16)
    s, total = symbolic.shared(1.0), tnp.where(x > 0, 1.0, 2.0)  # the latter is weakly typed
    y = [x * half, total * half, s * half]
    assert [symbol.dtype for symbol in y] == [np.float32, jnp.bfloat16, np.float32]
    weak, fed = jnp.asarray(3.0), {half: jnp.asarray(2.0, jnp.bfloat16)}
    assert weak.weak_type
    session = symbolic.Session()
    same(session.run(y, {x: weak, **fed}), [jnp.float32(6), jnp.bfloat16(2), jnp.float32(2)])
    same(session.run(y, {x: weak, total: np.float32(5), **fed}), [jnp.float32(6), jnp.bfloat16(10), jnp.float32(2)])
    symbolic.function([x], updates=[(s, total)])(-1.0)
    same(session.run(y[2], fed), jnp.float32(4))


def test_x64():
    with jax.enable_x64(True):
        x = symbolic.placeholder(np.float64, (2,))
        assert x.dtype == np.float64
        same(run(symbolic.gradients(tnp.sum(x**3), x)[0], {x: [1.0, 2.0]}), jnp.array([3.0, 12.0]))


def test_a_graph_of_graph():
    x = symbolic.placeholder(shape=(None, 3), name="x")
    w = symbolic.variable(W, name="w")
    loss = tnp.mean(tnp.tanh(x @ w) ** 2)
    (dw,) = symbolic.gradients(loss, w)
    example = {x: jax.ShapeDtypeStruct((2, 3), np.float32)}
    program = symbolic.trace(loss, example)
    assert isinstance(program, graph.Graph)
    assert program.inputs == ("x", "w")

    value, slope = jax.jit(jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(X @ w) ** 2)))(W)
    same(program.run(X, W), value)
    same(program.gradients(0, "w").run(X, W)[1][0], slope)
    derivative = symbolic.trace({"loss": loss, "dw": dw}, example)
    same(derivative.optimize().run(X, W), {"loss": value, "dw": slope})
    assert (program.stats().order, derivative.stats().order) == (0, 1)
    assert all("test_symbolic.py" in line for line in derivative.text().splitlines() if " = " in line)
    assert "<- matmul" in derivative.text()
    step = symbolic.trace([loss, w.assign_sub(dw)], example)
    same(step.run(X, W), ([value, W - slope], [W - slope]))
    with raises(ValueError, "has sizes that are not known"):
        symbolic.trace(loss)


# --- derivatives ------------------------------------------------------------------------------------------------------


def test_gradients_to_order_three_and_the_graph_grows():
    x = symbolic.placeholder(shape=(3,), name="x")
    y = tnp.sum(tnp.sin(x) * x)
    orders, counts = [y], []
    for _ in range(3):
        orders += symbolic.gradients(orders[-1], x)
        counts.append(len(symbolic.get_default_graph().operations))
    assert counts == sorted(set(counts))
    point = X[0]
    d1, d2, d3 = run(orders[1:], {x: point})
    same(d1, jnp.sin(point) + point * jnp.cos(point))
    same(d2, 2 * jnp.cos(point) - point * jnp.sin(point))
    same(d3, -3 * jnp.sin(point) - point * jnp.cos(point))


@pytest.mark.parametrize(
    "program", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("attention", "conv", "complex"))]
)
def test_gradients_equal_jax(program):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype(np.float32) for s in ((4, 6), (6, 5), (5,), (5, 6))]

    def mlp(np, x, w, b, v):
        return np.sum(np.tanh(x @ w + b) @ v * x)

    def conv(np, x, w, b, v):
        image, kernel = x.reshape(1, 1, 4, 6), v.reshape(5, 1, 2, 3)
        return np.sum(F.max_pool2d(F.conv2d(image, kernel, b), 2) ** 2) + np.sum(w * 0)

    def attention(np, x, w, b, v):
        queries, keys = x @ w + b, x @ v.T
        return np.sum(np.log(F.softmax(queries @ keys.T, -1)) * (x @ x.T))

    def complex(np, x, w, b, v):
        spectrum = np.fft.fft(x @ w) * np.exp(1j * b) + b
        return np.sum(np.abs(spectrum) ** 2) + np.sum(v**2)

    function = {"mlp": mlp, "conv": conv, "attention": attention, "complex": complex}[program]
    # The batch's size is not known, where the program does not need it.
    first = (4, 6) if program == "conv" else (None, 6)
    symbols = [symbolic.placeholder(shape=first), *(symbolic.placeholder(shape=value.shape) for value in values[1:])]
    ours = symbolic.gradients(function(tnp, *symbols), symbols)
    vectors = [tnp.sum(d * tnp.cos(s)) for d, s in zip(ours, symbols, strict=True)]
    second = symbolic.gradients(vectors, symbols, unconnected_gradients="zero")
    found, found_second = run([ours, second], dict(zip(symbols, values, strict=True)))

    expected = jax.jit(jax.grad(lambda *v: function(jnp, *v), (0, 1, 2, 3)))(*values)
    same(found, list(expected), rtol=2e-4)

    def contracted(*values):
        grads = jax.grad(lambda *v: function(jnp, *v), (0, 1, 2, 3))(*values)
        return sum(jnp.sum(g * jnp.cos(v)) for g, v in zip(grads, values, strict=True))

    same(found_second, list(jax.jit(jax.grad(contracted, (0, 1, 2, 3)))(*values)), rtol=2e-3)


def test_broadcasting_empty_and_scalar_operands():
    x, b, e = (
        symbolic.placeholder(shape=(None, 3)),
        symbolic.placeholder(shape=(1, 3)),
        symbolic.placeholder(shape=(0,)),
    )
    y = tnp.sum(x * b) + tnp.sum(e**2) + b[0, 0] * 2
    found = run(symbolic.gradients(y, [x, b, e]), {x: X, b: X[:1], e: np.ones(0)})
    same(found, [jnp.broadcast_to(X[:1], (2, 3)), jnp.sum(X, 0, keepdims=True) + jnp.array([[2.0, 0, 0]]), jnp.ones(0)])
    # A batch of one, where the sizes were traced as many.
    same(run(symbolic.gradients(y, b)[0], {x: X[:1], b: X[:1], e: np.ones(0)}), X[:1] + jnp.array([[2.0, 0, 0]]))


def test_partial_derivatives_and_cotangents():
    a = symbolic.constant(0.0)
    b = 2 * a
    same(run(symbolic.gradients(a + b, [a, b], stop_gradients=[a, b])), [jnp.asarray(1.0)] * 2)
    same(run(symbolic.gradients(a + b, [a, b])), [jnp.asarray(3.0), jnp.asarray(1.0)])
    x = symbolic.placeholder(shape=(3,))
    ys = [x**2, tnp.sum(x)]
    same(run(symbolic.gradients(ys, x)[0], {x: X[0]}), 2 * X[0] + jnp.ones(3))
    (weighted,) = symbolic.gradients(ys, x, grad_ys=[X[1], None])
    same(run(weighted, {x: X[0]}), 2 * X[0] * X[1] + jnp.ones(3))
    same(run(symbolic.gradients(symbolic.stop_gradient(x) * x, x)[0], {x: X[0]}), jnp.asarray(X[0]))
    assert symbolic.gradients(tnp.sum(x), [a]) == [None]
    assert symbolic.gradients(x.argmax() * 1.0, [x]) == [None]
    same(run(symbolic.gradients(x, [a], unconnected_gradients="zero")), [jnp.asarray(0.0)])


def test_gradients_read_what_the_rules_name():
    x, y = symbolic.placeholder(shape=(3,), name="x"), symbolic.placeholder(shape=(3,), name="y")
    dx, _ = symbolic.gradients(x + y, [x, y])
    assert not any(op.type == "placeholder" for op in symbolic.Session().plan(dx).operations)
    same(run(dx), jnp.ones(3))  # nothing has to be fed: the derivative of a sum reads neither term
    dx, dy = symbolic.gradients(x * y, [x, y])
    assert set(dx.op.inputs) - {dy} >= {x, y}


def test_the_pullback_uses_what_the_forward_pass_kept():
    ran = []
    x = symbolic.placeholder()
    y = counting(ran, "f")(x) ** 2
    dy, dy_again = symbolic.gradients(y, x) + symbolic.gradients(y, x)
    assert run([y, dy, dy_again], {x: 3.0}) == [9, 6, 6]
    jax.effects_barrier()
    assert ran == ["f"]
    h = symbolic.get_default_graph()["f:0"]
    assert symbolic.Session().run(symbolic.gradients(y, h)[0], {h: 5.0}) == 10  # fed in the middle: f does not run
    jax.effects_barrier()
    assert ran == ["f"]


def test_gradients_with_respect_to_an_intermediate():
    x = symbolic.placeholder(shape=(3,))
    h = tnp.tanh(x)
    y = tnp.sum(h**2 * x)
    dh, dx = symbolic.gradients(y, [h, x])
    found, t = run([dh, dx], {x: X[0]}), np.tanh(X[0])
    same(found, [2 * t * X[0], t**2 + 2 * t * X[0] * (1 - t**2)])
    fed = run([dh], {x: X[0], h: X[1]})
    same(fed, [2 * X[1] * X[0]])


def test_what_cannot_be_differentiated():
    x, n = symbolic.placeholder(shape=(3,)), symbolic.placeholder(np.int32)
    v = symbolic.variable(1.0, name="v")
    with raises(TypeError, "has dtype int32: it has no derivative"):
        symbolic.gradients(x, n)
    with raises(TypeError, "has dtype int32: it has no derivative"):
        symbolic.gradients(n, x)
    with raises(TypeError, "got function"):
        symbolic.gradients(tnp.sum, x)
    with raises(TypeError, "a cotangent of type float32[2] was given"):
        symbolic.gradients(x, x, grad_ys=np.ones(2, np.float32))
    with raises(ValueError, "Passed 2 grad_ys for 1 ys"):
        symbolic.gradients(x, x, grad_ys=[None, None])
    with raises(ValueError, "Unknown value for unconnected_gradients: 'maybe'"):
        symbolic.gradients(x, x, unconnected_gradients="maybe")
    with raises(LookupError, "No gradient defined for operation 'assign' (op type: assign)"):
        symbolic.gradients(v.assign(x[0]) * 2, x)


def test_jacobian_hessian_rop_and_lop():
    x, v = symbolic.placeholder(shape=(3,)), symbolic.variable(X[1])
    y = tnp.sin(x) * v[::-1]
    scalar = tnp.sum(y * x)

    def function(x):
        return jnp.sin(x) * X[1][::-1]

    direction = symbolic.constant(X[1])
    found = run(
        [
            symbolic.jacobian(y, x),
            symbolic.hessian(scalar, x),
            symbolic.rop(y, x, direction),
            symbolic.lop(y, x, direction),
            symbolic.jacobian(y, [x, v])[1],
            symbolic.gradients(tnp.sum(symbolic.hessian(scalar, x)), x)[0],  # they are Symbols: one more derivative
        ],
        {x: X[0]},
    )
    sums = jax.hessian(lambda x: jnp.sum(function(x) * x))

    @jax.jit
    def expected(x):
        return [
            jax.jacrev(function)(x),
            sums(x),
            jax.jvp(function, (x,), (X[1],))[1],
            jax.vjp(function, x)[1](X[1])[0],
            jax.jacrev(lambda v: jnp.sin(x) * v[::-1])(X[1]),
            jax.grad(lambda x: jnp.sum(sums(x)))(x),
        ]

    same(found, expected(X[0]))


# --- variables --------------------------------------------------------------------------------------------------------


def test_each_session_has_its_own_values():
    v = symbolic.variable([1.0, 2.0])
    bump = v.assign_add([1.0, 1.0])
    one, other = symbolic.Session(), symbolic.Session()
    for session in (one, other):
        session.run(v.initializer)
    same(one.run(bump), jnp.array([2.0, 3.0]))
    same(one.run(v), jnp.array([2.0, 3.0]))
    same(other.run(v), jnp.array([1.0, 2.0]))
    with raises(symbolic.UninitializedVariable, "Attempting to use uninitialized value variable"):
        symbolic.Session().run(v)


def test_reads_come_before_writes_unless_an_edge_says_otherwise():
    v = symbolic.variable(1.0)
    bump = v.assign_add(1.0)
    before = v * 10  # built after the write, and not ordered after it
    with symbolic.control_dependencies([bump]):
        after, read = v * 10, v.read_value()
        with symbolic.control_dependencies(None):
            free = v * 100
    session = symbolic.Session()
    session.run(v.initializer)
    assert session.run([bump, before, after, read, v, free]) == [2, 10, 20, 2, 1, 100]
    assert session.run(after) == 30
    assert session.run(v) == 3


def test_a_step_uses_the_gradients_of_the_values_before_it():
    # The second gradient is built after the first update: its value must not depend on that.
    w, b = symbolic.variable(2.0), symbolic.variable(3.0)
    loss = w * b
    first = w.assign_sub(symbolic.gradients(loss, w)[0])
    second = b.assign_sub(symbolic.gradients(loss, b)[0])
    session = symbolic.Session()
    session.run(symbolic.global_variables_initializer())
    assert session.run([first, second, loss]) == [-1, 1, 6]


def test_a_failing_run_writes_nothing():
    v, x = symbolic.variable(np.zeros(3, np.float32)), symbolic.placeholder(shape=(None,))
    step, bad = v.assign_add(np.ones(3, np.float32)), x @ np.ones(3, np.float32)
    session = symbolic.Session()
    session.run(v.initializer)
    with pytest.raises(TypeError):
        session.run([step, bad], {x: np.ones(4)})
    same(session.run(v), jnp.zeros(3))
    session.run([step, bad], {x: np.ones(3)})
    same(session.run(v), jnp.ones(3))


def test_variables_from_symbols_and_functions():
    a = symbolic.variable(lambda: np.full(2, 3, np.float32), name="a")
    with symbolic.control_dependencies([a.initializer]):
        b = symbolic.variable(a.read_value() * 2, name="b")
    session = symbolic.Session()
    session.run(b.initializer)
    same(session.run([a, b]), [jnp.full(2, 3.0), jnp.full(2, 6.0)])
    same(session.run(a * b, {a: [1.0, 1.0]}), jnp.full(2, 6.0))  # a variable can be fed, too
    with symbolic.name_scope("layer"):
        c = symbolic.variable(1, np.float32, "c")
    assert (c.op.name, c.initializer.name, c.dtype) == ("layer/c", "layer/c/initializer", np.float32)


def test_what_a_variable_cannot_hold():
    v = symbolic.variable(np.zeros(3, np.float32), name="v")
    n = symbolic.variable(1, name="n")
    with raises(TypeError, "v:0 is float32[3], and the new value float32[2]"):
        v.assign(np.zeros(2, np.float32))
    with raises(TypeError, "n:0 is int32[], and the new value float32[]"):
        n.assign_add(symbolic.constant(0.5))
    shared = symbolic.shared(np.zeros(3, np.float32))
    for make in (symbolic.Variable, symbolic.SharedVariable):
        with raises(TypeError, "a Variable is made by symbolic.variable(initial_value, name=...)"):
            make(1.0, name="v")
    with raises(TypeError, "it cannot hold a value of type float32[2]"):
        shared.set_value(np.zeros(2, np.float32))
    with raises(TypeError, "cannot hold"):
        symbolic.shared(1).set_value(1.5)


def test_shared_variables_of_open_size():
    s = symbolic.shared(X, shape=(None, 3), name="s")
    total = symbolic.function([], tnp.sum(s, axis=0))
    same(total(), jnp.sum(X, 0))
    s.set_value(X[:1])
    same(total(), jnp.asarray(X[0]))
    append = symbolic.function([], updates=[(s, tnp.concatenate([s, s]))])
    append()
    assert s.get_value().shape == (2, 3)
    same(symbolic.Session().run(s), jnp.asarray(np.concatenate([X[:1], X[:1]])))


# --- control flow -----------------------------------------------------------------------------------------------------


def test_cond_builds_both_branches_and_runs_one():
    ran = []
    p, x = symbolic.placeholder(np.bool_), symbolic.placeholder(name="x")
    outside = counting(ran, "outside")(x)
    y = symbolic.cond(p, lambda: counting(ran, "yes")(x) * 2, lambda: counting(ran, "no")(outside) ** 3)
    (dy,) = symbolic.gradients(y, x)
    session = symbolic.Session()
    shown = symbolic.text(symbolic.get_default_graph())
    assert "yes" in shown
    assert "no" in shown
    assert session.run([y], {p: True, x: 3.0}) == [6]
    jax.effects_barrier()
    assert sorted(ran) == ["outside", "yes"]  # what is built outside runs, whichever branch is taken
    assert session.run([y, dy], {p: False, x: 3.0}) == [27, 27]
    assert session.run([dy], {p: True, x: 3.0}) == [2]
    second = symbolic.gradients(dy, x)[0]
    assert session.run([second], {p: False, x: 3.0}) == [18]


def test_cond_with_operands_captures_and_structures():
    p, x = symbolic.placeholder(np.bool_), symbolic.placeholder(shape=(None, 3))
    w = symbolic.variable(W)

    def nested(v):
        inner = symbolic.cond(tnp.sum(v) > 100, lambda: v * 100, lambda: v @ w @ w.T)
        return {"out": inner, "one": 1.0}

    y = symbolic.cond(p, nested, lambda v: {"out": v, "one": 2.0}, x)
    assert y["out"].shape == (None, 3)
    dx, dw = symbolic.gradients(y["out"], [x, w])
    found = run([y["out"], y["one"], dx, dw], {p: True, x: X})
    ones = np.ones_like(X)
    same(found, [X @ W @ W.T, np.float32(1), ones @ W @ W.T, X.T @ ones @ W + ones.T @ X @ W], rtol=1e-4)
    found = run([y["out"], dw], {p: False, x: X})
    same(found, [jnp.asarray(X), jnp.zeros_like(W)])


def test_cond_errors():
    x = symbolic.placeholder(shape=(3,))
    with raises(TypeError, "the branches must return the same"):
        symbolic.cond(True, lambda: x, lambda: x[:2])
    with raises(TypeError, "the branches must return the same"):
        symbolic.cond(True, lambda: x, lambda: (x, x))
    with raises(TypeError, "pred must be a scalar"):
        symbolic.cond(x > 0, lambda: x, lambda: x)
    v = symbolic.variable(1.0)
    with raises(ValueError, "cannot be written inside a body"):
        symbolic.cond(True, lambda: v.assign(2.0), lambda: v)
    leaked = []
    symbolic.cond(True, lambda: leaked.append(x * 2) or x, lambda: x)
    for other in (2, x):
        with raises(RuntimeError, "Graph is finalized and cannot be modified.") as caught:
            leaked[0] * other
        assert "return it from the body" in str(caught.value)


def test_while_loop():
    n, x = symbolic.placeholder(np.int32), symbolic.placeholder(shape=(3,))
    scale = symbolic.constant(2.0)
    i, y = symbolic.while_loop(lambda i, y: i < n, lambda i, y: [i + 1, y * scale], [0, x])
    found = run([i, y], {n: 3, x: X[0]})
    same(found, [jnp.asarray(3), jnp.asarray(8 * X[0])])
    total = symbolic.while_loop(lambda t: t < 10.0, lambda t: t * 3, 1.0)
    assert run(total) == 27
    with raises(TypeError, "body must return values of the types"):
        symbolic.while_loop(lambda i: i < 3, lambda i: i * 0.5, 0)
    with raises(TypeError, "cond must return one boolean scalar"):
        symbolic.while_loop(lambda x: x < 3, lambda x: x, x)


def test_a_gradient_inside_a_body():
    start, target = symbolic.placeholder(shape=(3,)), symbolic.constant(X[1])

    def descend(w):
        return w - 0.3 * symbolic.gradients(tnp.sum((w - target) ** 2), w)[0]

    found = symbolic.while_loop(lambda w: tnp.sum((w - target) ** 2) > 1e-8, descend, start)
    np.testing.assert_allclose(run(found, {start: X[0]}), X[1], atol=1e-4)
    with raises(ValueError, "is outside of the body in which its gradient is taken"):
        symbolic.cond(True, lambda: symbolic.gradients(start * 2, start)[0], lambda: start)


def test_an_operand_of_twograd_lax_control_flow():
    x = symbolic.placeholder(shape=(3,))
    same(run(tlax.fori_loop(0, 3, lambda i, v: v * 2, x), {x: X[0]}), jnp.asarray(8 * X[0]))
    with raises(TypeError, "a Symbol and a JAX tracer"):
        tlax.fori_loop(0, 3, lambda i, v: v * x, x)


def test_scan():
    x, h = symbolic.placeholder(shape=(None, 3)), symbolic.placeholder(shape=(4,))
    w = symbolic.variable(W)

    def step(h, row):
        h = tnp.tanh(row @ w + h)
        return h, {"h": h, "sum": h.sum()}

    last, every = symbolic.scan(step, h, x)
    assert (last.shape, every["h"].shape, every["sum"].shape) == ((4,), (None, 4), (None,))
    count, halves = symbolic.scan(lambda c, _: (c + 1, c * 0.5), 0, length=3)

    def jax_step(h, row):
        h = jnp.tanh(row @ W + h)
        return h, h

    last_expected, every_expected = jax.lax.scan(jax_step, W[0], X)
    found = run([last, every["h"], count, halves], {x: X, h: W[0]})
    same(found, [last_expected, every_expected, jnp.asarray(3), jnp.array([0.0, 0.5, 1.0])])
    with raises(TypeError, "must return a pair (carry, y)"):
        symbolic.scan(lambda h, row: h, h, x)
    with raises(TypeError, "say how many steps"):
        symbolic.scan(step, h)
    with raises(TypeError, "must return values of the types"):
        symbolic.scan(lambda h, row: (h[:2], h), h, x)
    with raises(TypeError, "must have an axis to go along"):
        symbolic.scan(step, h, 3.0)


def test_derivatives_of_scan():
    x, h = symbolic.placeholder(shape=(None, 3)), symbolic.placeholder(shape=(4,))
    w = symbolic.variable(W)

    def loss(numpy, scan, x, h, w, **options):
        def step(h, row):
            h = numpy.tanh(row @ w + h)
            return h, h * row[0]

        last, ys = scan(step, h, x, **options)
        return numpy.sum(last**2) + numpy.sum(numpy.sin(ys))

    def truncated(steps, reverse):
        """The same with the gradient stopped before the last steps."""

        def scan(f, h, xs):
            order = range(len(xs))[::-1] if reverse else range(len(xs))
            ys = {}
            for count, i in enumerate(order):
                h, ys[i] = f(h, xs[i])
                if count < len(xs) - steps:
                    h, ys[i] = jax.lax.stop_gradient((h, ys[i]))
            return h, jnp.stack([ys[i] for i in range(len(xs))])

        return scan

    cases = [({}, jax.lax.scan), ({"reverse": True}, functools.partial(jax.lax.scan, reverse=True))]
    for steps, reverse in ((1, False), (2, True), (7, False)):
        cases.append(({"truncate_gradient": steps, "reverse": reverse}, truncated(steps, reverse)))
    rows = np.concatenate([X, X[:1] - 1])
    ours, theirs = [], []
    for options, scan in cases:
        value = loss(tnp, symbolic.scan, x, h, w, **options)
        ours.append([value, symbolic.gradients(value, [x, h, w])])
        theirs.append(lambda x, h, w, s=scan: loss(jnp, s, x, h, w))
    slope = tnp.sum(ours[0][1][2] ** 2)
    second = symbolic.gradients(slope, [x, w])

    @jax.jit
    def expected(x, h, w):
        firsts = [[v, list(g)] for v, g in (jax.value_and_grad(f, (0, 1, 2))(x, h, w) for f in theirs)]
        dw = jax.grad(theirs[0], 2)
        return firsts, list(jax.grad(lambda x, w: jnp.sum(dw(x, h, w) ** 2), (0, 1))(x, w))

    same(run((ours, second), {x: rows, h: W[0]}), expected(rows, W[0], W), rtol=1e-4)


def test_derivatives_of_a_bounded_while_loop():
    n, x = symbolic.placeholder(np.int32), symbolic.placeholder(shape=(3,))
    a = symbolic.variable(1.5)
    body = (lambda i, y: i < n, lambda i, y: [i + 1, tnp.sin(y) * a])
    _, y = symbolic.while_loop(*body, [0, x], maximum_iterations=5)
    da, dx = symbolic.gradients(y, [a, x])
    (second,) = symbolic.gradients(da, a)

    def unrolled(steps, a, x):
        for _ in range(steps):
            x = jnp.sin(x) * a
        return jnp.sum(x)

    with symbolic.Session() as session:
        session.run(a.initializer)
        for fed, steps in ((0, 0), (2, 2), (7, 5)):
            f = functools.partial(unrolled, steps)
            expected = jax.jit(lambda a, x, f=f: [*jax.grad(f, (0, 1))(a, x), jax.grad(jax.grad(f))(a, x)])(1.5, X[0])
            same(session.run([da, dx, second], {n: fed, x: X[0]}), expected)
    _, unbounded = symbolic.while_loop(*body, [0, x])
    with pytest.raises(Exception, match="maximum_iterations") as caught:
        symbolic.gradients(unbounded, x)
    assert isinstance(caught.value, LookupError)


# --- functions --------------------------------------------------------------------------------------------------------


def test_function_with_updates_and_givens():
    x, y = symbolic.placeholder(shape=(3,), name="x"), symbolic.placeholder(shape=(3,), name="y")
    total = symbolic.shared(np.zeros(3, np.float32), name="total")
    operations = len(symbolic.get_default_graph().operations)
    product = x * y
    add = symbolic.function([x, y], [total, product], updates=[(total, total + product)])
    assert len(symbolic.get_default_graph().operations) == operations + 2  # what was written, and nothing else
    same(add(X[0], X[1]), [jnp.zeros(3), jnp.asarray(X[0] * X[1])])
    same(add(y=X[1], x=X[0]), [jnp.asarray(X[0] * X[1])] * 2)
    same(total.get_value(), jnp.asarray(2 * X[0] * X[1]))
    squared = symbolic.function([x], product, givens={y: x})
    same(squared(X[0]), jnp.asarray(X[0] ** 2))
    constant = symbolic.function([], {"p": product}, givens=[(x, X[0]), (y, total)])
    same(constant(), {"p": jnp.asarray(X[0] * total.get_value())})
    intermediate = symbolic.function([product], product + 1)
    same(intermediate(X[0]), jnp.asarray(X[0] + 1))
    assert symbolic.function([x], updates={total: x})(X[1]) is None
    same(total.get_value(), jnp.asarray(X[1]))


def test_function_and_session_share_variables():
    v, s = symbolic.variable(1.0), symbolic.shared(2.0)
    product = v * s
    with symbolic.Session() as session:
        session.run(symbolic.global_variables_initializer())
        f = symbolic.function([], product, updates=[(v, v + 1.0)])
        assert [f(), f(), session.run(product)] == [2, 4, 6]
        session.run(s.assign(10.0))
        assert s.get_value() == 10
    with raises(symbolic.UninitializedVariable, "Attempting to use uninitialized value"):
        symbolic.function([], product)()


def test_function_mistakes():
    x, y = symbolic.placeholder(name="x"), symbolic.placeholder(name="y")
    s = symbolic.shared(1.0, name="s")
    f = symbolic.function([x, y], x + y, name="f")
    for call, text in (
        (lambda: f(1.0), "Missing required input: y of f"),
        (lambda: f(1.0, 2.0, 3.0), "Too many parameter passed to f"),
        (lambda: f(1.0, z=2.0), "unexpected argument 'z'; it takes x, y"),
        (lambda: f(1.0, x=2.0), "unexpected argument 'x'"),
        (lambda: symbolic.function(x, x), "Inputs of a function should be contained in a list, even when there is one"),
        (lambda: symbolic.function([x], [1.0]), "the output 0 of function must be a Symbol"),
        (lambda: symbolic.function([x], x, updates=[(y, x)]), "only variables can be updated"),
        (lambda: symbolic.function([x], x, updates=[(s, tnp.stack([x, x]))]), "its update"),
        (lambda: symbolic.function([], x, givens={x: np.ones(3, np.float32)}), "givens puts"),
    ):
        with raises(TypeError, text):
            call()
    for call, text in (
        (lambda: symbolic.function([x, x], x), "an input is given twice"),
        (lambda: symbolic.function([x], x, updates=[(s, x), (s, x)]), "a variable is updated twice"),
        (lambda: symbolic.function([], x, givens={x: y, y: x}), "the givens make a cycle"),
        (lambda: symbolic.function([], x + 1, givens={x: (x + 1) * 2}), "the givens make a cycle"),
        (lambda: symbolic.function([x], x, on_unused_input="shrug"), "on_unused_input must be"),
    ):
        with raises(ValueError, text):
            call()


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (16,)], ids=["logistic regression", "MLP"])
def test_training_on_digits_equals_a_loop_by_hand(hidden):
    """Both manners, against NumPy with derivatives by hand: softmax regression, and one layer of tanh before it."""
    pytest.importorskip("sklearn")
    data, labels = digits().images[:300].reshape(300, 64), digits().labels[:300]
    rng = np.random.default_rng(0)
    sizes = (64, *hidden, 10)
    start = [
        (0.2 * rng.standard_normal((m, n)).astype(np.float32), np.zeros(n, np.float32))
        for m, n in itertools.pairwise(sizes)
    ]
    batches = [slice(i, i + 50) for i in range(0, 300, 50)] * 3
    rate = 1.0

    def network(x, params):
        *layers, (w, b) = params
        for weights, bias in layers:
            x = tnp.tanh(x @ weights + bias)
        return x @ w + b

    x, y = symbolic.placeholder(shape=(None, 64), name="x"), symbolic.placeholder(np.int32, (None,), name="y")
    # TensorFlow's manner
    variables = [(symbolic.variable(w), symbolic.variable(b)) for w, b in start]
    loss = F.cross_entropy(network(x, variables), y)
    flat = [p for pair in variables for p in pair]
    train = symbolic.group(*(v.assign_sub(rate * g) for v, g in zip(flat, symbolic.gradients(loss, flat), strict=True)))
    # Theano's
    shared = [(symbolic.shared(w), symbolic.shared(b)) for w, b in start]
    cost = F.cross_entropy(network(x, shared), y)
    theirs = [p for pair in shared for p in pair]
    updates = [(s, s - rate * g) for s, g in zip(theirs, symbolic.grad(cost, theirs), strict=True)]
    step = symbolic.function([x, y], cost, updates=updates)
    symbolic.get_default_graph().finalize()

    def by_hand(params, x, y):
        """The loss, and the parameters after a step: derivatives written out."""
        activations = [x]
        for w, b in params[:-1]:
            activations.append(np.tanh(activations[-1] @ w + b))
        logits = activations[-1] @ params[-1][0] + params[-1][1]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.mean(np.log(p[np.arange(len(y)), y]))
        delta = (p - np.eye(10, dtype=np.float32)[y]) / len(y)
        updated = []
        for (w, b), h in zip(reversed(params), reversed(activations), strict=True):
            updated.append((w - rate * h.T @ delta, b - rate * delta.sum(0)))
            delta = (delta @ w.T) * (1 - h**2)
        return loss, updated[::-1]

    session = symbolic.Session()
    session.run([v.initializer for v in flat])
    params, losses = start, []
    for batch in batches:
        expected, params = by_hand(params, data[batch], labels[batch])
        ours = session.run([loss, train], {x: data[batch], y: labels[batch]})[0]
        np.testing.assert_allclose([ours, step(data[batch], labels[batch])], expected, rtol=1e-4)
        losses.append(expected)
    assert losses[-1] < 0.5 * losses[0]
    for (w, b), (v, c), (s, t) in zip(params, variables, shared, strict=True):
        for ours in (session.run((v, c)), (s.get_value(), t.get_value())):
            np.testing.assert_allclose(ours[0], w, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(ours[1], b, rtol=1e-3, atol=1e-5)
    assert len(step.plan.signatures) == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_symbols_and_other_values():
    x = symbolic.placeholder(name="x")
    with raises(TypeError, "a Symbol and a Tensor meet in one operation"):
        tnp.add(x, tape.tensor(1.0))
    with raises(TypeError, "a Symbol and a JAX tracer"):
        jax.jit(lambda v: (x * v, v)[1])(1.0)
    with pytest.raises(TypeError):
        np.sin(x)
    with raises(TypeError, "has no value while the graph is built"):
        np.asarray(x)
    with pytest.raises(TypeError):
        jnp.sin(x)
    for product in (np.ones(2) * x, jnp.ones(2) * x, np.float32(1) * x):
        assert isinstance(product, symbolic.Symbol)
    with raises(TypeError, "cannot bound a slice"):
        symbolic.constant(np.ones(3))[x:]
    with raises(TypeError, "a boolean Symbol cannot be an index"):
        c = symbolic.constant(np.ones(3))
        c[c > 0]
    with raises(AttributeError, "x.at[...] has no method 'sett'"):
        symbolic.constant(np.ones(3)).at[0].sett(1)
    with raises(TypeError, "a constant has a value"):
        symbolic.constant(x)
    with raises(ValueError, "a shape is made of sizes"):
        symbolic.placeholder(shape=(-1, 3))
    assert (x == x, x == 1, x != x, x in {x: 1}) == (True, False, False, True)


def test_a_session_that_cannot_run():
    x = symbolic.placeholder()
    session = symbolic.Session()
    with raises(RuntimeError, "The Session graph is empty."):
        symbolic.Session(symbolic.Graph()).run(x)
    with raises(TypeError, "Fetch argument None cannot be interpreted as a Tensor. (It has invalid type"):
        session.run([x, None], {x: 1.0})
    with raises(ValueError, "Fetch argument 'y:0' cannot be interpreted as a Tensor."):
        session.run("y:0")
    with raises(TypeError, "It is an operation: feed one of its results, 'placeholder:0'."):
        session.run(x, {x.op: 1.0})
    for feeds in (x, [(x, 1.0)], 1.0):
        with raises(TypeError, f"feed_dict must map Symbols to values, got {type(feeds).__name__}"):
            session.run(x, feeds)
        with raises(TypeError, "feed_dict must map Symbols to values"):
            symbolic.trace(x, feeds)
    with raises(TypeError, "the feed of <Symbol 'placeholder:0' shape=() dtype=float32> is a Tensor: feed its array"):
        session.run(x, {x: tape.tensor(1.0)})
    with raises(TypeError, "is a JAX tracer"):
        jax.jit(lambda v: session.run(x, {x: v}))(1.0)
    with raises(ValueError, "control_dependencies: 3 is no operation"), symbolic.control_dependencies([3]):
        pass
    session.close()
    with raises(RuntimeError, "Attempted to use a closed Session."):
        session.run(x, {x: 1.0})
