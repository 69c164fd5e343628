"""A jaxpr as text, in the notation of JAX, with the origin of each equation at the end of its line.

What flows in: a graph. What flows out: a text that says everything, so that :mod:`twograd.graph.parse` reads it back.
Read :func:`format_graph`. What differs from JAX's own notation: ``~f32[]`` is a weak type, a jaxpr that is not closed
is ``open { lambda ...``, constants stand with their values, strings have quotes, parameters at their usual value
(:data:`USUAL`) are left out, and a call with a derivative rule of its own has ``rule=NAME``: what is called, and its
rule as jaxprs, stand once at the end, as ``rule NAME = ...``.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, primitives

from twograd import _trees
from twograd._compat import (
    POLICY_MAKERS,
    RANDOM_IMPLEMENTATIONS,
    partitionable,
    plain_jit_params,
    policy_call,
    scope_of,
    stack_of,
    user_line,
)
from twograd.graph.custom import Parts, Rules

if TYPE_CHECKING:
    from twograd.graph.graph import Graph

COMMENT_COLUMN = 64
INLINE = 64
"""Elements of the largest constant whose values stand in the text; of others it has the SHA-256."""

RESERVED = {"in", "let", "inf", "nan", "open", "lambda"}

USUAL: dict[str, tuple[Any, str]] = {
    "accuracy": (None, "cbrt cos exp exp2 expm1 log log1p logistic rsqrt sin sqrt tan tanh"),
    "sharding": (None, "broadcast_in_dim convert_element_type iota reshape"),
    "weak_type": (False, "convert_element_type"),
    "out_sharding": (None, "dot_general conv_general_dilated reduce_sum"),
    "out_dtype": (None, "mul"),
    "precision": (None, "dot_general conv_general_dilated"),
    "preferred_element_type": (None, "dot_general conv_general_dilated"),
    "dimensions": (None, "reshape"),
    "strides": (None, "slice"),
}
"""Parameters that are left out where they have this value, and of which primitives."""


def usual(eqn_name: str, params: dict[str, Any]) -> dict[str, Any]:
    """What the text does not say of an equation's parameters, where they are as they usually are."""
    if eqn_name == primitives.jit_p.name and isinstance(params.get("jaxpr"), ClosedJaxpr):
        plain = plain_jit_params(params["jaxpr"], "")
        return {key: value for key, value in plain.items() if key not in ("jaxpr", "name")}
    return {key: value for key, (value, names) in USUAL.items() if eqn_name in names.split()}


def format_graph(graph: "Graph", provenance: bool) -> str:
    """The program as ``NAME { lambda inputs. let equations in (outputs) }``, one equation per line.

    With ``provenance`` a line of the program ends with its source line; one of a derivative with the forward equation
    whose rule emitted it (``<- sin.3`` is equation number 3, a sin) and that equation's source line. Comments at the
    top say which input is which, and the structure of arguments and results where these are not plain. Rules follow;
    these have no provenance, as calls from several lines share them.
    """
    names = Names()
    rules = written_rules()
    jaxpr = graph.jaxpr.jaxpr
    head = [f"    # {names[var]} is {label}".rstrip() for var, label in zip(jaxpr.invars, graph.inputs, strict=True)]
    called: Any = _trees.to_plain(graph.in_tree)
    args, kwargs = called["tuple"]
    pairs = [(key, child) for key, child in kwargs["dict"]]
    results = _trees.to_plain(graph.out_tree)
    if pairs or any(child != _trees.LEAF for child in args["tuple"]) or results not in flat(len(jaxpr.outvars)):
        atoms = (names[var] for var in jaxpr.invars)
        taken = [structure(child, atoms) for child in args["tuple"]]
        taken += [f"{key}={structure(child, atoms)}" for key, child in pairs]
        outs = iter("*" * len(jaxpr.outvars))
        head.append(f"    # takes ({', '.join(taken)}) and returns {structure(results, outs)}")
    if graph.outputs != default_names(_trees.from_plain(results)):  # those that a reader of the text would give
        head.append(f"    # returns {json.dumps(list(graph.outputs))}")
    name = graph.name if graph.name.replace("<lambda>", "f").isidentifier() else json.dumps(graph.name)
    text = f"{name} {_block(graph.jaxpr, names, head, provenance, '', rules)}"
    return text + "".join(f"\n\nrule {rule.name} = {rule.primitive}[\n{rule.text}\n]" for rule in rules.named)


def written_rules() -> Rules:
    """No rules yet; :func:`equation_text` enters those that it meets, with their text."""

    def parts_text(parts: Parts) -> str:
        def body(jaxpr: Any) -> str:
            return _block(jaxpr, Names(), [], False, "  ", rules)

        return ",\n".join(f"  {key}={_param(value, body)}" for key, value in parts.items())

    rules = Rules(parts_text)
    return rules


