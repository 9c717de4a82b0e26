"""U-Net (Ronneberger, Fischer, Brox 2015) with padded convolutions, so that masks keep the size of the image."""

import torch
from torch import nn

from hounsfield.errors import InputError
from hounsfield.models.checks import check_halving


class DoubleConvolution(nn.Sequential):
    """Two 3x3 convolutions with ReLU, each with batch norm when asked for."""

    def __init__(self, channels_in: int, channels_out: int, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            layers.append(nn.Conv2d(channels, channels_out, kernel_size=3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels_out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UNet(nn.Module):
    """Contracting path of `depth` levels with `base_channels` doubling at each, and the mirrored expanding path."""

    def __init__(self, base_channels: int = 64, depth: int = 5, batch_norm: bool = False) -> None:
        super().__init__()
        if base_channels < 1 or depth < 2:
            raise InputError(
                f"unet: base_channels is {base_channels} and depth {depth}, expected at least 1 channel and 2 levels"
            )
        widths = [base_channels * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            DoubleConvolution(above, width, batch_norm) for above, width in zip([1, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(DoubleConvolution(2 * width, width, batch_norm) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, 2, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 2, H, W) of images (N, 1, H, W).

        Raises:
            InputError: H or W is not a multiple of 2^(depth - 1).
        """
        check_halving("unet", images, len(self.up), otherwise=", or a smaller depth")
        skipped = []
        features = images
        for level in self.down:
            features = level(features if level is self.down[0] else self.pool(features))
            skipped.append(features)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([skipped.pop(), up(features)], dim=1))
        logits: torch.Tensor = self.head(features)
        return logits


def unet(base_channels: int = 64, depth: int = 5, batch_norm: bool = False) -> nn.Module:
    """U-Net; with the defaults 64..1024 channels and 31.0 million parameters."""
    return UNet(base_channels, depth, batch_norm)
