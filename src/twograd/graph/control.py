"""Rules for control flow: the body of a branch or a loop is differentiated once, whatever it does at run time.

Each rule takes the two halves of the body's derivative (``split.py``): a forward body that also yields what the rules
name, and a backward body that reads it. Read :func:`scan_forward` and :func:`scan_backward`; ``cond`` is the same
without the loop, and ``while`` shows what cannot be done: a loop of unknown length has no room for what it would keep.

Lists of cotangents hold None for zero. None is an empty pytree, so such lists go through traces and binds as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, Var, primitives
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from twograd import rules
from twograd._arguments import zero_gradient
from twograd._compat import bind_again, new_jaxpr
from twograd.errors import NotReversible
from twograd.graph.passes.dce import part_of
from twograd.graph.split import split_once
from twograd.graph.transform import evaluate, reached
from twograd.rules.shape import zeros

# --- scan: the tape of a loop is a stack ------------------------------------------------------------------------------


def parts_of_operands(eqn, values):
    """``values``, one per operand of a scan, as those of (consts, init, xs)."""
    init = eqn.params["num_consts"]
    xs = init + eqn.params["num_carry"]
    return list(values[:init]), list(values[init:xs]), list(values[xs:])


def parts_of_results(eqn, values):
    """``values``, one per result of a scan, as those of (carry, ys)."""
    ys = eqn.params["num_carry"]
    return list(values[:ys]), list(values[ys:])


def moving(eqn, wanted):
    """The operands of a scan's body that depend on ``wanted`` operands of the scan: some carry may do so only later."""
    consts, init, xs = parts_of_operands(eqn, wanted)
    body = eqn.params["jaxpr"].jaxpr
    carry = fixed_point(lambda carry: parts_of_results(eqn, reached(body, [*consts, *carry, *xs]))[0], init)
    return (*consts, *carry, *xs)


def fixed_point(step: Callable[[list[bool]], Sequence[bool]], mask: Sequence[bool]) -> list[bool]:
    """Adds to ``mask`` what ``step`` says of it, until nothing is added."""
    mask = list(mask)
    while True:
        grown = [old or new for old, new in zip(mask, step(mask), strict=True)]
        if grown == mask:
            return mask
        mask = grown


def scan_reached(eqn, wanted):
    return reached(eqn.params["jaxpr"].jaxpr, moving(eqn, wanted))


def scan_forward(eqn, operands, wanted):
    """Runs the loop, and stacks those values of each step that the rules name.

    Nothing is kept twice, or stacked without need: slices of xs are in xs and ys in ys already, and what is computed
    from operands that are the same in all steps is the same in all steps.
    """
    mask = moving(eqn, wanted)
    split = split_once(eqn.params["jaxpr"], mask)
    step, num_outs = split.forward.jaxpr, len(eqn.outvars)
    atoms = [*step.invars, *step.outvars]
    named = [atoms[i] for i in split.saved]

    consts, _, xs = parts_of_operands(eqn, operands)
    const_vars, _, x_vars = parts_of_operands(eqn, step.invars)
    once = dict(zip(const_vars, consts, strict=True)) | invariant(split.forward, const_vars, consts, named)
    results = step.outvars[:num_outs]
    stacked = {*x_vars, *(var for var in parts_of_results(eqn, results)[1] if isinstance(var, Var))}
    further = list(dict.fromkeys(var for var in named if var not in once and var not in stacked))

    forward = ClosedJaxpr(new_jaxpr(step, outvars=[*results, *further]), split.forward.consts)
    outs = eqn.primitive.bind(*operands, **dict(eqn.params, jaxpr=forward))
    _, y_vars = parts_of_results(eqn, results)
    _, ys = parts_of_results(eqn, outs[:num_outs])
    stacks = {var: y for var, y in zip(y_vars, ys, strict=True) if isinstance(var, Var)}
    stacks |= dict(zip([*x_vars, *further], [*xs, *outs[num_outs:]], strict=True))
    kept = [once.get(var) for var in named], [None if var in once else stacks[var] for var in named]
    return list(outs[:num_outs]), (split, mask, *kept)


def invariant(step: ClosedJaxpr, const_vars: Sequence[Var], consts: Sequence[Any], named: Sequence[Var]) -> dict:
    """Those of the ``named`` values that ``step`` computes from the constants of the loop alone, computed here."""
    known = {*const_vars, *step.jaxpr.constvars}
    eqns = []
    for eqn in step.jaxpr.eqns:
        if not eqn.effects and all(isinstance(atom, Literal) or atom in known for atom in eqn.invars):
            known.update(eqn.outvars)
            eqns.append(eqn)
    made_here = {var for eqn in eqns for var in eqn.outvars}
    wanted = [var for var in dict.fromkeys(named) if var in made_here]
    if not wanted:
        return {}
    program = part_of(step, const_vars, eqns, wanted)
    return dict(zip(wanted, evaluate(program.jaxpr, program.consts, consts), strict=True))


