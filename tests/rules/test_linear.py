"""Rules for dot products and convolutions: every dimension number, stride, dilation, padding and group; any dtype."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from twograd.rules import linear
from twograd.rules.common import unlisted

from .checks import Case, agree, check, compl, each, jax_vjp, our_vjp, real

REAL = ("float32", "bfloat16")


# --- dot products -----------------------------------------------------------------------------------------------------


def dot(contracted, batch=((), ()), **how):
    return lambda x, y: lax.dot_general(x, y, (contracted, batch), **how)


DOTS = [
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(2, 3), real(3, 4)], dtypes=REAL),
    Case(lax.dot_general_p, dot(((0,), (1,))), [compl(3, 2), compl(4, 3)], "complex"),
    Case(lax.dot_general_p, dot(((0,), (0,))), [real(3), real(3)], "vectors"),
    Case(lax.dot_general_p, dot(((), ())), [real(3), real(2)], "outer"),
    Case(lax.dot_general_p, dot(((), ())), [real(), real(2)], "rank 0"),
    Case(lax.dot_general_p, dot(((2,), (1,)), ((0,), (0,))), [real(2, 3, 4), real(2, 4, 5)], "batch"),
    Case(lax.dot_general_p, dot(((3, 0), (1, 2)), ((2,), (3,))), [real(2, 3, 4, 5), real(6, 5, 2, 4)], "two of each"),
    Case(lax.dot_general_p, dot(((1, 2), (2, 0)), ((3, 0), (1, 3))), [real(2, 3, 4, 5), real(4, 5, 3, 2)], "crossed"),
    Case(lax.dot_general_p, dot(((), ()), ((0,), (0,))), [real(3), real(3)], "batch alone"),
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(2, 0), real(0, 3)], "nothing contracted"),
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(0, 2), real(2, 3)], "nothing free"),
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(2, 3), compl(3, 2)], "mixed", dtypes=()),
    Case(
        lax.dot_general_p,
        dot(((1,), (0,)), precision=("highest", "default")),
        [real(2, 3), real(3, 2)],
        "precision of each",
        dtypes=REAL,
    ),
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(2, 3), real(3, 2)], "left alone", (0,)),
    Case(lax.dot_general_p, dot(((1,), (0,))), [real(2, 3), real(3, 2)], "right alone", (1,)),
]


@pytest.mark.parametrize("case", DOTS, ids=str)
def test_dot_general(case):
    check(case)


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("bfloat16", "float32")], ids=str)
def test_dot_general_in_a_wider_type(dtypes):
    """The cotangent comes in the type that was asked for; each operand's leaves in its own."""
    x, y = (jnp.ones((2, 3), dtypes[0]), jnp.ones((3, 4), dtypes[1]))
    fn = dot(((1,), (0,)), preferred_element_type=jnp.float32)
    for_x, for_y = our_vjp(lambda x, y: (fn(x, y),), [x, y], [jnp.ones((2, 4), jnp.float32)])
    assert (for_x.dtype, for_y.dtype) == (x.dtype, y.dtype)
    np.testing.assert_array_equal(for_x.astype(float), 4)
    np.testing.assert_array_equal(for_y.astype(float), 2)


# --- dot products by groups -------------------------------------------------------------------------------------------

SIZES = np.array([2, 0, 3])


def ragged_dot(dimensions, ragged, groups, sizes):
    """A function of x and y. ``vmap`` takes batches of all operands alone, so the sizes are made to depend on both."""

    def fn(x, y):
        zero = lax.convert_element_type(0 * jnp.real(jnp.sum(x) + jnp.sum(y)), sizes.dtype)
        numbers = lax.RaggedDotDimensionNumbers(dimensions, ragged, groups)
        return lax.ragged_dot_general(x, y, sizes + zero, numbers)

    return fn


