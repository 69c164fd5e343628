"""A variational autoencoder: the reparametrisation trick, and the two terms of its loss."""

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(6, 4)
        self.mu = nn.Linear(4, 2)
        self.logvar = nn.Linear(4, 2)
        self.out = nn.Linear(2, 6)

    def forward(self, x, eps):
        h = F.relu(self.hidden(x), inplace=True)
        mu, logvar = self.mu(h), self.logvar(h)
        std = torch.exp(0.5 * logvar)
        z = eps.mul(std).add_(mu)
        return torch.sigmoid(self.out(z)), mu, logvar


model = VAE()
with torch.no_grad():
    for i, p in enumerate(model.parameters()):
        p.copy_(torch.linspace(-0.6, 0.6 + 0.1 * i, p.numel()).view_as(p))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x = torch.linspace(0, 1, 30).view(5, 6)
model.train()
for step in range(4):
    eps = torch.sin(torch.arange(10.0) + step).view(5, 2)
    optimizer.zero_grad()
    recon, mu, logvar = model(x, eps)
    bce = F.binary_cross_entropy(recon, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    loss = bce + kld
    loss.backward()
    optimizer.step()
    print(f"step {step} bce {bce.item():.3f} kld {kld.item():.3f}")
model.eval()
with torch.inference_mode():
    sample = torch.sigmoid(model.out(torch.zeros(1, 2)))
print(sample.requires_grad, sample.is_inference())
results = [loss, [p.grad for p in model.parameters()], sample]
