"""Bytes that are kept for the way back, from event to event: as many as stats says, each array once."""

import gc
import threading
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd import tape

X = np.linspace(0.2, 1.3, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def x():
    return tape.tensor(X, requires_grad=True)


def program(x):
    y = x.sin()
    return (y * y.exp() + x.tanh()).sum()


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_bytes_are_those_of_stats_at_the_turn(x, level):
    with tape.live_bytes() as live, tape.granularity(level):
        loss = program(x)
        before = tape.stats(loss)
        loss.backward()
    assert live.turn > 0
    assert live.events[live.turn - 1].bytes == before.saved_bytes == live.peak
    assert live.events[-1].bytes == 0
    assert [event.walking for event in live.events] == [i >= live.turn for i in range(len(live.events))]
    assert sum(event.change for event in live.events) == 0
    seconds = [event.seconds for event in live.events]
    assert seconds == sorted(seconds)


def test_a_shared_array_counts_once_until_its_last_node_frees_it(x):
    with tape.live_bytes() as live:
        loss = program(x)
        loss.backward()
    changes = [(event.op, event.change // X.nbytes) for event in live.events]
    # x for sin; what exp returned; for the product only what sin returned is new; what tanh returned.
    assert changes[: live.turn] == [("sin", 1), ("exp", 1), ("mul", 1), ("tanh", 1)]
    assert changes[live.turn :] == [("tanh", -1), ("mul", -1), ("exp", -1), ("sin", -1)]
    assert [event.bytes // X.nbytes for event in live.events] == [1, 2, 3, 4, 3, 2, 1, 0]


def test_what_was_kept_at_the_peak(x):
    with tape.live_bytes("run") as live:
        (x.sin().sin().tanh() * 2.0).sum().backward()
    assert [(kept.op, kept.arrays, kept.bytes) for kept in live.at_peak] == [
        ("sin", 2, 2 * X.nbytes), ("tanh", 1, X.nbytes), ("mul", 1, 4),
    ]  # fmt: skip
    assert repr(live) == f"<LiveBytes run: {len(live.events)} events, at most {3 * X.nbytes + 4} bytes>"
    table = str(live)
    assert f"run: saved for the way back, at most {3 * X.nbytes + 4} bytes" in table
    assert "0 bytes are kept at the end" in table
    first = table.splitlines()[3].split()
    assert first[0] == "sin"
    assert first[-3:-1] == ["2", "96"]
    assert live._repr_html_().count("<tr>") == 4


def test_a_graph_that_dies_frees_what_it_kept(x):
    with tape.live_bytes() as live:
        y = x.sin()
        z = y.exp()
        del y, z
        gc.collect()
    assert [event.bytes // X.nbytes for event in live.events] == [1, 2, 1, 0]
    assert not any(event.walking for event in live.events)
    assert live.turn == len(live.events)


def test_a_retained_graph_is_kept(x):
    with tape.live_bytes() as live:
        loss = program(x)
        loss.backward(retain_graph=True)
    assert live.events[-1].bytes == live.peak == tape.stats(loss).saved_bytes
    loss.backward()
    assert len(live.events) == live.turn  # the block is over


def test_nothing_is_saved_without_recording_and_less_with_a_checkpoint(x):
    with tape.live_bytes("no_grad") as none, tape.no_grad():
        program(x)
    assert (none.peak, none.events) == (0, [])
    assert "at most 0 bytes" in str(none)
    with tape.live_bytes("plain") as plain:
        program(x).backward()
    with tape.live_bytes("checkpointed") as less:
        tape.apply(
            jax.checkpoint(lambda x: jax.numpy.sum(jax.numpy.sin(jax.numpy.exp(jax.numpy.sin(x))))), x
        ).backward()
    assert less.peak == X.nbytes < plain.peak


def test_second_derivatives_are_counted_too(x):
    with tape.live_bytes() as live:
        (first,) = tape.autograd.grad(program(x), x, create_graph=True)
        made = [event for event in live.events if event.walking and event.change > 0]
        tape.autograd.grad((first * first).sum(), x)
    assert made
    del first
    with tape.live_bytes() as again:
        loss = (program(x) * 1.0).sum()
        loss.backward()
    assert again.events[-1].bytes == 0


def test_packed_values_count_as_what_they_are_packed_into(x):
    def half(tensor):
        return tensor.array.astype(jax.numpy.float16)

    with tape.live_bytes() as live, tape.autograd.graph.saved_tensors_hooks(half, lambda a: tape.tensor(a).float()):
        loss = x.sin().sum()
        assert tape.stats(loss).saved_bytes == X.nbytes // 2
        loss.backward()
    assert live.peak == X.nbytes // 2
    assert live.events[-1].bytes == 0
    np.testing.assert_allclose(x.grad.numpy(), np.cos(X), rtol=1e-2)


def test_gradients_are_the_same_and_other_threads_are_not_heard(x):
    program(x).backward()
    expected, x.grad = x.grad.numpy(), None
    with tape.live_bytes() as live:
        thread = threading.Thread(target=lambda: program(tape.tensor(X, requires_grad=True)).backward())
        thread.start()
        thread.join()
        assert live.events == []
        program(x).backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_the_chart(x, tmp_path):
    with tape.live_bytes("plain <&>") as plain:
        program(x).backward()
    with tape.live_bytes("nothing") as nothing, tape.no_grad():
        program(x)
    path = plain.plot(tmp_path / "bytes.svg", nothing)
    svg = path.read_text(encoding="utf-8")
    ET.fromstring(svg)
    assert f"plain &lt;&amp;&gt;, {plain.peak} B" in svg
    assert "nothing, 0 B" in svg
    assert "At the peak of plain &lt;&amp;&gt;: " in svg
    assert f"at most {plain.peak} bytes, 0 at the end; nothing: at most 0 bytes" in svg
    assert plain.plot(tmp_path / "bytes.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"a chart is saved as .svg or .png, not as .pdf"):
        plain.plot(tmp_path / "bytes.pdf")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["bytes.png", "bytes.svg"]


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_lines_are_told_where_they_are_known(x):
    with tape.autograd.detect_anomaly(), tape.live_bytes() as live:
        x.sin().sum()
    line = test_lines_are_told_where_they_are_known.__code__.co_firstlineno + 3
    assert f"sin  test_live.py:{line} (test_lines_are_told_where_they_are_known)" in str(live)


class Doubled(tape.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sum()

    @staticmethod
    def backward(ctx, ct):
        (x,) = ctx.saved_tensors
        return ct * 2.0 + x * 0.0


def test_what_a_function_of_the_users_keeps(x):
    with tape.live_bytes() as live:
        loss = Doubled.apply(x)
        assert live.events[-1].bytes == tape.stats(loss).saved_bytes == X.nbytes
        loss.backward()
    assert [(event.op, event.bytes) for event in live.events] == [("Doubled", X.nbytes), ("Doubled", 0)]


def test_nested_blocks_both_count(x):
    with tape.live_bytes() as outer:
        a = tnp.sum(tnp.sin(x))
        with tape.live_bytes() as inner:
            b = tnp.sum(tnp.tanh(x))
            assert outer.events[-1].bytes == 2 * X.nbytes
            b.backward()
        a.backward()
    assert inner.peak == X.nbytes
    assert outer.peak == 2 * X.nbytes
    assert inner.events[-1].bytes == outer.events[-1].bytes == 0
