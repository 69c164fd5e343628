"""The report: everything that a run found, as one HTML file to send by mail, and the same as Markdown, SVG and PNG.

What flows in: :class:`Results`. What flows out: ``report.html``, ``report.md``, ``env.json`` and ``plots/``. Read
:func:`write_report`, then ``templates/report.html.j2``.

The file is a small website: an opening page, a page per comparison, the method, the machine. Which page is shown is
decided by the address (``:target``), which line of a program is explained by pointer and focus, both in CSS; a browser
that knows neither, and a printer, show all. The page needs no network and runs no script but its own few lines,
``templates/report.js``, known by their hash, without which only keys are missing: it forbids itself all else. Whatever
comes from programs, error messages or environments is escaped by the templates. Its data, raw samples included, lies in
it as JSON, which :func:`twograd.compare.results.from_json` reads back.
"""

import ast
import base64
import dataclasses
import functools
import hashlib
import importlib.resources
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from twograd import graph
from twograd._files import write_atomically
from twograd.compare import budgets, charts, sentences, tables
from twograd.compare.environment import flat
from twograd.compare.results import (
    SCHEMA_VERSION,
    CaseResult,
    ComparisonResult,
    Curves,
    Finding,
    Listing,
    Observation,
    Results,
    Row,
    Table,
    Winners,
    encode,
)
from twograd.compare.tables import TextTable
from twograd.compare.units import duration, size
from twograd.errors import ParseError
from twograd.pictures import style
from twograd.pictures.svg import INK, to_svg
from twograd.tape.stepper import page

LONG = 30
"""Lines from which a text is folded."""

MAX_NODES = 60
"""Of a picture; what is more is folded into groups."""


def write_report(results: Results, out_dir: Path) -> Path:
    """Writes the report into ``out_dir``, which exists, and returns the path of ``report.html``.

    Each file is there whole or not at all; ``report.html`` is written last.
    """
    drawn = draw(results)
    plots = out_dir / "plots"
    plots.mkdir(exist_ok=True)
    for chart in itertools.chain.from_iterable(drawn):
        write_atomically(plots / f"{chart.stem}.svg", chart.svg)
        write_atomically(plots / f"{chart.stem}.png", chart.png)
    write_atomically(out_dir / "env.json", json.dumps(encode(results.environment), indent=1) + "\n")
    write_atomically(out_dir / "report.md", _as_utf8(markdown(results)))
    write_atomically(out_dir / "report.html", _as_utf8(html(results, drawn)))
    return out_dir / "report.html"


# --- charts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A chart as it is shown: ``inline`` in the page, ``svg`` and ``png`` as files; ``finding`` asked for it."""

    stem: str
    caption: str
    inline: Markup
    svg: str
    png: bytes
    finding: Curves | Winners | None = None


def draw(results: Results) -> list[list[Drawn]]:
    """The opening page's charts, then all others, comparison by comparison."""
    setup, names = setup_line(results), _Names()
    with style.drawing():
        opening = ((None, chart) for chart in charts.of_summary(results.cases(), setup))
        return [
            list(_draw(opening, names)),
            *(list(_draw_comparison(comparison, results, setup, names)) for comparison in results.comparisons),
        ]


def _draw_comparison(comparison: ComparisonResult, results: Results, setup: str, names: "_Names") -> Iterator[Drawn]:
    of_cases = ((None, chart) for chart in charts.of_comparison(comparison, results.engines, setup))
    return _draw(itertools.chain(of_cases, charts.of_findings(comparison, setup)), names)


def _draw(asked: Iterable[tuple[Curves | Winners | None, charts.Chart]], names: "_Names") -> Iterator[Drawn]:
    for finding, chart in asked:
        stem = names.unused(chart.stem)
        inline = Markup(style.svg_for_page(chart.figure, f"chart-{stem}", chart.caption, chart.description))
        svg = style.svg_of(chart.figure, chart.caption, chart.description)
        yield Drawn(stem, chart.caption, inline, svg, style.png_of(chart.figure), finding)


class _Names:
    """Hands out names, each once: different texts may have the same letters left when they become file names or ids."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unused(self, name: str) -> str:
        candidates = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
        found = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(found)
        return found


# --- pages ------------------------------------------------------------------------------------------------------------


def html(results: Results, drawn: Sequence[list[Drawn]]) -> str:
    """The page, with the charts that :func:`draw` has drawn."""
    template, script = _templates().get_template("report.html.j2"), _script()
    opening, *others = drawn
    return template.render(
        **_content(results),
        opening=opening,
        sections=_sections(results, others),
        colors=style.colors(),
        data=_embedded(results),
        ink=INK,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def fragment(sentences: Sequence[str], tables: Sequence[TextTable], charts: Sequence[Drawn]) -> str:
    """A part of a page, for notebooks: in the page's own type and ink, without scripts."""
    template = _templates().get_template("notebook.html.j2")
    return template.render(sentences=sentences, tables=tables, charts=charts, colors=style.colors())


