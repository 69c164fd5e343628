"""apply: what is traced and compiled, and when; structure and data; results of every kind; errors."""

import functools
import gc
import traceback
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph.same import raises, same
from jax.extend.core import Primitive
from jax.interpreters import mlir

import twograd.numpy as tnp
from twograd import tape
from twograd.errors import NoRule
from twograd.tape.apply import apply


def leaf(*values):
    return tape.tensor(values, requires_grad=True)


# --- what compiles ----------------------------------------------------------------------------------------------------


def step(value, number, shape=(3,)):
    x = tape.full(shape, value, requires_grad=True)
    y = (x * number + 0.5).sin() ** 3
    loss = (y / (x + number)).sum() + y[1] + tnp.where(y > 0, y, number).mean()
    loss.backward()
    (g,) = tape.autograd.grad((x.exp() * number).sum(), x, create_graph=True)
    tape.autograd.grad(g.sum(), x)


def test_new_values_compile_nothing(compilations):
    assert compilations.of(lambda: step(1.0, 2.0)) > 0  # so the count counts
    assert compilations.of(lambda: step(1.0, 2.0)) == 0
    assert compilations.of(lambda: step(7.0, 2.0)) == 0
    assert compilations.of(lambda: [step(7.0, float(i)) for i in range(3, 6)]) == 0
    assert compilations.of(lambda: step(1.0, 2.0, shape=(4,))) > 0
    assert compilations.of(lambda: step(7.0, 2.5)) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda x, i: x * i,
        lambda x, i: i - x,
        lambda x, i: x + float(i),
        lambda x, i: x ** (0.5 + i),
        lambda x, i: (2.0 + i) ** x,
        lambda x, i: x[i],
        lambda x, i: x[tape.tensor([i, 0])],
        lambda x, i: x[:, i],
        lambda x, i: x.at[i].set(float(i)),
        lambda x, i: x.clamp(-float(i), i + 0.5),
        lambda x, i: tnp.multiply(i, x),
        lambda x, i: tnp.where(x > i, x, i),
        lambda x, i: tnp.clip(x, max=float(i)),
        lambda x, i: x == i,
    ],
    ids=lambda call: "".join(
        traceback.linecache.getline(__file__, call.__code__.co_firstlineno).split(": ", 1)[1:]
    ).strip(),
)
def test_a_number_that_varies_compiles_once(call, compilations):
    def use(i):
        x = tape.ones(3, 3, requires_grad=True)
        y = call(x, i)
        if y.requires_grad:
            y.sum().backward()

    use(0)
    use(1)
    assert compilations.of(lambda: use(2)) == 0


def test_structure_is_part_of_the_signature(compilations):
    x = tape.ones(3, 3, requires_grad=True)
    for call in (lambda n: x**n, lambda n: tnp.power(x, n), lambda n: x.sum(n % 2), lambda n: tnp.roll(x, n, axis=0)):
        for n in (3, 4, 5, 6):
            call(n)
        assert compilations.of(functools.partial(call, 4)) == 0
    x = leaf(0.0)
    (g,) = tape.autograd.grad(tnp.power(x, 2), x)
    assert g.tolist() == [0.0]  # no logarithm of zero
    assert (leaf(-2.0) ** 3).tolist() == [-8.0]


def test_equal_numbers_of_other_types_or_signs():
    x = tape.arange(3)
    assert (x * 2).dtype == np.int32
    assert (x * 2.0).dtype == np.float32
    assert (x * True).dtype == np.int32
    assert (tape.tensor([1.0]) / 0.0).tolist() == [np.inf]
    assert (tape.tensor([1.0]) / -0.0).tolist() == [-np.inf]
    assert (tape.tensor([1.0]) / 0.0).tolist() == [np.inf]
    assert np.isnan((tape.tensor([1.0]) * float("nan")).item())
    assert tnp.sum(tape.ones(1, 2), 1).shape == (1,)
    assert tnp.sum(tape.ones(1, 2), True).shape == tnp.sum(jnp.ones((1, 2)), True).shape


def test_x64_is_part_of_the_signature():
    assert (tape.tensor([1]) / 2).dtype == np.float32
    with jax.enable_x64(True):
        assert (tape.tensor([1]) / 2).dtype == np.float64
        assert (tape.tensor([1.0]) * 0.1).item() == 0.1
    assert (tape.tensor([1]) / 2).dtype == np.float32


def test_a_function_made_anew_each_time_is_forgotten_in_the_end():
    from twograd.tape import apply as module

    del module
    recorder = tape.Tensor.__add__.__globals__["recorder"] if hasattr(tape.Tensor.__add__, "__globals__") else None
    assert recorder is not None
    assert recorder.cache_info().maxsize is not None


