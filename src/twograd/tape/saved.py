"""Saved values: reading them at a node, and hooks that say how they are kept.

What flows in: nodes as they are made, with the Tensors that they save. What flows out: what is kept instead (on the
CPU, on a disk, in half the bits), and on the way back the values again. Read :class:`saved_tensors_hooks`, then
:func:`unpacked`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from twograd.rules import carries_gradient
from twograd.tape.modes import Watcher, mode, no_grad, watched_by
from twograd.tape.names import saved_names
from twograd.tape.node import Node, ShownNode, rarely
from twograd.tape.storage import check_versions, superseded
from twograd.tape.tensor import Tensor, make_tensor

Pack = Callable[[Tensor], Any]
Unpack = Callable[[Any], Tensor]


class Packed:
    """Stands among the saved values of a node for one that a hook packed."""

    __slots__ = ("aval", "content", "unpack")

    def __init__(self, tensor: Tensor, pack: Pack, unpack: Unpack):
        self.aval = tensor._data.aval
        self.unpack = unpack
        version = tensor._version
        with no_grad():
            self.content = pack(tensor)
        if tensor._version != version:
            raise RuntimeError(
                "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook "
                "cannot be modified by in-place operations as this can lead to unexpected side-effects. Please open an "
                "issue if you need to perform in-place operations on the input to a pack hook."
            )

    def value(self) -> jax.Array:
        """The array that ``unpack`` finds."""
        tensor = self.unpack(self.content)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{type(tensor).__name__}"
            )
        if (tensor.shape, tensor.dtype) != (self.aval.shape, self.aval.dtype):
            raise RuntimeError(
                f"a saved tensor unpack_hook returned a Tensor of shape {list(tensor.shape)} and dtype {tensor.dtype} "
                f"for one that was saved with shape {list(self.aval.shape)} and dtype {self.aval.dtype}"
            )
        return tensor._data


def unpacked(node: Node, saved: Sequence[Any]) -> Sequence[Any]:
    """The saved values of a node, each that was packed now unpacked."""
    if not rarely(node).packed:
        return saved
    return [value.value() if type(value) is Packed else value for value in saved]


def pack(node: Node, i: int, tensor: Tensor, pack_hook: Pack, unpack_hook: Unpack) -> None:
    """Lets the value that ``node`` saved as its ``i``-th be kept as ``pack_hook`` says."""
    packed = Packed(tensor, pack_hook, unpack_hook)
    node.saved = [packed if j == i else value for j, value in enumerate(node.require_saved())]
    rarely(node).packed = True


class saved_tensors_hooks(Watcher):
    """What is saved inside for the way back is kept as ``pack_hook(tensor)`` says; ``unpack_hook`` makes the Tensor of
    it again when it is needed.

    ``pack_hook`` may return anything. Of nested blocks only the innermost one's hooks are called. Python numbers are
    not packed. What was packed is not checked for changes in place: what ``unpack_hook`` returns is what counts, and
    must have the shape and the dtype of what was saved, else RuntimeError.
    """

    def __init__(self, pack_hook: Pack, unpack_hook: Unpack):
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook
        self._blocks: list[Any] = []  # a stack, for the same object may be entered again

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        for i, tensor in enumerate(saved_from):
            if not _is_number(tensor):
                pack(node, i, tensor, self.pack_hook, self.unpack_hook)

    def __enter__(self) -> None:
        for watcher in mode.watchers:
            if isinstance(watcher, _Disabled):
                raise RuntimeError(watcher.message)
        block = watched_by(self, instead_of=saved_tensors_hooks)
        block.__enter__()
        self._blocks.append(block)

    def __exit__(self, *exc_info: Any) -> None:
        self._blocks.pop().__exit__(*exc_info)


def _is_number(tensor: Tensor) -> bool:
    return tensor._data.aval.weak_type and not tensor.shape and tensor._edge is None


class save_on_cpu(saved_tensors_hooks):
    """What is saved inside is kept in the memory of the host, and copied back to its device when it is needed."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda"):
        host = jax.local_devices(backend="cpu")[0]

        def pack_to_cpu(tensor: Tensor) -> tuple[Any, Any]:
            array = tensor.array
            return array.sharding, array if array.devices() == {host} else jax.device_put(array, host)

        def unpack_from_cpu(packed: tuple[Any, Any]) -> Tensor:
            sharding, array = packed
            return Tensor(jax.device_put(array, sharding))

        super().__init__(pack_to_cpu, unpack_from_cpu)


