"""Rules for the primitives that carry jaxprs: they call the jaxpr-level walk of ``transform.py`` on the jaxpr inside.

They stand here and not in ``rules/`` because they need that walk; the table does not care who fills it. Each is a pair
of ``forward`` and ``backward`` (see :func:`twograd.rules.vjp_call`).
"""

import itertools
import math

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, primitives

from twograd import rules
from twograd._arguments import zero_gradient
from twograd._compat import bind_again, body_of, custom_jvp_jaxpr, custom_vjp_backward, custom_vjp_forward
from twograd.errors import NoRule
from twograd.graph.transform import backward_pass, evaluate, forward_pass, reached
from twograd.rules.common import unlisted
from twograd.rules.windows import elements, window_axes

BODY = "body"  # the scope of equations that come from inside a call

# --- jit and others: a call is its body -------------------------------------------------------------------------------


def body_rule(name, evaluated=None):
    """The rule of a call that is no more than the body in its parameter ``name``: forward, backward and reached.

    ``evaluated(eqn)`` is the body's jaxpr as it is evaluated, where its equations are to say something else.
    """

    def body(eqn):
        found = eqn.params[name]
        return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())

    def forward(eqn, operands, wanted):
        jaxpr = body(eqn).jaxpr if evaluated is None else evaluated(eqn)
        return forward_pass(jaxpr, body(eqn).consts, operands, wanted)

    def backward(eqn, applications, cts, wanted):
        return backward_pass(body(eqn).jaxpr, list(applications), cts, BODY)

    return forward, backward, lambda eqn, wanted: reached(body(eqn).jaxpr, wanted)


# --- custom_jvp_call: a linear function's transpose is its pullback at any point --------------------------------------


def custom_jvp_forward(eqn, operands, wanted):
    """Runs the user's JVP rule with tangents of zero, keeping what the pullback with respect to the tangents needs.

    The rule's tangent output is linear in its tangent input, so that pullback, taken at zero, is its transpose: JVP
    rules need no transposition table of their own.
    """
    num_consts = eqn.params["num_consts"]
    primals = operands[num_consts:]
    zeros = symbolic_zeros(eqn, wanted)
    jvp, out_zeros = custom_jvp_jaxpr(eqn.params, zeros)
    tangents = [zero_gradient(jax.typeof(primal)) for primal, zero in zip(primals, zeros, strict=True) if not zero]
    moving = [want for want, zero in zip(wanted[num_consts:], zeros, strict=True) if not zero]
    mask = [False] * len(primals) + moving
    results, applications = forward_pass(jvp.jaxpr, jvp.consts, [*primals, *tangents], mask)
    return results[: len(out_zeros)], (jvp.jaxpr, out_zeros, applications)


def custom_jvp_backward(eqn, saved, cts, wanted):
    jvp, out_zeros, applications = saved
    num_consts = eqn.params["num_consts"]
    zeros = symbolic_zeros(eqn, wanted)
    tangent_cts = [ct for ct, zero in zip(cts, out_zeros, strict=True) if not zero]
    in_cts = backward_pass(jvp, list(applications), [None] * len(cts) + tangent_cts, BODY)
    of_tangents = iter(in_cts[len(zeros) :])
    return [None] * num_consts + [None if zero else next(of_tangents) for zero in zeros]


def symbolic_zeros(eqn, wanted):
    """For each operand but the closed-over ones, whether the user's rule is told that its tangent is zero."""
    return tuple(eqn.params["symbolic_zeros"] and not want for want in wanted[eqn.params["num_consts"] :])


# --- custom_vjp_call: the user's own rule -----------------------------------------------------------------------------


def custom_vjp_call_forward(eqn, operands, wanted):
    num_consts = eqn.params["num_consts"]
    rule, forwarded, num_residuals = custom_vjp_forward(eqn.params, wanted[num_consts:])
    results = evaluate(rule.jaxpr, rule.consts, operands[num_consts:])
    computed = iter(results[:num_residuals])
    residuals = [next(computed) if index is None else operands[index] for index in forwarded]
    return results[num_residuals:], residuals


