"""Watchers: a special mode of a thread is told of every node, op and change in place, and of nothing once it is off."""

import threading

import pytest

from twograd import tape
from twograd.tape.modes import Watcher, mode, watched_by


class Told(Watcher):
    def __init__(self):
        self.nodes, self.ops, self.writes = [], [], []

    def node_made(self, node, saved_from):
        assert [tensor._data is value for tensor, value in zip(saved_from, node.saved, strict=True)].count(False) == 0
        self.nodes.append((node, saved_from))

    def op_done(self, function, operands, outputs):
        self.ops.append((function.__name__, operands, outputs))

    def written(self, x, result):
        self.writes.append((x, result))


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_what_a_watcher_is_told(level):
    x, y = tape.tensor([0.5, 2.0], requires_grad=True), tape.tensor([1.0, 3.0])
    told = Told()
    with tape.granularity(level):
        before = x * y
        with watched_by(told):
            z = x * y
            w = z.exp()
            with tape.no_grad():
                z * 3.0
        z + w
    assert [node for node, _ in told.nodes] == [z.grad_fn, w.grad_fn]
    assert [name for name, *_ in told.ops] == ["mul", "exp", "mul"]
    ((_, operands, outputs), *_) = told.ops
    assert operands[0] is x
    assert operands[1] is y
    assert outputs[0] is z
    ((_, (saved,)), (_, (result,))) = told.nodes
    assert (saved is y, result._edge) == (level == "op", w._edge)
    (z + w).sum().backward()
    assert before.grad_fn.name() == z.grad_fn.name()
    assert x.grad.tolist() == pytest.approx([1.0 * (1 + w.tolist()[0]), 3.0 * (1 + w.tolist()[1])])


def test_writes_of_views_and_structured_calls():
    x = tape.zeros(2, 2) + tape.ones(1, requires_grad=True)
    told = Told()
    with watched_by(told):
        x[0].mul_(2.0)
        values, indices = x.sort(dim=1)
    assert [t.tolist() for t in told.writes[0]] == [[2.0, 2.0]] * 2
    assert told.ops[-1][2] == [values, indices]
    assert [node.name() for node, _ in told.nodes][1] == "MulBackward0"


def test_switched_on_and_off():
    """The mode that holds is the present one, whatever switched it; each thread has its own."""
    x = tape.ones(2, requires_grad=True)
    outer, inner = Told(), Told()
    seen = []

    def count():
        x * 2.0
        seen.append((len(outer.ops), len(inner.ops)))

    with watched_by(outer):
        count()
        with watched_by(inner):
            count()
            tape.set_grad_enabled(False)
            count()
        count()
        with watched_by(inner, instead_of=Told):
            count()
            thread = threading.Thread(target=count)
            thread.start()
            thread.join()
        tape.set_grad_enabled(True)
    count()
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 2), (4, 3), (4, 3), (4, 3)]
    assert (mode.watchers, mode.recording) == ((), "op")
    assert (x * 2.0).requires_grad


def test_errors_are_the_same_under_watch():
    x = tape.ones(2, requires_grad=True)
    for watchers in ((), (Told(),)):
        with watched_by(*watchers), pytest.raises(RuntimeError, match="must match the size") as caught:
            x + tape.ones(3)
        assert any("In the op add" in note for note in caught.value.__notes__)
