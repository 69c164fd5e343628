"""What each verb of the command line does. Read :func:`report`.

What flows in: the parsed arguments of :mod:`twograd.cli`. What flows out: text, files, and an exit code.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from twograd._files import write_atomically
from twograd.compare import corners as four
from twograd.compare import environment, isolated, program, runner, sweep, terminal
from twograd.compare.changes import changes
from twograd.compare.engines import ENGINES, check_names, create
from twograd.compare.errors import CompareError, UnknownName
from twograd.compare.merge import merged
from twograd.compare.results import ONE_TIME_STAGES, STEADY_STAGES, Results, Settings, load, save, to_json, writing
from twograd.compare.trace import linked_lines
from twograd.exit_codes import DISAGREEMENT, FAILURE, OK, REGRESSION

Options = argparse.Namespace

TEMPLATE = Path(__file__).parent / "templates" / "comparison.py"
"""What ``twograd new`` writes: a whole comparison, which runs as it is."""


def list(options: Options) -> int:
    engines = [create(name) for name in ENGINES]
    terminal.show_list(terminal.console(options.color), program.find(), engines)
    return OK


def env(options: Options) -> int:
    stamp = environment.stamp(Settings(device=runner.resolve_device("auto")))
    print(json.dumps(stamp, indent=2))
    return OK


def check(options: Options) -> int:
    results = _run(options, timed=False)
    if options.json != "-":
        terminal.show_checks(terminal.console(options.color), results)
    return exit_code(results)


def bench(options: Options) -> int:
    if options.sweep:
        options.only = [*options.only, str(sweep.PATH)]
        options.budget = options.budget or (sweep.QUICK_BUDGET if options.quick else None)
    results = _run(options, timed=True)
    if options.sweep and options.out is not None:
        print(_draw(results, Path(options.out)), file=sys.stderr)
    if options.json != "-":
        terminal.show_timings(terminal.console(options.color), results)
    return exit_code(results)


def report(options: Options) -> int:
    reserved = {}
    if options.sweep:
        named = options.files or options.only
        options.only = [*(options.only if named else (d.name for d in program.find())), str(sweep.PATH)]
        if options.quick and options.budget is None:
            options.budget = runner.QUICK_BUDGET + sweep.QUICK_BUDGET
            reserved = {sweep.PATH.stem: sweep.QUICK_BUDGET}
    if options.out is None:
        options.out = f"results/{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H-%M-%SZ}"
    results = _run(options, timed=True, reserved=reserved)
    try:
        written = _draw(results, Path(options.out))
    except Exception:
        print(f"twograd: the results are kept; `twograd plot {options.out}` draws them again.", file=sys.stderr)
        raise
    if options.json != "-":
        terminal.show_outcome(terminal.console(options.color), results)
        print(written)
    return exit_code(results)


def corners(options: Options) -> int:
    (declaration,) = program.find([options.file])
    with _setting(options), _users_own(declaration):
        f, args = four.declared(declaration, options.dtype, options.seed)
        found = four.corners(f, *args)
    terminal.show_corners(terminal.console(options.color), found)
    return OK if found.agree else DISAGREEMENT


def trace(options: Options) -> int:
    (declaration,) = program.find([options.file])
    with _setting(options), _users_own(declaration):
        f, args = four.declared(declaration, options.dtype, options.seed)
        four.check_scalar(f, args, "trace")
        found = linked_lines(f, args, declaration.path)
    terminal.show_lines(terminal.console(options.color), found)
    return OK


@contextlib.contextmanager
def _setting(options: Options) -> Iterator[None]:
    with jax.enable_x64(options.dtype == "float64"), runner.on_device(options.device):
        yield


@contextlib.contextmanager
def _users_own(declaration: program.Declaration) -> Iterator[None]:
    """An error that came through the user's file, or that says of what type the program should be, is the user's."""
    try:
        yield
    except CompareError:
        raise
    except Exception as error:
        at = program.place(error)
        if not at and not isinstance(error, TypeError):
            raise
        said = runner.describe(error)
        raise CompareError(said if at else f"{declaration.path}: {said}") from error


def plot(options: Options) -> int:
    sources = [_results_file(name) for name in options.results]
    runs = [load(source) for source in sources]
    if len(runs) == 1:
        out = writable_folder(options.out) if options.out is not None else sources[0].parent
        print(_draw(runs[0], out))
        return OK
    if options.out is None:
        raise CompareError("the report of several results needs a folder of its own: choose one with --out.")
    together, out = merged(runs), writable_folder(options.out)
    if (out / runner.RESULTS_FILE).resolve() in {source.resolve() for source in sources}:
        raise CompareError(f"--out {options.out} has one of the results in it; choose another folder.")
    save(together, out / runner.RESULTS_FILE)
    print(_draw(together, out))
    return OK


def diff(options: Options) -> int:
    before, after = (load(_results_file(name)) for name in (options.before, options.after))
    for stage in options.stages:
        if stage not in STEADY_STAGES + ONE_TIME_STAGES:
            raise UnknownName("stage", stage, STEADY_STAGES + ONE_TIME_STAGES)
    found = changes(before, after, options.stages, options.relative_to)
    terminal.show_changes(terminal.console(options.color), found, options.relative_to)
    failures = found.failures(dict(options.fail_if))
    for failure in failures:
        print(f"twograd: {failure}", file=sys.stderr)
    return REGRESSION if failures else OK


def new(options: Options) -> int:
    path = Path(options.name if options.name.endswith(".py") else f"{options.name}.py")
    if path.exists():
        raise CompareError(f"{path} is there already, and stays as it is; choose another name.")
    writable_folder(str(path.parent))
    write_atomically(path, TEMPLATE.read_bytes())
    print(f"{path}: a comparison to be changed; `twograd report --quick {shlex.quote(str(path))}` runs it.")
    return OK


def _results_file(name: str) -> Path:
    """A results.json, given by its own name or its folder's."""
    path = Path(name)
    return path / runner.RESULTS_FILE if path.is_dir() else path


