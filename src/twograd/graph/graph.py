"""A traced program that one can hold: run, compile, count, print, and extend by its own derivative.

What flows in: a function and example arguments, to :func:`trace`. What flows out: a :class:`Graph`, around one jaxpr.
Read :meth:`Graph.gradients` first: it is what "symbol-to-symbol" means.
"""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from twograd import rules
from twograd._arguments import argument_positions
from twograd._compat import call_jaxpr, scope_of
from twograd.graph.passes import PassReport, inline, optimize
from twograd.graph.references import without_references
from twograd.graph.text import format_graph
from twograd.graph.transform import backward_pass, forward_pass

Selection = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class GraphStats:
    """What a graph is made of. ``saved_bytes`` are those of the primal values that derivative equations read."""

    equations: int
    derivative_equations: int
    order: int
    saved_values: int
    saved_bytes: int
    primitives: Counter[str]


@dataclass(frozen=True, eq=False)
class Graph:
    """One jaxpr, the structure of its arguments and results, and the reports of the passes that it went through."""

    jaxpr: ClosedJaxpr
    in_tree: Any
    out_tree: Any
    name: str = "graph"
    reports: tuple[PassReport, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Graph {self.name}: {len(self.inputs)} inputs, {len(self.outputs)} outputs, {stats.equations} equations "
            f"({stats.derivative_equations} of derivatives, order {stats.order})>"
        )

    def __str__(self) -> str:
        return self.text()

    @functools.cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, leaf by leaf, such as ``params['w']``."""
        return tuple(self.jaxpr.jaxpr.debug_info.safe_arg_names(len(self.jaxpr.in_avals)))

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, leaf by leaf, such as ``result[0]``."""
        return tuple(self.jaxpr.jaxpr.debug_info.safe_result_paths(len(self.jaxpr.out_avals)))

    # --- running ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self._call)

    def _call(self, *leaves: Any) -> list[Any]:
        return call_jaxpr(self.jaxpr, leaves, self.name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The results on these arguments; compiled at the first call. They must have the traced shapes and dtypes."""
        return tree_unflatten(self.out_tree, self._compiled(*self._leaves(args, kwargs)))

    def backprop(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Evaluates by value, then walks back by value: the gradients of the (scalar) output in all inputs.

        This is the fourth corner: a graph built once, differentiated symbol-to-value, as Caffe and Torch7 do it. No
        equation is added to any graph; each operation is computed as the walk reaches it.
        """
        leaves = self._leaves(args, kwargs)
        wanted = [rules.carries_gradient(aval) for aval in self.jaxpr.in_avals]
        closed = without_references(self.jaxpr)
        outs, applications = forward_pass(closed.jaxpr, closed.consts, leaves, wanted)
        cts = backward_pass(closed.jaxpr, applications, self._seeds(outs, range(len(outs)), None))
        return tuple(
            _zeros(aval) if ct is None and want else ct
            for ct, aval, want in zip(cts, self.jaxpr.in_avals, wanted, strict=True)
        )

    def lower(self) -> jax.stages.Lowered:
        """Lowered to StableHLO for the traced shapes."""
        return self._compiled.lower(*self.jaxpr.in_avals)

    def compile(self) -> jax.stages.Compiled:
        """Compiled by XLA for the traced shapes; takes and returns flat lists of leaves."""
        return self.lower().compile()

    def _leaves(self, args: Any, kwargs: Any) -> list[Any]:
        leaves, tree = tree_flatten((args, kwargs))
        if tree != self.in_tree:
            raise TypeError(f"{self.name} was traced with arguments {self.in_tree}, and called with {tree}")
        for name, leaf, aval in zip(self.inputs, leaves, self.jaxpr.in_avals, strict=True):
            found = jax.typeof(leaf)
            if found.shape != aval.shape or (found.dtype != aval.dtype and not found.weak_type):
                raise TypeError(
                    f"{self.name} was traced with {name}: {aval.str_short()}, and called with {found.str_short()}. "
                    "A graph has fixed shapes and dtypes: trace the function again for others."
                )
        return [jnp.asarray(leaf) for leaf in leaves]

    # --- differentiating ----------------------------------------------------------------------------------------------

    def gradients(self, ys: Selection = None, xs: Selection = None, grad_ys: Sequence[Any] | None = None) -> "Graph":
        """The same graph with equations added that compute the sum of the ``ys``' gradients with respect to the ``xs``.

        Inputs and outputs may be given by index or by name; by default all floating-point ones. The new graph returns
        ``(outputs, gradients)``, a gradient per x. Every added equation carries the scope ``vjp(PRIMITIVE.INDEX)`` of
        the forward equation it comes from, and that equation's source line. Applying this again gives higher orders.
        Calls of jitted functions are inlined first, so that each equation of a body has a number and a derivative.

        ``grad_ys`` are the cotangents of the ys, by default ones for scalars. Raises TypeError for an integer x or y,
        or a y that is not a scalar and has no ``grad_ys``; ValueError for one that does not exist.
        """
        closed, _ = inline(without_references(self.jaxpr))
        y_at = self._select(ys, self.outputs, closed.out_avals, "output")
        x_at = self._select(xs, self.inputs, closed.in_avals, "input")
        if grad_ys is not None and len(grad_ys) != len(y_at):
            raise ValueError(f"grad_ys has {len(grad_ys)} cotangents for {len(y_at)} output(s)")
        wanted = [i in x_at for i in range(len(closed.in_avals))]

        def extended(*args):
            outs, applications = forward_pass(closed.jaxpr, closed.consts, args, wanted)
            in_cts = backward_pass(closed.jaxpr, applications, self._seeds(outs, y_at, grad_ys))
            return outs, [_zeros(closed.in_avals[i]) if in_cts[i] is None else in_cts[i] for i in x_at]

        extended.__name__ = self.name
        out_tree = tree_structure((tree_unflatten(self.out_tree, closed.out_avals), [0] * len(x_at)))
        return self._replaced(_retrace(extended, closed, self.inputs), out_tree)

    def value_and_grad(self, argnums: int | Sequence[int] = 0) -> "Graph":
        """The graph of ``(value, gradient)`` of a scalar program, in the structure of ``jax.value_and_grad``."""
        arguments, _ = tree_unflatten(self.in_tree, range(len(self.inputs)))
        if len(self.outputs) != 1:
            raise TypeError(f"{self.name} has {len(self.outputs)} outputs, not one: use gradients, which says which")
        chosen = [arguments[i] for i in argument_positions(argnums, len(arguments))]
        leaves, tree = tree_flatten(chosen[0] if isinstance(argnums, int) else tuple(chosen))
        derivative = self.gradients(xs=leaves)
        value = tree_unflatten(self.out_tree, self.outputs)
        return self._replaced(derivative.jaxpr, tree_structure((value, tree_unflatten(tree, leaves))))

    def _seeds(self, outs: Sequence[Any], y_at: Sequence[int], grad_ys: Sequence[Any] | None) -> list[Any]:
        """The cotangents of all outputs: those given, or ones, for the ys, and None for the others."""
        seeds: list[Any] = [None] * len(outs)
        for position, i in enumerate(y_at):
            aval = self.jaxpr.out_avals[i]
            if grad_ys is not None:
                seeds[i] = lax.convert_element_type(grad_ys[position], aval.dtype)
            elif aval.shape == ():
                seeds[i] = lax.full((), 1, aval.dtype)
            else:
                raise TypeError(
                    f"the output {self.outputs[i]} is {aval.str_short()}, not a scalar: give its cotangent in grad_ys"
                )
        return seeds

    def _select(self, chosen: Selection, names: Sequence[str], avals: Sequence[Any], kind: str) -> list[int]:
        if chosen is None:
            return [i for i, aval in enumerate(avals) if rules.carries_gradient(aval)]
        indices = []
        for item in [chosen] if isinstance(chosen, (int, str)) else chosen:
            if isinstance(item, str) and item not in names:
                raise ValueError(f"{self.name} has no {kind} {item!r}; it has {', '.join(names)}")
            index = names.index(item) if isinstance(item, str) else item
            if not -len(names) <= index < len(names):
                raise ValueError(f"{self.name} has no {kind} {index}; it has {len(names)}")
            if not rules.carries_gradient(avals[index]):
                raise TypeError(f"the {kind} {names[index]} has dtype {avals[index].dtype}: it has no derivative")
            indices.append(index % len(names))
        return indices

    # --- rewriting and showing ----------------------------------------------------------------------------------------

    def optimize(
        self, *passes: Callable[[ClosedJaxpr], tuple[ClosedJaxpr, PassReport]], check: bool = False
    ) -> "Graph":
        """The graph after the given passes (by default all of them, repeated until nothing changes).

        The new graph's ``reports`` say what each pass removed. With ``check`` each pass is tried on random inputs and
        must not change the results.
        """
        closed, reports = optimize(self.jaxpr, passes, check=check)
        return self._replaced(closed, self.out_tree, (*self.reports, *reports))

    def _replaced(self, closed: ClosedJaxpr, out_tree: Any, reports: tuple[PassReport, ...] | None = None) -> "Graph":
        return Graph(closed, self.in_tree, out_tree, self.name, self.reports if reports is None else reports)

    def stats(self) -> GraphStats:
        """Counts of equations and of the values that the derivative keeps from the primal program."""
        made_by: dict[Any, int] = {}
        saved: dict[Any, int] = {}
        orders = [derivative_order(eqn) for eqn in self.jaxpr.eqns]
        for eqn, order in zip(self.jaxpr.eqns, orders, strict=True):
            for atom in eqn.invars:
                if order and not isinstance(atom, Literal) and made_by.get(atom, 0) < order:
                    saved[atom] = atom.aval.size * atom.aval.dtype.itemsize
            made_by.update(dict.fromkeys(eqn.outvars, order))
        return GraphStats(
            equations=len(orders),
            derivative_equations=sum(order > 0 for order in orders),
            order=max(orders, default=0),
            saved_values=len(saved),
            saved_bytes=sum(saved.values()),
            primitives=Counter(eqn.primitive.name for eqn in self.jaxpr.eqns),
        )

    def text(self, provenance: bool = True) -> str:
        """The jaxpr as text; with ``provenance``, each line ends with where it comes from."""
        return format_graph(self.jaxpr, self.inputs, self.name, provenance)


def trace(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Graph:
    """Traces ``f`` on arguments of these shapes and dtypes (arrays or ``jax.ShapeDtypeStruct``) to a :class:`Graph`."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args, **kwargs)
    name = getattr(f, "__name__", type(f).__name__)
    return Graph(closed, tree_structure((args, kwargs)), tree_structure(shape), name)


def derivative_order(eqn: Any) -> int:
    """How many derivatives were taken to arrive at this equation; 0 for one of the program itself."""
    return sum(scope.startswith("vjp(") for scope in scope_of(eqn))


def _retrace(f: Callable[..., Any], closed: ClosedJaxpr, names: Sequence[str]) -> ClosedJaxpr:
    """``f``, a function of the leaves of ``closed``, as a jaxpr whose inputs keep their names."""
    extended = jax.make_jaxpr(f)(*closed.in_avals)
    info = extended.jaxpr.debug_info._replace(arg_names=tuple(names))
    return extended.replace(jaxpr=extended.jaxpr.replace(debug_info=info))


def _zeros(aval: Any) -> Any:
    return lax.full(aval.shape, np.zeros((), aval.dtype))
