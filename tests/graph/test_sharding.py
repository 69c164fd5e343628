"""Derivatives of programs on several devices: through ``jax.shard_map``, inside of it, and of its collectives.

The tests need four devices. Where there are fewer, one test runs this file again in a process with four virtual ones.
"""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from graph.same import raises, same
from twograd import graph, rules
from twograd.errors import NoRule

FOUR = jax.device_count() >= 4
on_four_devices = pytest.mark.skipif(not FOUR, reason="run by test_on_four_devices in a process of its own")

X = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
BLOCKS = P("i", "j")


@pytest.mark.skipif(FOUR, reason="this process has four devices")
@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_four_devices(chosen):
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=4", JAX_PLATFORMS="cpu")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, __file__]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# Each takes the engine whose derivative is taken inside of the body, and two blocks; then the partitions.
BODIES = {
    "pointwise": (lambda e, a, b: jnp.sin(a) * b, (BLOCKS, BLOCKS), BLOCKS),
    "matmul": (lambda e, a, b: lax.psum(a @ b, "j"), (BLOCKS, P("j", None)), P("i", None)),
    "replicated operand": (
        lambda e, a, b: lax.psum(jnp.sum(jnp.sin(a @ b)), "i"),
        (P("i", None), P()),
        P(),
    ),
    "scalar residuals": (
        lambda e, a, b: jnp.sin(jnp.sum(a)) * jnp.exp(lax.psum(jnp.sum(a), ("i", "j"))) * b,
        (BLOCKS, BLOCKS),
        BLOCKS,
    ),
    "gather and scatter": (
        lambda e, a, b: lax.psum_scatter(lax.all_gather(jnp.sin(a), "i", tiled=True) * b, "i", tiled=True),
        (BLOCKS, P(None, "j")),
        BLOCKS,
    ),
    "exchanges": (
        lambda e, a, b: lax.ppermute(lax.all_to_all(jnp.sin(a) * b, "i", 1, 0, tiled=True), "i", [(0, 1), (1, 0)]),
        (P("i", None), P("i", None)),
        P(None, "i"),
    ),
    "calls, and where one is": (
        lambda e, a, b: jax.nn.silu(a) * jax.checkpoint(jnp.cos)(b) * (1.0 + lax.axis_index("j")),
        (BLOCKS, BLOCKS),
        BLOCKS,
    ),
    "derivative inside": (
        lambda e, a, b: e.grad(lambda b: jnp.sum(jnp.sin(a) * b**2))(b),
        (BLOCKS, BLOCKS),
        BLOCKS,
    ),
}


QUICK = {("gather and scatter", True), ("scalar residuals", False)}
CASES = [
    pytest.param(name, check_vma, marks=[] if (name, check_vma) in QUICK else [pytest.mark.slow])
    for name in BODIES
    for check_vma in (True, False)
]


def program(name, check_vma, engine):
    body, in_specs, out_specs = BODIES[name]
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    mapped = jax.shard_map(
        partial(body, engine), mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma
    )
    return lambda x, w: jnp.sum(jnp.cos(mapped(x, w)))


@on_four_devices
@pytest.mark.parametrize(("name", "check_vma"), CASES)
def test_shard_map(name, check_vma):
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def everything(x, w):
        found = {}
        for engine in (graph, jax):
            f = program(name, check_vma, engine)
            first = engine.grad(f, (0, 1))
            second = engine.grad(lambda x, first=first: sum(jnp.sum(jnp.sin(g)) for g in first(x, w)))
            found[engine.__name__] = first(x, w), second(x), jax.vmap(first, (0, None))(jnp.stack([x, 2 * x]), w)
        return found

    found = everything(X, W)
    same(found["twograd.graph"], found["jax"], rtol=1e-4)


