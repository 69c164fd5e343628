"""The protocol of a module, and what fulfils it for a function.

What flows in: an input, and later a gradOutput. What flows out: buffers, written over each time. Read :class:`Module`,
then :class:`Layer`.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from twograd.errors import TwogradError
from twograd.fronts.kernel import Kernel, kernel_of, numbers

generator = np.random.default_rng(0)


def manualSeed(seed: int) -> None:
    """Seeds what draws initial weights, dropout and the order of training."""
    generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


class OtherInput(TwogradError, ValueError):
    """A guarded module's backward would read something else than what its last forward has left for it."""


def empty() -> np.ndarray:
    return np.empty(0, np.float32)


def into(buffer: Any, value: Any) -> Any:
    """``buffer`` with the contents of ``value``, a table element by element; another where its shape does not fit."""
    if isinstance(value, (list, tuple)):
        old = buffer if isinstance(buffer, list) and len(buffer) == len(value) else [empty() for _ in value]
        return table(old, [into(*pair) for pair in zip(old, value, strict=True)])
    value = np.asarray(value)
    if not isinstance(buffer, np.ndarray) or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
        return np.array(value)
    np.copyto(buffer, value)
    return buffer


def table(buffer: Any, items: list[Any]) -> list[Any]:
    """The same list as before with these items, where there was one."""
    if not isinstance(buffer, list):
        return items
    buffer[:] = items
    return buffer


