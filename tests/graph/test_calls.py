"""Primitives that carry jaxprs (jit, custom_jvp, custom_vjp, checkpoint): derivatives are JAX's, to second order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from graph.same import raises, same
from twograd import graph

X = np.linspace(0.2, 1.0, 4, dtype=np.float32)


@jax.custom_jvp
def twice_checked(x, n):
    return x**2 * n


@twice_checked.defjvp
def twice_checked_jvp(primals, tangents):
    (x, n), (t, _) = primals, tangents
    return twice_checked(x, n), 2 * x * n * t


def with_symbolic_zeros():
    @jax.custom_jvp
    def f(x, y):
        return x * y

    def rule(primals, tangents):
        (x, y), (s, t) = primals, tangents
        zero = jax.custom_derivatives.SymbolicZero
        return x * y, (0 if type(s) is zero else s * y) + (0 if type(t) is zero else 3 * t * x)

    f.defjvp(rule, symbolic_zeros=True)
    return f


def tree_valued():
    @jax.custom_vjp
    def f(p, x):
        return {"out": p["w"] * jnp.sin(x)}, jnp.sum(x)

    def forward(p, x):
        return f(p, x), (p, x)

    def backward(saved, cts):
        p, x = saved
        (out, total) = cts
        return {"w": 2 * out["out"] * jnp.sin(x)}, p["w"] * out["out"] * jnp.cos(x) + total

    f.defvjp(forward, backward)
    return f


def nondifferentiable_arguments():
    @lambda f: jax.custom_vjp(f, nondiff_argnums=(0, 2))
    def f(power, x, g):
        return g(x) ** power

    def backward(power, g, x, ct):
        return (power * ct * g(x),)

    f.defvjp(lambda power, x, g: (f(power, x, g), x), backward)
    return lambda x: jnp.sum(f(2, x, jnp.sin))


def optimized_vjp():
    @jax.custom_vjp
    def f(x, n):
        return x * n

    f.defvjp(lambda x, n: (x * n, n), lambda n, ct: (ct * n, np.zeros((), jax.dtypes.float0)))
    return lambda x: jnp.sum(f(x, 3))


symbolic = with_symbolic_zeros()
tree = tree_valued()

CALLS = {
    "jit": lambda x: jnp.sum(jax.jit(lambda y: jnp.sin(y) * x)(x)),
    "jit, same body twice": lambda x: jnp.sum(jnp.where(x > 0.5, x, 2 * x) * jnp.where(x > 0.7, x, 3 * x)),
    "jit, several results": lambda x: jnp.sum(jnp.divmod(x, 0.3)[1] * x),
    "jit, unused result": lambda x: jnp.sum(jax.jit(lambda y: (jnp.sin(y), jnp.exp(y), 1.0))(x)[0]),
    "jit, integer result": lambda x: jnp.sum(x * jax.jit(lambda y: (y > 0.5).astype(int))(x)),
    "custom_jvp": lambda x: jnp.sum(twice_checked(x, 3.0)),
    "custom_jvp, integer": lambda x: jnp.sum(twice_checked(x, 3)),
    "custom_jvp, one operand unmoved": lambda x: jnp.sum(twice_checked(2.0 * X, x)) + jnp.sum(twice_checked(x, X)),
    "custom_jvp, symbolic zeros": lambda x: jnp.sum(symbolic(x, X) + symbolic(X, x) + symbolic(x, x)),
    "custom_jvp, closing over": lambda x: jnp.sum(jax.jit(lambda y: jax.nn.silu(y) * x)(x)),
    "custom_vjp": lambda x: jnp.sum(tree({"w": x}, x)[0]["out"]),
    "custom_vjp, one result": lambda x: tree({"w": x}, x)[1],
    "custom_vjp, one operand": lambda x: jnp.sum(tree({"w": X}, x)[0]["out"]),
    "custom_vjp, nondiff_argnums": nondifferentiable_arguments(),
    "custom_vjp, integer operand": optimized_vjp(),
    "custom_vjp in jit": lambda x: jnp.sum(jax.jit(tree)({"w": x}, x)[0]["out"]),
    "checkpoint": lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(y) * x)(x)),
    "checkpoint, policy": lambda x: jnp.sum(
        jax.checkpoint(lambda y: jnp.sin(jnp.exp(y)), policy=jax.checkpoint_policies.dots_saveable)(x)
    ),
    "checkpoint in checkpoint": lambda x: jnp.sum(jax.checkpoint(lambda y: jax.checkpoint(jnp.sin)(y) * y)(x)),
    "checkpoint, prevent_cse off": lambda x: jnp.sum(jax.checkpoint(jnp.tanh, prevent_cse=False)(x)),
    "checkpoint_name": lambda x: jnp.sum(checkpoint_name(jnp.sin(x), "sin") * x),
    "numpy's own": lambda x: jnp.sum(jnp.logaddexp(x, X) + jnp.sinc(x) + jnp.hypot(x, 1.0) + jnp.clip(x, 0.3, 0.9)),
    "nn": lambda x: jnp.sum(jax.nn.gelu(x) + jax.nn.elu(x) + jax.nn.relu6(x) + jax.nn.log_softmax(x)),
}


@pytest.mark.parametrize("f", CALLS.values(), ids=CALLS)
def test_calls(f):
    @jax.jit
    def everything(x):
        pairs = {}
        for name, engine in (("ours", graph), ("JAX's", jax)):
            first = engine.grad(f)
            second = engine.grad(lambda x, first=first: jnp.sum(jnp.cos(first(x))))
            pairs[name] = engine.value_and_grad(f)(x), second(x), jax.vmap(first)(jnp.stack([x, 2 * x]))
        return pairs

    found = everything(X)
    same(found["ours"], found["JAX's"], rtol=1e-4)


def test_by_value():
    f = CALLS["custom_vjp in jit"]
    _, (ct,) = graph.trace(f, X).backprop(X)
    same(ct, jax.grad(f)(X))


def test_wrong_cotangent_of_the_users_rule():
    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, ct: (jnp.zeros(3),))
    with raises(Exception, "3"):
        graph.grad(lambda x: jnp.sum(f(x)))(X)


def test_side_effects_happen_once():
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(float(v)), x[0])
        return jnp.sum(x * lax.stop_gradient(x))

    jax.block_until_ready(graph.grad(f)(X))
    jax.effects_barrier()
    assert len(seen) == 1


def test_linear_calls():
    """The user's transpose is taken, and twice transposed is the function itself."""

    def scaled(s, x):
        call = jax.custom_derivatives.linear_call(
            lambda s, x: {"y": s * x}, lambda s, ct: 3 * s * ct["y"], s, x
        )  # not the transpose: to see that it is called
        return jnp.sum(jnp.sin(call["y"]) * X)

    same(graph.grad(scaled, 1)(2 * X, X), jax.grad(scaled, 1)(2 * X, X))

    def slope(engine):
        return lambda x: jnp.sum(jnp.cos(engine.grad(scaled, 1)(2 * X, x)))

    same(graph.grad(slope(graph))(X), jax.grad(slope(jax))(X))
    with raises(NotImplementedError, "says nothing of a derivative in the others"):
        graph.grad(scaled)(2 * X, X)


