"""Micro-batches, frozen parameters, retain_grad, and a look at the graph."""

import numpy as np
import torch

rng = np.random.RandomState(5)
data = torch.tensor(rng.randn(8, 4), dtype=torch.float32)
target = torch.tensor(rng.randint(0, 2, size=8)).float()
w = torch.tensor(rng.randn(4), dtype=torch.float32, requires_grad=True)
frozen = torch.tensor(rng.randn(4), dtype=torch.float32)
frozen.requires_grad = False


def loss_of(x, t):
    logits = x @ w + (x * frozen).sum(1)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, t)


loss_of(data, target).backward()
full = w.grad.clone()
w.grad = None
for x, t in zip(data.split(2), target.chunk(4)):
    (loss_of(x, t) / 4).backward()
print("same gradient:", torch.allclose(full, w.grad, atol=1e-6), frozen.grad)

hidden = data @ w
hidden.retain_grad()
out = hidden.sigmoid().mean()
out.backward()
print(hidden.is_leaf, hidden.grad.shape, out.grad_fn.name(), type(hidden.grad_fn).__name__ != "")
a = torch.tensor([1.0, 2.0], requires_grad=True)
b = a.detach()
c = a.data
with torch.no_grad():
    e = a * 2
print(b.requires_grad, c.requires_grad, e.requires_grad, (a * 2).requires_grad, a.numel(), a.dim())
with torch.set_grad_enabled(False):
    print((a + 1).requires_grad, torch.is_grad_enabled())
for make in (lambda: a.numpy(), lambda: (a * 2).sum().backward(torch.ones(3)), lambda: (a * 1).backward()):
    try:
        make()
    except RuntimeError as error:
        print(type(error).__name__, str(error)[:60])
results = [full, w.grad, hidden.grad]
