"""Whole runs of small comparisons: what is measured, what is refused, what is kept when something fails."""

import dataclasses
import json
import math
import re
import time

import numpy as np
import pytest
from stand_ins import Wrong, quadratic

from twograd.compare import CompareError, environment, program, runner
from twograd.compare import results as rs
from twograd.compare.engines import USUAL, create
from twograd.compare.engines.jax_engines import JaxEager

FILE = """
from twograd.compare import Comparison, Observation, Table

def inputs(rng):
    return {"w": rng.standard_normal(4)}, rng.standard_normal(4)

def loss(ops, params, x):
    return ops.np.sum(x * params["w"] * params["w"])
"""

GOOD = FILE + "comparison = Comparison(inputs=inputs, loss=loss)\n"


def run(declarations, settings, out=None, **options):
    messages = []
    results = runner.run(declarations, settings, out, progress=lambda *text: messages.append(text), **options)
    return results, messages


def test_a_run_checks_times_and_keeps_raw_samples(declare, timed, tmp_path):
    results, messages = run([declare(GOOD)], timed, tmp_path)
    (comparison,) = results.comparisons
    assert (comparison.status, comparison.name, comparison.question) == ("done", "mine", "A question?")
    assert comparison.source == GOOD
    for row in comparison.cases[0].rows:
        assert row.status == "ok"
        assert row.reason == ""
        assert all(check.passed for check in row.checks)
        assert {"first call", "forward", "forward+backward", "step"} <= row.stages.keys()
        assert len(row.stages["forward+backward"].seconds) >= 3
    assert ("mine [only case]", "autograd: build and first call") in messages
    assert rs.load(tmp_path / "results.json") == results


def test_a_timed_run_walks_the_program_line_by_line_or_says_why_not(declare, timed):
    timed = dataclasses.replace(timed, engines=["graph"])
    found, _ = run([declare(GOOD)], timed)
    trace = rs.from_json(json.loads(json.dumps(rs.to_json(found)))).comparisons[0].trace
    (number,) = (n for n, line in enumerate(GOOD.splitlines(), 1) if line.strip().startswith("return ops"))
    line = next(line for line in trace.lines if line.number == number)
    assert line.source == GOOD.splitlines()[number - 1]
    assert line.nodes
    assert line.program
    assert line.derivative
    assert line.program_seconds > 0
    assert line.derivative_seconds > 0
    assert trace.passes > 0
    assert [step.label for step in trace.walk.steps if step.kind == "leaf"] == ["AccumulateGrad of params['w']"]
    assert not trace.missing
    two = GOOD.replace("comparison = ", "def no_scalar(ops, params, x):\n    return x\n\ncomparison = ", 1)
    two = two.replace("loss=loss", "loss=no_scalar")
    (trace,) = (comparison.trace for comparison in run([declare(two)], timed)[0].comparisons)
    assert trace.lines == ()
    assert trace.missing


def test_all_engines_agree_on_the_loss(declare, settings):
    results, _ = run([declare(GOOD)], settings)
    losses = [row.loss for row in results.comparisons[0].cases[0].rows]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-6)


def test_inputs_depend_on_seed_and_case_and_on_nothing_else(settings):
    def values(seed, axes, name="mine"):
        return runner.make_inputs(quadratic(), name, axes, dataclasses.replace(settings, seed=seed))[1]

    first = values(0, {"size": 3})
    np.testing.assert_array_equal(first, values(0, {"size": 3}))
    assert not np.array_equal(first, values(1, {"size": 3}))
    assert not np.array_equal(first, values(0, {"size": 3}, "other"))
    assert not np.array_equal(first, values(0, {"size": 4})[:3])
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    ("leaf", "dtype"),
    [(np.ones(2), np.float32), (np.arange(3), np.int32), (1.5, np.float32), (np.array([True]), np.bool_)],
)
def test_floats_are_cast_and_labels_stay_integers(leaf, dtype):
    assert runner.cast(leaf, "float32").dtype == dtype


def test_float64_is_float64_all_through(declare, settings):
    results, _ = run([declare(GOOD)], dataclasses.replace(settings, dtype="float64"))
    for row in results.comparisons[0].cases[0].rows:
        reference = next(check for check in row.checks if check.witness.startswith("jax.grad"))
        assert reference.max_rel < 1e-15, row.engine
    import jax

    assert not jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda leaf: leaf * np.float32(1.01), "differs from jax.grad"),
        (lambda leaf: leaf * np.float32(np.nan), "4 of 4 values of the gradient of params['w'] are NaN"),
    ],
)
def test_a_wrong_gradient_has_no_timing(declare, timed, monkeypatch, spoil, reason):
    wrong = Wrong()
    monkeypatch.setattr(wrong, "spoil", spoil, raising=False)
    create = runner.create
    monkeypatch.setattr(runner, "create", lambda name, device: wrong if name == "jax-eager" else create(name, device))
    results, _ = run([declare(GOOD)], timed)
    row, right = (results.comparisons[0].cases[0].row(name) for name in ("jax-eager", "autograd"))
    assert row is not None
    assert right is not None
    assert row.status == "mismatch"
    assert reason in row.reason
    assert row.stages == {}
    assert right.status == "ok"
    assert "step" in right.stages


