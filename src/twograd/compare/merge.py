"""Runs of the same comparisons on several devices as one, so that one report tells of all.

What flows in: results with a label each. What flows out: one :class:`Results` in which the device is an axis of the
cases, so that every table, chart and sentence that compares cases compares devices too. Read :func:`merged`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from twograd.compare.errors import CompareError
from twograd.compare.results import (
    DEVICE,
    CaseResult,
    ComparisonResult,
    EngineInfo,
    Finding,
    Observation,
    Results,
    Trace,
)
from twograd.compare.runner import case_name

SAME = ("dtype", "seed", "quick", "timed")
"""Settings in which runs on several devices must agree."""


def labels(runs: Sequence[Results]) -> list[str]:
    """What each run is called: its device, or, where two have one of the same name, the kind of device or processor.

    Raises CompareError where that does not tell them apart either.
    """
    for said in (_device, _kind):
        found = [said(run) for run in runs]
        if len(set(found)) == len(found):
            return found
    raise CompareError(
        f"two of the results are of one device ({', '.join(map(_kind, runs))}): `twograd diff` compares such."
    )


def merged(runs: Sequence[Results]) -> Results:
    """All of several runs, their cases by device. Raises CompareError where they cannot stand side by side."""
    names = labels(runs)
    first = runs[0]
    for setting in SAME:
        values = [getattr(run.settings, setting) for run in runs]
        if len(set(values)) > 1:
            raise CompareError(
                f"the results differ in {setting} ({', '.join(map(str, values))}): they cannot be merged."
            )
    comparisons = list(dict.fromkeys(comparison.name for run in runs for comparison in run.comparisons))
    infos = list(dict.fromkeys(info.name for run in runs for info in run.engines))
    return Results(
        replace(first.settings, device="+".join(names), engines=infos),
        _side_by_side(dict(zip(names, (run.environment for run in runs), strict=True))),
        [_engine([info for run in runs for info in run.engines if info.name == name]) for name in infos],
        [_comparison(name, dict(zip(names, runs, strict=True))) for name in comparisons],
        min(run.started for run in runs),
        max(run.finished for run in runs),
    )


def _device(run: Results) -> str:
    return run.settings.device


def _kind(run: Results) -> str:
    """A processor's name says more than JAX's ``cpu``."""
    environment: Mapping[str, Any] = run.environment
    kind = str(environment.get("devices", {}).get("kind", ""))
    if kind and kind != "cpu":
        return kind
    return str(environment.get("machine", {}).get("cpu", {}).get("brand_raw", "")) or kind or run.settings.device


def _engine(infos: Sequence[EngineInfo]) -> EngineInfo:
    """As it is where it is available; rows say where it is not."""
    available = [info for info in infos if info.available]
    versions = dict.fromkeys(info.version for info in available)
    return replace((available or infos)[0], version=", ".join(versions))


def _comparison(name: str, runs: Mapping[str, Results]) -> ComparisonResult:
    found = {label: part for label, run in runs.items() if (part := run.comparison(name)) is not None}
    first = next(iter(found.values()))
    if any(part.source != first.source for part in found.values()):
        raise CompareError(f"{name} is another text in one of the results: programs of one name must be one program.")
    failed = {label: part for label, part in found.items() if part.status != "done"}
    worst = next(iter(failed.values()), first)
    return ComparisonResult(
        name,
        first.question,
        first.description,
        first.source,
        worst.status,
        "; ".join(f"{label}: {part.error}" for label, part in failed.items()),
        sum(part.seconds for part in found.values()),
        [DEVICE, *dict.fromkeys(axis for part in found.values() for axis in part.axes)],
        [_case(label, case) for label, part in found.items() for case in part.cases],
        [_finding(label, finding) for label, part in found.items() for finding in part.findings],
        next((_trace(label, part.trace) for label, part in found.items() if part.trace.lines), first.trace),
    )


def _trace(label: str, trace: Trace) -> Trace:
    """Its lines were timed on one device, at the case that is called so among all."""
    name = case_name({DEVICE: label})
    return replace(trace, name=name if trace.name == case_name({}) else f"{name}, {trace.name}")


def _case(label: str, case: CaseResult) -> CaseResult:
    axes = {DEVICE: label, **case.axes}
    return replace(case, name=case_name(axes), axes=axes)


def _finding(label: str, finding: Finding) -> Finding:
    if isinstance(finding, Observation):
        return Observation(f"On {label}: {finding.text}")
    return replace(finding, title=f"{finding.title} ({label})")


def _side_by_side(values: Mapping[str, Any]) -> Any:
    """One value where all have the same, their mappings merged, else each with its label."""
    first, *rest = values.values()
    if all(value == first for value in rest):
        return first
    if all(isinstance(value, Mapping) for value in values.values()):
        keys = dict.fromkeys(key for value in values.values() for key in value)
        return {key: _side_by_side({label: value.get(key) for label, value in values.items()}) for key in keys}
    return "; ".join(f"{label}: {value}" for label, value in values.items() if value not in (None, "", []))
