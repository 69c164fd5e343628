"""Runs comparisons: every case through every engine, gradients first, then the clock, then the file.

What flows in: declarations (:mod:`twograd.compare.program`) and :class:`Settings`. What flows out: :class:`Results`,
written to ``results.json`` after each case: a run that ends within a case, however that comes about, loses this one
alone. Read :func:`run`, then :func:`run_case`: a case is built and called once by each engine, all gradients are
checked, and only what agrees is timed, all engines in the same rounds.
"""

import contextlib
import dataclasses
import datetime
import difflib
import functools
import itertools
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from twograd.compare import check, environment, timing
from twograd.compare.engines import USUAL, Built, Engine, Ops, check_names, create
from twograd.compare.errors import CompareError, Unsupported
from twograd.compare.program import Axes, Comparison, Declaration, place
from twograd.compare.results import (
    CaseResult,
    ComparisonResult,
    EngineInfo,
    Measurement,
    Observation,
    Results,
    Row,
    Settings,
    Trace,
    Unwritable,
    load,
    plain,
    save,
)
from twograd.compare.trace import linked_lines
from twograd.data import DataError, MissingData
from twograd.graph.advice import NO_VALUE, explaining

RESULTS_FILE = "results.json"

QUICK_BUDGET = 235.0
"""Seconds for all comparisons together with ``--quick``; the report's own drawing stays within the five minutes."""

BUILD_SHARE = 0.7
"""Of a case's time: later than that no engine is built, so that those built can be timed."""

MAX_BUILDS = 5

JAX_OPS = Ops("jax.numpy", "twograd.nn.functional", "JAX")

Progress = Callable[[str, str], None]
"""Is told the cell (a case, or an experiment) that is being worked on, and what is done there next; never called while
a sample is taken."""

Keep = Callable[[ComparisonResult], None]
"""Is given a comparison's result after each case that came to it."""


def run(
    declarations: Sequence[Declaration],
    settings: Settings,
    out: Path | None = None,
    budget: float | None = None,
    progress: Progress = lambda *_: None,
    one: Callable[..., ComparisonResult] | None = None,
    reserved: Mapping[str, float] = MappingProxyType({}),
) -> Results:
    """Runs the comparisons and returns all results; with ``out``, a folder that exists, also keeps them there.

    A ``results.json`` of equal settings and versions in ``out`` is gone on with: what it holds and has not changed
    since is not run again. ``budget`` is in seconds; each comparison gets an equal share of what is left of it, and
    those that are named in ``reserved`` so many seconds. Those with nothing but an experiment come first: they do not
    get shorter with less time, and what they leave goes to those that do.

    ``one`` runs a comparison, with the arguments of :func:`run_comparison`, which does it otherwise.

    Raises CompareError where the results cannot be written, with all that was written before left as it is.
    """
    with prepared(settings):
        engines, infos = find_engines(settings)
        results = _resumed(out, settings) if out is not None else None
        if results is None:
            results = Results(settings, started=_now())
        results.environment, results.engines = environment.stamp(settings), infos
        names = {declaration.name for declaration in declarations}
        earlier = {comparison.name: comparison for comparison in results.comparisons}
        planned = [_planned(declaration, earlier.get(declaration.name)) for declaration in declarations]
        results.comparisons = [c for c in results.comparisons if c.name not in names] + planned

        def keep(result: ComparisonResult) -> None:
            results.comparisons = [result if c.name == result.name else c for c in results.comparisons]
            results.finished = _now()
            results.environment["options"] = environment.options()  # of the threads of engines imported meanwhile, too
            if out is not None:
                save(results, out / RESULTS_FILE)

        end = time.monotonic() + (budget if budget is not None else float("inf"))
        turns = sorted(zip(declarations, planned, strict=True), key=lambda turn: turn[0].timed)
        for position, (declaration, known) in enumerate(turns):
            if known.status == "done":
                progress(declaration.name, "kept from the earlier run")
                continue
            left = [other.name for other, _ in turns[position:]]
            shared = end - time.monotonic() - sum(reserved.get(name, 0) for name in left)
            share = reserved.get(declaration.name) or shared / sum(name not in reserved for name in left)
            keep((one or run_comparison)(declaration, settings, engines, infos, share, progress, known.cases, keep))
    return results


