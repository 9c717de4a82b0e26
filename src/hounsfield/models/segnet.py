"""SegNet (Badrinarayanan, Kendall, Cipolla 2015): VGG16's convolutions and their mirror, which unpools by indices."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from hounsfield.errors import InputError
from hounsfield.models.checks import check_halving, check_width
from hounsfield.models.pooling import pool, unpool

CONVOLUTIONS = (2, 2, 3, 3, 3)


class Convolutions(nn.Sequential):
    """3x3 convolutions between the given widths, each with batch norm (in place of a bias) and ReLU."""

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(widths):
            layers.append(nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(channels_out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class SegNet(nn.Module):
    """Encoder of five levels with base, 2x, 4x, 8x and 8x channels; the decoder unpools to the encoder's maxima.

    A smaller `depth` leaves out the deepest levels: for images so small that the fifth would see only a few points.
    """

    def __init__(self, base_channels: int = 64, depth: int = 5) -> None:
        super().__init__()
        check_width("segnet", base_channels)
        if not 2 <= depth <= len(CONVOLUTIONS):
            raise InputError(f"segnet: depth is {depth}, expected 2 to {len(CONVOLUTIONS)} levels")
        widths = [base_channels * factor for factor in (1, 2, 4, 8, 8)[:depth]]
        self.encoder = nn.ModuleList(
            Convolutions([above, *[width] * number])
            for above, width, number in zip([1, *widths], widths, CONVOLUTIONS, strict=False)
        )
        mirrored = [
            Convolutions([*[width] * number, above])
            for above, width, number in zip(widths, widths[1:], CONVOLUTIONS[1:], strict=False)
        ]
        self.decoder = nn.ModuleList([*reversed(mirrored), Convolutions([base_channels] * CONVOLUTIONS[0])])
        self.head = nn.Conv2d(base_channels, 2, kernel_size=3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2, H, W) of images (N, 1, H, W).

        Raises:
            InputError: H or W is not a multiple of 2^depth.
        """
        check_halving("segnet", images, len(self.encoder), ", or a smaller depth")
        maxima = []
        features = images
        for level in self.encoder:
            features, places = pool(level(features))
            maxima.append(places)
        for level in self.decoder:
            features = level(unpool(features, maxima.pop()))
        logits: torch.Tensor = self.head(features)
        return logits


def segnet(base_channels: int = 64, depth: int = 5) -> nn.Module:
    """SegNet; with the defaults the levels and widths of VGG16 and 29.4 million parameters."""
    return SegNet(base_channels, depth)
