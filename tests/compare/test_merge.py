"""Runs on several devices as one report: the device is an axis, and nothing is lost."""

import copy
import dataclasses
from types import SimpleNamespace

import example_results as example
import pytest

from twograd import cli
from twograd.compare import CompareError, environment, merge, report, sentences
from twograd.compare import results as rs


@pytest.fixture(scope="module")
def runs():
    cpu = example.results()
    gpu = copy.deepcopy(cpu)
    gpu.settings.device = "gpu"
    gpu.environment["devices"] = {"device": "gpu", "kind": "NVIDIA H100", "count": 1, "platform": "gpu"}
    for _, _, row in gpu.rows():
        row.stages = {s: rs.Measurement(tuple(x / 4 for x in m.seconds)) for s, m in row.stages.items()}
    gpu.finished = "2026-11-24T00:00:00+00:00"
    return cpu, gpu


def test_the_device_is_an_axis_of_every_case(runs):
    found = merge.merged(runs)
    chain = found.comparisons[0]
    assert chain.axes == ["device", "size", "depth"]
    assert [case.axes["device"] for case in chain.cases] == ["cpu"] * 4 + ["gpu"] * 4
    assert chain.cases[4].name == "device=gpu, size=8, depth=2"
    assert chain.cases[4].rows == runs[1].comparisons[0].cases[0].rows
    assert found.settings.device == "cpu+gpu"
    assert found.environment["devices"]["kind"] == "cpu: cpu; gpu: NVIDIA H100"
    assert found.environment["versions"] == runs[0].environment["versions"]
    assert (found.started, found.finished) == (runs[0].started, runs[1].finished)
    assert [info.name for info in found.engines] == [info.name for info in runs[0].engines]
    assert chain.seconds == 2 * runs[0].comparisons[0].seconds
    assert chain.trace == dataclasses.replace(example.TRACE, name="device=cpu, size=8, depth=2")
    assert "`graph` takes" in sentences.line_times(chain)  # on that device, at that case


def test_a_sentence_tells_how_long_each_engine_takes_on_one_device_over_the_other(runs):
    def told(results):
        return [s for answers in sentences.summary(results).values() for s in answers if "on cpu" in s]

    said = told(merge.merged(runs))
    assert len(said) == 7, "one per engine that was timed"
    assert said[0].startswith("A gradient by `tape` on cpu takes 4 times as long as on gpu (geometric mean of 4 cases)")
    assert not told(runs[0])
    apart = copy.deepcopy(runs[1])
    apart.comparisons[0].cases = []
    assert not told(merge.merged([runs[0], apart]))


def test_findings_and_failures_say_their_device(runs):
    _, trained, broken = merge.merged(runs).comparisons
    texts = [getattr(finding, "title", getattr(finding, "text", "")) for finding in trained.findings]
    assert texts[0].startswith("On cpu: Both engines")
    assert "Loss while training (gpu)" in texts
    assert len(texts) == 2 * len(runs[0].comparisons[1].findings)
    assert broken.status == "failed"
    assert broken.error.startswith("cpu: comparisons/broken.py:1: does not import.; gpu: ")


def test_the_report_of_both_draws_each_and_can_be_read_back(runs, tmp_path):
    found = merge.merged(runs)
    for case in found.comparisons[0].cases:
        case.rows = case.rows[:2]  # drawn faster
    rs.save(found, tmp_path / "results.json")
    assert rs.to_json(rs.load(tmp_path / "results.json")) == rs.to_json(found)
    captions = [chart.caption for chart in report.draw(found)[1]]
    for device in ("cpu", "gpu"):
        of_device = [caption for caption in captions if f"device={device}" in caption]
        assert len(of_device) == 5, "three of a case, and one along each axis that is a number"


def test_two_machines_are_told_apart_by_their_processors(runs):
    other = copy.deepcopy(runs[0])
    other.environment["machine"]["cpu"]["brand_raw"] = "Another CPU"
    assert merge.labels([runs[0], other]) == ["Example CPU @ 2.50GHz", "Another CPU"]
    with pytest.raises(CompareError, match=r"two of the results are of one device .*: `twograd diff` compares such"):
        merge.labels([runs[0], runs[0]])


def test_what_cannot_stand_side_by_side(runs):
    other = copy.deepcopy(runs[1])
    other.settings.dtype = "float64"
    with pytest.raises(CompareError, match=r"the results differ in dtype \(float32, float64\)"):
        merge.merged([runs[0], other])
    other = copy.deepcopy(runs[1])
    other.comparisons[0].source += "\n"
    with pytest.raises(CompareError, match="op_chain is another text in one of the results"):
        merge.merged([runs[0], other])


def test_what_only_one_device_has_is_kept(runs):
    other = copy.deepcopy(runs[1])
    del other.comparisons[0]
    other.engines[0].available, other.engines[0].reason = False, "not on this device"
    found = merge.merged([runs[0], other])
    assert [case.axes["device"] for case in found.comparisons[0].cases] == ["cpu"] * 4
    assert found.engines[0].available


def test_the_command(runs, tmp_path, capsys):
    for name, run in zip("ab", runs, strict=True):
        small = copy.copy(run)
        small.comparisons = small.comparisons[2:]
        (tmp_path / name).mkdir()
        rs.save(small, tmp_path / name / "results.json")
    both = [str(tmp_path / name) for name in "ab"]
    assert cli.main(["plot", *both]) == 2
    assert "needs a folder of its own: choose one with --out" in capsys.readouterr().err
    assert cli.main(["plot", *both, "--out", both[1]]) == 2
    assert "has one of the results in it" in capsys.readouterr().err
    assert cli.main(["plot", *both, "--out", str(tmp_path / "c")]) == 0
    assert rs.load(tmp_path / "c" / "results.json").settings.device == "cpu+gpu"
    assert "cpu+gpu" in (tmp_path / "c" / "report.html").read_text()
    assert rs.load(tmp_path / "a" / "results.json").settings.device == "cpu"


def test_the_stamp_has_the_memory_of_a_device_that_tells_it(monkeypatch):
    assert "memory_bytes" not in environment.devices("cpu")
    gpu = SimpleNamespace(device_kind="NVIDIA H100", platform="gpu", memory_stats=lambda: {"bytes_limit": 80 * 10**9})
    monkeypatch.setattr(environment.jax, "devices", lambda _: [gpu, gpu])
    found = environment.devices("gpu")
    assert found == {
        "device": "gpu", "kind": "NVIDIA H100", "count": 2, "platform": "gpu", "memory_bytes": 80 * 10**9,
    }  # fmt: skip
