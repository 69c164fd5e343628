"""What does one op cost, and how does that depend on the size of its tensors and the depth of the chain?

Each link of the chain is a matrix product, a bias, a tanh and a residual sum: four ops forward. On small tensors the
time is what an engine spends per op (recording, dispatch, or nothing once compiled); on large ones it is the
arithmetic, which is the same for all.
"""

from twograd.compare import Comparison, grid


def inputs(rng, *, size, depth):
    links = [
        {"weight": rng.standard_normal((size, size)) / size**0.5, "bias": 0.1 * rng.standard_normal(size)}
        for _ in range(depth)
    ]
    return links, rng.standard_normal((size, size))


def loss(ops, links, x):
    for link in links:
        x = x + ops.np.tanh(x @ link["weight"] + link["bias"])
    return ops.np.mean(x * x)


comparison = Comparison(
    inputs=inputs,
    loss=loss,
    cases=[*grid(size=(8,), depth=(1, 4, 16, 64)), *grid(size=(32, 128, 512), depth=(4,))],
    quick=[*grid(size=(8,), depth=(2, 16)), *grid(size=(256,), depth=(2,))],
)
