"""One axial slice to paint on: soft-edged shapes in a patient's own millimetre coordinates.

Coordinates everywhere in the phantom: x to the patient's left, y to the back, z to the head, in mm; a shape is its
approximate signed distance in mm (negative inside), turned into coverage with an edge about one pixel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hounsfield.phantom.fields import Float, Warp

Point = tuple[float, float]

AIR = -1000.0
_WARP_MARGIN = 9.0


@dataclass(frozen=True)
class Placement:
    """How the patient lies in the scanner: shift in mm, rotation in radians, and size relative to the mean."""

    shift: Point = (0.0, 0.0)
    rotation: float = 0.0
    scale: Point = (1.0, 1.0)

    def to_patient(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Scanner to patient coordinates in mm; `x` (1, columns) and `y` (rows, 1) give full arrays."""
        c, s = np.float32(np.cos(self.rotation)), np.float32(np.sin(self.rotation))
        x, y = x - np.float32(self.shift[0]), y - np.float32(self.shift[1])
        return (c * x + s * y) / np.float32(self.scale[0]), (c * y - s * x) / np.float32(self.scale[1])

    def to_scanner(self, x: Float, y: Float) -> tuple[Float, Float]:
        c, s = np.cos(self.rotation), np.sin(self.rotation)
        x, y = x * self.scale[0], y * self.scale[1]
        return c * x - s * y + self.shift[0], s * x + c * y + self.shift[1]


