"""Reads a program from its text: what :mod:`twograd.graph.text` wrote, or a hand in the same notation.

What flows in: a text, and the constants that it names by their SHA-256 only. What flows out: a graph. Read
:func:`parse`, then :func:`build`: equations are not built by hand, but bound again while an interpreter is traced. So
JAX itself checks each one. Nothing is evaluated: names are looked up in tables of primitives, types, enumerations and
records, and a name that is in none is an error at its line and column.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, Var, jaxpr_as_fun
from jax.tree_util import tree_structure

from twograd import _trees
from twograd._compat import (
    POLICIES,
    POLICY_MAKERS,
    RANDOM_IMPLEMENTATIONS,
    ArrayCopySemantics,
    LinearSolveTuple,
    literal,
    new_jaxpr,
    primitives_by_name,
    standing,
)
from twograd.errors import ParseError
from twograd.graph.custom import CUSTOM, apply_parts, mismatch, shapes
from twograd.graph.text import default_names, digest, type_of, usual

ENUMS = {
    kind.__name__: kind
    for kind in (
        ArrayCopySemantics,
        lax.AccuracyMode,
        lax.DotAlgorithmPreset,
        lax.FftType,
        lax.GatherScatterMode,
        lax.Precision,
        lax.RandomAlgorithm,
        lax.linalg.EighImplementation,
        lax.linalg.SvdAlgorithm,
    )
}
RECORDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        lax.ConvDimensionNumbers,
        lax.DotAlgorithm,
        lax.GatherDimensionNumbers,
        lax.RaggedDotDimensionNumbers,
        lax.ScatterDimensionNumbers,
        lax.Tolerance,
        LinearSolveTuple,
    )
}
RECORDS["PRNGImpl"] = lambda name: RANDOM_IMPLEMENTATIONS[name]
RECORDS["Primitive"] = lambda name: primitives_by_name()[name]
RECORDS["OrderedDict"] = OrderedDict
RECORDS["complex"] = complex
RECORDS.update(POLICY_MAKERS)

WORDS: dict[str, Any] = {"None": None, "True": True, "False": False, "inf": np.inf, "nan": np.nan}
WORDS.update((name, policy) for name, policy in POLICIES.items() if name not in POLICY_MAKERS)
FLOATS = ("bfloat16", "float16", "float32", "float64", "complex64", "complex128")
SMALL_FLOATS = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64))
DTYPES = {
    name: jnp.dtype(name)
    for name in ("bool", *INTEGERS, *FLOATS, *(f"float8_{kind}" for kind in SMALL_FLOATS), "float4_e2m1fn")
}
SHORT: dict[str, Any] = {type_of(ShapedArray((), dtype))[:-2]: dtype for dtype in DTYPES.values()}
SHORT["float0"] = jax.dtypes.float0

TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+) | (?P<newline>\n) | (?P<comment>\#[^\n]*) | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<type>:~?\w+(?:<\w+>)?\[[^\]\n]*\]) | (?P<digest>sha256:[0-9a-f]{64}) | (?P<hex>0x[0-9a-f]+)
    | (?P<number>-?(?:inf\b|nan\b|\d+(?:\.\d*)?(?:e[+-]?\d+)?))
    | (?P<word>[A-Za-z_][\w]*(?:[.\-]\w+)*(?:<\w+>)?) | (?P<opaque><[^>\n]*>) | (?P<sign>[][{}(),;.:=@*])""",
    re.VERBOSE,
)
CHAIN = re.compile(r'(<-|in|under) ("(?:[^"\\]|\\.)*"|\S+) ?')
WHERE = re.compile(r"(.*):(\d+) \((.*)\)$")


class Token(NamedTuple):
    kind: str
    text: str
    line: int
    column: int


@dataclass
class Equation:
    """One equation, as it stands in a text."""

    at: Token
    results: list[tuple[str, Any]]
    primitive: Primitive
    params: dict[str, Any]
    operands: list[Any]
    settings: dict[str, Any] = field(default_factory=dict)
    origin: str | None = None


