"""A step in words: the same sections for the interpreter's prompt, the terminal and the page.

What flows in: a step of a recorded walk. What flows out: its :func:`sections`, as plain text by :func:`as_text`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.core import Tracer

from twograd.pictures.account import Block, Row, Section
from twograd.pictures.picture import columns, printable
from twograd.tape.describe import result_avals, short, type_of
from twograd.tape.node import Node
from twograd.tape.saved import Packed
from twograd.tape.stepper.linked import Linked
from twograd.tape.stepper.record import Step

if TYPE_CHECKING:
    from twograd.tape.stepper.walk import Stepper

MOST_ROWS = 12
MOST_ELEMENTS = 6
LONGEST = 76


def sections(walk: "Stepper", step: Step, most: int = MOST_ROWS) -> Iterator[Section]:
    """What there is to say of a step, in the order in which it happens; of many rows the first ``most``."""
    yield Section("queue", "Queue", _shortened(list(_queue(step)), most))
    incoming = list(_incoming(step))
    yield Section("incoming", "Cotangent" + "s" * (len(incoming) > 1) + " that arrived", _shortened(incoming, most))
    if step.leaf is None:
        yield Section("saved", "Saved values", _shortened(list(_saved(step)), most), empty="This rule needs none.")
        blocks = tuple(
            Block(f"{rule.primitive}{' with respect to ' * bool(rule.operand)}{rule.operand}", rule.where, rule.source)
            for rule in step.rules
        )
        yield Section("rules", "Rule" if len(blocks) < 2 else "Rules", (), blocks, "No rule is called.")
    if step.error:
        yield Section("error", "The walk ends here", (), (Block("", "", step.error),))
        return
    if step.leaf is None:
        outgoing = [
            (f"to {out.label}", *value(out.ct), "added to what was there" if out.added and out.ct is not None else "")
            for out in step.outgoing
        ]
        yield Section("outgoing", "Cotangents handed on", _shortened(outgoing, most))
        freed = [(saved.name, saved.type, f"{saved.nbytes:,} B") for saved in step.freed]
        yield Section(
            "freed", f"Freed; {step.live_bytes:,} B are still saved", _shortened(freed, most), empty="Nothing."
        )
    before = walk.steps[step.index - 1].grads if step.index else {}
    grads = [
        (f"{name}.grad", *value(grad, "None"), "" if grad is before.get(name) else "changed")
        for name, grad in step.grads.items()
    ]
    grads.sort(key=lambda row: row[-1] != "changed")
    yield Section("grads", ".grad of the leaves afterwards", _shortened(grads, most))
    if walk.linked is not None and step.leaf is None:
        yield Section("jaxpr", "In the derivative's jaxpr", tuple(_equations(walk.linked, step)), empty="No equation.")


def heading(walk: "Stepper", step: Step) -> str:
    """``step 3 of 11: MulBackward0 #3``."""
    return f"step {step.index + 1} of {len(walk.steps)}: {step.label}"


def origin(walk: "Stepper", step: Step) -> str:
    """The op that the node is of, and the line that called it where that is known."""
    if step.op is None:
        return f"the end of the graph at the leaf {step.leaf}"
    line = step.line
    if line is None and walk.linked is not None and step.index in walk.linked.forward:
        line = walk.linked.equations[walk.linked.forward[step.index]].line
    return f"of {step.op}" + (f" at {short(line)}" if line else "")


def _queue(step: Step) -> Iterator[Row]:
    for i, waiting in enumerate(step.queue):
        state = "taken now" if i == 0 else "ready" if waiting.ready else "waits"
        yield (
            f"{'▸ ' if i == 0 else ''}{waiting.label}",
            f"{waiting.arrived} of {waiting.expected} arrived",
            state,
        )


def _incoming(step: Step) -> Iterator[Row]:
    """Of the results that the op has for its user, and of those inside of it for which there is one."""
    outs = len(result_avals(step.node.plan)) if isinstance(step.node, Node) else 1
    for i, ct in enumerate(step.incoming):
        if i < outs or ct is not None:
            name = "the gradient" if step.leaf else "out" if outs == 1 and not i else f"outs[{i}]"
            yield (name, *value(ct))


def _saved(step: Step) -> Iterator[Row]:
    for saved in step.saved:
        changed = f"saved at version {saved.changed[0]}, now at {saved.changed[1]}" if saved.changed else ""
        yield (saved.name, *value(saved.value), changed)


def _equations(found: Linked, step: Step) -> Iterator[Row]:
    at = found.forward.get(step.index)
    if at is not None:
        yield ("program", str(at), found.equations[at].text)
    for i in found.backward.get(step.index, ()):
        yield ("derivative", str(i), found.equations[i].text)


def _shortened(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    more = len(rows) - most
    return tuple(rows) if more <= 0 else (*rows[:most], (f"… {more} more",))


# --- values -----------------------------------------------------------------------------------------------------------


def value(array: Any, none: str = "zero, not computed") -> tuple[str, str]:
    """The type of an array, and its elements or what there is to say of many."""
    if array is None:
        return "", none
    if type(array) is Packed:
        return type_of(array.aval), "packed by a hook"
    found = type_of(jax.typeof(array))
    if isinstance(array, Tracer):
        return found, "a value that is being traced"
    try:
        numbers = np.asarray(array)
    except TypeError:  # a key of random numbers
        return found, ""
    return found, preview(numbers)


def preview(numbers: np.ndarray) -> str:
    """All elements of a small array on one line; of a larger one some of them, and its range."""
    if not numbers.size:
        return "empty"
    options: dict[str, Any] = {"threshold": MOST_ELEMENTS, "edgeitems": 1 if numbers.ndim > 1 else 2}
    options["formatter"] = {"float_kind": "{:.4g}".format, "complex_kind": "{:.4g}".format}
    text = " ".join(np.array2string(numbers, max_line_width=10**6, **options).split())
    text = text.replace("[ ", "[").replace("...", "…")
    if numbers.size <= MOST_ELEMENTS or numbers.dtype == bool:
        return printable(text, LONGEST)
    real = np.abs(numbers) if np.iscomplexobj(numbers) else numbers.astype(np.float64)
    finite = np.isfinite(real)
    said = f"from {real[finite].min():.4g} to {real[finite].max():.4g}" if finite.any() else ""
    odd = f"{(~finite).sum()} of {real.size} not finite" if not finite.all() else ""
    return ", ".join(filter(None, [printable(text, LONGEST - 30), said, odd]))


# --- plain text -------------------------------------------------------------------------------------------------------


def as_text(walk: "Stepper", step: Step) -> str:
    """A step for the interpreter's prompt."""
    lines = [f"{walk.title}: {heading(walk, step)}, {origin(walk, step)}"]
    for section in sections(walk, step):
        lines.append(f"  {section.title}")
        lines += [f"    {line}" for line in table(section.rows)]
        for block in section.blocks:
            above = "  ".join(filter(None, [block.heading, block.where]))
            lines += [f"    {above}"] if above else []
            lines += [f"      {line}" for line in block.text.splitlines()]
        if section.empty and not section.rows and not section.blocks:
            lines.append(f"    {section.empty}")
    if walk.linked is None and walk.no_jaxpr:
        lines.append(f"  {walk.no_jaxpr}")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under one another."""
    widths: list[int] = []
    for row in rows:
        for i, cell in enumerate(row):
            widths[i : i + 1] = [max([columns(cell), *widths[i : i + 1]])]
    return [
        "  ".join(cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
