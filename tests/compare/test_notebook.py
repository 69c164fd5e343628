"""A plain function: compared at a prompt, in a file, and by the file that ``twograd new`` writes."""

import importlib
import re
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd
import twograd.compare
import twograd.numpy as tnp
from twograd import cli, graph, tape
from twograd.compare import CompareError, Comparison, Unsupported, notebook, program
from twograd.compare.commands import TEMPLATE
from twograd.compare.engines import ENGINES, create
from twograd.compare.engines.tape_engines import recordable
from twograd.compare.runner import run_case
from twograd.compare.trace import linked_lines, timed

ARGS = {"w": np.ones((3, 2), np.float32)}, np.ones((4, 3), np.float32)


def plain(params, x):
    """<b>Mean</b> square of a layer."""
    return jnp.mean(jnp.tanh(x @ params["w"]) ** 2)


def in_twograd(params, x):
    return tnp.mean(tnp.tanh(x @ params["w"]) ** 2)


@pytest.fixture(scope="module")
def found():
    return twograd.compare(plain, *ARGS, engines=["jax-eager", "graph"], budget=20)


def test_the_package_is_called_and_imported_from_all_the_same(found):
    module = importlib.import_module("twograd.compare")
    assert isinstance(module, types.ModuleType)
    assert module is twograd.compare is sys.modules["twograd.compare"]
    assert twograd.compare.Comparison is Comparison
    assert isinstance(found, notebook.Compared)


def test_a_function_is_checked_and_timed(found):
    assert found.agree
    (case,) = found.comparison.cases
    assert [row.engine for row in case.rows] == ["graph", "jax-eager"]
    for row in case.rows:
        assert row.loss == pytest.approx(float(plain(*ARGS)), rel=1e-5)
        assert all(check.passed for check in row.checks)
        assert row.stages["forward+backward"].median > 0
    assert found.comparison.source.startswith("def plain(params, x):")


def test_it_shows_as_sentences_tables_and_charts(found, tmp_path):
    assert any("`graph`" in sentence for sentence in found.sentences)
    assert found.tables[0].caption.startswith("One gradient")
    assert "| graph |" in str(found)
    html = found._repr_html_()
    assert html.count("<table>") == len(found.tables)
    assert html.count('class="chart"') == len(found.charts) > 1
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert "<script" not in html
    assert all(svg.lstrip().startswith(("<?xml", "<svg")) for svg in found.charts)
    assert repr(found) == "<Compared plain: graph, jax-eager>"
    page = found.save(tmp_path).read_text()
    assert "&lt;b&gt;Mean&lt;/b&gt; square" in page
    assert "<b>Mean" not in page


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: twograd.compare(3, 1.0), TypeError, "compare expects a function"),
        (lambda: twograd.compare(plain), TypeError, "needs the arguments of the function"),
        (lambda: twograd.compare(plain, 1.0, engines=["tap"]), CompareError, "Did you mean 'tape'"),
        (lambda: twograd.compare(lambda x: x.no, 1.0), CompareError, "cannot be compared: .*has no attribute"),
    ],
)
def test_what_cannot_be_compared(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_dtype_is_that_of_the_arguments(monkeypatch):
    asked = []

    def refuse(declarations, settings, budget):
        asked.append(settings.dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook.runner, "run", refuse)
    for x64, array in ((True, np.ones(2)), (True, np.ones(2, np.float32)), (False, np.ones(2))):
        with jax.enable_x64(x64), pytest.raises(KeyboardInterrupt):
            twograd.compare(jnp.sum, array)
    assert asked == ["float64", "float32", "float32"]


# --- on the tape, and in a file ---------------------------------------------------------------------------------------


def test_what_takes_tensors_is_recorded_op_by_op_and_what_does_not_as_one_op():
    for f, names in ((plain, ["PlainBackward0"]), (in_twograd, ["MeanBackward0", "PowBackward0"])):
        w = tape.tensor(ARGS[0]["w"], requires_grad=True)
        program = recordable(f)
        for _ in range(2):
            loss = program({"w": w}, ARGS[1])
            assert loss.grad_fn.name() == names[0]
            (grad,) = tape.autograd.grad(loss, [w])
            np.testing.assert_allclose(grad.array, jax.grad(plain)(*ARGS)["w"], rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ENGINES if name.startswith("tape")])
