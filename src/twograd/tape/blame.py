"""Who changed a saved value: the error for it, and its report.

What flows in: a node, the value that it saved, and the changes that were counted since. What flows out: PyTorch's
error, word for word, with notes that name the user's lines and the derivative rule that reads the value. Read
:class:`ModifiedInPlace`, then :func:`readers`. The fixes come from ``replay.py``, which has to have seen the program.
"""

import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jax.extend.core import JaxprEqn, Var

from twograd import rules
from twograd._compat import is_user_file
from twograd.graph.passes.inline import inline
from twograd.tape.lines import Place, Position, place
from twograd.tape.plan import CompiledPlan, EquationPlan, Plan

if TYPE_CHECKING:
    from twograd.tape.node import Node
    from twograd.tape.tensor import Tensor

SOURCES = Path(__file__).parents[2]
MAX_READERS = 3
HOW_TO_TRY = (
    "Fixes are offered where they can be tried: run the forward pass and backward() inside of "
    "`with torch.autograd.detect_anomaly():` or `with tape.explaining():`."
)


class Change(NamedTuple):
    """One change in place, of elements of these sizes: from ``version`` to the next."""

    version: int
    op: str
    sizes: tuple[int, ...]
    where: Position | None

    @property
    def place(self) -> Place | None:
        return place(self.where)


class Reader(NamedTuple):
    """A derivative rule that reads the saved value: of which primitive, for which operand, under which name."""

    primitive: str
    operand: str
    name: str
    signature: str
    file: str
    line: int

    @property
    def code(self) -> str:
        return linecache.getline(str(SOURCES / self.file), self.line).strip()


@dataclass(frozen=True)
class Fix:
    """A change of the program, and what came of trying it: ``works``, or why not."""

    kind: str
    text: str
    works: bool
    outcome: str


@dataclass
class Report:
    """All that is known of a saved value that was changed in place.

    ``saved_as`` is ``operand i`` or ``result i`` of the op ``victim``. ``changes`` are the counted ones since it was
    saved (the last few, if there were many), ``aliases`` the variables of the running functions that show the same
    elements. ``fixes`` are all that were tried.
    """

    victim: str
    place: Place | None
    saved_as: str
    readers: list[Reader]
    changes: list[Change]
    versions: tuple[int, int]
    aliases: list[str]
    fixes: list[Fix] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


class ModifiedInPlace(RuntimeError):
    """A value that a node saved was changed in place before its derivative was computed.

    ``report`` says by whom. ``node``, ``position`` (among the op's operands and results) and ``tensor`` (which showed
    the value, or None) are what it is about.
    """

    def __init__(
        self,
        message: str,
        node: "Node",
        position: int,
        changes: Sequence[Change],
        versions: tuple[int, int],
        tensor: "Tensor | None",
        shown_by: Sequence["Tensor"],
    ):
        super().__init__(message)
        self.node, self.position, self.tensor = node, position, tensor
        count = len(node.plan.wanted)
        self.report = Report(
            node.name(),
            place(node.where),
            _saved_as(position, count),
            list(readers(node.plan, position)),
            list(changes),
            versions,
            list(_names(shown_by)),
        )

    def tell(self, fixes: Sequence[Fix] | None) -> None:
        """Writes the report into the notes; None where nobody could try a fix."""
        self.report.fixes = list(fixes or ())
        self.__notes__ = [str(self.report) if fixes is not None else f"{self.report}\n{HOW_TO_TRY}"]


def _saved_as(position: int, operands: int) -> str:
    if position < 0:
        return "constant"  # of a custom Function
    return f"operand {position}" if position < operands else f"result {position - operands}"


