"""no_grad and its kind: as blocks, as calls and as decorators, nested, per thread; the granularity."""

import threading

import pytest

from tape.both import both
from twograd import tape


@both
def test_no_grad(m):
    x = m.ones(2, requires_grad=True)
    with m.no_grad():
        y = x * 2
        assert not m.is_grad_enabled()
        made = m.ones(1, requires_grad=True)
    assert (y.requires_grad, y.grad_fn, y.is_leaf) == (False, None, True)
    assert made.requires_grad
    assert m.is_grad_enabled()
    assert (x * 2).requires_grad


@both
def test_nested(m):
    seen = []

    def look():
        seen.append(m.is_grad_enabled())

    with m.no_grad():
        with m.enable_grad():
            look()
            with m.set_grad_enabled(False):
                look()
            look()
        look()
    look()
    assert seen == [True, False, True, False, True]


@both
def test_restored_after_an_error(m):
    with pytest.raises(ZeroDivisionError), m.no_grad():
        raise ZeroDivisionError
    assert m.is_grad_enabled()

    @m.no_grad()
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert m.is_grad_enabled()


@both
def test_as_a_call(m):
    m.set_grad_enabled(False)
    try:
        assert not m.is_grad_enabled()
    finally:
        m.set_grad_enabled(True)
    assert m.is_grad_enabled()


@both
def test_decorators(m):
    def enabled(x, *, y=1):
        """What it says."""
        return m.is_grad_enabled(), x, y

    for make, argument in ((m.no_grad, ()), (m.no_grad, (enabled,)), (m.set_grad_enabled, (False,))):
        decorated = make(*argument) if argument == (enabled,) else make(*argument)(enabled)
        assert decorated(2, y=3) == (False, 2, 3)
        assert (decorated.__name__, decorated.__doc__) == ("enabled", "What it says.")
        assert m.is_grad_enabled()
    with m.no_grad():
        assert m.enable_grad(enabled)(1) == (True, 1, 1)
        assert not m.is_grad_enabled()


@both
def test_decorated_generators(m):
    @m.no_grad()
    def steps():
        received = yield m.is_grad_enabled()
        try:
            yield received, m.is_grad_enabled()
        except KeyError:
            yield "caught", m.is_grad_enabled()
        try:
            yield "last"
        finally:
            closed.append(m.is_grad_enabled())
        return "never"

    closed = []
    running = steps()
    assert next(running) is False
    assert m.is_grad_enabled()
    assert running.send(5) == (5, False)
    assert running.throw(KeyError()) == ("caught", False)
    assert next(running) == "last"
    running.close()
    assert closed == [False]
    assert m.is_grad_enabled()

    @m.no_grad()
    def returns():
        yield 1
        return 2

    def outer():
        result = yield from returns()
        yield result

    assert list(outer()) == [1, 2]


def test_one_object_entered_twice():
    off = tape.no_grad()
    with off:
        with off, tape.enable_grad():
            assert tape.is_grad_enabled()
        assert not tape.is_grad_enabled()
    assert tape.is_grad_enabled()


@both
def test_thread_local(m):
    seen = []
    with m.no_grad():
        thread = threading.Thread(target=lambda: seen.append(m.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


@both
def test_recording_is_on_while_create_graph_walks(m):
    x = m.tensor([2.0], requires_grad=True)
    y = x * x * x
    with m.no_grad():
        (g,) = m.autograd.grad(y, x, create_graph=True)
        assert not m.is_grad_enabled()
    assert g.requires_grad
    assert m.autograd.grad(g, x)[0].tolist() == [12.0]


def test_granularity():
    x = tape.ones(2, requires_grad=True)
    with tape.granularity("primitive"):
        assert x.softmax().grad_fn.name() == "DivBackward0"
        with tape.granularity("op"):
            assert x.softmax().grad_fn.name() == "SoftmaxBackward0"
        with tape.no_grad():
            assert not x.softmax().requires_grad
            with tape.enable_grad():
                assert x.softmax().grad_fn.name() == "DivBackward0"
        assert x.softmax().grad_fn.name() == "DivBackward0"
        thread_saw = []
        thread = threading.Thread(target=lambda: thread_saw.append(x.softmax().grad_fn.name()))
        thread.start()
        thread.join()
    assert thread_saw == ["SoftmaxBackward0"]
    assert x.softmax().grad_fn.name() == "SoftmaxBackward0"
    with tape.no_grad(), tape.granularity("primitive"):
        assert not (x * 2).requires_grad
    with pytest.raises(ValueError, match="granularity is 'op' or 'primitive', not 'fine'"), tape.granularity("fine"):
        pass
