"""Functions with a derivative of the user's own: ``torch.autograd.Function``.

What flows in: a subclass with ``forward`` and ``backward``, and the arguments of its ``apply``. What flows out: what
``forward`` returns, with a node whose walk calls ``backward``. Read :class:`Function`, then
:meth:`FunctionNode.own_pull`.

As in PyTorch the node is the context: what ``forward`` keeps as ``ctx.name`` is an attribute of ``grad_fn``.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from twograd import rules
from twograd.tape.apply import apply
from twograd.tape.chain import settled
from twograd.tape.hooks import as_tensor
from twograd.tape.modes import mode, no_grad
from twograd.tape.node import Node, Nowhere, Rare
from twograd.tape.plan import Plan
from twograd.tape.saved import read_saved
from twograd.tape.storage import Alias, Refusal, alias_of
from twograd.tape.tensor import Tensor, make_tensor
from twograd.tape.views import write

CONSTANT = -1  # stands among the positions of what is saved for a Tensor that is neither operand nor result


class _FunctionPlan(Plan):
    """What a node is asked about its plan; of each call its own."""

    def __init__(self, name: str, args: Sequence[Any], wanted: tuple[bool, ...]):
        super().__init__()
        self.name = name
        self.wanted = wanted
        self.could_want = tuple(isinstance(arg, Tensor) for arg in args)
        self.num_outs = self.num_results = 0
        self.positions = ()
        self.differentiable = ()
        self._avals = [arg._data.aval if isinstance(arg, Tensor) else None for arg in args]

    def finish(self, outputs: Sequence[Any], differentiable: tuple[bool, ...]) -> None:
        """Takes note of what ``forward`` returned."""
        self.num_outs = self.num_results = len(outputs)
        self.differentiable = differentiable
        self._avals += [out._data.aval if isinstance(out, Tensor) else None for out in outputs]


class FunctionCtx:
    """What ``forward``, ``setup_context`` and ``backward`` get as ``ctx``. Any attribute can be set on it."""

    needs_input_grad: tuple[bool, ...]
    to_save: tuple[Tensor | None, ...] = ()
    saved_for_forward: tuple[Tensor | None, ...] = ()
    dirty_tensors: tuple[Tensor, ...] = ()
    non_differentiable: tuple[Tensor, ...] = ()
    materialize_grads = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps Tensors (or None) for ``backward``, which finds them in ``ctx.saved_tensors``, checked for changes in
        place. Operands and results must be kept this way, not as attributes."""
        for i, tensor in enumerate(tensors):
            if not (tensor is None or isinstance(tensor, Tensor)):
                kind = type(tensor).__name__
                raise TypeError(f"save_for_backward can only save variables, but argument {i} is of type {kind}")
        self.to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keeps Tensors for ``jvp``, which finds them in ``ctx.saved_tensors``."""
        self.saved_for_forward = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Says which operands ``forward`` changes in place; it must return them."""
        if not all(isinstance(arg, Tensor) for arg in args):
            raise RuntimeError("mark_dirty can only accept variables")
        self.dirty_tensors = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Says which results have no gradient."""
        self.non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros for a result without gradient (the default), or None."""
        self.materialize_grads = bool(value)


