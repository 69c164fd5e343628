"""Pictures as SVG and as text for other programs: well formed, within their boxes, escaped, the same each time."""

import re
import shutil
import xml.etree.ElementTree as ET

import pytest

from twograd.pictures import Drawing, Edge, Node, Picture, printable
from twograd.pictures.picture import columns
from twograd.pictures.svg import COLUMN, HUES, INK, PAD, SMALL, TITLE, to_svg

HOSTILE = "<script>alert('\"&')</script>\x00\x1b]]>\ud800 --> \\"
SVG = "{http://www.w3.org/2000/svg}"


def hostile_picture():
    node = Node("a", (HOSTILE,), "op", (HOSTILE,), hue=9, tag=HOSTILE[:8], tooltip=HOSTILE)
    inner = Picture(
        HOSTILE, (Node("b.1", ("inner",), "input"), Node("b.2", ("量子",), "output")), (Edge("b.1", "b.2"),)
    )
    nodes = (
        node,
        Node("b", (HOSTILE,), "derivative", inside=(inner, inner_again(inner))),
        Node('c"\\', ("c",), "gradient"),
    )
    edges = (Edge("a", "b", "saved"), Edge("b", 'c"\\', "cotangent", up=True))
    clean = Picture(HOSTILE, nodes, edges, HOSTILE, ((0, ":1", HOSTILE),), (HOSTILE, "up"))
    return printed(clean)


def inner_again(inner):
    nodes = tuple(Node(f"{node.key}x", node.lines, node.kind) for node in inner.nodes)
    return Picture("", nodes, (Edge("b.1x", "b.2x"),))


def printed(picture):
    """As whoever makes a picture has to do: every text through ``printable``."""
    nodes = tuple(
        Node(
            node.key, tuple(map(printable, node.lines)), node.kind, tuple(map(printable, node.details)), node.hue,
            printable(node.tag), node.lane, tuple(map(printed, node.inside)), node.tooltip, node.mark,
        )
        for node in picture.nodes
    )  # fmt: skip
    legend = tuple((hue, tag, printable(text)) for hue, tag, text in picture.legend)
    lanes = tuple(map(printable, picture.lanes))
    return Picture(printable(picture.title), nodes, picture.edges, printable(picture.description), legend, lanes)


