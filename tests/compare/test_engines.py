"""Every engine keeps to the protocol, and finds a gradient that is known in closed form.

Engines that are not installed are skipped: TensorFlow's, for its size, wherever nobody has installed it.
"""

import functools
import importlib.util
import math
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from twograd import rules, tape
from twograd.compare import CompareError, Unsupported, results, timing
from twograd.compare.engines import ENGINES, check_names, create
from twograd.compare.engines.protocol import expressing

W = np.array([0.3, -0.7, 1.1], np.float32)
B = np.float32(0.4)
X = np.array([1.0, 2.0, -1.0], np.float32)


SLOW = ("pytensor-jax", "pytensor-numba")  # to compile
NAMES = [name for name in ENGINES if name != "torch-compile"]  # half a minute: it has a test of its own


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES])
def engine(request, monkeypatch):
    chosen = create(request.param)
    emulate(chosen, monkeypatch)
    if chosen.unavailable():
        pytest.skip(f"{request.param}: {chosen.unavailable()}")
    return chosen


def emulate(engine, monkeypatch):
    """Without clang, tinygrad's emulator of a device has to do."""
    if engine.name == "tinygrad" and shutil.which("clang") is None:
        monkeypatch.setenv("DEV", "PYTHON")


def program(engine):
    def loss(params, x):
        y = engine.ops.np.sin(params["w"]) * x + params["b"]
        return engine.ops.np.sum(y * y)

    return loss


def expected():
    y = np.sin(W) * X + B
    return np.sum(y * y), {"w": 2 * y * X * np.cos(W), "b": np.sum(2 * y)}


def agree(found):
    loss, grads = found
    right_loss, right_grads = expected()
    np.testing.assert_allclose(loss, right_loss, rtol=1e-6)
    for name, grad in right_grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-5)


def inputs(engine):
    return engine.arrays(({"w": W, "b": B}, X))


def build(engine):
    return _built(engine.name)


@functools.cache
def _built(name):
    engine, stopwatch = create(name), timing.Stopwatch()
    built = engine.build(program(engine), inputs(engine), stopwatch)
    return built, stopwatch.measurements()


def test_value_and_grad_has_jaxs_shape(engine):
    found = engine.value_and_grad(program(engine))(*inputs(engine))
    agree(engine.numpy(found))
    assert jax.tree.structure(found[1]) == jax.tree.structure({"w": 0, "b": 0})


def test_what_is_built_finds_the_gradient(engine):
    built, _ = build(engine)
    agree(engine.numpy(built.stages["forward+backward"]()))


def test_a_stage_can_be_run_again_and_again_with_the_same_result(engine):
    built, _ = build(engine)
    assert {"forward", "forward+backward", "step"} <= built.stages.keys() <= set(results.STEADY_STAGES)
    for stage in built.stages.values():
        for _ in range(3):
            stage()
    agree(engine.numpy(built.stages["forward+backward"]()))


def test_a_step_descends(engine):
    built, _ = build(engine)
    params = engine.numpy(built.stages["step"]())
    _, grads = expected()
    np.testing.assert_allclose(params["w"], W - 1e-3 * grads["w"], rtol=1e-6)


def test_what_is_paid_once_is_timed_by_the_static_engines_only(engine):
    _, once = build(engine)
    assert once.keys() <= set(results.ONE_TIME_STAGES)
    assert bool(once) == (engine.kind == "static")


def test_counts_and_texts_have_known_names(engine):
    built, _ = build(engine)
    built.stages["forward+backward"]()
    counts, texts = built.counts(), built.texts()
    known = {
        "forward nodes",
        "derivative nodes",
        "saved bytes",
        "temp bytes",
        "argument bytes",
        "output bytes",
        "flops",
    }
    if engine.family == "pytensor":
        assert counts["derivative nodes"] > counts["forward nodes"]
    assert counts.keys() <= known | {"bytes accessed"}
    assert all(value >= 0 for value in counts.values())
    assert texts.keys() <= {"forward", "derivative"}
    if "forward nodes" in counts:
        assert 5 <= counts["forward nodes"] <= 9  # sin, mul, add, mul, sum; some engines count broadcasts


def test_inputs_are_not_changed(engine):
    before = W.copy()
    built, _ = build(engine)
    built.stages["step"]()
    np.testing.assert_array_equal(W, before)


