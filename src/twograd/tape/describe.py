"""What a node is, in words: its op, what it saved by the names that the rules have for it, and those rules.

What flows in: nodes of a recorded graph. What flows out: texts and small records, for pictures and for the stepper.
Nothing is changed by looking. Read :func:`saved_values`, then :func:`applied_rules`.
"""

import ast
import functools
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path

from twograd import rules
from twograd.tape.autograd.function import FunctionNode
from twograd.tape.lines import place
from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.plan import CompiledPlan, EquationPlan, Plan
from twograd.tape.stats import kept_arrays
from twograd.tape.storage import superseded
from twograd.tape.tensor import Tensor

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class SavedValue:
    """A value that a node keeps for its pullback.

    ``name`` is what the rule calls it; for an op of several rules, where it stands in the op. ``value`` is the array,
    or a Packed of it, and ``position`` among the operands, then the results. ``changed`` are the versions that it was
    saved at and that its Tensor has now, where these differ: to read it is an error.
    """

    name: str
    value: Any
    position: int
    changed: tuple[int, int] | None = None

    @property
    def type(self) -> str:
        return type_of(self.value.aval)

    @property
    def nbytes(self) -> int:
        """What is kept for it: of a value that a hook packed, the arrays in what it was packed into."""
        return sum(array.nbytes for array in kept_arrays(self.value))


@dataclass(frozen=True)
class AppliedRule:
    """A rule that a pullback calls: of which primitive, for which of its operands, its source text and its place."""

    primitive: str
    operand: str
    source: str
    where: str


def type_of(aval: Any) -> str:
    """``f32[2,3]``."""
    return aval.str_short(short_dtypes=True)


def node_title(node: Node | AccumulateGrad) -> str:
    """A node's name without the namespace that PyTorch has before some: ``CopySlices``, ``AccumulateGrad``."""
    return node.name().rpartition("::")[2]


def op_name(node: Node) -> str:
    """The op that made the node: ``tanh`` for a ``TanhBackward0``."""
    if isinstance(node, FunctionNode):
        return node.function.__name__
    words = node_title(node).removesuffix("0").removesuffix("Backward")
    return "".join("_" * bool(i and c.isupper() and words[i - 1].islower()) + c.lower() for i, c in enumerate(words))


def result_avals(plan: Plan) -> list[Any]:
    """The types of the op's results, without those that are computed inside of it for its pullback to read."""
    return [aval for aval in plan.result_avals[: getattr(plan, "num_outs", None)] if aval is not None]


def line_of(node: Node) -> str | None:
    """The user's line that made the node, ``file:line (function)``."""
    made = place(node.where)
    return None if made is None else str(made)


