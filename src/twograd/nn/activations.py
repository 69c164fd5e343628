"""Activations as Modules: each is a function of nn.functional and the defaults of its settings."""

import inspect
from collections.abc import Callable
from typing import Any

from twograd.nn import functional as F
from twograd.nn.init import constant_
from twograd.nn.module import Module, blank
from twograd.nn.settled import settled
from twograd.tape import Tensor
from twograd.tape.inplace import in_place


class Activation(Module):
    """Applies ``function``, with the settings in ``defaults`` or those given, to a Tensor of any shape.

    ``inplace=True`` puts the result in the place of what it was given.
    """

    function: Callable[..., Any]
    defaults: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        given = type(self).__signature__.bind(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        given.apply_defaults()
        for name, value in given.arguments.items():
            setattr(self, name, value)

    def forward(self, input: Any) -> Any:
        op = settled(type(self).function, **{name: getattr(self, name) for name in self.defaults})
        return in_place(op)(input) if self.inplace and isinstance(input, Tensor) else op(input)

    def extra_repr(self) -> str:
        said = [f"{name}={getattr(self, name)!r}" for name in self.defaults]
        return ", ".join([*said, *(["inplace=True"] if self.inplace else [])])


def _activation(name: str, function: Callable[..., Any], **defaults: Any) -> Any:
    names = {**defaults, "inplace": False}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    members = {
        "function": staticmethod(function),
        "defaults": defaults,
        "__signature__": inspect.Signature([inspect.Parameter(key, kind, default=names[key]) for key in names]),
        "__doc__": f"{function.__doc__}\n\nA Module; see :class:`Activation` for ``inplace``.",
        "__module__": __name__,
    }
    return type(name, (Activation,), members)


ELU = _activation("ELU", F.elu, alpha=1.0)
GELU = _activation("GELU", F.gelu, approximate="none")
GLU = _activation("GLU", F.glu, dim=-1)
Hardtanh = _activation("Hardtanh", F.hardtanh, min_val=-1.0, max_val=1.0)
LeakyReLU = _activation("LeakyReLU", F.leaky_relu, negative_slope=0.01)
LogSigmoid = _activation("LogSigmoid", F.logsigmoid)
LogSoftmax = _activation("LogSoftmax", F.log_softmax, dim=-1)
ReLU = _activation("ReLU", F.relu)
ReLU6 = _activation("ReLU6", F.relu6)
SELU = _activation("SELU", F.selu)
SiLU = _activation("SiLU", F.silu)
Sigmoid = _activation("Sigmoid", F.sigmoid)
Softmax = _activation("Softmax", F.softmax, dim=-1)
Softplus = _activation("Softplus", F.softplus, beta=1.0, threshold=20.0)
Tanh = _activation("Tanh", F.tanh)


def _prelu(x: Any, weight: Any) -> Any:
    if weight.size > 1:
        weight = weight.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)])
    return F.relu(x) - weight * F.relu(-x)


class PReLU(Module):
    """max(x, 0) + weight min(x, 0), with one learnt slope, or one per channel (N, C, *)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = constant_(blank((num_parameters,), device, dtype), init)

    def forward(self, input: Any) -> Any:
        return settled(_prelu)(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
