"""What a picture of a graph is made of, before anybody says where it stands or in which colour.

What flows in: nodes, edges and legend, from whoever has a graph (``graph/draw.py``). What flows out: a
:class:`Picture`, which :mod:`twograd.pictures.svg` draws and :mod:`twograd.pictures.text` writes for Graphviz and
Mermaid. Read :class:`Node`.
"""

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

LONGEST = 34
"""Columns of text after which a line in a node is cut."""


@dataclass(frozen=True)
class Node:
    """A box with text. ``lines`` are its text, the first of them its title, ``details`` small print below.

    ``kind`` is its shape and what the legend calls it (:data:`twograd.pictures.svg.KINDS`). ``hue`` is an index into a
    palette, and ``tag`` says the same without colour. Nodes of a higher ``lane`` stand to the right of all of a lower
    one. ``inside`` are the pictures of its bodies, drawn within its box. ``mark`` is ``+`` or ``-`` in a diff.
    """

    key: str
    lines: tuple[str, ...]
    kind: str
    details: tuple[str, ...] = ()
    hue: int | None = None
    tag: str = ""
    lane: int = 0
    inside: "tuple[Picture, ...]" = ()
    tooltip: str = ""
    mark: str = ""


class Edge(NamedTuple):
    """A value on its way. Edges of one ``source`` and ``port`` are the same value and leave as one line.

    An edge that is ``up`` is drawn upwards: its target stands above its source.
    """

    source: str
    target: str
    kind: str = "value"
    port: int = 0
    up: bool = False


@dataclass(frozen=True)
class Picture:
    """Nodes in an order in which they could be computed, edges, and what explains them.

    ``legend`` has a line per hue, ``(hue, tag, text)``; ``lanes`` are the headings of the lanes, left to right.
    Raises ValueError for two nodes of one key, and for an edge or a lane that leads nowhere.
    """

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    description: str = ""
    legend: tuple[tuple[int, str, str], ...] = ()
    lanes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = {node.key for node in self.nodes}
        if len(keys) < len(self.nodes):
            raise ValueError("two nodes of a picture have one key")
        if nowhere := {end for edge in self.edges for end in edge[:2]} - keys:
            raise ValueError(f"an edge of a picture ends at {min(nowhere)!r}, which is no node")
        if self.lanes and not all(0 <= node.lane < len(self.lanes) for node in self.nodes):
            raise ValueError("a node of a picture is in a lane that has no heading")


def printable(text: object, longest: int = LONGEST) -> str:
    """``text`` in one line, without what no font shows and XML forbids, cut where it is too long."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 20 * longest]).strip()
    if columns(line) <= longest:
        return line
    kept, width = "", 1
    for c in line:
        width += columns(c)
        if width > longest:
            break
        kept += c
    return kept + "…"


def cut(text: str, longest: int) -> str:
    """``text``, of at most so many characters; where there were more, the last is an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def columns(text: str) -> int:
    """How many columns ``text`` takes in a monospaced font: an East Asian wide character two, an accent none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
