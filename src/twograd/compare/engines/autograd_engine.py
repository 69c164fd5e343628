"""HIPS autograd: a tape over NumPy, the ancestor of ``jax.grad``."""

from typing import Any

from twograd.compare.engines.numpy_engine import NumPyEngine
from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import sgd


class Autograd(NumPyEngine):
    name = "autograd"
    title = "HIPS autograd"
    about = "A tape over NumPy, whose rules are written in the wrapped NumPy: the ancestor of jax.grad."
    kind = "dynamic"
    family = "autograd"
    distribution = "autograd"
    install = "twograd[peers]"
    ops = Ops("autograd.numpy", None, "HIPS autograd")

    def value_and_grad(self, f: Program) -> Program:
        import autograd

        return autograd.value_and_grad(f)  # type: ignore[call-arg, reportCallIssue]

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        from autograd.core import VJPNode
        from autograd.tracer import new_box

        params, *batch = inputs
        value_and_grad = self.value_and_grad(f)

        def step():
            _, grads = value_and_grad(*inputs)
            return sgd(params, grads)

        def record():
            return f(new_box(params, 0, VJPNode.new_root()), *batch)

        return Built(
            stages={
                "forward+backward": lambda: value_and_grad(*inputs),
                "step": step,
                "forward": lambda: f(*inputs),
                "record": record,
            },
            counts=lambda: {"forward nodes": _count_nodes(record()._node)},
        )


def _count_nodes(node: Any) -> int:
    """The nodes that can be reached from a result's, the parameters themselves not counted."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(node.parents)
    return sum(bool(node.parents) for node in seen)
