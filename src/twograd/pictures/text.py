"""A picture as text for other programs: Graphviz's language, and Mermaid's.

What flows in: a :class:`Picture`. What flows out: text that holds the same nodes, boxes and edges, without places. Read
:func:`to_dot`. Whatever the two languages would take for markup is escaped.
"""

from collections.abc import Iterator

from twograd.pictures.picture import Node, Picture
from twograd.pictures.svg import HUES, INK, ROUND

_FILLS = {
    **{"input": "leaf", "leaf": "leaf", "output": "result", "gradient": "result", "backward": "node"},
    **{"saved": "store", "spoiled": "store", "fold saved": "store", "fold backward": "node"},
}
_EDGES = {
    "value": f'color="{INK["line"][0]}"',
    "cotangent": f'color="{INK["cotangent"][0]}", arrowhead=empty',
    "saved": f'color="{INK["saved"][0]}", style=dashed, penwidth=1.8',
    "view": f'color="{INK["line"][0]}", style=dotted, arrowhead=empty',
}
_ARROWS = {"value": "-->", "cotangent": "==>", "saved": "-.->", "view": "-.->"}


def _walk(picture: Picture) -> Iterator[Picture]:
    yield picture
    for node in picture.nodes:
        for inner in node.inside:
            yield from _walk(inner)


def to_dot(picture: Picture) -> str:
    """Graphviz source: bodies are clusters around the node of their equation; what goes up is ranked upwards."""
    lines = [
        f"digraph {_quoted(picture.title)} {{",
        f'  label={_quoted(picture.title)}; labelloc=t; fontname="DejaVu Sans"; bgcolor="{INK["paper"][0]}";',
        '  node [shape=box, fontname="DejaVu Sans Mono", fontsize=11, margin="0.12,0.06"];',
    ]
    lines += _dot_nodes(picture, "  ")
    for part in _walk(picture):
        for edge in part.edges:
            ends = (edge.target, edge.source) if edge.up else (edge.source, edge.target)
            back = ", dir=back" + ", arrowtail=empty" * (edge.kind == "cotangent") if edge.up else ""
            lines.append(f"  {_quoted(ends[0])} -> {_quoted(ends[1])} [{_EDGES[edge.kind]}{back}];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_nodes(picture: Picture, indent: str) -> Iterator[str]:
    for node in picture.nodes:
        if not node.inside:
            yield f"{indent}{_quoted(node.key)} [{_dot_style(node)}];"
            continue
        yield f"{indent}subgraph {_quoted('cluster ' + node.key)} {{"
        yield f'{indent}  label=""; style=rounded;'
        yield f"{indent}  {_quoted(node.key)} [{_dot_style(node)}];"
        for number, inner in enumerate(node.inside):
            yield f"{indent}  subgraph {_quoted(f'cluster {node.key} {number}')} {{"
            yield f"{indent}    label={_quoted(inner.title)};"
            yield from _dot_nodes(inner, indent + "    ")
            yield f"{indent}  }}"
        yield f"{indent}}}"


def _dot_style(node: Node) -> str:
    text = _quoted(node.lines[0] if node.lines else "", *node.lines[1:], *node.details, *filter(None, [node.tag]))
    styles = (
        ["filled"] + ["rounded"] * (node.kind in ROUND) + ["dashed"] * node.kind.endswith(("derivative", "gradient"))
    )
    fill = _FILLS.get(node.kind, "card")
    color = HUES[node.hue % len(HUES)][0] if node.hue is not None else INK["muted"][0]
    color = {"+": INK["added"][0], "-": INK["removed"][0]}.get(node.mark, color)
    return f'label={text}, style="{",".join(styles)}", fillcolor="{INK[fill][0]}", color="{color}"'


def _quoted(*lines: str) -> str:
    escaped = [line.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + ("\\l".join(escaped) + "\\l" if len(lines) > 1 else escaped[0]) + '"'


def to_mermaid(picture: Picture) -> str:
    """A flowchart for Mermaid; bodies are subgraphs."""
    names: dict[str, str] = {}
    lines = ["flowchart TD", *_mermaid_nodes(picture, "  ", names)]
    for part in _walk(picture):
        for edge in part.edges:
            lines.append(f"  {names[edge.source]} {_ARROWS[edge.kind]} {names[edge.target]}")
    return "\n".join(lines) + "\n"


def _mermaid_nodes(picture: Picture, indent: str, names: dict[str, str]) -> Iterator[str]:
    for node in picture.nodes:
        name = names[node.key] = f"n{len(names)}"
        text = "<br>".join(map(_entities, (*node.lines, *node.details)))
        shape = f'(["{text}"])' if node.kind in ROUND else f'["{text}"]'
        if not node.inside:
            yield f"{indent}{name}{shape}"
            continue
        yield f'{indent}subgraph {name}["{text}"]'
        for number, inner in enumerate(node.inside):
            if inner.title:
                yield f'{indent}  subgraph {name}x{number}["{_entities(inner.title)}"]'
            yield from _mermaid_nodes(inner, indent + "    ", names)
            if inner.title:
                yield f"{indent}  end"
        yield f"{indent}end"


def _entities(text: str) -> str:
    return "".join(c if c.isalnum() or c in " .,:()_=+-×←…·" else f"#{ord(c)};" for c in text)
