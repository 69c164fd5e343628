"""Random bits have no derivative; a gamma sample has one in the distribution's shape."""

import jax
import pytest
from jax.extend.core import primitives

from .checks import Case, between, check, each


def gamma(log_space, seed=0):
    """A gamma sample, with a fixed key, of the distribution's shape."""

    def sample(a):
        key = jax.random.key(seed)
        return primitives.random_gamma_p.bind(key, a, log_space=log_space)

    return sample


# The sampler accepts or rejects, and its accepted sample moves along another path than the quantile's, so that finite
# differences of the sampler are no oracle: only the distribution has the derivative.
CASES = [
    Case(primitives.random_gamma_p, gamma(False), [between(0.5, 3)], smooth=False, order=1, highest=1),
    Case(primitives.random_gamma_p, gamma(True), [between(0.5, 3)], "log", smooth=False, order=1, highest=1, slow=True),
    Case(
        primitives.random_gamma_p,
        gamma(False),
        [between(0.5, 3, 2, 2)],
        "array",
        smooth=False,
        order=1,
        highest=1,
        slow=True,
    ),
]


@pytest.mark.parametrize("case", each(CASES))
def test_rule(case):
    check(case)
