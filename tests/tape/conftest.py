"""What the tests of the tape share."""

import contextlib
import threading

import jax
import pytest

from twograd import tape


@pytest.fixture(autouse=True)
def _mode_restored():
    """No test leaves recording switched off for those after it."""
    yield
    was = tape.is_grad_enabled()
    tape.set_grad_enabled(True)
    assert was


class Compilations:
    """What JAX traced and compiled in this thread since the count began; ``of`` runs a function and returns its own."""

    EVENTS = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")

    def __init__(self):
        self.count, self._thread = 0, threading.get_ident()

    def heard(self, event, duration, **_):
        if event in self.EVENTS and threading.get_ident() == self._thread:
            self.count += 1

    def of(self, function):
        before = self.count
        function()
        return self.count - before


@pytest.fixture
def compilations():
    counter = Compilations()
    jax.monitoring.register_event_duration_secs_listener(counter.heard)
    yield counter
    with contextlib.suppress(AssertionError):
        jax.monitoring.unregister_event_duration_listener(counter.heard)