def _planned(declaration: Declaration, earlier: ComparisonResult | None) -> ComparisonResult:
    """What an earlier run has of a comparison whose text is the same; otherwise what is to be said until its turn."""
    if earlier is not None and earlier.source == declaration.source:
        return earlier
    return ended_early(declaration, "skipped", "the run ended before its turn")


def ended_early(declaration: Declaration, status: Literal["failed", "skipped"], error: str) -> ComparisonResult:
    """The result of a comparison of which there is nothing but a reason."""
    return ComparisonResult(
        declaration.name, declaration.question, declaration.description, declaration.source, status, error
    )


def run_comparison(
    declaration: Declaration,
    settings: Settings,
    engines: Mapping[str, Engine],
    infos: Sequence[EngineInfo],
    seconds: float,
    progress: Progress = lambda *_: None,
    known: Sequence[CaseResult] = (),
    keep: Keep = lambda _: None,
    lost: Mapping[str, str] = MappingProxyType({}),
) -> ComparisonResult:
    """One comparison within about ``seconds``. Whatever it raises is recorded, and stops nothing else.

    ``known`` are cases that an earlier run has measured; ``lost`` are cells that are not to be tried, with the reasons.
    """
    result = ended_early(declaration, "failed", "the run ended before its first case")
    result.cases = [*known]
    start = time.monotonic()
    if seconds <= 0:
        result.status, result.error = "skipped", "the time budget was spent before it began"
        return result
    try:
        _fill(result, declaration, settings, engines, infos, start + seconds, progress, keep, lost)
    except Unwritable:
        raise
    except MissingData as missing:
        result.status, result.error = "skipped", f"it needs data that are not here: {missing}"
    except Exception as error:
        result.status, result.error = "failed", _reason(error, declaration.path)
    result.seconds = time.monotonic() - start
    return result


def _fill(
    result: ComparisonResult,
    declaration: Declaration,
    settings: Settings,
    engines: Mapping[str, Engine],
    infos: Sequence[EngineInfo],
    deadline: float,
    progress: Progress,
    keep: Keep,
    lost: Mapping[str, str],
) -> None:
    """Adds the cases and the findings one by one, each with an equal share of the time left. One that raises, or whose
    memory does not suffice, leaves the others."""
    comparison = declaration.load()
    own = {info.name for info in infos if comparison.engines is None or info.name in comparison.engines}
    wanted = {info.name for info in infos} if settings.engines else own
    taking_part = {name: engine for name, engine in engines.items() if name in wanted}
    absent = [Row(info.name, "skipped", info.reason) for info in infos if info.name in wanted - taking_part.keys()]
    cases = comparison.quick if settings.quick and comparison.quick is not None else comparison.cases
    planned = {case_name(axes): axes for axes in cases} if comparison.has_cases else {}
    found = {case.name: case for case in result.cases if case.name in planned}
    result.axes = list(dict.fromkeys(itertools.chain.from_iterable(planned.values())))
    if planned and settings.timed and {"tape", "graph"} & taking_part.keys() and not result.trace.lines:
        progress(result.name, "lines, nodes and equations")
        result.trace = _trace(declaration.path, comparison, settings, result.name)
    shares = len(planned) + (comparison.experiment is not None)
    problems: dict[str, list[str]] = {}

    def attempt(cell: str, label: str, work: Callable[[], None]) -> None:
        result.cases = [found[name] for name in planned if name in found]
        result.error = f"the run ended before it was done: {len(found)} of {len(planned)} cases are here"
        keep(result)
        reason = lost.get(cell, "")
        try:
            if not reason:
                work()
        except MissingData:
            raise
        except Exception as error:
            reason = _reason(error, declaration.path)
        if reason:
            problems.setdefault(reason, []).append(label)

    def measure(name: str, axes: Axes, share: int) -> None:
        now = time.monotonic()
        tell = functools.partial(progress, cell_name(result.name, name))
        found[name] = run_case(
            result.name, comparison, axes, settings, taking_part, now + (deadline - now) / share, tell
        )
        found[name].rows += absent

    for position, (name, axes) in enumerate(planned.items()):
        cell = cell_name(result.name, name)
        if name in found:
            progress(cell, "kept from the earlier run")
        else:
            attempt(cell, name, functools.partial(measure, name, axes, shares - position))
    result.cases = [found[name] for name in planned if name in found]
    if comparison.experiment is not None and (found or not planned):
        tell = functools.partial(progress, result.name)
        selected = Selected({name: engine for name, engine in taking_part.items() if name in own})
        context = Context(settings, comparison, selected, result.cases, result.name, deadline, tell)
        attempt(result.name, "the experiment", lambda: _experiment(context, result))
    result.status = "failed" if problems else "done"
    result.error = "; ".join(
        reason if labels == [case_name({})] else f"{reason} (at {'; '.join(labels)})"
        for reason, labels in problems.items()
    )


