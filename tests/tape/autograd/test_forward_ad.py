"""Dual Tensors beside PyTorch's: values, changes in place, both orders of composition with reverse mode, errors."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.numpy as tnp
from tape.both import both
from tape.torch_says import agrees
from twograd import tape
from twograd.tape.autograd import forward_ad


def duals(m, requires_grad=False):
    x = m.tensor([[0.5, -1.0], [2.0, 1.5]], requires_grad=requires_grad)
    t = m.tensor([[1.0, 2.0], [-0.5, 0.25]], requires_grad=requires_grad)
    return x, t, m.autograd.forward_ad.make_dual(x, t)


def pair(m, x):
    return tuple(m.autograd.forward_ad.unpack_dual(x))


def elementwise(m):
    _, _, d = duals(m)
    y = (d * 2 + d.sin()) / (d * d + 1)
    return pair(m, y), pair(m, d.T @ d), pair(m, d.sum(0)), pair(m, d[0]), pair(m, d.max()), pair(m, d.floor())


def without_a_tangent(m):
    x, _, d = duals(m)
    with m.no_grad():
        inside = pair(m, d * x)
    return pair(m, d.detach()), pair(m, d.argmax()), pair(m, x * 2), pair(m, d > 0), inside


def written_in_place(m):
    x, _, d = duals(m)
    base = m.zeros(2, 2)
    row, column = base[0], base[:, 1]
    row.add_(d[1])
    column.mul_(3.0)
    copy = d.clone()
    view = copy[0]
    copy.mul_(2.0)
    view.add_(x[0])
    return [pair(m, t) for t in (base, row, column, copy, view)]


def written_through_a_dual(m):
    x = m.zeros(3)
    d = m.autograd.forward_ad.make_dual(x, m.ones(3))
    part = d[:2]
    d.mul_(2.0)
    part.mul_(5.0)
    part[0] = 7.0
    return [pair(m, t) for t in (x, d, part)]


def reset_in_place(m):
    _, _, d = duals(m)
    y = d * 1.0
    y.copy_(m.ones(2, 2))
    z = d * 1.0
    z.detach().mul_(3.0)
    return pair(m, y), pair(m, z)


def reverse_over_forward(m):
    x, t, d = duals(m, requires_grad=True)
    primal, tangent = pair(m, (d * d * d).sum())
    return primal, tangent, m.autograd.grad(tangent, (x, t), create_graph=True)


def forward_over_reverse(m):
    results = []
    for create_graph in (False, True):
        _, _, d = duals(m)
        d.requires_grad_()
        y = (d * d).exp().sum() + d[0].prod() + (d @ d).sum()
        (g,) = m.autograd.grad(y, d, create_graph=create_graph)
        assert g.requires_grad == create_graph
        results.append(pair(m, g))
    return results


def reverse_over_forward_over_reverse(m):
    x, _, d = duals(m, requires_grad=True)
    (g,) = m.autograd.grad((d * d * d).sum(), d, create_graph=True)
    _, tangent = pair(m, g)
    return tangent, m.autograd.grad(tangent.sum(), x)


PROGRAMS = [
    elementwise, without_a_tangent, written_in_place, written_through_a_dual, reset_in_place, reverse_over_forward,
    forward_over_reverse, reverse_over_forward_over_reverse,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_as_torch(program):
    def within(m):
        with m.autograd.forward_ad.dual_level():
            return program(m)

    agrees(within)


def nested(m):
    try:
        with m.autograd.forward_ad.dual_level():
            m.autograd.forward_ad.enter_dual_level()
    finally:
        if m is not tape:
            m.autograd.forward_ad._current_level = -1


def within(call):
    def program(m):
        with m.autograd.forward_ad.dual_level():
            return call(m, m.autograd.forward_ad, m.ones(2))

    return program


ERRORS = {
    "no level": lambda m: m.autograd.forward_ad.make_dual(m.ones(2), m.ones(2)),
    "exit": lambda m: m.autograd.forward_ad.exit_dual_level(level=None),
    "nested": nested,
    "exit of another": within(lambda m, f, x: f.exit_dual_level(level=3)),
    "shape": within(lambda m, f, x: f.make_dual(x, m.ones(3))),
    "dual already": within(lambda m, f, x: f.make_dual(f.make_dual(x, x), x)),
    "dual tangent": within(lambda m, f, x: f.make_dual(x, f.make_dual(x, x))),
    "another level": within(lambda m, f, x: f.make_dual(x, x, level=1)),
    "unpack at another level": within(lambda m, f, x: f.unpack_dual(f.make_dual(x, x), level=1)),
    "unpack no Tensor": within(lambda m, f, x: f.unpack_dual(3)),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    error, text = agrees(ERRORS[case])
    assert error.endswith("Error")
    assert text
    assert forward_ad._entered() is None


def test_integers_and_complex_tangents_of_real_tensors_are_refused():
    x, n = tape.ones(2), tape.tensor([1, 2])
    with forward_ad.dual_level():
        with pytest.raises(ValueError, match="Expected primal to be floating point or complex, but got: int32"):
            forward_ad.make_dual(n, x)
        with pytest.raises(ValueError, match="Expected tangent to be floating point or complex, but got: int32"):
            forward_ad.make_dual(x, n)
        with pytest.raises(RuntimeError, match="a tangent of dtype complex64 for a Tensor of dtype float32"):
            forward_ad.make_dual(x, x * 1j)


@both
def test_outside_of_a_level(m):
    f = m.autograd.forward_ad
    x = m.ones(2)
    assert f.unpack_dual(x) == (x, None)
    with f.dual_level() as level:
        assert level == 0
        y = f.make_dual(x, x) * 2
    assert f.unpack_dual(y)[1] is None

    @f.dual_level()
    def pushed(x):
        return f.unpack_dual(f.make_dual(x, x * 3)).tangent

    assert pushed(x).tolist() == [3.0, 3.0]
    assert f.enter_dual_level() == 0
    f.exit_dual_level(level=0)


@both
def test_a_tangent_is_the_tensor_that_was_given(m):
    f = m.autograd.forward_ad
    with f.dual_level():
        x, t = m.ones(2), m.zeros(2)
        d = f.make_dual(x, t)
        t.fill_(5.0)
        assert f.unpack_dual(d).tangent is t
        assert f.unpack_dual(d * 2).tangent.tolist() == [10.0, 10.0]


def test_any_front_end_function_against_jax():
    def f(x):
        values, order = jnp.sort(x), jnp.argsort(x)
        return jax.lax.scan(lambda c, x: (c * 0.5 + x, jnp.cumsum(c * x)), x[0], values)[1], order

    x, t = np.array([2.0, -1.0, 0.5], np.float32), np.array([1.0, 3.0, -2.0], np.float32)
    with forward_ad.dual_level():
        d = forward_ad.make_dual(tape.tensor(x, requires_grad=True), tape.tensor(t))
        sums, order = tape.apply(f, d)
        other = tnp.linalg.norm(tnp.outer(d, d), axis=1)
        assert forward_ad.unpack_dual(order).tangent is None
        np.testing.assert_allclose(
            forward_ad.unpack_dual(sums).tangent.array, jax.jvp(lambda x: f(x)[0], [x], [t])[1], rtol=1e-5
        )
    assert forward_ad.unpack_dual(other).tangent is None


def test_hessian_vector_product_of_a_scan():
    """Forward over reverse, where the tape saves intermediates of an op that are no operands or results of it."""

    def f(x):
        return jax.lax.scan(lambda c, x: (jnp.tanh(c * x) + x, c), 0.5, x)[0]

    x, v = np.array([0.3, -0.4, 0.9], np.float32), np.array([1.0, 2.0, -1.0], np.float32)
    with forward_ad.dual_level():
        d = forward_ad.make_dual(tape.tensor(x), tape.tensor(v)).requires_grad_()
        (g,) = tape.autograd.grad(tape.apply(f, d), d)
        found = forward_ad.unpack_dual(g).tangent
    np.testing.assert_allclose(found.array, jax.jvp(jax.grad(f), [x], [v])[1], rtol=1e-5)


def test_at_primitive_level():
    with forward_ad.dual_level(), tape.granularity("primitive"):
        d = forward_ad.make_dual(tape.tensor([1.0, 2.0]), tape.ones(2))
        assert forward_ad.unpack_dual(d.square().sum()).tangent.item() == 6.0
        d.requires_grad_()
        with pytest.raises(NotImplementedError, match="only at op level"):
            d.square()


def test_levels_are_per_thread():
    found = []
    with forward_ad.dual_level():
        d = forward_ad.make_dual(tape.ones(2), tape.ones(2))
        thread = threading.Thread(target=lambda: found.append([forward_ad.unpack_dual(d), d * 2]))
        thread.start()
        thread.join()
        assert found[0][0].tangent is None
        assert forward_ad.unpack_dual(found[0][1]).tangent is None


def test_nothing_is_left_of_a_level():
    with forward_ad.dual_level():
        level = forward_ad._entered()
        d = forward_ad.make_dual(tape.ones(2), tape.ones(2))
        y = d * 2
        assert len(level._tangents) == 2
        del y
        assert len(level._tangents) == 1
    assert tape.modes.mode.watchers == ()


def custom(m, jvp, several=False, materialize=True):
    """A Function of two Tensors and a number, with this jvp."""

    class Scaled(m.autograd.Function):
        @staticmethod
        def forward(ctx, x, y, n):
            ctx.set_materialize_grads(materialize)
            out = x * x * n
            ctx.save_for_backward(x, out)
            ctx.save_for_forward(x, y)
            ctx.n = n
            return (out, y * n) if several else out

        @staticmethod
        def backward(ctx, *grads):
            return 2 * ctx.saved_tensors[0] * grads[0] * ctx.n, None, None

    if jvp is not None:
        Scaled.jvp = staticmethod(jvp)
    return Scaled


JVPS = {
    "right": lambda ctx, x, y, n: 2 * ctx.saved_tensors[0] * x * ctx.n,
    "absent": None,
    "two": lambda ctx, x, y, n: (x, x),
    "another shape": lambda ctx, x, y, n: x[0],
    "a number": lambda ctx, x, y, n: 3,
    "zeros": lambda ctx, x, y, n: x + y,
}


@pytest.mark.parametrize("case", JVPS)
def test_functions_of_the_user(case):
    def program(m):
        with m.autograd.forward_ad.dual_level():
            x, _, d = duals(m)
            return pair(m, custom(m, JVPS[case]).apply(d, x, 3.0))

    agrees(program)


def test_a_function_with_several_results_and_without_zeros():
    seen = []

    def jvp(ctx, x, y, n):
        seen.append((y, n))
        return x * 5, x * 7

    def program(m):
        with m.autograd.forward_ad.dual_level():
            x, _, d = duals(m)
            return [pair(m, out) for out in custom(m, jvp, several=True, materialize=False).apply(d, x, 3.0)]

    agrees(program)
    assert seen == [(None, None)] * 2


def test_forward_over_a_backward_of_the_user():
    def program(m):
        class Cube(m.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                out = x * x * x
                ctx.save_for_backward(x, out)
                return out

            @staticmethod
            def backward(ctx, grad):
                x, out = ctx.saved_tensors
                return 3 * out / x * grad

            @staticmethod
            def jvp(ctx, t):
                return 3 * ctx.x * ctx.x * t

        class Kept(Cube):
            @staticmethod
            def forward(ctx, x):
                ctx.x = x
                return Cube.forward(ctx, x)

        with m.autograd.forward_ad.dual_level():
            _, _, d = duals(m)
            d.requires_grad_()
            (g,) = m.autograd.grad(Kept.apply(d).sum(), d)
            return pair(m, g)

    agrees(program)
