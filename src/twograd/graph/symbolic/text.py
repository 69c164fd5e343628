"""A symbolic graph as text: a list of its operations, a tree, or one expression."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from twograd.graph.symbolic.container import Graph, Operation, Symbol, sizes
from twograd.graph.text import COMMENT_COLUMN, letters

INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "true_divide": "/", "divide": "/", "matmul": "@", "power": "**",
    "remainder": "%", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==",
}  # fmt: skip
MAX_SHOWN = 6  # elements of an array


def text(graph: Graph, indent: str = "") -> str:
    """All operations, one per line, each with the line of the user's that added it; bodies indented below theirs."""
    lines = []
    for op in graph.operations:
        left = ", ".join(f"{out.op.name}{f':{out.index}' if out.index else ''}: {out.type}" for out in op.outputs)
        line = f"{indent}{left or op.name} = {_expression(op)}"
        if op.control_inputs:
            line += f" after {', '.join(control.name for control in op.control_inputs)}"
        where = op.line.rsplit("/", 1)[-1]
        lines.append(f"{line:<{COMMENT_COLUMN}}  # {where}")
        lines += [
            part
            for body in _bodies(op.call)
            for part in (
                f"{indent}  {body.name.rsplit('/', 1)[-1]}:",
                text(body, indent + "    "),
                f"{indent}    return {', '.join(map(_short, body.results))}",
            )
        ]
    return "\n".join(lines)


def _bodies(call: Any) -> Sequence[Graph]:
    return getattr(getattr(call, "function", None), "bodies", ())


def _expression(op: Operation) -> str:
    return f"{op.type}({', '.join(arguments_of(op.call, [_short(symbol) for symbol in op.inputs]))})"


def _short(symbol: Symbol) -> str:
    return symbol.op.name if symbol.index == 0 else symbol.name


def arguments_of(call: Any, operands: Sequence[str]) -> list[str]:
    """The arguments of the ``call`` that an operation stands for, with ``operands`` in the place of its inputs."""
    arguments = getattr(call, "arguments", None)
    if arguments is None or _bodies(call):
        return list(operands)
    args, kwargs = arguments([_Verbatim(operand) for operand in operands])
    return [*map(_literal, args), *(f"{key}={_literal(value)}" for key, value in kwargs.items())]


class _Verbatim(str):
    """Text that stands for itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _literal(value: Any) -> str:
    if isinstance(value, (np.ndarray, jax.Array)):
        return str(np.asarray(value).tolist()) if value.size <= MAX_SHOWN else f"{value.dtype}{sizes(value.shape)}"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if type(value) in (tuple, list):
        items = ", ".join(map(_literal, value))
        return f"[{items}]" if type(value) is list else f"({items}{',' if len(value) == 1 else ''})"
    return str(value) if isinstance(value, np.dtype) else repr(value)


def debugprint(*symbols: Symbol) -> str:
    """The operations behind ``symbols`` as a tree, Theano's way; what was shown under an id is not repeated."""
    ids: dict[Operation, str] = {}
    lines: list[str] = []
    stack: list[tuple[Symbol, str]] = [(symbol, "") for symbol in reversed(symbols)]
    while stack:
        symbol, indent = stack.pop()
        op, known = symbol.op, symbol.op in ids
        result = f".{symbol.index}" if len(op.outputs) > 1 else ""
        label = f"{op.type}{result} [id {ids.setdefault(op, letters(len(ids), 'A'))}] '{op.name}' {symbol.type}"
        lines.append(f"{indent}{label}")
        if known and op.inputs:
            lines.append(f"{indent} |...")
        elif not known:
            stack += [(operand, f"{indent} |") for operand in reversed(op.inputs)]
    return "\n".join(lines)


def pp(symbol: Symbol) -> str:
    """``symbol`` as one expression, with operators between their operands: ``((x ** 2) * 3.0)``."""
    shown: dict[Symbol, str] = {}
    stack = [symbol]
    while stack:
        top = stack[-1]
        missing = [operand for operand in top.op.inputs if operand not in shown]
        if top in shown or not missing:
            stack.pop()
            shown.setdefault(top, _in_line(top, [shown[operand] for operand in top.op.inputs] if not missing else []))
        stack.extend(missing)
    return shown[symbol]


def _in_line(symbol: Symbol, operands: Sequence[str]) -> str:
    op = symbol.op
    if op.call is None:
        return op.name
    arguments = arguments_of(op.call, operands)
    if op.type in INFIX and len(arguments) == 2:
        return f"({arguments[0]} {INFIX[op.type]} {arguments[1]})"
    if op.type == "constant":
        return arguments[0]
    result = f".{symbol.index}" if len(op.outputs) > 1 else ""
    return f"{op.type}({', '.join(arguments)}){result}"
