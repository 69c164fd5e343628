"""What users of Caffe expect of a net: its text, its log, its errors, verbatim, and its silent mistake."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twograd.errors import ParseError
from twograd.fronts import caffe

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }\n'
TARGET = 'layer { name: "target" type: "Input" top: "target" input_param { shape { dim: 4 dim: 2 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'
WEIGHTS = 'weight_filler { type: "xavier" } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'


def layer(kind, bottom, top, more="", name=None):
    bottoms = " ".join(f'bottom: "{blob}"' for blob in bottom.split())
    tops = " ".join(f'top: "{blob}"' for blob in top.split())
    return f'layer {{ name: "{name or top}" type: "{kind}" {bottoms} {tops} {more} }}\n'


def inner_product(bottom, top, more="", size=2):
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: {size} {WEIGHTS} }} {more}")


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def arrays(net, name):
    return [jnp.asarray(blob.data) for blob in net.params[name]]


def linear(x, p):
    return x @ p[0].T + p[1]


def euclidean(x, target):
    return jnp.sum((x - target) ** 2) / (2 * len(x))


def says(error, text):
    return pytest.raises(error, match=re.escape(text))


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "twograd.fronts.caffe")
    return caplog


# 1. the text of a net; forward, and backward in the reverse of the list

REGRESSION = DATA + TARGET + inner_product("data", "ip") + layer("EuclideanLoss", "ip target", "loss")


def test_a_net_is_an_ordered_list_of_layers_over_blobs():
    net = caffe.Net("name: 'small' # a comment\n" + REGRESSION)
    assert net.name == "small"
    assert [made.name for made in net.layers] == ["data", "target", "ip", "loss"]
    assert {name: blob.shape for name, blob in net.blobs.items()} == {
        "data": (4, 3), "target": (4, 2), "ip": (4, 2), "loss": (),
    }  # fmt: skip
    assert (net.inputs, net.outputs) == (["data", "target"], ["loss"])
    assert [blob.shape for blob in net.params["ip"]] == [(2, 3), (2,)]


def test_forward_then_backward():
    net, x, target = caffe.Net(REGRESSION), draw(4, 3), draw(4, 2) + 1
    out, params = net.blobs["ip"], arrays(net, "ip")
    expected, slopes = jax.value_and_grad(lambda p: euclidean(linear(x, p), target))(params)
    assert net.forward(data=x, target=target)["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert net.loss == pytest.approx(float(expected), rel=1e-5)
    data = out.data
    for _ in range(2):  # diffs of parameters are added to, those of blobs written over
        net.backward()
    for blob, slope in zip(net.params["ip"], slopes, strict=True):
        np.testing.assert_allclose(blob.diff, 2 * slope, rtol=1e-4)
    np.testing.assert_allclose(out.diff, (linear(x, params) - target) / 4, rtol=1e-4, atol=1e-6)
    net.forward(data=x + 1)
    assert net.blobs["ip"] is out
    assert out.data is data
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_backward_goes_up_the_list_not_along_the_graph():
    order, net = [], caffe.Net(
        DATA + TARGET + inner_product("data", "a") + inner_product("data", "b") + inner_product("a", "c")
        + layer("Eltwise", "c b", "sum") + layer("EuclideanLoss", "sum target", "loss")
    )  # fmt: skip
    for made in net.layers:
        backward = made.backward
        made.backward = lambda *args, made=made, backward=backward: (order.append(made.name), backward(*args))
    net.forward(data=draw(4, 3))
    net.backward()
    assert order == ["loss", "sum", "c", "b", "a"]


def test_old_inputs_and_reshaping():
    text = 'input: "data" input_shape { dim: 4 dim: 3 } ' + inner_product("data", "ip")
    net = caffe.Net(text)
    assert net.inputs == ["data"]
    with says(caffe.NetError, "say net.blobs['data'].reshape(2, 3) first"):
        net.forward(data=draw(2, 3))
    blob = net.blobs["data"]
    blob.reshape(2, 3)
    assert net.forward(data=draw(2, 3))["ip"].shape == (2, 2)
    assert net.blobs["data"] is blob
    with says(caffe.NetError, "Input blob arguments do not match net inputs: ip is none of ['data']"):
        net.forward(ip=draw(4, 2))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('layer { name: "a"\n tipe: "ReLU" }', 2, 'has no field named "tipe". Did you mean "type"?'),
        ("layer {\n name: 1 }", 2, "Expected string, got: 1"),
        ('name: "a"\nname: "b"', 2, 'Non-repeated field "name" is specified multiple times.'),
        ("force_backward: maybe", 1, 'Invalid value for boolean field "force_backward". Value: "maybe".'),
        ("layer { pooling_param {\n\n pool: MEAN } }", 3, 'Unknown enumeration value of "MEAN" for field "pool"'),
        ("layer { inner_product_param { num_output: 1.5 } }", 1, "Expected integer, got: 1.5"),
        ("layer { inner_product_param { num_output: 3x } }", 1, "Invalid text: '3x"),
        ('layer { name: "a', 1, "Invalid text: '\"a'"),
        ("layer {\n", 2, 'Expected "}", found the end of the text.'),
        ("name", 1, 'Expected ":" after "name".'),
        ("}", 1, "Expected identifier, got: }"),
        ("layer 3", 1, 'Expected "{", found "3".'),
        ('layer { bottom: ["a" "b", __import__("os") ] }', 1, "Invalid text: '("),
    ],
)
def test_a_text_that_is_no_net_is_refused_with_its_line(text, line, says):
    with pytest.raises(ParseError, match=re.escape(says)) as raised:
        caffe.Net(text)
    assert raised.value.line == line


def test_the_text_format_of_protobuf():
    text = """layer { bottom: ["a", 'b'] bottom: "c\\"\\n", loss_weight: -1.5e-1; include: { phase: TEST } top: "" }"""
    (found,) = caffe.parse(text, caffe.NetParameter).layer
    assert found.bottom == ["a", "b", 'c"\n']
    assert found.loss_weight == [-0.15]
    assert found.include[0].phase == "TEST"
    with pytest.raises(TypeError, match="the text of a NetParameter is a str, got int"):
        caffe.parse(3, caffe.NetParameter)


# 2. splits

FAN_OUT = (
    DATA + TARGET + inner_product("data", "ip") + layer("TanH", "ip", "a") + layer("Sigmoid", "ip", "b")
    + layer("Eltwise", "a b", "sum") + layer("EuclideanLoss", "sum target", "loss")
)  # fmt: skip


def test_a_top_that_two_bottoms_read_gets_a_split_whose_backward_adds_up():
    net = caffe.Net(FAN_OUT)
    split = net.layers[3]
    assert (split.name, split.type) == ("ip_ip_0_split", "Split")
    assert split.param.top == ["ip_ip_0_split_0", "ip_ip_0_split_1"]
    assert net.layers[4].param.bottom == ["ip_ip_0_split_0"]
    x, target, p = draw(4, 3), draw(4, 2), arrays(net, "ip")
    net.forward(data=x, target=target)
    net.backward()
    assert net.blobs["ip_ip_0_split_1"].data is net.blobs["ip"].data  # nothing is copied on the way forward
    parts = [net.blobs[name].diff for name in split.param.top]
    np.testing.assert_allclose(net.blobs["ip"].diff, parts[0] + parts[1], rtol=1e-6)
    slopes = jax.grad(lambda p: euclidean(jnp.tanh(linear(x, p)) + jax.nn.sigmoid(linear(x, p)), target))(p)
    np.testing.assert_allclose(net.params["ip"][0].diff, slopes[0], rtol=1e-4, atol=1e-6)


def test_a_split_after_a_layer_in_place_is_of_that_layer():
    text = DATA + inner_product("data", "ip") + layer("ReLU", "ip", "ip", name="relu")
    names = [made.name for made in caffe.Net(text + layer("TanH", "ip", "a") + layer("TanH", "ip", "b")).layers]
    assert names == ["data", "ip", "relu", "ip_relu_0_split", "a", "b"]


def test_a_loss_weight_reads_its_top_too():
    text = FAN_OUT.replace('type: "TanH"', 'type: "TanH" loss_weight: 2')
    text = text.replace('"a" bottom: "b"', '"a" bottom: "a" bottom: "b"')
    net = caffe.Net(text)
    split = next(made for made in net.layers if made.name == "a_a_0_split")
    assert len(split.param.top) == 3
    x, target, p = draw(4, 3), draw(4, 2), arrays(net, "ip")

    def loss(p):
        a = jnp.tanh(linear(x, p))
        return 2 * a.sum() + euclidean(2 * a + jax.nn.sigmoid(linear(x, p)), target)

    net.forward(data=x, target=target)
    net.backward()
    assert net.loss == pytest.approx(float(loss(p)), rel=1e-5)
    np.testing.assert_allclose(net.params["ip"][1].diff, jax.grad(loss)(p)[1], rtol=1e-4)


# 3. which layers need backward computation

TOWER = (
    DATA + TARGET + inner_product("data", "ip1", "param { lr_mult: 0 } param { lr_mult: 0 }")
    + layer("TanH", "ip1", "tanh") + inner_product("tanh", "ip2", "param { } param { lr_mult: 0 }")
    + layer("Softmax", "ip2", "shown") + layer("EuclideanLoss", "ip2 target", "loss")
)  # fmt: skip


def test_what_needs_backward_is_logged(logged):
    net = caffe.Net(TOWER)
    about = [text for text in logged.messages if "backward computation" in text]
    assert about == [
        "loss needs backward computation.", "shown does not need backward computation.",
        "ip2_ip2_0_split needs backward computation.", "ip2 needs backward computation.",
        "tanh does not need backward computation.", "ip1 does not need backward computation.",
        "target does not need backward computation.", "data does not need backward computation.",
    ]  # fmt: skip
    assert net.bottom_need_backward[net.layers.index(next(m for m in net.layers if m.name == "ip2"))] == [False]


def test_frozen_parameters_and_what_is_below_them_get_no_diff():
    net, x, target = caffe.Net(TOWER), draw(4, 3), draw(4, 2)
    (w1, b1), (w2, b2) = arrays(net, "ip1"), arrays(net, "ip2")
    net.forward(data=x, target=target)
    net.backward()
    slope = jax.grad(lambda w: euclidean(linear(jnp.tanh(linear(x, (w1, b1))), (w, b2)), target))(w2)
    np.testing.assert_allclose(net.params["ip2"][0].diff, slope, rtol=1e-4, atol=1e-6)
    for blob in (net.params["ip2"][1], *net.params["ip1"], net.blobs["tanh"], net.blobs["ip1"]):
        assert not blob.diff.any()
    reads = {made.name: made.kernel([net.blobs[name] for name in made.param.bottom]).reads for made in net.layers[2:]}
    assert (reads["ip1"], reads["tanh"], reads["shown"]) == ((), (), ())  # nor is anything kept for one
    assert reads["ip2"] == (0,)


def test_force_backward_and_propagate_down():
    net, x, target = caffe.Net("force_backward: true " + TOWER), draw(4, 3), draw(4, 2)
    p1, p2 = arrays(net, "ip1"), arrays(net, "ip2")
    net.forward(data=x, target=target)
    net.backward()
    slope = jax.grad(lambda x: euclidean(linear(jnp.tanh(linear(x, p1)), p2), target))(x)
    np.testing.assert_allclose(net.blobs["data"].diff, slope, rtol=1e-4, atol=1e-6)

    text = REGRESSION.replace('"target" top', '"target" propagate_down: false propagate_down: true top')
    net = caffe.Net(text)
    net.forward(data=x, target=target)
    net.backward()
    assert not net.params["ip"][0].diff.any()
    np.testing.assert_allclose(net.blobs["target"].diff, (target - net.blobs["ip"].data) / 4, rtol=1e-5, atol=1e-6)
    with says(caffe.NetError, "propagate_down param must be specified either 0 or bottom_size times"):
        caffe.Net(REGRESSION.replace('"target" top', '"target" propagate_down: true top'))


# 4. errors and log lines


def test_errors_in_caffes_words(logged):
    with says(caffe.NetError, "Unknown bottom blob 'dada' (layer 'ip', bottom index 0)"):
        caffe.Net(DATA + inner_product("dada", "ip"))
    with says(caffe.NetError, "Unknown bottom blob 'ip' (layer 'early', bottom index 0)"):  # lists are not sorted
        caffe.Net(DATA + layer("TanH", "ip", "early") + inner_product("data", "ip"))
    with says(caffe.NetError, "Top blob 'ip' produced by multiple sources."):
        caffe.Net(DATA + inner_product("data", "ip") + layer("TanH", "data", "ip", name="second"))
    with says(caffe.NetError, "Flatten Layer does not allow in-place computation."):
        caffe.Net(DATA + layer("Flatten", "data", "data", name="flat"))
    with says(caffe.NetError, "InnerProduct Layer does not allow in-place computation."):
        caffe.Net(DATA + inner_product("data", "data").replace('name: "data"', 'name: "ip"'))
    with says(caffe.NetError, "Unknown layer type: Cunvolution (known types: AbsVal, "):
        caffe.Net(DATA + layer("Cunvolution", "data", "conv"))
    with says(caffe.NetError, "EuclideanLoss Layer takes 2 bottom blob(s) as input."):
        caffe.Net(DATA + layer("EuclideanLoss", "data", "loss"))
    with says(caffe.NetError, "Unknown filler name: orthogonal"):
        caffe.Net(DATA + inner_product("data", "ip").replace("xavier", "orthogonal"))
    with says(caffe.NetError, "layer 'loss' (EuclideanLoss): mse_loss: the target's size [4, 2] differs from the"):
        caffe.Net(REGRESSION.replace("num_output: 2", "num_output: 3"))
    with says(caffe.NetError, "SoftmaxWithLoss Layer cannot backpropagate to label inputs."):
        both = "propagate_down: true propagate_down: 1"
        net = caffe.Net(DATA + LABEL + layer("SoftmaxWithLoss", "data label", "loss", both))
        net.forward()
        net.backward()
    with says(ValueError, "phase is 'TRAIN' or 'TEST', checks 'on' or 'off'; got 'train' and 'on'"):
        caffe.Net(DATA, "train")
    with says(TypeError, "a layer was given a traced array"):
        jax.jit(lambda x: caffe.Net(DATA).forward(data=x))(draw(4, 3))
    logged.clear()
    caffe.Net(DATA + inner_product("data", "ip") + layer("ReLU", "ip", "ip", name="relu"))
    assert caffe.Net(DATA + layer("ReLU", "data", "data", name="relu")).outputs == ["data"]
    assert {"Creating Layer relu", "relu <- ip", "relu -> ip (in-place)", "Top shape: 4 2 (8)"} <= set(logged.messages)


def test_shared_parameters():
    named = 'param { name: "w" } param { name: "b" }'
    text = DATA.replace("dim: 3", "dim: 2") + TARGET + inner_product("data", "one", named)
    net = caffe.Net(text + inner_product("one", "two", named) + layer("EuclideanLoss", "two target", "loss"))
    assert net.params["two"][0] is net.params["one"][0]
    assert len(net.learnable_params) == 2
    x, target, p = draw(4, 2), draw(4, 2) + 1, arrays(net, "one")
    net.forward(data=x, target=target)
    net.backward()
    slope = jax.grad(lambda p: euclidean(linear(linear(x, p), p), target))(p)
    np.testing.assert_allclose(net.params["one"][0].diff, slope[0], rtol=1e-4, atol=1e-6)
    with says(caffe.NetError, "Cannot share param 'w' owned by layer 'one' with layer 'two'; shape mismatch."):
        caffe.Net(text + inner_product("one", "two", named, size=3))
    with says(caffe.NetError, "Shared param 'w' has mismatched lr_mult"):
        caffe.Net(text + inner_product("one", "two", named.replace('"w"', '"w" lr_mult: 2')))


# 5. in place, over what a backward reads (BVLC/caffe#2015)


def in_place(upper, more=""):
    """TanH, whose backward reads its top, and upon it a layer in place."""
    return (
        "force_backward: true " + DATA + layer("TanH", "data", "h") + layer(upper, "h", "h", more, "upper")
        + layer("Power", "h", "loss", "loss_weight: 1 power_param { scale: 3 }")
    )  # fmt: skip


LEAKY = "relu_param { negative_slope: 0.1 }"


def diff_of(text, x, checks="off"):
    net = caffe.Net(text, checks=checks)
    net.forward(data=x)
    net.backward()
    return net.blobs["data"].diff


def test_a_relu_in_place_makes_the_layer_below_silently_wrong():
    x = draw(4, 3)
    right = jax.grad(lambda x: 3 * jax.nn.leaky_relu(jnp.tanh(x), 0.1).sum())(x)
    apart = (
        in_place("ReLU", LEAKY)
        .replace('top: "h" relu', 'top: "r" relu')
        .replace('bottom: "h" top: "loss"', 'bottom: "r" top: "loss"')
    )
    np.testing.assert_allclose(diff_of(apart, x, "on"), right, rtol=1e-4)
    wrong = diff_of(in_place("ReLU", LEAKY), x)
    assert np.abs(wrong - right).max() > 0.05
    np.testing.assert_allclose(wrong[x > 0], np.asarray(right)[x > 0], rtol=1e-4)  # where it has changed nothing


def test_a_plain_relu_in_place_hides_what_it_has_changed():
    """Where ReLU wrote a zero, its own derivative is zero, so that TanH's wrong slope there is not seen."""
    x = draw(4, 3)
    right = jax.grad(lambda x: 3 * jax.nn.relu(jnp.tanh(x)).sum())(x)
    np.testing.assert_allclose(diff_of(in_place("ReLU"), x), right, rtol=1e-4)


def test_checks_refuse_it_when_the_net_is_made():
    text = "layer 'upper' (ReLU) writes in place over the blob 'h', and the backward of 'h' (TanH) reads there what it"
    with says(caffe.InPlaceError, text):
        caffe.Net(in_place("ReLU", LEAKY))
    with says(caffe.InPlaceError, "layer 'upper' (Dropout) writes in place over the blob 'h'"):
        caffe.Net(in_place("Dropout"))
    with says(
        caffe.InPlaceError, "layer 'upper' (InnerProduct) writes in place over the blob 'h', and its own backward"
    ):
        caffe.Net(
            in_place("InnerProduct", f"inner_product_param {{ num_output: 3 {WEIGHTS} }}").replace("TanH", "ReLU")
        )
    caffe.Net(in_place("ReLU").replace("force_backward: true ", ""))  # no backward, no harm


@pytest.mark.parametrize("lower", ["InnerProduct", "Pooling", "Convolution", "ReLU"])
def test_what_is_safe_in_place_is_allowed(lower):
    params = {
        "InnerProduct": f"inner_product_param {{ num_output: 4 {WEIGHTS} }}",
        "Pooling": "pooling_param { kernel_size: 2 stride: 2 }",
        "Convolution": f"convolution_param {{ num_output: 2 kernel_size: 2 {WEIGHTS} }}",
    }
    data = DATA.replace("dim: 4 dim: 3", "dim: 2 dim: 1 dim: 4 dim: 4")
    lower, x = layer(lower, "data", "h", params.get(lower, "")), draw(2, 1, 4, 4)
    both = [
        "force_backward: true " + data + lower + layer("ReLU", "h", top, LEAKY, "upper")
        + layer("Power", top, "loss", "loss_weight: 1 power_param { scale: 3 }")
        for top in ("h", "other")
    ]  # fmt: skip
    np.testing.assert_array_equal(*(diff_of(text, x, "on") for text in both))


# 6. the solver, phases, and the net that is deployed

TRAINED = """
layer { name: "memory" type: "MemoryData" top: "data" top: "label" include { phase: TRAIN }
        memory_data_param { batch_size: 4 channels: 1 height: 1 width: 3 } }
layer { name: "input" type: "Input" top: "data" top: "label" include { phase: TEST }
        input_param { shape { dim: 8 dim: 3 } shape { dim: 8 } } }
"""
HEAD = layer("Dropout", "ip1", "ip1", "dropout_param { dropout_ratio: 0 }", "drop") + inner_product(
    "ip1", "ip2", size=3
)
LOSS = (
    layer("SoftmaxWithLoss", "ip2 label", "loss", "exclude { phase: TEST }")
    + layer("Accuracy", "ip2 label", "accuracy", "include { phase: TEST }")
)  # fmt: skip
CLASSIFIER = TRAINED + inner_product("data", "ip1", "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }") + HEAD


def batches():
    x = np.random.default_rng(0).standard_normal((8, 1, 1, 3)).astype(np.float32)
    return x, x.reshape(8, 3).argmax(1)


def trained(solver, steps):
    made = caffe.Solver(solver, CLASSIFIER + LOSS)
    made.net.set_input_arrays(*batches())
    before = [blob.data.copy() for blob in made.net.learnable_params]
    return made, before, made.step(steps)


def classifier_loss(p, x, label):
    scores = linear(linear(x.reshape(-1, 3), p[:2]), p[2:])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), jnp.asarray(label)[:, None], 1))


