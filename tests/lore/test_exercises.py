"""A right answer passes, and of a wrong one the check that names its mistake says so."""

import functools
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import Var

from twograd import rules
from twograd.graph.passes import rewrite
from twograd.lore import exercises
from twograd.lore.exercises import EXERCISES, check, solution


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_the_solution_is_right_and_can_be_read(exercise):
    report = check(exercise.name, exercise.solution)
    assert report.passed, report
    assert str(report).startswith(f"{exercise.name}: right\n")
    assert f"def {exercise.solution.__name__}(" in solution(exercise.name)


# --- wrong answers ----------------------------------------------------------------------------------------------------


def overwrites(tape, result, ct):
    """The last use wins."""
    ct_env = {result: ct}
    for entry in reversed(tape):
        if entry.result in ct_env:
            in_cts = rules.pullback(entry.eqn, entry.saved, [ct_env.pop(entry.result)], entry.wanted)
            for x, in_ct in zip(entry.operands, in_cts, strict=True):
                ct_env[x] = rules.unbroadcast(in_ct, x.aval)
    return ct_env


def depth_first(tape, result, ct):
    """Goes on from an operand as soon as its first use is known."""
    ct_env, made_by, seen = {result: ct}, {entry.result: entry for entry in tape}, set()

    def visit(x):
        entry = made_by.get(x)
        if entry is None or x in seen:
            return
        seen.add(x)
        for y, in_ct in zip(
            entry.operands, rules.pullback(entry.eqn, entry.saved, [ct_env[x]], entry.wanted), strict=True
        ):
            rules.accumulate(ct_env, y, in_ct, y.aval)
            visit(y)

    visit(result)
    return ct_env


def adds_as_it_is(tape, result, ct):
    ct_env = {result: ct}
    for entry in reversed(tape):
        if entry.result in ct_env:
            in_cts = rules.pullback(entry.eqn, entry.saved, [ct_env.pop(entry.result)], entry.wanted)
            for x, in_ct in zip(entry.operands, in_cts, strict=True):
                ct_env[x] = ct_env[x] + in_ct if x in ct_env else in_ct
    return ct_env


def expects_every_result(tape, result, ct):
    ct_env = {result: ct}
    for entry in reversed(tape):
        in_cts = rules.pullback(entry.eqn, entry.saved, [ct_env.pop(entry.result)], entry.wanted)
        for x, in_ct in zip(entry.operands, in_cts, strict=True):
            rules.accumulate(ct_env, x, in_ct, x.aval)
    return ct_env


def keeps_what_is_read_at_all(closed):
    read = {atom for eqn in closed.eqns for atom in (*eqn.invars, *closed.jaxpr.outvars) if isinstance(atom, Var)}
    live = [eqn for eqn in closed.eqns if any(var in read for var in eqn.outvars)]
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=live))


def forgets_what_is_needed_in_turn(closed):
    live = [eqn for eqn in closed.eqns if any(var in closed.jaxpr.outvars for var in eqn.outvars)]
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=live))


def drops_each_negation(closed):
    return rewrite("neg", closed, lambda walk: lambda eqn: ("neg", eqn.invars) if eqn.primitive is lax.neg_p else None)


def same_primitive_and_operands(closed):
    def visitor_of(walk):
        computed = {}

        def visit(eqn):
            key = (eqn.primitive, tuple(eqn.invars))
            if key not in computed:
                computed[key] = eqn.outvars
                return None
            return "same", computed[key]

        return visit

    return rewrite("same", closed, visitor_of)


BY_DIFFERENCES, BY_JAX = "gradient by differences", "gradient by jax.vjp"
TIES = "ties: half to each, by jax.vjp"
DEEP = f"{exercises.DEEP} operations"

WRONG = [
    ("logistic", lambda ct, out: ct * out, {BY_DIFFERENCES, BY_JAX, "order 2"}),
    ("logistic", lambda ct, x: ct * lax.logistic(x) * lax.logistic(-x), {"keeps its result alone"}),
    ("logistic", lambda ct, out: ct * out * (1 - lax.stop_gradient(out)), {"order 2"}),
    ("broadcast", lambda ct: ct, {"(3,) to (3, 4)", "(3,) to (3, 3)"}),
    ("max", lambda ct, x, y: ct * (x >= y), {TIES}),
    ("max", lambda ct, x, y: ct * (x < y), {BY_DIFFERENCES, TIES, "order 2"}),
    ("backward", overwrites, {"fan-out", "order"}),
    ("backward", depth_first, {"order", DEEP}),
    ("backward", adds_as_it_is, {"un-broadcasting"}),
    ("backward", expects_every_result, {"unused result"}),
    ("dead-code", lambda closed: closed, {"what is not needed goes"}),
    ("dead-code", keeps_what_is_read_at_all, {"what is not needed goes", "effects stay"}),
    ("dead-code", forgets_what_is_needed_in_turn, {"what is needed stays", "effects stay"}),
    ("double-negation", drops_each_negation, {"values", "three of five stay"}),
    ("double-negation", lambda closed: closed, {"three of five stay"}),
    ("same-twice", same_primitive_and_operands, {"parameters count", "effects happen twice"}),
    ("same-twice", lambda closed: closed.jaxpr, {"the same goes", "parameters count", "effects happen twice"}),
]


