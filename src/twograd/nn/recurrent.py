"""Recurrent layers: Elman networks, LSTMs and GRUs, as cells and over whole sequences.

A layer over a sequence is one op: a ``lax.scan`` whose body is the cell. Gates, names and shapes of weights are
PyTorch's. Read :func:`lstm_step`, then :class:`_Recurrent`.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax

from twograd.nn import functional as F
from twograd.nn.layers import Dropout, parameter
from twograd.nn.module import Module
from twograd.nn.settled import settled
from twograd.nn.utils.rnn import PackedSequence, pad_packed_sequence, repacked

# A step takes x (N, I), the state, a tuple of (N, H), and the weights of the input (G H, I) and of the state (G H, H),
# with their biases (G H,) or none: G gates one after the other. It returns the new state, whose first part is the
# output.


def rnn_step(x: Any, state: Any, weights: Any, nonlinearity: str) -> Any:
    """h' = tanh(W x + U h) (Elman, 1990), or with relu."""
    (h,), (w, u, *biases) = state, weights
    total = F.linear(x, w, *biases[:1]) + F.linear(h, u, *biases[1:])
    return (jnp.tanh(total) if nonlinearity == "tanh" else F.relu(total),)


def lstm_step(x: Any, state: Any, weights: Any, nonlinearity: str) -> Any:
    """c' = f c + i g, h' = o tanh(c'), with gates i, f, g, o (Hochreiter and Schmidhuber, 1997; Gers et al., 2000)."""
    (h, c), (w, u, *biases) = state, weights
    i, f, g, o = jnp.split(F.linear(x, w, *biases[:1]) + F.linear(h, u, *biases[1:]), 4, axis=-1)
    c = lax.logistic(f) * c + lax.logistic(i) * jnp.tanh(g)
    return lax.logistic(o) * jnp.tanh(c), c


def gru_step(x: Any, state: Any, weights: Any, nonlinearity: str) -> Any:
    """h' = (1 - z) n + z h, with gates r, z, n; r acts after U, as in cuDNN (Cho et al., 2014, arXiv:1406.1078)."""
    (h,), (w, u, *biases) = state, weights
    from_x = jnp.split(F.linear(x, w, *biases[:1]), 3, axis=-1)
    from_h = jnp.split(F.linear(h, u, *biases[1:]), 3, axis=-1)
    r, z = (lax.logistic(a + b) for a, b in zip(from_x[:2], from_h[:2], strict=True))
    n = jnp.tanh(from_x[2] + r * from_h[2])
    return (n + z * (h - n),)


STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def _cell(*operands: Any, kind: str, nonlinearity: str, parts: int) -> Any:
    x, *rest = operands
    return STEPS[kind](x, tuple(rest[:parts]), tuple(rest[parts:]), nonlinearity)


def _sequence(*operands: Any, kind: str, nonlinearity: str, parts: int, reverse: bool, ragged: bool) -> Any:
    """A layer in one direction: x (T, N, I), the parts of the state, the weights; (T, N, H) and the last state.

    ``ragged``: the first operand is the lengths (N,). Past its length a sequence keeps its state, and its output is 0.
    """
    lengths, xs, *rest = operands if ragged else (None, *operands)
    state, weights = tuple(rest[:parts]), tuple(rest[parts:])

    def body(state, step):
        x, t = step
        new = STEPS[kind](x, state, weights, nonlinearity)
        if lengths is None:
            return new, new[0]
        goes_on = (t < lengths)[:, None]
        kept = tuple(jnp.where(goes_on, a, b) for a, b in zip(new, state, strict=True))
        return kept, jnp.where(goes_on, new[0], jnp.zeros_like(new[0]))

    steps = jnp.arange(xs.shape[0]) if ragged else None
    state, outputs = lax.scan(body, state, (xs, steps), reverse=reverse)
    return outputs, *state


class _RecurrentBase(Module):
    kind: str
    parts = 1

    def _weights(self, input_size: int, hidden_size: int, bias: bool, suffix: str, **made: Any) -> list[str]:
        rows = GATES[self.kind] * hidden_size
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, parameter(*shape, fan_in=hidden_size, **made))
        return [name + suffix for name in shapes]

    def _zeros(self, input: Any, *shape: int) -> Any:
        return settled(_zero_state, shape=shape)(input)


def _zero_state(x: Any, *, shape: tuple[int, ...]) -> Any:
    return jnp.zeros(shape, x.dtype)


class _Cell(_RecurrentBase):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {nonlinearity}")
        self.input_size, self.hidden_size, self.bias, self.nonlinearity = input_size, hidden_size, bias, nonlinearity
        self._names = self._weights(input_size, hidden_size, bias, "", device=device, dtype=dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        if input.ndim not in (1, 2):
            raise ValueError(f"{type(self).__name__}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        x = input if input.ndim == 2 else input.unsqueeze(0)
        if hx is None:
            state = (self._zeros(x, x.shape[0], self.hidden_size),) * self.parts
        else:
            state = tuple(hx) if self.parts > 1 else (hx,)
            state = tuple(part if part.ndim == 2 else part.unsqueeze(0) for part in state)
        op = settled(_cell, kind=self.kind, nonlinearity=self.nonlinearity, parts=self.parts)
        new = op(x, *state, *(getattr(self, name) for name in self._names))
        new = tuple(part if input.ndim == 2 else part.squeeze(0) for part in new)
        return new if self.parts > 1 else new[0]

    def extra_repr(self) -> str:
        said = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")
        return said if self.nonlinearity == "tanh" else f"{said}, nonlinearity={self.nonlinearity}"


class RNNCell(_Cell):
    """One step of an Elman network: ``cell(x, h)`` with x (N, input_size) or (input_size,), h (N, hidden_size)."""

    kind = "rnn"


class LSTMCell(_Cell):
    """One step of an LSTM: ``cell(x, (h, c))`` returns the new ``(h, c)``."""

    kind, parts = "lstm", 2

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)


class GRUCell(_Cell):
    """One step of a GRU: ``cell(x, h)`` returns the new h."""

    kind = "gru"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)


