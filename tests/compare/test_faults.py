"""Real faults: what ends a run, a case or a write, and what is left then."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from twograd.compare import isolated, report, runner
from twograd.compare import results as rs
from twograd.compare.report import write_report

FILE = """
import os
import signal
import time

import numpy as np

from twograd.compare import Comparison, Observation

def inputs(rng, *, n):
    if n == 2:
        {fault}
    return {{"w": rng.standard_normal(n)}}, rng.standard_normal(n)

def loss(ops, params, x):
    return ops.np.sum(x * params["w"] * params["w"])

def experiment(context):
    yield Observation(f"{{len(context.cases)}} cases.")

comparison = Comparison(inputs=inputs, loss=loss, cases=[{{"n": 1}}, {{"n": 2}}, {{"n": 3}}], experiment=experiment)
"""

FINE = FILE.format(fault="pass")


@pytest.fixture
def settings(settings):
    """One engine, which compiles nothing."""
    return dataclasses.replace(settings, engines=["autograd"])


def names(comparison):
    return [case.name for case in comparison.cases]


@pytest.fixture
def measured(monkeypatch):
    """The cases that are measured from now on."""
    run_case, seen = runner.run_case, []

    def noting(name, comparison, axes, *rest):
        seen.append((name, *axes.values()))
        return run_case(name, comparison, axes, *rest)

    monkeypatch.setattr(runner, "run_case", noting)
    return seen


def test_a_run_that_ends_within_a_case_loses_this_one_alone(declare, settings, tmp_path, monkeypatch, measured):
    files = [declare(FINE, "first"), declare(FINE, "second")]
    noting = runner.run_case

    def ends(name, comparison, axes, *rest):
        if (name, axes) == ("first", {"n": 2}):
            raise KeyboardInterrupt
        return noting(name, comparison, axes, *rest)

    monkeypatch.setattr(runner, "run_case", ends)
    with pytest.raises(KeyboardInterrupt):
        runner.run(files, settings, tmp_path)
    first, second = rs.load(tmp_path / "results.json").comparisons
    assert (first.status, names(first)) == ("failed", ["n=1"])
    assert first.error == "the run ended before it was done: 1 of 3 cases are here"
    assert (second.status, second.error) == ("skipped", "the run ended before its turn")
    page = write_report(rs.load(tmp_path / "results.json"), tmp_path).read_text(encoding="utf-8")
    assert "Comparison <code>first</code> failed: the run ended before it was done: 1 of 3 cases are here." in page
    assert "Comparison <code>second</code> skipped: the run ended before its turn." in page

    monkeypatch.setattr(runner, "run_case", noting)
    del measured[:]
    results = runner.run(files, settings, tmp_path)
    assert measured == [("first", 2), ("first", 3), ("second", 1), ("second", 2), ("second", 3)]
    assert [(c.status, c.error, names(c)) for c in results.comparisons] == [("done", "", ["n=1", "n=2", "n=3"])] * 2
    assert results.comparisons[0].cases[0] == first.cases[0]
    assert results.comparisons[0].findings == [rs.Observation("3 cases.")]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("np.ones(1 << 58)", "MemoryError: Unable to allocate 2.00 EiB"),
        ("import jax.numpy as jnp; jnp.ones(1 << 45).block_until_ready()", "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_case_that_wants_too_much_memory_leaves_the_others(declare, settings, tmp_path, fault, error):
    (comparison,) = runner.run([declare(FILE.format(fault=fault))], settings, tmp_path).comparisons
    assert (comparison.status, names(comparison)) == ("failed", ["n=1", "n=3"])
    assert error in comparison.error
    assert comparison.error.endswith("(at n=2)")
    assert comparison.findings == [rs.Observation("2 cases.")]


def test_one_error_of_all_cases_is_told_once_and_leaves_no_experiment(declare, settings):
    text = FINE.replace("if n == 2:", "1 / 0")
    text = text.replace("        pass\n", "")
    (comparison,) = runner.run([declare(text)], settings).comparisons
    assert comparison.error.endswith("ZeroDivisionError: division by zero (at n=1; n=2; n=3)")
    assert comparison.findings == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_ends_the_run_with_what_was_written_before(declare, settings, tmp_path, monkeypatch, call):
    out, calls, original = tmp_path / "out", [], getattr(os, call)
    out.mkdir()

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 3:  # begun, the first case, and now the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(rs.Unwritable, match=r"results\.json: cannot be written \(No space left on device\)"):
            runner.run([declare(FINE)], settings, out)
    assert [path.name for path in out.iterdir()] == ["results.json"]
    assert names(rs.load(out / "results.json").comparisons[0]) == ["n=1"]
    assert names(runner.run([declare(FINE)], settings, out).comparisons[0]) == ["n=1", "n=2", "n=3"]


def test_a_folder_that_goes_away_ends_the_run(declare, settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    text = FILE.format(fault=f"import shutil; shutil.rmtree({str(out)!r})")
    with pytest.raises(rs.Unwritable, match=r"cannot be written \(no such directory\)"):
        runner.run([declare(text)], settings, out)


def test_what_a_killed_write_left_is_swept(declare, settings, tmp_path):
    (tmp_path / ".results.json.abc").write_text('{"half')
    runner.run([declare(FINE)], settings, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    from twograd import cli

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    rs.save(rs.Results(rs.Settings()), tmp_path / "results.json")
    monkeypatch.setattr(report, "write_atomically", full)
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err


# --- processes --------------------------------------------------------------------------------------------------------


def alone(declaration, settings, out, limit):
    def one(*arguments):
        return isolated.run_comparison(limit, *arguments)

    return runner.run([declaration], settings, out, one=one).comparisons[0]


def test_a_file_that_crashes_while_it_is_imported(declare, settings, tmp_path):
    comparison = alone(declare("import os\nos._exit(7)\n"), settings, tmp_path, 60.0)
    assert (comparison.status, comparison.cases) == ("failed", [])
    assert comparison.error == "ended its process with exit code 7; the last that it did: loading the file (at loading)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "limit", "error"),
    [
        ("os._exit(3)", 60.0, "ended its process with exit code 3; the last that it did: "),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 60.0, "its process was ended by SIGSEGV; the last that it did: "),
        ("os.kill(os.getpid(), signal.SIGKILL)", 60.0, "ended by SIGKILL (the system does that, too, where memory is"),
        ("time.sleep(600)", 4.0, "took more than the 4 s of --cell-limit; the last that it did: "),
        ("np.linalg.svd(np.ones((6000, 6000)))", 4.0, "took more than the 4 s of --cell-limit; the last"),
    ],
)
def test_a_cell_that_crashes_or_hangs_costs_itself(declare, settings, tmp_path, fault, limit, error):
    comparison = alone(declare(FILE.format(fault=fault)), settings, tmp_path, limit)
    assert (comparison.status, names(comparison)) == ("failed", ["n=1", "n=3"])
    assert error in comparison.error
    assert comparison.error.endswith("(at n=2)")
    assert comparison.findings == [rs.Observation("2 cases.")]
    assert rs.load(tmp_path / "results.json").comparisons == [comparison]


def command(path, out, *more):
    return [
        *(sys.executable, "-m", "twograd", "check", str(path), "--engines", "jax-eager,autograd", "-q"),
        *("--out", str(out), *more),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [(), ("--cell-limit", "60")])
def test_kill_9_at_any_moment(declare, tmp_path, limit):
    """The file is whole whenever it is there, no case is lost, and no process is left behind."""
    path, out = declare(FILE.format(fault="time.sleep(0.5)")).path, tmp_path / "out"
    held: set[str] = set()
    for seconds in (2.0, 4.0, 5.0, 6.0, 7.0):
        process = subprocess.Popen(command(path, out, *limit), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "results.json").exists():
            now = set(names(rs.load(out / "results.json").comparisons[0]))
            assert held <= now
            held = now
    subprocess.run(command(path, out, *limit), check=True, capture_output=True)
    assert names(rs.load(out / "results.json").comparisons[0]) == ["n=1", "n=2", "n=3"]


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(declare, tmp_path):
    """As a full disk: what is larger than the limit cannot be written, and half of it is not left."""
    path, out = declare(FINE).path, tmp_path / "out"
    limited = ["bash", "-c", 'ulimit -f 9; exec "$@"', "bash", *command(path, out)]  # in units of 1024 bytes
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "results.json: cannot be written (File too large)" in done.stderr
    assert [path.name for path in out.iterdir()] == ["results.json"]
    assert json.loads((out / "results.json").read_text())
