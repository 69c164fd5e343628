"""Pullbacks that are put off: what they yield is what they would have yielded one by one, in fewer compiled calls."""

import numpy as np
import pytest

from twograd import tape
from twograd.tape import chain

V = np.linspace(0.3, 1.7, 4, dtype=np.float32)
W = np.linspace(-0.8, 0.9, 4, dtype=np.float32)
sin, cos = np.sin, np.cos

PROGRAMS = {  # a program on Tensors, and its derivative worked out by hand
    "one after the other": (lambda x, w: x.sin().cos().exp(), lambda v: -np.exp(cos(sin(v))) * sin(sin(v)) * cos(v)),
    "a relay in between": (lambda x, w: (x.sin() + w).cos(), lambda v: -sin(sin(v) + W) * cos(v)),
    "a relay both ways": (lambda x, w: (lambda s: (s + s).cos())(x.sin()), lambda v: -sin(2 * sin(v)) * 2 * cos(v)),
    "two chains meet": (lambda x, w: x.sin() * w + x.cos().exp(), lambda v: W * cos(v) - np.exp(cos(v)) * sin(v)),
    "three chains meet": (lambda x, w: x.sin() - x.cos() * w + x.exp(), lambda v: cos(v) + W * sin(v) + np.exp(v)),
    "a value and a chain meet": (lambda x, w: (x + x.sin()).cos(), lambda v: -sin(v + sin(v)) * (1 + cos(v))),
    "a sum joins the next op": (lambda x, w: (lambda s: s + s.cos())(x.sin()), lambda v: (1 - sin(sin(v))) * cos(v)),
    "longer than the longest": (lambda x, w: repeated(lambda y: -y, x, chain.LONGEST + 4).sin(), cos),
}


def repeated(f, x, times):
    for _ in range(times):
        x = f(x)
    return x


@pytest.fixture
def composed(monkeypatch):
    """The sequences of ops that were run as one compiled call, by their nodes' names."""
    names, original = [], chain._composition

    def composition(plans):
        names.append(["sum" if plan is chain.SUM else plan.name.removesuffix("Backward0") for plan in plans])
        return original(plans)

    monkeypatch.setattr(chain, "_composition", composition)
    return names


@pytest.mark.parametrize("program", PROGRAMS)
def test_values_are_those_of_the_formula(program):
    f, derivative = PROGRAMS[program]
    x = tape.tensor(V, requires_grad=True)
    y = f(x, tape.tensor(W))
    y.backward(tape.ones(4), retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), derivative(V), rtol=1e-5, atol=1e-6)
    y.backward(tape.ones(4))  # what was put off the first time is not worn out
    np.testing.assert_allclose(x.grad.numpy(), 2 * derivative(V), rtol=1e-5, atol=1e-6)


def test_a_residual_block_is_one_call(composed):
    x = tape.tensor(V, requires_grad=True)
    y = repeated(lambda y: y + y.sin(), x, 3)
    y.backward(tape.ones(4))
    assert composed == [["Sin", "sum"]] * 3


def test_a_relay_does_not_end_a_chain(composed):
    x = tape.tensor(V, requires_grad=True)
    ((x.sin() + 1.0).cos() - 2.0).exp().backward(tape.ones(4))
    assert composed == [["Exp", "Cos", "Sin"]]


def test_the_longest_chain(composed):
    x = tape.tensor(V, requires_grad=True)
    repeated(lambda y: y.sin(), x, chain.LONGEST + 2).backward(tape.ones(4))
    assert composed == [["Sin"] * chain.LONGEST, ["Sin"] * 2]


def test_a_retained_gradient_ends_a_chain():
    x = tape.tensor(V, requires_grad=True)
    middle = x.sin()
    middle.retain_grad()
    (middle.cos() + middle).backward(tape.ones(4))
    np.testing.assert_allclose(middle.grad.numpy(), 1 - sin(sin(V)), rtol=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), (1 - sin(sin(V))) * cos(V), rtol=1e-5)
