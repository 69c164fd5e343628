"""Which engine computes the gradient of this program fastest?

The first line is the question that the report answers; what stands here is shown below it. Change what follows, then

    twograd check THIS_FILE             are the gradients right?
    twograd report --quick THIS_FILE    and how long do they take?

The docstring of twograd.compare.program says all that a comparison may have: variants for some engines, experiments.
"""

from twograd.compare import Comparison, grid


def inputs(rng, *, size, depth):
    """What is differentiated, and the rest: NumPy arrays, the same for every engine."""
    weights = [rng.standard_normal((size, size)) / size**0.5 for _ in range(depth)]
    return weights, rng.standard_normal((8, size))


def loss(ops, weights, x):
    """Written once, in NumPy's names, for all engines."""
    for w in weights:
        x = ops.np.tanh(x @ w)
    return ops.np.mean(x * x)


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=grid(size=(8, 64, 512), depth=(4, 16)),
    quick=grid(size=(8, 64), depth=(4,)),
)
