"""PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍: its snippets of the tape."""

import torch

torch.manual_seed(0)
x = torch.randn(5, 5)  # requires_grad=False by default
y = torch.randn(5, 5)  # requires_grad=False by default
z = torch.randn((5, 5), requires_grad=True)
a = x + y
print(a.requires_grad)
b = a + z
print(b.requires_grad)

# 让所有的参数都不参与BP过程, 只对分类器进行优化
features = [torch.full((4, 4), 0.1, requires_grad=True), torch.full((4, 4), 0.2, requires_grad=True)]
for param in features:
    param.requires_grad = False
fc = torch.full((3, 4), 0.3, requires_grad=True)
out = torch.ones(2, 4)
for param in features:
    out = torch.relu(out @ param)
    print(out.requires_grad, out.grad_fn)
out = torch.nn.functional.linear(out, fc)
before = [p.clone() for p in features]
momentum = torch.zeros_like(fc)
running_loss = 0.0
for i in range(3):
    fc.grad = None  # 清空
    loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(torch.ones(2, 4), fc), torch.tensor([0, 2]))
    loss.backward()
    momentum = 0.9 * momentum + fc.grad
    fc.data -= 1e-2 * momentum
    running_loss += loss.item()
print([torch.equal(p, q) for p, q in zip(features, before)], [p.grad for p in features])

# a.unsqueeze_(0): in-place ops 指的是在原数据的基础上进行操作
c = torch.ones(3)
c.unsqueeze_(0)
print(c.shape)

# 梯度会累加, 所以每次迭代都要清空
w = torch.tensor([1.0, 2.0], requires_grad=True)
for _ in range(2):
    (w * w).sum().backward()
print(w.grad)
w.grad.zero_()
(w * w).sum().backward()
print(w.grad)

# Python control flow: the graph is recreated at every iteration
v = torch.tensor(0.7, requires_grad=True)
out = v
while out < 8:
    out = out * 2 if out < 3 else out * v + 3
out.backward()
print(v.grad)
results = [running_loss, fc, w.grad, v.grad, out]