# --- results and operands of every kind -------------------------------------------------------------------------------


def test_pytrees():
    def f(params, scale, *, shift):
        y = params["w"] * scale["s"][0] + shift
        return {"y": y, "both": (y.sum(), [params["w"].shape, None, "name", y > 0])}

    w = leaf(1.0, 2.0)
    out = apply(f, {"w": w}, {"s": [tape.tensor(3.0)]}, shift=jnp.ones(2))
    assert out["y"].tolist() == [4.0, 7.0]
    assert out["both"][1][:3] == [(2,), None, "name"]
    assert not out["both"][1][3].requires_grad
    (out["both"][0] + out["y"][0]).backward()
    assert w.grad.tolist() == [6.0, 3.0]


def test_what_is_no_array_is_returned_as_it_is():
    x = tape.ones(2, 3, requires_grad=True)
    assert tnp.shape(x) == (2, 3)
    assert tnp.ndim(x) == 2
    assert apply(lambda x: x.dtype, x) == np.float32
    assert apply(lambda x: (), x) == ()


def test_integer_outputs_have_no_edge():
    values, indices = apply(lambda x: (x * 2, jnp.argsort(x)), leaf(3.0, 1.0))
    assert values.requires_grad
    assert (indices.requires_grad, indices.grad_fn) == (False, None)
    assert indices.tolist() == [1, 0]


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_axes_by_position_or_keyword(level):
    x = tape.ones(2, 3, 4, requires_grad=True)
    with tape.granularity(level):
        for y in (tnp.sum(x, 1), tnp.sum(x, axis=1), tnp.sum(x, (1,)), tnp.sum(a=x, axis=1)):
            assert y.shape == (2, 4)
            assert y.requires_grad
        assert tnp.concatenate([x, x], 2).shape == tnp.concatenate([x, x], axis=2).shape == (2, 3, 8)
        assert tnp.stack([x, tnp.zeros((2, 3, 4))], axis=-1).requires_grad
        assert tnp.moveaxis(x, 0, -1).shape == (3, 4, 2)
        assert tnp.einsum("ijk->ik", x).shape == (2, 4)


def test_arrays_by_keyword_and_in_lists():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    tnp.cross(a=tnp.append(x, values=y[:1]), b=jnp.array([0.0, 0.0, 1.0])).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([-1.0, 1.0], [0.0, 0.0])
    first, second = tnp.split(tnp.concatenate([x, np.float32([9.0]), y * 2]), [3])
    (first.sum() + second[1] * 3).backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([0.0, 2.0], [0.0, 6.0])


def test_partials_lambdas_and_closures_of_arrays():
    x = leaf(1.0, 2.0)
    scale = jnp.array([3.0, 4.0])
    assert apply(functools.partial(jnp.multiply, scale), x).tolist() == [3.0, 8.0]
    assert apply(lambda a: a * scale, x).tolist() == [3.0, 8.0]
    assert apply(lambda a, b=2.0: a * b, x).tolist() == [2.0, 4.0]
    assert apply(lambda: jnp.ones(2)).tolist() == [1.0, 1.0]

    class Scaled:
        def __call__(self, a):
            return a * scale

    y = apply(Scaled(), x)
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]
    assert y.grad_fn.name() == "ScaledBackward0"


def test_other_derivatives_inside():
    x = leaf(0.5)
    apply(jax.grad(lambda b: jnp.sin(b[0]) ** 2), x).backward()
    np.testing.assert_allclose(x.grad.tolist(), [2 * np.cos(1.0)], rtol=1e-6)


def test_under_jit_and_vmap():
    def f(array):
        x = tape.Tensor(array, requires_grad=True)
        (x.sin() * 2 * x).sum().backward()
        return x.grad.array

    array = jnp.array([0.5, 1.5])
    expected = 2 * jnp.sin(array) + 2 * array * jnp.cos(array)
    same(jax.jit(f)(array), expected)
    same(jax.vmap(f)(array), expected)
    same(jax.jit(f)(array), f(array))  # and nothing of the trace was kept


def test_saves_operands_and_results_without_copies():
    x = leaf(1.0, 2.0)
    y = x.exp()
    assert y.grad_fn.saved[0] is y.array
    z = x * x
    assert {id(value) for value in z.grad_fn.saved} == {id(x.array)}
    assert not (x + 1).grad_fn.saved
    assert (x * tape.ones(2)).grad_fn.saved[0] is not x.array  # the gradient of x needs the other operand only


def test_a_dead_result_is_not_kept():
    x = leaf(1.0, 2.0)
    y = x + 1
    array = weakref.ref(y.array)
    z = y + 1
    gc.disable()
    try:
        del y
        assert array() is None
    finally:
        gc.enable()
    assert z.tolist() == [3.0, 4.0]


