"""The loop that four of the passes share: forward over the equations, replacing results by other values.

What flows in: a jaxpr, and a pass's visitor. What flows out: the jaxpr with some equations gone and the uses of their
results redirected. Read :func:`rewrite`, then :meth:`Walk.visit`.

Unchanged equations are carried over as they are, none is traced again. Where a pass wants a new equation, it traces a
function of a line (:meth:`Walk.emit`) and what comes out is spliced in: no equation is built by hand here either.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray, Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var

from twograd._compat import emitting, fresh_var, literal, new_jaxpr, varies
from twograd.graph.passes.report import PassReport, check_program, count, map_bodies

Atom = Var | Literal


def aval_of(atom: Atom) -> Any:
    """The type of ``atom``; Any, because only arrays have a shape and a dtype."""
    return atom.aval


Visitor = Callable[[JaxprEqn], tuple[str, Sequence[Atom]] | None]
"""Given an equation whose operands are up to date: None to keep it, or the name of a rewrite and what stands for its
results from now on."""

SMALL = 4096
"""Bytes of the largest array that a pass looks into, or makes a constant of the program."""


def rewrite(
    name: str, closed: ClosedJaxpr, visitor_of: "Callable[[Walk], Visitor]", kind: "type[Walk] | None" = None
) -> tuple[ClosedJaxpr, PassReport]:
    """Walks over ``closed`` and over the bodies inside its equations; ``visitor_of`` makes a visitor for each of them.

    A visitor sees only the equations of its own body, so what it remembers is in scope. A body that several equations
    share is rewritten once. Returns the very same jaxpr where nothing was rewritten. ``kind`` is the class of the walk,
    for a pass that looks at more than one equation at a time.
    """
    check_program(closed, name)
    start = time.perf_counter()
    walk = (kind or Walk)(closed.jaxpr, closed.consts, visitor_of)
    jaxpr, consts = walk.run()
    rewritten = closed if jaxpr is closed.jaxpr else ClosedJaxpr(jaxpr, consts)
    seconds = time.perf_counter() - start
    return rewritten, PassReport(name, count(closed), count(rewritten), walk.fired, seconds)


class Walk:
    """One jaxpr on its way through a pass."""

    def __init__(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        visitor_of: "Callable[[Walk], Visitor]",
        outer: "Walk | None" = None,
    ):
        self.consts: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        """The constants of the jaxpr and their values."""
        self.known: dict[Var, Any] = {}
        """Other values that a pass has found out."""
        self.made_by: dict[Var, JaxprEqn] = {}
        """The equation that a value is the result of."""
        self.takes_constants = outer is None
        """Whether constants can be added: only the outermost jaxpr's are passed to it by its caller."""
        self.fired: Counter[str] = Counter() if outer is None else outer.fired
        self.jaxpr = jaxpr
        self._visitor_of = visitor_of
        self._visitor = visitor_of(self)
        self._eqns: list[JaxprEqn] = []
        self.changed = False
        self._lifted: dict[int, Var] = {}
        self._uniform: dict[Var, Any] = {}
        self._emitted: dict[Any, ClosedJaxpr] = {} if outer is None else outer._emitted
        self._bodies: dict[int, tuple[Any, Any]] = {} if outer is None else outer._bodies

    def run(self) -> tuple[Jaxpr, list[Any]]:
        """The rewritten jaxpr and its constants."""
        env: dict[Var, Atom] = {}
        self.walk(env)
        if not self.changed:
            return self.jaxpr, list(self.consts.values())
        outvars = [substitute(atom, env) for atom in self.jaxpr.outvars]
        jaxpr = new_jaxpr(self.jaxpr, constvars=list(self.consts), eqns=self._eqns, outvars=outvars)
        return jaxpr, list(self.consts.values())

    def walk(self, env: dict[Var, Atom]) -> None:
        """Visits the equations of the jaxpr."""
        for eqn in self.jaxpr.eqns:
            self.visit(eqn, env)

    def visit(self, eqn: JaxprEqn, env: dict[Var, Atom], source_info: Any = None) -> None:
        """Puts ``eqn`` into the program, unless the visitor has something to stand for its results.

        Its operands are looked up in ``env``, and what stands for its results is entered there. An equation from
        elsewhere comes with the ``source_info`` that it shall have, and gets new variables.
        """
        if any(isinstance(atom, Var) and atom in env for atom in eqn.invars):
            eqn = eqn.replace(invars=[substitute(atom, env) for atom in eqn.invars])
        if source_info is not None:
            eqn = eqn.replace(source_info=source_info)
        outcome = self._visitor(eqn)
        if outcome is not None:
            rewrite, atoms = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (None, None)
            if not isinstance(rewrite, str) or not (atoms is None or isinstance(atoms, (list, tuple))):
                raise TypeError(
                    "a visitor answers None, or a pair of the name of a rewrite and a list of what stands for the "
                    f"results of the equation; of {eqn.primitive} it answered {outcome!r}"
                )
            if atoms is None or len(atoms) != len(eqn.outvars):
                results = ", ".join(var.aval.str_short() for var in eqn.outvars)
                raise ValueError(
                    f"the rewrite '{rewrite}' of {eqn.primitive} has {'nothing' if atoms is None else len(atoms)} to "
                    f"stand for its {len(eqn.outvars)} result(s), {results}; Walk.emit answers None where the types "
                    "would be others, and a visitor answers None to leave an equation as it is"
                )
            self.changed = True
            self.fired[rewrite] += 1
            env.update(zip(eqn.outvars, atoms, strict=True))
            return
        params = map_bodies(eqn.params, self._rewritten)
        if params is not eqn.params:
            self.changed = True
            eqn = eqn.replace(params=params)
        if source_info is not None:
            fresh = [fresh_var(var.aval) for var in eqn.outvars]
            env.update(zip(eqn.outvars, fresh, strict=True))
            eqn = eqn.replace(outvars=fresh)
        self._eqns.append(eqn)
        self.made_by.update(dict.fromkeys(eqn.outvars, eqn))

    def splice(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        operands: Sequence[Atom],
        source_of: Callable[[JaxprEqn], Any],
    ) -> list[Atom]:
        """Puts the equations of ``jaxpr`` into the program, and returns what stands for its results."""
        env: dict[Var, Atom] = dict(zip(jaxpr.invars, operands, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = self.constant(value, var.aval)
        for eqn in jaxpr.eqns:
            self.visit(eqn, env, source_of(eqn))
        return [substitute(atom, env) for atom in jaxpr.outvars]

    def emit(self, eqn: JaxprEqn, f: Callable[..., Any], *operands: Atom, **statics: Any) -> list[Atom] | None:
        """What stands for the results of ``eqn`` when they are computed as ``f(*operands, **statics)``.

        ``f`` is traced (once per pass and signature) and spliced in on behalf of ``eqn``. None if its results would be
        of another type.
        """
        key = (f, tuple(atom.aval for atom in operands), tuple(statics.items()), eqn.ctx)
        if key not in self._emitted:

            def on_behalf(*args):
                with emitting(eqn):
                    return f(*args, **statics)

            self._emitted[key] = jax.make_jaxpr(on_behalf)(*key[1])
        closed = self._emitted[key]
        if closed.out_avals != [var.aval for var in eqn.outvars]:
            return None
        return self.splice(closed.jaxpr, closed.consts, operands, lambda _: eqn.source_info)

    def constant(self, value: Any, aval: Any) -> Atom:
        """``value`` as an atom: a scalar stands in the equations themselves, an array is passed to the program."""
        if aval.shape == () and is_plain(aval) and not isinstance(value, Tracer):
            return literal(value, aval)
        assert self.takes_constants
        if id(value) not in self._lifted:
            self._lifted[id(value)] = fresh_var(aval)
            self.consts[self._lifted[id(value)]] = value
        return self._lifted[id(value)]

    def value(self, atom: Atom) -> Any:
        """The value of ``atom`` where it is known and small, else None."""
        if isinstance(atom, Literal):
            value = atom.val
        else:
            value = self.known.get(atom, self.consts.get(atom))
        known = value is not None and not isinstance(value, Tracer) and is_plain(atom.aval)
        return value if known and size_of(atom) <= SMALL else None

    def uniform(self, atom: Atom) -> Any:
        """The one number that all elements of ``atom`` are known to be, as a NumPy scalar, else None."""
        if isinstance(atom, Var) and atom in self._uniform:
            return self._uniform[atom]
        source = self.producer(atom, lax.broadcast_in_dim_p)
        value = self.value(atom if source is None else source.invars[0])
        if value is not None:
            numbers = np.asarray(value).ravel()
            value = numbers[0] if numbers.size and (numbers == numbers[0]).all() else None
        if isinstance(atom, Var):
            self._uniform[atom] = value
        return value

    def producer(self, atom: Atom, primitive: Primitive) -> JaxprEqn | None:
        """The equation that made ``atom``, if it is one of ``primitive``."""
        eqn = self.made_by.get(atom) if isinstance(atom, Var) else None
        return eqn if eqn is not None and eqn.primitive is primitive else None

    def leave(self, body: Jaxpr | ClosedJaxpr) -> None:
        """Leaves this body of an equation as it is."""
        self._bodies.setdefault(id(body), (body, body))

    def _rewritten(self, body: Jaxpr | ClosedJaxpr) -> Jaxpr | ClosedJaxpr:
        """A body of an equation, rewritten; the same object again for the next equation that has it."""
        if id(body) not in self._bodies:
            jaxpr, consts = (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())
            if len(jaxpr.constvars) == len(consts):
                walk = type(self)(jaxpr, consts, self._visitor_of, self)
                jaxpr, consts = walk.run()
            same = jaxpr is (body.jaxpr if isinstance(body, ClosedJaxpr) else body)
            rewritten = body if same else ClosedJaxpr(jaxpr, consts) if isinstance(body, ClosedJaxpr) else jaxpr
            self._bodies[id(body)] = body, rewritten
        return self._bodies[id(body)][1]


def substitute(atom: Atom, env: dict[Var, Atom]) -> Atom:
    """What stands for ``atom``."""
    return env.get(atom, atom) if isinstance(atom, Var) else atom


def size_of(*atoms: Atom) -> int:
    """The bytes of these arrays."""
    return sum(aval_of(atom).size * aval_of(atom).dtype.itemsize for atom in atoms)


def is_plain(aval: Any) -> bool:
    """Whether values of this type are arrays of numbers or booleans, the same on all devices of a ``shard_map``.

    Keys, tokens and references are not.
    """
    return isinstance(aval, ShapedArray) and not jnp.issubdtype(aval.dtype, jax.dtypes.extended) and not varies(aval)
