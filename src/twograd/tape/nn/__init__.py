"""``torch.nn`` of the tape: the modules of :mod:`twograd.nn`, and PyTorch's signatures in ``functional``."""

from typing import Any

import twograd.nn as modules
from twograd.tape.nn import functional as functional


def __getattr__(name: str) -> Any:
    return getattr(modules, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(modules)})
