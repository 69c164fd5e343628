"""A jaxpr as text, in the notation of JAX, with the origin of each equation at the end of its line."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from twograd._compat import scope_of, user_line

COMMENT_COLUMN = 64


def format_graph(closed: ClosedJaxpr, inputs: Sequence[str], name: str, provenance: bool) -> str:
    """The program as ``NAME { lambda inputs. let equations in (outputs) }``, one equation per line.

    With ``provenance`` a line of the program ends with its source line; one of a derivative with the forward equation
    whose rule emitted it (``<- sin.3`` is equation number 3, a sin) and that equation's source line.
    """
    names = Names()
    jaxpr = closed.jaxpr
    binders = " ".join(names.binder(var) for var in jaxpr.invars)
    consts = " ".join(names.binder(var) for var in jaxpr.constvars)
    lines = [f"{name} {{ lambda {consts + ' ' if consts else ''}; {binders}. let"]
    lines += [f"    # {names[var]} is {label}" for var, label in zip(jaxpr.invars, inputs, strict=True)]
    width = len(str(max(len(jaxpr.eqns) - 1, 0)))
    for index, eqn in enumerate(jaxpr.eqns):
        line = f"{index:>{width + 2}}  {equation_text(eqn, names)}"
        lines.append(f"{line:<{COMMENT_COLUMN}}  {origin_text(eqn)}".rstrip() if provenance else line)
    lines.append(f"  in ({', '.join(names[atom] for atom in jaxpr.outvars)}) }}")
    return "\n".join(lines)


class Names:
    """Names variables a, b, ..., z, aa, ... in the order in which they are met."""

    def __init__(self):
        self._names: dict[Any, str] = {}

    def __getitem__(self, atom: Any) -> str:
        if isinstance(atom, Literal):
            return f"{atom.val}:{atom.aval.str_short(short_dtypes=True)}"
        if atom not in self._names:
            letters, rest = "", len(self._names)
            while rest >= 0:
                letters, rest = chr(ord("a") + rest % 26) + letters, rest // 26 - 1
            self._names[atom] = letters
        return self._names[atom]

    def binder(self, var: Any) -> str:
        return f"{self[var]}:{var.aval.str_short(short_dtypes=True)}"


def equation_text(eqn: JaxprEqn, names: Names) -> str:
    params = ", ".join(f"{key}={_param(value)}" for key, value in eqn.params.items() if _says_something(value))
    operands = " ".join(names[atom] for atom in eqn.invars)
    results = " ".join(names.binder(var) for var in eqn.outvars)
    return f"{results} = {eqn.primitive}{f'[{params}]' if params else ''} {operands}"


def _says_something(value: Any) -> bool:
    if type(value) is tuple:
        return any(map(_says_something, value))
    return value is not None and value is not False and str(value) not in ("UnspecifiedValue", "Mesh()")


def _param(value: Any) -> str:
    if isinstance(value, ClosedJaxpr):
        value = value.jaxpr
    if isinstance(value, Jaxpr):
        return f"{{{len(value.eqns)} equations}}"
    return " ".join(str(value).split())


def sources_of(eqn: JaxprEqn) -> list[str]:
    """The equations whose rules emitted this one (``sin.3`` is equation 3): one per derivative, the latest last."""
    return [scope[4:-1] for scope in scope_of(eqn) if scope.startswith("vjp(")]


def origin_text(eqn: JaxprEqn) -> str:
    sources = sources_of(eqn)
    line = user_line(eqn)
    where = line.rsplit("/", 1)[-1] if line else ""
    return f"# <- {sources[-1]}  {where}" if sources else f"# {where}" if where else ""
