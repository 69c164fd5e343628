"""Forward mode: the directional derivative of a function.

What flows in: a function, primals and tangents. What flows out: its value, and the tangent of that. Read :func:`jvp`.
There is one table of rules, for pullbacks; a pushforward is the pullback of a pullback. A ``while`` loop has no
pullback, but it has a pushforward, a loop that carries tangents beside the values: :func:`with_pushforwards`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, primitives
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from twograd import rules
from twograd._arguments import check_callable, check_tangents
from twograd.graph.custom import CUSTOM
from twograd.graph.functional import pulled_back
from twograd.graph.passes.report import bodies
from twograd.graph.passes.rewriting import Walk, rewrite
from twograd.graph.references import without_references
from twograd.graph.transform import evaluate


def jvp(
    f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """The value of ``f`` and its directional derivative, as ``jax.jvp``: ``(out, tangent_out)``, and aux if asked.

    ``primals`` and ``tangents`` are tuples with an entry for each argument of ``f``, of the same structure, shapes and
    dtypes (the tangent of an integer is not read, that of an integer result has dtype ``float0``).

    The pullback is linear in its cotangent, and its transpose is the pushforward, so a pushforward is the pullback of
    the pullback (J. Townsend, "A new trick for calculating Jacobian vector products", 2017). What it computes at an
    arbitrary cotangent is dead code, and is removed. A ``while`` loop runs a second time, with tangents beside its
    values.

    Raises TypeError where primals and tangents do not fit, NoRule where an equation has no derivative.
    """
    check_callable(f, "jvp")
    check_tangents(primals, tangents, "jvp")
    out, pullback, *aux = pulled_back(f, primals, has_aux, with_pushforwards)
    leaves, out_tree = tree_flatten(out)

    def transposed(inexact_cts):
        return differentiable(pullback(tree_unflatten(out_tree, completed(leaves, in_places(leaves, inexact_cts)))))

    zeros = [lax.full_like(leaf, 0) for leaf in differentiable(out)]
    _, pushforward = pulled_back(transposed, (zeros,), False, without_references)
    (pushed,) = pushforward(differentiable(tangents))
    tangent_out = tree_unflatten(out_tree, completed(leaves, in_places(leaves, pushed)))
    return (out, tangent_out, *aux)


def differentiable(tree: Any) -> list[Any]:
    """The leaves that have a derivative."""
    return [leaf for leaf in jax.tree.leaves(tree) if rules.carries_gradient(jax.typeof(leaf))]


def in_places(values: Sequence[Any], found: Iterable[Any]) -> list[Any]:
    """What was ``found`` for those of the ``values`` that have a derivative, in their places; None elsewhere."""
    found = iter(found)
    return [next(found) if rules.carries_gradient(jax.typeof(value)) else None for value in values]


def completed(values: Sequence[Any], tangents: Iterable[Any]) -> list[Any]:
    """``tangents`` with what stands for None, the tangent of a value that has no derivative."""
    pairs = zip(values, tangents, strict=True)
    return [np.zeros(jnp.shape(x), jax.dtypes.float0) if t is None else t for x, t in pairs]


# --- loops of unknown length ------------------------------------------------------------------------------------------


def with_pushforwards(closed: ClosedJaxpr) -> ClosedJaxpr:
    """``closed``, without references, with ``while`` loops that :func:`jvp`, and nothing else, can pull back twice."""
    closed = without_references(closed)
    if not has_loops(closed):
        return closed

    def visitor_of(walk: Walk):
        def visit(eqn: JaxprEqn):
            if eqn.primitive in CUSTOM:  # differentiated by a function of the user's, or of this pass
                for body in bodies(eqn.params):
                    walk.leave(body)
            if eqn.primitive is not primitives.while_p or eqn.effects:
                return None
            consts = [*eqn.params["cond_jaxpr"].consts, *eqn.params["body_jaxpr"].consts]
            atoms = None if consts and not walk.takes_constants else walk.emit(eqn, pushable(eqn), *eqn.invars)
            return None if atoms is None else ("while", atoms)

        return visit

    return rewrite("with_pushforwards", closed, visitor_of)[0]


def has_loops(jaxpr: Jaxpr | ClosedJaxpr) -> bool:
    """Whether there is a ``while`` loop, at any depth."""
    return any(
        eqn.primitive is primitives.while_p or any(has_loops(body) for body in bodies(eqn.params)) for eqn in jaxpr.eqns
    )


def pushable(eqn: JaxprEqn) -> Callable[..., Any]:
    """The loop as a function whose pullback is right at cotangents that are zero, and can be pulled back everywhere.

    That is where :func:`jvp` evaluates it: a linear function is zero there. Its own pullback is the loop with tangents.
    """

    def run(*operands: Any) -> list[Any]:
        return list(eqn.primitive.bind(*operands, **eqn.params))

    def zeros(operands):
        return [lax.full_like(operand, 0) for operand in differentiable(operands)]

    @jax.custom_vjp
    def loop(*operands):
        return run(*operands)

    @jax.custom_vjp
    def pulled(operands, cts):
        return zeros(operands)

    def pull(operands, cts):
        return tuple(in_places(operands, pulled(operands, differentiable(cts))))

    loop.defvjp(lambda *operands: (run(*operands), operands), pull)
    pulled.defvjp(
        lambda operands, cts: (zeros(operands), operands),
        lambda operands, tangents: (None, with_tangents(eqn, operands, in_places(operands, tangents))),
    )
    return loop


def with_tangents(eqn: JaxprEqn, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of those results of a loop that have one: a loop that carries them beside the values."""
    cond, body, num_cond = (eqn.params[name] for name in ("cond_jaxpr", "body_jaxpr", "cond_nconsts"))
    first = num_cond + eqn.params["body_nconsts"]
    cond_consts = list(operands[:num_cond])
    consts = [list(part[num_cond:first]) for part in (operands, tangents)]
    carry = [list(part[first:]) for part in (operands, tangents)]

    def goes_on(cond_consts, carry):
        return evaluate(cond.jaxpr, cond.consts, [*cond_consts, *carry[0]])

    def step(consts, carry):
        primals, moving = ([*consts[i], *carry[i]] for i in (0, 1))
        given = completed(primals, moving)
        outs, out_tangents = jvp(lambda *args: evaluate(body.jaxpr, body.consts, args), primals, given)
        return outs, in_places(outs, differentiable(out_tangents))

    avals = [jax.tree.map(jax.typeof, part) for part in (cond_consts, consts, carry)]
    params = dict(
        eqn.params,
        cond_jaxpr=jax.make_jaxpr(goes_on)(avals[0], avals[2]),
        body_jaxpr=jax.make_jaxpr(step)(avals[1], avals[2]),
        body_nconsts=len(tree_leaves(consts)),
    )
    results = eqn.primitive.bind(*tree_leaves((cond_consts, consts, carry)), **params)
    return results[len(carry[0]) :]
