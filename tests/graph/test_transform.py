"""The two passes over a jaxpr: what they compute, keep, emit and name."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from graph.same import same
from twograd._compat import scope_of, user_line
from twograd.graph.transform import backward_pass, evaluate, forward_pass

X = np.linspace(0.2, 1.0, 4, dtype=np.float32)


def derivative(f, *args, wanted=None, cts=None):
    """The results and the cotangents of the operands, by the two passes."""
    closed = jax.make_jaxpr(f)(*args)
    wanted = [True] * len(args) if wanted is None else wanted
    outs, applications = forward_pass(closed.jaxpr, closed.consts, args, wanted)
    return outs, backward_pass(closed.jaxpr, applications, [jnp.ones_like(out) for out in outs] if cts is None else cts)


def test_by_value_and_by_symbol():
    f = lambda x, y: (jnp.sin(x) * y, jnp.exp(y))  # noqa: E731
    outs, cts = derivative(f, X, 2 * X)
    theirs, pull = jax.vjp(f, X, 2 * X)
    same((outs, tuple(cts)), (list(theirs), pull((np.ones_like(X), np.ones_like(X)))))
    symbolic = jax.jit(lambda x, y: derivative(f, x, y))(X, 2 * X)
    same(symbolic, (outs, cts))


def test_fan_out_adds_up():
    _, (ct,) = derivative(lambda x: x * x + x * x * x, X)
    same(ct, 2 * X + 3 * X**2)


def test_outputs_that_are_inputs_constants_or_twice_the_same():
    def f(x):
        y = 2 * x
        return x, y, y, 3.0

    outs, (ct,) = derivative(f, X, cts=[X, X, 2 * X, np.float32(1)])
    assert outs[0] is X
    same(ct, X + 2 * X + 4 * X)


def test_zero_is_none():
    f = lambda x, y, n: (jnp.sin(x), jnp.cos(y), n)  # noqa: E731
    _, cts = derivative(f, X, X, 3, cts=[X, None, None])
    assert cts[1] is None
    assert cts[2] is None
    _, cts = derivative(f, X, X, 3, wanted=[False, True, False], cts=[X, X, None])
    assert cts[0] is None
    assert cts[2] is None


def test_nothing_is_kept_or_emitted_for_what_is_not_wanted():
    closed = jax.make_jaxpr(lambda w, x: jnp.tanh(jnp.exp(x)) * jnp.sin(w))(X, X)
    _, applications = forward_pass(closed.jaxpr, closed.consts, [X, X], [True, False])
    assert [application.eqn.primitive.name for application in applications] == ["sin", "mul"]
    assert applications[-1].wanted == (False, True)
    assert set(applications[-1].saved) == {"x"}


def test_a_rule_reads_a_literal():
    outs, (ct,) = derivative(lambda x: lax.select(jnp.asarray(True), x * 2, x), X)
    same((outs, ct), ([2 * X], jnp.full_like(X, 2)))


def test_applications_are_freed_on_the_way_back():
    closed = jax.make_jaxpr(lambda x: jnp.sin(jnp.sin(x)))(X)
    _, applications = forward_pass(closed.jaxpr, closed.consts, [X], [True])
    backward_pass(closed.jaxpr, applications, [X])
    assert applications == []


def test_equations_carry_scope_and_line():
    def f(x):
        return jnp.sin(x)

    emitted = jax.make_jaxpr(lambda x: derivative(f, x))(X)
    (cos,) = (eqn for eqn in emitted.eqns if eqn.primitive is lax.cos_p)
    assert scope_of(cos) == ("vjp(sin.0)",)
    assert user_line(cos) == f"{__file__}:{f.__code__.co_firstlineno + 1} ({f.__qualname__})"


def test_named_scopes_and_precision_survive():
    def f(x):
        with jax.named_scope("layer"), jax.default_matmul_precision("highest"):
            return jnp.outer(x, x) @ x

    emitted = jax.make_jaxpr(lambda x: derivative(f, x))(X)
    dots = [eqn for eqn in emitted.eqns if eqn.primitive is lax.dot_general_p]
    assert len(dots) >= 3
    assert all("layer" in scope_of(eqn) for eqn in dots)


def test_evaluate():
    closed = jax.make_jaxpr(lambda x: jnp.where(x > 0.5, x, 0.0))(X)
    same(evaluate(closed.jaxpr, closed.consts, [X]), [np.where(X > 0.5, X, np.float32(0))])


def test_a_long_chain_needs_no_stack():
    def chain(x):
        for _ in range(20_000):
            x = lax.sin(x)
        return x

    closed = jax.make_jaxpr(chain)(jax.ShapeDtypeStruct((), np.float32))

    def both(x):
        outs, applications = forward_pass(closed.jaxpr, closed.consts, [x], [True])
        return backward_pass(closed.jaxpr, applications, outs)

    assert len(jax.make_jaxpr(both)(0.5).eqns) == 60_000
