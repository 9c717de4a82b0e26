"""Random fields that fill space: the displacement that makes outlines irregular, and the grain of tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[Any]
"""One float32 value per pixel of a slice or a part of it."""


class Warp:
    """A smooth random displacement of the anatomy in the slice plane, of a few mm."""

    def __init__(self, rng: np.random.Generator, amplitude: float, waves: int = 6) -> None:
        self._amplitude = amplitude / np.sqrt(waves) * rng.normal(1.0, 0.2, (2, waves))
        self._k = 2 * np.pi / rng.uniform(55, 160, (2, 3, waves))
        self._phase = rng.uniform(0, 2 * np.pi, (2, 3, waves))

    def __call__(self, x: Float, y: Float, z: float) -> tuple[Float, Float]:
        """Displacements (rows, columns) along x and y at the pixels of the axes `x` (columns) and `y` (rows)."""
        result = []
        for axis in range(2):
            k, phase = self._k[axis][..., None], self._phase[axis][..., None]
            waves_x = np.sin(k[0] * x + phase[0])
            waves_y = np.sin(k[1] * y + phase[1])
            waves_z = self._amplitude[axis] * np.cos(self._k[axis, 2] * z + self._phase[axis, 2])
            result.append(((waves_y * waves_z[:, None]).T @ waves_x).astype(np.float32))
        return result[0], result[1]


class Texture:
    """Random grain of mean 0 and standard deviation 1 that fills space: `grain` mm wide, wider along z."""

    _SIZE, _DEPTH = 96, 24

    def __init__(self, rng: np.random.Generator, grain: float) -> None:
        self._step, self._z_step = grain / 2.2, max(grain / 1.5, 3.0)
        white = rng.standard_normal((self._DEPTH, self._SIZE, self._SIZE), dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, (0.9, 1.6, 1.6), mode="wrap")
        self._planes = (smooth / smooth.std()).reshape(self._DEPTH, -1)

    def __call__(self, x: Float, y: Float, z: float) -> Float:
        """The grain at pixels `x`, `y` of the slice at height `z`, in mm."""
        at = z / self._z_step
        low = int(np.floor(at))
        part = np.float32(at - low)
        plane = (1 - part) * self._planes[low % self._DEPTH] + part * self._planes[(low + 1) % self._DEPTH]
        scale = np.float32(1 / self._step)
        column = np.floor(x * scale).astype(np.int32) % self._SIZE
        row = np.floor(y * scale).astype(np.int32) % self._SIZE
        return np.asarray((plane / np.hypot(part, 1 - part))[row * self._SIZE + column], np.float32)
