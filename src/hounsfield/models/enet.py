"""E-Net (Paszke, Chaurasia, Kim, Culurciello 2016) for one-channel images.

Where the paper leaves a choice, that of its authors' code is taken: inner convolutions work on a quarter of a
bottleneck's output channels, and the last full convolution has a 2x2 kernel. Bottlenecks that keep size and channels
begin as the identity (Goyal et al. 2017), which makes a row of so many learn in fewer epochs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from hounsfield.models.checks import check_halving, check_width
from hounsfield.models.pooling import pool, unpool

Activation = Callable[[int], nn.Module]
REDUCTION = 4
HALVINGS = 3


def rectifier(channels: int) -> nn.Module:
    """ReLU, the decoder's activation."""
    return nn.ReLU(inplace=True)


class InitialBlock(nn.Module):
    """A stride-2 convolution beside a max pooling of the image itself, `channels` in all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, channels - 1, kernel_size=3, stride=2, padding=1, bias=False)
        self.normalisation = nn.BatchNorm2d(channels)
        self.activation = nn.PReLU(channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        convolved = self.convolution(images)
        pooled = functional.max_pool2d(images, 2).to(convolved.dtype)
        both = torch.cat([convolved, pooled], dim=1)
        if convolved.is_contiguous(memory_format=torch.channels_last):  # cat forgets it, for `pooled` has one channel
            both = both.contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = self.activation(self.normalisation(both))
        return features


class Branch(nn.Sequential):
    """Projection, inner convolutions and expansion, with batch norm and activation between, then spatial dropout."""

    def __init__(
        self, projection: nn.Module, inner: Sequence[nn.Module], channels: int, dropout: float, activation: Activation
    ) -> None:
        width = channels // REDUCTION
        layers: list[nn.Module] = []
        for convolution in (projection, *inner):
            layers += [convolution, nn.BatchNorm2d(width), activation(width)]
        layers.append(nn.Conv2d(width, channels, kernel_size=1, bias=False))
        super().__init__(*layers, nn.BatchNorm2d(channels), nn.Dropout2d(dropout))

    @property
    def last(self) -> nn.BatchNorm2d:
        """The batch norm of the expansion."""
        norm = self[-2]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


class Bottleneck(nn.Module):
    """Bottleneck that keeps size and channels, around the given inner convolutions."""

    def __init__(self, channels: int, inner: Sequence[nn.Module], dropout: float, activation: Activation) -> None:
        super().__init__()
        projection = nn.Conv2d(channels, channels // REDUCTION, kernel_size=1, bias=False)
        self.branch = Branch(projection, inner, channels, dropout, activation)
        self.activation = activation(channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(features + self.branch(features))
        return result


class Regular(Bottleneck):
    """A 3x3 convolution inside."""

    def __init__(self, channels: int, dropout: float, activation: Activation = nn.PReLU) -> None:
        width = channels // REDUCTION
        super().__init__(channels, [nn.Conv2d(width, width, 3, padding=1, bias=False)], dropout, activation)


class Dilated(Bottleneck):
    """A 3x3 convolution with holes inside."""

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        width = channels // REDUCTION
        inner = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        super().__init__(channels, [inner], dropout, nn.PReLU)


class Asymmetric(Bottleneck):
    """A size x 1 and a 1 x size convolution inside."""

    def __init__(self, channels: int, dropout: float, size: int = 5) -> None:
        width, pad = channels // REDUCTION, size // 2
        inner = [
            nn.Conv2d(width, width, (size, 1), padding=(pad, 0), bias=False),
            nn.Conv2d(width, width, (1, size), padding=(0, pad), bias=False),
        ]
        super().__init__(channels, inner, dropout, nn.PReLU)


class Downsampling(nn.Module):
    """Halves the size: max pooling padded with empty channels, beside a branch whose projection has stride 2."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        width = channels_out // REDUCTION
        projection = nn.Conv2d(channels_in, width, kernel_size=2, stride=2, bias=False)
        inner = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.branch = Branch(projection, [inner], channels_out, dropout, nn.PReLU)
        self.activation = nn.PReLU(channels_out)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of half the size, and the positions of the maxima for the upsampling."""
        branch = self.branch(features)
        pooled, places = pool(features)
        padded = functional.pad(pooled, (0, 0, 0, 0, 0, branch.shape[1] - pooled.shape[1]))
        return self.activation(padded + branch), places


class Upsampling(nn.Module):
    """Doubles the size: unpooling to the positions of the encoder's maxima, beside a branch with a full convolution."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        width = channels_out // REDUCTION
        self.main = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False), nn.BatchNorm2d(channels_out)
        )
        projection = nn.Conv2d(channels_in, width, kernel_size=1, bias=False)
        inner = nn.ConvTranspose2d(width, width, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False)
        self.branch = Branch(projection, [inner], channels_out, dropout, rectifier)
        self.activation = rectifier(channels_out)

    def forward(self, features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        main = unpool(self.main(features), places)
        result: torch.Tensor = self.activation(main + self.branch(features))
        return result


def context(channels: int, dropout: float) -> list[nn.Module]:
    """The eight bottlenecks of stages 2 and 3, which widen the field of view at an eighth of the size."""
    return [
        Regular(channels, dropout), Dilated(channels, dropout, 2), Asymmetric(channels, dropout),
        Dilated(channels, dropout, 4), Regular(channels, dropout), Dilated(channels, dropout, 8),
        Asymmetric(channels, dropout), Dilated(channels, dropout, 16),
    ]  # fmt: skip


class ENet(nn.Module):
    """Initial block, three encoder and two decoder stages with base, 4x, 8x, 4x and base channels, full convolution."""

    def __init__(self, base_channels: int = 16) -> None:
        super().__init__()
        check_width("enet", base_channels, multiple=REDUCTION)
        narrow, middle, wide = base_channels, 4 * base_channels, 8 * base_channels
        early, late = 0.01, 0.1
        self.initial = InitialBlock(narrow)
        self.down1 = Downsampling(narrow, middle, early)
        self.stage1 = nn.Sequential(*(Regular(middle, early) for _ in range(4)))
        self.down2 = Downsampling(middle, wide, late)
        self.stage2 = nn.Sequential(*context(wide, late))
        self.stage3 = nn.Sequential(*context(wide, late))
        self.up4 = Upsampling(wide, middle, late)
        self.stage4 = nn.Sequential(*(Regular(middle, late, rectifier) for _ in range(2)))
        self.up5 = Upsampling(middle, narrow, late)
        self.stage5 = Regular(narrow, late, rectifier)
        self.head = nn.ConvTranspose2d(narrow, 2, kernel_size=2, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.branch.last.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2, H, W) of images (N, 1, H, W).

        Raises:
            InputError: H or W is not a multiple of 8.
        """
        check_halving("enet", images, HALVINGS)
        features, outer = self.down1(self.initial(images))
        features, inner = self.down2(self.stage1(features))
        features = self.stage3(self.stage2(features))
        features = self.stage4(self.up4(features, inner))
        features = self.stage5(self.up5(features, outer))
        logits: torch.Tensor = self.head(features)
        return logits


def enet(base_channels: int = 16) -> nn.Module:
    """E-Net; with the default 16, 64 and 128 channels and 0.36 million parameters."""
    return ENet(base_channels)