def test_a_kind_that_nobody_knows_is_no_markup():
    box = Node('"><script>', ("a",), '"><script>', mark='"><script>')
    root = ET.fromstring(to_svg(Picture("", (box,), (Edge(box.key, box.key, '"><script>'),))))
    assert not list(root.iter(f"{SVG}script"))
    assert [g.get("data-key") for g in root.iter(f"{SVG}g") if g.get("data-key")] == [box.key]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": (Node("a", (), "op"),) * 2}, "two nodes of a picture have one key"),
        ({"edges": (Edge("a", "c"),)}, "ends at 'c', which is no node"),
        ({"edges": (Edge("b", "a"),)}, "ends at 'b', which is no node"),
        ({"lanes": ("one",)}, "in a lane that has no heading"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(changes, message):
    parts = {"nodes": (Node("a", (), "op", lane=1),), "edges": (), **changes}
    with pytest.raises(ValueError, match=message):
        Picture("", **parts)


def test_hostile_text_is_escaped_and_well_formed():
    svg = to_svg(hostile_picture())
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "<script" not in svg
    assert not list(root.iter(f"{SVG}script"))
    assert any("<script>alert" in (text.text or "") for text in root.iter(f"{SVG}text"))
    assert svg == to_svg(hostile_picture())


def test_it_says_what_it_shows():
    root = ET.fromstring(to_svg(hostile_picture()))
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {desc.attrib['id']}"
    assert "4 of kind" not in (desc.text or "")
    assert "2 of kind input" in (desc.text or "")
    assert "1 values are saved" in (desc.text or "")
    identifiers = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(identifiers) == len(set(identifiers))


def test_styles_reach_no_further_than_the_picture():
    svg = to_svg(hostile_picture())
    identifier = ET.fromstring(svg).attrib["id"]
    css = re.sub(r"@media\([^)]*\)\{(.*?\})\}", r"\1", svg.split("<style>")[1].split("</style>")[0])
    selectors = [part for rule in css.split("}") if "{" in rule for part in rule.split("{")[0].split(",")]
    assert selectors
    assert all(selector.startswith(f"#{identifier}") for selector in selectors)
    assert "prefers-color-scheme:dark" in svg


def test_text_stays_in_its_box():
    root = ET.fromstring(to_svg(hostile_picture()))
    checked = 0
    for group in root.iter(f"{SVG}g"):
        body = next((rect for rect in group.findall(f"{SVG}rect") if rect.attrib.get("class") == "body"), None)
        if body is None or "transform" not in group.attrib:
            continue
        for text in group.findall(f"{SVG}text"):
            size = TITLE if text.attrib["class"] == "title" else SMALL
            width = columns(text.text or "") * size * COLUMN
            left = float(text.attrib["x"]) - (width if text.attrib["class"] == "tag" else 0)
            assert left >= PAD / 2
            assert left + width <= float(body.attrib["width"])
            assert float(text.attrib["y"]) <= float(body.attrib["height"]) - 3
            checked += 1
    assert checked > 8
    width = float(root.attrib["width"])
    assert all(float(rect.attrib["width"]) <= width for rect in root.iter(f"{SVG}rect"))


def test_an_empty_picture():
    root = ET.fromstring(to_svg(Picture("nothing", (), ())))
    assert "No boxes." in (root.find(f"{SVG}desc").text or "")  # type: ignore[union-attr]


def test_printable():
    assert printable("a\nb\tc\x00") == "a b c"
    assert printable("x" * 100, 10) == "x" * 9 + "…"
    assert printable("量" * 100, 10) == "量" * 4 + "…"
    assert columns("量é") == 3
    assert columns("e\u0301") == 1


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", [0, 1])
def test_colours_can_be_read(page):
    texts = [*(pair[page] for pair in HUES), *(INK[name][page] for name in ("ink", "muted", "added", "removed"))]
    for ground in ("card", "inner", "paper"):
        assert min(contrast(text, INK[ground][page]) for text in texts) >= 4.5
    for ground in ("leaf", "result"):
        assert contrast(INK["muted"][page], INK[ground][page]) >= 4.5
    for line in ("line", "saved", "cotangent"):
        assert contrast(INK[line][page], INK["lane"][page]) >= 3


# --- files and other programs -----------------------------------------------------------------------------------------


def test_save(tmp_path):
    drawing = Drawing(hostile_picture())
    assert drawing.save(tmp_path / "a.svg").read_text() == drawing.svg
    page = drawing.save(tmp_path / "a.html").read_text()
    assert drawing.svg in page
    assert drawing.svg in drawing._repr_html_()
    assert "<script" not in page.replace(drawing.svg, "")
    assert drawing.save(str(tmp_path / "a.dot")).read_text() == drawing.dot
    assert drawing.save(tmp_path / "a.mmd").read_text() == drawing.mermaid
    with pytest.raises(ValueError, match=r"rsvg-convert -o a.png a.svg"):
        drawing.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"saved as .svg, .html, .dot, .gv or .mmd, not as .pickle"):
        drawing.save(tmp_path / "a.pickle")
    with pytest.raises(FileNotFoundError, match=r"no such directory: .*nowhere'"):
        drawing.save(tmp_path / "nowhere" / "a.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dot", "a.html", "a.mmd", "a.svg"]


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="engine must be 'own' or 'dot', got 'neato'"):
        Drawing(Picture("", (), ()), "neato")  # type: ignore[arg-type]


def test_without_graphviz(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="draw with engine='own', which needs nothing"):
        _ = Drawing(hostile_picture(), "dot").svg
    assert Drawing(hostile_picture()).svg.startswith("<svg")


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_with_graphviz():
    root = ET.fromstring(Drawing(hostile_picture(), "dot").svg)
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert any("<script>alert('\"&')" in text for text in texts)
    assert sum(text == "inner" for text in texts) == 2


def test_graphviz_source():
    source = Drawing(hostile_picture()).dot
    assert '"c\\"\\\\"' in source
    assert "style=dashed" in source
    assert '"c\\"\\\\" -> "b"' in source
    assert "dir=back" in source


def test_mermaid():
    text = Drawing(hostile_picture()).mermaid
    assert text.startswith("flowchart TD\n")
    assert "<script" not in text
    assert "#60;script#62;" in text
    assert "n0 -.-> n1" in text
    assert text.count("subgraph") == text.count("\n  end") + text.count("\n    end")
