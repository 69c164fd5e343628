"""tape.grad and tape.value_and_grad in JAX's call shapes, held against JAX; nesting, tracing, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises, same

import twograd.numpy as tnp
from twograd import tape

X = np.linspace(0.1, 1.2, 6, dtype=np.float32).reshape(2, 3)
V = np.linspace(0.5, 1.5, 3, dtype=np.float32)


def product(x, y):
    return (tnp.sin(x) * y).sum()


def dictionary(params, x):
    return tnp.sum(params["a"][0] * x**2) + tnp.sum(tnp.exp(params["b"]["c"]))


def with_keyword(x, *, scale, options=None):
    return tnp.sum(x**3) * scale + (0.0 if options is None else tnp.sum(options["shift"] * x))


def with_aux(x):
    return tnp.sum(x**2), {"twice": x * 2, "name": [1, None]}


def ignores_second(x, y):
    return tnp.sum(x)


PARAMS = {"a": (V, None), "b": {"c": X}, "empty": []}
CALLS = [
    ("default", product, {}, (X, V), {}),
    ("one", product, {"argnums": 1}, (X, V), {}),
    ("numpy_integer", product, {"argnums": np.int64(1)}, (X, V), {}),
    ("negative", product, {"argnums": -1}, (X, V), {}),
    ("tuple", product, {"argnums": (0, 1)}, (X, V), {}),
    ("list", product, {"argnums": [0]}, (X, V), {}),
    ("permuted", product, {"argnums": (1, 0)}, (X, V), {}),
    ("mixed_signs", product, {"argnums": (-1, 0)}, (X, V), {}),
    ("pytree", dictionary, {"argnums": (0, 1)}, (PARAMS, V), {}),
    ("keywords", with_keyword, {}, (V,), {"scale": 2.0}),
    ("array_keywords", with_keyword, {}, (V,), {"scale": jnp.float32(2), "options": {"shift": jnp.ones(3)}}),
    ("aux", with_aux, {"has_aux": True}, (V,), {}),
    ("zeros", ignores_second, {"argnums": (0, 1)}, (X, V), {}),
    ("python_numbers", lambda x, y: x**2 * y, {"argnums": (0, 1)}, (3.0, 2.0), {}),
    ("integer_elsewhere", lambda x, n: x**2 * n, {}, (3.0, 2), {}),
    ("integers", lambda x, n: x * n, {"argnums": (0, 1), "allow_int": True}, (3.0, 2), {}),
    ("constant", lambda x: jnp.float32(2.0), {}, (V,), {}),
    ("partial", functools.partial(product, jnp.asarray(X)), {}, (V,), {}),
    ("complex", lambda z: tnp.abs(z * z).sum(), {}, (V + 1j * V[::-1],), {}),
    ("half", lambda x: (x * x).sum(), {}, (jnp.ones(3, jnp.bfloat16),), {}),
    ("empty_array", tnp.sum, {}, (np.zeros((0, 3), np.float32),), {}),
]


@pytest.mark.parametrize(("f", "options", "args", "kwargs"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
@pytest.mark.parametrize("of", [pytest.param("grad", marks=pytest.mark.slow), "value_and_grad"])
def test_as_jax(of, f, options, args, kwargs):
    ours = getattr(tape, of)(f, **options)(*args, **kwargs)
    same(ours, getattr(jax, of)(f, **options)(*args, **kwargs), rtol=1e-5)
    assert not any(isinstance(leaf, tape.Tensor) for leaf in jax.tree.leaves(ours))


def test_grad_is_the_second_of_value_and_grad():
    same(tape.grad(product, argnums=(1, 0))(X, V), jax.grad(product, argnums=(1, 0))(X, V))
    same(tape.grad(with_aux, has_aux=True)(V), jax.grad(with_aux, has_aux=True)(V))


def test_primitive_level():
    with tape.granularity("primitive"):
        ours = tape.value_and_grad(product, argnums=(0, 1))(X, V)
    same(ours, jax.value_and_grad(product, argnums=(0, 1))(X, V))


def test_grad_of_grad_to_order_4():
    def power(x):
        return x**5 * 0.1 + tnp.sin(x)

    ours, theirs = power, power
    for _ in range(4):
        ours, theirs = tape.grad(ours), jax.grad(theirs)
        same(ours(1.3), theirs(1.3), rtol=1e-5)


def test_gradient_of_a_gradient_penalty():
    def penalty(grad):
        def loss(w, x):
            slope = grad(lambda x: tnp.sum(tnp.tanh(w * x) ** 2))(x)
            return tnp.sum(slope**2) + tnp.sum(w)

        return loss

    same(
        tape.grad(penalty(tape.grad), argnums=(0, 1))(V, V[::-1].copy()),
        jax.grad(penalty(jax.grad), argnums=(0, 1))(V, V[::-1].copy()),
        rtol=1e-5,
    )


def test_an_inner_derivative_sees_what_it_closes_over():
    """Perturbations must not be confused: d/dx (x * d/dy (x + y)) is 1, not 2."""

    def outer(grad):
        return grad(lambda x: x * grad(lambda y: x + y)(1.0))(3.0)

    same(outer(tape.grad), outer(jax.grad))

    def closure(grad):
        return grad(lambda w: grad(lambda x: x * w * x)(2.0))(3.0)

    same(closure(tape.grad), closure(jax.grad))

    def argument_and_closure(grad):
        return grad(lambda x: grad(lambda y: x * y)(x))(3.0)

    same(argument_and_closure(tape.grad), argument_and_closure(jax.grad))

    def through_keyword(grad):
        return grad(lambda w: grad(lambda x, *, w: x * w * x)(2.0, w=w))(3.0)

    same(through_keyword(tape.grad), through_keyword(jax.grad))


def test_values_decide_which_branch_runs():
    def f(x):
        total = x
        while total.sum() < 20:
            total = total * 2 if total[0] < 1 else total**2
        return total.sum()

    same(tape.grad(f)(V), jax.grad(f)(V), rtol=1e-5)


def test_called_with_tensors():
    x, y = tape.tensor(X), tape.tensor(V, requires_grad=True)
    value, gradient = tape.value_and_grad(product)(x, x)
    for result in (value, gradient):
        assert isinstance(result, tape.Tensor)
        assert result.is_leaf
        assert not result.requires_grad
    gradient = tape.grad(product)(x, y)  # records, so that it can be differentiated in y
    assert gradient.requires_grad
    gradient.sum().backward()
    expected = jax.grad(lambda y: jax.grad(product)(X, y).sum())(V)
    same(y.grad.array, expected, rtol=1e-5)
    assert x.grad is None
    mixed = tape.grad(product, argnums=(0, 1))(X, tape.tensor(V))
    assert all(isinstance(g, tape.Tensor) for g in mixed)


def test_tensors_that_are_closed_over_are_constants():
    w = tape.tensor(V, requires_grad=True)
    gradient = tape.grad(lambda x: (x * w).sum())(jnp.asarray(V))
    assert isinstance(gradient, jax.Array)
    same(gradient, jnp.asarray(V))
    assert w.grad is None


def test_leaves_get_no_grad():
    x = tape.tensor(V, requires_grad=True)
    tape.grad(lambda x: (x * x).sum())(x)
    assert x.grad is None


def test_no_grad_outside_does_not_matter_inside():
    x = tape.tensor(V, requires_grad=True)
    with tape.no_grad():
        gradient = tape.grad(lambda x: (x * x).sum())(x)
        assert not tape.is_grad_enabled()
    assert not gradient.requires_grad
    same(gradient.array, 2 * jnp.asarray(V))
    inside = tape.grad(lambda x: (x * x).sum() + _without_grad(x))(V)
    same(inside, 2 * jnp.asarray(V))


def _without_grad(x):
    with tape.no_grad():
        return (x * 100).sum()


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_under_jit_and_vmap(level):
    def f(x):
        return tnp.sum(tnp.sin(x) * x**2)

    with tape.granularity(level):
        same(jax.jit(tape.grad(f))(X), jax.grad(f)(X), rtol=1e-5)
        same(jax.vmap(tape.grad(f))(X), jax.vmap(jax.grad(f))(X), rtol=1e-5)
        second = tape.grad(lambda x: tape.grad(f)(x).sum())
        same(jax.jit(jax.vmap(second))(X), jax.vmap(jax.grad(lambda x: jax.grad(f)(x).sum()))(X), rtol=1e-5)
        same(jax.grad(lambda x: tape.grad(f)(x).sum())(X), jax.grad(lambda x: jax.grad(f)(x).sum())(X), rtol=1e-5)
        same(tape.grad(f)(X), jax.grad(f)(X), rtol=1e-5)  # nothing of those traces is left


def test_has_the_name_of_the_function():
    assert tape.grad(product).__name__ == "product"


WRONG = [
    (lambda: tape.grad(3), TypeError, "value_and_grad expects a function as its first argument, got int: 3"),
    (lambda: tape.grad(lambda x: x * 2)(V), TypeError, "this one returned float32[3]. Reduce it"),
    (lambda: tape.grad(lambda x: (x, x))(1.0), TypeError, "grad is defined for functions that return one scalar"),
    (lambda: tape.grad(lambda x: x.argmax())(V), TypeError, "grad needs a real output, got int32[]"),
    (lambda: tape.grad(lambda x: x.sum() * 1j)(V), TypeError, "grad needs a real output, got complex64[]"),
    (lambda: tape.grad(product)(jnp.arange(3), V), TypeError, "but argument 0 has dtype int32"),
    (lambda: tape.grad(dictionary)({"a": (2, None)}, V), TypeError, "but argument 0['a'][0] has dtype int32"),
    (lambda: tape.grad(product, argnums=2)(X, V), ValueError, "argnums=2 asks for argument 2"),
    (lambda: tape.grad(product, argnums="0")(X, V), TypeError, "argnums must be an integer or a sequence of integers"),
    (lambda: tape.grad(product, has_aux=True)(X, V), TypeError, "with has_aux=True the function must return a pair"),
    (lambda: tape.grad(lambda x: x)("a"), TypeError, "not a valid JAX type"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG, ids=[text for _, _, text in WRONG])
def test_errors(call, error, text):
    with raises(error, text):
        call()
    same(tape.grad(lambda x: x * x)(3.0), jnp.float32(6.0))


def test_an_error_inside_leaves_the_level():
    def fails(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tape.grad(fails)(1.0)
    assert isinstance(tape.grad(lambda x: x * x)(1.0), jax.Array)
