"""A picture to be shown or saved: as SVG, as Graphviz source, as Mermaid text."""

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twograd._files import write_atomically
from twograd.pictures.picture import Picture
from twograd.pictures.svg import to_svg
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

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Writes ``.svg``, ``.dot`` (or ``.gv``) or ``.mmd``, whole or not at all. Raises ValueError for another."""
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".svg":
            write_atomically(path, self.svg)
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
                f"{path}: a drawing is saved as .svg, .dot, .gv or .mmd, not as {kind or 'a file of no type'}"
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
