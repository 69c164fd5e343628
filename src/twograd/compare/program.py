"""What a comparison file declares, and how it is found.

What flows in: the name of a file in ``comparisons/``, or a path. What flows out: a :class:`Declaration`. Read
:class:`Comparison` first. A whole file, ``comparisons/op_chain.py`` say, looks like this::

    \"\"\"How does the cost of an op depend on the size of its tensors?

    Whatever else a reader should know; the first line is the question that the report answers.
    \"\"\"

    from twograd.compare import Comparison, grid


    def inputs(rng, *, size, depth):
        weights = [rng.standard_normal((size, size)) / size**0.5 for _ in range(depth)]
        return weights, rng.standard_normal((8, size))


    def loss(ops, weights, x):
        for w in weights:
            x = ops.np.tanh(x @ w)
        return ops.np.mean(x * x)


    comparison = Comparison(
        inputs=inputs,
        loss=loss,
        cases=grid(size=(8, 64, 512), depth=(4, 64)),
        quick=grid(size=(8, 128), depth=(8,)),
    )

- ``inputs(rng, **case)`` returns ``(params, *batch)``: pytrees (lists, tuples, dicts) of NumPy arrays. Floating arrays
  are cast to the run's dtype, integers stay integers. ``params`` is what the gradient is taken of. ``rng`` is a NumPy
  Generator whose seed depends on ``--seed``, the comparison's name and the case: every engine gets the same numbers.
- ``loss(ops, params, *batch)`` returns a scalar. It is written once. ``ops.np`` is numpy-like: ``twograd.numpy`` for
  this project's engines, ``jax.numpy``, ``autograd.numpy``, and for PyTorch a facade with NumPy's names. ``ops.F`` is
  functional, with PyTorch's names and layouts (``conv2d, max_pool2d, relu, linear, cross_entropy, log_softmax`` ...):
  ``twograd.nn.functional`` or ``torch.nn.functional``; HIPS autograd has none, so there such a program is skipped.
  Methods and operators that all arrays have (``x @ w``, ``x * y``, ``x[0]``, ``x.shape``, ``x.reshape(...)``) are
  fine; a method that not all have alike (``x.max(axis=1)``) is better written as ``ops.np.max(x, axis=1)``.
- ``variants`` replaces ``loss`` where the paradigms force it: ``{"graph": loss_with_while_loop}``. The key is an
  engine's name (``graph-eager``), that name up to the dash (``graph``, for all of these), or its family's (``twograd,
  jax, torch``); the longest name wins. A text instead of a function skips the engine, and is shown as the reason.
- A parameter that ``loss`` or a variant names keyword-only is given the case's axis of that name::

      def loss(ops, params, x, *, order): ...

- ``cases`` and ``quick`` are lists of dicts from axis to value; :func:`grid` makes their product. The axes that are
  numbers become the x axes of the scaling charts. With one set of inputs only, leave ``cases`` out.
- ``experiment(context)`` yields anything else worth showing, as :class:`Table`, :class:`Curves`, :class:`Observation`
  (a sentence computed from data) or :class:`Listing` of :mod:`twograd.compare.results`. It runs after the timed cases;
  ``context`` is a :class:`twograd.compare.runner.Context`. A comparison may consist of an experiment alone::

      def experiment(context):
          curves = []
          for name in ("tape", "graph"):
              step = context.engines[name].value_and_grad(context.program(name, size=8))
              params, *batch = context.inputs(name, size=8)
              losses = []
              for _ in range(20 if context.quick else 200):
                  loss, grads = step(params, *batch)
                  ...
              curves.append(Series(name, range(len(losses)), losses, engine=name))
          yield Curves("Training", "step", "loss", curves)
- ``engines`` are those that run where the user names none, and those that ``experiment`` is about: it is given no
  others. An engine named on the command line runs the timed program of every comparison; where it cannot be said in its
  namespace, its row is skipped, with the reason.

A file with a plain function ``f`` of JAX and its arguments, a tuple ``args``, is a comparison too: see :func:`of`.
"""

import ast
import functools
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from twograd.compare.errors import CompareError, UnknownName, Unsupported
from twograd.compare.results import Finding

Axes = Mapping[str, int | float | str]
Loss = Callable[..., Any]


def grid(**axes: Sequence[int | float | str]) -> list[dict[str, int | float | str]]:
    """Every combination of the axes' values: ``grid(size=(8, 64), depth=(1,))`` is two cases."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The declaration of a comparison; the module's docstring explains each field."""

    inputs: Callable[..., tuple[Any, ...]] | None = None
    loss: Loss | None = None
    cases: Sequence[Axes] = ({},)
    quick: Sequence[Axes] | None = None
    variants: Mapping[str, Loss | str] = field(default_factory=dict)
    experiment: Callable[[Any], Iterable[Finding]] | None = None
    engines: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.loss is None and self.experiment is None:
            raise TypeError("a Comparison needs a loss or an experiment")
        if self.loss is not None and self.inputs is None:
            raise TypeError("a Comparison with a loss needs inputs")

    @property
    def has_cases(self) -> bool:
        return self.loss is not None

    def program(self, engine: str, family: str, axes: Axes) -> Loss:
        """``loss(ops, params, *batch)`` for one engine at one case. Raises Unsupported where a variant says so."""
        names = (name for name in (engine, engine.partition("-")[0], family) if name in self.variants)
        loss = next((self.variants[name] for name in names), self.loss)
        if isinstance(loss, str) or loss is None:
            raise Unsupported(loss or "this comparison has no timed program")
        keywords = [p.name for p in inspect.signature(loss).parameters.values() if p.kind is p.KEYWORD_ONLY]
        return functools.partial(loss, **{name: axes[name] for name in keywords if name in axes})


