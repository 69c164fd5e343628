"""``twograd.graph``: traced, transformed into a bigger graph, optimised; then compiled, or interpreted as it is."""

from typing import Any

import jax
from jax.tree_util import tree_leaves, tree_unflatten

from twograd import graph
from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import JaxArrays, blocked, compiled_counts, count_equations, sgd, shortened
from twograd.graph.transform import evaluate


class Graph(JaxArrays):
    name = "graph"
    title = "twograd.graph, compiled"
    kind = "static"
    family = "twograd"
    distribution = "twograd"
    ops = Ops("twograd.numpy", "twograd.nn.functional", "twograd")

    def value_and_grad(self, f: Program) -> Program:
        return graph.value_and_grad(f)

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        forward, derivative = _differentiate(f, inputs, stage)
        with stage("lower"):
            lowered = jax.jit(derivative.run).lower(*inputs)
        with stage("compile"):
            compiled = lowered.compile()

        def step(params, *batch):
            _, grads = derivative.run(params, *batch)
            return sgd(params, grads)

        return Built(
            stages={
                "forward+backward": blocked(compiled, *inputs),
                "step": blocked(jax.jit(step), *inputs),
                "forward": blocked(jax.jit(forward.run), *inputs),
            },
            counts=lambda: _counts(forward, derivative) | compiled_counts(compiled),
            texts=lambda: _texts(forward, derivative),
        )


class GraphEager(Graph):
    name = "graph-eager"
    title = "twograd.graph, interpreted"

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(*inputs):
            return interpreted(graph.trace(f, *inputs).value_and_grad().optimize())(*inputs)

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        forward, derivative = _differentiate(f, inputs, stage)
        value_and_grad = interpreted(derivative)

        def step(params, *batch):
            _, grads = value_and_grad(params, *batch)
            return sgd(params, grads)

        return Built(
            stages={
                "forward+backward": blocked(value_and_grad, *inputs),
                "step": blocked(step, *inputs),
                "forward": blocked(interpreted(forward), *inputs),
            },
            counts=lambda: _counts(forward, derivative),
            texts=lambda: _texts(forward, derivative),
        )


def interpreted(g: graph.Graph) -> Program:
    """``g`` as a function that executes one equation after another."""
    return lambda *args: tree_unflatten(g.out_tree, evaluate(g.jaxpr.jaxpr, g.jaxpr.consts, tree_leaves(args)))


def _differentiate(f: Program, inputs: tuple[Any, ...], stage: Stage) -> tuple[graph.Graph, graph.Graph]:
    with stage("trace"):
        forward = graph.trace(f, *inputs)
    with stage("transform"):
        derivative = forward.value_and_grad()
    with stage("passes"):
        derivative = derivative.optimize()
    return forward, derivative


def _counts(forward: graph.Graph, derivative: graph.Graph) -> dict[str, int | float]:
    return {
        "forward nodes": count_equations(forward.jaxpr),
        "derivative nodes": count_equations(derivative.jaxpr),
        "saved bytes": derivative.stats().saved_bytes,
    }


def _texts(forward: graph.Graph, derivative: graph.Graph) -> dict[str, str]:
    return {"forward": shortened(forward.text(provenance=False)), "derivative": shortened(derivative.text())}
