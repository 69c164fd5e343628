"""Deep Q-learning: gather, a target network that is copied and blended under no_grad, clipping of gradients."""

import torch
import torch.nn.functional as F

torch.set_printoptions(precision=3)
states = torch.linspace(-1, 1, 12).view(4, 3)
actions = torch.tensor([0, 1, 1, 0]).unsqueeze(1)
rewards = torch.tensor([1.0, 0.0, -1.0, 0.5])
dones = torch.tensor([False, False, True, False])
policy = torch.nn.Linear(3, 2)
target = torch.nn.Linear(3, 2)
with torch.no_grad():
    policy.weight.copy_(torch.linspace(-0.5, 0.5, 6).view(2, 3))
    policy.bias.zero_()
    for p in target.parameters():
        p.fill_(0.1)
target.load_state_dict(policy.state_dict())
optimizer = torch.optim.RMSprop(policy.parameters(), lr=0.05)

for step in range(5):
    q = policy(states).gather(1, actions).squeeze(1)
    with torch.no_grad():
        best = target(states.roll(1, 0)).max(1).values
        best[dones] = 0.0
    loss = F.smooth_l1_loss(q, rewards + 0.9 * best)
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    for p in policy.parameters():
        p.grad.data.clamp_(-0.2, 0.2)
    optimizer.step()
    with torch.no_grad():
        for old, new in zip(target.parameters(), policy.parameters()):
            old.mul_(0.8).add_(new, alpha=0.2)
    print(f"{step} {loss.item():.4f} {float(norm):.4f}", best.requires_grad)
print(target.weight.detach())
results = [loss, policy.weight, policy.bias, target.weight, target.bias, target.weight.grad is None]
