"""Programs written once and run with the tape and with PyTorch, whose results, or errors, must be the same."""

import warnings

import numpy as np
import pytest

from twograd import tape


def outcome(program, m):
    """What ``program(m)`` returns, with arrays for Tensors; or the type and text of the error that it raises."""
    try:
        return plain(program(m), m)
    except Exception as error:
        return type(error).__name__, str(error)


def plain(value, m):
    if isinstance(value, m.Tensor):
        return np.asarray(value.detach().numpy())
    if isinstance(value, (tuple, list)):
        return tuple(plain(v, m) for v in value)
    return value


def agrees(program, rtol=1e-5, atol=1e-6):
    """Asserts that the tape does with ``program``, a function of the module, what PyTorch does. Returns the outcome."""
    torch = pytest.importorskip("torch")
    ours = outcome(program, tape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of parts of itself
        theirs = outcome(program, torch)
    _same(ours, theirs, rtol, atol)
    return ours


def _same(ours, theirs, rtol, atol):
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, tuple):
        assert len(ours) == len(theirs), (ours, theirs)
        for x, y in zip(ours, theirs, strict=True):
            _same(x, y, rtol, atol)
    elif isinstance(ours, np.ndarray):
        np.testing.assert_allclose(ours, theirs, rtol, atol)
    elif isinstance(ours, str):
        assert ours.replace("twograd.tape", "torch") == theirs.replace("torch.float", "float")
    else:
        assert ours == theirs