class _Recurrent(_RecurrentBase):
    """Layers over a sequence: (T, N, input_size), or (N, T, input_size) with ``batch_first``, or (T, input_size).

    Returns the outputs of the last layer, (T, N, directions * hidden_size), and the last states of all layers,
    (layers * directions, N, hidden_size). ``dropout`` acts between layers, when training. Of a PackedSequence the
    outputs are one too, and the last states are those of each sequence's own last step.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if hidden_size <= 0 or num_layers <= 0:
            raise ValueError("hidden_size and num_layers must be greater than zero")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        if not 0 <= dropout <= 1:
            raise ValueError("dropout should be a number in range [0, 1]")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.nonlinearity = nonlinearity
        self._suffixes = ("", "_reverse") if bidirectional else ("",)
        self._names = [
            self._weights(
                len(self._suffixes) * hidden_size if layer else input_size,
                hidden_size,
                bias,
                f"_l{layer}{suffix}",
                device=device,
                dtype=dtype,
            )
            for layer in range(num_layers)
            for suffix in self._suffixes
        ]
        self.__dict__["_dropout"] = Dropout(dropout)  # has no state, and no place among the sub-modules

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            out, state = self._layers(*pad_packed_sequence(input), hx)
            return repacked(out, input), state
        if input.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        batched = input.ndim == 3
        if not batched and hx is not None:
            hx = tuple(part.unsqueeze(1) for part in hx) if self.parts > 1 else hx.unsqueeze(1)
        x = input if batched else input.unsqueeze(1)
        swapped = batched and self.batch_first
        x, final = self._layers(x.transpose(0, 1) if swapped else x, None, hx)
        if not batched:
            final = tuple(part.squeeze(1) for part in final) if self.parts > 1 else final.squeeze(1)
            return x.squeeze(1), final
        return x.transpose(0, 1) if swapped else x, final

    def _layers(self, x: Any, lengths: Any, hx: Any) -> tuple[Any, Any]:
        """The outputs (T, N, *) and the last states, of x (T, N, I) with sequences of these lengths (None: of T)."""
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        states = self._states(x, hx)
        ragged = () if lengths is None else (lengths,)
        self._dropout.train(self.training)
        directions = len(self._suffixes)
        last: list[list[Any]] = [[] for _ in range(self.parts)]
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                i = layer * directions + direction
                op = settled(
                    _sequence, kind=self.kind, nonlinearity=self.nonlinearity, parts=self.parts, reverse=direction == 1,
                    ragged=bool(ragged),
                )  # fmt: skip
                weights = [getattr(self, name) for name in self._names[i]]
                out, *state = op(*ragged, x, *(part[i] for part in states), *weights)
                outputs.append(out)
                for parts, part in zip(last, state, strict=True):
                    parts.append(part)
            x = outputs[0] if directions == 1 else _concatenated(*outputs)
            if self.dropout and layer < self.num_layers - 1:
                x = self._dropout(x)
        final = tuple(_stacked(*parts) for parts in last)
        return x, final if self.parts > 1 else final[0]

    def _states(self, x: Any, hx: Any) -> tuple[Any, ...]:
        shape = (self.num_layers * len(self._suffixes), x.shape[1], self.hidden_size)
        if hx is None:
            return (self._zeros(x, *shape),) * self.parts
        states = tuple(hx) if self.parts > 1 else (hx,)
        for part in states:
            if part.shape != shape:
                raise RuntimeError(f"Expected hidden size {shape}, got {list(part.shape)}")
        return states

    def extra_repr(self) -> str:
        said = f"{self.input_size}, {self.hidden_size}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return said + "".join(
            f", {name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value
        )


def _concatenate(*xs: Any) -> Any:
    return jnp.concatenate(xs, axis=-1)


def _stack(*xs: Any) -> Any:
    return jnp.stack(xs)


_concatenated, _stacked = settled(_concatenate), settled(_stack)


class RNN(_Recurrent):
    __doc__ = f"An Elman network. {_Recurrent.__doc__}"
    kind = "rnn"


class _Gated(_Recurrent):
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, "tanh", bias, batch_first, dropout, bidirectional, device, dtype
        )


class LSTM(_Gated):
    __doc__ = f"An LSTM; its state is ``(h, c)``. {_Recurrent.__doc__}"
    kind, parts = "lstm", 2


class GRU(_Gated):
    __doc__ = f"A GRU. {_Recurrent.__doc__}"
    kind = "gru"
