"""A straight-through estimator and a gradient reversal, as autograd.Functions."""

import torch


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, levels):
        ctx.save_for_backward(x)
        return torch.round(x * levels) / levels

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1), None


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad.neg() * ctx.factor, None


w = torch.linspace(-1.5, 1.5, 6).view(2, 3).requires_grad_()
x = torch.linspace(-1, 1, 9).view(3, 3)
y = torch.tensor([[1.0, -1.0], [0.0, 0.5], [-1.0, 1.0]])
for step in range(4):
    quantised = Round.apply(w, 4)
    out = x @ quantised.t()
    adversary = Reverse.apply(out, 0.5).square().mean()
    loss = (out - y).pow(2).mean() + adversary
    (grad,) = torch.autograd.grad(loss, w)
    with torch.no_grad():
        w -= 0.3 * grad
    print(f"{step} {loss.item():.4f}", quantised.grad_fn.name(), quantised.unique().numel())
soft = x[0].softmax(0).detach().requires_grad_()
hard = torch.zeros_like(soft).scatter_(0, soft.argmax().view(1), 1.0)
through = hard + (soft - soft.detach())
(through * torch.arange(3)).sum().backward()
results = [loss, w, grad, quantised, through, soft.grad]
