"""How every chart looks: colours, markers and line styles, sizes, labels at the ends of lines, and the files drawn.

What flows in: names of engines, and figures drawn by :mod:`twograd.compare.charts` and others. What flows out: SVG and
PNG. Read :data:`ENGINES`, then :func:`svg_for_page`.

An engine has one colour, one marker and one line style in all charts. Hues are those of Okabe and Ito (2008), which
remain distinct to colour-blind readers, darkened for the light page and lightened for the dark one until each has a
contrast of 3:1 against its page; engines of one family have one hue. Grey print keeps marker and line style. Names of
engines are always written in ink.
"""

import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Color:
    """A colour of the light page, its counterpart on the dark one, and the CSS variable that switches them."""

    variable: str
    light: str
    dark: str


@dataclass(frozen=True)
class LineStyle:
    """``dashes`` is matplotlib's on-off sequence in points; empty for a solid line."""

    color: Color
    marker: str
    dashes: tuple[float, ...] = ()

    @property
    def line(self) -> Any:
        """As matplotlib's ``linestyle``."""
        return (0, self.dashes) if self.dashes else "solid"


PAPER = Color("paper", "#ffffff", "#1a1d22")
INK = Color("ink", "#1b1e23", "#e8eaed")
MUTED = Color("muted", "#59616d", "#a7afba")
GRID = Color("grid", "#dde1e6", "#363c45")

ENGINES = {
    "tape": LineStyle(Color("tape", "#0072b2", "#4ea8de"), "o"),
    "graph": LineStyle(Color("graph", "#d55e00", "#f5793a"), "s", (5, 2)),
    "jax-jit": LineStyle(Color("jax-jit", "#009368", "#2fbf94"), "^", (1.5, 1.5)),
    "torch": LineStyle(Color("torch", "#b8578f", "#e093be"), "D", (7, 2, 1.5, 2)),
    "autograd": LineStyle(Color("autograd", "#3d4148", "#d3d7dd"), "v", (3, 1.5, 1, 1.5, 1, 1.5)),
    "tape-primitive": LineStyle(Color("tape-primitive", "#3a8fc0", "#9bd0f2"), "h", (9, 2)),
    "graph-eager": LineStyle(Color("graph-eager", "#b27a00", "#e8b44c"), "P", (2.5, 2.5)),
    "jax-eager": LineStyle(Color("jax-eager", "#5f8a2c", "#a5cf6c"), "X", (5, 1.5, 1.5, 1.5)),
    "tape-compiled": LineStyle(Color("tape-compiled", "#12436d", "#6f9cff"), "<"),
    "tape-deferred": LineStyle(Color("tape-deferred", "#4a63c8", "#8fb4ff"), ">", (9, 2)),
    "tape-create-graph": LineStyle(Color("tape-create-graph", "#5a7896", "#7f9fbf"), "p", (9, 2, 1.5, 2)),
    "graph-backprop": LineStyle(Color("graph-backprop", "#8f3b0a", "#ffb08a"), "d", (5, 2)),
    "torch-func": LineStyle(Color("torch-func", "#8c2d62", "#c7689c"), "*", (7, 2, 1.5, 2)),
    "torch-compile": LineStyle(Color("torch-compile", "#d14a78", "#ff9ebb"), "D", (1.5, 1.5)),
    "pytensor-jax": LineStyle(Color("pytensor-jax", "#6a4fb3", "#b7a2f0"), "p", (1.5, 1.5)),
    "pytensor-numba": LineStyle(Color("pytensor-numba", "#4b2a8c", "#9277dd"), "<", (5, 2)),
    "dezero": LineStyle(Color("dezero", "#00707f", "#45b5c4"), "v", (9, 2)),
    "tinygrad": LineStyle(Color("tinygrad", "#3f7f7a", "#8fd3cb"), "*", (1.5, 1.5)),
    "tensorflow": LineStyle(Color("tensorflow", "#a33d2e", "#f08c7d"), ">", (3, 1.5, 1, 1.5)),
    "tensorflow-function": LineStyle(Color("tensorflow-function", "#7a5a1e", "#c9a869"), "s", (1.5, 1.5)),
    "tensorflow-v1": LineStyle(Color("tensorflow-v1", "#7c6f00", "#cfc24a"), "^", (5, 2)),
}
"""Every engine of :data:`twograd.compare.engines.ENGINES`. The usual eight share neither hue nor marker nor dashes; the
others take the hue of their family, lighter or darker, and no two of all have both marker and dashes in common."""

SERIES = [
    LineStyle(Color("series-1", "#7a3db0", "#bd93e6"), "o"),
    LineStyle(Color("series-2", "#8a6b3d", "#cdaa74"), "s", (5, 2)),
    LineStyle(Color("series-3", "#00838f", "#5cc4ce"), "^", (1.5, 1.5)),
    LineStyle(Color("series-4", "#a03030", "#ee8a86"), "D", (7, 2, 1.5, 2)),
    LineStyle(Color("series-5", "#5c6b7a", "#aab8c7"), "v", (3, 1.5, 1, 1.5)),
]
"""Of lines that belong to no engine."""

