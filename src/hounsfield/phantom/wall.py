"""The body wall outside an inner outline: muscle with fat between its layers, subcutaneous fat, breasts and skin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.fields import Texture
from hounsfield.phantom.shapes import Array, Outline, Polar, Track, by_direction


class Wall:
    """Muscle thickness by level and direction (`muscle`: level, then mm in the `DIRECTIONS`), fat and breasts in mm."""

    def __init__(
        self,
        rng: np.random.Generator,
        inner: Outline,
        muscle: Sequence[Sequence[float]],
        fat: float,
        breast: float = 0.0,
    ) -> None:
        self._inner = inner
        self._bulk = float(rng.uniform(0.88, 1.1))
        self._muscle = Track([row[0] for row in muscle], [row[1:] for row in muscle])
        share = np.array([0.85, 1.0, 0.9, 1.0, 0.9, 0.65, 0.45]) * rng.uniform(0.85, 1.2, 7)
        self._fat = fat * share
        self._breast = breast
        self._fat_hu = float(rng.uniform(-112, -96))
        self._marbling = float(rng.uniform(0.5, 1.6))
        self._phase = rng.uniform(0, 2 * np.pi, 12)
        self._texture = Texture(rng, 6.0)

    def radii(self, angles: Array, level: float) -> tuple[Array, Array, Array]:
        """Radii in mm of the cavity, of the muscle's outside and of the skin, by direction."""
        cavity = self._inner.radius(angles, level)
        muscle = cavity + by_direction(angles, self._muscle(level)) * self._bulk
        wave = 1 + 0.1 * np.sin(3 * angles + self._phase[0] + level / 3)
        return cavity, muscle, muscle + by_direction(angles, self._fat) * wave + 2.0 + self._breasts(angles, level)

    def reach(self, levels: Sequence[float]) -> tuple[float, float, float]:
        """y of the front's and of the back's skin and half of the body's width in mm, the largest over `levels`."""
        angles = np.linspace(0, np.pi, 61)
        skin = np.stack([self.radii(angles, level)[2] for level in levels])
        y = self._inner.centre - skin * np.cos(angles)
        return float(y.min()), float(y.max()), float((skin * np.sin(angles)).max())

    def paint(self, canvas: Canvas, polar: Polar, level: float, muscle_hu: float) -> None:
        """Paint skin, fat and muscle."""
        cavity, muscle, skin = self.radii(polar.angles, level)
        outside = polar.distance(skin)
        canvas.blend(canvas.coverage(outside), 15)
        x, y, z = canvas.x, canvas.y, canvas.z
        grain = self._texture(x, y, z)
        beneath = polar.distance(muscle)
        fat = self._fat_hu + 4 * grain
        gland = polar.spread(self._breasts(polar.angles, level))
        if gland.max() > 8:
            part = np.clip((gland - 6) / 14, 0, 1) * np.clip(grain * 1.5, 0, 1)
            fat = fat + 95 * part * np.clip((-outside - 9) / 5, 0, 1)
        canvas.blend(canvas.coverage(outside + 2.0), fat.astype(np.float32))
        body = canvas.coverage(beneath)
        canvas.blend(body, (muscle_hu + 2.4 * grain).astype(np.float32))
        canvas.blend(self._seams(polar, cavity, muscle, z) * body, self._fat_hu + 10)

    def _seams(self, polar: Polar, cavity: Array, muscle: Array, z: float) -> Array:
        """Share of fat between the muscles: wavy layers of changing width, and gaps between neighbours."""
        angles, p = polar.angles, self._phase
        thickness = np.maximum(muscle - cavity, 4.0)
        depth = polar.r - polar.spread(cavity)
        share = np.zeros_like(depth)
        for i, at in enumerate((0.34, 0.66)):
            middle = thickness * (at + 0.09 * np.sin(5 * angles + p[4 + i] + z / 60))
            width = self._marbling * np.clip(0.5 + 0.9 * np.sin(7 * angles + p[6 + i] + z / 35), 0, 2)
            width = width * np.clip((thickness - 9) / 14, 0, 1.6)
            share = np.maximum(share, np.clip(polar.spread(width) + 0.5 - np.abs(depth - polar.spread(middle)), 0, 1))
        return share * np.float32(0.9)

    def _breasts(self, angles: Array, level: float) -> Array:
        across = np.exp(-(((np.abs(angles) - 0.72) / 0.3) ** 2))
        return np.asarray(self._breast * across * np.exp(-(((level - 6.4) / 1.5) ** 2)))
