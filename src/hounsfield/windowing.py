"""HU to network input, for training and inside the registered models alike.

Imports torch and numpy only: this file travels with every registered model.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

STRETCHES = ("none", "minmax")


@dataclass(frozen=True)
class Window:
    """A preprocessing contract: clip HU to [lower, upper], map to 0..1, stretch, resize, quantise.

    `stretch` "minmax" maps the smallest and largest value of each slice to 0 and 1 (histogram stretch); a constant
    slice becomes 0. `size` resizes to size x size pixels (bilinear, antialiased when shrinking); None keeps the size.
    `bits` 8 rounds to 256 levels, 0 keeps float32. Stretching follows resizing, so the result always spans [0, 1].
    """

    lower: float
    upper: float
    stretch: str = "none"
    size: int | None = None
    bits: int = 0

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"window [{self.lower}, {self.upper}] HU is empty: lower must be below upper")
        if self.stretch not in STRETCHES:
            raise ValueError(f"stretch {self.stretch!r}: expected one of {', '.join(STRETCHES)}")
        if self.bits not in (0, 8):
            raise ValueError(f"bits {self.bits}: expected 8 (integers 0..255) or 0 (float32 in [0, 1])")

    @classmethod
    def of(cls, width: float, level: float, **options: Any) -> "Window":
        """The window of a radiologist's `width` and `level` in HU."""
        return cls(level - width / 2, level + width / 2, **options)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored images: uint8 (0..255) or float32 (0..1)."""
        return np.dtype(np.uint8 if self.bits else np.float32)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(self, hu: torch.Tensor) -> torch.Tensor:
        """Window slices.

        Args:
            hu: (N, H, W) Hounsfield units, any real dtype.

        Returns:
            (N, H', W') float32 in [0, 1], with 8 bits on the 256 levels k/255.
        """
        image = self._unit(hu)
        return image.mul_(self._levels).round_().div_(self._levels) if self.bits else image

    def stored(self, hu: torch.Tensor) -> npt.NDArray[Any]:
        """As `__call__`, in the dtype of the slice set: uint8 0..255 or float32."""
        image = self._unit(hu)
        return (image.mul_(self._levels).round_().to(torch.uint8) if self.bits else image).numpy()

    @property
    def _levels(self) -> int:
        return (1 << self.bits) - 1

    def _unit(self, hu: torch.Tensor) -> torch.Tensor:
        """Clipped, mapped to [0, 1], resized and stretched, not yet quantised; never the memory of `hu`."""
        image = hu.to(torch.float32, copy=True)
        image = resize(image.clamp_(self.lower, self.upper).sub_(self.lower).div_(self.upper - self.lower), self.size)
        if self.stretch == "minmax":
            low = image.amin(dim=(1, 2), keepdim=True)
            span = image.amax(dim=(1, 2), keepdim=True) - low
            image = (image - low).div_(torch.where(span > 0, span, torch.ones_like(span)))
        return image


def resize(image: torch.Tensor, size: int | None) -> torch.Tensor:
    """(N, H, W) float32 to (N, size, size), bilinear, antialiased when shrinking; unchanged when it already fits."""
    if size is None or image.shape[1:] == (size, size):
        return image
    return torch.nn.functional.interpolate(
        image[:, None], size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )[:, 0]


def unstored(images: torch.Tensor) -> torch.Tensor:
    """Images of a slice set (uint8 0..255 or float32 0..1) as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images.to(torch.float32)


MEDIASTINAL = Window.of(width=350, level=50, bits=8)
"""Lung-tumour paper: mediastinal window, [-125, 225] HU, 8 bits."""

L3 = Window(lower=-200, upper=1500, stretch="minmax", size=224)
"""L3 paper: [-200, 1500] HU, histogram stretch, 224x224, [0, 1]."""


def window_for(task: str, width: float = 0, level: float = 0, size: int = 0) -> Window:
    """The paper's window of `task` (`lung-tumour` at 512 pixels, `l3-slice` at 224) with what is not 0 replaced."""
    paper = L3 if task == "l3-slice" else MEDIASTINAL
    lower, upper = (level - width / 2, level + width / 2) if width else (paper.lower, paper.upper)
    return Window(lower, upper, stretch=paper.stretch, bits=paper.bits, size=size or paper.size or 512)