def test_iter_size_accumulates_and_divides():
    """Two half batches are the whole one."""
    made, before, loss = trained("base_lr: 0.5 iter_size: 2", 1)
    x, label = batches()
    expected, slopes = jax.value_and_grad(classifier_loss)(before, x, label)
    assert loss == pytest.approx(float(expected), rel=1e-5)
    multipliers = (1, 2, 1, 1)
    for blob, old, slope, mult in zip(made.net.learnable_params, before, slopes, multipliers, strict=True):
        np.testing.assert_allclose(blob.data, old - 0.5 * mult * slope, rtol=1e-4, atol=1e-6)


def test_momentum_weight_decay_and_policies_in_caffes_order():
    solver = "base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: 'inv' gamma: 0.5 power: 0.75"
    made, params, _ = trained(solver, 3)
    history, (x, label) = [np.zeros_like(p) for p in params], batches()
    for i in range(3):
        rows = slice(0, 4) if i % 2 == 0 else slice(4, 8)
        slopes, rate = jax.grad(classifier_loss)(params, x[rows], label[rows]), 0.1 * (1 + 0.5 * i) ** -0.75
        for j, (slope, lr, decay) in enumerate(zip(slopes, (1, 2, 1, 1), (1, 0, 1, 1), strict=True)):
            history[j] = 0.9 * history[j] + rate * lr * (slope + 0.01 * decay * params[j])
            params[j] = params[j] - history[j]
    for blob, expected in zip(made.net.learnable_params, params, strict=True):
        np.testing.assert_allclose(blob.data, expected, rtol=1e-4, atol=1e-5)


