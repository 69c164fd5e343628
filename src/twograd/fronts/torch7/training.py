"""Criterions, the trainer, and the check of a module's backward against differences."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from twograd.fronts.kernel import Kernel, kernel_of, numbers
from twograd.fronts.torch7.module import Module, empty, generator, into
from twograd.nn import functional as F


class Criterion:
    """A number that tells how far an input is from its target; ``backward`` gives the gradOutput of what made it."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, **options: Any):
        self.options, self.output, self.gradInput = options, 0.0, empty()
        self._kernel: Kernel | None = None
        self._own: list[np.ndarray] = []

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
        if self._kernel is not kernel:
            raise RuntimeError(
                f"{type(self).__name__}: backward assumes that forward was called before, on such shapes"
            )
        result = kernel.results[0]
        read = kernel.read(operands, [np.asarray(self.output, result.dtype)], self._own)
        found = kernel.cotangents(read, [np.ones((), result.dtype)])
        self.gradInput = into(self.gradInput, found[0])
        return self.gradInput

    def _prepared(self, input: Any, target: Any) -> tuple[Kernel, list[np.ndarray]]:
        input, target = numbers(input), numbers(target)
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


class StochasticGradient:
    """Trains on one example after the other: ``train(dataset)``, a sequence of pairs (input, target)."""

    def __init__(self, module: Module, criterion: Criterion):
        self.module, self.criterion = module, criterion
        self.learningRate, self.learningRateDecay, self.maxIteration = 0.01, 0.0, 25
        self.shuffleIndices = True
        self.hookIteration: Callable[[StochasticGradient, int, float], Any] = lambda trainer, iteration, error: None

    def train(self, dataset: Sequence[tuple[Any, Any]]) -> float:
        """Goes ``maxIteration`` times through the data; returns the mean error of the last time."""
        module, criterion, error = self.module, self.criterion, math.nan
        for iteration in range(self.maxIteration):
            rate = self.learningRate / (1 + iteration * self.learningRateDecay)
            order = generator.permutation(len(dataset)) if self.shuffleIndices else range(len(dataset))
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
        input[...] = generator.uniform(minval, maxval, input.shape)
        return Jacobian._error(module, input, input, lambda: module.gradInput, perturbation)

    @staticmethod
    def testJacobianParameters(
        module: Module, input: np.ndarray, param: np.ndarray, dparam: np.ndarray,
        minval: float = -2.0, maxval: float = 2.0, perturbation: float | None = None,
    ) -> float:  # fmt: skip
        """Of the gradient ``dparam`` of ``param``, both of the module. Both it and the input are filled."""
        for array in (input, param):
            array[...] = generator.uniform(minval, maxval, array.shape)
        return Jacobian._error(module, input, param, lambda: dparam, perturbation)

    @staticmethod
    def _error(
        module: Module, input: np.ndarray, varied: np.ndarray, gradient: Callable[[], Any], step: float | None
    ) -> float:
        """``varied`` is changed element by element; ``gradient()`` is what backward has found for it."""
        size = step or float(np.finfo(varied.dtype).eps) ** (1 / 3)
        by_differences = []
        for at in np.ndindex(varied.shape):
            kept, ends = varied[at], []
            for moved in (kept + size, kept - size):
                varied[at] = moved
                ends.append(np.array(module.forward(input), np.float64))
            varied[at] = kept
            by_differences.append((ends[0] - ends[1]).reshape(-1) / (2 * size))
        output, by_rules = module.forward(input), []
        for at in np.ndindex(output.shape):
            one = np.zeros_like(output)
            one[at] = 1
            module.zeroGradParameters()
            module.backward(input, one)
            by_rules.append(np.array(gradient(), np.float64).reshape(-1))
        return float(np.abs(np.transpose(by_differences) - by_rules).max())
