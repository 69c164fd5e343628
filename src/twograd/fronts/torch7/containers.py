"""Modules of modules. How the way back goes through the children is said once, by :meth:`Container.walk_back`."""

from collections.abc import Iterator
from typing import Any

from twograd.fronts.torch7.layers import Copies, JoinTable, SplitTable
from twograd.fronts.torch7.module import Module, table


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
        self.output = table(self.output, [m.updateOutput(x) for m, x in zip(self.modules, input, strict=True)])
        return self.output

    def walk_back(self, method: str, input: Any, gradOutput: Any, *rest: Any) -> Any:
        for module, seen, ct in zip(self.modules, input, gradOutput, strict=True):
            getattr(module, method)(seen, ct, *rest)
        self.gradInput = table(self.gradInput, [module.gradInput for module in self.modules])
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
        self._copies = Copies()
        super().__init__(self._copies, *after)

    def updateOutput(self, input: Any) -> Any:
        self._copies.options["count"] = self.size()
        return super().updateOutput(input)


class Concat(ConcatTable):
    """All children are applied to the same input; their outputs are joined along ``dimension``."""

    def __init__(self, dimension: int):
        super().__init__(JoinTable(dimension))


class Parallel(_Branches):
    """The i-th child is applied to the i-th slice along ``inputDimension``; their outputs are joined along another."""

    def __init__(self, inputDimension: int, outputDimension: int):
        super().__init__(SplitTable(inputDimension), JoinTable(outputDimension))
