"""Checkpoints: a part of a program whose saved values are dropped, and computed again when the way back needs them.

What flows in: a function of Tensors and its arguments. What flows out: its results, whose nodes hold nothing but where
to ask for what they saved. Read :func:`checkpoint`, then :class:`_Frame`. The names and texts are those of
``torch.utils.checkpoint``.

Without ``use_reentrant`` the function's nodes are part of the graph as usual, and hooks of saved values stand for the
values: the first that is asked for in a walk back runs the function once more, and that run's saved values are handed
out. With it the whole call is one node, whose ``backward`` runs the function and walks back through that run.
"""

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twograd.tape.autograd.function import Function
from twograd.tape.factories import get_rng_state, set_rng_state
from twograd.tape.gradients import backward
from twograd.tape.modes import Granularity, Walk, Watcher, enable_grad, granularity, mode, no_grad, watched_by
from twograd.tape.saved import Packed, saved_tensors_hooks
from twograd.tape.storage import modified_text, superseded
from twograd.tape.tensor import Tensor, make_tensor

PASS_EXPLICITLY = (
    "{name}: the use_reentrant parameter should be passed explicitly. Starting in PyTorch 2.9, calling checkpoint "
    "without use_reentrant will raise an exception. use_reentrant=False is recommended, but if you need to preserve "
    "the current default behavior, you can pass use_reentrant=True. Refer to docs for more details on the differences "
    "between the two variants."
)
TIP = (
    "Tip: To see a more detailed error message, either pass `debug=True` to `torch.utils.checkpoint.checkpoint(...)` "
    "or wrap the code block with `with torch.utils.checkpoint.set_checkpoint_debug_enabled(True):` to enable "
    "checkpoint-debug mode globally."
)

Contexts = tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]


class CheckpointError(RuntimeError):
    """The function did not save the same values when it ran again."""


class _Settings:
    """What ``set_checkpoint_early_stop`` and ``set_checkpoint_debug_enabled`` set; None is what the call says."""

    early_stop: bool | None = None
    debug: bool | None = None


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Whether checkpoints made inside run only as far as is needed when they run again, whatever their call says."""
    previous, _Settings.early_stop = _Settings.early_stop, enable
    try:
        yield
    finally:
        _Settings.early_stop = previous


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Whether checkpoints made inside keep a log of their ops for errors, whatever their call says."""
    previous, _Settings.debug = _Settings.debug, enabled
    try:
        yield
    finally:
        _Settings.debug = previous


