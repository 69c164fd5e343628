"""How fast do derivatives of derivatives grow?

The derivative of order n is the gradient of that of order n - 1, taken with the same engine: the graph engine extends a
program that already holds derivatives, a tape records its own walk back. The timed program is a small network of a
vector; where the derivative before is a vector, its components are summed. The values are also held against a function
of a scalar whose derivatives are known at every order.
"""

import functools
import math
from types import SimpleNamespace

import jax
import numpy as np

import twograd.numpy
from twograd import graph, tape
from twograd.compare import Comparison, Curves, Observation, Series, Table, grid
from twograd.compare.engines.xla import count_equations

ORDERS = (1, 2, 3, 4, 5)
SIZE = 8
STEADY = "forward+backward"
PROGRAMS = ("graph", "jax-jit")  # whose derivative is a program with equations to be counted; a tape has only its nodes


def inputs(rng, *, order):
    return 0.5 * rng.standard_normal(SIZE), rng.standard_normal((SIZE, SIZE)) / SIZE**0.5


def vector_program(ops, x, weight):
    return ops.np.mean(ops.np.tanh(weight @ ops.np.tanh(x)))


def scalar_program(ops, x):
    return ops.np.exp(x) * ops.np.sin(x)


def scalar_derivative(x, order):
    """Of exp(x) sin(x), in closed form: each derivative multiplies by sqrt(2) and turns by an eighth of a circle."""
    return 2 ** (order / 2) * math.exp(x) * math.sin(x + order * math.pi / 4)


# --- differentiating within the program, in each engine's own way -----------------------------------------------------


def autograd_grad(f):
    import autograd

    return autograd.grad(f)  # type: ignore[call-arg, reportCallIssue]


def torch_grad(f):
    import torch

    @torch.enable_grad()
    def gradient(x):
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(f(x), x, create_graph=True)[0]

    return gradient


def pytensor_grad(f):
    import pytensor

    return lambda x: pytensor.grad(f(x), x)


def dezero_grad(f):
    def gradient(x):
        x.cleargrad()  # it would be added to what is there
        f(x).backward(create_graph=True)
        found = x.grad
        x.cleargrad()
        return found

    return gradient


def tinygrad_grad(f):
    return lambda x: f(x).gradient(x)[0]


def tensorflow_grad(f):
    import tensorflow

    def gradient(x):
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x)

    return gradient


GRAD = {
    "tape": tape.grad, "graph": graph.grad, "jax": jax.grad, "torch": torch_grad, "autograd": autograd_grad,
    "pytensor": pytensor_grad, "dezero": dezero_grad, "tinygrad": tinygrad_grad, "tensorflow": tensorflow_grad,
}  # fmt: skip


def lowered(grad, ops, f, order):
    """The sum of the components of the derivative of order ``order`` - 1; one more gradient makes it ``order``."""
    for _ in range(order - 1):
        f = summed(ops, grad(f))
    return f


def summed(ops, gradient):
    return lambda x: ops.np.sum(gradient(x))


def timed_with(grad):
    def loss(ops, x, weight, *, order):
        return lowered(grad, ops, lambda x: vector_program(ops, x, weight), order)(x)

    return loss


# --- what is shown ----------------------------------------------------------------------------------------------------


def experiment(context):
    yield from values(context)
    yield from sizes_of_a_scalar()
    yield from growth(context)


def values(context):
    """Every order of the scalar program, with every engine, against the closed form."""
    x = np.asarray(0.7, context.settings.dtype)
    exact = np.array([scalar_derivative(float(x), order) for order in ORDERS])
    apart = {}
    for name, engine in context.engines.items():
        grad, program = GRAD.get(name) or GRAD[engine.family], functools.partial(scalar_program, engine.ops)
        found = []
        for order in ORDERS:
            gradient = engine.value_and_grad(lowered(grad, engine.ops, program, order))(engine.arrays(x))[1]
            found.append(float(engine.numpy(gradient)))
        apart[name] = np.abs(found - exact) / np.spacing(np.abs(exact).astype(x.dtype))
    yield Table(
        f"exp(x) sin(x) at x = {x:g}: how far each engine's derivative is from the exact one",
        ["order", "exact", *apart],
        [[order, exact[i], *(column[i] for column in apart.values())] for i, order in enumerate(ORDERS)],
        units=["", "", *["ulp"] * len(apart)],
    )
    yield Observation(
        f"Up to order {ORDERS[-1]}, no engine's derivative of exp(x) sin(x) at {x:g} is further than "
        f"{max(map(max, apart.values())):.2g} units in the last place from the exact one."
    )


