"""Rosenbrock's function by Newton's method, with the Hessian from double backward."""

import torch

x = torch.tensor([-1.2, 1.0], requires_grad=True)
path = []
for i in range(6):
    f = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    (g,) = torch.autograd.grad(f, x, create_graph=True)
    H = torch.stack([torch.autograd.grad(g[j], x, retain_graph=True)[0] for j in range(2)])
    with torch.no_grad():
        x -= torch.linalg.solve(H, g.unsqueeze(-1)).squeeze(-1)
    path.append((f.item(), *x.tolist()))
    print("iter %d f=%.3e x=(%.4f, %.4f)" % (i, f.item(), x[0].item(), x[1].item()))
results = [H, path[:4], x]
