"""Hooks of Modules on the way back: what they are called with, and when.

What flows in: the operands and the results of one call of a Module. What flows out: the same, through a node at either
end, at which the gradients come by. So nothing inside of the Module need be known. Read :class:`BackwardHooks`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twograd.tape import Tensor, is_grad_enabled
from twograd.tape.autograd.function import Function

Grads = tuple[Any, ...]
Hook = Callable[..., Any]


class BackwardHookFunction(Function):
    """Hands its operands on, as PyTorch's of this name, which errors and graphs show."""

    @staticmethod
    def forward(ctx: Any, *xs: Any) -> Any:
        return xs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads


class _Places(NamedTuple):
    """Which of ``count`` operands, or results, require a gradient."""

    at: tuple[int, ...]
    count: int

    def spread(self, grads: Sequence[Any]) -> Grads:
        """The gradients with None where there is no gradient."""
        given = dict(zip(self.at, grads, strict=True))
        return tuple(given.get(i) for i in range(self.count))

    def picked(self, grads: Sequence[Any]) -> Grads:
        """The other way round."""
        return tuple(grads[i] for i in self.at)


def _through_a_node(values: Grads) -> tuple[Grads, Any, _Places]:
    """The values, those that require a gradient as results of one new node; and it, None if none does."""
    places = _Places(
        tuple(i for i, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad), len(values)
    )
    if not places.at or not is_grad_enabled():
        return values, None, places._replace(at=())
    through = BackwardHookFunction.apply(*places.picked(values))
    made = dict(zip(places.at, through, strict=True))
    return tuple(made.get(i, value) for i, value in enumerate(values)), through[0].grad_fn, places


class BackwardHooks:
    """Of one call of ``module``: calls ``pre_hooks`` with the gradients of its results, and ``hooks`` with those of its
    operands too, in PyTorch's order. What a hook returns takes the place of the gradients of the results, or operands.
    """

    def __init__(self, module: Any, pre_hooks: Sequence[Hook], hooks: Sequence[Hook]):
        self._module, self._pre_hooks, self._hooks = module, pre_hooks, hooks
        self._grad_outputs: Grads | None = None

    def operands(self, args: Grads) -> Grads:
        """The operands that the Module is to be called with."""
        args, node, self._inputs = _through_a_node(args)
        if node is not None:
            node.register_hook(self._at_operands)
        return args

    def results(self, result: Any) -> Any:
        """The result that its caller is to get."""
        results, node, self._outputs = _through_a_node(result if isinstance(result, tuple) else (result,))
        if node is not None:
            node.register_prehook(self._at_results)
        return results if isinstance(result, tuple) else results[0]

    def _at_results(self, grads: Grads) -> Grads:
        grad_outputs = self._outputs.spread(grads)
        for hook in self._pre_hooks:
            grad_outputs = _replaced(hook(self._module, grad_outputs), grad_outputs, "grad_output")
        self._grad_outputs = grad_outputs
        if not self._inputs.at:
            for hook in self._hooks:
                given = hook(self._module, self._inputs.spread(()), grad_outputs)
                if given is not None and any(grad is not None for grad in given):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should always return None or None "
                        "for all gradients."
                    )
        return self._outputs.picked(grad_outputs)

    def _at_operands(self, grads: Grads, _: Grads) -> Grads:
        if self._grad_outputs is None:
            return grads  # they came by another way than through the results, as those of a second derivative may
        grad_inputs = self._inputs.spread(grads)
        for hook in self._hooks:
            grad_inputs = _replaced(hook(self._module, grad_inputs, self._grad_outputs), grad_inputs, "grad_input")
        self._grad_outputs = None
        return self._inputs.picked(grad_inputs)


def _replaced(given: Any, grads: Grads, what: str) -> Grads:
    if given is None:
        return grads
    given = given if isinstance(given, tuple) else (given,)
    if len(given) != len(grads):
        raise RuntimeError(
            f"Backward hook returned an invalid number of {what}, got {len(given)}, but expected {len(grads)}"
        )
    return given
