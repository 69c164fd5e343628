"""Torch7's ``nn``: modules that keep their output and their gradients in buffers, each with a way forward and two back.

    from twograd.fronts import torch7 as nn

    net = nn.Sequential().add(nn.Linear(64, 32)).add(nn.Tanh()).add(nn.Linear(32, 10))
    criterion = nn.CrossEntropyCriterion()
    criterion.forward(net.forward(x), labels)
    net.zeroGradParameters()
    net.backward(x, criterion.backward(net.output, labels))
    net.updateParameters(0.01)

What flows in and out are NumPy arrays, and tables (lists) of them. Read :class:`Module`, which is the protocol, then
:class:`Layer`, which fulfils it for a function: what a layer is takes a line or three. Names and their order of
arguments are Torch7's; dimensions, labels and children count from 0, as Python does. What JAX computes in is
float32 unless 64 bits are switched on (then ``net.type(np.float64)`` is the way).

The structure is fixed before it runs, and gradients are numbers: no module's forward computes them, so there is nothing
whose derivative could be asked for.
"""

import copy
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from twograd.errors import TwogradError
from twograd.fronts.kernel import Kernel, copies, kernel_of
from twograd.nn import functional as F

_generator = np.random.default_rng(0)


def manualSeed(seed: int) -> None:
    """Seeds what draws initial weights, dropout and the order of training."""
    global _generator  # noqa: PLW0603
    _generator = np.random.default_rng(seed)


class OtherInput(TwogradError, ValueError):
    """A guarded module's backward would read something else than what its last forward has left for it."""


def _empty() -> np.ndarray:
    return np.empty(0, np.float32)


def _into(buffer: Any, value: Any) -> Any:
    """``buffer`` with the contents of ``value``, a table element by element; another where its shape does not fit."""
    if isinstance(value, (list, tuple)):
        old = buffer if isinstance(buffer, list) and len(buffer) == len(value) else [_empty() for _ in value]
        return _table(old, [_into(*pair) for pair in zip(old, value, strict=True)])
    value = np.asarray(value)
    if not isinstance(buffer, np.ndarray) or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
        return np.array(value)
    np.copyto(buffer, value)
    return buffer


def _table(buffer: Any, items: list[Any]) -> list[Any]:
    """The same list as before with these items, where there was one."""
    if not isinstance(buffer, list):
        return items
    buffer[:] = items
    return buffer


# --- the protocol -----------------------------------------------------------------------------------------------------


class Module:
    """What all modules do.

    ``output`` and ``gradInput`` are buffers: each forward and backward writes over them, so they are the same objects
    as long as the shapes are the same. ``backward`` takes for granted that ``forward`` was called before with the same
    input: it reads what that has left. With another input its gradients are wrong, and no error says so, unless
    :meth:`guard` was called.
    """

    def __init__(self) -> None:
        self.output: Any = _empty()
        self.gradInput: Any = _empty()
        self.train = True

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
        for mine, theirs in zip(self.layers(), other.layers(), strict=True):
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
            module.output, module.gradInput = _empty(), _empty()
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
        return _empty(), []
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


# --- layers: a function, and its derivative by the rules --------------------------------------------------------------


