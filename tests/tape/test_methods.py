"""Operators and methods against jax.numpy (values), jax.vjp (gradients) and PyTorch (both, in PyTorch's spelling)."""

import contextlib
import importlib
import operator
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises, same

from twograd import tape

rng = np.random.default_rng(0)
A = rng.normal(size=(2, 3))
B = rng.normal(size=(2, 3))
ROW = rng.normal(size=(3,))
COLUMN = rng.normal(size=(2, 1))
P = np.abs(A) + 0.5
U = A / (np.abs(A).max() + 0.1)  # between -1 and 1
C = rng.normal(size=(2, 3, 4))
S = np.array(0.7)
SQUARE = rng.normal(size=(3, 3))
N = np.array([[3, -2, 5], [7, 4, -1]])
J = np.array([2, -3, 4])
M = np.array([[True, False, True], [False, False, True]])
EMPTY = np.zeros((0, 3))
Z = A + 1j * B
W = B - 2j * A
ZEROS = np.array([0, 0])
WHERE = np.array([1, 0, -1, 1])


class Case:
    """``call`` is made of Tensors (and of PyTorch's, unless ``torch`` is False), and ``like`` of JAX arrays."""

    def __init__(self, name, call, like, *arrays, torch=True):
        self.name, self.call, self.like, self.arrays, self.torch = name, call, like, arrays, torch


JAX_NAMES = {
    "eq": "equal", "ge": "greater_equal", "gt": "greater", "le": "less_equal", "lt": "less", "ne": "not_equal",
    "mul": "multiply", "sub": "subtract", "amax": "max", "amin": "min",
}  # fmt: skip


def named(name, *arrays, like=None, torch=True, **keywords):
    """A method without arguments but its operands, that is JAX's function of its name."""
    like = like or getattr(jnp, JAX_NAMES.get(name, name))
    return Case(name, lambda x, *y: getattr(x, name)(*y, **keywords), like, *arrays, torch=torch)


def both_ways(symbol, *arrays, torch=True):
    """An operator between Tensors, and with a Python number on either side."""
    op = getattr(operator, symbol)
    yield Case(symbol, op, op, *arrays, torch=torch)
    number = 3 if arrays[0].dtype.kind == "i" else 1.5
    if symbol != "matmul":
        yield Case(f"{symbol}_number", lambda x: op(x, number), lambda x: op(x, number), arrays[0], torch=torch)
        yield Case(f"number_{symbol}", lambda x: op(number, x), lambda x: op(number, x), arrays[0], torch=torch)


OPERATORS = [
    *both_ways("add", A, B), *both_ways("sub", A, ROW), *both_ways("mul", COLUMN, ROW), *both_ways("truediv", A, P),
    *both_ways("pow", P, B), *both_ways("mod", A, P, torch=False),
    *both_ways("matmul", A, SQUARE), *both_ways("lt", A, B), *both_ways("le", A, B), *both_ways("gt", A, B),
    *both_ways("ge", A, B), *both_ways("eq", N, J), *both_ways("ne", N, J), *both_ways("and_", N, J),
    *both_ways("or_", N, J), *both_ways("xor", N, J), *both_ways("add", N, J), *both_ways("mod", N, J),
    *both_ways("floordiv", N, J), *both_ways("mul", Z, W), *both_ways("truediv", N, J),
    Case("and_bool", operator.and_, operator.and_, M, ~M), Case("neg", operator.neg, operator.neg, A),
    Case("pos", operator.pos, operator.pos, A), Case("abs", abs, abs, A),
    Case("invert", operator.invert, operator.invert, N), Case("invert_bool", operator.invert, operator.invert, M),
    Case("square", lambda x: x**2, lambda x: x**2, A), Case("cube_int", lambda x: x**3, lambda x: x**3, N),
    Case("power_0", lambda x: x**0, lambda x: x**0, A), Case("power_-2", lambda x: x**-2, lambda x: x**-2, A),
    Case("power_half", lambda x: x**0.5, lambda x: x**0.5, P), Case("2_to_x", lambda x: 2**x, lambda x: 2**x, A),
    Case("2_to_int", lambda x: 2**x, lambda x: 2**x, np.array([1, 4])),
    Case("zero_d", operator.mul, operator.mul, S, A), Case("vectors", operator.matmul, operator.matmul, ROW, ROW),
    Case("matrix_vector", operator.matmul, operator.matmul, A, ROW),
    Case("batches", operator.matmul, operator.matmul, C, C.swapaxes(1, 2)),
    Case("empty", operator.mul, operator.mul, EMPTY, ROW),
    Case("empty_matmul", operator.matmul, operator.matmul, EMPTY, SQUARE),
    Case("twice", lambda x: x * x + x, lambda x: x * x + x, A),
    Case("minus_itself", lambda x: x - x, lambda x: x - x, A),
    Case("complex_matmul", operator.matmul, operator.matmul, Z, W.T),
    Case("int_times_float", operator.mul, operator.mul, N, A),
    Case("bool_times_float", operator.mul, operator.mul, M, A), Case("times_1j", lambda x: x * 1j, lambda x: x * 1j, A),
]  # fmt: skip

