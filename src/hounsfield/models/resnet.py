"""ResNet (He et al. 2015) for one-channel images, with the parameter names under which published weights are stored.

Bottlenecks reduce the size in their 3x3 convolution ("v1.5"), as the published weights of torchvision do.
"""

from collections.abc import Sequence

import torch
from torch import nn

from hounsfield.errors import InputError
from hounsfield.models.checks import check_width

SMALLEST = 32


class Basic(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, width * self.expansion, stride)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += features if self.downsample is None else self.downsample(features)
        activated: torch.Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut, the last four times wider."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, width * self.expansion, stride)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += features if self.downsample is None else self.downsample(features)
        activated: torch.Tensor = self.relu(out)
        return activated


def shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """Projection of the shortcut, None where the identity fits."""
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class ResNet(nn.Module):
    """Residual network over `channels` input channels and `classes` outputs: stages of base, 2x, 4x and 8x channels."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        stages: Sequence[int],
        base_channels: int = 64,
        channels: int = 1,
        classes: int = 2,
    ) -> None:
        super().__init__()
        check_width("resnet", base_channels)
        self.conv1 = nn.Conv2d(channels, base_channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        width = base_channels
        for number, blocks in enumerate(stages, start=1):
            features = base_channels * 2 ** (number - 1)
            layers: list[nn.Module] = []
            for position in range(blocks):
                layers.append(block(width, features, stride=2 if number > 1 and position == 0 else 1))
                width = features * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Basic | Bottleneck):
                last = module.bn2 if isinstance(module, Basic) else module.bn3
                nn.init.zeros_(last.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, channels, H, W).

        Raises:
            InputError: H or W is below 32, the reduction of the four stages.
        """
        rows, columns = images.shape[-2:]
        if min(rows, columns) < SMALLEST:
            raise InputError(f"resnet: images of {rows}x{columns} are too small: use at least {SMALLEST}x{SMALLEST}")
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in (1, 2, 3, 4):
            features = getattr(self, f"layer{number}")(features)
        logits: torch.Tensor = self.fc(self.avgpool(features).flatten(1))
        return logits


def resnet18(base_channels: int = 64) -> nn.Module:
    """ResNet18: 2-2-2-2 basic blocks."""
    return ResNet(Basic, (2, 2, 2, 2), base_channels)


def resnet34(base_channels: int = 64) -> nn.Module:
    """ResNet34: 3-4-6-3 basic blocks."""
    return ResNet(Basic, (3, 4, 6, 3), base_channels)


def resnet50(base_channels: int = 64) -> nn.Module:
    """ResNet50: 3-4-6-3 bottlenecks; with 64 base channels 23.5 million parameters without the last layer."""
    return ResNet(Bottleneck, (3, 4, 6, 3), base_channels)
