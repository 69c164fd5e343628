"""Rerolling: what is found, what the loops read and hand out, and that values and derivatives stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import check_jaxpr

from graph.same import same
from twograd import graph
from twograd.graph.passes import optimize, reroll
from twograd.graph.passes.periods import repeats
from twograd.graph.passes.report import count
from twograd.graph.passes.reroll import unstacked

DEPTH, WIDTH = 9, 4
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


X = normal(3, WIDTH)
STACKED = {"w": 0.5 * normal(DEPTH, WIDTH, WIDTH), "scale": normal(DEPTH, WIDTH)}


def layer(p, x):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normed = centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-3) * p["scale"]
    return x + jnp.tanh(normed @ p["w"])


def rows(params):
    return [jax.tree.map(lambda array, i=i: array[i], params) for i in range(DEPTH)]


def stacked(params, x):
    for p in rows(params):
        x = layer(p, x)
    return jnp.mean(x**2)


def separate(layers, x):
    for p in layers:
        x = layer(p, x)
    return jnp.mean(x**2)


def scans(closed):
    return [eqn for eqn in closed.eqns if eqn.primitive is lax.scan_p]


def rolled(f, *args, loops=1, check=True):
    """The program after reroll, which must have so many loops and the same values."""
    closed, _ = optimize(jax.make_jaxpr(f)(*args))
    after, (report,) = optimize(closed, [reroll], check=check)
    check_jaxpr(after.jaxpr)
    assert len(scans(after)) == loops, after
    assert bool(report.fired) == bool(loops)
    return after


# --- forward ----------------------------------------------------------------------------------------------------------


def test_rows_of_stacked_arrays_are_read_where_they_lie():
    closed = rolled(stacked, STACKED, X)
    (scan,) = scans(closed)
    assert scan.params["length"] == DEPTH
    assert scan.params["num_carry"] == 1
    assert "stack" not in str(closed)
    assert "concatenate" not in str(closed)


def test_separate_arrays_are_stacked():
    closed = rolled(separate, rows(STACKED), X)
    assert [eqn.primitive.name for eqn in closed.eqns].count("stack") == 2
    assert count(closed) < 40


def test_two_loops_share_a_stack():
    def both(layers, x):
        return separate(layers, x) + separate(layers[1:], x) + separate(layers[::-1], x)

    closed = rolled(both, rows(STACKED), X, loops=3)
    assert [eqn.primitive.name for eqn in closed.eqns].count("stack") == 2


def test_rows_are_taken_out_unchanged():
    numbers = np.arange(2 * 70 * 3).reshape(70, 2, 3) - 100.0
    stacks = [numbers[:5].clip(0, 100).astype(dtype) for dtype in (bool, np.int8, np.uint32)]
    numbers[1, 0] = -0.0, np.nan, np.inf
    stacks += [numbers[:5].astype(dtype) for dtype in (np.float32, jnp.bfloat16, np.complex64)]
    stacks += [numbers[:, 0, 0], numbers[:5, :0]]
    for stack, out in zip(stacks, jax.jit(lambda stacks: [*map(unstacked, stacks)])(stacks), strict=True):
        assert len(out) == len(stack)
        expected = jnp.asarray(stack)
        assert np.stack(out).tobytes() == np.asarray(expected).tobytes()
        assert out[0].dtype == expected.dtype
    loss = lambda rows: sum(jnp.sum(row**2) for row in rows)  # noqa: E731
    x = normal(5, 2)
    for grad in (jax.grad, graph.grad):
        same(jax.jit(grad(lambda x: loss(unstacked(x))))(x), 2 * x)


def test_invariants_literals_and_starts():
    def f(x, mask, table):
        for i in range(12):
            part = table[:, i : i + 1] + mask
            x = jnp.sin(x * (0.05 * i + 0.1)) * part + jnp.cos(x)
        return x

    closed = rolled(f, X, normal(3, 1), normal(3, 12))
    assert "dynamic_slice" in str(closed)


def test_delays_of_two_blocks():
    """Störmer's and Verlet's method: each step reads the two before it."""

    def f(x):
        before, now = x, x + 0.01 * jnp.sin(x)
        for _ in range(20):
            before, now = now, 2.0 * now - before - 0.01 * jnp.sin(now) * jnp.cos(now)
        return before, now

    (scan,) = scans(rolled(f, X))
    assert scan.params["length"] >= 18


def test_values_of_every_step_and_of_some():
    def f(x):
        seen = []
        for _ in range(12):
            x = jnp.tanh(x * 1.5) + jnp.sin(x) * 0.5
            seen.append(x)
        return seen, seen[3] * seen[7]

    closed = rolled(f, X, loops=1)
    assert "unstack" in str(closed)
    rolled(lambda x: f(x)[1], X)


def test_blocks_in_another_order_than_they_need():
    """Equations of all layers are shuffled as far as they do not depend on each other."""
    closed, _ = optimize(jax.make_jaxpr(stacked)(STACKED, X))
    rng, made, left, order = np.random.default_rng(1), set(closed.jaxpr.invars), list(closed.eqns), []
    while left:
        ready = [e for e in left if all(not hasattr(a, "count") and (hasattr(a, "val") or a in made) for a in e.invars)]
        eqn = ready[rng.integers(len(ready))]
        left.remove(eqn)
        order.append(eqn)
        made.update(eqn.outvars)
    shuffled = closed.replace(jaxpr=closed.jaxpr.replace(eqns=order))
    after, _ = optimize(shuffled, [reroll], check=True)
    assert scans(after)[0].params["length"] == DEPTH


def test_a_loop_over_loops_is_two_loops():
    def f(x):
        for _ in range(6):
            for _ in range(6):
                x = jnp.sin(x) * 1.5 + jnp.cos(x) - jnp.tanh(x) * jnp.exp(-x * x) + 0.1
            x = jnp.cumsum(x, 0)
        return x

    (outer,) = scans(rolled(f, X))
    assert len(scans(outer.params["jaxpr"])) == 1


def test_inside_of_bodies():
    def f(x):
        return lax.cond(x[0, 0] > 0, lambda y: y, lambda y: stacked(STACKED, y) + y, x)

    closed, _ = optimize(jax.make_jaxpr(f)(X))
    after, _ = optimize(closed, [reroll], check=True)
    assert any(scans(branch) for branch in after.eqns[-1].params["branches"])


def test_what_is_left_alone():
    def short(x):
        for _ in range(3):
            x = layer({"w": STACKED["w"][0], "scale": STACKED["scale"][0]}, x)
        return x

    def growing(x):
        for i in range(30):
            x = jnp.concatenate([x, jnp.sin(x[:1] * i)])
        return x

    def with_effects(x):
        for _ in range(20):
            x = jnp.sin(x) * jnp.cos(x)
            jax.debug.callback(lambda: None)
        return x

    def descent(ws):
        return [w - 0.1 * jnp.float32(2) * w for w in ws]

    for f, x in ((short, X), (growing, X), (with_effects, X), (descent, [normal(5) for _ in range(40)])):
        closed, _ = optimize(jax.make_jaxpr(f)(x))
        after, report = reroll(closed)
        assert after is closed
        assert not report.fired


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "params"),
    [pytest.param(stacked, STACKED, marks=pytest.mark.slow), (separate, rows(STACKED))],
    ids=["stacked", "separate"],
)
def test_forward_and_backward_blocks(f, params):
    unrolled = graph.trace(f, params, X).value_and_grad((0, 1)).optimize()
    loops = unrolled.optimize(reroll, check=True)
    check_jaxpr(loops.jaxpr.jaxpr)
    forward, backward, *_ = scans(loops.jaxpr)  # a third one may add up the gradients of rows
    assert (forward.params["length"], backward.params["reverse"]) == (DEPTH, True)
    assert backward.params["length"] >= DEPTH - 2
    assert loops.stats().derivative_equations < unrolled.stats().derivative_equations / 2
    assert backward.source_info.name_stack.stack  # it still says which derivative it is
    same(loops.run(params, X), jax.jit(jax.value_and_grad(f, (0, 1)))(params, X))


def test_shared_weights_have_accumulated_gradients():
    def recurrent(params, xs):
        h = jnp.zeros((3, WIDTH), np.float32)
        for t in range(12):
            h = jnp.tanh(xs[t] @ params["u"] + h @ params["w"] + params["b"])
        return jnp.mean(h**2)

    params = {"w": normal(WIDTH, WIDTH), "u": normal(WIDTH, WIDTH), "b": normal(WIDTH)}
    xs = normal(12, 3, WIDTH)
    loops = graph.trace(recurrent, params, xs).value_and_grad().optimize().optimize(reroll, check=True)
    assert any(scan.params["num_carry"] == 4 for scan in scans(loops.jaxpr))
    same(loops.run(params, xs), jax.jit(jax.value_and_grad(recurrent))(params, xs))


@pytest.mark.slow
def test_a_loop_is_differentiated_again():
    loop = graph.trace(stacked, STACKED, X).optimize().optimize(reroll)
    assert len(scans(loop.jaxpr)) == 1
    expected = jax.jit(jax.value_and_grad(stacked))(STACKED, X)
    derivative = loop.value_and_grad()
    assert count(derivative.jaxpr) < 200
    same(derivative.run(STACKED, X), expected)
    same(graph.value_and_grad(loop.run)(STACKED, X), expected)
    loops = graph.trace(stacked, STACKED, X).value_and_grad().optimize().optimize(reroll)
    norm = lambda run: lambda x: jnp.sum(run(STACKED, x)[1]["scale"] ** 2)  # noqa: E731
    same(jax.jit(graph.grad(norm(loops.run)))(X), jax.jit(jax.grad(norm(jax.value_and_grad(stacked))))(X), rtol=1e-3)


def test_report():
    report = graph.trace(stacked, STACKED, X).optimize().optimize(reroll).reports[-1]
    assert report.name == "reroll"
    assert report.after < report.before / 3
    ((block, times),) = report.fired.items()
    assert times == DEPTH
    assert "equations at test_reroll.py:" in block
    assert "(layer)" in block


def random_program(seed):
    """Random blocks of two carries, an invariant, a row per repetition and a literal; values of random places leave."""
    rng = np.random.default_rng(seed)
    plan = [(rng.integers(0, 4), rng.integers(0, 100), rng.integers(0, 100)) for _ in range(8)]
    kept = set(rng.integers(0, 10, 3).tolist())

    def program(a, b, table, shared):
        out = []
        for step in range(10):
            values = [a, b, table[step], shared, a * (0.1 * step + 0.15)]
            for kind, i, j in plan:
                x, y = values[i % len(values)], values[j % len(values)]
                values.append((jnp.sin(x), x * jnp.tanh(y), 0.5 * x + jnp.cos(y), y - jnp.tanh(x))[kind])
            a, b = jnp.tanh(sum(values[5:])), values[-2] * 0.5
            if step in kept:
                out.append(values[-3])
        return jnp.mean(a) + jnp.mean(b) + sum(map(jnp.mean, out))

    return program


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_random_blocks(seed):
    args = (X, 0.5 * X, normal(10, 3, WIDTH), normal(3, WIDTH))
    unrolled = graph.trace(random_program(seed), *args).value_and_grad((0, 2, 3)).optimize()
    loops = unrolled.optimize(reroll, check=True)
    assert scans(loops.jaxpr)
    assert loops.stats().equations < unrolled.stats().equations


def test_repeats():
    block = [1, 1, 2, 3, 1, 1, 5]
    (first, *_) = repeats(np.array([7, 8, *block * 6, 9, 9]), 4)
    assert (first.start, first.period, first.length, first.saved) == (2, 7, 42, 35)
    assert repeats(np.arange(50), 4) == []
    assert repeats(np.zeros(0, int), 4) == []