class Layer(Module):
    """A module that computes ``function(input, *parameters, **options)``, and its derivative by the table of rules.

    ``tensors`` are its parameters by name, ``gradients`` theirs; ``layer.weight`` and ``layer.gradWeight`` are among
    them.
    """

    function: ClassVar[Callable[..., Any]]

    def __init__(self, shapes: dict[str, Sequence[int]] | None = None, fan_in: int = 1, **options: Any):
        super().__init__()
        self.options, self.guarded, self.dtype = options, False, np.dtype(np.float32)
        self.tensors = {name: np.zeros(shape, self.dtype) for name, shape in (shapes or {}).items()}
        self.gradients = {name: np.zeros_like(tensor) for name, tensor in self.tensors.items()}
        self.forget()
        self.reset(1 / math.sqrt(fan_in))

    def reset(self, stdv: float) -> None:
        """Draws the parameters uniformly from -stdv to stdv."""
        for tensor in self.tensors.values():
            tensor[...] = _generator.uniform(-stdv, stdv, tensor.shape)

    def forget(self) -> None:
        """Lets go what forward has kept."""
        self.kernel: Kernel | None = None
        self.own: list[np.ndarray] = []
        self._seen: list[np.ndarray] | None = None

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
                found[key] = value
                return
        super().__setattr__(name, value)

    def arguments(self, input: Any) -> list[Any]:
        """What ``function`` is called with before its parameters."""
        return [tree_map(self._converted, list(input) if isinstance(input, tuple) else input)]

    def _converted(self, leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(self.dtype, copy=False) if np.issubdtype(leaf.dtype, np.floating) else leaf

    def updateOutput(self, input: Any) -> Any:
        args = [*self.arguments(input), *self.tensors.values()]
        self.kernel = kernel_of(type(self).function, self.options, args, lambda _: True)
        operands = tree_leaves(args)
        results, self.own = self.kernel.run(operands)
        self.output = _into(self.output, tree_unflatten(self.kernel.out_tree, results))
        read = self.kernel.read(operands, tree_leaves(self.output), self.own) if self.guarded else None
        self._seen = read and [np.array(value) for value in read]
        return self.output

    def updateGradInput(self, input: Any, gradOutput: Any) -> Any:
        args = self.arguments(input)
        leaves, tree = tree_flatten(args)
        count = len(leaves)
        found = self._cotangents(args, gradOutput, lambda i: i < count)[:count]
        zeroed = [np.zeros_like(x) if ct is None else ct for x, ct in zip(leaves, found, strict=True)]
        self.gradInput = _into(self.gradInput, tree_unflatten(tree, zeroed)[0])
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
        operands = tree_leaves([*args, *self.tensors.values()])
        self._check_shapes("the input", operands, self.kernel.operands, "forward has seen")
        cts = [self._converted(ct) for ct in tree_leaves(gradOutput)]
        self._check_shapes("gradOutput", cts, self.kernel.results, "the output is")
        read = self.kernel.read(operands, tree_leaves(self.output), self.own)
        if self._seen is not None and not all(map(np.array_equal, read, self._seen)):
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


class Linear(Layer):
    """x Wᵀ + b: (inputSize,) or (N, inputSize) to outputSize."""

    function = staticmethod(F.linear)

    def __init__(self, inputSize: int, outputSize: int, bias: bool = True):
        super().__init__({"weight": (outputSize, inputSize)} | ({"bias": (outputSize,)} if bias else {}), inputSize)


class SpatialConvolution(Layer):
    """Images (nInputPlane, H, W), or N of them, correlated with kernels of kH by kW."""

    function = staticmethod(F.conv2d)

    def __init__(
        self, nInputPlane: int, nOutputPlane: int, kW: int, kH: int,
        dW: int = 1, dH: int = 1, padW: int = 0, padH: int = 0,
    ):  # fmt: skip
        shapes = {"weight": (nOutputPlane, nInputPlane, kH, kW), "bias": (nOutputPlane,)}
        super().__init__(shapes, kW * kH * nInputPlane, stride=(dH, dW), padding=(padH, padW))


class _Pooling(Layer):
    def __init__(
        self, kW: int, kH: int, dW: int | None = None, dH: int | None = None, padW: int = 0, padH: int = 0
    ):  # fmt: skip
        stride = (kH if dH is None else dH, kW if dW is None else dW)
        super().__init__(kernel_size=(kH, kW), stride=stride, padding=(padH, padW))


class SpatialMaxPooling(_Pooling):
    """The largest of each window of kH by kW; of equal ones the first has the gradient."""

    function = staticmethod(F.max_pool2d)


class SpatialAveragePooling(_Pooling):
    """The mean of each window of kH by kW."""

    function = staticmethod(F.avg_pool2d)


class Tanh(Layer):
    function = staticmethod(F.tanh)


class Sigmoid(Layer):
    function = staticmethod(F.sigmoid)


class ReLU(Layer):
    function = staticmethod(F.relu)


class SoftPlus(Layer):
    function = staticmethod(F.softplus)


class Square(Layer):
    function = staticmethod(jnp.square)


def _over_classes(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` along the dimension of classes: the first of one or three dimensions, the second of two or four."""
    return lambda x: f(x, (x.ndim + 1) % 2)


class SoftMax(Layer):
    function = staticmethod(_over_classes(F.softmax))


class LogSoftMax(Layer):
    function = staticmethod(_over_classes(F.log_softmax))


class Identity(Layer):
    function = staticmethod(lambda x: x)


def _reshape(x: Any, *, size: tuple[int, ...]) -> Any:
    return x.reshape(size if x.size == math.prod(size) else (x.shape[0], *size))


class Reshape(Layer):
    """An input of another number of elements than ``size`` is a batch, whose first dimension stays."""

    function = staticmethod(_reshape)

    def __init__(self, *size: int):
        super().__init__(size=size)


class Dropout(Layer):
    """Zeroes elements with probability p and divides the others by 1 - p, in training; passes its input on else."""

    function = staticmethod(lambda x, key, *, p: F.dropout(x, p, key=jax.random.wrap_key_data(key)))

    def __init__(self, p: float = 0.5):
        super().__init__(p=p)
        self.p, self._key = p, np.zeros(2, np.uint32)

    def arguments(self, input: Any) -> list[Any]:
        return [*super().arguments(input), self._key]

    def updateOutput(self, input: Any) -> Any:
        self._key = _generator.integers(2**32, size=2, dtype=np.uint32)
        self.options["p"] = self.p if self.train else 0.0
        return super().updateOutput(input)


class CAddTable(Layer):
    """The sum of the tensors of a table."""

    function = staticmethod(functools.partial(functools.reduce, operator.add))


class CMulTable(Layer):
    """Their product, element by element."""

    function = staticmethod(functools.partial(functools.reduce, operator.mul))


class CSubTable(Layer):
    """The first of two tensors without the second."""

    function = staticmethod(lambda table: table[0] - table[1])


class JoinTable(Layer):
    """The tensors of a table, one after the other along ``dimension``."""

    function = staticmethod(lambda table, *, dimension: jnp.concatenate(table, dimension))

    def __init__(self, dimension: int):
        super().__init__(dimension=dimension)


class SplitTable(Layer):
    """A table of the slices along ``dimension``, which goes."""

    function = staticmethod(
        lambda x, *, dimension: [jax.lax.index_in_dim(x, i, dimension, False) for i in range(x.shape[dimension])]
    )

    def __init__(self, dimension: int):
        super().__init__(dimension=dimension)


class SelectTable(Layer):
    """One element of a table."""

    function = staticmethod(lambda table, *, index: table[index])

    def __init__(self, index: int):
        super().__init__(index=index)


class _Copies(Layer):
    """A table of as many times the input as is told before forward; its gradient is their sum."""

    function = staticmethod(copies)


# --- containers -------------------------------------------------------------------------------------------------------


class Container(Module):
    """A module of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[Module] = []

    def add(self, module: Module) -> "Container":
        self.modules.append(module)
        return self

    def get(self, index: int) -> Module:
        return self.modules[index]

    def size(self) -> int:
        return len(self.modules)

    def listModules(self) -> Iterator[Module]:
        yield self
        for module in self.modules:
            yield from module.listModules()

    def walk_back(self, method: str, input: Any, gradOutput: Any, *rest: Any) -> Any:
        """Calls ``method`` of each child on the way back, with the input that it has had, and sets ``gradInput``."""
        raise NotImplementedError

    def backward(self, input: Any, gradOutput: Any, scale: float = 1.0) -> Any:
        return self.walk_back("backward", input, gradOutput, scale)

    def updateGradInput(self, input: Any, gradOutput: Any) -> Any:
        return self.walk_back("updateGradInput", input, gradOutput)

    def accGradParameters(self, input: Any, gradOutput: Any, scale: float = 1.0) -> None:
        self.walk_back("accGradParameters", input, gradOutput, scale)

    def accUpdateGradParameters(self, input: Any, gradOutput: Any, lr: float) -> None:
        self.walk_back("accUpdateGradParameters", input, gradOutput, lr)


class Sequential(Container):
    """One module after the other: the output of each is the input of the next."""

    def updateOutput(self, input: Any) -> Any:
        for module in self.modules:
            input = module.updateOutput(input)
        self.output = input
        return self.output

    def walk_back(self, method: str, input: Any, gradOutput: Any, *rest: Any) -> Any:
        inputs = [input, *(module.output for module in self.modules)]
        for module, seen in zip(self.modules[::-1], inputs[-2::-1], strict=True):
            getattr(module, method)(seen, gradOutput, *rest)
            gradOutput = module.gradInput
        self.gradInput = gradOutput
        return self.gradInput


class ParallelTable(Container):
    """The i-th module is applied to the i-th element of a table; the output is the table of theirs."""

    def updateOutput(self, input: Any) -> Any:
        self.output = _table(self.output, [m.updateOutput(x) for m, x in zip(self.modules, input, strict=True)])
        return self.output

    def walk_back(self, method: str, input: Any, gradOutput: Any, *rest: Any) -> Any:
        for module, seen, ct in zip(self.modules, input, gradOutput, strict=True):
            getattr(module, method)(seen, ct, *rest)
        self.gradInput = _table(self.gradInput, [module.gradInput for module in self.modules])
        return self.gradInput


class _Branches(Sequential):
    """Children side by side, in a :class:`ParallelTable` between what divides the input and what joins the outputs."""

    def __init__(self, before: Module, *after: Module):
        super().__init__()
        self._branches = ParallelTable()
        self.modules = [before, self._branches, *after]

    def add(self, module: Module) -> "Container":
        self._branches.add(module)
        return self

    def get(self, index: int) -> Module:
        return self._branches.get(index)

    def size(self) -> int:
        return self._branches.size()


class ConcatTable(_Branches):
    """All children are applied to the same input; the output is the table of theirs."""

    def __init__(self, *after: Module):
        super().__init__(_Copies(), *after)

    def updateOutput(self, input: Any) -> Any:
        self.modules[0].options["count"] = self.size()
        return super().updateOutput(input)


class Concat(ConcatTable):
    """All children are applied to the same input; their outputs are joined along ``dimension``."""

    def __init__(self, dimension: int):
        super().__init__(JoinTable(dimension))


class Parallel(_Branches):
    """The i-th child is applied to the i-th slice along ``inputDimension``; their outputs are joined along another."""

    def __init__(self, inputDimension: int, outputDimension: int):
        super().__init__(SplitTable(inputDimension), JoinTable(outputDimension))


# --- criterions -------------------------------------------------------------------------------------------------------


class Criterion:
    """A number that tells how far an input is from its target; ``backward`` gives the gradOutput of what made it."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **options: Any):
        self.options, self.output, self.gradInput = options, 0.0, _empty()

    def forward(self, input: Any, target: Any) -> float:
        return self.updateOutput(input, target)

    def backward(self, input: Any, target: Any) -> Any:
        return self.updateGradInput(input, target)

    def updateOutput(self, input: Any, target: Any) -> float:
        self._kernel, operands = self._prepared(input, target)
        (result,), self._own = self._kernel.run(operands)
        self.output = float(result)
        return self.output

    def updateGradInput(self, input: Any, target: Any) -> Any:
        kernel, operands = self._prepared(input, target)
        if getattr(self, "_kernel", None) is not kernel:
            raise RuntimeError(f"{type(self).__name__}: backward assumes that forward was called before, on such shapes")
        result = kernel.results[0]
        read = kernel.read(operands, [np.asarray(self.output, result.dtype)], self._own)
        found = kernel.cotangents(read, [np.ones((), result.dtype)])
        self.gradInput = _into(self.gradInput, found[0])
        return self.gradInput

    def _prepared(self, input: Any, target: Any) -> tuple[Kernel, list[np.ndarray]]:
        input, target = np.asarray(input), np.asarray(target)
        floating = np.issubdtype(target.dtype, np.floating)
        operands = [input, target.astype(input.dtype, copy=False) if floating else target]
        return kernel_of(type(self).function, self.options, operands, lambda i: i == 0), operands


class MSECriterion(Criterion):
    """The mean of the squared differences, or their sum."""

    function = staticmethod(F.mse_loss)

    def __init__(self, sizeAverage: bool = True):
        super().__init__(reduction="mean" if sizeAverage else "sum")


class AbsCriterion(MSECriterion):
    """The mean of the absolute differences, or their sum."""

    function = staticmethod(F.l1_loss)


class ClassNLLCriterion(MSECriterion):
    """Minus the log-probability of the target class, which counts from 0."""

    function = staticmethod(F.nll_loss)


class CrossEntropyCriterion(MSECriterion):
    """:class:`LogSoftMax` and :class:`ClassNLLCriterion` in one."""

    function = staticmethod(F.cross_entropy)


class BCECriterion(MSECriterion):
    """The binary cross-entropy of probabilities."""

    function = staticmethod(F.binary_cross_entropy)


# --- training and checking --------------------------------------------------------------------------------------------


class StochasticGradient:
    """Trains on one example after the other: ``train(dataset)``, a sequence of pairs (input, target)."""

    def __init__(self, module: Module, criterion: Criterion):
        self.module, self.criterion = module, criterion
        self.learningRate, self.learningRateDecay, self.maxIteration = 0.01, 0.0, 25
        self.shuffleIndices = True
        self.hookIteration: Callable[["StochasticGradient", int, float], Any] = lambda trainer, iteration, error: None

    def train(self, dataset: Sequence[tuple[Any, Any]]) -> float:
        """Goes ``maxIteration`` times through the data; returns the mean error of the last time."""
        module, criterion, error = self.module, self.criterion, math.nan
        for iteration in range(self.maxIteration):
            rate = self.learningRate / (1 + iteration * self.learningRateDecay)
            order = _generator.permutation(len(dataset)) if self.shuffleIndices else range(len(dataset))
            total = 0.0
            for i in order:
                input, target = dataset[i]
                total += criterion.forward(module.forward(input), target)
                module.updateGradInput(input, criterion.updateGradInput(module.output, target))
                module.accUpdateGradParameters(input, criterion.gradInput, rate)
            error = total / len(dataset)
            self.hookIteration(self, iteration, error)
        return error


class Jacobian:
    """Holds a module's backward against differences of its forward. Each test returns the largest difference."""

    @staticmethod
    def testJacobian(
        module: Module, input: np.ndarray, minval: float = -2.0, maxval: float = 2.0, perturbation: float | None = None
    ) -> float:
        """Of ``gradInput``. ``input`` is filled with numbers between ``minval`` and ``maxval``."""
        input[...] = _generator.uniform(minval, maxval, input.shape)
        return Jacobian._error(module, input, input, lambda: module.gradInput, perturbation)

    @staticmethod
    def testJacobianParameters(
        module: Module, input: np.ndarray, param: np.ndarray, dparam: np.ndarray,
        minval: float = -2.0, maxval: float = 2.0, perturbation: float | None = None,
    ) -> float:  # fmt: skip
        """Of the gradient ``dparam`` of ``param``, both of the module. Both it and the input are filled."""
        for array in (input, param):
            array[...] = _generator.uniform(minval, maxval, array.shape)
        return Jacobian._error(module, input, param, lambda: dparam, perturbation)

    @staticmethod
    def _error(
        module: Module, input: np.ndarray, varied: np.ndarray, gradient: Callable[[], Any], step: float | None
    ) -> float:
        """``varied`` is changed element by element; ``gradient()`` is what backward has found for it."""
        step = float(np.finfo(varied.dtype).eps) ** (1 / 3) if step is None else step
        by_differences = []
        for at in np.ndindex(varied.shape):
            kept, ends = varied[at], []
            for moved in (kept + step, kept - step):
                varied[at] = moved
                ends.append(np.array(module.forward(input), np.float64))
            varied[at] = kept
            by_differences.append((ends[0] - ends[1]).reshape(-1) / (2 * step))
        output, by_rules = module.forward(input), []
        for at in np.ndindex(output.shape):
            one = np.zeros_like(output)
            one[at] = 1
            module.zeroGradParameters()
            module.backward(input, one)
            by_rules.append(np.array(gradient(), np.float64).reshape(-1))
        return float(np.abs(np.transpose(by_differences) - by_rules).max())
