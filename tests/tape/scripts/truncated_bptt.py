"""Truncated backpropagation through time: the state is detached between chunks."""

import torch

series = torch.sin(torch.linspace(0, 6, 21))
wx, wh, wo = (torch.tensor(v, requires_grad=True) for v in ([0.5, -0.3], [[0.2, 0.1], [-0.1, 0.3]], [0.7, 0.4]))
params = [wx, wh, wo]
h = torch.zeros(2)
total = 0.0
for chunk in series.split(7):
    h = h.detach()
    loss = 0
    for t in range(len(chunk) - 1):
        h = torch.tanh(chunk[t] * wx + h @ wh)
        loss = loss + ((h * wo).sum() - chunk[t + 1]) ** 2
    loss.backward()
    with torch.no_grad():
        for p in params:
            p -= 0.05 * p.grad
            p.grad.zero_()
    total += loss.item()
    print(f"{loss.item():.4f}", h.requires_grad, h.detach().is_leaf)
state = h.detach_()
print(state is h, h.grad_fn is None)
try:
    loss.backward()
except RuntimeError as error:
    print(error)
results = [loss, total, params, h]
