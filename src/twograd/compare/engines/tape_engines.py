"""``twograd.tape``: every op runs at once and is recorded; at the level of ops, and of single primitives."""

import contextlib
from typing import Any

import jax

from twograd import tape
from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import JaxArrays, sgd


class Tape(JaxArrays):
    name = "tape"
    title = "twograd.tape, one node per op"
    kind = "dynamic"
    family = "twograd"
    distribution = "twograd"
    ops = Ops("twograd.numpy", "twograd.nn.functional", "twograd")

    def granularity(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def value_and_grad(self, f: Program) -> Program:
        differentiated = tape.value_and_grad(f)

        def value_and_grad(*inputs):
            with self.granularity():
                return differentiated(*inputs)

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        params, *batch = inputs
        tape.clear_caches()  # what an earlier program has compiled is not at hand in a fresh process
        value_and_grad = self.value_and_grad(f)

        def record():
            leaves = jax.tree.map(lambda array: tape.tensor(array, requires_grad=True), params)
            with self.granularity():
                loss = f(leaves, *batch)
            jax.block_until_ready(loss.array)
            return leaves, loss

        def forward():
            with tape.no_grad():
                return record()

        def step():
            _, grads = value_and_grad(*inputs)
            return jax.block_until_ready(sgd(params, grads))

        kept: list[Any] = []  # the tape that the stage "backward" walks again and again

        def backward():
            if not kept:
                kept.extend(record())
            leaves, loss = kept
            grads = tape.autograd.grad(loss, jax.tree.leaves(leaves), retain_graph=True, allow_unused=True)
            return jax.block_until_ready([g.array for g in grads if g is not None])

        def counts():
            _, loss = record()
            recorded = tape.stats(loss)
            return {"forward nodes": recorded.nodes, "saved bytes": recorded.saved_bytes}

        return Built(
            stages={
                "forward+backward": lambda: jax.block_until_ready(value_and_grad(*inputs)),
                "step": step,
                "forward": forward,
                "record": record,
                "backward": backward,
            },
            counts=counts,
        )


class TapePrimitive(Tape):
    name = "tape-primitive"
    title = "twograd.tape, one node per primitive"

    def granularity(self) -> contextlib.AbstractContextManager[Any]:
        return tape.granularity("primitive")
