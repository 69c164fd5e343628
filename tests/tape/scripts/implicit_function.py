"""The derivative of a fixed point by the implicit function theorem, against that through the iteration."""

import torch

theta = torch.tensor([0.4, -0.3, 0.2], requires_grad=True)
A = torch.tensor([[0.2, 0.1, 0.0], [-0.1, 0.3, 0.1], [0.0, 0.2, 0.1]])


def step(x, theta):
    return torch.tanh(A @ x + theta)


x = torch.zeros(3)
for _ in range(40):
    x = step(x, theta)
through = torch.autograd.grad(x.sum(), theta)[0]

star = x.detach().requires_grad_()
out = step(star, theta)
J = torch.stack([torch.autograd.grad(out[i], star, retain_graph=True)[0] for i in range(3)])
v = torch.linalg.solve((torch.eye(3) - J).T, torch.ones(3))
implicit = torch.autograd.grad(out, theta, v)[0]
print("equal:", torch.allclose(through, implicit, atol=1e-5), (through - implicit).abs().max().item() < 1e-5)
results = [x, through, implicit, J]
