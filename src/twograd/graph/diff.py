"""What is different between two graphs: which equations went, which came, and which line of the program pays.

What flows in: two graphs (raw and after a pass, order n and n+1, two versions of a function). What flows out: a
:class:`GraphDiff`, as text and as one picture. Read :func:`matched`.
"""

import functools
import hashlib
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from twograd._compat import user_line
from twograd.graph.custom import Rules
from twograd.graph.draw import DEPTH, MAX_NODES, Changes, numbers_hold, picture_of
from twograd.graph.graph import Graph, check_graph
from twograd.graph.passes import PASSES, Pass
from twograd.graph.text import COMMENT_COLUMN, Names, equation_text, origin_text, sources_of, written_rules
from twograd.pictures import Drawing, Engine

CONTEXT = 2
"""Lines that are shown around a change, although they did not."""
DEPTHS = (3, 2, 1)
"""How far back two equations must agree to be taken for the same, where they do not agree all the way to the inputs."""


@dataclass(frozen=True)
class Count:
    """Equations of one kind in the first graph and in the second, and how many of them went and came."""

    name: str
    before: int
    after: int
    removed: int
    added: int


@dataclass(frozen=True, eq=False)
class GraphDiff:
    """The difference of two graphs, by numbers of equations: ``pairs`` of those that are the same, and the others.

    ``changed`` are the pairs whose operands are not the same: they do the same to other values.
    """

    a: Graph
    b: Graph
    pairs: tuple[tuple[int, int], ...]
    changed: tuple[tuple[int, int], ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<GraphDiff {self.a.name} to {self.b.name}: {self.summary}>"

    def __str__(self) -> str:
        return self.text()

    @property
    def summary(self) -> str:
        """The counts of equations, in words."""
        kept = len(self.pairs) - len(self.changed)
        return (
            f"{kept} equations kept, {len(self.changed)} with other operands, "
            f"{len(self.removed)} removed, {len(self.added)} added"
        )

    def __bool__(self) -> bool:
        """Whether there is any difference, in the equations or in what is returned."""
        return bool(self.removed or self.added or self.changed or self.returns_others)

    @functools.cached_property
    def partners(self) -> dict[Var, Var]:
        """The values of the first graph that are also in the second."""
        found = dict(_partners_at_start(self.a, self.b))
        for i, j in self.pairs:
            found.update(zip(self.a.jaxpr.eqns[i].outvars, self.b.jaxpr.eqns[j].outvars, strict=True))
        return found

    @property
    def returns_others(self) -> bool:
        """Whether the two graphs return different values."""
        a, b = self.a.jaxpr.jaxpr.outvars, self.b.jaxpr.jaxpr.outvars
        return len(a) != len(b) or not all(map(self.same, a, b))

    def same(self, x: Any, y: Any) -> bool:
        """Whether these atoms, of the first and of the second graph, are the same value."""
        if isinstance(x, Literal) or isinstance(y, Literal):
            return isinstance(x, Literal) and isinstance(y, Literal) and _literal(x) == _literal(y)
        return self.partners.get(x) is y

    # --- counts -------------------------------------------------------------------------------------------------------

    def primitives(self) -> list[Count]:
        """By primitive, those with the most change first."""
        return self._counts(lambda eqn: eqn.primitive.name)

    def lines(self) -> list[Count]:
        """By line of the program, its derivatives included: which line pays for which change."""
        return self._counts(lambda eqn: _where(eqn) or "no line known")

    def sources(self) -> list[Count]:
        """The equations of derivatives, by the equation of the program that they come from: ``tanh.3  mlp.py:4``."""
        return self._counts(lambda eqn: f"{sources_of(eqn)[0]}  {_where(eqn)}".rstrip() if sources_of(eqn) else None)

    def _counts(self, name_of: Any) -> list[Count]:
        def counter(graph: Graph, numbers: Any) -> Counter:
            names = (name_of(graph.jaxpr.eqns[i]) for i in numbers)
            return Counter(name for name in names if name is not None)

        before, after = (counter(graph, range(len(graph.jaxpr.eqns))) for graph in (self.a, self.b))
        removed, added = counter(self.a, self.removed), counter(self.b, self.added)
        names = dict.fromkeys([*before, *after])
        found = [Count(name, before[name], after[name], removed[name], added[name]) for name in names]
        return sorted(found, key=lambda count: -count.removed - count.added)

    # --- text ---------------------------------------------------------------------------------------------------------

    def text(self, context: int = CONTEXT) -> str:
        """A unified diff of the equations, each with its origin, then what changed by primitive, line and source.

        A value of the first graph has the name of its partner in the second, or, without one, a name that ends in a
        prime. Equations with other operands are told twice, as ``-`` and ``+``. Calls of functions with derivative
        rules of their own have ``rule=NAME``, as in :meth:`Graph.text`, the same name for the same rule in both.
        """
        lines = [
            f"--- {self.a.name}: {len(self.a.jaxpr.eqns)} equations",
            f"+++ {self.b.name}: {len(self.b.jaxpr.eqns)}",
        ]
        lines += self._unified(context)
        for title, counts in (
            ("primitive", self.primitives()),
            ("line of the program", self.lines()),
            ("derivative of", self.sources()),
        ):
            lines += _table(title, [count for count in counts if count.removed or count.added])
        return "\n".join(lines)

    def _unified(self, context: int) -> Iterator[str]:
        names_b = Names()
        for var in (*self.b.jaxpr.jaxpr.constvars, *self.b.jaxpr.jaxpr.invars):
            names_b[var]
        rules = written_rules()  # of both: what has the same name is the same
        told_b = [_told(eqn, names_b, rules) for eqn in self.b.jaxpr.eqns]
        names_a = _NamesOfPartners(self, names_b)
        changed = dict(self.changed)
        entries: list[tuple[str, str]] = []
        for mark, i, j in self._merged():
            if mark == "-":
                entries.append(("-", _told(self.a.jaxpr.eqns[i], names_a, rules)))
            elif mark == "+":
                entries.append(("+", told_b[j]))
            elif i in changed:
                entries += [("-", _told(self.a.jaxpr.eqns[i], names_a, rules)), ("+", told_b[j])]
            else:
                entries.append((" ", told_b[j]))
        if self.returns_others:
            for mark, graph, names in (("-", self.a, names_a), ("+", self.b, names_b)):
                entries.append((mark, f"  in ({', '.join(names[atom] for atom in graph.jaxpr.jaxpr.outvars)})"))
        near = {k for at, (mark, _) in enumerate(entries) if mark != " " for k in range(at - context, at + context + 1)}
        skipped = 0
        for at, (mark, line) in enumerate(entries):
            if at not in near:
                skipped += 1
                continue
            if skipped:
                yield f"@@ {skipped} kept @@"
            skipped = 0
            yield mark + line
        if skipped:
            yield f"@@ {skipped} kept @@"

    def _merged(self) -> Iterator[tuple[str, int, int]]:
        """All equations in the order of the second graph; one that went stands where it was in the first."""
        partner = {j: i for i, j in self.pairs}
        gone = iter(self.removed)
        following = next(gone, None)
        for j in range(len(self.b.jaxpr.eqns)):
            while j in partner and following is not None and following < partner[j]:
                yield "-", following, -1
                following = next(gone, None)
            yield ("", partner[j], j) if j in partner else ("+", -1, j)
        while following is not None:
            yield "-", following, -1
            following = next(gone, None)

    # --- picture ------------------------------------------------------------------------------------------------------

    def draw(
        self,
        path: str | Path | None = None,
        *,
        engine: Engine = "own",
        max_nodes: int = MAX_NODES,
        depth: int = DEPTH,
    ) -> Drawing:
        """Both graphs as one picture: the second, and what was removed, each joined to what it was joined to.

        Parameters are those of :meth:`Graph.draw`.
        """
        partner_of = self.partners
        eqns, marks, also_reads, numbers = [], {}, {}, {}
        changed = {j: i for i, j in self.changed}
        made_by_removed = {var for i in self.removed for var in self.a.jaxpr.eqns[i].outvars}
        for mark, i, j in self._merged():
            number = len(eqns)
            if mark == "-":
                eqn = self.a.jaxpr.eqns[i]
                eqns.append(eqn.replace(invars=[partner_of.get(v, v) if isinstance(v, Var) else v for v in eqn.invars]))
            else:
                eqns.append(self.b.jaxpr.eqns[j])
                before = self.a.jaxpr.eqns[changed[j]] if j in changed else None
                if before is not None:
                    also_reads[number] = [v for v in before.invars if isinstance(v, Var) and v in made_by_removed]
            numbers[number] = i if mark == "-" else j
            marks[number] = mark or ("~" if j in changed else "=")
        jaxpr = self.b.jaxpr.jaxpr
        bound = {*jaxpr.invars, *jaxpr.constvars, *(var for eqn in eqns for var in eqn.outvars)}
        lost = dict.fromkeys(v for eqn in eqns for v in eqn.invars if isinstance(v, Var) and v not in bound)
        constvars = [*jaxpr.constvars, *lost]
        union = ClosedJaxpr(jaxpr.replace(eqns=eqns, constvars=constvars), [*self.b.jaxpr.consts, *[None] * len(lost)])
        title = f"{self.a.name}: what changed" if self.a.name == self.b.name else f"{self.a.name} to {self.b.name}"
        hold = numbers_hold(self.a.jaxpr.eqns) and numbers_hold(self.b.jaxpr.eqns)
        changes = Changes(marks, also_reads, numbers if hold else None)
        picture = picture_of(
            union, self.b.inputs, self.b.result_names, title, self.summary + ".", max_nodes, depth, changes
        )
        drawing = Drawing(picture, engine)
        if path is not None:
            drawing.save(path)
        return drawing

    def _repr_svg_(self) -> str:
        return self.draw(max_nodes=80).svg


class _NamesOfPartners(Names):
    """Names for the first graph: those of the second, where a value is in both."""

    def __init__(self, diff: GraphDiff, names_b: Names):
        super().__init__()
        self._partner_of, self._names_b = diff.partners, names_b

    def __getitem__(self, atom: Any) -> str:
        if isinstance(atom, Var) and atom in self._partner_of:
            return self._names_b[self._partner_of[atom]]
        name = super().__getitem__(atom)
        return name if isinstance(atom, Literal) else f"{name}'"


def _told(eqn: JaxprEqn, names: Names, rules: Rules) -> str:
    return f"  {equation_text(eqn, names, rules=rules):<{COMMENT_COLUMN}}  {origin_text(eqn)}".rstrip()


def _where(eqn: JaxprEqn) -> str:
    line = user_line(eqn)
    return line.rpartition(" (")[0].replace("\\", "/").rsplit("/", 1)[-1] if line else ""


def _table(title: str, counts: Sequence[Count]) -> list[str]:
    if not counts:
        return []
    width = max(len(title), *(len(count.name) for count in counts))
    lines = ["", f"{title:<{width}}  before  after  removed  added"]
    for c in counts:
        added = f"+{c.added}" if c.added else ""
        lines.append(f"{c.name:<{width}}  {c.before:>6}  {c.after:>5}  {-c.removed or '':>7}  {added:>5}".rstrip())
    return lines


# --- matching ---------------------------------------------------------------------------------------------------------


def diff(a: Graph, b: Graph) -> GraphDiff:
    """The difference of two graphs. Inputs are the same where they have the same name and type.

    Raises TypeError for something that is no graph.
    """
    for graph in (a, b):
        check_graph(graph, "diff")
    pairs = matched(a, b)
    a_eqns, b_eqns = a.jaxpr.eqns, b.jaxpr.eqns
    found = GraphDiff(a, b, tuple(pairs), (), (), ())
    changed = [(i, j) for i, j in pairs if not all(map(found.same, a_eqns[i].invars, b_eqns[j].invars))]
    in_a, in_b = {i for i, _ in pairs}, {j for _, j in pairs}
    removed = tuple(i for i in range(len(a_eqns)) if i not in in_a)
    added = tuple(j for j in range(len(b_eqns)) if j not in in_b)
    return GraphDiff(a, b, tuple(pairs), tuple(changed), removed, added)


def diff_passes(graph: Graph, *passes: Pass) -> dict[str, GraphDiff]:
    """What each pass changes in what the pass before it left, by the names of the passes; by default, of all.

    Raises TypeError for something that is no graph, or no pass.
    """
    check_graph(graph, "diff_passes")
    found = {}
    for apply in passes or PASSES:
        after = graph.optimize(apply)
        name = getattr(apply, "__name__", type(apply).__name__)
        found[name if name not in found else f"{name} {len(found)}"] = diff(graph, after)
        graph = after
    return found


def matched(a: Graph, b: Graph) -> list[tuple[int, int]]:
    """The equations that are in both graphs, as pairs of their numbers, in the order of the first.

    Two equations are the same if they have the same primitive, parameters and types, and their operands are the same,
    back to the inputs. What is left is paired from both ends of the two programs, up to the first that do not agree in
    themselves and in the primitives whose rules they come from. Between them are paired those that agree some equations
    back (:data:`DEPTHS`), then those that agree in themselves and in where they come from. Among equals, order decides.
    """
    shallow_a, shallow_b = (list(map(_shallow, graph.jaxpr.eqns)) for graph in (a, b))
    own_a, own_b = (
        list(zip(shallow, map(_origin, graph.jaxpr.eqns), strict=True))
        for shallow, graph in ((shallow_a, a), (shallow_b, b))
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()

    def left() -> tuple[list[int], list[int]]:
        return [i for i in range(len(own_a)) if i not in pairs], [j for j in range(len(own_b)) if j not in taken]

    def join(i: int, j: int) -> None:
        pairs[i] = j
        taken.add(j)

    def pair(keys_a: Sequence[Any], keys_b: Sequence[Any]) -> None:
        left_a, left_b = left()
        waiting: dict[Any, deque[int]] = defaultdict(deque)
        for j in left_b:
            waiting[keys_b[j]].append(j)
        for i in left_a:
            if waiting[keys_a[i]]:
                join(i, waiting[keys_a[i]].popleft())

    pair(_deep(a, shallow_a), _deep(b, shallow_b))
    for direction in (1, -1):
        left_a, left_b = left()
        for i, j in zip(left_a[::direction], left_b[::direction], strict=False):
            if own_a[i] != own_b[j]:
                break
            join(i, j)
    levels = [(shallow_a, shallow_b)]
    for _ in range(max(DEPTHS)):
        levels.append((_deeper(a, shallow_a, levels[-1][0]), _deeper(b, shallow_b, levels[-1][1])))
    for depth in DEPTHS:
        pair(*levels[depth])
    pair(own_a, own_b)
    return sorted(pairs.items())


def _partners_at_start(a: Graph, b: Graph) -> Iterator[tuple[Var, Var]]:
    """The inputs of the same name and type, and the constants of the same value."""
    starts_a, starts_b = _starts(a), _starts(b)
    by_key = {key: var for var, key in reversed(starts_b.items())}
    return ((var, by_key[key]) for var, key in starts_a.items() if key in by_key)


def _starts(graph: Graph) -> dict[Var, str]:
    jaxpr = graph.jaxpr.jaxpr
    found = {var: _digest("input", name, str(var.aval)) for var, name in zip(jaxpr.invars, graph.inputs, strict=True)}
    found |= {
        var: _digest("constant", _constant(value))
        for var, value in zip(jaxpr.constvars, graph.jaxpr.consts, strict=True)
    }
    return found


def _deep(graph: Graph, shallow: Sequence[str]) -> list[str]:
    """Per equation, what it computes from the inputs."""
    known: dict[Var, str] = _starts(graph)
    keys = []
    for eqn, own in zip(graph.jaxpr.eqns, shallow, strict=True):
        keys.append(
            _digest(own, *(_literal(atom) if isinstance(atom, Literal) else known[atom] for atom in eqn.invars))
        )
        known.update((var, f"{keys[-1]}:{i}") for i, var in enumerate(eqn.outvars))
    return keys


def _deeper(graph: Graph, shallow: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Per equation, what it is and what its operands are by ``keys``, which look one equation less far back."""
    known: dict[Var, str] = _starts(graph)
    for eqn, key in zip(graph.jaxpr.eqns, keys, strict=True):
        known.update((var, f"{key}:{i}") for i, var in enumerate(eqn.outvars))
    return [
        _digest(own, *(_literal(atom) if isinstance(atom, Literal) else known[atom] for atom in eqn.invars))
        for eqn, own in zip(graph.jaxpr.eqns, shallow, strict=True)
    ]


def _shallow(eqn: JaxprEqn) -> str:
    """What an equation is, whatever its operands: primitive, parameters, types."""
    types = [str(atom.aval) for atom in (*eqn.invars, *eqn.outvars)]
    return _digest(
        eqn.primitive.name, *types, *(f"{name}={_param(value)}" for name, value in sorted(eqn.params.items()))
    )


def _origin(eqn: JaxprEqn) -> tuple[str, ...]:
    return tuple(source.rpartition(".")[0] for source in sources_of(eqn))


def _param(value: Any) -> str:
    if isinstance(value, ClosedJaxpr):
        return _digest(_param(value.jaxpr), *map(_constant, value.consts))
    if isinstance(value, Jaxpr):
        return _body(value)
    if isinstance(value, (tuple, list)):
        return f"({','.join(map(_param, value))})"
    if callable(value) and not isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return _constant(value)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _body(jaxpr: Jaxpr) -> str:
    number: dict[Var, str] = {var: f"in{i}" for i, var in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    parts = [str(var.aval) for var in number]

    def named(atom: Any) -> str:
        return _literal(atom) if isinstance(atom, Literal) else number[atom]

    for k, eqn in enumerate(jaxpr.eqns):
        parts += [_shallow(eqn), *map(named, eqn.invars)]
        number.update((var, f"{k}:{i}") for i, var in enumerate(eqn.outvars))
    return _digest(*parts, "out", *map(named, jaxpr.outvars))


def _literal(atom: Literal) -> str:
    return f"{_constant(atom.val)}:{atom.aval.str_short()}"


def _constant(value: Any) -> str:
    """A constant by its bits; one that cannot be read, such as a key or somebody's tracer, by its type."""
    if isinstance(value, Tracer):
        return f"tracer {id(value)}"
    try:
        array = np.asarray(value)
    except TypeError:
        return str(value)
    return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]
