"""What a chest contains beside its anatomy: tumours, and what resembles them at first sight.

Tumours are lobulated, spiculated solids of soft-tissue density, as dense as muscle and vessels, about half of them
grown on the chest wall. The others are granulomas, bands of atelectasis, pleural thickening and effusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.fields import Float
from hounsfield.phantom.shapes import Array, Outline, Polar

_RADII = (8.5, 29.0)
"""Smallest and largest mean radius in mm of a tumour."""


@dataclass(frozen=True)
class LungMap:
    """Points (N, 3) in the lungs on a grid, and their distance (N,) in mm from the lungs' surface."""

    points: Array
    depth: Array


class Tumour:
    """A solid around `centre` (x, y, z) of mean `radius` in mm; `attached` when it grows on the chest wall."""

    def __init__(self, rng: np.random.Generator, centre: Array, radius: float, attached: bool, contrast: bool) -> None:
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
        self._waves, self._phase = rng.normal(0, 0.35, (5, 3)), rng.uniform(0, 2 * np.pi, 5)

    def reaches(self, z: float) -> bool:
        """Whether the tumour can extend to height `z`."""
        return abs(z - float(self.centre[2])) < self.radius * 2.2

    def paint(self, canvas: Canvas, within: Float, cover: Float) -> None:
        """Paint the section at the canvas' height, inside `within`, and join its coverage to `cover`."""
        if not self.reaches(canvas.z):
            return
        reach = self.radius * 2.2
        box = canvas.box(float(self.centre[0]), float(self.centre[1]), reach, reach)
        x, y = canvas.x[box], canvas.y[box]
        if x.size == 0:
            return
        d = np.stack([x, y, np.full_like(x, canvas.z)], axis=-1)
        d = (d - self.centre.astype(np.float32)) / self._stretch.astype(np.float32)
        r: Float = np.sqrt((d * d).sum(axis=-1)) + np.float32(1e-3)
        cosine = (d / r[..., None]) @ self._directions.T.astype(np.float32)
        bumps = np.exp(self._sharpness.astype(np.float32) * (cosine - 1)) @ self._heights.astype(np.float32)
        distance = r - np.float32(self.radius) * np.clip(1 + bumps, 0.55, 1.75)
        alpha = canvas.coverage(distance, 1.2) * within[box]
        grain = np.sin(d @ self._waves.T.astype(np.float32) + self._phase.astype(np.float32)).sum(axis=-1)
        hu = np.float32(self._hu) + 3 * grain
        if self._necrosis:
            core = ((d / np.float32(self.radius) - self._necrosis_at.astype(np.float32)) ** 2).sum(axis=-1)
            hu = hu - 24 * np.clip((np.float32(self._necrosis**2) - core) * 10, 0, 1)
        canvas.blend(alpha, hu, box)
        np.maximum(cover[box], alpha, out=cover[box])


def place_tumours(
    rng: np.random.Generator,
    lungs: LungMap,
    to_wall: Callable[[Array, float], Array],
    heights: tuple[float, float],
    contrast: bool,
) -> list[Tumour]:
    """One or two tumours that fit the lungs between two heights, attached to the chest wall with probability 1/2.

    `to_wall` moves a point sideways until it is so many mm inside the chest wall.
    """
    tumours: list[Tumour] = []
    points = lungs.points
    for _ in range(1 if rng.random() < 0.65 else 2):
        attached = bool(rng.random() < 0.5)
        radius = float(np.exp(rng.uniform(*np.log(_RADII))))
        while radius > _RADII[0] * 0.9:
            usable = (points[:, 2] > heights[0] + radius * 0.6) & (points[:, 2] < heights[1] - radius * 0.6)
            for tumour in tumours:
                usable &= np.linalg.norm(points - tumour.centre, axis=1) > (radius + tumour.radius) * 1.4 + 12
            if attached:
                usable &= (np.abs(points[:, 0]) > 75) & (points[:, 1] < 30) & (lungs.depth < 14)
            else:
                usable &= lungs.depth > min(radius * 1.1 + 3, 34)
            if usable.any():
                centre = points[rng.choice(np.flatnonzero(usable))] + rng.uniform(-3, 3, 3)
                if attached:
                    centre = to_wall(centre, radius * float(rng.uniform(0.35, 0.7)))
                tumours.append(Tumour(rng, centre, max(radius, _RADII[0]), attached, contrast))
                break
            radius *= 0.93
    if not tumours:
        deepest = int(np.argmax(lungs.depth))
        radius = min(float(lungs.depth[deepest]) * 0.8, 16.0)
        tumours.append(Tumour(rng, lungs.points[deepest], radius, False, contrast))
    return tumours


