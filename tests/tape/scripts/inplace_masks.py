"""Changes in place: masks, index assignment, views, augmented assignment."""

import torch

x = torch.linspace(-2, 2, 12).reshape(3, 4).requires_grad_()
y = x * 2
y[y < 0] = 0
y[0, 1] = x[2, 3] * 3
y[:, 2] += x[:, 0].exp()
y[1].mul_(0.5)
y.masked_fill_(y > 4, 1.0)
z = y.clone()
z.clamp_(-1, 3).add_(x, alpha=0.1)
z[[0, 2], 1:3] = x[:2, :2]
z.t()[0] *= 2
z.diagonal().fill_(0.25)
z.index_add_(0, torch.tensor([0, 0]), x[1:])
z.scatter_(1, torch.tensor([[0], [1], [2]]), 1.5)
z.addcmul_(x, x, value=0.5)
w = torch.zeros(4)
w[1::2] = x.sum(0)[1::2]
w.unsqueeze_(0)
print(w.shape, y._version > 0, z.requires_grad, w.grad_fn is not None)
loss = (z * torch.arange(12.0).view(3, 4)).sum() + w.sum()
loss.backward()
try:
    x.add_(1)
except RuntimeError as error:
    print(error)
v = x.exp()
s = v.sum()
u = v.sin()
v += 1
try:
    (u.sum() + s).backward()
except RuntimeError as error:
    print(str(error)[:80])
results = [y, z, w, x.grad]