UNARY = """abs absolute ceil cos cosh exp exp2 expm1 floor negative round sign sin sinh square tan tanh trunc isfinite
isinf isnan logical_not"""
ELEMENTWISE = [
    *(named(name, A) for name in UNARY.split()),
    *(named(name, P) for name in ("log", "log10", "log1p", "log2", "reciprocal", "sqrt")),
    *(named(name, U) for name in ("acos", "asin", "atan")),
    *(named(name, Z) for name in ("abs", "conj", "exp", "sin", "tanh", "reciprocal", "square", "sqrt")),
    *(named(name, N) for name in ("abs", "exp", "sin", "sign")), named("neg", A, like=jnp.negative),
    named("erf", A, like=jax.scipy.special.erf), named("rsqrt", P, like=jax.lax.rsqrt),
    named("erf", N, like=jax.scipy.special.erf),
    named("rsqrt", N**2 + 1, like=lambda x: (x**-0.5).astype(tape.get_default_dtype())),
    named("relu", A, like=jax.nn.relu), named("sigmoid", A, like=jax.nn.sigmoid),
    *(named(name, A, B) for name in ("add", "eq", "ge", "gt", "le", "lt", "maximum", "minimum", "mul", "ne", "sub")),
    *(named(name, A, P) for name in ("remainder",)), named("div", A, P, like=jnp.true_divide),
    named("atan2", A, B, like=jnp.arctan2), named("dot", ROW, ROW), named("matmul", A, SQUARE),
    named("outer", ROW, J + 0.5), named("mm", A, SQUARE, like=jnp.matmul), named("mv", A, ROW, like=jnp.matmul),
    named("logical_and", M, ~M), named("logical_or", M, M[:, ::-1].copy()), named("maximum", A, A),
    named("pow", P, B, like=jnp.power),
    Case("clamp", lambda x: x.clamp(-0.3, 0.4), lambda x: jnp.clip(x, -0.3, 0.4), A),
    Case("clamp_min", lambda x: x.clamp(min=0), lambda x: jnp.maximum(x, 0), A),
    Case("clamp_max", lambda x: x.clamp(max=0.1), lambda x: jnp.minimum(x, 0.1), A),
    Case("clamp_tensors", lambda x, y, z: x.clamp(y, z), jnp.clip, A, B - 1, B),
    Case("clip", lambda x: x.clip(-0.3, 0.4), lambda x: jnp.clip(x, -0.3, 0.4), A),
    Case("where", lambda x, c, y: x.where(c, y), lambda x, c, y: jnp.where(c, x, y), A, M, B),
    Case("where_row", lambda x, c, y: x.where(c, y), lambda x, c, y: jnp.where(c, x, y), A, M, ROW),
    Case("masked_fill", lambda x, c: x.masked_fill(c, 9.0), lambda x, c: jnp.where(c, 9.0, x), A, M),
    Case("clone", lambda x: x.clone(), lambda x: x, A), Case("contiguous", lambda x: x.contiguous(), lambda x: x, A),
    Case("float", lambda x: x.float(), lambda x: x.astype("float32"), A),
    Case("double", lambda x: x.double(), lambda x: x.astype("float64"), N),
    Case("bool", lambda x: x.bool(), lambda x: x.astype(bool), A),
    Case("int", lambda x: x.int(), lambda x: x.astype("int32"), A * 9),
    Case("long", lambda x: x.long(), lambda x: x.astype("int64"), A * 9),
    Case("half", lambda x: x.half(), lambda x: x.astype("float16"), A),
    Case("to", lambda x: x.to(np.complex128), lambda x: x.astype(complex), A, torch=False),
    Case("astype", lambda x: x.astype("float32"), lambda x: x.astype("float32"), A, torch=False),
]  # fmt: skip


