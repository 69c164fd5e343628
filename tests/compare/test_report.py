"""The report as a reader's browser meets it: parsed HTML, whole, self-contained, and proof against hostile text."""

import base64
import copy
import dataclasses
import hashlib
import itertools
import json
import math
import re
from html.parser import HTMLParser

import example_results as example
import jax.numpy as jnp
import numpy as np
import pytest

from twograd import graph
from twograd.compare import report
from twograd.compare import results as rs
from twograd.pictures import Edge, Node, Picture, style
from twograd.pictures.account import Account, Block, Equation, Section, ToldStep

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Elements with their attributes and their text; asserts that every tag is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, (opened, tag)

    def handle_data(self, data):
        for _, index in self.open:
            self.texts[index] = self.texts.get(index, "") + data

    def all(self, tag, **wanted):
        return [
            (attrs, " ".join(self.texts.get(i, "").split()))
            for i, (name, attrs) in enumerate(self.elements)
            if name == tag and all(attrs.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]


@pytest.fixture(scope="module")
def results():
    return example.results()


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert report.write_report(results, out) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def html(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


# --- the files ------------------------------------------------------------------------------------------------------


def test_beside_the_page_lie_markdown_environment_and_plots(results, folder):
    assert json.loads((folder / "env.json").read_text()) == results.environment
    plots = {path.name for path in (folder / "plots").iterdir()}
    for suffix, other in ((".svg", ".png"), (".png", ".svg")):
        assert all(path.removesuffix(suffix) + other in plots for path in plots if path.endswith(suffix))
    assert "op_chain-size-8-depth-2-steady.svg" in plots
    assert not list(folder.rglob(".*")), "temporary files"


def test_the_same_results_give_the_same_files(results, folder, tmp_path):
    report.write_report(results, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_the_markdown_has_the_sentences_and_the_tables(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "## Which engine, when, and why?" in text
    assert text.index("### When?") < text.index("- Dispatch against arithmetic: `tape`")
    assert "| engine | trace (ms) |" in text
    assert "**FAILED**: comparisons/broken.py:1: does not import." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_an_error_while_drawing_leaves_the_old_page(results, folder, monkeypatch):
    before = (folder / "report.html").read_bytes()
    monkeypatch.setattr(report, "draw", lambda _: [[]] * 3)
    monkeypatch.setattr(report, "html", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write_report(results, folder)
    assert (folder / "report.html").read_bytes() == before


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_network_and_runs_no_script_but_its_own(html, page):
    assert html.startswith("<!DOCTYPE html>")
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]
    assert policy.startswith("default-src 'none'")
    data, script = page.all("script")
    assert data[0]["type"] == "application/json"
    (text,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert script[0] == {}
    for tag, attrs in page.elements:
        assert tag not in ("link", "iframe", "object", "img")
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#"), (tag, value)
    assert "url(http" not in html
    assert "@import" not in html


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs, _ in page.all("a"):
        assert attrs["href"].removeprefix("#") in ids
    for _, attrs in page.elements:
        for name in attrs.get("aria-labelledby", "").split():
            assert name in ids


def test_headings_form_an_outline(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels) if b != 4)


def test_the_page_can_be_read_by_ear(page):
    assert page.all("html")[0][0]["lang"] == "en"
    assert len(page.all("caption")) == len(page.all("table", **{"aria-label": None})) > 10
    assert len(page.all("table")) == len(page.all("caption")) + 2  # of the walk, by the title of their section
    assert all(attrs.get("scope") in ("col", "row") for attrs, _ in page.all("th"))
    drawings = page.all("svg", class_="chart")
    assert len(drawings) == 11
    (walk,) = page.all("svg", class_="twograd-picture")
    drawings.append(walk)
    assert all(attrs["role"] == "img" for attrs, _ in drawings)
    assert len(page.all("desc")) == len(drawings)
    assert all(text for _, text in page.all("desc"))
    assert len(page.all("figcaption")) == len(drawings) - 1  # the walk's picture has its summary


def test_each_line_is_followed_by_what_became_of_it(page):
    lines = [(attrs, text) for attrs, text in page.all("pre", class_="source") if "tabindex" in attrs]
    made = page.all("div", class_="made")
    assert len(lines) == len(made) == 3
    for (_, source), (attrs, text), line in zip(lines, made, example.TRACE.lines[1:], strict=True):
        assert " ".join(line.source.split()) in source or not line.number
        assert attrs["aria-label"] == (f"Line {line.number}" if line.number else "Elsewhere")
        for found in (*line.nodes, *line.program, *line.derivative):
            assert " ".join(found.text.split()) in text


def test_each_line_says_what_it_costs(page):
    first, second = (text for _, text in page.all("pre", class_="source") if "µs" in text)
    assert first.endswith("768 B 120 µs")
    assert second.endswith("goes on 20.0 µs")
    text = " ".join(text for _, text in page.all("p", class_="spent"))
    assert "30.0 µs in the program, 90.0 µs in its derivative" in text
    assert "20.0 µs in the program, nothing in its derivative" in text
    bars = [attrs["style"] for _, attrs in page.elements if "style" in attrs and attrs.get("class") in ("own", "back")]
    assert bars[:4] == ["width: 25.00%", "width: 75.00%", "width: 16.67%", "width: 0.00%"]
    (note,) = (text for _, text in page.all("p") if text.startswith("Times: each equation by itself"))
    assert "the medians of 15 passes add up to 140 µs" in note
    assert re.search(r"graph takes [\d.]+ µs for all of them", note)


def test_what_was_not_timed_and_not_walked_is_shown_without_both():
    texts = [part.text for line in example.TRACE.lines for part in line.nodes]
    lines = (rs.Line(5, "y = tanh(x)", tuple(map(rs.Part, texts)), (), ()),)  # as of a file of schema 2
    comparison = rs.ComparisonResult("a", "", "", example.SOURCE, trace=rs.Trace("n=3", lines=lines))
    results = rs.Results(rs.Settings(), comparisons=[comparison])
    html = report.html(results, report.draw(results))
    page = Page(html)
    assert all(text in html for text in texts)
    assert [text for _, text in page.all("pre", class_="source")] == ["5 y = tanh(x)"]
    assert not page.all("article")
    assert not any(text.startswith("Times:") or "step of the walk" in text for _, text in page.all("p"))
    assert "#a-walk" not in html


def test_nodes_and_equations_know_what_they_belong_with_and_lead_to_their_steps(page):
    items = [(attrs["data-of"], text) for attrs, text in page.all("li") if "data-of" in attrs]
    together = [text for of, text in items if of == "1"]
    assert together[0] == "TanhBackward0 #1: saved result f32[8,8] of equation 1"
    assert together[1] == "1 d:f32[8,8] = tanh c 12.5 µs"
    assert len(together) == 14
    links = {text: attrs["href"] for attrs, text in page.all("a") if ".step-" in attrs["href"]}
    assert links["2 e:f32[8,8] = mul d d"] == "#c-op_chain.step-1"
    assert links["1 d:f32[8,8] = tanh c"] == "#c-op_chain.step-2"
    assert not any("MatmulBackward0" in text for text in links)  # its step is not told


def test_the_walk_stands_there_step_by_step_beside_its_picture(page):
    steps = page.all("article", class_="step")
    assert [attrs["id"] for attrs, _ in steps] == [f"c-op_chain.step-{n}" for n in (1, 2, 3)]
    for (_, text), step in zip(steps, example.WALK.steps, strict=True):
        assert text.startswith(f"{step.label} step ")
        for section in step.sections:
            assert all(cell in text for row in section.rows for cell in row)
    assert "as at step 1" in steps[1][1]
    assert any("The first 3 are on this page, with the equations" in text for _, text in page.all("p"))
    (picture,) = page.all("svg", class_="twograd-picture")
    assert "MulBackward0" in picture[1]
    boxes = {attrs["data-key"] for _, attrs in page.elements if "data-key" in attrs}
    assert {box for step in example.WALK.steps for box in step.boxes} <= boxes
    equations = [text for attrs, text in page.all("li") if attrs.get("class") in ("program", "derivative")]
    assert len(equations) == len(example.WALK.equations)


def test_a_program_that_could_not_be_walked_is_shown_with_the_reason():
    comparison = rs.ComparisonResult("a", "", "", example.SOURCE, trace=rs.Trace("n=3", missing="it returns a <pair>"))
    results = rs.Results(rs.Settings(), comparisons=[comparison])
    page = Page(report.html(results, report.draw(results)))
    assert any(text.startswith("def loss(ops, x):") for _, text in page.all("pre"))
    assert any("not joined to nodes and equations: it returns a <pair>" in text for _, text in page.all("p"))


@pytest.mark.parametrize("page_of", ["light", "dark"])
def test_text_has_enough_contrast(page, page_of):
    css = page.all("style")[0][1]
    dark = "".join(re.findall(r"@media screen and \(prefers-color-scheme: dark\) \{ :root \{(.*?)\}", css))
    light = css.split("@media")[0] + re.findall(r":root \{ --page[^}]*", css)[0]
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if page_of == "light" else dark))
    for text in ("ink", "muted", "accent", "fail", "good"):
        for ground in ("paper", "page", "code"):
            assert style.contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert style.contrast(colors["ink"], colors["failpaper"]) >= 4.5


def test_light_dark_and_print_have_their_styles(page):
    css = page.all("style")[0][1]
    assert "prefers-color-scheme: dark" in css
    assert "@media print" in css
    assert css.count("{") == css.count("}")


def test_each_comparison_has_its_question_program_checks_stages_and_graphs(page, html):
    headings = [text for _, text in page.all("h2")]
    assert headings == [
        "Which engine, when, and why?", "op_chain", "mlp_digits", "broken", "Method and its limits", "The machine",
    ]  # fmt: skip
    assert any("What does one op cost" in text for _, text in page.all("p", class_="question"))
    listings = [text for _, text in page.all("pre")]
    assert "5 y = ops.np.tanh(x @ w) 768 B 120 µs" in " | ".join(listings)
    assert any(text.startswith("{ lambda ; v0:f32[8,8]. let") for text in listings)
    captions = [text for _, text in page.all("caption")]
    assert "Gradients against the witnesses that decide, worst of all cases" in captions
    assert "Paid once, size=8, depth=2" in captions
    assert "Orders of the derivative" in captions
    assert "comparisons/broken.py:1: does not import." in listings
    assert "Both engines reach a test accuracy of 96.4 %" in html
    assert "are not independent evidence" in html


def test_the_data_in_the_page_is_the_whole_of_the_results(results, page):
    index = next(i for i, (tag, attrs) in enumerate(page.elements) if attrs.get("id") == "results")
    read = rs.from_json(json.loads(page.texts[index]))
    assert rs.to_json(read) == rs.to_json(results)


def test_the_environment_is_told(page):
    rows = {text for _, text in page.all("th", scope="row")}
    assert {"versions.jax", "machine.cpu.brand_raw", "options.jax_enable_x64"} <= rows
    assert "float32, cpu, Example CPU @ 2.50GHz, 2 cores" in page.all("p", class_="setup")[0][1]


# --- hostile, empty and broken ---------------------------------------------------------------------------------------

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`--><svg onload=alert(1)> {{ 7*7 }} $x^2$\n\x00"
)


def hostile_walk(count):
    block = Block(HOSTILE, HOSTILE, HOSTILE, -1)
    told = Section(HOSTILE, HOSTILE, ((HOSTILE, HOSTILE),), (block, dataclasses.replace(block, step=None)), HOSTILE)
    step = ToldStep(HOSTILE, HOSTILE, "node", (HOSTILE, HOSTILE), (told,))
    box = Node(HOSTILE, (HOSTILE,), f'" {HOSTILE}', (HOSTILE,), -7, HOSTILE, 0, (), HOSTILE, HOSTILE)
    picture = Picture(
        HOSTILE, (box,), (Edge(HOSTILE, HOSTILE, HOSTILE, -1),), HOSTILE, ((-1, HOSTILE, HOSTILE),), (HOSTILE,)
    )
    equation = Equation(-1, HOSTILE, HOSTILE, HOSTILE, -1)
    return Account(HOSTILE, count, 1, (step,) * count, picture, (HOSTILE,), HOSTILE, (equation,), 9, 1, HOSTILE, True)


def hostile_results():
    """Every text of the example replaced or followed by the worst that a program's author could write."""

    def spoil(value):
        if isinstance(value, str):
            return value + HOSTILE
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items()}
        return value

    results = copy.deepcopy(example.results())
    results.environment = spoil(results.environment)
    for info in results.engines:
        info.title, info.reason, info.version = spoil(info.title), spoil(info.reason), spoil(info.version)
    for number, comparison in enumerate(results.comparisons):
        for name in ("name", "question", "description", "source", "error"):
            setattr(comparison, name, f"{number}" + spoil(getattr(comparison, name)))
        comparison.axes = [spoil(axis) for axis in comparison.axes]
        part = (rs.Part(HOSTILE, -number, 10**9),)
        lines = [rs.Line(n, HOSTILE, part, part, part, n) for n, _ in enumerate(comparison.trace.lines)]
        walk = hostile_walk(len(lines))
        comparison.trace = rs.Trace(HOSTILE, (HOSTILE,), HOSTILE, tuple(lines), HOSTILE, 1, walk)
        for case in comparison.cases:
            case.name = spoil(case.name)
            case.axes = {spoil(axis): value for axis, value in case.axes.items()}
            for row in case.rows:
                row.reason, row.texts, row.notes = spoil(row.reason), spoil(row.texts), [HOSTILE]
                if row.engine == "jax-eager":
                    row.engine = spoil(row.engine)
                row.checks = [
                    rs.Check(
                        spoil(c.witness), c.independent, False, math.nan, math.inf, None, spoil(c.tolerance), HOSTILE
                    )
                    for c in row.checks
                ]
        for finding in comparison.findings:
            for name, value in vars(finding).items():
                if isinstance(value, str) and name not in ("kind", "x_scale", "y_scale"):
                    setattr(finding, name, spoil(value))
            if isinstance(finding, rs.Curves):
                finding.series = [rs.Series(spoil(s.label), s.x, s.y, spoil(s.engine)) for s in finding.series]
            if isinstance(finding, rs.Table):
                finding.columns = [spoil(column) for column in finding.columns]
                finding.rows.append([HOSTILE, -math.inf, None, HOSTILE])
    return results


def test_hostile_text_stays_text(tmp_path):
    page = Page(report.write_report(hostile_results(), tmp_path).read_text(encoding="utf-8"))
    assert [attrs.get("type") for attrs, _ in page.all("script")] == ["application/json", None]
    assert "alert(1)" not in page.all("script")[1][1]
    assert not page.all("img")
    assert {attrs.get("role") for attrs, _ in page.all("svg")} == {"img"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert any("{{ 7*7 }}" in text for _, text in page.all("p"))
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (tmp_path / "plots").iterdir())


def timed_at_zero(n):
    never, twice = rs.Measurement((0.0,)), rs.Measurement((0.0, 0.0))
    rows = [
        rs.Row("tape", "ok", stages={"forward+backward": never}),
        rs.Row("graph", "ok", stages={"forward+backward": twice, "compile": never}),
        rs.Row("torch", "ok", stages={"forward": rs.Measurement((1.0,))}, counts={"flops": -1.0}),
    ]
    return rs.CaseResult(f"n={n}", {"n": n}, rows)


EMPTY = {
    "nothing": [],
    "an empty comparison": [rs.ComparisonResult("a", "", "", "")],
    "axes that are no numbers": [
        rs.ComparisonResult("a", "q", "", "", axes=["n"], cases=[timed_at_zero(n) for n in (math.nan, math.inf, 1)])
    ],
    "two of one name, skipped and failed": [
        rs.ComparisonResult("a", "q", "", "def (", "skipped", "", cases=[rs.CaseResult("only case", {})]),
        rs.ComparisonResult("a", "the same name", "", "", "failed"),
    ],
    "times of zero": [rs.ComparisonResult("a", "q", "", "", axes=["n"], cases=[timed_at_zero(n) for n in (0, 1)])],
    "findings without data": [
        rs.ComparisonResult(
            "a", "q", "", "",
            findings=[
                rs.Table("ragged", ["a"], [[1, 2], []], ["s"]),
                rs.Table("", [], []),
                rs.Curves("", "", "", []),
                rs.Curves("same", "x", "y", [rs.Series("", [1], [])]),
                rs.Curves("same", "x", "y", [rs.Series("", [1, 2], [1.0, 2.0], "tape")] * 2),
                rs.Winners("", "", "", [], [], [], []),
                rs.Winners("ragged", "x", "y", ["1"], ["1", "2"], [["tape", "graph"], []], [[""], ["", ""]]),
                rs.Observation(""),
                rs.Listing("", ""),
            ],
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize("comparisons", EMPTY.values(), ids=EMPTY.keys())
def test_whatever_is_missing_the_page_is_whole(comparisons, tmp_path):
    results = rs.Results(rs.Settings(), {"machine": None, "more": [1, {"y": 2}]}, comparisons=comparisons)
    page = Page(report.write_report(results, tmp_path).read_text(encoding="utf-8"))
    assert page.all("h1")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_program_and_derivative_are_drawn_from_their_text():
    def squares(x):
        return jnp.sum(jnp.sin(x) ** 2)

    squares.__name__ = HOSTILE
    text = str(graph.trace(squares, np.ones(3, np.float32)).value_and_grad().optimize())
    rows = [
        rs.Row("graph", "ok", texts={"forward": "", "derivative": text}),
        rs.Row(
            "jax-jit", "ok", texts={"forward": "", "derivative": "{ lambda ; a:f32[3]. let b:f32[3] = sin a in (b,) }"}
        ),
        rs.Row("graph-eager", "ok", texts={"forward": "", "derivative": text[: len(text) // 2]}),
    ]
    twins = [rs.ComparisonResult("a", "", "", "", cases=[rs.CaseResult("n=3", {"n": 3}, rows)]) for _ in range(2)]
    results = rs.Results(rs.Settings(), comparisons=twins)
    page = Page(report.html(results, report.draw(results)))
    pictures = page.all("svg", class_="twograd-picture")
    assert len(pictures) == 2  # of each of the two comparisons one: other texts are no graphs, or not whole
    assert all("cos" in text and "f32[3]" in text for _, text in pictures)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert len(page.all("script")) == 2


def test_long_texts_are_folded():
    findings = [rs.Listing("A long one", "line\n" * 200), rs.Listing("A short one", "line")]
    results = rs.Results(rs.Settings(), comparisons=[rs.ComparisonResult("a", "", "", "", findings=findings)])
    page = Page(report.html(results, report.draw(results)))
    assert "A long one: 200 lines" in [text for _, text in page.all("summary")]
    assert "A short one" in [text for _, text in page.all("h4")]


def test_the_program_shown_is_what_the_comparison_names_and_what_that_uses():
    functions = "def f(): pass\n\ndef g(): 1\n\ndef k(): 3\n\ndef h(): k()\n\n"
    declared = "c = Comparison(inputs=f, loss=g, variants={'tape': h, 'torch': 'no'})\n"
    assert report.program_text(functions + declared) == "def g(): 1\n\n\ndef k(): 3\n\n\ndef h(): k()"
    assert report.program_text("def (") == ""
    assert report.program_text("x = 1") == ""


def test_a_template_that_asks_for_what_is_not_there_fails():
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        report._templates().from_string("{{ nothing }}").render()