def markdown(results: Results) -> str:
    """The sentences and tables, to be pasted in an issue."""
    template = _templates().get_template("report.md.j2")
    return template.render(**_content(results), sections=_sections(results, [[] for _ in results.comparisons]))


def _content(results: Results) -> dict[str, Any]:
    found = budgets.budgets(results.cases())
    return {
        "results": results,
        "setup": setup_line(results),
        "answers": sentences.summary(results),
        "by_budget": budgets.fastest_by_budget(found) if found is not None else None,
        "engines": tables.engines_table(results.engines),
        "environment": environment_table(results.environment),
    }


@dataclass(frozen=True)
class Section:
    """All that is shown of one comparison."""

    anchor: str
    comparison: ComparisonResult
    description: list[str]
    program: str
    sentences: list[str]
    charts: list[Drawn]
    findings: list["Shown"]
    times: TextTable | None
    checks: TextTable | None
    agreement: TextTable | None
    missing: TextTable | None
    break_even: TextTable | None
    cases: list[tuple[CaseResult, list[TextTable]]]
    programs: list["Program"]
    notes: list[str]
    line_times: str
    walk_picture: Markup

    @property
    def parts(self) -> dict[str, str]:
        """Of its page: the ends of their anchors, and their titles; only those that have something."""
        found = {
            "found": ("What was found", self.sentences),
            "charts": ("Charts", self.charts),
            "experiment": ("The experiment", self.findings),
            "program": ("The program, line by line", self.comparison.trace.lines)
            if self.comparison.trace.lines
            else ("The program", self.program or self.comparison.source),
            "walk": ("The walk back, step by step", self.comparison.trace.walk.steps),
            "times": ("Time per gradient", self.times),
            "missing": ("What is missing", self.missing),
            "checks": ("Are the gradients right?", self.checks),
            "stages": ("Stages", self.cases),
            "graphs": ("The program, before and after differentiation", self.programs),
            "notes": ("Notes", self.notes),
        }
        return {key: title for key, (title, content) in found.items() if content}


@dataclass(frozen=True)
class Shown:
    """A finding that is no sentence: one of a table, a chart, a text."""

    table: TextTable | None = None
    chart: Drawn | None = None
    listing: Listing | None = None
    note: str = ""


@dataclass(frozen=True)
class Program:
    """What an engine made of the program, before and after differentiation, at its smallest."""

    engine: str
    case: str
    forward: str
    derivative: str
    picture: str = ""

    @property
    def long(self) -> bool:
        return max(self.forward.count("\n"), self.derivative.count("\n")) >= LONG


def _sections(results: Results, drawn: Sequence[list[Drawn]]) -> list[Section]:
    names = _Names()
    return [
        _section(comparison, results, found, names.unused("c-" + re.sub(r"[^A-Za-z0-9_-]+", "-", comparison.name)))
        for comparison, found in zip(results.comparisons, drawn, strict=True)
    ]


def _section(comparison: ComparisonResult, results: Results, drawn: list[Drawn], anchor: str) -> Section:
    observed = [finding.text for finding in comparison.findings if isinstance(finding, Observation)]
    return Section(
        anchor=anchor,
        comparison=comparison,
        description=[part for part in re.split(r"\n\s*\n", comparison.description.strip()) if part],
        program=program_text(comparison.source),
        sentences=[*observed, *sentences.about(comparison, results.engines)],
        charts=[chart for chart in drawn if chart.finding is None],
        findings=[shown for finding in comparison.findings if (shown := _shown(finding, drawn)) is not None],
        times=tables.gradient_times(comparison.cases),
        checks=tables.check_table(comparison, results.engines),
        agreement=tables.agreement_table(comparison, results.engines),
        missing=tables.missing_table(comparison),
        break_even=tables.break_even_table(comparison.cases, _pairs(comparison, results)),
        cases=[(case, found) for case in comparison.cases if (found := tables.stage_tables(case))],
        programs=_programs(comparison, anchor),
        notes=[
            f"`{row.engine}`, {case.name}: {note}"
            for case in comparison.cases
            for row in case.rows
            for note in row.notes
        ],
        line_times=sentences.line_times(comparison),
        walk_picture=inline(to_svg(comparison.trace.walk.picture), anchor) if comparison.trace.walk.steps else Markup(),
    )


