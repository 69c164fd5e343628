"""The chapters and notebooks are programs: each runs as printed, and prints what the page says."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
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


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_no_link_in_it_is_broken(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, DOCS / "build_site.py", tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stderr
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for path in CHAPTERS + NOTEBOOKS:
        assert f'href="{path.parent.name}/{path.stem}.html"' in index, f"{path.name} is not in index.md"


@pytest.mark.slow
def test_a_broken_link_is_found(tmp_path):
    pytest.importorskip("sphinx")
    from build_site import broken_links

    links = ["b.html#here", "b.html#there", "c.html", "https://example.org/none", "#top", "#bottom"]
    (tmp_path / "a.html").write_text('<p id="top">' + "".join(f'<a href="{link}">x</a>' for link in links))
    (tmp_path / "b.html").write_text('<p id="here"><img src="none.svg">')
    assert [found.split()[1] for found in sorted(broken_links(tmp_path))] == [
        "#bottom",
        "b.html#there",
        "c.html",
        "none.svg",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_say_their_kernel(path):
    """Where jupytext looks for it: elsewhere the header would be a cell of the notebook."""
    header, page = path.read_text(encoding="utf-8").split("---\n")[1:3]
    assert re.fullmatch(r"jupyter:\n  jupytext:\n(    .*\n)+  kernelspec:\n(    .*\n)+", header)
    assert page.startswith("\n# ")
    if find_spec("jupytext"):
        jupytext = import_module("jupytext")
        made = jupytext.read(path)
        assert made.metadata["kernelspec"]["name"] == "python3"
        assert {cell.cell_type for cell in made.cells} == {"markdown", "code"}


@pytest.mark.parametrize(("page", "of"), [("zh.md", CHAPTERS + NOTEBOOKS), ("answers.md", CHAPTERS)])
def test_the_summaries_and_answers_have_every_chapter(page, of):
    text = (DOCS / page).read_text(encoding="utf-8")
    for path in of:
        assert f"({path.parent.name}/{path.name})" in text


def test_chapters_lead_on_to_pages_that_exist():
    for path in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+\.md)[^)]*\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"
