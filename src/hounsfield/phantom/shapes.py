"""Building blocks of the anatomy: values that follow the height in the body, outlines, and bundles of tubes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from hounsfield.phantom.canvas import Canvas
from hounsfield.phantom.fields import Float

Array = npt.NDArray[Any]
"""float64 numbers: points, radii, values by direction or level."""


class Track:
    """Rows of numbers given at spinal levels, interpolated smoothly between them and constant beyond."""

    def __init__(self, levels: Sequence[float], rows: Sequence[Sequence[float]]) -> None:
        self._first, self._last = levels[0], levels[-1]
        self._curve = PchipInterpolator(levels, np.asarray(rows, np.float64), axis=0)

    def __call__(self, level: float | Array) -> Array:
        return np.asarray(self._curve(np.clip(level, self._first, self._last)))


class Body:
    """A solid given by centre and semi-axes at several levels, with rounded ends where the semi-axes are 0."""

    def __init__(self, rows: Sequence[Sequence[float]], shift: float = 0.0, size: float = 1.0) -> None:
        """`rows`: (level, x, y, a, b); `shift` moves it in levels, `size` scales the semi-axes."""
        table = np.asarray(rows, np.float64)
        self.first, self.last = table[0, 0] + shift, table[-1, 0] + shift
        table[:, 3:] = (table[:, 3:] * size) ** 2
        self._track = Track(list(table[:, 0] + shift), table[:, 1:].tolist())

    def at(self, level: float) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Centre and semi-axes in mm at a level, None outside."""
        if not self.first <= level <= self.last:
            return None
        x, y, a, b = self._track(level)
        return (float(x), float(y)), (float(np.sqrt(max(a, 0))), float(np.sqrt(max(b, 0))))


class Outline:
    """A star-shaped outline around (0, centre): a superellipse with its own front, back and sides at each level."""

    def __init__(self, rows: Sequence[Sequence[float]], centre: float, power: float) -> None:
        """`rows`: (level, half width, front y, back y)."""
        table = np.asarray(rows, np.float64)
        self.centre, self._power = centre, power
        self._track = Track(list(table[:, 0]), table[:, 1:].tolist())

    def bounds(self, level: float) -> tuple[float, float, float]:
        """Half width, front y and back y in mm."""
        half, front, back = self._track(level)
        return float(half), float(front), float(back)

    def radius(self, angle: Array, level: float | Array) -> Array:
        """Distance in mm from the centre to the outline in direction `angle`: 0 front, pi/2 the patient's left."""
        half, front, back = np.moveaxis(self._track(level), -1, 0)
        depth = np.where(np.cos(angle) > 0, self.centre - front, back - self.centre)
        power = self._power
        inverse = np.abs(np.sin(angle) / half) ** power + np.abs(np.cos(angle) / depth) ** power
        return np.asarray(inverse ** (-1 / power))


class Polar:
    """Direction and distance of every pixel from (0, centre), to compare with outlines."""

    BINS = 1440

    def __init__(self, canvas: Canvas, centre: float) -> None:
        dy = canvas.y - np.float32(centre)
        self.r: Float = np.hypot(canvas.x, dy)
        turn = np.arctan2(canvas.x, -dy) * np.float32(self.BINS / (2 * np.pi)) + np.float32(self.BINS / 2)
        self._bin = turn.astype(np.int32) % self.BINS
        self.angles: Array = (np.arange(self.BINS) + 0.5) * (2 * np.pi / self.BINS) - np.pi

    def spread(self, radii: Array) -> Float:
        """Values by direction (BINS,) to every pixel."""
        return radii.astype(np.float32)[self._bin]

    def distance(self, radii: Array) -> Float:
        """Signed distance in mm of every pixel from the outline with these radii (BINS,)."""
        return self.r - self.spread(radii)


DIRECTIONS = (0, 45, 90, 120, 140, 160, 180)
"""Degrees from the front, on both sides, at which a body wall is described."""


def by_direction(angles: Array, values: Array) -> Array:
    """Values at `DIRECTIONS`, the same on both sides, at `angles` (radians)."""
    return np.asarray(PchipInterpolator(np.radians(DIRECTIONS), values)(np.abs(angles)))


def bump(value: float, first: float, last: float, soft: float) -> float:
    """1 between `first` and `last`, 0 outside, smooth over `soft` at both ends."""
    edge = min(value - first, last - value) / soft
    return float(np.clip(0.5 + edge, 0, 1))


@dataclass
class Tubes:
    """Points along vessels or ribs: `points` (N, 3) in mm and `radii` (N,), sorted by z."""

    points: Array
    radii: Array

    @classmethod
    def of(cls, points: Sequence[Array], radii: Sequence[Array]) -> Tubes:
        if not points:
            return cls(np.zeros((0, 3)), np.zeros(0))
        stacked, thick = np.concatenate(points), np.concatenate(radii)
        order = np.argsort(stacked[:, 2], kind="stable")
        return cls(stacked[order], thick[order])

    def coverage(self, canvas: Canvas) -> Float:
        """Coverage of the canvas' slab; tubes thinner than the slab cover a part of it."""
        reach = canvas.slab / 2 + (self.radii.max() if len(self.radii) else 0)
        low, high = np.searchsorted(self.points[:, 2], [canvas.z - reach, canvas.z + reach])
        points, radii = self.points[low:high], self.radii[low:high]
        apart = np.maximum(np.abs(points[:, 2] - canvas.z) - canvas.slab / 2, 0)
        chosen = apart < radii
        points, radii, apart = points[chosen], radii[chosen], apart[chosen]
        return canvas.discs(points[:, :2], np.sqrt(radii**2 - apart**2) * np.minimum(1, 0.55 + radii / canvas.slab))


def polyline(corners: Array, step: float = 1.0) -> Array:
    """Points about `step` mm apart along the line through `corners` (N, 3)."""
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(lengths)])
    at = np.linspace(0, along[-1], max(2, int(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, corners[:, i]) for i in range(corners.shape[1])], axis=1)


def tree(
    rng: np.random.Generator, root: Array, targets: Array, radius: float, exponent: float = 2.6, bend: float = 0.12
) -> Tubes:
    """Vessels that branch from `root` (3,) to every target (N, 3), thinner after each branching (Murray's law).

    `radius` is that of a twig with one target, in mm.
    """
    points: list[Array] = []
    radii: list[Array] = []
    stack = [(root, targets)]
    while stack:
        start, group = stack.pop()
        centre = group.mean(axis=0)
        single = len(group) == 1
        end = group[0] if single else start + (0.45 if len(group) > 3 else 0.6) * (centre - start)
        middle = (start + end) / 2 + rng.normal(0, bend, 3) * np.linalg.norm(end - start)
        line = polyline(np.stack([start, middle, end]), 0.9)
        points.append(line)
        thick = radius * len(group) ** (1 / exponent)
        radii.append(np.linspace(thick, radius * 0.6 if single else thick * 0.92, len(line)))
        if not single:
            away = group - end
            axis = np.linalg.svd(away - away.mean(axis=0), full_matrices=False)[2][0]
            side = away @ axis
            cut = np.median(side) if len(group) > 2 else side.mean()
            left = side <= cut
            if left.all() or not left.any():
                left = np.arange(len(group)) < len(group) // 2
            stack += [(end, group[left]), (end, group[~left])]
    return Tubes.of(points, radii)
