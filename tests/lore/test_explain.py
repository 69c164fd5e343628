"""Pasted errors find their entry; each entry's program raises it, and its fix runs."""

import io
import re
import subprocess
import sys
import textwrap
import warnings

import pytest

from twograd import cli
from twograd.lore import ENTRIES, explain
from twograd.lore.programs import text_of, url

SYSTEMS = {"PyTorch", "TensorFlow 1", "TensorFlow 2", "Theano", "Caffe", "Torch7", "JAX"}


def run(capsys, *arguments):
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def names(text):
    return [match.entry.name for match in explain(text, ENTRIES) if match.exact]


# --- the entries ------------------------------------------------------------------------------------------------------


def test_names_are_unique_and_all_systems_are_there():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES) > 50
    assert {entry.system for entry in ENTRIES} == SYSTEMS


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_program_raises_it_and_the_fix_runs(entry):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if issubclass(entry.error, Warning) else "ignore")
        with pytest.raises(entry.error) as caught:
            entry.raises()
        warnings.simplefilter("error")
        entry.fix()
    text = str(caught.value)
    if entry.here is None:
        assert entry.name in names(f"{type(caught.value).__name__}: {text}")
    else:
        assert entry.here in text
        assert entry.likeness


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_found_by_each_of_its_texts(entry):
    for text in entry.texts:
        filled = re.sub(r"<[\w .-]+>", "[3, 'x' 17]", text)
        assert entry.name in names(f"some.Error: {filled}")
        assert names(filled)[0] == entry.name or len(names(filled)) > 1


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_its_programs_are_programs_of_their_own(entry):
    for function in (entry.raises, entry.fix):
        compile(text_of(function), entry.name, "exec")
    for thread in entry.threads:
        assert re.fullmatch(
            r"https://(github\.com/[\w.-]+/[\w.-]+/issues/\d+|discuss\.pytorch\.org/t/[\w/-]+)", url(thread)
        )


def test_a_program_runs_as_it_is_printed():
    (entry,) = [entry for entry in ENTRIES if entry.name == "invalid-gradient"]
    made = subprocess.run([sys.executable, "-c", text_of(entry.fix)], capture_output=True, text=True, check=True)
    assert made.stdout == "tensor([2., 2.])\n"
    made = subprocess.run([sys.executable, "-c", text_of(entry.raises)], capture_output=True, text=True, check=False)
    assert names(made.stderr) == ["invalid-gradient"]


# --- matching ---------------------------------------------------------------------------------------------------------

INPLACE = (
    "RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation: "
    "[torch.cuda.FloatTensor [64, 1, 7, 7]], which is output 0 of AsStridedBackward0, is at version 3; expected "
    "version 2 instead. Hint: the backtrace further above shows the operation that failed to compute its gradient."
)
TRACEBACK = f"""\
>>> loss.backward()
Traceback (most recent call last):
  File "train.py", line 81, in <module>
    loss.backward()
  File "/usr/lib/python3.8/site-packages/torch/tensor.py", line 245, in backward
    torch.autograd.backward(self, gradient, retain_graph, create_graph, inputs=inputs)
{INPLACE}
"""


@pytest.mark.parametrize(
    "pasted",
    [
        INPLACE,
        TRACEBACK,
        textwrap.fill(INPLACE, 40),
        "\n".join(INPLACE[i : i + 37] for i in range(0, len(INPLACE), 37)),  # a terminal wraps within words
        textwrap.indent(textwrap.fill(INPLACE, 60), "> "),
        textwrap.indent(textwrap.fill(INPLACE, 60), "E       "),
        textwrap.indent(INPLACE, "[rank0]: "),
        INPLACE.upper(),
        INPLACE.replace("'", "’"),
    ],
)
def test_a_text_is_found_however_it_was_pasted(pasted):
    assert names(pasted)[0] == "modified-in-place"


