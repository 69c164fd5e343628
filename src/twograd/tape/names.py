"""What PyTorch calls the nodes of ops."""

from typing import Any

INDEXING = frozenset({"SelectBackward0", "SliceBackward0", "IndexBackward0", "torch::autograd::CopySlices"})

OPERANDS = {
    "MmBackward0": ("self", "mat2"), "BmmBackward0": ("self", "mat2"), "MvBackward0": ("self", "vec"),
    "DotBackward0": ("self", "tensor"), "PowBackward0": ("self", "exponent"), "PowBackward1": ("self", "exponent"),
    "WhereBackward0": ("condition", "self", "other"),
}  # fmt: skip

NAMES = {
    "multiply": "Mul", "mul": "Mul", "matmul": "Mm", "subtract": "Sub", "true_divide": "Div", "divide": "Div",
    "negative": "Neg", "power": "Pow", "absolute": "Abs",
}  # fmt: skip


def node_name(function: Any) -> str:
    """The name of an op's node, after PyTorch: ``jnp.tanh`` makes a ``TanhBackward0``."""
    name = getattr(function, "__name__", None) or getattr(function, "name", type(function).__name__)
    words = NAMES.get(name) or "".join(word[:1].upper() + word[1:] for word in name.strip("_<>").split("_"))
    return "torch::autograd::CopySlices" if words == "CopySlices" else f"{words}Backward0"


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
