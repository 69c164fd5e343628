"""What a function is told that asks a traced value for its value: the line that does, and what to write instead.

What flows in: an error that JAX raises while a function is traced. What flows out: the same error with a note. Read
:func:`explaining`, then :func:`_instead`, which finds the expression at fault in the user's source and rewrites it.
"""

import ast
import contextlib
import inspect
import linecache
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from twograd._compat import is_user_file

NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,  # and with it TracerBoolConversionError
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

NO_VALUE = "a traced value has a shape and a dtype, but no value yet"

LEAKED = (
    "A value of one trace was used after that trace had ended, or in another: it was kept in a global, an attribute, a "
    "list or a closure. Return it from the function instead (has_aux=True hands a second result on), or pass it as an "
    "argument. jax.checking_leaks() finds the line that kept it."
)


@contextlib.contextmanager
def explaining(f: Callable[..., Any]) -> Iterator[None]:
    """Notes in an error about a traced value, raised within, where the user's code asked for it, and the way out.

    ``f`` is the function that is being traced; it is named where the error has no frame of the user's (a value that has
    leaked into ``f`` is found out when the trace is done).
    """
    try:
        yield
    except (*NEEDS_VALUE, jax.errors.UnexpectedTracerError) as error:
        explain(error, f)
        raise


def explain(error: Exception, f: Callable[..., Any]) -> None:
    """Adds the note to an ``error`` of tracing ``f``, unless the innermost of nested traces has done so."""
    said = "".join(getattr(error, "__notes__", ()))
    if NO_VALUE in said or LEAKED in said:
        return
    place = _place(error.__traceback__)
    if isinstance(error, jax.errors.UnexpectedTracerError):
        error.add_note(f"{place or definition(f)}: {LEAKED}")
    elif place is not None:
        error.add_note("\n".join([f"{place}: {place.code}", *_instead(error, place)]))


def definition(f: Callable[..., Any]) -> str:
    """The name of ``f``, and where it is defined."""
    code = getattr(inspect.unwrap(f), "__code__", None)
    return f"{getattr(f, '__name__', f)}{f' ({code.co_filename}:{code.co_firstlineno})' if code else ''}"


class Place(NamedTuple):
    """The innermost expression of the user's that was being evaluated: where, and its syntax, from inside out."""

    file: str
    line: int
    function: str
    nodes: tuple[ast.AST, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.function})"

    @property
    def code(self) -> str:
        """Its line of source."""
        return linecache.getline(self.file, self.line).strip()


def _place(traceback: TracebackType | None) -> Place | None:
    found = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_user_file(code.co_filename) and not code.co_filename.startswith(str(Path(np.__file__).parent)):
            found = traceback, code
        traceback = traceback.tb_next
    if found is None:
        return None
    traceback, code = found
    positions = list(code.co_positions())[traceback.tb_lasti // 2]
    return Place(code.co_filename, traceback.tb_lineno, code.co_name, _nodes_at(code.co_filename, positions))


def _nodes_at(file: str, positions: tuple[int | None, ...]) -> tuple[ast.AST, ...]:
    """The expressions and statements around these positions (first and last line, first and last column)."""
    first, last, start, end = positions
    if first is None or last is None or start is None or end is None:
        return ()
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ()
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.expr, ast.stmt))
        and (node.lineno, node.col_offset) <= (first, start)
        and (node.end_lineno or 0, node.end_col_offset or 0) >= (last, end)
    ]
    # A walk goes from the outside in, level by level, and nodes around one place lie within one another.
    return tuple(reversed(around))


# --- what to write instead --------------------------------------------------------------------------------------------


def _instead(error: Exception, place: Place) -> list[str]:
    """Lines that say what is asked of which value, and the form that a trace can hold."""
    lines = _form(error, place.nodes)
    said = [f"{NO_VALUE}. Write", *(f"    {line}" for line in lines)] if lines else [f"{NO_VALUE}."]
    if isinstance(error, jax.errors.TracerBoolConversionError):
        said.append("Or use twograd.tape, which runs as it records: there a function may branch on values.")
    return said


