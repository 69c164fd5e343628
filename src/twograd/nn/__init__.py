"""Building blocks of neural networks, for both engines.

Read :mod:`twograd.nn.functional`, functions with PyTorch's names and arguments, first.
"""

from twograd.nn import functional

__all__ = ["functional"]
