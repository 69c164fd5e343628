"""The errors that both engines raise. Each says what was met, where, and what to do about it."""

from typing import Any

from jax.extend.core import JaxprEqn

from twograd import _compat

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)


class TwogradError(Exception):
    """The base of this project's own errors."""


class NoRule(TwogradError, NotImplementedError):
    """A cotangent reached a primitive that is not in the table of derivative rules, or that is refused there."""

    def __init__(self, eqn: JaxprEqn, reason: str | None = None):
        operands = ", ".join(var.aval.str_short() for var in eqn.invars)
        where = f"(operands: {operands}; at {_compat.user_line(eqn) or 'an unknown line'})"
        leave_out = "to leave this value out of the derivative, wrap it in stop_gradient (graph) or detach() it (tape)"
        super().__init__(
            f"no derivative rule for the primitive '{eqn.primitive}' {where}. A rule would go into "
            f"src/twograd/rules/; {leave_out}."
            if reason is None
            else f"the primitive '{eqn.primitive}' has no derivative {where}: {reason}; or, {leave_out}."
        )
        self.primitive = eqn.primitive


class NotReversible(TwogradError, ValueError):
    """A cotangent reached a loop of unknown length."""

    def __init__(self, eqn: JaxprEqn):
        carry = ", ".join(var.aval.str_short() for var in eqn.outvars)
        super().__init__(
            "Reverse-mode differentiation does not work for lax.while_loop or lax.fori_loop with dynamic start/stop "
            f"values (carry: {carry}; at {_compat.user_line(eqn) or 'an unknown line'}): the number of steps is not "
            "known, so there is no room for what each would keep. Try using lax.scan, fori_loop with static "
            "start/stop, or a bounded loop: graph.bounded_while_loop(cond_fun, body_fun, init_val, max_steps). "
            "Such a loop that has no effects graph.jvp differentiates in forward mode."
        )


class CotangentMismatch(TwogradError, TypeError):
    """A rule returned a cotangent that does not fit its operand."""

    def __init__(self, ct: Any, aval: Any):
        super().__init__(f"a cotangent of type {ct.str_short()} does not fit an operand of type {aval.str_short()}")


class DisconnectedInput(TwogradError, ValueError):
    """A gradient was asked for with respect to a value that nothing differentiated depends on."""

    def __init__(self, name: str):
        super().__init__(
            "grad method was asked to compute the gradient with respect to a variable that is not part of the "
            f"computational graph of the cost, or is used only by a non-differentiable operator: {name}"
        )


class PassError(TwogradError):
    """A pass changed what a program takes, returns or computes."""

    def __init__(self, name: str, problem: str):
        super().__init__(f"the pass '{name}' {problem}; a pass may change equations, not what they compute")
        self.name = name


class ExportError(TwogradError):
    """A graph that cannot be written as StableHLO, or a file that cannot be written."""


class StripError(TwogradError):
    """A stripped graph does not compute what the whole one computes."""


class ParseError(TwogradError, ValueError):
    """A text that is not a program, with the line and the column where it stops being one."""

    def __init__(self, line: int, column: int, problem: str):
        super().__init__(f"line {line}, column {column}: {problem}")
        self.line, self.column = line, column
