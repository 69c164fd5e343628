"""The page that says of every primitive what becomes of it in a derivative: ``docs/primitives.md``.

What flows in: the table of rules, and the tables of ``jax.interpreters.ad``. What flows out: Markdown, on standard
output, of ``python -m twograd.graph.coverage``. Nothing is written by hand: reasons stand in the table, and the first
line of a rule's docstring describes it where a signature does not. Read :func:`line`.

It stands in ``graph`` because that is where the primitives which carry jaxprs get their rules.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Primitive

from twograd import rules
from twograd._compat import differentiable_primitives
from twograd.graph import calls as calls

HEADER = """\
# What becomes of each primitive

Every primitive that JAX {version} has a derivative rule for, and every other one in the table of rules:
{counts}.
Made by `python -m twograd.graph.coverage`.

- **rule**: it has a pullback. *Kept* is what lives from the forward pass to the backward pass for the sake of each
  operand that is differentiated: operands and results by their names. An operand which is not listed has no derivative.
- **non-differentiable**: its derivative is zero wherever it exists, or it takes or yields no real numbers.
- **refused**: it raises `NoRule` with this reason where a cotangent arrives at it, and only there.

| primitive | what | kept | formula, or reason | file |
|---|---|---|---|---|
"""
UNEXPLAINED = "unexplained"


def primitives() -> list[Primitive]:
    """All that the page is about, by name."""
    return sorted(differentiable_primitives() | set(rules.table), key=lambda primitive: primitive.name)


def kind(primitive: Primitive) -> str:
    """``rule``, ``non-differentiable``, ``refused``, or ``unexplained`` if nothing is said of it."""
    rule = rules.table.get(primitive)
    if rule is None:
        return UNEXPLAINED
    if rule.reason is not None:
        return "refused"
    return "rule" if rule.by_operand or rule.backward else "non-differentiable"


def line(primitive: Primitive) -> str:
    """The row of a primitive."""
    rule = rules.table.get(primitive)
    kept, text, functions = "", "", []
    if rule is not None:
        functions = [function for function in (rule.forward, rule.backward) if function]
        functions += [operand_rule.function for operand_rule in rule.by_operand.values()]
        kept = "; ".join(
            f"`{name}`: {', '.join(f'`{saved}`' for saved in operand_rule.saves) or 'nothing'}"
            for name, operand_rule in rule.by_operand.items()
        )
        text = rule.reason or " ".join(filter(None, map(first_line, functions)))
    files = " ".join(dict.fromkeys(f"`{file_of(function)}`" for function in functions))
    return f"| `{primitive.name}` | {kind(primitive)} | {kept} | {escaped(text)} | {files} |\n"


def first_line(function: Callable[..., Any] | None) -> str:
    """The first line of a function's docstring, or nothing."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def file_of(function: Callable[..., Any]) -> str:
    """The file in this package in which a rule stands."""
    return function.__module__.removeprefix("twograd.").replace(".", "/") + ".py"


def escaped(text: str) -> str:
    """``text`` as the cell of a Markdown table: a bar would end it, and an asterisk be taken for emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def page() -> Iterator[str]:
    """The page, in pieces."""
    everything = primitives()
    kinds = [kind(primitive) for primitive in everything]
    counts = ", ".join(f"{kinds.count(one)} {one}" for one in dict.fromkeys(sorted(kinds)))
    yield HEADER.format(version=".".join(jax.__version__.split(".")[:2]), counts=counts)
    yield from map(line, everything)


if __name__ == "__main__":
    print("".join(page()), end="")