class Canvas:
    """Slice at height `z` and of thickness `slab`: `hu`, and `x`, `y` of each pixel in the patient's coordinates."""

    def __init__(
        self,
        size: int,
        pixel: float,
        z: float,
        slab: float,
        placement: Placement | None = None,
        warp: Warp | None = None,
        rows: slice = slice(None),
    ) -> None:
        """`rows` limits the canvas to these rows of the size x size image."""
        self.pixel, self.z, self.slab = pixel, z, slab
        index = np.arange(size)
        middle = (size - 1) / 2
        self._middle = (middle - index[rows][0], middle)
        self._placement = placement or Placement()
        axis = ((index - middle) * pixel).astype(np.float32)
        self.x, self.y = self._placement.to_patient(axis[None, :], axis[rows, None])
        self.shape = self.x.shape
        self._warp: tuple[Float, Float] | None = None
        if warp is not None:
            self._warp = warp(axis, axis[rows], z)
            self.x, self.y = self.x + self._warp[0], self.y + self._warp[1]
        self.hu: Float = np.full(self.shape, AIR, np.float32)

    def box(self, cx: float, cy: float, rx: float, ry: float) -> tuple[slice, slice]:
        """The rows and columns that hold the patient's box of half sides `rx`, `ry` around (cx, cy)."""
        rx, ry = rx + _WARP_MARGIN + self.pixel, ry + _WARP_MARGIN + self.pixel
        corners = np.array([[cx - rx, cy - ry], [cx + rx, cy - ry], [cx - rx, cy + ry], [cx + rx, cy + ry]])
        x, y = self._placement.to_scanner(corners[:, 0], corners[:, 1])
        low = np.floor(np.array([y.min(), x.min()]) / self.pixel + self._middle).astype(int)
        high = np.ceil(np.array([y.max(), x.max()]) / self.pixel + self._middle).astype(int) + 1
        low, high = np.clip(low, 0, self.shape), np.clip(high, 0, self.shape)
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))

    def coverage(self, distance: Float, soft: float = 0.0) -> Float:
        """Signed distance in mm to the covered part of each pixel; the edge is `soft` mm wide, at least a pixel."""
        alpha: Float = np.clip(0.5 - distance * np.float32(1 / max(soft, 1.1 * self.pixel)), 0, 1)
        return alpha

    def blend(self, alpha: Float, hu: float | Float, box: tuple[slice, slice] | None = None) -> None:
        """Replace the part `alpha` of each pixel (of `box`) by `hu`."""
        target = self.hu if box is None else self.hu[box]
        target += alpha * (hu - target)

    def ellipse(
        self,
        centre: Point,
        semi: Point,
        hu: float | None,
        angle: float = 0.0,
        power: float = 2.0,
        soft: float = 0.0,
        within: Float | None = None,
        strength: float = 1.0,
    ) -> tuple[tuple[slice, slice], Float] | None:
        """Paint a (super)ellipse of semi-axes `semi`, turned by `angle`; returns its box and coverage, None when empty.

        `within` (full size, 0..1) limits it; `hu` None only computes the coverage.
        """
        a, b = semi
        if a < 0.3 or b < 0.3:
            return None
        reach = max(a, b) if angle else 0.0
        box = self.box(centre[0], centre[1], reach or a, reach or b)
        x, y = self.x[box], self.y[box]
        if x.size == 0:
            return None
        alpha = self.coverage(ellipse_distance(x, y, centre, semi, angle, power), soft)
        if strength != 1.0:
            alpha *= np.float32(strength)
        if within is not None:
            alpha *= within[box]
        if hu is not None:
            self.blend(alpha, hu, box)
        return box, alpha

    def capsule(
        self, start: Point, end: Point, radii: Point, hu: float, within: Float | None = None, strength: float = 1.0
    ) -> None:
        """Paint a straight bar with round ends whose radius goes from radii[0] to radii[1]."""
        if max(radii) < 0.3:
            return
        reach = max(radii)
        box = self.box(
            (start[0] + end[0]) / 2,
            (start[1] + end[1]) / 2,
            abs(end[0] - start[0]) / 2 + reach,
            abs(end[1] - start[1]) / 2 + reach,
        )
        x, y = self.x[box], self.y[box]
        if x.size == 0:
            return
        alpha = self.coverage(capsule_distance(x, y, start, end, radii)) * np.float32(strength)
        if within is not None:
            alpha *= within[box]
        self.blend(alpha, hu, box)

    def curve(self, points: Sequence[Point], radii: Sequence[float], hu: float, strength: float = 1.0) -> None:
        """Paint a bent bar through `points`."""
        cover = np.zeros(self.shape, np.float32)
        for i in range(len(points) - 1):
            reach = max(radii[i], radii[i + 1])
            (x0, y0), (x1, y1) = points[i], points[i + 1]
            box = self.box((x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2 + reach, abs(y1 - y0) / 2 + reach)
            x, y = self.x[box], self.y[box]
            if x.size:
                distance = capsule_distance(x, y, points[i], points[i + 1], (radii[i], radii[i + 1]))
                np.maximum(cover[box], self.coverage(distance), out=cover[box])
        self.blend(cover * np.float32(strength), hu)

    def discs(self, points: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> Float:
        """Coverage (rows, columns) of the union of discs at `points` (N, 2) with `radii` (N,), all in mm."""
        cover = np.zeros(self.shape, np.float32)
        if len(points) == 0:
            return cover
        flat = cover.reshape(-1)
        x, y = points[:, 0], points[:, 1]
        if self._warp is not None:
            column, row = self._pixels(x, y)
            row = np.clip(np.rint(row).astype(int), 0, self.shape[0] - 1)
            column = np.clip(np.rint(column).astype(int), 0, self.shape[1] - 1)
            x, y = x - self._warp[0][row, column], y - self._warp[1][row, column]
        column, row = self._pixels(x, y)
        size = np.ceil(radii / self.pixel).astype(int) + 1
        inside = (row > -size) & (column > -size) & (row < self.shape[0] + size) & (column < self.shape[1] + size)
        for reach in np.unique(size[inside]):
            chosen = np.flatnonzero(inside & (size == reach))
            offsets = np.arange(-reach, reach + 1)
            r0, c0 = np.rint(row[chosen]).astype(int), np.rint(column[chosen]).astype(int)
            rows = r0[:, None, None] + offsets[None, :, None]
            cols = c0[:, None, None] + offsets[None, None, :]
            distance = np.hypot(rows - row[chosen, None, None], cols - column[chosen, None, None])
            alpha = np.clip(0.5 - (distance - radii[chosen, None, None] / self.pixel) / 1.1, 0, 1).astype(np.float32)
            alpha[np.broadcast_to((rows < 0) | (rows >= self.shape[0]), alpha.shape)] = 0
            alpha[np.broadcast_to((cols < 0) | (cols >= self.shape[1]), alpha.shape)] = 0
            index = np.clip(rows, 0, self.shape[0] - 1) * self.shape[1] + np.clip(cols, 0, self.shape[1] - 1)
            np.maximum.at(flat, index.reshape(-1), alpha.reshape(-1))
        return cover

    def _pixels(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[Float, Float]:
        x, y = self._placement.to_scanner(x, y)
        return x / self.pixel + self._middle[1], y / self.pixel + self._middle[0]


def ellipse_distance(x: Float, y: Float, centre: Point, semi: Point, angle: float = 0.0, power: float = 2.0) -> Float:
    """Signed distance in mm to a (super)ellipse along the ray from its centre."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    if angle:
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = c * dx + s * dy, c * dy - s * dx
    r = np.sqrt(dx * dx + dy * dy)
    if power == 2.0:
        f = np.sqrt((dx / np.float32(semi[0])) ** 2 + (dy / np.float32(semi[1])) ** 2)
    else:
        f = (np.abs(dx / np.float32(semi[0])) ** power + np.abs(dy / np.float32(semi[1])) ** power) ** (1 / power)
    return np.where(f > 1e-4, r - r / np.maximum(f, np.float32(1e-4)), np.float32(-min(semi)))


def capsule_distance(x: Float, y: Float, start: Point, end: Point, radii: Point) -> Float:
    """Signed distance in mm to a bar with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(dx * dx + dy * dy, 1e-9)
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((x * np.float32(dx) + y * np.float32(dy)) / np.float32(length), 0, 1)
    distance = np.hypot(x - t * np.float32(dx), y - t * np.float32(dy))
    return distance - (np.float32(radii[0]) + t * np.float32(radii[1] - radii[0]))
