"""A convolution net's features, pooled, normalised and flattened; saliency with respect to the image."""

import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.RandomState(6)
image = torch.tensor(rng.rand(2, 1, 8, 8), dtype=torch.float32, requires_grad=True)
kernel1 = torch.tensor(0.3 * rng.randn(4, 1, 3, 3), dtype=torch.float32, requires_grad=True)
kernel2 = torch.tensor(0.3 * rng.randn(6, 4, 3, 3), dtype=torch.float32, requires_grad=True)
gamma, beta = torch.ones(4, requires_grad=True), torch.zeros(4, requires_grad=True)
running_mean, running_var = torch.zeros(4), torch.ones(4)
x = F.conv2d(image, kernel1, padding=1)
x = F.batch_norm(x, running_mean, running_var, gamma, beta, training=True)
x = F.max_pool2d(F.leaky_relu(x, 0.1), 2)
x = F.relu(F.conv2d(x, kernel2, stride=2, padding=1), inplace=True)
x = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
scores = F.log_softmax(x, dim=1)
values, indices = scores.topk(2, dim=1)
loss = F.nll_loss(scores, indices[:, 0]) + 0.1 * F.smooth_l1_loss(x, torch.zeros_like(x))
loss.backward()
saliency = image.grad.abs().amax(dim=(1, 2, 3))
print(x.shape, values.shape, indices.dtype == torch.int64, f"{loss.item():.4f}")
onehot = F.one_hot(indices[:, 0], num_classes=6).float()
results = [loss, kernel1.grad, kernel2.grad, gamma.grad, beta.grad, saliency, running_mean, running_var, onehot]
