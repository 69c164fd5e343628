"""How many bytes the tape keeps for the way back, from event to event.

What flows in: nodes, as they are made, and as they let go of what they saved. What flows out: a :class:`LiveBytes`, and
a chart of one or several. Read :class:`live_bytes`.

A thread's tape is watched only inside of the block; outside of it nobody is told of anything and nothing is slower.
What a node saves is a list, and this puts a list in its place that can be watched: it is gone when the node has freed
it, or is gone itself.
"""

import time
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from twograd._files import write_atomically
from twograd._table import TextTable
from twograd.pictures import style
from twograd.tape.autograd.function import FunctionNode
from twograd.tape.describe import line_of, op_name, short
from twograd.tape.modes import Watcher, mode, watched_by
from twograd.tape.node import Node
from twograd.tape.stats import kept_arrays
from twograd.tape.tensor import Tensor

MOST_ROWS = 8


class Event(NamedTuple):
    """A node saved or freed something: how many bytes are kept after it, which is ``change`` more than before.

    ``seconds`` are since the beginning; ``walking`` says whether it was during a walk back. ``arrays`` are those that
    were not kept before, or are not any more, by number, with their sizes.
    """

    op: str
    line: str | None
    change: int
    bytes: int
    seconds: float
    walking: bool
    arrays: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Kept:
    """What one line's op kept at the peak: how many arrays, and their bytes. An array counts for the first that saved
    it."""

    op: str
    line: str | None
    arrays: int
    bytes: int


class _Saved(list[Any]):
    """A node's saved values; unlike a list it can be referred to weakly."""

    __slots__ = ("__weakref__",)


class LiveBytes(Watcher):
    """The events of a block, in order. Prints as a table of what was kept at the peak; :meth:`plot` draws it."""

    def __init__(self, label: str):
        self.label = label
        self.events: list[Event] = []
        self._made: list[Node] = []
        self._start = time.perf_counter()
        self._lists: dict[int, weakref.ref[Any]] = {}
        self._numbers: dict[int, int] = {}  # of the arrays that are kept, by id
        self._holders: Counter[int] = Counter()
        self._bytes = self._count = 0

    # --- listening ----------------------------------------------------------------------------------------------------

    def node_made(self, node: Node, saved_from: Sequence[Tensor]) -> None:
        if isinstance(node, FunctionNode):
            self._saves(node)  # of these nobody says that they are done
        else:
            self._made.append(node)  # watchers that come after this one may yet pack what it saved

    def op_done(self, function: Any, operands: Any, outputs: Any) -> None:
        for node in self._made:
            self._saves(node)
        self._made.clear()

    def _saves(self, node: Node) -> None:
        arrays = [array for value in node.saved or () for array in kept_arrays(value)]
        if not arrays:
            return
        saved = node.saved
        if type(saved) is not _Saved:  # else another block has put it there
            saved = node.saved = _Saved(saved or ())
        sizes = [(id(array), array.nbytes) for array in arrays]
        op, line, key = op_name(node), line_of(node), id(saved)

        def freed(_: Any) -> None:
            if self._lists.pop(key, None) is not None:
                self._event(op, line, sizes, -1)

        self._lists[key] = weakref.ref(saved, freed)
        self._event(op, line, sizes, 1)

    def _event(self, op: str, line: str | None, sizes: Sequence[tuple[int, int]], by: int) -> None:
        changed = []
        for key, size in sizes:
            before = self._holders[key]
            self._holders[key] = before + by
            if by > 0 and before == 0:
                self._numbers[key] = self._count
                self._count += 1
                changed.append((self._numbers[key], size))
            elif by < 0 and before == 1:
                del self._holders[key]
                changed.append((self._numbers.pop(key), size))
        change = by * sum(size for _, size in changed)
        self._bytes += change
        seconds = time.perf_counter() - self._start
        self.events.append(Event(op, line, change, self._bytes, seconds, mode.walk is not None, tuple(changed)))

    def _ends(self) -> None:
        self.op_done(None, (), ())
        self._lists.clear()

    # --- what was found -----------------------------------------------------------------------------------------------

    @property
    def peak(self) -> int:
        """The most bytes that were kept at once."""
        return max((event.bytes for event in self.events), default=0)

    @property
    def at_peak(self) -> list[Kept]:
        """What was kept when it first was the most, by op and line, the largest first."""
        peak = self.peak
        kept: dict[int, tuple[str, str | None, int]] = {}
        for event in self.events:
            for number, size in event.arrays:
                if event.change > 0:
                    kept[number] = (event.op, event.line, size)
                else:
                    del kept[number]
            if event.bytes == peak:
                break
        arrays, sizes = Counter[Any](), Counter[Any]()
        for op, line, size in kept.values():
            arrays[op, line] += 1
            sizes[op, line] += size
        return [Kept(op, line, arrays[op, line], size) for (op, line), size in sizes.most_common()]

    @property
    def turn(self) -> int:
        """The number of the first event of a walk back; that of all events where there was none."""
        return next((i for i, event in enumerate(self.events) if event.walking), len(self.events))

    def __repr__(self) -> str:
        return f"<LiveBytes {self.label}: {len(self.events)} events, at most {self.peak:,} bytes>"

    def _table(self) -> TextTable:
        found = self.at_peak
        rows = [(_at(k), str(k.arrays), f"{k.bytes:,}", f"{k.bytes / self.peak:.0%}") for k in found[:MOST_ROWS]]
        rest = found[MOST_ROWS:]
        if rest:
            rows.append((f"{len(rest)} more", str(sum(k.arrays for k in rest)), f"{sum(k.bytes for k in rest):,}", ""))
        last = self.events[-1].bytes if self.events else 0
        return TextTable(
            f"{self.label}: saved for the way back, at most {self.peak:,} bytes",
            ("at the peak", "arrays", "bytes", "share"),
            rows,
            (f"{len(self.events)} events, {self.turn} before the walk back; {last:,} bytes are kept at the end.",),
        )

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def plot(self, path: str | Path, *others: "LiveBytes", title: str = "Bytes saved for the way back") -> Path:
        """Draws the bytes from event to event, of this run and of ``others`` on one chart, and writes ``.svg`` or
        ``.png``, whole or not at all. Raises ValueError for another type."""
        path = Path(path)
        if path.suffix.lower() not in (".svg", ".png"):
            raise ValueError(f"{path}: a chart is saved as .svg or .png, not as {path.suffix or 'a file of no type'}")
        write_atomically(path, chart((self, *others), title, path.suffix.lower() == ".png"))
        return path


