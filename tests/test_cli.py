"""The command line: what it prints, where, and with which exit code."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from twograd import cli
from twograd.compare import commands, program, runner, sweep
from twograd.compare.results import SCHEMA_VERSION, Results

GOOD = '''"""Is a square a square?"""
from twograd.compare import Comparison

def inputs(rng):
    return {"w": rng.standard_normal(4)}, rng.standard_normal(4)

def loss(ops, params, x):
    return ops.np.sum(x * params["w"] * params["w"])

comparison = Comparison(inputs=inputs, loss=loss)
'''

FAST = ["--engines", "jax-eager,autograd", "--quick", "--min-time", "0.002", "--rounds", "3", "--warmup", "0.01"]


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.py"
    path.write_text(GOOD)
    return str(path)


def twograd(capsys, *arguments):
    """Exit code, stdout, stderr of a command run in this process."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def process(*arguments, **options):
    command = [sys.executable, "-m", "twograd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], [], ["report", "--help"], ["--version"]])
def test_help_does_not_import_jax(arguments):
    code = (
        "import sys; sys.argv[0] = 'twograd'\n"
        "try:\n    from twograd.cli import main; main(sys.argv[1:])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'jax', 'numpy', 'rich', 'matplotlib', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "twograd" in done.stdout


def test_help_has_an_example_for_every_verb(capsys):
    _, out, _ = twograd(capsys, "--help")
    for verb in ("list", "check", "bench", "report", "corners", "trace", "new", "plot", "diff", "env"):
        assert re.search(rf"^  twograd {verb}\b", out, re.MULTILINE), verb


def test_version(capsys):
    code, out, _ = twograd(capsys, "--version")
    assert code == 0
    assert re.fullmatch(r"twograd \d+\.\d+\.\d+\S*\n", out)


# --- verbs ------------------------------------------------------------------------------------------------------------


def test_list_names_comparisons_and_engines(capsys):
    code, out, _ = twograd(capsys, "list")
    assert code == 0
    assert "op_chain" in out
    assert "What does one op cost" in out
    for engine in ("tape", "graph", "jax-jit", "torch", "autograd", "tape-primitive", "graph-eager", "jax-eager"):
        assert engine in out
    (line,) = (line for line in out.splitlines() if line.split()[:1] == ["dezero"])
    assert "named" in line
    assert "default" in next(line for line in out.splitlines() if line.split()[:1] == ["graph-eager"])


def test_env_is_json_on_stdout(capsys):
    code, out, err = twograd(capsys, "env")
    assert (code, err) == (0, "")
    stamp = json.loads(out)
    assert stamp["devices"]["device"] == "cpu"
    assert set(stamp) == {"versions", "machine", "devices", "options", "commit", "command"}


def test_check_times_nothing(capsys, good, tmp_path):
    out_folder = tmp_path / "out"
    code, out, err = twograd(
        capsys, "check", "--only", good, "--engines", "jax-eager,autograd", "--out", str(out_folder)
    )
    assert code == 0
    assert re.search(r"autograd\s+ok", out)
    assert "good [only case]" in err
    rows = json.loads((out_folder / "results.json").read_text())["twograd"]["comparisons"][0]["cases"][0]["rows"]
    assert [row["stages"] for row in rows] == [{}, {}]
    assert all(row["checks"] for row in rows)


def test_bench_prints_one_table_per_case(capsys, good):
    code, out, _ = twograd(capsys, "bench", "--only", good, *FAST)
    assert code == 0
    assert re.search(r"good \[only case\], times in (s|ms|us|ns) *\n", out)
    assert re.search(r"jax-eager +\d[\d.]* +\d[\d.]*", out)


def test_json_on_stdout_is_nothing_but_json(capsys, good):
    code, out, err = twograd(capsys, "bench", "--only", good, *FAST, "--json", "-")
    assert code == 0
    assert json.loads(out)["twograd"]["comparisons"][0]["name"] == "good"
    assert "good" in err


def test_json_to_a_file(capsys, good, tmp_path):
    code, out, _ = twograd(capsys, "check", "--only", good, *FAST[:3], "--json", str(tmp_path / "new" / "a.json"))
    assert code == 0
    assert "gradients" in out
    assert json.loads((tmp_path / "new" / "a.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_quiet_says_nothing_on_stderr(capsys, good):
    assert twograd(capsys, "check", "-q", "--only", good, *FAST[:3])[2] == ""


def test_report_writes_results_and_says_where(capsys, good, tmp_path):
    out_folder = tmp_path / "deep" / "out"
    code, out, _ = twograd(capsys, "report", "--only", good, *FAST, "--out", str(out_folder))
    assert code == 0
    assert (out_folder / "results.json").is_file()
    written = out.strip().splitlines()[-1]
    assert written.startswith(str(out_folder))
    assert os.path.isfile(written)


def test_report_without_out_makes_a_folder_named_by_the_time(capsys, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = twograd(capsys, "report", "--only", good, *FAST)
    assert code == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", folder.name)


@pytest.mark.parametrize("verb", ["bench", "report"])
def test_the_sweep_comes_beside_what_is_named(capsys, good, tmp_path, monkeypatch, verb):
    asked = []

    def seen(declarations, settings, out, budget, *_):
        asked.append([declaration.name for declaration in declarations])
        return Results(settings)

    monkeypatch.setattr(runner, "run", seen)
    out = ["--out", str(tmp_path / "out")]
    assert twograd(capsys, verb, "--sweep", "-q", *out)[0] == 0
    assert twograd(capsys, verb, good, "--sweep", "-q", *out)[0] == 0
    everything = [declaration.name for declaration in program.find()] if verb == "report" else []
    assert asked == [[*everything, "sweep"], ["good", "sweep"]]


def test_a_quick_report_has_the_sweeps_seconds_beside_its_own(capsys, tmp_path, monkeypatch):
    asked = []

    def seen(declarations, settings, out, budget, progress, one, reserved):
        asked.append((budget, reserved))
        return Results(settings)

    monkeypatch.setattr(runner, "run", seen)
    for given in ([], ["--budget", "9"]):
        assert twograd(capsys, "report", "--sweep", "--quick", "-q", "--out", str(tmp_path), *given)[0] == 0
    assert asked == [(runner.QUICK_BUDGET + sweep.QUICK_BUDGET, {"sweep": sweep.QUICK_BUDGET}), (9.0, {})]


def test_plot_draws_again_from_a_file_or_its_folder(capsys, good, tmp_path):
    folder = tmp_path / "out"
    twograd(capsys, "report", "--only", good, *FAST, "--out", str(folder))
    for source in (folder, folder / "results.json"):
        code, out, _ = twograd(capsys, "plot", str(source))
        assert code == 0
        assert out.strip().startswith(str(folder))


def test_a_run_resumes_in_its_folder(capsys, good, tmp_path):
    arguments = ["check", "--only", good, *FAST[:3], "--out", str(tmp_path / "out")]
    first = twograd(capsys, *arguments)
    second = twograd(capsys, *arguments)
    assert (first[0], second[0]) == (0, 0)
    assert "kept" not in first[2]
    assert "good" in second[1]


def test_results_are_kept_when_drawing_fails(capsys, good, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(commands, "_draw", broken)
    code, _, err = twograd(capsys, "report", "-q", "--only", good, *FAST, "--out", str(tmp_path / "out"))
    assert code == 3
    assert f"`twograd plot {tmp_path / 'out'}` draws them again" in err
    assert (tmp_path / "out" / "results.json").is_file()


# --- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--only", "op_chian"], "unknown comparison 'op_chian'. Did you mean 'op_chain'?"),
        (["check", "--only", "./nowhere.py"], "no such comparison file: ./nowhere.py. `twograd list` names"),
        (["bench", "--engines", "tap"], "unknown engine 'tap'. Did you mean 'tape'?"),
        (["bench", "--engines", "caffe2"], "unknown engine 'caffe2'. There are: autograd, dezero, graph, "),
        (["check", "--device", "gpu"], "no GPU here that JAX can use; run with --device cpu"),
        (["check", "--json", "/"], "--json / is a folder; give the name of a file in it."),
        (["plot", "nowhere.json"], "nowhere.json: cannot be read (No such file or directory)."),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_code_2(capsys, arguments, message):
    code, out, err = twograd(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"twograd: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["report", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["report", "--seed", "-1"], "'-1' is not a whole number from 0 upwards"),
        (["report", "--budget", "nan"], "'nan' is not a positive number"),
        (["raport"], "invalid choice: 'raport'"),
        (["plot"], "the following arguments are required: RESULTS"),
    ],
)
def test_wrong_usage_is_argparses_code_2(capsys, arguments, message):
    code, out, err = twograd(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_an_unwritable_folder_is_refused_before_anything_runs(capsys, good, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = twograd(capsys, "report", "--only", good, "--out", str(tmp_path / "file" / "out"))
    assert code == 2
    assert re.fullmatch(r"twograd: cannot write to the folder \S+ \(Not a directory\); choose another --out\.\n", err)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(capsys, good, tmp_path):
    tmp_path.chmod(0o500)
    code, _, err = twograd(capsys, "report", "--only", good, "--out", str(tmp_path))
    assert code == 2
    assert "Permission denied" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"benchmarks": []}', "not a results file of twograd"),
        ('{"schema_version": 99, "twograd": {}}', "written by a newer twograd (schema 99"),
        ('{"schema_version": 1, "twograd": {"settings": 3}}', "twograd.settings: expected Settings, found 3"),
    ],
)
@pytest.mark.parametrize("verb", ["plot", "report"])
def test_damaged_results_are_code_2_and_left_alone(capsys, good, tmp_path, text, message, verb):
    (tmp_path / "results.json").write_text(text)
    arguments = [str(tmp_path)] if verb == "plot" else ["--only", good, *FAST, "--out", str(tmp_path)]
    code, _, err = twograd(capsys, verb, *arguments)
    assert code == 2
    assert message in err
    assert "results.json" in err
    assert (tmp_path / "results.json").read_text() == text


def test_other_settings_in_the_same_folder_are_code_2(capsys, good, tmp_path):
    arguments = ["check", "--only", good, *FAST[:3], "--out", str(tmp_path / "out")]
    assert twograd(capsys, *arguments)[0] == 0
    code, _, err = twograd(capsys, *arguments, "--seed", "7")
    assert code == 2
    assert "was made with seed=0, not 7; choose another --out" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "import no_such_module\n" + text, "does not import (ModuleNotFoundError"),
        (lambda text: text.replace("rng.standard_normal(4)}", "1 / 0}"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_comparison_that_raises_is_code_3_and_leaves_the_rest(capsys, tmp_path, good, change, message):
    (tmp_path / "bad.py").write_text(change(GOOD))
    code, out, err = twograd(capsys, "check", "--only", f"{tmp_path / 'bad.py'},{good}", *FAST[:3])
    assert code == 3
    assert re.search(rf"^twograd: bad failed: \S*bad\.py:\d+: .*{re.escape(message)}", err, re.MULTILINE)
    assert re.search(r"autograd\s+ok", out)


LINE = GOOD.splitlines().index('    return ops.np.sum(x * params["w"] * params["w"])') + 1

MISTAKES = {
    "misspelt": (
        "np.sum(x",
        "np.summ(x",
        rf"bad\.py:{LINE}: AttributeError: module '\S*' has no .*Did you mean 'sum'\?",
    ),
    "wrong shape": ("(x * params", "(x[:3] * params", rf"bad\.py:{LINE}: TypeError: mul got incompatible shapes"),
    "missing import": ("ops.np.sum", "np.sum", rf"bad\.py:{LINE}: NameError: name 'np' is not defined"),
    "a branch": (
        "return ops",
        "return 0.0 if x[0] > 9 else ops",
        rf"bad\.py:{LINE}: TracerBool.*no value yet. Write jnp.where",
    ),
}


@pytest.mark.parametrize(("before", "after", "message"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("verb", ["check", "corners", "trace"])
def test_a_mistake_is_told_with_the_users_own_line(capsys, tmp_path, monkeypatch, before, after, message, verb):
    monkeypatch.chdir(tmp_path)  # the file is named as one does, relative to where one is
    (tmp_path / "bad.py").write_text(GOOD.replace(before, after))
    options = ["--engines", "graph", "-q", "--quick"] if verb == "check" else []
    code, out, err = twograd(capsys, verb, "bad.py", *options)
    assert (code, out) == (3 if verb == "check" else 2, "")
    assert re.search(message, err), err
    assert "internal" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["corners", "trace"])
@pytest.mark.parametrize("result", ["x * params['w']", "None"])
def test_a_program_that_is_no_scalar_is_the_users(capsys, tmp_path, verb, result):
    (tmp_path / "bad.py").write_text(GOOD.replace("return ops.np.sum", f"return {result}\n    ops.np.sum"))
    code, out, err = twograd(capsys, verb, str(tmp_path / "bad.py"))
    assert (code, out) == (2, "")
    assert re.match(rf"twograd: \S*bad\.py: TypeError: {verb} needs a program that returns a real scalar", err)


def test_a_line_is_named_where_a_file_does_not_import(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("\n\nx = (1\n")
    (tmp_path / "bad.py").write_text("\nimport broken\n")
    monkeypatch.syspath_prepend(tmp_path)
    for verb in ("corners", "trace"):
        code, _, err = twograd(capsys, verb, "bad.py")
        assert code == 2
        assert err.startswith("twograd: broken.py:3: does not import (SyntaxError"), err


def test_a_program_that_is_no_function_of_its_inputs(capsys, tmp_path):
    text = GOOD.replace("return ops.np.sum(x", "count.append(1.0)\n    return len(count) * ops.np.sum(x")
    (tmp_path / "bad.py").write_text(text.replace("def loss", "count = []\n\ndef loss"))
    code, out, _ = twograd(capsys, "check", str(tmp_path / "bad.py"), "--engines", "graph", "-q")
    assert code == 1
    assert re.search(r"graph mismatch: the program returned \S+ and then \S+ for the same\s+inputs", out), out


def test_inputs_that_are_no_tuple_are_named(capsys, tmp_path):
    (tmp_path / "bad.py").write_text(
        GOOD.replace("return {", "return [{").replace("standard_normal(4)\n", "standard_normal(4)]\n", 1)
    )
    code, out, err = twograd(capsys, "check", str(tmp_path / "bad.py"), "--engines", "graph", "-q")
    assert (code, out) == (3, "")
    assert "inputs returns a tuple, (params, *batch): what is differentiated, and the rest; it returned a list" in err


def test_new_says_a_command_that_can_be_pasted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = twograd(capsys, "new", "mine; it's")
    assert shlex.split(out.partition("`")[2].partition("`")[0])[-1] == "mine; it's.py"


def test_an_engine_that_raises_is_code_3(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(GOOD.replace("loss=loss)", "loss=loss, variants={'autograd': lambda *_: 1 / 0})"))
    code, out, _ = twograd(capsys, "check", "--only", "bad.py", *FAST[:3])
    assert code == 3
    line = len(GOOD.splitlines())
    assert f"autograd failed: bad.py:{line}: ZeroDivisionError: division by zero" in " ".join(out.split())


def test_a_wrong_gradient_is_code_1(capsys, tmp_path):
    # The forward pass differs between the engines: what one of them differentiates is not the program.
    text = GOOD.replace("loss=loss)", "loss=loss, variants={'autograd': lambda ops, p, x: 1.01 * loss(ops, p, x)})")
    (tmp_path / "bad.py").write_text(text)
    code, out, _ = twograd(capsys, "bench", "--only", str(tmp_path / "bad.py"), *FAST)
    assert code == 1
    assert "autograd mismatch: differs from jax.grad (float64)" in out


def test_a_gradient_that_is_nan_is_code_1(capsys, tmp_path):
    text = GOOD.replace("loss=loss)", "loss=lambda ops, p, x: ops.np.sum(ops.np.sqrt(x * p['w'])))")
    (tmp_path / "bad.py").write_text(text)
    code, out, _ = twograd(capsys, "check", "--only", str(tmp_path / "bad.py"), "--engines", "jax-eager", "-q")
    assert code == 1
    assert "jax-eager mismatch: the loss is nan; nothing is timed on such values" in out


def test_interrupting_is_code_130_and_says_how_to_go_on(capsys, good, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_comparison", interrupted)
    code, _, err = twograd(capsys, "report", "--only", good, "-q", "--out", str(tmp_path / "out"))
    assert code == 130
    assert f"go on with --out {tmp_path / 'out'}" in err


def test_an_internal_error_is_code_3_and_verbose_shows_it(capsys, monkeypatch):
    def broken(_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(commands, "env", broken)
    code, _, err = twograd(capsys, "env")
    assert code == 3
    assert err == "twograd: internal error: RuntimeError: unforeseen (-v shows where)\n"
    with pytest.raises(RuntimeError, match="unforeseen"):
        cli.main(["env", "-v"])


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m twograd env | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "coloured"),
    [
        ([], {}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_follows_option_then_variables_then_terminal(capsys, monkeypatch, arguments, variables, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")
    _, out, _ = twograd(capsys, "list", *arguments)
    assert bool(re.search(r"\x1b\[[\d;]*3\dm", out)) == coloured


def test_ascii_terminals_get_ascii():
    done = process("list", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_what_an_ascii_terminal_cannot_show_is_a_question_mark(capsys, good, tmp_path):
    out = str(tmp_path / "out")
    assert twograd(capsys, "bench", good, *FAST, "--out", out, "-q")[0] == 0
    done = process("diff", out, out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "Intervals (99?%)" in done.stdout