@dataclass
class Rule:
    """A named derivative rule. ``parts`` are filled when a call of it is read for the first time, in their order.

    So the rule of a function may call that function: what is called is known by then.
    """

    at: Token
    start: int
    end: int = 0
    primitive: Primitive | None = None
    parts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Block:
    """One jaxpr, as it stands in a text."""

    closed: bool
    constants: list[tuple[str, Any, Any]]
    inputs: list[tuple[str, Any]]
    equations: list[Equation] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    comments: list[Token] = field(default_factory=list)


def parse(text: str, constants: Mapping[str, Any] | Iterable[Any] = ()) -> tuple[str, ClosedJaxpr, Any, Any]:
    """The name, the jaxpr and the structures of arguments and results of the program that ``text`` says.

    ``constants`` are the arrays that the text has only the SHA-256 of. Raises ParseError.
    """
    arrays = constants.values() if isinstance(constants, Mapping) else constants
    reader = Reader(text, {digest(value): value for value in arrays})
    at = reader.next()
    if at.kind not in ("word", "opaque", "string"):
        raise reader.wrong(at, "a program starts with its name")
    block = reader.block()
    reader.skip_lines()
    while reader.take("rule"):
        reader.skip_rule()
        reader.skip_lines()
    if reader.peek().kind != "end":
        raise reader.wrong(reader.peek(), "here the program has ended")
    closed = build(block)
    assert isinstance(closed, ClosedJaxpr)
    names, in_tree, out_tree, outputs = described(block, reader)
    info = closed.jaxpr.debug_info._replace(arg_names=names, result_paths=outputs)
    closed = ClosedJaxpr(new_jaxpr(closed.jaxpr, debug_info=info), closed.consts)
    return (json.loads(at.text) if at.kind == "string" else at.text), closed, in_tree, out_tree


# --- text to blocks ---------------------------------------------------------------------------------------------------


