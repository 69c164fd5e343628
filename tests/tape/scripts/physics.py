"""A double pendulum's forces from its Lagrangian, by autograd, and a spring chain by gradient descent."""

import torch

torch.set_default_dtype(torch.float32)


def lagrangian(q, qdot):
    kinetic = qdot[0] ** 2 + 0.5 * qdot[1] ** 2 + qdot.prod() * torch.cos(q[0] - q[1])
    potential = -9.81 * (2 * q[0].cos() + q[1].cos())
    return kinetic - potential


q = torch.tensor([0.5, -0.2])
qdot = torch.tensor([0.1, 0.3])
dt = 0.01
energies = []
for _ in range(5):
    q, qdot = q.detach().requires_grad_(), qdot.detach().requires_grad_()
    L = lagrangian(q, qdot)
    dq, dqdot = torch.autograd.grad(L, (q, qdot), create_graph=True)
    mass = torch.stack([torch.autograd.grad(p, qdot, retain_graph=True)[0] for p in dqdot])
    mixed = torch.stack([torch.autograd.grad(p, q, retain_graph=True)[0] for p in dqdot])
    acceleration = torch.inverse(mass) @ (dq - mixed @ qdot)
    qdot = qdot + dt * acceleration
    q = q + dt * qdot
    energies.append(torch.dot(qdot.detach(), dqdot.detach()).item() - L.item())

points = torch.stack((torch.arange(6.0), torch.zeros(6)), dim=-1).requires_grad_()
springs = torch.combinations(torch.arange(6), 2)
lengths = torch.cdist(points, points).detach() * 0.9
for _ in range(10):
    difference = points[springs[:, 0]] - points[springs[:, 1]] + 1e-3
    stretch = difference.norm(dim=1) - lengths[springs[:, 0], springs[:, 1]]
    energy = 0.5 * (stretch**2).sum() + points[:, 1].sum() * 0.1
    (gradient,) = torch.autograd.grad(energy, points)
    points = (points - 0.05 * gradient).detach().requires_grad_(True)
print(f"{energies[-1]:.3f} {energy:.3f} {springs.shape} {mass.shape}")
results = [q, qdot, energies, points, energy]