def exit_code(results: Results) -> int:
    """A wrong gradient weighs more than an engine or a comparison that raised."""
    statuses = {row.status for _, _, row in results.rows()}
    if "mismatch" in statuses:
        return DISAGREEMENT
    if "failed" in statuses or any(comparison.status == "failed" for comparison in results.comparisons):
        return FAILURE
    return OK


def writable_folder(name: str) -> Path:
    """The folder ``name``, made if need be. Raises CompareError where nothing can be written to it."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CompareError(f"cannot write to the folder {name} ({error.strerror}); choose another --out.") from error
    return folder


def _run(options: Options, timed: bool, reserved: Mapping[str, float] | None = None) -> Results:
    """Everything that can be refused is refused before the first program is built."""
    declarations = program.find([*options.files, *options.only])
    settings = _settings(options, timed)
    out = writable_folder(options.out) if options.out is not None else None
    json_path = None if options.json in (None, "-") else Path(options.json)
    if json_path is not None:
        writable_folder(str(json_path.parent))
        if json_path.is_dir():
            raise CompareError(f"--json {options.json} is a folder; give the name of a file in it.")
    budget = getattr(options, "budget", None) or (runner.QUICK_BUDGET if options.quick else None)
    limit = options.cell_limit
    one = runner.run_comparison if limit is None else functools.partial(isolated.run_comparison, limit)
    with _progress(options) as progress:
        results = runner.run(declarations, settings, out, budget, progress, one, reserved or {})
    for comparison in results.comparisons:
        if comparison.status != "done":
            print(f"twograd: {comparison.name} {comparison.status}: {comparison.error}", file=sys.stderr)
    if options.json is not None:
        text = json.dumps(to_json(results), indent=1, allow_nan=False) + "\n"
        if json_path is None:
            sys.stdout.write(text)
        else:
            with writing(json_path):
                write_atomically(json_path, text)
    return results


def _settings(options: Options, timed: bool) -> Settings:
    settings = runner.quick_settings() if options.quick else Settings()
    settings = dataclasses.replace(
        settings,
        timed=timed,
        device=runner.resolve_device(options.device),
        dtype=options.dtype,
        seed=options.seed,
        engines=check_names(options.engines),
    )
    chosen = {"min_time": "min_time", "min_rounds": "rounds", "warmup_cap": "warmup", "precision": "precision"}
    given = {setting: getattr(options, option, None) for setting, option in chosen.items()}
    return dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def _progress(options: Options) -> Iterator[runner.Progress]:
    if options.quiet:
        yield lambda *_: None
    else:
        with terminal.progress(options.color) as tell:
            yield tell


def _draw(results: Results, out: Path) -> Path:
    """Writes the report beside the results and returns the path of what to open. Only here is matplotlib needed."""
    report = importlib.import_module("twograd.compare.report")
    with writing(out):
        return report.write_report(results, out)