def test_a_custom_vjp_whose_forward_rule_may_be_dropped():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda c, ct: (2 * c * ct,), optimize_remat=True)
    for program in (lambda x: jnp.sum(f(x) ** 2), jax.checkpoint(lambda x: jnp.sum(f(f(x))))):
        same(graph.grad(program)(X), jax.grad(program)(X))
    slope = lambda x: jnp.sum(jnp.sin(graph.grad(lambda x: jnp.sum(f(x)))(x)))  # noqa: E731
    same(graph.grad(slope)(X), -2 * np.sin(X) * np.cos(2 * np.cos(X)))  # where jax.grad of jax.grad gives up


def test_linear_solves():
    """The operator takes a tree and is not symmetric; the solver reports something; some constants are not wanted."""
    matrix = np.float32([[2, 1, 0, 0], [0, 3, 1, 0], [1, 0, 2, 0], [0, 0, 1, 4]])

    def solution(a, b):
        inverse = jnp.linalg.inv(lax.stop_gradient(a))
        return lax.custom_linear_solve(
            lambda v: {"v": a @ v["v"]},
            {"v": b},
            lambda _, b: ({"v": inverse @ b["v"]}, jnp.sum(b["v"])),
            lambda _, b: ({"v": inverse.T @ b["v"]}, jnp.sum(b["v"])),
            has_aux=True,
        )

    def f(a, b):
        x, report = solution(a, b)
        return jnp.sum(jnp.sin(x["v"])) * report

    for argnums in (0, 1, (0, 1)):
        same(graph.grad(f, argnums)(matrix, X), jax.grad(f, argnums)(matrix, X), rtol=1e-4)
    conjugate = lambda a: jnp.sum(jax.scipy.sparse.linalg.cg(lambda v: a @ v, X)[0] ** 2)  # noqa: E731
    symmetric = matrix @ matrix.T

    def slopes(engine):
        return lambda a: jnp.sum(engine.grad(conjugate)(a) ** 2)

    same(graph.grad(slopes(graph))(symmetric), jax.grad(slopes(jax))(symmetric), rtol=1e-3)


