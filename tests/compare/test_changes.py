"""What changed between two runs whose samples are known: found with its interval, or said not to be clear."""

import copy
import math
import warnings

import example_results as example
import numpy as np
import pytest

from twograd import cli
from twograd.compare import CompareError, stats
from twograd.compare import results as rs
from twograd.compare.changes import Place, changes, summary

PLACE = Place("op_chain", "size=8, depth=2", "graph")


def scaled(measurement, factor, seed=None):
    """The samples times a factor; with a seed, in another order."""
    samples = np.array(measurement.seconds) * factor
    if seed is not None:
        samples = np.random.default_rng(seed).permutation(samples)
    return rs.Measurement(tuple(samples.tolist()))


@pytest.fixture
def before():
    return example.results()


@pytest.fixture
def after(before):
    return copy.deepcopy(before)


def row(results, engine="graph"):
    return results.comparisons[0].cases[0].row(engine)


def slow_down(results, factor, engines=None):
    for _, _, found in results.rows():
        if engines is None or found.engine in engines:
            found.stages = {stage: scaled(m, factor, seed=1) for stage, m in found.stages.items()}


def by_engine(found):
    return {change.place.engine: change for change in found.times if change.place.case == "size=8, depth=2"}


def test_nothing_changed(before, after):
    found = changes(before, after)
    assert found.environment == found.statuses == found.sizes == []
    assert {change.verdict for change in found.times} == {"no clear difference"}
    assert all(change.ratio.low <= change.ratio.estimate == 1 <= change.ratio.high for change in found.times)
    assert len(found.times) == 4 * 7
    assert summary(found) == "Of 28 times: 28 with no clear difference."
    assert found.failures({"slower": 1.0, "larger": 1.0, "worse": 0}) == []


def test_what_became_slower_is_found_with_its_interval(before, after):
    slow_down(after, 1.5, ["graph"])
    found = by_engine(changes(before, after))
    assert found["graph"].verdict == "slower"
    assert found["graph"].ratio.low < 1.5 < found["graph"].ratio.high
    assert found["tape"].verdict == "no clear difference"
    assert by_engine(changes(after, before))["graph"].verdict == "faster"
    limits = changes(before, after)
    assert len(limits.failures({"slower": 1.1})) == 4
    assert limits.failures({"slower": 1.1})[0].startswith(
        "op_chain [size=8, depth=2] graph forward+backward: 1.5 times"
    )
    assert limits.failures({"slower": 1.6}) == []


def test_the_rounds_of_two_runs_are_not_paired(before, after):
    """Paired, samples that are the same up to a factor would have an interval of no width."""
    slow = rs.Measurement(tuple(1.5 * s for s in row(before).stages["forward+backward"].seconds))
    found = stats.change(row(before).stages["forward+backward"], slow)
    assert found.high - found.low > 0.001
    assert stats.ratio(slow, row(before).stages["forward+backward"]).high == pytest.approx(1.5)


def test_a_few_rounds_of_two_runs_are_set_against_each_other_all_with_all():
    few = rs.Measurement((1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6))
    same = rs.Measurement((1.0,) * 7)
    found = stats.change(few, few)
    assert (found.estimate, found.low, found.high) == pytest.approx((1, 1 / 1.6, 1.6))
    related = stats.change(few, few, (same, same))
    assert (related.estimate, related.low, related.high) == pytest.approx((1, 1 / 1.6, 1.6))


def test_relative_to_an_engine_a_slower_machine_cancels(before, after):
    slow_down(after, 3.0)
    slow_down(after, 2.0, ["graph"])
    found = by_engine(changes(before, after, relative_to="jax-jit"))
    assert "jax-jit" not in found
    assert found["tape"].verdict == "no clear difference"
    assert found["graph"].verdict == "slower"
    assert found["graph"].ratio.low < 2 < found["graph"].ratio.high


