"""A jaxpr as a picture: the program going down, its derivative going up beside it, what is saved crossing over.

What flows in: a ClosedJaxpr and the names of its inputs and outputs. What flows out: a
:class:`~twograd.pictures.Picture`. Read :func:`picture_of`, then :func:`folded`, which says what is drawn where not
everything can be.

Equations of a derivative are known by their scope ``vjp(PRIMITIVE.INDEX)``; they come to stand beside the equation
whose rule emitted them because they read what it saved. A colour is a line of the user's program: what has it was
written there, or is the derivative of what was.
"""

import linecache
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from twograd._compat import user_line
from twograd.graph.passes.report import bodies, count
from twograd.graph.text import sources_of
from twograd.pictures import Edge, Node, Picture, printable

MAX_NODES, DEPTH = 200, 2
CHAINS_ABOVE, RUNS_ABOVE = 40, 100
"""Equations above which chains are folded, and nodes above which runs of one origin are."""
MOST_LINES = 6
"""Of a folded node's equations."""
MOST_ENDS = 40
"""Inputs that are drawn each, and outputs; one node stands for the rest."""
LEGEND_LINES = 12
SHAPING = {"broadcast_in_dim", "convert_element_type", "copy", "expand_dims", "reshape", "rev", "squeeze", "transpose"}
TELLING = ("axes", "axis", "dimension", "dimensions", "permutation", "y")
"""Parameters that are shown; a tooltip names the others."""
LANES = ("program", "derivative", "second derivative", "third derivative")


class Changes(NamedTuple):
    """What a diff knows of the equations, by their positions in the picture's program."""

    marks: dict[int, str]
    also_reads: dict[int, list[Var]]
    """Values that an equation reads no more, to which it is joined all the same."""
    numbers: dict[int, int] | None
    """Of the equations in the graphs that they are from; None where they say nothing."""


@dataclass
class Group:
    """Equations drawn as one node, with their numbers; ``rest`` where it stands for more than belong together."""

    eqns: list[tuple[int, JaxprEqn]]
    order: int
    rest: bool = False

    @property
    def last(self) -> JaxprEqn:
        return self.eqns[-1][1]


def picture_of(
    closed: ClosedJaxpr,
    inputs: Sequence[str],
    outputs: Sequence[str],
    title: str,
    description: str = "",
    max_nodes: int = MAX_NODES,
    depth: int = DEPTH,
    changes: Changes | None = None,
) -> Picture:
    """The picture of a program, of about ``max_nodes`` nodes.

    Bodies (of scan, cond, jit, ...) are drawn inside of their equation's box, at most ``depth`` deep and while there is
    room; else the box says how many equations are in it.
    """
    if max_nodes < 10:
        raise ValueError(f"max_nodes must be at least 10, got {max_nodes}")
    drawer = _Drawer(max_nodes, changes or Changes({}, {}, None))
    nodes, edges, orders = drawer.draw(closed.jaxpr, inputs, outputs, depth, "")
    lanes = tuple(LANES[order] if order < len(LANES) else f"derivative of order {order}" for order in orders)
    return Picture(printable(title, 60), nodes, edges, description, drawer.legend(), lanes if len(lanes) > 1 else ())


# --- folding ----------------------------------------------------------------------------------------------------------


def folded(jaxpr: Jaxpr, groups: list["Group"], max_nodes: int, marks: dict[int, str]) -> list["Group"]:
    """The equations, given as groups of one, in fewer groups, in an order in which the groups could be computed.

    1. Above :data:`CHAINS_ABOVE` equations, one that does not change the shape of its operand, or only that, is drawn
       with the only equation that uses it, if both have the same origin (source line, and equation whose rule emitted
       them).
    2. If that leaves more than :data:`RUNS_ABOVE` groups, neighbours of the same origin are one.
    3. If that leaves more than ``max_nodes``, the middle of each derivative's (and of the program's) is one:
       "... 312 more".
    """
    if CHAINS_ABOVE < len(groups) <= 20 * max_nodes:
        groups = _chains(jaxpr, groups, marks)
    if RUNS_ABOVE < len(groups) <= 20 * max_nodes:
        groups = _runs(groups, marks)
    return _without_middles(groups, max_nodes) if len(groups) > max_nodes else groups