def flat(count: int) -> list[Any]:
    """The structures of that many results that go without saying."""
    return [_trees.LEAF] if count == 1 else [{"tuple": [_trees.LEAF] * count}]


def default_names(out_tree: Any) -> tuple[str, ...]:
    """The names that JAX gives to results of this structure."""
    leaves = jax.tree_util.tree_unflatten(out_tree, range(out_tree.num_leaves))
    paths = jax.tree_util.tree_flatten_with_path(leaves)[0]
    return tuple(f"result{jax.tree_util.keystr(path)}" for path, _ in paths)


def structure(plain: Any, leaves: Iterator[str]) -> str:
    """A structure as Python would write it, around the names of its leaves."""
    return _trees.written(plain, lambda: next(leaves), json.dumps)


def letters(index: int, first: str = "a") -> str:
    """``index`` as letters: a, b, ..., z, aa, ab ..."""
    found = ""
    while index >= 0:
        found, index = chr(ord(first) + index % 26) + found, index // 26 - 1
    return found


class Names:
    """Names variables a, b, ..., z, aa, ... in the order in which they are met; a word of the notation is no name."""

    def __init__(self):
        self._names: dict[Any, str] = {}
        self._next = 0

    def __getitem__(self, atom: Any) -> str:
        if isinstance(atom, Literal):
            return f"{numbers(atom.val, atom.aval)}:{type_of(atom.aval)}"
        if atom not in self._names:
            name = self._letters()
            self._names[atom] = name if name not in RESERVED else self._letters()
        return self._names[atom]

    def _letters(self) -> str:
        self._next += 1
        return letters(self._next - 1)

    def binder(self, var: Any) -> str:
        return f"{self[var]}:{type_of(var.aval)}"


# --- values -----------------------------------------------------------------------------------------------------------


def type_of(aval: Any) -> str:
    """A type as in ``f32[2,3]``; a weak one as in ``~f32[]``."""
    return ("~" if getattr(aval, "weak_type", False) else "") + aval.str_short(short_dtypes=True)


def plain_array(value: Any) -> np.ndarray:
    """An array of NumPy; of a key its bits."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)


def digest(value: Any) -> str:
    """What stands for a large constant in a text."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(plain_array(value)).tobytes()).hexdigest()


def is_large(value: Any) -> bool:
    return value.size > INLINE


def numbers(value: Any, aval: Any) -> str:
    """An array as nested lists of numbers that are read back to the bit."""
    array = plain_array(value)
    if array.dtype != aval.dtype and not jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        array = array.astype(aval.dtype)
    return _nested(array)


def _nested(array: np.ndarray) -> str:
    if array.ndim:
        return f"[{', '.join(_nested(np.asarray(item, array.dtype)) for item in array)}]"
    dtype = array.dtype
    if dtype in (np.bool_, jax.dtypes.float0):
        return str(bool(array))
    if jnp.issubdtype(dtype, np.integer):
        return str(int(array))
    if jnp.issubdtype(dtype, np.complexfloating):
        return f"complex({_nested(np.real(array))}, {_nested(np.imag(array))})"
    text = str(array[()]) if dtype in (np.float16, np.float32, np.float64) else repr(float(array))
    if np.asarray(float(text)).astype(dtype).tobytes() == array.tobytes():
        return text
    return hex(int.from_bytes(array.tobytes(), "little"))  # a NaN with a payload


def _param(value: Any, body: Callable[[Any], str]) -> str:
    """A parameter; what has no notation is ``<TYPE>``, and cannot be read back."""

    def inner(item: Any) -> str:
        return _param(item, body)

    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        return body(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, (bool, np.bool_, float)):
        return str(value)
    if callable(value) and (call := policy_call(value)):
        name, args, options = call
        given = [*map(inner, args), *(f"{key}={inner(item)}" for key, item in options.items())]
        return f"{name}({', '.join(given)})" if name in POLICY_MAKERS else name
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, np.dtype):
        return str(value)
    if isinstance(value, type) and issubclass(value, np.generic):
        return str(np.dtype(value))
    if isinstance(value, Primitive):
        return f"Primitive(name={json.dumps(value.name)})"
    if value in RANDOM_IMPLEMENTATIONS.values() if type(value).__name__ == "PRNGImpl" else False:
        return f"PRNGImpl(name={json.dumps(value.name)})"
    if isinstance(value, (np.ndarray, np.generic, jax.Array)) or hasattr(value, "__array__"):
        array = plain_array(value)
        return f"{_nested(array)}:{type_of(ShapedArray(array.shape, array.dtype))}"
    fields = getattr(value, "_fields", None)
    if fields is None and dataclasses.is_dataclass(value):
        fields = [item.name for item in dataclasses.fields(value)]
    if fields is not None and not callable(value) and type(value).__name__ != "PRNGImpl":
        return f"{type(value).__name__}({', '.join(f'{name}={inner(getattr(value, name))}' for name in fields)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(inner, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(inner, value))}]"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return f"{{{', '.join(f'{json.dumps(key)}: {inner(item)}' for key, item in value.items())}}}"
    return f"<{type(value).__name__}>"


