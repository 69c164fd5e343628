"""Storages: what Tensors share, and the versions of what is in it.

What flows in: Tensors that are about to be changed in place, or to share their elements with another. What flows out:
the count of changes, and on the way back an error where a saved value was changed. Read :class:`Storage`, then
:func:`supersede`.

JAX's arrays are immutable, so what a node saved is still the value it saved, whatever happens to the Tensor. A change
in place puts a new array in a Tensor and marks the old one: it is superseded. A pullback that reads a superseded array
is PyTorch's error, since there the value is gone. A Tensor that is never changed, and no view of another, has no
storage and costs nothing; the walk back looks at what it reads only while superseded arrays are alive.
"""

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from twograd.tape.blame import Change, ModifiedInPlace
from twograd.tape.lines import here
from twograd.tape.modes import mode
from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.value import Value, computed

if TYPE_CHECKING:
    from twograd.tape.tensor import Tensor


Path = tuple[Any, Callable[..., Any], tuple[Any, ...]] | None
"""How a Tensor's elements are found: the path up to the last step, and that view function with its operands. None is
the whole array."""

Retained = tuple[Any] | None
"""The gradient that a Tensor retains, if it does."""

MODIFIED = (
    "one of the variables needed for gradient computation has been modified by an inplace operation: [{type} {sizes}]"
    "{output} is at version {version}; expected version {expected} instead. Hint: {hint}"
)
HINT = (
    "enable anomaly detection to find the operation that failed to compute its gradient, with "
    "torch.autograd.set_detect_anomaly(True, check_nan=False)."
)
HINT_OF_ANOMALY = (
    "the backtrace further above shows the operation that failed to compute its gradient. The variable in question was "
    "changed in there or anywhere later. Good luck!"
)
TYPES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "bool": "Bool", "int8": "Char",
    "int16": "Short", "int32": "Int", "int64": "Long", "uint8": "Byte", "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}  # fmt: skip

MAX_CHANGES = 32  # of which a counter keeps the lines

_forgetting = threading.Lock()


class Counter:
    """Counts the changes seen by the Tensors that share it."""

    __slots__ = ("changes", "version")

    def __init__(self, version: int = 0):
        self.version = version
        self.changes: deque[Change] | None = None  # the last ones


class Storage:
    """An array, and what has shown (a part of) it since it was last changed.

    ``shown`` has for each time a Tensor got its array weak references to both, and the counter it was shown under: a
    node may hold the array longer than the Tensor lives. In the place of an array may be a Value.
    """

    __slots__ = ("_many", "elements", "shown")

    def __init__(self, elements: Any):
        self.elements = elements
        self.shown: list[tuple[weakref.ref[Tensor], weakref.ref[Any] | Value | None, Counter]] = []
        self._many = 64

    @property
    def array(self) -> Any:
        """The array; it is computed if it was put off."""
        self.elements = computed(self.elements)
        return self.elements

    def add(self, tensor: "Tensor", counter: Counter) -> None:
        """Takes note of a Tensor and of its array; forgets dead ones when their number may have doubled."""
        shown = self.shown
        elements = tensor._elements
        ref = elements if type(elements) is Value else weakref.ref(elements)
        shown.append((weakref.ref(tensor), ref, counter))
        if len(shown) > self._many and _forgetting.acquire(blocking=False):
            count = len(shown)  # other threads may add meanwhile
            shown[:count] = [s for s in shown[:count] if s[0]() is not None or _behind(s[1]) is not None]
            self._many = 2 * len(shown) + 64
            _forgetting.release()

    def put_computed(self, value: Any, array: Any) -> None:
        """Takes note that ``value``, which a Tensor shows, is this array now."""
        if self.elements is value:
            self.elements = array
        self.shown = [(t, weakref.ref(array) if ref is value else ref, counter) for t, ref, counter in self.shown]

    def compute_saved(self) -> None:
        """Computes what is shown and put off, and is referred to by others: a node may have saved it."""
        for tensor, ref, count in _counted(self.shown):
            if type(ref) is Value and ref.array is None:
                shows = tensor()
                by_tensor = shows is not None and shows._elements is ref
                if count > _ALONE + by_tensor + (self.elements is ref) + 1:  # one: its program
                    ref.computed()

    def shows_only(self, tensor: "Tensor") -> bool:
        """Whether no other Tensor shows it, or showed it since it was last changed."""
        return all((other := ref()) is tensor or other is None for ref, *_ in self.shown)

    def tensors(self) -> "list[Tensor]":
        """The Tensors that show it now."""
        alive = {id(t): t for ref, *_ in self.shown if (t := ref()) is not None}
        return [t for t in alive.values() if t._alias is not None and t._alias.storage is self]


def _behind(ref: Any) -> Any:
    """The array, or the Value whose array is not computed yet, that is behind one of the references of a Storage."""
    if type(ref) is Value:
        return ref if ref.array is None else ref.array
    return None if ref is None else ref()


def _counted(shown: Sequence[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, int]]:
    """What is shown, with the count of references to it."""
    return [(tensor, ref, sys.getrefcount(ref)) for tensor, ref, _ in shown]


_ALONE = _counted([(None, object(), None)])[0][2]  # what is referred to by nothing but such a list


class Refusal(NamedTuple):
    """Why a view must not be changed in place where gradients are recorded: it is, or is a view of, one of several
    outputs of an op, or a view made under ``no_grad``, in a custom Function, or in inference mode. ``name`` is its
    node's, or empty if it has no history."""

    several: bool
    name: str
    output_nr: int
    custom: bool = False
    inference: bool = False


NO_GRAD = Refusal(False, "", 0)
INFERENCE = Refusal(False, "", 0, inference=True)


