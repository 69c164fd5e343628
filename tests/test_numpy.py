"""twograd.numpy: every function of jax.numpy has a sample call here, which arrays and Tensors must both answer.

The oracle is jax.numpy itself, and jax.grad of a weighted sum of the outputs.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd._namespace import is_function_of_arrays

NAMESPACES = {"": jnp, "linalg.": jnp.linalg, "fft.": jnp.fft}


class Call:
    """The arguments of one sample call. Arrays are operands; everything else is structure."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


def spread(low, high, *shape):
    """Numbers at equal distances, in a shuffled order: distinct, and no integers or halves."""
    count = int(np.prod(shape))
    x = np.linspace(low, high, count) if count > 1 else np.array([low + 0.3 * (high - low)])
    return np.random.default_rng(count).permutation(x).reshape(shape)


X, Y = spread(-1.93, 2.17, 2, 3), spread(-2.11, 1.71, 2, 3)  # any sign
P, Q = spread(0.31, 2.77, 2, 3), spread(0.43, 1.97, 2, 3)  # positive
U = spread(-0.91, 0.87, 2, 3)  # within (-1, 1)
V, W = spread(-1.37, 2.41, 5), spread(-0.77, 1.93, 5)
S = np.sort(spread(0.13, 4.21, 5))
M = spread(-1.1, 1.3, 3, 3) + 2 * np.eye(3)
A = M @ M.T  # symmetric, positive definite
B = spread(-1.7, 1.1, 3, 4)
T = spread(-2.3, 2.9, 2, 3, 2)
C = X + 1j * Y
INTEGERS, J = np.array([[5, 0, 3], [2, 7, 1]]), np.array([[3, 1, 2], [4, 2, 6]])
K = np.array([2, 0, 1])
L = np.array([[True, False, True], [False, False, True]])
N = np.array([[1.2, np.nan, -0.7], [np.nan, 0.4, 2.1]])
ONE = np.array(1.23)
BYTES = np.array([[1, 200, 3]], np.uint8)


def squared_sum(x):
    return (x * x).sum()


def same_call(names: str, *calls: Call) -> dict[str, list[Call]]:
    return {name: list(calls) for name in names.split()}