@pytest.mark.parametrize(("name", "answer", "failing"), WRONG)
def test_a_wrong_answer_fails_where_it_is_wrong(name, answer, failing):
    before = dict(rules.table)
    report = check(name, answer)
    assert {each for each, said in report.said.items() if said} == failing, report
    assert "not yet" in repr(report)
    assert rules.table == before


def test_what_is_said_has_numbers_or_the_error():
    said = check("logistic", lambda ct, out: ct * out).said
    assert "differences give" in said[BY_DIFFERENCES]
    assert "JAX gives" in said[BY_JAX]
    assert check("max", lambda ct, x: ct.nothing).said[TIES].startswith("it raises AttributeError: ")
    assert "does not fit an operand" in check("broadcast", lambda ct: ct).said["(3,) to (3, 4)"]
    assert "Python does not nest calls" in check("backward", depth_first).said[DEEP]


def test_a_walk_that_nests_calls_is_told_so_where_a_library_has_raised_the_limit(request):
    request.addfinalizer(functools.partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(12345)
    assert "Python does not nest calls" in check("backward", depth_first).said[DEEP]
    assert sys.getrecursionlimit() == 12345


def returns_nothing(tape, result, ct):
    rules.pullback(tape[-1].eqn, tape[-1].saved, [ct], tape[-1].wanted)


def adds_to_what_is_not_there(tape, result, ct):
    ct_env = {result: ct}
    for entry in reversed(tape):
        for x in entry.operands:
            ct_env[x] += ct
    return ct_env


def keys_by_id(tape, result, ct):
    return {id(x): ct for entry in tape for x in entry.operands}


def first_equation_deleted_in_place(closed):
    del closed.eqns[0]
    return closed


def live_code_from_below(closed):
    """As it was collected: the last equation comes first."""
    made = exercises.dead_code(closed)
    return made.replace(jaxpr=made.jaxpr.replace(eqns=made.eqns[::-1]))


def reads_a_value(ct, out):
    if out > 0:
        return ct
    return -ct


STAYS = "what is needed stays"

SAID = [
    ("logistic", lambda ct, out: -ct * out * (1 - out), BY_DIFFERENCES, "0.6417]: the sign is wrong"),
    ("logistic", lambda ct, out: 2 * ct * out * (1 - out), BY_JAX, "0.6417]: 2 times as much"),
    ("logistic", lambda ct, out: 0 * ct, BY_DIFFERENCES, "0.6417]: nothing has arrived"),
    ("logistic", lambda ct, out: None, BY_DIFFERENCES, "the rule returns None: is there a return?"),
    ("logistic", lambda ct, out: (ct,), BY_JAX, "a rule of logistic returned a tuple; of one operand it is one array"),
    ("logistic", lambda ct, s: ct, BY_JAX, "names ['s'], which it has not; there are ['out', 'outs', 'x']"),
    ("logistic", lambda: 1, BY_JAX, "the first parameter is ct or cts, not None"),
    ("logistic", reads_a_value, BY_JAX, "Use a.any() or a.all(), in the line: if out > 0:"),
    ("broadcast", lambda ct, *, dims: ct, "(3,) to (3, 4)", "names the parameter 'dims', which it has not; there"),
    ("backward", returns_nothing, "chain", "a walk returns a dict from each Variable to its cotangent, not NoneType"),
    ("backward", lambda tape, result, ct: [ct], DEEP, "its cotangent, not list"),
    ("backward", lambda tape, result, ct: {result: ct}, "chain", "no cotangent of <Variable float64[3]>, an operand"),
    ("backward", keys_by_id, "chain", "no cotangent of <Variable float64[3]>, an operand of the program; it has ["),
    ("backward", adds_to_what_is_not_there, "chain", "KeyError: <Variable float64[3]>, in the line: ct_env[x] += ct"),
    ("dead-code", lambda closed: None, STAYS, "a pass returns a ClosedJaxpr, not NoneType"),
    ("dead-code", live_code_from_below, STAYS, "the equation of mul reads what no equation before it computes"),
    ("dead-code", forgets_what_is_needed_in_turn, STAYS, "the equation of sin reads what no equation"),
    ("dead-code", first_equation_deleted_in_place, STAYS, "reads what no equation before it computes"),
    ("dead-code", lambda closed: closed.replace(jaxpr=closed.jaxpr.replace(eqns=[])), STAYS, "returns what no"),
]


@pytest.mark.parametrize(("name", "answer", "where", "words"), SAID)
def test_what_is_said_names_the_mistake(name, answer, where, words):
    assert words in check(name, answer).said[where]
    exercise = next(each for each in EXERCISES if each.name == name)
    exercise.checks[where](exercise.solution)  # the answer has spoiled nothing


def test_what_is_no_answer():
    with pytest.raises(LookupError, match="no exercise is called 'tanh'; there are logistic, "):
        check("tanh", jnp.tanh)
    with pytest.raises(TypeError, match="the answer to max is a function, got float: a rule of"):
        check("max", 0.5)


def test_a_pass_may_not_change_what_a_program_takes_or_returns():
    def without_an_input(closed):
        return jax.make_jaxpr(lambda x: x)(1.0)

    def with_one_result(closed):
        return closed.replace(jaxpr=closed.jaxpr.replace(outvars=closed.jaxpr.outvars[:1]))

    assert "now takes" in check("dead-code", without_an_input).said["what is needed stays"]
    assert "now returns 1" in check("double-negation", with_one_result).said["values"]