def short(line: str) -> str:
    """A line without the folders of its file and the names around its function: ``model.py:12 (forward)``."""
    place, _, function = line.rpartition(" (")
    file = place.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{file} ({function.rsplit('.', 1)[-1]}"


# --- names ------------------------------------------------------------------------------------------------------------


def named_tensors(params: Any) -> dict[str, Tensor]:
    """The Tensors in ``params``, a dict or a structure of dicts, lists and tuples, by where they stand: ``layer.0.w``.

    Raises TypeError where something in it is no Tensor.
    """
    found = {}
    for path, leaf in tree_flatten_with_path(params)[0]:
        name = keystr(path, simple=True, separator=".") if path else "params"
        if not isinstance(leaf, Tensor):
            raise TypeError(f"params has a {type(leaf).__name__} at {name!r}, not a Tensor")
        found[name] = leaf
    return found


def callers_tensors() -> dict[str, Tensor]:
    """The variables that are Tensors where this package was called from: those of the function, then the module's."""
    frame = sys._getframe(1)
    while frame is not None and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
        frame = frame.f_back
    scopes: list[Mapping[str, Any]] = [] if frame is None else [frame.f_globals, frame.f_locals]
    return {
        name: value
        for scope in scopes
        for name, value in list(scope.items())
        if isinstance(value, Tensor) and not name.startswith("_")
    }


# --- what is saved ----------------------------------------------------------------------------------------------------


def saved_values(node: Node) -> list[SavedValue]:
    """What ``node`` keeps, in the order of its pullback's parameters; nothing once it is freed."""
    if node.saved is None:
        return []
    positions = node.plan.positions or ()
    return [
        SavedValue(name, value, position, _changed(node, value, position))
        for name, value, position in zip(rule_names(node.plan), node.saved, positions, strict=True)
    ]


def _changed(node: Node, value: Any, position: int) -> tuple[int, int] | None:
    entry = superseded.get(id(value))
    if entry is None or (entry.writer == node.order and position == 0):
        return None
    return entry.version, entry.counter.version


@functools.lru_cache(maxsize=1024)
def rule_names(plan: Plan) -> list[str]:
    """What each value that the plan's pullback reads is called: by the rule, where the op is one primitive."""
    if isinstance(plan, EquationPlan):
        return [
            name if isinstance(where, int) else f"{name}[{i}]"
            for name, where in plan._layout.items()
            for i in range(1 if isinstance(where, int) else len(where))
        ]
    operands, results = len(plan.wanted), getattr(plan, "num_outs", plan.num_results)
    called = rules_called(plan)
    names = _operand_names(called[0], operands) if len(called) == 1 else {}
    return [_saved_name(plan, position, operands, results, names) for position in plan.positions or ()]


def _operand_names(call: rules.Called, operands: int) -> dict[int, str]:
    """By position, the operands of an op that is no more than one call of a rule, as the rule names them."""
    rule = _rule(call.primitive)
    if rule is None or rule.forward is not None or len(call.wanted) != operands:
        return {}
    places = {name: rule.positions(name, operands) for name in rule.operands if not name.startswith("*")}
    return {where: name for name, where in places.items() if isinstance(where, int)}


def _saved_name(plan: Plan, position: int, operands: int, results: int, names: dict[int, str]) -> str:
    if position < 0:
        return "constant"
    if position < operands:
        return names.get(position, f"operand {position}" if operands > 1 else "operand")
    if position - operands < results:
        return "out" if results == 1 else f"outs[{position - operands}]"
    assert isinstance(plan, CompiledPlan)
    jaxpr = plan._split.forward.jaxpr  # a value inside of the op: by the primitive that computes it
    var = jaxpr.outvars[position - operands]
    makers = [eqn for eqn in jaxpr.eqns if var in eqn.outvars]
    return f"{makers[0].params.get('name', makers[0].primitive.name)} inside" if makers else "constant inside"


# --- rules ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def rules_called(plan: Plan) -> tuple[rules.Called, ...]:
    """The rules that the plan's pullback calls, in order: all by value, or all to be compiled as one. A Function has
    its own."""
    if not isinstance(plan, (CompiledPlan, EquationPlan)):
        return ()
    outs = len(result_avals(plan))
    with_ct = (*plan.differentiable[:outs], *[False] * (plan.num_results - outs))
    avals = [plan._avals[i] for i in plan.positions or ()]
    avals += [aval for aval, present in zip(plan.result_avals, with_ct, strict=True) if present]
    with rules.recording() as calls:
        jax.make_jaxpr(plan._make_pullback(with_ct, plan.wanted))(*avals)
    return tuple(calls)


def applied_rules(node: Node) -> list[AppliedRule]:
    """The rules that the node's pullback calls, operand by operand, each once; a primitive that carries jaxprs has one
    for all its operands, as has a Function of the user's."""
    if isinstance(node, FunctionNode):
        source = Source.of(node.function.backward)
        return [AppliedRule(node.function.__name__, "", source.text, source.where)]
    found: dict[tuple[str, str], AppliedRule] = {}
    for call in rules_called(node.plan):
        rule = _rule(call.primitive)
        if rule is None:
            continue
        if rule.backward is not None:
            source = Source.of(rule.backward)
            found.setdefault((call.primitive, ""), AppliedRule(call.primitive, "", source.text, source.where))
        for name, operand_rule in rule.by_operand.items():
            where = rule.positions(name, len(call.wanted))
            if any(call.wanted[where]) if isinstance(where, slice) else call.wanted[where]:
                source = Source.of(operand_rule.function)
                found.setdefault((call.primitive, name), AppliedRule(call.primitive, name, source.text, source.where))
    return list(found.values())


@functools.cache
def _rules_by_name() -> dict[str, rules.Rule]:
    return {primitive.name: rule for primitive, rule in rules.table.items()}


def _rule(primitive: str) -> rules.Rule | None:
    return _rules_by_name().get(primitive)


@dataclass(frozen=True)
class Source:
    """The text of a function and where it stands, ``elementwise.py:42``."""

    text: str
    where: str

    @classmethod
    @functools.lru_cache(maxsize=1024)
    def of(cls, function: Callable[..., Any]) -> "Source":
        function = inspect.unwrap(function)
        while isinstance(function, functools.partial):
            function = function.func
        code = getattr(function, "__code__", None)
        if code is None:
            return cls(f"{function!r}", "")
        where = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        try:
            text = _lambda_source(code) if code.co_name == "<lambda>" else inspect.getsource(function)
        except (OSError, TypeError, SyntaxError):
            text = f"{code.co_name} (its source cannot be read)"
        return cls(textwrap.dedent(text).strip(), where)


def _lambda_source(code: Any) -> str:
    """A lambda alone, of the line that it is on: ``inspect.getsource`` gives the statement around it."""
    text = "".join(linecache.getlines(code.co_filename))
    computed = {(line, column, last, end) for line, last, column, end in code.co_positions()}
    for node in ast.walk(_parsed(code.co_filename, text)):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            body = node.body
            if (body.lineno, body.col_offset, body.end_lineno, body.end_col_offset) in computed:
                return ast.get_source_segment(text, node) or ""
    return linecache.getline(code.co_filename, code.co_firstlineno)


@functools.lru_cache(maxsize=32)
def _parsed(file: str, text: str) -> ast.Module:
    return ast.parse(text)
