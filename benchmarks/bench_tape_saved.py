"""Bytes that the tape saves for the way back, beside PyTorch's, on the same programs.

Each program is written once and run with both. PyTorch's bytes are the storages of what its saved-tensor hooks are
shown, the tape's are the buffers that its nodes hold; each is counted once, and parameters, which live anyway, are not
counted on either side. The input is. Run: python benchmarks/bench_tape_saved.py (needs torch).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from twograd import tape
from twograd.nn import functional as tape_functional
from twograd.tape.node import Node

GOAL = 1.0
Program = tuple[Callable[..., Any], list[np.ndarray], list[np.ndarray]]  # loss(m, F, params, batch), and these two

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def labels(batch: int) -> np.ndarray:
    return rng.integers(0, 10, batch).astype(np.int32)


def mlp(batch: int = 64) -> Program:
    """784-256-256-10, with ReLU and cross entropy."""

    def loss(F: Any, params: list[Any], x: Any, y: Any) -> Any:
        for i in range(0, 4, 2):
            x = F.relu(F.linear(x, params[i], params[i + 1]))
        return F.cross_entropy(F.linear(x, params[4], params[5]), y)

    sizes = [(256, 784), (256, 256), (10, 256)]
    params = [p for out, into in sizes for p in (normal(out, into), normal(out))]
    return loss, params, [normal(batch, 784), labels(batch)]


def convnet(batch: int = 16) -> Program:
    """Two convolutions of 3x3, each with ReLU and max pooling, and a linear layer."""

    def loss(F: Any, params: list[Any], x: Any, y: Any) -> Any:
        for i in range(0, 4, 2):
            x = F.max_pool2d(F.relu(F.conv2d(x, params[i], params[i + 1], padding=1)), 2)
        return F.cross_entropy(F.linear(x.reshape(batch, -1), params[4], params[5]), y)

    params = [normal(16, 3, 3, 3), normal(16), normal(32, 16, 3, 3), normal(32), normal(10, 32 * 8 * 8), normal(10)]
    return loss, params, [normal(batch, 3, 32, 32), labels(batch)]


def lstm(batch: int = 32, steps: int = 12, width: int = 64) -> Program:
    """An LSTM cell written out, over 12 steps."""

    def loss(F: Any, params: list[Any], x: Any, y: Any, h: Any, c: Any) -> Any:
        into, again, bias, out, out_bias = params
        for t in range(steps):
            i, f, g, o = (F.linear(x[t], into, bias) + F.linear(h, again)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return F.cross_entropy(F.linear(h, out, out_bias), y)

    params = [normal(4 * width, 32), normal(4 * width, width), normal(4 * width), normal(10, width), normal(10)]
    zeros = np.zeros((batch, width), np.float32)
    return loss, params, [normal(steps, batch, 32), labels(batch), zeros, zeros.copy()]


def bytes_of_tape(program: Program) -> tuple[dict[str, int], float, list[np.ndarray]]:
    """What is saved, by the op whose node saves it first; the loss, and the gradients of the parameters."""
    loss, arrays, batch = program
    params = [tape.tensor(p, requires_grad=True) for p in arrays]
    value = loss(tape_functional, params, *map(tape.tensor, batch))
    seen = {p.array.unsafe_buffer_pointer() for p in params}
    found: dict[str, int] = {}
    stack, met = [value.grad_fn], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in met:
            met.add(node)
            stack.extend(before for before, _ in node.edges)
            for array in node.saved or ():
                if array.unsafe_buffer_pointer() not in seen:
                    seen.add(array.unsafe_buffer_pointer())
                    found[node.name()] = found.get(node.name(), 0) + array.nbytes
    value.backward()
    return found, value.item(), [np.asarray(p.grad.array) for p in params if p.grad is not None]


def bytes_of_torch(program: Program) -> tuple[int, float, list[np.ndarray]]:
    """The same of PyTorch."""
    import torch

    loss, arrays, batch = program
    params = [torch.tensor(p, requires_grad=True) for p in arrays]
    seen = {p.untyped_storage().data_ptr() for p in params}
    kept: list[Any] = []  # so that no storage takes the place of one that was counted
    total = 0

    def pack(tensor: Any) -> Any:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(storage)
            total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        given = [torch.tensor(a.astype(np.int64) if a.dtype == np.int32 else a) for a in batch]
        value = loss(torch.nn.functional, params, *given)
    value.backward()
    return total, value.item(), [p.grad.numpy() for p in params]


def main() -> None:
    ratios = {}
    for name, make in {"MLP": mlp, "convnet": convnet, "LSTM": lstm}.items():
        program = make()
        ours, our_loss, our_gradients = bytes_of_tape(program)
        theirs, their_loss, their_gradients = bytes_of_torch(program)
        np.testing.assert_allclose(our_loss, their_loss, rtol=1e-4)
        for x, y in zip(our_gradients, their_gradients, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
        total = sum(ours.values())
        ratios[name] = total / theirs
        print(f"{name:8} ours {total:>10,} bytes   PyTorch {theirs:>10,} bytes   ratio {ratios[name]:.3f}")
        for op, size in sorted(ours.items(), key=lambda item: -item[1]):
            print(f"           {size:>12,}  {op}")
    print(f"worst ratio {max(ratios.values()):.3f} (goal: at most {GOAL})")


if __name__ == "__main__":
    main()
