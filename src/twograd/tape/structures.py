"""What was compiled for structures that were met before, by their keys; bounded, and not for those met only once."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")

MAX_KEPT = 256  # the one that was not used for longest goes first
MAX_MET = 4096


all_structures: "weakref.WeakSet[Structures[Any]]" = weakref.WeakSet()
"""All that there are."""


class Structures(Generic[Made]):
    """From keys, which are long tuples, to what was made for them at a later meeting."""

    def __init__(self) -> None:
        # By the hash of the key, which is computed once. Were two keys to share one, that would cost time, no more.
        self._kept: dict[int, tuple[tuple[Any, ...], Made]] = {}  # the one used last stands last
        self._met: dict[int, int] = {}
        all_structures.add(self)

    def find(self, key: tuple[Any, ...], meetings: int, make: Callable[[tuple[Any, ...]], Made]) -> Made | None:
        """What was made for ``key``; at the meeting of that number it is made. None before."""
        number = hash(key)
        kept = self._kept.pop(number, None)
        if kept is None or kept[0] != key:
            met = self._met.pop(number, 0) + 1
            if met < meetings:
                if len(self._met) >= MAX_MET:
                    self._met.clear()
                self._met[number] = met
                return None
            kept = (key, make(key))
            if len(self._kept) >= MAX_KEPT:
                self._kept.pop(next(iter(self._kept), 0), None)
        self._kept[number] = kept
        return kept[1]

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()
        self._met.clear()

    def __len__(self) -> int:
        return len(self._kept)
