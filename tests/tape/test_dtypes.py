"""Dtypes, promotion and devices: where they are PyTorch's, and, as said in ``dtypes.py``, where they are not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises

import twograd.tape as tape
from tape.both import both
from twograd.tape import dtypes, inplace

KINDS = ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64")


@both
def test_names(m):
    x = m.zeros(2)
    assert x.dtype == m.float32 == m.float
    assert x.dtype is m.float32
    assert x.long().dtype == m.int64
    assert m.get_default_dtype() == m.float32
    assert m.tensor([1.5]).half().dtype == m.float16
    assert m.arange(3).dtype == m.long
    assert (m.arange(3) / 2).dtype == m.float32
    assert m.device("cpu") == x.device
    assert str(m.device("cuda", 1)) == "cuda:1"
    assert m.zeros(2, 3).shape.numel() == 6


def test_promotion_is_pytorchs():
    torch = pytest.importorskip("torch")
    operands = [(kind, shape) for kind in KINDS for shape in ((), (2,))]
    with jax.enable_x64(True):
        dtypes.set_default_dtype(np.float32)
        try:
            for (a, n), (b, k) in itertools.product(operands, operands):
                ours = dtypes.result_type(jnp.zeros(n, a), jnp.zeros(k, b))
                theirs = torch.result_type(
                    torch.zeros(n, dtype=getattr(torch, a)), torch.zeros(k, dtype=getattr(torch, b))
                )
                if str(theirs) != "torch.complex32":
                    assert str(theirs) == f"torch.{ours}", (a, n, b, k)
            for (a, n), number in itertools.product(operands, (2, 1.5, 2j)):
                theirs = torch.result_type(torch.zeros(n, dtype=getattr(torch, a)), number)
                if str(theirs) != "torch.complex32":
                    assert str(theirs) == f"torch.{dtypes.result_type(jnp.zeros(n, a), number)}", (a, n, number)
        finally:
            dtypes.set_default_dtype(None)


@both
def test_a_tensor_of_no_dimensions_does_not_widen(m):
    x = m.ones(2, dtype=m.float16)
    assert (x * m.tensor(2.0)).dtype == m.float16
    assert (m.tensor(2.0) + x).dtype == m.float16
    assert (m.arange(2) * m.tensor(0.5)).dtype == m.float32
    assert m.where(m.tensor([True, False]), x, m.tensor(1.0)).dtype == m.float16


def test_without_x64():
    with pytest.warns(UserWarning, match="float64 is float32 here, as JAX computes with 32 bits"):
        wide = tape.float64
    assert wide == np.float32
    assert tape.int64 == np.int32
    with jax.enable_x64(True):
        assert tape.float64 == np.float64
        assert tape.int64 == np.int64
        assert tape.get_default_dtype() == np.float64


def test_default_dtype():
    tape.set_default_dtype(tape.bfloat16)
    try:
        assert tape.zeros(1).dtype == tape.tensor([0.5]).dtype == tape.randn(2).dtype == jnp.bfloat16
        assert (1.5 * tape.arange(2)).dtype == jnp.bfloat16
    finally:
        tape.set_default_dtype(None)
    with raises(TypeError, "only floating-point types are supported as the default type"):
        tape.set_default_dtype(tape.int32)


def test_devices():
    x = tape.ones(2, device="cpu", requires_grad=True)
    assert x.to("cpu") is x.cpu() is x
    assert x.to(tape.device("cpu"), tape.float32) is x
    with raises(RuntimeError, "Expected one of cpu, cuda, xla device type at start of device string: foo"):
        tape.device("foo")
    if not tape.cuda.is_available():
        with raises(RuntimeError, "there is no device 'cuda' here: JAX has cpu:0"):
            x.cuda()


def test_out_is_refused():
    with raises(TypeError, "sin(): out= is not supported: an array cannot be written to."):
        tape.sin(tape.ones(2), out=tape.ones(2))


def test_in_place_twins_are_pytorchs():
    torch = pytest.importorskip("torch")
    for name in (*inplace.NAMES, *inplace.RESHAPING):
        assert hasattr(tape.Tensor, f"{name}_")
        assert name == "conj" or hasattr(torch.Tensor, f"{name}_"), name


CHANGES = {
    "addcmul_": lambda m, x: x.addcmul_(m.ones(3), m.ones(2, 1), value=0.5), "clamp_": lambda m, x: x.clamp_(0.5, 1.5),
    "index_fill_": lambda m, x: x.index_fill_(1, m.tensor([0]), 3.0), "lerp_": lambda m, x: x.lerp_(m.ones(2, 3), 0.25),
    "fill_diagonal_": lambda m, x: x.fill_diagonal_(7.0), "tril_": lambda m, x: x.tril_(),
    "unsqueeze_": lambda m, x: x.unsqueeze_(1).squeeze_().t_(),
    "scatter_": lambda m, x: x.scatter_(0, m.tensor([[1, 0, 1]]), 2.0),
    "floordiv": lambda m, x: x.floor_divide_(0.5), "unfold": lambda m, x: x.unfold(1, 1, 2).mul_(3.0),
    "integer_and_array": lambda m, x: x.__setitem__((0, [0, 2]), m.tensor([8.0, 9.0])),
    "swapaxes_": lambda m, x: x.swapaxes_(0, 1),
}  # fmt: skip


@both
def test_changes_in_place(m):
    seen = []
    for name, change in CHANGES.items():
        leaf = m.tensor([[0.25, 1.0, 2.0], [1.5, 0.75, 1.25]], requires_grad=name != "floordiv")
        x = leaf * 2
        change(m, x)
        if leaf.requires_grad:
            (x * x).sum().backward()
        seen.append((name, x.tolist(), x._version, None if leaf.grad is None else leaf.grad.tolist()))
    EXPECTED.setdefault("seen", seen)
    assert seen == EXPECTED["seen"]


EXPECTED = {}
"""What the first of the two made of the changes."""


def test_random_numbers_in_place():
    tape.manual_seed(0)
    for name, args in (("normal_", (1.0, 2.0)), ("uniform_", (2.0, 3.0)), ("exponential_", ()), ("bernoulli_", (0.5,))):
        x = tape.zeros(400)
        assert getattr(x, name)(*args) is x
        assert x._version == 1
        assert abs(x.mean().item() - {"normal_": 1, "uniform_": 2.5, "exponential_": 1, "bernoulli_": 0.5}[name]) < 0.4
    first = tape.rand(3, generator=tape.Generator().manual_seed(5))
    assert first.tolist() == tape.rand(3, generator=tape.Generator().manual_seed(5)).tolist()