class Mimics:
    """Granulomas, bands of atelectasis, pleural thickening and effusion of one patient."""

    def __init__(self, rng: np.random.Generator, lungs: LungMap, cage: Outline, base: float) -> None:
        """`base`: height in mm of the diaphragm, around which bands lie."""
        self._cage = cage
        inside = lungs.points[lungs.depth > 8]
        self._granulomas = [
            (inside[rng.integers(len(inside))], float(rng.uniform(1.6, 3.2)), float(rng.choice([30, 60, 320, 600])))
            for _ in range(int(rng.integers(1, 6)))
        ]
        self._bands = []
        for _ in range(int(rng.integers(0, 4))):
            sign = float(rng.choice([-1, 1]))
            x, y = sign * float(rng.uniform(95, 122)), float(rng.uniform(-40, 25))
            end = (sign * float(rng.uniform(48, 70)), y + float(rng.uniform(-30, 20)))
            at, slope = base + float(rng.uniform(-25, 45)), float(rng.uniform(-0.5, 0.5))
            self._bands.append(((x, y), end, at, slope, float(rng.uniform(1.0, 2.6))))
        self._plaques = [
            tuple(
                map(
                    float,
                    (rng.uniform(0.2, 0.85) * np.pi * side, rng.uniform(3.5, 10), *rng.uniform((0.12, 3), (0.35, 7))),
                )
            )
            for side in rng.choice([-1, 1], int(rng.integers(0, 4)))
        ]
        self._effusion = float(rng.uniform(10, 28)) if rng.random() < 0.2 else 0.0
        self._effusion_side = int(rng.choice([-1, 1]))

    def paint(self, canvas: Canvas, polar: Polar, level: float, lung: Float) -> None:
        """Paint them inside the lungs, whose coverage is `lung`."""
        for centre, size, hu in self._granulomas:
            r = float(np.sqrt(max(size**2 - (canvas.z - centre[2]) ** 2, 0)))
            canvas.ellipse((centre[0], centre[1]), (r, r), hu, within=lung)
        for start, end, at, slope, thick in self._bands:
            strength = 0.9 * float(np.exp(-(((canvas.z - at) / 7) ** 2)))
            if strength > 0.05:
                move = slope * (canvas.z - at)
                start, end = (start[0], start[1] + move), (end[0], end[1] + move)
                canvas.capsule(start, end, (thick, thick * 0.4), -20, lung, strength)
        for angle, at, wide, thick in self._plaques:
            height = float(np.exp(-(((level - at) / 0.8) ** 2)))
            if height > 0.05:
                turn = np.angle(np.exp(1j * (polar.angles - angle)))
                edge = self._cage.radius(polar.angles, level) - thick * height * np.exp(-((turn / wide) ** 2))
                canvas.blend(canvas.coverage(-polar.distance(edge), 2.0) * lung, 42)
        if self._effusion and level > 7:
            layer = 4 + self._effusion * float(np.clip((level - 7) / 3, 0, 1))
            surface = np.float32(self._cage.bounds(level)[2] - layer) + np.abs(canvas.x) * np.float32(0.12)
            fluid = canvas.coverage(surface - canvas.y, 2.5) * (np.sign(canvas.x) == self._effusion_side)
            canvas.blend(fluid * lung, 8)
