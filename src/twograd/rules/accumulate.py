"""Adding up cotangents: un-broadcasting, fan-out and the check of every cotangent's type, once for all rules."""

from collections.abc import MutableMapping
from typing import Any

import jax
from jax import lax

from twograd.errors import CotangentMismatch


def accumulate(ct_env: MutableMapping[Any, Any], key: Any, ct: Any, aval: Any) -> None:
    """Adds ``ct`` to the cotangent of ``key``, a value of type ``aval``. A ``ct`` of None is zero and adds nothing.

    A value that is used several times gets the sum of its uses' cotangents: this is the multivariate chain rule.
    """
    if ct is None:
        return
    ct = unbroadcast(ct, aval)
    previous = ct_env.get(key)
    ct_env[key] = ct if previous is None else lax.add(previous, ct)


def unbroadcast(ct: Any, aval: Any) -> Any:
    """Sums ``ct`` over the axes along which an operand of type ``aval`` was broadcast, so that it has that type.

    Broadcasting copies; the transpose of copying is summing. Raises CotangentMismatch where no broadcasting explains
    the difference, or where the dtypes differ.
    """
    found = jax.typeof(ct)
    if found.shape != aval.shape:
        extra = len(found.shape) - len(aval.shape)
        kept = found.shape[extra:] if extra >= 0 else ()
        if extra < 0 or any(n not in (1, m) for m, n in zip(kept, aval.shape, strict=True)):
            raise CotangentMismatch(found, aval)
        stretched = [extra + i for i, (m, n) in enumerate(zip(kept, aval.shape, strict=True)) if m != n]
        ct = lax.reshape(lax.reduce_sum(ct, [*range(extra), *stretched]), aval.shape)
    if found.dtype != aval.dtype:
        raise CotangentMismatch(found, aval)
    return ct
