"""A cursor over a recorded walk back: forwards, backwards, to a node, to a name.

What flows in: a loss, or a function and its arguments. What flows out: a :class:`Stepper`. Read :func:`step`.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from jax.tree_util import keystr, tree_flatten_with_path, tree_structure, tree_unflatten

from twograd import graph
from twograd._arguments import argument_positions
from twograd._files import write_atomically
from twograd.graph.graph import trace_leaves
from twograd.pictures import Picture
from twograd.rules import carries_gradient
from twograd.tape import autograd
from twograd.tape.describe import callers_tensors, line_of, named_tensors
from twograd.tape.modes import enable_grad, granularity, no_grad
from twograd.tape.node import AccumulateGrad, Node
from twograd.tape.picture import Drawer
from twograd.tape.stepper.linked import Linked, linked
from twograd.tape.stepper.page import page
from twograd.tape.stepper.record import Recorder, Step, recorded
from twograd.tape.stepper.show import as_text
from twograd.tape.stepper.terminal import run
from twograd.tape.tensor import Tensor, as_array

MAX_BOXES = 80
"""Of the picture beside a walk, about."""
NO_FUNCTION = (
    "There is no jaxpr beside a loss: the tape knows what was computed, not the function that did it. "
    "tape.step(f, *args) records f and traces it too."
)


class Stepper:
    """A recorded walk back, and a place in it: ``position``, the step that is looked at.

    It is a sequence of :class:`~twograd.tape.stepper.record.Step`; what moves the place returns the Stepper, which
    prints as the step that it is at. ``error`` is what ended the walk early, if so;
    ``linked`` the derivative's jaxpr with its links to the steps, or None, and then ``no_jaxpr`` says why; ``picture``
    the graph as it was before, and ``boxes`` those that stand for each step's op and node.
    It keeps every array alive that it can show.
    """

    def __init__(
        self, title: str, recorder: Recorder, picture: Picture, drawer: Drawer, jaxpr: Linked | None, no_jaxpr: str
    ):
        self.title = title
        self.picture = picture
        self.boxes = [(drawer.key(step.node), drawer.key(step.node, back=True)) for step in recorder.steps]
        self.steps = tuple(recorder.steps)
        self.bytes_at_first = recorder.bytes_at_first
        self.linked, self.no_jaxpr = jaxpr, no_jaxpr
        self.position = 0

    @property
    def current(self) -> Step:
        """The step that is looked at."""
        return self.steps[self.position]

    @property
    def error(self) -> str | None:
        return self.steps[-1].error

    @property
    def grads(self) -> dict[str, Any]:
        """The leaves' ``.grad`` after the walk, as arrays by the leaves' names."""
        return dict(self.steps[-1].grads)

    def next(self) -> "Stepper":
        """One step on; stays at the last."""
        return self.goto(min(self.position + 1, len(self.steps) - 1))

    def back(self) -> "Stepper":
        """One step back; stays at the first."""
        return self.goto(max(self.position - 1, 0))

    def goto(self, where: int | Node | AccumulateGrad | Tensor) -> "Stepper":
        """To the step of this number (negative from the end), of this node, or of the node that made this Tensor.

        Raises IndexError for a number that does not exist, ValueError for a node that was not walked.
        """
        if isinstance(where, int):
            if not -len(self.steps) <= where < len(self.steps):
                raise IndexError(f"there is no step {where}: the walk has {len(self.steps)}, from 0")
            self.position = where % len(self.steps)
            return self
        node = where._edge[0] if isinstance(where, Tensor) and where._edge is not None else where
        for step in self.steps:
            if step.node is node:
                return self.goto(step.index)
        raise ValueError(f"{where!r} was not met on this walk")

    def run_to(self, name: str) -> "Stepper":
        """On to the next step after this one of that name: a leaf's, or the beginning of a node's, in any case, as in
        ``"w"``, ``"mul"``, ``"MulBackward0 #3"``. Raises ValueError, and stays, where none follows."""
        for step in self.steps[self.position + 1 :]:
            if name == step.leaf or step.label.lower().startswith(name.lower()):
                return self.goto(step.index)
        labels = ", ".join(dict.fromkeys(step.name for step in self.steps[self.position + 1 :])) or "none"
        raise ValueError(f"no step after {self.position} is called {name!r}; those that follow: {labels}")

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        return self.steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __repr__(self) -> str:
        return as_text(self, self.current)

    def terminal(self, input: TextIO | None = None, output: TextIO | None = None) -> None:
        """An interactive loop: ``n`` and ``b`` step, ``g`` goes to a number or name, ``q`` ends, ``?`` explains.

        Reads lines from ``input`` (by default standard input) and writes to ``output`` (standard output).
        """
        run(self, input, output)

    @property
    def html(self) -> str:
        """The walk as one page that needs no network: all steps in order; with JavaScript one at a time."""
        return page(self)

    def save(self, path: str | Path) -> Path:
        """Writes :attr:`html` to a file, whole or not at all. Raises ValueError for another type than ``.html``."""
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"{path}: a walk is saved as .html, not as {path.suffix or 'a file of no type'}")
        write_atomically(path, self.html)
        return path


def step(
    target: Tensor | Callable[..., Any],
    *args: Any,
    gradient: Tensor | None = None,
    argnums: int | Sequence[int] | None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
    params: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> Stepper:
    """Walks back from a loss as ``loss.backward()`` does, and records every step of it, to be looked at in any order.

    ``step(loss)`` is ``loss.backward(gradient, retain_graph, create_graph, inputs)``: afterwards the leaves have their
    ``.grad``, and what the graph had saved is freed unless ``retain_graph``. An error in a node does not come out of
    here: it ends the walk, and the last step shows it (``.error``).

    ``step(f, *args)`` records ``f`` itself first, primitive by primitive, and traces it too, so that each step stands
    beside the equations of ``graph.trace(f, *args).gradients()`` that say the same. Leaves are the arrays and numbers
    of floating point in ``args`` (of those at ``argnums`` only), and its Tensors that require a gradient.

    Leaves are named by ``params`` (a dict, or a structure of dicts, lists and tuples), by the arguments' names, or as
    the variables of the calling code are.

    Raises TypeError for what is neither a Tensor nor a function, or does not return one Tensor, and what ``backward``
    raises for its arguments.
    """
    named = {**callers_tensors(), **(named_tensors(params) if params is not None else {})}
    program = None
    if isinstance(target, Tensor):
        if args:
            raise TypeError("step(loss) takes no other positional arguments: the cotangent of the loss is gradient=...")
        loss = target
        title = next((name for name, tensor in named.items() if tensor is loss), "a loss")
    elif callable(target):
        program = _Program(target, args, argnums)
        named.update(program.leaves)
        loss = program.run()
        title = program.name
    else:
        raise TypeError(f"step takes a Tensor, or a function and its arguments; got {type(target).__name__}")

    def walk() -> None:
        autograd.backward(loss, gradient, retain_graph, create_graph, inputs)

    if loss._edge is None:
        walk()  # which says what is wrong with that
    assert loss._edge is not None
    drawer = Drawer([loss], named, MAX_BOXES)
    picture = drawer.picture()
    recorder = Recorder([loss._edge], {id(tensor): name for name, tensor in named.items()}, line_of)
    recorded(recorder, walk)
    found, reason = None, NO_FUNCTION
    if program is not None:
        try:
            found, reason = program.linked(None if gradient is None else gradient._data, recorder.steps), ""
        except Exception as error:  # what runs on values need not trace: the walk is there all the same
            first = str(error).strip().partition("\n")[0]
            reason = f"The function cannot be traced: {type(error).__name__}: {first}"
    return Stepper(title, recorder, picture, drawer, found, reason)


class _Program:
    """A function with its arguments, to be recorded on Tensors and traced on their arrays."""

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], argnums: int | Sequence[int] | None):
        self.f, self.name = f, getattr(f, "__name__", type(f).__name__)
        chosen = range(len(args)) if argnums is None else argument_positions(argnums, len(args))
        self.tree = tree_structure(tuple(args))
        self.values: list[Any] = []
        self.names: list[str] = []  # of the operands: the values that are Tensors
        for i, (arg, name) in enumerate(zip(args, _parameters(f, len(args)), strict=True)):
            for path, leaf in tree_flatten_with_path(arg)[0]:
                value = _operand(leaf, i in chosen)
                self.values.append(value)
                if isinstance(value, Tensor):
                    self.names.append(f"{name}{keystr(path)}")

    @property
    def operands(self) -> list[Tensor]:
        return [value for value in self.values if isinstance(value, Tensor)]

    @property
    def leaves(self) -> dict[str, Tensor]:
        return {name: x for name, x in zip(self.names, self.operands, strict=True) if x.requires_grad}

    def run(self) -> Tensor:
        with enable_grad(), granularity("primitive"):
            loss = self.f(*tree_unflatten(self.tree, self.values))
        if not isinstance(loss, Tensor):
            raise TypeError(f"{self.name} must return one Tensor to be stepped through, not {type(loss).__name__}")
        return loss

    def linked(self, ct: Any, steps: Sequence[Step]) -> Linked:
        """Traces the function as ``graph.trace`` does; or, if it needs a Tensor's methods, on Tensors of tracers."""

        def plainly(*leaves: Any) -> Any:
            return self._call(leaves)

        def on_tensors(*leaves: Any) -> Any:
            with no_grad():
                return self._call(list(map(Tensor, leaves)))._data

        try:
            return self._linked(plainly, ct, steps)
        except Exception:
            return self._linked(on_tensors, ct, steps)

    def _call(self, leaves: Sequence[Any]) -> Any:
        given = iter(leaves)
        values = [next(given) if isinstance(value, Tensor) else value for value in self.values]
        return self.f(*tree_unflatten(self.tree, values))

    def _linked(self, traced: Callable[..., Any], ct: Any, steps: Sequence[Step]) -> Linked:
        operands = self.operands
        closed, shape = trace_leaves(traced, [x._data.aval for x in operands], self.names)
        program = graph.Graph(closed, tree_structure((tuple(operands), {})), tree_structure(shape), self.name)
        wanted = [i for i, x in enumerate(operands) if x.requires_grad]
        return linked(program, [x._data for x in operands], wanted, ct, steps)


def _parameters(f: Callable[..., Any], count: int) -> list[str]:
    """The names of the first ``count`` positional parameters of ``f``."""
    try:
        bound = inspect.signature(f).bind_partial(*range(count))
    except (TypeError, ValueError):
        return [f"args[{i}]" for i in range(count)]
    found = []
    for name, value in bound.arguments.items():
        found += [f"{name}[{i}]" for i in range(len(value))] if isinstance(value, tuple) else [name]
    return found


def _operand(leaf: Any, chosen: bool) -> Any:
    """An argument's leaf as a Tensor, if it is data; an integer, a boolean, a string, None is structure."""
    if isinstance(leaf, Tensor) or leaf is None or isinstance(leaf, (bool, int, str)):
        return leaf
    try:
        array = as_array(leaf)
    except TypeError:
        return leaf
    return Tensor(array, requires_grad=chosen and carries_gradient(array.aval))