def test_gradients_that_depend_on_nothing_are_found(engine):
    def loss(params, x):
        return engine.ops.np.sum(params["used"] * x) + engine.ops.np.sum(params["summed"])

    arrays = engine.arrays(({"used": W, "summed": W, "unused": W}, X))
    grads = engine.numpy(engine.value_and_grad(loss)(*arrays)[1])
    np.testing.assert_array_equal(grads["summed"], np.ones(3))
    np.testing.assert_array_equal(grads["unused"], np.zeros(3))


def test_engine_titles_kinds_and_families_are_told():
    engines = [create(name) for name in ENGINES]
    assert [engine.name for engine in engines] == list(ENGINES)
    assert len({engine.title for engine in engines}) == len({engine.about for engine in engines}) == len(engines)
    assert all(engine.about.endswith(".") and engine.about.count(". ") == 0 for engine in engines)
    families = {engine.name: engine.family for engine in engines}
    assert families["tape"] == families["graph"] == families["tape-primitive"] == families["graph-eager"] == "twograd"
    assert families["jax-jit"] == families["jax-eager"] == "jax"


def test_names_are_checked_and_ordered():
    assert check_names(["jax-jit", "tape"]) == ["tape", "jax-jit"]
    assert check_names(["all"]) == list(ENGINES)
    with pytest.raises(CompareError, match=r"unknown engine 'jaxjit'. Did you mean 'jax-jit'\?"):
        check_names(["jaxjit"])


def test_hips_autograd_has_no_functional_namespace():
    with pytest.raises(Unsupported, match="HIPS autograd has no conv2d"):
        create("autograd").ops.F.conv2d(X, X)


def test_jaxprs_are_counted_through_calls():
    from twograd.compare.engines.xla import count_equations

    flat = jax.make_jaxpr(lambda x: jax.numpy.sin(x) * x + 1.0)(1.0)
    called = jax.make_jaxpr(lambda x: jax.jit(lambda y: jax.numpy.sin(y) * y)(x) + 1.0)(1.0)
    assert count_equations(flat) == count_equations(called) == 3


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


@needs_torch
@pytest.mark.parametrize(
    "call",
    [
        lambda np, x: np.max(x, axis=1),
        lambda np, x: np.max(x),
        lambda np, x: np.min(x, axis=0, keepdims=True),
        lambda np, x: np.sum(x, axis=(0, 1)),
        lambda np, x: np.mean(x, axis=1, keepdims=True),
        lambda np, x: np.mean(x),
        lambda np, x: np.var(x, axis=0),
        lambda np, x: np.std(x, axis=1, ddof=1),
        lambda np, x: np.transpose(x),
        lambda np, x: np.transpose(x, (1, 0)),
        lambda np, x: np.expand_dims(x, 1),
        lambda np, x: np.concatenate([x, x], axis=1),
        lambda np, x: np.stack([x, x], axis=2),
        lambda np, x: np.maximum(x, 0.5),
        lambda np, x: np.minimum(0.5, x),
        lambda np, x: np.power(x, 3),
        lambda np, x: np.where(x > 0.5, x, -x),
        lambda np, x: np.exp(np.log(np.abs(x))),
        lambda np, x: np.reshape(x, (3, 2)),
        lambda np, x: np.matmul(x, np.transpose(x)),
        lambda np, x: np.einsum("ij,kj->ik", x, x),
    ],
)
def test_torch_answers_to_numpys_names(call):
    engine = create("torch")
    x = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    found = engine.numpy(call(engine.ops.np, engine.arrays(x)))
    expected = call(np, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@needs_torch
def test_torch_counts_nodes_and_saved_bytes():
    engine = create("torch")
    built, _ = build(engine)
    # sin saves w, mul saves x, y * y saves y twice in one storage: 3 arrays of 3 float32.
    assert built.counts() == {"forward nodes": 5, "saved bytes": 3 * 12}


@needs_torch
def test_torch_without_cuda_is_not_available_on_a_gpu():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this torch can use the GPU")
    assert create("torch", "gpu").unavailable() == "the installed torch cannot use this GPU"


# --- the corners of the tape and of the graph ------------------------------------------------------------------------


def test_a_compiled_walk_is_one_compiled_call_from_the_second_call_on():
    for name in ("tape-compiled", "tape-deferred"):
        built, _ = build(create(name))
        built.stages["forward+backward"]()
        before = tape.compiled_backward.stats()
        built.stages["forward+backward"]()
        after = tape.compiled_backward.stats()
        assert (after.hits - before.hits, after.compiles, after.plain) == (1, before.compiles, before.plain), name


def test_what_create_graph_finds_can_be_differentiated_again():
    engine = create("tape-create-graph")
    leaf = tape.tensor(W, requires_grad=True)
    (grad,) = engine.walk(tape.sum(leaf * leaf * leaf), [leaf], retain_graph=False)
    (second,) = tape.autograd.grad(tape.sum(grad), [leaf])
    np.testing.assert_allclose(second.array, 6 * W, rtol=1e-6)


def test_backprop_by_value_calls_the_rules_each_time_and_traces_once():
    engine, calls = create("graph-backprop"), []

    def loss(params, x):
        calls.append(None)
        return engine.ops.np.sum(params * x)

    built = engine.build(loss, engine.arrays((W, X)), timing.Stopwatch())
    for _ in range(2):
        with rules.recording() as called:
            built.stages["forward+backward"]()
        assert [call.primitive for call in called] == ["reduce_sum", "mul"]
    assert len(calls) == 1


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in ("tape", "graph")])
def test_what_is_not_installed_is_a_reason_and_imports_nothing(name, monkeypatch):
    engine = create(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert engine.unavailable().startswith("not installed")


def test_every_extra_that_is_named_exists():
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name in ENGINES:
        extra = create(name).install
        assert not extra or extra[len("twograd[") : -1] in extras["optional-dependencies"], name


def test_what_a_peer_lacks_is_unsupported_and_not_an_error():
    said = r"Peer cannot express this program \(AttributeError: .*no attribute 'pi2'\)"
    with pytest.raises(Unsupported, match=said), expressing("Peer"):
        math.pi2  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ZeroDivisionError), expressing("Peer"):
        1 / 0  # noqa: B018