def test_a_program_that_an_engine_lacks_is_skipped_with_the_reason(declare, settings):
    text = FILE + (
        "comparison = Comparison(inputs=inputs, loss=loss,"
        " variants={'autograd': lambda ops, p, x: ops.F.conv2d(x, p), 'torch': 'no such loop'})\n"
    )
    results, _ = run([declare(text)], dataclasses.replace(settings, engines=["jax-eager", "autograd"]))
    row = results.comparisons[0].cases[0].row("autograd")
    assert row is not None
    assert (row.status, row.reason) == ("skipped", "HIPS autograd has no conv2d")


def test_an_engine_that_is_not_installed_is_skipped_with_the_way_to_install_it(declare, settings, monkeypatch):
    from twograd.compare.engines.autograd_engine import Autograd

    monkeypatch.setattr(Autograd, "distribution", "no_such_distribution")
    results, _ = run([declare(GOOD)], settings)
    row = results.comparisons[0].cases[0].row("autograd")
    assert row is not None
    assert (row.status, row.reason) == ("skipped", "not installed (pip install 'twograd[peers]')")
    info = results.engines[-1]
    assert (info.name, info.available, info.version) == ("autograd", False, "")


def test_an_engine_that_raises_leaves_the_others(declare, timed):
    text = FILE + "comparison = Comparison(inputs=inputs, loss=loss, variants={'autograd': lambda ops, p, x: 1 / 0})\n"
    results, _ = run([declare(text)], timed)
    failed, fine = (results.comparisons[0].cases[0].row(name) for name in ("autograd", "jax-eager"))
    assert failed is not None
    assert fine is not None
    assert failed.status == "failed"
    assert re.fullmatch(r"\S*mine\.py:9: ZeroDivisionError: division by zero", failed.reason)
    assert "Traceback" in failed.texts["traceback"]
    assert "step" in fine.stages


def test_a_stage_that_raises_fails_its_row_and_no_other(declare, timed, monkeypatch):
    build = JaxEager.build

    def build_with_a_broken_step(self, *arguments):
        built = build(self, *arguments)
        built.stages["step"] = lambda: 1 / 0
        return built

    monkeypatch.setattr(JaxEager, "build", build_with_a_broken_step)
    results, _ = run([declare(GOOD)], timed)
    failed, fine = results.comparisons[0].cases[0].rows
    assert (failed.status, failed.reason, failed.stages) == ("failed", "step: ZeroDivisionError: division by zero", {})
    assert failed.checks
    assert "step" in fine.stages


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_module\n", "mine.py:1: does not import (ModuleNotFoundError"),
        (FILE + "comparison = Comparison(inputs=lambda rng: 1 / 0, loss=loss)\n", "ZeroDivisionError"),
        (FILE + "def experiment(context):\n    yield from ()\n    raise KeyError('x')\n"
         "comparison = Comparison(experiment=experiment)\n", "mine.py:11: KeyError: 'x'"),
    ],
)  # fmt: skip
def test_a_comparison_that_raises_is_recorded_and_leaves_the_rest(declare, settings, tmp_path, text, error):
    results, _ = run([declare(text), declare(GOOD, name="good")], settings, tmp_path)
    bad, good = results.comparisons
    assert bad.status == "failed"
    assert error in bad.error
    assert "\n" not in bad.error
    assert good.status == "done"
    assert rs.load(tmp_path / "results.json") == results


def test_an_experiment_yields_findings_and_sees_the_cases(declare, settings):
    text = FILE + (
        "import numpy as np\n"
        "def experiment(context):\n"
        "    f = context.program('jax-eager')\n"
        "    value_and_grad = context.engines['jax-eager'].value_and_grad(f)\n"
        "    params, x = context.cast(({'w': context.rng('w').standard_normal(4)}, np.ones(4)))\n"
        "    loss, grads = value_and_grad(params, x)\n"
        "    yield Table('losses', ['engine', 'loss'], [['jax-eager', float(loss)]])\n"
        "    yield Observation(f'{len(context.cases)} cases, {len(context.cases[0].rows)} rows.')\n"
        "comparison = Comparison(inputs=inputs, loss=loss, experiment=experiment)\n"
    )
    results, _ = run([declare(text)], settings)
    assert results.comparisons[0].error == ""
    table, observation = results.comparisons[0].findings
    assert isinstance(table, rs.Table)
    assert table.rows[0][1] == pytest.approx(float(np.sum(runner_weights(settings) ** 2)), rel=1e-6)
    assert observation == rs.Observation("1 cases, 2 rows.")


