"""WGAN-GP: the gradient penalty, which differentiates a gradient."""

import numpy as np
import torch

rng = np.random.RandomState(2)


def parameter(*shape):
    return torch.tensor(0.5 * rng.randn(*shape), dtype=torch.float32).requires_grad_()


w1, b1, w2 = parameter(4, 8), parameter(8), parameter(8, 1)


def critic(x):
    return torch.tanh(x @ w1 + b1) @ w2


real = torch.tensor(rng.randn(6, 4), dtype=torch.float32)
fake = torch.tensor(rng.randn(6, 4), dtype=torch.float32)
alpha = torch.tensor(rng.rand(6, 1), dtype=torch.float32).expand_as(real)
mixed = (alpha * real + (1 - alpha) * fake).detach().requires_grad_(True)
scores = critic(mixed)
gradients = torch.autograd.grad(
    outputs=scores, inputs=mixed, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
)[0]
penalty = ((gradients.view(6, -1).norm(2, dim=1) - 1) ** 2).mean()
loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
loss.backward()
print(f"loss {loss.item():.4f} penalty {penalty.item():.4f}", mixed.grad is None)
results = [loss, penalty, gradients, w1.grad, b1.grad, w2.grad]
