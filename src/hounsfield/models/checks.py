"""What the networks refuse: widths that cannot be built and sizes of images that cannot be halved."""

import torch

from hounsfield.errors import InputError


def check_width(name: str, base_channels: int, multiple: int = 1) -> None:
    """Refuse a number of channels that network `name` cannot be built with.

    Raises:
        InputError: `base_channels` is below 1 or not a multiple of `multiple`.
    """
    if base_channels < 1 or base_channels % multiple:
        expected = "at least 1 channel" if multiple == 1 else f"a positive multiple of {multiple}"
        raise InputError(f"{name}: base_channels is {base_channels}, expected {expected}")


def check_halving(name: str, images: torch.Tensor, times: int, otherwise: str = "") -> None:
    """Refuse images (N, C, H, W) whose sides cannot be halved `times` times; `otherwise` ends the sentence.

    Raises:
        InputError: H or W is not a positive multiple of 2^times.
    """
    rows, columns = images.shape[-2:]
    factor = 2**times
    if rows % factor or columns % factor or not rows or not columns:
        raise InputError(
            f"{name}: images of {rows}x{columns} cannot be halved {times} times: "
            f"use a size that is a multiple of {factor}{otherwise}"
        )