class Alias:
    """What a Tensor with a storage shows of it.

    ``path`` leads from the storage's array to the Tensor's. ``base`` is the Tensor that it is a differentiable view of,
    by the steps of the path behind ``start``; None for one that is no view, or detached. ``refusal`` says why it must
    not be changed in place, if so; ``retained`` has the gradient that the Tensor retains while its history is yet to be
    found; ``in_row``, that its elements lie in the storage one behind the other.
    """

    __slots__ = ("base", "counter", "in_row", "path", "refusal", "retained", "start", "storage")

    def __init__(
        self,
        storage: Storage,
        counter: Counter,
        path: Path = None,
        in_row: bool = True,
        base: "Tensor | None" = None,
        start: Path = None,
        refusal: Refusal | None = None,
    ):
        self.storage = storage
        self.counter = counter
        self.path = path
        self.in_row = in_row
        self.base = base
        self.start = start
        self.refusal = refusal
        self.retained: Retained = None


def alias_of(tensor: "Tensor") -> Alias:
    """The alias of ``tensor``, which gets a storage of its own if it has none."""
    alias = tensor._alias
    if alias is None:
        counter = Counter()
        storage = Storage(tensor._elements)
        alias = tensor._alias = Alias(storage, counter)
        storage.add(tensor, counter)
    return alias


def share(tensor: "Tensor", owner: "Tensor", counter: Counter | None = None) -> "Tensor":
    """Lets ``tensor`` show what ``owner`` shows, with the same count of changes unless another is given."""
    alias = alias_of(owner)
    counter = counter or alias.counter
    if owner._inference:
        tensor.__class__ = owner._in_inference
    tensor._alias = Alias(alias.storage, counter, alias.path, alias.in_row)
    alias.storage.add(tensor, counter)
    for watcher in mode.watchers:
        watcher.shared(tensor, owner, None)
    return tensor


# --- superseded arrays ------------------------------------------------------------------------------------------------


class _Superseded(NamedTuple):
    array: weakref.ref[Any]
    counter: Counter
    version: int  # at which the array was current
    tensor: "weakref.ref[Tensor]"
    writer: int | None  # the order of the node that made its successor; reads the array as it was, legally


class _Alive(weakref.ref[Any]):
    """A reference to a superseded array that knows where to find it among these when it dies."""

    __slots__ = ("key",)
    key: int


superseded: dict[int, _Superseded] = {}
"""By id, the arrays that are alive and were replaced by a change in place."""


def _forget(dead: Any) -> None:
    superseded.pop(dead.key, None)


def supersede(
    storage: Storage, counter: Counter, writer: int | None, op: str = "a change", sizes: tuple[int, ...] = ()
) -> None:
    """One more change is counted, and all arrays that were current for its counter are superseded.

    ``op`` changed elements of these sizes; that, and the user's line, is kept for who asks who did it.
    """
    for tensor, ref, seen_by in storage.shown:
        array = _behind(ref)
        if array is not None and type(array) is not Value and seen_by is counter:
            alive = _Alive(array, _forget)
            alive.key = id(array)
            superseded[alive.key] = _Superseded(alive, counter, counter.version, tensor, writer)
    if counter.changes is None:
        counter.changes = deque(maxlen=MAX_CHANGES)
    counter.changes.append(Change(counter.version, op, sizes, here()))
    counter.version += 1


def check_versions(node: Node, saved: Sequence[Any]) -> None:
    """Raises RuntimeError if a value that ``node`` saved was changed since, with PyTorch's text."""
    positions = node.plan.positions or ()
    for value, position in zip(saved, positions, strict=True):
        entry = superseded.get(id(value))
        if entry is None or (entry.writer == node.order and position == 0):
            continue  # an op in place may read what it replaces: that is its own operand, of which PyTorch saves a copy
        source, output_nr = node.source(position)
        tensor = entry.tensor()
        edge = None if tensor is None else tensor._edge
        if (
            isinstance(source, AccumulateGrad)
            and edge
            and isinstance(edge[0], AccumulateGrad)
            and edge[0] is not source
        ):
            continue  # two leaves were made of the same array, and it is the other that was changed
        if tensor is not None and tensor.grad_fn is not None and position < len(node.operand_edges):
            source, output_nr = tensor.grad_fn, tensor.output_nr  # an operand's present history, as PyTorch says it
        made = "" if source is None or isinstance(source, AccumulateGrad) else f"output {output_nr} of {source.name()}"
        text = modified_text(value, entry.counter.version, entry.version, made)
        changes, versions = entry.counter.changes or (), (entry.version, entry.counter.version)
        error = ModifiedInPlace(text, node, position, changes, versions, tensor, _showing(entry.counter, tensor))
        error.tell(None)
        for watcher in mode.watchers:
            watcher.refused(error)
        raise error


def _showing(counter: Counter, tensor: "Tensor | None") -> "list[Tensor]":
    """The Tensors that share the storage of ``tensor`` and its count."""
    if tensor is None or tensor._alias is None:
        return []
    return [t for t in tensor._alias.storage.tensors() if t._alias is not None and t._alias.counter is counter]


def modified_text(array: Any, version: int, expected: int, made: str = "") -> str:
    """PyTorch's text for a saved array that was changed; ``made`` says which node's output it is."""
    return MODIFIED.format(
        type=f"torch.{type_name(array.dtype)}Tensor",
        sizes=list(array.shape),
        output=made and f", which is {made},",
        version=version,
        expected=expected,
        hint=HINT if mode.anomaly is None else HINT_OF_ANOMALY,
    )


def type_name(dtype: Any) -> str:
    """PyTorch's word for a dtype: ``Float``."""
    return TYPES.get(str(dtype), str(dtype))
