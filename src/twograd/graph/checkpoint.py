"""The rule of ``jax.checkpoint``: keep little on the way there, and compute the rest again on the way back.

What flows in: a body, and a policy that says which of the values inside are worth keeping. Read :func:`remat_forward`;
:func:`cut` is what finds the least that must be kept.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var, primitives
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from twograd import rules
from twograd._compat import consts_as_inputs, keeps, lasts
from twograd.graph.passes.dce import part_of
from twograd.graph.split import split_once
from twograd.graph.transform import evaluate, reached


def remat_forward(eqn, operands, wanted):
    """Evaluates the body, and keeps the operands and those values inside that the policy allows, where they are needed.

    As in JAX the policy is asked about the equations of the differentiated body: those of a custom JVP rule, say.
    """
    split = split_once(ClosedJaxpr(eqn.params["jaxpr"], ()), wanted)
    body, num_outs = split.forward.jaxpr, len(eqn.outvars)
    atoms = [*body.invars, *body.outvars]
    allowed, told = allowed_values(body, eqn.params["policy"])
    again, inputs, kept = cut(split.forward, [atoms[i] for i in split.saved], allowed, told)
    outs = body.outvars[:num_outs]
    further = [var for var in kept if var not in outs]
    # The body as its rules compute it, custom ones too: what differentiates again differentiates that, as in JAX.
    forward = part_of(split.forward, body.invars, body.eqns, [*outs, *further])
    results = bind(eqn, forward, operands, eqn.params["prevent_cse"])
    values = [results[[*outs, *further].index(var)] for var in kept]
    spaces = [allowed[var] for var in kept]
    values = [jax.device_put(v, space[0]) if space else v for v, space in zip(values, spaces, strict=True)]
    return results[:num_outs], (split, again, spaces, inputs, [operands[i] for i in inputs], values)


def remat_backward(eqn, saved, cts, wanted):
    """One ``remat`` equation: its barrier makes XLA compute again, and its own derivative will compute again too."""
    split, again, spaces, inputs, operands, values = saved

    def pullback(operands, values, cts):
        values = [jax.device_put(v, space[1]) if space else v for v, space in zip(values, spaces, strict=True)]
        return split.backward(evaluate(again.jaxpr, again.consts, [*operands, *values]), cts)

    given = (operands, values, list(cts))
    backward, shape = jax.make_jaxpr(pullback, return_shape=True)(*jax.tree.map(jax.typeof, given))
    prevent = eqn.params["prevent_cse"]
    if isinstance(prevent, tuple):
        prevent = tuple(prevent[i] for i in inputs)
    results = bind(eqn, backward, tree_leaves(given), prevent, differentiated=True)
    in_cts = tree_unflatten(tree_structure(shape), results)
    return [ct if want else None for ct, want in zip(in_cts, wanted, strict=True)]


def bind(eqn, closed, operands, prevent_cse, **params):
    """Binds the ``remat`` of ``closed``; its operands begin with those that ``prevent_cse`` speaks of."""
    if isinstance(prevent_cse, tuple):
        unnamed = len(operands) - len(prevent_cse)
        prevent_cse = (False,) * len(closed.consts) + prevent_cse + (True,) * unnamed
    params = dict(eqn.params, jaxpr=consts_as_inputs(closed).jaxpr, prevent_cse=prevent_cse, **params)
    return list(eqn.primitive.bind(*closed.consts, *operands, **params))


def allowed_values(
    jaxpr: Jaxpr, policy: Callable[..., Any] | None
) -> tuple[dict[Var, tuple[Any, Any] | None], list[JaxprEqn]]:
    """The values of ``jaxpr`` that may be kept, each with the memory spaces to move between, or None.

    The policy allows some. What ``checkpoint_name`` names is its operand: whoever reads that need not compute it again
    either. What an equation with a lasting effect yields has to be kept: a reference that is read again may have been
    written to. The other list are the equations that only tell, as ``jax.debug.print`` does, and do so again, as in
    JAX, unless the policy says otherwise.
    """
    allowed: dict[Var, tuple[Any, Any] | None] = {}
    told = []
    for eqn in jaxpr.eqns:
        keep, spaces = False, None
        if policy is not None:
            keep, spaces = keeps(policy(eqn.primitive, *(atom.aval for atom in eqn.invars), **eqn.params))
        if lasts(eqn.effects):
            allowed.update(dict.fromkeys(eqn.outvars))
        elif keep:
            named = eqn.invars if eqn.primitive is primitives.name_p else eqn.outvars
            allowed.update((atom, spaces) for atom in named if isinstance(atom, Var))
        elif eqn.effects and not eqn.outvars:
            told.append(eqn)
    return allowed, told


def cut(
    closed: ClosedJaxpr, named: Sequence[Var], allowed: Collection[Var], told: Collection[JaxprEqn]
) -> tuple[ClosedJaxpr, list[int], list[Var]]:
    """A program that computes the ``named`` values of ``closed`` again; which inputs and ``allowed`` values it takes.

    Walks back from the named values, no further than to allowed ones. What an equation yields that must be evaluated
    anyway, for another of its results, need not be kept. The equations ``told`` are evaluated again too.
    """
    inputs = closed.jaxpr.invars
    allowed = set(allowed) - set(inputs)
    needed = {var for var in named if var not in allowed}
    given = dict.fromkeys(var for var in named if var in allowed)
    eqns = []
    for eqn in reversed(closed.eqns):
        if any(var in needed for var in eqn.outvars) or any(eqn is other for other in told):
            eqns.append(eqn)
            for var in eqn.outvars:
                given.pop(var, None)
            for atom in eqn.invars:
                if isinstance(atom, Var) and atom not in allowed:
                    needed.add(atom)
                elif isinstance(atom, Var):
                    given[atom] = None
    read = [i for i, var in enumerate(inputs) if var in needed]
    program = part_of(closed, [*(inputs[i] for i in read), *given], eqns[::-1], named)
    return program, read, list(given)


rules.vjp_call(
    primitives.remat_p, remat_forward, remat_backward, lambda eqn, wanted: reached(eqn.params["jaxpr"], wanted)
)
