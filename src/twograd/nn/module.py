"""Modules: parameters, buffers and sub-modules under names, and a ``forward``.

Names, defaults and error texts are ``torch.nn``'s. What flows in and out of a Module are Tensors; ``stateless.py`` runs
the same Module as a function of arrays. Read :class:`Module`; layers are one short class each, in the files beside.
"""

import copy
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from twograd.nn.hooks import BackwardHooks
from twograd.tape import Tensor, no_grad
from twograd.tape.dtypes import placed
from twograd.tape.node import Hooks, RemovableHandle

MEMBERS = ("_parameters", "_buffers", "_modules")

_parameters: "weakref.WeakValueDictionary[int, Tensor]" = weakref.WeakValueDictionary()


class _IsParameter(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return _parameters.get(id(instance)) is instance


class Parameter(metaclass=_IsParameter):
    """``Parameter(data, requires_grad=True)``: a leaf Tensor that a Module registers where it becomes an attribute.

    It *is* a Tensor, of no class of its own, so that ops on it take the shortest way; ``isinstance(x, Parameter)``
    tells it from others.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        parameter = Tensor(() if data is None else data._data if isinstance(data, Tensor) else data)
        parameter.requires_grad = requires_grad
        _parameters[id(parameter)] = parameter
        return parameter


def blank(shape: Sequence[int], device: Any = None, dtype: Any = None) -> Any:
    """A Parameter of zeros, of the default floating-point type if none is given. Its first values leave it on that
    device of JAX's (None: the default); RuntimeError where there is none of that name."""
    dtype = jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype
    return Parameter(placed(jnp.asarray(np.zeros(tuple(shape), dtype)), device))


class IncompatibleKeys(NamedTuple):
    """What :meth:`Module.load_state_dict` did not find, and what it did not ask for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Hook(NamedTuple):
    when: str
    function: Callable[..., Any]
    with_kwargs: bool = False


BEFORE, AFTER, BACK_BEFORE, BACK_AFTER = "before", "after", "back, before", "back, after"


class Module:
    """A part of a network.

    A subclass calls ``super().__init__()``, sets Parameters, Modules and buffers as attributes, and defines
    ``forward``. Calling the Module runs ``forward`` between the registered hooks.
    """

    training: bool

    def __init__(self) -> None:
        for name in MEMBERS:
            self.__dict__[name] = {}
        self.__dict__.update(training=True, _transient=set(), _hooks=Hooks())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._with_hooks(args, kwargs) if self._hooks else self.forward(*args, **kwargs)

    def _with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook in self._hooks_of(BEFORE):
            given = hook.function(self, args, kwargs) if hook.with_kwargs else hook.function(self, args)
            if given is not None and hook.with_kwargs:
                if not isinstance(given, tuple) or len(given) != 2:
                    raise RuntimeError(
                        f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {given}."
                    )
                args, kwargs = given
            elif given is not None:
                args = given if isinstance(given, tuple) else (given,)
        back = [[hook.function for hook in self._hooks_of(when)] for when in (BACK_BEFORE, BACK_AFTER)]
        ends = BackwardHooks(self, *back) if any(back) else None
        result = self.forward(*(args if ends is None else ends.operands(args)), **kwargs)
        for hook in self._hooks_of(AFTER):
            given = hook.function(self, args, *([kwargs] if hook.with_kwargs else []), result)
            result = result if given is None else given
        return result if ends is None else ends.results(result)

    def _hooks_of(self, when: str) -> list[_Hook]:
        return [hook for hook in self._hooks.values() if hook.when == when]

    # --- members ------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        for members in MEMBERS:
            found = self.__dict__.get(members, {})
            if name in found:
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        kind = "_parameters" if isinstance(value, Parameter) else "_modules" if isinstance(value, Module) else None
        if "_modules" not in self.__dict__:
            if kind is None:
                return object.__setattr__(self, name, value)
            what = "parameters" if kind == "_parameters" else "module"
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if kind is None:
            kind = next((members for members in MEMBERS if name in self.__dict__[members]), None)
            if kind is None:
                return object.__setattr__(self, name, value)
            if value is not None:
                self._check_member(name, kind, value)
        for place in (self.__dict__, *(self.__dict__[members] for members in MEMBERS if members != kind)):
            place.pop(name, None)
        self.__dict__[kind][name] = value

    def _check_member(self, name: str, kind: str, value: Any) -> None:
        if kind == "_buffers" and isinstance(value, Tensor):
            return
        member, expected = {
            "_parameters": ("parameter", "twograd.nn.Parameter"),
            "_buffers": ("buffer", "twograd.tape.Tensor"),
            "_modules": ("child module", "twograd.nn.Module"),
        }[kind]
        raise TypeError(
            f"cannot assign '{type(value).__name__}' object as {member} '{name}' ({expected} or None expected)"
        )

    def __delattr__(self, name: str) -> None:
        for members in MEMBERS:
            if name in self.__dict__[members]:
                del self.__dict__[members][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def __deepcopy__(self, memo: dict[int, Any]) -> "Module":
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        for parameter in twin._parameters.values():
            if parameter is not None:
                _parameters[id(parameter)] = parameter
        return twin

    def register_parameter(self, name: str, param: Any) -> None:
        """Adds a Parameter, or None: a place for one."""
        self._check_name(name)
        if param is not None and not isinstance(param, Parameter):
            self._check_member(name, "_parameters", param)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a Tensor of the state that is no parameter; ``state_dict()`` has it if it is ``persistent``."""
        self._check_name(name)
        if tensor is not None and not isinstance(tensor, Tensor):
            self._check_member(name, "_buffers", tensor)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Adds a sub-module, or None: a place for one."""
        self._check_name(name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, name: str) -> None:
        if "." in name or not name:
            raise KeyError(f"""a member's name cannot {'contain "."' if name else "be empty"}, got: {name!r}""")
        if hasattr(self, name) and all(name not in self.__dict__[members] for members in MEMBERS):
            raise KeyError(f"attribute '{name}' already exists")

    # --- walking ------------------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, "Module"]]:
        """This Module and all inside with their paths; one that has several comes once, if ``remove_duplicate``."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self.named_children():
            yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator["Module"]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator["Module"]:
        return (module for _, module in self.named_children())

    def _named_members(
        self, members: str, prefix: str, recurse: bool, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in module.__dict__[members].items():
                if member is not None and not (remove_duplicate and id(member) in seen):
                    seen.add(id(member))
                    yield f"{path}.{name}" if path else name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """The Parameters with their paths; one that has several comes once, if ``remove_duplicate``."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> "Module":
        """The Module at a path such as "features.0"."""
        module = self
        for name in filter(None, target.split(".")):
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = found
        return module

    def get_parameter(self, target: str) -> Any:
        """The Parameter at a path such as "features.0.weight"."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._parameters:
            raise AttributeError(f"{type(module).__name__} has no parameter `{name}`")
        return module._parameters[name]

    # --- changing -----------------------------------------------------------------------------------------------------

    def apply(self, fn: Callable[["Module"], Any]) -> "Module":
        """Calls ``fn`` on every Module inside, then on this."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> "Module":
        """Training (dropout drops, batch norm uses the batch's statistics) or, with False, evaluation."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Freezes or thaws all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters, or sets them to zero."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad = None if set_to_none else (parameter.grad.detach() * 0)

    def _convert(self, function: Callable[[Tensor], Tensor], which: Callable[[Tensor], bool]) -> "Module":
        with no_grad():
            for tensor in filter(which, itertools.chain(self.parameters(), self.buffers())):
                grad = tensor.grad if tensor.requires_grad else None
                tensor.data = function(tensor.detach())
                if grad is not None:
                    tensor.grad = function(grad.detach())
        return self

    def to(self, *args: Any, **kwargs: Any) -> "Module":
        """Converts floating-point parameters and buffers to a dtype, or moves all to a device, in place."""
        return self._convert(lambda x: x.to(*args, **kwargs), _is_floating)

    def type(self, dst_type: Any) -> "Module":
        return self._convert(lambda x: x.to(dst_type), lambda x: True)

    def float(self) -> "Module":
        return self._convert(lambda x: x.float(), _is_floating)

    def double(self) -> "Module":
        return self._convert(lambda x: x.double(), _is_floating)

    def half(self) -> "Module":
        return self._convert(lambda x: x.half(), _is_floating)

    def bfloat16(self) -> "Module":
        return self._convert(lambda x: x.bfloat16(), _is_floating)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """``hook(module, args)`` before each forward; what it returns, if not None, is given in the place of args.

        ``with_kwargs``: ``hook(module, args, kwargs)``, which returns None or both. ``prepend`` calls it first.
        """
        return self._register(_Hook(BEFORE, hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """``hook(module, args, result)`` after each forward; what it returns, if not None, replaces the result.

        ``with_kwargs``: ``hook(module, args, kwargs, result)``. ``prepend`` calls it first.
        """
        return self._register(_Hook(AFTER, hook, with_kwargs), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_output)`` when the gradients of the results are known; it may return others."""
        return self._register(_Hook(BACK_BEFORE, hook), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_input, grad_output)`` when the gradients of positional operands are known; it may return
        others in the place of ``grad_input``. All are tuples, with None for what has no gradient.

        On the tape only: a traced program (``functional_call`` of arrays) has no walk back that could call it. The
        results are then views that must not be changed in place, as in PyTorch.
        """
        return self._register(_Hook(BACK_AFTER, hook), prepend)

    def _register(self, hook: _Hook, prepend: bool) -> RemovableHandle:
        others = dict(self._hooks)
        handle = RemovableHandle(self._hooks, hook)
        if prepend:
            for number in others:
                self._hooks[number] = self._hooks.pop(number)
        return handle

    # --- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> "OrderedDict[str, Tensor]":
        """Parameters and persistent buffers by path: detached Tensors that share the Module's elements."""
        state = OrderedDict()
        for path, tensor in self._state(prefix):
            state[path] = tensor if keep_vars else tensor.detach()
        return state

    def _state(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield prefix + name, parameter
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._transient:
                yield prefix + name, buffer
        for name, module in self.named_children():
            yield from module._state(f"{prefix}{name}.")

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies the values of ``state_dict`` (Tensors or arrays, PyTorch's too) into parameters and buffers.

        Nothing is changed where something does not fit: RuntimeError lists every missing or unexpected name (which
        ``strict=False`` forgives) and every size that differs. With ``assign`` dtypes are taken from the state.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        own = dict(self._state(""))
        given = {name: _as_tensor(value) for name, value in state_dict.items()}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in given if name not in own]
        errors = []
        if strict and unexpected:
            errors.append(f"Unexpected key(s) in state_dict: {', '.join(map(_quoted, unexpected))}. ")
        if strict and missing:
            errors.append(f"Missing key(s) in state_dict: {', '.join(map(_quoted, missing))}. ")
        errors += [
            f"size mismatch for {name}: copying a param with shape torch.Size({list(given[name].shape)}) from "
            f"checkpoint, the shape in current model is torch.Size({list(tensor.shape)})."
            for name, tensor in own.items()
            if name in given and given[name].shape != tensor.shape
        ]
        if errors:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(errors))
        with no_grad():
            for name, tensor in own.items():
                if name in given:
                    if assign:
                        tensor.data = given[name]
                    else:
                        tensor.copy_(given[name])
        return IncompatibleKeys(missing, unexpected)

    # --- showing ------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the line of this Module says besides its class."""
        return ""

    def _said_children(self) -> list[tuple[str, str]]:
        return [(key, repr(module)) for key, module in self._modules.items()]

    def __repr__(self) -> str:
        extra, name = self.extra_repr(), type(self).__name__
        children = [f"({key}): {text}".replace("\n", "\n  ") for key, text in self._said_children()]
        if not children:
            return f"{name}({extra})"
        return f"{name}(\n  " + "\n  ".join([*filter(None, extra.split("\n")), *children]) + "\n)"


def _is_floating(tensor: Tensor) -> bool:
    return tensor.dtype.kind in "fcV"  # V: bfloat16 and other types that NumPy has not


def _as_tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else Tensor(value)


def _quoted(name: str) -> str:
    return f'"{name}"'