def test_learning_rates_clipping_and_l1():
    rates = {
        "fixed": 1, "'step' gamma: 0.1 stepsize: 2": 0.01, "'exp' gamma: 0.5": 1 / 32,
        "'multistep' gamma: 0.1 stepvalue: 3 stepvalue: [5, 9]": 0.01, "'poly' power: 2 max_iter: 10": 0.25,
        "'sigmoid' gamma: -1 stepsize: 5": 0.5,
    }  # fmt: skip
    for text, expected in rates.items():
        made = caffe.Solver(f"base_lr: 2 lr_policy: {text if ' ' in text else repr(text)}", DATA)
        made.iter = 5
        assert made.learning_rate() == pytest.approx(2 * expected)
    with says(caffe.NetError, "Unknown learning rate policy: warm"):
        caffe.Solver("lr_policy: 'warm'", DATA)
    with says(caffe.NetError, "Unknown solver type: Adam (known solver types: SGD)"):
        caffe.Solver("type: 'Adam'", DATA)
    made, before, _ = trained("base_lr: 1 clip_gradients: 0.01 iter_size: 2", 1)
    changes = [blob.data - old for blob, old in zip(made.net.learnable_params, before, strict=True)]
    mults = (1, 2, 1, 1)
    norm = np.sqrt(sum(np.sum((change / mult) ** 2) for change, mult in zip(changes, mults, strict=True)))
    assert norm == pytest.approx(0.01 / 2, rel=1e-3)
    made, before, _ = trained("base_lr: 1e-6 weight_decay: 1e5 regularization_type: L1", 1)
    np.testing.assert_allclose(made.net.params["ip2"][0].data, before[2] - 0.1 * np.sign(before[2]), atol=1e-4)


