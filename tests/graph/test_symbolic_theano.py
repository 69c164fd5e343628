"""Theano's calls on symbolic graphs: typed variables, switch and ifelse, scan with taps and updates, Rop and Lop."""

import jax
import jax.numpy as jnp
import numpy as np

import twograd.numpy as tnp
from graph.same import raises, same
from graph.test_symbolic import _quick_compilation, counting, own_graph, run
from twograd.graph import symbolic

X = np.linspace(0.2, 1.2, 6, dtype=np.float32)
W = np.linspace(-1.0, 1.0, 9, dtype=np.float32).reshape(3, 3)

__all__ = ["_quick_compilation", "own_graph"]  # fixtures


def test_typed_variables():
    made = symbolic.scalar("s"), symbolic.vector("v"), symbolic.tensor3("t"), symbolic.ivector("i"), symbolic.tensor4()
    assert [str(x.type) for x in made] == [
        "float32[]", "float32[?]", "float32[?,?,?]", "int32[?]", "float32[?,?,?,?]",
    ]  # fmt: skip
    with jax.enable_x64(True):
        assert symbolic.dmatrix("d").dtype == np.float64
        assert symbolic.lscalar("l").dtype == np.int64
        assert symbolic.matrix("m", dtype="float64").dtype == np.float64
    a, b = symbolic.scalars("a", "b")
    assert symbolic.function([a, b], a + b)(1, 2) == 3
    assert [x.ndim for x in (*symbolic.vectors("p", "q"), *symbolic.matrices("r"))] == [1, 1, 2]


# --- switch, ifelse ---------------------------------------------------------------------------------------------------


def test_ifelse_runs_what_its_branch_needs_and_can_be_fed_and_differentiated():
    ran = []
    p, x = symbolic.placeholder(np.bool_), symbolic.placeholder(name="x")
    shared = counting(ran, "shared")(x)
    then = counting(ran, "then")(shared * 2)
    other = counting(ran, "inner")(counting(ran, "other")(shared) ** 2)
    nested = symbolic.ifelse(x > 10, counting(ran, "large")(x), other)
    y = symbolic.ifelse(p, then, nested)
    session = symbolic.Session()

    def runs(fetches, feeds):
        ran.clear()
        values = session.run(fetches, feeds)
        jax.effects_barrier()
        return values, sorted(ran)

    assert runs(y, {p: True, x: 3.0}) == (6, ["shared", "then"])
    assert runs(y, {p: False, x: 3.0}) == (9, ["inner", "other", "shared"])
    assert runs(y, {p: False, x: 11.0}) == (11, ["large", "shared"])
    assert runs([y, then], {p: False, x: 3.0}) == ([9, 6], ["inner", "other", "shared", "then"])  # it is fetched
    assert runs(y, {p: False, other: 5.0, x: 3.0}) == (5, [])  # in the middle
    dy, dthen = symbolic.gradients(y, [x, then])
    assert session.run([y, dy, dthen], {p: True, x: 3.0}) == [6, 2, 1]
    assert session.run([y, dy, dthen], {p: False, x: 3.0}) == [9, 6, 0]
    (second,) = symbolic.gradients(dy, x)
    assert session.run(second, {p: False, x: 3.0}) == 2
    givens = symbolic.function([p, x], y, givens={other: x * 100})
    assert givens(False, 2.0) == 200


def test_ifelse_in_a_body_with_state_lists_and_sizes():
    v = symbolic.variable(1.0)
    p, x = symbolic.placeholder(np.bool_), symbolic.vector("x")
    first, second = symbolic.ifelse(p, [x * v, 1.0], [tnp.sin(x), 2.0])
    y = first * second
    same(run(y, {p: True, x: X}), jnp.asarray(X))
    same(run(y, {p: False, x: X}), 2 * jnp.sin(X))
    bump = v.assign_add(1.0)
    with symbolic.control_dependencies([bump]):
        after = symbolic.ifelse(p, v * 10, v * 100)
    assert run(after, {p: True}) == 20
    ys, _ = symbolic.scan(lambda x: symbolic.ifelse(x > 0.5, tnp.log(x), x**2), sequences=x)
    (dx,) = symbolic.gradients(ys, x)
    same(run([ys, dx], {x: X}), [jnp.where(X > 0.5, jnp.log(X), X**2), jnp.where(X > 0.5, 1 / X, 2 * X)])
    with raises(TypeError, "The two branches should have identical types, but they are float32[?] and float32[]."):
        symbolic.ifelse(p, x, 1.0)
    with raises(TypeError, "The two branches should have identical types"):
        symbolic.ifelse(p, [x], x)
    with raises(TypeError, "the condition must be a scalar"):
        symbolic.ifelse(x > 0, x, x)


