"""A picture as SVG: measured, laid out, and drawn, with nested pictures inside of their boxes.

What flows in: a :class:`Picture`. What flows out: the text of an SVG file, the same bytes for the same picture, which
stands in a page or notebook as well as alone. Read :func:`to_svg`.

Boxes are measured in columns of a monospaced font that is as wide as the widest in use, so text never leaves its box.
Hues are those of Okabe and Ito (2008), darkened for the light page and lightened for the dark one. What a colour says,
a shape, a dash or a tag says too, for grey print and for who cannot tell the colours apart. All text is escaped.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from twograd.pictures.layout import Layout, Link, layout
from twograd.pictures.picture import Node, Picture, columns, printable

KINDS = {
    "input": "input",
    "constant": "constant",
    "op": "equation",
    "derivative": "equation of a derivative",
    "fold": "several equations",
    "fold derivative": "several of a derivative",
    "output": "output",
    "gradient": "output that is a derivative",
    "leaf": "leaf: a Tensor whose .grad is wanted",
    "forward": "op of the forward pass",
    "saved": "value saved for the backward pass",
    "spoiled": "saved, and changed in place since",
    "backward": "node of the backward pass",
    "fold forward": "several ops",
    "fold saved": "several saved values",
    "fold backward": "several nodes",
    "aside": "Tensor beside the graph: a view, or what it shows",
}
ROUND = ("input", "constant", "output", "gradient", "leaf", "aside")
"""Kinds whose boxes have round ends: they are values."""
EDGES = {
    "value": "value",
    "cotangent": "value of the derivative",
    "saved": "value saved for the derivative",
    "view": "is a view of",
}
MARKS = {"+": "added", "-": "removed", "~": "changed", "=": "kept"}
MARK_TEXTS = {"+": "added", "-": "removed", "~": "kept, with other operands"}

INK = {
    "paper": ("#ffffff", "#1a1d22"),
    "lane": ("#f5f6f8", "#22262d"),
    "card": ("#ffffff", "#2a2f37"),
    "inner": ("#fafbfc", "#1e2228"),
    "ink": ("#1b1e23", "#e8eaed"),
    "muted": ("#59616d", "#a7afba"),
    "line": ("#7a838f", "#8a93a0"),
    "saved": ("#bd5200", "#f5903e"),
    "cotangent": ("#0072b2", "#5eb3e4"),
    "leaf": ("#dcebf7", "#1f3a52"),
    "result": ("#dff0de", "#234028"),
    "store": ("#ffdcab", "#56350f"),
    "node": ("#e4e6ea", "#3a4049"),
    "added": ("#00754f", "#3fc994"),
    "removed": ("#b3261e", "#f28b82"),
}
"""By name, on the light page and on the dark one. Leaves are blue, saved values orange, results green and nodes of a
backward pass gray, as torchviz has them."""
HUES = [
    ("#0072b2", "#4ea8de"), ("#b84e00", "#f5793a"), ("#00825c", "#2fbf94"), ("#a8467f", "#e093be"),
    ("#8f6400", "#e8b44c"), ("#6a4fb3", "#b09be8"), ("#4f7a1f", "#a5cf6c"), ("#5c6b7a", "#aab8c7"),
]  # fmt: skip

TITLE, SMALL = 12.0, 10.0
COLUMN = 0.61
"""Of a font's size, the width of one column: DejaVu Sans Mono's 0.602 is the widest of the fonts named below."""
MONO = "'DejaVu Sans Mono',ui-monospace,Menlo,Consolas,'Liberation Mono',monospace"
SANS = "'DejaVu Sans',Verdana,system-ui,sans-serif"
SANS_COLUMN = 0.6
"""Of prose, on average; only the legend and headings are in it, with room to spare."""
MARGIN, PAD, STRIPE = 20.0, 9.0, 5.0
TITLE_LINE, SMALL_LINE = 16.0, 13.0


@dataclass
class _Placed:
    """A picture whose boxes have sizes and places; ``inner`` are the pictures inside of each, with their corners."""

    picture: Picture
    layout: Layout
    sizes: list[tuple[float, float]]
    inner: list[list[tuple[float, float, "_Placed"]]]


def to_svg(picture: Picture) -> str:
    """The picture as an ``<svg>`` element, with a title and a description for screen readers, and a legend."""
    placed = _place(picture)
    top = MARGIN + 22 + (18 if picture.description else 0) + (26 if picture.lanes else 8)
    legend, legend_height = _legend(picture, max(placed.layout.width, 500.0))
    headings = [(picture.title, 16.0), (picture.description, 12.0)]
    widths = [
        placed.layout.width,
        *(columns(text) * size * SANS_COLUMN for text, size in headings),
        *(w for *_, w in legend),
    ]
    for lane, heading in enumerate(picture.lanes):
        if lane in placed.layout.lanes:
            widths.append(placed.layout.lanes[lane][0] + columns(heading) * 12 * SANS_COLUMN)
    width = round(max(widths) + 2 * MARGIN)
    height = round(top + placed.layout.height + 24 + legend_height + MARGIN)
    body = [
        _text(MARGIN, MARGIN + 14, picture.title, "heading"),
        *([_text(MARGIN, MARGIN + 34, picture.description, "about")] if picture.description else []),
        *_lanes(placed, top),
        f'<g transform="translate({_n(MARGIN)} {_n(top)})">',
        *_draw(placed),
        "</g>",
        f'<g transform="translate({_n(MARGIN)} {_n(top + placed.layout.height + 24)})">',
        *(line for line, _ in legend),
        "</g>",
    ]
    content = "\n".join(body)
    identifier = "picture-" + hashlib.sha256(content.encode()).hexdigest()[:10]
    content = content.replace("url(#end-", f"url(#{identifier}-")
    markers = "".join(_marker(identifier, name) for name in (*EDGES, "added", "removed"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{identifier}" class="twograd-picture" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-desc" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n'
        f'<title id="{identifier}-title">{escape(picture.title)}</title>\n'
        f'<desc id="{identifier}-desc">{escape(_spoken(picture))}</desc>\n'
        f"<style>{_style(identifier)}</style>\n<defs>{markers}</defs>\n"
        f'<rect class="paper" width="{width}" height="{height}"/>\n{content}\n</svg>\n'
    )


# --- measuring --------------------------------------------------------------------------------------------------------


def _place(picture: Picture) -> _Placed:
    """Lays out the pictures inside first: to the one around it a box is as large as what is in it."""
    sizes, inner = [], []
    for node in picture.nodes:
        width, height = _text_size(node)
        inside = []
        right = PAD + STRIPE + 4
        for found in map(_place, node.inside):
            title = found.picture.title
            top = height + (SMALL_LINE if title else 0)
            inside.append((right, top, found))
            right += max(found.layout.width, columns(title) * SMALL * COLUMN) + 2 * PAD
        if inside:
            height = max(top + found.layout.height for _, top, found in inside) + PAD + 2
            spare = max(width - (right - PAD), 0.0) / 2
            inside = [(left + spare, top, found) for left, top, found in inside]
            width = max(width, right - PAD)
        sizes.append((width, height))
        inner.append(inside)
    place = {node.key: i for i, node in enumerate(picture.nodes)}
    links = [Link(place[e.source], place[e.target], (e.kind, e.port), e.up) for e in picture.edges]
    return _Placed(picture, layout(sizes, links, [node.lane for node in picture.nodes]), sizes, inner)


def _text_size(node: Node) -> tuple[float, float]:
    first, *rest = node.lines or ("",)
    tag = (columns(node.tag) + 2) * SMALL * COLUMN if node.tag else 0.0
    sign = 2 * TITLE * COLUMN if node.mark in MARK_TEXTS else 0.0
    widths = [sign + columns(first) * TITLE * COLUMN + tag, *(sign + columns(line) * TITLE * COLUMN for line in rest)]
    widths += [columns(line) * SMALL * COLUMN for line in node.details]
    height = 8 + TITLE_LINE * (1 + len(rest)) + SMALL_LINE * len(node.details)
    return round(max(widths) + 2 * PAD + STRIPE, 1), height + 2


# --- drawing ----------------------------------------------------------------------------------------------------------


def _lanes(placed: _Placed, top: float) -> Iterator[str]:
    if not placed.picture.lanes:
        return
    for lane, (left, right) in placed.layout.lanes.items():
        width = max(right - left, columns(placed.picture.lanes[lane]) * 12 * SANS_COLUMN)
        yield (
            f'<rect class="lane" x="{_n(MARGIN + left - 10)}" y="{_n(top - 26)}" width="{_n(width + 20)}" '
            f'height="{_n(placed.layout.height + 36)}" rx="8"/>'
        )
        yield _text(MARGIN + left, top - 10, placed.picture.lanes[lane], "lane-name")


def _draw(placed: _Placed) -> Iterator[str]:
    marks = {node.key: node.mark for node in placed.picture.nodes}
    for kind in EDGES:  # what is saved lies on top
        for edge, points in zip(placed.picture.edges, placed.layout.paths, strict=True):
            if edge.kind == kind and points:
                ends = {marks[edge.source], marks[edge.target]}
                mark = "removed" if "-" in ends else "added" if "+" in ends else ""
                ending = mark or kind
                classes = " ".join(filter(None, ["edge", kind, mark]))
                yield f'<path class="{classes}" d="{_path(points)}" marker-end="url(#end-{ending})"/>'
    for i, node in enumerate(placed.picture.nodes):
        yield from _box(node, placed.layout.x[i], placed.layout.y[i], placed.sizes[i], placed.inner[i])


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Straight within a band, and between two a curve that leaves and arrives upright."""
    points = [(round(x, 1), round(y, 1)) for x, y in points]  # else an arrow may point along a part of no length
    x, y = points[0]
    parts = [f"M{_n(x)} {_n(y)}"]
    for i, (to_x, to_y) in enumerate(points[1:], 1):
        if i % 2 == 1 or to_x == x:
            if (to_x, to_y) != (x, y):
                parts.append(f"L{_n(to_x)} {_n(to_y)}")
        else:
            middle = (y + to_y) / 2
            parts.append(f"C{_n(x)} {_n(middle)} {_n(to_x)} {_n(middle)} {_n(to_x)} {_n(to_y)}")
        x, y = to_x, to_y
    return "".join(parts)