def test_every_engine_of_the_tape_takes_a_function_of_jax(name):
    engine = create(name)
    value, grads = engine.value_and_grad(plain)(*engine.arrays(ARGS))
    np.testing.assert_allclose(value, plain(*ARGS), rtol=1e-6)
    np.testing.assert_allclose(grads["w"], jax.grad(plain)(*ARGS)["w"], rtol=1e-5)


def test_an_error_of_the_function_itself_is_not_taken_for_that():
    def broken(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        recordable(broken)(tape.tensor(1.0))


def test_engines_that_do_not_run_functions_of_jax_say_so(settings):
    comparison = program.of(plain, ARGS)
    families = {create(name).family for name in ENGINES}
    assert families == {*program.FOREIGN, "twograd", "jax"}
    with pytest.raises(Unsupported, match="a function of JAX's arrays"):
        comparison.program("torch", "torch", {})
    engines = {name: create(name) for name in ("jax-eager", "autograd")}
    case = run_case("plain", comparison, {}, settings, engines)
    assert [(row.engine, row.status) for row in case.rows] == [("jax-eager", "ok"), ("autograd", "skipped")]


PLAIN = """import jax.numpy as jnp
import numpy as np

def f(x, scale):
    y = jnp.exp(scale * x)
    return jnp.sum(y)

args = np.ones(2), 0.5
"""

FAST = ["--engines", "jax-eager", "--quick", "--min-time", "0.002", "--rounds", "3", "--warmup", "0.01", "-q"]


def test_a_file_with_a_function_and_its_arguments_is_a_comparison(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN)
    assert cli.main(["check", str(path), *FAST[:2]]) == 0
    assert "mine [only case], gradients" in capsys.readouterr().out
    path.write_text(PLAIN.replace("args =", "arguments ="))
    assert cli.main(["check", str(path), *FAST[:2]]) == 3
    assert "or a function f and its arguments, a tuple args" in capsys.readouterr().err


def test_new_writes_a_comparison_that_runs_and_overwrites_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "mine"]) == 0
    assert capsys.readouterr().out.startswith("mine.py: a comparison to be changed")
    assert cli.main(["check", "./mine.py", "--engines", "jax-eager,autograd", "--quick"]) == 0
    assert "autograd" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text("# mine")
    for name in ("mine", "mine.py"):
        assert cli.main(["new", name]) == 2
        assert "mine.py is there already, and stays as it is" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "# mine"
    assert cli.main(["new", "mine.py/other"]) == 2
    assert "cannot write to the folder mine.py" in capsys.readouterr().err


def test_the_template_asks_a_question():
    assert program._read(TEMPLATE).question.endswith("?")


# --- twograd trace ----------------------------------------------------------------------------------------------------


