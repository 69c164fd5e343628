"""Forward and backward per op on 8x8 tensors: the tape against PyTorch's eager mode, and against jax.grad without jit.

Each program is a chain of 100 ops of one kind; the times printed are per op.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _bench import against, summary

from twograd import tape

LENGTH = 100
CHAINS = {
    "x + y": (lambda x, y: x + y, jnp.add),
    "x * y": (lambda x, y: x * y, jnp.multiply),
    "x * 0.5": (lambda x, y: x * 0.5, lambda x, y: x * 0.5),
    "x / y": (lambda x, y: x / y, jnp.divide),
    "sin(x)": (lambda x, y: x.sin(), lambda x, y: jnp.sin(x)),
    "tanh(x)": (lambda x, y: x.tanh(), lambda x, y: jnp.tanh(x)),
    "relu(x)": (lambda x, y: x.relu(), lambda x, y: jax.nn.relu(x)),
    "x.sum(0) broadcast": (lambda x, y: x + x.sum(0), lambda x, y: x + x.sum(0)),
    "x.reshape(4, 16).reshape(8, 8)": (
        lambda x, y: x.reshape(4, 16).reshape(8, 8),
        lambda x, y: x.reshape(4, 16).reshape(8, 8),
    ),
    "x @ y": (lambda x, y: x @ y, jnp.matmul),
}


def chain(op, x, y):
    for _ in range(LENGTH):
        x = op(x, y)
    return x.sum()


def main() -> None:
    values = np.eye(8, dtype=np.float32)
    x, y = tape.tensor(values, requires_grad=True), tape.tensor(values)

    def on_tape(op):
        x.grad = None
        chain(op, x, y).backward()
        x.grad.array.block_until_ready()

    def on_jax(gradient):
        jax.block_until_ready(gradient(x.array, y.array))

    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: pip install 'twograd[torch]'")
    else:
        torch.set_num_threads(1)
        tx, ty = torch.tensor(values, requires_grad=True), torch.tensor(values)

        def on_torch(op):
            tx.grad = None
            chain(op, tx, ty).backward()

        print("peer: PyTorch eager")
        summary(
            "tape / PyTorch",
            [against(name, partial(on_tape, op), partial(on_torch, op), LENGTH) for name, (op, _) in CHAINS.items()],
            goal=2.5,
        )
    print("peer: jax.grad without jit")
    ratios = []
    for name, (op, jax_op) in CHAINS.items():
        gradient = jax.grad(partial(chain, jax_op))
        ratios.append(against(name, partial(on_tape, op), partial(on_jax, gradient), LENGTH))
    summary("tape / jax.grad without jit", ratios, goal=1 / 15)


if __name__ == "__main__":
    main()
