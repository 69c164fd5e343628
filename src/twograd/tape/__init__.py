"""The dynamic engine: runs each op at once on JAX arrays, records it, and differentiates by value.

Read ``tensor.py`` and ``node.py`` for what is recorded, ``apply.py`` for how, and ``backward.py`` for the walk back.
The names and their meaning are PyTorch's: ``import twograd.tape as torch``. What is not listed here (``torch.sin``,
``torch.cat``, ``torch.float32``) is found in ``functions.py`` when it is first used, and so is what looks at a graph
and shows it (``picture.py``, ``stepper/``, ``live.py``).
"""

import importlib
from typing import TYPE_CHECKING, Any

from twograd.tape import autograd as autograd
from twograd.tape import functions as functions
from twograd.tape import inplace as inplace
from twograd.tape import methods as methods
from twograd.tape import utils as utils
from twograd.tape.anomaly import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from twograd.tape.anomaly import is_anomaly_enabled as is_anomaly_enabled
from twograd.tape.apply import apply as apply
from twograd.tape.apply import clear_caches as clear_caches
from twograd.tape.compiled import CompiledStats as CompiledStats
from twograd.tape.compiled import compiled_backward as compiled_backward
from twograd.tape.factories import tensor as tensor
from twograd.tape.functional import grad as grad
from twograd.tape.functional import value_and_grad as value_and_grad
from twograd.tape.inference import inference_mode as inference_mode
from twograd.tape.inference import is_inference_mode_enabled as is_inference_mode_enabled
from twograd.tape.leaks import Leak as Leak
from twograd.tape.leaks import leaks as leaks
from twograd.tape.modes import enable_grad as enable_grad
from twograd.tape.modes import granularity as granularity
from twograd.tape.modes import in_place_views as in_place_views
from twograd.tape.modes import is_grad_enabled as is_grad_enabled
from twograd.tape.modes import no_grad as no_grad
from twograd.tape.modes import set_grad_enabled as set_grad_enabled
from twograd.tape.node import AccumulateGrad as AccumulateGrad
from twograd.tape.node import Node as Node
from twograd.tape.replay import explaining as explaining
from twograd.tape.save_map import save_map as save_map
from twograd.tape.stats import TapeStats as TapeStats
from twograd.tape.stats import stats as stats
from twograd.tape.tensor import Tensor as Tensor

if TYPE_CHECKING:
    from twograd.tape.live import LiveBytes as LiveBytes
    from twograd.tape.live import live_bytes as live_bytes
    from twograd.tape.picture import draw as draw
    from twograd.tape.stepper import Stepper as Stepper
    from twograd.tape.stepper import step as step

LATER = {"LiveBytes": "live", "live_bytes": "live", "draw": "picture", "Stepper": "stepper", "step": "stepper"}
"""Names that are found in a module when they are first asked for."""


_SUBMODULES = frozenset({"cuda", "fft", "linalg", "nn", "special"})


def __getattr__(name: str) -> Any:
    if name in LATER:
        found = globals()[name] = getattr(importlib.import_module(f"twograd.tape.{LATER[name]}"), name)
        return found
    if name in _SUBMODULES:
        return importlib.import_module(f"twograd.tape.{name}")
    if name == "optim":
        return importlib.import_module("twograd.optim")
    try:
        value = functions.find(name)
    except KeyError:
        raise AttributeError(f"module 'twograd.tape' has no attribute {name!r}") from None
    if name not in functions.WIDE:
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *functions.names(), *LATER, *_SUBMODULES, "optim"})