def test_switch_evaluates_both():
    x = symbolic.vector("x")
    y = symbolic.switch(x > 0.5, tnp.log(x), 0.0)
    same(run([y, *symbolic.gradients(y, x)], {x: X}), [jnp.where(X > 0.5, jnp.log(X), 0), jnp.where(X > 0.5, 1 / X, 0)])


# --- scan -------------------------------------------------------------------------------------------------------------


def test_scan_of_the_tutorial():
    a = symbolic.vector("A")
    result, updates = symbolic.scan(
        fn=lambda prior, a: prior * a, outputs_info=tnp.ones_like(a), non_sequences=a, n_steps=3
    )
    assert updates == {}
    power = symbolic.function(inputs=[a], outputs=result[-1], updates=updates)
    same(power(X), jnp.asarray(X**3))

    x = symbolic.scalar("x")
    coefficients = symbolic.vector("coefficients")
    components, _ = symbolic.scan(
        lambda c, power, free: c * free**power,
        sequences=[coefficients, tnp.arange(10000)],  # as many steps as the shortest has elements
        outputs_info=None,
        non_sequences=x,
    )
    polynomial = symbolic.function([coefficients, x], components.sum())
    assert polynomial(np.array([1, 0, 2], np.float32), 3.0) == 19


def test_scan_with_taps_of_sequences_and_outputs():
    u, y0, w = symbolic.vector("u"), symbolic.placeholder(shape=(2,)), symbolic.variable(0.5)

    def fn(u_before, u_now, y_before_last, y_last, w):
        return [tnp.tanh(u_before * w + u_now + y_before_last * y_last), u_now * 2]

    (ys, doubled), _ = symbolic.scan(
        fn,
        sequences={"input": u, "taps": [-1, 0]},
        outputs_info=[{"initial": y0, "taps": [-2, -1]}, None],
        non_sequences=[w],
    )
    cost = tnp.sum(ys**2) + doubled.sum()

    def by_hand(u, y0, w):
        y = [y0[0], y0[1]]
        for t in range(1, len(u)):
            y.append(jnp.tanh(u[t - 1] * w + u[t] + y[-2] * y[-1]))
        return jnp.sum(jnp.stack(y[2:]) ** 2) + 2 * jnp.sum(u[1:])

    start = np.array([0.3, -0.7], np.float32)
    slopes = symbolic.grad(cost, [u, y0, w])
    (second,) = symbolic.gradients(tnp.sum(slopes[0] ** 2), y0)
    value, expected = jax.value_and_grad(by_hand, (0, 1, 2))(X, start, 0.5)
    above = jax.grad(lambda y0: jnp.sum(jax.grad(by_hand)(X, y0, 0.5) ** 2))(start)
    same(run([cost, *slopes, second], {u: X, y0: start}), [value, *expected, above], 1e-4)


def test_scan_backwards_truncated_and_cut():
    x = symbolic.vector("x")
    cases, expected = [], []
    for options, used in (
        ({"go_backwards": True}, X[::-1]),
        ({"n_steps": 4}, X[:4]),
        ({"go_backwards": True, "n_steps": 2}, X[::-1][:2]),
        ({"truncate_gradient": 2}, X),
    ):
        ys, _ = symbolic.scan(lambda x, h: tnp.sin(h * x + x), sequences=x, outputs_info=0.25, **options)
        h, every = jnp.float32(0.25), []
        for v in used:
            h = jnp.sin(h * v + v)
            every.append(h)
        cases.append(ys)
        expected.append(jnp.stack(every))
    same(run(cases, {x: X}), expected)
    last = cases[3][-1]

    def truncated(x):
        h = jnp.float32(0.25)
        for i in range(len(X)):
            h = jax.lax.stop_gradient(h) if i == len(X) - 2 else h
            v = x[i] if i >= len(X) - 2 else jax.lax.stop_gradient(x[i])
            h = jnp.sin(h * v + v)
        return h

    same(run(symbolic.gradients(last, x), {x: X}), [jax.grad(truncated)(X)])


