"""Linear regression by hand."""

import numpy as np
import torch

rng = np.random.RandomState(0)
x = torch.tensor(rng.randn(32, 3), dtype=torch.float32)
true_w = torch.tensor([[1.5], [-2.0], [0.5]])
y = x @ true_w + 0.3 + 0.01 * torch.from_numpy(rng.randn(32, 1)).float()

w = torch.zeros(3, 1, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
lr = 0.1
losses = []
for epoch in range(40):
    pred = x.mm(w) + b
    loss = ((pred - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w -= lr * w.grad
        b -= lr * b.grad
        w.grad.zero_()
        b.grad.zero_()
    losses.append(loss.item())
    if epoch % 10 == 0:
        print(f"epoch {epoch}: loss {loss.item():.4f} w {w.view(-1).tolist()[0]:.3f}")
print("shape", w.shape, w.grad_fn, w.is_leaf, loss.requires_grad)
results = [losses, w, b]
