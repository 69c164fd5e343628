"""What a run of comparisons found, as dataclasses, and the one JSON file that they are kept in.

What flows in: rows measured by :mod:`twograd.compare.runner`. What flows out: ``results.json``, which the report, a
later run that resumes, and ``pytest-benchmark compare`` read. Read :class:`Results` first, and downwards from there::

    Results > ComparisonResult (a file of comparisons/) > CaseResult (its sizes) > Row (an engine) > Measurement, Check

Everything here is measured. What follows from the measurements (ratios, intervals, break-even points) is computed by
:mod:`twograd.compare.stats` from the raw samples, which are all kept.

The file has pytest-benchmark's own keys (a summary per timed stage) and a ``twograd`` block, which alone is read back.
JSON has no NaN and no infinity: they are written as ``{"non-finite": "nan"}``.
"""

import contextlib
import json
import math
import statistics
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from twograd._files import write_atomically
from twograd.compare.errors import CompareError
from twograd.pictures.account import Account

SCHEMA_VERSION = 3
"""Files of all versions before it can be read, too. Version 2 has :class:`Conditions`, :attr:`EngineInfo.about`,
:class:`Winners` and :class:`Trace`; in version 3 the parts of a :class:`Line` are each a :class:`Part`, and there is
:attr:`Trace.walk`."""

FEWEST_SAMPLES = 5
"""Fewer samples say nothing of their spread."""

ONE_TIME_STAGES = ("trace", "transform", "passes", "lower", "compile", "first call")
"""What is paid once per program and signature, in the order in which it is paid."""

STEADY_STAGES = ("forward", "record", "backward", "forward+backward", "step")
"""What is paid at each call. ``record`` is a forward pass that writes a tape; ``step`` ends with an SGD update."""

DEVICE = "device"
"""The axis that tells cases of several devices apart, where their results have been put together."""

Cell = str | bool | int | float | None


class DamagedResults(CompareError):
    """A results file that cannot be read: not JSON, not twograd's, of a newer version, or incomplete."""


class Unwritable(CompareError):
    """Results that cannot be kept: the disk is full, or the folder is gone or may no longer be written to."""


def _check_times(*times: float) -> None:
    if not all(0 <= seconds < math.inf for seconds in times):
        raise ValueError("a time that is negative or no finite number")