def test_training_testing_and_deploying_share_weights(logged):
    made, _, first = trained("base_lr: 0.5 momentum: 0.9 max_iter: 40", 1)
    assert made.solve() < first / 4
    assert made.iter == 40
    x, label = batches()
    tested = caffe.Net(CLASSIFIER + LOSS, "TEST")
    tested.share_trained_layers_with(made.net)
    assert tested.forward(data=x.reshape(8, 3), label=label) == {"accuracy": 1.0}
    deployed = caffe.Net(
        DATA.replace("dim: 4", "dim: 8") + "".join(CLASSIFIER.partition('layer { name: "ip1"')[1:]), "TEST"
    )
    assert [made.name for made in deployed.layers] == ["data", "ip1", "drop", "ip2"]
    deployed.share_trained_layers_with(made.net)
    assert deployed.params["ip1"][0].data is made.net.params["ip1"][0].data
    np.testing.assert_array_equal(deployed.forward(data=x.reshape(8, 3))["ip2"].argmax(1), label)
    small = caffe.Net(DATA + inner_product("data", "ip1"))
    small.share_trained_layers_with(made.net)
    assert "Ignoring source layer ip2" in logged.messages
    with says(caffe.NetError, "Cannot share param 0 weights from layer 'ip1'; shape mismatch."):
        caffe.Net(DATA + inner_product("data", "ip1", size=4)).share_trained_layers_with(made.net)