@on_four_devices
@pytest.mark.slow
def test_a_graph_with_a_shard_map_is_optimized_and_walked_by_value():
    f = program("calls, and where one is", True, graph)
    expected = jax.grad(f, (0, 1))(X, W)
    traced = graph.trace(f, X, W)
    same(traced.value_and_grad((0, 1)).optimize(check=True).run(X, W)[1], expected, rtol=1e-4)
    same(traced.backprop(X, W), (f(X, W), list(expected)), rtol=1e-4)


@on_four_devices
def test_an_operand_is_not_kept_twice():
    f = program("pointwise", True, graph)
    derivative = graph.trace(f, X, W).gradients()
    forward = next(eqn for eqn in derivative.jaxpr.eqns if eqn.primitive.name == "shard_map")
    kept = [var.aval.shape for var in forward.outvars]
    assert len(kept) <= 3, kept  # the result, and sine and cosine of the first operand; not the second operand


# --- compositions -----------------------------------------------------------------------------------------------------


@jax.custom_vjp
def ruled(x):
    return jnp.sin(x)


ruled.defvjp(lambda x: (jnp.sin(x), (x, jnp.cos(x))), lambda kept, ct: (ct * kept[1] + 0.1 * kept[0] * ct,))


@jax.custom_jvp
def pushed(x):
    return jnp.sin(x)


pushed.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 1.1 * jnp.cos(primals[0]) * tangents[0]))


def mapped(f, **options):
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=P("i"), out_specs=options.pop("out_specs", P("i")), **options)


def custom_in_scan(b):
    return lax.scan(lambda c, _: (ruled(c) * b, None), b, None, 3)[0]


def named_in_scan(b):
    policy = jax.checkpoint_policies.save_only_these_names("sine")
    step = jax.checkpoint(lambda c: checkpoint_name(jnp.sin(c), "sine") * b, policy=policy)
    return lax.scan(lambda c, _: (step(c), None), b, None, 3)[0]


def branches(b):
    return lax.cond(lax.axis_index("i") > 1, lambda b: jnp.sin(b) * b, lambda b: b**3, b)


def coupled(b):
    return jnp.sin(b) * lax.psum(pushed(b), "i")


def per_device(b):
    return jnp.sin(lax.pcast(b, "i", to="varying")) * (1.0 + lax.axis_index("i"))


def kept(f):
    return jax.checkpoint(f, policy=jax.checkpoint_policies.everything_saveable)


# Of the engine whose derivative is taken inside, and a vector of one number per device.
COMPOSED = {
    "custom rule in scan in checkpoint in shard_map": lambda e, x: mapped(jax.checkpoint(custom_in_scan))(x),
    "the same unchecked": lambda e, x: mapped(jax.checkpoint(custom_in_scan), check_vma=False)(x),
    "checkpoint around shard_map": lambda e, x: jax.checkpoint(mapped(coupled))(x),
    "checkpoint around shard_map, unchecked": lambda e, x: jax.checkpoint(mapped(coupled, check_vma=False))(x),
    "checkpoint that keeps around shard_map": lambda e, x: kept(mapped(coupled))(x),
    "checkpoint with names in scan": lambda e, x: mapped(named_in_scan)(x),
    "scan around shard_map": lambda e, x: lax.scan(lambda c, _: (mapped(coupled)(c), None), x, None, 3)[0],
    "cond in shard_map": lambda e, x: mapped(branches)(x),
    "cond around shard_map": lambda e, x: lax.cond(x[0] > 0, mapped(coupled), jnp.cos, x),
    "derivative of a checkpoint inside": lambda e, x: mapped(e.grad(lambda b: jnp.sum(jax.checkpoint(pushed)(b) ** 3)))(
        x
    ),
    "derivative of a sum over devices inside": lambda e, x: mapped(
        e.grad(lambda b: lax.psum(jnp.sum(jnp.sin(b) * b), "i"))
    )(x),
    "vmap around shard_map": lambda e, x: jax.vmap(mapped(coupled))(jnp.stack([x, 2 * x])),
    "vmap in shard_map": lambda e, x: mapped(jax.vmap(lambda b: ruled(b) * pushed(b)))(x),
    "jvp in shard_map": lambda e, x: mapped(lambda b: jax.jvp(coupled, (b,), (b**2,))[1])(x),
    "linearize around shard_map": lambda e, x: jax.linearize(mapped(coupled), x)[1](x**2),
    "gathered, the same everywhere": lambda e, x: mapped(
        lambda b: lax.all_gather(jnp.sin(b), "i", tiled=True, to="invarying"), out_specs=P()
    )(x),
    "gathered, reduced": lambda e, x: mapped(
        lambda b: per_device(lax.all_gather(jnp.sin(b), "i", tiled=True, to="reduced"))
    )(x),
    "reduced": lambda e, x: mapped(lambda b: per_device(lax.pcast(lax.psum(b, "i"), "i", to="reduced")))(x),
    "unreduced": lambda e, x: mapped(
        lambda b: lax.psum(lax.pcast(jnp.sin(b), "i", to="unreduced"), "i"), out_specs=P()
    )(x),
    "unreduced, scattered": lambda e, x: mapped(
        lambda b: lax.psum_scatter(
            lax.pcast(jnp.sin(lax.all_gather(b, "i", tiled=True)), "i", to="unreduced"), "i", tiled=True
        )
    )(x),
    "sum on all devices": lambda e, x: mapped(
        jax.checkpoint(lambda b: lax.psum(jnp.sum(jnp.sin(b)) * jnp.sum(b), "i")), out_specs=P()
    )(x),
}
# JAX itself cannot differentiate the forward mode of a custom_vjp function.
FORWARD = [name for name in COMPOSED if name not in ("the same unchecked", "vmap in shard_map") and "rule" not in name]

