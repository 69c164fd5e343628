"""What several engines' training has in common: where they end, and how far their losses are apart on the way there.

What flows in: the losses of each engine, from the same weights and over the same batches; the first engine is the one
that the others are held against. What flows out: what a comparison yields. Read :func:`loss_curves`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np

from twograd.compare.results import Curves, Observation, Series


def ulps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far each of ``found`` is from ``expected``, in units in the last place of the dtype of ``expected``."""
    return np.abs(found - expected) / np.spacing(np.abs(expected))


def loss_curves(
    losses: Mapping[str, np.ndarray], unit: str = "cross-entropy", scale: Literal["linear", "log"] = "log"
) -> Iterator[Curves | Observation]:
    """The losses by step, the distance of each from the first engine's in ulps, and a sentence on each distance.

    ``losses`` has one array per engine, of the dtype that the losses were computed in.
    """
    (reference, expected), *others = losses.items()
    at = range(1, len(expected) + 1)
    apart = {name: ulps(found, expected) for name, found in others}
    furthest = max((found.max() for found in apart.values()), default=0.0)
    yield Curves(
        "The loss of each batch",
        "step",
        unit,
        [Series(name, at, found.tolist(), engine=name) for name, found in losses.items()],
        y_scale=scale,
        note=f"All lines are drawn; none is further than {furthest:.3g} units in the last place from {reference}'s.",
    )
    if not apart:
        return
    yield Curves(
        f"How far the loss is from {reference}'s",
        "step",
        "units in the last place",
        [Series(name, at, found.tolist(), engine=name) for name, found in apart.items()],
    )
    for name, found in apart.items():
        differing = np.flatnonzero(found)
        if len(differing):
            yield Observation(
                f"The loss of `{name}` first differs from that of `{reference}` at step {differing[0] + 1}. In units "
                f"in the last place, the median difference is {np.median(found):.3g} and the largest {found.max():.3g}."
            )
        else:
            yield Observation(
                f"The loss of `{name}` is that of `{reference}` to the last bit in all {len(found)} steps."
            )


def between(shares: Iterable[float]) -> str:
    """``97.2 %``, or, where not all are the same to that place, ``96.9 to 97.2 %``."""
    low, *high = sorted({f"{100 * share:.1f}" for share in shares}, key=float)
    return f"{low} to {high[-1]} %" if high else f"{low} %"