def _box(
    node: Node, x: float, y: float, size: tuple[float, float], inner: list[tuple[float, float, _Placed]]
) -> Iterator[str]:
    width, height = size
    mark = MARKS.get(node.mark, "")
    hue = f"hue{node.hue % len(HUES)}" if node.hue is not None else "nohue"
    classes = " ".join(filter(None, ["node", node.kind, hue, mark, "around" if inner else ""]))
    place = f"translate({_n(x - width / 2)} {_n(y - height / 2)})"
    yield f"<g class={quoteattr(classes)} data-key={quoteattr(node.key)} transform={quoteattr(place)}>"
    if node.tooltip:
        yield f"<title>{escape(printable(node.tooltip, 400))}</title>"
    round_ends = node.kind in ROUND
    radius = min(height / 2, 15) if round_ends else 10 if node.kind.endswith("derivative") else 3
    if node.kind.startswith("fold"):
        yield f'<rect class="back" x="3" y="3" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"/>'
    yield f'<rect class="body" width="{_n(width)}" height="{_n(height)}" rx="{_n(radius)}"/>'
    if node.kind in ("output", "gradient"):
        yield (
            f'<rect class="ring" x="2.5" y="2.5" width="{_n(width - 5)}" height="{_n(height - 5)}" '
            f'rx="{_n(radius - 2)}"/>'
        )
    if node.hue is not None and not round_ends:
        inset = 6.0 if node.kind.endswith("derivative") else 3.0
        yield f'<rect class="stripe" x="3" y="{_n(inset)}" width="4" height="{_n(height - 2 * inset)}" rx="2"/>'
    left, baseline = PAD + STRIPE, 17.0
    if round_ends:
        left = PAD + STRIPE / 2
    if node.mark in MARK_TEXTS:
        yield _text(left, baseline, node.mark, "sign")
        left += 2 * TITLE * COLUMN
    for i, line in enumerate(node.lines):
        yield _text(left, baseline + i * TITLE_LINE, line, "title")
    left -= 2 * TITLE * COLUMN if node.mark in MARK_TEXTS else 0.0
    baseline += TITLE_LINE * len(node.lines) - 2
    for i, line in enumerate(node.details):
        yield _text(left, baseline + i * SMALL_LINE, line, "detail")
    if node.tag:
        yield _text(width - PAD + 2, 16, node.tag, "tag")
    for left, top, placed in inner:
        if placed.picture.title:
            yield _text(left, top - 4, placed.picture.title, "detail")
        yield f'<g transform="translate({_n(left)} {_n(top)})">'
        yield from _draw(placed)
        yield "</g>"
    yield "</g>"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _n(value: float) -> str:
    """A tenth of a pixel is enough."""
    return f"{round(value, 1) + 0.0:g}" if abs(value) < 1e5 else f"{value:.1f}"


