"""Rules for the primitives that carry jaxprs: they call the jaxpr-level walk of ``transform.py`` on the jaxpr inside.

They stand here and not in ``rules/`` because they need that walk; the table does not care who fills it. Each is a pair
of ``forward`` and ``backward`` (see :func:`twograd.rules.vjp_call`).
"""

import jax
from jax import lax
from jax.extend.core import primitives

from twograd import rules
from twograd._arguments import zero_gradient
from twograd._compat import bind_again, body_of, custom_jvp_jaxpr, custom_vjp_backward, custom_vjp_forward
from twograd.graph.transform import backward_pass, evaluate, forward_pass
from twograd.rules.windows import elements, window_axes

BODY = "body"  # the scope of equations that come from inside a call

# --- jit: a call is its body ------------------------------------------------------------------------------------------


def jit_forward(eqn, operands, wanted):
    return forward_pass(body_of(eqn), eqn.params["jaxpr"].consts, operands, wanted)


def jit_backward(eqn, applications, cts, wanted):
    return backward_pass(eqn.params["jaxpr"].jaxpr, list(applications), cts, BODY)


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


# --- remat: keep the operands, and compute the rest again on the way back ---------------------------------------------


def remat_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), operands


def remat_backward(eqn, operands, cts, wanted):
    """The barrier makes the second evaluation wait for the cotangents, so that XLA does not merge it with the first."""
    body = eqn.params["jaxpr"]
    if eqn.params["prevent_cse"]:
        operands, cts = lax.optimization_barrier((list(operands), list(cts)))
    _, applications = forward_pass(body, (), operands, wanted)
    return backward_pass(body, applications, cts, BODY)


# --- cond: the same branch, on the way back ---------------------------------------------------------------------------


def cond_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), operands


def cond_backward(eqn, operands, cts, wanted):
    """Takes the branch again, evaluates it again, and walks back through it: only the operands are kept."""
    index, *rest = operands
    present = [ct for ct in cts if ct is not None]
    operand_avals, ct_avals = [atom.aval for atom in eqn.invars[1:]], [jax.typeof(ct) for ct in present]

    def pullback(branch):
        def of_branch(*values):
            given = iter(values[len(rest) :])
            _, applications = forward_pass(branch.jaxpr, branch.consts, values[: len(rest)], wanted[1:])
            in_cts = backward_pass(
                branch.jaxpr, applications, [None if ct is None else next(given) for ct in cts], BODY
            )
            asked = [(ct, aval) for ct, aval, want in zip(in_cts, operand_avals, wanted[1:], strict=True) if want]
            return [zero_gradient(aval) if ct is None else ct for ct, aval in asked]

        return jax.make_jaxpr(of_branch)(*operand_avals, *ct_avals)

    params = dict(eqn.params, branches=tuple(pullback(branch) for branch in eqn.params["branches"]))
    in_cts = iter(eqn.primitive.bind(index, *rest, *present, **params))
    return [next(in_cts) if want else None for want in wanted]


# --- reduce_window with a function of the user's ----------------------------------------------------------------------


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

    closed = jax.make_jaxpr(written_out)(*(atom.aval for atom in eqn.invars))
    _, applications = forward_pass(closed.jaxpr, closed.consts, operands, wanted)
    return backward_pass(closed.jaxpr, applications, cts, BODY)


rules.vjp_call(primitives.reduce_window_p, reduce_window_forward, reduce_window_backward)
rules.vjp_call(primitives.cond_p, cond_forward, cond_backward)
rules.vjp_call(primitives.jit_p, jit_forward, jit_backward)
rules.vjp_call(primitives.custom_jvp_call_p, custom_jvp_forward, custom_jvp_backward)
rules.vjp_call(primitives.custom_vjp_call_p, custom_vjp_call_forward, custom_vjp_call_backward)
rules.vjp_call(primitives.remat_p, remat_forward, remat_backward)
rules.vjp(primitives.name_p, x=lambda ct: ct)