TABLE: dict[str, list[Call]] = {
    # elementwise, of one real operand
    **same_call(
        """abs absolute arctan arcsinh asinh atan cbrt cos cosh deg2rad degrees exp exp2 expm1 fabs i0 rad2deg radians
        sin sinc sinh tan tanh ceil floor rint trunc sign signbit frexp modf spacing isfinite isinf isnan isneginf
        isposinf""",
        Call(X),
    ),
    **same_call(
        "conj conjugate imag real angle iscomplex isreal negative positive square reciprocal", Call(X), Call(C)
    ),
    **same_call("log log1p log2 log10 sqrt", Call(P)),
    **same_call("arccos acos arcsin asin arctanh atanh", Call(U)),
    **same_call("arccosh acosh", Call(P + 1)),
    **same_call("around round", Call(X), Call(X, 1)),
    **same_call("invert bitwise_not bitwise_invert bitwise_count", Call(INTEGERS)),
    "logical_not": [Call(L)],
    "nan_to_num": [Call(N), Call(N, nan=0.5)],
    "unwrap": [Call(3 * V)],
    "astype": [Call(X, np.float32), Call(X, np.int32)],
    "copy": [Call(X)],
    "clip": [Call(X, -0.5, 0.5), Call(X, Y - 1, Y + 1), Call(X, max=0.5)],
    # elementwise, of two
    **same_call(
        """add subtract multiply arctan2 atan2 copysign fmax fmin maximum minimum hypot logaddexp logaddexp2 nextafter
        heaviside equal not_equal greater greater_equal less less_equal isclose""",
        Call(X, Y),
        Call(X, Y[0]),
        Call(X, 2.5),
    ),
    **same_call("divide true_divide mod remainder fmod floor_divide divmod", Call(X, P), Call(X, 0.7), Call(2.5, P)),
    **same_call("power pow float_power", Call(P, Y), Call(X, 3), Call(2.0, X)),
    **same_call("bitwise_and bitwise_or bitwise_xor gcd lcm", Call(INTEGERS, J)),
    **same_call("left_shift right_shift bitwise_left_shift bitwise_right_shift", Call(INTEGERS, J)),
    **same_call("logical_and logical_or logical_xor", Call(L, L[::-1])),
    "ldexp": [Call(X, INTEGERS)],
    "interp": [Call(np.array([0.7, 2.2]), S, V), Call(np.array([0.7, 9.2]), S, V, left=0.0, right=1.0)],
    # reductions
    **same_call(
        "sum mean max min amax amin std var nansum nanmean nanmax nanmin nanstd nanvar prod nanprod ptp",
        Call(X),
        Call(X, axis=0),
        Call(X, 1, keepdims=True),
    ),
    **same_call("all any", Call(L), Call(L, axis=0)),
    **same_call("argmax argmin nanargmax nanargmin count_nonzero", Call(X), Call(X, axis=1)),
    **same_call("median nanmedian", Call(X), Call(V), Call(X, axis=0)),
    **same_call("percentile nanpercentile", Call(X, 30.0), Call(X, 30.0, axis=1)),
    **same_call("quantile nanquantile", Call(X, 0.3), Call(X, np.array([0.25, 0.5]), axis=1)),
    **same_call("cumsum nancumsum cumprod nancumprod", Call(X), Call(X, axis=1)),
    **same_call("cumulative_sum cumulative_prod", Call(V), Call(X, axis=1, include_initial=True)),
    "average": [Call(X), Call(X, 0), Call(X, weights=P)],
    "trapezoid": [Call(V), Call(V, S), Call(X, dx=0.5, axis=0)],
    "trace": [Call(M), Call(T, axis1=0, axis2=2)],
    "corrcoef": [Call(B)],
    "cov": [Call(B), Call(V, W)],
    # shapes
    "reshape": [Call(X, (3, 2)), Call(X, -1)],
    "resize": [Call(X, (4, 2))],
    **same_call("ravel atleast_1d atleast_2d atleast_3d flip fliplr flipud rot90 transpose", Call(X)),
    "permute_dims": [Call(X, (1, 0))],
    **same_call("matrix_transpose", Call(T)),
    "squeeze": [Call(X[None])],
    "expand_dims": [Call(X, 1)],
    "moveaxis": [Call(T, 0, 2)],
    "rollaxis": [Call(T, 2)],
    "swapaxes": [Call(T, 0, 2)],
    "roll": [Call(X, 1), Call(X, (1, 2), axis=(0, 1))],
    "broadcast_to": [Call(V, (2, 5))],
    "broadcast_arrays": [Call(X, Y[0])],
    "repeat": [Call(X, 2), Call(X, 2, axis=1)],
    "tile": [Call(X, (2, 1))],
    "pad": [Call(X, 1), Call(X, ((1, 0), (0, 2)), mode="edge"), Call(X, 1, mode="reflect")],
    **same_call("concatenate concat stack vstack hstack dstack column_stack", Call([X, Y])),
    "block": [Call([[X, Y], [Y, X]])],
    "append": [Call(X, Y), Call(X, Y, axis=0)],
    **same_call("split array_split", Call(X, 3, axis=1)),
    **same_call("hsplit", Call(X, 3)),
    **same_call("vsplit", Call(X, 2)),
    "dsplit": [Call(T, 2)],
    "unstack": [Call(T)],
    "delete": [Call(X, 1, axis=1)],
    "insert": [Call(V, 2, 7.0), Call(X, 1, Y[0], axis=0)],
    "meshgrid": [Call(V, W[:2])],
    **same_call("diag diagonal diagflat tril triu", Call(M), Call(M, 1)),
    "vander": [Call(V), Call(V, 3)],
    **same_call("ediff1d", Call(V)),
    "diff": [Call(X), Call(X, 2), Call(X, axis=0)],
    "gradient": [Call(V), Call(V, 0.5), Call(M, axis=0)],
    # indexing, sorting, searching
    "take": [Call(X, K), Call(X, K, axis=1)],
    "take_along_axis": [Call(X, np.array([[2, 0, 1], [0, 0, 2]]), 1)],
    "put": [Call(V, K, W[:3], inplace=False)],
    "put_along_axis": [Call(X, np.array([[2], [0]]), Y[:, :1], 1, inplace=False)],
    "place": [Call(X, L, V[:3], inplace=False)],
    "fill_diagonal": [Call(M, 2.5, inplace=False)],
    "choose": [Call(np.array([1, 0, 1]), [V[:3], W[:3]])],
    "select": [Call([L, ~L], [X, Y], 0.5)],
    "where": [Call(L, X, Y), Call(L, X, 0.0), Call(L)],
    "piecewise": [Call(X, [X < 0, X >= 0], [jnp.sin, jnp.cos])],
    **same_call("sort argsort", Call(X), Call(X, axis=0), Call(X, descending=True)),
    "sort_complex": [Call(V)],
    "lexsort": [Call([K, np.array([1, 1, 0])])],
    **same_call("partition argpartition", Call(V, 2)),
    "searchsorted": [Call(S, np.array([0.5, 2.0]))],
    "digitize": [Call(np.array([0.5, 2.0]), S)],
    **same_call("nonzero flatnonzero argwhere", Call(INTEGERS)),
    "extract": [Call(L, X)],
    "compress": [Call(np.array([True, False, True]), X, axis=1)],
    "trim_zeros": [Call(np.array([0.0, 1.5, 2.5, 0.0]))],
    **same_call(
        "unique unique_all unique_counts unique_inverse unique_values",
        Call(INTEGERS),
        Call(np.array([1.5, 0.5, 1.5, 2.5])),
    ),
    **same_call("setdiff1d setxor1d intersect1d union1d", Call(INTEGERS, J)),
    "isin": [Call(INTEGERS, J)],
    **same_call("bincount", Call(K), Call(K, weights=V[:3])),
    **same_call("histogram", Call(V, 3), Call(V, 3, weights=W)),
    **same_call("histogram_bin_edges", Call(V, 3)),
    "histogram2d": [Call(V, W, 3)],
    "histogramdd": [Call(B, 2)],
    "ravel_multi_index": [Call((K, K), (3, 3))],
    "unravel_index": [Call(K, (3, 3))],
    **same_call("diag_indices_from tril_indices_from triu_indices_from", Call(M)),
    "ix_": [Call(K, K)],
    "packbits": [Call(L)],
    "unpackbits": [Call(BYTES)],
    # products
    **same_call("matmul dot", Call(M, B), Call(M, V[:3]), Call(V, W)),
    **same_call("inner outer kron", Call(V, W), Call(X, Y)),
    **same_call("vdot", Call(V, W), Call(C, C[::-1])),
    "vecdot": [Call(X, Y), Call(C, Y)],
    "matvec": [Call(M, V[:3])],
    "vecmat": [Call(V[:3], M)],
    "tensordot": [Call(M, B, 1), Call(T, X, ((0, 1), (0, 1)))],
    "einsum": [Call("ij,jk->ik", M, B), Call("ii", M), Call("ijk,ij", T, X)],
    "cross": [Call(X, Y)],
    **same_call("convolve correlate", Call(V, W[:3]), Call(V, W[:3], "same")),
    # polynomials
    "poly": [Call(V[:3])],
    **same_call("polyadd polysub polymul", Call(V, W[:3])),
    "polydiv": [Call(V, W[:3])],
    "polyder": [Call(V), Call(V, 2)],
    "polyint": [Call(V), Call(V, 2)],
    "polyfit": [Call(S, V, 2)],
    "polyval": [Call(V, X)],
    "roots": [Call(np.array([1.0, -3.5, 3.5, -1.0]))],
    # makers
    **same_call("array asarray", Call(X), Call([ONE, ONE])),
    **same_call("zeros_like ones_like empty_like", Call(X)),
    "full_like": [Call(X, 2.5), Call(X, ONE)],
    "full": [Call((2, 3), ONE)],
    "linspace": [Call(ONE, 3.0, 4), Call(V[:2], W[:2], 3)],
    **same_call("logspace geomspace", Call(ONE, 3.0, 4)),
    # functions of functions
    "apply_along_axis": [Call(squared_sum, 0, X)],
    "apply_over_axes": [Call(jnp.sum, T, [0, 2])],
    # truth of whole arrays
    **same_call("allclose array_equal array_equiv", Call(X, X), Call(X, Y)),
    # structure: answers that are no arrays
    **same_call("shape ndim size iscomplexobj isrealobj isscalar", Call(X)),
    "result_type": [Call(X, INTEGERS)],
    # linalg
    **same_call("linalg.cholesky linalg.eigh linalg.eigvalsh", Call(A)),
    **same_call("linalg.inv linalg.det linalg.slogdet linalg.svdvals linalg.pinv linalg.trace", Call(M)),
    "linalg.cond": [Call(M)],
    **same_call("linalg.eig linalg.eigvals", Call(A)),
    "linalg.svd": [Call(M, compute_uv=False), Call(M)],
    "linalg.qr": [Call(M)],
    "linalg.solve": [Call(M, B), Call(M, V[:3])],
    "linalg.lstsq": [Call(B.T, W[:4])],
    "linalg.norm": [Call(V), Call(X), Call(X, 1, axis=0), Call(X, "nuc")],
    "linalg.matrix_norm": [Call(X)],
    "linalg.vector_norm": [Call(X), Call(X, ord=3, axis=1)],
    "linalg.matrix_power": [Call(M, 3), Call(M, -1)],
    "linalg.matrix_rank": [Call(M)],
    "linalg.matrix_transpose": [Call(T)],
    "linalg.multi_dot": [Call([M, B, B.T])],
    "linalg.matmul": [Call(M, B)],
    "linalg.outer": [Call(V, W)],
    "linalg.cross": [Call(X, Y)],
    "linalg.diagonal": [Call(M)],
    "linalg.tensordot": [Call(M, B, axes=1)],
    "linalg.vecdot": [Call(X, Y)],
    "linalg.tensorinv": [Call((M + np.eye(3)).reshape(3, 3), ind=1)],
    "linalg.tensorsolve": [Call(M, V[:3])],
    # fft
    **same_call("fft.fft fft.ifft fft.hfft", Call(X), Call(C), Call(X, n=4)),
    **same_call("fft.rfft fft.ihfft", Call(X), Call(X, n=4)),
    **same_call("fft.irfft", Call(C)),
    **same_call("fft.fft2 fft.ifft2 fft.fftn fft.ifftn", Call(X), Call(C)),
    **same_call("fft.rfft2 fft.rfftn", Call(X)),
    **same_call("fft.irfft2 fft.irfftn", Call(C)),
    **same_call("fft.fftshift fft.ifftshift", Call(X)),
}