# --- legend -----------------------------------------------------------------------------------------------------------


def _all_nodes(picture: Picture) -> Iterator[Node]:
    for node in picture.nodes:
        yield node
        for inner in node.inside:
            yield from _all_nodes(inner)


def _all_edges(picture: Picture) -> Iterator[str]:
    for edge in picture.edges:
        yield edge.kind
    for node in picture.nodes:
        for inner in node.inside:
            yield from _all_edges(inner)


def _legend(picture: Picture, limit: float) -> tuple[list[tuple[str, float]], float]:
    """The lines of the legend with their widths, and its height: what shapes and dashes mean, then what hues mean."""
    lines: list[tuple[str, float]] = []
    x, y = 0.0, 10.0
    kinds, edges = {node.kind for node in _all_nodes(picture)}, set(_all_edges(picture))
    marks = {node.mark for node in _all_nodes(picture)}

    def entry(sample: str, sample_width: float, text: str) -> None:
        nonlocal x, y
        width = sample_width + 8 + columns(text) * 11 * SANS_COLUMN
        if x and x + width > limit:
            x, y = 0.0, y + 20
        lines.append(
            (
                f'<g transform="translate({_n(x)} {_n(y)})">{sample}{_text(sample_width + 6, 4, text, "about")}</g>',
                x + width,
            )
        )
        x += width + 14

    for kind, text in KINDS.items():
        if kind in kinds:
            radius = 7 if kind in ROUND or kind.endswith("derivative") else 3
            back = f'<rect class="back" x="3" y="-4" width="26" height="14" rx="{radius}"/>' if "fold" in kind else ""
            ring = (
                '<rect class="ring" x="2.5" y="-4.5" width="21" height="9" rx="5"/>'
                if kind in ("output", "gradient")
                else ""
            )
            sample = f'{back}<rect class="body" y="-7" width="26" height="14" rx="{radius}"/>{ring}'
            entry(f'<g class="node {kind} nohue">{sample}</g>', 30, text)
    for mark, text in MARK_TEXTS.items():
        if mark in marks:
            sample = '<rect class="body" y="-7" width="26" height="14" rx="3"/>' + _text(9, 4, mark, "sign")
            entry(f'<g class="node {MARKS[mark]} nohue">{sample}</g>', 30, text)
    for kind, text in EDGES.items():
        if kind in edges:
            entry(f'<path class="edge {kind}" d="M0 0L30 0" marker-end="url(#end-{kind})"/>', 34, text)
    if picture.legend:
        x, y = 0.0, y + 24
    for hue, tag, text in picture.legend:
        sample_width = 18 + (columns(tag) + 1) * SMALL * COLUMN
        sample = (
            f'<g class="node hue{hue % len(HUES)}"><rect class="stripe" y="-5" width="12" height="10" rx="2"/>'
            f"{_text(18, 3.5, tag, 'tag-name')}</g>"
        )
        width = sample_width + columns(text) * 11 * COLUMN
        lines.append(
            (f'<g transform="translate(0 {_n(y)})">{sample}{_text(sample_width, 3.5, text, "code")}</g>', width)
        )
        y += 17
    return lines, y + 4 if lines else 0.0


