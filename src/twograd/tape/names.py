"""What PyTorch calls the nodes of ops, and what they save.

What flows in: the function that an op runs, and the types of its operands. What flows out: names. Read
:func:`node_name`.
"""

from collections.abc import Sequence
from typing import Any

NAMES = {
    "absolute": "Abs", "arctan2": "Atan2", "broadcast_to": "Expand", "clamp": "Clamp", "divide": "Div",
    "expand_dims": "Unsqueeze", "log1p": "Log1P", "mul": "Mul", "multiply": "Mul", "negative": "Neg",
    "norm": "LinalgVectorNorm", "outer": "Mul", "power": "Pow", "reshape": "View", "square": "Pow", "subtract": "Sub",
    "swapaxes": "Transpose", "tile": "Repeat", "to": "ToCopy", "transpose": "Permute", "true_divide": "Div",
}  # fmt: skip
MATMUL = {(2, 2): "Mm", (2, 1): "Mv", (1, 1): "Dot", (3, 3): "Bmm"}  # by the operands' numbers of dimensions
OVERLOADS = {"ClampBackward0": "ClampBackward1"}
ALONG_A_DIMENSION = {
    "sum": "SumBackward1", "mean": "MeanBackward1", "prod": "ProdBackward1", "squeeze": "SqueezeBackward1",
    "max": "MaxBackward0", "min": "MinBackward0",
}  # fmt: skip
OF_EVERYTHING = {"max": "MaxBackward1", "min": "MinBackward1"}

NUMBERS_ARE_STRUCTURE = frozenset({
    "ClampBackward1", "IndexBackward0", "MaskedFillBackward0", "PowBackward0", "PowBackward2", "SelectBackward0",
    "SliceBackward0", "torch::autograd::CopySlices",
})  # fmt: skip
"""Ops whose Python numbers PyTorch does not count among the operands."""

OPERANDS = {
    "MmBackward0": ("self", "mat2"), "BmmBackward0": ("self", "mat2"), "MvBackward0": ("self", "vec"),
    "DotBackward0": ("self", "tensor"), "PowBackward0": ("self", "exponent"), "PowBackward1": ("self", "exponent"),
    "PowBackward2": ("self", "exponent"), "WhereBackward0": ("condition", "self", "other"),
    "MaskedFillBackward0": ("self", "mask", "value"), "IndexBackward0": ("self", "indices"),
}  # fmt: skip
"""The operands' names; ``self`` and ``other`` where nothing is said."""


NOT_IMPLEMENTED = "torch::autograd::NotImplemented"
"""The name of the node of an op whose derivative PyTorch refuses."""


def node_name(function: Any, avals: Sequence[Any] = ()) -> str:
    """The name of an op's node, after PyTorch: ``jnp.tanh`` makes a ``TanhBackward0``.

    A function may say what is built into it as its ``structure``: the axis, say. PyTorch numbers its overloads.
    """
    name = getattr(function, "__name__", None) or getattr(function, "name", type(function).__name__)
    if getattr(function, "no_derivative", False):
        return NOT_IMPLEMENTED
    name = name.strip("_<>")
    structure = getattr(function, "structure", None)
    if name == "CopySlices":
        return "torch::autograd::CopySlices"
    if structure is not None:
        along = bool(structure) and structure[0] is not None
        table = ALONG_A_DIMENSION if along else OF_EVERYTHING
        if name in table:
            return table[name]
    if name == "matmul" and avals:
        return f"{MATMUL.get(tuple(aval.ndim for aval in avals), 'Matmul')}Backward0"
    words = NAMES.get(name) or "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    if words == "Pow" and len(avals) == 2:
        numbers = [aval.weak_type and not aval.shape for aval in avals]
        return "PowBackward2" if numbers[0] else "PowBackward0" if numbers[1] else "PowBackward1"
    return OVERLOADS.get(f"{words}Backward0", f"{words}Backward0")


def forward_name(name: str) -> str:
    """What PyTorch's errors about changes in place call the op of a node: ``Mul`` for ``MulBackward0``, ``Pow1`` for
    ``PowBackward1``."""
    op, _, number = name.rpartition("::")[2].rpartition("Backward")
    return op + number.lstrip("0")


def saved_names(plan: Any) -> tuple[str, ...]:
    """For each value that a node saves, PyTorch's name for that operand or result of its op."""
    operands = len(plan.wanted)
    given = OPERANDS.get(plan.name, ("self", "other"))

    def name(position: int) -> str:
        if position < 0:
            return "constant"  # saved by a custom Function
        if position < operands:
            return given[position] if position < len(given) else f"operand{position}"
        result = position - operands
        if result < plan.num_outs:
            return "result" if plan.num_outs == 1 else f"result{result}"
        return f"intermediate{result}"

    return tuple(map(name, plan.positions or ()))