NO_OPERANDS = """arange bartlett blackman hamming hanning kaiser empty eye identity indices ones zeros tri mask_indices
diag_indices tril_indices triu_indices fft.fftfreq fft.rfftfreq"""

REASONS = {
    NO_OPERANDS: "makes arrays from numbers of structure",
    "from_dlpack frombuffer fromfile fromiter fromstring load": "reads foreign data",
    "fromfunction": "takes a function and a shape",
    "vectorize frompyfunc": "makes functions; has its own test",
    "get_printoptions printoptions set_printoptions": "is about printing",
    "isdtype issubdtype promote_types": "is about dtypes",
    "broadcast_shapes": "is about shapes",
    "einsum_path": "answers with a plan and a text",
}
NOT_OF_ARRAYS = {name: reason for names, reason in REASONS.items() for name in names.split()}

# What of JAX's gradients is no oracle for sample calls, or has none.
NO_GRADIENT = {
    "linalg.eig": "eigenvectors are defined up to a factor",
    "linalg.svd": "singular vectors are defined up to a sign",
    "roots": "its length depends on values",
}

# A Tensor that requires a gradient decides a shape: refused, with the advice to detach it.
SHAPE_FROM_GRADIENT = """
    roots trim_zeros unique-1 unique_all-1 unique_counts-1 unique_inverse-1 unique_values-1"""