STAGES = {
    "trace": Color("stage-trace", "#1b2a49", "#e4ebf7"),
    "transform": Color("stage-transform", "#31598c", "#b9cdec"),
    "passes": Color("stage-passes", "#4d87b5", "#8cb0de"),
    "lower": Color("stage-lower", "#82acc4", "#6691c4"),
    "compile": Color("stage-compile", "#b3c5cc", "#48709f"),
    "first call": Color("stage-first-call", "#dcd5bd", "#8f8460"),
}
"""Dark to light in the order in which the stages are paid, so that they keep their order in grey print."""

WIDTH = 5.4
"""Inches. At this width the smallest text can still be read on a telephone's screen."""

FONT, SMALL_FONT = 9.5, 7.5

FONT_FAMILY = ["DejaVu Sans", "Verdana", "sans-serif"]
"""Layouts are made with the first, which matplotlib brings along; it is wider than what browsers put in its place."""


def engine_style(name: str) -> LineStyle:
    """The style of an engine; a name that is no engine's here gets one of :data:`SERIES`, always the same."""
    return ENGINES.get(name) or SERIES[zlib.crc32(name.encode(errors="replace")) % len(SERIES)]


def colors() -> list[Color]:
    """Every colour that a chart may hold."""
    lines = [style.color for style in (*ENGINES.values(), *SERIES)]
    return [PAPER, INK, MUTED, GRID, *lines, *STAGES.values()]


def settings() -> Any:
    """matplotlib's rcParams for all charts; ``svg.hashsalt`` makes two drawings of the same data the same bytes."""
    return {
        "font.family": FONT_FAMILY[0],
        "font.size": FONT,
        "text.color": INK.light,
        "text.parse_math": False,  # a dollar sign in somebody's label is a dollar sign
        "axes.labelcolor": INK.light,
        "axes.labelsize": FONT,
        "axes.edgecolor": MUTED.light,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": GRID.light,
        "grid.linewidth": 0.6,
        "xtick.color": MUTED.light,
        "ytick.color": MUTED.light,
        "xtick.labelcolor": INK.light,
        "ytick.labelcolor": INK.light,
        "xtick.labelsize": FONT - 0.5,
        "ytick.labelsize": FONT - 0.5,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "lines.scale_dashes": False,
        "figure.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "twograd",
        "path.simplify": False,
    }


