"""A picture to be shown or saved: as SVG or a page with it, as Graphviz source, as Mermaid text."""

import functools
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from twograd._files import write_atomically
from twograd.pictures.picture import Picture
from twograd.pictures.svg import INK, to_svg
from twograd.pictures.text import to_dot, to_mermaid

Engine = Literal["own", "dot"]


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture, laid out by ``engine``: this package's ``own``, or Graphviz's ``dot``. Notebooks show it."""

    picture: Picture
    engine: Engine = "own"

    def __post_init__(self) -> None:
        if self.engine not in ("own", "dot"):
            raise ValueError(f"engine must be 'own' or 'dot', got {self.engine!r}")

    def __repr__(self) -> str:
        return (
            f"<Drawing {self.picture.title}: {len(self.picture.nodes)} nodes; .save(path) writes it, .svg is its text>"
        )

    @functools.cached_property
    def svg(self) -> str:
        """The picture as an ``<svg>`` element. Raises RuntimeError where the engine is ``dot`` and there is none."""
        return to_svg(self.picture) if self.engine == "own" else _graphviz(self.dot)

    @property
    def dot(self) -> str:
        """The picture in Graphviz's language."""
        return to_dot(self.picture)

    @property
    def mermaid(self) -> str:
        """The picture as a Mermaid flowchart, which GitHub renders in Markdown."""
        return to_mermaid(self.picture)

    @property
    def html(self) -> str:
        """The picture as a page of its own; it scrolls where it is larger than the window."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.picture.title)}</title>\n"
            f"<style>body{{margin:0;background:{INK['paper'][0]}}}"
            f"@media(prefers-color-scheme:dark){{body{{background:{INK['paper'][1]}}}}}</style>\n</head>\n"
            f"<body>\n{self.svg}</body>\n</html>\n"
        )

    def _repr_html_(self) -> str:
        """For notebooks: it scrolls where it is larger than the page."""
        return f'<div style="overflow:auto;max-height:60em">{self.svg}</div>'

    def save(self, path: str | Path) -> Path:
        """Writes ``.svg``, ``.html``, ``.dot``, ``.gv`` or ``.mmd``, whole or not at all. Else raises ValueError."""
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".svg":
            write_atomically(path, self.svg)
        elif kind == ".html":
            write_atomically(path, self.html)
        elif kind in (".dot", ".gv"):
            write_atomically(path, self.dot)
        elif kind == ".mmd":
            write_atomically(path, self.mermaid)
        elif kind == ".png":
            raise ValueError(
                f"{path}: a drawing is made of lines, not of pixels. Save it as .svg, which a browser or "
                f"`rsvg-convert -o {path.name} {path.stem}.svg` turns into PNG, or as .dot for Graphviz: "
                f"`dot -Tpng -o {path.name} {path.stem}.dot`."
            )
        else:
            raise ValueError(
                f"{path}: a drawing is saved as .svg, .html, .dot, .gv or .mmd, not as {kind or 'a file of no type'}"
            )
        return path


def _graphviz(source: str) -> str:
    try:
        found = subprocess.run(["dot", "-Tsvg"], input=source.encode(), capture_output=True, check=True, timeout=120)
    except FileNotFoundError:
        raise RuntimeError(
            "engine='dot' needs Graphviz's program dot, which is not on the PATH: install it "
            "(`apt-get install graphviz`, `brew install graphviz`), or draw with engine='own', which needs nothing"
        ) from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"Graphviz could not draw this: {error.stderr.decode(errors='replace')[:500]}") from None
    return found.stdout.decode()
