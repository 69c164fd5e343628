"""JAX itself: ``jax.value_and_grad``, compiled as a user would compile it, and uncompiled."""

from typing import Any

import jax

from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import (
    JaxArrays,
    blocked,
    compiled_counts,
    count_equations,
    saved_bytes,
    sgd,
    shortened,
)


class JaxJit(JaxArrays):
    name = "jax-jit"
    title = "jax.jit(jax.value_and_grad)"
    about = "JAX differentiates while it traces, and XLA compiles the result: what most of its users do."
    kind = "static"
    family = "jax"
    ops = Ops("jax.numpy", "twograd.nn.functional", "JAX")

    def value_and_grad(self, f: Program) -> Program:
        return jax.jit(jax.value_and_grad(f))

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        differentiated = jax.value_and_grad(f)
        with stage("trace"):  # JAX differentiates while it traces: this stage is our trace, transform and passes
            traced = jax.jit(differentiated).trace(*inputs)
        with stage("lower"):
            lowered = traced.lower()
        with stage("compile"):
            compiled = lowered.compile()

        def step(params, *batch):
            _, grads = differentiated(params, *batch)
            return sgd(params, grads)

        forward = jax.make_jaxpr(f)(*inputs)
        return Built(
            stages={
                "forward+backward": blocked(compiled, *inputs),
                "step": blocked(jax.jit(step), *inputs),
                "forward": blocked(jax.jit(f), *inputs),
            },
            counts=lambda: {
                "forward nodes": count_equations(forward),
                "derivative nodes": count_equations(traced.jaxpr),
                "saved bytes": saved_bytes(f, *inputs),
                **compiled_counts(compiled),
            },
            texts=lambda: {"forward": shortened(str(forward)), "derivative": shortened(str(traced.jaxpr))},
        )


class JaxEager(JaxArrays):
    name = "jax-eager"
    title = "jax.value_and_grad without jit"
    about = "Each primitive is dispatched on its own, and each call traces anew."
    kind = "dynamic"
    family = "jax"
    ops = JaxJit.ops

    def value_and_grad(self, f: Program) -> Program:
        return jax.value_and_grad(f)

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        differentiated = jax.value_and_grad(f)

        def step(params, *batch):
            _, grads = differentiated(params, *batch)
            return sgd(params, grads)

        return Built(
            stages={
                "forward+backward": blocked(differentiated, *inputs),
                "step": blocked(step, *inputs),
                "forward": blocked(f, *inputs),
            },
            counts=lambda: {"saved bytes": saved_bytes(f, *inputs)},
        )
