"""What a pass says about its work, how equations are counted, and the jaxprs inside of equations."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from twograd.graph.text import sources_of


@dataclass(frozen=True)
class PassReport:
    """What one pass did: equations before and after, how often each of its rewrites fired, and the time it took.

    Equations inside the bodies of other equations count too, once per equation that has them.
    """

    name: str
    before: int
    after: int
    fired: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        fired = ", ".join(f"{rewrite} ({times})" for rewrite, times in self.fired.most_common()) or "nothing to do"
        return f"{self.name}: {self.before} -> {self.after} equations, {self.seconds * 1e3:.1f} ms: {fired}"


Pass = Callable[[ClosedJaxpr], tuple[ClosedJaxpr, PassReport]]


def check_program(closed: Any, who: str) -> None:
    """Raises TypeError unless ``closed`` is a program as passes take it."""
    if not isinstance(closed, ClosedJaxpr):
        raise TypeError(
            f"{who} takes a ClosedJaxpr, got {type(closed).__name__}: a Graph has one, g.jaxpr, and its method "
            "optimize applies passes"
        )


def bodies(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The jaxprs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                yield item


def map_bodies(params: dict[str, Any], f: Callable[[Any], Any]) -> dict[str, Any]:
    """``params`` with ``f(body)`` for each body; the same object where no body changed."""
    changes: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            changed = f(value)
            if changed is not value:
                changes[key] = changed
        elif isinstance(value, (tuple, list)) and any(isinstance(item, (ClosedJaxpr, Jaxpr)) for item in value):
            items = [f(item) if isinstance(item, (ClosedJaxpr, Jaxpr)) else item for item in value]
            if any(new is not old for new, old in zip(items, value, strict=True)):
                changes[key] = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return params | changes if changes else params


def count(jaxpr: ClosedJaxpr | Jaxpr, known: dict[int, int] | None = None) -> int:
    """How many equations ``jaxpr`` has, those in the bodies of its equations included."""
    known = {} if known is None else known
    if id(jaxpr) not in known:
        known[id(jaxpr)] = sum(1 + sum(count(body, known) for body in bodies(eqn.params)) for eqn in jaxpr.eqns)
    return known[id(jaxpr)]


def derivative_order(eqn: JaxprEqn) -> int:
    """How many derivatives were taken to arrive at this equation; 0 for one of the program itself."""
    return len(sources_of(eqn))