def test_dropout_is_of_the_phase():
    text, x = (
        DATA + layer("Dropout", "data", "out", "dropout_param { dropout_ratio: 0.75 }"),
        np.ones((4, 3), np.float32),
    )
    assert set(np.unique(caffe.Net(text).forward(data=x)["out"])) == {0, 4}
    np.testing.assert_array_equal(caffe.Net(text, "TEST").forward(data=x)["out"], x)


def test_data_out_of_memory():
    net = caffe.Net(CLASSIFIER + LOSS)
    with says(caffe.NetError, "MemoryDataLayer needs to be initialized"):
        net.forward()
    with says(caffe.NetError, "Added data must be a multiple of the batch size"):
        net.set_input_arrays(np.zeros((6, 1, 1, 3)), np.zeros(6))
    with says(caffe.NetError, "data of size [4, 3] and labels of size [4] do not fit"):
        net.set_input_arrays(np.zeros((4, 3)), np.zeros(4))
    with says(caffe.NetError, "set_input_arrays may only be called if a layer is a MemoryDataLayer"):
        caffe.Net(DATA).set_input_arrays(np.zeros(4), np.zeros(4))


# 7. the gradient checker; no second order


def blob(*shape):
    made = caffe.Blob(*shape)
    made.data[...] = draw(*shape)
    return made


