"""PyTorch beside the tape: a test that takes ``m`` runs with each, and must pass with both."""

import pytest

both = pytest.mark.parametrize("m", ["twograd.tape", "torch"], indirect=True)
