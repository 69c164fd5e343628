"""``twograd.graph``: traced, transformed into a bigger graph, optimised; then compiled, or interpreted as it is; or
walked back by value, with no equation added."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from twograd import graph
from twograd.compare.engines.protocol import Built, Ops, Program, Stage
from twograd.compare.engines.xla import JaxArrays, blocked, compiled_counts, count_equations, sgd, shortened
from twograd.graph.transform import evaluate


class Graph(JaxArrays):
    name = "graph"
    title = "twograd.graph, compiled"
    about = "The program is traced once and extended by the equations of its derivative; XLA compiles the whole."
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
    about = "The same extended graph, whose equations are executed one by one."

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


class GraphBackprop(Graph):
    name = "graph-backprop"
    title = "twograd.graph, backprop by value"
    about = "The program is traced once, evaluated equation by equation, and walked back by value, as in Caffe."

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(*inputs):
            return walked_back(graph.trace(f, *inputs), inputs)()

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        params, *_ = inputs
        with stage("trace"):
            g = graph.trace(f, *inputs)
        gradient = walked_back(g, inputs)
        return Built(
            stages={
                "forward+backward": lambda: jax.block_until_ready(gradient()),
                "step": lambda: jax.block_until_ready(sgd(params, gradient()[1])),
                "forward": blocked(interpreted(g), *inputs),
            },
            counts=lambda: {"forward nodes": count_equations(g.jaxpr)},
            texts=lambda: {"forward": shortened(g.text(provenance=False))},
        )


def walked_back(g: graph.Graph, inputs: tuple[Any, ...]) -> Callable[[], tuple[Any, Any]]:
    """``(loss, gradients)`` of ``g`` on ``inputs``, computed anew at each call."""
    leaves, tree = tree_flatten(inputs[0])

    def value_and_grad():
        loss, grads = graph.backprop(g, inputs, 0, tuple(range(len(leaves))))
        return loss, tree_unflatten(tree, grads)

    return value_and_grad


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
