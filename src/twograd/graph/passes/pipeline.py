"""Runs passes one after the other."""

from collections.abc import Sequence

from jax.extend.core import ClosedJaxpr

from twograd.graph.passes.checking import check_types, check_values
from twograd.graph.passes.cse import cse
from twograd.graph.passes.dce import dce
from twograd.graph.passes.fold import fold
from twograd.graph.passes.inline import inline
from twograd.graph.passes.report import Pass, PassReport, check_program
from twograd.graph.passes.simplify import simplify

PASSES: tuple[Pass, ...] = (inline, simplify, fold, cse, dce)

ROUNDS = 8
"""One round is often enough, since each pass walks forward and sees its own results; more than three are rare."""


def optimize(
    closed: ClosedJaxpr, passes: Sequence[Pass] = (), check: bool = False
) -> tuple[ClosedJaxpr, list[PassReport]]:
    """Applies each of ``passes`` once, or, where none are given, all of :data:`PASSES` until nothing changes.

    A pass is any function from a ClosedJaxpr to a pair of a ClosedJaxpr and a PassReport. With ``check`` both programs
    are evaluated on random inputs. Raises PassError, naming the pass, where one changes the types of the inputs or
    outputs, or, with ``check``, their values. The reports are those of all applications that changed something, and
    of the first of each pass.

    Raises TypeError where ``closed`` is no ClosedJaxpr, or one of ``passes`` no function.
    """
    check_program(closed, "optimize")
    if not isinstance(passes, Sequence):
        raise TypeError(f"optimize takes passes in a list, got {passes!r}")
    reports: list[PassReport] = []
    for round in range(1 if passes else ROUNDS):
        before = closed
        for apply in passes or PASSES:
            name = getattr(apply, "__name__", type(apply).__name__)
            if not callable(apply):
                raise TypeError(f"a pass is a function of a ClosedJaxpr, as those of graph.passes are; got {apply!r}")
            try:
                outcome = apply(closed)
            except Exception as error:
                error.add_note(f"in the pass '{name}'")
                raise
            check_types(name, closed, outcome)
            rewritten, report = outcome
            if check and rewritten is not closed:
                check_values(name, closed, rewritten)
            if rewritten is not closed or round == 0:
                reports.append(report)
            closed = rewritten
        if closed is before:
            break
    return closed, reports
