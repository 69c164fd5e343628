"""Where the nodes of a graph stand, and which way its edges go: a layered layout, as Graphviz's ``dot`` makes it.

What flows in: the sizes of boxes, and edges between them. What flows out: a :class:`Layout`. Read :func:`layout`.

The four steps are those of Sugiyama, Tagawa and Toda (1981) as Gansner, Koutsofios, North and Vo made them exact ("A
technique for drawing directed graphs", 1993): cycles are broken; ranks minimise the total length of the edges; nodes
within a rank are ordered by the barycentres of their neighbours; x coordinates minimise how far the edges lean. Ranks
and coordinates are linear programs, of network type, so that their solutions are whole numbers; HiGHS solves them.

An edge longer than one rank passes a place of its own in every rank between, so that no edge runs through a box: within
the band of a rank it is vertical, and it bends only between two bands. Edges of one value share their places.
"""

import itertools
from bisect import bisect_right, insort
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SWEEPS = 8
GAP, LANE_GAP, EDGE_GAP = 18.0, 44.0, 9.0
"""Between boxes, between boxes of two lanes, and beside an edge; in pixels, as all that follows."""
BAND_GAP, LEAN, WIDEST_BAND_GAP = 24.0, 0.08, 64.0
"""Between two bands: at least, more for each pixel that an edge goes sideways, at most."""
PORT_GAP = 24.0
"""Between two lines where they enter a box, at most."""
STRAIGHT = 4.0
"""How much more an edge's leaning counts between two places of its own than next to a box."""


class Link(NamedTuple):
    """An edge by the indices of its ends; see :class:`twograd.pictures.picture.Edge`."""

    source: int
    target: int
    value: Hashable = 0
    up: bool = False


@dataclass
class Layout:
    """The centres of the boxes, and per link the points that it passes, from its source to its target."""

    width: float = 0.0
    height: float = 0.0
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    paths: list[list[tuple[float, float]]] = field(default_factory=list)
    lanes: dict[int, tuple[float, float]] = field(default_factory=dict)
    crossings: tuple[int, int] = (0, 0)
    """Before the nodes were ordered, and after."""


def layout(sizes: Sequence[tuple[float, float]], links: Sequence[Link], lanes: Sequence[int] = ()) -> Layout:
    """Places boxes of these sizes (width, height), whose order is kept where nothing else decides.

    Every link goes from a rank to a later one, or, if it is ``up`` or would close a cycle, to an earlier one. Boxes of
    a lane stand right of those of all lower lanes. The same arguments give the same layout.
    """
    if not sizes:
        return Layout()
    lanes = lanes or [0] * len(sizes)
    over = _acyclic(len(sizes), links)
    rank = _ranks(len(sizes), links, over)
    grid = _Grid(sizes, links, lanes, rank)
    crossings = grid.order()
    grid.place_ports()
    x, extents = grid.coordinates()
    return _drawn(grid, x, extents, crossings)


def _acyclic(count: int, links: Sequence[Link]) -> list[tuple[int, int] | None]:
    """For each link which of its ends stands above the other; None for one from a box to itself."""
    over = [(link.target, link.source) if link.up else (link.source, link.target) for link in links]
    below: list[list[int]] = [[] for _ in range(count)]
    for position, (a, _) in enumerate(over):
        below[a].append(position)
    entered, left = [False] * count, [False] * count
    found: list[tuple[int, int] | None] = list(over)
    for start in range(count):
        stack = [] if entered[start] else [(start, iter(below[start]))]
        entered[start] = True
        while stack:
            node, rest = stack[-1]
            position = next(rest, None)
            if position is None:
                left[node] = True
                stack.pop()
                continue
            other = over[position][1]
            if entered[other] and not left[other]:
                found[position] = None if other == node else (other, node)
            elif not entered[other]:
                entered[other] = True
                stack.append((other, iter(below[other])))
    return found