def _spoken(picture: Picture) -> str:
    """What a screen reader says instead of the drawing."""
    counts = [
        f"{count} of kind {text}"
        for kind, text in KINDS.items()
        if (count := sum(node.kind == kind for node in _all_nodes(picture)))
    ]
    saved = len({(edge.source, edge.port) for edge in picture.edges if edge.kind == "saved"})
    parts = [picture.description, f"{len(picture.nodes)} boxes: {', '.join(counts)}." if counts else "No boxes."]
    parts += [f"{saved} values are saved for the derivative."] if saved else []
    parts += (
        ["Lines of the program: " + "; ".join(f"{tag} {text}" for _, tag, text in picture.legend)]
        if picture.legend
        else []
    )
    return " ".join(filter(None, parts))


# --- style ------------------------------------------------------------------------------------------------------------


def _marker(identifier: str, name: str) -> str:
    return (
        f'<marker id="{identifier}-{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="end-{name}" d="M0.5 0.5L7.5 4L0.5 7.5z"/></marker>'
    )


def _style(identifier: str) -> str:
    """Custom properties for the two pages, and rules that reach no further than this picture."""

    def variables(page: int) -> str:
        named = "".join(f"--{name}:{pair[page]};" for name, pair in INK.items())
        return named + "".join(f"--hue{i}:{pair[page]};" for i, pair in enumerate(HUES))

    rules = {
        ".paper": "fill:var(--paper)",
        "text": f"font:{TITLE:g}px {MONO};fill:var(--ink)",
        ".heading": f"font:bold 16px {SANS}",
        ".about": f"font:11px {SANS};fill:var(--muted)",
        ".lane-name": f"font:bold 12px {SANS};fill:var(--muted)",
        ".code": f"font:11px {MONO}",
        ".title": "font-weight:bold",
        ".detail,.tag,.tag-name": f"font-size:{SMALL:g}px",
        ".detail": "fill:var(--muted)",
        ".tag": "text-anchor:end;font-weight:bold",
        ".tag-name": "font-weight:bold",
        ".lane": "fill:var(--lane)",
        ".edge": "fill:none;stroke:var(--line);stroke-width:1.3",
        ".edge.cotangent": "stroke:var(--cotangent)",
        ".edge.saved": "stroke:var(--saved);stroke-width:1.8;stroke-dasharray:5 3",
        ".edge.view": "stroke-dasharray:1.5 2.5",
        ".edge.added": "stroke:var(--added)",
        ".edge.removed": "stroke:var(--removed);stroke-dasharray:2 3",
        ".end-value": "fill:var(--line);stroke:none",
        ".end-cotangent": "fill:var(--paper);stroke:var(--cotangent)",
        ".end-saved": "fill:var(--saved);stroke:none",
        ".end-view": "fill:var(--paper);stroke:var(--line)",
        ".end-added": "fill:var(--added);stroke:none",
        ".end-removed": "fill:var(--removed);stroke:none",
        ".body,.back": "fill:var(--card);stroke:var(--c,var(--muted));stroke-width:1.3",
        ".ring": "fill:none;stroke:var(--muted);stroke-width:.8",
        ".stripe": "fill:var(--c,var(--muted))",
        ".tag,.tag-name": "fill:var(--c,var(--muted))",
        ".derivative>.body": "stroke-dasharray:6 2.5",
        ".constant>.body": "stroke-dasharray:1.5 2.5",
        ".input>.body,.leaf>.body": "fill:var(--leaf)",
        ".output>.body,.gradient>.body": "fill:var(--result)",
        ".saved>.body,.saved>.back,.spoiled>.body": "fill:var(--store)",
        ".spoiled>.body": "stroke:var(--removed);stroke-width:2.2;stroke-dasharray:2 3",
        ".backward>.body,.backward>.back": "fill:var(--node)",
        ".gradient>.body": "stroke-dasharray:6 2.5",
        ".around>.body": "fill:var(--inner)",
        ".kept>.body,.kept>.back": "stroke:var(--line);stroke-width:.8",
        ".changed>.body": "stroke:var(--ink);stroke-width:2.2",
        ".added>.body": "stroke:var(--added);stroke-width:3.2;stroke-dasharray:none",
        ".removed>.body": "stroke:var(--removed);stroke-width:2.2;stroke-dasharray:2 3",
        ".added>.title,.added>.sign": "fill:var(--added)",
        ".removed>.title,.removed>.sign": "fill:var(--removed)",
        ".removed>.title": "text-decoration:line-through",
        ".sign": "font-weight:bold",
        **{f".hue{i}": f"--c:var(--hue{i})" for i in range(len(HUES))},
        ".nohue": "--c:var(--muted)",
    }
    css = "".join(
        ",".join(f"#{identifier} {part}" for part in selector.split(",")) + "{" + rule + "}"
        for selector, rule in rules.items()
    )
    return f"#{identifier}{{{variables(0)}}}@media(prefers-color-scheme:dark){{#{identifier}{{{variables(1)}}}}}{css}"
