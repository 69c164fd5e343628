"""The table as a whole: what is in it, what it saves, what it refuses, and that its checks can fail."""

import dataclasses
import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive

from twograd import rules
from twograd.errors import CotangentMismatch, NoRule
from twograd.rules.registry import OperandRule

from .checks import Case, check, compl, our_vjp, real


def cases():
    """Every case of the modules beside this one, whatever list it is in."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f".{path.stem}", __package__)
        for value in vars(module).values():
            if isinstance(value, list):
                yield from (case for case in value if isinstance(case, Case))


def differentiable():
    """The primitives with a rule of this folder for some operand; calls have theirs, and their tests, in ``graph``."""
    for primitive, rule in rules.table.items():
        functions = [operand_rule.function for operand_rule in rule.by_operand.values()] + [rule.forward]
        if any(function and function.__module__.startswith("twograd.rules") for function in functions):
            yield primitive


OF_A_MESH = {"layout_constraint", "reshard"} | {
    primitive.name
    for primitive, rule in rules.table.items()
    if any(function.function.__module__ == "twograd.rules.collectives" for function in rule.by_operand.values())
}
"""They mean something only on a mesh of devices, or along a named axis: test_shape.py and graph/test_sharding.py."""


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_case_that_runs_by_default():
    tested = {case.primitive.name for case in cases() if not case.slow}
    assert {primitive.name for primitive in differentiable()} - tested == OF_A_MESH


def test_every_case_has_a_rule():
    assert {case.primitive.name for case in cases()} <= {primitive.name for primitive in differentiable()}


# --- no derivative ----------------------------------------------------------------------------------------------------

STEPS = {
    "argmax": lambda x: lax.convert_element_type(lax.argmax(x, 0, np.int32), x.dtype),
    "ceil": lax.ceil,
    "comparison": lambda x: lax.convert_element_type(lax.lt(x, jnp.zeros_like(x)), x.dtype),
    "floor": lax.floor,
    "is_finite": lambda x: lax.convert_element_type(lax.is_finite(x), x.dtype),
    "nextafter": lambda x: lax.nextafter(x, jnp.ones_like(x)),
    "rng_uniform": lambda x: lax.rng_uniform(x[0], x[1], (3,)),
    "round": lax.round,
    "sign": lax.sign,
    "stop_gradient": lax.stop_gradient,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_has_the_derivative_zero(step):
    x = np.array([0.3, 1.4, -2.2], np.float32)
    ct = jnp.ones_like(step(x))
    assert not np.any(our_vjp(lambda x: (step(x),), [x], [ct])[0])


def test_a_primitive_without_derivative_wants_no_cotangent():
    for rule in rules.table.values():
        if not rule.by_operand and not rule.forward and rule.reason is None:
            assert rule.differentiable(3) == (False, False, False)


# --- what is refused --------------------------------------------------------------------------------------------------


def thrice():
    """A primitive that nobody has a rule for."""
    primitive = Primitive("thrice")
    primitive.def_impl(lambda x: 3 * x)
    primitive.def_abstract_eval(lambda x: x)
    return primitive


def test_a_missing_rule_is_named_with_its_operands_and_the_users_line():
    primitive = thrice()
    x = np.ones((2, 3), np.float32)
    with pytest.raises(NoRule) as caught:
        our_vjp(lambda x: (primitive.bind(lax.sin(x)),), [x], [x])  # the line to be named
    text = str(caught.value)
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "line to be named" in text)
    assert "'thrice'" in text
    assert "float32[2,3]" in text or "f32[2,3]" in text
    assert f"test_registry.py:{line} " in text
    assert "src/twograd/rules/" in text
    assert caught.value.primitive is primitive


def test_a_missing_rule_is_no_error_where_no_cotangent_arrives():
    primitive = thrice()
    x = np.ones(3, np.float32)
    assert not np.any(our_vjp(lambda x: (lax.floor(primitive.bind(x)),), [x], [x])[0])
    unused = our_vjp(lambda x: (lax.sin(x), primitive.bind(x)), [x], [x, None])
    assert np.allclose(unused[0], np.cos(1))


def test_a_refused_primitive_raises_its_reason_where_a_cotangent_arrives(monkeypatch):
    primitive = thrice()
    monkeypatch.setattr("twograd.rules.registry.table", dict(rules.table))
    rules.refused(primitive, "it is thrice too much; use custom_vjp")
    x = np.ones((2, 3), np.float32)
    assert not np.any(our_vjp(lambda x: (lax.floor(primitive.bind(x)),), [x], [x])[0])
    with pytest.raises(
        NoRule, match=r"'thrice' has no derivative .*test_registry.*it is thrice too much; use custom_vjp"
    ):
        our_vjp(lambda x: (primitive.bind(x),), [x], [x])


@pytest.mark.parametrize(
    ("operands", "rule", "text"),
    [
        (None, {"x": lambda ct, z: ct}, "names .'z'."),
        (None, {"x": lambda ct, z_aval: ct}, "names .'z'."),
        (None, {"x": lambda x, ct: ct}, "first parameter is ct or cts, not x"),
        (None, {"x": lambda: 1}, "first parameter is ct or cts, not None"),
        ("x y", {"z": lambda ct: ct}, "no operand 'z'"),
    ],
)
def test_a_rule_that_names_what_its_primitive_has_not_is_refused(operands, rule, text):
    primitive = thrice()
    with pytest.raises(AssertionError, match=text):
        rules.vjp(primitive, *([operands] if operands else []), **rule)
    assert primitive not in rules.table


def test_a_parameter_that_the_primitive_has_not_is_named(monkeypatch):
    primitive = thrice()
    monkeypatch.setattr("twograd.rules.registry.table", dict(rules.table))
    rules.vjp(primitive, x=lambda ct, *, axes: ct)
    with pytest.raises(TypeError, match=r"rule of thrice names the parameter 'axes', which it has not; .* \[\]"):
        our_vjp(lambda x: (primitive.bind(x),), [1.0], [1.0])


def test_a_rule_that_returns_several_for_one_operand_is_named(monkeypatch):
    primitive = thrice()
    monkeypatch.setattr("twograd.rules.registry.table", dict(rules.table))
    rules.vjp(primitive, x=lambda ct: (ct,))
    with pytest.raises(TypeError, match="a rule of thrice returned a tuple; of one operand it is one array"):
        our_vjp(lambda x: (primitive.bind(x),), [1.0], [1.0])


def test_a_second_rule_for_a_primitive_is_refused():
    before = rules.table[lax.sin_p]
    with pytest.raises(AssertionError, match="two rules for sin"):
        rules.vjp(lax.sin_p, x=lambda ct: ct)
    assert rules.table[lax.sin_p] is before


# --- what is saved ----------------------------------------------------------------------------------------------------


def rows(name):
    return [(row.operand, row.saves) for row in rules.save_map() if row.primitive == name]


def test_the_save_map_is_read_off_the_signatures():
    assert rows("mul") == [("x", ("y",)), ("y", ("x",))]
    assert rows("exp") == [("x", ("out",))]
    assert rows("sin") == [("x", ("x",))]
    assert rows("add") == [("x", ()), ("y", ())]
    assert rows("reduce_sum") == [("x", ())]
    assert rows("select_n") == [("cases", ("which",))]
    assert rows("floor") == []


def test_the_save_map_is_sorted_and_complete():
    names = [row.primitive for row in rules.save_map()]
    assert names == sorted(names)
    assert set(names) == {primitive.name for primitive, rule in rules.table.items() if rule.by_operand}


@pytest.mark.parametrize(("wanted", "kept"), [((True, False), {"y"}), ((False, True), {"x"}), ((False, False), set())])
def test_only_what_a_wanted_operand_asks_for_is_saved(wanted, kept):
    x, y = np.float32(2), np.float32(3)
    eqn = jax.make_jaxpr(lax.mul)(x, y).eqns[0]
    outs, saved = rules.forward(eqn, [x, y], wanted)
    assert outs == [6]
    assert set(saved) == kept
    in_cts = rules.pullback(eqn, saved, [np.float32(1)], wanted)
    assert in_cts == [3 if wanted[0] else None, 2 if wanted[1] else None]


# --- the checks can fail ----------------------------------------------------------------------------------------------


def mutant(monkeypatch, primitive, **by_operand):
    """Puts other pullbacks into the table for the time of a test."""
    changed = {name: OperandRule.of(function) for name, function in by_operand.items()}
    rule = rules.table[primitive]
    monkeypatch.setitem(rules.table, primitive, dataclasses.replace(rule, by_operand={**rule.by_operand, **changed}))


MUTANTS = {
    "a sign": (Case(lax.sin_p, lax.sin, [real(3)]), {"x": lambda ct, x: -ct * lax.cos(x)}),
    "a zero": (Case(lax.sin_p, lax.sin, [real(3)]), {"x": lambda ct, x: None}),
    "the second derivative": (
        Case(lax.sin_p, lax.sin, [real(3)]),
        {"x": lambda ct, x: ct * lax.stop_gradient(lax.cos(x))},
    ),
    "the second derivative, by differences alone": (
        Case(lax.sin_p, lax.sin, [real(3)], order=0),
        {"x": lambda ct, x: ct * lax.stop_gradient(lax.cos(x))},
    ),
    "a factor, by differences alone": (
        Case(lax.sin_p, lax.sin, [real(3)], order=0),
        {"x": lambda ct, x: 1.001 * ct * lax.cos(x)},
    ),
    "a conjugate": (
        Case(lax.mul_p, lax.mul, [compl(3), compl(3)]),
        {"x": lambda ct, y: ct * lax.conj(y)},
    ),
    "a dtype": (Case(lax.sin_p, lax.sin, [real(3)]), {"x": lambda ct, x: (ct * lax.cos(x)).astype(np.float32)}),
    "a promoted dtype": (
        Case(lax.sin_p, lax.sin, [real(3)]),
        {"x": lambda ct, x: ct * lax.cos(x) * np.ones((), np.float64)},
    ),
    "a shape": (
        Case(lax.reduce_sum_p, lambda x: lax.reduce_sum(x, [0]), [real(3, 2)]),
        {"x": lambda ct, *, axes: ct},
    ),
    "one element": (
        Case(lax.neg_p, lax.neg, [real(30)]),
        {"x": lambda ct: lax.neg(ct).at[7].multiply(1 + 1e-6)},
    ),
    "a branch on values": (
        Case(lax.neg_p, lax.neg, [real(3)]),
        {"x": lambda ct: lax.neg(ct) if np.all(np.asarray(ct) < 9) else ct},
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_fails_for_a_rule_that_has_wrong(name, monkeypatch):
    case, by_operand = MUTANTS[name]
    mutant(monkeypatch, case.primitive, **by_operand)
    with pytest.raises((AssertionError, CotangentMismatch, jax.errors.TracerArrayConversionError)):
        check(case)


def test_the_check_fails_without_unbroadcasting(monkeypatch):
    case = Case(lax.mul_p, lax.mul, [real(3, 4), real()])
    check(case)
    monkeypatch.setattr(sys.modules["twograd.rules.accumulate"], "unbroadcast", lambda ct, aval: ct)
    with pytest.raises(AssertionError, match=r"float64\[3,4\] for float64\[\]"):
        check(case)


def test_the_check_fails_without_fan_out(monkeypatch):
    case = Case(lax.mul_p, lambda x: lax.mul(x, x), [real(3, 4)])
    check(case)

    def overwrite(ct_env, key, ct, aval):
        ct_env[key] = ct

    monkeypatch.setattr("twograd.graph.transform.accumulate", overwrite)
    with pytest.raises(AssertionError, match="first order"):
        check(case)


def test_the_check_fails_for_a_case_about_another_primitive():
    with pytest.raises(AssertionError, match=r"its jaxpr has \['cos'\]"):
        check(Case(lax.sin_p, lax.cos, [real(3)]))


def test_a_cotangent_of_another_shape_is_refused():
    with pytest.raises(CotangentMismatch, match=r"\[3\] does not fit .*\[2\]"):
        rules.unbroadcast(jnp.ones(3), jax.typeof(jnp.ones(2)))
