"""Random geometry of slices: one affine map per image, applied to image and mask alike."""

import math
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

Kind = Literal["rotation", "translation", "shear", "reflection"]
KINDS: tuple[Kind, ...] = ("rotation", "translation", "shear", "reflection")

MAX_ROTATION = math.radians(15)
MAX_TRANSLATION = 0.1
MAX_SHEAR = 0.15
MAX_ZOOM = 0.1


def one_of_four(count: int, random: np.random.Generator) -> torch.Tensor:
    """Maps (count, 2, 3) that each are one random kind of rotation (up to 15 degrees), translation (up to a tenth of
    the image along each axis), shear (up to 0.15) or left-right reflection."""
    return torch.stack([_single(KINDS[random.integers(len(KINDS))], random) for _ in range(count)])


def small_affine(count: int, random: np.random.Generator) -> torch.Tensor:
    """Maps (count, 2, 3) that each reflect left-right half of the time, rotate, zoom by up to a tenth and translate."""
    maps = []
    for _ in range(count):
        angle = random.uniform(-MAX_ROTATION, MAX_ROTATION)
        zoom = 1 + random.uniform(-MAX_ZOOM, MAX_ZOOM)
        flip = -1 if random.random() < 0.5 else 1
        across, down = random.uniform(-MAX_TRANSLATION, MAX_TRANSLATION, size=2)
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        maps.append(torch.tensor([[flip * cos, -sin, across], [flip * sin, cos, down]]))
    return torch.stack(maps).float()


def warp(images: torch.Tensor, maps: torch.Tensor, mode: Literal["bilinear", "nearest"]) -> torch.Tensor:
    """Resample float32 images (N, 1, H, W) at `maps` (N, 2, 3) of output to input coordinates, both spanning [-1, 1]
    over the image; outside of it there is air (0)."""
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _single(kind: Kind, random: np.random.Generator) -> torch.Tensor:
    matrix = torch.eye(2, 3)
    match kind:
        case "rotation":
            angle = random.uniform(-MAX_ROTATION, MAX_ROTATION)
            matrix[:, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        case "translation":
            matrix[:, 2] = torch.from_numpy(random.uniform(-2 * MAX_TRANSLATION, 2 * MAX_TRANSLATION, size=2))
        case "shear":
            matrix[0, 1] = random.uniform(-MAX_SHEAR, MAX_SHEAR)
        case "reflection":
            matrix[0, 0] = -1
    return matrix
