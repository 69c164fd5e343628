"""tinygrad: ops are put off in a graph, its gradient is more graph, and kernels are made of both when somebody looks.

A call builds the graph anew, as a tape would be; kernels that were met before are not compiled again. On the CPU it
compiles with clang; another of its devices is chosen by ``$DEV`` (``DEV=PYTHON`` runs anywhere, and very slowly).
"""

import os
import shutil
from typing import Any

import jax
import numpy as np

from twograd.compare.engines.protocol import LEARNING_RATE, Built, Engine, Ops, Program, Stage, expressing


class Tinygrad(Engine):
    name = "tinygrad"
    title = "tinygrad"
    about = "Ops are put off; their gradient is more of the same graph, rebuilt at each call; kernels are kept."
    kind = "dynamic"
    family = "tinygrad"
    distribution = "tinygrad"
    install = "twograd[peers]"
    ops = Ops("twograd.compare.engines.tinygrad_numpy", "twograd.compare.engines.tinygrad_numpy", "tinygrad")

    def unavailable(self) -> str:
        reason = super().unavailable()
        if not reason and "DEV" not in os.environ:
            if self.device == "gpu":
                return "needs the name of its device in $DEV (CUDA, say)"
            if shutil.which("clang") is None:
                return "needs clang (or another of its devices, by $DEV)"
        return reason

    def arrays(self, tree: Any) -> Any:
        from tinygrad import Tensor

        return jax.tree.map(lambda array: Tensor(np.asarray(array)).realize(), tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(lambda tensor: tensor.numpy(), tree)

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(params, *batch):
            loss, grads = _graph(f, params, *batch)
            return _computed((loss, grads))

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        params, *_ = inputs

        def step():
            _, grads = _graph(f, *inputs)
            return _computed(jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads))

        return Built(
            stages={
                "forward+backward": lambda: _computed(_graph(f, *inputs)),
                "step": step,
                "forward": lambda: _computed(f(*inputs)),
                "record": lambda: _graph(f, *inputs)[0],
            },
        )


def _graph(f: Program, params: Any, *batch: Any) -> tuple[Any, Any]:
    """The loss and its gradient, neither computed."""
    leaves, tree = jax.tree.flatten(params)
    with expressing("tinygrad"):
        loss = f(params, *batch)
    return loss, tree.unflatten(loss.gradient(*leaves))


def _computed(tree: Any) -> Any:
    """All Tensors of a tree, in one go, and not before they are there."""
    from tinygrad import Device, Tensor

    Tensor.realize(*jax.tree.leaves(tree))
    Device[Device.DEFAULT].synchronize()
    return tree