def test_linear_solve_without_a_transpose():
    f = lambda b: jnp.sum(lax.custom_linear_solve(lambda v: 2 * v, b, lambda _, b: b / 2))  # noqa: E731
    with raises(TypeError, "transpose_solve required for backwards mode automatic differentiation"):
        graph.grad(f)(X)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_reduce_window_with_a_function_of_the_users(padding):
    def products(x):
        return jnp.sum(lax.reduce_window(x, 1.0, lax.mul, (2, 3), (1, 2), padding) ** 2)

    def written_out(x):
        low, high = ((0, 0), (0, 0)) if padding == "VALID" else lax.padtype_to_pads(x.shape, (2, 3), (1, 2), "SAME")
        x = jnp.pad(x, (low, high), constant_values=1.0)
        rows, columns = x.shape[0] - 1, (x.shape[1] - 3) // 2 + 1
        windows = [x[i : i + 2, 2 * j : 2 * j + 3] for i in range(rows) for j in range(columns)]
        return jnp.sum(jnp.stack([jnp.prod(window) for window in windows]) ** 2)

    @jax.jit
    def everything(x):
        return [
            ((engine.grad(f)(x), jax.vmap(engine.grad(f))(jnp.stack([x, x + 1]))), engine.hessian(f)(x))
            for engine, f in ((graph, products), (jax, written_out))
        ]

    ours, theirs = everything(np.linspace(0.5, 1.5, 20, dtype=np.float32).reshape(4, 5))
    same(ours[0], theirs[0])
    same(ours[1], theirs[1], rtol=1e-4)


def reduced_product(x):
    return jnp.sum(lax.reduce(x, jnp.asarray(1.0, x.dtype), lambda a, b: a * b * (1 + 0 * a), (0, 2)) ** 2)


def test_reduce_with_a_function_of_the_users():
    x = np.linspace(0.5, 1.5, 30, dtype=np.float32).reshape(3, 2, 5)
    same(graph.grad(reduced_product)(x), jax.grad(reduced_product)(x))
    same(graph.hessian(reduced_product)(x), jax.hessian(reduced_product)(x), rtol=1e-4)
    same(
        jax.vmap(graph.grad(reduced_product))(np.stack([x, x + 1])),
        jax.vmap(jax.grad(reduced_product))(np.stack([x, x + 1])),
    )


def test_reduce_of_nothing_is_the_initial_value():
    assert graph.grad(reduced_product)(np.ones((3, 2, 0), np.float32)).shape == (3, 2, 0)


def test_reduce_of_several_arrays_keeps_their_order_and_a_constant_that_is_not_neutral():
    """The composition of the maps t -> a t + b, which is not commutative, and then of one more map."""

    def f(a, b):
        def compose(first, then):
            return then[0] * first[0], then[0] * first[1] + then[1]

        slope, offset = lax.reduce((a, b), (2.0, 3.0), compose, (0,))
        return slope * offset

    def written_out(a, b):
        slope, offset = 2.0, 3.0
        for i in range(len(a)):
            slope, offset = a[i] * slope, a[i] * offset + b[i]
        return slope * offset

    x = np.linspace(0.5, 1.5, 5, dtype=np.float32)
    same(f(x, x + 1), written_out(x, x + 1))
    same(graph.grad(f, (0, 1))(x, x + 1), jax.grad(written_out, (0, 1))(x, x + 1))


def test_a_reduction_has_no_derivative_in_its_initial_value():
    with pytest.raises(NotImplementedError, match=r"'reduce' has no derivative.*combine that one with the result"):
        graph.grad(lambda a: lax.reduce(X * a, a, lambda a, b: a * b + 0 * a, (0,)))(np.float32(1))


def test_reduce_window_of_two_arrays():
    def f(x, y):
        def combine(a, b):
            return a[0] * b[0], a[1] + b[1]

        products, sums = lax.reduce_window((x, y), (1.0, 0.0), combine, (2,), (1,), "VALID")
        return jnp.sum(products * sums)

    def written_out(x, y):
        return jnp.sum(x[:-1] * x[1:] * (y[:-1] + y[1:]))

    same(graph.grad(f, (0, 1))(X, X + 1), jax.grad(written_out, (0, 1))(X, X + 1))
