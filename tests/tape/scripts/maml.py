"""Model-agnostic meta-learning: the outer gradient goes through the inner step."""

import math

import torch

meta = [torch.linspace(-1, 1, 10).view(1, 10), torch.zeros(10), torch.linspace(1, -0.5, 10).view(10, 1), torch.zeros(1)]
meta = [p.clone().requires_grad_() for p in meta]


def net(x, params):
    w1, b1, w2, b2 = params
    return torch.tanh(x.matmul(w1) + b1).matmul(w2) + b2


for meta_step in range(3):
    outer = 0.0
    for task in range(2):
        xs = torch.linspace(-2, 2, 12).unsqueeze(1)
        ys = (1 + task) * torch.sin(xs + task * math.pi / 4)
        fast = meta
        for _ in range(2):
            inner = torch.nn.functional.mse_loss(net(xs[::2], fast), ys[::2])
            grads = torch.autograd.grad(inner, fast, create_graph=True)
            fast = [p - 0.1 * g for p, g in zip(fast, grads)]
        outer = outer + ((net(xs[1::2], fast) - ys[1::2]) ** 2).mean()
    grads = torch.autograd.grad(outer, meta)
    with torch.no_grad():
        for p, g in zip(meta, grads):
            p.add_(g, alpha=-0.02)
    print(f"{meta_step} {outer.item():.4f}")
results = [outer, grads, meta]
