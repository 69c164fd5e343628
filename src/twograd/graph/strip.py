"""From the graph that was trained to the one that is deployed: without what the asked outputs do not need.

What flows in: a jaxpr, and which of its outputs to keep (:func:`strip`) or which of its inputs have a value for good
(:func:`freeze`). What flows out: a smaller jaxpr, and for :func:`strip` a report of what went, why, and of a proof that
what stayed computes the same. Read :func:`strip`, then :func:`reasons`, which is where the words come from.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, Var, primitives
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves, tree_map, tree_structure, tree_unflatten

from twograd._compat import bind_again, new_jaxpr, scoped, transforms_of, user_line
from twograd.errors import StripError
from twograd.graph.passes import PassReport, dce, inline
from twograd.graph.passes.checking import difference, random_value
from twograd.graph.passes.cse import NOT_A_FUNCTION
from twograd.graph.passes.fold import CHEAP, PLACEMENT
from twograd.graph.passes.report import bodies, count
from twograd.graph.passes.rewriting import Visitor, Walk, is_plain, rewrite
from twograd.graph.text import sources_of
from twograd.graph.transform import evaluate

GRADIENT, OPTIMISER, RANDOM, LOSS = "gradient", "optimiser update", "dropout and random bits", "loss"
OUTPUT, DEAD, IDENTITY, WRAPPER = "another output", "read by nothing", "identity", "derivative rule or remat"

IDENTITIES: set[Primitive] = {
    primitives.copy_p,
    lax.optimization_barrier_p,
    primitives.name_p,
    primitives.stop_gradient_p,
}
"""What is the identity for a program that is only run: names, barriers and stops for the sake of a derivative."""

WRAPPERS = {primitives.custom_jvp_call_p: "call_jaxpr", primitives.custom_vjp_call_p: "call_jaxpr"}
WRAPPERS[primitives.remat_p] = "jaxpr"
"""Calls that say how to differentiate their body, and where that body is."""


@dataclass(frozen=True)
class Removed:
    """What went for one reason: how many equations, and the bytes of their results."""

    reason: str
    equations: int
    bytes: int
    primitives: Counter[str]


@dataclass(frozen=True)
class StripReport(PassReport):
    """What :meth:`Graph.strip` did: a :class:`PassReport` (equations before are those with all calls inlined), and why.

    ``inputs`` are the names and bytes of the inputs that are not needed any more, ``outputs`` the names of the results
    that were not asked for. ``checked`` says that both programs, evaluated equation by equation on random inputs, gave
    the same bits for each kept output.
    """

    removed: tuple[Removed, ...] = ()
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    checked: bool = False

    def __str__(self) -> str:
        lines = [f"strip: {self.before} -> {self.after} equations, {self.seconds * 1e3:.1f} ms"]
        for item in self.removed:
            what = ", ".join(f"{name} ({times})" for name, times in item.primitives.most_common(6))
            lines.append(f"  {item.reason}: {item.equations} equations, {item.bytes:,} bytes: {what}")
        lines += [f"  input {name}: no longer needed, {size:,} bytes" for name, size in self.inputs.items()]
        lines += [f"  output {name}: not asked for" for name in self.outputs]
        lines.append("  kept outputs: " + ("equal to 0 ulp on random inputs" if self.checked else "not checked"))
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "equations": [self.before, self.after],
            "removed": [{**vars(item), "primitives": dict(item.primitives)} for item in self.removed],
            "inputs": self.inputs,
            "outputs": list(self.outputs),
            "equal to 0 ulp": self.checked,
        }


# --- strip ------------------------------------------------------------------------------------------------------------


def strip(
    closed: ClosedJaxpr, keep: Sequence[int], inputs: Sequence[str], outputs: Sequence[str], check: bool
) -> tuple[ClosedJaxpr, list[int], StripReport]:
    """``closed`` with only the outputs ``keep``; also which of its inputs are still there, and the report.

    Calls of jitted functions are inlined first, and so are those that only say how their body is differentiated
    (custom rules, remat). Then what is not needed goes, and identities (:data:`IDENTITIES`, conversions to the same
    type) are passed by: an output that was one is then an output that is an input, and stays. With ``check``,
    StripError if on random inputs a kept output is not the same to the last bit.
    """
    start = time.perf_counter()
    whole, opened = opened_up(closed)
    jaxpr = whole.jaxpr
    lesser = ClosedJaxpr(new_jaxpr(jaxpr, outvars=[jaxpr.outvars[i] for i in keep]), whole.consts)
    removed = account(whole, keep, opened)
    passed, identities = rewrite("pass by", lesser, lambda walk: identity)
    passed, _ = dce(passed)
    read = {atom for eqn in passed.eqns for atom in eqn.invars if isinstance(atom, Var)}
    read.update(atom for atom in passed.jaxpr.outvars if isinstance(atom, Var))
    kept = [i for i, var in enumerate(passed.jaxpr.invars) if var in read]
    info = jaxpr.debug_info._replace(
        arg_names=tuple(inputs[i] for i in kept), result_paths=tuple(outputs[i] for i in keep)
    )
    stripped = ClosedJaxpr(
        new_jaxpr(passed.jaxpr, invars=[passed.jaxpr.invars[i] for i in kept], debug_info=info), passed.consts
    )
    if check:
        check_bits(whole, stripped, keep, kept, outputs)
    gone = {inputs[i]: bytes_of(whole.in_avals[i]) for i in range(len(inputs)) if i not in kept}
    report = StripReport(
        name="strip",
        before=count(whole),
        after=count(stripped),
        fired=Counter({item.reason: item.equations for item in removed}) + identities.fired,
        seconds=time.perf_counter() - start,
        removed=tuple(removed),
        inputs=gone,
        outputs=tuple(name for i, name in enumerate(outputs) if i not in keep),
        checked=check,
    )
    return stripped, kept, report


def opened_up(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, Counter[str]]:
    """``closed`` with the bodies of its calls in their place, however nested; and how many were wrappers."""
    opened: Counter[str] = Counter()
    while True:
        closed, _ = inline(closed)
        closed, report = rewrite("open", closed, lambda walk: lambda eqn: inside(walk, eqn))
        if not report.fired:
            return closed, opened
        opened += report.fired


def inside(walk: Walk, eqn: JaxprEqn):
    """The body of a call that only says how to differentiate it."""
    if eqn.primitive not in WRAPPERS or not walk.takes_constants:
        return None
    body = eqn.params[WRAPPERS[eqn.primitive]]
    jaxpr, consts = (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())

    def source(inner: JaxprEqn) -> Any:
        info = scoped(inner, eqn, eqn.primitive.name)
        return info if user_line(inner) else info.replace(traceback=eqn.source_info.traceback)

    return eqn.primitive.name, walk.splice(jaxpr, consts, eqn.invars, source)


def identity(eqn: JaxprEqn):
    """An equation's operands in the place of its results, where they are the same values of the same types."""
    if eqn.primitive not in IDENTITIES and eqn.primitive is not lax.convert_element_type_p:
        return None
    same = [atom.aval for atom in eqn.invars] == [var.aval for var in eqn.outvars]
    return (IDENTITY, list(eqn.invars)) if same and not eqn.effects else None


