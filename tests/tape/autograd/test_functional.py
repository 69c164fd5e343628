"""torch.autograd.functional: functions, arguments and errors beside PyTorch; Jacobians beside JAX."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tape.both import both
from tape.torch_says import agrees
from twograd import tape

X, Y = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], [0.3, 0.7, -1.1]


def one(x):
    return (x * x).sum(1)


def several(x, y):
    return x * y, (y * y).sum(), x * 2.0


def number(x):
    return (x * x * x).sum()


def number_of_two(x, y):
    return (x * x * y).sum()


def inputs(m, requires_grad=False):
    return tuple(m.tensor(v, requires_grad=requires_grad) for v in (X, Y))


def like(m, tensors):
    return tuple(m.tensor(np.linspace(-1, 2, int(np.prod(t.shape))).reshape(t.shape).tolist()) for t in tensors)


@pytest.mark.parametrize("create_graph", [pytest.param(False, marks=pytest.mark.slow), True])
def test_products(create_graph):
    def program(m):
        f = m.autograd.functional
        options = {"create_graph": create_graph}
        x, y = inputs(m, create_graph)
        results = [
            f.vjp(one, x, m.tensor([1.0, -2.0]), **options),
            f.vjp(several, (x, y), like(m, several(x, y)), **options),
            f.vjp(number, x, **options),
            f.jvp(one, x, *like(m, [x]), **options),
            f.jvp(several, (x, y), like(m, (x, y)), **options),
            f.jvp(lambda x: (x, x * 2), x[0, 0], **options),
            f.vhp(number, x, *like(m, [x]), **options),
            f.vhp(number_of_two, (x, y), like(m, (x, y)), **options),
            f.hvp(number, x, *like(m, [x]), **options),
            f.hvp(number_of_two, (x, y), like(m, (x, y)), **options),
        ]
        if create_graph:
            total = sum(leaf.sum() for leaf in flat(m, results) if leaf.requires_grad)
            results.append(m.autograd.grad(total, (x, y)))
        assert any(leaf.requires_grad for leaf in flat(m, results)) == create_graph
        return results

    agrees(program)


def flat(m, value):
    return [value] if isinstance(value, m.Tensor) else list(itertools.chain.from_iterable(flat(m, v) for v in value))


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), pytest.param({"create_graph": True}, marks=pytest.mark.slow),
     pytest.param({"vectorize": True}, marks=pytest.mark.slow),
     {"vectorize": True, "create_graph": True}, {"vectorize": True, "strategy": "forward-mode"}],
    ids=str,
)  # fmt: skip
def test_jacobians(options):
    def program(m):
        f = m.autograd.functional
        create_graph = options.get("create_graph", False)
        x, y = inputs(m, create_graph)
        results = [f.jacobian(one, x, **options), f.jacobian(several, (x, y), **options)]
        results += [f.jacobian(number, x, **options), f.jacobian(lambda x, y: x.sum(), (x, y), **options)]
        if create_graph:
            results.append(m.autograd.grad(sum((leaf * leaf).sum() for leaf in flat(m, results)), (x, y)))
        return results

    agrees(program)


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"create_graph": True}, marks=pytest.mark.slow),
     pytest.param({"vectorize": True}, marks=pytest.mark.slow),
     {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}],
    ids=str,
)  # fmt: skip
def test_hessians(options):
    def program(m):
        f = m.autograd.functional
        x, y = inputs(m, options.get("create_graph", False))
        return f.hessian(number, x, **options), f.hessian(number_of_two, (x, y), **options)

    agrees(program)


def test_against_jax():
    x = jnp.asarray(X[0])

    def f(x):
        return x[0] * x, x.prod()

    ours = tape.autograd.functional.jacobian(f, tape.tensor(X[0]), vectorize=True)
    for found, expected in zip(ours, jax.jacrev(f)(x), strict=True):
        np.testing.assert_allclose(found.array, expected, rtol=1e-6)
    found = tape.autograd.functional.hessian(lambda x: x.prod(), tape.tensor(X[0]))
    np.testing.assert_allclose(found.array, jax.hessian(jnp.prod)(x), rtol=1e-6)


def constant(x):
    return x.detach() * 2


ERRORS = {
    "inputs": lambda m, f, x, y: f.vjp(one, 3),
    "inputs in a tuple": lambda m, f, x, y: f.jvp(one, (x, 3)),
    "outputs": lambda m, f, x, y: f.vhp(lambda x: 3, x),
    "outputs in a tuple": lambda m, f, x, y: f.jacobian(lambda x: (x, 3), x),
    "a list is no tuple": lambda m, f, x, y: f.jacobian(lambda x: x, [x]),
    "vjp without v": lambda m, f, x, y: f.vjp(one, x),
    "jvp without v": lambda m, f, x, y: f.jvp(one, x),
    "vhp without v": lambda m, f, x, y: f.vhp(number, x),
    "hvp without v": lambda m, f, x, y: f.hvp(number, x),
    "v of another length": lambda m, f, x, y: f.jvp(several, (x, y), (x, y, x)),
    "v for one": lambda m, f, x, y: f.jvp(one, x, (x, y)),
    "v of another size": lambda m, f, x, y: f.jvp(several, (x, y), (x, x)),
    "v of another size for one": lambda m, f, x, y: f.jvp(one, x, y),
    "vhp of several": lambda m, f, x, y: f.vhp(lambda x: (x, x), x, x),
    "hvp of an array": lambda m, f, x, y: f.hvp(one, x, x),
    "hessian of an array": lambda m, f, x, y: f.hessian(one, x),
    "hessian of several": lambda m, f, x, y: f.hessian(lambda x: (x, x), x),
    "strategy": lambda m, f, x, y: f.jacobian(one, x, strategy="sideways"),
    "outer strategy": lambda m, f, x, y: f.hessian(number, x, outer_jacobian_strategy="sideways"),
    "forward and create_graph": lambda m, f, x, y: f.jacobian(one, x, create_graph=True, strategy="forward-mode"),
    "forward and strict": lambda m, f, x, y: f.jacobian(one, x, strict=True, strategy="forward-mode"),
    "vectorized and strict": lambda m, f, x, y: f.jacobian(one, x, strict=True, vectorize=True),
    "strict vjp of a constant": lambda m, f, x, y: f.vjp(constant, x, x, strict=True),
    "strict vjp, one unused": lambda m, f, x, y: f.vjp(lambda x, y: x.sum(), (x, y), strict=True),
    "strict vjp, linear": lambda m, f, x, y: f.vjp(
        lambda x: (x + 1).sum(), x.requires_grad_(), strict=True, create_graph=True
    ),
    "strict jvp, one unused": lambda m, f, x, y: f.jvp(lambda x, y: x.sum(), (x, y), (x, y), strict=True),
    "strict jacobian, one unused": lambda m, f, x, y: f.jacobian(lambda x, y: x.sum(), (x, y), strict=True),
    "strict jacobian, linear": lambda m, f, x, y: f.jacobian(
        lambda x: x.sum(), x.requires_grad_(), strict=True, create_graph=True
    ),
    "strict hessian, linear": lambda m, f, x, y: f.hessian(lambda x: (x + 1).sum(), x, strict=True),
    "strict hessian, one unused": lambda m, f, x, y: f.hessian(lambda x, y: (x * x).sum(), (x, y), strict=True),
    "strict hvp, linear": lambda m, f, x, y: f.hvp(lambda x: (x + 1).sum(), x, x, strict=True),
    "strict vhp, one unused": lambda m, f, x, y: f.vhp(
        lambda x, y: (x * x).sum() + y.sum(), (x, y), (x, y), strict=True
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    error, text = agrees(lambda m: ERRORS[case](m, m.autograd.functional, *inputs(m)))
    assert error.endswith("Error")
    assert text


def test_a_jacobian_in_forward_mode_must_be_vectorized():
    with pytest.raises(NotImplementedError, match="only implemented for `vectorize=True`"):
        tape.autograd.functional.jacobian(one, tape.tensor(X), strategy="forward-mode")


@both
def test_what_a_function_closes_over_is_constant(m):
    x = m.tensor(Y, requires_grad=True)
    found = m.autograd.functional.jacobian(lambda own: own * x, x)
    np.testing.assert_allclose(found.numpy(), np.diag(Y), rtol=1e-6)
    assert x.grad is None


def test_empty_arrays():
    jacobian = tape.autograd.functional.jacobian
    for vectorize in (False, True):  # PyTorch finds no rows to stack in the first case
        assert jacobian(lambda x: x * 2, tape.zeros(0), vectorize=vectorize).shape == (0, 0)
        assert jacobian(lambda x: x.sum(), tape.zeros(0), vectorize=vectorize).shape == (0,)


@both
def test_under_no_grad(m):
    x = m.tensor(Y)
    with m.no_grad():
        found = m.autograd.functional.hessian(lambda x: (x * x * x).sum(), x)
        value, product = m.autograd.functional.hvp(lambda x: (x * x * x).sum(), x, x)
    np.testing.assert_allclose(found.numpy(), np.diag(6 * np.array(Y)), rtol=1e-6)
    np.testing.assert_allclose(product.numpy(), 6 * np.array(Y) ** 2, rtol=1e-6)
    assert not value.requires_grad


def test_complex_inputs():
    z = np.array([1.0 + 2.0j, -0.5j], np.complex64)
    found = tape.autograd.functional.jacobian(lambda z: z * z, tape.tensor(z), vectorize=True)
    np.testing.assert_allclose(found.array, jax.jacfwd(lambda z: z * z, holomorphic=True)(z), rtol=1e-6)