def _form(error: Exception, nodes: tuple[ast.AST, ...]) -> list[str]:
    inner: ast.AST | None = None
    for node in nodes:
        match node:
            case ast.If(test=test) if _within(inner, test):
                return [
                    f"jax.lax.cond({_traceable(test)}, if_true, if_false, *operands)  # one of two functions runs",
                    f"jnp.where({_traceable(test)}, a, b)  # or both values are computed, and one chosen",
                ]
            case ast.IfExp(test=test, body=body, orelse=orelse) if _within(inner, test):
                a, b = ast.unparse(body), ast.unparse(orelse)
                return [
                    f"jnp.where({_traceable(test)}, {a}, {b})  # both are computed, and one chosen",
                    f"jax.lax.cond({_traceable(test)}, lambda: {a}, lambda: {b})  # or one of them runs",
                ]
            case ast.While(test=test) if _within(inner, test):
                return [
                    f"graph.bounded_while_loop(lambda state: {_traceable(test)}, body, state, max_steps)",
                    f"jax.lax.while_loop(lambda state: {_traceable(test)}, body, state)  # has no reverse mode",
                    "jax.lax.scan(body, state, xs)  # where the number of steps is known",
                ]
            case ast.Assert(test=test):
                return [f'jax.experimental.checkify.check({_traceable(test)}, "...")']
            case ast.Call(func=ast.Name(id="range"), args=[stop]):
                return _loop("0", ast.unparse(stop))
            case ast.Call(func=ast.Name(id="range"), args=[start, stop, *_]):
                return _loop(ast.unparse(start), ast.unparse(stop))
            case ast.Call(func=ast.Name(id="max" | "min" as name), args=[_, _]):
                return [ast.unparse(node).replace(name, f"jnp.{name}imum", 1)]
            case ast.Call(func=ast.Name(id="float" | "int" | "bool" | "complex" as name), args=[value]):
                return [f"{ast.unparse(value)}.astype({name})  # still an array"]
            case ast.Call(func=ast.Attribute(value=value, attr="item" | "tolist")):
                return [f"{ast.unparse(value)}  # an array does where a number is needed"]
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "numpy" | "onp" | "math"), attr=name)):
                called = ast.unparse(node)
                return [f"jnp.{name}{called[called.index('(') :]}  # NumPy and math take values only"]
            case ast.Subscript(value=value, slice=index) if isinstance(error, jax.errors.NonConcreteBooleanIndexError):
                return [f"jnp.where({ast.unparse(index)}, {ast.unparse(value)}, 0)  # how many are true is not known"]
            case ast.Subscript(value=value, slice=index) if isinstance(error, jax.errors.TracerIntegerConversionError):
                return [f"jnp.stack({ast.unparse(value)})[{ast.unparse(index)}]  # a list takes Python integers only"]
        if isinstance(node, ast.stmt):
            break
        inner = node
    if isinstance(error, jax.errors.TracerBoolConversionError):
        for node in reversed(nodes):
            if isinstance(node, (ast.BoolOp, ast.UnaryOp, ast.Compare)) and _traceable(node) != ast.unparse(node):
                return [_traceable(node)]
    return []


def _loop(start: str, stop: str) -> list[str]:
    return [
        f"jax.lax.fori_loop({start}, {stop}, body, state)  # has no reverse mode: how many steps is not known",
        "jax.lax.scan(body, state, xs)  # one step for each row of xs",
        "or let the number of steps be a Python integer that the function closes over",
    ]


def _within(inner: ast.AST | None, outer: ast.AST) -> bool:
    return any(node is inner for node in ast.walk(outer))


def _traceable(test: ast.expr) -> str:
    """``test`` as source, with functions for ``and``, ``or``, ``not`` and chained comparisons, which need booleans."""
    copy = ast.parse(ast.unparse(test), mode="eval").body
    return ast.unparse(_Functions().visit(copy))


class _Functions(ast.NodeTransformer):
    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        first, *rest = (self.visit(value) for value in node.values)
        for value in rest:
            first = _call("logical_and" if isinstance(node.op, ast.And) else "logical_or", first, value)
        return first

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        return _call("logical_not", operand) if isinstance(node.op, ast.Not) else ast.UnaryOp(node.op, operand)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        operands = [self.visit(operand) for operand in (node.left, *node.comparators)]
        links = [
            ast.Compare(left, [op], [right]) for left, op, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        first, *rest = links
        for link in rest:
            first = _call("logical_and", first, link)
        return first


def _call(name: str, *operands: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(ast.Name("jnp"), name), list(operands), [])
