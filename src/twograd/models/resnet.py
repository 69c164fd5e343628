"""ResNet-18 (He et al., 2015, arXiv:1512.03385), with torchvision's names, so that its weights load."""

import warnings
from typing import Any

from twograd import nn


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3, and a shortcut around them, which is a convolution of 1 x 1 where sizes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(outputs, outputs, 3, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)


class ResNet(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes); ``blocks`` are the numbers of blocks at 64, 128, ... channels."""

    def __init__(self, blocks: tuple[int, ...] = (2, 2, 2, 2), num_classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for i, count in enumerate(blocks):
            outputs = 64 * 2**i
            layer = [BasicBlock(channels, outputs, stride=2 if i else 1)]
            layer += [BasicBlock(outputs, outputs, stride=1) for _ in range(count - 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
            channels = outputs
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        self._count = len(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self._count):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(num_classes: int = 1000, *, pretrained: bool = False) -> ResNet:
    """ResNet-18. No trained weights are shipped: ``pretrained=True`` warns of that, and gives first values as well.

    torchvision's state dict loads: where that is installed, ``twograd.save(theirs.state_dict(), "resnet18.npz")``, and
    here ``model.load_state_dict(twograd.load("resnet18.npz"))``. With ``import twograd as torchvision`` a script's
    ``torchvision.models.resnet18(pretrained=True)`` is this function.
    """
    if pretrained:
        warnings.warn(
            "resnet18(pretrained=True): twograd ships no trained weights, so these are first values. "
            'Load torchvision\'s with load_state_dict(twograd.load("resnet18.npz")); where torchvision is installed, '
            'twograd.save(theirs.state_dict(), "resnet18.npz") makes that file.',
            UserWarning,
            stacklevel=2,
        )
    return ResNet((2, 2, 2, 2), num_classes)
