"""A traced program that one can hold: run, compile, count, print, and extend by its own derivative.

What flows in: a function and example arguments, to :func:`trace`. What flows out: a :class:`Graph`, around one jaxpr.
Read :meth:`Graph.gradients` first: it is what "symbol-to-symbol" means.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten, treedef_tuple

from twograd import _trees
from twograd._arguments import argument_positions, check_arrays, check_callable
from twograd._compat import call_jaxpr, check_leaks
from twograd.graph.advice import explaining
from twograd.graph.draw import DEPTH, MAX_NODES, picture_of
from twograd.graph.export import export_graph
from twograd.graph.gradients import Disconnected, Names, Question, Selection, Unconnected, question
from twograd.graph.parse import parse as read
from twograd.graph.passes import PassReport, optimize
from twograd.graph.passes.report import derivative_order
from twograd.graph.references import without_references
from twograd.graph.strip import default_outputs, freeze, part_named, strip, subtree, without_leaves
from twograd.graph.text import default_names, format_graph
from twograd.pictures import Drawing, Engine, Picture

NOTEBOOK_NODES = 80
"""Drawn without being asked for, a picture must not take long."""


@dataclass(frozen=True)
class GraphStats:
    """What a graph is made of: ``equations``, calls counted as one, and how many of them are of derivatives.

    ``order`` is that of the highest derivative. ``saved_values`` and ``saved_bytes`` are those of the primal values
    that derivative equations read.
    """

    equations: int
    derivative_equations: int
    order: int
    saved_values: int
    saved_bytes: int
    primitives: Counter[str]


@dataclass(frozen=True, eq=False)
class Graph:
    """One jaxpr, the structure of its arguments and results, and the reports of the passes that it went through.

    :func:`trace` makes one. It never changes: methods that rewrite return another. ``jaxpr`` is what passes take.
    """

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

    @property
    def result_names(self) -> list[str]:
        """Where each output stands in what :meth:`run` returns, such as ``result[1]['w']``."""
        return list(default_names(self.out_tree))

    # --- running ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        return jax.jit(self._call)

    def _call(self, *leaves: Any) -> list[Any]:
        return call_jaxpr(self.jaxpr, leaves, self.name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The results on these arguments; compiled at the first call.

        Raises TypeError for arguments of another structure, shape or dtype than the traced ones.
        """
        return tree_unflatten(self.out_tree, self._compiled(*self._leaves(args, kwargs)))

    def backprop(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        """:func:`backprop` on these arguments: ``(outputs, gradients)``, as :meth:`gradients` has them, by value."""
        outs, gradients = self.question().answer(self._leaves(args, kwargs))
        return tree_unflatten(self.out_tree, outs), gradients

    def question(self, *selection: Any, **options: Any) -> Question:
        """What :meth:`gradients` answers by equations and :func:`backprop` by value, with the arguments of the former.

        It is found once for names, numbers and tuples of them, and anew for what cannot be hashed.
        """
        names = Names(self.name, without_references(self.jaxpr), self.inputs, self.outputs)
        key = (selection, *sorted(options.items()))
        try:
            if key not in self._questions:
                self._questions[key] = question(names, *selection, **options)
        except TypeError:
            return question(names, *selection, **options)
        return self._questions[key]

    @functools.cached_property
    def _questions(self) -> dict[Any, Question]:
        return {}

    def lower(self) -> jax.stages.Lowered:
        """Lowered to StableHLO for the traced shapes."""
        return self._compiled.lower(*self.jaxpr.in_avals)

    def compile(self) -> jax.stages.Compiled:
        """Compiled by XLA for the traced shapes; takes and returns flat lists of leaves."""
        return self.lower().compile()

    def _leaves(self, args: Any, kwargs: Any) -> list[Any]:
        leaves, tree = tree_flatten((args, kwargs))
        if tree != self.in_tree:
            traced, called = (_trees.shown(_trees.to_plain(structure)) for structure in (self.in_tree, tree))
            raise TypeError(
                f"{self.name} was traced with the inputs {', '.join(self.inputs)}, in the structure {traced} of (args, "
                f"kwargs), and called with {called}"
            )
        return [self._fitting(*item) for item in zip(self.inputs, leaves, self.jaxpr.in_avals, strict=True)]

    def _fitting(self, name: str, leaf: Any, aval: Any) -> Any:
        """``leaf`` as an array, if it is one that may stand for the input ``name``."""
        try:
            found = jax.typeof(leaf)
        except TypeError:
            raise TypeError(
                f"{self.name} was traced with {name}: {aval.str_short()}, and called with {type(leaf).__name__}: "
                f"{leaf!r}"
            ) from None
        if found.shape != aval.shape or (found.dtype != aval.dtype and not found.weak_type):
            raise TypeError(
                f"{self.name} was traced with {name}: {aval.str_short()}, and called with {found.str_short()}. "
                "A graph has fixed shapes and dtypes: trace the function again for others."
            )
        return jnp.asarray(leaf, aval.dtype) if found.dtype != aval.dtype else jnp.asarray(leaf)

    # --- differentiating ----------------------------------------------------------------------------------------------

    def gradients(
        self,
        ys: Selection = None,
        xs: Selection = None,
        grad_ys: Any = None,
        stop_gradients: Selection = (),
        unconnected_gradients: Unconnected = "zero",
        *,
        consider_constant: Selection = (),
        known_grads: Mapping[int | str, Any] | None = None,
        disconnected_inputs: Disconnected = "ignore",
    ) -> "Graph":
        """The same graph with equations added that compute the sum of the ``ys``' gradients with respect to the ``xs``.

        By default the ys are all floating-point outputs and the xs all such inputs. The new graph returns
        ``(outputs, gradients)``, a gradient per x. Every added equation carries the scope ``vjp(PRIMITIVE.INDEX)`` of
        the forward equation it comes from, and that equation's source line. Applying this again gives higher orders.
        Calls of jitted functions are inlined first, so that each equation of a body has a number and a derivative.

        A value is chosen by index (among the outputs for a y, else among the inputs) or by name: that of an input or
        output, one given by ``jax.ad_checkpoint.checkpoint_name``, or, for the result of an equation, its primitive and
        number in the graph's text, ``sin.3`` (``sort.5:1`` for the second of several).

        - ``grad_ys``: the cotangents of the ys, arrays of their shapes or names of values of the graph, in a list where
          there are several; None, and all by default, is 1 for a scalar.
        - ``stop_gradients`` (TensorFlow's name) and ``consider_constant`` (Theano's): values that are taken for
          constants. No cotangent is led past them; where one is an x, its own gradient is found all the same.
        - ``known_grads``: the gradients of some values, as for ``grad_ys``. They replace what would arrive there, and
          are led on. With ``ys=()`` they are all that there is.
        - ``unconnected_gradients``: what stands for the gradient of an x that no y depends on, ``"zero"`` or
          ``"none"``, which is None in the results.
        - ``disconnected_inputs``: whether such an x is an error (:class:`DisconnectedInput`), a warning, or neither.

        Raises TypeError for an integer x or y, a y that is not a scalar and has no cotangent, and a cotangent of
        another shape; ValueError for a value that does not exist.
        """
        asked = self.question(
            ys,
            xs,
            grad_ys,
            stop_gradients,
            unconnected_gradients,
            consider_constant=consider_constant,
            known_grads=known_grads,
            disconnected_inputs=disconnected_inputs,
        )

        def extended(*args):
            return asked.answer(args)

        extended.__name__ = self.name
        closed, shape = trace_leaves(extended, self.jaxpr.in_avals, self.inputs)
        out_tree = tree_structure((tree_unflatten(self.out_tree, self.outputs), shape[1]))
        return self._replaced(named_results(closed, out_tree), out_tree)

    def value_and_grad(self, argnums: int | Sequence[int] = 0) -> "Graph":
        """The graph of ``(value, gradient)`` of a scalar program, in the structure of ``jax.value_and_grad``.

        Raises TypeError where there are several outputs, or one that is no scalar; ValueError for ``argnums`` that are
        no positional arguments.
        """
        arguments, _ = tree_unflatten(self.in_tree, range(len(self.inputs)))
        if len(self.outputs) != 1:
            raise TypeError(f"{self.name} has {len(self.outputs)} outputs, not one: use gradients, which says which")
        chosen = [arguments[i] for i in argument_positions(argnums, len(arguments))]
        leaves, tree = tree_flatten(chosen[0] if isinstance(argnums, int) else tuple(chosen))
        derivative = self.gradients(xs=leaves)
        value = tree_unflatten(self.out_tree, self.outputs)
        out_tree = tree_structure((value, tree_unflatten(tree, leaves)))
        return self._replaced(named_results(derivative.jaxpr, out_tree), out_tree)

    def _output(self, item: int | str) -> tuple[Sequence[int], Any]:
        """The numbers of the outputs that ``item`` stands for, and their structure."""
        part = None if item in self.outputs else part_named(self.out_tree, item)
        return part or ([self._index(item, self.outputs, "output")], tree_structure(0))

    def _index(self, item: int | str, names: Sequence[str], kind: str) -> int:
        if not isinstance(item, (Integral, str)):
            raise TypeError(f"an {kind} of {self.name} is chosen by its index or its name, not by {item!r}")
        if isinstance(item, str) and item not in names:
            raise ValueError(f"{self.name} has no {kind} {item!r}; it has {', '.join(names)}")
        index = names.index(item) if isinstance(item, str) else item
        if not -len(names) <= index < len(names):
            raise ValueError(f"{self.name} has no {kind} {index}; it has {len(names)}")
        return index % len(names)

    # --- deploying ----------------------------------------------------------------------------------------------------

    def strip(self, outputs: Selection = None, check: bool = True) -> "Graph":
        """The graph that is deployed: what the ``outputs`` need, without training equations.

        ``outputs`` are indices or names; one alone is returned as it is, several as a tuple. A name may be that of a
        part of the results: ``result['metrics']`` stands for ``result['metrics']['loss']`` and what else is there. By
        default they are all that no derivative flows into, so ``g.gradients().strip()`` is ``g`` again. Inputs that are
        not needed any more go: an argument of which nothing is needed altogether, else a leaf becomes None in its
        argument.

        The new graph's last report, a ``StripReport``, says what went and why; with ``check`` it also holds that on
        random inputs the outputs are equal to the last bit (StripError where they are not). Raises ValueError for an
        output that does not exist.
        """
        if outputs is None:
            keep = default_outputs(self.jaxpr)
            out_tree = subtree(self.out_tree, keep)
        else:
            chosen = [self._output(item) for item in _listed(outputs)]
            if not chosen:
                raise ValueError(f"strip: say which outputs of {self.name} to keep; it has {', '.join(self.outputs)}")
            keep = [index for indices, _ in chosen for index in indices]
            out_tree = chosen[0][1] if isinstance(outputs, (int, str)) else treedef_tuple([tree for _, tree in chosen])
        closed, kept, report = strip(self.jaxpr, keep, self.inputs, self.outputs, check)
        return Graph(closed, without_leaves(self.in_tree, kept), out_tree, self.name, (*self.reports, report))

    def freeze(self, values: Mapping[int | str, Any]) -> "Graph":
        """The graph with some inputs fixed to ``values``, and with what follows from constants alone computed now.

        A key is the index or name of an input (``"params['w']"``), or the name of an argument (``"params"``), whose
        value is then a pytree of the traced structure. Frozen inputs go as unneeded ones do in :meth:`strip`. Raises
        ValueError for an input that does not exist, TypeError for a value of another structure, shape or dtype.
        """
        fixed = self._fixed(values)
        closed, report = freeze(self.jaxpr, fixed)
        rest = [i for i in range(len(self.inputs)) if i not in fixed]
        return Graph(closed, without_leaves(self.in_tree, rest), self.out_tree, self.name, (*self.reports, report))

    def _fixed(self, values: Mapping[int | str, Any]) -> dict[int, Any]:
        """The value of each input that ``values`` names, checked."""
        if not isinstance(values, Mapping):
            raise TypeError(
                f"freeze takes a mapping of inputs to values, got {type(values).__name__}: {self.name} has the inputs "
                f"{', '.join(self.inputs)}"
            )
        fixed: dict[int, Any] = {}
        for key, value in values.items():
            argument = next((item for item in self._arguments() if item[0] == key and key not in self.inputs), None)
            if argument is None:
                indices, leaves = [self._index(key, self.inputs, "input")], [value]
            else:
                _, indices, expected = argument
                leaves, tree = tree_flatten(value)
                if tree != expected:
                    raise TypeError(f"{self.name} was traced with {key} of structure {expected}, not {tree}")
            for index, leaf in zip(indices, leaves, strict=True):
                fixed[index] = self._fitting(self.inputs[index], leaf, self.jaxpr.in_avals[index])
        return fixed

    def _arguments(self) -> Iterator[tuple[str, list[int], Any]]:
        """Of each argument the name (that of its leaves, before their path), the positions of its leaves, its tree."""
        args, kwargs = tree_unflatten(self.in_tree, range(len(self.inputs)))
        for argument in (*args, *kwargs.values()):
            indices, tree = tree_flatten(argument)
            if indices:
                yield re.split(r"[\[.]", self.inputs[indices[0]], maxsplit=1)[0], indices, tree

    def export(self, path: str | Path, platforms: Sequence[str] | None = None) -> dict[str, Any]:
        """Writes the graph as StableHLO to the file ``path``, for :func:`twograd.graph.load`; returns the manifest.

        ``platforms`` are some of ``"cpu"``, ``"cuda"``, ``"rocm"`` and ``"tpu"``, by default the one at hand. The file
        holds no derivative (``vjp_order`` is 0). Containers of other libraries among the arguments and results
        (modules, states) become tuples of their children. Raises ExportError for a program that has no StableHLO of
        its own, as one that calls back into Python, and for a path that cannot be written; ValueError for other
        platforms.
        """
        return export_graph(path, self, platforms)

    # --- rewriting and showing ----------------------------------------------------------------------------------------

    def optimize(
        self, *passes: Callable[[ClosedJaxpr], tuple[ClosedJaxpr, PassReport]], check: bool = False
    ) -> "Graph":
        """The graph after the given passes (by default all of them, repeated until nothing changes).

        The new graph's ``reports`` say what each pass removed. With ``check`` each pass is tried on random inputs and
        must not change the results. Raises TypeError for what is no pass, PassError, naming the pass, where one changes
        types or, with ``check``, values.
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
        """The jaxpr as text, which :func:`parse` reads; with ``provenance``, lines end with where they come from."""
        return format_graph(self, provenance)

    def draw(
        self,
        path: str | Path | None = None,
        *,
        engine: Engine = "own",
        max_nodes: int = MAX_NODES,
        depth: int = DEPTH,
    ) -> Drawing:
        """The graph as a picture: the program, beside it its derivatives, and what is saved for them crossing over.

        A colour is a line of the user's program; an equation of a derivative has the colour of the line, and names the
        equation, that it comes from. Bodies of scan, cond, jit and others are drawn in their equation's box, ``depth``
        deep, while there is room. What is more than ``max_nodes`` nodes is folded (:func:`twograd.graph.draw.folded`).

        ``engine="own"`` needs nothing and draws the same bytes everywhere; ``"dot"`` is Graphviz's program. With a
        ``path`` the picture is saved there (see :meth:`twograd.pictures.Drawing.save`).
        """
        drawing = Drawing(self._picture(max_nodes, depth), engine)
        if path is not None:
            drawing.save(path)
        return drawing

    def _picture(self, max_nodes: int, depth: int) -> Picture:
        stats = self.stats()
        about = f"{stats.equations} equations"
        if stats.order:
            about += (
                f", {stats.derivative_equations} of them of derivatives. Saved for these: {stats.saved_values} values, "
                f"{stats.saved_bytes:,} bytes"
            )
        return picture_of(self.jaxpr, self.inputs, self.result_names, self.name, about + ".", max_nodes, depth)

    def _repr_html_(self) -> str:
        """The picture, for notebooks; it scrolls where it is larger than the page."""
        return f'<div style="overflow:auto;max-height:60em">{self.draw(max_nodes=NOTEBOOK_NODES).svg}</div>'


def trace(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Graph:
    """Traces ``f`` on arguments of these shapes and dtypes to a :class:`Graph`.

    Arguments are pytrees of arrays, numbers or ``jax.ShapeDtypeStruct``; only their shapes and dtypes matter. ``f`` is
    called once, with tracers, and returns a pytree of arrays.

    Raises TypeError for what is no function or no array. What JAX raises for a function that cannot be traced (a branch
    on a value, a conversion to a number, a leaked tracer) has a note of the user's line and the form that can be.
    """
    check_callable(f, "trace")
    with explaining(f):
        try:
            closed, shape = jax.make_jaxpr(f, return_shape=True)(*args, **kwargs)
        except TypeError:
            check_arrays(args, kwargs, "trace")
            raise
        check_leaks(closed.consts)
    name = getattr(f, "__name__", type(f).__name__)
    return Graph(closed, tree_structure((args, kwargs)), tree_structure(shape), name)


def parse(text: str, constants: Iterable[Any] = ()) -> Graph:
    """The graph that a text says: ``str(parse(str(g))) == str(g)``.

    Arrays of more than 64 elements are in a text by their SHA-256 only; ``constants`` are these, in any order, such as
    ``g.jaxpr.consts``. The rules of ``custom_jvp`` and ``custom_vjp`` calls are in a text as jaxprs. It cannot hold
    those that ask which tangents are zero, close over values of the trace, or call a function with another rule, and so
    on without end.

    Raises TypeError for what is no text; ParseError, naming line and column, for what is no program, and for what no
    text can hold: Python functions (callbacks, a checkpoint's policy that is not of ``jax.checkpoint_policies``),
    devices and meshes.
    """
    if not isinstance(text, str):
        raise TypeError(f"parse takes the text of a graph, str(g), got {type(text).__name__}")
    if not isinstance(constants, Iterable):
        raise TypeError(f"parse: constants are arrays, such as g.jaxpr.consts, got {constants!r}")
    name, closed, in_tree, out_tree = read(text, constants)
    return Graph(closed, in_tree, out_tree, name)


def check_graph(g: Any, who: str) -> None:
    """Raises TypeError unless ``g`` is a :class:`Graph`."""
    if not isinstance(g, Graph):
        raise TypeError(f"{who} takes a Graph, got {type(g).__name__}: make one of a function by graph.trace(f, *args)")


def gradients(g: Graph, *selection: Any, **options: Any) -> Graph:
    """``g`` with the equations of a derivative added: :meth:`Graph.gradients`, which explains the arguments."""
    check_graph(g, "gradients")
    return g.gradients(*selection, **options)


def backprop(
    g: Graph, values: Sequence[Any] | Mapping[str, Any], *selection: Any, **options: Any
) -> tuple[Any, list[Any]]:
    """Evaluates ``g`` by value, then walks back by value: ``(outputs, gradients)``, a gradient per x.

    This is the fourth corner: a graph built once, differentiated symbol-to-value, as Caffe and Torch7 do it. No
    equation is added to any graph. Each operation is computed as the walk reaches it; what the rules name is kept, and
    let go as soon as its equation has been walked back.

    ``values`` are the arguments, of the traced shapes and dtypes, in a list, or its inputs by their names. The rest is
    as for :meth:`Graph.gradients`, and so are the errors; TypeError, too, for values that ``g`` was not traced with.
    """
    check_graph(g, "backprop")
    if isinstance(values, Mapping):
        if set(values) != set(g.inputs):
            raise ValueError(f"{g.name} has the inputs {', '.join(g.inputs)}; given are {', '.join(map(str, values))}")
        args, kwargs = tree_unflatten(g.in_tree, [values[name] for name in g.inputs])
    elif isinstance(values, Sequence):
        args, kwargs = tuple(values), {}
    else:
        raise TypeError(f"backprop takes the arguments of {g.name} in a list, or by name, got {type(values).__name__}")
    leaves = g._leaves(args, kwargs)
    outs, gradients = g.question(*selection, **options).answer(leaves)
    return tree_unflatten(g.out_tree, outs), gradients


def trace_leaves(f: Callable[..., Any], avals: Sequence[Any], names: Sequence[str]) -> tuple[ClosedJaxpr, Any]:
    """``f``, of leaves of these types, as a jaxpr whose inputs have these names; and the types of its results."""
    extended, shape = jax.make_jaxpr(f, return_shape=True)(*avals)
    info = extended.jaxpr.debug_info._replace(arg_names=tuple(names))
    return extended.replace(jaxpr=extended.jaxpr.replace(debug_info=info)), shape


def named_results(closed: ClosedJaxpr, out_tree: Any) -> ClosedJaxpr:
    """``closed`` with the names of its results' places in the structure ``out_tree``, such as ``result[0]['loss']``."""
    info = closed.jaxpr.debug_info._replace(result_paths=default_names(out_tree))
    return closed.replace(jaxpr=closed.jaxpr.replace(debug_info=info))


def _listed(chosen: int | str | Sequence[int | str]) -> Sequence[int | str]:
    return chosen if isinstance(chosen, Iterable) and not isinstance(chosen, str) else [chosen]