ROWS = (((1,), (1,)), ((), ()))
RAGGED_DOTS = [
    Case(unlisted["ragged_dot_general"], ragged_dot(ROWS, [0], [0], SIZES), [real(6, 3), real(3, 3, 2)], order=1),
    Case(
        unlisted["ragged_dot_general"],
        ragged_dot(ROWS, [1], [], SIZES),
        [compl(4, 6), compl(2, 6)],
        "a contracted axis, complex",
        order=0,
        slow=True,
    ),
    Case(
        unlisted["ragged_dot_general"],
        ragged_dot((((2,), (1,)), ((0,), (0,))), [0], [], SIZES[:1]),
        [real(3, 4, 2), real(3, 2, 2)],
        "a batch axis",
        order=0,
        slow=True,
    ),
]


@pytest.mark.parametrize("case", each(RAGGED_DOTS))
def test_ragged_dot(case):
    check(case)


def members(sizes, count):
    """For each group a vector that is 1 at its members among ``count``."""
    stops = np.cumsum(sizes, axis=-1)[..., None]
    return ((np.arange(count) < stops) & (np.arange(count) >= stops - sizes[..., None])).astype(float)


FREE, CONTRACTED = np.array([[1, 2, 0], [3, 1, 1]]), np.array([[[1, 0], [1, 0]], [[1, 2], [0, 3]]])
BY_HAND = {
    "a free axis": (
        ragged_dot((((1, 3), (3, 0)), ((2,), (1,))), [0], [2], FREE),
        lambda x, y: jnp.einsum("mkbl,bgm,lbgk->bm", x, members(FREE, 5), y),
        [real(5, 3, 2, 2), real(2, 2, 3, 3)],
    ),
    "a contracted axis": (
        ragged_dot((((3, 1), (0, 2)), ((2,), (1,))), [1], [], CONTRACTED),
        lambda x, y: jnp.einsum("mkbl,blgk,lbkn->gbmn", x, members(CONTRACTED, 3), y),
        [real(4, 3, 2, 2), real(2, 2, 3, 2)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_ragged_dot_with_several_axes_of_each_kind(name):
    """JAX has no batches of these, and not all derivatives; it differentiates the product with the groups' masks."""
    fn, masked, draws = BY_HAND[name]
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, y = (jnp.asarray(draw(rng)) for draw in draws)
        ct = jnp.asarray(rng.standard_normal(jax.eval_shape(fn, x, y).shape))

        def ours(x, y, ct):
            return our_vjp(lambda x, y: (fn(x, y),), [x, y], [ct])

        def theirs(x, y, ct):
            return jax_vjp(lambda x, y: (masked(x, y),), [x, y], [ct])

        agree("first order", ours(x, y, ct), theirs(x, y, ct), 1e-10)
        second_cts = theirs(x, y, ct)
        agree("second order", our_vjp(ours, [x, y, ct], second_cts), jax_vjp(theirs, [x, y, ct], second_cts), 1e-10)


# --- convolutions -----------------------------------------------------------------------------------------------------


def conv(
    layout="NCHW", kernel="OIHW", strides=(1, 1), padding=((0, 0), (0, 0)), lhs_dilation=None, rhs_dilation=None, **how
):
    def fn(x, w):
        return lax.conv_general_dilated(
            x, w, strides, padding, lhs_dilation, rhs_dilation, (layout, kernel, layout), **how
        )

    return fn


def convolutions(name, lhs, rhs, draw=real, **how):
    return Case(lax.conv_general_dilated_p, conv(**how), [draw(*lhs), draw(*rhs)], name)


FEW, MANY = 2, 9
"""So many features that the pullback goes tap by tap, or by convolution."""

CONVOLUTIONS = [
    convolutions("few features", (2, FEW, 4, 5), (3, FEW, 1, 2), padding=((2, 1), (0, -1)), strides=(1, 2)),
    convolutions("many features", (1, MANY, 4, 3), (2, MANY, 2, 2), padding="SAME"),
    convolutions("many, strides", (1, MANY, 7, 6), (2, MANY, 2, 3), strides=(2, 3), padding=((-1, 2), (1, -1))),
    convolutions("feature groups", (2, 4, 3, 4), (6, 2, 1, 2), feature_group_count=2),
    convolutions("batch groups", (4, 3, 4, 3), (6, 3, 2, 2), batch_group_count=2),
    convolutions("NHWC", (2, 3, 4, FEW), (1, 2, FEW, 3), layout="NHWC", kernel="HWIO"),
    convolutions("CWHN", (MANY, 4, 5, 2), (2, 2, 3, MANY), layout="CWHN", kernel="OWHI", strides=(1, 2)),
    convolutions("no spatial axes", (2, 3), (4, 3), layout="NC", kernel="OI", strides=(), padding=()),
    convolutions("empty batch", (0, FEW, 4, 3), (2, FEW, 2, 2)),
    convolutions("empty result", (1, FEW, 2, 3), (2, FEW, 4, 2)),
    convolutions("one tap", (2, 3, 3, 2), (4, 3, 1, 1)),
]
OFF_THE_CPU = [case for case in CONVOLUTIONS if case.name in ("few features", "feature groups")]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case):
    check(case)


SHAPES = {"few": ((2, FEW, 5, 6), (4, FEW, 3, 2)), "many": ((2, MANY, 5, 6), (2, MANY, 3, 2))}
GROUPS = {"features": {"feature_group_count": 2}, "batch": {"batch_group_count": 2}}
GROUPED = {"features": ((2, 4, 5, 6), (4, 2, 3, 2)), "batch": ((2, 3, 5, 6), (4, 3, 3, 2))}
GEOMETRIES = [
    {"strides": strides, "padding": padding, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    for strides in [(1, 1), (2, 3)]
    for padding in [((0, 0), (0, 0)), ((3, -1), (0, 2))]
    for lhs_dilation in [(1, 1), (3, 2)]
    for rhs_dilation in [(1, 1), (2, 3)]
]
SWEEP = [
    convolutions("few features, dilated", (1, FEW, 3, 3), (2, FEW, 2, 1), lhs_dilation=(1, 2), rhs_dilation=(2, 1)),
    convolutions("many, dilated", (1, MANY, 3, 2), (2, MANY, 3, 2), lhs_dilation=(2, 3), rhs_dilation=(2, 1)),
    convolutions("one axis", (2, MANY, 6), (4, MANY, 2), layout="NCW", kernel="OIW", strides=(2,), padding=((1, 1),)),
    convolutions("complex", (1, MANY, 3, 3), (2, MANY, 1, 2), compl),
    convolutions("same", (1, FEW, 5, 4), (2, FEW, 3, 2), padding="SAME", strides=(2, 1)),
    convolutions("depthwise", (1, 3, 5, 4), (6, 1, 3, 2), feature_group_count=3, strides=(2, 1), padding="SAME"),
    convolutions("complex, few", (1, FEW, 4, 3), (2, FEW, 2, 2), compl),
    convolutions("complex, groups", (1, 4, 4, 3), (2, 2, 2, 2), compl, feature_group_count=2),
    convolutions(
        "three axes",
        (1, FEW, 3, 3, 3),
        (2, FEW, 2, 1, 2),
        layout="NCDHW",
        kernel="OIDHW",
        strides=(1, 2, 1),
        padding="SAME",
    ),
    *(
        convolutions(f"{name} {i}", *shapes, **geometry)
        for i, geometry in enumerate(GEOMETRIES)
        for name, shapes in SHAPES.items()
    ),
    *(
        convolutions(f"grouped by {name} {i}", *GROUPED[name], **geometry, **groups)
        for i, geometry in enumerate(GEOMETRIES)
        for name, groups in GROUPS.items()
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", SWEEP, ids=str)
def test_convolution_everywhere(case):
    check(case)


@pytest.mark.parametrize("case", OFF_THE_CPU, ids=str)
def test_convolution_off_the_cpu(case, monkeypatch):
    """What other devices are given is right as well."""
    monkeypatch.setattr(linear, "on_cpu", lambda: False)
    check(case)
