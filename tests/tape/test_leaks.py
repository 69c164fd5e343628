"""Leaks of graphs are found by the name of the variable that keeps them, and a clean training loop has none."""

import gc
import linecache
import time
import warnings

import pytest

from twograd import tape
from twograd.tape.leaks import REMEDIES

KEPT = []


@pytest.fixture(autouse=True)
def _nothing_left():
    gc.collect()
    yield
    KEPT.clear()
    gc.collect()


def step(w):
    """The loss of one step, after its walk back."""
    w.grad = None
    loss = (w * w).sin().sum()
    loss.backward()
    return loss


def weights():
    return tape.ones(3, requires_grad=True)


def only(report):
    assert len(report) == 1, str(report)
    return report[0]


def test_a_clean_loop_has_none():
    w, running = weights(), 0.0
    for _ in range(5):
        loss = step(w)
        running += loss.item()
        with tape.no_grad():
            w -= 0.1 * w.grad
    report = tape.leaks()
    assert list(report) == []
    assert str(report) == f"no leaks; {report.alive} nodes are alive"
    assert report.complete
    (held,) = [leak for leak in tape.leaks(everything=True) if leak.file == __file__]
    assert (held.name, held.tensors, held.nodes, held.iterations) == ("loss", 1, 3, 1)
    assert "no leaks" not in tape.leaks(everything=True)._repr_html_()


def test_two_losses_of_one_step_and_a_graph_from_before_the_loop_are_no_leak():
    w = weights()
    doubled = w * 2.0
    for _ in range(5):
        first = (doubled * w).sum()
        second = (w * w).sum()
        first.backward(retain_graph=True)
        second.backward()
    assert list(tape.leaks()) == []
    del first, second


def test_a_sum_of_losses():
    w, total_loss = weights(), 0.0
    for _ in range(6):
        loss = step(w)
        total_loss += loss
    leak = only(tape.leaks())
    assert (leak.name, leak.kind, leak.file, leak.tensors) == ("total_loss", "sum", __file__, 1)
    assert leak.nodes == 6 * 4
    assert leak.line is not None
    assert "leak = only(" in linecache.getline(__file__, leak.line)
    assert leak.made_at.code == "total_loss += loss"
    assert "loss.item()" in leak.remedy


def test_bytes_are_those_that_walks_have_not_freed():
    w, kept = weights(), []
    for _ in range(4):
        step(w)
        kept.append((w * w.detach()).sin().sum())
    leak = only(tape.leaks())
    assert leak.name == "kept[...]"
    assert leak.bytes == 4 * 12 + 12  # sin's operand each, and w once


class Trainer:
    def __init__(self):
        self.losses, self.log, self.slots = [], {}, None


def test_lists_and_dictionaries_of_an_object():
    w, trainer = weights(), Trainer()
    for i in range(5):
        loss = step(w)
        trainer.losses.append(loss)
        trainer.log[i] = {"loss": loss}
    report = tape.leaks()
    assert {leak.name for leak in report} == {"trainer.losses[...]", "trainer.log[...][...]"}
    assert {(leak.kind, leak.tensors, leak.nodes) for leak in report} == {("container", 5, 15)}


def test_a_global_of_the_module():
    w = weights()
    for _ in range(4):
        KEPT.append(step(w))
    leak = only(tape.leaks())
    assert (leak.name, leak.file, leak.line, leak.tensors) == ("KEPT[...]", __file__, None, 4)


def test_closures_and_defaults():
    w, callbacks = weights(), []
    for _ in range(4):
        loss = step(w)

        def report(loss=loss):
            return loss.item()

        callbacks.append(report)
    found = {leak.name: leak for leak in tape.leaks()}
    (leak,) = [leak for name, leak in found.items() if "closures_and_defaults.<locals>.report" in name]
    assert (leak.kind, leak.tensors) == ("closure", 4)
    assert "def report" in linecache.getline(__file__, leak.line)

    def made(value):
        return lambda: value

    del found, leak, callbacks, report, loss
    getters = [made(step(w)) for _ in range(4)]
    leak = only(tape.leaks())
    assert leak.name == "the closure of test_closures_and_defaults.<locals>.made.<locals>.<lambda>"
    assert len(getters) == leak.tensors


def test_a_hook_that_mentions_its_own_tensor():
    w = weights()
    for _ in range(4):
        hidden = (w * w).sin()
        hidden.register_hook(lambda grad, hidden=hidden: None)
        hidden.sum().backward()
    names = {leak.name for leak in tape.leaks()}
    assert names == {"the closure of test_a_hook_that_mentions_its_own_tensor.<locals>.<lambda>"}
    del hidden
    gc.collect()
    assert list(tape.leaks()) == []


def test_the_cycle_of_create_graph():
    w = weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (w * w).sin().sum().backward(create_graph=True)
    leak = only(tape.leaks())
    assert (leak.name, leak.kind, leak.tensors) == ("w.grad", "grad", 1)
    assert "create_graph=True" in leak.made_at.code
    w.grad = None
    assert list(tape.leaks()) == []


def test_a_generator_that_waits():
    w = weights()

    def losses():
        kept = []
        while True:
            kept.append(step(w))
            yield len(kept)

    steps = losses()
    for _ in range(4):
        next(steps)
    leak = only(tape.leaks())
    assert leak.name.startswith("kept of losses")
    assert leak.tensors == 4
    steps.close()


def test_it_prints_names_escaped_and_keeps_to_its_time():
    w, bad = weights(), {}
    for i in range(4):
        bad[f"<b>{i}"] = step(w)
    report = tape.leaks()
    assert "bad[...]" in str(report)
    assert "1 leak;" in str(report)
    assert report._repr_html_().startswith("<table>")
    assert "<b>" not in report._repr_html_()
    start = time.monotonic()
    assert not tape.leaks(time_limit=0.0).complete
    assert time.monotonic() - start < 30
    assert set(REMEDIES) >= {leak.kind for leak in report}


def test_nothing_is_kept_by_looking():
    w = weights()
    kept = [step(w) for _ in range(4)]
    before = tape.leaks()
    del kept
    assert list(tape.leaks()) == []
    assert len(before) == 1
