"""Rules that read or write at indices: every mode, duplicates, windows, batching axes, indices out of bounds, ties."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.lax import GatherDimensionNumbers, ScatterDimensionNumbers

from twograd.graph.transform import forward_pass
from twograd.rules.indexing import take_along

from .checks import Case, check, compl, distinct, our_vjp, real

REAL = ("float32", "bfloat16")
OUTSIDE = np.array([[0], [7], [-3], [2], [4]])
"""Indices into an axis of 5, two of them out of bounds."""
ROWS = np.array([[3], [0], [3], [1], [3], [0]])
"""Indices into an axis of 5 with duplicates."""
SORTED = np.array([[0], [2], [3]])


# --- how to read and write --------------------------------------------------------------------------------------------

ELEMENTS = GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
WINDOWS = GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,))
LINES = GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
COLUMNS = GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(1,), start_index_map=(1,))
PAIRS = GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(1,), start_index_map=(1, 0))
BATCHED = GatherDimensionNumbers(
    offset_dims=(2,),
    collapsed_slice_dims=(1,),
    start_index_map=(1,),
    operand_batching_dims=(0,),
    start_indices_batching_dims=(1,),
)


def read(dimensions, sizes, indices, mode="clip", **how):
    return lambda x: lax.gather(x, indices, dimensions, sizes, mode=mode, **how)


def ties(*shape):
    """Few different numbers, so that several updates contend for a place with equal ones."""
    return lambda rng: rng.integers(-1, 2, shape).astype(float)


def apart(*shape):
    """As ``distinct``, and also different from every number of another such operand of theirs."""
    return lambda rng: distinct(*shape)(rng) + 1 / 16


PAIR_INDICES = np.array([[0, 1], [2, 0], [0, 1]])
BATCH_INDICES = np.array([[[0], [3]], [[2], [3]], [[2], [1]]])
PLACES = {  # the dimension numbers, the indices, the mode and promises, the operand's and the updates' shapes
    "unique": (ELEMENTS, SORTED, {"unique_indices": True, "indices_are_sorted": True}, (5,), (3,)),
    "duplicates": (ELEMENTS, ROWS, {}, (5,), (6,)),
    "clip": (ELEMENTS, OUTSIDE, {"mode": "clip"}, (5,), (5,)),
    "fill": (ELEMENTS, OUTSIDE, {"mode": "fill"}, (5,), (5,)),
    "promise": (ELEMENTS, SORTED, {"mode": "promise_in_bounds"}, (5,), (3,)),
    "clipped windows": (WINDOWS, OUTSIDE, {"mode": "clip"}, (5,), (5, 2)),
    "dropped windows": (WINDOWS, OUTSIDE, {"mode": "fill"}, (5,), (5, 2)),
    "lines": (LINES, ROWS, {}, (5, 2), (6, 2)),
    "part of lines": (LINES, ROWS, {}, (5, 3), (6, 2)),
    "columns": (COLUMNS, ROWS, {}, (2, 5, 2), (2, 6, 2)),
    "pairs": (PAIRS, PAIR_INDICES, {}, (4, 3), (3, 2)),
    "batching axes": (BATCHED, BATCH_INDICES, {}, (2, 4, 2), (3, 2, 2)),
    "no update": (ELEMENTS, np.zeros((0, 1), int), {}, (5,), (0,)),
    "one update": (ELEMENTS, np.array([2]), {}, (5,), ()),
    "no operand": (LINES, ROWS, {"mode": "fill"}, (0, 2), (6, 2)),
}


def writes(primitive, scatter, names=tuple(PLACES), draws=(real, real), suffix="", **how_to_check):
    """A case for each of the named ways to say where a scatter writes."""
    for name in names:
        dimensions, indices, how, operand, updates = PLACES[name]
        d = ScatterDimensionNumbers(*dimensions)
        fn = partial(scattered, scatter, indices, d, how)
        if name == "no operand":  # JAX raises
            how_to_check = how_to_check | {"order": 0}
        yield Case(primitive, fn, [draws[0](*operand), draws[1](*updates)], name + suffix, **how_to_check)


def scattered(scatter, indices, dimensions, how, x, updates):
    return scatter(x, indices, updates, dimensions, **how)


def along_both(x, y):
    """Sorts y as x, by way of the indices."""
    order = lax.sort((x, lax.broadcasted_iota(int, x.shape, 1)), num_keys=1)[1]
    return take_along(x, order, 1) * take_along(y, order, 1)


def sorting(num_keys=1, dimension=-1, is_stable=True):
    return lambda *xs: tuple(lax.sort(xs, dimension=dimension, num_keys=num_keys, is_stable=is_stable))


COMPLEX, DISTINCT, TIES = (compl, compl), (distinct, apart), (ties, ties)
QUICK = ("unique", "duplicates", "fill", "clipped windows", "columns", "batching axes")
REST = tuple(name for name in PLACES if name not in QUICK)
EXTREMA = [(lax.scatter_max_p, lax.scatter_max), (lax.scatter_min_p, lax.scatter_min)]
IN_BOUNDS = ("unique", "duplicates", "fill", "lines", "pairs", "batching axes", "dropped windows")
SHARED = tuple(name for name in QUICK if name != "unique")

CASES = [
    Case(lax.dynamic_slice_p, lambda x: lax.dynamic_slice(x, (1, 2), (2, 2)), [real(4, 5)], dtypes=REAL),
    Case(
        lax.dynamic_slice_p, lambda x, i: lax.dynamic_slice(x, i, (2, 3)), [compl(4, 5), np.array([-9, 3])], "clamped"
    ),
    Case(lax.dynamic_slice_p, lambda x: lax.dynamic_slice(x, (), ()), [real()], "rank 0"),
    Case(lax.dynamic_slice_p, lambda x, i: lax.dynamic_slice(x, (i, i), (0, 2)), [real(4, 5), np.array(1)], "nothing"),
    Case(
        lax.dynamic_update_slice_p,
        lambda x, u: lax.dynamic_update_slice(x, u, (1, 2)),
        [real(4, 5), real(2, 2)],
        dtypes=REAL,
    ),
    Case(
        lax.dynamic_update_slice_p,
        lax.dynamic_update_slice,
        [compl(4, 5), compl(2, 3), np.array([-9, 3])],
        "clamped",
    ),
    Case(
        lax.dynamic_update_slice_p,
        lambda x, u, i: lax.dynamic_update_slice(x, u, (i, i)),
        [real(4, 5), real(0, 2), np.array(1)],
        "nothing",
    ),
    Case(lax.gather_p, read(ELEMENTS, (1,), ROWS), [real(5)], "duplicates", dtypes=REAL),
    Case(lax.gather_p, read(ELEMENTS, (1,), OUTSIDE, "clip"), [compl(5)], "clip"),
    Case(lax.gather_p, read(ELEMENTS, (1,), OUTSIDE, "fill", fill_value=3), [real(5)], "fill"),
    Case(lax.gather_p, read(ELEMENTS, (1,), SORTED, "promise_in_bounds"), [real(5)], "promise"),
    Case(lax.gather_p, read(WINDOWS, (2,), OUTSIDE, "clip"), [real(5)], "clipped windows"),
    Case(lax.gather_p, read(WINDOWS, (2,), OUTSIDE, "fill", fill_value=3), [real(5)], "dropped windows"),
    Case(lax.gather_p, read(COLUMNS, (2, 1, 2), ROWS), [real(2, 5, 2)], "columns"),
    Case(lax.gather_p, read(PAIRS, (2, 1), PAIR_INDICES), [real(4, 3)], "pairs"),
    Case(lax.gather_p, read(BATCHED, (1, 1, 2), BATCH_INDICES), [real(2, 4, 2)], "batching axes"),
    Case(lax.gather_p, read(ELEMENTS, (1,), np.zeros((0, 1), int)), [real(5)], "nothing"),
    Case(lax.gather_p, lambda x: x[jnp.array([1, 1]), :, jnp.array([0, 2])], [real(2, 3, 3)], "NumPy's"),
    Case(lax.scatter_p, lambda x, y: x.at[jnp.array([0, 2, 0])].set(y), [real(3, 2), real(2)], "NumPy's"),
    Case(lax.slice_p, lambda x: lax.slice(x, (1, 0), (3, 4)), [real(4, 5)], dtypes=REAL),
    Case(lax.slice_p, lambda x: lax.slice(x, (1, 0), (6, 5), (2, 3)), [compl(7, 5)], "strides"),
    Case(lax.slice_p, lambda x: lax.slice(x, (1, 2), (4, 2), (2, 3)), [real(4, 5)], "nothing"),
    Case(
        lax.slice_p, lambda x: lax.slice_p.bind(x, start_indices=(), limit_indices=(), strides=None), [real()], "rank 0"
    ),
    Case(lax.sort_p, sorting(), [distinct(7)], dtypes=REAL),
    Case(lax.sort_p, sorting(dimension=0), [distinct(3, 4)], "columns"),
    Case(
        lax.sort_p,
        sorting(num_keys=2, dimension=1),
        [ties(2, 5), distinct(2, 5), compl(2, 5)],
        "two keys",
        smooth=False,
    ),
    Case(lax.sort_p, sorting(), [ties(6), real(6)], "ties", smooth=False),
    Case(lax.sort_p, sorting(is_stable=False), [distinct(6), np.arange(6), compl(6)], "carried along"),
    Case(lax.sort_p, sorting(), [np.array([3, 1, 2]), real(3)], "by integers"),
    Case(lax.sort_p, sorting(), [compl(5)], "complex"),
    Case(lax.sort_p, sorting(), [real(0)], "nothing"),
    Case(lax.sort_p, along_both, [distinct(2, 4), real(2, 4)], "argsort"),
    Case(lax.top_k_p, lambda x: lax.top_k(x, 3), [distinct(2, 6)], dtypes=REAL),
    Case(lax.top_k_p, lambda x: lax.top_k(x, 2, axis=0), [distinct(5, 2)], "columns"),
    Case(lax.top_k_p, lambda x: lax.top_k(x, 4), [ties(6)], "ties", smooth=False),
    Case(lax.top_k_p, lambda x: lax.top_k(x, 0), [distinct(5)], "none"),
    Case(lax.approx_top_k_p, lambda x: lax.approx_max_k(x, 3), [distinct(2, 6)], "max"),
    Case(lax.approx_top_k_p, lambda x: lax.approx_min_k(x, 2, reduction_dimension=0), [distinct(6, 2)], "min"),
    *writes(lax.scatter_add_p, lax.scatter_add, ("duplicates", "fill", "batching axes")),
    *writes(lax.scatter_mul_p, lax.scatter_mul, ("unique",)),
    *writes(lax.scatter_mul_p, lax.scatter_mul, ("duplicates",), order=0),
    *writes(lax.scatter_p, lax.scatter, QUICK),
    *writes(lax.scatter_sub_p, lax.scatter_sub, ("duplicates", "fill")),
    *(case for p, fn in EXTREMA for case in writes(p, fn, ("duplicates", "dropped windows"), DISTINCT)),
    *(case for p, fn in EXTREMA for case in writes(p, fn, ("duplicates",), TIES, ", ties", smooth=False)),
]

SWEEP = [
    *writes(lax.scatter_add_p, lax.scatter_add, suffix=", all", dtypes=REAL),
    *writes(lax.scatter_add_p, lax.scatter_add, draws=COMPLEX, suffix=", complex"),
    *writes(lax.scatter_mul_p, lax.scatter_mul, (*REST, "clipped windows", "batching axes"), order=0, dtypes=REAL),
    *writes(lax.scatter_mul_p, lax.scatter_mul, SHARED, COMPLEX, ", complex", order=0),
    *writes(lax.scatter_p, lax.scatter, REST, dtypes=REAL),
    *writes(lax.scatter_p, lax.scatter, draws=COMPLEX, suffix=", complex"),
    *writes(lax.scatter_sub_p, lax.scatter_sub, draws=COMPLEX, suffix=", complex"),
    # JAX's own rule for an extremum reads outside where the indices are to be clipped: finite differences alone
    *(case for p, fn in EXTREMA for case in writes(p, fn, draws=DISTINCT, suffix=", all", order=0, dtypes=REAL)),
    *(case for p, fn in EXTREMA for case in writes(p, fn, IN_BOUNDS, TIES, ", all ties", smooth=False)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_rule_everywhere(case):
    check(case)


def test_product_with_zeros_among_duplicates():
    """Where several factors at one place are 0, the others' derivatives are 0; where one is, only its own is not."""
    x, updates = jnp.array([2.0, 3.0, 5.0]), jnp.array([0.0, 7.0, 0.0, 0.0, 11.0])
    indices = jnp.array([[0], [0], [2], [2], [1]])
    d = ScatterDimensionNumbers(*ELEMENTS)
    ct = jnp.array([1.0, 1.0, 1.0])
    fn = partial(scattered, lax.scatter_mul, indices, d, {})
    for_x, for_updates = our_vjp(lambda x, updates: (fn(x, updates),), [x, updates], [ct])
    np.testing.assert_array_equal(for_x, [0, 11, 0])
    np.testing.assert_array_equal(for_updates, [14, 0, 0, 0, 3])


def test_indices_below_the_first_are_clamped_both_ways():
    """An index that is still negative when it reaches the primitive is not to be counted from the end."""
    x, index, ct = jnp.arange(8.0), jnp.int32(-9), jnp.array([1.0, 2.0])
    (found,) = our_vjp(lambda x: (lax.dynamic_slice_p.bind(x, index, slice_sizes=(2,)),), [x], [ct])
    np.testing.assert_array_equal(found, [1, 2, 0, 0, 0, 0, 0, 0])


def test_sort_saves_the_permutation_alone():
    jaxpr = jax.make_jaxpr(lambda x, y: lax.sort((x, y), num_keys=1))(jnp.ones(4), jnp.ones(4))
    _, (application,) = forward_pass(jaxpr.jaxpr, jaxpr.consts, [jnp.ones(4), jnp.ones(4)], [True, True])
    (saved,) = jax.tree.leaves(application.saved)
    assert saved.dtype == np.int32


def test_scatter_apply_is_refused():
    def fn(x):
        return (x.at[jnp.array([0, 2])].apply(jnp.sin),)

    with pytest.raises(NotImplementedError, match="set"):
        our_vjp(fn, [jnp.ones(3)], [jnp.ones(3)])
