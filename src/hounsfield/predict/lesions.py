"""Lesions of a mask and their sizes: volume, longest axial diameter and the perpendicular to it.

A lesion is a connected component in 26-neighbourhood. Its axial section is outlined along the outer edges of its pixels
(pixel corners, not centres), and diameters are taken on the convex hull of the whole section, so a box of n x m pixels
measures exactly its n x m pixel edges. The longest diameter is that of RECIST 1.1 (Eisenhauer et al., Eur J Cancer,
doi:10.1016/j.ejca.2008.10.026), the pair with its perpendicular that of the WHO criteria (Miller et al., Cancer 1981,
doi:10.1002/1097-0142(19810101)47:1<207::AID-CNCR2820470134>3.0.CO;2-6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, generate_binary_structure, label
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

Spacing = tuple[float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Diameters:
    """Longest diameter of a section and the longest chord of its hull perpendicular to it.

    Lengths in mm; end points as (row, column) in pixels, where the centre of the first pixel is (0, 0).
    """

    longest_mm: float
    perpendicular_mm: float
    longest: tuple[Point, Point]
    perpendicular: tuple[Point, Point]


@dataclass(frozen=True)
class Lesion:
    """A connected component; `number` counts from 1 by falling volume, `slice` has the longest axial diameter."""

    number: int
    voxels: int
    volume_ml: float
    slice: int
    first_slice: int
    last_slice: int
    diameters: Diameters


def components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Lesions of a mask in 26-neighbourhood.

    Args:
        mask: (slice, row, column).

    Returns:
        int32 of the same shape, 0 outside and 1..n by falling number of voxels (then by first voxel), and n.
    """
    found, count = label(mask, generate_binary_structure(3, 3))
    sizes = np.bincount(found.reshape(-1), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    rank = np.zeros(count + 1, np.int32)
    rank[order + 1] = np.arange(1, count + 1)
    return rank[found], count


def measure(lesions: npt.NDArray[np.int32], spacing: Spacing) -> list[Lesion]:
    """Measure every lesion of `components`.

    Args:
        lesions: (slice, row, column) int32, 0 outside and 1..n.
        spacing: edges of a voxel in mm, in the order of the axes.
    """
    measured = []
    for number, box in enumerate(find_objects(lesions), start=1):
        part = lesions[box] == number
        sections = [(k, diameters(section, spacing[1:])) for k, section in enumerate(part) if section.any()]
        offset, longest = max(sections, key=lambda item: item[1].longest_mm)
        voxels = int(np.count_nonzero(part))
        measured.append(
            Lesion(
                number,
                voxels,
                voxels * float(np.prod(spacing)) / 1000,
                box[0].start + offset,
                box[0].start,
                box[0].stop - 1,
                _moved(longest, (box[1].start, box[2].start)),
            )
        )
    return measured


def largest(lesions: Sequence[Lesion]) -> Lesion | None:
    """The lesion with the longest axial diameter; None without lesions."""
    return max(lesions, key=lambda lesion: lesion.diameters.longest_mm, default=None)


def diameters(section: npt.NDArray[np.bool_], spacing: Sequence[float]) -> Diameters:
    """Longest diameter and perpendicular of a section (row, column) with at least one pixel.

    The length of the chords across a convex polygon is concave in their place, and linear between its corners: the
    longest chord in a direction goes through a corner.

    Args:
        spacing: edges of a pixel in mm (row to row, column to column).
    """
    scale = np.asarray(spacing, dtype=np.float64)
    corners = _corners(section) * scale
    hull = corners[ConvexHull(corners).vertices]
    distances = squareform(pdist(hull))
    first, second = np.unravel_index(int(distances.argmax()), distances.shape)
    longest = float(distances[first, second])
    along = (hull[second] - hull[first]) / longest
    across = np.array([-along[1], along[0]])
    best, ends = -1.0, (hull[0], hull[0])
    for place in hull @ along:
        low, high = _chord(hull, along, across, float(place))
        if high - low > best:
            best, ends = high - low, (place * along + low * across, place * along + high * across)
    return Diameters(
        longest,
        best,
        (_pixel(hull[first], scale), _pixel(hull[second], scale)),
        (_pixel(ends[0], scale), _pixel(ends[1], scale)),
    )


def _corners(section: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Corners (n, 2) of the first and last pixel of every row, in pixels: they have the hull of all corners."""
    rows = np.flatnonzero(section.any(axis=1))
    first = section[rows].argmax(axis=1)
    last = section.shape[1] - 1 - section[rows, ::-1].argmax(axis=1)
    return np.array(
        [
            (row + up, column)
            for row, left, right in zip(rows, first, last, strict=True)
            for up in (-0.5, 0.5)
            for column in (left - 0.5, right + 0.5)
        ]
    )


def _chord(hull: npt.NDArray[Any], along: npt.NDArray[Any], across: npt.NDArray[Any], place: float) -> Point:
    """Smallest and largest coordinate along `across` where the line at `place` along `along` meets the polygon."""
    t, s = hull @ along - place, hull @ across
    met = [float(value) for value in s[np.abs(t) <= 1e-9 * np.ptp(t)]]
    for i in range(len(hull)):
        a, b = t[i - 1], t[i]
        if a * b < 0:
            met.append(float(s[i - 1] + (s[i] - s[i - 1]) * a / (a - b)))
    return min(met), max(met)


def _pixel(point: npt.NDArray[Any], scale: npt.NDArray[np.float64]) -> Point:
    row, column = point / scale
    return float(row), float(column)


def _moved(found: Diameters, by: tuple[int, int]) -> Diameters:
    """The same diameters with end points counted from the corner of the volume instead of that of the lesion's box."""

    def shift(pair: tuple[Point, Point]) -> tuple[Point, Point]:
        (a, b), (c, d) = pair
        return (a + by[0], b + by[1]), (c + by[0], d + by[1])

    return Diameters(found.longest_mm, found.perpendicular_mm, shift(found.longest), shift(found.perpendicular))