def _origin(eqn: JaxprEqn) -> Hashable:
    return tuple(sources_of(eqn)), user_line(eqn)


def _chains(jaxpr: Jaxpr, groups: list[Group], marks: dict[int, str]) -> list[Group]:
    uses = Counter(atom for eqn in jaxpr.eqns for atom in set(_variables(eqn.invars)))
    uses.update(_variables(jaxpr.outvars))
    ending: dict[Var, Group] = {}  # chains that may go on, by the result of their last equation
    found: dict[int, Group] = {}
    for group in groups:
        index, eqn = group.eqns[0]
        here = {atom: ending[atom] for atom in _variables(eqn.invars) if atom in ending}
        for atom, chain in here.items():
            if _origin(chain.last) == _origin(eqn) and marks.get(chain.eqns[-1][0]) == marks.get(index):
                found.pop(id(chain))
                group = Group([*chain.eqns, (index, eqn)], chain.order)
                del ending[atom]
                break
        found[id(group)] = group
        if len(eqn.outvars) == 1 and uses[eqn.outvars[0]] == 1 and _keeps_shape(eqn):
            ending[eqn.outvars[0]] = group
    return list(found.values())


def _keeps_shape(eqn: JaxprEqn) -> bool:
    if next(bodies(eqn.params), None) is not None:
        return False
    shape = getattr(eqn.outvars[0].aval, "shape", None)
    return eqn.primitive.name in SHAPING or all(
        isinstance(atom, Literal) or getattr(atom.aval, "shape", ()) == shape for atom in eqn.invars
    )


def _runs(groups: list[Group], marks: dict[int, str]) -> list[Group]:
    found: list[Group] = []
    key = None
    for group in groups:
        alone = next(bodies(group.last.params), None) is not None
        origin = None if alone else (_origin(group.last), marks.get(group.eqns[0][0]))
        if origin is not None and origin == key:
            found[-1] = Group(sorted([*found[-1].eqns, *group.eqns]), group.order)
        else:
            found.append(group)
        key = origin
    return found