@pytest.mark.parametrize(
    ("pasted", "name"),
    [
        ("RuntimeError: Trying to backward through the graph a second time, but the saved intermediate results have "
         "already been freed. Specify retain_graph=True when calling .backward() or autograd.grad() the first time.",
         "backward-twice"),
        ("RuntimeError: Trying to backward through the graph a second time, but the buffers have already been freed. "
         "Specify retain_graph=True when calling backward the first time.", "backward-twice"),
        ("InvalidArgumentError: You must feed a value for placeholder tensor 'Placeholder_1' with dtype float\n"
         "\t [[Node: Placeholder_1 = Placeholder[dtype=DT_FLOAT, shape=[], _device=\"/job:localhost\"]()]]",
         "missing-feed"),
        ("ValueError: Tensor Tensor(\"dense_2/Softmax:0\", shape=(?, 10), dtype=float32) is not an element of this "
         "graph.",
         "not-an-element"),
        ("theano.gradient.DisconnectedInputError: grad method was asked to compute the gradient with respect to a "
         "variable that is not part of the computational graph of the cost, or is used only by a non-differentiable "
         "operator: <TensorType(float64, matrix)>", "disconnected-input"),
        ("F0413 12:31:10.123456 26104 insert_splits.cpp:29] Unknown bottom blob 'data' (layer 'conv1', bottom index 0)",
         "unknown-bottom"),
        ("LookupError: No gradient defined for operation 'gradients/pool_grad/MaxPoolGrad' (op type: MaxPoolGrad)",
         "no-gradient-defined"),
        ("/torch/install/share/lua/5.1/nn/Module.lua:320: misaligned parameter at 2", "misaligned"),
        ("jax.errors.TracerBoolConversionError: Attempted boolean conversion of traced array with shape bool[].",
         "tracer-bool"),
        ("ValueError: GradientTape.gradient can only be called once on non-persistent tapes.", "tape-used-twice"),
    ],
)  # fmt: skip
def test_texts_of_the_real_systems(pasted, name):
    assert names(pasted)[0] == name


def test_what_torch_says_itself_is_found():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(RuntimeError) as caught:
        y.sum().backward()
    assert names(str(caught.value)) == ["modified-in-place"]
    with pytest.raises(RuntimeError) as caught:
        x.add_(1)
    assert names(str(caught.value)) == ["leaf-in-place"]


def test_unknown_texts_have_neighbours_or_none():
    assert names("Segmentation fault (core dumped)") == []
    near = explain("the in-place operation on a leaf variable went wrong", ENTRIES)
    assert near[0].entry.name in ("leaf-in-place", "view-of-leaf-in-place")
    assert not near[0].exact
    assert 0 < near[0].likeness < 1
    assert explain("", ENTRIES) == []
    assert explain("qwertz " * 1000, ENTRIES) == []


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_cause_programs_and_threads(capsys):
    code, out, err = run(capsys, "explain", "--color", "never", TRACEBACK)
    assert (code, err) == (0, "")
    for part in (
        "modified-in-place (PyTorch)",
        "Cause",
        "y.mul_(2)",
        "y = y * 2",
        "github.com/pytorch/pytorch/issues/96265",
    ):
        assert part in out


def test_the_command_reads_standard_input_names_and_lists(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(TRACEBACK))
    assert "modified-in-place" in run(capsys, "explain")[1]
    assert "cost-must-be-scalar (Theano)" in run(capsys, "explain", "cost-must-be-scalar")[1]
    code, out, _ = run(capsys, "explain", "--list")
    assert code == 0
    assert all(entry.name in out for entry in ENTRIES)


def test_an_unknown_text_is_an_exit_code_and_no_markup(capsys, monkeypatch):
    code, out, err = run(capsys, "explain", "[red]a leaf variable[/red] \x1b[31m [/nonsense] in-place")
    assert code == 2
    assert "no entry has this text" in err
    assert "perhaps leaf-in-place" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run(capsys, "explain")[0] == 2


def test_two_texts_in_one_paste(capsys):
    both = f"{INPLACE}\nValueError: Graph is finalized and cannot be modified."
    assert set(names(both)) == {"modified-in-place", "finalized"}
    assert "The text also fits: finalized" in run(capsys, "explain", both)[1]
    assert "finalized (TensorFlow 1)" in run(capsys, "explain", "--all", both)[1]