def test_threads_of_engines_that_the_run_imports_are_in_its_stamp(declare, settings, monkeypatch):
    stamped = iter(range(100))
    monkeypatch.setattr(environment, "options", lambda: {"torch_threads": next(stamped)})
    results, _ = run([declare(GOOD)], settings)
    assert results.environment["options"] == {"torch_threads": next(stamped) - 1}
    assert next(stamped) > 2


@pytest.mark.parametrize(
    ("named", "timed", "said"),
    [
        ([], ["jax-eager"], "jax-eager"),
        (["autograd", "jax-eager"], ["autograd", "jax-eager"], "jax-eager"),
        (["autograd"], ["autograd"], "The experiment was left out: it is about `jax-eager`; none is here."),
    ],
)
def test_engines_that_are_named_run_every_timed_program_and_no_experiment_of_others(
    declare, settings, named, timed, said
):
    text = FILE + (
        "def experiment(context):\n    yield Observation(', '.join(context.engines))\n"
        "comparison = Comparison(inputs=inputs, loss=loss, experiment=experiment, engines=('jax-eager',))\n"
    )
    results, _ = run([declare(text)], dataclasses.replace(settings, engines=named))
    (comparison,) = results.comparisons
    assert [row.engine for row in comparison.cases[0].rows] == timed
    assert comparison.findings == [rs.Observation(said)]
    assert len(results.engines) == (len(named) or len(USUAL))


@pytest.mark.parametrize(
    ("line", "status", "remark"),
    [
        ("context.engines['torch']", "done", "it needs the engine torch, which is not installed or was not selected"),
        ("context.engines['trch']", "failed", "unknown engine 'trch'. Did you mean 'torch'?"),
        ("yield {1, 2}", "failed", "TypeError: a set cannot be kept in a results file"),
    ],
)
def test_what_an_experiment_found_before_it_gave_up_is_kept(declare, settings, line, status, remark):
    text = FILE + (
        f"def experiment(context):\n    yield Observation('First.')\n    {line}\n"
        "comparison = Comparison(experiment=experiment)\n"
    )
    results, _ = run([declare(text)], settings)
    (comparison,) = results.comparisons
    assert comparison.status == status
    assert comparison.findings[0] == rs.Observation("First.")
    assert remark in comparison.error + str(comparison.findings[1:])


def runner_weights(settings):
    return runner.generator(settings.seed, "mine", "w").standard_normal(4)


def test_a_run_that_was_interrupted_goes_on(declare, settings, tmp_path, monkeypatch):
    files = [declare(GOOD, name) for name in ("one", "two", "three")]
    original, calls = runner.run_comparison, []

    def interrupted(declaration, *rest):
        calls.append(declaration.name)
        if declaration.name == "two" and len(calls) == 2:
            raise KeyboardInterrupt
        return original(declaration, *rest)

    monkeypatch.setattr(runner, "run_comparison", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(files, settings, tmp_path)
    kept = rs.load(tmp_path / "results.json")
    assert [(c.name, c.status) for c in kept.comparisons] == [("one", "done"), ("two", "skipped"), ("three", "skipped")]

    results, messages = run(files, settings, tmp_path)
    assert calls == ["one", "two", "two", "three"]
    assert ("one", "kept from the earlier run") in messages
    assert [comparison.name for comparison in results.comparisons] == ["one", "two", "three"]
    assert results.comparisons[0] == kept.comparisons[0]


def test_a_changed_file_is_run_again(declare, settings, tmp_path):
    run([declare(GOOD)], settings, tmp_path)
    results, _ = run([declare(GOOD + "# changed\n")], settings, tmp_path)
    assert results.comparisons[0].source.endswith("# changed\n")


def test_results_of_other_settings_are_not_mixed_in_or_lost(declare, settings, tmp_path):
    run([declare(GOOD)], settings, tmp_path)
    before = (tmp_path / "results.json").read_text()
    with pytest.raises(CompareError, match=r"was made with seed=0, not 1; choose another --out"):
        run([declare(GOOD)], dataclasses.replace(settings, seed=1), tmp_path)
    assert (tmp_path / "results.json").read_text() == before


def test_results_of_another_jax_are_not_mixed_in(declare, settings, tmp_path, monkeypatch):
    run([declare(GOOD)], settings, tmp_path)
    versions = runner.environment.versions() | {"jax": "0.99"}
    monkeypatch.setattr(runner.environment, "versions", lambda: versions)
    with pytest.raises(CompareError, match=r"was made with jax 0\.\d+\.\d+, not 0\.99; choose another --out"):
        run([declare(GOOD)], settings, tmp_path)


def test_damaged_results_are_not_overwritten(declare, settings, tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(rs.DamagedResults, match="not JSON"):
        run([declare(GOOD)], settings, tmp_path)
    assert (tmp_path / "results.json").read_text() == "{"


def test_without_time_left_nothing_begins(declare, settings):
    results, _ = run([declare(GOOD)], settings, budget=0)
    assert results.comparisons[0].status == "skipped"
    assert "time budget" in results.comparisons[0].error


def test_experiments_come_first_and_leave_what_they_do_not_need(declare, settings, monkeypatch):
    now, shares = [0.0], []
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])

    def one(declaration, settings, engines, infos, seconds, *rest):
        shares.append((declaration.name, seconds))
        now[0] += {"b": 0.0, "a": 30.0, "c": 10.0}[declaration.name]
        return runner.ended_early(declaration, "skipped", "not run")

    experiment = dataclasses.replace(declare(GOOD, "b"), timed=False)
    run([declare(GOOD, "a"), experiment, declare(GOOD, "c")], settings, budget=60.0, one=one)
    assert shares == [("b", 20.0), ("a", 30.0), ("c", 30.0)]


