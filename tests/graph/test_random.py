"""Distributions of jax.random: the derivative of a sample in the parameters of its distribution equals JAX's.

Where a sampler rejects (gamma and what is made of it) the derivative is implicit: a sample moves so that its quantile
stays. JAX has no second derivative there, and neither have we: it would go through a loop of unknown length.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.scipy import special

from graph.same import raises, same
from twograd import graph
from twograd.errors import NoRule, NotReversible

KEY = random.key(3)
A = np.array([0.6, 1.7, 3.0], np.float32)
B = np.array([2.0, 0.7, 1.3], np.float32)
P = np.array([0.2, 0.5, 0.3], np.float32)
COVARIANCE = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.5]], np.float32)

# Each of two parameters. What JAX draws without any is scaled by one.
SMOOTH = {
    "ball": lambda a, b: random.ball(KEY, 3, 1.5) * a,
    "cauchy": lambda a, b: random.cauchy(KEY, (3,)) * a,
    "double_sided_maxwell": lambda a, b: random.double_sided_maxwell(KEY, a, b, (3,)),
    "exponential": lambda a, b: random.exponential(KEY, (3,)) / a,
    "gumbel": lambda a, b: jax.nn.softmax((a + random.gumbel(KEY, (3,))) / b),
    "laplace": lambda a, b: a + b * random.laplace(KEY, (3,)),
    "logistic": lambda a, b: a + b * random.logistic(KEY, (3,)),
    "lognormal": lambda a, b: random.lognormal(KEY, 0.3 * a),
    "maxwell": lambda a, b: random.maxwell(KEY, (3,)) * a,
    "multivariate_normal": lambda a, b: random.multivariate_normal(KEY, a, COVARIANCE * b * b[:, None]),
    "normal": lambda a, b: a + b * random.normal(KEY, (3,)),
    "orthogonal": lambda a, b: random.orthogonal(KEY, 3) @ a,
    "pareto": lambda a, b: random.pareto(KEY, a),
    "permutation": lambda a, b: random.permutation(KEY, a) * b,
    "rayleigh": lambda a, b: random.rayleigh(KEY, a),
    "triangular": lambda a, b: random.triangular(KEY, -a, 0.1 * b, b),
    "truncated_normal": lambda a, b: random.truncated_normal(KEY, -a, b),
    "uniform": lambda a, b: random.uniform(KEY, (3,), minval=-a, maxval=b),
    "wald": lambda a, b: random.wald(KEY, a),
    "weibull_min": lambda a, b: random.weibull_min(KEY, a, b),
}

# Samples of integers: they have no derivative, and what is computed with them has the derivative of the rest.
DISCRETE = {
    "bernoulli": lambda p: random.bernoulli(KEY, p),
    "binomial": lambda p: random.binomial(KEY, 5.0, p),
    "categorical": lambda p: random.categorical(KEY, jnp.log(p)),
    "choice": lambda p: random.choice(KEY, 3, (3,), p=p / jnp.sum(p)),
    "geometric": lambda p: random.geometric(KEY, p),
    "multinomial": lambda p: random.multinomial(KEY, 5.0, p),
    "poisson": lambda p: random.poisson(KEY, 9 * p),
}

IMPLICIT = {
    "gamma": lambda a, b: random.gamma(KEY, a),
    "loggamma": lambda a, b: random.loggamma(KEY, a),
    "beta": lambda a, b: random.beta(KEY, a, b),
    "dirichlet": lambda a, b: random.dirichlet(KEY, a),
    "t": lambda a, b: random.t(KEY, a, (3,)),
    "chisquare": lambda a, b: random.chisquare(KEY, a),
    "f": lambda a, b: random.f(KEY, a + 3, b + 3),
    "generalized_normal": lambda a, b: random.generalized_normal(KEY, a[0], (3,)),
}


def unoptimized(f):
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def losses(programs):
    return [lambda *args, f=f: jnp.sum(jnp.sin(f(*args))) for f in programs.values()]


def held_against_jax(functions, args, second, batch=True):
    """Holds first and, if asked, second derivatives in all arguments against JAX's, also under vmap."""
    argnums = tuple(range(len(args)))

    def everything(*args):
        found = []
        for engine in (graph, jax):
            for f in functions:
                first = engine.grad(f, argnums)
                results = [first(*args)]
                if second:
                    again = engine.grad(lambda *a, first=first: sum(jnp.sum(jnp.sin(g)) for g in first(*a)), argnums)
                    results.append(again(*args))
                if batch:
                    results.append(jax.vmap(first)(*(jnp.stack([x, x * 0.9]) for x in args)))
                found.append(results)
        return found[: len(functions)], found[len(functions) :]

    ours, theirs = unoptimized(everything)(*args)
    for mine, other in zip(ours, theirs, strict=True):
        same(mine, other, rtol=1e-4)
    return ours


def test_smooth_distributions():
    ours = held_against_jax(losses(SMOOTH), (A, B), second=False, batch=False)
    for name, (gradients,) in zip(SMOOTH, ours, strict=True):
        assert np.any(gradients[0]) or np.any(gradients[1]), name


