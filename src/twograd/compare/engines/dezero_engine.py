"""DeZero: the tape of a textbook (Saito, Deep Learning from Scratch 3), in NumPy and about three hundred lines.

A Python number becomes an array of float64 in it, and what it meets is computed in float64 from there on, in a float32
run too. DeZero has no operator ``@``: its ``matmul`` stands in for it here, with vectors made into matrices.
"""

from typing import Any

import jax
import numpy as np

from twograd.compare.engines.numpy_engine import NumPyEngine
from twograd.compare.engines.protocol import Built, Ops, Program, Stage, expressing
from twograd.compare.engines.xla import sgd


class Dezero(NumPyEngine):
    name = "dezero"
    title = "DeZero"
    about = "The tape of a textbook, over NumPy; a Python number makes float64 of what it meets, and slower."
    kind = "dynamic"
    family = "dezero"
    distribution = "dezero"
    install = "twograd[peers]"
    ops = Ops("twograd.compare.engines.dezero_numpy", "twograd.compare.engines.dezero_numpy", "DeZero")

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(params, *batch):
            leaves, loss = self._record(f, params, *batch)
            loss.backward()
            return loss.data, jax.tree.map(lambda leaf: _zeros(leaf) if leaf.grad is None else leaf.grad.data, leaves)

        return value_and_grad

    def _record(self, f: Program, params: Any, *batch: Any) -> tuple[Any, Any]:
        from twograd.compare.engines.dezero_numpy import dezero

        leaves, *symbols = jax.tree.map(dezero.Variable, (params, *batch))
        with expressing("DeZero"):
            return leaves, f(leaves, *symbols)

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        from twograd.compare.engines.dezero_numpy import dezero

        params, *_ = inputs
        value_and_grad = self.value_and_grad(f)

        def forward():
            with dezero.no_grad():
                return self._record(f, *inputs)[1]

        return Built(
            stages={
                "forward+backward": lambda: value_and_grad(*inputs),
                "step": lambda: sgd(params, value_and_grad(*inputs)[1]),
                "forward": forward,
                "record": lambda: self._record(f, *inputs),
            },
            counts=lambda: {"forward nodes": _count_nodes(self._record(f, *inputs)[1].creator)},
        )


def _zeros(leaf: Any) -> np.ndarray:
    return np.zeros_like(leaf.data)


def _count_nodes(function: Any) -> int:
    """The functions that can be reached from a result's creator."""
    seen, waiting = set(), [function]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            waiting.extend(variable.creator for variable in function.inputs)
    return len(seen)
