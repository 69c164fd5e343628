"""A comparison in a process of its own: what hangs, crashes it, or is ended for its memory costs one cell.

What flows in: what :func:`twograd.compare.runner.run_comparison` takes, and the seconds that a cell may last. What
flows out: the same result. Read :func:`run_comparison`.

Why a process: a signal's handler runs between two steps of Python, never within a call of XLA or BLAS, and a thread
cannot be ended at all. A process can always be, and a crash is no more than its end. It sends each case as soon as it
is measured; when it ends too soon, another goes on behind the cell that was lost. Only on request, for each process
imports JAX and compiles anew: some seconds for each comparison, and again for each cell that is lost.

The engines of a comparison share its process. One could disturb the next by threads that still spin when it has
returned, and these would take the same cores from another process: no sample is taken until they have stopped (see
:class:`twograd.compare.engines.Engine`; ``benchmarks/bench_engines_together.py`` measures it).
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from twograd.compare import runner
from twograd.compare.engines import Engine
from twograd.compare.program import Declaration
from twograd.compare.results import CaseResult, ComparisonResult, EngineInfo, Settings

START = 60.0
"""Seconds past the limit that a process may take to import what it needs."""

LOADING = ""
"""The cell before the first: what the file does when it is imported."""


class Lost(Exception):
    """A process has ended within a cell. ``reason`` says how, and what it did last."""

    def __init__(self, cell: str, reason: str):
        super().__init__(reason)
        self.cell, self.reason = cell, reason


def run_comparison(
    limit: float,
    declaration: Declaration,
    settings: Settings,
    engines: Mapping[str, Engine],
    infos: Sequence[EngineInfo],
    seconds: float,
    progress: runner.Progress = lambda *_: None,
    known: Sequence[CaseResult] = (),
    keep: runner.Keep = lambda _: None,
) -> ComparisonResult:
    """:func:`twograd.compare.runner.run_comparison`, within ``limit`` seconds per cell; engines are made where they
    run."""
    start = time.monotonic()
    lost: dict[str, str] = {}
    result = runner.ended_early(declaration, "failed", "")
    result.cases = [*known]

    def remember(measured: ComparisonResult) -> None:
        nonlocal result
        result = measured
        keep(measured)

    while True:
        left = seconds - (time.monotonic() - start)
        try:
            result = _in_process(limit, (declaration, settings, left, result.cases, lost), progress, remember)
        except Lost as end:
            again = end.cell not in {LOADING, *lost}
            lost[end.cell] = end.reason
            if again and time.monotonic() - start < seconds:
                continue
            result.status = "failed"
            result.error = "; ".join(f"{reason} (at {cell or 'loading'})" for cell, reason in lost.items())
        result.seconds = time.monotonic() - start
        return result


def _in_process(limit: float, work: tuple[Any, ...], progress: runner.Progress, keep: runner.Keep) -> ComparisonResult:
    """Starts a process and listens to it until it has its result. Raises Lost."""
    context = multiprocessing.get_context("spawn")  # a fork would share the threads and locks of XLA
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, *work))
    process.start()
    there.close()  # its end alone is left, so that it being closed is seen here
    cell, doing, end = LOADING, "importing", time.monotonic() + limit + START
    try:
        while here.poll(max(0.0, end - time.monotonic())):
            kind, *content = here.recv()
            if kind == "done":
                return content[0]
            if kind == "keep":
                keep(content[0])
                continue
            if content[0] != cell or doing == "importing":
                end = time.monotonic() + limit
            cell, doing = content
            progress(cell or "loading", doing)
        raise Lost(cell, f"took more than the {limit:g} s of --cell-limit; the last that it did: {doing}")
    except (EOFError, ConnectionError) as error:
        process.join(limit)
        raise Lost(cell, f"{_end(process.exitcode or 0)}; the last that it did: {doing}") from error
    finally:
        process.kill()
        process.join()
        here.close()


def _end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended its process with exit code {code}"
    short = " (the system does that, too, where memory is short)" if -code == signal.SIGKILL else ""
    return f"its process was ended by {signal.Signals(-code).name}{short}"


def _work(
    there: Connection,
    declaration: Declaration,
    settings: Settings,
    seconds: float,
    known: Sequence[CaseResult],
    lost: Mapping[str, str],
) -> None:
    """The process: sends what it does, each case, and the result."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the parent's, which ends this process
    with runner.prepared(settings):
        engines, infos = runner.find_engines(settings)
        there.send(("progress", LOADING, "loading the file"))
        result = runner.run_comparison(
            declaration,
            settings,
            engines,
            infos,
            seconds,
            lambda cell, doing: there.send(("progress", cell, doing)),
            known,
            lambda measured: there.send(("keep", measured)),
            lost,
        )
        there.send(("done", result))


def _follow_parent() -> None:
    """Ends this process when its parent has ended, whatever it is in."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