def test_torch_compile_says_that_it_needs_a_compiler(monkeypatch):
    engine = create("torch-compile")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert engine.unavailable() == "needs a C++ compiler (g++ or clang++, or $CXX)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's own, on the way through its compiler
def test_torch_compile_keeps_to_the_protocol_too():
    engine = create("torch-compile")
    if engine.unavailable():
        pytest.skip(engine.unavailable())
    built, once = build(engine)
    agree(engine.numpy(built.stages["forward+backward"]()))
    assert once.keys() == {"compile"}
    assert built.stages.keys() == {"forward", "forward+backward", "step"}
    np.testing.assert_allclose(engine.numpy(built.stages["step"]())["w"], W - 1e-3 * expected()[1]["w"], rtol=1e-6)
    with pytest.raises(Unsupported, match="not one graph"):
        engine.value_and_grad(lambda w, x: w.sum() if float(w[0]) > 0 else x.sum())(*engine.arrays((W, X)))


@pytest.mark.parametrize("name", ["dezero", "tinygrad", pytest.param("pytensor-numba", marks=pytest.mark.slow)])
def test_peers_run_a_program_of_the_comparisons_and_say_what_they_cannot(name, monkeypatch):
    engine = create(name)
    emulate(engine, monkeypatch)
    if engine.unavailable():
        pytest.skip(engine.unavailable())

    def loss(params, x):
        return engine.ops.np.mean(engine.ops.np.tanh(x @ params) * x)

    square = np.arange(4, dtype=np.float32).reshape(2, 2) / 4
    value, grad = engine.numpy(engine.value_and_grad(loss)(*engine.arrays((square, square))))
    right = jax.value_and_grad(lambda w: jax.numpy.mean(jax.numpy.tanh(square @ w) * square))(square)
    np.testing.assert_allclose(value, right[0], rtol=1e-6)
    np.testing.assert_allclose(grad, right[1], rtol=1e-5)
    with pytest.raises(Unsupported, match="cannot express this program"):
        engine.value_and_grad(lambda w, x: engine.ops.np.no_such_function(w))(*engine.arrays((square, square)))