class FunctionNode(Node, FunctionCtx):
    """The node of one call of a Function. Its class has the name ``MyFunctionBackward``."""

    function: ClassVar[type["Function"]]
    plan: _FunctionPlan
    _none_at: tuple[int, ...] = ()

    def __init__(self, args: Sequence[Any]):
        self.needs_input_grad = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        edges = [arg._edge for arg, needs in zip(args, self.needs_input_grad, strict=True) if needs]
        super().__init__(_FunctionPlan(type(self).__name__, args, self.needs_input_grad), edges, [])
        self.rare = Rare()  # it is not walked as others are

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What ``save_for_backward`` kept; RuntimeError if it was freed, or changed in place since. If there is what
        ``save_for_forward`` kept, it is that."""
        if self.saved_for_forward:
            return self.saved_for_forward
        found: list[Tensor | None] = [read_saved(self, i) for i in range(len(self.require_saved()))]
        for i in self._none_at:
            found.insert(i, None)
        return tuple(found)

    def source(self, position: int) -> tuple[Node | None, int]:
        return (None, 0) if position == CONSTANT else super().source(position)

    def save(self, args: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keeps what ``save_for_backward`` was given. The node holds arrays and where they come from, not Tensors: so
        a result that is saved makes no cycle."""
        places = {id(x): i for i, x in enumerate(outputs, len(args)) if isinstance(x, Tensor)}
        places.update((id(x), i) for i, x in enumerate(args) if not _among(x, self.dirty_tensors))
        tensors = [tensor for tensor in self.to_save if tensor is not None]
        self.plan.positions = tuple(places.get(id(tensor), CONSTANT) for tensor in tensors)
        self.saved = [tensor._data for tensor in tensors]
        self._none_at = tuple(i for i, tensor in enumerate(self.to_save) if tensor is None)
        self.to_save = ()  # else a Tensor that is a result would be held
        for watcher in mode.watchers:
            watcher.node_made(self, tensors)

    def own_pull(self, cts: Sequence[Any], keep: bool, recorded: bool) -> Sequence[Any]:
        """The walk of this node: the cotangents for its edges, from the user's ``backward``."""
        grads = [as_tensor(settled(ct)) for ct in cts]
        if self.materialize_grads:
            grads = [
                make_tensor(jnp.zeros(aval.shape, aval.dtype), None) if grad is None and aval is not None else grad
                for grad, aval in zip(grads, self.plan.result_avals, strict=True)
            ]
        returned = self.function._backward_of()(self, *grads)
        in_grads = self._checked(returned if isinstance(returned, tuple) else (returned,))
        if not keep:
            self.saved = None
        return [grad if grad is None or recorded else grad._data for grad in in_grads]

    def _checked(self, grads: tuple[Any, ...]) -> list[Tensor | None]:
        """For each edge the gradient among those that ``backward`` returned for all arguments, in the operand's shape
        and dtype; RuntimeError if there are more or fewer, or one that does not fit."""
        plan, expected = self.plan, len(self.needs_input_grad)
        if len(grads) > expected and all(grad is None for grad in grads[expected:]):
            grads = grads[:expected]
        if len(grads) != expected:
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected {expected}, got "
                f"{len(grads)})"
            )
        for i, (grad, is_tensor) in enumerate(zip(grads, plan.could_want, strict=True)):
            if not is_tensor and grad is not None:
                raise RuntimeError(
                    f"function {self.name()} returned a gradient different than None at position {i + 1}, but the "
                    "corresponding forward input was not a Variable"
                )
            if not (grad is None or isinstance(grad, Tensor)):
                raise RuntimeError(f"expected Variable or None (got {type(grad).__name__})")
        of_tensors = [grad for grad, is_tensor in zip(grads, plan.could_want, strict=True) if is_tensor]
        avals = [aval for aval in plan.operand_avals if aval is not None]
        wanted = [want for want, is_tensor in zip(plan.wanted, plan.could_want, strict=True) if is_tensor]
        return [
            None if grad is None else self._fitting(i, grad, aval)
            for i, (grad, aval, want) in enumerate(zip(of_tensors, avals, wanted, strict=True))
            if want
        ]

    def _fitting(self, i: int, grad: Tensor, aval: Any) -> Tensor:
        if grad.shape != aval.shape:
            try:
                fits = jnp.broadcast_shapes(aval.shape, grad.shape) == grad.shape
            except ValueError:
                fits = False
            if not fits:
                raise RuntimeError(
                    f"Function {self.name()} returned an invalid gradient at index {i} - got {list(grad.shape)} but "
                    f"expected shape compatible with {list(aval.shape)}"
                )
            grad = apply(_summing_to(aval.shape), grad)
        if grad.dtype != aval.dtype:
            if jnp.issubdtype(grad.dtype, jnp.complexfloating) and not jnp.issubdtype(aval.dtype, jnp.complexfloating):
                raise RuntimeError(
                    f"Function {self.name()} returned an invalid gradient at index {i} - expected dtype {aval.dtype} "
                    f"but got {grad.dtype}"
                )
            grad = apply(jnp.astype, grad, aval.dtype)
        return grad