def _at(kept: Kept) -> str:
    return f"{kept.op}  {short(kept.line)}" if kept.line else kept.op


class live_bytes:
    """Counts, inside of a ``with`` block, the bytes that this thread's tape keeps for the way back.

        with tape.live_bytes("plain") as plain:
            loss = model(x)
            loss.backward()
        print(plain)  # what was kept at the peak
        plain.plot("bytes.svg")

    Each array that nodes keep counts once, however many keep it. It counts until the last of its nodes has freed it or
    is gone; pullbacks that are done together, as one compiled call, may hold it a few nodes longer. Compare runs with
    ``plain.plot(path, checkpointed, ...)``.
    """

    def __init__(self, label: str = "saved"):
        self._found = LiveBytes(label)
        self._block = watched_by(self._found)

    def __enter__(self) -> LiveBytes:
        self._block.__enter__()
        return self._found

    def __exit__(self, *exc_info: Any) -> None:
        self._block.__exit__(*exc_info)
        self._found._ends()


# --- the chart --------------------------------------------------------------------------------------------------------


def chart(runs: Sequence[LiveBytes], title: str, png: bool = False) -> str | bytes:
    """The chart as SVG, or as PNG: a line for each run, its name at its peak, a ring where its walk back begins."""
    from matplotlib.ticker import EngFormatter, MaxNLocator  # loaded where it is used

    size = EngFormatter("B", places=None)
    labels = [f"{run.label}, {_size(run.peak)}" for run in runs]
    right = 0.35 + 0.078 * max(map(len, labels))
    with style.drawing():
        figure, axes = style.new_axes(height=3.5, left=0.72, right=right, top=0.36, bottom=0.95)
        longest = max([len(run.events) for run in runs] + [1])
        ends = []
        for run, look in zip(runs, _looks(runs), strict=True):
            sizes = [0, *(event.bytes for event in run.events)]
            color = look.color.light
            axes.plot(range(len(sizes)), sizes, color=color, linestyle=look.line, drawstyle="steps-post")
            if run.turn < len(run.events):
                axes.plot([run.turn], [sizes[run.turn]], "o", color=color, markerfacecolor=style.PAPER.light, zorder=3)
            ends.append((sizes.index(max(sizes)), max(sizes), run))
        axes.set_xlim(0, longest)
        axes.set_ylim(0, 1.08 * max([1, *(run.peak for run in runs)]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(size)
        axes.set_xlabel("events: a node saves, or frees what it saved")
        axes.set_title(title, loc="left", fontsize=style.FONT, fontweight="bold")
        style.label_line_ends(
            axes, [(x, y, label, look) for (x, y, _), label, look in zip(ends, labels, _looks(runs), strict=True)]
        )
        style.footnote(figure, _note(runs))
        if png:
            return style.png_of(figure)
        return style.svg_of(figure, title, "; ".join(map(_spoken, runs)) + ".")


def _looks(runs: Sequence[LiveBytes]) -> list[style.LineStyle]:
    plain = style.ENGINES["tape"]
    return [plain, *(style.SERIES * len(runs))][: len(runs)]


def _size(count: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} B"


def _note(runs: Sequence[LiveBytes]) -> str:
    lines = ["Ring: the walk back begins. Labels: the most at once."]
    largest = max(runs, key=lambda run: run.peak)
    top = ", ".join(f"{_at(kept)} {_size(kept.bytes)}" for kept in largest.at_peak[:3])
    return "\n".join([*lines, f"At the peak of {largest.label}: {top}"] if top else lines)


def _spoken(run: LiveBytes) -> str:
    last = run.events[-1].bytes if run.events else 0
    return f"{run.label}: at most {run.peak:,} bytes, {last:,} at the end"
