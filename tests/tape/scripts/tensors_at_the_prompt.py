"""What one types at a prompt: types, shapes, printing, conversions."""

import copy

import torch

x = torch.tensor([[1.0, 2.5, -3.0], [0.125, 1e-2, 7.0]], requires_grad=True)
print(x)
print(x * 2)
print(x.detach().numpy().tolist() == x.tolist(), x.shape, x.size(1), x.ndim, len(x), x.stride(), x.is_contiguous())
print(torch.arange(3), torch.arange(0.0, 1.0, 0.25), torch.tensor([True, False]), torch.tensor(3.5), torch.zeros(2, 0))
print(torch.eye(3), torch.full((2, 2), 1e5), torch.tensor([1e-6, 1.0]), torch.tensor([float("nan"), 1.0, float("inf")]))
print(x.max(), x.max(dim=1).indices, x.argmax().item(), x.sum().item(), x.mean(0), x.std().item() > 3)
print(
    f"{x.sum():.3f}",
    float(x[0, 0].detach()),
    int(x[0, 1].detach()),
    [round(v, 3) for v in x.flatten().tolist()],
    bool(x.sum() > 0),
)
print(torch.where(x > 0, x, torch.zeros_like(x)), (x > 0).any(), (x > 0).all().item(), x.ge(1).sum())
print(x.type(), x.dtype == torch.float32, x.long().dtype == torch.int64, x.device, x.is_cuda, torch.is_tensor(x))
print(torch.device("cpu"), torch.zeros(2, device="cpu").to("cpu").to(torch.float32).requires_grad)
print(x[0, :, None].shape, x[..., -1], x[:, [0, 2]].shape, x[x > 1], x[1, 1:].tolist()[1])
print(torch.cat((x, x), 1).shape, torch.stack([x, x]).shape, x.repeat(1, 2).shape, x.expand(4, 2, 3).stride())
print(
    torch.finfo(torch.float32).eps, torch.iinfo(torch.int32).max, torch.pi, torch.get_default_dtype() == torch.float32
)
y = copy.deepcopy(x)
y.data.zero_()
print(y, x.data[0], y.grad, y.is_leaf, x.equal(y))
a, b = x.unbind(0)
print((a @ b).item(), a.dot(b) == (a * b).sum(), torch.outer(a, b).shape, 2.5 in x, torch.linspace(0, 1, 5))
for make in (
    lambda: torch.ones(2, 3) + torch.ones(2, 4),
    lambda: torch.ones(2, 3) @ torch.ones(2, 3),
    lambda: x.view(4, 2),
    lambda: torch.tensor([1, 2], requires_grad=True),
    lambda: torch.cat([torch.ones(2, 3), torch.ones(2, 4)]),
    lambda: bool(x),
    lambda: x.sum(5),
    lambda: torch.ones(2).gather(0, torch.tensor([3])),
    lambda: copy.deepcopy(x * 2),
    lambda: torch.tensor([1, 2]).mean(),
    lambda: x.item(),
    lambda: torch.ones(3)[5],
):
    try:
        make()
    except (RuntimeError, IndexError) as error:
        print(isinstance(error, IndexError), str(error)[:70])
results = [x, a, b]
