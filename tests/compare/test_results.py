"""The results file: what is written is read back, what is damaged is refused by name, and pytest-benchmark reads it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import example_results
import numpy as np
import pytest

from twograd.compare import results as rs
from twograd.pictures import Edge, Node
from twograd.pictures.account import Account, Section


def example() -> rs.Results:
    samples = tuple(0.001 + 0.0001 * i for i in range(9))
    check = rs.Check("finite differences", True, True, 1e-7, math.inf, 3.0, "rtol 1e-4", "two directions")
    rows = [
        rs.Row(
            "tape",
            "ok",
            loss=1.5,
            checks=[check],
            stages={"first call": rs.Measurement((0.5,)), "forward+backward": rs.Measurement(samples, loops=3)},
            counts={"forward nodes": 12, "flops": 1e6},
            texts={"forward": "{ lambda ; a:f32[2]. let b = sin a in (b,) }"},
        ),
        rs.Row("graph", "ok", stages={"forward+backward": rs.Measurement(tuple(2 * s for s in samples))}),
        rs.Row("torch", "skipped", reason="not installed (pip install 'twograd[torch]')"),
    ]
    findings: list[rs.Finding] = [
        rs.Table("orders", ["order", "nodes", "seen"], [[1, 12, True], [2, float("nan"), None]], ["", "nodes", ""]),
        rs.Curves("loss", "step", "loss", [rs.Series("tape", [0, 1], [2.0, math.inf], "tape")], y_scale="log"),
        rs.Observation("The tape ran 3 branches."),
        rs.Listing("traced", "{ lambda ; . let in () }"),
    ]
    comparison = rs.ComparisonResult(
        "op_chain",
        "What does an op cost?",
        "",
        "source",
        axes=["size"],
        cases=[rs.CaseResult("size=8", {"size": 8}, rows)],
        findings=findings,
    )
    return rs.Results(
        rs.Settings(quick=True, engines=["tape", "graph"]),
        environment={"machine": {"cpu": {"brand_raw": "a CPU"}}, "commit": {"id": "0" * 8}},
        engines=[rs.EngineInfo("tape", "twograd.tape", "dynamic", "twograd", "0.1.0", True)],
        comparisons=[comparison],
        started="2026-11-23T14:24:38+00:00",
    )


def test_what_is_saved_is_loaded(tmp_path):
    rs.save(example(), tmp_path / "results.json")
    loaded = rs.load(tmp_path / "results.json")
    # NaN is unequal to itself, so the documents are compared, not the objects.
    assert rs.to_json(loaded) == rs.to_json(example())
    table, curves = loaded.comparisons[0].findings[:2]
    assert isinstance(table, rs.Table)
    assert math.isnan(table.rows[1][1])  # type: ignore[arg-type]
    assert isinstance(curves, rs.Curves)
    assert curves.series[0].y == [2.0, math.inf]


def test_the_file_is_strict_json(tmp_path):
    rs.save(example(), tmp_path / "results.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)


def test_numbers_and_arrays_of_numpy_are_kept_and_other_objects_are_refused():
    values = [np.float32(0.5), np.int64(3), np.float64("inf"), np.arange(2)]
    assert rs.encode(values) == [0.5, 3, {"non-finite": "inf"}, [0, 1]]
    with pytest.raises(TypeError, match="a set cannot be kept"):
        rs.encode({"x": {1}})


def test_a_finding_is_made_plain_or_refused():
    found = rs.plain(rs.Table("t", ("a",), ((np.int32(1),),)))
    assert found == rs.Table("t", ["a"], [[1]], [])
    curves = rs.plain(rs.Curves("c", "x", "y", [rs.Series("a", range(2), np.float32([0.5, 1.5]))]))
    assert curves == rs.Curves("c", "x", "y", [rs.Series("a", [0, 1], [0.5, 1.5])])
    with pytest.raises(TypeError, match=r"finding\.rows"):
        rs.plain(rs.Table("t", ["a"], [{"a": 1}]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="none of the allowed types"):
        rs.plain("just text")


def test_saving_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    rs.save(example(), path)
    before = path.read_text()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    changed = example()
    changed.finished = "now"
    with pytest.raises(rs.Unwritable, match="No space left"):
        rs.save(changed, path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_time_that_no_clock_shows_is_refused(seconds):
    data = rs.encode(rs.Measurement((1.0, 2.0))) | {"seconds": [1.0, rs.encode(seconds)]}
    with pytest.raises(rs.DamagedResults, match="a time that is negative or no finite number"):
        rs.decode(rs.Measurement, data, "here")


def picture(**changes):
    nodes = [rs.encode(Node(key, (key,), "op", lane=1)) for key in "ab"]
    whole = {"title": "", "nodes": nodes, "edges": [["a", "b", "value", 0, False]], "lanes": ["one", "two"]}
    return {"title": "", "picture": whole | changes}


def test_a_walk_is_read_back_as_it_was():
    trace = rs.Trace("", walk=example_results.WALK)
    assert rs.decode(rs.Trace, json.loads(json.dumps(rs.encode(trace))), "here") == trace
    assert rs.decode(Account, picture(), "here").picture.edges == (Edge("a", "b"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"edges": [["a", "c", "value", 0, False]]},
            r"here\.picture: an edge of a picture ends at 'c', which is no node",
        ),
        ({"edges": [["a", "b"]]}, r"here\.picture\.edges\[0\]: expected 5 values, found 2"),
        ({"edges": [["a", "b", "value", "0", False]]}, r"here\.picture\.edges\[0\]\[3\]: expected int, found '0'"),
        ({"legend": [[0, "1"]]}, r"here\.picture\.legend\[0\]: expected 3 values, found 2"),
        ({"nodes": picture()["picture"]["nodes"] * 2}, "two nodes of a picture have one key"),
        ({"lanes": ["one"]}, "a node of a picture is in a lane that has no heading"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(rs.DamagedResults, match=message):
        rs.decode(Account, picture(**changes), "here")


def test_a_row_without_cells_is_refused():
    with pytest.raises(rs.DamagedResults, match="here: a row without cells"):
        rs.decode(Section, {"key": "queue", "title": "Queue", "rows": [["a"], []]}, "here")


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_lines_time_that_no_clock_shows_is_refused(seconds):
    line = rs.Line(1, "", (), (), ())
    for whole, field in ((line, "program_seconds"), (line, "derivative_seconds"), (rs.Part(""), "seconds")):
        with pytest.raises(rs.DamagedResults, match="a time that is negative or no finite number"):
            rs.decode(type(whole), rs.encode(whole) | {field: rs.encode(seconds)}, "here")


def mutate(change):
    data = rs.to_json(example())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(rs.to_json(example()))[:300], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "not a results file of twograd"),
        ('{"benchmarks": []}', "not a results file of twograd"),
        (mutate(lambda d: d.update(schema_version=99)), "newer twograd .schema 99"),
        (mutate(lambda d: d.pop("schema_version")), "unknown schema_version None"),
        (mutate(lambda d: d.update(twograd=3)), "twograd: expected Results, found 3"),
        (mutate(lambda d: d["twograd"].pop("settings")), "missing 1 required positional argument: 'settings'"),
        (mutate(lambda d: d["twograd"]["settings"].update(dtype="int8")), "twograd.settings.dtype"),
        (mutate(lambda d: d["twograd"]["settings"].update(seed=True)), "twograd.settings.seed: expected int"),
        (mutate(lambda d: d["twograd"]["settings"].update(evil=1)), "unknown field 'evil'"),
        (
            mutate(lambda d: d["twograd"]["comparisons"][0]["cases"][0]["rows"][0].update(loss="x")),
            r"twograd.comparisons\[0\].cases\[0\].rows\[0\].loss",
        ),
        (
            mutate(
                lambda d: d["twograd"]["comparisons"][0]["cases"][0]["rows"][1]["stages"]["forward+backward"].update(
                    seconds=[]
                )
            ),
            "without samples",
        ),
        (mutate(lambda d: d["twograd"]["comparisons"][0]["findings"][0].update(kind="pickle")), r"findings\[0\]"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(rs.DamagedResults, match=message) as error:
        rs.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_earlier_version_is_read_and_written_anew(tmp_path, version):
    stored = Path(__file__).parent / f"results_schema_{version}.json"
    assert json.loads(stored.read_text())["schema_version"] == version
    loaded = rs.load(stored)
    expected = example()
    if version == 2:
        expected.engines[0].about = "Each op runs at once."
        (comparison,) = expected.comparisons
        comparison.cases[0].conditions = rs.Conditions((0.001, 0.002), 1, False)
        comparison.findings.append(rs.Winners("winners", "n", "size", ["1", "2"], ["8"], [["tape", ""]], [["2x", ""]]))
        texts = ("SinBackward0 #0: saved x f32[8]", "0 b:f32[8] = sin a", "1 c:f32[8] = cos a  <- sin.0")
        lines = (
            rs.Line(4, "def loss(ops, x):", (), (), ()),
            rs.Line(5, "    return ops.np.sin(x)", *((rs.Part(text),) for text in texts), 32),
        )
        comparison.trace = rs.Trace("size=8", ("a:f32[8]  x",), "c, d", lines)
        assert loaded.comparisons[0].trace == comparison.trace
    assert rs.to_json(loaded) == rs.to_json(expected)
    rs.save(loaded, tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["schema_version"] == rs.SCHEMA_VERSION


@pytest.mark.parametrize("version", [2, rs.SCHEMA_VERSION])
def test_pictures_within_pictures_without_end_are_refused(version):
    data = rs.to_json(example()) | {"schema_version": version}
    inner = picture()["picture"]
    for _ in range(sys.getrecursionlimit()):
        inner = picture(nodes=[rs.encode(Node("a", (), "op")) | {"inside": [inner]}], edges=[], lanes=[])["picture"]
    data["twograd"]["comparisons"][0]["trace"]["walk"]["picture"] = inner
    with pytest.raises(rs.DamagedResults, match="deeper than any results have them"):
        rs.from_json(data)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_version_that_never_was_is_refused(version):
    with pytest.raises(
        rs.DamagedResults, match=f"unknown schema_version {version!r}; this twograd reads 1 to {rs.SCHEMA_VERSION}"
    ):
        rs.from_json({**rs.to_json(example()), "schema_version": version})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(rs.DamagedResults, match=r"nowhere\.json: cannot be read"):
        rs.load(tmp_path / "nowhere.json")


def test_quartiles_are_numpys():
    samples = np.random.default_rng(0).exponential(size=31)
    measurement = rs.Measurement(tuple(samples))
    np.testing.assert_allclose(measurement.quartiles, np.percentile(samples, [25, 75]))
    assert measurement.median == pytest.approx(np.median(samples))


def test_pytest_benchmark_compares_the_file(tmp_path):
    pytest.importorskip("pytest_benchmark")
    rs.save(example(), tmp_path / "results.json")
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "results.json", "--columns=median,iqr,rounds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert "op_chain / size=8 / forward+backward" in output
    assert "op_chain[size=8-tape]" in output
    assert "(2.0" in output  # the ratio to the best, which pytest-benchmark computes itself
