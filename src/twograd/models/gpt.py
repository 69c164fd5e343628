"""A small transformer that predicts the next token, after GPT-2 (Radford et al., 2019)."""

from typing import Any

from twograd import nn
from twograd.nn import functional as F
from twograd.nn.settled import settled


class Attention(nn.Module):
    """Causal self-attention: each place looks at itself and what is before it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"the width {width} must be divisible by the number of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        n, length, width = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attend = settled(F.scaled_dot_product_attention, is_causal=True)
        return self.out(attend(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    """Attention and a network of two layers, each behind a normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """(N, T) tokens to scores (N, T, vocabulary) of the next, T up to ``length``."""

    def __init__(self, vocabulary: int, length: int, width: int = 64, heads: int = 4, layers: int = 2):
        super().__init__()
        self.length = length
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Any) -> Any:
        length = tokens.shape[1]
        if length > self.length:
            raise ValueError(f"{length} tokens are more than the {self.length} that this GPT has places for")
        x = self.tokens(tokens) + self.places.weight.narrow(0, 0, length)
        return self.head(self.norm(self.blocks(x)))