# --- equations --------------------------------------------------------------------------------------------------------


def summary(body: Any) -> str:
    """A jaxpr by its size."""
    return f"{{{len(getattr(body, 'jaxpr', body).eqns)} equations}}"


def _block(
    body: ClosedJaxpr | Jaxpr, names: Names, head: list[str], provenance: bool, indent: str, rules: Rules
) -> str:
    """``{ lambda constants; inputs. let equations in (results) }``."""
    jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    inputs = " ".join(names.binder(var) for var in jaxpr.invars)
    consts = [names.binder(var) for var in jaxpr.constvars]
    if isinstance(body, ClosedJaxpr):
        for i, (var, value) in enumerate(zip(jaxpr.constvars, body.consts, strict=True)):
            consts[i] += f"={digest(value) if is_large(value) else numbers(value, var.aval)}"
    opening = "{ lambda" if isinstance(body, ClosedJaxpr) else "open { lambda"
    lines = [f"{opening} {' '.join([*consts, ''])}; {inputs}. let", *(indent + line for line in head)]
    width = len(str(max(len(jaxpr.eqns) - 1, 0)))
    deeper = indent + "      "

    def inner(body: Any) -> str:
        return _block(body, Names(), [], provenance, deeper + "  ", rules)

    for index, eqn in enumerate(jaxpr.eqns):
        line = f"{indent}{index:>{width + 2}}  {equation_text(eqn, names, inner, deeper, rules)}"
        last = len(line) - line.rfind("\n") - 1
        origin = origin_text(eqn) if provenance else ""
        lines.append(f"{line}{' ' * max(COMMENT_COLUMN - last, 0)}  {origin}" if origin else line)
    results = [names[atom] for atom in jaxpr.outvars]
    lines.append(f"{indent}  in ({', '.join(results)}{',' if len(results) == 1 else ''}) }}")
    return "\n".join(lines)


def equation_text(
    eqn: JaxprEqn,
    names: Names,
    body: Callable[[Any], str] = summary,
    indent: str = "",
    rules: Rules | None = None,
) -> str:
    """An equation; ``body`` writes the jaxprs in it, by default as no more than how many equations they have.

    With ``rules`` a call with a derivative rule of its own has the name of that in place of parameters.
    """
    operands = " ".join(names[atom] for atom in eqn.invars)
    omitted = usual(eqn.primitive.name, eqn.params)
    rule = rules.name(eqn) if rules else None
    written = [item for item in sorted(eqn.params.items()) if not rule or (rule[0] == "<" and item[0] == "call_jaxpr")]
    params = [
        f"{key}={_param(value, body)}"
        for key, value in written
        if not (key in omitted and _equal(value, omitted[key])) and not (key == "computation" and callable(value))
    ]
    params += [f"rule={rule}"] if rule else []
    params += [] if partitionable(eqn) else ["@threefry_partitionable=False"]
    between = f",\n{indent}  " if any("\n" in param for param in params) else ", "
    text = between.join(params)
    shown = f"[\n{indent}  {text}\n{indent}]" if "\n" in text else f"[{text}]" if text else ""
    results = " ".join(names.binder(var) for var in eqn.outvars)
    return f"{results} = {eqn.primitive}{shown} {operands}".strip()


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def sources_of(eqn: JaxprEqn) -> list[str]:
    """The equations whose rules emitted this one (``sin.3`` is equation 3): one per derivative, the latest last."""
    return [scope[4:-1] for scope in scope_of(eqn) if scope.startswith("vjp(")]


def origin_text(eqn: JaxprEqn) -> str:
    """Where an equation comes from: the scopes, the innermost first, and the user's line."""
    words = []
    for transform, name in reversed(stack_of(eqn)):
        if name.startswith("vjp(") and not transform:
            words.append(f"<- {_word(name[4:-1])}")
        else:
            words.append(f"{'under' if transform else 'in'} {_word(name)}")
    line = user_line(eqn)
    where = line.rsplit("/", 1)[-1] if line else ""
    chain = " ".join(words)
    return f"# {chain}{'  ' if chain and where else ''}{where}" if chain or where else ""


def _word(name: str) -> str:
    return name if name and not any(char.isspace() or char == '"' for char in name) else json.dumps(name)
