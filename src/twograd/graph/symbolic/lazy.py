"""Laziness: operations that only one branch of an ``ifelse`` needs are run where that branch is taken.

What flows in: the operations of a run, in order. What flows out: for each ``ifelse``, the operations that are put off
until its condition is known. Read :func:`deferred`. It is decided per run: the graph itself holds both branches as
ordinary operands, which can be fed, fetched and differentiated.
"""

from collections.abc import Callable, Iterable, Sequence

from twograd.graph.symbolic.container import Gradient, Operation, Symbol

IFELSE = "ifelse"

Branches = tuple[list[Operation], list[Operation]]


def branches_of(op: Operation) -> tuple[tuple[Symbol, ...], tuple[Symbol, ...]]:
    """The operands of an ``ifelse`` for a true condition, and for a false one."""
    return op.inputs[1 : 1 + len(op.outputs)], op.inputs[1 + len(op.outputs) :]


def deferred(
    operations: Sequence[Operation], outputs: Iterable[Symbol], producer: Callable[[Symbol], Operation | None]
) -> dict[Operation, Branches]:
    """For each ``ifelse`` the operations, in order, that are needed for one of its branches and for nothing else.

    ``producer`` tells what is run for a Symbol; None for one that is fed. What writes, reads a variable that is
    written, or has its place in an order by control dependencies, stays there; so does what a derivative reads.
    """
    if not any(op.type == IFELSE for op in operations):
        return {}
    users: dict[Operation, set[tuple[Operation, int] | None]] = {}

    def use(symbols: Iterable[Symbol], user: tuple[Operation, int] | None) -> None:
        for symbol in symbols:
            if (made_by := producer(symbol)) is not None:
                users.setdefault(made_by, set()).add(user)

    written = {op.writes for op in operations}
    differentiated = {op.forward for op in operations if isinstance(op, Gradient)}
    use(outputs, None)
    put_off: dict[Operation, Branches] = {}
    for op in reversed(operations):
        where = users.get(op, {None})
        ordered = op.writes is not None or op.control_inputs or not written.isdisjoint(op.inputs)
        stays = op.call is None or ordered or op in differentiated or len(where) > 1
        user = None if stays else next(iter(where))
        if user is not None:
            put_off[user[0]][user[1]].append(op)
        if user is None and op.type == IFELSE and op not in differentiated:
            put_off[op] = [], []
            use(op.inputs[:1], None)
            for side, symbols in enumerate(branches_of(op)):
                use(symbols, (op, side))
        else:
            use(op.inputs, user)
        for control in op.control_inputs:
            users.setdefault(control, set()).add(None)
    return {op: (then[::-1], other[::-1]) for op, (then, other) in put_off.items() if then or other}