def _ranks(count: int, links: Sequence[Link], over: Sequence[tuple[int, int] | None]) -> list[int]:
    """Minimises the sum of the ranks that links span, each at least one."""
    pairs = sorted({pair for pair in over if pair is not None})
    cost = [0.0] * count
    for a, b in (pair for pair in over if pair is not None):
        cost[a] -= 1
        cost[b] += 1
    ranks = _solved(cost, [(a, b, 1.0) for a, b in pairs])
    return [round(rank) for rank in ranks]


def _solved(cost: Sequence[float], apart: Sequence[tuple[int, int, float]]) -> list[float]:
    """Numbers from 0 up of the least cost, of which for each ``(a, b, d)`` b's is at least d more than a's."""
    if not apart:
        return [0.0] * len(cost)
    # Loaded where a picture is drawn: it takes longer to load than the rest of this package.
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    columns = [end for a, b, _ in apart for end in (a, b)]
    matrix: Any = csr_array(
        ([1.0, -1.0] * len(apart), columns, range(0, 2 * len(apart) + 1, 2)), shape=(len(apart), len(cost))
    )
    # A tiny price on everything decides between solutions of equal cost, the same way every time.
    priced = [price + 1e-4 for price in cost]
    found = linprog(priced, matrix, [-distance for _, _, distance in apart], bounds=(0, None), method="highs-ds")
    assert found.success, found.message
    return list(found.x)


