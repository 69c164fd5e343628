"""Attention and the transformer's encoder (Vaswani et al., 2017, arXiv:1706.03762)."""

import copy
from typing import Any

import jax.numpy as jnp

from twograd.nn import functional as F
from twograd.nn import init
from twograd.nn.containers import ModuleList
from twograd.nn.layers import Dropout, Linear
from twograd.nn.module import Module, blank
from twograd.nn.normalisation import LayerNorm
from twograd.nn.settled import settled
from twograd.tape.factories import next_key


def _attended(*operands: Any, heads: int, masks: tuple[str, ...], need_weights: bool, p: float) -> Any:
    """Attention of projected (N, L, E), (N, S, E), (N, S, E), then the masks and the key of the dropout.

    Returns (N, L, E), and with ``need_weights`` the weights (N, heads, L, S).
    """
    query, key, value, *rest = operands
    given = dict(zip(masks, rest, strict=False))
    q, k, v = (jnp.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2) for x in (query, key, value))
    mask = given.get("attn_mask")
    if mask is not None and mask.dtype == bool:  # here True leaves out, and there it takes part
        mask = ~mask
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(-1, heads, *mask.shape[1:])
    padding = given.get("key_padding_mask")
    if padding is not None:
        padding = padding[:, None, None, :]
        padding = ~padding if padding.dtype == bool else padding
        if mask is None:
            mask = padding
        elif mask.dtype == padding.dtype == bool:
            mask = mask & padding
        else:
            mask = _additive(mask, q.dtype) + _additive(padding, q.dtype)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*q.shape[:-1], k.shape[2]))
    dropout = {"dropout_p": p, "dropout_key": rest[-1]} if p else {}
    out = F.scaled_dot_product_attention(q, k, v, mask, **dropout)
    out = jnp.swapaxes(out, 1, 2).reshape(query.shape)
    if not need_weights:
        return out
    identity = jnp.broadcast_to(jnp.eye(k.shape[2], dtype=v.dtype), (*k.shape[:2], k.shape[2], k.shape[2]))
    return out, F.scaled_dot_product_attention(q, k, identity, mask)


def _additive(mask: Any, dtype: Any) -> Any:
    return jnp.where(mask, 0, -jnp.inf).astype(dtype) if mask.dtype == bool else mask


def _projected(*operands: Any, same: tuple[bool, bool], packed: bool, bias: bool) -> Any:
    """Query, key and value through their projections; one product where they are one Tensor."""
    count = 1 + (not same[0]) + (not same[1])
    given, rest = list(operands[:count]), list(operands[count:])
    query = given.pop(0)
    key = query if same[0] else given.pop(0)
    value = key if same[1] else given.pop(0)
    biases = jnp.split(rest.pop(), 3) if bias else [None] * 3
    if packed and same == (True, True):
        return tuple(jnp.split(F.linear(query, rest[0], None if not bias else operands[-1]), 3, axis=-1))
    weights = jnp.split(rest[0], 3) if packed else rest
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


class MultiheadAttention(Module):
    """``attention(query, key, value)``: (L, N, E), (S, N, E), (S, N, E); with ``batch_first`` (N, L, E) ...; or no N.

    Returns the output, of the query's shape, and the weights (N, L, S) averaged over the heads (None unless
    ``need_weights``). Masks are True where nothing may be attended to, or numbers that are added to the scores. The
    weights that are returned are those before dropout.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0")
        if embed_dim % num_heads:
            raise AssertionError("embed_dim must be divisible by num_heads")
        if add_bias_kv or add_zero_attn:
            raise NotImplementedError("MultiheadAttention: add_bias_kv and add_zero_attn are not supported")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self._packed = self.kdim == self.vdim == embed_dim
        shapes: dict[str, Any] = dict.fromkeys(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"))
        if self._packed:
            shapes["in_proj_weight"] = (3 * embed_dim, embed_dim)
        else:
            shapes |= {"q_proj_weight": (embed_dim, embed_dim), "k_proj_weight": (embed_dim, self.kdim)}
            shapes["v_proj_weight"] = (embed_dim, self.vdim)
        for name, shape in shapes.items():
            weight = None if shape is None else init.xavier_uniform_(blank(shape, device, dtype))
            self.register_parameter(name, weight)
        in_proj_bias = init.zeros_(blank((3 * embed_dim,), device, dtype)) if bias else None
        self.register_parameter("in_proj_bias", in_proj_bias)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        if bias:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if query.ndim not in (2, 3):
            raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query")
        same = key is query, value is key
        batched = query.ndim == 3

        def laid(x):
            return x.unsqueeze(0) if not batched else x if self.batch_first else x.transpose(0, 1)

        laid_out = {id(x): laid(x) for x in (query, key, value)}
        bias = self.in_proj_bias
        weights = (
            [self.in_proj_weight] if self._packed else [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        )
        project = settled(_projected, same=same, packed=self._packed, bias=bias is not None)
        projected = project(*laid_out.values(), *weights, *([] if bias is None else [bias]))
        masks = {"attn_mask": attn_mask, "key_padding_mask": key_padding_mask}
        if key_padding_mask is not None and not batched:
            masks["key_padding_mask"] = key_padding_mask.unsqueeze(0)
        given = {name: mask for name, mask in masks.items() if mask is not None}
        p = self.dropout if self.training else 0.0
        attend = settled(_attended, heads=self.num_heads, masks=tuple(given), need_weights=need_weights, p=p)
        out = attend(*projected, *given.values(), *([next_key()] if p else []))
        out, weights = out if need_weights else (out, None)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        out = self.out_proj(out)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights


class TransformerEncoderLayer(Module):
    """Self-attention and a network of two linear layers, each with a residual and a layer normalisation."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        made = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, batch_first=batch_first, **made)
        self.linear1 = Linear(d_model, dim_feedforward, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **made)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, **made)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, **made)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        if isinstance(activation, str):
            if activation not in ("relu", "gelu"):
                raise RuntimeError(f"activation should be relu/gelu, not {activation}")
            activation = getattr(F, activation)
        self.activation = activation

    def forward(self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        x = src
        if self.norm_first:
            x = x + self._attended(self.norm1(x), src_mask, src_key_padding_mask)
            return x + self._fed_forward(self.norm2(x))
        x = self.norm1(x + self._attended(x, src_mask, src_key_padding_mask))
        return self.norm2(x + self._fed_forward(x))

    def _attended(self, x: Any, mask: Any, padding: Any) -> Any:
        return self.dropout1(self.self_attn(x, x, x, padding, need_weights=False, attn_mask=mask)[0])

    def _fed_forward(self, x: Any) -> Any:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """``num_layers`` copies of a layer, one after the other, and a normalisation at the end if one is given."""

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        for layer in self.layers:
            src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)