def reduction(name, *arrays, like=None, each=((), (0,), (-1,))):
    like = like or getattr(jnp, JAX_NAMES.get(name, name))
    for array in arrays:
        for dim in each:
            axis = dim[0] if dim else None
            yield Case(
                f"{name}({axis})",
                lambda x, dim=dim: getattr(x, name)(*dim),
                lambda x, axis=axis: like(x, axis=axis),
                array,
            )
    yield Case(
        f"{name}(keepdim)",
        lambda x: getattr(x, name)(dim=-1, keepdim=True),
        lambda x: like(x, axis=-1, keepdims=True),
        arrays[0],
    )
    yield Case(
        f"{name}(keepdims)",
        lambda x: getattr(x, name)(axis=0, keepdims=True),
        lambda x: like(x, axis=0, keepdims=True),
        arrays[0],
        torch=False,
    )


def scans(module, name):
    function = getattr(module, name)
    for dim in (0, -1):
        yield Case(f"{name}({dim})", lambda x, d=dim: getattr(x, name)(d), lambda x, d=dim: function(x, axis=d), A)


NORMS = (2, 1, 3, float("inf"), -float("inf"))


def bessel(function):
    return lambda x, **kwargs: function(x, ddof=1, **kwargs)


REDUCTIONS = [
    *reduction("sum", A, C, N, each=((), (0,), (-1,), ((0, 1),))), *reduction("mean", A, C, each=((), (1,), ((0, 1),))),
    *reduction("prod", A), *reduction("amax", A, each=((), (0,), ((0, 1),))), *reduction("amin", A),
    *reduction("argmax", A), *reduction("argmin", A), *reduction("all", M), *reduction("any", M),
    *reduction("logsumexp", A, like=jax.nn.logsumexp, each=((0,), (-1,))), *reduction("std", A, like=bessel(jnp.std)),
    *reduction("var", A, C, like=bessel(jnp.var)),
    Case("var_biased", lambda x: x.var(0, False), lambda x: jnp.var(x, 0), A),
    Case("var_all_biased", lambda x: x.var(False), jnp.var, A),
    Case("var_correction", lambda x: x.var(1, correction=0), lambda x: jnp.var(x, 1), A),
    Case("std_unbiased", lambda x: x.std(unbiased=False), jnp.std, A),
    Case("sum_list", lambda x: x.sum([0, 2]), lambda x: jnp.sum(x, (0, 2)), C),
    Case("sum_empty", lambda x: x.sum(0), lambda x: jnp.sum(x, 0), EMPTY),
    Case("sum_0d", lambda x: x.sum(), jnp.sum, S), Case("sum_bool", lambda x: x.sum(), jnp.sum, M),
    Case("sum_complex", lambda x: x.sum(1), lambda x: jnp.sum(x, 1), Z),
    Case("prod_zero", lambda x: x.prod(), jnp.prod, np.array([0.0, 2.0, 3.0])),
    Case("prod_zeros", lambda x: x.prod(), jnp.prod, np.array([0.0, 2.0, 0.0])),
    Case("max", lambda x: x.max(), jnp.max, A), Case("min", lambda x: x.min(), jnp.min, A),
    Case("max_other", lambda x, y: x.max(y), jnp.maximum, A, B),
    Case("min_other", lambda x, y: x.min(y), jnp.minimum, A, B),
    Case("max_dim", lambda x: tuple(x.max(1)), lambda x: (jnp.max(x, 1), jnp.argmax(x, 1)), A),
    Case("min", lambda x: tuple(x.min(0, True)), lambda x: (x.min(0, keepdims=True), x.argmin(0, keepdims=True)), A),
    Case("max_named", lambda x: x.max(dim=-1).values, lambda x: jnp.max(x, -1), C),
    Case("max_axis", lambda x: x.max(axis=1), lambda x: jnp.max(x, 1), A, torch=False),
    *(Case(f"norm_{p}", lambda x, p=p: x.norm(p), lambda x, p=p: jnp.linalg.norm(x.ravel(), p), A) for p in NORMS),
    Case("norm", lambda x: x.norm(), lambda x: jnp.sqrt(jnp.sum(x * x)), A),
    Case("norm_0", lambda x: x.norm(0), lambda x: jnp.sum(x != 0) * 1.0, np.array([1.0, 0.0])),
    Case("norm_dim", lambda x: x.norm(dim=1, keepdim=True), lambda x: jnp.linalg.norm(x, axis=1, keepdims=True), A),
    Case("norm_fro", lambda x: x.norm("fro", dim=[0, 1]), jnp.linalg.norm, A),
    Case("norm_complex", lambda x: x.norm(), jnp.linalg.norm, Z),
    *scans(jnp, "cumsum"), *scans(jnp, "cumprod"), *scans(jax.nn, "softmax"), *scans(jax.nn, "log_softmax"),
    Case("cumsum_flat", lambda x: x.cumsum(), jnp.cumsum, A, torch=False),
    Case("softmax_last", lambda x: x.softmax(), jax.nn.softmax, A, torch=False),
    Case("cumsum_axis", lambda x: x.cumsum(axis=0), lambda x: jnp.cumsum(x, 0), A, torch=False),
    Case("argsort", lambda x: x.argsort(), jnp.argsort, A),
    Case("argsort_down", lambda x: x.argsort(0, descending=True), lambda x: jnp.argsort(x, 0, descending=True), A),
    Case("sort", lambda x: tuple(x.sort()), lambda x: (jnp.sort(x), jnp.argsort(x)), A),
    Case("sort_down", lambda x: x.sort(0, True).values, lambda x: jnp.sort(x, 0, descending=True), A),
]  # fmt: skip