class _Grid:
    """The boxes and, for the links that pass a rank, their places, rank by rank in order from left to right."""

    def __init__(
        self, sizes: Sequence[tuple[float, float]], links: Sequence[Link], lanes: Sequence[int], rank: list[int]
    ):
        self.sizes, self.rank, self.links = list(sizes), list(rank), links
        self.boxes = len(sizes)
        # Twice the lane, so that what goes from one lane to another passes between them.
        self.lane = [2 * lane for lane in lanes]
        self.chains: list[list[int]] = []
        self.ports: list[tuple[float, float]] = []
        places: dict[Any, int] = {}
        for link in links:
            if link.source == link.target:
                self.chains.append([])
                continue
            chain = [link.source]
            step = 1 if rank[link.source] < rank[link.target] else -1
            a, b = self.lane[link.source], self.lane[link.target]
            lane = a if a == b else max(a, b) - 1
            for r in range(rank[link.source] + step, rank[link.target], step):
                key = (link.source, link.value, lane, step, r)
                if key not in places:
                    places[key] = len(self.rank)
                    self.rank.append(r)
                    self.lane.append(lane)
                    self.sizes.append((0.0, 0.0))
                chain.append(places[key])
            chain.append(link.target)
            self.chains.append(chain)
        self.rows: list[list[int]] = [[] for _ in range(max(self.rank) + 1)]
        for item in self._depth_first(links):
            self.rows[self.rank[item]].append(item)
        for row in self.rows:
            row.sort(key=lambda item: self.lane[item])
        self.place = [0] * len(self.rank)
        for row in self.rows:
            self._number(row)
        self.above: list[list[int]] = [[] for _ in self.rank]
        self.below: list[list[int]] = [[] for _ in self.rank]
        for a, b in sorted({self._down(a, b) for chain in self.chains for a, b in itertools.pairwise(chain)}):
            self.below[a].append(b)
            self.above[b].append(a)

    def _down(self, a: int, b: int) -> tuple[int, int]:
        return (a, b) if self.rank[a] < self.rank[b] else (b, a)

    def _depth_first(self, links: Sequence[Link]) -> list[int]:
        """Items so that those of one path are near each other: each box, followed by its links' places."""
        chains_of: list[list[int]] = [[] for _ in range(self.boxes)]
        for position, link in enumerate(links):
            chains_of[link.source].append(position)
        return list(
            dict.fromkeys(
                item
                for box in range(self.boxes)
                for item in (box, *(i for position in chains_of[box] for i in self.chains[position][1:-1]))
            )
        )

    # --- order --------------------------------------------------------------------------------------------------------

    def order(self) -> tuple[int, int]:
        """Orders every row by the barycentres of the neighbours above, then below, and so on; keeps the best found."""
        first = best = self.crossings()
        kept = [list(row) for row in self.rows]
        for sweep in range(SWEEPS):
            if best == 0:
                break
            down = sweep % 2 == 0
            neighbours = self.above if down else self.below
            for row in self.rows[1:] if down else reversed(self.rows[:-1]):
                weight = {
                    item: sum(self.place[other] for other in near) / len(near) if near else self.place[item]
                    for item in row
                    for near in (neighbours[item],)
                }
                row.sort(key=lambda item: (self.lane[item], weight[item]))
                self._number(row)
            self._swap_neighbours()
            found = self.crossings()
            if found < best:
                best, kept = found, [list(row) for row in self.rows]
        self.rows = kept
        for row in self.rows:
            self._number(row)
        return first, best

    def _number(self, row: list[int]) -> None:
        for position, item in enumerate(row):
            self.place[item] = position

    def _swap_neighbours(self) -> None:
        """Exchanges two neighbours in a row where that saves crossings."""
        place = self.place
        for row in self.rows:
            for i in range(len(row) - 1):
                a, b = row[i], row[i + 1]
                if self.lane[a] != self.lane[b]:
                    continue
                saved = 0
                for near in (self.above, self.below):
                    for p in near[a]:
                        for q in near[b]:
                            saved += (place[p] > place[q]) - (place[p] < place[q])
                if saved > 0:
                    row[i], row[i + 1] = b, a
                    place[a], place[b] = i + 1, i

    def crossings(self) -> int:
        """How often two lines cross, all rows together."""
        total = 0
        for row in self.rows:
            ends: list[int] = []
            for item in row:
                targets = sorted(self.place[other] for other in self.below[item])
                total += sum(len(ends) - bisect_right(ends, target) for target in targets)
                for target in targets:
                    insort(ends, target)
        return total

    # --- coordinates --------------------------------------------------------------------------------------------------

    def coordinates(self) -> tuple[list[float], dict[int, tuple[float, float]]]:
        """The x of every item, and the left and right end of every lane of boxes."""
        used = sorted({self.lane[box] for box in range(self.boxes)})
        ends = {lane: (len(self.rank) + 2 * i, len(self.rank) + 2 * i + 1) for i, lane in enumerate(used)}
        cost = [0.0] * (len(self.rank) + 2 * len(used))
        apart: list[tuple[int, int, float]] = []
        for row in self.rows:
            for a, b in itertools.pairwise(row):
                apart.append((a, b, self.sizes[a][0] / 2 + self.sizes[b][0] / 2 + self._gap(a, b)))
            for lane, found in itertools.groupby(row, self.lane.__getitem__):
                first, last = (of_lane := list(found))[0], of_lane[-1]
                if lane in ends:
                    apart.append((ends[lane][0], first, self.sizes[first][0] / 2))
                    apart.append((last, ends[lane][1], self.sizes[last][0] / 2))
                else:  # between two lanes
                    apart += [(ends[lane - 1][1], first, GAP)] if lane - 1 in ends else []
                    apart += [(last, ends[lane + 1][0], GAP)] if lane + 1 in ends else []
        apart += [(ends[a][1], ends[b][0], LANE_GAP) for a, b in itertools.pairwise(used)]
        for left, right in ends.values():
            cost[left] -= 0.01
            cost[right] += 0.01
        parts = (
            (a, b, *shift)
            for chain, ends_ in zip(self.chains, self.ports, strict=True)
            for a, b, *shift in _parts(chain, ends_)
        )
        for a, b, at_a, at_b in dict.fromkeys(parts):
            # ``high - low`` is how far this part leans: low is left of both of its ends, high is right of both.
            low, high = len(cost), len(cost) + 1
            weight = 1.0 if a < self.boxes or b < self.boxes else STRAIGHT
            cost += [-weight, weight]
            apart += [(low, a, -at_a), (low, b, -at_b), (a, high, at_a), (b, high, at_b)]
        x = _solved(cost, apart)
        return x, {lane // 2: (x[left], x[right]) for lane, (left, right) in ends.items()}

    def _gap(self, a: int, b: int) -> float:
        return GAP if a < self.boxes or b < self.boxes else EDGE_GAP

    def place_ports(self) -> None:
        """Where along its box each link begins and ends: side by side, in the order of the far ends.

        Lines of one value begin at one point.
        """
        sides: dict[tuple[int, bool], dict[Any, list[tuple[float, float]]]] = {}
        keys = []
        for link, chain in zip(self.links, self.chains, strict=True):
            if not chain:
                keys.append(None)
                continue
            after, before = chain[1], chain[-2]
            keys.append(
                (
                    (link.source, self.rank[after] > self.rank[link.source], ("from", link.value)),
                    (link.target, self.rank[before] > self.rank[link.target], ("to", link.source, link.value)),
                )
            )
            for (box, bottom, key), far in zip(keys[-1], (after, before), strict=True):
                sides.setdefault((box, bottom), {}).setdefault(key, []).append((self.lane[far], self.place[far]))
        offset = {}
        for (box, bottom), found in sides.items():
            ordered = sorted(
                found, key=lambda key: [sum(part) / len(found[key]) for part in zip(*found[key], strict=True)]
            )
            step = min(PORT_GAP, self.sizes[box][0] / (len(ordered) + 1))
            for position, key in enumerate(ordered):
                offset[box, bottom, key] = (position - (len(ordered) - 1) / 2) * step
        self.ports = [(0.0, 0.0) if pair is None else (offset[pair[0]], offset[pair[1]]) for pair in keys]


def _parts(chain: Sequence[int], ports: tuple[float, float]) -> Iterator[tuple[int, int, float, float]]:
    """The parts of a link from rank to rank, with where in its box each part begins and ends."""
    last = len(chain) - 2
    for i, (a, b) in enumerate(itertools.pairwise(chain)):
        yield a, b, ports[0] if i == 0 else 0.0, ports[1] if i == last else 0.0


def _drawn(grid: _Grid, x: list[float], lanes: dict[int, tuple[float, float]], crossings: tuple[int, int]) -> Layout:
    """Stacks the bands, as far apart as their edges need, and moves everything to start at (0, 0)."""
    shift = -min([x[item] - grid.sizes[item][0] / 2 for item in range(len(grid.rank))])
    x = [value + shift for value in x]
    lean = [0.0] * len(grid.rows)
    for chain, ports in zip(grid.chains, grid.ports, strict=True):
        for a, b, at_a, at_b in _parts(chain, ports):
            upper = min(grid.rank[a], grid.rank[b])
            lean[upper] = max(lean[upper], abs(x[a] + at_a - x[b] - at_b))
    bands, top = [], 0.0
    for row, widest in zip(grid.rows, lean, strict=True):
        height = max(grid.sizes[item][1] for item in row)
        bands.append((top, top + height))
        top += height + min(BAND_GAP + LEAN * widest, WIDEST_BAND_GAP)
    y = [sum(bands[rank]) / 2 for rank in grid.rank[: grid.boxes]]
    paths = []
    for chain, (at_source, at_target) in zip(grid.chains, grid.ports, strict=True):
        points: list[tuple[float, float]] = []
        for i, item in enumerate(chain):
            down = grid.rank[chain[0]] < grid.rank[chain[-1]]
            enter, leave = bands[grid.rank[item]] if down else bands[grid.rank[item]][::-1]
            half = grid.sizes[item][1] / 2 * (1 if down else -1)
            if i == 0:
                points += [(x[item] + at_source, y[item] + half), (x[item] + at_source, leave)]
            elif i == len(chain) - 1:
                points += [(x[item] + at_target, enter), (x[item] + at_target, y[item] - half)]
            else:
                points += [(x[item], enter), (x[item], leave)]
        paths.append(points)
    return Layout(
        width=max(x[item] + grid.sizes[item][0] / 2 for item in range(len(grid.rank))),
        height=bands[-1][1],
        x=x[: grid.boxes],
        y=y,
        rank=grid.rank[: grid.boxes],
        paths=paths,
        lanes={lane: (left + shift, right + shift) for lane, (left, right) in lanes.items()},
        crossings=crossings,
    )
