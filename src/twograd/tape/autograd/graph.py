"""What ``torch.autograd.graph`` has: nodes and edges, hooks of saved values, hooks of several Tensors."""

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from twograd.tape.hooks import register_hook
from twograd.tape.modes import Walk, no_grad
from twograd.tape.modes import mode as thread
from twograd.tape.node import GradientEdge as GradientEdge
from twograd.tape.node import Node as Node
from twograd.tape.node import RemovableHandle, shown
from twograd.tape.saved import SavedTensor as SavedTensor
from twograd.tape.saved import allow_mutation_on_saved_tensors as allow_mutation_on_saved_tensors
from twograd.tape.saved import disable_saved_tensors_hooks as disable_saved_tensors_hooks
from twograd.tape.saved import save_on_cpu as save_on_cpu
from twograd.tape.saved import saved_tensors_hooks as saved_tensors_hooks
from twograd.tape.tensor import Tensor, make_tensor
from twograd.tape.views import write


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a Tensor, which need not be kept for it. RuntimeError if it does not require grad."""
    if tensor._edge is None:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(shown(tensor._edge[0]), tensor._edge[1])


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Counts a change in place of the Tensor, or of each of several, that was made behind the tape's back: what saved
    it refuses to be walked from then on."""
    for one in (tensor,) if isinstance(tensor, Tensor) else tensor:
        with no_grad():
            write(one, make_tensor(jnp.copy(one._data), None))


class _Handles:
    """The handle of several hooks."""

    def __init__(self, handles: Sequence[RemovableHandle]):
        self.handles = tuple(handles)

    def remove(self) -> None:
        """Takes them all away."""
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> "_Handles":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: Literal["all", "any"] = "all"
) -> _Handles:
    """Calls ``fn`` once per walk back with the gradients of several Tensors.

    With ``"all"`` it is called with a list when the last of those that this walk computes is there, with None for the
    others; RuntimeError for a Tensor that does not require grad. With ``"any"`` it is called with the first.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    lock = threading.Lock()
    walks: weakref.WeakKeyDictionary[Walk, _Seen] = weakref.WeakKeyDictionary()

    def hook_of(i: int) -> Callable[[Tensor], None]:
        def hook(grad: Tensor) -> None:
            walk = thread.walk
            assert walk is not None, "a hook is called within a walk"
            with lock:
                seen = walks.get(walk)
                first = seen is None
                if seen is None:
                    expected = sum(map(walk.comes_to, edges)) if mode == "all" else 1
                    seen = walks[walk] = _Seen([None] * len(edges), expected)
                seen.grads[i] = grad
                seen.missing -= 1
            if mode == "any":
                if first:
                    fn(grad)
            elif not seen.missing:
                fn(seen.grads)

        return hook

    if mode == "any":
        tensors = [tensor for tensor in tensors if tensor.requires_grad]
    edges: list[Any] = [get_gradient_edge(tensor) for tensor in tensors]
    return _Handles([register_hook(tensor, hook_of(i)) for i, tensor in enumerate(tensors)])


class _Seen:
    """The gradients that a walk has brought so far, and how many are missing."""

    def __init__(self, grads: list[Tensor | None], missing: int):
        self.grads = grads
        self.missing = missing