@functools.lru_cache(maxsize=1024)
def _summing_to(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    def sum_to(x: Any) -> Any:
        x = jnp.sum(x, tuple(range(x.ndim - len(shape))))
        return jnp.sum(x, tuple(i for i, size in enumerate(shape) if size != x.shape[i]), keepdims=True)

    return sum_to


class Function:
    """An op with a derivative of its own. Subclass it, and call the subclass's ``apply``.

    ``forward(ctx, *args)`` computes on Tensors, unrecorded; ``ctx.save_for_backward`` keeps some for
    ``backward(ctx, *grad_outputs)``, which returns a gradient, or None, for each argument of ``forward``. Or
    ``forward(*args)`` has no context, and ``setup_context(ctx, inputs, output)`` keeps what is to be kept. ``backward``
    is recorded in its turn under ``create_graph``, so it can be differentiated if it is made of Tensor operations.

    Raises RuntimeError on the way back if ``backward`` returns a wrong number of gradients, or one of a wrong shape.
    """

    _node_type: ClassVar[type[FunctionNode]]

    def __init__(self, *args: Any, **kwargs: Any):
        warnings.warn(
            f"{type(self)!r} should not be instantiated. Methods on autograd functions are all static, so you should "
            "invoke them on the class itself. Instantiating an autograd function will raise an error in a future "
            "version of PyTorch.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls._node_type = type(f"{cls.__name__}Backward", (FunctionNode,), {"function": cls})

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the results, Tensors or anything else; several in a tuple."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keeps what ``backward`` needs, of a ``forward`` without ``ctx``."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients with respect to the arguments, from those with respect to the results."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """The tangents of the results, from those of the arguments, for forward mode."""
        raise NotImplementedError(
            "You must implement the jvp function for custom autograd.Function to use it with forward mode AD."
        )

    @classmethod
    def _backward_of(cls) -> Callable[..., Any]:
        own, other = cls.backward is not Function.backward, cls.vjp is not Function.vjp
        if own and other:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only "
                "implement one of them."
            )
        return cls.vjp if other else cls.backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Calls ``forward``, and records the call if an argument requires grad."""
        separate = cls.setup_context is not Function.setup_context
        if separate or kwargs:
            bound = inspect.signature(cls.forward).bind(*(() if separate else (None,)), *args, **kwargs)
            bound.apply_defaults()
            args = bound.args if separate else bound.args[1:]
        ctx = cls._node_type(args)
        with no_grad():
            returned = cls.forward(*args) if separate else cls.forward(ctx, *args)
            if separate:
                cls.setup_context(ctx, args, returned)
        outputs = returned if isinstance(returned, tuple) else (returned,)
        recorded = mode.enabled and any(ctx.needs_input_grad)
        outputs = (_recorded if recorded else _plain)(ctx, args, outputs)
        for watcher in mode.watchers:
            watcher.function_done(cls, ctx, args, outputs)
        return outputs if isinstance(returned, tuple) else outputs[0]


def _among(x: Any, tensors: Sequence[Any]) -> bool:
    return any(x is tensor for tensor in tensors)


def _check_dirty(ctx: FunctionNode, outputs: Sequence[Any]) -> None:
    if not all(_among(tensor, outputs) for tensor in ctx.dirty_tensors):
        raise RuntimeError(
            "Some elements marked as dirty during the forward method were not returned as output. The inputs that are "
            "modified inplace must all be outputs of the Function."
        )


def _plain(ctx: FunctionNode, args: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs of a call that is not recorded."""
    _check_dirty(ctx, outputs)
    for x in ctx.dirty_tensors:
        write(x, make_tensor(jnp.copy(x._data), None))
    return tuple(
        out.detach() if isinstance(out, Tensor) and _among(out, args) and not _among(out, ctx.dirty_tensors) else out
        for out in outputs
    )


def _recorded(ctx: FunctionNode, args: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs as results of the node ``ctx``."""
    _check_dirty(ctx, outputs)
    differentiable = tuple(
        isinstance(out, Tensor) and rules.carries_gradient(out._data.aval) and not _among(out, ctx.non_differentiable)
        for out in outputs
    )
    ctx.plan.finish(outputs, differentiable)
    last = {id(out): i for i, out in enumerate(outputs)}  # of an output that is returned twice the last one counts
    made: dict[int, Any] = {}
    for i, out in enumerate(outputs):
        if last[id(out)] == i and isinstance(out, Tensor):
            made[id(out)] = _result(ctx, i, out, differentiable[i], args)
    results = tuple(made.get(id(out), out) for out in outputs)
    ctx.save(args, outputs)
    return results


def _result(ctx: FunctionNode, i: int, out: Tensor, differentiable: bool, args: Sequence[Any]) -> Tensor:
    edge = (ctx, i) if differentiable else None
    if _among(out, ctx.dirty_tensors):
        if out.is_leaf and out.requires_grad:
            raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
        return write(out, make_tensor(jnp.copy(out._data), edge))  # a new array, for the present one is superseded
    refusal = Refusal(False, ctx.name(), i, True)
    if _among(out, args):
        of = alias_of(out)
        base, start = (out, of.path) if of.base is None else (of.base, of.start)
        out = make_tensor(out._data, edge)
        out._alias = Alias(of.storage, of.counter, of.path, of.in_row, base, start, refusal)
        of.storage.add(out, of.counter)
        return out
    if out._edge is not None and type(out._edge[0]) is not Nowhere:  # a history that its other holders keep
        return make_tensor(out._data, edge)
    if out._alias is not None and out._alias.base is not None:
        out._alias.refusal = refusal
    out._edge = edge
    return out


# --- once_differentiable ----------------------------------------------------------------------------------------------


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a ``backward`` whose own derivative must not be asked for: it is not recorded, and differentiating what
    it returns raises RuntimeError."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        with no_grad():
            outputs = fn(ctx, *args, **kwargs)
        if not mode.enabled or not any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):
            return outputs
        several = outputs if isinstance(outputs, tuple) else (outputs,)
        leaves = [None if out is None else out.detach().requires_grad_() for out in several]
        refused = _Error.apply(*leaves)
        return refused if isinstance(outputs, tuple) else refused[0]

    return wrapper


class _Error(Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        return args

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


_Error._node_type.__name__ = "Error"
