"""nn.functional against PyTorch: values and gradients in float64, and the graph engine's gradient against JAX's."""

import functools
import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from twograd import graph
from twograd.nn import functional as F

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


class Case:
    """A call of F's and of PyTorch's function ``name``; floating-point operands are differentiated."""

    def __init__(self, name, *operands, id="", **settings):
        self.name, self.operands, self.settings = name, operands, settings
        said = [
            *(str(list(o.shape)) if isinstance(o, np.ndarray) else repr(o) for o in operands),
            *(f"{k}={list(v.shape) if isinstance(v, np.ndarray) else v}" for k, v in settings.items()),
        ]
        self.id = f"{name}({id or ', '.join(said)})".replace("-", "_")

    def split(self, convert):
        """The arrays among the operands and settings, converted, and a call that takes the floating-point ones."""
        arguments = [*self.operands, *self.settings.values()]
        arrays = [convert(a) if isinstance(a, np.ndarray) else a for a in arguments]
        where = [i for i, a in enumerate(arguments) if type(a) is np.ndarray and a.dtype == np.float64]

        def call(module, inexact):
            filled = list(arrays)
            for i, a in zip(where, inexact, strict=True):
                filled[i] = a
            count = len(self.operands)
            settings = dict(zip(self.settings, filled[count:], strict=True))
            return getattr(module, self.name)(*filled[:count], **settings)

        return [arrays[i] for i in where], call


class Fixed(np.ndarray):
    """An operand that is not differentiated, as PyTorch has no derivative there."""


rng = np.random.default_rng(0)


def real(*shape):
    return rng.standard_normal(shape)


def unit(*shape):
    return rng.uniform(0.05, 0.95, shape)


def simplex(*shape):
    """Probabilities along axis 1."""
    x = np.exp(rng.standard_normal(shape))
    return x / x.sum(1, keepdims=True)


def integers(high, *shape):
    return rng.integers(0, high, shape)


def with_ignored(target, index=-100):
    target = target.copy()
    target.flat[1] = index
    return target


KINKS = np.array([-25.0, -3.0, -1.0, -0.3, 0.0, 0.2, 1.0, 2.5, 6.0, 30.0])
BINARY = np.array([[0.0, 1.0, 0.3], [1.0, 0.0, 0.5]])