def default_outputs(closed: ClosedJaxpr) -> list[int]:
    """The outputs that no derivative flows into."""
    closed, _ = inline(closed)
    tainted = of_gradients(closed.eqns)
    return [i for i, atom in enumerate(closed.jaxpr.outvars) if atom not in tainted or not isinstance(atom, Var)]


def check_bits(
    whole: ClosedJaxpr, stripped: ClosedJaxpr, keep: Sequence[int], kept: Sequence[int], names: Sequence[str]
) -> None:
    """Evaluates both equation by equation on random inputs: what is computed by the same equations has the same bits.

    (Compiled as a whole, XLA may round either program otherwise: it fuses what stands together.)
    """
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        values = [random_value(aval, rng) for aval in whole.in_avals]
        expected = evaluate(whole.jaxpr, whole.consts, values)
        found = evaluate(stripped.jaxpr, stripped.consts, [values[i] for i in kept])
        for i, new in zip(keep, found, strict=True):
            if not same_bits(expected[i], new):
                error, _ = difference(expected[i], new)
                raise StripError(f"stripping changed the output {names[i]} on random inputs, by up to {error:.3g}")


def same_bits(old: Any, new: Any) -> bool:
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        old, new = jax.random.key_data(old), jax.random.key_data(new)
    old, new = np.asarray(old), np.asarray(new)
    return (old.shape, old.dtype) == (new.shape, new.dtype) and old.tobytes() == new.tobytes()


