"""Fixtures of the harness's tests."""

import dataclasses

import pytest

from twograd.compare.program import Declaration
from twograd.compare.results import Settings


@pytest.fixture
def settings():
    """Checks only: compiling for the clock is what takes time here."""
    return Settings(quick=True, timed=False, engines=["jax-eager", "autograd"])


@pytest.fixture
def timed(settings):
    return dataclasses.replace(settings, timed=True, min_time=0.002, min_rounds=3, warmup_cap=0.01)


@pytest.fixture
def declare(tmp_path):
    """Writes a comparison file and returns its declaration."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return Declaration(name, path, "A question?", "", text)

    return write
