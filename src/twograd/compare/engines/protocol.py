"""What an engine is to the harness: a way to make a program ready, and the stages that this takes.

What flows in: a program ``f(params, *batch) -> scalar`` and its inputs as NumPy arrays. What flows out: :class:`Built`,
the same program ready to be run and timed. Read :meth:`Engine.build`, then any adapter: each tells its engine's story
in about forty lines, and is the only place where that engine is imported.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal

from twograd.compare.errors import Unsupported

Program = Callable[..., Any]
Stage = Callable[[str], AbstractContextManager[Any]]
"""``with stage("trace"): ...`` times the block as that stage."""

LEARNING_RATE = 1e-3
"""Of the SGD update in the stage ``step``. Its result is thrown away, so that every step does the same work."""


class Ops:
    """The namespaces that a program is written in; each is imported when it is first used."""

    def __init__(self, np: str | Any, F: str | Any | None, owner: str):
        self._np, self._F, self._owner = np, F, owner

    @functools.cached_property  # an attribute once it is there: torch.compile reads it without running Python
    def np(self) -> Any:
        """The numpy-like namespace."""
        return _namespace(self._np)

    @functools.cached_property
    def F(self) -> Any:
        """The functional namespace, with PyTorch's names."""
        return _Absent(self._owner) if self._F is None else _namespace(self._F)


class _Absent:
    """Stands for a namespace that an engine does not have."""

    def __init__(self, owner: str):
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        raise Unsupported(f"{self._owner} has no {name}")


@contextlib.contextmanager
def expressing(owner: str) -> Iterator[None]:
    """Around a program that an engine with fewer functions than NumPy runs: what it has not makes it Unsupported."""
    try:
        yield
    except (AttributeError, NotImplementedError, TypeError) as error:
        text = " ".join(str(error).split())[:300].rstrip(".")
        raise Unsupported(f"{owner} cannot express this program ({type(error).__name__}: {text})") from error


def _namespace(module: str | Any) -> ModuleType | Any:
    return importlib.import_module(module) if isinstance(module, str) else module


@dataclass
class Built:
    """A program made ready by one engine.

    Each function of ``stages`` takes nothing, runs that steady stage once, and returns when its result is there.
    ``forward+backward`` returns ``(loss, gradients)`` in the engine's own arrays. ``counts`` and ``texts`` are called
    after all timing; :class:`twograd.compare.results.Row` lists their keys.
    """

    stages: dict[str, Callable[[], Any]]
    counts: Callable[[], Mapping[str, int | float]] = dict
    texts: Callable[[], Mapping[str, str]] = dict


class Engine(ABC):
    """One engine. ``title`` is what it is called, ``about`` a sentence that says how it comes to a gradient.

    ``family`` names whose derivative rules it uses: two of one family are not independent evidence. ``lingers`` are the
    seconds for which its threads go on spinning when it has returned, beside whatever runs then.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    kind: ClassVar[Literal["dynamic", "static"]]
    family: ClassVar[Literal["twograd", "jax", "torch", "autograd", "pytensor", "dezero", "tinygrad", "tensorflow"]]
    distribution: ClassVar[str]
    install: ClassVar[str] = ""
    lingers: ClassVar[float] = 0.0
    ops: ClassVar[Ops]

    def __init__(self, device: str = "cpu"):
        self.device = device

    def unavailable(self) -> str:
        """Why the engine cannot run here, or nothing."""
        if importlib.util.find_spec(self.distribution) is None:
            return f"not installed (pip install '{self.install}')"
        return ""

    def version(self) -> str:
        return importlib.metadata.version(self.distribution)

    @abstractmethod
    def arrays(self, tree: Any) -> Any:
        """A pytree of NumPy arrays as this engine's arrays, on the device."""

    @abstractmethod
    def numpy(self, tree: Any) -> Any:
        """The inverse of :meth:`arrays`."""

    @abstractmethod
    def value_and_grad(self, f: Program) -> Program:
        """``(params, *batch) -> (loss, gradients of params)``, in the way in which a user of the engine would do it."""

    @abstractmethod
    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        """Makes ``f`` ready for ``inputs = (params, *batch)``, arrays of this engine.

        What is paid once happens here, each part within ``with stage(...)``, never counting one part twice. What is
        paid at each call comes back in :attr:`Built.stages`.
        """
