"""A GAN: two optimisers, and detach() between the two networks."""

import torch

real = torch.linspace(0.5, 2.0, 8).view(8, 1)
noise = torch.linspace(-1, 1, 8).view(8, 1)
generator = [torch.full((1, 1), 0.3, requires_grad=True), torch.zeros(1, requires_grad=True)]
critic = [torch.full((1, 1), 0.7, requires_grad=True), torch.full((1,), -0.2, requires_grad=True)]
optim_g = torch.optim.Adam(generator, lr=0.05, betas=(0.5, 0.999))
optim_d = torch.optim.SGD(critic, lr=0.1)
bce = torch.nn.functional.binary_cross_entropy_with_logits


def score(x):
    return x @ critic[0] + critic[1]


for step in range(4):
    fake = torch.tanh(noise @ generator[0]) + generator[1]
    optim_d.zero_grad()
    of_real, of_fake = score(real), score(fake.detach())
    loss_d = bce(of_real, torch.ones_like(of_real)) + bce(of_fake, torch.zeros_like(of_fake))
    loss_d.backward()
    assert all(p.grad is None for p in generator) or step > 0
    optim_d.step()

    for p in critic:
        p.requires_grad_(False)
    optim_g.zero_grad()
    scores = score(fake)
    loss_g = bce(scores, torch.ones_like(scores))
    before = [p.grad.clone() for p in critic]
    loss_g.backward()
    optim_g.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(critic, before))
    for p in critic:
        p.requires_grad_(True)
    print(f"{step} {loss_d.item():.4f} {loss_g.item():.4f}", [p.requires_grad for p in critic])
results = [loss_d, loss_g, generator, critic, [p.grad for p in critic + generator]]
