"""Optimisations: each file has one function, jaxpr -> (jaxpr, report of what it removed)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jax.extend.core import ClosedJaxpr


@dataclass(frozen=True)
class PassReport:
    """What one pass did: equations before and after, how often each of its rewrites fired, and the time it took."""

    name: str
    before: int
    after: int
    fired: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


Pass = Callable[[ClosedJaxpr], tuple[ClosedJaxpr, PassReport]]


def optimize(
    closed: ClosedJaxpr, passes: Sequence[Pass] = (), check: bool = False
) -> tuple[ClosedJaxpr, list[PassReport]]:
    return closed, []