def test_too_few_samples_show_no_difference(before, after):
    slow_down(after, 9.0)
    for relative_to in (None, "tape"):
        for _, _, found in after.rows():
            found.stages = {stage: rs.Measurement(m.seconds[:3]) for stage, m in found.stages.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            times = changes(before, after, relative_to=relative_to).times
        assert {(change.verdict, change.ratio.high) for change in times} == {("no clear difference", math.inf)}


def test_rows_that_are_worse_or_gone(before, after):
    row(after).status, row(after).reason = "mismatch", "differs"
    row(after).stages.clear()
    after.comparisons[0].cases[0].rows.remove(row(after, "autograd"))
    found = changes(before, after)
    assert {place.engine: (d.what, d.before, d.after) for place, d in found.statuses} == {
        "graph": ("differs", "ok", "mismatch"),
        "autograd": ("", "ok", "absent"),
    }
    assert len(found.failures({"worse": 0})) == 2
    assert changes(after, before).failures({"worse": 0}) == []


def test_sizes(before, after):
    row(after).counts["saved bytes"] *= 2
    (size,) = changes(before, after).sizes
    assert (size.place, size.what, size.after / size.before) == (PLACE, "saved bytes", 2)
    assert changes(before, after).failures({"larger": 1.9}) == [f"{PLACE}: saved bytes 512, now 1024"]
    assert changes(before, after).failures({"larger": 2.0}) == []


def test_what_else_differs_comes_first(before, after):
    after.environment["versions"]["jax"] = "0.10.3"
    after.environment["machine"]["usable_cores"] = 4
    del after.environment["commit"]
    after.settings.seed = 7
    after.comparisons[0].source += "# edited"
    found = {d.what: (d.before, d.after) for d in changes(before, after).environment}
    assert found == {
        "versions.jax": ("0.10.2", "0.10.3"),
        "machine.usable_cores": ("2", "4"),
        "commit.id": ("0123456789abcdef", ""),
        "commit.dirty": ("no", ""),
        "settings.seed": ("0", "7"),
        "op_chain.py": ("", "another text"),
    }


def test_nothing_in_common(before, after):
    for case in after.comparisons[0].cases:
        case.name += "!"
    with pytest.raises(CompareError, match="no row in common"):
        changes(before, after)
    with pytest.raises(CompareError, match="no row of both results has a time of torch beside it"):
        changes(before, before, relative_to="torch")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(before, after, tmp_path):
    slow_down(after, 1.5, ["graph"])
    after.environment["versions"]["jax"] = "0.10.3"
    for name, results in (("a", before), ("b", after)):
        (tmp_path / name).mkdir()
        rs.save(results, tmp_path / name / "results.json")
    return str(tmp_path / "a"), str(tmp_path / "b" / "results.json")


def test_the_command(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["diff", *files]) == 0
    out = capsys.readouterr().out
    assert out.index("versions.jax") < out.index("Times in")
    assert "Of 28 times: 4 slower, 24 with no clear difference." in out
    assert cli.main(["diff", *files, "--stages", "step,forward", "--relative-to", "tape"]) == 0
    assert "in multiples of tape" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        (["slower=1.10"], 1),
        (["slower=1.7"], 0),
        (["slower=1.7", "slower=1.1"], 1),
        (["worse", "larger=1.0"], 0),
    ],
)
def test_fail_if_is_code_1(files, capsys, conditions, code):
    options = [part for condition in conditions for part in ("--fail-if", condition)]
    assert cli.main(["diff", *files, *options]) == code
    err = capsys.readouterr().err
    assert err.count("twograd: op_chain [") == 4 * code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-if", "slow=2"], "'slow=2' is none of slower=RATIO, larger=RATIO and worse"),
        (["--fail-if", "slower=x"], "'x' is not a positive number"),
        (["--fail-if", "worse=2"], "is none of"),
        (["--relative-to", "tap"], "unknown engine of both results 'tap'. Did you mean 'tape'?"),
        (["--stages", "forwards"], "unknown stage 'forwards'. Did you mean 'forward'?"),
    ],
)
def test_what_cannot_be_asked_is_code_2(files, capsys, arguments, message):
    try:
        code = cli.main(["diff", *files, *arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