def cell_name(comparison: str, case: str) -> str:
    """What progress calls a case; an experiment goes by its comparison's name."""
    return f"{comparison} [{case}]"


def run_case(
    comparison_name: str,
    comparison: Comparison,
    axes: Axes,
    settings: Settings,
    engines: Mapping[str, Engine],
    deadline: float = float("inf"),
    tell: Callable[[str], None] = lambda _: None,
) -> CaseResult:
    """One case through all engines: build and first call, check, and, where the settings ask for it, time."""
    case = CaseResult(case_name(axes), dict(axes))
    tell("making the inputs")
    inputs = make_inputs(comparison, comparison_name, axes, settings)
    ready: dict[str, Ready] = {}
    last_build = time.monotonic() + BUILD_SHARE * (deadline - time.monotonic())
    for engine in engines.values():
        tell(f"{engine.name}: build and first call")
        if time.monotonic() > last_build:
            reason = "the time budget was spent before its turn: give a larger one, or name fewer engines"
            case.rows.append(Row(engine.name, "skipped", reason))
            continue
        built = _build(engine, comparison, axes, inputs)
        if isinstance(built, Ready):
            ready[engine.name] = built
        case.rows.append(built.row if isinstance(built, Ready) else built)

    tell("checking gradients")
    known = _witnesses(comparison, axes, inputs, settings.seed)
    unsteady: str | None = None
    gradients = {name: (entry.engine, entry.gradient) for name, entry in ready.items()}
    for name, entry in list(ready.items()):
        entry.row.checks, reason = check.examine(entry.engine, entry.gradient, known, gradients, settings.dtype)
        if reason:
            unsteady = _unsteady(comparison, axes, inputs) if unsteady is None else unsteady
            entry.row.status, entry.row.reason = "mismatch", unsteady or reason
            entry.row.stages.clear()
            del ready[name]

    if settings.timed:
        for name, entry in ready.items():
            tell(f"{name}: building again")
            _build_again(entry, comparison, axes, inputs, settings, deadline)
        for name, entry in list(ready.items()):  # after the last build, each of which clears JAX's caches
            tell(f"{name}: each stage once")
            if not _every_stage_runs(entry):
                del ready[name]
        tell("timing all engines in turns")
        subjects = {(name, stage): f for name, entry in ready.items() for stage, f in entry.built.stages.items()}
        pauses = {(name, stage): ready[name].engine.lingers for name, stage in subjects}
        measured = timing.measure(subjects, _plan(settings), settings.seed, deadline, pauses)
        case.conditions = measured.conditions
        for (name, stage), measurement in measured.items():
            ready[name].row.stages[stage] = measurement
    for entry in ready.values():
        if not settings.timed:
            entry.row.stages.clear()
        _describe_program(entry)
    return case


def case_name(axes: Axes) -> str:
    """``size=8, depth=2``; a case without axes is called ``only case``."""
    return ", ".join(f"{axis}={value}" for axis, value in axes.items()) or "only case"


