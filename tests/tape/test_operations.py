"""Every operation, as method or function, against PyTorch: values, dtypes and gradients, one row per case."""

import importlib
import re

import jax
import numpy as np
import pytest

import twograd.tape as tape
from tape.both import both
from twograd.tape import fft, functions, linalg, operations, special
from twograd.tape.nn import functional

rng = np.random.default_rng(7)
A = rng.normal(size=(2, 3))
B = rng.normal(size=(2, 3))
COL = rng.normal(size=(2, 1))
ROW = rng.normal(size=(3,))
V = rng.normal(size=(4,))
P = np.abs(A) + 0.3  # positive
U = np.array([[0.1, 0.5, 0.9], [0.3, 0.7, 0.2]])  # between 0 and 1
C = rng.normal(size=(2, 3, 4))
D = rng.normal(size=(2, 4, 3))
SQ = rng.normal(size=(3, 3))
SPD = SQ @ SQ.T + np.eye(3)
S = np.array(0.7)
EMPTY = np.zeros((0, 3))
TIES = np.array([[1.0, 3.0, 3.0, 2.0], [2.0, 2.0, 1.0, 2.0]])
NAN = np.array([[1.0, np.nan, 3.0], [np.inf, -np.inf, 0.0]])
N = np.array([[3, -2, 5], [7, 4, -1]])
K = np.array([[2, 3, 1], [1, 2, 4]])
BOOL = np.array([[True, False, True], [False, False, True]])
I = np.array([[0, 1, 1], [1, 0, 0]])  # noqa: E741 # indices along a dimension of size 2 or more
J = np.array([1, 0, 1])
Z = A + 1j * B


class Case:
    """A call of the method ``name`` of the first argument, or of the function in ``of``. Arrays become Tensors."""

    def __init__(self, name, *args, of="", grad=True, sign=True, **kwargs):
        self.name, self.args, self.kwargs, self.of, self.grad, self.sign = name, args, kwargs, of, grad, sign

    def arrays(self):
        leaves = jax.tree.leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]

    def call(self, module, tensors):
        given = iter(tensors)
        args, kwargs = jax.tree.map(
            lambda leaf: next(given) if isinstance(leaf, np.ndarray) else leaf, (self.args, self.kwargs)
        )
        if self.of:
            return getattr(importlib.import_module(f"{module.__name__}{self.of.removeprefix('torch')}"), self.name)(
                *args, **kwargs
            )
        return getattr(args[0], self.name)(*args[1:], **kwargs)


def f(name, *args, **kwargs):
    return Case(name, *args, of="torch", **kwargs)


