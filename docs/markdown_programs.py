"""Programs in Markdown: run in the order in which they stand, their output held against what the page shows.

What flows in: a page. Its ``python`` blocks are one program; a ``text`` block right after one of them is what this one
prints. What flows out: the page as it should be. ``python docs/markdown_programs.py PAGE ...`` writes it there; the
tests hold that it is the same. Read :func:`rerun`.
"""

import contextlib
import io
import linecache
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def code_of(page: str) -> list[str]:
    """The lines of the programs of a ``page``, each where it stands; in place of all others, empty ones."""
    lines = ["\n"] * page.count("\n")
    for block in BLOCK.finditer(page):
        code = block["code"].splitlines(keepends=True)
        first = page.count("\n", 0, block.start("code"))
        lines[first : first + len(code)] = code
    return lines


def rerun(page: str, name: str) -> tuple[str, dict[str, Any]]:
    """Runs the programs of a ``page``; returns it with the output that they print, and the names that they define.

    A block that prints nothing shows none. Raises what a program raises; a traceback has the page's lines.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    linecache.cache[name] = (len(page), None, code_of(page), name)  # for errors that quote a line of the program

    def run(block: re.Match[str]) -> str:
        code = block["code"]
        lines_above = "\n" * (page[: block.start("code")].count("\n"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(lines_above + code, name, "exec"), names)
        lines = "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())
        return f"```python\n{code}```\n" + (f"\n```text\n{lines}```\n" if lines else "")

    return BLOCK.sub(run, page), names


def main(paths: list[str]) -> None:
    """Writes the output that the programs of these pages print into them."""
    for path in map(Path, paths):
        page, _ = rerun(path.read_text(encoding="utf-8"), path.name)
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
