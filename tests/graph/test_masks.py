"""Masks and integers that a derivative finds again instead of keeping them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxpr_as_fun

from twograd.graph import split_vjp
from twograd.nn import functional as F

KINKS = jnp.array([-2.0, -0.0, 0.0, 1.0, 2.0, 3.0, jnp.nan, jnp.inf, -jnp.inf])


def kept(f, *args):
    """The types of what the derivative in the first argument reads, and its gradient of the sum."""
    wanted = [True] + [False] * (len(args) - 1)
    split = split_vjp(jax.make_jaxpr(f)(*args), wanted)
    results = jax.jit(jaxpr_as_fun(split.forward))(*args)
    values = [*map(jnp.asarray, args), *results]
    cts = [jnp.ones_like(results[0]), *[None] * (len(results) - 1)]
    gradient = split.backward([values[i] for i in split.saved], cts)[0]
    return [values[i].aval.str_short(short_dtypes=True) for i in split.saved], gradient


def cut(compare, bound, bound_where_true):
    def f(x):
        limit = jnp.full_like(x, bound)
        return lax.select(compare(x, bound), *([limit, x] if bound_where_true else [x, limit]))

    return f


@pytest.mark.parametrize("bound", [0.0, 2.0, -1.5])
@pytest.mark.parametrize(
    ("compare", "bound_where_true"), [(lax.le, True), (lax.ge, True), (lax.gt, False), (lax.lt, False)]
)
def test_what_is_cut_off_at_a_bound_is_told_from_the_result(compare, bound_where_true, bound):
    f = cut(compare, bound, bound_where_true)
    types, gradient = kept(f, KINKS)
    assert types == ["f32[9]"]
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: f(x).sum())(KINKS))


@pytest.mark.parametrize(("compare", "bound_where_true"), [(lax.lt, True), (lax.gt, True), (lax.le, False)])
def test_where_the_bound_itself_would_be_taken_for_the_other_case_the_mask_is_kept(compare, bound_where_true):
    f = cut(compare, 2.0, bound_where_true)
    types, gradient = kept(f, KINKS)
    assert types == ["bool[9]"]
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: f(x).sum())(KINKS))


def test_a_mask_of_another_bound_is_kept():
    types, gradient = kept(lambda x: jnp.where(x <= 1.0, 0.0, x), KINKS)
    assert types == ["bool[9]"]
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: jnp.where(x <= 1.0, 0.0, x).sum())(KINKS))


def test_cross_entropy_keeps_its_labels_and_not_which_class_is_whose():
    scores = jax.random.normal(jax.random.key(0), (6, 10))
    labels = jnp.array([0, 9, 3, -100, 5, 5])
    types, gradient = kept(F.cross_entropy, scores, labels)
    assert sorted(types) == ["f32[6,10]", "f32[6]", "f32[]", "i32[6]"]
    np.testing.assert_allclose(gradient, jax.grad(F.cross_entropy)(scores, labels), rtol=1e-6)


def test_an_operand_that_carries_a_gradient_is_not_kept_for_a_mask():
    def leaky(x):
        return jnp.where(x > 0, x, 0.5 * x)

    types, gradient = kept(leaky, KINKS)
    assert types == ["bool[9]"]
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: leaky(x).sum())(KINKS))


def test_an_index_is_found_again_from_the_number_given():
    types, gradient = kept(
        lambda x, i: lax.dynamic_index_in_dim(x, i, keepdims=False), jnp.arange(12.0).reshape(4, 3), -3
    )
    assert types == ["i32[]"]
    np.testing.assert_array_equal(gradient, np.eye(4)[:, [1]] * np.ones(3))


def test_masks_of_more_operations_than_pay_are_kept():
    def f(x, i):
        for _ in range(20):
            i = i + 1
        return jnp.where((i > 30)[:, None], x, 0.0)

    x, i = jnp.ones((3, 50)), jnp.array([0, 10, 20])
    types, gradient = kept(f, x, i)
    assert types == ["bool[3,50]"]
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: f(x, i).sum())(x))
