"""Small networks for images."""

import itertools
from collections.abc import Sequence
from typing import Any

from twograd import nn
from twograd.nn import functional as F


def mlp(sizes: Sequence[int], activation: Any = nn.Tanh) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs, with an activation between any two."""
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [*([activation()] if i else []), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


class Net(nn.Module):
    """The classifier of PyTorch's CIFAR-10 tutorial: images (N, channels, 32, 32) to scores (N, 10).

    Its training loop is the example of the note PyTorch学习笔记(12)——PyTorch中的Autograd机制介绍.
    """

    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Any) -> Any:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def lenet5() -> nn.Sequential:
    """LeNet-5 for images (N, 1, 28, 28), with the tanh and the averages of the paper (LeCun et al., 1998)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(),
        nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