def convolutions():
    yield Case("linear", real(4, 3), real(5, 3), real(5))
    yield Case("linear", real(2, 4, 3), real(5, 3))
    yield Case("linear", real(3), real(5, 3), real(5))
    yield Case("linear", real(4, 3), real(3))
    yield Case("conv1d", real(2, 4, 9), real(6, 4, 3), real(6))
    yield Case("conv1d", real(4, 9), real(6, 2, 3), real(6), stride=2, padding=1, groups=2)
    yield Case("conv1d", real(2, 4, 9), real(4, 1, 4), None, padding="same", dilation=2, groups=4)
    x, bias = real(2, 4, 8, 7), real(6)
    settings = itertools.product((1, (2, 3)), (0, (1, 2)), (1, (2, 1)), (1, 2))
    yield from (Case("conv2d", x, real(6, 4 // s[-1], 3, 2), bias, *s) for s in settings)
    yield Case("conv2d", x, real(6, 4, 2, 2), bias, padding="same")
    yield Case("conv2d", x, real(6, 4, 4, 3), bias, padding="same", dilation=(1, 2))
    yield Case("conv2d", x, real(6, 4, 3, 3), padding="valid", stride=[2, 1])
    yield Case("conv2d", real(4, 8, 7), real(6, 4, 3, 3), bias)
    yield Case("conv2d", x, real(8, 1, 3, 3), groups=4)
    yield Case("conv3d", real(1, 2, 5, 4, 6), real(4, 1, 2, 3, 2), real(4), stride=(1, 2, 2), padding=1, groups=2)
    yield Case("conv3d", real(2, 5, 4, 6), real(4, 2, 2, 3, 2), padding="same")
    yield Case("conv_transpose1d", real(2, 4, 5), real(4, 3, 3), real(3), stride=2, padding=1, output_padding=1)
    settings = itertools.product((1, (2, 3)), (0, (1, 2)), (0,), (1, 2), (1, (2, 1)))
    yield from (Case("conv_transpose2d", x, real(4, 6 // s[3], 3, 2), bias, *s) for s in settings)
    yield Case("conv_transpose2d", x, real(4, 6, 3, 3), bias, stride=(2, 3), output_padding=(1, 2))
    yield Case("conv_transpose2d", real(4, 5, 5), real(4, 6, 3, 3), dilation=2, output_padding=1)
    yield Case("conv_transpose3d", real(1, 2, 3, 4, 3), real(2, 2, 2, 3, 2), stride=2, padding=(0, 1, 1))


def pools():
    x = real(2, 3, 9, 8)
    settings = itertools.product((2, (3, 2)), (None, (2, 3)), (0, 1), (1, (2, 1)), (False, True))
    yield from (Case("max_pool2d", x, *s) for s in settings)
    yield Case("max_pool1d", real(2, 3, 9), 3, 2, ceil_mode=True)
    yield Case("max_pool1d", real(3, 9), kernel_size=[2], dilation=3)
    yield Case("max_pool3d", real(2, 4, 6, 5), (2, 3, 2), padding=(1, 1, 0))
    yield Case("max_pool2d", np.zeros((1, 1, 4, 4)), 2, id="equal elements")
    yield Case("max_pool2d", np.zeros((1, 1, 5, 5)), 2, dilation=2, stride=1, id="equal elements, dilated")
    settings = itertools.product((2, (3, 2)), (None, (2, 3)), (0, 1), (False, True), (False, True))
    yield from (Case("avg_pool2d", x, *s) for s in settings)
    yield Case("avg_pool2d", x, 3, divisor_override=2)
    yield Case("avg_pool2d", real(3, 8, 8), 4)
    yield Case("avg_pool1d", real(2, 3, 9), 3, 2, 1, count_include_pad=False)
    yield Case("avg_pool3d", real(2, 4, 6, 5), 2, padding=1, ceil_mode=True)
    for size in (1, (3, 4), (2, 5), (None, 3), 9, (11, 8)):
        yield Case("adaptive_avg_pool2d", x, size)
        yield Case("adaptive_max_pool2d", x, size)
    yield Case("adaptive_max_pool1d", real(3, 7), 3)
    yield Case("adaptive_max_pool2d", np.zeros((1, 1, 5, 4)), (2, 3), id="equal elements, adaptive")
    yield Case("adaptive_max_pool3d", real(1, 2, 4, 6, 5), (2, 3, 2))
    yield Case("adaptive_avg_pool1d", real(3, 7), 3)
    yield Case("adaptive_avg_pool3d", real(1, 2, 4, 6, 5), (2, 3, 2))


def activations():
    for name in ("relu", "relu6", "elu", "selu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "softplus"):
        yield Case(name, KINKS, id="kinks")
    for name in ("logsigmoid", "hardtanh"):
        yield Case(name, KINKS, id="kinks")
    yield Case("leaky_relu", KINKS, 0.3)
    yield Case("elu", KINKS, 0.5)
    yield Case("gelu", KINKS, approximate="tanh")
    yield Case("softplus", KINKS, 2.0, 5.0)
    yield Case("hardtanh", KINKS, -2.0, 0.5)
    yield Case("elu", np.array([1000.0, -1000.0]), id="large")
    yield Case("softplus", np.array([1000.0, -1000.0]), id="large")
    yield Case("logsigmoid", np.array([1000.0, -1000.0]), id="large")
    yield Case("glu", real(3, 4))
    yield Case("glu", real(3, 4, 2), 1)
    for name, dim in itertools.product(("softmax", "log_softmax"), (0, 1, -1)):
        yield Case(name, 10 * real(3, 4, 2), dim)
    yield Case("log_softmax", np.array([[1000.0, 0.0, -1000.0]]), 1, id="large")


def losses():
    logits, spatial = real(5, 4), real(2, 4, 3, 2)
    weight, target = unit(4).view(Fixed), integers(4, 5)
    for reduction, w, smoothing in itertools.product(("none", "mean", "sum"), (None, weight), (0.0, 0.2)):
        settings = {"reduction": reduction, "label_smoothing": smoothing}
        yield Case("cross_entropy", logits, with_ignored(target), w, **settings)
        yield Case("cross_entropy", logits, simplex(5, 4), w, **settings)
        yield Case("cross_entropy", spatial, with_ignored(integers(4, 2, 3, 2), 2), w, ignore_index=2, **settings)
    yield Case("cross_entropy", spatial, simplex(2, 4, 3, 2))
    yield Case("cross_entropy", real(4), np.array(2), id="no batch")
    yield Case("cross_entropy", 1000 * real(5, 4), target, id="large")
    for reduction, w in itertools.product(("none", "mean", "sum"), (None, weight)):
        yield Case("nll_loss", logits, with_ignored(target), w, reduction=reduction)
    yield Case("nll_loss", spatial, integers(4, 2, 3, 2), weight)
    a, b = real(3, 4), real(3, 4)
    b[0, 0] = a[0, 0]
    b[0, 1] = a[0, 1] + 1.0
    for reduction in ("none", "mean", "sum"):
        yield Case("mse_loss", a, b, reduction=reduction)
        yield Case("l1_loss", a, b, reduction=reduction)
        yield Case("smooth_l1_loss", a, b, reduction=reduction, beta=0.5)
        yield Case("huber_loss", a, b, reduction=reduction, delta=0.7)
        yield Case("binary_cross_entropy", unit(2, 3), BINARY, real(3).view(Fixed), reduction=reduction)
        yield Case("binary_cross_entropy_with_logits", real(2, 3), BINARY, real(3).view(Fixed), reduction=reduction)
    yield Case("smooth_l1_loss", a, b, beta=0.0)
    yield Case("binary_cross_entropy_with_logits", real(2, 3), BINARY, pos_weight=unit(3).view(Fixed))
    yield Case("binary_cross_entropy_with_logits", np.array([0.0, 1000.0, -1000.0]), BINARY[0], id="large")
    log_p = np.log(simplex(3, 4))
    for reduction in ("none", "mean", "sum", "batchmean"):
        yield Case("kl_div", log_p, simplex(3, 4), reduction=reduction)
        yield Case("kl_div", log_p, np.log(simplex(3, 4)), reduction=reduction, log_target=True)


def alignments():
    log_probs = np.log(simplex(3, 5, 6)).transpose(2, 0, 1)
    targets = np.array([[1, 2, 2], [3, 1, 4], [2, 0, 0]])
    for reduction in ("mean", "sum", "none"):
        yield Case("ctc_loss", log_probs, targets, (6, 5, 4), (3, 2, 1), reduction=reduction)
    yield Case("ctc_loss", log_probs, np.array([1, 2, 2, 3, 1, 2]), (6, 5, 4), (3, 2, 1), id="targets in a row")
    yield Case("ctc_loss", log_probs, targets % 4, (6, 5, 4), (3, 2, 0), blank=4, reduction="none")
    repeated = np.array([[1, 1, 1], [3, 3, 3], [2, 1, 1]])
    yield Case("ctc_loss", log_probs, repeated, (6, 3, 4), (3, 3, 2), zero_infinity=True)
    yield Case("ctc_loss", log_probs[:, 0], targets[0], (6,), (3,))


def distances_and_norms():
    yield Case("cosine_similarity", real(3, 4), real(3, 4))
    yield Case("cosine_similarity", real(3, 4), real(4), dim=-1, eps=0.1)
    yield Case("cosine_similarity", np.zeros((1, 3)), real(1, 3), eps=0.1, id="zero")
    for p in (1.0, 2.0, 3.0, math.inf):
        yield Case("normalize", real(3, 4), p)
    yield Case("normalize", real(3, 4, 2), dim=(1, 2))
    yield Case("normalize", np.zeros((1, 3)), id="zero")
    x, weight, bias = real(3, 4, 5), unit(4), real(4)
    yield Case("layer_norm", x, (5,), real(5), real(5))
    yield Case("layer_norm", x, [4, 5], real(4, 5), eps=0.1)
    yield Case("layer_norm", x, (5,))
    yield Case("group_norm", x, 2, weight, bias)
    yield Case("group_norm", real(3, 4), 2)
    yield Case("group_norm", real(3, 4, 2, 2), 4, weight, eps=0.1)
    yield Case("instance_norm", x, weight=weight, bias=bias)
    yield Case("instance_norm", real(2, 4, 3, 3), real(4).view(Fixed), unit(4).view(Fixed), use_input_stats=False)
    for training, shape in itertools.product((False, True), ((6, 4), (3, 4, 5), (2, 4, 3, 2))):
        statistics = real(4).view(Fixed), unit(4).view(Fixed)
        yield Case("batch_norm", real(*shape), *statistics, weight, bias, training)
    yield Case("batch_norm", x, None, None, training=True, eps=0.1)


def attention_and_shapes():
    q, k, v = real(2, 3, 4, 5), real(2, 3, 6, 5), real(2, 3, 6, 2)
    mask = rng.uniform(size=(4, 6)) < 0.6
    mask[:, 0] = True
    name = "scaled_dot_product_attention"
    yield Case(name, q, k, v)
    yield Case(name, q, k, v, is_causal=True)
    yield Case(name, q, k, v, mask)
    yield Case(name, q, k, v, real(4, 6), scale=0.3)
    yield Case(name, q[0, 0], k[0, 0], v[0, 0], is_causal=True)
    yield Case(name, real(2, 4, 3, 5), real(2, 2, 6, 5), real(2, 2, 6, 5), enable_gqa=True)
    yield Case("embedding", integers(7, 2, 3), real(7, 4))
    yield Case("embedding", np.array([0, 2, 2, 6]), real(7, 4), padding_idx=2)
    yield Case("embedding", np.array(3), real(7, 4), padding_idx=-1)
    yield Case("one_hot", integers(4, 2, 3), 4)
    yield Case("dropout", real(3, 4), training=False)
    yield Case("dropout", real(3, 4), 0.0)
    yield Case("dropout", real(3, 4), 1.0)
    x = real(2, 3, 4, 5)
    yield Case("pad", x, (1, 2))
    yield Case("pad", x, (1, 2, 0, 3, 2, 0), value=1.5)
    yield Case("pad", x, (-1, 2, 1, -2))
    for mode in ("reflect", "replicate", "circular"):
        yield Case("pad", x, (1, 2, 3, 0), mode=mode)
    for mode in ("nearest", "bilinear", "area"):
        for settings in ({"size": (7, 3)}, {"scale_factor": 2}, {"scale_factor": (1.7, 0.6)}):
            yield Case("interpolate", x, mode=mode, **settings)
    yield Case("interpolate", x, size=(7, 3), mode="bilinear", align_corners=True)
    yield Case("interpolate", real(2, 3, 5), scale_factor=1.5, mode="linear")
    yield Case("interpolate", real(1, 2, 3, 4, 5), size=4, mode="trilinear", align_corners=True)
    yield Case("interpolate", real(1, 2, 3, 4, 5), size=4)
    grid = rng.uniform(-1.6, 1.6, (2, 4, 3, 2))
    for mode, padding, align in itertools.product(
        ("bilinear", "nearest"), ("zeros", "border", "reflection"), (True, False)
    ):
        yield Case("grid_sample", x, grid, mode, padding, align)
    yield Case("grid_sample", real(1, 2, 3, 4, 5), rng.uniform(-1.4, 1.4, (1, 2, 2, 3, 3)), "bilinear", "border", False)
    yield Case("affine_grid", real(2, 2, 3), (2, 1, 4, 5), False)
    yield Case("affine_grid", real(2, 2, 3), (2, 1, 4, 5), True)
    yield Case("affine_grid", real(1, 3, 4), (1, 1, 2, 4, 1), False)


CASES = [
    *convolutions(),
    *pools(),
    *activations(),
    *losses(),
    *alignments(),
    *distances_and_norms(),
    *attention_and_shapes(),
]


FIRST = {case.name: i for i, case in reversed(list(enumerate(CASES)))}


def cases(quick):
    """Parameters for a test of every case; as compiling takes long, only some are in the quick run."""
    marks = [[] if quick(i, case) else [pytest.mark.slow] for i, case in enumerate(CASES)]
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.id, marks=m) for case, m in zip(CASES, marks, strict=True)]
    )


every_case = cases(lambda i, case: i % 5 == 0 or FIRST[case.name] == i)


def functions():
    return {name for name, value in vars(F).items() if hasattr(value, "__wrapped__") and not name.startswith("_")}


def test_every_function_has_a_case():
    assert functions() - {case.name for case in CASES} == {"batch_norm_statistics"}


@functools.cache
def jax_and_graph(case):
    """The value, JAX's cotangents and the graph engine's, compiled as one; a cotangent for each inexact operand."""
    with jax.enable_x64(True):
        inexact, call = case.split(jnp.asarray)

        def f(*operands):
            return call(F, operands)

        shape = jax.eval_shape(f, *inexact)
        ct = np.random.default_rng(1).standard_normal(shape.shape)
        if not inexact or not jnp.issubdtype(shape.dtype, np.inexact):
            return f(*inexact), ct, (), ()

        @jax.jit
        def run(ct, *operands):
            out, pullback = jax.vjp(f, *operands)
            return out, pullback(ct), lax.optimization_barrier(graph.vjp(f, *operands)[1](ct))

        out, by_jax, by_graph = run(jnp.asarray(ct), *inexact)
        return out, ct, by_jax, by_graph


@every_case
def test_value_and_gradient_are_pytorchs(case):
    torch = pytest.importorskip("torch")
    inexact, call = case.split(torch.tensor)
    for operand in inexact:
        operand.requires_grad_()
    with warnings.catch_warnings():  # PyTorch warns of "mean" in kl_div, and of an even kernel with padding "same"
        warnings.simplefilter("ignore")
        expected = call(torch.nn.functional, inexact)
    out, ct, by_jax, _ = jax_and_graph(case)
    np.testing.assert_allclose(out, expected.detach().numpy(), **TOLERANCE)
    if by_jax:
        grads = torch.autograd.grad(expected, inexact, torch.tensor(ct), allow_unused=True)
        for found, grad in zip(by_jax, grads, strict=True):
            np.testing.assert_allclose(found, 0.0 if grad is None else grad.numpy(), **TOLERANCE)


@every_case
def test_the_graph_engines_gradient_is_jaxs(case):
    _, _, by_jax, by_graph = jax_and_graph(case)
    jax.tree.map(functools.partial(np.testing.assert_allclose, **TOLERANCE), by_graph, by_jax)


@cases(lambda i, case: FIRST[case.name] == i and i % 2)
def test_tensors_give_the_same(case):
    tape = pytest.importorskip("twograd.tape")
    out, ct, by_jax, _ = jax_and_graph(case)
    with jax.enable_x64(True):
        inexact, call = case.split(tape.tensor)
        for operand in inexact:
            operand.requires_grad = True
        found = call(F, inexact)
        assert type(found) is tape.Tensor
        np.testing.assert_allclose(found.detach().numpy(), out, **TOLERANCE)
        if by_jax:
            found.backward(tape.tensor(ct))
            for operand, expected in zip(inexact, by_jax, strict=True):
                grad = 0.0 if operand.grad is None else operand.grad.numpy()
                np.testing.assert_allclose(grad, expected, **TOLERANCE)


# --- where PyTorch is no oracle ---------------------------------------------------------------------------------------


def test_dropout_draws_by_its_key():
    x = jnp.ones((50, 40))
    out = F.dropout(x, 0.25, key=jax.random.key(0))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((out == 0).mean()) - 0.25) < 0.03
    np.testing.assert_array_equal(out, F.dropout(x, 0.25, key=jax.random.key(0)))
    assert (out != F.dropout(x, 0.25, key=jax.random.key(1))).any()
    grad = jax.grad(lambda x: F.dropout(x, 0.25, key=jax.random.key(0)).sum())(x)
    np.testing.assert_array_equal(grad, out)


def test_attention_drops_weights_by_its_key():
    q = jnp.eye(4)[None]
    out = F.scaled_dot_product_attention(q, q, q, dropout_p=0.5, dropout_key=jax.random.key(0))
    full = F.scaled_dot_product_attention(q, q, q)
    kept = out != 0
    assert 0 < kept.sum() < out.size
    np.testing.assert_allclose(out[kept], 2 * full[kept], rtol=1e-6)


def test_attention_to_nothing_is_zero():
    q = jnp.ones((2, 3))
    mask = jnp.array([[True, False], [False, False]])
    out, pullback = jax.vjp(lambda q: F.scaled_dot_product_attention(q, q, q, mask), q)
    np.testing.assert_array_equal(out, [[1, 1, 1], [0, 0, 0]])
    assert jnp.isfinite(pullback(out)[0]).all()


def test_a_class_out_of_range_is_nan():
    x = jnp.zeros((2, 3))
    for function in (F.cross_entropy, F.nll_loss):
        for bad in (3, -1):
            out = function(x, jnp.array([0, bad]), reduction="none")
            np.testing.assert_array_equal(jnp.isnan(out), [False, True])
    np.testing.assert_array_equal(jnp.isnan(F.embedding(jnp.array([0, 3, -1]), x.T)).all(1), [False, True, True])
    np.testing.assert_array_equal(F.one_hot(jnp.array([1, 3]), 3), [[0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
def test_batch_norm_statistics_are_what_pytorch_writes_in_place(shape):
    torch = pytest.importorskip("torch")
    x, mean, variance = real(*shape), real(4), unit(4)
    with jax.enable_x64(True):
        found = F.batch_norm_statistics(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(variance), momentum=0.3)
    expected = torch.tensor(mean), torch.tensor(variance)
    torch.nn.functional.batch_norm(torch.tensor(x), *expected, training=True, momentum=0.3)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE)


def test_binary_cross_entropy_is_cut_off_as_in_pytorch():
    p = jnp.array([0.0, 1.0, 0.0, 1.0])
    target = jnp.array([0.0, 1.0, 1.0, 0.0])
    out, pullback = jax.vjp(lambda p: F.binary_cross_entropy(p, target, reduction="none"), p)
    np.testing.assert_array_equal(out, [0, 0, 100, 100])
    assert jnp.isfinite(pullback(jnp.ones(4))[0]).all()


@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh", "leaky_relu"])
def test_second_derivatives_of_pieces_of_lines_are_zero(name):
    out = jax.vmap(jax.grad(jax.grad(getattr(F, name))))(jnp.asarray(KINKS, jnp.float32))
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize(("name", "at_zero"), [("softplus", [0.5, 0.25]), ("logsigmoid", [0.5, -0.25])])
def test_derivatives_at_zero(name, at_zero):
    f = getattr(F, name)
    np.testing.assert_allclose([jax.grad(f)(0.0), jax.grad(jax.grad(f))(0.0)], at_zero)


def test_half_precision_is_normalised_in_float32():
    x = jnp.asarray(100 + real(2, 300), jnp.bfloat16)
    out = F.layer_norm(x, (300,))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), F.layer_norm(x.astype(np.float32), (300,)), rtol=1e-2)


def test_the_common_functions_have_small_jaxprs():
    """Tracing costs by the equation; no nested jit, and no equation more than these."""
    x, w, target = jnp.ones((2, 3, 8, 8)), jnp.ones((4, 3, 3, 3)), jnp.zeros(2, int)
    counts = {
        "relu": jax.make_jaxpr(F.relu)(x),
        "linear": jax.make_jaxpr(F.linear)(x[0, 0], x[0, 0], x[0, 0, 0]),
        "conv2d": jax.make_jaxpr(F.conv2d)(x, w, w[:, 0, 0, 0]),
        "max_pool2d": jax.make_jaxpr(lambda x: F.max_pool2d(x, 2))(x),
        "avg_pool2d": jax.make_jaxpr(lambda x: F.avg_pool2d(x, 2))(x),
        "log_softmax": jax.make_jaxpr(lambda x: F.log_softmax(x, 1))(x),
        "cross_entropy": jax.make_jaxpr(F.cross_entropy)(x[:, :, 0, 0], target),
    }
    assert not [eqn for jaxpr in counts.values() for eqn in jaxpr.eqns if eqn.primitive.name in ("jit", "pjit")]
    found = {name: len(jaxpr.eqns) for name, jaxpr in counts.items()}
    assert found == {
        "relu": 3,
        "linear": 3,
        "conv2d": 3,
        "max_pool2d": 1,
        "avg_pool2d": 3,
        "log_softmax": 9,
        "cross_entropy": 25,
    }


# --- mistakes ---------------------------------------------------------------------------------------------------------

ONES = jnp.ones
MISTAKES = [
    (
        lambda: F.linear(ONES((2, 3)), ONES((4, 5))),
        ValueError,
        r"linear: input of size \[2, 3\] and weight of size \[4, 5\]",
    ),
    (lambda: F.linear(ONES((2, 3)), ONES((4, 3), np.float16)), TypeError, "linear: .*one dtype.*float32.*float16"),
    (lambda: F.conv2d(ONES((1, 3, 8, 8)), ONES((8, 4, 3, 3))), ValueError, "conv2d: .*to have 4 channels, but got 3"),
    (lambda: F.conv2d(ONES((8, 8)), ONES((8, 4, 3, 3))), ValueError, r"conv2d: expected 3D \(unbatched\) or 4D"),
    (lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3))), ValueError, "conv2d: expected 4D weight"),
    (lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3, 3), int)), TypeError, "conv2d: .*one dtype"),
    (lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((9, 2, 3, 3)), groups=2), ValueError, "conv2d: groups=2 must divide"),
    (
        lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3, 3)), ONES(4)),
        ValueError,
        r"conv2d: expected bias of size \[8\]",
    ),
    (lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3, 3)), stride=(1, 2, 3)), ValueError, "conv2d: stride must be"),
    (
        lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3, 3)), stride=2, padding="same"),
        ValueError,
        "conv2d: .*strided",
    ),
    (lambda: F.conv2d(ONES((1, 4, 8, 8)), ONES((8, 4, 3, 3)), padding="full"), ValueError, "conv2d: padding must be"),
    (lambda: F.conv2d(ONES((1, 4, 2, 8)), ONES((8, 4, 3, 3))), ValueError, "conv2d: .*smaller than the kernel"),
    (lambda: F.conv_transpose2d(ONES((1, 3, 8, 8)), ONES((4, 3, 2, 2))), ValueError, "conv_transpose2d: .*3 channels"),
    (
        lambda: F.conv_transpose2d(ONES((1, 3, 8, 8)), ONES((3, 4, 2, 2)), output_padding=1),
        ValueError,
        "conv_transpose2d: output_padding",
    ),
    (lambda: F.max_pool2d(ONES((3, 3)), 2), ValueError, "max_pool2d: expected 3D"),
    (lambda: F.max_pool2d(ONES((1, 3, 3)), 4), ValueError, "max_pool2d: .*smaller than the kernel"),
    (lambda: F.max_pool2d(ONES((1, 3, 3)), 2, padding=2), ValueError, "max_pool2d: padding .*half of the kernel"),
    (lambda: F.avg_pool2d(ONES((1, 3, 3)), 2, 0), ValueError, "avg_pool2d: .*at least 1"),
    (lambda: F.avg_pool2d(ONES((1, 3, 3), int), 2), TypeError, "avg_pool2d: expected floating-point"),
    (lambda: F.avg_pool2d(ONES((1, 3, 3)), 2, divisor_override=0), ValueError, "avg_pool2d: divisor_override"),
    (lambda: F.adaptive_avg_pool2d(ONES((1, 3, 3)), (1, 2, 3)), ValueError, "adaptive_avg_pool2d: output_size"),
    (lambda: F.adaptive_avg_pool2d(ONES((1, 3, 3)), 0), ValueError, "adaptive_avg_pool2d: output_size"),
    (lambda: F.adaptive_max_pool2d(ONES((1, 3, 3)), 0), ValueError, "adaptive_max_pool2d: output_size"),
    (lambda: F.grid_sample(ONES((1, 1, 2, 2)), ONES((2, 1, 1, 2))), ValueError, "grid_sample: expected input"),
    (lambda: F.grid_sample(ONES((1, 1, 2, 2)), ONES((1, 1, 1, 2)), "bicubic"), ValueError, "grid_sample: mode"),
    (lambda: F.grid_sample(ONES((1, 1, 2, 2)), ONES((1, 1, 1, 2)), "nearest", "wrap"), ValueError, "padding_mode"),
    (lambda: F.affine_grid(ONES((1, 2, 2)), (1, 1, 2, 2)), ValueError, "affine_grid: expected theta"),
    (
        lambda: F.ctc_loss(ONES((2, 1, 3)), ONES((1, 1)), (2, 2), (1,)),
        ValueError,
        r"expected input_lengths of size \[1\], got \[2\]",
    ),
    (lambda: F.ctc_loss(ONES((2, 1, 3)), ONES((1, 1)), (2,), (1,), 3), ValueError, "ctc_loss: blank"),
    (lambda: F.gelu(ONES(3), approximate="erf"), ValueError, "gelu: approximate must be"),
    (lambda: F.glu(ONES(3)), ValueError, "glu: .*even length"),
    (lambda: F.softmax(ONES(3, int), 0), TypeError, "softmax: expected floating-point"),
    (lambda: F.log_softmax(ONES(3, int), 0), TypeError, "log_softmax: expected floating-point"),
    (
        lambda: F.cross_entropy(ONES((2, 3)), ONES((3,), int)),
        ValueError,
        r"cross_entropy: .*class indices of size \[2\]",
    ),
    (lambda: F.cross_entropy(ONES((2, 3)), ONES((2,))), ValueError, "cross_entropy: the target's size"),
    (lambda: F.cross_entropy(ONES((2, 3)), ONES((2,), bool)), TypeError, "cross_entropy: expected a target of class"),
    (
        lambda: F.cross_entropy(ONES((2, 3)), ONES((2,), int), ONES(2)),
        ValueError,
        r"cross_entropy: expected weight .*\[3\]",
    ),
    (
        lambda: F.cross_entropy(ONES((2, 3)), ONES((2,), int), reduction="avg"),
        ValueError,
        "cross_entropy: 'avg' is not",
    ),
    (lambda: F.cross_entropy(ONES(()), ONES((), int)), ValueError, "cross_entropy: .*scalar"),
    (lambda: F.mse_loss(ONES((2, 1)), ONES(2)), ValueError, r"mse_loss: the target's size \[2\] differs"),
    (lambda: F.huber_loss(ONES(2), ONES(2), delta=0), ValueError, "huber_loss: delta must be positive"),
    (lambda: F.smooth_l1_loss(ONES(2), ONES(2), beta=-1), ValueError, "smooth_l1_loss: beta must not"),
    (lambda: F.one_hot(jnp.arange(3)), ValueError, "one_hot: num_classes must be given"),
    (lambda: F.one_hot(ONES(3), 4), TypeError, "one_hot: expected integers"),
    (lambda: F.embedding(ONES(3), ONES((4, 2))), TypeError, "embedding: expected integer indices"),
    (lambda: F.embedding(jnp.arange(3), ONES(4)), ValueError, "embedding: expected weight"),
    (lambda: F.embedding(jnp.arange(3), ONES((4, 2)), padding_idx=4), ValueError, "embedding: padding_idx 4"),
    (lambda: F.dropout(ONES(3)), ValueError, r"dropout: .*key=jax.random.key\(seed\)"),
    (lambda: F.dropout(ONES(3), 1.5), ValueError, "dropout: .*between 0 and 1, but got 1.5"),
    (
        lambda: F.scaled_dot_product_attention(ONES((2, 3)), ONES((2, 4)), ONES((2, 3))),
        ValueError,
        "scaled_dot_product_attention: expected query",
    ),
    (
        lambda: F.scaled_dot_product_attention(*[ONES((2, 3))] * 3, ONES((2, 2)), is_causal=True),
        ValueError,
        "scaled_dot_product_attention: give attn_mask or",
    ),
    (lambda: F.scaled_dot_product_attention(*[ONES((2, 3))] * 3, dropout_p=0.5), ValueError, "dropout_key=jax.random"),
    (lambda: F.layer_norm(ONES((2, 3)), (2,)), ValueError, r"layer_norm: given normalized_shape=\[2\]"),
    (lambda: F.layer_norm(ONES((2, 3)), (3,), ONES(2)), ValueError, r"layer_norm: expected weight of size \[3\]"),
    (lambda: F.group_norm(ONES((2, 3)), 2), ValueError, "group_norm: .*divisible by num_groups=2"),
    (lambda: F.instance_norm(ONES((2, 3, 1))), ValueError, "instance_norm: .*more than one spatial element"),
    (lambda: F.batch_norm(ONES((1, 3)), None, None, training=True), ValueError, "batch_norm: .*more than 1 value"),
    (lambda: F.batch_norm(ONES((2, 3)), None, None), ValueError, "batch_norm: expected running_mean and running_var"),
    (
        lambda: F.batch_norm(ONES((2, 3)), ONES(2), ONES(2)),
        ValueError,
        r"batch_norm: expected running_mean of size \[3\]",
    ),
    (lambda: F.pad(ONES(3), (1, 1, 1)), ValueError, "pad: expected pairs"),
    (lambda: F.pad(ONES(3), (1, 1), "mirror"), ValueError, "pad: mode must be"),
    (lambda: F.pad(ONES(3), (3, 0), "reflect"), ValueError, "pad: mode 'reflect' cannot pad"),
    (lambda: F.interpolate(ONES((1, 2, 3))), ValueError, "interpolate: give either size or"),
    (lambda: F.interpolate(ONES((1, 2, 3)), 4, mode="bilinear"), ValueError, "interpolate: mode 'bilinear'"),
    (lambda: F.interpolate(ONES((2, 3)), 4), ValueError, "interpolate: expected input"),
]


@pytest.mark.parametrize(("call", "error", "text"), MISTAKES, ids=[text[:30] for _, _, text in MISTAKES])
def test_mistakes_are_explained(call, error, text):
    with pytest.raises(error, match=text):
        call()
