"""What every layout keeps to: no box on another, no edge through a box, every edge its way, the same each time."""

import itertools
import random

import pytest

from twograd.pictures.layout import GAP, Layout, Link, layout


def dag(seed, count=30, lanes=1):
    """Boxes of several sizes, and links that point forwards; those within an odd lane go up."""
    rng = random.Random(seed)
    sizes = [(rng.choice([30.0, 80.0, 200.0]), rng.choice([20.0, 60.0, 150.0])) for _ in range(count)]
    lane = sorted(rng.randrange(lanes) for _ in range(count))
    links = []
    for target in range(1, count):
        for source in {rng.randrange(max(0, target - 9), target) for _ in range(rng.randrange(4))}:
            up = lane[source] == lane[target] and lane[target] % 2 == 1
            links.append(Link(source, target, rng.randrange(2), up))
    return sizes, links, lane


def boxes(found: Layout, sizes):
    return [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, (w, h) in zip(found.x, found.y, sizes, strict=True)]


def points_along(path):
    """Many points of the line as it is drawn: straight, and curved between bands."""
    for i, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(path)):
        for step in range(21):
            t = step / 20
            along = 3 * (1 - t) * t**2 + t**3 if i % 2 else t
            yield (
                x + (to_x - x) * along,
                y + (to_y - y) * (1.5 * (1 - t) ** 2 * t + 1.5 * (1 - t) * t**2 + t**3 if i % 2 else t),
            )


GRAPHS = [(1, 1), (2, 2), (3, 3), (4, 2), (5, 1)]


@pytest.mark.parametrize(("seed", "lanes"), GRAPHS)
def test_layouts_keep_to_the_rules(seed, lanes):
    sizes, links, lane = dag(seed, lanes=lanes)
    found = layout(sizes, links, lane)
    placed = boxes(found, sizes)
    for i, a in enumerate(placed):
        assert a[0] > -0.01
        assert a[2] < found.width + 0.01
        assert a[1] >= 0
        assert a[3] <= found.height
        for b in placed[:i]:
            apart = a[2] + GAP <= b[0] + 0.01 or b[2] + GAP <= a[0] + 0.01 or a[3] < b[1] or b[3] < a[1]
            assert apart, "two boxes overlap"
    for link, path in zip(links, found.paths, strict=True):
        first, last = placed[link.source], placed[link.target]
        assert found.rank[link.source] != found.rank[link.target]
        goes_up = found.rank[link.source] > found.rank[link.target]
        if lanes < 3:  # three lanes may close cycles
            assert goes_up == link.up
        assert path[0][1] == pytest.approx(first[1] if goes_up else first[3])
        assert path[-1][1] == pytest.approx(last[3] if goes_up else last[1])
        assert first[0] < path[0][0] < first[2]
        assert last[0] < path[-1][0] < last[2]
        heights = [round(y, 6) for _, y in path]
        assert heights == sorted(heights, reverse=goes_up)
        for x, y in points_along(path):
            for k, (left, top, right, bottom) in enumerate(placed):
                inside = left < x < right and top + 0.01 < y < bottom - 0.01
                assert not inside, f"the edge {link} runs through box {k}"
    before, after = found.crossings
    assert after <= before
    ends = [found.lanes[number] for number in sorted(found.lanes)]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    for (left, _, right, _), number in zip(placed, lane, strict=True):
        assert found.lanes[number][0] <= left + 0.01
        assert right <= found.lanes[number][1] + 0.01
    assert layout(sizes, links, lane) == found


def test_ordering_finds_an_order_without_crossings():
    # Two complete ladders whose rungs come in opposite order.
    links = [Link(i, 11 - i) for i in range(6)]
    found = layout([(10.0, 10.0)] * 12, links)
    assert found.crossings == (15, 0)


def test_ranks_are_as_short_as_they_can_be():
    # A chain 0-1-2-3, and 4, which only the last reads: it stands next to it, not at the top.
    found = layout([(10.0, 10.0)] * 5, [Link(0, 1), Link(1, 2), Link(2, 3), Link(4, 3)])
    assert found.rank == [0, 1, 2, 3, 2]


def test_a_chain_is_straight():
    found = layout([(20.0, 10.0), (200.0, 10.0), (60.0, 10.0)], [Link(0, 1), Link(1, 2)])
    assert found.x == pytest.approx([100.0] * 3)
    assert {round(x, 6) for path in found.paths for x, _ in path} == {100.0}


def test_lines_of_one_value_begin_at_one_point_and_share_their_way():
    sizes = [(50.0, 10.0)] * 5
    chain = [Link(0, 1, "c"), Link(1, 2, "c"), Link(2, 3, "c"), Link(3, 4, "c")]
    one = layout(sizes, [*chain, Link(0, 3, "v"), Link(0, 4, "v")])
    assert one.paths[4][:4] == one.paths[5][:4]
    two = layout(sizes, [*chain, Link(0, 3, "v"), Link(0, 4, "w")])
    assert two.paths[4][0] != two.paths[5][0]


def test_cycles_and_loops_are_drawn():
    found = layout([(10.0, 10.0)] * 3, [Link(0, 1), Link(1, 2), Link(2, 0), Link(1, 1)])
    assert found.rank == [0, 1, 2]
    assert found.paths[2][0][1] > found.paths[2][-1][1]
    assert found.paths[3] == []


def test_nothing_and_one():
    assert layout([], []) == Layout()
    alone = layout([(30.0, 20.0)], [])
    assert (alone.width, alone.height, alone.x, alone.y) == (30.0, 20.0, [15.0], [10.0])
    assert layout([(30.0, 20.0)] * 2, []).rank == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_more_layouts(seed):
    test_layouts_keep_to_the_rules(seed, 1 + seed % 3)
