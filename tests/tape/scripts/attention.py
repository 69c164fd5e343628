"""Multi-head attention by hand, causal, against the library's function."""

import math

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.RandomState(4)
B, T, C, heads = 2, 5, 8, 2
x = torch.tensor(rng.randn(B, T, C), dtype=torch.float32, requires_grad=True)
qkv_weight = torch.tensor(0.3 * rng.randn(3 * C, C), dtype=torch.float32, requires_grad=True)
out_weight = torch.tensor(0.3 * rng.randn(C, C), dtype=torch.float32, requires_grad=True)

q, k, v = F.linear(x, qkv_weight).split(C, dim=2)
q, k, v = (t.view(B, T, heads, C // heads).transpose(1, 2) for t in (q, k, v))
att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
causal = torch.tril(torch.ones(T, T)).view(1, 1, T, T)
att = att.masked_fill(causal == 0, float("-inf"))
att = F.softmax(att, dim=-1)
y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
y = F.layer_norm(y @ out_weight.mT + x, (C,))
same = F.scaled_dot_product_attention(q, k, v, is_causal=True)
y.square().mean().backward(retain_graph=True)
print(torch.allclose(same, att @ v, atol=1e-6), att.shape, att[0, 0].triu(1).sum().item())
results = [y, att, same, x.grad, qkv_weight.grad, out_weight.grad]
