"""Inference mode: ``no_grad``, and what is made inside can never take part in a graph.

What flows in: a block of code. What flows out: inference Tensors, which count no changes. They are a class of their
own, so that the recorder, which looks closer at operands that are no plain Tensors, meets them at no cost to others.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twograd.tape.modes import Watcher, decorated, mode
from twograd.tape.tensor import Tensor
from twograd.tape.views import Stale


class InferenceTensor(Tensor):
    """A Tensor made in inference mode."""

    __slots__ = ()
    _inference = True

    @property
    def _version(self) -> int:
        raise RuntimeError("Inference tensors do not track version counter.")

    @property
    def requires_grad(self) -> bool:
        """As of every Tensor. Raises RuntimeError if it is set outside of inference mode."""
        return Tensor.requires_grad.__get__(self)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not mode.inference:
            raise RuntimeError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.")
        Tensor.requires_grad.__set__(self, value)


class _StaleInference(InferenceTensor, Stale):
    """One whose storage was changed through another."""

    __slots__ = ()
    _fresh = InferenceTensor


InferenceTensor._stale = _StaleInference
Tensor._in_inference = InferenceTensor
for _class in (InferenceTensor, _StaleInference):
    _class.__name__ = _class.__qualname__ = "Tensor"


class _Makes(Watcher):
    """Makes every result of an op an inference Tensor (that views of other Tensors are none is seen to in views.py)."""

    def op_done(self, function: Callable[..., Any], operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for out in outputs:
            out.__class__ = InferenceTensor  # pyright: ignore[reportAttributeAccessIssue]


class inference_mode:
    """``no_grad``, and Tensors made inside can neither be saved for a way back nor, outside, be changed in place or
    require a gradient; ``inference_mode(False)`` is a normal block within one. Also a decorator, with or without
    parentheses."""

    def __new__(cls, mode: Any = True) -> Any:
        return decorated(mode, cls) if callable(mode) else super().__new__(cls)

    def __init__(self, mode: bool = True):
        self.mode = bool(mode)
        self._previous: list[dict[str, Any]] = []

    def __enter__(self) -> None:
        self._previous.append({"grad": mode.grad, "inference": mode.inference, "watchers": mode.watchers})
        watchers = tuple(w for w in mode.watchers if not isinstance(w, _Makes))
        watchers = (*watchers, _Makes()) if self.mode else watchers
        mode.set(grad=not self.mode, inference=self.mode, watchers=watchers)

    def __exit__(self, *exc_info: Any) -> None:
        mode.set(**self._previous.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return decorated(function, lambda: inference_mode(self.mode))


def is_inference_mode_enabled() -> bool:
    """Whether this thread is in inference mode."""
    return mode.inference