def custom_vjp_call_backward(eqn, residuals, cts, wanted):
    if not eqn.params["symbolic_zeros"]:
        cts = [zero_gradient(var.aval) if ct is None else ct for ct, var in zip(cts, eqn.outvars, strict=True)]
    in_cts = [None] * eqn.params["num_consts"] + custom_vjp_backward(eqn.params, residuals, cts)
    return [ct if want else None for ct, want in zip(in_cts, wanted, strict=True)]


# --- linear_call: the user says what the transpose is -----------------------------------------------------------------


def linear_call_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), operands[: num_residuals(eqn)]


def linear_call_backward(eqn, residuals, cts, wanted):
    """Calls the user's transpose, by a linear call whose own transpose is the function that was called first."""
    if any(wanted[: num_residuals(eqn)]):
        raise NoRule(eqn, "it is linear in its last operands, and says nothing of a derivative in the others")
    num_consts, callee = eqn.params["num_callee_consts"], eqn.params["callee"]
    transpose, consts = eqn.params["transpose_thunk"]()
    cts = [zero_gradient(var.aval) if ct is None else ct for ct, var in zip(cts, eqn.outvars, strict=True)]
    params = dict(
        eqn.params,
        callee=transpose,
        transpose_thunk=lambda: (callee, residuals[:num_consts]),
        num_callee_consts=len(consts),
    )
    return [None] * num_residuals(eqn) + list(eqn.primitive.bind(*consts, *residuals[num_consts:], *cts, **params))


def num_residuals(eqn):
    return eqn.params["num_callee_consts"] + eqn.params["num_res"]


# --- custom_linear_solve: the pullback of a solution solves the transposed system -------------------------------------


def linear_solve_forward(eqn, operands, wanted):
    outs = bind_again(eqn, operands)
    *consts, b = groups(eqn, operands)
    return outs, (consts, outs[: len(b)])


def linear_solve_backward(eqn, saved, cts, wanted):
    """From A(w)·x = b follows ct_b = A⁻ᵀ·ct_x, and ct_w is the pullback of -A(w)·x, in w alone, at ct_b."""
    (matvec, vecmat, solve, transpose_solve), x = saved
    jaxprs, lengths = eqn.params["jaxprs"], eqn.params["const_lengths"]
    if jaxprs.transpose_solve is None:
        raise TypeError("transpose_solve required for backwards mode automatic differentiation of custom_linear_solve")
    cts = [zero_gradient(jax.typeof(value)) if ct is None else ct for ct, value in zip(cts, x, strict=False)]
    solved = eqn.primitive.bind(
        *(*vecmat, *matvec, *transpose_solve, *solve, *cts),
        const_lengths=lengths.transpose(),
        jaxprs=jaxprs.transpose(),
    )
    ct_b = list(solved[: len(x)])  # what follows is the solver's own report
    in_matvec, *_, in_b = groups(eqn, wanted)
    ct_matvec = [None] * len(matvec)
    if any(in_matvec):
        body = jaxprs.matvec
        mask = [*in_matvec, *[False] * len(x)]
        _, applications = forward_pass(body.jaxpr, body.consts, [*matvec, *x], mask)
        ct_matvec = backward_pass(body.jaxpr, applications, [lax.neg(ct) for ct in ct_b], BODY)[: len(matvec)]
    others = [None] * (len(wanted) - len(matvec) - len(x))
    return [*ct_matvec, *others, *(ct if want else None for ct, want in zip(ct_b, in_b, strict=True))]


def groups(eqn, values):
    """``values``, one per operand, as those of the constants of (matvec, vecmat, solve, transpose_solve), and of b."""
    rest = iter(values)
    return [*(list(itertools.islice(rest, length)) for length in eqn.params["const_lengths"]), list(rest)]


# --- reductions with a function of the user's: they are written out, and that is differentiated -----------------------


def pullback_of(f, eqn, operands, cts, wanted):
    """The cotangents of the ``operands`` of ``eqn``, by way of ``f``, which computes the same from them."""
    closed = jax.make_jaxpr(f)(*(atom.aval for atom in eqn.invars))
    _, applications = forward_pass(closed.jaxpr, closed.consts, operands, wanted)
    return backward_pass(closed.jaxpr, applications, cts, BODY)


