"""Anomaly detection: what it says of NaN and of errors on the way back, and where the forward call was."""

import threading
import warnings

import pytest

from tape.both import both
from twograd import tape


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


def divided(x):
    return x / x  # the line that a warning shows


def told(walk):
    """The error of a walk back, and the warning before it."""
    with pytest.warns(UserWarning, match="Error detected in") as warned, pytest.raises((RuntimeError, ValueError)) as e:
        walk()
    (warning,) = [w for w in warned if "Error detected" in str(w.message)]
    return str(e.value), str(warning.message)


@both
def test_nan(m):
    x = leaf(m, 0.0, 2.0)
    with m.autograd.set_detect_anomaly(True):
        y = divided(x) * 2
        error, warning = told(lambda: y.sum().backward())
    assert error == "Function 'DivBackward0' returned nan values in its 1th output."
    assert warning.startswith("Error detected in DivBackward0. Traceback of forward call that caused the error:\n")
    assert "return x / x  # the line that a warning shows" in warning
    assert "y = divided(x) * 2" in warning
    assert f'File "{__file__}"' in warning


@both
def test_nan_is_only_looked_for_when_asked(m):
    x = leaf(m, 0.0, 2.0)
    with m.autograd.set_detect_anomaly(True, check_nan=False):
        assert (m.is_anomaly_enabled(), m.is_anomaly_check_nan_enabled()) == (True, False)
        divided(x).sum().backward()
    assert not m.is_anomaly_enabled()
    assert x.grad.tolist()[1] == 0.0


@both
def test_made_before_the_mode(m):
    y = divided(leaf(m, 0.0))
    with m.autograd.set_detect_anomaly(True):
        _, warning = told(lambda: y.sum().backward())
    assert warning.startswith("Error detected in DivBackward0. No forward pass information available. Enable detect")


@both
def test_changed_in_place(m):
    x = leaf(m, 0.5)
    with m.autograd.set_detect_anomaly(True):
        y = x.exp()
        y.add_(1)
        error, warning = told(lambda: y.sum().backward())
    assert error.endswith(
        "Hint: the backtrace further above shows the operation that failed to compute its gradient. The variable in "
        "question was changed in there or anywhere later. Good luck!"
    )
    assert "Error detected in ExpBackward0" in warning
    assert "y = x.exp()" in warning


@both
def test_an_error_of_the_users(m):
    class Fails(m.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            raise ValueError("mine")

    with m.autograd.set_detect_anomaly(True):
        y = Fails.apply(leaf(m, 0.5))
        error, warning = told(y.backward)
    assert error == "mine"
    assert "Error detected in FailsBackward" in warning
    assert "y = Fails.apply(leaf(m, 0.5))" in warning


@both
def test_a_derivatives_own_derivative(m):
    """A node that was made on a way back says which node's derivative it is a part of."""
    x = leaf(m, 0.0)
    with m.autograd.set_detect_anomaly(True):
        (g,) = m.autograd.grad((x * x).sin(), x, m.ones(1), create_graph=True)
        assert {"traceback_", "parent_"} <= set(g.grad_fn.metadata)
        assert g.grad_fn.metadata["parent_"].name().endswith("Backward0")
        assert isinstance(g.grad_fn.metadata["traceback_"], list)


def test_the_induced_calculation_is_told():
    """What a derivative's derivative does wrong is traced back to the forward call."""
    x = leaf(tape, 0.0)
    with tape.autograd.set_detect_anomaly(True):
        y = (x * x) ** 0.75
        with tape.autograd.set_detect_anomaly(True, check_nan=False):
            (g,) = tape.autograd.grad(y, x, tape.ones(1), create_graph=True)
        _, warning = told(g.backward)
    assert "Previous calculation was induced by " in warning
    assert "Traceback of forward call that induced the previous calculation:" in warning
    assert "y = (x * x) ** 0.75" in warning


@both
def test_the_block_that_warns(m):
    with pytest.warns(UserWarning, match="^Anomaly Detection has been enabled. This mode will increase the runtime"):
        block = m.autograd.detect_anomaly()
    with block:
        assert (m.is_anomaly_enabled(), m.is_anomaly_check_nan_enabled()) == (True, True)
    assert not m.is_anomaly_enabled()


@both
def test_as_a_call(m):
    m.autograd.set_detect_anomaly(True)
    try:
        assert m.is_anomaly_enabled()
    finally:
        m.autograd.set_detect_anomaly(False)
    assert not m.is_anomaly_enabled()


@both
def test_gradients_are_the_same(m):
    def gradient():
        x = leaf(m, 0.3, 0.8)
        z = (x.sin().exp() * x + x.sum()) / 2
        seen = []
        z.register_hook(lambda g: seen.append(g.tolist()))
        (z * z).sum().backward()
        return x.grad.tolist(), seen

    expected = gradient()
    with warnings.catch_warnings(), m.autograd.set_detect_anomaly(True):
        warnings.simplefilter("error")
        found = gradient()
    assert found[0] == pytest.approx(expected[0], rel=1e-5)


def test_it_is_the_threads_own():
    seen = []
    with tape.autograd.set_detect_anomaly(True):
        thread = threading.Thread(target=lambda: seen.append(tape.is_anomaly_enabled()))
        thread.start()
        thread.join()
        y = leaf(tape, 1.0).exp()
    assert seen == [False]
    assert "traceback_" in y.grad_fn.metadata
    assert "traceback_" not in leaf(tape, 1.0).exp().grad_fn.metadata
