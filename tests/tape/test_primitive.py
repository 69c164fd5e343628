"""Primitive level: the same gradients as at op level and as JAX's, and a node for each equation that needs one."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import same
from jax.extend.core import Var

import twograd.numpy as tnp
from twograd import rules, tape
from twograd.graph.passes.inline import inline
from twograd.tape import apply
from twograd.tape.names import node_name


@jax.custom_jvp
def clipped_log(x):
    return jnp.log(jnp.maximum(x, 0.1))


@clipped_log.defjvp
def clipped_log_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return clipped_log(x), t / (x + 1.0)


@jax.custom_vjp
def doubled_back(x, y):
    return x * y


doubled_back.defvjp(lambda x, y: (x * y, (x, y)), lambda saved, ct: (2 * ct * saved[1], 3 * ct * saved[0]))


@jax.custom_vjp
def own_product(x, y):
    return x * y


own_product.defvjp(lambda x, y: (x * y, (x, y)), lambda saved, ct: (ct * saved[1], ct * saved[0]))

X = np.linspace(0.2, 1.4, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(-0.7, 0.9, 12, dtype=np.float32).reshape(3, 4)
PROGRAMS = {
    "sin_times": (lambda x: jnp.sum(jnp.sin(x) * x + 2.0), X),
    "layer": (lambda x, w: jnp.sum(jax.nn.relu(x @ w) ** 2), X, W),
    "softmax": (lambda x: jnp.sum(jax.nn.log_softmax(x)[:, 1] * x[:, 0]), X),
    "logsumexp": (lambda x: jnp.sum(jax.nn.logsumexp(x, axis=1) ** 2), X),
    "where": (lambda x: jnp.sum(jnp.where(x > 0.5, x**3, jnp.exp(x))), X),
    "literals": (lambda x: jnp.sum(3.0 / (1.0 + x) - 2.0 * x), X),
    "shapes": (lambda x, w: jnp.sum(jnp.concatenate([x.T, w], axis=1).reshape(2, -1)[:, ::2] ** 2), X, W),
    "gather": (lambda x: jnp.sum(x[jnp.array([0, 1, 0])].at[0].add(1.0) ** 2), X),
    "sort": (lambda x: jnp.sum(jnp.sort(-x, axis=1) ** 2 * jnp.arange(3.0)), X),
    "norm": (lambda x: jnp.sqrt(jnp.sum(x**2)) + jnp.var(x), X),
    "custom_jvp": (lambda x: jnp.sum(clipped_log(x) * x), X),
    "custom_vjp": (lambda x: jnp.sum(own_product(x, jnp.sin(x)) ** 2), X),
    "jit": (lambda x: jnp.sum(jax.jit(lambda y: jnp.tanh(y) * y)(x) ** 2), X),
    "checkpoint": (lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x) ** 2), X),
    "unused": (lambda x, w: jnp.sum(x) ** 2, X, W),
}
SLOW = ("shapes", "norm", "jit", "checkpoint", "softmax", "layer", "gather")


def orders(level, f, arrays):
    """First and second derivatives: the gradients, and those of their sum of squares."""
    with tape.granularity(level):
        tensors = [tape.tensor(a, requires_grad=True) for a in arrays]
        y = apply(f, *tensors)
        first = tape.autograd.grad(y, tensors, create_graph=True, materialize_grads=True)
        total = sum((g * g).sum() for g in first)
        second = tape.autograd.grad(total, tensors, materialize_grads=True)
    return y.array, [g.array for g in first], [g.array for g in second]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PROGRAMS])
def test_as_op_level_and_jax(name):
    f, *arrays = PROGRAMS[name]

    def squares(*args):
        first = jax.grad(f, argnums=tuple(range(len(args))))(*args)
        return sum(jnp.sum(g * g) for g in first), first

    @jax.jit
    def expected(*args):
        second, first = jax.grad(squares, argnums=tuple(range(len(args))), has_aux=True)(*args)
        return f(*args), list(first), list(second)

    reference = expected(*arrays)
    same(orders("primitive", f, arrays), tuple(reference), rtol=2e-5)
    same(orders("op", f, arrays), tuple(reference), rtol=2e-5)


def test_a_users_rule_is_what_is_applied():
    for level in ("op", "primitive"):
        with tape.granularity(level):
            x, y = tape.tensor(X, requires_grad=True), tape.tensor(X + 1, requires_grad=True)
            apply(doubled_back, x, y).sum().backward()
        same(x.grad.array, 2 * y.array)
        same(y.grad.array, 3 * x.array)


def recorded(root):
    """The nodes behind ``root``, in the order in which they were made."""
    nodes, stack = {}, [root.grad_fn]
    while stack:
        node = stack.pop()
        if isinstance(node, tape.Node) and node.sequence_nr not in nodes:
            nodes[node.sequence_nr] = node
            stack.extend(n for n, _ in node.next_functions)
    return [nodes[number] for number in sorted(nodes)]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("unused", "sort")])
def test_a_node_for_each_equation_that_needs_a_gradient(name):
    f, *arrays = PROGRAMS[name]
    with tape.granularity("primitive"):
        y = apply(f, *(tape.tensor(a, requires_grad=True) for a in arrays))
    jaxpr = inline(jax.make_jaxpr(f)(*arrays))[0].jaxpr
    depends, needing = set(jaxpr.invars), []
    for eqn in jaxpr.eqns:
        wanted = rules.wanted_operands(eqn, [isinstance(v, Var) and v in depends for v in eqn.invars])
        if any(wanted):
            depends.update(v for v in eqn.outvars if rules.carries_gradient(v.aval))
            needing.append((eqn, wanted))
    reached, expected = set(jaxpr.outvars), []  # of these, the ones that the result's gradient comes through
    for eqn, wanted in reversed(needing):
        if reached.intersection(eqn.outvars):
            reached.update(v for v, want in zip(eqn.invars, wanted, strict=True) if want)
            expected.insert(0, eqn.primitive.name)
    found = [node.name() for node in recorded(y)]
    assert found == [node_name(types.SimpleNamespace(name=name)) for name in expected]


def test_names_and_saved_values():
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    with tape.granularity("primitive"):
        y = tnp.exp(tnp.sin(x) * 2.0)
    exp, mul, sin = (node for node in reversed(recorded(y)))
    assert [node.name() for node in (exp, mul, sin)] == ["ExpBackward0", "MulBackward0", "SinBackward0"]
    assert exp.saved[0] is y.array
    assert sin.saved[0] is x.array
    assert np.shape(mul.saved[0]) == ()


def test_a_constant_result():
    x = tape.ones(2, requires_grad=True)
    with tape.granularity("primitive"):
        three, y = apply(lambda x: (jnp.float32(3.0), x * 1.0), x)
    assert isinstance(three.array, jax.Array)
    assert not three.requires_grad
    assert y.requires_grad


def test_second_pass_traces_nothing(compilations):
    def step(number):
        x = tape.tensor(X, requires_grad=True)
        with tape.granularity("primitive"):
            (tnp.tanh(x * number) + x[0]).sum().backward()

    step(1.0)
    assert compilations.of(lambda: step(2.0)) == 0


def test_mixed_levels_in_one_graph():
    x = tape.tensor(X, requires_grad=True)
    y = x.sin()
    with tape.granularity("primitive"):
        y = y.softmax()
    y = (y * x).sum()
    with tape.granularity("primitive"):
        (g,) = tape.autograd.grad(y, x, create_graph=True)
    (h,) = tape.autograd.grad((g * g).sum(), x)

    def f(x):
        return jnp.sum(jax.nn.softmax(jnp.sin(x)) * x)

    same(g.array, jax.grad(f)(X), rtol=1e-5)
    same(h.array, jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2))(X), rtol=1e-5)


def test_what_the_tape_has_compiled_jax_need_not_compile_again(compilations):
    x = tape.tensor(np.linspace(0.1, 0.9, 21, dtype=np.float32).reshape(3, 7), requires_grad=True)
    with tape.granularity("primitive"):
        tnp.cbrt(x)
    assert compilations.of(lambda: jax.lax.cbrt(x.array)) == 0
