"""gradcheck and gradgradcheck: right gradients pass in all modes, wrong ones fail with PyTorch's texts, kinks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twograd.numpy as tnp
from tape.torch_says import outcome
from twograd import tape
from twograd.tape.autograd import GradcheckError, gradcheck, gradgradcheck

EVERY_CHECK = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
NEAR_ZERO = [-0.5, 0.0, 1e-8, 0.25, 2.0]


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def double(values, m=tape):
    return m.tensor(values, dtype=jnp.float64 if m is tape else m.float64, requires_grad=True)


def right(x, y):
    return x * y.sin(), (x * x).sum()


@jax.custom_vjp
def _wrong(x):
    return x * x


_wrong.defvjp(lambda x: (x * x, x), lambda x, ct: (3.0 * x * ct,))


def wrong(x):
    return tape.apply(_wrong, x)


def wrong_in_torch(x):
    import torch

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, ct):
            return 3.0 * ctx.saved_tensors[0] * ct

    return Wrong.apply(x)


@pytest.mark.parametrize("fast_mode", [False, True])
def test_right_gradients_pass(fast_mode):
    x, y = double([0.5, -1.0]), double([[1.0, 2.0], [0.25, -3.0]])
    assert gradcheck(right, (x, y), fast_mode=fast_mode, **EVERY_CHECK)
    assert gradgradcheck(right, (x, y), fast_mode=fast_mode, check_batched_grad=True, check_fwd_over_rev=True)
    assert x.grad is None
    assert x.tolist() == [0.5, -1.0]
    assert x._version == 0


@pytest.mark.parametrize("fast_mode", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_complex_inputs_and_outputs(fast_mode):
    z = tape.tensor(np.array([1.0 + 2.0j, -0.5j + 0.25]), requires_grad=True)
    x = double([0.5, -1.0])
    assert gradcheck(lambda z, x: (z * z * x, tnp.real(z) * x, abs(z)), (z, x), fast_mode=fast_mode)
    assert gradcheck(lambda z: z * z, z, fast_mode=fast_mode, check_forward_ad=True)
    assert gradgradcheck(lambda z: z * z * z, z, fast_mode=fast_mode)


def numbers(text):
    """Each number in a text as it is to four places; the two libraries print as many digits as they see fit."""
    return re.sub(r"-?\d+\.\d*", lambda number: f"{float(number[0]):.4f}", text).replace(" ", "")


@pytest.mark.parametrize("fast_mode", [False, True])
@pytest.mark.parametrize("values", [[0.5, -1.0], [[2.0]]])
def test_a_wrong_gradient_says_what_torch_says(fast_mode, values):
    torch = pytest.importorskip("torch")

    def text(m, function):
        return outcome(lambda m: m.autograd.gradcheck(function, double(values, m), fast_mode=fast_mode), m)

    ours, theirs = text(tape, wrong), text(torch, wrong_in_torch)
    assert ours[0] == theirs[0] == "GradcheckError"
    first = "Jacobian mismatch for output 0 with respect to input 0,"
    assert ours[1].splitlines()[0] == theirs[1].splitlines()[0] == first
    if not fast_mode:
        assert numbers(ours[1]) == numbers(re.sub(r",\s*dtype=torch.float64", "", theirs[1]))
    else:
        said = "The above quantities relating the numerical and analytical jacobians are computed"
        assert said in ours[1]
        assert said in theirs[1]
        assert "The max per-element difference (slow mode) is" in ours[1]
    assert gradcheck(wrong, double(values), fast_mode=fast_mode, raise_exception=False) is False


def test_a_wrong_gradient_among_right_ones():
    x, y = double([0.5, -1.0]), double([2.0])
    with pytest.raises(GradcheckError, match="for output 1 with respect to input 1,"):
        gradcheck(lambda x, n, y: (x * y, wrong(y), x.detach().floor() * n), (x + 0.25, 3.0, y))
    with pytest.raises(GradcheckError, match="While considering the imaginary part of complex outputs only, Jacobian"):
        gradcheck(lambda x: wrong(x) * 1j, x)


def test_a_wrong_second_derivative():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * jax.lax.stop_gradient(x) * ct,))
    x = double([0.5, -1.0])
    assert gradcheck(lambda x: tape.apply(square, x), x)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradgradcheck(lambda x: tape.apply(square, x), x)


def test_a_wrong_tangent():
    @jax.custom_jvp
    def f(x):
        return x * x

    f.defjvp(lambda primals, tangents: (primals[0] ** 2, 2.0 * jax.lax.stop_gradient(primals[0]) * tangents[0]))
    x = double([0.5, -1.0])
    assert gradcheck(lambda x: tape.apply(f, x), x, check_forward_ad=True)

    f.defjvp(lambda primals, tangents: (primals[0] ** 2, 3.0 * primals[0] * tangents[0]))
    tape.clear_caches()
    with pytest.raises(GradcheckError, match="Jacobian computed with forward mode mismatch for output 0 with respect"):
        gradcheck(lambda x: tape.apply(f, x), x, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize("fast_mode", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_kinks(fast_mode):
    """ReLU's difference at 0 is one half, its derivative here 0; Caffe's checker leaves such elements out."""
    x = double(NEAR_ZERO)
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: x.relu(), x, fast_mode=fast_mode)
    assert gradcheck(lambda x: x.relu(), x, fast_mode=fast_mode, kink_range=1e-4)
    clipped = double([0.5, 1.0, 2.0])
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: x.clamp(max=1.0), clipped, fast_mode=fast_mode)
    assert gradcheck(lambda x: x.clamp(max=1.0), clipped, fast_mode=fast_mode, kink=1.0, kink_range=1e-4)
    with pytest.raises(GradcheckError):
        gradcheck(wrong, x, fast_mode=fast_mode, kink_range=1e-4)  # away from the kink all is still compared


def test_nothing_differentiable():
    x = double([0.5, -1.5])
    assert gradcheck(lambda x: x.floor().detach(), x)
    with pytest.raises(GradcheckError, match="Numerical gradient for function expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, x)
    with pytest.raises(GradcheckError, match="Numerical gradient for function expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, x, fast_mode=True)


def test_a_backward_pass_that_is_random():
    rng = np.random.default_rng(0)
    x = double([0.5, -1.0])

    def f(x):
        y = x * 2
        if y.requires_grad:
            y.register_hook(lambda g: g * (1 + 1e-9 * rng.uniform()))
        return y

    with pytest.raises(GradcheckError, match="Backward is not reentrant"):
        gradcheck(f, x)
    assert gradcheck(f, x, nondet_tol=1e-6, check_undefined_grad=False)


def test_a_backward_pass_that_is_not_linear():
    def f(x):
        y = x * 2
        if y.requires_grad:
            y.register_hook(lambda g: g + (g == 0).all() * 1.0)
        return y

    with pytest.raises(GradcheckError, match="backward not multiplied by grad_output"):
        gradcheck(f, double([0.5]))


def test_it_may_close_over_an_input():
    w = double([[1.0, 2.0], [0.5, -1.0]])
    x = tape.tensor([1.0, -1.0], dtype=jnp.float64)
    assert gradcheck(lambda _: tnp.tanh(w @ x), w)


CALLS = {
    "no input": lambda m, check: check(lambda x: x, m.zeros(2)),
    "modes": lambda m, check: check(lambda x: x, double([1.0], m), check_backward_ad=False),
    "batched": lambda m, check: check(
        lambda x: x, double([1.0], m), check_backward_ad=False, check_forward_ad=True, check_batched_grad=True
    ),
    "batched forward": lambda m, check: check(lambda x: x, double([1.0], m), check_batched_forward_grad=True),
    "shape": lambda m, check: check(lambda x: x[: 1 + (x > 1).sum().item()], double([1.0, 0.0], m)),
    "stride": lambda m, check: check(lambda x: x, double([1.0], m).expand(3)),
    "second": lambda m, check: m.autograd.gradgradcheck(lambda x: x, double([1.0], m), check_rev_over_rev=False),
}


@pytest.mark.parametrize("case", CALLS)
def test_refusals(case):
    torch = pytest.importorskip("torch")
    ours, theirs = (outcome(lambda m: CALLS[case](m, m.autograd.gradcheck), m) for m in (tape, torch))
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1].replace("torch.Size([1])", "(1,)").replace("torch.Size([2])", "(2,)")


def test_a_warning_for_single_precision():
    x = tape.tensor([1.0], dtype=jnp.float32, requires_grad=True)
    said = "Input #0 requires gradient and is not a double precision floating point or complex. This check will likely"
    with pytest.warns(UserWarning, match=said):
        assert gradcheck(lambda x: x * 2, x, eps=1e-2)
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float64 needs jax.config.update"):
        gradcheck(lambda x: x * 2, x, eps=1e-2)
