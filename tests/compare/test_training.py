"""Loss curves of several engines: how far apart they are, and the words for it."""

import numpy as np

from twograd.compare import Curves, Observation
from twograd.compare.training import between, loss_curves, ulps

LOSSES = np.array([2.0, 1.0, 0.5], np.float32)


def test_distances_are_in_units_in_the_last_place_of_the_dtype():
    up = np.nextafter(LOSSES, np.float32(9))
    assert ulps(up, LOSSES).tolist() == [1, 1, 1]
    assert ulps(LOSSES, -LOSSES).tolist() == (2 * LOSSES / np.spacing(LOSSES)).tolist()
    assert ulps(LOSSES.astype(float) + 2**-50, LOSSES.astype(float)).tolist() == [2.0, 4.0, 8.0]


def test_every_engine_is_held_against_the_first():
    apart = LOSSES.copy()
    apart[1] += 3 * np.spacing(apart[1])
    losses, distances, same, other = loss_curves({"graph": LOSSES, "tape": LOSSES, "torch": apart})
    assert isinstance(losses, Curves)
    assert [(series.engine, series.y) for series in losses.series] == [
        ("graph", [2.0, 1.0, 0.5]), ("tape", [2.0, 1.0, 0.5]), ("torch", apart.tolist()),
    ]  # fmt: skip
    assert "none is further than 3 units in the last place from graph's" in losses.note
    assert isinstance(distances, Curves)
    assert [(series.label, series.y) for series in distances.series] == [("tape", [0, 0, 0]), ("torch", [0, 3, 0])]
    assert isinstance(same, Observation)
    assert same.text == "The loss of `tape` is that of `graph` to the last bit in all 3 steps."
    assert isinstance(other, Observation)
    assert other.text == (
        "The loss of `torch` first differs from that of `graph` at step 2. In units in the last place, the median "
        "difference is 0 and the largest 3."
    )


def test_one_engine_alone_has_no_distances():
    (losses,) = loss_curves({"tape": LOSSES}, scale="linear")
    assert isinstance(losses, Curves)
    assert losses.y_scale == "linear"


def test_shares_are_a_range_where_they_differ():
    assert between([0.972, 0.972]) == "97.2 %"
    assert between([0.1, 0.0925, 0.09]) == "9.0 to 10.0 %"
