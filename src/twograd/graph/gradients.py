"""Where a derivative begins and ends: which values of a program are differentiated, and with respect to which.

What flows in: a program, and the options of TensorFlow's ``gradients`` and Theano's ``grad``, by name. What flows out:
a :class:`Question`, which is answered by value (``graph.backprop``) or by equations (``graph.gradients``). Read
:meth:`Question.answer`, then :func:`question`.

There is one mechanism. A cotangent enters at the ys, and at values whose gradient is known. It is not led past a value
that is constant. It is read off at the xs, which may be any values of the program.
"""

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from typing import Literal as OneOf

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, primitives

from twograd import rules
from twograd._arguments import zero_gradient
from twograd._compat import fresh_var, new_jaxpr, user_stacklevel
from twograd.errors import DisconnectedInput
from twograd.graph.passes import inline
from twograd.graph.transform import Application, Mask, activity, backward_pass, forward_pass
from twograd.rules.common import is_complex

Name = int | str
Selection = Name | Sequence[Name] | None
Atom = Var | Literal
Unconnected = OneOf["zero", "none"]
Disconnected = OneOf["raise", "warn", "ignore"]

RESULT_OF_EQUATION = re.compile(r"(?P<primitive>.+)\.(?P<index>\d+)(:(?P<result>\d+))?")