def subtree(tree: Any, keep: Sequence[int]) -> Any:
    """The largest part of ``tree`` with just the leaves ``keep``, or a tuple of as many leaves where there is none."""
    if len(keep) == tree.num_leaves:
        return tree
    first = 0
    for child in tree.children():
        after = first + child.num_leaves
        if keep and first <= keep[0] and keep[-1] < after:
            return subtree(child, [i - first for i in keep])
        first = after
    return tree_structure((0,) * len(keep))


def part_named(tree: Any, name: Any) -> tuple[range, Any] | None:
    """The leaves of the part of ``tree`` of this ``name``, such as ``result[1]['w']``, and its structure, if any is."""
    paths = tree_flatten_with_path(tree_unflatten(tree, range(tree.num_leaves)))[0]
    for path, leaf in paths:
        for depth in range(len(path) + 1):
            if name == f"result{keystr(path[:depth])}":
                first = 0
                for _ in range(depth):
                    for child in tree.children():
                        if leaf < first + child.num_leaves:
                            tree = child
                            break
                        first += child.num_leaves
                return range(first, first + tree.num_leaves), tree
    return None


def without_leaves(in_tree: Any, kept: Sequence[int]) -> Any:
    """The structure of ``(args, kwargs)`` without the leaves that are not ``kept``.

    An argument of which no leaf is kept is not there any more; else None stands for each such leaf.
    """
    args, kwargs = tree_unflatten(in_tree, range(in_tree.num_leaves))
    remains = {i: i for i in kept}

    def stays(argument: Any) -> bool:
        leaves = tree_leaves(argument)
        return not leaves or any(leaf in remains for leaf in leaves)

    args = tuple(tree_map(remains.get, argument) for argument in args if stays(argument))
    kwargs = {name: tree_map(remains.get, argument) for name, argument in kwargs.items() if stays(argument)}
    return tree_structure((args, kwargs))


# --- why an equation goes ---------------------------------------------------------------------------------------------


def account(whole: ClosedJaxpr, keep: Sequence[int], opened: Counter[str]) -> list[Removed]:
    """What goes from ``whole`` when only the outputs ``keep`` stay, by reason, the largest first."""
    tally: dict[str, tuple[Counter[str], list[int]]] = {}
    for eqn, reason in zip(whole.eqns, reasons(whole, keep), strict=True):
        if reason is not None:
            names, sizes = tally.setdefault(reason, (Counter(), []))
            names[eqn.primitive.name] += 1
            sizes.append(sum(bytes_of(var.aval) for var in eqn.outvars))
    removed = [Removed(reason, len(sizes), sum(sizes), names) for reason, (names, sizes) in tally.items()]
    if opened:
        removed.append(Removed(WRAPPER, opened.total(), 0, Counter(opened)))
    return sorted(removed, key=lambda item: -item.equations)


def reasons(whole: ClosedJaxpr, keep: Sequence[int]) -> list[str | None]:
    """Per equation: why it goes, or None where it stays.

    An equation that no kept output needs is of a *gradient* if a derivative emitted it (ours, or JAX's own), or if only
    such read it; of an *optimiser update* if it reads a gradient, or if only updates read it; of *random bits* if
    all that it computes from is random or constant; of the *loss* if a scalar that was not asked for is computed from
    it, else of *another output*.
    """
    jaxpr = whole.jaxpr
    needed = {atom for i in keep if isinstance(atom := jaxpr.outvars[i], Var)}
    scalar: set[Var] = set()
    other: set[Var] = set()
    for i, atom in enumerate(jaxpr.outvars):
        if isinstance(atom, Var) and i not in keep:
            aval: Any = atom.aval
            (scalar if aval.shape == () and jnp.issubdtype(aval.dtype, np.floating) else other).add(atom)
    tainted, random = of_gradients(whole.eqns), of_random(whole)
    readers: dict[Var, set[str]] = {}
    found: list[str | None] = []
    for eqn in reversed(whole.eqns):
        if eqn.effects or any(var in needed for var in eqn.outvars):
            needed.update(atom for atom in eqn.invars if isinstance(atom, Var))
            found.append(IDENTITY if identity(eqn) is not None else None)
            continue
        read_by = set().union(*(readers.get(var, set()) for var in eqn.outvars))
        if is_gradient(eqn):
            reason = GRADIENT
        elif any(atom in tainted for atom in eqn.invars if isinstance(atom, Var)):
            reason = OPTIMISER
        elif is_random(eqn) or any(var in random for var in eqn.outvars):
            reason = RANDOM
        elif any(var in scalar for var in eqn.outvars) or LOSS in read_by:
            reason = LOSS
        elif any(var in other for var in eqn.outvars) or OUTPUT in read_by:
            reason = OPTIMISER if read_by == {OPTIMISER} else OUTPUT
        elif read_by:
            reason = OPTIMISER if read_by == {OPTIMISER} else GRADIENT if GRADIENT in read_by else min(read_by)
        else:
            reason = DEAD
        for atom in eqn.invars:
            if isinstance(atom, Var):
                readers.setdefault(atom, set()).add(reason)
        found.append(reason)
    return found[::-1]


