"""``torch.nn`` of the tape: :mod:`twograd.tape.nn.functional`."""

from twograd.tape.nn import functional as functional

__all__ = ["functional"]