def samples(marks):
    """Parameters for a test of every sample call."""
    return pytest.mark.parametrize(
        ("name", "i"),
        [
            pytest.param(name, i, id=f"{name}-{i}", marks=marks(name, i))
            for name, calls in TABLE.items()
            for i in range(len(calls))
        ],
    )


def slow_if(condition):
    return [pytest.mark.slow] if condition else []


def on_tensors(name, i):
    """Compiling takes long: one function in seven is in the quick run. What does not work yet must say so."""
    marks = slow_if(i or list(TABLE).index(name) % 7)
    if {name, f"{name}-{i}"} & set(SHAPE_FROM_GRADIENT.split()):
        marks.append(pytest.mark.xfail(raises=jax.errors.JAXTypeError))
    return marks


def public_functions() -> Iterator[str]:
    """The names of JAX's functions, with a prefix in the sub-modules; constants, dtypes and classes left out."""
    for prefix, module in NAMESPACES.items():
        for name in dir(module):
            if not name.startswith("_") and is_function_of_arrays(getattr(module, name)):
                yield prefix + name


def find(root, name):
    return functools.reduce(getattr, name.split("."), root)


def rebuilt(call, convert):
    """The arguments with ``convert`` applied to each array."""
    return jax.tree.map(lambda leaf: convert(leaf) if isinstance(leaf, np.ndarray) else leaf, (call.args, call.kwargs))


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_every_function_is_in_the_table_or_has_a_reason():
    assert set(public_functions()) - {*TABLE, *NOT_OF_ARRAYS} == set()
    assert not set(TABLE) & set(NOT_OF_ARRAYS)