class _Disabled(Watcher):
    def __init__(self, message: str):
        self.message = message


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Inside, entering ``saved_tensors_hooks`` raises RuntimeError with this message; as does entering this inside of
    those."""
    if any(isinstance(watcher, saved_tensors_hooks) for watcher in mode.watchers):
        raise RuntimeError(error_message)
    with watched_by(_Disabled(error_message), instead_of=_Disabled):
        yield


# --- changes in place of what was saved -------------------------------------------------------------------------------


class _KeepsOriginals(saved_tensors_hooks):
    """JAX's arrays do not change, so a node that holds one holds the original: no copy is needed."""

    active = True

    def __init__(self) -> None:
        def unpack(tensor: Tensor) -> Tensor:
            if not self.active:
                raise AssertionError(
                    "Trying to backward outside of the 'allow_mutation_on_saved_tensors' context in which the graph "
                    "was originally recorded."
                )
            return tensor

        super().__init__(lambda tensor: make_tensor(tensor._data, None), unpack)


@contextlib.contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[None]:
    """Inside, Tensors that were saved may be changed in place: the way back, which must be walked inside too, reads
    what they were."""
    if any(isinstance(watcher, _KeepsOriginals) for watcher in mode.watchers):
        raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
    keeps = _KeepsOriginals()
    with keeps:
        try:
            yield
        finally:
            keeps.active = False


# --- reading --------------------------------------------------------------------------------------------------------


class SavedTensor:
    """One saved value of a node: ``node._raw_saved_self``."""

    def __init__(self, node: Node, i: int | None):
        self._node = node
        self._i = i

    def unpack(self) -> Tensor | None:
        """The Tensor, as the way back would read it; RuntimeError if it was freed, or changed in place since."""
        return None if self._i is None else read_saved(self._node, self._i)

    def register_hooks(self, pack_hook: Pack, unpack_hook: Unpack) -> None:
        """Keeps this value as ``pack_hook`` says; see :class:`saved_tensors_hooks`. RuntimeError if it has hooks."""
        if not (callable(pack_hook) and callable(unpack_hook)):
            raise TypeError("register_hooks(): both hooks must be callable")
        if self._i is None:
            raise RuntimeError("Calling register_hooks on a saved tensor with value None is forbidden")
        if self._node.saved is None:
            raise RuntimeError(
                "Calling register_hooks on a saved tensor after it has been freed. Saved intermediate values of the "
                "graph are freed when you call .backward() or autograd.grad(). Specify retain_graph=True if you need "
                "to backward through the graph a second time or if you need to access saved variables after calling "
                "backward."
            )
        if type(self._node.saved[self._i]) is Packed:
            raise RuntimeError(
                "Calling register_hooks on a saved tensor whose hooks have already been set. Hint: only one pair of "
                "hooks is allowed at a time."
            )
        pack(self._node, self._i, read_saved(self._node, self._i).detach(), pack_hook, unpack_hook)


def read_saved(node: Node, i: int) -> Tensor:
    """The ``i``-th saved value of a node as a Tensor with its history: the leaf itself if it is one that lives."""
    saved = node.require_saved()
    if superseded:
        check_versions(node, saved)
    value = saved[i]
    packed = type(value) is Packed
    data = value.value() if packed else value
    node_before, output_nr = node.source((node.plan.positions or ())[i])
    leaf = getattr(node_before, "variable", None)
    if leaf is not None and leaf._data is data and not packed:
        return leaf
    tracked = node_before is not None and carries_gradient(data.aval)
    tensor = make_tensor(data, (node_before, output_nr) if tracked else None)  # pyright: ignore[reportArgumentType]
    for watcher in mode.watchers:
        watcher.saved_read(node, i, tensor)
    return tensor


def _getattr(node: Node, name: str) -> Any:
    """``_saved_NAME`` and ``_raw_saved_NAME``, by PyTorch's names for an op's operands and result."""
    prefix = next((p for p in ("_saved_", "_raw_saved_") if name.startswith(p)), None)
    if prefix is not None:
        names = saved_names(node.plan)
        wanted = name.removeprefix(prefix)
        if wanted in names:
            raw = SavedTensor(node, names.index(wanted))
            return raw.unpack() if prefix == "_saved_" else raw
    raise AttributeError(f"{type(node).__name__!r} object has no attribute {name!r}")


def _dir(node: Node) -> list[str]:
    names = saved_names(node.plan)
    return [*object.__dir__(node), *(f"{prefix}_{name}" for name in names for prefix in ("_saved", "_raw_saved"))]


def _saved_tensors(node: Node) -> tuple[Tensor, ...]:
    """What the node saved, in the order of ``saved_names``; RuntimeError if it was freed."""
    return tuple(read_saved(node, i) for i in range(len(node.require_saved())))


ShownNode.__getattr__ = _getattr  # pyright: ignore[reportAttributeAccessIssue]
ShownNode.__dir__ = _dir  # pyright: ignore[reportAttributeAccessIssue]
Node.saved_names = property(lambda node: saved_names(node.plan), doc="The names of ``saved_tensors``.")  # pyright: ignore
Node.saved_tensors = property(_saved_tensors)  # pyright: ignore[reportAttributeAccessIssue]