def sizes_of_a_scalar():
    """The program of each order of the scalar program, before and after the passes of the graph engine."""
    ops = SimpleNamespace(np=twograd.numpy)
    program = functools.partial(scalar_program, ops)
    found, passed, by_jax, recorded = [], [], [], []
    for order in ORDERS:
        derivative = graph.trace(lowered(graph.grad, ops, program, order), 0.7).value_and_grad()
        found.append(count_equations(derivative.jaxpr))
        passed.append(count_equations(derivative.optimize().jaxpr))
        by_jax.append(count_equations(jax.make_jaxpr(jax.value_and_grad(lowered(jax.grad, ops, program, order)))(0.7)))
        leaf = tape.tensor(0.7, requires_grad=True)
        recorded.append(tape.stats(lowered(tape.grad, ops, program, order)(leaf)).nodes)
    yield Curves(
        "exp(x) sin(x): size of the derivative",
        "order of the derivative",
        "equations or nodes",
        [
            Series("graph, raw", [*ORDERS], found),
            Series("graph", [*ORDERS], passed, engine="graph"),
            Series("jax.grad", [*ORDERS], by_jax, engine="jax-jit"),
            Series("tape, nodes", [*ORDERS], recorded, engine="tape"),
        ],
        y_scale="log",
        note="'graph, raw' is the program before the passes of the graph engine; a tape's nodes are those that it has "
        "when its last walk back begins. XLA, which compiles the equations of both, has passes of its own.",
    )
    yield Observation(
        f"The program of the derivative of order {ORDERS[-1]} of exp(x) sin(x) has {found[-1]} equations as the graph "
        f"engine finds it and {passed[-1]} after its passes; by `jax.grad` it has {by_jax[-1]}. A tape holds "
        f"{recorded[-1]} nodes when its last walk back begins."
    )


def growth(context):
    """The sizes and times of the timed cases, by order."""
    curves = []
    for name in context.engines:
        rows = [(case.axes["order"], row) for case in context.cases if (row := case.row(name)) and row.status == "ok"]
        counted = "derivative nodes" if name in PROGRAMS else "forward nodes"
        size = {order: row.counts[counted] for order, row in rows if counted in row.counts}
        time = {order: row.stages[STEADY].median for order, row in rows if STEADY in row.stages}
        what = "equations that compute the derivative" if name in PROGRAMS else "nodes before the last walk back"
        curves.append(Series(name, [*size], [*size.values()], engine=name))
        if len(size) > 1 and len(time) > 1:
            first, last = min(size), max(size)
            yield Observation(
                f"The vector program by `{name}`: {size[first]} {what} at order {first} and {size[last]} at order "
                f"{last}, {growth_by_order(size)} times as many with each order. The time of a gradient grows "
                f"by a factor of {growth_by_order(time)} with each."
            )
    yield Curves("The vector program: size", "order of the derivative", "equations or nodes", curves, y_scale="log")


def growth_by_order(data):
    """The factor per order, as the geometric mean from the first to the last."""
    first, last = min(data), max(data)
    return f"{(data[last] / data[first]) ** (1 / (last - first)):.3g}"


comparison = Comparison(
    inputs=inputs,
    loss=timed_with(jax.grad),
    variants={name: timed_with(grad) for name, grad in GRAD.items()},
    cases=grid(order=ORDERS),
    quick=grid(order=(1, 2, 4)),
    experiment=experiment,
    engines=("tape", "graph", "jax-jit", "torch", "autograd"),
)
