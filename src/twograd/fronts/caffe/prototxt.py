"""Reads the text of nets and solvers: protobuf's text format, for the messages below.

What flows in: a text such as ``layer { name: "ip" type: "InnerProduct" inner_product_param { num_output: 10 } }``. What
flows out: a message, which is a dataclass. Read :func:`parse`, then the messages, whose fields are the format: names
and defaults are Caffe's. Nothing is evaluated.
"""

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar

from twograd.errors import ParseError

Message = TypeVar("Message")
Phase = Literal["TRAIN", "TEST"]

# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass
class BlobShape:
    dim: list[int] = field(default_factory=list)


@dataclass
class FillerParameter:
    """First values: type ``constant``, ``uniform``, ``gaussian``, ``xavier`` or ``msra``."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0


@dataclass
class ParamSpec:
    """Of a layer's parameter: a name shares it with others of that name, ``lr_mult: 0`` freezes it."""

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass
class NetStateRule:
    phase: Phase | None = None


@dataclass
class InputParameter:
    shape: list[BlobShape] = field(default_factory=list)


@dataclass
class MemoryDataParameter:
    batch_size: int = 0
    channels: int = 0
    height: int = 0
    width: int = 0


@dataclass
class InnerProductParameter:
    num_output: int = 0
    bias_term: bool = True
    weight_filler: FillerParameter = field(default_factory=FillerParameter)
    bias_filler: FillerParameter = field(default_factory=FillerParameter)


@dataclass
class ConvolutionParameter(InnerProductParameter):
    """``pad``, ``kernel_size``, ``stride`` and ``dilation``: one for both axes, or one for each."""

    pad: list[int] = field(default_factory=list)
    kernel_size: list[int] = field(default_factory=list)
    stride: list[int] = field(default_factory=list)
    dilation: list[int] = field(default_factory=list)
    group: int = 1


@dataclass
class PoolingParameter:
    pool: Literal["MAX", "AVE"] = "MAX"
    kernel_size: int = 0
    pad: int = 0
    stride: int = 1
    global_pooling: bool = False


@dataclass
class ReLUParameter:
    negative_slope: float = 0.0


@dataclass
class DropoutParameter:
    dropout_ratio: float = 0.5


@dataclass
class PowerParameter:
    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass
class EltwiseParameter:
    operation: Literal["PROD", "SUM", "MAX"] = "SUM"
    coeff: list[float] = field(default_factory=list)


@dataclass
class AxisParameter:
    axis: int = 1


@dataclass
class LayerParameter:
    name: str = ""
    type: str = ""
    bottom: list[str] = field(default_factory=list)
    top: list[str] = field(default_factory=list)
    loss_weight: list[float] = field(default_factory=list)
    param: list[ParamSpec] = field(default_factory=list)
    propagate_down: list[bool] = field(default_factory=list)
    include: list[NetStateRule] = field(default_factory=list)
    exclude: list[NetStateRule] = field(default_factory=list)
    input_param: InputParameter = field(default_factory=InputParameter)
    memory_data_param: MemoryDataParameter = field(default_factory=MemoryDataParameter)
    inner_product_param: InnerProductParameter = field(default_factory=InnerProductParameter)
    convolution_param: ConvolutionParameter = field(default_factory=ConvolutionParameter)
    pooling_param: PoolingParameter = field(default_factory=PoolingParameter)
    relu_param: ReLUParameter = field(default_factory=ReLUParameter)
    dropout_param: DropoutParameter = field(default_factory=DropoutParameter)
    power_param: PowerParameter = field(default_factory=PowerParameter)
    eltwise_param: EltwiseParameter = field(default_factory=EltwiseParameter)
    concat_param: AxisParameter = field(default_factory=AxisParameter)
    softmax_param: AxisParameter = field(default_factory=AxisParameter)


@dataclass
class NetParameter:
    name: str = ""
    input: list[str] = field(default_factory=list)
    input_shape: list[BlobShape] = field(default_factory=list)
    force_backward: bool = False
    layer: list[LayerParameter] = field(default_factory=list)


@dataclass
class SolverParameter:
    """``lr_policy`` is fixed, step, exp, inv, multistep, poly or sigmoid; see ``Solver.learning_rate``."""

    type: str = "SGD"
    base_lr: float = 0.01
    lr_policy: str = "fixed"
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalue: list[int] = field(default_factory=list)
    max_iter: int = 0
    iter_size: int = 1
    momentum: float = 0.0
    weight_decay: float = 0.0
    regularization_type: Literal["L2", "L1"] = "L2"
    clip_gradients: float = -1.0


