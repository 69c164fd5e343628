"""grad and its family give what JAX's give: the same structures, dtypes and values, for every shape of call."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

from graph.same import raises, same
from twograd import graph
from twograd._compat import body_of, user_line
from twograd.errors import NoRule


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["name"])
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array
    name: str = "layer"


X = np.linspace(0.1, 1.2, 6, dtype=np.float32).reshape(2, 3)
Y = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)
V = np.linspace(0.5, 1.5, 3, dtype=np.float32)
KEY = jax.random.key(0)


def linear_layer(layer, x):
    return jnp.sum(jnp.tanh(x * layer.w + layer.b))


def dictionary(params, x):
    return jnp.sum(params["a"][0] * x**2) + jnp.sum(jnp.exp(params["b"]["c"]))


def product(x, y):
    return jnp.sum(jnp.sin(x) * y)


def with_key(key, x):
    return jnp.sum(x * jax.random.normal(key, x.shape))


def with_keyword(x, *, scale, options=None):
    return jnp.sum(x**3) * scale + (0.0 if options is None else jnp.sum(options["shift"] * x))


PARAMS = {"a": (V, None), "b": {"c": X}, "empty": []}

# name: (function, arguments, keyword arguments, settings)
CALLS = {
    "array": (lambda x: jnp.sum(x**2), (X,), {}, {}),
    "python scalar": (lambda x: x**3 + 2.0 * x, (0.7,), {}, {}),
    "numpy scalar": (lambda x: x**3, (np.float32(0.7),), {}, {}),
    "weak and strong": (lambda x, y: x * y, (0.5, np.float32(2)), {}, {"argnums": (0, 1)}),
    "argnums": (product, (X, Y), {}, {"argnums": 1}),
    "argnums, several": (product, (X, Y), {}, {"argnums": (1, 0)}),
    "argnums, list": (product, (X, Y), {}, {"argnums": [0]}),
    "argnums, negative": (product, (X, Y), {}, {"argnums": -1}),
    "argnums, negative ones": (product, (X, Y), {}, {"argnums": (-1, -2)}),
    "dictionaries": (dictionary, (PARAMS, V), {}, {"argnums": (0, 1)}),
    "dataclass": (linear_layer, (Layer(V, V + 1), X), {}, {}),
    "empty tree": (lambda p, x: jnp.sum(x), ({}, X), {}, {}),
    "empty trees": (lambda p, x: jnp.sum(x), (((), [], None), X), {}, {"argnums": (0, 1)}),
    "none": (lambda p, x: jnp.sum(x), (None, X), {}, {"argnums": 1}),
    "zero-size array": (lambda x: jnp.sum(x) + 1.0, (np.zeros((0, 3), np.float32),), {}, {}),
    "unused": (lambda x, y: jnp.sum(x), (X, Y), {}, {"argnums": (0, 1)}),
    "constant function": (lambda x: 3.0, (X,), {}, {}),
    "constant array": (lambda x: jnp.float32(3), (X,), {}, {}),
    "identity": (lambda x: x, (0.5,), {}, {}),
    "closes over an array": (lambda x: jnp.sum(x * Y), (X,), {}, {}),
    "keywords": (with_keyword, (X,), {"scale": 2.0, "options": {"shift": X}}, {}),
    "integer argument": (lambda x, n: jnp.sum(x) * n, (X, 3), {}, {}),
    "boolean argument": (lambda x, b: jnp.sum(jnp.where(b, x, 2 * x)), (X, True), {}, {}),
    "integer, allowed": (lambda n, x: jnp.sum(x) * n, (np.int32(3), X), {}, {"argnums": (0, 1), "allow_int": True}),
    "key": (with_key, (KEY, X), {}, {"argnums": 1}),
    "key, closed over": (functools.partial(with_key, KEY), (X,), {}, {}),
    "bfloat16": (lambda x: jnp.sum(x * x), (jnp.asarray(X, jnp.bfloat16),), {}, {}),
    "float16": (lambda x: jnp.sum(jnp.sin(x)), (jnp.asarray(X, jnp.float16),), {}, {}),
    "complex input, real output": (lambda z: jnp.sum(jnp.abs(z) ** 2), (X + 1j * Y,), {}, {}),
    "holomorphic": (lambda z: jnp.sum(z**3), (X + 1j * Y,), {}, {"holomorphic": True}),
    "auxiliary": (lambda x: (jnp.sum(x), {"twice": 2 * x, "n": 3}), (X,), {}, {"has_aux": True}),
    "auxiliary, none": (lambda x: (jnp.sum(x), None), (X,), {}, {"has_aux": True}),
    "auxiliary shares with the value": (lambda x: (jnp.sum(x), jnp.sum(x)), (X,), {}, {"has_aux": True}),
    "fan-out": (lambda x: jnp.sum(x * x + x * jnp.sin(x) - x), (X,), {}, {}),
    "stop_gradient": (lambda x: jnp.sum(lax.stop_gradient(x) * x), (X,), {}, {}),
    "dead code": (lambda x: (jnp.exp(x), jnp.sum(x**2))[1], (X,), {}, {}),
    "broadcasting": (lambda x, v: jnp.sum((x + v) * (v - x)), (X, V), {}, {"argnums": (0, 1)}),
    "matmul": (lambda x, y: jnp.sum(jnp.tanh(x @ y.T)), (X, Y), {}, {"argnums": (0, 1)}),
    "softmax": (lambda x: -jnp.sum(jax.nn.log_softmax(x)[0]), (X,), {}, {}),
    "relu and where": (lambda x: jnp.sum(jax.nn.relu(x) + jnp.where(x > 0, x, jnp.exp(x))), (Y,), {}, {}),
    "indexing": (lambda x, i: jnp.sum(x[i] ** 2) + x[0, 1], (X, np.array([1, 0, 1])), {}, {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_value_and_grad_as_jax(name):
    f, args, kwargs, settings = CALLS[name]
    same(
        graph.value_and_grad(f, **settings)(*args, **kwargs),
        jax.jit(jax.value_and_grad(f, **settings))(*args, **kwargs)
        if name != "integer, allowed"  # jit does not return float0
        else jax.value_and_grad(f, **settings)(*args, **kwargs),
    )


@pytest.mark.parametrize("name", [name for name in CALLS if name != "integer, allowed"])
def test_types_under_a_trace_are_jaxs(name):
    f, args, kwargs, settings = CALLS[name]
    ours, theirs = (jax.make_jaxpr(e.value_and_grad(f, **settings))(*args, **kwargs) for e in (graph, jax))
    assert ours.out_avals == theirs.out_avals  # shapes, dtypes, and whether they are weak


@pytest.mark.parametrize("name", ["argnums, several", "auxiliary", "keywords", "dataclass", "weak and strong"])
def test_grad_as_jax(name):
    f, args, kwargs, settings = CALLS[name]
    same(graph.grad(f, **settings)(*args, **kwargs), jax.grad(f, **settings)(*args, **kwargs))


def test_argnums_that_jax_does_not_take():
    (value, repeated), (_, none) = (graph.value_and_grad(product, argnums)(X, Y) for argnums in ((0, 0), ()))
    expected = jax.grad(product)(X, Y)
    same((value, repeated, none), (product(X, Y), (expected, expected), ()))


# --- any order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("f", [jnp.tanh, jnp.exp, lambda x: x**7, lambda x: x**2.5], ids=["tanh", "exp", "x7", "x2.5"])
def test_order(order, f):
    ours = theirs = f
    for _ in range(order):
        ours, theirs = graph.grad(ours), jax.grad(theirs)
    with jax.enable_x64(True):
        same(ours(0.6), theirs(0.6), rtol=1e-12)


def test_polynomial_dies():
    f = lambda x: x**3  # noqa: E731
    for _ in range(4):
        f = graph.grad(f)
    assert f(2.0) == 0.0


# --- composition ------------------------------------------------------------------------------------------------------


@jax.custom_jvp
def cube(x):
    return x**3


@cube.defjvp
def cube_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return cube(x), 3 * x**2 * t


@jax.custom_vjp
def clipped(x):
    return jnp.sin(x)


clipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.clip(ct * jnp.cos(x), -0.5, 0.5),))


def energy(x):
    return jnp.sum(jnp.tanh(x) ** 2 * x)


def through(inner):
    return lambda x: jnp.sum(inner(x) * jnp.cos(x))


SCALAR = {
    "plain": energy,
    "jit": through(jax.jit(jnp.tanh)),
    "jit in jit": through(jax.jit(lambda x: jax.jit(jnp.sin)(x) * x)),
    "checkpoint": through(jax.checkpoint(lambda x: jnp.sin(jnp.exp(x)))),
    "custom_jvp": through(cube),
    "custom_vjp": through(clipped),
    "vmap": through(jax.vmap(lambda v: jnp.sum(v) * jnp.sin(v))),
    "library": through(jax.nn.softplus),
    "relu": through(jax.nn.relu),
    "grad inside": through(jax.vmap(jax.vmap(jax.grad(lambda s: jnp.sin(s) * s)))),
    "our grad inside": through(jax.vmap(jax.vmap(graph.grad(lambda s: jnp.sin(s) * s)))),
}

# Two derivatives, taken in all the ways in which ours, JAX's, jit and vmap can be nested.
TWICE = {
    "ours of ours": lambda f: graph.grad(lambda x: jnp.sum(graph.grad(f)(x) ** 2)),
    "ours of JAX's": lambda f: graph.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2)),
    "JAX's of ours": lambda f: jax.grad(lambda x: jnp.sum(graph.grad(f)(x) ** 2)),
    "of jit of": lambda f: graph.grad(jax.jit(lambda x: jnp.sum(graph.grad(jax.jit(f))(x) ** 2))),
    "jvp of ours": lambda f: lambda x: jax.jvp(graph.grad(f), (x,), (2 * graph.grad(f)(x),))[1],
    "our jvp of ours": lambda f: lambda x: graph.jvp(graph.grad(f), (x,), (2 * graph.grad(f)(x),))[1],
    "hvp": lambda f: lambda x: graph.hvp(f, (x,), (2 * jax.grad(f)(x),))[0],
}


@pytest.mark.parametrize("f", SCALAR.values(), ids=SCALAR)
def test_second_order(f):
    @jax.jit  # one program for all nestings: what takes the time is compiling
    def everything(x):
        expected = jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2))(x)
        return expected, {name: nesting(f)(x) for name, nesting in TWICE.items()}

    expected, found = everything(X)
    for name, ours in found.items():
        same({name: ours}, {name: expected}, rtol=1e-4)


@pytest.mark.parametrize("f", SCALAR.values(), ids=SCALAR)
def test_first_order_around(f):
    batch = np.stack([X, X + 1])

    @jax.jit
    def everything(x, batch):
        of_one = jax.grad(f)(x), [graph.grad(g)(x) for g in (f, jax.jit(f), jax.checkpoint(f))]
        summed = graph.grad(lambda b: jnp.sum(jax.vmap(f)(b)))
        return *of_one, jax.vmap(jax.grad(f))(batch), [jax.vmap(graph.grad(f))(batch), summed(batch)]

    expected, ours, batched, ours_batched = everything(X, batch)
    same((ours, ours_batched), ([expected] * 3, [batched] * 2))
    same(graph.grad(f)(X), expected)


def test_value_and_grad_of_vmapped_jacobian():
    def f(x):
        return jnp.sum(jax.vmap(graph.jacobian(jnp.sin))(x))

    same(graph.value_and_grad(f)(X), jax.value_and_grad(lambda x: jnp.sum(jax.vmap(jax.jacrev(jnp.sin))(x)))(X))


def test_closes_over_a_tracer():
    def outer(engine):
        return lambda y: jnp.sum(engine.grad(lambda x: jnp.sum(jnp.sin(x) * y))(y))

    same(jax.jit(outer(graph))(X), jax.jit(outer(jax))(X))
    same(graph.grad(outer(graph))(X), jax.grad(outer(jax))(X))
    same(jax.vmap(outer(graph))(X), jax.vmap(outer(jax))(X))


def test_inside_scan():
    def loop(engine):
        return lambda x: lax.scan(lambda c, _: (c - 0.1 * engine.grad(energy)(c), energy(c)), x, None, length=3)

    same(jax.jit(loop(graph))(X), jax.jit(loop(jax))(X))


# --- vjp --------------------------------------------------------------------------------------------------------------


def pair_of(x, y):
    return {"product": x * y, "sum": jnp.sum(x), "count": jnp.array(3)}


def test_vjp_as_jax_and_repeatedly():
    ours, pull = graph.vjp(pair_of, X, Y)
    theirs, jax_pull = jax.vjp(pair_of, X, Y)
    same(ours, theirs)
    for scale in (1.0, 2.0, 0.0):
        ct = {"product": scale * Y, "sum": jnp.float32(scale), "count": np.zeros((), jax.dtypes.float0)}
        same(pull(ct), jax_pull(ct))


def test_vjp_has_aux():
    f = lambda x: (jnp.sin(x), {"cos": jnp.cos(x)})  # noqa: E731
    out, pull, aux = graph.vjp(f, X, has_aux=True)
    jax_out, jax_pull, jax_aux = jax.vjp(f, X, has_aux=True)
    same((out, aux, pull(Y)), (jax_out, jax_aux, jax_pull(Y)))


def test_pullback_is_linear_in_batches():
    _, pull = graph.vjp(jnp.sin, X)
    cts = np.stack([Y, 2 * Y])
    same(jax.vmap(pull)(cts), jax.vmap(jax.vjp(jnp.sin, X)[1])(cts))
    same(jax.jit(pull)(Y), pull(Y))


def test_pullback_can_be_differentiated():
    ours = graph.grad(lambda y: jnp.sum(graph.vjp(lambda x: x**2 * y, X)[1](y)[0]))(Y)
    same(ours, jax.grad(lambda y: jnp.sum(jax.vjp(lambda x: x**2 * y, X)[1](y)[0]))(Y))


def test_vjp_of_integer_operands_and_unused_ones():
    ours, theirs = (engine.vjp(lambda x, n, u: x * n, X, 3, Y)[1](Y) for engine in (graph, jax))
    same(ours, theirs)
    assert ours[1].dtype == jax.dtypes.float0


# --- jvp, jacobian, hessian, hvp --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jvp", "jvp with tree", "jvp with integers"])
def test_jvp(name):
    f, primals, tangents = {
        "jvp": (lambda x, y: jnp.sin(x) * y, (X, Y), (Y, X)),
        "jvp with tree": (lambda p: {"a": p["w"] * 2, "b": jnp.sum(p["w"] ** 2)}, ({"w": X},), ({"w": Y},)),
        "jvp with integers": (lambda x, n: (x * n, n), (X, 3), (Y, np.zeros((), jax.dtypes.float0))),
    }[name]
    same(graph.jvp(f, primals, tangents), jax.jvp(f, primals, tangents))


def test_jvp_aux():
    f = lambda x: (jnp.sin(x), x)  # noqa: E731
    same(graph.jvp(f, (X,), (Y,), has_aux=True), jax.jvp(f, (X,), (Y,), has_aux=True))


JACOBIANS = {
    "vector": (lambda v: jnp.sin(v) * v[0], (V,), {}),
    "matrix": (lambda x: x @ x.T, (X,), {}),
    "scalar": (lambda x: x**3, (0.5,), {}),
    "argnums": (lambda x, y: x * y, (V, V + 1), {"argnums": (0, 1)}),
    "argnums, negative": (lambda x, y: x * y, (V, V + 1), {"argnums": -1}),
    "tree to tree": (lambda p: {"s": p["a"] * p["b"], "t": (jnp.sum(p["a"]),)}, ({"a": V, "b": V + 1},), {}),
    "auxiliary": (lambda v: (jnp.sin(v), {"v": v}), (V,), {"has_aux": True}),
    "holomorphic": (lambda z: z**2, (V + 1j,), {"holomorphic": True}),
    "independent": (lambda v: jnp.ones(2), (V,), {}),
    "empty output": (lambda v: v[:0], (V,), {}),
}


@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobian(name):
    f, args, settings = JACOBIANS[name]
    same(graph.jacobian(f, **settings)(*args), jax.jacrev(f, **settings)(*args))


def test_jacobian_under_vmap_and_jit():
    f = lambda v: jnp.sin(v) * v[0]  # noqa: E731
    same(jax.jit(jax.vmap(graph.jacobian(f)))(X), jax.vmap(jax.jacrev(f))(X))


@pytest.mark.parametrize("name", ["vector", "tree", "argnums", "auxiliary"])
def test_hessian(name):
    f, args, settings = {
        "vector": (lambda v: jnp.sum(v**3) * v[0], (V,), {}),
        "tree": (lambda p: jnp.sum(p["a"] ** 2 * p["b"]), ({"a": V, "b": V + 1},), {}),
        "argnums": (lambda x, y: jnp.sum(x**2 * y), (V, V + 1), {"argnums": (0, 1)}),
        "auxiliary": (lambda v: (jnp.sum(v**3), v), (V,), {"has_aux": True}),
    }[name]
    same(graph.hessian(f, **settings)(*args), jax.hessian(f, **settings)(*args))


def test_hvp():
    f = lambda p, x: jnp.sum(jnp.tanh(p["w"] * x) ** 2)  # noqa: E731
    primals, tangents = ({"w": V}, V + 1), ({"w": V - 1}, V)
    same(graph.hvp(f, primals, tangents), jax.jvp(jax.grad(f, (0, 1)), primals, tangents)[1])


# --- what is traced again, and why ------------------------------------------------------------------------------------


def test_values_do_not_retrace():
    fn = graph.grad(lambda x, s: jnp.sum(x**2) * s)
    for i in range(5):
        fn(X + i, 0.5 * i)
    assert fn.traces() == 1
    fn(jnp.asarray(X), 3.0)
    assert fn.traces() == 1


def test_signatures_tell_what_changed():
    fn = graph.grad(lambda p: jnp.sum(p["w"] ** 2))
    fn({"w": X})
    fn({"w": V})
    fn({"w": jnp.asarray(V, jnp.bfloat16)})
    assert fn.traces() == 3
    assert [s.split(": ")[1] for s in fn.signatures()] == ["float32[2,3]", "float32[3]", "bfloat16[3]"]
    assert "['w']" in fn.signatures()[0]


def test_name_and_docstring_are_kept():
    def loss(x):
        """The loss."""
        return jnp.sum(x)

    assert graph.grad(loss).__name__ == "loss"
    assert graph.grad(loss).__doc__ == "The loss."


# --- errors -----------------------------------------------------------------------------------------------------------


def vector_valued(x):
    return x * 2


def test_output_is_no_scalar():
    with raises(TypeError, "functions that return a scalar") as caught:
        graph.grad(vector_valued)(X)
    assert "float32[2,3]" in str(caught.value)
    (note,) = (note for note in caught.value.__notes__ if "vector_valued" in note)
    assert f"test_functional.py:{vector_valued.__code__.co_firstlineno}" in note


def test_output_is_a_tree():
    with raises(TypeError, "scalar"):
        graph.grad(lambda x: (jnp.sum(x), x))(X)
    with raises(TypeError, "scalar"):
        graph.grad(lambda x: {"loss": jnp.sum(x)})(X)
    with raises(TypeError, "scalar"):
        graph.grad(lambda x: None)(X)


def test_output_is_an_integer_or_complex():
    with raises(TypeError, "int32"):
        graph.grad(lambda x: jnp.sum(x).astype(int))(X)
    with raises(TypeError, "holomorphic"):
        graph.grad(lambda x: jnp.sum(x) * 1j)(X)
    with raises(TypeError, "complex"):
        graph.grad(lambda z: jnp.sum(abs(z)), holomorphic=True)(X + 1j)


def test_input_is_an_integer():
    with raises(TypeError, "argument 1['n'] has dtype int32") as caught:
        graph.grad(lambda x, p: jnp.sum(x) * p["n"], argnums=1)(X, {"n": 3})
    assert any("test_functional.py" in note for note in caught.value.__notes__)
    with raises(TypeError, "bool"):
        graph.grad(lambda b: 1.0 * b)(True)
    with raises(TypeError, "argument 0"):
        graph.grad(lambda x: x, holomorphic=True)(1.0)


def test_argnums():
    with raises(ValueError, "argument 2"):
        graph.grad(product, argnums=2)(X, Y)
    with raises(ValueError, "argument -3"):
        graph.grad(product, argnums=-3)(X, Y)
    with raises(ValueError, "argument 1"):
        graph.grad(product, argnums=1)(X, y=Y)
    with raises(TypeError, "argnums"):
        graph.grad(product, argnums="x")(X, Y)
    with raises(TypeError, "argnums"):
        graph.grad(product, argnums=1.0)(X, Y)


@pytest.mark.parametrize("transform", [graph.grad, graph.value_and_grad, graph.jacobian, graph.hessian])
def test_not_callable(transform):
    with raises(TypeError, f"{transform.__name__} expects a function"):
        transform(3)


def test_vjp_and_jvp_of_no_function():
    with raises(TypeError, "vjp expects a function"):
        graph.vjp(3, X)
    with raises(TypeError, "jvp expects a function"):
        graph.jvp(3, (X,), (X,))


def test_auxiliary_missing():
    with raises(TypeError, "has_aux"):
        graph.grad(energy, has_aux=True)(X)
    with raises(TypeError, "has_aux"):
        graph.vjp(energy, X, has_aux=True)


def test_wrong_cotangent():
    _, pull = graph.vjp(jnp.sin, X)
    with raises(TypeError, "float32[3]"):
        pull(V)
    with raises(TypeError, "structure"):
        pull((X,))
    with raises(TypeError, "float16"):
        pull(jnp.asarray(X, jnp.float16))


def test_wrong_tangent():
    with raises(TypeError, "float32[3]"):
        graph.jvp(jnp.sin, (X,), (V,))
    with raises(TypeError, "structure"):
        graph.jvp(jnp.sin, (X,), (X, X))


def unknown(x):
    """Binds a primitive that has no derivative rule."""
    return unknown_p.bind(x)


unknown_p = Primitive("unknown")
unknown_p.def_abstract_eval(lambda aval: aval)
unknown_p.def_impl(lambda x: x)
mlir.register_lowering(unknown_p, mlir.lower_fun(lambda x: x, multiple_results=False))


def test_no_rule_names_primitive_and_line():
    def loss(x):
        return jnp.sum(unknown(x))

    with pytest.raises(NoRule) as caught:
        graph.grad(loss)(X)
    assert "'unknown' (operands: float32[2,3]" in str(caught.value)
    assert f"test_functional.py:{unknown.__code__.co_firstlineno + 2} (unknown)" in str(caught.value)
    assert "src/twograd/rules" in str(caught.value)


def test_no_rule_inside_of_a_library_function_names_the_users_line():
    jnp.where(X > 0, X, 0.0)  # JAX keeps what it traces here; the line of this call must not be named later

    def loss(x):
        return jnp.sum(jnp.where(x > 0, x, 0.0))

    graph_of_loss = graph.trace(loss, X)
    (call,) = (eqn for eqn in graph_of_loss.jaxpr.eqns if eqn.primitive.name == "jit")
    for eqn in body_of(call).eqns:
        assert f"test_functional.py:{loss.__code__.co_firstlineno + 1} (" in str(user_line(eqn))


def test_no_rule_only_where_a_cotangent_arrives():
    grad = graph.grad(lambda x: jnp.sum(lax.stop_gradient(unknown(x)) * x) + jnp.sum(x))
    same(grad(X), X + 1)
