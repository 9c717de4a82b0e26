"""The networks, built by name. It imports torch and hounsfield.errors alone, for it travels with registered models.

Every network takes images (N, 1, H, W) float32 in [0, 1] and returns logits of background and foreground: (N, 2, H, W)
for segmentation, (N, 2) for slice detection.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hounsfield.errors import InputError
from hounsfield.models.enet import enet
from hounsfield.models.resnet import resnet18, resnet34, resnet50
from hounsfield.models.segnet import segnet
from hounsfield.models.unet import unet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": unet,
    "segnet": segnet,
    "enet": enet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}


def build(architecture: str, **options: Any) -> nn.Module:
    """A freshly initialised network.

    Raises:
        InputError: unknown architecture, or options that it does not have.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture {architecture!r} is unknown: expected one of {', '.join(ARCHITECTURES)}")
    try:
        return ARCHITECTURES[architecture](**options)
    except TypeError as error:
        raise InputError(f"architecture {architecture}: options {sorted(options)} do not fit: {error}") from error


def set_prior(network: nn.Module, probability: float) -> None:
    """Start a segmentation network at about this foreground probability everywhere, by the bias of its last layer.

    Without it the first steps under BL or FL only teach the network that tumours are rare (Lin et al. 2017, "Focal Loss
    for Dense Object Detection", section 4.1).
    """
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.0, math.log(probability / (1 - probability))]))  # type: ignore[union-attr, operator]


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
