"""PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍: what it says besides its programs."""

import torch

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
results = [c, w.grad, v.grad, out]
