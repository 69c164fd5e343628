"""Recording one node per primitive: the algorithm in its plainest form.

A front-end function is traced to its jaxpr, whose equations are then executed and recorded one by one. Nothing is
compiled; on the way back each rule is called by value. What the graph engine emits as equations is here computed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal
from jax.tree_util import tree_unflatten

from twograd import rules
from twograd._compat import bind_again
from twograd.graph.passes.inline import inline
from twograd.tape.modes import mode
from twograd.tape.node import Edge
from twograd.tape.plan import RESULT, CompiledPlan, EquationPlan, Mask, Plan, trace_op
from twograd.tape.tensor import Tensor, make_tensor
from twograd.tape.watched import make_node


def record_primitives(function: Callable[..., Any], operands: Sequence[Tensor]) -> Any:
    """Runs ``function`` equation by equation, recording each that depends on an operand with an edge."""
    closed, literals, leaves, out_tree = _traced(function, tuple(operand._data.aval for operand in operands))
    jaxpr = closed.jaxpr
    env: dict[Any, tuple[Any, Edge | None]] = {
        var: (const, None) for var, const in zip(jaxpr.constvars, closed.consts, strict=True)
    }
    env.update(zip(jaxpr.invars, ((x._data, x._edge) for x in operands), strict=True))

    def read(atom):
        return (literals[id(atom)], None) if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values, edges = zip(*map(read, eqn.invars), strict=True) if eqn.invars else ((), ())
        plan = equation_plan(eqn, rules.wanted_operands(eqn, [edge is not None for edge in edges]))
        results = plan.forward(*values)
        node = make_node(plan, values, results, edges)
        for i, var in enumerate(eqn.outvars):
            env[var] = (results[i], (node, i) if node is not None and plan.differentiable[i] else None)
    outputs = [make_tensor(data, edge) for data, edge in map(read, jaxpr.outvars)]
    for watcher in mode.watchers:
        watcher.op_done(function, operands, outputs)
    tensors = iter(outputs)
    return tree_unflatten(out_tree, [next(tensors) if leaf is RESULT else leaf for leaf in leaves])


@functools.lru_cache(maxsize=4096)
def _traced(function: Callable[..., Any], avals: tuple[Any, ...]) -> Any:
    closed, leaves, out_tree = trace_op(function, avals)
    closed = inline(closed)[0]
    atoms = [atom for eqn in closed.jaxpr.eqns for atom in eqn.invars] + closed.jaxpr.outvars
    with jax.ensure_compile_time_eval():  # arrays, not tracers, though this may be called under a trace
        literals = {id(a): _constant(a) for a in atoms if isinstance(a, Literal)}
    return closed, literals, leaves, out_tree


def _constant(literal: Any) -> jax.Array:
    return jnp.asarray(literal.val, literal.aval.dtype)


@functools.lru_cache(maxsize=65536)
def equation_plan(eqn: JaxprEqn, wanted: Mask) -> Plan:
    """A primitive that carries jaxprs has no rule to call by value: it is compiled, as an op of its own."""
    if any(wanted) and rules.carries_jaxprs(eqn.primitive):

        def call(*operands):
            return bind_again(eqn, operands)

        call.__name__ = eqn.primitive.name
        return CompiledPlan(call, [atom.aval for atom in eqn.invars], wanted)
    return EquationPlan(eqn, wanted)
