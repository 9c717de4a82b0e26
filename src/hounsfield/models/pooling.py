"""2x2 max pooling that keeps where the maxima were, and the unpooling that puts values back there."""

from contextlib import nullcontext

import torch
from torch.nn import functional


def pool(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima (N, C, H / 2, W / 2) of features (N, C, H, W), and their places in the flattened H x W, int64."""
    maxima, places = functional.max_pool2d(features, 2, return_indices=True)
    return maxima, places


def unpool(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Features (N, C, 2 H, 2 W) that hold `values` (N, C, H, W) at `places` and 0 elsewhere, in the type of `values`.

    Autocast on the CPU would compute this move in float32, and every residual sum after it too.
    """
    kind = values.device.type
    as_given = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
    with as_given:
        return functional.max_unpool2d(values, places, [2, 2])