def noop_context_fn() -> Contexts:
    """No contexts: the default ``context_fn``."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], Contexts] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, of which the tape saves no more than the arguments.

    On the way back the function runs again: with the same random numbers if ``preserve_rng_state``, in the second of
    the two contexts that ``context_fn`` returns (the first is for the first run), and only until it has saved as much
    as it did, if ``early_stop``. What it saves then must have the shapes and dtypes of before, else CheckpointError;
    ``determinism_check="none"`` does not look. ``debug`` adds the ops of both runs to that error.

    ``use_reentrant=True`` is the older way. It has no keyword arguments, is differentiated by ``backward()`` without
    ``inputs`` only, needs an argument that requires grad, and sees no Tensors in nested arguments.
    """
    if use_reentrant is None:
        warnings.warn(PASS_EXPLICITLY.format(name="torch.utils.checkpoint"), UserWarning, stacklevel=2)
        use_reentrant = True
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
        return CheckpointFunction.apply(function, preserve_rng_state, *args)
    if determinism_check not in ("default", "none"):
        raise ValueError(f"determinism_check should be one of ['default', 'none'], but got {determinism_check}")
    debug = debug if _Settings.debug is None else _Settings.debug
    if debug and context_fn is not noop_context_fn:
        raise ValueError("debug=True is incompatible with non-default context_fn")
    logs = [_Log(), _Log()] if debug else []
    first, again = context_fn()
    if not mode.enabled:
        return function(*args, **kwargs)
    frame = _Frame(function, args, kwargs, again, preserve_rng_state, logs)
    frame.early_stop = early_stop if _Settings.early_stop is None else _Settings.early_stop
    frame.check = determinism_check != "none"
    with saved_tensors_hooks(frame.hide, frame.show), watched_by(*logs[:1]), first:
        results = function(*args, **kwargs)
    frame.complete = True
    return results


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """A chain of functions (a list, or a module with ``children()``), cut into ``segments``: all but the last are
    checkpoints. With about sqrt(n) segments a chain of n needs memory for about 2 sqrt(n)."""
    if use_reentrant is None:
        warnings.warn(
            PASS_EXPLICITLY.format(name="torch.utils.checkpoint.checkpoint_sequential"), UserWarning, stacklevel=2
        )
        use_reentrant = True
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    chain = list(functions.children() if hasattr(functions, "children") else functions)
    size = len(chain) // segments

    def run(part: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
        def forward(value: Any) -> Any:
            for function in part:
                value = function(value)
            return value

        return forward

    done = size * (segments - 1)
    for start in range(0, done, size or 1):
        part = run(chain[start : start + size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return run(chain[done:])(input)


# --- without reentrance: hooks that stand for what is saved -----------------------------------------------------------


class _Stop(BaseException):  # no Exception: nothing between here and the end of the run may take it for an error
    """All that was saved has been saved again."""


class _Place:
    """Stands for a saved value; as long as it lives, somebody may ask for it."""

    __slots__ = ("__weakref__", "index")

    def __init__(self, index: int):
        self.index = index


class _Frame:
    """One call of :func:`checkpoint`: how to run it again, and what it saved, in order.

    ``again`` has for each walk back that asked what the second run saved and nobody took yet. Each value is handed out
    once, so that it lives no longer than the walk of its node.
    """

    early_stop = True
    check = True
    complete = False

    def __init__(
        self, function: Callable[..., Any], args: Any, kwargs: Any, context: Any, preserve_rng_state: bool, logs: Any
    ):
        self.function, self.kwargs, self.context, self.logs = function, kwargs, context, logs
        self.args = [_kept(arg) if isinstance(arg, Tensor) else (lambda arg=arg: arg) for arg in args]
        self.rng_state = get_rng_state() if preserve_rng_state else None
        self.level: Granularity = mode.granularity
        self.places: list[weakref.ref[_Place]] = []
        self.types: list[tuple[Any, Any]] = []
        self.again: weakref.WeakKeyDictionary[Walk, dict[int, Tensor]] = weakref.WeakKeyDictionary()

    def hide(self, tensor: Tensor) -> _Place:
        place = _Place(len(self.places))
        self.places.append(weakref.ref(place))
        self.types.append((tensor.shape, tensor.dtype))
        return place

    def show(self, place: _Place) -> Tensor:
        walk = mode.walk or Walk((), None)  # somebody looks at a saved value outside of a walk
        found = self.again.get(walk, {})
        if place.index not in found:
            found = self.again[walk] = self._run()
        return found.pop(place.index)

    def _run(self) -> dict[int, Tensor]:
        """Runs the function again, and returns what it saves."""
        again = _SecondRun(self)
        args = [arg() for arg in self.args]
        for log in self.logs[1:]:
            log.ops.clear()
        with (
            _rng_from(self.rng_state),
            granularity(self.level),
            enable_grad(),
            saved_tensors_hooks(again.collect, lambda tensor: tensor),
            watched_by(*self.logs[1:]),
            self.context,
            contextlib.suppress(_Stop),
        ):
            self.function(*args, **self.kwargs)
        if not again.inner_walk:
            self._compare(again)
        return again.found

    def _compare(self, again: "_SecondRun") -> None:
        if again.count != len(self.places):
            raise self.error(
                "A different number of tensors was saved during the original forward and recomputation.\n"
                f"Number of tensors saved during forward: {len(self.places)}\n"
                f"Number of tensors saved during recomputation: {again.count}."
            )
        different = [
            f"tensor at position {i}:\nsaved metadata: {_metadata(*self.types[i])}\n"
            f"recomputed metadata: {_metadata(x.shape, x.dtype)}\n"
            for i, x in again.found.items()
            if self.types[i] != (x.shape, x.dtype)
        ]
        if self.check and different:
            raise self.error(
                "Recomputed values for the following tensors have different metadata than during the forward pass.\n"
                f"{''.join(different)}."
            )

    def error(self, text: str) -> CheckpointError:
        if not self.logs:
            return CheckpointError(f"torch.utils.checkpoint: {text}\n{TIP}")
        before, again = ("\n".join(log.ops) for log in self.logs)
        return CheckpointError(
            f"torch.utils.checkpoint: {text}\n\nOperations executed during the original forward:\n\n{before}\n\n"
            f"Operations executed during recomputation:\n\n{again}"
        )


class _SecondRun:
    """What is saved as the function runs again: what somebody may still ask for is collected, in ``found``."""

    def __init__(self, frame: _Frame):
        self.found: dict[int, Tensor] = {}
        self.count = 0
        self.inner_walk = False  # the first run is not over: it walks back through what it has done itself
        self._frame = frame

    def collect(self, tensor: Tensor) -> Tensor:
        frame, i = self._frame, self.count
        tensor = make_tensor(tensor._data, None)
        self.count += 1
        if i >= len(frame.places):
            if frame.complete:
                raise frame.error(
                    "trying to save more tensors during recomputation than during the original forward pass."
                )
            self.inner_walk = True
            return tensor
        if frame.places[i]() is not None:
            self.found[i] = tensor
        if frame.early_stop and self.count == len(frame.places):
            raise _Stop
        return tensor


class _Log(Watcher):
    """The ops of a run."""

    def __init__(self) -> None:
        self.ops: list[str] = []

    def op_done(self, function: Callable[..., Any], operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        given, made = (", ".join(x._data.aval.str_short() for x in xs) for xs in (operands, outputs))
        self.ops.append(f"{getattr(function, '__name__', function)}({given}) -> {made}")


def _metadata(shape: Any, dtype: Any) -> dict[str, Any]:
    return {"shape": tuple(shape), "dtype": dtype}


def _kept(arg: Tensor) -> Callable[[], Tensor]:
    """How an argument is found again: as the hooks around the checkpoint keep it, which may be another checkpoint's, or
    as it is now. RuntimeError if it was changed in place since."""
    hooks = next((watcher for watcher in mode.watchers if isinstance(watcher, saved_tensors_hooks)), None)
    edge, version = arg._edge, arg._version
    if hooks is not None:
        packed = Packed(arg, hooks.pack_hook, hooks.unpack_hook)
        return lambda: make_tensor(packed.value(), edge)
    array = arg._data

    def found() -> Tensor:
        if id(array) in superseded:
            raise RuntimeError(modified_text(array, superseded[id(array)].counter.version, version))
        return make_tensor(array, edge)

    return found


@contextlib.contextmanager
def _rng_from(state: Tensor | None) -> Iterator[None]:
    """Random numbers as from ``state``; afterwards they go on as if nothing had been drawn."""
    if state is None:
        yield
        return
    previous = get_rng_state()
    set_rng_state(state)
    try:
        yield
    finally:
        set_rng_state(previous)


# --- reentrant: one node ----------------------------------------------------------------------------------------------


def check_backward_validity(inputs: Iterable[Any]) -> None:
    """Warns if none of the inputs requires grad."""
    if not any(x.requires_grad for x in inputs if isinstance(x, Tensor)):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The Tensors of a tuple as leaves, that require grad if they did."""
    if not isinstance(inputs, tuple):
        raise RuntimeError(f"Only tuple of tensors is supported. Got Unsupported input type: {type(inputs).__name__}")
    return tuple(x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs)


class CheckpointFunction(Function):
    """A call as one node."""

    @staticmethod
    def forward(ctx: Any, run_function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        check_backward_validity(args)
        ctx.run_function = run_function
        ctx.rng_state = get_rng_state() if preserve_rng_state else None
        ctx.inputs = [None if isinstance(x, Tensor) else x for x in args]
        ctx.tensor_indices = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.tensor_indices))
        with no_grad():
            return run_function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if mode.walk is not None and mode.walk.needed is not None:
            raise RuntimeError(
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or passing an `inputs` "
                "parameter to .backward(). To resolve this error, you can either set use_reentrant=False, or call "
                ".backward() without passing the `inputs` argument."
            )
        inputs = list(ctx.inputs)
        for i, tensor in zip(ctx.tensor_indices, ctx.saved_tensors, strict=True):
            inputs[i] = tensor
        leaves = detach_variable(tuple(inputs))
        with _rng_from(ctx.rng_state), enable_grad():
            outputs = ctx.run_function(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(y, grad) for y, grad in zip(outputs, grads, strict=True) if isinstance(y, Tensor) and y.requires_grad]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        backward([y for y, _ in pairs], [grad for _, grad in pairs])
        return (None, None, *(x.grad if isinstance(x, Tensor) else None for x in leaves))
