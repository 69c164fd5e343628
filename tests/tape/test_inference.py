"""Inference mode beside PyTorch: which Tensors are inference Tensors, and what these refuse."""

import copy
import threading

import pytest

from tape.both import both
from twograd import tape


def leaf(m):
    return m.tensor([1.0, 2.0], requires_grad=True)


def made_inside(m):
    with m.inference_mode():
        return m.ones(2)


PROGRAMS = {
    "flags": lambda m, x, inside: [t.is_inference() for t in inside(lambda: (x, m.ones(2), x * 2, x.view(2), x[0]))],
    "detached": lambda m, x, inside: [t.is_inference() for t in inside(lambda: (x.detach(), (x * 2).detach()))],
    "requires_grad": lambda m, x, inside: [t.requires_grad for t in inside(lambda: (m.ones(2), x * 2, x.detach()))],
    "history": lambda m, x, inside: [t.grad_fn for t in inside(lambda: (x * 2, x[0]))],
    "leaf made inside": lambda m, x, inside: inside(lambda: (m.ones(2, requires_grad=True) * 2).requires_grad),
    "asked for inside": lambda m, x, inside: inside(lambda: m.ones(2).requires_grad_().requires_grad),
    "asked for outside": lambda m, x, inside: made_inside(m).requires_grad_(),
    "saved": lambda m, x, inside: x * made_inside(m),
    "not saved": lambda m, x, inside: (x + made_inside(m)).requires_grad,
    "saved by an op in place": lambda m, x, inside: (x * 1).mul_(made_inside(m)),
    "a clone may be saved": lambda m, x, inside: (x * made_inside(m).clone()).requires_grad,
    "a result outside": lambda m, x, inside: (made_inside(m) + 1).is_inference(),
    "a view outside": lambda m, x, inside: made_inside(m).view(2).is_inference(),
    "a detached one outside": lambda m, x, inside: made_inside(m).detach().is_inference(),
    "a copy outside": lambda m, x, inside: copy.deepcopy(made_inside(m)).is_inference(),
    "changed outside": lambda m, x, inside: made_inside(m).add_(1),
    "an element changed outside": lambda m, x, inside: made_inside(m).__setitem__(0, 1.0),
    "changed inside": lambda m, x, inside: inside(lambda: made_inside(m).add_(1)).tolist(),
    "copied from": lambda m, x, inside: m.zeros(2).copy_(made_inside(m)).tolist(),
    "version": lambda m, x, inside: made_inside(m)._version,
    "a normal one changed inside": lambda m, x, inside: (lambda y: (inside(lambda: y.add_(1)), y._version))(m.ones(2)),
    "its flag": lambda m, x, inside: (lambda y: (inside(lambda: y.add_(1)), y.is_inference()))(m.ones(2)),
    "a view made inside changed outside": lambda m, x, inside: inside(lambda y=x * 1: y[0]).add_(1),
    "backward inside": lambda m, x, inside: inside(lambda: (x * 2).sum().backward()),
    "backward of a graph from outside": lambda m, x, inside: (
        (lambda y: inside(y.backward))((x * x).sum()),
        x.grad.tolist(),
        x.grad.is_inference(),
    ),
    "the way back from it": lambda m, x, inside: made_inside(m).sum().backward(),
}


def outcome(name, m):
    def inside(run):
        with m.inference_mode():
            return run()

    try:
        result = PROGRAMS[name](m, leaf(m), inside)
    except (RuntimeError, TypeError) as error:
        return type(error).__name__, str(error)
    return [t.tolist() if hasattr(t, "tolist") else t for t in result] if isinstance(result, (list, tuple)) else result


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_pytorch(name):
    torch = pytest.importorskip("torch")
    assert outcome(name, tape) == outcome(name, torch)


@both
def test_blocks_and_decorators(m):
    def look():
        return m.is_inference_mode_enabled(), m.is_grad_enabled(), m.ones(2).is_inference()

    assert look() == (False, True, False)
    with m.inference_mode():
        assert look() == (True, False, True)
        with m.inference_mode(False):
            assert look() == (False, True, False)
            assert (leaf(m) * 2).requires_grad
        with m.enable_grad():
            assert not (leaf(m) * 2).requires_grad
        assert look() == (True, False, True)
    assert m.inference_mode(look)() == (True, False, True)
    assert m.inference_mode()(look)() == (True, False, True)
    assert m.inference_mode(mode=False)(look)() == (False, True, False)
    assert look() == (False, True, False)


@both
def test_a_view_and_its_base_inside(m):
    with m.inference_mode():
        x = m.zeros(3)
        v = x[1:]
        x.add_(1)
        v.mul_(3)
        assert x.tolist() == [1.0, 3.0, 3.0]
        assert v.tolist() == [3.0, 3.0]
    assert (x.is_inference(), v.is_inference()) == (True, True)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        v.add_(1)


def test_primitives_too():
    with tape.granularity("primitive"), tape.inference_mode():
        y = tape.ones(2).softmax(0)
    assert y.is_inference()


def test_it_is_the_threads_own():
    seen = []
    with tape.inference_mode():
        thread = threading.Thread(target=lambda: seen.append(tape.ones(1).is_inference()))
        thread.start()
        thread.join()
    assert seen == [False]