def test_engines_whose_turn_comes_too_late_are_skipped(declare, timed, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    build = runner._build

    def slow_build(*arguments):
        now[0] += 8.0
        return build(*arguments)

    monkeypatch.setattr(runner, "_build", slow_build)
    results, _ = run([declare(GOOD)], dataclasses.replace(timed, min_time=60.0), budget=10.0)
    first, second = results.comparisons[0].cases[0].rows
    assert (first.engine, first.status) == ("jax-eager", "ok")
    assert (second.engine, second.status) == ("autograd", "skipped")
    assert "time budget" in second.reason


def test_a_reserved_share_of_the_budget_is_kept_for_whom_it_is(settings, declare):
    shares = {}

    def one(declaration, settings, engines, infos, seconds, *_):
        shares[declaration.name] = seconds
        return runner.ended_early(declaration, "done", "")

    declarations = [declare(GOOD, name) for name in ("a", "b", "last")]
    runner.run(declarations, settings, budget=100.0, one=one, reserved={"last": 70.0})
    assert 13 < shares["a"] <= 15
    assert 28 < shares["b"] <= 30  # all that a has left
    assert shares["last"] == 70.0


def test_a_small_budget_still_gives_every_stage_a_sample(timed):
    engines = {"jax-eager": create("jax-eager")}
    case = runner.run_case(
        "mine", quadratic(), {"size": 3}, dataclasses.replace(timed, min_time=60.0), engines, time.monotonic() + 1.5
    )
    assert len(case.rows[0].stages["step"].seconds) >= 1


def test_quick_runs_the_quick_cases(settings):
    comparison = quadratic(cases=[{"size": 100}], quick=[{"size": 2}])
    declaration = program.find(["op_chain"])[0]

    class Fixed:
        name, question, description, source, path, timed = "fixed", "?", "", "", declaration.path, True

        def load(self):
            return comparison

    for quick, size in ((True, 2), (False, 100)):
        chosen = dataclasses.replace(settings, quick=quick)
        results, _ = run([Fixed()], chosen)
        assert [case.axes for case in results.comparisons[0].cases] == [{"size": size}]
        assert results.comparisons[0].axes == ["size"]


def test_the_stamp_says_what_ran_where_and_not_whose_it_is(declare, settings, tmp_path, monkeypatch):
    import getpass
    import platform

    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/dumps")
    results, _ = run([declare(GOOD)], settings, tmp_path)
    stamp = results.environment
    assert stamp["versions"]["jax"]
    assert stamp["devices"]["platform"] == "cpu"
    assert stamp["machine"]["usable_cores"] >= 1
    text = json.dumps(stamp)
    assert "someone" not in text
    assert "~/dumps" in text
    assert platform.node() not in text
    assert getpass.getuser() != "nobody" or "nobody" not in text
    assert math.isfinite(stamp["machine"]["load_average"][0])


def test_no_gpu_is_one_line(settings):
    with pytest.raises(CompareError, match="no GPU here") as error:
        runner.resolve_device("gpu")
    assert "\n" not in str(error.value)
    assert runner.resolve_device("auto") == "cpu"
