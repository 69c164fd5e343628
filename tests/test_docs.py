"""The chapters and notebooks are programs: each runs as printed, and prints what the page says."""

from pathlib import Path

import pytest
from markdown_programs import rerun

from twograd import graph, rules

DOCS = Path(__file__).parents[1] / "docs"
CHAPTERS = sorted((DOCS / "chapters").glob("*.md"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))


def parameters():
    for path in CHAPTERS + NOTEBOOKS:
        yield pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path in NOTEBOOKS else [])


@pytest.mark.parametrize("path", list(parameters()))
def test_the_programs_print_what_the_page_says(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = path.read_text(encoding="utf-8")
    assert graph.grad  # its import enters rules, too
    before = dict(rules.table)
    try:
        made, _ = rerun(page, path.name)
    finally:
        new = set(rules.table) - set(before)
        rules.table.update(before)
        for primitive in new:
            del rules.table[primitive]
    assert not new, f"{path.name} leaves rules behind: {new}"
    assert made == page, f"run: python docs/markdown_programs.py {path.relative_to(DOCS.parent)}"
    assert "\n```text\n" in page
    assert "**Exercise" in page