def new_axes(
    height: float, left: float, right: float, bottom: float = 0.78, top: float = 0.12
) -> "tuple[Figure, Axes]":
    """A figure of the common width with one axes; margins in inches. Call it, and draw, within :func:`drawing`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - bottom - top) / height)
    )
    return figure, axes


def drawing() -> Any:
    """The context in which figures are made and saved."""
    import matplotlib as mpl

    return mpl.rc_context(settings())


def footnote(figure: "Figure", text: str) -> None:
    """What the chart is of: comparison, case, n, dtype, device. At the lower edge, small, broken between its parts."""
    figure.text(
        0.065 / WIDTH,
        0.06 / figure.get_figheight(),
        text,
        color=MUTED.light,
        fontsize=SMALL_FONT,
        va="bottom",
        ha="left",
        linespacing=1.35,
        gid="note",
    )


def log_ticks(axes: "Axes", which: str, write: Callable[[float], str]) -> None:
    """Ticks along a logarithmic axis, whose limits must be final: the densest whose labels have an em between them."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis, (low, high) = (axes.xaxis, axes.get_xlim()) if which == "x" else (axes.yaxis, axes.get_ylim())
    inches = (axes.bbox.width if which == "x" else axes.bbox.height) / axes.figure.dpi
    per_decade = 72 * inches / math.log10(high / low)

    def room(tick: float) -> float:
        return FONT * (0.62 * len(write(tick)) + 1 if which == "x" else 2)

    def apart(ticks: Sequence[float]) -> bool:
        return all(per_decade * math.log10(b / a) >= (room(a) + room(b)) / 2 for a, b in itertools.pairwise(ticks))

    for candidates in _nice_ticks(low, high):
        ticks = [tick for tick in candidates if low <= tick <= high]
        if apart(ticks):
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([write(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def _nice_ticks(low: float, high: float) -> Iterator[list[float]]:
    """The densest first. Within a factor of four, where decades have too few, equal steps."""
    if high < 4 * low:
        power = math.floor(math.log10(high - low)) - 1
        for step in (1, 2, 5, 10, 20):
            unit = float(f"{step}e{power}")
            yield [float(f"{k * step}e{power}") for k in range(math.ceil(low / unit), math.floor(high / unit) + 1)]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ("123456789", "12357", "125", "13", "1"):
        yield [float(f"{step}e{power}") for power in powers for step in steps]
    for every in range(2, len(powers) + 2):
        yield [float(f"1e{power}") for power in powers if power % every == 0]


def label_line_ends(axes: "Axes", ends: Sequence[tuple[float, float, str, LineStyle]]) -> None:
    """Writes each line's name right of the axes, next to its end ``(x, y)``, with a leader; none covers another.

    The limits and scales of the axes must be final.
    """
    if not ends:
        return
    low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    height = (high - low) / axes.figure.dpi * 72
    points = [axes.transAxes.inverted().transform(axes.transData.transform((x, y))) for x, y, _, _ in ends]
    places = spread([float(y) for _, y in points], gap=1.22 * FONT / height)
    for (_, _, name, style), (x, y), place in zip(ends, points, places, strict=True):
        axes.plot(
            [x, 1.035, 1.06], [y, place, place], transform=axes.transAxes, clip_on=False, color=style.color.light,
            linewidth=0.7, marker="", scalex=False, scaley=False, label="_leader",
        )  # fmt: skip
        axes.text(1.075, place, name, transform=axes.transAxes, va="center", ha="left", fontsize=FONT - 0.5)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places at least ``gap`` apart, in the order of the wanted ones, and as near to them as least squares can be.

    Labels that would touch are joined in blocks, each centred on the mean of what its labels want (the pool-adjacent-
    violators algorithm of isotonic regression); the whole is then moved into 0..1 where it fits.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # of wanted places, each less its distance from the block's first label
    starts: list[float] = []
    for i in order:
        blocks.append([wanted[i]])
        starts.append(wanted[i])
        while len(blocks) > 1 and starts[-2] + gap * len(blocks[-2]) > starts[-1]:
            tail, offset = blocks.pop(), gap * len(blocks[-1])
            starts.pop()
            blocks[-1] += [place - offset for place in tail]
            starts[-1] = sum(blocks[-1]) / len(blocks[-1])
    placed = [start + k * gap for start, block in zip(starts, blocks, strict=True) for k in range(len(block))]
    highest, lowest = 1.0, 0.0
    for k in reversed(range(len(placed))):  # push down from the top edge, then up from the bottom edge
        placed[k] = highest = min(placed[k], highest)
        highest -= gap
    for k in range(len(placed)):
        placed[k] = lowest = max(placed[k], lowest)
        lowest += gap
    places = [0.0] * len(wanted)
    for i, place in zip(order, placed, strict=True):
        places[i] = place
    return places


# --- files ------------------------------------------------------------------------------------------------------------

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def png_of(figure: "Figure") -> bytes:
    """150 dots per inch on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor=PAPER.light, metadata={"Software": None})
    return buffer.getvalue()


def svg_of(figure: "Figure", title: str, description: str) -> str:
    """A file to be looked at by itself, in the colours of the light page, on white."""
    root = _parsed(figure, PAPER.light)
    _describe(root, "chart", title, description)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + _text(root) + "\n"


def svg_for_page(figure: "Figure", identifier: str, title: str, description: str) -> str:
    """An ``<svg>`` element for an HTML page: transparent, its colours CSS variables, its ids unlike any other's."""
    root = _parsed(figure, "none")
    variables = {color.light: f"var(--{color.variable})" for color in colors()}
    for element in root.iter():
        if "style" in element.attrib:
            style = re.sub(r"#[0-9a-f]{6}", lambda m: variables.get(m[0], m[0]), element.attrib["style"])
            element.attrib["style"] = re.sub(r"url\(#", f"url(#{identifier}-", style)
        if "clip-path" in element.attrib:
            element.attrib["clip-path"] = element.attrib["clip-path"].replace("url(#", f"url(#{identifier}-")
        if "id" in element.attrib:
            element.attrib["id"] = f"{identifier}-{element.attrib['id']}"
        link = f"{{{XLINK}}}href"
        if link in element.attrib:
            element.attrib["href"] = "#" + identifier + "-" + element.attrib.pop(link).lstrip("#")
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib["class"] = "chart"
    _describe(root, identifier, title, description)
    return _text(root)


def _parsed(figure: "Figure", background: str) -> ET.Element:
    """The drawing without date, metadata, and the style sheet that would reach the whole page it is put in."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor=background, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    root.attrib["style"] = "stroke-linejoin: round; stroke-linecap: butt"
    return root


def _describe(root: ET.Element, identifier: str, title: str, description: str) -> None:
    """What a screen reader says instead of the drawing."""
    root.attrib |= {"role": "img", "aria-labelledby": f"{identifier}-title {identifier}-desc"}
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{identifier}-{tag}"})
        element.text = "".join(c for c in text if c.isprintable())
        root.insert(position, element)


def _text(root: ET.Element) -> str:
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")


# --- contrast, so that a test can hold the palette to it -------------------------------------------------------------


def contrast(a: str, b: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG 2.1 defines it."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