class Module:
    """What all modules do.

    ``output`` and ``gradInput`` are buffers: each forward and backward writes over them, so they are the same objects
    as long as the shapes are the same. ``backward`` takes for granted that ``forward`` was called before with the same
    input: it reads what that has left. With another input its gradients are wrong, and no error says so, unless
    :meth:`guard` was called.
    """

    def __init__(self) -> None:
        self.output: Any = empty()
        self.gradInput: Any = empty()
        self.train = True

    def __repr__(self) -> str:
        return f"nn.{' -> '.join(type(layer).__name__ for layer in self.layers())}"

    def forward(self, input: Any) -> Any:
        """:meth:`updateOutput`: the output for ``input``."""
        return self.updateOutput(input)

    def backward(self, input: Any, gradOutput: Any, scale: float = 1.0) -> Any:
        """``gradInput`` from ``gradOutput``, and ``scale`` times the gradients of the parameters, added to theirs."""
        self.updateGradInput(input, gradOutput)
        self.accGradParameters(input, gradOutput, scale)
        return self.gradInput

    def updateOutput(self, input: Any) -> Any:
        raise NotImplementedError

    def updateGradInput(self, input: Any, gradOutput: Any) -> Any:
        raise NotImplementedError

    def accGradParameters(self, input: Any, gradOutput: Any, scale: float = 1.0) -> None:
        """Adds ``scale`` times the gradients of the parameters to their buffers; nothing where there are none."""

    def accUpdateGradParameters(self, input: Any, gradOutput: Any, lr: float) -> None:
        """Takes ``lr`` times the gradients from the parameters at once, without adding them up before."""

    def parameters(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The parameters and their gradients. One that several modules share is listed once for each of them."""
        owned = [(m.tensors[name], m.gradients[name]) for m in self.layers() for name in m.tensors]
        return [tensor for tensor, _ in owned], [gradient for _, gradient in owned]

    def layers(self) -> Iterator["Layer"]:
        """The layers of which the module is made, in order."""
        return (module for module in self.listModules() if isinstance(module, Layer))

    def listModules(self) -> Iterator["Module"]:
        """The module, and all that it contains."""
        yield self

    def zeroGradParameters(self) -> None:
        for gradient in self.parameters()[1]:
            gradient.fill(0)

    def updateParameters(self, learningRate: float) -> None:
        """``parameter -= learningRate * gradient``, for each that :meth:`parameters` lists: for a shared one again."""
        for tensor, gradient in zip(*self.parameters(), strict=True):
            tensor -= tensor.dtype.type(learningRate) * gradient

    def getParameters(self) -> tuple[np.ndarray, np.ndarray]:
        """All parameters in one vector, and all gradients in another; each parameter becomes a view of it.

        Call it once: a second call moves the parameters again, and the vectors of the first refer to them no more.
        Raises AssertionError where parameters share elements in another way than their gradients do.
        """
        tensors, gradients = self.parameters()
        flat, views = _flattened(tensors)
        flat_gradient, gradient_views = _flattened(gradients)
        assert len(flat) == len(flat_gradient), "check that you are sharing parameters and gradParameters"
        for i, places in enumerate(zip(views, gradient_views, strict=True)):
            assert places[0][0] == places[1][0], f"misaligned parameter at {i}"
        moved = iter(zip(views, gradient_views, strict=True))
        for module in self.layers():
            for name in module.tensors:
                (_, module.tensors[name]), (_, module.gradients[name]) = next(moved)
        return flat, flat_gradient

    def share(self, other: "Module", *names: str) -> "Module":
        """Takes from ``other``, of the same structure, the tensors of these names: ``"weight", "gradWeight"`` ..."""
        pairs = list(self.layers()), list(other.layers())
        if [type(layer) for layer in pairs[0]] != [type(layer) for layer in pairs[1]]:
            raise ValueError(f"share: {self!r} and {other!r} are not made of the same layers")
        for mine, theirs in zip(*pairs, strict=True):
            for name in names:
                found, key = theirs.named(name)
                if key in found and key in mine.tensors:
                    mine.named(name)[0][key] = found[key]
        return self

    def clone(self, *names: str) -> "Module":
        """A copy with contents of its own, except that it shares the tensors of these names."""
        twin = copy.deepcopy(self)
        return twin.share(self, *names)

    def training(self) -> None:
        for module in self.listModules():
            module.train = True

    def evaluate(self) -> None:
        """From now on as in use: dropout passes its input on."""
        for module in self.listModules():
            module.train = False

    def guard(self, on: bool = True) -> "Module":
        """With a guard, what backward will read is compared with what forward saw: OtherInput where it differs."""
        for module in self.layers():
            module.guarded = on
        return self

    def clearState(self) -> "Module":
        """Frees the buffers; parameters and their gradients stay."""
        for module in self.listModules():
            module.output, module.gradInput = empty(), empty()
        for layer in self.layers():
            layer.forget()
        return self

    def type(self, dtype: Any) -> "Module":
        """Converts the parameters; floating-point inputs are converted to ``dtype`` from then on.

        What is shared stays so. Views of a vector of :meth:`getParameters` do not: call that afterwards.
        """
        converted: dict[int, np.ndarray] = {}
        for layer in self.layers():
            layer.dtype = np.dtype(dtype)
            for store in (layer.tensors, layer.gradients):
                for name, tensor in store.items():
                    store[name] = converted.setdefault(id(tensor), tensor.astype(dtype))
        return self.clearState()


def _flattened(tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """One vector of all elements, each once, and for each tensor where it begins there and the view that it becomes.

    Elements stand in the order of their first tensor; equal tensors become the same view.
    """
    if not tensors:
        return empty(), []
    addresses = np.concatenate([_addresses(tensor) for tensor in tensors])
    unique, first, inverse = np.unique(addresses, return_index=True, return_inverse=True)
    order = np.empty(len(unique), np.int64)
    order[np.argsort(first)] = np.arange(len(unique))
    places = order[inverse]
    flat = np.empty(len(unique), tensors[0].dtype)
    found, views, start = {}, [], 0
    for i, tensor in enumerate(tensors):
        place = places[start : start + tensor.size]
        start += tensor.size
        begin = int(place[0]) if tensor.size else 0
        assert np.array_equal(place, np.arange(begin, begin + tensor.size)), f"misaligned parameter at {i}"
        view = flat[begin : begin + tensor.size].reshape(tensor.shape)
        np.copyto(view, tensor)
        views.append((begin, found.setdefault((begin, tensor.shape), view)))
    return flat, views


def _addresses(tensor: np.ndarray) -> np.ndarray:
    """Where in memory each element is."""
    at = np.asarray(tensor.__array_interface__["data"][0])
    for size, stride in zip(tensor.shape, tensor.strides, strict=True):
        at = at[..., None] + np.arange(size) * stride
    return at.reshape(-1)


class Layer(Module):
    """A module that computes ``function(input, *parameters, **options)``, and its derivative by the table of rules.

    ``tensors`` are its parameters by name, ``gradients`` theirs; ``layer.weight`` and ``layer.gradWeight`` are among
    them.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, shapes: Mapping[str, Sequence[int]] | None = None, fan_in: int = 1, **options: Any):
        super().__init__()
        self.options, self.guarded, self.dtype = options, False, np.dtype(np.float32)
        self.tensors = {name: np.zeros(shape, self.dtype) for name, shape in (shapes or {}).items()}
        self.gradients = {name: np.zeros_like(tensor) for name, tensor in self.tensors.items()}
        self.forget()
        self.reset(1 / math.sqrt(fan_in))

    def reset(self, stdv: float) -> None:
        """Draws the parameters uniformly from -stdv to stdv."""
        for tensor in self.tensors.values():
            tensor[...] = generator.uniform(-stdv, stdv, tensor.shape)

    def forget(self) -> None:
        """Lets go what forward has kept."""
        self.kernel: Kernel | None = None
        self.own: list[np.ndarray] = []
        self._seen: list[np.ndarray] = []

    def named(self, name: str) -> tuple[dict[str, np.ndarray], str]:
        """Where the tensor ``weight`` or ``gradWeight`` is kept, and by which key."""
        if name.startswith("grad"):
            return self.gradients, name[4:5].lower() + name[5:]
        return self.tensors, name

    def __getattr__(self, name: str) -> np.ndarray:
        found, key = Layer.named(self, name) if "gradients" in self.__dict__ else ({}, name)
        if key not in found:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return found[key]

    def __setattr__(self, name: str, value: Any) -> None:
        if "gradients" in self.__dict__:
            found, key = self.named(name)
            if key in found:
                found[key] = self._fitting(name, found[key], value)
                return
        super().__setattr__(name, value)

    def _fitting(self, name: str, old: np.ndarray, new: Any) -> np.ndarray:
        if not isinstance(new, np.ndarray) or new.shape != old.shape or not new.flags.writeable:
            found = f"of size {list(new.shape)}" if isinstance(new, np.ndarray) else type(new).__name__
            raise TypeError(
                f"{type(self).__name__}.{name} is a NumPy array of size {list(old.shape)} that can be written to; got "
                f"{found}. To copy numbers into it, write layer.{name}[...] = numbers"
            )
        return new

    def arguments(self, input: Any) -> list[Any]:
        """What ``function`` is called with before its parameters."""
        return [tree_map(self._converted, list(input) if isinstance(input, tuple) else input)]

    def _converted(self, leaf: Any) -> np.ndarray:
        leaf = numbers(leaf)
        return leaf.astype(self.dtype, copy=False) if np.issubdtype(leaf.dtype, np.floating) else leaf

    def updateOutput(self, input: Any) -> Any:
        args = [*self.arguments(input), *self.tensors.values()]
        self.kernel = kernel_of(type(self).function, self.options, args, lambda _: True)
        operands = tree_leaves(args)
        results, self.own = self.kernel.run(operands)
        self.output = into(self.output, tree_unflatten(self.kernel.out_tree, results))
        read = self.kernel.read(operands, tree_leaves(self.output), self.own)
        self._seen = [np.array(value) for value in (*tree_leaves(args[0]), *read)] if self.guarded else []
        return self.output

    def updateGradInput(self, input: Any, gradOutput: Any) -> Any:
        args = self.arguments(input)
        leaves, tree = tree_flatten(args)
        count = len(leaves)
        found = self._cotangents(args, gradOutput, lambda i: i < count)[:count]
        zeroed = [np.zeros_like(x) if ct is None else ct for x, ct in zip(leaves, found, strict=True)]
        self.gradInput = into(self.gradInput, tree_unflatten(tree, zeroed)[0])
        return self.gradInput

    def accGradParameters(self, input: Any, gradOutput: Any, scale: float = 1.0) -> None:
        self._accumulate(self.gradients, input, gradOutput, scale)

    def accUpdateGradParameters(self, input: Any, gradOutput: Any, lr: float) -> None:
        self._accumulate(self.tensors, input, gradOutput, -lr)

    def _accumulate(self, targets: dict[str, np.ndarray], input: Any, gradOutput: Any, scale: float) -> None:
        if not targets:
            return
        args = self.arguments(input)
        count = len(tree_leaves(args))
        found = self._cotangents(args, gradOutput, lambda i: i >= count)[count:]
        for target, ct in zip(targets.values(), found, strict=True):
            if ct is not None:
                target += target.dtype.type(scale) * ct

    def _cotangents(self, args: list[Any], gradOutput: Any, chosen: Callable[[int], bool]) -> list[Any]:
        """The cotangents of the ``chosen`` operands. Input and output are read as they are now, not as forward saw."""
        if self.kernel is None:
            raise RuntimeError(f"{type(self).__name__}: backward assumes that forward was called before; it was not")
        leaves = tree_leaves(args)
        self._check_shapes("the input", leaves, self.kernel.operands[: len(leaves)], "forward has seen")
        cts = [self._converted(ct) for ct in tree_leaves(gradOutput)]
        self._check_shapes("gradOutput", cts, self.kernel.results, "the output is")
        read = self.kernel.read([*leaves, *self.tensors.values()], tree_leaves(self.output), self.own)
        now = [*tree_leaves(args[0]), *read]
        if (
            self.guarded
            and self._seen
            and any(a.tobytes() != b.tobytes() for a, b in zip(now, self._seen, strict=True))
        ):
            raise OtherInput(
                f"{type(self).__name__}: backward was given an input that forward has not seen last, or its output or "
                "parameters have changed since: the gradient would be wrong. Call forward with this input first."
            )
        wanted = tuple(want and chosen(i) for i, want in enumerate(self.kernel.wanted))
        return self.kernel.cotangents(read, cts, wanted)

    def _check_shapes(self, what: str, given: Sequence[Any], known: Sequence[Any], role: str) -> None:
        shapes = [[list(np.shape(value)) for value in values] for values in (given, known)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{type(self).__name__}: {what} of backward is of size {_sizes(shapes[0])}, but {role} "
                f"{_sizes(shapes[1])}"
            )


def _sizes(shapes: Sequence[list[int]]) -> str:
    return ", ".join(map(str, shapes))
