"""What is kept for derivatives, and hence which changes in place are legal before ``backward``.

What flows in: the table of rules, whose signatures say what is saved; or a function and arguments, whose recorded nodes
do. What flows out: a table. Read :func:`save_map`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import tree_map

from twograd import rules
from twograd._table import TextTable
from twograd.tape.modes import Watcher, enable_grad, watched_by
from twograd.tape.names import saved_names
from twograd.tape.node import Node
from twograd.tape.tensor import Tensor


@dataclass(frozen=True)
class SaveRow:
    """One op, differentiated in the operands ``wrt``.

    ``saves`` names what is kept: operands, and ``out`` or ``result`` for what the op returns. ``may_change`` are the
    operands that may be changed in place before ``backward``, and ``result_may_change`` says whether the result may.
    """

    op: str
    wrt: tuple[str, ...]
    saves: tuple[str, ...]
    may_change: tuple[str, ...]
    result_may_change: bool

    @property
    def kind(self) -> str:
        """``operand``, ``result``, ``both`` or ``neither``: what is saved."""
        result = not self.result_may_change
        operand = any(not name.startswith(("out", "result", "intermediate")) for name in self.saves)
        return {(True, True): "both", (True, False): "operand", (False, True): "result"}.get(
            (operand, result), "neither"
        )


class SaveMap(Sequence[SaveRow]):
    """The rows, as a table that prints itself, also in a notebook."""

    def __init__(self, rows: Sequence[SaveRow], title: str, notes: Sequence[str] = ()):
        self.rows, self._title, self._notes = tuple(rows), title, tuple(notes)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, op: str) -> list[SaveRow]:
        """The rows of one op."""
        return [row for row in self.rows if row.op == op]

    @property
    def table(self) -> TextTable:
        def names(given: Sequence[str], otherwise: str) -> str:
            return ", ".join(given) or otherwise

        cells = [
            [row.op, names(row.wrt, "-"), row.kind, names(row.saves, "nothing"), names(row.may_change, "none"),
             "yes" if row.result_may_change else "no"]
            for row in self.rows
        ]  # fmt: skip
        columns = ["op", "differentiated in", "saved", "which", "operands that may change", "result may change"]
        return TextTable(self._title, columns, cells, self._notes)

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def save_map(function: Callable[..., Any] | None = None, *args: Any) -> SaveMap:
    """What each op saves, and which changes in place of its operands and of its result are therefore legal.

    Without arguments: every primitive, one row per operand that it can be differentiated in, as at primitive level.

    With a ``function`` of Tensors and its arguments (Tensors or arrays; those of a real or complex dtype are
    differentiated in): one row per node that it records, in order, at the present granularity. That is what the tape
    really keeps, as an op made of several primitives may keep an intermediate value, which nobody can change.
    """
    if function is None:
        return SaveMap(list(_of_rules()), "What each primitive's rule reads", [NOTE])
    nodes: list[Node] = []

    class Collecting(Watcher):
        def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
            nodes.append(node)

    def operand(leaf: Any) -> Any:
        data = leaf._data if isinstance(leaf, Tensor) else leaf
        is_array = isinstance(data, jax.Array) or hasattr(data, "__array__")
        return Tensor(data, rules.carries_gradient(Tensor(data)._data.aval)) if is_array else leaf

    operands = tree_map(operand, args, is_leaf=lambda leaf: isinstance(leaf, Tensor))
    with enable_grad(), watched_by(Collecting()):
        function(*operands)
    return SaveMap([_of_node(node) for node in nodes], f"What {getattr(function, '__name__', 'the function')} saves")


NOTE = "Primitives that carry programs (scan, cond, jit, ...) keep what the rules within these programs read."


def _of_rules() -> Iterator[SaveRow]:
    for row in rules.save_map():
        rule = next(rule for primitive, rule in rules.table.items() if primitive.name == row.primitive)
        operands = tuple(name.removeprefix("*") for name in rule.operands)
        free = tuple(name for name in operands if name not in row.saves)
        yield SaveRow(row.primitive, (row.operand,), row.saves, free, not {"out", "outs"} & set(row.saves))


def _of_node(node: Node) -> SaveRow:
    plan = node.plan
    operands, positions = len(plan.wanted), plan.positions or ()
    names = dict(zip(positions, saved_names(plan), strict=True))
    labels = [names.get(i, f"operand {i}") for i in range(operands)]
    outs = range(operands, operands + getattr(plan, "num_outs", plan.num_results))
    return SaveRow(
        node.name(),
        tuple(label for label, want in zip(labels, plan.wanted, strict=True) if want),
        tuple(names[i] for i in sorted(names)),
        tuple(label for i, label in enumerate(labels) if i not in names),
        not any(i in names for i in outs),
    )