def is_gradient(eqn: JaxprEqn) -> bool:
    """Whether a derivative emitted it: this project's scope ``vjp(...)``, or JAX's ``transpose``."""
    return "transpose" in transforms_of(eqn) or bool(sources_of(eqn))


def is_random(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    return name.startswith(("random_", "rng_", "threefry", "philox", "iota_2x32"))


def of_gradients(eqns: Sequence[JaxprEqn]) -> set[Var]:
    """The values that are gradients, or computed from one."""
    tainted: set[Var] = set()
    for eqn in eqns:
        if is_gradient(eqn) or any(atom in tainted for atom in eqn.invars if isinstance(atom, Var)):
            tainted.update(eqn.outvars)
    return tainted


def of_random(whole: ClosedJaxpr) -> set[Var]:
    """The values that are computed from random bits, and from nothing else but constants."""
    random: set[Var] = set()
    constant = set(whole.jaxpr.constvars)
    for eqn in whole.eqns:
        operands = [atom for atom in eqn.invars if isinstance(atom, Var)]
        if is_random(eqn) or (operands and all(atom in random or atom in constant for atom in operands)):
            (random if is_random(eqn) or any(atom in random for atom in operands) else constant).update(eqn.outvars)
        elif not operands:
            constant.update(eqn.outvars)
    return random


def bytes_of(aval: Any) -> int:
    """The bytes of an array of this type; a key counts what its bits do."""
    return int(aval.size) * aval.dtype.itemsize if isinstance(aval, ShapedArray) else 0


# --- freeze -----------------------------------------------------------------------------------------------------------


def freeze(closed: ClosedJaxpr, values: dict[int, Any]) -> tuple[ClosedJaxpr, PassReport]:
    """``closed`` with the inputs at ``values`` as constants, and with all that follows from constants computed now.

    What is cheaper to compute than to keep (a broadcast, a range), loops, calls, and equations with effects stay.
    Values are those that a primitive has when it is run on its own.
    """
    jaxpr = closed.jaxpr
    frozen, rest = list(values), [i for i in range(len(jaxpr.invars)) if i not in values]
    names = jaxpr.debug_info.safe_arg_names(len(jaxpr.invars))
    fewer = new_jaxpr(
        jaxpr,
        constvars=[*jaxpr.constvars, *(jaxpr.invars[i] for i in frozen)],
        invars=[jaxpr.invars[i] for i in rest],
        debug_info=jaxpr.debug_info._replace(arg_names=tuple(names[i] for i in rest)),
    )
    inlined, _ = inline(ClosedJaxpr(fewer, [*closed.consts, *(values[i] for i in frozen)]))

    def visitor_of(walk: Walk) -> Visitor:
        def visit(eqn: JaxprEqn):
            if not walk.takes_constants or eqn.effects or eqn.primitive in NOT_A_FUNCTION | PLACEMENT | CHEAP:
                return None
            atoms = [atom if isinstance(atom, Var) else None for atom in eqn.invars]
            if any(bodies(eqn.params)) or not all(atom is None or atom in walk.consts for atom in atoms):
                return None
            if not all(is_plain(var.aval) for var in eqn.outvars):
                return None
            operands = [walk.consts[atom] if isinstance(atom, Var) else atom.val for atom in eqn.invars]
            with jax.ensure_compile_time_eval():
                results = bind_again(eqn, operands)
            atoms = [walk.constant(value, var.aval) for value, var in zip(results, eqn.outvars, strict=True)]
            return eqn.primitive.name, atoms

        return visit

    folded, report = rewrite("freeze", inlined, visitor_of)
    return dce(folded)[0], report