def run_on_arrays(root, name, call):
    args, kwargs = rebuilt(call, jnp.asarray)
    return find(root, name)(*args, **kwargs)


@functools.cache
def expected_value(name, call):
    return run_on_arrays(jnp, name, call)


def assert_same(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(theirs, jax.Array):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), **tolerance)
        else:
            assert ours == theirs


@samples(lambda name, i: slow_if(i or list(TABLE).index(name) % 3))
def test_arrays_give_what_jax_numpy_gives(name, i):
    call = TABLE[name][i]
    assert_same(run_on_arrays(tnp, name, call), expected_value(name, call), rtol=0)


# --- on Tensors -------------------------------------------------------------------------------------------------------


def inexact(array):
    return np.issubdtype(array.dtype, np.inexact)


def weighted_sum(np_like, out):
    """A real number that depends on every real and complex output in its own way; None if there is none."""
    total = None
    for leaf in jax.tree.leaves(out):
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, np.inexact) or 0 in leaf.shape:
            continue
        weights = jnp.cos(1.0 + jnp.arange(np.prod(leaf.shape, dtype=int))).reshape(leaf.shape)
        parts = (
            [np_like.real(leaf), np_like.imag(leaf)]
            if jnp.iscomplexobj(weights * 0 + np.zeros((), leaf.dtype))
            else [leaf]
        )
        for part in parts:
            total = np_like.sum(part * weights) if total is None else total + np_like.sum(part * weights)
    return total


def jax_gradients(name, call):
    """JAX's gradients with respect to the inexact operands; None where JAX cannot trace the call or has none."""
    leaves, tree = jax.tree.flatten((call.args, call.kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray) and inexact(leaf)]

    def loss(operands):
        filled = [jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        for i, operand in zip(where, operands, strict=True):
            filled[i] = operand
        args, kwargs = jax.tree.unflatten(tree, filled)
        return weighted_sum(jnp, find(jnp, name)(*args, **kwargs))

    operands = [jnp.asarray(leaves[i]) for i in where]
    try:
        if jax.eval_shape(loss, operands) is None:
            return None
        return jax.jit(jax.grad(loss))(operands)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, NotImplementedError):
        return None


@samples(on_tensors)
def test_tensors_give_the_values_and_gradients_of_jax(name, i):
    tape = pytest.importorskip("twograd.tape")
    call = TABLE[name][i]
    tensors = []

    def convert(array):
        tensors.append(tape.tensor(array, requires_grad=bool(inexact(array))))
        return tensors[-1]

    args, kwargs = rebuilt(call, convert)
    out = find(tnp, name)(*args, **kwargs)
    values = jax.tree.map(
        lambda leaf: jnp.asarray(leaf.detach().numpy()) if isinstance(leaf, tape.Tensor) else leaf, out
    )
    assert_same(values, expected_value(name, call), rtol=1e-10, atol=1e-10)
    expected = None if name in NO_GRADIENT else jax_gradients(name, call)
    if expected is None:
        return
    weighted_sum(tnp, out).backward()
    for tensor, gradient in zip([t for t in tensors if t.requires_grad], expected, strict=True):
        found = 0.0 if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(found, gradient, rtol=1e-8, atol=1e-8)
