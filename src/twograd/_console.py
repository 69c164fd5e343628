"""The terminal to print to."""

import io
import sys

from rich.console import Console


def console(color: str, stderr: bool = False) -> Console:
    """``--color`` wins over NO_COLOR, which wins over FORCE_COLOR, which wins over whether this is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone gets "?" and no traceback
    if color == "always":
        return Console(stderr=stderr, force_terminal=True, no_color=False, highlight=False)
    if color == "never":
        return Console(stderr=stderr, color_system=None, highlight=False)
    return Console(stderr=stderr, highlight=False)