SHAPES = [
    Case("reshape", lambda x: x.reshape(3, 2), lambda x: x.reshape(3, 2), A),
    Case("reshape_-1", lambda x: x.reshape((4, -1)), lambda x: x.reshape(4, -1), C),
    Case("reshape_empty", lambda x: x.reshape(3, 0), lambda x: x.reshape(3, 0), EMPTY),
    Case("reshape_0d", lambda x: x.reshape(1, 1), lambda x: x.reshape(1, 1), S),
    Case("view", lambda x: x.view(-1), lambda x: x.reshape(-1), A),
    Case("permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), C),
    Case("permute_tuple", lambda x: x.permute((0, -1, 1)), lambda x: x.transpose(0, 2, 1), C),
    Case("transpose", lambda x: x.transpose(0, 1), lambda x: x.T, A),
    Case("transpose_named", lambda x: x.transpose(dim0=0, dim1=-1), lambda x: x.transpose(2, 1, 0), C),
    Case("transpose_all", lambda x: x.transpose(), lambda x: x.T, C, torch=False),
    Case("transpose_axes", lambda x: x.transpose(1, 0, 2), lambda x: x.transpose(1, 0, 2), C, torch=False),
    Case("transpose_tuple", lambda x: x.transpose((0, 1)), lambda x: x, A, torch=False),
    Case("T", lambda x: x.T, lambda x: x.T, A), Case("mT", lambda x: x.mT, lambda x: x.mT, C),
    Case("t", lambda x: x.t(), lambda x: x.T, A), Case("t_vector", lambda x: x.t(), lambda x: x, ROW),
    Case("flatten", lambda x: x.flatten(), lambda x: x.ravel(), C),
    Case("flatten_1", lambda x: x.flatten(1), lambda x: x.reshape(2, 12), C),
    Case("flatten_0_1", lambda x: x.flatten(0, 1), lambda x: x.reshape(6, 4), C),
    Case("flatten_0d", lambda x: x.flatten(), lambda x: x.reshape(1), S),
    Case("flatten_empty", lambda x: x.flatten(1), lambda x: x, EMPTY),
    Case("squeeze", lambda x: x.squeeze(), lambda x: x[:, 0], COLUMN),
    Case("squeeze_dim", lambda x: x.squeeze(1), lambda x: x[:, 0], COLUMN),
    Case("squeeze_other", lambda x: x.squeeze(0), lambda x: x, COLUMN),
    Case("squeeze_tuple", lambda x: x.squeeze((0, 1)), lambda x: x[:, 0], COLUMN),
    Case("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None], A),
    Case("unsqueeze_0", lambda x: x.unsqueeze(0), lambda x: x[None], S),
    Case("expand", lambda x: x.expand(4, 2, 3), lambda x: jnp.broadcast_to(x, (4, 2, 3)), COLUMN),
    Case("expand_-1", lambda x: x.expand(-1, 5), lambda x: jnp.broadcast_to(x, (2, 5)), COLUMN),
    Case("repeat", lambda x: x.repeat(2, 1, 2), lambda x: jnp.tile(x, (2, 1, 2)), A),
    Case("flip", lambda x: x.flip(0, 1), jnp.flip, A),
    Case("flip_tuple", lambda x: x.flip((1,)), lambda x: jnp.flip(x, 1), A),
    Case("flip_all", lambda x: x.flip(), jnp.flip, A, torch=False),
]  # fmt: skip

INDICES = [
    0, -1, (1, 2), slice(None), slice(1, None), slice(None, None, 2), slice(0, -1), None, Ellipsis, (..., 0), (0, ...),
    (slice(None), 1), (None, 1, ..., None), (slice(None), slice(None, None, 2)), [0, 1, 0], ([0, 1], [1, 2]),
    (slice(None), [2, 0]), (..., [0, 3]), True, False, (1, slice(1, 3), -1), [], slice(5, 9), ([[0], [1]], [1, 2]),
    np.int64(1), (np.array([1, 0]), slice(0, 2)), np.array([True, False]), (slice(None), np.array([True, False, True])),
    (np.array([True, True]), 1), (),
]  # fmt: skip


def listed(index):
    """JAX takes no lists."""
    index = tuple(map(listed, index)) if isinstance(index, tuple) else index
    return np.array(index, int) if isinstance(index, list) else index


INDEXING = [
    *(Case(f"getitem[{i}]", lambda x, i=i: x[i], lambda x, i=i: x[listed(i)], C) for i in INDICES),
    Case("reversed", lambda x: x[::-1, 2:0:-1], lambda x: x[::-1, 2:0:-1], C, torch=False),
    Case("integer_first", lambda x: x[0, :, [1, 2]], lambda x: x[0][:, jnp.array([1, 2])], C),
    Case("integer_last", lambda x: x[[1, 0], :, 2], lambda x: x[..., 2][jnp.array([1, 0])], C),
    Case("integer_and_mask", lambda x, m: x[1, :, m], lambda x, m: x[1][:, np.array([*M[0], True])], C,
         np.array([*M[0], True])),
    Case("index_tensor", lambda x, i: x[i], lambda x, i: x[i], A, WHERE),
    Case("index_0d", lambda x, i: x[i], lambda x, i: x[i], A, np.array(1)),
    Case("two_tensors", lambda x, i, j: x[i, j], lambda x, i, j: x[i, j], A, WHERE, WHERE + 1),
    Case("mask", lambda x, m: x[m], lambda x, m: x[M], A, M),
    Case("mask_and_rest", lambda x, m: x[m], lambda x, m: x[M], C, M),
    Case("mask_none", lambda x, m: x[m], lambda x, m: x[np.zeros_like(M)], A, np.zeros_like(M)),
    Case("mask_scalar", lambda x, m: x[m], lambda x, m: x[None], A, np.array(True)),
    Case("iterate", lambda x: [*x][1], lambda x: x[1], A),
    Case("slice_tensor", lambda x, i: x[: i], lambda x, i: x[:1], A, np.array(1)),
    Case("int_tensor", lambda x: x[0], lambda x: x[0], N),
    Case("complex_index", lambda x: x[1, 0], lambda x: x[1, 0], Z),
]  # fmt: skip


def updated(how):
    def update(x, y):
        return getattr(x.at[..., 1], how)(y)

    return Case(how, update, update, P, P[:, 0], torch=False)


UPDATES = [
    Case("set_row", lambda x, y: x.at[0].set(y), lambda x, y: x.at[0].set(y), A, ROW, torch=False),
    Case("set_number", lambda x: x.at[1, 2].set(7.0), lambda x: x.at[1, 2].set(7.0), A, torch=False),
    Case("set_slice", lambda x, y: x.at[:, ::2].set(y), lambda x, y: x.at[:, ::2].set(y), A, COLUMN, torch=False),
    Case("set_mask", lambda x, m: x.at[m].set(0.0), lambda x, m: jnp.where(m, 0.0, x), A, M, torch=False),
    Case("add_repeated", lambda x, y: x.at[[0, 0]].add(y), lambda x, y: x.at[ZEROS].add(y), A, B, torch=False),
    Case("add_tensor", lambda x, i: x.at[i].add(1.0), lambda x, i: x.at[i].add(1.0), A, WHERE, torch=False),
    *(updated(how) for how in ("set", "add", "subtract", "multiply", "divide", "min", "max")),
    Case("power", lambda x: x.at[0].power(2), lambda x: x.at[0].power(2), P, torch=False),
]  # fmt: skip

CASES = [*OPERATORS, *ELEMENTWISE, *REDUCTIONS, *SHAPES, *INDEXING, *UPDATES]


SLOW = [f"{symbol}_number" for symbol in ("lt", "le", "gt", "ge", "eq", "ne", "and_", "or_", "xor", "mod", "floordiv")]
SLOW += [f"number_{name.removesuffix('_number')}" for name in SLOW]


def parameters(cases):
    """The first case of a name, and every fifth of the others, run always; the rest with the slow tests."""
    seen = Counter()
    for case in cases:
        kind = re.split(r"\W", case.name)[0]
        rare = kind in SLOW or seen[kind] % 5
        marks = [pytest.mark.slow] if rare else []
        seen[kind] += 1
        yield pytest.param(case, id=case.name, marks=marks)


def is_inexact(array):
    """For NumPy's, JAX's and PyTorch's dtypes."""
    return "float" in str(array.dtype) or "complex" in str(array.dtype)


def inexact_positions(case):
    return [i for i, array in enumerate(case.arrays) if is_inexact(array)]


@pytest.fixture(scope="module")
def references(request):
    """Every case's results, cotangents for them and gradients by JAX, compiled as one program: that takes seconds."""

    def inexact_call(case):
        def call(*given):
            filled = list(map(jnp.asarray, case.arrays))
            for i, array in zip(inexact_positions(case), given, strict=True):
                filled[i] = array
            results = jax.tree.leaves(case.like(*filled))
            return [r for r in results if is_inexact(r)], results

        return call, [jnp.asarray(case.arrays[i]) for i in inexact_positions(case)]

    def all_vjps(calls, cts):
        for (call, given), case_cts in zip(calls, cts, strict=True):
            _, vjp, results = jax.vjp(call, *given, has_aux=True)
            yield results, vjp(case_cts)

    given = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    selected = dict.fromkeys(case for case in given if isinstance(case, Case))
    with jax.enable_x64(True):
        calls = list(map(inexact_call, selected))
        outs = [jax.eval_shape(call, *given)[0] for call, given in calls]
        cts = [[np.asarray(rng.normal(size=o.shape), o.dtype) for o in case_outs] for case_outs in outs]
        computed = jax.jit(lambda cts: list(all_vjps(calls, cts)))(cts)
    return {case: (*results, case_cts) for case, results, case_cts in zip(selected, computed, cts, strict=True)}


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", list(parameters(CASES)))
def test_as_jax(case, references):
    results, expected_grads, cts = references[case]
    tensors = [tape.tensor(a, requires_grad=is_inexact(a)) for a in case.arrays]
    outs = jax.tree.leaves(case.call(*tensors))
    assert all(type(out) is tape.Tensor for out in outs)
    same([out.array for out in outs], results, rtol=1e-12)
    grads = gradients(tape, tensors, outs, cts)
    if grads is None:
        assert all((g == 0).all() for g in expected_grads)
    else:
        same([g.array for g in grads], list(expected_grads), rtol=1e-10)


@pytest.mark.parametrize("case", list(parameters(case for case in CASES if case.torch)))
def test_as_pytorch(case, references):
    torch = pytest.importorskip("torch")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    cts = references[case][2]
    grads = []
    for module in (tape, torch):
        tensors = [module.tensor(a, requires_grad=is_inexact(a)) for a in case.arrays]
        outs = jax.tree.leaves(case.call(*tensors))
        # PyTorch's gradient with respect to a complex tensor is the conjugate of JAX's.
        grads.append(gradients(module, tensors, outs, [np.conj(ct) for ct in cts] if module is tape else cts))
        results = [o.detach().numpy() if module is tape else o.detach().resolve_conj().numpy() for o in outs]
        if module is tape:
            ours = results
    torch.set_default_dtype(default)
    close(ours, results)
    if grads[0] is not None:
        close([np.conj(g.numpy()) for g in grads[0]], [g.resolve_conj().numpy() for g in grads[1]])


def gradients(module, tensors, outs, cts):
    """None where nothing depends on what requires a gradient."""
    cts = iter(cts)
    roots = [(out, next(cts)) for out in outs if is_inexact(out.detach())]
    roots = [(out, module.tensor(ct)) for out, ct in roots if out.requires_grad]
    inputs = [t for t in tensors if t.requires_grad]
    if not roots or not inputs:
        return None
    return module.autograd.grad([out for out, _ in roots], inputs, [ct for _, ct in roots], materialize_grads=True)


def close(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


# --- what the table does not say --------------------------------------------------------------------------------------

KINKS = [
    ("relu", lambda x: x.relu(), [-1.0, 0.0, 1.0], [0, 0, 1]),
    ("abs", lambda x: x.abs(), [-1.0, 0.0, 1.0], [-1, 0, 1]),
    ("clamp", lambda x: x.clamp(0, 1), [-1.0, 0.0, 1.0, 2.0], [0, 1, 1, 0]),
    ("maximum", lambda x: x.maximum(x * 0), [0.0, 1.0], [0.5, 1]),
    ("max", lambda x: x.max(), [2.0, 2.0, 1.0], [0.5, 0.5, 0]),
    ("amax", lambda x: x.amax(0), [2.0, 2.0, 1.0], [0.5, 0.5, 0]),
    ("max_dim", lambda x: x.max(0).values, [2.0, 2.0, 1.0], [1, 0, 0]),
    ("min_dim", lambda x: x.min(0).values, [2.0, 1.0, 1.0], [0, 1, 0]),
    ("norm", lambda x: x.norm(), [0.0, 0.0], [0, 0]),
    ("norm_1", lambda x: x.norm(1), [0.0, 2.0], [0, 1]),
    ("std", lambda x: x.std(), [1.0, 1.0, 1.0], [0, 0, 0]),
    ("square", lambda x: x**2, [0.0], [0]),
    ("sign", lambda x: x.sign(), [-2.0, 0.0], [0, 0]),
    ("floor", lambda x: x.floor(), [1.0, 1.5], [0, 0]),
    ("power_0", lambda x: x**0, [0.0, 1.0], [0, 0]),
    ("sqrt", lambda x: x.sqrt(), [0.0], [np.inf]),
]


@pytest.mark.parametrize(("call", "at", "gradient"), [kink[1:] for kink in KINKS], ids=[kink[0] for kink in KINKS])
def test_at_kinks_as_pytorch(call, at, gradient):
    modules = [tape]
    with contextlib.suppress(ImportError):
        modules.append(importlib.import_module("torch"))
    for module in modules:
        x = module.tensor(at, requires_grad=True)
        call(x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), gradient)


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "pow", "lt", "ge", "eq", "ne"])
def test_arrays_of_numpy_and_jax_on_either_side(symbol):
    op = getattr(operator, symbol)
    x, y = tape.tensor(P, requires_grad=True), tape.tensor(P + B.round())
    between = op(x, y)
    for foreign in (jnp.asarray, np.asarray):
        for mixed in (op(x, foreign(y)), op(foreign(P), y)):
            assert type(mixed) is tape.Tensor
            same(mixed.array, between.array)
    assert op(x, y.numpy()).requires_grad == between.requires_grad
    assert op(y.numpy(), x).requires_grad == between.requires_grad
    assert type(op(np.float32(2), x)) is type(op(x, np.float32(2))) is tape.Tensor


