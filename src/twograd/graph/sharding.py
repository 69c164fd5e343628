"""The rule of ``jax.shard_map``: each device walks forward over its blocks, and back over its blocks.

What a rule names inside the body stays on the device that computed it: it leaves the forward ``shard_map`` and enters
the backward one under a partition that moves nothing. The rules of the collectives are in ``rules/collectives.py``.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.core import Tracer
from jax.tree_util import tree_flatten, tree_unflatten

from twograd import rules
from twograd._compat import bind_shard_map, keeping_spec, unmentioned_axes
from twograd.graph.calls import BODY
from twograd.graph.transform import backward_pass, forward_pass
from twograd.rules.common import unlisted


@dataclass(frozen=True, eq=False)
class Recipe:
    """How the applications inside of a body are put together from the blocks of the values that were saved.

    ``leaves`` are those of their tree, where those at ``places`` are the blocks number ``slots``. ``specs`` say how the
    saved values are split into blocks, and ``scalars`` which blocks are scalars that left as rows of one element: a
    scalar cannot differ over the devices.
    """

    structure: Any
    leaves: list[Any]
    places: list[int]
    slots: list[int]
    specs: list[Any]
    scalars: list[bool]

    def applications(self, blocks):
        leaves = list(self.leaves)
        for place, slot in zip(self.places, self.slots, strict=True):
            leaves[place] = lax.squeeze(blocks[slot], [0]) if self.scalars[slot] else blocks[slot]
        return tree_unflatten(self.structure, leaves)


def shard_map_forward(eqn, operands, wanted):
    """Maps the forward walk. What it keeps is one more result, unless it is an operand or a result already."""
    body, in_specs, out_specs = (eqn.params[name] for name in ("jaxpr", "in_specs", "out_specs"))
    spec_of = keeping_spec(eqn)
    found: Any = None

    def walk(*blocks):
        nonlocal found
        outs, applications = forward_pass(body, (), blocks, wanted)
        leaves, structure = tree_flatten(applications)
        values = [*blocks, *outs]
        position = {id(value): i for i, value in reversed(list(enumerate(values)))}
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tracer)]
        for place in places:
            if position.setdefault(id(leaves[place]), len(values)) == len(values):
                values.append(leaves[place])
        sources = [position[id(leaves[place])] for place in places]
        kept = values[len(blocks) + len(outs) :]
        scalars = [False] * (len(blocks) + len(outs)) + [value.ndim == 0 for value in kept]
        kept = [lax.broadcast(value, (1,)) if value.ndim == 0 else value for value in kept]
        specs = [*in_specs, *out_specs, *(spec_of(jax.typeof(value)) for value in kept)]
        leaves = [None if isinstance(leaf, Tracer) else leaf for leaf in leaves]
        found = structure, leaves, places, sources, specs, scalars
        return [*outs, *kept], specs[len(blocks) :]

    results = bind_shard_map(eqn, walk, operands, in_specs)
    structure, leaves, places, sources, specs, scalars = found
    used = sorted(set(sources))
    slots = [used.index(source) for source in sources]
    values = [*operands, *results]
    recipe = Recipe(structure, leaves, places, slots, [specs[i] for i in used], [scalars[i] for i in used])
    return results[: len(eqn.outvars)], ([values[i] for i in used], recipe)


def shard_map_backward(eqn, residuals, cts, wanted):
    """Maps the backward walk: a cotangent is split, or joined, as the value that it belongs to is.

    Where ``check_vma=False``, nothing says how often a block was repeated. JAX divides the cotangent of a result that
    is the same on several devices among them, and sums the cotangents of an operand; so does this.
    """
    saved, recipe = residuals
    body, in_specs, out_specs = (eqn.params[name] for name in ("jaxpr", "in_specs", "out_specs"))
    checked = eqn.params["check_vma"]
    present = [i for i, ct in enumerate(cts) if ct is not None]
    arrived: list[int] = []

    def walk(*blocks):
        nonlocal arrived
        out_cts: list[Any] = [None] * len(cts)
        for i, ct in zip(present, blocks[len(saved) :], strict=True):
            copies = 1 if checked else repeats(out_specs[i].to_ct_spec())
            out_cts[i] = ct if copies == 1 else lax.div(ct, lax.full_like(ct, copies))
        in_cts = backward_pass(body, recipe.applications(blocks[: len(saved)]), out_cts, BODY)
        arrived = [i for i, (ct, want) in enumerate(zip(in_cts, wanted, strict=True)) if want and ct is not None]
        specs = [in_specs[i].to_ct_spec() for i in arrived]
        summed = [
            in_cts[i] if checked else lax.psum(in_cts[i], unmentioned_axes(eqn, spec))
            for i, spec in zip(arrived, specs, strict=True)
        ]
        return summed, specs

    def repeats(spec):
        return math.prod(eqn.params["mesh"].shape[axis] for axis in unmentioned_axes(eqn, spec))

    specs = [*recipe.specs, *(out_specs[i].to_ct_spec() for i in present)]
    results = bind_shard_map(eqn, walk, [*saved, *(cts[i] for i in present)], specs)
    in_cts: list[Any] = [None] * len(wanted)
    for i, ct in zip(arrived, results, strict=True):
        in_cts[i] = ct
    return in_cts


rules.vjp_call(unlisted["shard_map"], shard_map_forward, shard_map_backward)