@dataclass(frozen=True)
class Question:
    """A program, where cotangents enter it, what they are not led past, and where they are read off.

    ``program`` returns its own results, then each value where a cotangent of ``cts`` enters (named in ``seeded``), then
    each value that is such a cotangent itself (a name in ``cts``). ``active`` are the operands on a way from an x to a
    seeded value: for no others is anything kept or computed.
    """

    program: ClosedJaxpr
    num_outs: int
    seeded: tuple[str, ...]
    cts: tuple[Any, ...]
    xs: tuple[tuple[str, Atom], ...]
    constant: frozenset[Var]
    active: tuple[Mask, ...]
    unconnected: Unconnected
    disconnected: Disconnected

    def answer(self, args: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, and the gradient of each x: values from values, equations from tracers."""
        jaxpr = self.program.jaxpr
        unwanted = (False,) * len(jaxpr.invars)
        outs, applications = forward_pass(jaxpr, self.program.consts, args, unwanted, self.active)
        in_program = iter(outs[self.num_outs + len(self.seeded) :])
        cts: list[Any] = [None] * len(outs)
        for i, (name, ct) in enumerate(zip(self.seeded, self.cts, strict=True), self.num_outs):
            cts[i] = _cotangent(name, self.program.out_avals[i], next(in_program) if isinstance(ct, str) else ct)
        if self.constant:
            applications = list(map(self._without_constants, applications))
        targets = [atom for _, atom in self.xs if isinstance(atom, Var)]
        found: dict[Atom, Any] = dict(
            zip(targets, backward_pass(jaxpr, applications, cts, targets=targets), strict=True)
        )
        return outs[: self.num_outs], [self._gradient(name, atom, found) for name, atom in self.xs]

    def saved(self, args: Sequence[Any]) -> list[Any]:
        """The arrays that are kept between the way forward and the way back, where each operation is run by value."""
        jaxpr = self.program.jaxpr
        _, applications = forward_pass(jaxpr, self.program.consts, args, (False,) * len(args), self.active)
        kept = jax.tree.leaves([application.saved for application in applications])
        return [value for value in kept if isinstance(value, (jax.Array, np.ndarray))]

    def _gradient(self, name: str, atom: Atom, cts: Mapping[Atom, Any]) -> Any:
        ct = cts.get(atom) if isinstance(atom, Var) else None
        if ct is None and self.disconnected == "raise":
            raise DisconnectedInput(name)
        if ct is None and self.disconnected == "warn":
            warnings.warn(str(DisconnectedInput(name)), stacklevel=user_stacklevel())
        return zero_gradient(atom.aval) if ct is None and self.unconnected == "zero" else ct

    def _without_constants(self, application: Application) -> Application:
        """With other variables in the place of constant results: no cotangent is ever found there."""
        outvars = [fresh_var(var.aval) if var in self.constant else var for var in application.eqn.outvars]
        return application._replace(eqn=application.eqn.replace(outvars=outvars))


def question(
    names: "Names",
    ys: Selection = None,
    xs: Selection = None,
    grad_ys: Any = None,
    stop_gradients: Selection = (),
    unconnected_gradients: Unconnected = "zero",
    *,
    consider_constant: Selection = (),
    known_grads: Mapping[Name, Any] | None = None,
    disconnected_inputs: Disconnected = "ignore",
) -> Question:
    """The question for the sum of the ``ys``' gradients with respect to the ``xs``; see ``Graph.gradients``."""
    for option, given, known in (
        ("unconnected_gradients", unconnected_gradients, get_args(Unconnected)),
        ("disconnected_inputs", disconnected_inputs, get_args(Disconnected)),
    ):
        if given not in known:
            raise ValueError(f"{option} is {' or '.join(map(repr, known))}, not {given!r}")
    if not isinstance(known_grads, Mapping | None):
        raise TypeError(f"known_grads must map values to their gradients, got {type(known_grads).__name__}")
    known_grads = known_grads or {}
    y_labels = names.labels(ys, "output")
    given = [None] * len(y_labels) if grad_ys is None else grad_ys
    y_cts = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(y_cts) != len(y_labels):
        raise ValueError(f"grad_ys has {len(y_cts)} cotangents for {len(y_labels)} output(s)")
    program, found = names.located(
        {
            "y": y_labels,
            "x": names.labels(xs, "input"),
            "constant": [
                label
                for selection in (stop_gradients, consider_constant)
                for label in names.labels(() if selection is None else selection, "input")
            ],
            "known": names.labels(list(known_grads), "input"),
            "ct": [("input", ct) for ct in (*y_cts, *known_grads.values()) if isinstance(ct, str)],
        }
    )
    for key, kind in (("y", "output"), ("x", "input"), ("known", "value")):
        for name, atom in found[key]:
            if not rules.carries_gradient(atom.aval):
                raise TypeError(
                    f"the {kind} {name} has dtype {getattr(atom.aval, 'dtype', None)}: it has no derivative"
                )
    constants, known, sources = (_variables(found[key]) for key in ("constant", "known", "x"))
    # What is known replaces what would arrive, also at a y.
    seeds = [(pair, ct) for pair, ct in zip(found["y"], y_cts, strict=True) if known.isdisjoint(_variables([pair]))]
    seeds += zip(found["known"], known_grads.values(), strict=True)
    seeded = [pair for pair, _ in seeds]
    in_program = dict(found["ct"])
    named = [in_program[ct] for _, ct in seeds if isinstance(ct, str)]
    jaxpr, num_outs = program.jaxpr, len(names.outputs)
    active, _ = activity(jaxpr, sources - known, constants | known)
    return Question(
        ClosedJaxpr(
            new_jaxpr(jaxpr, outvars=[*jaxpr.outvars[:num_outs], *(atom for _, atom in seeded), *named]), program.consts
        ),
        num_outs,
        tuple(name for name, _ in seeded),
        tuple(ct for _, ct in seeds),
        tuple(found["x"]),
        frozenset(constants),
        tuple(_leading_to(_variables(seeded), jaxpr.eqns, active, constants)),
        unconnected_gradients,
        disconnected_inputs,
    )


def _variables(named: Iterable[tuple[str, Atom]]) -> set[Var]:
    return {atom for _, atom in named if isinstance(atom, Var)}


def _leading_to(
    seeded: Iterable[Var], eqns: Sequence[JaxprEqn], active: Sequence[Mask], constant: Collection[Var]
) -> list[Mask]:
    """The masks of the equations that lead to a value with a cotangent; of the others no operand is wanted."""
    useful: set[Atom] = set(seeded)
    masks = []
    for eqn, mask in zip(reversed(eqns), reversed(active), strict=True):
        if any(var in useful and var not in constant for var in eqn.outvars):
            useful.update(atom for atom, want in zip(eqn.invars, mask, strict=True) if want)
        else:
            mask = (False,) * len(mask)
        masks.append(mask)
    return masks[::-1]


def _cotangent(name: str, aval: Any, given: Any) -> Any:
    """``given`` as the cotangent of the value ``name``; ones for a scalar where none is given."""
    if given is None:
        if aval.shape != ():
            raise TypeError(f"the output {name} is {aval.str_short()}, not a scalar: give its cotangent in grad_ys")
        return lax.full((), 1, aval.dtype)
    found = jax.typeof(given)
    if found.shape != aval.shape or (is_complex(found.dtype) and not is_complex(aval.dtype)):
        raise TypeError(f"the cotangent given for {name} is {found.str_short()}, but the value is {aval.str_short()}")
    return lax.convert_element_type(given, aval.dtype)


@dataclass(frozen=True)
class Names:
    """What the values of a program are called.

    An input or output by its name or its index; any value by the name that ``jax.ad_checkpoint.checkpoint_name`` gave
    it; the result of an equation by primitive and number, as they stand in the program's text: ``sin.3``, or
    ``sort.5:1`` for the second of several.
    """

    owner: str
    closed: ClosedJaxpr
    inputs: Sequence[str]
    outputs: Sequence[str]

    def labels(self, selection: Selection, kind: str) -> list[tuple[str, Name]]:
        """The selected values, or all of ``kind`` that have a derivative, each with the kind that an index counts."""
        if selection is None:
            avals = self.closed.out_avals if kind == "output" else self.closed.in_avals
            return [(kind, i) for i, aval in enumerate(avals) if rules.carries_gradient(aval)]
        chosen = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
        for name in chosen:
            if not isinstance(name, (int, np.integer, str)):
                raise TypeError(f"a value of {self.owner} is chosen by its index or its name, not by {name!r}")
        return [(kind, name) for name in chosen]

    def located(
        self, asked: Mapping[str, Sequence[tuple[str, Name]]]
    ) -> tuple[ClosedJaxpr, dict[str, list[tuple[str, Atom]]]]:
        """The program with calls of jitted functions inlined, and where in it the values asked for are.

        The numbers of equations are those before inlining. A name that ``checkpoint_name`` gave within a call is found
        too. Raises ValueError for a value that does not exist.
        """
        # What is carried along as a result is found again wherever inlining puts it.
        before = {label: self._find(*label) for labels in asked.values() for label in labels}
        carried = [atom for atom in before.values() if atom is not None]
        jaxpr, num_outs = self.closed.jaxpr, len(self.outputs)
        program, _ = inline(ClosedJaxpr(new_jaxpr(jaxpr, outvars=[*jaxpr.outvars, *carried]), self.closed.consts))
        after = iter(program.jaxpr.outvars[num_outs:])
        moved = {label: None if atom is None else next(after) for label, atom in before.items()}
        inlined = Names(self.owner, program, self.inputs, self.outputs)
        return program, {
            key: [
                (self._name(*label), moved[label] or inlined._find(*label) or self._unknown(*label)) for label in labels
            ]
            for key, labels in asked.items()
        }

    def _name(self, kind: str, name: Name) -> str:
        return name if isinstance(name, str) else (self.outputs if kind == "output" else self.inputs)[name]

    def _find(self, kind: str, name: Name) -> Atom | None:
        """The value of that name. Raises ValueError for an index out of range and a name that several values have."""
        jaxpr = self.closed.jaxpr
        named = {"input": (self.inputs, jaxpr.invars), "output": (self.outputs, jaxpr.outvars)}
        if not isinstance(name, str):
            size = len(named[kind][0])
            if not -size <= name < size:
                raise ValueError(f"{self.owner} has no {kind} {name}; it has {size}")
            return named[kind][1][:size][name]
        for names, atoms in (named.pop(kind), *named.values()):
            if name in names:
                return atoms[names.index(name)]
        given = [eqn for eqn in jaxpr.eqns if eqn.primitive is primitives.name_p and eqn.params["name"] == name]
        if len(given) > 1:
            raise ValueError(f"{self.owner} has {len(given)} values of the name {name!r}: say which by its equation")
        return given[0].outvars[0] if given else self._result_of_equation(name)

    def _result_of_equation(self, name: str) -> Atom | None:
        match = RESULT_OF_EQUATION.fullmatch(name)
        eqns = self.closed.eqns
        if match is None or int(match["index"]) >= len(eqns):
            return None
        eqn, result = eqns[int(match["index"])], int(match["result"] or 0)
        is_meant = eqn.primitive.name == match["primitive"] and result < len(eqn.outvars)
        return eqn.outvars[result] if is_meant else None

    def _unknown(self, kind: str, name: Name) -> Atom:
        known = ", ".join(self.outputs if kind == "output" else self.inputs)
        raise ValueError(
            f"{self.owner} has no {kind} {name!r}; it has {known}. Other values are named by checkpoint_name, or by "
            "their equation in the program's text, as in sin.3."
        )