UNARY_AT = {"acosh": P + 1, "arccosh": P + 1, "bitwise_not": N, "conj": Z, "conj_physical": Z, "angle": Z, "isreal": Z}
INTEGER = ["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "gcd", "lcm"]
POSITIVE = ["igamma", "igammac", "xlogy"]
NO_GRADIENT = ["floor_divide", "heaviside", "igamma", "igammac"]  # in PyTorch
FIRST_U = ["acos", "arccos", "asin", "arcsin", "atanh", "arctanh", "erfinv"]

CASES = [
    *(Case(name, UNARY_AT.get(name, U if name in FIRST_U else P)) for name in operations.UNARY),
    *(Case(name, A) for name in operations.UNARY if name not in UNARY_AT and name not in FIRST_U and not re.match(
        r"log|sqrt|rsqrt|digamma|lgamma", name)),
    *(Case(name, N) for name in ["abs", "neg", "sign", "square", "sin", "sqrt", "isnan", "reciprocal", "sigmoid", "relu", "exp", "deg2rad"]),
    *(Case(name, S) for name in ("sin", "exp", "abs", "round")), *(Case(n, EMPTY) for n in ("sin", "neg", "isnan")),
    *(Case(name, np.abs(N) if "shift" in name else N, K) for name in INTEGER),
    *(Case(name, P, U, grad=name not in NO_GRADIENT) for name in operations.BINARY if name not in INTEGER),
    *(Case(name, A, COL, grad=name not in NO_GRADIENT) for name in operations.BINARY
      if name not in (*INTEGER, *POSITIVE)),
    *(Case(name, N, K) for name in ["mul", "eq", "floor_divide", "fmod", "remainder", "maximum", "true_divide", "atan2", "fmax"]),
    *(Case(name, A, 2.5) for name in ["mul", "eq", "fmod", "remainder", "true_divide", "lt", "ge"]),
    *(Case(name, TIES, np.flip(TIES, 1).copy()) for name in ("maximum", "minimum", "fmax", "fmin")),
    Case("mul", EMPTY, ROW), Case("mul", S, A), Case("mul", N, A), Case("mul", BOOL, A), Case("mul", N, 1.5),
    Case("maximum", NAN, A, grad=False), Case("fmax", NAN, A), Case("fmin", A, NAN), Case("mul", BOOL, BOOL),
    # elementwise
    Case("add", A, B), Case("add", A, B, alpha=2.5), Case("add", A, 2, alpha=0.5), Case("add", N, K, alpha=2),
    Case("sub", A, ROW), Case("sub", A, B, alpha=3), Case("subtract", A, 1.5), f("rsub", A, B),
    f("rsub", A, 2.0, alpha=3), Case("addcdiv", A, B, P), Case("addcdiv", A, COL, P, value=0.3),
    Case("addcmul", A, B, P), Case("addcmul", A, ROW, COL, value=-2), Case("clamp", A, -0.3, 0.4),
    Case("clamp", A, max=0.1), Case("clamp", A, B, P), Case("clamp", TIES, 2, 3), Case("clamp", N, 0, 4),
    Case("clip", A, min=0.0), Case("clamp_max", A, 0.3), Case("clamp_min", A, B), Case("div", A, P),
    Case("div", A, P, rounding_mode="floor"), Case("div", A, P, rounding_mode="trunc"),
    Case("div", N, K, rounding_mode="floor"), Case("div", N, K, rounding_mode="trunc"), Case("divide", N, K),
    Case("float_power", P, 2), Case("float_power", N, 2.0), Case("hardshrink", A), Case("hardshrink", A, 0.1),
    Case("isclose", A, A + 1e-9), Case("isclose", NAN, NAN, equal_nan=True), Case("lerp", A, B, 0.3),
    Case("lerp", A, B, U), Case("logit", U), Case("logit", U, 0.3), Case("masked_fill", A, BOOL, 9.0),
    Case("masked_fill", A, BOOL[0], S), Case("masked_fill", N, BOOL, 2.0), Case("masked_scatter", A, BOOL, B),
    Case("mvlgamma", P + 2, 2), Case("nan_to_num", NAN), Case("nan_to_num", NAN, 1.0, 2.0, -3.0),
    f("polygamma", 1, P), f("polygamma", 2, P), Case("prelu", A, np.array([0.3])),
    Case("prelu", A, ROW), Case("round", A, decimals=2), f("threshold", A, 0.1, 5.0), Case("where", A, BOOL, B),
    Case("where", A, BOOL, 2.0), f("where", BOOL, A, ROW), f("where", BOOL, 1.0, A), f("where", BOOL, N, A),
    Case("pow", P, B), Case("pow", A, 3), Case("pow", P, 0.5), Case("pow", N, 2), f("pow", 2.0, A),
    # reductions
    *(Case(name, X, *dim) for name in ("sum", "mean", "prod") for X in (A, C) for dim in ((), (1,), (-1, True))),
    *(Case(name, X) for name in ("sum", "prod", "any", "all") for X in (N, BOOL, S)), Case("sum", EMPTY, 0),
    Case("sum", S, 0), Case("sum", S, -1, True), Case("sum", C, (0, 2)), Case("sum", C, [1, 2], True),
    Case("sum", EMPTY), Case("mean", S, 0), Case("sum", A, axis=1),
    Case("sum", A, axis=0, keepdims=True), Case("sum", C, ()), Case("all", BOOL, 1), Case("any", BOOL, 0, True),
    Case("any", A), Case("all", EMPTY), *(Case(n, X, *d) for n in ("amax", "amin") for X, d in (
        (A, ()), (C, ((0, 2),)), (TIES, (1,)), (TIES, (0, True)), (S, ()))),
    Case("aminmax", A), Case("aminmax", TIES, dim=1, keepdim=True), Case("argmax", A), Case("argmax", A, 1),
    Case("argmin", C, -1, True), Case("argmin", S), Case("count_nonzero", N), Case("count_nonzero", BOOL, 1),
    Case("dist", A, B), Case("dist", A, B, 1), Case("kthvalue", A, 2), Case("kthvalue", C, 1, 1, True),
    Case("logsumexp", A, 1), Case("logsumexp", C, (0, 1), True), Case("logsumexp", S, 0), Case("max", A), Case("max", TIES),
    Case("max", A, 1), Case("max", C, 0, True), Case("max", A, B), Case("max", S), Case("max", S, 0),
    Case("max", TIES, dim=1), Case("min", A, -1, keepdim=True), Case("min", TIES), Case("min", N, 1), f("max", A, B),
    f("max", A, 1), Case("median", A), Case("median", TIES, 1), Case("median", C, -1), Case("median", C, 0, True),
    Case("median", N), Case("median", NAN), Case("median", S), Case("nanmedian", NAN), Case("nanmedian", C, 1),
    Case("mode", N), Case("mode", np.array([[1.0, 2.0, 2.0, 3.0, 3.0], [4.0, 4.0, 1.0, 5.0, 6.0]])),
    Case("nanmean", NAN[0]), Case("nanmean", A, 1, True), Case("nansum", NAN[0]), Case("nansum", A, 0),
    Case("nanquantile", NAN[0], 0.5), Case("quantile", A, 0.3), Case("quantile", A, np.array([0.1, 0.6]), 1),
    Case("quantile", C, 0.5, 1, True, interpolation="lower"), Case("norm", A), Case("norm", A, 1), Case("norm", A, 3, 1),
    Case("norm", A, float("inf")), Case("norm", A, -float("inf"), 1), Case("norm", A, 0), Case("norm", A, "fro", (0, 1)),
    Case("norm", SQ, "nuc"), Case("norm", A, dim=1, keepdim=True), Case("norm", A, 0.5), f("norm", A, 2, -1),
    *(Case(n, X, *a, **k) for n in ("std", "var", "std_mean", "var_mean")[:2] for X, a, k in (
        (A, (), {}), (A, (1,), {}), (A, (False,), {}), (A, (0, False, True), {}), (C, (), {"correction": 2}),
        (C, (), {"dim": (0, 1), "keepdim": True}), (A, (), {"unbiased": False}))),
    f("std_mean", A, 1), f("var_mean", C, (0, 2), correction=0), f("var_mean", A),
    # along a dimension
    Case("argsort", A), Case("argsort", C, 1, True), Case("argsort", A, dim=0, descending=True), Case("cummax", A, 1),
    Case("cummax", TIES, 1), Case("cummin", C, 0), Case("cummin", TIES, 1), Case("cumprod", A, 1), Case("cumprod", N, 0),
    Case("cumsum", A, 0), Case("cumsum", N, 1), Case("cumsum", C, -1), Case("cumsum", S, 0), Case("cumsum", BOOL, 1),
    Case("diff", A), Case("diff", C, 2), Case("diff", A, 1, 0), Case("diff", A, 1, 1, COL, COL), Case("log_softmax", A, 1),
    Case("log_softmax", C, 0), Case("softmax", A, 1), Case("softmax", C, -2), Case("softmax", S, 0),
    Case("softmax", EMPTY, 1), Case("logcumsumexp", A, 1), Case("msort", A), Case("renorm", A, 2, 0, 1.0),
    Case("renorm", C, 1, 1, 2.0), Case("sort", A), Case("sort", C, 1, True), Case("sort", A, dim=0, descending=True),
    Case("sort", N), Case("sort", S), Case("topk", A, 2), Case("topk", C, 2, 1), Case("topk", A, 1, 0, False),
    Case("topk", S, 1), Case("topk", N, 2),
    # picking and placing
    Case("argwhere", BOOL), Case("argwhere", N - 3), Case("bincount", J), Case("bincount", J, ROW, 5, grad=False),
    Case("gather", A, 0, I), Case("gather", A, 1, I[:, :2]), Case("gather", A, -1, np.array([[2], [0]])),
    Case("gather", S, 0, np.array(0)), Case("histc", A, 5, -1, 1), Case("index_add", A, 0, J[:2], B),
    Case("index_add", A, 1, J, B, alpha=2.0), Case("index_add", A, 0, np.array([0, 0]), B),
    Case("index_copy", A, 0, J[:2], B), Case("index_fill", A, 1, np.array([0, 2]), 7.0), Case("index_fill", A, 0, J[:1], S),
    *(Case("index_reduce", A, 1, J, B, how) for how in ("prod", "amax", "amin", "mean")),
    Case("index_select", A, 1, J), Case("index_select", C, 0, J), Case("index_put", A, (J[:2], J[1:]), V[:2]),
    Case("index_put", A, (J[:2],), ROW, True), Case("masked_select", A, BOOL), Case("masked_select", A, BOOL[0]),
    Case("nonzero", BOOL), Case("nonzero", A, as_tuple=True), Case("nonzero", N), Case("put", A, np.array([1, 4]), V[:2]),
    Case("put", A, np.array([1, 1]), V[:2], True), Case("scatter", A, 0, np.array([[0, 1, 1]]), B, grad=False),
    Case("scatter", A, 1, np.array([[0], [2]]), 5.0), Case("scatter", A, 1, np.array([[0, 2], [2, 1]]), B[:, :2].copy()),
    Case("scatter", A, 1, I[:, :1], 2.0, reduce="add", grad=False), Case("scatter", N, 1, I[:, :1], 2, reduce="multiply"),
    Case("scatter", A, 1, I[:, :1], value=3.0), Case("scatter_add", A, 0, I, B), Case("scatter_add", A, 1, I, B),
    *(Case("scatter_reduce", A, 1, I, B, how) for how in ("sum", "prod", "mean", "amax", "amin")),
    *(Case("scatter_reduce", A, 1, I, B, how, include_self=False) for how in ("sum", "mean", "amax")),
    Case("take", A, np.array([0, 5, -1])), Case("take_along_dim", A, I, 1), Case("take_along_dim", A, np.array([4, 0])),
    Case("unique", N % 3), Case("unique", N % 3, return_inverse=True, return_counts=True), Case("unique", I, dim=1),
    Case("unique_consecutive", TIES, grad=False), Case("unique_consecutive", J, return_inverse=True, return_counts=True),
    Case("diagonal_scatter", SQ, ROW), Case("select_scatter", A, ROW, 0, 1), Case("slice_scatter", A, COL, 1, 0, 1),
    # shapes
    Case("diag", A), Case("diag", ROW), Case("diag", ROW, 1), Case("diag", SQ, -1), Case("diag_embed", A),
    Case("diag_embed", A, 1), Case("diag_embed", C, -1, 0, 2), Case("diagflat", A), Case("diagflat", ROW, 1),
    Case("fliplr", A), Case("flipud", A), Case("repeat_interleave", A, 2), Case("repeat_interleave", A, 2, 1),
    Case("repeat_interleave", A, np.array([1, 2]), 0), Case("roll", A, 1), Case("roll", A, (1, -1), (0, 1)),
    Case("roll", C, 2, 1), Case("rot90", A), Case("rot90", C, 2, [1, 2]), Case("tril", A), Case("tril", C, 1),
    Case("triu", SQ, -1), Case("triu", A), Case("flip", C, 0, 2), Case("flip", A, (1,)), Case("repeat", A, 2, 1),
    Case("repeat", A, (1, 2, 2)), Case("tile", A, 2), Case("tile", A, (2, 1, 1)), Case("reshape", C, 4, -1),
    Case("view", C, 6, 4), Case("permute", C, 2, 0, 1), f("permute", C, (2, 0, 1)), Case("transpose", C, 0, 2),
    Case("t", A), Case("flatten", C, 1), Case("unflatten", C, 2, (2, -1)), Case("unflatten", C, -1, (2, 2)),
    Case("ravel", C), Case("ravel", S), Case("squeeze", COL), Case("squeeze", COL, 1), Case("squeeze", C[:, :1, :1], (1, 2)),
    Case("unsqueeze", A, 1), Case("expand", COL, 2, 4), Case("expand_as", COL, A), Case("view_as", C, C.reshape(6, 4)),
    Case("reshape_as", C, C.reshape(6, 4)), Case("broadcast_to", ROW, (2, 3)), Case("movedim", C, 0, 2),
    Case("movedim", C, (0, 1), (2, 0)), Case("moveaxis", C, 2, 0), Case("swapaxes", C, 0, 1), Case("swapdims", C, -1, 0),
    Case("narrow", C, 2, 1, 2), Case("narrow_copy", A, 1, 0, 2), Case("select", C, 1, 2), Case("unbind", A, 1),
    Case("split", C, 2, 2), Case("split", C, [1, 2], 1), Case("split_with_sizes", C, [1, 3], 2), Case("chunk", C, 3, 2),
    Case("tensor_split", C, 3, 2), Case("tensor_split", C, (1, 3), 2), Case("hsplit", C, 3), Case("vsplit", A, 2),
    Case("dsplit", C, [1, 2]), Case("unfold", V, 0, 2, 1), Case("unfold", C, 2, 2, 2), Case("unfold", C, 1, 2, 1),
    Case("diagonal", SQ), Case("diagonal", C, 1, 0, 2), Case("adjoint", C), Case("adjoint", Z), Case("clone", A),
    Case("contiguous", A), Case("type_as", A, N), Case("to", N, A),
    # matrices
    Case("addbmm", np.zeros((3, 3)), C, D), Case("addbmm", SQ, C, D, beta=0.5, alpha=2), Case("addmm", SQ, A.T.copy(), B),
    Case("addmm", ROW, A.T.copy(), B, beta=2, alpha=0.5), Case("addmv", ROW, SQ, ROW), Case("addr", SQ, ROW, ROW, beta=0),
    Case("baddbmm", np.ones((2, 3, 3)), C, D, alpha=1.5), Case("bmm", C, D), Case("cholesky", SPD), Case("cholesky", SPD, True),
    Case("cholesky_inverse", np.linalg.cholesky(SPD), grad=False), Case("cholesky_solve", SQ, np.linalg.cholesky(SPD), grad=False),
    Case("corrcoef", A), Case("cov", A), Case("cov", A, correction=0), Case("cross", A, B, 1), Case("cross", A, B),
    Case("det", SQ), Case("dot", V, V[::-1].copy()), Case("ger", ROW, V), Case("inner", A, B), Case("inverse", SQ),
    Case("kron", A, COL), Case("logdet", SPD), Case("matmul", A, SQ), Case("matmul", C, D), Case("matmul", ROW, SQ),
    Case("matmul", A, ROW), Case("matmul", ROW, ROW), Case("matmul", C, SQ.repeat(2, 0)[:4]), Case("matmul", D, C[0]),
    Case("matmul", EMPTY, SQ), Case("matmul", N, K.T.copy()), Case("matrix_exp", SQ), Case("matrix_power", SQ, 3),
    Case("matrix_power", SPD, -1), Case("mm", A, SQ), Case("mv", A, ROW), Case("outer", ROW, V), Case("pinverse", A),
    Case("qr", SQ), Case("slogdet", SQ), Case("svd", A, grad=False, sign=False), Case("trace", SQ), Case("vdot", V, V),
    # functions
    f("atleast_1d", S), f("atleast_2d", ROW), f("atleast_3d", A), f("bucketize", A, np.array([-1.0, 0.0, 1.0])),
    f("bucketize", A, np.array([-1.0, 0.0, 1.0]), right=True), f("cat", [A, B]), f("cat", [A, COL], 1), f("cat", (A, N), -1),
    f("cat", [A, EMPTY]), f("cat", [N, K], dim=1), f("concat", [A, B], axis=1), f("concatenate", [C, C], 2), f("cdist", A, B),
    f("cdist", C, C, 1.0), f("column_stack", [ROW, ROW]), f("combinations", V, 2), f("combinations", V, 2, True),
    f("complex", A, B), f("polar", P, B), f("cumulative_trapezoid", A), f("cumulative_trapezoid", A, dx=0.5, dim=0),
    f("dstack", [A, B]), f("hstack", [A, B]), f("vstack", [A, ROW]), f("row_stack", [A, B]), f("stack", [A, B]),
    f("stack", [A, B], -1), f("stack", (S, S)), f("einsum", "ij,kj->ik", A, B), f("einsum", "ij->j", A),
    f("einsum", "bij,bjk->bik", [C, D]), f("einsum", "ii", SQ), f("einsum", "i,j", ROW, V), f("isin", N, np.array([4, 5])),
    f("meshgrid", ROW, V, indexing="ij"), f("meshgrid", [ROW, V], indexing="xy"), f("norm_except_dim", C), f("pdist", SQ),
    f("searchsorted", np.array([-1.0, 0.0, 1.0]), A), f("searchsorted", np.sort(A), B, right=True),
    f("tensordot", A, B.T.copy(), 1), f("tensordot", C, D, dims=([2], [1])),
    f("trapezoid", A), f("trapezoid", A, dx=2.0), f("trapezoid", A, np.sort(B)), f("trapz", A, dim=0), f("vander", V, grad=False),
    f("vander", V, 3, True, grad=False), f("view_as_complex", C[..., :2].copy()), f("view_as_real", Z), f("block_diag", A, SQ),
    f("cartesian_prod", ROW, V), f("chain_matmul", A, SQ, SQ), f("broadcast_tensors", COL, ROW), f("real", Z), f("imag", Z),
    f("real", A), f("sum", A, 1), f("sin", input=A), f("mul", A, other=B), f("add", input=A, other=B, alpha=2),
    f("squeeze", COL, 1), f("flatten", C), f("softmax", A, dim=1), f("numel", A), f("clamp", A, min=0.0),
    f("masked_select", A, BOOL), f("scatter", A, 1, I[:, :1], 2.0), f("index_put", A, (J[:2],), ROW), f("std", A, 1),
    # linalg, special, fft
    *(Case(name, SQ, of="torch.linalg") for name in ["det", "inv", "slogdet", "matrix_exp", "cond", "norm", "svdvals", "matrix_norm"]),
    *(Case(name, SPD, of="torch.linalg") for name in ("cholesky", "eigvalsh")), Case("cross", A, B, of="torch.linalg"),
    Case("eig", SQ, of="torch.linalg", grad=False, sign=False),
    Case("eigh", SPD, of="torch.linalg", grad=False, sign=False), Case("eigvals", SPD, of="torch.linalg", grad=False),
    Case("diagonal", C, of="torch.linalg"), Case("matmul", A, SQ, of="torch.linalg"), Case("pinv", A, of="torch.linalg"),
    Case("matrix_norm", SQ, 1, of="torch.linalg"), Case("matrix_norm", A, 2, of="torch.linalg"),
    Case("matrix_power", SQ, 2, of="torch.linalg"), Case("matrix_rank", A, of="torch.linalg"),
    Case("multi_dot", [A, SQ, SQ], of="torch.linalg"), Case("norm", A, 1, of="torch.linalg"),
    Case("norm", A, 2, 1, of="torch.linalg"), Case("norm", ROW, 3, of="torch.linalg"), Case("qr", SQ, of="torch.linalg"),
    Case("solve", SQ, ROW, of="torch.linalg"), Case("solve", SQ, A.T.copy(), of="torch.linalg"),
    Case("solve", SQ, A, left=False, of="torch.linalg"), Case("svd", A, of="torch.linalg", grad=False, sign=False),
    Case("solve_triangular", np.triu(SPD), A.T.copy(), upper=True, of="torch.linalg"),
    Case("tensorinv", rng.normal(size=(2, 3, 6)), of="torch.linalg"), Case("vander", V, N=3, of="torch.linalg"),
    Case("tensorsolve", rng.normal(size=(2, 3, 6)), A, of="torch.linalg"), Case("vecdot", A, B, of="torch.linalg"),
    Case("vector_norm", A, of="torch.linalg"), Case("vector_norm", A, 3, 1, True, of="torch.linalg"),
    Case("lstsq", A.T.copy(), ROW[:, None], of="torch.linalg", grad=False),
    *(Case(name, U, of="torch.special") for name in special.OPERATIONS if name not in ("xlog1py", "zeta")),
    *(Case(name, U, of="torch.special") for name in ("expit", "psi", "gammaln", "log1p")),
    Case("xlog1py", P, U, of="torch.special"), Case("zeta", P + 1.5, U, of="torch.special", grad=False),
    *(Case(name, A, of="torch.fft") for name in (*fft.ONE, *fft.TWO, *fft.MANY, "fftshift", "ifftshift")),
    Case("rfft", A, 4, 0, "ortho", of="torch.fft"), Case("irfft", Z, 5, of="torch.fft"), Case("fft", Z, of="torch.fft"),
]  # fmt: skip

FN = "torch.nn.functional"
X4 = rng.normal(size=(2, 4, 5, 5))
CLASSES = np.array([2, 0])
TEXTS = rng.normal(size=(2, 3, 4))
CASES += [
    *(Case(name, A, of=FN) for name in ["relu", "gelu", "elu", "selu", "silu", "leaky_relu", "relu6", "hardtanh", "softplus", "logsigmoid", "mish"]),
    *(Case(name, 4 * A, of=FN) for name in ["hardsigmoid", "hardswish", "celu", "softsign", "tanhshrink", "softshrink", "hardshrink"]),
    *(Case(name, A, of=FN) for name in ("sigmoid", "tanh")), Case("elu", A, 0.5, of=FN), Case("celu", A, 0.4, of=FN),
    Case("leaky_relu", A, 0.2, of=FN), Case("gelu", A, approximate="tanh", of=FN), Case("hardtanh", A, -0.2, 0.1, of=FN),
    Case("glu", np.concatenate([A, B], 1), of=FN), Case("softmin", A, 1, of=FN), Case("prelu", A, np.array([0.2]), of=FN),
    Case("softmax", A, 1, of=FN), Case("log_softmax", A, dim=0, of=FN), Case("threshold", A, 0.1, 2.0, of=FN),
    *(Case(name, A, B, reduction=how, of=FN) for name in ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"]
      for how in ("mean", "sum", "none")), Case("huber_loss", A, B, "mean", 0.5, of=FN),
    Case("smooth_l1_loss", A, B, beta=0.3, of=FN), Case("kl_div", np.log(U), P, reduction="batchmean", of=FN),
    Case("binary_cross_entropy", U, U.T.reshape(2, 3).copy(), of=FN),
    Case("binary_cross_entropy_with_logits", A, U, of=FN),
    Case("binary_cross_entropy_with_logits", A, U, pos_weight=P[0], of=FN, grad=False), Case("cross_entropy", A, CLASSES, of=FN),
    Case("cross_entropy", A, CLASSES, P[0], reduction="sum", label_smoothing=0.1, of=FN, grad=False),
    Case("cross_entropy", A, CLASSES, label_smoothing=0.1, of=FN), Case("cross_entropy", A, U, of=FN),
    Case("cross_entropy", A, np.array([1, -100]), of=FN), Case("nll_loss", np.log(U), CLASSES, of=FN),
    Case("soft_margin_loss", A, np.sign(B).astype(int), of=FN), Case("hinge_embedding_loss", A, np.sign(B), of=FN),
    Case("margin_ranking_loss", A, B, np.sign(P - 1), 0.1, of=FN), Case("triplet_margin_loss", A, B, P, of=FN),
    Case("triplet_margin_loss", A, B, P, swap=True, reduction="none", of=FN),
    Case("cosine_embedding_loss", A, B, np.array([1.0, -1.0]), of=FN), Case("gaussian_nll_loss", A, B, P, of=FN),
    Case("poisson_nll_loss", A, P, of=FN), Case("poisson_nll_loss", P, P, False, True, of=FN),
    Case("cosine_similarity", A, B, of=FN), Case("pairwise_distance", A, B, of=FN), Case("pdist", SQ, of=FN),
    Case("normalize", A, of=FN), Case("linear", A, SQ, ROW, of=FN), Case("linear", A, SQ, of=FN),
    Case("bilinear", A, B, rng.normal(size=(2, 3, 3)), V[:2], of=FN),
    Case("conv1d", TEXTS, rng.normal(size=(2, 3, 2)), padding=1, of=FN),
    Case("conv2d", X4, rng.normal(size=(6, 2, 3, 3)), np.tile(ROW, 2), 2, 1, 1, 2, of=FN),
    Case("conv3d", X4[:, None], rng.normal(size=(1, 1, 2, 2, 2)), of=FN),
    Case("conv_transpose1d", TEXTS, rng.normal(size=(3, 2, 2)), stride=2, of=FN),
    Case("conv_transpose2d", X4, rng.normal(size=(4, 2, 3, 3)), V[:2], 2, 1, 1, of=FN),
    Case("conv_transpose3d", X4[:, None], rng.normal(size=(1, 1, 2, 2, 2)), of=FN),
    Case("max_pool1d", TEXTS, 2, of=FN), Case("max_pool2d", X4, 2, 1, 1, of=FN), Case("max_pool3d", X4, 2, of=FN),
    Case("avg_pool1d", TEXTS, 2, of=FN), Case("avg_pool2d", X4, 2, padding=1, of=FN), Case("avg_pool3d", X4, 2, of=FN),
    Case("adaptive_avg_pool1d", TEXTS, 2, of=FN), Case("adaptive_avg_pool2d", X4, (2, 3), of=FN),
    Case("adaptive_avg_pool3d", X4, 2, of=FN), Case("layer_norm", A, (3,), P[0], ROW, of=FN), Case("layer_norm", C, [3, 4], of=FN),
    Case("group_norm", X4, 2, np.abs(V), V, of=FN), Case("instance_norm", X4, of=FN), Case("rms_norm", A, (3,), P[0], of=FN),
    Case("batch_norm", X4, None, None, np.abs(V), V, True, of=FN),
    Case("batch_norm", X4, np.zeros(4), np.ones(4), training=False, of=FN, grad=False),
    Case("pad", A, (1, 2), of=FN), Case("pad", X4, (1, 1, 2, 0), mode="reflect", of=FN), Case("one_hot", I, 3, of=FN),
    Case("one_hot", I, of=FN), Case("embedding", I, SQ, of=FN), Case("dropout", A, 0.5, False, of=FN),
    Case("interpolate", X4, scale_factor=2.0, mode="nearest", of=FN), Case("pixel_shuffle", X4, 2, of=FN),
    Case("interpolate", X4, (3, 7), mode="bilinear", align_corners=False, of=FN),
    Case("pixel_unshuffle", X4[..., :4, :4].copy(), 2, of=FN), Case("scaled_dot_product_attention", C, C, D.reshape(2, 3, 4), of=FN),
    Case("scaled_dot_product_attention", C, C, C, is_causal=True, of=FN),
]  # fmt: skip

BY_VALUE = frozenset(
    ["argwhere", "bincount", "masked_select", "nonzero", "one_hot", "repeat_interleave", "unique", "unique_consecutive"]
)
"""They look at values, so they are not computed under JAX's trace."""


TOGETHER = 40


def parameters():
    """Every tenth case runs always, the others with the slow tests."""
    for i, case in enumerate(CASES):
        yield pytest.param(case, id=case.name, marks=[pytest.mark.slow] if i % 10 else [])


def is_inexact(x):
    return "float" in str(x.dtype) or "complex" in str(x.dtype)


def leaves(result):
    """The Tensors of a result, whatever holds them; numbers, too."""
    if hasattr(result, "solution"):
        return [result.solution]
    if isinstance(result, (tuple, list)) and not isinstance(result, tape.Size):
        return [leaf for part in result for leaf in leaves(part)]
    return [result]


def outcome(case, module, arrays):
    """The results, and the gradient of their weighted sum in each floating point operand."""
    tensors = [module.tensor(a) if isinstance(a, np.ndarray) else module.Tensor(a) for a in arrays]
    inputs = [t.requires_grad_() for t in tensors if is_inexact(t)] if case.grad else []
    outs = leaves(case.call(module, tensors))
    roots = [o for o in outs if isinstance(o, module.Tensor) and o.requires_grad and o.numel()]
    grads = []
    if roots and inputs:
        total = sum((o * weights(o)).abs().square().sum() if o.is_complex() else (o * weights(o)).sum() for o in roots)
        grads = module.autograd.grad(total, inputs, allow_unused=True)
    requires = [isinstance(o, module.Tensor) and bool(o.requires_grad) for o in outs]
    return outs, grads, requires


def weights(x):
    values = 0.5 + (np.arange(x.numel()) % 7).reshape(tuple(x.shape)) / 7
    module = tape if isinstance(x, tape.Tensor) else importlib.import_module("torch")
    return module.tensor(values)


def arrays_of(outs, grads):
    return [getattr(x, "_data", x) for x in outs], [None if g is None else g._data for g in grads]


@pytest.fixture(scope="module")
def ours(request):
    """What the tape makes of every case that is to run, traced into compiled programs of a few dozen: one by one they
    take minutes."""
    cases = [
        item.callspec.params["case"]
        for item in request.session.items
        if getattr(item, "function", None) is test_as_pytorch and hasattr(item, "callspec")
    ]
    cases = [case for case in cases if case.name not in BY_VALUE]
    found = {}

    def run(case, arrays):
        try:
            outs, grads, found[case] = outcome(case, tape, arrays)
        except Exception as error:
            found[case] = error
            return None
        return arrays_of(outs, grads)

    with jax.enable_x64(True):
        for start in range(0, len(cases), TOGETHER):
            part = cases[start : start + TOGETHER]
            results = jax.jit(lambda arrays, part=part: list(map(run, part, arrays)))([case.arrays() for case in part])
            found.update({c: (*r, found[c]) for c, r in zip(part, results, strict=True) if r is not None})
    return found


@pytest.mark.filterwarnings("ignore:(torch.|Using torch.cross|index_reduce|size_average)")
@pytest.mark.parametrize("case", list(parameters()))
def test_as_pytorch(case, ours):
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    try:
        theirs, their_grads, they_require = outcome(case, torch, case.arrays())
    finally:
        torch.set_default_dtype(torch.float32)
    with jax.enable_x64(True):
        mine = ours.get(case)
        if isinstance(mine, Exception):
            raise mine
        if mine is None:
            outs, grads, requires = outcome(case, tape, case.arrays())
            mine = *arrays_of(outs, grads), requires
    outs, grads, requires = mine
    assert len(outs) == len(theirs)
    for out, other in zip(outs, theirs, strict=True):
        same(out, other, case.sign)
    assert requires == they_require
    assert len(grads) == len(their_grads)
    for grad, other, array in zip(grads, their_grads, [a for a in case.arrays() if is_inexact(a)], strict=False):
        zero = np.zeros_like(array)
        grad = zero if grad is None else np.conj(grad)
        np.testing.assert_allclose(
            grad, zero if other is None else other.resolve_conj().numpy(force=True), rtol=1e-7, atol=1e-9
        )


def same(out, other, sign):
    if not hasattr(other, "dtype"):
        assert np.asarray(out) == other
        return
    other = other.detach().resolve_conj().resolve_neg().numpy()
    assert out.shape == other.shape
    assert str(out.dtype) == str(other.dtype)
    out, other = (out, other) if sign else (np.abs(out), np.abs(other))
    np.testing.assert_allclose(out, other, rtol=1e-7, atol=1e-10)


def test_every_operation_has_a_case():
    names = {case.name for case in CASES}
    tables = [operations.functions, functions._made, functional.OPERATIONS, functional.ADAPTED, linalg.OPERATIONS]
    tables += [special.OPERATIONS, dict.fromkeys((*fft.ONE, *fft.TWO, *fft.MANY), 0)]
    assert not {name for table in tables for name in table} - names


@both
@pytest.mark.parametrize("name", ["floor_divide", "floor_divide_", "heaviside", "heaviside_"])
def test_what_pytorch_refuses_to_differentiate(m, name):
    x, y = (m.tensor([1.5, 2.5], requires_grad=True) for _ in range(2))
    out = getattr(x * 1, name)(y)
    assert (out.requires_grad, out.grad_fn.name()) == (True, "torch::autograd::NotImplemented")
    text = f"derivative for aten::{name} is not implemented"
    for act in (lambda: out.sum().backward(retain_graph=True), lambda: m.autograd.grad((out * y).sum(), y)):
        with pytest.raises(RuntimeError, match=text):
            act()