def test_matmul_of_arrays_on_either_side():
    x = tape.tensor(A, requires_grad=True)
    for foreign in (jnp.asarray, np.asarray):
        same((foreign(SQUARE) @ x.T).array, jnp.asarray(SQUARE @ A.T))
        same((x @ foreign(SQUARE)).array, jnp.asarray(A @ SQUARE))


@pytest.mark.parametrize("number", [2, 2.0, True, np.int32(2)])
def test_python_numbers_do_not_widen(number):
    x = tape.ones(2, dtype=jnp.bfloat16, requires_grad=True)
    for y in (x * number, number + x, x / number, x**number, number**x, x.clamp(0.0, number)):
        assert y.dtype == (jnp.float32 if isinstance(number, np.generic) and y.dtype != jnp.bfloat16 else jnp.bfloat16)
    y = (x * number).sum()
    y.backward()
    assert x.grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(x.grad.numpy(), [int(number)] * 2)


def test_without_x64_dtypes_are_narrow():
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match="float64 is float32 here"):
            assert tape.tensor([1.0]).double().dtype == np.float32
        assert tape.tensor([1]).long().dtype == np.int32
        assert (tape.tensor([1]) / 2).dtype == np.float32


def test_comparison_with_what_is_no_number():
    x = tape.tensor([1.0, 2.0])
    for other in (None, "a", [1.0, 2.0], object()):
        assert (x == other) is False
        assert (x != other) is True
    assert hash(x) != hash(tape.tensor([1.0, 2.0]))
    assert 2.0 in x
    assert 3.0 not in x


