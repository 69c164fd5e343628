"""twograd: one table of derivative rules, two autodiff engines, and the means to compare them."""

__version__ = "0.1.0"
