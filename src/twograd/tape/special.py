"""``torch.special`` on Tensors: other names of operations, and lines of a table, explained in ``schema.py``."""

from collections.abc import Callable
from typing import Any

import jax.scipy.special as jsp

from twograd.tape.functions import find
from twograd.tape.schema import operation

NAMES = {
    "expit": "sigmoid", "psi": "digamma", "gammaln": "lgamma", "gammainc": "igamma", "gammaincc": "igammac",
    "multigammaln": "mvlgamma",
    "digamma": "digamma", "erf": "erf", "erfc": "erfc", "erfinv": "erfinv", "exp2": "exp2",
    "expm1": "expm1", "i0": "i0", "log1p": "log1p", "log_softmax": "log_softmax", "logit": "logit",
    "logsumexp": "logsumexp", "polygamma": "polygamma", "round": "round", "sinc": "sinc", "softmax": "softmax",
    "xlogy": "xlogy",
}  # fmt: skip
"""Names here, and those of the same functions in ``twograd.tape``."""

OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "entr":          ("t", lambda input: jsp.entr(input)),
    "i0e":           ("t", lambda input: jsp.i0e(input)),
    "i1":            ("t", lambda input: jsp.i1(input)),
    "i1e":           ("t", lambda input: jsp.i1e(input)),
    "log_ndtr":      ("t", lambda input: jsp.log_ndtr(input)),
    "ndtr":          ("t", lambda input: jsp.ndtr(input)),
    "ndtri":         ("t", lambda input: jsp.ndtri(input)),
    "xlog1py":       ("nn", lambda input, other: jsp.xlog1py(input, other)),
    "zeta":          ("nn", lambda input, other: jsp.zeta(input, other)),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in NAMES:
        value = find(NAMES[name])
    elif name in OPERATIONS:
        value = operation(f"special_{name}", *OPERATIONS[name])
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES, *OPERATIONS})
