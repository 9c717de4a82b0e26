"""Lung tumours: lobulated, spiculated solids of soft-tissue density."""

from __future__ import annotations

import numpy as np

from hounsfield.phantom.canvas import Canvas, Float
from hounsfield.phantom.shapes import Array


class Tumour:
    """A solid around `centre` (x, y, z) of mean `radius` in mm; `attached` when it grows on the chest wall."""

    def __init__(
        self, rng: np.random.Generator, centre: Array, radius: float, attached: bool, contrast: bool
    ) -> None:
        self.centre, self.radius, self.attached = centre, radius, attached
        lobes, spikes = 9, int(rng.integers(6, 22))
        directions = rng.normal(size=(lobes + spikes, 3))
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._heights = np.concatenate([rng.uniform(-0.26, 0.30, lobes), rng.uniform(0.12, 0.42, spikes)])
        self._sharpness = np.concatenate([rng.uniform(1.5, 5, lobes), rng.uniform(40, 110, spikes)])
        self._stretch = rng.uniform(0.82, 1.2, 3)
        self._hu = float(rng.uniform(38, 72)) if contrast else float(rng.uniform(26, 44))
        self._necrosis = float(rng.uniform(0.35, 0.6)) if radius > 14 and rng.random() < 0.5 else 0.0
        self._necrosis_at = rng.uniform(-0.25, 0.25, 3)
        self._k, self._phase = rng.normal(0, 0.35, (5, 3)), rng.uniform(0, 2 * np.pi, 5)

    def reaches(self, z: float) -> bool:
        """Whether the tumour can extend to height `z`."""
        return abs(z - float(self.centre[2])) < self.radius * 2.2

    def paint(self, canvas: Canvas, within: Float, cover: Float) -> None:
        """Paint the section at the canvas' height, inside `within`, and add its coverage to `cover`."""
        if not self.reaches(canvas.z):
            return
        reach = self.radius * 2.2
        box = canvas.box(float(self.centre[0]), float(self.centre[1]), reach, reach)
        x, y = canvas.x[box], canvas.y[box]
        if x.size == 0:
            return
        d = [
            (x - np.float32(self.centre[0])) / np.float32(self._stretch[0]),
            (y - np.float32(self.centre[1])) / np.float32(self._stretch[1]),
            np.full_like(x, (canvas.z - self.centre[2]) / self._stretch[2]),
        ]
        r = np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + np.float32(1e-3)
        surface = np.ones_like(x)
        for direction, height, sharp in zip(self._directions, self._heights, self._sharpness, strict=True):
            cosine = sum(d[i] * np.float32(direction[i]) for i in range(3)) / r
            surface += np.float32(height) * np.exp(np.float32(sharp) * (cosine - 1))
        distance = r - np.float32(self.radius) * np.clip(surface, 0.55, 1.75)
        alpha = canvas.coverage(distance, 1.2) * within[box]
        texture = sum(np.sin(d[0] * k[0] + d[1] * k[1] + d[2] * k[2] + p) for k, p in zip(self._k, self._phase, strict=True))
        hu = self._hu + 3.0 * texture
        if self._necrosis:
            core = sum((d[i] / self.radius - self._necrosis_at[i]) ** 2 for i in range(3))
            hu = hu - 24 * np.clip((self._necrosis**2 - core) / 0.1, 0, 1)
        canvas.blend(alpha, hu.astype(np.float32), box)
        np.maximum(cover[box], alpha, out=cover[box])
