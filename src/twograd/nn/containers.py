"""Modules that hold others in order or by name."""

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from twograd.nn.module import Module, Parameter


class _Numbered(Module):
    """Members under the names "0", "1", ...; ``_members`` is where they are kept."""

    @property
    def _members(self) -> dict[str, Any]:
        return self._modules

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members.values())

    def _name(self, index: int) -> str:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range")
        return list(self._members)[i]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(*self._sliced(list(self._members.items())[index]))
        return self._members[self._name(index)]

    def _sliced(self, items: list[tuple[str, Any]]) -> tuple[Any, ...]:
        return ([member for _, member in items],)

    def __setitem__(self, index: int, member: Any) -> None:
        setattr(self, self._name(index), member)

    def __delitem__(self, index: Any) -> None:
        names = list(self._members)[index] if isinstance(index, slice) else [self._name(index)]
        self._renumber([member for name, member in self._members.items() if name not in names])

    def _renumber(self, members: Iterable[Any]) -> None:
        self._members.clear()
        for i, member in enumerate(list(members)):
            setattr(self, str(i), member)

    def append(self, member: Any) -> Any:
        """Adds one at the end, and returns this container."""
        setattr(self, str(len(self)), member)
        return self

    def extend(self, members: Iterable[Any]) -> Any:
        """Adds several at the end, and returns this container."""
        for member in list(members):
            self.append(member)
        return self

    def insert(self, index: int, member: Any) -> Any:
        """Adds one before the member at ``index``."""
        members = list(self)
        members.insert(index, member)
        self._renumber(members)
        return self


class Sequential(_Numbered):
    """``Sequential(*modules)`` or ``Sequential(OrderedDict(...))``: each is given what the one before returned."""

    def __init__(self, *modules: Any):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(modules):
                self.add_module(str(i), module)

    def _sliced(self, items: list[tuple[str, Any]]) -> tuple[Any, ...]:
        return (OrderedDict(items),)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_Numbered):
    """A list whose Modules are registered."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def _said_children(self) -> list[tuple[str, str]]:
        """Equal neighbours are said once, with how many they are."""
        said = []
        for text, group in itertools.groupby(super()._said_children(), key=lambda child: child[1]):
            keys = [key for key, _ in group]
            said.append((keys[0], text) if len(keys) == 1 else (f"{keys[0]}-{keys[-1]}", f"{len(keys)} x {text}"))
        return said


class ParameterList(_Numbered):
    """A list whose Tensors are registered as Parameters."""

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self.extend(values or ())

    @property
    def _members(self) -> dict[str, Any]:
        return self._parameters

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _parameter(value) if name.isdecimal() else value)


class _Named(Module):
    """Members under names of one's own."""

    @property
    def _members(self) -> dict[str, Any]:
        return self._modules

    def __getitem__(self, key: str) -> Any:
        return self._members[key]

    def __setitem__(self, key: str, member: Any) -> None:
        setattr(self, key, member)

    def __delitem__(self, key: str) -> None:
        del self._members[key]

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def keys(self) -> Iterable[str]:
        return self._members.keys()

    def values(self) -> Iterable[Any]:
        return self._members.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._members.items()

    def pop(self, key: str) -> Any:
        return self._members.pop(key)

    def clear(self) -> None:
        self._members.clear()

    def update(self, members: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        for key, member in dict(members).items():
            self[key] = member


class ModuleDict(_Named):
    """A dict whose Modules are registered."""

    def __init__(self, modules: Mapping[str, Module] | None = None):
        super().__init__()
        self.update(modules or {})


class ParameterDict(_Named):
    """A dict whose Tensors are registered as Parameters."""

    def __init__(self, parameters: Mapping[str, Any] | None = None):
        super().__init__()
        self.update(parameters or {})

    @property
    def _members(self) -> dict[str, Any]:
        return self._parameters

    def __setitem__(self, key: str, member: Any) -> None:
        setattr(self, key, _parameter(member))


def _parameter(value: Any) -> Any:
    return value if value is None or isinstance(value, Parameter) else Parameter(value)
