"""``twograd.tape``: every op runs at once and is recorded; at the level of ops, and of single primitives; with the walk
back by value, recorded in its turn, or compiled.

Read :class:`Tape`; the others differ in the mode that they run in, or in how they walk back.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax

from twograd import tape
from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import JaxArrays, sgd


class Tape(JaxArrays):
    name = "tape"
    title = "twograd.tape, one node per op"
    about = "Each op runs at once and is recorded as one node; the walk back over the nodes computes values."
    kind = "dynamic"
    family = "twograd"
    distribution = "twograd"
    ops = Ops("twograd.numpy", "twograd.nn.functional", "twograd")

    def mode(self) -> contextlib.AbstractContextManager[Any]:
        """What everything runs in."""
        return contextlib.nullcontext()

    def walk(self, loss: Any, leaves: list[Any], retain_graph: bool) -> Sequence[Any]:
        """The gradients of ``leaves``, None where the loss does not depend on one."""
        return tape.autograd.grad(loss, leaves, retain_graph=retain_graph, allow_unused=True)

    def value_and_grad(self, f: Program) -> Program:
        differentiated = tape.value_and_grad(recordable(f))

        def value_and_grad(*inputs):
            with self.mode():
                return differentiated(*inputs)

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        params, *batch = inputs
        tape.clear_caches()  # what an earlier program has compiled is not at hand in a fresh process
        tape.compiled_backward.clear()
        value_and_grad, program = self.value_and_grad(f), recordable(f)

        def record():
            leaves = jax.tree.map(lambda array: tape.tensor(array, requires_grad=True), params)
            with self.mode():
                loss = program(leaves, *batch)
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
            with self.mode():
                grads = self.walk(loss, jax.tree.leaves(leaves), retain_graph=True)
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
    about = "The pure algorithm: each primitive of JAX is a node, as each is an equation of the graph."

    def mode(self) -> contextlib.AbstractContextManager[Any]:
        return tape.granularity("primitive")


class TapeCreateGraph(Tape):
    name = "tape-create-graph"
    title = "twograd.tape, create_graph=True"
    about = "The walk back is recorded in its turn, so that it could be differentiated again: symbols, per call."

    def walk(self, loss: Any, leaves: list[Any], retain_graph: bool) -> Sequence[Any]:
        return tape.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)

    def value_and_grad(self, f: Program) -> Program:
        program = recordable(f)

        def value_and_grad(params, *batch):
            arrays, tree = jax.tree.flatten(params)
            leaves = [tape.tensor(array, requires_grad=True) for array in arrays]
            loss = program(tree.unflatten(leaves), *batch)
            found = self.walk(loss, leaves, retain_graph=False)
            grads = [tape.zeros_like(x).array if g is None else g.array for x, g in zip(leaves, found, strict=True)]
            return loss.array, tree.unflatten(grads)

        return value_and_grad


class TapeCompiled(Tape):
    name = "tape-compiled"
    title = "twograd.tape, compiled backward"
    about = "Ops run at once; the walk back over a tape whose structure was met before is one compiled call."

    def mode(self) -> contextlib.AbstractContextManager[Any]:
        return tape.compiled_backward(meetings=1)  # so that the first call pays for it, and no sample does


class TapeDeferred(Tape):
    name = "tape-deferred"
    title = "twograd.tape, ops put off"
    about = "Ops are recorded and put off until somebody looks; forward and backward then are one compiled call."

    def mode(self) -> contextlib.AbstractContextManager[Any]:
        return tape.compiled_backward(meetings=1, forward=True)


def recordable(f: Program) -> Program:
    """``f`` as a function that takes Tensors: op by op, or all of it as one op where it is written in jax.numpy."""
    as_one_op = False

    @functools.wraps(f)
    def program(*inputs):
        nonlocal as_one_op
        if as_one_op and any(isinstance(leaf, tape.Tensor) for leaf in jax.tree.leaves(inputs)):
            return tape.apply(f, *inputs)
        try:
            return f(*inputs)
        except TypeError as error:  # jax.numpy does not take Tensors
            if "is not a valid JAX type" not in str(error):
                raise
        as_one_op = True
        return tape.apply(f, *inputs)

    return program
