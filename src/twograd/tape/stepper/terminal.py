"""A walk in a terminal, one step on the screen at a time.

What flows in: a stepper, and lines of commands. What flows out: panels. Read :func:`run`.
"""

import sys
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from twograd.pictures.account import Section
from twograd.tape.stepper.show import heading, origin, sections

if TYPE_CHECKING:
    from twograd.tape.stepper.walk import Stepper

HELP = """n, or nothing   the next step
b               the step before
g NUMBER        the step of this number, from 1; g -1 is the last
g NAME          the next step of this name: g Mul, g w
j               the derivative's jaxpr, with the equations of this step marked
q               the end
?               this"""


def run(walk: "Stepper", source: TextIO | None = None, output: TextIO | None = None) -> None:
    """Shows the current step, then obeys commands, a line each, until ``q`` or the end of ``source``."""
    lines = sys.stdin if source is None else source
    console = Console(file=output, highlight=False, soft_wrap=False)
    _show(console, walk)
    while True:
        console.print(f"[bold]{walk.position + 1}/{len(walk.steps)}[/] n b g j q ? > ", end="")
        line = lines.readline()
        if not line:
            console.print()
            return
        command, _, argument = line.strip().partition(" ")
        if command == "q":
            return
        if command == "?":
            console.print(HELP, markup=False)
        elif command == "j":
            _show_jaxpr(console, walk)
        elif command in ("n", "b", "", "g"):
            try:
                moved = _move(walk, command, argument.strip())
            except (IndexError, ValueError) as error:
                console.print(f"{error}", markup=False, style="red")
                continue
            if moved:
                _show(console, walk)
            else:
                console.print("This is the last step." if command != "b" else "This is the first step.")
        else:
            console.print(f"no command {command!r}; ? lists them", markup=False, style="red")


def _move(walk: "Stepper", command: str, argument: str) -> bool:
    """Whether the place is another one now, or was asked for."""
    before = walk.position
    if command == "g":
        if not argument:
            raise ValueError("g needs a number or a name, as in g 3 or g Mul")
        try:
            number = int(argument)
        except ValueError:
            walk.run_to(argument)
        else:
            if number == 0 or abs(number) > len(walk.steps):
                raise IndexError(f"there is no step {number}: they are 1 to {len(walk.steps)}")
            walk.goto(number - (number > 0))
        return True
    if command == "b":
        walk.back()
    else:
        walk.next()
    return walk.position != before


def _show(console: Console, walk: "Stepper") -> None:
    step = walk.current
    title = Text(heading(walk, step), style="bold")
    console.print()
    console.print(Text.assemble(title, "  ", origin(walk, step)))
    for section in sections(walk, step):
        style = {"error": "red", "incoming": "blue", "outgoing": "blue", "saved": "yellow", "grads": "green"}
        console.print(
            Panel(
                _body(section),
                title=Text(section.title),
                title_align="left",
                border_style=style.get(section.key, "dim"),
                padding=(0, 1),
            )
        )
    if walk.linked is None and step.index == 0:
        console.print(walk.no_jaxpr, markup=False, style="dim")


def _body(section: Section) -> RenderableType:
    parts: list[RenderableType] = []
    if section.rows:
        grid = Table.grid(padding=(0, 2))
        for i in range(max(map(len, section.rows))):
            grid.add_column(overflow="fold", style="bold" if i == 0 and section.key != "jaxpr" else None)
        for row in section.rows:
            grid.add_row(*map(Text, row))
        parts.append(grid)
    for block in section.blocks:
        above = "  ".join(filter(None, [block.heading, block.where]))
        parts += [Text(above, style="bold")] if above else []
        plain = section.key != "rules"
        parts.append(
            Text(block.text)
            if plain
            else Syntax(block.text, "python", theme="ansi_light", background_color="default", word_wrap=True)
        )
    return Group(*parts) if parts else Text(section.empty, style="dim")


def _show_jaxpr(console: Console, walk: "Stepper") -> None:
    found = walk.linked
    if found is None:
        console.print(walk.no_jaxpr, markup=False)
        return
    mine = {*found.backward.get(walk.position, ()), found.forward.get(walk.position, -1)}
    for equation in found.equations:
        mark = "▸" if equation.index in mine else " "
        text = f"{mark} {equation.index:>3}  {equation.text}"
        console.print(Text(text, style="bold" if equation.index in mine else "dim" if equation.source else ""))
