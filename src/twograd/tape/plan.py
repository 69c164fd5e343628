"""Plans: what all calls of one op at one signature share.

What flows in: an op, the types of its operands and which of them require a gradient. What flows out: a :class:`Plan`,
made once per signature and looked up at every call: how to run the op, what to save, and its pullbacks. There are two
kinds. A :class:`CompiledPlan` runs any JAX function as one compiled call, and its pullback as another. An
:class:`EquationPlan` runs one primitive, and calls its rule by value.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var, jaxpr_as_fun
from jax.tree_util import tree_flatten

from twograd import rules
from twograd._compat import bind_again
from twograd.graph import split_vjp
from twograd.tape.names import NOT_IMPLEMENTED, NUMBERS_ARE_STRUCTURE, node_name

Mask = tuple[bool, ...]
Pullback = Callable[..., Sequence[Any]]

RESULT = object()  # stands for an array among the leaves of a result, or for an operand among those of a call
LEAF = jax.tree.structure(0)


class Plan:
    """How to run one op forward, and back.

    ``forward(*operands)`` returns a list of results: the op's outputs, then intermediates that its pullback reads.
    ``positions`` say what that pullback reads, among ``(*operands, *results)``: so an operand or a result is kept and
    never copied. ``wanted`` says which operands get a cotangent; ``positions`` is None where none does.
    """

    name: str
    op: str
    wanted: Mask
    num_outs: int
    num_results: int
    positions: tuple[int, ...] | None
    differentiable: Mask
    forward: Callable[..., list[Any]]
    _avals: list[Any]  # of the operands first

    def __init__(self) -> None:
        self._pullbacks: dict[tuple[Mask, Mask, bool, bool], Pullback] = {}

    def pullback(self, with_ct: Mask, wanted: Mask, compiled: bool = True, batched: bool = False) -> Pullback:
        """A function of ``(*saved, *cts)``, where cts are those of the results in ``with_ct``.

        It returns a cotangent per operand in ``wanted``. The form that is not ``compiled`` can be traced: it is what
        the tape records when derivatives are to be differentiated again. The ``batched`` one does as much for each
        entry of a leading axis of the cotangents. RuntimeError if the op has no derivative, as in PyTorch.
        """
        if self.name == NOT_IMPLEMENTED:
            raise RuntimeError(f"derivative for aten::{self.op} is not implemented")
        key = (with_ct, wanted, compiled, batched)
        pull = self._pullbacks.get(key)
        if pull is None:
            pull = self._batched(with_ct, wanted) if batched else self._make_pullback(with_ct, wanted)
            pull.__name__ = self.name.rpartition("::")[2].removesuffix("0")
            if compiled:  # raises NoRule where a derivative is missing, now and next time
                pull = jax.jit(pull) if batched else self._compile(pull, with_ct)
            self._pullbacks[key] = pull
        return pull

    def _batched(self, with_ct: Mask, wanted: Mask) -> Pullback:
        axes = (*[None] * len(self.positions or ()), *[0] * sum(with_ct))
        return jax.vmap(self.pullback(with_ct, wanted, compiled=False), in_axes=axes)

    @functools.cached_property
    def could_want(self) -> Mask:
        """Which operands could have a gradient, were they to require one, as PyTorch counts them: not an index, but a
        Python number in arithmetic, which is a Tensor there."""
        takes_numbers = self.name not in NUMBERS_ARE_STRUCTURE
        return tuple(
            want or (takes_numbers if aval.weak_type and not aval.shape else rules.carries_gradient(aval))
            for aval, want in zip(self.operand_avals, self.wanted, strict=True)
        )

    @property
    def operand_avals(self) -> Sequence[Any]:
        """The types of the operands."""
        return self._avals[: len(self.wanted)]

    @property
    def result_avals(self) -> Sequence[Any]:
        """The types of the results."""
        return self._avals[len(self.wanted) :]

    @functools.cached_property
    def pull(self) -> Pullback:
        """The pullback from the first result alone, for all operands that want a cotangent."""
        return self.pullback((True, *[False] * (self.num_results - 1)), self.wanted)

    @functools.cached_property
    def traceable_pull(self) -> Pullback:
        """The same, to be traced as a part of something bigger."""
        return self.pullback((True, *[False] * (self.num_results - 1)), self.wanted, compiled=False)

    @functools.cached_property
    def compiles(self) -> bool:
        """Whether ``pull`` is a compiled call, not a rule called by value or a cotangent merely passed on."""
        return hasattr(self.pull, "lower")

    @functools.cached_property
    def chains(self) -> bool:
        """Whether ``pull`` may be put off and done together with the next op's; see ``chain.py``."""
        return self.compiles and sum(self.wanted) == 1

    @functools.cached_property
    def relays(self) -> bool:
        """Whether ``pull`` only hands the cotangent on, as it is, to one operand."""
        return False

    def _make_pullback(self, with_ct: Mask, wanted: Mask) -> Pullback:
        num_saved = len(self.positions or ())

        def pull(*values):
            given = iter(values[num_saved:])
            cts = [next(given) if present else None for present in with_ct]
            in_cts = zip(self._backward(values[:num_saved], cts, wanted), self._avals, wanted, strict=False)
            return tuple(lax.full(aval.shape, 0, aval.dtype) if ct is None else ct for ct, aval, want in in_cts if want)

        return pull

    def _backward(self, saved: Sequence[Any], cts: Sequence[Any], wanted: Mask) -> Sequence[Any]:
        raise NotImplementedError

    def _compile(self, pull: Pullback, with_ct: Mask) -> Pullback:
        raise NotImplementedError


