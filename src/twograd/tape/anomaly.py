"""Anomaly detection: which op's derivative made a NaN, or failed, and where the forward pass called it.

What flows in: the pullbacks of a walk back. What flows out: the same, that tell the forward call's stack when they fail
and raise where they return NaN. Read :func:`checked`. Stacks are kept only of what is recorded while this is on.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twograd.tape.chain import settled
from twograd.tape.modes import Watcher, mode
from twograd.tape.node import Node, shown
from twograd.tape.tensor import Tensor

OWN_CODE = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (os.path.dirname(__file__), jax.__file__))


class Anomaly(NamedTuple):
    """That anomalies are looked for: NaN among them, or errors only."""

    check_nan: bool


class _Stacks(Watcher):
    """Writes down where each node is made, and the node whose derivative it is a part of, if any."""

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        node.metadata["traceback_"] = _stack()
        if mode.walk is not None and mode.walk.node is not None:
            node.metadata["parent_"] = shown(mode.walk.node)


def _stack() -> list[str]:
    """The lines of the present stack, without what is called within this package."""
    frames = traceback.extract_stack(sys._getframe(1))
    while frames and frames[-1].filename.startswith(OWN_CODE):
        frames.pop()
    return frames.format()


def checked(pull: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """``pull``, whose results are computed at once. If it fails a warning tells the stack of the node's forward call;
    RuntimeError if it returns NaN and these are looked for."""

    def pull_checked(node: Node, cts: Sequence[Any], *how: Any) -> Sequence[Any]:
        if mode.walk is not None:
            mode.walk.node = node
        try:
            in_cts = [settled(ct) for ct in pull(node, [settled(ct) for ct in cts], *how)]
        except Exception:
            _tell(node)
            raise
        if mode.anomaly is not None and mode.anomaly.check_nan:
            places = [i for i, (next_node, _) in enumerate(node.next_functions) if next_node is not None]
            for i, ct in zip(places, in_cts, strict=True):
                if ct is not None and _has_nan(ct):
                    _tell(node)
                    raise RuntimeError(f"Function '{node.name()}' returned nan values in its {i}th output.")
        return in_cts

    return pull_checked


def _has_nan(ct: Any) -> bool:
    array = ct._data if isinstance(ct, Tensor) else ct
    return bool(jnp.isnan(array).any())


def _tell(node: Node) -> None:
    """Warns with the stack of the node's forward call, and of those whose derivatives led to it."""
    lines = node.metadata.get("traceback_")
    if lines is None:
        text = (
            f"Error detected in {node.name()}. No forward pass information available. Enable detect anomaly during "
            "forward pass for more information."
        )
    else:
        text = f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n{''.join(lines)}"
    parent = node.metadata.get("parent_")
    while parent is not None:
        lines = parent.metadata.get("traceback_")
        text += f"\n\nPrevious calculation was induced by {parent.name()}. "
        if lines is None:
            text += (
                "No forward pass information available. Enable detect anomaly during forward pass for more information."
            )
        else:
            text += f"Traceback of forward call that induced the previous calculation:\n{''.join(lines)}"
        parent = parent.metadata.get("parent_")
    warnings.warn(text, UserWarning, stacklevel=2)


WATCHERS: list[type[Watcher]] = [_Stacks]
"""What watches while anomalies are looked for; ``replay.py`` adds its own."""


def _set(anomaly: Anomaly | None) -> None:
    kinds = tuple(WATCHERS)
    others = tuple(w for w in mode.watchers if not isinstance(w, kinds))
    own = tuple(w for w in mode.watchers if isinstance(w, kinds)) or tuple(kind() for kind in kinds)
    mode.set(anomaly=anomaly, watchers=others if anomaly is None else (*others, *own))


class set_detect_anomaly:
    """Switches anomaly detection of this thread on or off: from now on if called as a function, for a block if used in
    ``with``."""

    def __init__(self, mode: bool, check_nan: bool = True):
        self._before = _current()
        _set(Anomaly(check_nan) if mode else None)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: Any) -> None:
        _set(self._before)


class detect_anomaly:
    """Looks for anomalies inside: an op whose derivative fails, or (with ``check_nan``) returns NaN, is named, with the
    stack of its forward call. Slow: for finding mistakes."""

    def __init__(self, check_nan: bool = True):
        self._anomaly = Anomaly(check_nan)
        self._before = _current()
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for "
            "debugging.",
            UserWarning,
            stacklevel=2,
        )

    def __enter__(self) -> None:
        self._before = _current()
        _set(self._anomaly)

    def __exit__(self, *exc_info: Any) -> None:
        _set(self._before)


def _current() -> Anomaly | None:
    return mode.anomaly


def is_anomaly_enabled() -> bool:
    """Whether this thread looks for anomalies."""
    return mode.anomaly is not None


def is_anomaly_check_nan_enabled() -> bool:
    """Whether it looks for NaN too."""
    return mode.anomaly is not None and mode.anomaly.check_nan