def reduce_window_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), operands


def reduce_window_backward(eqn, operands, cts, wanted):
    """Writes the reduction out, one place of the windows after the other, and walks back through that."""
    body, consts, padding = (eqn.params[name] for name in ("jaxpr", "consts", "padding"))
    geometry = {name: value for name, value in eqn.params.items() if name not in ("jaxpr", "consts")}
    count, out = len(operands) // 2, eqn.outvars[0].aval
    axes = window_axes(eqn.invars[0].aval, out, **geometry)
    combine = jax.vmap(lambda *pair: evaluate(body, consts, pair))

    def written_out(*operands):
        arrays, initial = operands[:count], operands[count:]
        totals = [lax.broadcast(value, (out.size,)) for value in initial]
        for place in zip(
            *(elements(x, axes, padding, value) for x, value in zip(arrays, initial, strict=True)), strict=True
        ):
            totals = combine(*totals, *(lax.reshape(element, (out.size,)) for element in place))
        return [lax.reshape(total, out.shape) for total in totals]

    return pullback_of(written_out, eqn, operands, cts, wanted)


def reduce_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), operands


def reduce_backward(eqn, operands, cts, wanted):
    """Writes the reduction out as a tree, in which neighbours are combined over and over, and walks back through that.

    The initial values come in once, at the beginning. In these there is no derivative, as in JAX: XLA may let them in
    any number of times, which changes nothing only if they are neutral.
    """
    body, dimensions = (eqn.params[name] for name in ("jaxpr", "dimensions"))
    count = len(operands) // 2
    if any(wanted[count:]):
        raise NoRule(
            eqn,
            "its initial value has to be neutral, which a value to be differentiated is not; combine that one with the "
            "result of the reduction",
        )
    shape, out_shape = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    order = [*dimensions, *(axis for axis in range(len(shape)) if axis not in dimensions)]
    combine = jax.vmap(jax.vmap(lambda *pair: evaluate(body.jaxpr, body.consts, pair)))

    def written_out(*operands):
        totals = [
            lax.reshape(lax.transpose(x, order), (math.prod(shape[axis] for axis in dimensions), math.prod(out_shape)))
            for x in operands[:count]
        ]
        while (size := totals[0].shape[0]) > 1:
            even, odd = ([lax.slice_in_dim(total, start, size // 2 * 2, 2) for total in totals] for start in (0, 1))
            paired = combine(*even, *odd)
            last = [lax.slice_in_dim(total, size // 2 * 2, size) for total in totals]
            totals = [lax.concatenate(pair, 0) for pair in zip(paired, last, strict=True)]
        initial = [lax.broadcast(value, (1, math.prod(out_shape))) for value in operands[count:]]
        totals = combine(*initial, *totals) if size else initial
        return [lax.reshape(total, out_shape) for total in totals]

    return pullback_of(written_out, eqn, operands, cts, wanted)


rules.vjp_call(lax.reduce_p, reduce_forward, reduce_backward)
rules.vjp_call(primitives.reduce_window_p, reduce_window_forward, reduce_window_backward)
rules.vjp_call(primitives.jit_p, *body_rule("jaxpr", body_of))
rules.vjp_call(primitives.closed_call_p, *body_rule("call_jaxpr"))
rules.vjp_call(unlisted["custom_vmap_call"], *body_rule("call"))
rules.vjp_call(unlisted["composite"], *body_rule("jaxpr"))
rules.vjp_call(unlisted["eval_jaxpr"], *body_rule("jaxpr"))
rules.vjp_call(unlisted["remat_opt"], *body_rule("fwd_jaxpr"))
rules.vjp_call(primitives.custom_jvp_call_p, custom_jvp_forward, custom_jvp_backward)
rules.vjp_call(primitives.custom_vjp_call_p, custom_vjp_call_forward, custom_vjp_call_backward)
rules.vjp_call(unlisted["linear_call"], linear_call_forward, linear_call_backward)
rules.vjp_call(primitives.linear_solve_p, linear_solve_forward, linear_solve_backward)
rules.vjp(primitives.name_p, x=lambda ct: ct)