def program_text(source: str) -> str:
    """The functions that ``Comparison(loss=..., variants=...)`` names in a file, and those that they use."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    wanted = [
        keyword.value
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Comparison"
        for keyword in call.keywords
        if keyword.arg in ("loss", "variants")
    ]
    used: set[str] = set()
    while wanted:
        names = {node.id for node in ast.walk(wanted.pop()) if isinstance(node, ast.Name)} & functions.keys()
        wanted += [functions[name] for name in names - used]
        used |= names
    texts = (ast.get_source_segment(source, node) for name, node in functions.items() if name in used)
    return "\n\n\n".join(text for text in texts if text)


def _shown(finding: Finding, drawn: list[Drawn]) -> Shown | None:
    if isinstance(finding, Table):
        return Shown(table=tables.finding_table(finding))
    if isinstance(finding, Listing):
        return Shown(listing=finding)
    if isinstance(finding, Curves | Winners):
        chart = next((chart for chart in drawn if chart.finding is finding), None)
        return Shown(chart=chart, note=finding.note) if chart is not None else None
    return None


def _pairs(comparison: ComparisonResult, results: Results) -> list[tuple[str, str]]:
    """Every engine that compiles against every one that records."""
    compiled = [info.name for info in results.engines if sentences.compiles(info, comparison.cases)]
    recording = [info.name for info in results.engines if info.kind == "dynamic"]
    return [(a, b) for a in compiled for b in recording]


def _programs(comparison: ComparisonResult, anchor: str) -> list[Program]:
    """Per engine that tells its programs, that of the case in which they are shortest."""
    best: dict[str, Program] = {}
    for case in comparison.cases:
        for row in case.rows:
            if row.texts.get("forward") or row.texts.get("derivative"):
                program = _program(case, row)
                known = best.get(row.engine)
                if known is None or len(program.derivative) < len(known.derivative):
                    best[row.engine] = program
    told = {(program.forward, program.derivative): program for program in reversed(best.values())}
    found = [program for program in best.values() if program in told.values()]
    return [dataclasses.replace(program, picture=picture_of(program.derivative, anchor)) for program in found]


def picture_of(text: str, anchor: str) -> Markup:
    """The picture of a graph of which this is the whole text, which is read and not evaluated; else nothing."""
    try:
        drawing = graph.parse(text).draw(max_nodes=MAX_NODES)
    except ParseError:
        return Markup()
    return inline(drawing.svg, anchor)


def inline(svg: str, anchor: str) -> Markup:
    """A picture for the page of this anchor: ids are unique in a report, also where two programs are one."""
    (own,) = set(re.findall(r'<svg [^>]*id="([^"]+)"', svg))
    return Markup(svg.replace(own, f"{anchor}-{own}"))


def _program(case: CaseResult, row: Row) -> Program:
    return Program(row.engine, case.name, row.texts.get("forward", ""), row.texts.get("derivative", ""))


# --- the environment --------------------------------------------------------------------------------------------------


def setup_line(results: Results) -> str:
    """Dtype, device and machine in one line; what the environment does not say is left out."""
    environment = results.environment
    machine, devices = _mapping(environment, "machine"), _mapping(environment, "devices")
    processor = str(_mapping(machine, "cpu").get("brand_raw") or machine.get("processor") or "")
    kind = str(devices.get("kind") or "")
    device = (
        f"{results.settings.device} ({kind})" if kind and kind != results.settings.device else results.settings.device
    )
    cores = machine.get("usable_cores")
    parts = [results.settings.dtype, device, processor, f"{cores} cores" if cores else ""]
    return ", ".join(part for part in parts if part)


def environment_table(environment: Mapping[str, Any]) -> TextTable:
    """All of the stamp, one line per value, nested names joined by dots."""
    rows = [[tables.Item(name), tables.Item(value)] for name, value in flat(environment)]
    headings = [tables.Heading("what", numeric=False), tables.Heading("value", numeric=False)]
    return TextTable("Environment", headings, rows)


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


# --- setting ----------------------------------------------------------------------------------------------------------


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("twograd.compare", "templates"), page.LOADER]),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "prose": prose,
        "size": size,
        "duration": duration,
        "markdown_table": tables.markdown,
        "markdown_text": tables.markdown_text,
    }
    environment.globals["LONG"] = LONG
    return environment


def _script() -> Markup:
    own = importlib.resources.files("twograd.compare").joinpath("templates/report.js").read_text("utf-8")
    return Markup(own) + page.script()


def prose(text: str) -> Markup:
    """Escaped, with what stands between backticks (single or double) set as code."""
    return Markup(re.sub(r"(``?)([^`]+)\1", r"<code>\2</code>", str(escape(text))))


def _as_utf8(text: str) -> bytes:
    """A program's text may hold halves of surrogate pairs, which no file can: they become question marks."""
    return text.encode("utf-8", "replace")


def _embedded(results: Results) -> Markup:
    """The data as JSON that no HTML parser takes for markup."""
    text = json.dumps({"schema_version": SCHEMA_VERSION, "twograd": encode(results)}, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
