"""Programs that are shown: functions of this package as text that can be pasted, and the threads they are about.

What flows in: a function without arguments; a thread as ``owner/repository#number`` or an address. What flows out: its
statements with the imports that they use; a URL.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any


def text_of(function: Callable[..., Any]) -> str:
    """The statements of ``function`` as a program of its own, below the imports and definitions of its module that it
    uses. What it returns, the program prints."""
    module = inspect.getsource(sys.modules[function.__module__])
    tops = {name: top for top in ast.parse(module).body for name in _defined(top)}
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    used, pending = set(), _names(definition)
    while pending:
        top = tops.get(pending.pop())
        if top is not None and top not in used:
            used.add(top)
            pending |= set() if isinstance(top, (ast.Import, ast.ImportFrom)) else _names(top)
    above = [(top, ast.get_source_segment(module, top) or "") for top in dict.fromkeys(tops.values()) if top in used]
    imports = [text for top, text in above if isinstance(top, (ast.Import, ast.ImportFrom))]
    others = [text for top, text in above if not isinstance(top, (ast.Import, ast.ImportFrom))]
    return "\n\n".join(filter(None, ["\n".join(imports), *others, _body(definition, source)]))


def _body(definition: ast.FunctionDef, source: str) -> str:
    statements = definition.body[1:] if ast.get_docstring(definition) else definition.body
    lines = source.splitlines()
    for statement in _returns(definition):
        first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
        lines[last] += ")"
        lines[first] = lines[first].replace("return ", "print(", 1)
    return textwrap.dedent("\n".join(lines[statements[0].lineno - 1 :])).strip()


def _returns(tree: ast.AST) -> Iterator[ast.Return]:
    """The returns of a function, not those of functions within it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _returns(node)


def _defined(top: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(top, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in top.names]
    if isinstance(top, (ast.FunctionDef, ast.ClassDef)):
        return [top.name]
    return [target.id for target in getattr(top, "targets", ()) if isinstance(target, ast.Name)]


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def url(thread: str) -> str:
    """Where a thread is: ``pytorch/pytorch#11192`` is an issue or a pull request, anything else an address."""
    repository, number, rest = thread.partition("#")
    return f"https://github.com/{repository}/issues/{rest}" if number else f"https://{thread}"