CHECKED = {
    "InnerProduct": (f"inner_product_param {{ num_output: 2 {WEIGHTS} }}", [(2, 3)]),
    "Convolution": (
        f"convolution_param {{ num_output: 2 kernel_size: [2, 1] stride: 2 pad: 1 {WEIGHTS} }}", [(1, 1, 3, 2)]
    ),
    "Pooling": ("pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }", [(1, 1, 3, 3)]),
    "Sigmoid": ("", [(2, 3)]), "TanH": ("", [(2, 3)]), "Dropout": ("", [(2, 3)]), "Softmax": ("", [(2, 3)]),
    "Power": ("power_param { power: 3 scale: 0.5 shift: 1 }", [(2, 3)]),
    "Eltwise": ("eltwise_param { operation: PROD }", [(2, 3), (2, 3)]),
    "Concat": ("concat_param { axis: 0 }", [(2, 3), (1, 3)]), "Flatten": ("", [(2, 1, 3)]),
    "EuclideanLoss": ("", [(2, 3), (2, 3)]), "SigmoidCrossEntropyLoss": ("", [(2, 3), (2, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKED)
def test_gradient_checker(kind):
    more, shapes = CHECKED[kind]
    made = caffe.make_layer(f'type: "{kind}" {more}')
    checker = caffe.GradientChecker(1e-2, 1e-2)
    assert checker.check_gradient_exhaustive(made, [blob(*shape) for shape in shapes], [caffe.Blob()]) < 5e-3


def test_gradient_checker_of_losses_with_labels():
    label = caffe.Blob(2)
    label.data[...] = [2, 0]
    made = caffe.make_layer('type: "SoftmaxWithLoss"')
    assert caffe.GradientChecker(1e-2, 1e-2).check_gradient_exhaustive(made, [blob(2, 3), label], [caffe.Blob()]) < 5e-3


def test_a_kink_is_left_out_and_a_wrong_derivative_is_not():
    bottom = blob(2, 3)
    bottom.data[0, 0] = 0.003
    text = 'type: "ReLU"'
    with says(caffe.GradientError, "debug: (top_id, top_data_id, blob_id, feat_id)=0,0,0,(0, 0); feat = 0.003"):
        caffe.GradientChecker(1e-2, 1e-3).check_gradient_exhaustive(caffe.make_layer(text), [bottom], [caffe.Blob()])
    checker = caffe.GradientChecker(1e-2, 1e-3, 1701, 0.0, 0.01)
    assert checker.check_gradient_exhaustive(caffe.make_layer(text), [bottom], [caffe.Blob()]) < 1e-3
    shifted = caffe.GradientChecker(1e-2, 1e-3, 1701, kink=1.0, kink_range=0.01)
    with pytest.raises(caffe.GradientError):  # the kink of ReLU is not there
        shifted.check_gradient_exhaustive(caffe.make_layer(text), [bottom], [caffe.Blob()])
    made = caffe.make_layer('type: "TanH"')
    backward = made.backward

    def halved(tops, propagate_down, bottoms):
        backward(tops, propagate_down, bottoms)
        bottoms[0].diff[...] /= 2

    made.backward = halved
    with pytest.raises(caffe.GradientError):
        checker.check_gradient_exhaustive(made, [blob(2, 3)], [caffe.Blob()])


def test_there_is_no_second_order():
    net = caffe.Net("force_backward: true " + DATA + layer("TanH", "data", "h", "loss_weight: 1"))

    def slope(x):
        net.forward(data=x)
        net.backward()
        return net.blobs["data"].diff

    assert np.abs(slope(draw(4, 3)).copy() - slope(draw(4, 3) + 0.1)).max() > 0.01  # it has a derivative
    with says(TypeError, "a gradient that it has found cannot be differentiated again"):
        jax.grad(lambda x: jnp.sum(slope(x)))(draw(4, 3))