@pytest.mark.slow
def test_smooth_distributions_to_second_order_and_under_vmap():
    held_against_jax(losses(SMOOTH), (A, B), second=True)


@pytest.mark.parametrize("names", [["gamma"], pytest.param(list(IMPLICIT), marks=pytest.mark.slow)])
def test_implicit_derivatives(names):
    chosen = {name: IMPLICIT[name] for name in names}
    quick = len(names) == 1
    ours = held_against_jax(losses(chosen), (A, B), second=False, batch=not quick)
    assert all(np.any(gradients[0][0]) for gradients in ours)


def test_a_second_implicit_derivative_is_refused_as_by_jax():
    (f,) = losses({"gamma": IMPLICIT["gamma"]})
    for engine, error in ((graph, NotReversible), (jax, ValueError)):
        second = engine.grad(lambda a, engine=engine: jnp.sum(engine.grad(f)(a, B)))
        with raises(error, "Reverse-mode differentiation does not work for lax.while_loop"):
            jax.make_jaxpr(second)(A)


@pytest.mark.parametrize(
    "names", [["bernoulli", "categorical", "geometric"], pytest.param(list(DISCRETE), marks=pytest.mark.slow)]
)
def test_samples_of_integers_have_no_derivative(names):
    """They are constants of what is computed with them."""
    chosen = {name: DISCRETE[name] for name in names}

    def everything(p):
        drawn = {name: draw(p).astype(p.dtype) for name, draw in chosen.items()}
        gradients = {
            name: graph.grad(lambda p, draw=draw: jnp.sum(p * draw(p).astype(p.dtype)))(p)
            for name, draw in chosen.items()
        }
        return gradients, {name: jnp.broadcast_to(sample, p.shape) for name, sample in drawn.items()}

    gradients, drawn = unoptimized(everything)(P)
    same(gradients, drawn)
    assert any(np.any(sample) for sample in drawn.values())


# --- special functions ------------------------------------------------------------------------------------------------

Q = np.array([0.2, 0.5, 0.8])

SPECIAL = {
    name: getattr(special, name)
    for name in [
        "digamma",
        "entr",
        "erf",
        "erfc",
        "exp1",
        "expi",
        "expit",
        "factorial",
        "gamma",
        "gammaln",
        "i0",
        "i0e",
        "i1",
        "i1e",
        "log_ndtr",
        "ndtr",
        "erfinv",
        "logit",
        "ndtri",
    ]
}
SPECIAL |= {
    "beta": lambda x: special.beta(x, 2 * x),
    "betainc in x": lambda x: special.betainc(1.3, 2.1, x),
    "gammainc in x": lambda x: special.gammainc(1.3, x),
    "gammaincc in x": lambda x: special.gammaincc(1.3, x),
    "kl_div": lambda x: special.kl_div(x, x**2),
    "logsumexp": special.logsumexp,
    "multigammaln": lambda x: special.multigammaln(x + 1, 2),
    "polygamma": lambda x: special.polygamma(2, x + 1),
    "rel_entr": lambda x: special.rel_entr(x, x**2),
    "xlog1py": lambda x: special.xlog1py(x, x),
    "xlogy": lambda x: special.xlogy(x, x),
    "zeta in its exponent": lambda x: special.zeta(x + 1, 1.0),
    "zeta in q": lambda x: special.zeta(2.5, x),
}
# JAX has no derivative of igamma_grad_a.
ONCE = {"gammainc": lambda x: special.gammainc(x, 0.7), "gammaincc": lambda x: special.gammaincc(x, 0.7)}


@pytest.mark.parametrize(
    "names",
    [["digamma", "gammaln", "i1e", "ndtri", "xlogy"], pytest.param([*SPECIAL, *ONCE], marks=pytest.mark.slow)],
)
def test_special_functions(names):
    """Against jax.grad, and, since rules could share a mistake with JAX's, against differences."""
    with jax.enable_x64(True):
        functions = losses({name: (SPECIAL | ONCE)[name] for name in names})
        ours = held_against_jax(functions, (Q,), second=False, batch=False)
        direction, h = np.array([1.0, -0.5, 0.7]), 1e-6
        values = unoptimized(lambda x: [f(x) for f in functions])
        ahead, behind = values(Q + h * direction), values(Q - h * direction)
        for name, (gradients,), high, low in zip(names, ours, ahead, behind, strict=True):
            slope = (high - low) / (2 * h)
            np.testing.assert_allclose(gradients[0] @ direction, slope, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.slow
def test_special_functions_to_second_order():
    with jax.enable_x64(True):
        chosen = {name: f for name, f in SPECIAL.items() if name != "exp1"}  # there JAX leaks a tracer of its own
        held_against_jax(losses(chosen), (Q,), second=True)


def test_betainc_is_refused_in_its_shape_with_the_reason():
    with raises(NoRule, "no formula for the derivative of betainc in a"):
        jax.make_jaxpr(graph.grad(lambda a: special.betainc(a, 2.0, 0.3)))(0.5)