# JAX has no rule for some of their primitives under vmap.
UNBATCHED = {"gathered, reduced", "reduced", "unreduced", "unreduced, scattered"}


def around(engine, name, x):
    """What is compared of a composition: derivatives of ``engine``, inside of other transformations."""

    def f(x):
        return jnp.sum(jnp.cos(COMPOSED[name](engine, x)))

    first = engine.grad(f)

    def again(x):
        return jnp.sum(jnp.sin(first(x)))

    found = {
        "first": first(x),
        "second": engine.grad(again)(x),
        "jvp of grad": jax.jvp(first, (x,), (x**2,)),
        "jax.grad of grad": jax.grad(again)(x),
        "grad of checkpoint of grad": engine.grad(lambda x: jnp.sum(jax.checkpoint(first)(x) ** 2))(x),
    }
    if name not in UNBATCHED:
        found["vmap"] = jax.vmap(first)(jnp.stack([x, 1.5 * x]))
        found["Hessian"] = jax.jacfwd(first)(x)
    if name in FORWARD:
        found["grad of jvp"] = engine.grad(lambda x: jax.jvp(f, (x,), (jnp.cos(x),))[1])(x)
        found["grad of linearize"] = engine.grad(lambda x: jax.linearize(f, x)[1](jnp.cos(x)))(x)
    return found


QUICK_COMPOSED = {"custom rule in scan in checkpoint in shard_map"}


@on_four_devices
@pytest.mark.parametrize(
    "name", [name if name in QUICK_COMPOSED else pytest.param(name, marks=pytest.mark.slow) for name in COMPOSED]
)
def test_composed(name):
    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both(x):
        return around(graph, name, x), around(jax, name, x)

    same(*both(X[0]), rtol=1e-4)


UNTESTED = {
    "pbroadcast": "XLA broadcasts between devices on GPUs only, and under vmap JAX's own rule raises a TypeError",
    "ragged_all_to_all": "XLA has it on GPUs and TPUs only, and JAX has no rule for it under vmap of the same axis",
}