@pytest.mark.slow
def test_pytensor_leaves_the_types_of_the_process_as_they_are():
    if reason := create("pytensor-jax").unavailable():
        pytest.skip(reason)
    code = (
        "import jax, numpy as np\nfrom twograd.compare.engines import create\ne = create('pytensor-jax')\n"
        "with jax.enable_x64(True):\n    e.value_and_grad(lambda w: (w * w).sum())(*e.arrays((np.ones(3),)))\n"
        "print(jax.numpy.zeros(()).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "float32\n"


def network(F, layers, images, labels):
    x = F.max_pool2d(F.relu(F.conv2d(images, layers["conv"], layers["bias"])), 2)
    return F.cross_entropy(F.linear(x.reshape((2, -1)), layers["linear"], layers["last"]), labels)


@pytest.mark.parametrize("name", ["torch", "dezero", "tinygrad", "tensorflow", "tensorflow-function", "tensorflow-v1"])
def test_a_network_is_the_same_to_each_that_has_convolutions(name, monkeypatch):
    engine = create(name)
    emulate(engine, monkeypatch)
    if engine.unavailable():
        pytest.skip(engine.unavailable())
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 2, 2, 2), "bias": (3,), "linear": (4, 3), "last": (4,)}
    layers = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    batch = rng.standard_normal((2, 2, 3, 3)).astype(np.float32), np.array([3, 1], np.int32)
    right = jax.value_and_grad(functools.partial(network, create("jax-jit").ops.F))(layers, *batch)
    program = functools.partial(network, engine.ops.F)
    loss, grads = engine.numpy(engine.value_and_grad(program)(*engine.arrays((layers, *batch))))
    np.testing.assert_allclose(loss, right[0], rtol=1e-5)
    for key, grad in right[1].items():
        np.testing.assert_allclose(grads[key], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shapes", [((3, 2), (2,)), ((2,), (2, 3)), ((2,), (2,)), ((3, 2), (2, 3))])
def test_dezeros_products_with_vectors_have_gradients(shapes):
    engine = create("dezero")
    if engine.unavailable():
        pytest.skip(engine.unavailable())
    x, y = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in shapes)

    def loss(np, operands):
        product = operands[0] @ operands[1]
        return np.sum(product * product)

    _, grads = engine.numpy(engine.value_and_grad(functools.partial(loss, engine.ops.np))((x, y)))
    for found, right in zip(grads, jax.grad(functools.partial(loss, jax.numpy))((x, y)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5)


@pytest.mark.slow
def test_tensorflow_has_the_others_threads_and_says_nothing():
    if create("tensorflow").unavailable():
        pytest.skip(create("tensorflow").unavailable())
    program = (
        "from twograd.compare import environment\n"
        "from twograd.compare.engines import create\n"
        "create('tensorflow').arrays(1.0)\n"
        "print(environment.options()['tensorflow_threads'] == environment.usable_cores())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.slow
def test_tf_function_has_pythons_loops_and_says_what_it_lacks_in_a_line():
    engine = create("tensorflow-function")
    if engine.unavailable():
        pytest.skip(engine.unavailable())

    def halved(x, limit):
        while x > limit:
            x = x / 2
        return x

    arrays = engine.arrays((np.float32(12), np.float32(2)))
    value, grad = engine.numpy(engine.value_and_grad(halved)(*arrays))
    assert (value, grad) == (1.5, 0.125)
    with pytest.raises(Unsupported, match=r"^TensorFlow cannot express this program \(AttributeError: [^\n]*no_such_"):
        engine.value_and_grad(lambda x, limit: engine.ops.np.no_such_function(x))(*arrays)


@pytest.mark.parametrize(
    "call",
    [
        lambda np, x: np.max(x, axis=1, keepdims=True),
        lambda np, x: np.min(x, axis=0),
        lambda np, x: np.sum(x),
        lambda np, x: np.mean(x, axis=1),
        lambda np, x: np.concatenate([x, x], axis=1),
        lambda np, x: np.stack([x, x], axis=2),
        lambda np, x: np.expand_dims(x, 1),
        lambda np, x: np.power(x, 3),
        lambda np, x: np.where(x > 0.5, x, -x),
    ],
)
def test_tinygrad_answers_to_numpys_names(call, monkeypatch):
    engine = create("tinygrad")
    emulate(engine, monkeypatch)
    if engine.unavailable():
        pytest.skip(engine.unavailable())
    x = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    np.testing.assert_allclose(engine.numpy(call(engine.ops.np, engine.arrays(x))), call(np, x), rtol=1e-5)


def test_tinygrad_says_that_it_needs_clang_or_the_name_of_a_device(monkeypatch):
    monkeypatch.delenv("DEV", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert create("tinygrad").unavailable() == "needs clang (or another of its devices, by $DEV)"
    assert create("tinygrad", "gpu").unavailable() == "needs the name of its device in $DEV (CUDA, say)"


def test_dezero_leaves_numpy_as_it_was():
    if create("dezero").unavailable():
        pytest.skip("DeZero is not installed")
    importlib.import_module("twograd.compare.engines.dezero_numpy")
    assert "int" not in vars(np)