FOREIGN: tuple[str, ...] = ("torch", "autograd", "pytensor", "dezero", "tinygrad", "tensorflow")
"""The families of the engines that do not run functions of JAX's arrays."""


def of(f: Callable[..., Any], args: Sequence[Any]) -> Comparison:
    """The comparison of a plain function, written in jax.numpy or twograd.numpy, on these arguments alone.

    The gradient is with respect to the first argument.
    """
    variants = dict.fromkeys(FOREIGN, "the program is a function of JAX's arrays; written with ops, all engines run it")
    return Comparison(inputs=lambda rng: tuple(args), loss=lambda _, *inputs: f(*inputs), variants=variants)


def plain_function(module: ModuleType) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """The function ``f`` and the arguments ``args`` of a file that has these; otherwise None."""
    f, args = getattr(module, "f", None), getattr(module, "args", None)
    return (f, tuple(args)) if callable(f) and isinstance(args, (tuple, list)) else None


@dataclass(frozen=True)
class Declaration:
    """A comparison file: its name and text, known without running it, and by :meth:`load` what it declares.

    ``timed`` is whether it seems to have a timed program: an experiment alone takes the time that it takes.
    """

    name: str
    path: Path
    question: str
    description: str
    source: str
    timed: bool = field(default=True, kw_only=True)

    def run(self) -> ModuleType:
        """Runs the file, and returns it as a module. Raises CompareError, naming the line, where it raises."""
        try:
            return _import_file(self.path)
        except Exception as error:
            raise CompareError(
                f"{place(error) or self.path}: does not import ({type(error).__name__}: {error}). "
                f"Mend the file, or leave it out with --only."
            ) from error

    def load(self) -> Comparison:
        """Runs the file. Raises CompareError, naming the line, where it raises or declares no comparison."""
        module = self.run()
        comparison = getattr(module, "comparison", None)
        if isinstance(comparison, Comparison):
            return comparison
        plain = plain_function(module)
        if plain is None:
            raise CompareError(
                f"{self.path}: declares no comparison; it needs a line 'comparison = Comparison(...)' (`twograd new "
                f"{self.name}_2` writes an example), or a function f and its arguments, a tuple args."
            )
        return of(*plain)


def find(names: Sequence[str] = ()) -> list[Declaration]:
    """The comparisons of these names or paths; without any, all that the project has, sorted by name."""
    known = {path.stem: path for path in sorted(directory().glob("*.py")) if not path.stem.startswith("_")}
    if not names:
        return [_read(path) for path in known.values()]
    paths = {path.resolve(): path for path in (_resolve(name, known) for name in names)}.values()
    by_name: dict[str, Path] = {}
    for path in paths:
        if by_name.setdefault(path.stem, path) is not path:
            raise CompareError(f"{by_name[path.stem]} and {path} have the same name in the results; rename one.")
    return [_read(path) for path in paths]


def directory() -> Path:
    """Where the project's comparisons lie: inside the package in a wheel, at the top level in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "comparisons", package.parents[1] / "comparisons"):
        if candidate.is_dir():
            return candidate
    raise CompareError("the folder comparisons/ is missing from this installation; install twograd again.")


def _resolve(name: str, known: Mapping[str, Path]) -> Path:
    if name in known:
        return known[name]
    if name.endswith(".py") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise CompareError(f"no such comparison file: {name}. `twograd list` names those that exist.")
        return path
    raise UnknownName("comparison", name, known)


def _read(path: Path) -> Declaration:
    """The file's text and docstring; a file that does not even parse still has a name, so that it can be reported."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompareError(f"{path}: cannot be read ({error}).") from error
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        module = ast.Module([], [])
    question, _, description = (ast.get_docstring(module) or "").partition("\n")
    keywords = {node.arg for node in ast.walk(module) if isinstance(node, ast.keyword)}
    timed = "experiment" not in keywords or "loss" in keywords
    return Declaration(path.stem, path, question.strip(), description.strip(), source, timed=timed)


MODULE = "twograd_comparison_"
"""How the modules' names begin that comparison files are run as."""


def _import_file(path: Path) -> ModuleType:
    name = f"{MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def place(error: BaseException, path: Path | None = None) -> str:
    """``FILE:LINE``, the innermost line of a comparison file, or of the file ``path``, that ``error`` came through.

    Nothing where there is none.
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_shown(error.filename)}:{error.lineno}"
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if str(frame.f_globals.get("__name__")).startswith(MODULE) or (path is not None and file == str(path)):
            found = f"{_shown(file)}:{line}"
    return found


def _shown(file: str) -> str:
    """Without the folder that one works in."""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file
