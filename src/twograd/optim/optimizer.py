"""An optimiser: groups of parameters, their settings, and one compiled call that updates them all.

What flows in: Tensors with their gradients. What flows out: the same Tensors, changed in place. Read
:meth:`Optimizer.step`. What an update is, a subclass says as an optax transformation; see ``algorithms.py``.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from twograd._compat import X64
from twograd.tape import Tensor, enable_grad
from twograd.tape.tensor import make_tensor
from twograd.tape.views import owns_its_array, write_arrays

try:
    import optax
except ImportError as error:
    raise ImportError("twograd.optim works with the package optax: pip install 'twograd[train]'") from error


class Optimizer:
    """The base of all: ``params`` are Tensors, pairs of name and Tensor, or dicts with "params" and settings.

    ``param_groups`` is a list of such dicts, with every setting filled in; settings may be changed between steps. The
    state is kept per parameter, from its first step on: what has no gradient is passed over, as PyTorch does.
    """

    def __init__(self, params: Any, defaults: Mapping[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got Tensor"
            )
        self.defaults = dict(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, Any] = {}
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    @classmethod
    def transform(cls, **settings: Any) -> "optax.GradientTransformation":
        """The optax transformation of any pytree, with PyTorch's names of settings and their defaults."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters, with settings of their own where ``param_group`` has any."""
        group = dict(param_group)
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        params = [param[1] if isinstance(param, tuple) else param for param in params]
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        if len(set(params)) < len(params):
            raise ValueError("some parameters appear in more than one place of a parameter group")
        if not set(params).isdisjoint(self._params()):
            raise ValueError("some parameters appear in more than one parameter group")
        unknown = [name for name in group if name not in {"params", "initial_lr", *self.defaults}]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no setting {', '.join(map(repr, unknown))}")
        group = {"params": params, **self.defaults, **{k: v for k, v in group.items() if k != "params"}}
        self.check(group)
        self.param_groups.append(group)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raises ValueError for settings that cannot be meant."""
        for name, value in group.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, (int, float)) and number < 0:
                    raise ValueError(f"Invalid {name} value: {value}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters, or sets them to zero."""
        for param in self._params():
            if param.grad is not None:
                param.grad = None if set_to_none else make_tensor(jnp.zeros_like(param.grad.array), None)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Changes every parameter that has a gradient, in place.

        With ``closure``, which computes and returns the loss, that is called first, and its result returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_grad = [(param, grad) for param in group["params"] if (grad := param.grad) is not None]
            if not with_grad:
                continue
            params = [param for param, _ in with_grad]
            numbers, switches = self._settings(group)
            program = self._program(switches)
            for param in params:
                if param not in self.state:
                    self.state[param] = program.init(param.array, numbers)
            update = program.in_place if all(map(owns_its_array, params)) else program.update
            grads, states = [grad.array for _, grad in with_grad], [self.state[param] for param in params]
            news, states = update(grads, states, [param.array for param in params], numbers)
            write_arrays(params, news, f"{type(self).__name__}.step()")
            self.state.update(zip(params, states, strict=True))
        return loss

    def _settings(self, group: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings that are numbers, and those that decide what is computed; a 0 switches a term off."""
        numbers, switches = {}, {}
        for name in self.defaults:
            value = group[name]
            is_number = not (isinstance(value, bool) or value is None)
            if isinstance(value, Tensor):
                value = value.array
            if is_number and (name == "lr" or isinstance(value, (tuple, jax.Array)) or value):
                numbers[name] = value if isinstance(value, jax.Array) else _on_device(value, X64.value)
            else:
                switches[name] = value
        return numbers, switches

    def _program(self, switches: Mapping[str, Any]) -> "_Program":
        return _compiled(type(self), tuple(sorted(switches.items())))

    def _params(self) -> Iterable[Tensor]:
        return (param for group in self.param_groups for param in group["params"])

    # --- the state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {i: [arrays]}, "param_groups": [settings, with numbers of parameters]}``, as copies.

        The arrays are the leaves of the optax state of the i-th parameter.
        """
        numbers = {param: i for i, param in enumerate(self._params())}
        return {
            "state": {
                numbers[param]: [np.array(leaf) for leaf in jax.tree.leaves(state)]
                for param, state in self.state.items()
            },
            "param_groups": [
                {**group, "params": [numbers[param] for param in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes settings and state of an optimiser of the like; ValueError, and no change, where they do not fit."""
        groups, state = state_dict["param_groups"], state_dict["state"]
        if len(groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        news, by_param = [], {}
        for given, own in zip(groups, self.param_groups, strict=True):
            group = {**own, **{name: given[name] for name in given if name != "params"}}
            group = {name: tuple(v) if isinstance(own.get(name), tuple) else v for name, v in group.items()}
            news.append(group)
            numbers, switches = self._settings(group)
            for param, number in zip(own["params"], given["params"], strict=True):
                leaves = state.get(number, state.get(str(number)))
                if leaves is not None:
                    by_param[param] = self._restored(param, number, leaves, numbers, switches)
        self.param_groups[:] = news
        self.state = by_param

    def _restored(self, param: Tensor, number: int, leaves: Any, numbers: Any, switches: Any) -> Any:
        like, tree = jax.tree.flatten(self._program(switches).init(param.array, numbers))
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        if [array.shape for array in arrays] != [leaf.shape for leaf in like]:
            raise ValueError(
                f"the state of parameter {number}, {[list(a.shape) for a in arrays]}, does not fit "
                f"{type(self).__name__}, whose state here is {[list(leaf.shape) for leaf in like]}"
            )
        return jax.tree.unflatten(tree, [a.astype(leaf.dtype) for a, leaf in zip(arrays, like, strict=True)])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


@functools.lru_cache(maxsize=1024, typed=True)
def _on_device(number: Any, x64: bool) -> Any:
    """A Python number, or a tuple of them, as weakly typed arrays: they cost less to be called with, each step."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, number)


class _Program(NamedTuple):
    """``init(param, numbers)`` is the state of a parameter to begin with; ``update(grads, states, params, numbers)``
    computes many parameters and their states in one call, in the memory of the states; ``in_place`` is the same, in the
    memory of the parameters too.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    in_place: Callable[..., Any]


@functools.lru_cache(maxsize=256, typed=True)
def _compiled(kind: type[Optimizer], switches: tuple[tuple[str, Any], ...]) -> _Program:
    """What all optimisers of that kind share, whose settings differ in numbers only."""

    def init(param: Any, numbers: Any) -> Any:
        return kind.transform(**dict(switches), **numbers).init(param)

    def update(grads: Any, states: Any, params: Any, numbers: Any) -> Any:
        transform = kind.transform(**dict(switches), **numbers)
        news = []
        for i, (grad, state, param) in enumerate(zip(grads, states, params, strict=True)):
            change, states[i] = transform.update(grad, state, param)
            news.append(optax.apply_updates(param, change))
        return news, states

    return _Program(init, jax.jit(update, donate_argnums=1), jax.jit(update, donate_argnums=(1, 2)))