# --- errors -----------------------------------------------------------------------------------------------------------

WRONG = [
    (lambda x: x + tape.ones(4), ["In the op add(float32[2,3], float32[4])", "Shapes are aligned from the right"]),
    (lambda x: x @ x, ["In the op matmul(float32[2,3], float32[2,3])", "2x3 and 2x3", "mT, transpose"]),
    (lambda x: x & x, ["In the op bitwise_and(float32[2,3], float32[2,3])", "dtype float32", "x.int()"]),
    (lambda x: tnp.sum(x, 5), ["In the op sum(float32[2,3], 5)", "axis 5 is out of bounds"]),
    (lambda x: tnp.concatenate([x, tape.ones(1)]), ["In the op concatenate(['float32[2,3]', 'float32[1]'])"]),
    (lambda x: tnp.reshape(x, shape=(4, 4)), ["In the op reshape(float32[2,3], shape=(", "(2, 3)", "(4, 4)"]),
    (lambda x: x + "a", ["In the op add(float32[2,3], 'a')"]),
    (lambda x: x * 2.0 @ x, ["In the op matmul(float32[2,3], float32[2,3])"]),
    (lambda x: apply(lambda a, n: a + n + jnp.ones(4), x, 2.0), ["In the op <lambda>(float32[2,3], 2.0)"]),
]


@pytest.mark.parametrize("level", ["op", "primitive"])
@pytest.mark.parametrize(("call", "texts"), WRONG, ids=[texts[0] for _, texts in WRONG])
def test_errors_name_op_types_way_out_and_line(call, texts, level):
    with tape.granularity(level), pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        call(tape.ones(2, 3, requires_grad=True))
    shown = "".join(traceback.format_exception(caught.value))
    for text in texts:
        assert text in shown
    assert f'test_apply.py", line {call.__code__.co_firstlineno}, in <lambda>' in shown
    with tape.granularity(level), pytest.raises((TypeError, ValueError, RuntimeError)):  # the second time as the first
        call(tape.ones(2, 3, requires_grad=True))


def test_an_error_leaves_no_half_state(compilations):
    x = tape.ones(2, 3, requires_grad=True)
    tnp.add(x, 2.0)
    with pytest.raises((TypeError, ValueError)):
        tnp.add(tnp.add(x, 3.0), tape.ones(7))
    assert compilations.of(lambda: tnp.add(x, 4.0)) == 0  # numbers given to add are still data
    assert tape.is_grad_enabled()


def test_unhashable_structure():
    with raises(TypeError, "f: an argument that is neither an array nor a number must be hashable"):

        def f(x, options):
            return x

        apply(f, leaf(1.0), {1, 2})


def test_a_closure_over_a_tensor_is_refused():
    w = leaf(2.0)
    with raises(TypeError, "a function of arrays returned a Tensor, because it closes over one"):
        apply(lambda x: x * w, leaf(1.0))
    assert apply(lambda x: x * w.array, leaf(1.0)).tolist() == [2.0]


unknown_p = Primitive("unknown_to_the_tape")
unknown_p.def_abstract_eval(lambda aval: aval)
unknown_p.def_impl(lambda x: x)
mlir.register_lowering(unknown_p, mlir.lower_fun(lambda x: x, multiple_results=False))


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_no_rule_is_an_error_of_the_walk_only(level):
    x = leaf(1.0, 2.0)
    with tape.granularity(level):
        y = apply(lambda x: unknown_p.bind(x) * 2, x)
        assert y.tolist() == [2.0, 4.0]
        with raises(NoRule, "no derivative rule for the primitive 'unknown_to_the_tape' (operands: float32[2]"):
            y.sum().backward()
        with raises(NoRule, "test_apply.py:"):
            apply(lambda x: unknown_p.bind(x) * 2, x).sum().backward()
        assert x.grad is None
        apply(lambda x: unknown_p.bind(x) * 2, x.detach()).sum()
    assert isinstance(NoRule, type)
    assert issubclass(NoRule, NotImplementedError)


def test_a_plan_belongs_to_the_settings_it_was_traced_under():
    x = tape.tensor(np.ones((2, 2), np.float32))
    precisions = []

    def product(a):
        precisions.append(str(jax.config.jax_default_matmul_precision))
        return a @ a

    for setting in ("default", "highest", "default", "highest"):
        with jax.default_matmul_precision(setting):
            tape.apply(product, x)
    assert precisions == ["default", "highest"]
    whole = tape.tensor(np.ones(2, np.int32))
    assert (whole + np.ones(2, np.float32)).dtype == np.float32
    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="strict"):
        whole + np.ones(2, np.float32)
