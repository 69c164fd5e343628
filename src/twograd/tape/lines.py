"""The user's own line: where a node was made, where a Tensor was changed.

What flows in: the running thread's frames. What flows out: a position, which costs as little as two references and
keeps no frame alive, and later a :class:`Place`, for those who read. Read :func:`here`.
"""

import linecache
import sys
from types import CodeType
from typing import NamedTuple

from twograd._compat import is_user_file

Position = tuple[CodeType, int]
"""A function's code, and the offset of the instruction that it was at."""

_frame = sys._getframe


class _Outside(dict[str, bool]):
    """By file, whether its frames are the user's, and not this package's or JAX's."""

    def __missing__(self, file: str) -> bool:
        found = self[file] = is_user_file(file)
        return found


_outside = _Outside()


def here() -> Position | None:
    """Where the user's innermost running call is; None where no frame is the user's. On the tape's hot path."""
    frame = _frame(2)
    while not _outside[frame.f_code.co_filename]:
        frame = frame.f_back
        if frame is None:
            return None
    return frame.f_code, frame.f_lasti


class Place(NamedTuple):
    """A line of source."""

    file: str
    line: int
    function: str

    @property
    def code(self) -> str:
        """Its text; empty where the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.function})"


def place(position: Position | None) -> Place | None:
    """The line of a position."""
    if position is None:
        return None
    code, offset = position
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    return Place(code.co_filename, line or code.co_firstlineno, code.co_name)