@dataclass(frozen=True)
class Measurement:
    """The raw samples of one stage: ``seconds`` holds the time per call of each sample, which made ``loops`` calls."""

    seconds: tuple[float, ...]
    loops: int = 1
    warmup_calls: int = 0
    settled: bool = True
    """Whether two successive medians of the warm-up agreed before the first sample was taken."""

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError("a measurement without samples")
        _check_times(*self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The 25th and 75th percentiles."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        q1, _, q3 = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return q1, q3

    @property
    def spread(self) -> float:
        """The interquartile range divided by the median; see :func:`twograd.compare.stats.noise_mark`."""
        q1, q3 = self.quartiles
        return (q3 - q1) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Conditions:
    """What the machine was like while samples were taken in rounds, by a kernel that each round was timed beside.

    ``reference`` has the kernel's seconds in each round that was kept, and ``repeated`` is the number of rounds that
    were not, for something else ran; ``precise`` says whether the intervals became as narrow as was asked for.
    """

    reference: tuple[float, ...] = ()
    repeated: int = 0
    precise: bool = True

    @property
    def drift(self) -> float:
        """How much slower the machine became from the first third of the rounds to the last; 0.1 is ten per cent."""
        third = len(self.reference) // 3
        if not third or not min(self.reference):
            return 0.0
        return statistics.median(self.reference[-third:]) / statistics.median(self.reference[:third]) - 1


@dataclass(frozen=True)
class Check:
    """A row's gradient held against one witness.

    ``independent`` says whether the witness stands on other derivative rules than the row's engine: only then does
    agreement mean that the rules are right. ``max_ulps`` is in units in the last place of the dtype, and None where
    the witness itself is not exact to that place. ``passed`` is None where the witness has nothing to say (finite
    differences across a kink).
    """

    witness: str
    independent: bool
    passed: bool | None
    max_abs: float
    max_rel: float
    max_ulps: float | None
    tolerance: str
    note: str = ""


@dataclass
class Row:
    """One engine on one case. ``reason`` says why the status is not ``ok``; only an ``ok`` row has timings.

    ``counts`` holds whichever of these apply: ``forward nodes``, ``derivative nodes``, ``saved bytes``, ``temp bytes``,
    ``argument bytes``, ``output bytes``, ``flops``, ``bytes accessed``. ``texts`` holds the programs as text:
    ``forward``, ``derivative``.
    """

    engine: str
    status: Literal["ok", "skipped", "mismatch", "failed"]
    reason: str = ""
    loss: float | None = None
    checks: list[Check] = field(default_factory=list)
    stages: dict[str, Measurement] = field(default_factory=dict)
    counts: dict[str, int | float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class CaseResult:
    """One point on a comparison's axes, for example ``{"size": 64, "depth": 8}``."""

    name: str
    axes: dict[str, int | float | str]
    rows: list[Row] = field(default_factory=list)
    conditions: Conditions = Conditions()

    def row(self, engine: str) -> Row | None:
        return next((row for row in self.rows if row.engine == engine), None)


@dataclass
class Table:
    """A table that an experiment yields. ``units`` has one entry per column, empty where there is none."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    units: Sequence[str] = ()
    note: str = ""
    kind: Literal["table"] = "table"


@dataclass
class Series:
    """One line of a chart. With ``engine`` given, the line has that engine's colour and marker."""

    label: str
    x: Sequence[int | float]
    y: Sequence[int | float]
    engine: str = ""


@dataclass
class Curves:
    """A chart that an experiment yields. A scale is ``linear`` or ``log``."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    note: str = ""
    kind: Literal["curves"] = "curves"


@dataclass
class Winners:
    """A map that an experiment yields: ``engines`` and ``texts`` have a list for each row, with a cell for each column.

    A cell has the colour of its engine, and says ``texts`` in words; it is empty where its engine is ``""``. A row that
    is called ``"GROUP\\nROW"`` stands below the heading of its group.
    """

    title: str
    x_label: str
    y_label: str
    columns: Sequence[str]
    rows: Sequence[str]
    engines: Sequence[Sequence[str]]
    texts: Sequence[Sequence[str]]
    note: str = ""
    kind: Literal["winners"] = "winners"


@dataclass
class Observation:
    """A sentence that an experiment computes from its data."""

    text: str
    kind: Literal["observation"] = "observation"


@dataclass
class Listing:
    """Text to be shown as it is: a jaxpr, a tape, an error message."""

    title: str
    text: str
    kind: Literal["listing"] = "listing"


Finding = Table | Curves | Winners | Observation | Listing


@dataclass(frozen=True)
class Part:
    """A node or an equation that a line became. ``of`` is the number of the program's equation that it is, was
    recorded for, or was emitted for; ``step`` that of the walk's step at which its rule is called, both from 0.
    ``seconds`` are an equation's, evaluated by itself."""

    text: str
    of: int | None = None
    step: int | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _check_times(self.seconds)


@dataclass(frozen=True)
class Line:
    """A line of a program's file, and what became of it: nodes with what they saved, equations, and those of the
    derivative.

    ``number`` is 0, and ``source`` says so, for what comes from elsewhere. ``saved_bytes`` is of the arrays that the
    nodes keep; one that two lines keep counts at both. The seconds are of its equations, each evaluated by itself.
    """

    number: int
    source: str
    nodes: tuple[Part, ...]
    program: tuple[Part, ...]
    derivative: tuple[Part, ...]
    saved_bytes: int = 0
    program_seconds: float = 0.0
    derivative_seconds: float = 0.0

    def __post_init__(self) -> None:
        _check_times(self.program_seconds, self.derivative_seconds)

    @property
    def seconds(self) -> float:
        return self.program_seconds + self.derivative_seconds


@dataclass(frozen=True)
class Trace:
    """A program line by line, as :mod:`twograd.compare.trace` finds it; ``missing`` says why there are no lines.

    ``inputs`` and ``outputs`` are those of the derivative's graph, by the letters that they have in equations.
    ``passes`` is how many times the equations were evaluated for the lines' seconds, their medians: 0 where they were
    not timed. ``walk`` is the walk back over the same program's tape.
    """

    name: str
    inputs: tuple[str, ...] = ()
    outputs: str = ""
    lines: tuple[Line, ...] = ()
    missing: str = ""
    passes: int = 0
    walk: Account = field(default_factory=Account)


@dataclass
class ComparisonResult:
    """One comparison file. ``status`` is ``failed`` where the file, a case or the harness raised, or the run ended
    within it; ``error`` then says what, and at which cases; ``cases`` are those that were measured.

    A row that fails or disagrees does not fail its comparison. ``skipped``: its turn did not come, or its data are
    missing.
    """

    name: str
    question: str
    description: str
    source: str
    status: Literal["done", "failed", "skipped"] = "done"
    error: str = ""
    seconds: float = 0.0
    axes: list[str] = field(default_factory=list)
    cases: list[CaseResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    trace: Trace = Trace("")


@dataclass
class EngineInfo:
    """What the report says about an engine. ``rules`` names whose derivative rules it stands on; ``about`` says in a
    sentence how it comes to a gradient."""

    name: str
    title: str
    kind: Literal["dynamic", "static"]
    rules: str
    version: str
    available: bool
    reason: str = ""
    about: str = ""


@dataclass
class Settings:
    """The options that change what is measured; a run resumes only over results with equal settings. ``engines`` are
    those named, which then run every timed program; none: the usual, of which each comparison takes its own."""

    quick: bool = False
    timed: bool = True
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0
    engines: list[str] = field(default_factory=list)
    min_time: float = 0.5
    min_rounds: int = 20
    warmup_cap: float = 1.0
    precision: float = 0.02


@dataclass
class Results:
    """A whole run. ``environment`` is the stamp of :mod:`twograd.compare.environment`, a mapping of sections."""

    settings: Settings
    environment: dict[str, Any] = field(default_factory=dict)
    engines: list[EngineInfo] = field(default_factory=list)
    comparisons: list[ComparisonResult] = field(default_factory=list)
    started: str = ""
    finished: str = ""

    def comparison(self, name: str) -> ComparisonResult | None:
        return next((result for result in self.comparisons if result.name == name), None)

    def cases(self) -> list[tuple[str, CaseResult]]:
        """All cases, each with the name of its comparison."""
        return [(comparison.name, case) for comparison in self.comparisons for case in comparison.cases]

    def rows(self) -> Iterator[tuple[ComparisonResult, CaseResult, Row]]:
        """Every row with the case and the comparison that it belongs to."""
        for comparison in self.comparisons:
            for case in comparison.cases:
                for row in case.rows:
                    yield comparison, case, row


# --- the file ---------------------------------------------------------------------------------------------------------


def save(results: Results, path: Path) -> None:
    """Writes ``path`` in one step: a reader, or a run that is killed, meets the old file or the new one, whole.

    Raises Unwritable; the old file is then as it was.
    """
    with writing(path):
        write_atomically(path, json.dumps(to_json(results), indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing ``path`` into Unwritable."""
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{path}: cannot be written ({error.strerror}). What was written before is as it was; "
            f"when there is room, the same command goes on from there."
        ) from error


def load(path: Path) -> Results:
    """Reads what :func:`save` wrote. Raises DamagedResults, naming the file and the place in it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DamagedResults(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise DamagedResults(f"{path}: not JSON ({error}). The file is damaged; run the comparison again.") from error
    try:
        return from_json(data)
    except DamagedResults as error:
        raise DamagedResults(f"{path}: {error}") from error


def to_json(results: Results) -> dict[str, Any]:
    """The JSON document: pytest-benchmark's keys, and the ``twograd`` block that :func:`from_json` reads."""
    environment = results.environment
    return {
        "schema_version": SCHEMA_VERSION,
        "machine_info": environment.get("machine", {}),
        "commit_info": environment.get("commit", {}),
        "benchmarks": [
            _benchmark(comparison, case, row, stage, row.stages[stage])
            for comparison, case, row in results.rows()
            for stage in STEADY_STAGES
            if stage in row.stages
        ],
        "datetime": results.started,
        "version": "5.0.0",  # of pytest-benchmark's format
        "twograd": encode(results),
    }


def from_json(data: Any) -> Results:
    """The inverse of :func:`to_json`. Nothing but the declared fields is believed, and nothing is evaluated."""
    if not isinstance(data, dict) or "twograd" not in data:
        raise DamagedResults("not a results file of twograd (it has no 'twograd' block).")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DamagedResults(
            f"written by a newer twograd (schema {version}; this one reads up to {SCHEMA_VERSION}). Upgrade twograd."
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedResults(f"unknown schema_version {version!r}; this twograd reads 1 to {SCHEMA_VERSION}.")
    try:
        return decode(Results, _with_parts(data["twograd"]) if version < 3 else data["twograd"], "twograd")
    except RecursionError as error:
        raise DamagedResults("twograd: values within values, deeper than any results have them.") from error


def _with_parts(data: Any) -> Any:
    """The texts of a line's nodes and equations, as they were before version 3, each as a :class:`Part`."""
    if isinstance(data, list):
        return [_with_parts(item) for item in data]
    if not isinstance(data, dict):
        return data
    parts = ("nodes", "program", "derivative")
    if not {"source", *parts} <= data.keys():
        return {key: _with_parts(item) for key, item in data.items()}
    return data | {key: [{"text": text} for text in data[key]] for key in parts if isinstance(data[key], list)}


def _benchmark(
    comparison: ComparisonResult, case: CaseResult, row: Row, stage: str, measurement: Measurement
) -> dict[str, Any]:
    """An entry as pytest-benchmark writes it; its group is what is to be compared: one stage of one case."""
    data = measurement.seconds
    mean, median, (q1, q3) = statistics.fmean(data), measurement.median, measurement.quartiles
    stddev = statistics.stdev(data) if len(data) > 1 else 0.0
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    iqr_outliers = sum(not low <= x <= high for x in data)
    stddev_outliers = sum(not mean - stddev <= x <= mean + stddev for x in data)
    name = f"{comparison.name}[{case.name}-{row.engine}]"
    return {
        "group": f"{comparison.name} / {case.name} / {stage}",
        "name": name,
        "fullname": f"comparisons/{comparison.name}.py::{stage}::{name}",
        "params": {**case.axes, "engine": row.engine},
        "param": f"{case.name}-{row.engine}",
        "extra_info": {"stage": stage, "status": row.status},
        "options": {"warmup": measurement.warmup_calls > 0, "timer": "perf_counter_ns"},
        "stats": {
            "min": min(data), "max": max(data), "mean": mean, "stddev": stddev, "rounds": len(data),
            "median": median, "iqr": q3 - q1, "q1": q1, "q3": q3,
            "iqr_outliers": iqr_outliers, "stddev_outliers": stddev_outliers,
            "outliers": f"{stddev_outliers};{iqr_outliers}",
            "ld15iqr": min(x for x in data if x >= low), "hd15iqr": max(x for x in data if x <= high),
            "ops": 1.0 / mean if mean else 0.0, "total": math.fsum(data),
            "data": list(data), "iterations": measurement.loops,
        },
    }  # fmt: skip


# --- dataclasses to and from JSON values ------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """Dataclasses, mappings, sequences, numbers and arrays (NumPy's and JAX's too) as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [encode(item) for item in value]
    if hasattr(value, "tolist"):  # an array or scalar of NumPy's or JAX's
        return encode(value.tolist())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, float) and not math.isfinite(value):
        return {"non-finite": repr(value)}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept in a results file: {value!r:.80}")


def decode(expected: Any, data: Any, where: str) -> Any:
    """``data`` as the type ``expected``; raises DamagedResults, naming the place ``where`` it does not fit."""
    if isinstance(data, dict) and data.keys() == {"non-finite"} and data["non-finite"] in ("nan", "inf", "-inf"):
        data = float(data["non-finite"])
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return data
    if is_dataclass(expected):
        return _decode_dataclass(expected, data, where)
    if origin is Literal and data in arguments:
        return data
    if origin is tuple and Ellipsis not in arguments and isinstance(data, list):
        return tuple(_decode_each(arguments, data, where))
    if isinstance(expected, type) and issubclass(expected, tuple) and isinstance(data, list):  # with names
        return expected(*_decode_each(tuple(typing.get_type_hints(expected).values()), data, where))
    if origin in (list, tuple, Sequence) and isinstance(data, list):
        return (tuple if origin is tuple else list)(
            decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data)
        )
    if origin is dict and isinstance(data, dict):
        return {key: decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if origin is types.UnionType:
        return _decode_union(arguments, data, where)
    if expected is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if (
        isinstance(expected, type)
        and isinstance(data, expected)
        and (expected is not int or not isinstance(data, bool))
    ):
        return data
    raise DamagedResults(f"{where}: expected {_type_name(expected)}, found {data!r:.60}.")


def plain(finding: Any) -> Finding:
    """A finding with its values as they will be read back; raises TypeError for what cannot be kept."""
    try:
        return decode(Finding, encode(finding), "finding")
    except DamagedResults as error:
        raise TypeError(str(error)) from error


def _decode_dataclass(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise DamagedResults(f"{where}: expected {cls.__name__}, found {data!r:.60}.")
    hints = typing.get_type_hints(cls)
    unknown = data.keys() - hints.keys()
    if unknown:
        raise DamagedResults(f"{where}: unknown field {min(unknown)!r}.")
    values = {name: decode(hints[name], item, f"{where}.{name}") for name, item in data.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # a required field is missing, a measurement is empty
        raise DamagedResults(f"{where}: {error}.") from error


def _decode_each(expected: Sequence[Any], data: Sequence[Any], where: str) -> list[Any]:
    if len(expected) != len(data):
        raise DamagedResults(f"{where}: expected {len(expected)} values, found {len(data)}.")
    return [decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(expected, data, strict=True))]


def _decode_union(alternatives: tuple[Any, ...], data: Any, where: str) -> Any:
    """The findings are told apart by their field ``kind``, everything else by its type."""
    for alternative in alternatives:
        if is_dataclass(alternative):
            kinds = typing.get_args(typing.get_type_hints(alternative)["kind"])
            if isinstance(data, dict) and data.get("kind") in kinds:
                return decode(alternative, data, where)
        elif type(data) is alternative or (alternative is float and type(data) is int):
            return data
    raise DamagedResults(f"{where}: found {data!r:.60}, which none of the allowed types fits.")


def _type_name(expected: Any) -> str:
    return expected.__name__ if isinstance(expected, type) else str(expected)
