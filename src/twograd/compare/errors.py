"""The errors of the harness that are the user's to mend: each is printed as one line, and ends with exit code 2.

This module imports nothing, so that the command line can use it before JAX is loaded.
"""

import difflib
from collections.abc import Iterable


class CompareError(Exception):
    """A question that cannot be answered as asked: an unknown name, an unusable file, folder or device."""


class UnknownName(CompareError):
    """A name that is none of those that exist."""

    def __init__(self, what: str, name: str, known: Iterable[str]):
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(known)}."
        super().__init__(f"unknown {what} '{name}'. {hint}")


class Unsupported(Exception):
    """Raised by an engine for a program that it cannot express; the row is skipped, with this text as the reason."""