def _without_middles(groups: list[Group], max_nodes: int) -> list[Group]:
    """Of each run of groups of one order only the beginning and the end, as much as its share allows."""
    runs: list[list[Group]] = []
    for group in groups:
        if runs and runs[-1][-1].order == group.order:
            runs[-1].append(group)
        else:
            runs.append([group])
    if len(runs) > max_nodes // 4:  # orders alternate: no run is long enough to have a middle
        runs = [groups]
    share = max(max_nodes // len(runs) - 1, 2)
    found: list[Group] = []
    for run in runs:
        if len(run) <= share + 1:
            found += run
            continue
        head, tail = (share + 1) // 2, share // 2
        middle = run[head : len(run) - tail]
        found += run[:head]
        found.append(Group([pair for group in middle for pair in group.eqns], middle[0].order, rest=True))
        found += run[len(run) - tail :]
    return found


# --- drawing ----------------------------------------------------------------------------------------------------------


def _variables(atoms: Sequence[Any]) -> Iterator[Var]:
    return (atom for atom in atoms if isinstance(atom, Var))


def _type(atom: Any) -> str:
    return atom.aval.str_short(short_dtypes=True)


@dataclass
class _Drawer:
    """Draws a program and the bodies within: what they share is the room that is left, and the colours."""

    room: int
    changes: Changes
    lines: dict[str, int] = field(default_factory=dict)
    """The hue of every line of the program, ``file:line``."""

    def draw(
        self, jaxpr: Jaxpr, inputs: Sequence[str], outputs: Sequence[str], depth: int, path: str
    ) -> tuple[tuple[Node, ...], tuple[Edge, ...], list[int]]:
        """The nodes and edges of one jaxpr, and the orders of derivatives in it, which are its lanes."""
        marks = self.changes.marks if not path else {}
        groups = [Group([(i, eqn)], len(sources_of(eqn))) for i, eqn in enumerate(jaxpr.eqns)]
        groups = folded(jaxpr, groups, max(self.room, 10), marks)
        self.room -= len(groups) + len(inputs) + len(outputs)
        orders = sorted({group.order for group in groups} | {0})
        lane = {order: i for i, order in enumerate(orders)}
        numbers = self.changes.numbers if marks else None
        if not marks and numbers_hold(jaxpr.eqns):
            numbers = {i: i for i in range(len(jaxpr.eqns))}
        made_by: dict[Var, tuple[str, int, int]] = {}  # node, order, port
        nodes: list[Node] = []
        edges: dict[Edge, None] = {}

        readers: dict[Var, int] = {}
        for group in groups:
            for _, eqn in group.eqns:
                for atom in _variables(eqn.invars):
                    readers[atom] = min(readers.get(atom, group.order), group.order)
        labels = [*((var, "constant", "constant") for var in jaxpr.constvars)]
        labels += [(var, name, "input") for var, name in zip(jaxpr.invars, inputs, strict=True)]
        returned = set(_variables(jaxpr.outvars))
        for i, (var, name, kind) in enumerate(_shortened(labels)):
            order = readers.get(var, 0) if var is not None else 0
            key = f"{path}in{i}"
            details = (
                (_type(var), *(() if var in readers or var in returned else ("unused",))) if var is not None else ()
            )
            nodes.append(Node(key, (printable(name),), kind, details, lane=lane[order]))
            if var is not None:
                made_by[var] = (key, order, 0)
        for var, _, _ in labels:
            made_by.setdefault(var, (nodes[-1].key, 0, 0))

        def connect(atom: Var, target: str, order: int) -> None:
            source, made_at, port = made_by[atom]
            if source == target:
                return
            kind = "value" if order == 0 else "saved" if made_at < order else "cotangent"
            edges[Edge(source, target, kind, port, up=order % 2 == 1 and made_at >= order)] = None

        for group in groups:
            key = f"{path}eqn{group.eqns[-1][0]}"
            nodes.append(self._node(key, group, lane[group.order], numbers, depth, marks))
            for _, eqn in group.eqns:
                for port, var in enumerate(eqn.outvars):
                    made_by[var] = (key, group.order, 0 if len(group.eqns) > 1 else min(port, 7))
        for group in groups:
            for index, eqn in group.eqns:
                for atom in (*_variables(eqn.invars), *(() if path else self.changes.also_reads.get(index, ()))):
                    connect(atom, f"{path}eqn{group.eqns[-1][0]}", group.order)
        results = [(atom, name, "output") for atom, name in zip(jaxpr.outvars, outputs, strict=True)]
        for i, (atom, name, kind) in enumerate(_shortened(results)):
            made_at = made_by[atom][1] if isinstance(atom, Var) else 0
            details = () if atom is None else (_type(atom),)
            if isinstance(atom, Literal):
                details = (f"= {printable(atom.val, 20)}", *details)
            kind = "gradient" if made_at else kind
            nodes.append(Node(f"{path}out{i}", (printable(name),), kind, details, lane=lane[made_at]))
        for i, atom in enumerate(jaxpr.outvars):
            if isinstance(atom, Var):
                source, made_at, port = made_by[atom]
                kind, target = "cotangent" if made_at else "value", f"{path}out{min(i, MOST_ENDS - 1)}"
                edges[Edge(source, target, kind, port, up=made_at % 2 == 1)] = None
        return tuple(nodes), tuple(edges), orders

    def _node(
        self, key: str, group: Group, lane: int, numbers: dict[int, int] | None, depth: int, marks: dict[int, str]
    ) -> Node:
        eqns, order = group.eqns, group.order
        index, eqn = eqns[-1]
        sources = sources_of(eqn)
        common: dict[str, Any] = {"lane": lane, "mark": marks.get(index, "")}
        fold = "fold derivative" if order else "fold"
        if group.rest:
            counts = Counter(eqn.primitive.name for _, eqn in eqns).most_common()
            details = [f"{times} {name}" for name, times in counts[:MOST_LINES]]
            details += [f"{len(counts) - MOST_LINES} other primitives"] if len(counts) > MOST_LINES else []
            return Node(key, (f"… {len(eqns)} more",), fold, tuple(details), **common)
        where = user_line(eqn)
        if where is not None:
            line = where.rpartition(" (")[0]
            common |= {"hue": self.lines.setdefault(line, len(self.lines)), "tag": self._tag(line)}
        origin = (f"← {printable(sources[-1])}",) if sources else ()
        if len(eqns) > 1:
            lines = [_title(i, eqn, numbers) for i, eqn in eqns]
            if len(lines) > MOST_LINES:
                half = MOST_LINES // 2
                lines = [*lines[:half], f"… {len(lines) - 2 * half + 1} more", *lines[-half + 1 :]]
            details = (_type(eqn.outvars[0]) if eqn.outvars else "no result", *origin)
            tooltip = f"{len(eqns)} equations: {', '.join(eqn.primitive.name for _, eqn in eqns[:40])}"
            return Node(key, tuple(lines), fold, details, tooltip=_at(tooltip, where), **common)
        inside = self._inside(eqn, depth, f"{key}.") if depth > 0 else ()
        types = [_type(var) for var in eqn.outvars[:3]] + ["…"] * (len(eqn.outvars) > 3)
        details = [printable(" ".join(filter(None, [_operands(eqn), *types])) or "no result"), *origin]
        hidden = sum(map(count, bodies(eqn.params)))
        if hidden and not inside:
            details.append(f"{hidden} equations inside")
        telling = [f"{name}={_short(eqn.params[name])}" for name in TELLING if eqn.params.get(name) not in (None, ())]
        if telling and not hidden:
            details.insert(1, printable(" ".join(telling)))
        tooltip = _at(f"{eqn.primitive.name}[{', '.join(f'{k}={_short(v)}' for k, v in eqn.params.items())}]", where)
        kind = "derivative" if order else "op"
        return Node(key, (_title(index, eqn, numbers),), kind, tuple(details), inside=inside, tooltip=tooltip, **common)

    def _inside(self, eqn: JaxprEqn, depth: int, path: str) -> tuple[Picture, ...]:
        found = [
            (f"{name}[{i}]" if isinstance(value, (tuple, list)) else name, item)
            for name, value in eqn.params.items()
            for i, item in enumerate(value if isinstance(value, (tuple, list)) else (value,))
            if isinstance(item, (ClosedJaxpr, Jaxpr))
        ]
        needed = sum(
            len(jaxpr.eqns) + len(jaxpr.invars) + len(jaxpr.outvars) for jaxpr in (_open(body) for _, body in found)
        )
        if not found or needed > self.room:
            return ()
        pictures = []
        for position, (name, body) in enumerate(found):
            jaxpr = _open(body)
            inputs, outputs = _roles(eqn, jaxpr)
            nodes, edges, _ = self.draw(jaxpr, inputs, outputs, depth - 1, f"{path}{position}.")
            pictures.append(Picture(printable(name) if len(found) > 1 else "", nodes, edges))
        return tuple(pictures)

    def _tag(self, line: str) -> str:
        """``:12`` in the file that was met first, ``layers:12`` in another."""
        file, _, number = line.rpartition(":")
        first = next(iter(self.lines)).rpartition(":")[0]
        return f":{number}" if file == first else f"{printable(_base(file).removesuffix('.py'), 12)}:{number}"

    def legend(self) -> tuple[tuple[int, str, str], ...]:
        """The lines of the program that have a colour, with their text where the file can be read."""
        found = []
        for line, hue in list(self.lines.items())[:LEGEND_LINES]:
            file, _, number = line.rpartition(":")
            code = linecache.getline(file, int(number)).strip()
            found.append((hue, self._tag(line), printable(f"{_base(file)}  {code}", 90)))
        more = len(self.lines) - LEGEND_LINES
        return (*found, *([(LEGEND_LINES, "…", f"{more} more lines")] if more > 0 else []))


def _shortened(labels: list[tuple[Any, str, str]]) -> Iterator[tuple[Any, str, str]]:
    """The first of many inputs or outputs, and one node for the others."""
    if len(labels) <= MOST_ENDS:
        yield from labels
    else:
        yield from labels[: MOST_ENDS - 1]
        yield None, f"… {len(labels) - MOST_ENDS + 1} more", "fold"


def numbers_hold(eqns: Sequence[JaxprEqn]) -> bool:
    """Whether ``sin.3`` is still equation 3, or passes have changed the numbers since it was differentiated."""
    for eqn in eqns:
        sources = sources_of(eqn)
        if sources:
            name, _, index = sources[-1].rpartition(".")
            if not index.isdigit() or int(index) >= len(eqns):
                return False
            source = eqns[int(index)]
            if source.primitive.name != name or len(sources_of(source)) != len(sources) - 1:
                return False
    return True


def _title(index: int, eqn: JaxprEqn, numbers: dict[int, int] | None) -> str:
    name = eqn.primitive.name
    called = eqn.params.get("name")
    if not isinstance(called, str):
        called = " ".join(_open(body).debug_info.func_name for body in bodies(eqn.params))
        called = "" if called == "<lambda>" or " " in called else called
    number = f".{numbers[index]}" if numbers is not None else ""
    length = f" ×{eqn.params['length']}" if name == "scan" else ""
    return printable(f"{name}{number}{length}{' ' + called if called else ''}")


def _operands(eqn: JaxprEqn) -> str:
    """The constants among the operands, the others as dots: ``(1.0, ·)``."""
    if not any(isinstance(atom, Literal) for atom in eqn.invars):
        return ""
    shown = [f"{_number(atom.val)}" if isinstance(atom, Literal) else "·" for atom in eqn.invars[:5]]
    return f"({', '.join(shown)}{', …' if len(eqn.invars) > 5 else ''})"


def _number(value: Any) -> str:
    text = printable(value, 12)
    return f"{float(value):.4g}" if "." in text and len(text) > 7 and "j" not in text else text


def _short(value: Any) -> str:
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        return f"{{{count(value)} equations}}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_short, value))})"
    return printable(value, 60)


def _at(text: str, where: str | None) -> str:
    if where is None:
        return text
    file, _, rest = where.rpartition(":")
    return f"{text} at {_base(file)}:{rest}"


def _base(file: str) -> str:
    return file.replace("\\", "/").rsplit("/", 1)[-1]


def _open(body: Jaxpr | ClosedJaxpr) -> Jaxpr:
    return body.jaxpr if isinstance(body, ClosedJaxpr) else body


def _roles(eqn: JaxprEqn, jaxpr: Jaxpr) -> tuple[list[str], list[str]]:
    """What a body calls its inputs and outputs; those of a scan say what they are where they have no name."""
    names = list(jaxpr.debug_info.safe_arg_names(len(jaxpr.invars)))
    results = list(jaxpr.debug_info.safe_result_paths(len(jaxpr.outvars)))
    if eqn.primitive.name == "scan":
        consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
        roles = ["const"] * consts + ["carry"] * carry + ["x"] * (len(names) - consts - carry)
        names = [f"{role} {name}" if name and name != role else role for role, name in zip(roles, names, strict=True)]
        results = ["carry"] * carry + ["y"] * (len(results) - carry)
    return [name or f"operand {i}" for i, name in enumerate(names)], [name or "result" for name in results]