def make_inputs(comparison: Comparison, name: str, axes: Axes, settings: Settings) -> tuple[Any, ...]:
    """``(params, *batch)`` as NumPy arrays of the run's dtype, the same for every engine and every run of this seed."""
    assert comparison.inputs is not None, name
    made = comparison.inputs(generator(settings.seed, name, case_name(axes)), **axes)
    if not isinstance(made, tuple):
        raise CompareError(
            f"{name}: inputs returns a tuple, (params, *batch): what is differentiated, and the rest; it returned "
            f"a {type(made).__name__}"
        )
    return jax.tree.map(lambda leaf: cast(leaf, settings.dtype), tuple(made))


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each name (crc32: Python's own hash of a string changes from run to run)."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def cast(leaf: Any, dtype: str) -> np.ndarray:
    """Floating numbers in the run's dtype, integers as int32 (JAX's default), anything else as it is."""
    array = np.asarray(leaf)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(dtype)
    return array.astype(np.int32) if np.issubdtype(array.dtype, np.integer) else array


def _experiment(context: "Context", result: ComparisonResult) -> None:
    """Collects what the experiment yields; what it yielded before it gave up is kept."""
    assert context.comparison.experiment is not None
    if context.comparison.engines is not None and not context.engines:
        needed = ", ".join(f"`{name}`" for name in context.comparison.engines)
        result.findings.append(Observation(f"The experiment was left out: it is about {needed}; none is here."))
        return
    context.tell("experiment")
    try:
        for finding in context.comparison.experiment(context):
            result.findings.append(plain(finding))
    except Unsupported as reason:
        result.findings.append(Observation(f"The rest of the experiment was left out: {reason}."))


def _trace(path: Path, comparison: Comparison, settings: Settings, name: str) -> Trace:
    """The program at its smallest, line by line; where it cannot be walked, the reason."""
    axes = (comparison.quick or comparison.cases)[0]
    try:
        program = _program(comparison, "graph", "twograd", axes, create("graph", settings.device).ops)
        program.__name__ = case_name(axes)
        return linked_lines(program, make_inputs(comparison, name, axes, settings), path)
    except Unsupported as reason:
        return Trace(case_name(axes), missing=str(reason))
    except Exception as error:
        return Trace(case_name(axes), missing=describe(error))


# --- the parts of a case ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """An engine that has computed a gradient of the case: what it built, and what it found."""

    engine: Engine
    row: Row
    built: Built
    gradient: check.Gradient


def _build(engine: Engine, comparison: Comparison, axes: Axes, inputs: tuple[Any, ...]) -> Ready | Row:
    """Builds a case with one engine and calls it once: that result is what is checked, its time is the first call's.

    Where the engine cannot do it, the row that says so.
    """
    stopwatch = timing.Stopwatch()
    try:
        program = _program(comparison, engine.name, engine.family, axes, engine.ops)
        arrays = engine.arrays(inputs)
        jax.clear_caches()  # every engine starts as in a fresh process, whoever came before
        built = engine.build(program, arrays, stopwatch)
        with stopwatch("first call"):
            loss, grads = built.stages["forward+backward"]()
        gradient = check.Gradient.of(*engine.numpy((loss, grads)))
    except Unsupported as reason:
        return Row(engine.name, "skipped", str(reason))
    except Exception as error:
        return Row(engine.name, "failed", describe(error), texts={"traceback": _traceback(error)})
    row = Row(engine.name, "ok", loss=gradient.loss, stages=stopwatch.measurements())
    asked, given = (sorted({str(x.dtype) for x in jax.tree.leaves(tree)}) for tree in (inputs[0], gradient.leaves))
    if asked != given:
        row.notes.append(f"its gradients are {' and '.join(given)}, of parameters of {' and '.join(asked)}")
    return Ready(engine, row, built, gradient)


def _build_again(
    entry: Ready, comparison: Comparison, axes: Axes, inputs: tuple[Any, ...], settings: Settings, deadline: float
) -> None:
    """Repeats what is paid once, from empty caches, while that is cheap, so that it has a median too."""
    stages = entry.row.stages
    for _ in range(MAX_BUILDS - 1):
        spent = sum(sum(measurement.seconds) for measurement in stages.values())
        again = None
        if spent < settings.min_time and time.monotonic() < deadline:
            again = _build(entry.engine, comparison, axes, inputs)
        if not isinstance(again, Ready):
            return
        for stage, measurement in again.row.stages.items():
            stages[stage] = Measurement(stages[stage].seconds + measurement.seconds)


def _every_stage_runs(entry: Ready) -> bool:
    """Runs each stage once before the clock starts; one that raises fails the row and not the case."""
    for stage, run_stage in entry.built.stages.items():
        try:
            run_stage()
        except Exception as error:
            entry.row.status, entry.row.reason = "failed", f"{stage}: {describe(error)}"
            entry.row.texts["traceback"] = _traceback(error)
            entry.row.stages.clear()
            return False
    return True


def _witnesses(comparison: Comparison, axes: Axes, inputs: tuple[Any, ...], seed: int) -> check.Witnesses:
    """The outside oracles; none where the program has no form in JAX."""
    try:
        program = _program(comparison, "jax-jit", "jax", axes, JAX_OPS)
        with explaining(program):
            return check.witnesses(program, inputs, generator(seed, "directions"))
    except Unsupported:
        return check.Witnesses(None, [])


def _unsteady(comparison: Comparison, axes: Axes, inputs: tuple[Any, ...]) -> str:
    """Why a program is no function of its inputs; nothing where two runs of it agree."""
    try:
        return check.unsteady(_program(comparison, "jax-eager", "jax", axes, JAX_OPS), inputs)
    except Unsupported:
        return ""


def _program(comparison: Comparison, engine: str, family: str, axes: Axes, ops: Ops) -> Callable[..., Any]:
    loss = comparison.program(engine, family, axes)

    def program(params: Any, *batch: Any) -> Any:
        return loss(ops, params, *batch)

    program.__name__ = "loss"  # what jaxprs and profiles call it
    return program


def _plan(settings: Settings) -> timing.Plan:
    most = 4 * settings.min_time
    return timing.Plan(settings.min_time, settings.min_rounds, most, settings.warmup_cap, settings.precision)


def _describe_program(entry: Ready) -> None:
    """Counts and texts; an engine that cannot give them still has its timings."""
    try:
        entry.row.counts, entry.row.texts = dict(entry.built.counts()), dict(entry.built.texts())
    except Exception as error:
        entry.row.notes.append(f"no counts: {describe(error)}")


def _reason(error: Exception, path: Path) -> str:
    """What stands in the results of an error that ended a case: the user's own errors as they are."""
    return str(error) if isinstance(error, CompareError | DataError) else describe(error, path)


def describe(error: BaseException, path: Path | None = None) -> str:
    """One line: the innermost line of the comparison (or of the file ``path``) that the error came through, its type,
    its text, and the way out where one is known."""
    where = place(error, path)
    text = " ".join(str(error).split())
    advice = [note for note in getattr(error, "__notes__", ()) if NO_VALUE in note]
    if advice:  # JAX's text names lines of this package
        code, why, *forms = advice[0].splitlines()
        forms = [form.partition("  #")[0].strip() for form in forms if form.startswith("    ")]
        text = f"{code.partition('): ')[2]} {why} {', or '.join(forms)}"
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        close = difflib.get_close_matches(str(error.name), dir(error.obj), n=1)
        text += f". Did you mean '{close[0]}'?" if close else ""
    said = ": ".join(part for part in (where, type(error).__name__, text[:500]) if part)
    return environment.without_private_paths(said)


def _traceback(error: BaseException) -> str:
    return environment.without_private_paths("".join(traceback.format_exception(error)))


# --- what an experiment is given --------------------------------------------------------------------------------------


class Selected(dict[str, Engine]):
    """The engines that take part, by name; asking for another ends the experiment with a remark, not with an error."""

    def __missing__(self, name: str) -> Engine:
        check_names([name])
        raise Unsupported(f"it needs the engine {name}, which is not installed or was not selected")


@dataclass
class Context:
    """What ``experiment(context)`` may use.

    ``engines`` are those of the comparison that are selected and available, by name; ``cases`` are its measured cases,
    with the rows of all engines; ``tell(text)`` says on the terminal what is being done.
    """

    settings: Settings
    comparison: Comparison
    engines: Mapping[str, Engine]
    cases: Sequence[CaseResult]
    name: str
    deadline: float = float("inf")
    tell: Callable[[str], None] = lambda _: None

    @property
    def quick(self) -> bool:
        return self.settings.quick

    def rng(self, *names: str) -> np.random.Generator:
        """A seeded NumPy generator, a different one for each name."""
        return generator(self.settings.seed, self.name, *names)

    def cast(self, tree: Any) -> Any:
        """A pytree of arrays in the run's dtype, still NumPy's."""
        return jax.tree.map(lambda leaf: cast(leaf, self.settings.dtype), tree)

    def inputs(self, engine: str, **axes: int | float | str) -> tuple[Any, ...]:
        """``(params, *batch)`` of a case as arrays of ``engine``: the numbers that the timed case of these axes has."""
        return self.engines[engine].arrays(make_inputs(self.comparison, self.name, axes, self.settings))

    def program(self, engine: str, **axes: int | float | str) -> Callable[..., Any]:
        """The comparison's loss as ``f(params, *batch)`` in the namespaces of ``engine``. May raise Unsupported."""
        chosen = self.engines[engine]
        return _program(self.comparison, engine, chosen.family, axes, chosen.ops)

    def measure(self, subjects: Mapping[str, timing.Subject]) -> dict[str, Measurement]:
        """Times functions of no arguments in interleaved rounds; each must return only when its result is there."""
        return timing.measure(subjects, _plan(self.settings), self.settings.seed, self.deadline)

    def seconds_left(self) -> float:
        """Of this comparison's share of the time budget."""
        return self.deadline - time.monotonic()


# --- engines, device, resuming ----------------------------------------------------------------------------------------


def quick_settings(**changes: Any) -> Settings:
    """The settings of ``--quick``."""
    quick = Settings(quick=True, min_time=0.05, min_rounds=7, warmup_cap=0.1, precision=0.1)
    return dataclasses.replace(quick, **changes)


def resolve_device(device: str) -> str:
    """``cpu`` or ``gpu``; ``auto`` is what JAX would use. Raises CompareError where there is no GPU."""
    if device == "auto":
        return "cpu" if jax.default_backend() == "cpu" else "gpu"
    try:
        jax.devices(device)
    except RuntimeError as error:
        raise CompareError(
            f"no {device.upper()} here that JAX can use; run with --device cpu, or install twograd[cuda12]."
        ) from error
    return device


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """New arrays go to the first device of this kind."""
    with jax.default_device(jax.devices(resolve_device(device))[0]):
        yield


@contextlib.contextmanager
def prepared(settings: Settings) -> Iterator[None]:
    """The device and the dtype of a run. Something is compiled and run first, so that what happens once per process is
    not charged to whoever comes first."""
    with on_device(settings.device), jax.enable_x64(settings.dtype == "float64"):
        jax.block_until_ready(jax.jit(lambda x: jnp.tanh(x @ x))(jnp.ones((8, 8))))
        yield


def find_engines(settings: Settings) -> tuple[dict[str, Engine], list[EngineInfo]]:
    """The engines that can run, and what is said of all that were asked for."""
    engines, infos = {}, []
    for name in settings.engines or USUAL:
        engine = create(name, settings.device)
        reason = engine.unavailable()
        version = "" if reason else engine.version()
        infos.append(
            EngineInfo(name, engine.title, engine.kind, engine.family, version, not reason, reason, engine.about)
        )
        if not reason:
            engines[name] = engine
    return engines, infos


def _resumed(out: Path, settings: Settings) -> Results | None:
    """The results in ``out``, if any. Raises CompareError where they were found under other settings."""
    path = out / RESULTS_FILE
    for leftover in out.glob(f".{RESULTS_FILE}.*"):  # of a run that was killed while it wrote
        leftover.unlink()
    if not path.exists():
        return None
    results = load(path)
    for setting in dataclasses.fields(settings):
        old, new = getattr(results.settings, setting.name), getattr(settings, setting.name)
        if old != new:
            raise CompareError(
                f"{path} was made with {setting.name}={old}, not {new}; choose another --out, or remove the file."
            )
    old, new = results.environment.get("versions", {}), environment.versions()
    for name in old.keys() | new.keys():
        if old.get(name) != new.get(name):
            raise CompareError(
                f"{path} was made with {name} {old.get(name)}, not {new.get(name)}; choose another --out, or remove "
                f"the file."
            )
    return results


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