class Reader:
    """Walks over the tokens of a text."""

    def __init__(self, text: str, constants: Mapping[str, Any], line: int = 1, column: int = 1):
        self.constants = constants
        self.primitives = primitives_by_name()
        self._tokens = list(tokens(text, line, column))
        self._at = 0
        self._rules = self._find_rules()
        self._shared: dict[Any, jax.Array] = {}

    def _find_rules(self) -> dict[str, Rule]:
        """Where the rules stand that follow on the program, which calls them."""
        depth, found = 0, {}
        for at, token in enumerate(self._tokens):
            depth += (token.kind == "sign") * ((token.text in "{[(") - (token.text in "}])"))
            if at and depth == 0 and (token.kind, token.text) == ("word", "rule"):
                name = self._tokens[at + 1]
                if name.text in found:
                    raise ParseError(name.line, name.column, f"two rules are called {name.text!r}")
                found[name.text] = Rule(name, at + 2)
        return found

    def rule(self, name: Token) -> Rule:
        """The rule of this name, which is read now if it has not been."""
        rule = self._rules.get(name.text)
        if name.kind == "opaque":
            problem = f"this call has no derivative rule that a text can hold: {name.text[1:-1]}"
            way_out = "g.strip(outputs) opens calls with derivative rules: print what it returns"
            raise ParseError(name.line, name.column, f"{problem}. {way_out}.")
        if rule is None:
            raise ParseError(name.line, name.column, f"no rule is called {name.text!r}")
        if rule.primitive is None:
            back, self._at = self._at, rule.start
            self.expect("=")
            at = self.kind("word", "the name of a primitive")
            rule.primitive = self.primitives.get(at.text)
            if rule.primitive not in CUSTOM:
                raise self.wrong(at, f"a rule is of {' or '.join(map(str, CUSTOM))}")
            self.expect("[")
            self.parameters(at.text, rule.parts, {})
            rule.end, self._at = self._at, back
            if problem := mismatch(rule.primitive, rule.parts):
                raise ParseError(rule.at.line, rule.at.column, f"rule {name.text}: {problem}")
        return rule

    def skip_rule(self) -> None:
        """Reads the rule that begins here, and goes to its end."""
        self._at = self.rule(self.kind("word", "the name of a rule")).end

    def peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def next(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else self._tokens[-1]

    def take(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind in ("sign", "word"):
            self._at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise self.wrong(self.peek(), f"expected '{text}'")

    def kind(self, kind: str, what: str) -> Token:
        if self.peek().kind != kind:
            raise self.wrong(self.peek(), f"expected {what}")
        return self.next()

    def skip_lines(self) -> list[Token]:
        comments = []
        while self.peek().kind in ("newline", "comment"):
            token = self.next()
            comments += [token] if token.kind == "comment" else []
        return comments

    def wrong(self, at: Token, problem: str) -> ParseError:
        found = (
            "the text ends" if at.kind == "end" else f"found {at.text!r}" if at.kind != "newline" else "the line ends"
        )
        return ParseError(at.line, at.column, f"{problem} ({found})")

    def type(self) -> Any:
        token = self.kind("type", "a type such as :f32[2,3]")
        weak = token.text.startswith(":~")
        name, _, sizes = token.text.lstrip(":~")[:-1].partition("[")
        dtype: Any = SHORT.get(name)
        if name.startswith("key<"):
            tags = {impl.tag: impl for impl in RANDOM_IMPLEMENTATIONS.values()}
            impl = tags.get(name[4:-1])
            dtype = None if impl is None else jax.random.key(0, impl=impl.name).dtype
        if dtype is None:
            raise self.wrong(token, f"no type is called {name!r}")
        try:
            shape = tuple(int(size) for size in sizes.split(",") if size)
        except ValueError:
            raise self.wrong(token, "sizes must be numbers: symbolic, sharded and placed arrays are not read") from None
        return ShapedArray(shape, dtype, weak_type=weak)

    def binders(self, end: str) -> list[tuple[str, Any, Any]]:
        found = []
        while not self.take(end):
            name, aval = self.kind("word", f"a name, or '{end}'").text, self.type()
            found.append((name, aval, self.constant(aval) if end == ";" and self.take("=") else None))
        return found

    def constant(self, aval: Any) -> Any:
        """An array; the same one wherever a text has these values, as a program and its rules may share it."""
        at = self.peek()
        if at.kind == "digest":
            self.next()
            value = self.constants.get(at.text)
            if value is None:
                raise self.wrong(at, "the text has not the values of so large a constant: pass the array in constants")
        else:
            value = self.array(at, self.value(), aval)
        if aval.dtype == jax.dtypes.float0:
            return value
        return self._shared.setdefault((digest(value), aval), jnp.asarray(value, aval.dtype))

    def array(self, at: Token, items: Any, aval: Any) -> Any:
        """Nested lists of numbers as an array."""
        key = jnp.issubdtype(aval.dtype, jax.dtypes.prng_key)
        dtype = np.dtype(np.uint32) if key else np.dtype(aval.dtype)
        leaves: list[Any] = []

        def flatten(item: Any) -> None:
            if isinstance(item, list):
                for part in item:
                    flatten(part)
            else:
                leaves.append(item)

        flatten(items)
        try:
            if dtype == jax.dtypes.float0:
                return np.zeros(aval.shape, dtype)
            found = np.array([number(leaf, dtype) for leaf in leaves], dtype)
            if key:
                data = jnp.asarray(found.reshape(*aval.shape, -1))
                return jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(jnp.zeros((), aval.dtype))))
            return found.reshape(aval.shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.wrong(at, f"these are not the numbers of {type_of(aval)}: {error}") from error

    def block(self) -> Block:
        closed = not self.take("open")
        self.expect("{")
        self.expect("lambda")
        at = self.peek()
        constants = self.binders(";")
        if closed and any(value is None for _, _, value in constants):
            raise self.wrong(at, "a constant of a closed program needs its value: name:type=value")
        block = Block(closed, constants, [item[:2] for item in self.binders(".")])
        self.expect("let")
        block.comments = self.skip_lines()
        while not self.take("in"):
            block.equations.append(self.equation())
            comments = [] if self.peek().kind != "comment" else [self.next()]
            block.equations[-1].origin = comments[0].text if comments else None
            self.skip_lines()
        self.expect("(")
        while not self.take(")"):
            block.results.append(self.atom())
            if not self.take(","):
                self.expect(")")
                break
        self.expect("}")
        return block

    def equation(self) -> Equation:
        if self.peek().kind == "number" and self.peek(1).kind in ("word", "sign"):
            self.next()
        results = [item[:2] for item in self.binders("=")]
        at = self.kind("word", "the name of a primitive")
        primitive = self.primitives.get(at.text)
        if primitive is None:
            raise ParseError(at.line, at.column, f"no primitive is called {at.text!r} in this JAX")
        params: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        if self.take("["):
            self.parameters(at.text, params, settings)
        operands = []
        while self.peek().kind not in ("newline", "comment", "end") and self.peek().text != "in":
            operands.append(self.atom())
        params = {**usual(at.text, params), **params}
        if "jaxpr" in params and at.text == "reduce":
            params["computation"] = jaxpr_as_fun(params["jaxpr"])
        return Equation(at, results, primitive, params, operands, settings)

    def parameters(self, of: str, params: dict[str, Any], settings: dict[str, Any]) -> None:
        """Reads what stands in an equation's brackets into ``params``, and of names with an @ into ``settings``."""
        self.skip_lines()
        while not self.take("]"):
            found = settings if self.take("@") else params
            key = self.kind("word", "the name of a parameter").text
            self.expect("=")
            found[key] = self.rule(self.next()) if key == "rule" else self.value(of)
            self.skip_lines()
            if not self.take(","):
                self.expect("]")
                break
            self.skip_lines()

    def atom(self) -> Any:
        if self.peek().kind == "word" and self.peek(1).kind != "type" and self.peek().text not in (*WORDS, "complex"):
            return self.next()
        at, value = self.peek(), self.value(typed=False)
        aval = self.type()
        return Literal(self.array(at, value, aval), aval)

    def value(self, primitive: str = "", typed: bool = True) -> Any:
        """A parameter, or a part of one."""
        at = self.next()
        value = self._value(at, primitive)
        if typed and self.peek().kind == "type" and isinstance(value, (int, float, complex, list)):
            return self.array(at, value, self.type())
        return value

    def _value(self, at: Token, primitive: str) -> Any:
        match at.kind:
            case "string":
                return json.loads(at.text)
            case "hex":
                return Bits(int(at.text, 16))
            case "number":
                return float(at.text) if re.search(r"[.enf]", at.text) else int(at.text)
            case "opaque":
                problem = f"{primitive} has a {at.text[1:-1]} here, which a text cannot hold"
                which = "a Python function, a device or a mesh; g.strip(outputs) opens checkpoints and custom calls"
                raise ParseError(at.line, at.column, f"{problem} ({which})")
            case "word":
                return self.word(at)
        if at.text == "(":
            return tuple(self.items(")"))
        if at.text == "[":
            return self.items("]")
        if at.text == "*":
            return at.text
        if at.text == "{":
            if self.peek().text == "lambda":
                self._at -= 1
                return build(self.block())
            return dict(self.pairs())
        raise self.wrong(at, "expected a value")

    def word(self, at: Token) -> Any:
        if at.text == "open" and self.peek().text == "{":
            self._at -= 1
            return build(self.block())
        if at.text in WORDS:
            return WORDS[at.text]
        if at.text in DTYPES:
            return DTYPES[at.text]
        if self.peek().text == "(" and at.text in RECORDS:
            return self.record(at)
        kind, _, member = at.text.partition(".")
        if kind in ENUMS and member in ENUMS[kind].__members__:
            return ENUMS[kind][member]
        raise ParseError(at.line, at.column, f"nothing is called {at.text!r}")

    def record(self, at: Token) -> Any:
        self.expect("(")
        args: list[Any] = []
        fields: dict[str, Any] = {}
        while not self.take(")"):
            if self.peek(1).text == "=":
                name = self.next().text
                self.expect("=")
                fields[name] = self.value(at.text)
            else:
                args.append(self.value(at.text, typed=False))
            if not self.take(","):
                self.expect(")")
                break
        try:
            return RECORDS[at.text](*args, **fields)
        except (TypeError, KeyError, ValueError) as error:
            raise ParseError(at.line, at.column, f"these are not the fields of {at.text}: {error}") from error

    def items(self, end: str) -> list[Any]:
        found = []
        while not self.take(end):
            found.append(self.value())
            self.skip_lines()
            if not self.take(","):
                self.expect(end)
                break
            self.skip_lines()
        return found

    def pairs(self) -> Iterable[tuple[Any, Any]]:
        while not self.take("}"):
            key = self.value(typed=False)
            self.expect(":")
            yield key, self.value()
            if not self.take(","):
                self.expect("}")
                break


class Literal(NamedTuple):
    """A number that stands in an equation itself."""

    value: Any
    aval: Any


class Bits(int):
    """A floating-point number by its bits."""


def number(value: Any, dtype: np.dtype) -> Any:
    if isinstance(value, Bits):
        return np.frombuffer(int(value).to_bytes(dtype.itemsize, "little"), dtype)[0]
    if isinstance(value, (bool, int, float, complex)):
        return np.asarray(value).astype(dtype) if isinstance(value, float) else np.asarray(value, dtype)
    raise TypeError(f"{value!r} is not a number")


def tokens(text: str, line: int, column: int) -> Iterable[Token]:
    at, start = 0, 1 - column
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ParseError(line, at - start + 1, f"nothing starts with {text[at]!r} here")
        if found.lastgroup != "space":
            yield Token(found.lastgroup or "", found.group(), line, at - start + 1)
        at = found.end()
        if found.lastgroup == "newline":
            line, start = line + 1, at
    yield Token("end", "", line, at - start + 1)


# --- blocks to jaxprs -------------------------------------------------------------------------------------------------


def build(block: Block) -> ClosedJaxpr | Jaxpr:
    """Traces an interpreter of the block.

    Its constants and literals are inputs of that trace, and put in their places afterwards: so none is lost or moved,
    and no equation is computed at once because its operands are known.
    """
    atoms = [atom for eqn in block.equations for atom in eqn.operands] + block.results
    literals = [atom for atom in atoms if isinstance(atom, Literal)]
    binders = [(name, aval) for name, aval, _ in block.constants] + block.inputs

    def interpret(args: list[Any], given: list[Any]) -> list[Any]:
        env = {name: arg for (name, _), arg in zip(binders, args, strict=True)}
        numbers = iter(given)

        def read(atom: Any) -> Any:
            if isinstance(atom, Literal):
                return next(numbers)
            if atom.text not in env:
                raise ParseError(atom.line, atom.column, f"no value is called {atom.text!r} so far")
            return env[atom.text]

        for eqn in block.equations:
            results = bind(eqn, [read(atom) for atom in eqn.operands])
            env.update((name, result) for (name, _), result in zip(eqn.results, results, strict=True))
        return [read(atom) for atom in block.results]

    closed = jax.make_jaxpr(interpret)([aval for _, aval in binders], [atom.aval for atom in literals])
    assert not closed.consts
    jaxpr, count = closed.jaxpr, len(block.constants)
    given = jaxpr.invars[len(binders) :]
    known = {var: literal(atom.value, atom.aval) for var, atom in zip(given, literals, strict=True)}

    def placed(atoms: Iterable[Any]) -> list[Any]:
        return [known.get(atom, atom) if isinstance(atom, Var) else atom for atom in atoms]

    jaxpr = new_jaxpr(
        jaxpr,
        constvars=jaxpr.invars[:count],
        invars=jaxpr.invars[count : len(binders)],
        eqns=[eqn.replace(invars=placed(eqn.invars)) for eqn in jaxpr.eqns],
        outvars=placed(jaxpr.outvars),
        debug_info=jaxpr.debug_info._replace(arg_names=None),
    )
    return ClosedJaxpr(jaxpr, [value for _, _, value in block.constants]) if block.closed else jaxpr


def bind(eqn: Equation, operands: list[Any]) -> list[Any]:
    """Applies the primitive, and holds the result to the types that the text says."""
    partitionable = eqn.settings.get("threefry_partitionable", True)
    setting = jax.threefry_partitionable(partitionable) if partitionable is not True else nullcontext()
    try:
        with standing(*origin(eqn.origin)), setting:
            if isinstance(rule := eqn.params.get("rule"), Rule):
                results = call(eqn, rule, operands)
            else:
                params = eqn.primitive.get_bind_params(eqn.params)
                results = eqn.primitive.bind(*operands, **params)
    except ParseError:
        raise
    except Exception as error:
        problem = f"{eqn.primitive} cannot be applied like this: {type(error).__name__}: {error}"
        raise ParseError(eqn.at.line, eqn.at.column, problem) from error
    results = list(results) if eqn.primitive.multiple_results else [results]
    said = [type_of(aval) for _, aval in eqn.results]
    found = [type_of(jax.typeof(result)) for result in results]
    if said != found:
        problem = f"{eqn.primitive} returns {', '.join(found)} here, not {', '.join(said)}"
        raise ParseError(eqn.at.line, eqn.at.column, problem)
    return results


def call(eqn: Equation, rule: Rule, operands: list[Any]) -> list[Any]:
    """Calls the function that has this rule."""
    if rule.primitive is None or eqn.primitive is not rule.primitive:
        raise TypeError(f"{rule.at.text} is a rule of {rule.primitive}")
    if "call_jaxpr" not in rule.parts:
        raise TypeError(f"the call_jaxpr of {rule.at.text} must stand before what calls it")
    said, found = rule.parts["call_jaxpr"].in_avals, [jax.typeof(operand) for operand in operands]
    if shapes(said) != shapes(found):
        raise TypeError(f"{rule.at.text} takes {shapes(said)}, not {shapes(found)}")
    return apply_parts(rule.primitive, rule.at.text, rule.parts, operands)


def origin(comment: str | None) -> tuple[list[tuple[bool, str]], tuple[str, int, str] | None]:
    """The scopes, outermost first, and the source line in the comment at the end of an equation."""
    rest, stack = (comment or "").removeprefix("#").strip(), []
    while found := CHAIN.match(rest):
        word, name = found.groups()
        name = json.loads(name) if name.startswith('"') else name
        stack.append((word == "under", f"vjp({name})" if word == "<-" else name))
        rest = rest[found.end() :].lstrip()
    where = WHERE.match(rest)
    return stack[::-1], (where[1], int(where[2]), where[3]) if where else None


# --- what the comments at the top say ---------------------------------------------------------------------------------


def described(block: Block, reader: Reader) -> tuple[tuple[str, ...], Any, Any, tuple[str, ...]]:
    """The names of inputs, the structures, and the names of outputs; what the comments do not say is plain."""
    labels = {name: name for name, _ in block.inputs}
    in_tree = tree_structure((tuple(0 for _ in block.inputs), {}))
    out_tree = tree_structure(0 if len(block.results) == 1 else (0,) * len(block.results))
    outputs: tuple[str, ...] | None = None
    for token in block.comments:
        comment = token.text.removeprefix("#").strip()
        named = re.match(r"(\w+) is ?(.*)", comment)
        if named and named[1] in labels:
            labels[named[1]] = named[2]
        elif comment.startswith("returns ["):
            outputs = tuple(json.loads(comment.removeprefix("returns ")))
        elif comment.startswith("takes "):
            of = StructureReader(comment.removeprefix("takes "), {}, token.line, token.column)
            args, kwargs = of.arguments()
            of.expect("and")
            of.expect("returns")
            in_tree, out_tree = tree_structure((args, kwargs)), tree_structure(of.value())
            if (in_tree.num_leaves, out_tree.num_leaves) != (len(block.inputs), len(block.results)):
                raise ParseError(token.line, token.column, "this structure is not that of the program")
    names = default_names(out_tree) if outputs is None else outputs
    return tuple(labels.values()), in_tree, out_tree, names


class StructureReader(Reader):
    """Reads structures, in which a name is a leaf."""

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.expect("(")
        args, kwargs = [], {}
        while not self.take(")"):
            if self.peek(1).text == "=":
                name = self.next().text
                self.expect("=")
                kwargs[name] = self.value()
            else:
                args.append(self.value())
            if not self.take(","):
                self.expect(")")
                break
        return tuple(args), kwargs

    def word(self, at: Token) -> Any:
        if at.text == "OrderedDict":
            self.expect("(")
            value = OrderedDict(self.value())
            self.expect(")")
            return value
        if self.peek().text == "(":
            _, fields = self.arguments()
            return _trees.named(at.text, tuple(fields))(**fields)
        return None if at.text == "None" else at.text