# --- the reader -------------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|-?(?:inf|nan)\b)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>[{}:\[\],;])""",
    re.VERBOSE,
)
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class Token(NamedTuple):
    kind: str
    text: str
    line: int
    column: int


def parse(text: str, message: type[Message]) -> Message:
    """The ``message`` that ``text`` says: a NetParameter or a SolverParameter.

    Raises ParseError, with the line, for what is not the text of one; TypeError for what is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"the text of a {message.__name__} is a str, got {type(text).__name__}")
    return _Reader(text).message(message, "end")


def _tokens(text: str) -> Iterator[Token]:
    at, line, start = 0, 1, 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ParseError(line, at - start + 1, f"Invalid text: {text[at : at + 20].splitlines()[0]!r}.")
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match[0], line, at - start + 1)
        if "\n" in match[0]:
            line += match[0].count("\n")
            start = match.start() + match[0].rindex("\n") + 1
        at = match.end()
    yield Token("end", "the end of the text", line, at - start + 1)


class _Field(NamedTuple):
    kind: Any
    repeated: bool


@functools.cache
def _fields(message: type) -> dict[str, _Field]:
    """The fields of a message, and what each holds: a message, str, bool, int, float or a Literal."""
    found = {}
    for name, hint in typing.get_type_hints(message).items():
        repeated = typing.get_origin(hint) is list
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        is_literal = typing.get_origin(hint) is Literal
        found[name] = _Field(kinds[0] if kinds and not is_literal else hint, repeated)
    return found


class _Reader:
    def __init__(self, text: str):
        self._tokens = list(_tokens(text))
        self._at = 0

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _skips(self, *signs: str) -> bool:
        """Whether one of the signs comes next, which is then passed."""
        found = self._tokens[self._at].text in signs and self._tokens[self._at].kind == "sign"
        self._at += found
        return found

    def _fail(self, token: Token, problem: str) -> NoReturn:
        raise ParseError(token.line, token.column, problem)

    def message(self, message: type[Message], closing: str) -> Message:
        """Fields up to ``closing``, which is ``}`` or the end."""
        values: dict[str, Any] = {}
        while (token := self._next()).kind != "end" and token.text != closing:
            if token.kind != "name":
                self._fail(token, f"Expected identifier, got: {token.text}")
            self._field(message, token, values)
            self._skips(",", ";")
        if (token.kind == "end") != (closing == "end"):
            self._fail(token, f'Expected "{closing}", found {token.text}.')
        return message(**values)

    def _field(self, message: type, token: Token, values: dict[str, Any]) -> None:
        name = token.text
        known = _fields(message)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f' Did you mean "{near[0]}"?' if near else f" It has {', '.join(known)}."
            self._fail(token, f'Message type "{message.__name__}" has no field named "{name}".{hint}')
        kind, repeated = known[name]
        if dataclasses.is_dataclass(kind):
            self._skips(":")
            found = [self._nested(kind)]
        elif not self._skips(":"):
            self._fail(self._next(), f'Expected ":" after "{name}".')
        elif repeated and self._skips("["):
            found = []
            while not self._skips("]"):
                found.append(self._scalar(name, kind))
                self._skips(",")
        else:
            found = [self._scalar(name, kind)]
        if repeated:
            values.setdefault(name, []).extend(found)
        elif name in values:
            self._fail(token, f'Non-repeated field "{name}" is specified multiple times.')
        else:
            values[name] = found[0]

    def _nested(self, kind: Any) -> Any:
        token = self._next()
        if token.text != "{":
            self._fail(token, f'Expected "{{", found "{token.text}".')
        return self.message(kind, "}")

    def _scalar(self, name: str, kind: Any) -> Any:
        token = self._next()
        if kind is str:
            if token.kind != "string":
                self._fail(token, f"Expected string, got: {token.text}")
            return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[1]), token.text[1:-1])
        if kind is bool:
            if token.text not in ("true", "false", "0", "1"):
                self._fail(token, f'Invalid value for boolean field "{name}". Value: "{token.text}".')
            return token.text in ("true", "1")
        if kind in (int, float):
            if token.kind != "number" or (kind is int and not re.fullmatch(r"-?\d+", token.text)):
                self._fail(token, f"Expected {'integer' if kind is int else 'double'}, got: {token.text}")
            return kind(token.text)
        choices = typing.get_args(kind)
        if token.text not in choices:
            self._fail(
                token,
                f'Unknown enumeration value of "{token.text}" for field "{name}". It is one of {", ".join(choices)}.',
            )
        return token.text