def test_sizes():
    x = tape.tensor(C)
    assert (x.size(), x.size(-1), x.dim(), x.numel(), len(x)) == ((2, 3, 4), 4, 3, 24, 2)


def test_format():
    assert f"{tape.tensor(1.5):.3f} {tape.tensor([1.5])}" == "1.500 tensor([1.5000])"
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{tape.tensor([1.5]):.3f}"


ERRORS = [
    (lambda m, x: x.sum(2), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got 2)"),
    (lambda m, x: x.softmax(-3), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got -3)"),
    (lambda m, x: x.unsqueeze(4), IndexError, "Dimension out of range (expected to be in range of [-3, 2], but got 4)"),
    (lambda m, x: x.squeeze(2), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got 2)"),
    (lambda m, x: x.transpose(0, 2), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got"),
    (lambda m, x: x.reshape(4, 2), RuntimeError, "shape '[4, 2]' is invalid for input of size 6"),
    (lambda m, x: x.reshape(4, -1), RuntimeError, "shape '[4, -1]' is invalid for input of size 6"),
    (lambda m, x: x.reshape(-1, -1), RuntimeError, "only one dimension can be inferred"),
    (lambda m, x: x.expand(3), RuntimeError, "the number of sizes provided (1) must be greater or equal to the number"),
    (
        lambda m, x: x.expand(4, 2, 5),
        RuntimeError,
        "The expanded size of the tensor (5) must match the existing size (3) at non-singleton dimension 2.  "
        "Target sizes: [4, 2, 5].  Tensor sizes: [2, 3]",
    ),
    (lambda m, x: x.repeat(2), RuntimeError, "Number of dimensions of repeat dims can not be smaller than number of"),
    (lambda m, x: x.flatten(1, 0), RuntimeError, "flatten() has invalid args: start_dim cannot come after end_dim"),
    (lambda m, x: x.unsqueeze(0).t(), RuntimeError, "t() expects a tensor with <= 2 dimensions, but self is 3D"),
    (lambda m, x: x.clamp(), RuntimeError, "At least one of 'min' or 'max' must not be None"),
    (lambda m, x: x[2], IndexError, "index 2 is out of bounds for dimension 0 with size 2"),
    (lambda m, x: x[-3], IndexError, "index -3 is out of bounds for dimension 0 with size 2"),
    (lambda m, x: x[..., 3], IndexError, "index 3 is out of bounds for dimension 1 with size 3"),
    (lambda m, x: x[:, None, 5], IndexError, "is out of bounds for dimension"),
    (lambda m, x: x[[0, 2]], IndexError, "index 2 is out of bounds for dimension 0 with size 2"),
    (lambda m, x: x[:, m.tensor([0, 3])], IndexError, "index 3 is out of bounds for dimension"),
    (lambda m, x: x[0, 0, 0], IndexError, "too many indices for tensor of dimension 2"),
    (lambda m, x: x.sum()[0], IndexError, "invalid index of a 0-dim tensor"),
    (lambda m, x: x[1.0], IndexError, "None and long or byte Variables are valid indices (got float)"),
    (lambda m, x: x[m.tensor([1.0])], IndexError, "tensors used as indices must be"),
    (
        lambda m, x: x[m.tensor([True, False, True])],
        IndexError,
        "The shape of the mask [3] at index 0 does not match the shape of the indexed tensor [2, 3] at index 0",
    ),
    (
        lambda m, x: x[:, m.tensor([True, False])],
        IndexError,
        "The shape of the mask [2] at index 0 does not match the shape of the indexed tensor [2, 3] at index 1",
    ),
    (lambda m, x: [*x.sum()], TypeError, "iteration over a 0-d tensor"),
    (lambda m, x: x + object(), TypeError, ""),
    (lambda m, x: x + None, TypeError, ""),
    (lambda m, x: x.norm(2, 5), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got 5)"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[text[:40] for _, _, text in ERRORS])
@pytest.mark.parametrize("name", ["twograd.tape", "torch"])
def test_errors_are_pytorchs(name, call, error, text):
    module = pytest.importorskip(name)
    with raises(error, text):
        call(module, module.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))


def test_sparse_tensors_are_refused_with_the_way_out():
    indices, values = tape.tensor([[0, 1, 1], [2, 0, 2]]), tape.tensor([3.0, 4.0, 5.0], requires_grad=True)
    for act in (lambda: tape.sparse_coo_tensor(indices, values, (2, 3)), values.to_sparse):
        with pytest.raises(
            NotImplementedError, match=r"torch.zeros\(size\).index_put\(tuple\(indices\), values, accumu"
        ):
            act()
    dense = tape.zeros(2, 3).index_put(tuple(indices), values, accumulate=True)
    assert dense.to_dense().tolist() == [[0.0, 0.0, 3.0], [4.0, 0.0, 5.0]]
    dense.square().sum().backward()
    assert values.grad.tolist() == [6.0, 8.0, 10.0]


def test_out_of_range_is_an_error_of_numpys_kind_too():
    with pytest.raises(ValueError, match="Dimension out of range"):
        tape.ones(2).sum(3)
    with raises(np.exceptions.AxisError, "Dimension out of range (expected to be in range of [-1, 0], but got 1)"):
        tape.tensor(1.0).sum(1)
    with raises(np.exceptions.AxisError, "Dimension specified as 1 but tensor has no dimensions"):
        tape.tensor(1.0).unbind(1)


def test_errors_of_functional_updates():
    with pytest.raises(AttributeError, match="has no 'sett'; it has set, add"):
        tape.ones(2).at[0].sett(1.0)
    with pytest.raises(IndexError, match="out of bounds"):
        tape.ones(2).at[2].set(1.0)


def test_traced_indices_are_clamped_as_jax_does():
    picked = jax.jit(lambda i: tape.tensor([1.0, 2.0])[tape.Tensor(i)].array)(jnp.array([0, 5]))
    same(picked, jnp.array([1.0, 2.0]))