def test_trace_joins_lines_nodes_and_equations(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(PLAIN)
    f, args = program.plain_function(program.find([str(path)])[0].run())
    found = linked_lines(f, args, path)
    exp, total = found.lines
    assert (exp.number, exp.source.strip()) == (5, "y = jnp.exp(scale * x)")
    assert [node.text.partition(" ")[0] for node in exp.nodes] == ["MulBackward0", "ExpBackward0"]
    assert [node.text for node in total.nodes] == ["ReduceSumBackward0 #2"]
    g = graph.trace(f, *args).gradients(0, [0])
    parts = [part for line in found.lines for part in (*line.program, *line.derivative)]
    equations = [part.text for part in parts]
    assert sorted(int(text.partition(" ")[0]) for text in equations) == list(range(len(g.jaxpr.eqns)))
    assert [part.text.partition("<- ")[2].partition(".")[0] for part in exp.derivative] == ["exp", "mul"]
    steps = found.walk.steps
    for part in (*exp.nodes, *total.nodes):
        assert part.text.startswith(steps[part.step].label)
        (own,) = (other for other in parts if "<- " not in other.text and other.of == part.of)
        assert own.text.startswith(f"{part.of} ")
        assert own.step == part.step
        emitted = [other for other in parts if other.text.endswith(f".{part.of}")]
        assert {(other.of, other.step) for other in emitted} == {(part.of, part.step)}
    with monkeypatch.context() as patch:
        patch.setattr("twograd.compare.trace.timed", lambda closed, _: (list(range(len(closed.jaxpr.eqns))), 1))
        for line in linked_lines(f, args, path).lines:
            assert line.program_seconds == sum(int(part.text.partition(" ")[0]) for part in line.program)
            assert line.derivative_seconds == sum(int(part.text.partition(" ")[0]) for part in line.derivative)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["trace", str(path)]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "ReduceSumBackward0" in line]
    assert re.search(r"ReduceSumBackward0 #2 +2 \w:f32\[\] = reduce_sum\[axes=\(0,\)\] \w", line)
    costs = [line for line in out.splitlines() if "in the program" in line]
    assert len(costs) == 2
    assert re.search(r"━+ +[\d.]+ [mµ]s in the program, [\d.]+ [mµ]s in its derivative, \d+ B kept", costs[0])
    assert "Times are of a line's equations, each by itself" in out


def test_what_runs_on_values_alone_has_no_lines():
    with pytest.raises(TypeError, match="The function cannot be traced: TracerBoolConversionError"):
        linked_lines(lambda x: x * 2 if x > 0 else x, (np.float32(3),), Path(__file__))


def test_lines_are_counted_as_python_counts_them(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"\f\n{PLAIN}")
    f, args = program.plain_function(program.find([str(path)])[0].run())
    first, *_ = linked_lines(f, args, path).lines
    assert (first.number, first.source.strip()) == (6, "y = jnp.exp(scale * x)")


def test_the_clock_is_held_to_each_equation_and_effects_do_not_happen_again(monkeypatch):
    def slow(x):
        time.sleep(0.02)
        return x

    def program(x):
        return jnp.sum(jnp.sin(jax.pure_callback(slow, jax.ShapeDtypeStruct(x.shape, x.dtype), x)))

    x = np.ones(3, np.float32)
    closed = jax.make_jaxpr(program)(x)
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda results: waited.append(results) or results)
    seconds, passes = timed(closed, [x])
    assert len(waited) == (1 + passes) * len(closed.jaxpr.eqns)  # at each equation, in each pass, and in the first
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    assert closed.jaxpr.eqns[slowest].primitive.name == "pure_callback"
    assert seconds[slowest] >= 0.02
    assert 1 <= passes <= 15

    said = []

    def speaking(x):
        jax.debug.callback(said.append, x[0])
        return jnp.sum(x * x)

    closed = jax.make_jaxpr(speaking)(x)
    assert timed(closed, [x]) == ([0.0] * len(closed.jaxpr.eqns), 0)
    jax.effects_barrier()
    assert said == []


def test_trace_of_a_comparison_in_float64_and_of_what_has_no_program(tmp_path, capsys):
    path = tmp_path / "comparison.py"
    path.write_text(TEMPLATE.read_text())
    assert cli.main(["trace", str(path), "--dtype", "float64"]) == 0
    out = capsys.readouterr().out
    assert "x = ops.np.tanh(x @ w)" in out
    assert "f64[8,8]" in out
    (tmp_path / "mine.py").write_text("x = 1")
    assert cli.main(["trace", str(tmp_path / "mine.py")]) == 2
    assert "a function f and its arguments" in capsys.readouterr().err


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
@pytest.mark.parametrize("verb", ["trace", "corners", "check", "report"])
def test_a_device_that_is_not_here_is_one_line_and_code_2(verb, capsys):
    assert cli.main([verb, str(TEMPLATE), "--device", "gpu"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("twograd: no GPU here that JAX can use; run with --device cpu")