class CompiledPlan(Plan):
    """Any JAX function, as one compiled call forward and one back."""

    def __init__(self, function: Callable[..., Any], avals: Sequence[Any], wanted: Mask):
        super().__init__()
        closed, self.leaves, self.out_tree = trace_op(function, avals)
        self.name, self.op = node_name(function, avals), getattr(function, "__name__", "")
        self.num_outs = len(closed.out_avals)
        self.single = self.num_outs == 1 and self.out_tree == LEAF
        self.differentiable = tuple(map(rules.carries_gradient, closed.out_avals))
        if any(wanted) and any(self.differentiable):
            self._split = split_vjp(closed, wanted)
            closed, self.positions, self.wanted = self._split.forward, self._split.saved, wanted
            self.program = closed
        else:
            self.positions, self.wanted, self.program = None, (False,) * len(wanted), None
        self.num_results = len(closed.out_avals)
        self.pick = picker(self.positions)
        self.forward = jax.jit(jaxpr_as_fun(closed))
        self._avals = [*closed.in_avals, *closed.out_avals]

    @functools.cached_property
    def relays(self) -> bool:
        return not self.compiles and sum(self.wanted) == 1

    @functools.cached_property
    def donating(self) -> Callable[..., list[Any]] | None:
        """``forward`` in the memory of the first operand, which is lost; None if the result does not fit there."""
        first, out = self.operand_avals[0], self.result_avals[0]
        fits = self.single and (first.shape, first.dtype) == (out.shape, out.dtype)
        return jax.jit(self.forward, donate_argnums=0) if fits else None

    def _backward(self, saved: Sequence[Any], cts: Sequence[Any], wanted: Mask) -> Sequence[Any]:
        return self._split.backward(saved, cts)

    def _compile(self, pull: Pullback, with_ct: Mask) -> Pullback:
        """One compiled call; none at all where cotangents are only passed on, as the addition's are."""
        avals = [self._avals[i] for i in self.positions or ()]
        avals += [aval for aval, present in zip(self.result_avals, with_ct, strict=True) if present]
        traced = jax.make_jaxpr(pull)(*avals).jaxpr
        if all(isinstance(atom, Var) and atom in traced.invars for atom in traced.outvars):
            pick = picker(tuple(traced.invars.index(atom) for atom in traced.outvars))
            return lambda *values: pick(values)
        return jax.jit(pull)


class EquationPlan(Plan):
    """One primitive with its parameters: executed as it is, and its rule called by value."""

    def __init__(self, eqn: JaxprEqn, wanted: Mask):
        super().__init__()
        self.eqn = eqn
        self.name = node_name(eqn.primitive)
        self.wanted = wanted
        self.num_outs = self.num_results = len(eqn.outvars)
        self.differentiable = tuple(rules.carries_gradient(var.aval) for var in eqn.outvars)
        self._avals = [atom.aval for atom in (*eqn.invars, *eqn.outvars)]
        self._layout = rules.saved_positions(eqn, wanted)
        flat = [i for where in self._layout.values() for i in ([where] if isinstance(where, int) else where)]
        self.positions = tuple(flat) if any(wanted) else None

    def forward(self, *operands: Any) -> list[Any]:
        return bind_again(self.eqn, operands)

    def _backward(self, saved: Sequence[Any], cts: Sequence[Any], wanted: Mask) -> Sequence[Any]:
        values = iter(saved)
        named = {
            name: next(values) if isinstance(where, int) else tuple(next(values) for _ in where)
            for name, where in self._layout.items()
        }
        in_cts = rules.pullback(self.eqn, named, cts, wanted)
        return [
            None if ct is None else rules.unbroadcast(ct, atom.aval)
            for ct, atom in zip(in_cts, self.eqn.invars, strict=True)
        ]

    def _compile(self, pull: Pullback, with_ct: Mask) -> Pullback:
        return pull


def picker(positions: tuple[int, ...] | None) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that takes the values at ``positions`` out of a sequence."""
    if not positions:
        return operator.itemgetter(slice(0))
    if len(positions) == 1:
        return operator.itemgetter(slice(positions[0], positions[0] + 1))
    return operator.itemgetter(*positions)


def trace_op(function: Callable[..., Any], avals: Sequence[Any]) -> tuple[ClosedJaxpr, list[Any], Any]:
    """The jaxpr of ``function``, the leaves of its result (RESULT for each array), and their structure.

    What does not depend on traced values (a shape, a dtype) is found among the leaves, as it is.
    """
    leaves: list[Any] = []
    out_tree: Any = None

    def traced(*arrays):
        nonlocal leaves, out_tree
        results, out_tree = tree_flatten(function(*arrays))
        if any(hasattr(type(leaf), "__twograd_function__") for leaf in results):
            raise TypeError(
                "a function of arrays returned a Tensor, because it closes over one, which no gradient would reach. "
                "Make that an argument, or use its .array as a constant."
            )
        leaves = [RESULT if isinstance(leaf, jax.Array) else leaf for leaf in results]
        return [leaf for leaf in results if isinstance(leaf, jax.Array)]

    closed = jax.make_jaxpr(traced)(*avals)
    return closed, leaves, out_tree


add = jax.jit(lax.add)
