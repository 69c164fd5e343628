"""A plain function compared where one is: at a prompt, in a notebook.

What flows in: a function and its arguments. What flows out: :class:`Compared`, which prints as sentences and tables and
shows in a notebook as these and charts. Read :func:`compare`.
"""

import functools
import inspect
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from twograd._arguments import check_callable
from twograd.compare import program, report, runner, sentences, tables
from twograd.compare.engines import check_names
from twograd.compare.errors import CompareError
from twograd.compare.results import ComparisonResult, Results
from twograd.compare.tables import TextTable

ENGINES = ("tape", "graph", "jax-jit", "jax-eager")


@dataclass(frozen=True)
class Compared:
    """What was found. ``results`` is all of it, with the raw samples and the environment, as a report's."""

    results: Results

    @property
    def comparison(self) -> ComparisonResult:
        return self.results.comparisons[0]

    @property
    def agree(self) -> bool:
        """Whether every engine ran, and no gradient differs from ``jax.grad`` and finite differences."""
        return all(row.status == "ok" for _, _, row in self.results.rows())

    @property
    def sentences(self) -> list[str]:
        """What was found, in words computed from the data; names of engines stand between backticks."""
        return sentences.about(self.comparison, self.results.engines)

    @property
    def tables(self) -> list[TextTable]:
        """Times, checks, what is missing, stages and sizes."""
        found = [
            tables.gradient_times(self.comparison.cases),
            tables.check_table(self.comparison, self.results.engines),
            tables.missing_table(self.comparison),
            *(table for case in self.comparison.cases for table in tables.stage_tables(case)),
        ]
        return [table for table in found if table is not None]

    @functools.cached_property
    def charts(self) -> list[str]:
        """As SVG files."""
        return [chart.svg for chart in self._drawn]

    @functools.cached_property
    def _drawn(self) -> list[report.Drawn]:
        _, drawn = report.draw(self.results)
        return drawn

    def save(self, folder: str | Path) -> Path:
        """Writes the report, ``report.html`` and its charts, into ``folder``, which exists; returns the page's path."""
        return report.write_report(self.results, Path(folder))

    def __repr__(self) -> str:
        return f"<Compared {self.comparison.name}: {', '.join(info.name for info in self.results.engines)}>"

    def __str__(self) -> str:
        return "\n\n".join([*self.sentences, *map(tables.markdown, self.tables)])

    def _repr_markdown_(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        html = report.fragment(self.sentences, self.tables, self._drawn)
        # Ids are unique in a page, also where it shows two comparisons.
        return html.replace("chart-", f"chart-{zlib.crc32(html.encode('utf-8', 'replace')):x}-")


def compare(
    f: Callable[..., Any], *args: Any, engines: Iterable[str] = ENGINES, budget: float = 30.0, seed: int = 0
) -> Compared:
    """Checks and times the gradient of ``f(*args)`` with respect to its first argument by several engines.

    ``f``, written in jax.numpy or twograd.numpy, returns a real scalar; ``args`` are pytrees of arrays and numbers, in
    float64 where an array of them is and JAX may use it, else in float32. ``budget`` is in seconds, for everything.
    On the tape a function in jax.numpy is one op, since it does not take Tensors; twograd.numpy is recorded op by op.

    Raises TypeError for what is no function or has no arguments, UnknownName for an engine that does not exist, and
    CompareError where no engine could run ``f``.
    """
    check_callable(f, "compare")
    if not args:
        raise TypeError("compare needs the arguments of the function, too: compare(f, *args)")
    host = jax.tree.map(np.asarray, args)
    wide = jax.config.read("jax_enable_x64") and any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(host))
    settings = runner.quick_settings(
        device=runner.resolve_device("auto"),
        dtype="float64" if wide else "float32",
        seed=seed,
        engines=check_names(engines),
    )
    results = runner.run([_Function.of(f, host)], settings, budget=budget)
    (comparison,) = results.comparisons
    if comparison.status != "done":
        raise CompareError(f"{comparison.name} cannot be compared: {comparison.error}")
    reasons = [row.reason for _, _, row in results.rows() if row.status == "failed"]
    if len(reasons) == len(results.engines):
        raise CompareError(f"{comparison.name} cannot be compared, no engine runs it: {reasons[0]}")
    return Compared(results)


@dataclass(frozen=True)
class _Function(program.Declaration):
    """A function in place of a file."""

    comparison: program.Comparison

    @classmethod
    def of(cls, f: Callable[..., Any], args: tuple[Any, ...]) -> "_Function":
        name = getattr(f, "__name__", type(f).__name__)
        try:
            source, file = inspect.getsource(f), inspect.getsourcefile(f) or ""
        except (OSError, TypeError):
            source, file = "", ""
        question = f"Which engine computes the gradient of `{name}` fastest?"
        return cls(name, Path(file), question, inspect.getdoc(f) or "", source, program.of(f, args))

    def load(self) -> program.Comparison:
        return self.comparison
