"""Theano's own calls: constructors of typed variables, ``switch`` and ``ifelse``, and ``scan``.

Read :func:`scan`. Its fn takes slices of sequences, then what earlier steps returned, then non-sequences; here that is
one node of ``control.py``, whose carry are the latest values of each output that fn asks for.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from twograd.graph.symbolic.build import apply, as_symbol, placeholder
from twograd.graph.symbolic.container import Symbol, get_default_graph
from twograd.graph.symbolic.control import carry_scan
from twograd.graph.symbolic.lazy import IFELSE
from twograd.graph.symbolic.methods import getitem
from twograd.graph.symbolic.variables import Variable

# --- typed variables --------------------------------------------------------------------------------------------------


def scalar(name: str | None = None, dtype: Any = np.float32) -> Symbol:
    """A placeholder of rank 0."""
    return placeholder(dtype, (), name)


def vector(name: str | None = None, dtype: Any = np.float32) -> Symbol:
    """A placeholder of rank 1, of any size."""
    return placeholder(dtype, (None,), name)


def matrix(name: str | None = None, dtype: Any = np.float32) -> Symbol:
    """A placeholder of rank 2, of any sizes."""
    return placeholder(dtype, (None,) * 2, name)


def tensor3(name: str | None = None, dtype: Any = np.float32) -> Symbol:
    """A placeholder of rank 3, of any sizes."""
    return placeholder(dtype, (None,) * 3, name)


def tensor4(name: str | None = None, dtype: Any = np.float32) -> Symbol:
    """A placeholder of rank 4, of any sizes."""
    return placeholder(dtype, (None,) * 4, name)


def _typed(make: Callable[..., Symbol], dtype: Any) -> Callable[..., Symbol]:
    def typed(name: str | None = None) -> Symbol:
        return make(name, dtype)

    typed.__doc__ = f":func:`{make.__name__}` of {np.dtype(dtype)}, as JAX has it in the present configuration."
    return typed


fscalar, fvector, fmatrix = (_typed(make, np.float32) for make in (scalar, vector, matrix))
dscalar, dvector, dmatrix = (_typed(make, np.float64) for make in (scalar, vector, matrix))
iscalar, ivector, imatrix = (_typed(make, np.int32) for make in (scalar, vector, matrix))
lscalar, lvector, lmatrix = (_typed(make, np.int64) for make in (scalar, vector, matrix))


def scalars(*names: str) -> list[Symbol]:
    """A :func:`scalar` of each name."""
    return [scalar(name) for name in names]


def vectors(*names: str) -> list[Symbol]:
    """A :func:`vector` of each name."""
    return [vector(name) for name in names]


def matrices(*names: str) -> list[Symbol]:
    """A :func:`matrix` of each name."""
    return [matrix(name) for name in names]


# --- conditions -------------------------------------------------------------------------------------------------------


def switch(cond: Any, ift: Any, iff: Any) -> Symbol:
    """``ift`` where ``cond`` holds and ``iff`` elsewhere, element by element; both are evaluated."""
    return apply(_switch, *map(as_symbol, (cond, ift, iff)))


def _switch(cond: Any, ift: Any, iff: Any) -> Any:
    return jnp.where(cond != 0, ift, iff)


_switch.__name__ = "switch"


def ifelse(condition: Any, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """``then_branch`` where ``condition``, a scalar, is true, else ``else_branch``: Symbols, or lists of as many.

    It is lazy: operations that only the other branch needs are not run. (Where a gradient is asked for in the same run
    both are, as the derivative of each reads them. :func:`cond` takes functions, and differentiates one.)

    Raises TypeError where the branches have different types.
    """
    listed = isinstance(then_branch, (list, tuple))
    thens, elses = (
        [as_symbol(x) for x in (branch if isinstance(branch, (list, tuple)) else [branch])]
        for branch in (then_branch, else_branch)
    )
    pred = as_symbol(condition)
    if pred.ndim:
        raise TypeError(f"ifelse: the condition must be a scalar, got {pred}. Element by element: switch.")
    same = len(thens) == len(elses) and listed == isinstance(else_branch, (list, tuple))
    if not same or not all(a.type.fits(b.type) for a, b in zip(thens, elses, strict=True)):
        types = (", ".join(str(symbol.type) for symbol in branch) for branch in (thens, elses))
        raise TypeError("The two branches should have identical types, but they are {} and {}.".format(*types))
    found = apply(_ifelse, pred, thens, elses, name=name)
    return found if listed else found[0]


def _ifelse(pred: Any, thens: list[Any], elses: list[Any]) -> list[Any]:
    return [lax.select(jnp.asarray(pred, bool), *pair) for pair in zip(thens, elses, strict=True)]


_ifelse.__name__ = IFELSE


# --- scan -------------------------------------------------------------------------------------------------------------


def scan(
    fn: Callable[..., Any],
    init: Any = None,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    truncate_gradient: int = -1,
    *,
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: int | None = None,
    go_backwards: bool = False,
    name: str | None = None,
    strict: bool = False,
    return_list: bool = False,
) -> Any:
    """A loop as one node, in JAX's call shape or, by keywords, in Theano's.

    ``scan(f, init, xs)``: ``carry, y = f(carry, x)`` for each x along the first axis of ``xs``; returns the last carry
    and all ys, stacked. ``init``, ``xs`` and the ys are pytrees, as in ``jax.lax.scan``; ``length`` is needed where
    ``xs`` is None.

    ``scan(fn, sequences=..., outputs_info=..., non_sequences=..., n_steps=...)`` returns ``(outputs, updates)``. ``fn``
    takes the slices of the sequences, then earlier outputs, then the non-sequences; it returns the outputs of a step (a
    Symbol, or a list), and may return a mapping of variables to new values, alone or as ``(outputs, mapping)``. Each
    output is stacked over the steps: one is returned alone, several (or ``return_list``) in a list. ``updates`` maps
    the variables to their last values, for the updates of :func:`function`.

    - A sequence is an array, or ``{"input": array, "taps": [0, 1]}``: fn takes the elements at these distances from
      the step. There are as many steps as fit into the shortest, or ``n_steps``, a Python integer.
    - One entry of ``outputs_info`` per output: None where fn does not take it, its value before the first step, or
      ``{"initial": array, "taps": [-2, -1]}``, where the array has the values before the first step, the latest last.
    - With ``go_backwards`` the sequences are walked from their end; outputs come in the order of the steps.
    - ``strict`` says nothing here: Symbols from outside that fn uses without being given them become operands.

    With ``truncate_gradient=k`` the derivative goes back through the last k steps only (truncated backpropagation
    through time, R. Williams and J. Peng, 1990).

    Raises TypeError where what fn returns does not fit what it is given, ValueError where the number of steps is not
    known or does not fit.
    """
    if not callable(fn):
        raise TypeError(f"scan: fn must be a function of Symbols, got {type(fn).__name__}: {fn!r}")
    theanos = (sequences, outputs_info, non_sequences, n_steps)
    if all(given is None for given in theanos):
        return carry_scan(fn, init, xs, length, reverse, truncate_gradient, name)
    if not (init is None and xs is None and length is None and not reverse):
        raise TypeError(
            "scan: init, xs, length and reverse are JAX's arguments, sequences, outputs_info, non_sequences and "
            "n_steps are Theano's; give either"
        )
    loop = Recurrence(fn, sequences, outputs_info, non_sequences)
    slices = loop.slices(n_steps, go_backwards)
    while True:
        try:
            (_, last), ys = carry_scan(
                loop.step, loop.start(), slices, None if slices else n_steps, False, truncate_gradient, name
            )
        except _Updated as found:  # a body reads these variables as of the step before: build it again
            loop.updated += found.variables
        else:
            break
    outputs = ys if len(ys) > 1 or return_list else ys[0] if ys else None
    return outputs, dict(zip(loop.updated, last, strict=True))


class _Updated(Exception):
    """fn returned new values of ``variables`` that were not known to change."""

    def __init__(self, variables: list[Variable]):
        self.variables = variables


class Recurrence:
    """What Theano's ``scan`` was given, and the step as ``carry_scan`` has it.

    The carry is ``(windows, values)``: of each output that fn takes, the latest values, oldest first; and the values of
    the variables that fn updates, which its body reads in the place of the variables.
    """

    def __init__(self, fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any):
        self.fn = fn
        self.others = [as_symbol(other) for other in _listed(non_sequences)]
        entries = [entry if isinstance(entry, Mapping) else {"input": entry} for entry in _listed(sequences)]
        self.sequences = [as_symbol(_entry(entry, "input")) for entry in entries]
        self.sequence_taps = [_taps(entry, [0]) for entry in entries]
        for sequence in self.sequences:
            if not sequence.ndim:
                raise TypeError(f"scan: a sequence must have an axis to go along, got {sequence}")
        self.infos = None if outputs_info is None else [_info(entry) for entry in _listed(outputs_info)]
        self.updated: list[Variable] = []

    def slices(self, n_steps: Any, go_backwards: bool) -> list[Symbol]:
        """For each sequence and tap what the steps take, along the first axis."""
        if n_steps is not None and (not isinstance(n_steps, (int, np.integer)) or n_steps < 0):
            raise TypeError(
                f"scan: n_steps must be a Python integer, not {n_steps!r}: a compiled loop has room for a number of "
                "outputs that is known. For one that is not, while_loop with maximum_iterations returns the last."
            )
        if not self.sequences:
            if n_steps is None:
                raise ValueError(
                    "No information about the number of steps provided. Either provide a value for n_steps argument of "
                    "scan or provide an input sequence"
                )
            return []
        taps = tuple(map(tuple, self.sequence_taps))
        return apply(_aligned, self.sequences, taps, None if n_steps is None else int(n_steps), bool(go_backwards))

    def start(self) -> Any:
        return [initial for initial, _ in self._recurrent()], list(self.updated)

    def _recurrent(self) -> list[tuple[list[Symbol], list[int]]]:
        return [info for info in self.infos or () if info is not None]

    def step(self, carry: Any, slices: Any) -> Any:
        windows, values = carry
        graph = get_default_graph()
        graph.captures.update(zip(self.updated, values, strict=True))
        earlier = [window[tap] for window, (_, taps) in zip(windows, self._recurrent(), strict=True) for tap in taps]
        outputs, updates = _parsed(self.fn(*(slices or ()), *earlier, *self.others))
        infos = [None] * len(outputs) if self.infos is None else self.infos
        if len(infos) != len(outputs):
            raise ValueError(
                f"scan: fn returns {len(outputs)} outputs, and outputs_info has {len(infos)}. Please provide None as "
                "outputs_info for any output that does not feed back into scan (i.e. it behaves like a map)"
            )
        recurrent = [out for out, info in zip(outputs, infos, strict=True) if info is not None]
        for index, (out, window) in enumerate(zip(recurrent, windows, strict=True)):
            if not window[-1].type.fits(out.type):
                raise TypeError(
                    f"scan: the initial state (outputs_info) of the recurrent output {index} is {window[-1].type}, "
                    f"while the result of fn is {out.type}: cast one of them (see .astype)"
                )
        if unknown := [variable for variable in updates if variable not in self.updated]:
            raise _Updated(unknown)
        windows = [[*window[1:], out] for window, out in zip(windows, recurrent, strict=True)]
        news = [updates.get(variable, old) for variable, old in zip(self.updated, values, strict=True)]
        return (windows, news), outputs


def _aligned(sequences: Any, taps: Any, n_steps: int | None, go_backwards: bool) -> list[Any]:
    """Each sequence as its taps see it: cut so that element i of each belongs to step i, and to the same length."""
    cut = []
    for sequence, distances in zip(sequences, taps, strict=True):
        first, last = min(0, *distances), max(0, *distances)
        room = len(sequence) - (last - first)
        for tap in distances:
            part = sequence[tap - first : max(tap - first + room, 0)]
            cut.append(part[::-1] if go_backwards else part)
    shortest = min(len(part) for part in cut)
    if n_steps is not None and shortest < n_steps:
        raise ValueError(f"scan: n_steps is {n_steps}, and the shortest sequence has elements for {shortest} steps")
    return [part[: shortest if n_steps is None else n_steps] for part in cut]


_aligned.__name__ = "sequences"


def _listed(given: Any) -> list[Any]:
    """One or several, as a list."""
    return [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]


def _entry(entry: Mapping[str, Any], key: str) -> Any:
    if key not in entry or not entry.keys() <= {key, "taps"}:
        raise ValueError(f"scan: an entry has the keys {key!r} and 'taps', got {sorted(entry)}")
    return entry[key]


def _taps(entry: Mapping[str, Any], default: list[int]) -> list[int]:
    taps = entry.get("taps", default)
    taps = [taps] if isinstance(taps, int) else list(taps)
    if not taps or not all(isinstance(tap, int) for tap in taps):
        raise ValueError(f"scan: taps are integers, how many steps from the present one, got {taps!r}")
    return taps


def _info(entry: Any) -> tuple[list[Symbol], list[int]] | None:
    """The window of values before the first step, oldest first, and which of them fn takes; None for no feedback."""
    if entry is None or (isinstance(entry, Mapping) and entry.get("initial") is None):
        return None
    entry = entry if isinstance(entry, Mapping) else {"initial": entry}
    initial, taps = as_symbol(_entry(entry, "initial")), _taps(entry, [-1])
    if max(taps) >= 0:
        raise ValueError(f"scan: the taps of an output are negative, as later values are not known: {taps}")
    depth = -min(taps)
    if depth == 1:
        return [initial], taps
    if not initial.ndim or (initial.shape[0] is not None and initial.shape[0] < depth):
        raise ValueError(f"scan: the taps {taps} need {depth} initial values along the first axis of {initial}")
    return [apply(getitem, initial, i) for i in range(depth)], taps


def _parsed(returned: Any) -> tuple[list[Symbol], dict[Variable, Symbol]]:
    """What fn returned, as outputs and updates."""
    outputs, updates = returned, {}
    if _are_updates(returned):
        outputs, updates = None, returned
    elif isinstance(returned, tuple) and len(returned) == 2 and _are_updates(returned[1]):
        outputs, updates = returned
    pairs = dict(updates)
    for variable in pairs:
        if not isinstance(variable, Variable):
            raise TypeError(f"scan: only variables can be updated, not {variable!r}")
    return [as_symbol(out) for out in _listed(outputs)], {variable: as_symbol(new) for variable, new in pairs.items()}


def _are_updates(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    is_pairs = isinstance(value, (list, tuple)) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
    return is_pairs and len(value) > 0 and all(isinstance(variable, Variable) for variable, _ in value)
