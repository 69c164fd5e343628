"""Values: arrays that may not have been computed yet, as ops that are put off have for results; see ``deferred.py``."""

from typing import Any, Protocol


class Value:
    """The array of a result; ``number`` is its place among its program's results."""

    __slots__ = ("array", "aval", "number", "program")

    program: "Runnable"
    number: int
    aval: Any
    array: Any

    def computed(self) -> Any:
        """The array."""
        if self.array is None:
            self.program.run()
            if self.array is None:
                raise RuntimeError("another thread has walked back over this value, and freed it")
        return self.array


class Runnable(Protocol):
    """Ops that were put off."""

    def run(self) -> None:
        """Computes all that is still referred to."""
        ...


def computed(value: Any) -> Any:
    """An array, or that of a Value."""
    return value.computed() if type(value) is Value else value