def scan_backward(eqn, kept, cts, wanted):
    """Runs the loop the other way round, from the last step to the first.

    Its carry are the cotangents of the carry, and a sum for each constant: a constant is used by all steps.
    """
    split, mask, once, stacks = kept
    body = eqn.params["jaxpr"]
    const_avals, carry_avals, _ = parts_of_operands(eqn, body.in_avals)
    wanted_consts, wanted_carry, _ = parts_of_operands(eqn, mask)

    def step(once, state, slices):
        (carry, sums), (each, ys) = state, slices
        values = [value if of_step is None else of_step for value, of_step in zip(once, each, strict=True)]
        of_consts, of_carry, of_xs = parts_of_operands(eqn, split.backward(values, [*carry, *ys]))
        sums = [total if ct is None else lax.add(total, ct) for total, ct in zip(sums, of_consts, strict=True)]
        return (instantiated(of_carry, carry_avals, wanted_carry), sums), of_xs

    carry, ys = parts_of_results(eqn, cts)
    state = (
        instantiated(carry, carry_avals, wanted_carry),
        instantiated([None] * len(const_avals), const_avals, wanted_consts),
    )
    step_avals = [*split.forward.in_avals, *split.forward.out_avals]
    slices = (
        [None if stack is None else step_avals[i] for i, stack in zip(split.saved, stacks, strict=True)],
        [None if ct is None else aval for ct, aval in zip(ys, parts_of_results(eqn, body.out_avals)[1], strict=True)],
    )
    backward, shape = jax.make_jaxpr(step, return_shape=True)(*jax.tree.map(jax.typeof, (once, state)), slices)
    params = dict(
        eqn.params,
        jaxpr=backward,
        reverse=not eqn.params["reverse"],
        num_consts=len(tree_leaves(once)),
        num_carry=len(tree_leaves(state)),
    )
    results = eqn.primitive.bind(*tree_leaves((once, state, (stacks, ys))), **params)
    (carry, sums), of_xs = tree_unflatten(tree_structure(shape), results)
    return [ct if want else None for ct, want in zip([*sums, *carry, *of_xs], wanted, strict=True)]


# --- while: no room for what is to be kept ----------------------------------------------------------------------------


def while_reached(eqn, wanted):
    body, start = eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_nconsts"]
    end = start + eqn.params["body_nconsts"]
    consts, init = wanted[start:end], wanted[end:]
    return fixed_point(lambda carry: reached(body, [*consts, *carry]), init)


def while_forward(eqn, operands, wanted):
    return bind_again(eqn, operands), None


def while_backward(eqn, _, cts, wanted):
    """Zero for results that depend on nothing wanted, as the counter of a loop; an error for others."""
    if any(ct is not None and moves for ct, moves in zip(cts, while_reached(eqn, wanted), strict=True)):
        raise NotReversible(eqn)
    return [None] * len(wanted)


# --- cond: the same branch, on the way back ---------------------------------------------------------------------------


def cond_reached(eqn, wanted):
    of_branches = (reached(branch.jaxpr, wanted[1:]) for branch in eqn.params["branches"])
    return [any(masks) for masks in zip(*of_branches, strict=True)]


def cond_forward(eqn, operands, wanted):
    """Takes the branch, which fills some of the slots that all branches share with what the rules name in it.

    There is one slot for each type, as often as the branch that needs most of that type needs it. A branch leaves zeros
    in those that it does not need. Operands and results that are named exist anyway, and need no slot.
    """
    index, *rest = operands
    num_outs = len(eqn.outvars)
    num_shared = len(rest) + num_outs
    slots: list[Any] = []
    branches = []
    for branch in eqn.params["branches"]:
        split = split_once(branch, wanted[1:])
        avals = [strong(aval) for aval in (*split.forward.in_avals, *split.forward.out_avals)]
        slot_of: dict[int, int] = {}
        for i in split.saved:
            if i >= num_shared:
                taken = set(slot_of.values())
                free = [slot for slot, aval in enumerate(slots) if aval == avals[i] and slot not in taken]
                slot_of[i] = free[0] if free else len(slots)
                slots += [] if free else [avals[i]]
        branches.append((split, slot_of))

    def filling(split, slot_of):
        value_in = {slot: i for i, slot in slot_of.items()}

        def forward(*values):
            outs = evaluate(split.forward.jaxpr, split.forward.consts, values)
            values = [*values, *outs]
            filled = [
                lax.convert_element_type(values[value_in[slot]], aval.dtype) if slot in value_in else zeros(aval)
                for slot, aval in enumerate(slots)
            ]
            return outs[:num_outs] + filled

        return jax.make_jaxpr(forward)(*split.forward.in_avals)

    params = dict(eqn.params, branches=tuple(filling(*branch) for branch in branches))
    results = eqn.primitive.bind(*operands, **params)
    named = {i for split, _ in branches for i in split.saved}
    shared = [value if i in named else None for i, value in enumerate([*rest, *results[:num_outs]])]
    return list(results[:num_outs]), (branches, index, shared, list(results[num_outs:]))


def strong(aval):
    return aval.update(weak_type=False) if getattr(aval, "weak_type", False) else aval


def cond_backward(eqn, kept, cts, wanted):
    branches, index, shared, slots = kept
    avals = [atom.aval for atom in eqn.invars[1:]]

    def pullback(split, slot_of):
        def backward(shared, slots, cts):
            values = [slots[slot_of[i]] if i in slot_of else shared[i] for i in split.saved]
            return instantiated(split.backward(values, cts), avals, wanted[1:])

        return jax.make_jaxpr(backward)(*jax.tree.map(jax.typeof, (shared, slots, cts)))

    params = dict(eqn.params, branches=tuple(pullback(*branch) for branch in branches))
    in_cts = iter(eqn.primitive.bind(index, *tree_leaves((shared, slots, cts)), **params))
    return [next(in_cts) if want else None for want in wanted]


def instantiated(cts, avals, mask):
    """``cts`` where ``mask`` holds, zeros in the place of None: a carry and a branch's result exist in any case."""
    return [
        None if not wanted else zero_gradient(aval) if ct is None else ct
        for ct, aval, wanted in zip(cts, avals, mask, strict=True)
    ]


rules.vjp_call(primitives.scan_p, scan_forward, scan_backward, scan_reached)
rules.vjp_call(primitives.while_p, while_forward, while_backward, while_reached)
rules.vjp_call(primitives.cond_p, cond_forward, cond_backward, cond_reached)