def primitives_of(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from primitives_of(inner)


@on_four_devices
@pytest.mark.slow
def test_every_collective_is_in_a_program_that_is_run():
    traced = [jax.make_jaxpr(partial(COMPOSED[name], graph))(X[0]) for name in COMPOSED]
    traced += [jax.make_jaxpr(program(name, True, graph))(X, W) for name in BODIES]
    met = {primitive for closed in traced for primitive in primitives_of(closed.jaxpr)}
    collectives = {
        primitive
        for primitive, rule in rules.table.items()
        if any(of.function.__module__ == "twograd.rules.collectives" for of in rule.by_operand.values())
    }
    assert {primitive.name for primitive in collectives - met} == set(UNTESTED)


# --- collectives under vmap -------------------------------------------------------------------------------------------

COLLECTIVES = {
    "all_gather": lambda x: jnp.sin(lax.all_gather(x, "i")) * x,
    "all_gather, tiled": lambda x: jnp.sin(lax.all_gather(x, "i", axis=0, tiled=True)),
    "all_to_all, tiled": lambda x: lax.all_to_all(jnp.sin(x)[:, None] * x, "i", 0, 1, tiled=True),
    "pmean": lambda x: lax.pmean(jnp.sin(x), "i") * x,
    "ppermute": lambda x: lax.ppermute(jnp.sin(x), "i", [(0, 1), (1, 2), (2, 3), (3, 0)]) * x,
    "psum": lambda x: lax.psum(jnp.sin(x), "i") * x,
    "psum_scatter": lambda x: lax.psum_scatter(jnp.sin(x), "i") * 3,
    "psum_scatter, tiled": lambda x: lax.psum_scatter(jnp.sin(x), "i", tiled=True) * 3,
}


@pytest.mark.skipif(FOUR, reason="needs one device only")
def test_collectives_under_vmap():
    @jax.jit
    def everything(x):
        found = {}
        for engine in (graph, jax):
            for name, f in COLLECTIVES.items():
                first = engine.grad(lambda x, f=f: jnp.sum(jnp.cos(f(x))))
                second = engine.grad(lambda x, first=first: jnp.sum(jnp.sin(first(x))))
                around = engine.grad(lambda x, f=f: jnp.sum(jnp.cos(jax.vmap(f, axis_name="i")(x))))
                found[name, engine.__name__] = jax.vmap(lambda x, a=first, b=second: (a(x), b(x)), axis_name="i")(x)
                found[name, engine.__name__] += (around(x),)
        return [[found[name, engine.__name__] for name in COLLECTIVES] for engine in (graph, jax)]

    ours, theirs = everything(X)
    same(ours, theirs, rtol=1e-4)


@pytest.mark.skipif(FOUR, reason="needs one device only")
def test_pmax_is_refused_with_a_way_out():
    with raises(NoRule, "lax.all_gather followed by jnp.max"):
        jax.vmap(graph.grad(lambda x: jnp.sum(lax.pmax(x, "i"))), axis_name="i")(X)


@on_four_devices
def test_one_shard_map_inside_of_another():
    """JAX's own gradient of such a program does not compile; so the oracle is the program without devices."""
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    @partial(jax.shard_map, mesh=mesh, in_specs=P("i", None), out_specs=P("i", None), axis_names={"i"})
    def outer(x):
        @partial(jax.shard_map, in_specs=P(None, "j"), out_specs=P(None, "j"), axis_names={"j"})
        def inner(y):
            return jnp.sin(y) * lax.psum(jnp.sum(y), "j") * 2.0

        return inner(jnp.exp(x)) * lax.psum(jnp.sum(x), "i")

    def alone(x):
        y = jnp.exp(x)
        sums = jnp.repeat(jnp.sum(y.reshape(2, -1), 1), 2)  # of the rows of one device
        return jnp.sin(y) * sums[:, None] * 2.0 * jnp.sum(x)

    def of(mapped, engine):
        first = engine.grad(lambda x: jnp.mean(mapped(x) ** 2))
        return lambda x: (first(x), engine.grad(lambda x: jnp.mean(jnp.sin(first(x))))(x))

    same(jax.jit(of(outer, graph))(X), jax.jit(of(alone, jax))(X), rtol=1e-3)