def test_scan_with_updates_of_variables():
    k = symbolic.shared(np.float32(1.0), name="k")
    n = symbolic.shared(0, name="n")

    def fn(x, h):
        return h + x * k, {k: k * 2, n: n + 1}

    x = symbolic.vector("x")
    hs, updates = symbolic.scan(fn, sequences=x, outputs_info=np.float32(0))
    assert list(updates) == [k, n]
    step = symbolic.function([x], [hs, *symbolic.gradients(hs, x)], updates=updates)
    weights = 2.0 ** np.arange(6, dtype=np.float32)
    same(step(X), [jnp.cumsum(X * weights), jnp.asarray(weights * np.arange(6, 0, -1, dtype=np.float32))])
    assert (k.get_value(), n.get_value()) == (64, 6)
    nothing, updates = symbolic.scan(lambda: {n: n + 1}, n_steps=5)
    assert nothing is None
    symbolic.function([], updates=updates)()
    assert n.get_value() == 11
    outer, updates = symbolic.scan(  # a loop in a loop hands its updates on
        lambda: symbolic.scan(lambda: (k * 1.0, {k: k + 1}), n_steps=2), n_steps=2
    )
    same(symbolic.function([], outer, updates=updates)(), jnp.array([[64.0, 65.0], [66.0, 67.0]]))
    assert k.get_value() == 68


def test_scan_mistakes():
    x, n = symbolic.vector("x"), symbolic.iscalar("n")
    with raises(ValueError, "No information about the number of steps provided."):
        symbolic.scan(lambda h: h, outputs_info=1.0)
    with raises(TypeError, "n_steps must be a Python integer"):
        symbolic.scan(lambda h: h * 2, outputs_info=1.0, n_steps=n)
    with raises(ValueError, "fn returns 2 outputs, and outputs_info has 1"):
        symbolic.scan(lambda x, h: [h, x], sequences=x, outputs_info=[0.0])
    with raises(TypeError, "recurrent output 0 is float32[], while the result of fn is float32[?]"):
        symbolic.scan(lambda h: h * x, outputs_info=1.0, n_steps=2)
    with raises(ValueError, "the taps of an output are negative"):
        symbolic.scan(lambda h: h, outputs_info={"initial": x, "taps": [1]}, n_steps=2)
    with raises(ValueError, "need 2 initial values along the first axis"):
        symbolic.scan(lambda h: h, outputs_info={"initial": 1.0, "taps": [-2]}, n_steps=2)
    with raises(ValueError, "an entry has the keys 'input' and 'taps'"):
        symbolic.scan(lambda x: x, sequences={"inputs": x})
    with raises(TypeError, "are JAX's arguments"):
        symbolic.scan(lambda h, x: h, 1.0, x, n_steps=2)
    with raises(TypeError, "fn must be a function"):
        symbolic.scan(x, sequences=x)
    ys, _ = symbolic.scan(lambda x: x, sequences=x, n_steps=7)
    with raises(ValueError, "n_steps is 7, and the shortest sequence has elements for 6 steps"):
        run(ys, {x: X})


# --- Rop and Lop ------------------------------------------------------------------------------------------------------


def test_rop_and_lop_of_several():
    x, w = symbolic.vector("x"), symbolic.variable(W)
    v, u = np.array([1.0, -2.0, 0.5], np.float32), np.array([0.3, 0.1, -1.0], np.float32)
    f = [tnp.tanh(w @ x), tnp.sum(x**3)]
    pushed = symbolic.Rop(f, [x, w], [v, 2 * W])
    pulled = symbolic.Lop(f, [x, w], [u, 2.0])

    def function(x, w):
        return [jnp.tanh(w @ x), jnp.sum(x**3)]

    _, pushed_expected = jax.jvp(function, (X[:3], W), (v, 2 * W))
    _, pull = jax.vjp(function, X[:3], W)
    same(run([pushed, pulled], {x: X[:3]}), [pushed_expected, list(pull([u, jnp.float32(2.0)]))])
    with raises(ValueError, "one eval point for each Symbol: 1 for 2"):
        symbolic.Rop(f, [x, w], [v])
    with raises(TypeError, "a cotangent of type int32[1]"):
        symbolic.Lop(f[0], x, [np.int32(1)])