# A traceback says what PyTorch's says.
ModifiedInPlace.__name__ = ModifiedInPlace.__qualname__ = "RuntimeError"
ModifiedInPlace.__module__ = "builtins"


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.victim}, made at {_at(report.place)},"
    yield f"    saved its {report.saved_as} for its derivative" + (", because" if report.readers else ".")
    for reader in report.readers[:MAX_READERS]:
        yield f"    the rule of {reader.primitive} for {reader.operand} reads {reader.name}: {reader.signature}"
        yield f"        {reader.file}:{reader.line}  {reader.code}"
    saved, now = report.versions
    known = [change for change in report.changes if saved <= change.version < now]
    yield f"Since then it was changed {now - saved} time{'s' * (now - saved != 1)}:"
    if len(known) < now - saved:
        yield f"    ({now - saved - len(known)} earlier changes are not kept)"
    for change in known:
        what = f"{change.op} of {list(change.sizes)}"
        yield f"    version {change.version} -> {change.version + 1}: {what} at {_at(change.place)}"
    if report.aliases:
        yield f"Variables that show these elements: {', '.join(report.aliases)}"
    working = [fix for fix in report.fixes if fix.works]
    if working:
        yield "Each of these was tried on the recorded program: no error, the same loss, and the gradient that a"
        yield "functional re-execution gives:"
        yield from (f"    - {fix.kind}: {fix.text}" for fix in working)
    for fix in report.fixes:
        if not fix.works:
            yield f"Not a fix here, {fix.kind}: {fix.outcome}"


def _at(where: Place | None) -> str:
    if where is None:
        return "an unknown line"
    return f"{where}: {where.code}" if where.code else str(where)


def _names(tensors: Sequence["Tensor"]) -> Iterator[str]:
    """The variables by which the user's running functions know these Tensors, innermost function first."""
    wanted, seen = {id(tensor) for tensor in tensors}, set()
    frame = sys._getframe(1)
    while frame is not None:
        if is_user_file(frame.f_code.co_filename):
            for name, value in frame.f_locals.items():
                if id(value) in wanted and name not in seen:
                    seen.add(name)
                    yield f"{name} ({frame.f_code.co_name})" if frame.f_code.co_name != "<module>" else name
        frame = frame.f_back


# --- which rule reads a saved value -----------------------------------------------------------------------------------


def readers(plan: Plan, position: int) -> Iterator[Reader]:
    """The rules that read what stands at ``position`` among the op's operands and results."""
    if isinstance(plan, EquationPlan):
        eqn = plan.eqn
        yield from _reading(eqn, plan.wanted, [*eqn.invars, *eqn.outvars], position)
    elif isinstance(plan, CompiledPlan) and plan.program is not None and position >= 0:
        jaxpr = inline(plan.program)[0].jaxpr
        value = [*jaxpr.invars, *jaxpr.outvars][position]
        depends = {var for var, want in zip(jaxpr.invars, plan.wanted, strict=True) if want}
        same = {value}
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "convert_element_type" and eqn.invars[0] in same:
                same.add(eqn.outvars[0])
            wanted = rules.wanted_operands(eqn, [isinstance(a, Var) and a in depends for a in eqn.invars])
            if any(wanted):
                reached = zip(eqn.outvars, rules.reached_results(eqn, wanted), strict=True)
                depends.update(var for var, is_reached in reached if is_reached)
                atoms = [*eqn.invars, *eqn.outvars]
                for i, atom in enumerate(atoms):
                    if isinstance(atom, Var) and atom in same:
                        yield from _reading(eqn, wanted, atoms, i)


def _reading(eqn: JaxprEqn, wanted: Sequence[bool], atoms: Sequence[Any], position: int) -> Iterator[Reader]:
    rule = rules.table.get(eqn.primitive)
    if rule is None:
        return
    saved = rules.saved_positions(eqn, wanted)
    for operand, operand_rule in rule.by_operand.items():
        where = rule.positions(operand, len(eqn.invars))
        if not any(wanted[where]) if isinstance(where, slice) else not wanted[where]:
            continue
        for name in operand_rule.saves:
            at = saved.get(name)
            if at == position or (isinstance(at, tuple) and position in at):
                file, line = _source(operand_rule.function)
                signature = f"{operand}{inspect.signature(operand_rule.function)}"
                yield Reader(eqn.primitive.name, operand, name, signature, file, line)


def _source(function: Callable[..., Any]) -> tuple[str, int]:
    """The file below ``src`` and the line of a rule."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    return str(path.relative_to(SOURCES)) if path.is_relative_to(SOURCES) else str(path), code.co_firstlineno
