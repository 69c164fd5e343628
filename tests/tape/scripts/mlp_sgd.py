"""A two-layer perceptron on spirals, with SGD and momentum by hand."""

import math

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.RandomState(1)
n, d, h, c = 60, 2, 16, 3
theta = torch.linspace(0, 2 * math.pi, n // c)
points, labels = [], []
for k in range(c):
    r = torch.linspace(0.1, 1, n // c)
    points.append(torch.stack([r * torch.sin(theta + 2 * k), r * torch.cos(theta + 2 * k)], dim=1))
    labels.append(torch.full((n // c,), k, dtype=torch.long))
X, y = torch.cat(points), torch.cat(labels)


def init(*shape):
    return torch.tensor(rng.randn(*shape) / math.sqrt(shape[0]), dtype=torch.float32, requires_grad=True)


params = [init(d, h), torch.zeros(h, requires_grad=True), init(h, c), torch.zeros(c, requires_grad=True)]
velocity = [torch.zeros_like(p) for p in params]
for step in range(30):
    W1, b1, W2, b2 = params
    hidden = F.relu(X @ W1 + b1)
    logits = torch.addmm(b2, hidden, W2)
    loss = F.cross_entropy(logits, y) + 1e-3 * sum(p.pow(2).sum() for p in params)
    for p in params:
        p.grad = None
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in params))
    with torch.no_grad():
        for p, v in zip(params, velocity):
            g = p.grad / torch.clamp(norm, min=1.0)
            v.mul_(0.9).add_(g, alpha=1.0)
            p.sub_(0.5 * v)
    if step % 10 == 9:
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        print(f"{step:3d} loss {loss:.3f} accuracy {accuracy.item():.2f} |g| {norm:.2f}")
print(y.dtype == torch.long, X.dtype is torch.float32, logits.size(), logits.size(0), len(params))
results = [loss, *params, logits.softmax(-1).sum(1)]
