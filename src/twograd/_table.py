"""A table of texts, as plain text and as HTML: what results print and what a notebook shows of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class TextTable:
    """A title, headings, rows of as many cells, and notes below. The first column is aligned left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        cells = [
            "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in lines
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([self.title, cells[0], rule, *cells[1:], *self.notes])

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            first, *rest = (escape(cell).replace("  ", "&ensp;") for cell in cells)
            right = "".join(f'<{tag} style="text-align:right; padding:0 0.6em">{cell}</{tag}>' for cell in rest)
            return f'<tr><th style="text-align:left; font-weight:normal">{first}</th>{right}</tr>'

        body = "".join(row("td", cells) for cells in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        head = row("th", self.columns)
        return (
            f"<table><caption>{escape(self.title)}</caption><thead>{head}</thead><tbody>{body}</tbody></table>{notes}"
        )
