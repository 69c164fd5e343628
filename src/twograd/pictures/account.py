"""What an account of a walk back over a tape is made of: its steps in words, the picture of its graph, its equations.

What flows in: text and a :class:`Picture`, from whoever has walked (``tape/stepper/account.py``). What flows out: an
:class:`Account`, which pages show and results keep: it needs neither arrays nor JAX. Read :class:`Account`.
"""

from dataclasses import dataclass
from typing import Literal

from twograd.pictures.picture import Picture

Row = tuple[str, ...]

NOTHING = Picture("", (), ())


@dataclass(frozen=True)
class Block:
    """A text with a heading, such as a rule's source and what it is for; a text that is told at another ``step`` is
    empty here."""

    heading: str
    where: str
    text: str
    step: int | None = None


@dataclass(frozen=True)
class Section:
    """``rows`` of cells, the first a name, or ``blocks`` of text; ``empty`` is said where there is neither.

    Raises ValueError for a row without cells.
    """

    key: str
    title: str
    rows: tuple[Row, ...] = ()
    blocks: tuple[Block, ...] = ()
    empty: str = ""

    def __post_init__(self) -> None:
        if not all(self.rows):
            raise ValueError("a row without cells")


@dataclass(frozen=True)
class Equation:
    """An equation as text; ``source`` is the equation of the program that it is for, in a derivative. ``step`` is the
    step that it is linked to."""

    index: int
    text: str
    source: str | None
    line: str | None
    step: int | None


@dataclass(frozen=True)
class ToldStep:
    """A step: what it is called, where it is from, and its sections; ``boxes`` are those of the picture that stand for
    its op and its node."""

    label: str
    origin: str
    kind: Literal["node", "leaf", "error"]
    boxes: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Account:
    """A walk of ``total`` steps, of which ``steps`` are the first, the graph before it, and the derivative's jaxpr.

    Of ``all_equations`` those are here that have to do with steps that are told; an equation's ``step`` is an index of
    these. ``unlinked`` counts the steps that have none, and ``no_jaxpr`` says why there are none at all. A walk that
    ``failed`` ended with an error at its last step.
    """

    title: str = ""
    total: int = 0
    bytes_at_first: int = 0
    steps: tuple[ToldStep, ...] = ()
    picture: Picture = NOTHING
    inputs: tuple[str, ...] = ()
    outputs: str = ""
    equations: tuple[Equation, ...] = ()
    all_equations: int = 0
    unlinked: int = 0
    no_jaxpr: str = ""
    failed: bool = False
