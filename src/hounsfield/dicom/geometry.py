"""Regular voxel grids in DICOM patient coordinates (LPS, mm) and the one axis order of the series store."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STORE_AXES: Floats = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Slices run to superior (+z), rows to posterior (+y), columns to the patient's left (+x)."""

AGREEMENT = 0.05
"""Two grids agree when their corners are closer than this fraction of the smallest voxel edge."""

_OBLIQUE = np.cos(np.radians(5.0))


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel (k, j, i) has its centre at `origin + k*spacing[0]*axes[0] + j*spacing[1]*axes[1] + i*spacing[2]*axes[2]`.

    `axes` are three orthonormal unit vectors, one per row; `spacing` is in mm.
    """

    shape: tuple[int, int, int]
    origin: Floats
    axes: Floats
    spacing: Floats

    def indices(self, points: npt.ArrayLike) -> Floats:
        """Fractional voxel indices (..., 3) of points (..., 3) in mm."""
        result: Floats = (np.asarray(points, dtype=np.float64) - self.origin) @ self.axes.T / self.spacing
        return result

    def points(self, indices: npt.ArrayLike) -> Floats:
        """Points (..., 3) in mm of voxel indices (..., 3)."""
        result: Floats = self.origin + (np.asarray(indices, dtype=np.float64) * self.spacing) @ self.axes
        return result

    def corners(self) -> Floats:
        """The centres of the eight corner voxels (8, 3)."""
        return self.points(list(product(*((0, size - 1) for size in self.shape))))

    def distance_mm(self, other: "Grid") -> float:
        """Largest distance between corresponding corners of two grids of one shape."""
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def agrees(self, other: "Grid") -> bool:
        """Same shape, and corners that coincide within `AGREEMENT`."""
        return self.shape == other.shape and self.distance_mm(other) <= AGREEMENT * float(self.spacing.min())

    @property
    def oblique(self) -> bool:
        """Whether an axis is more than 5 degrees away from the store's."""
        return bool((np.abs((self.axes * STORE_AXES).sum(axis=1)) < _OBLIQUE).any())

    def positions_mm(self) -> list[float]:
        """Position of each slice along the slice normal."""
        start = float(self.origin @ self.axes[0])
        return [round(start + k * float(self.spacing[0]), 6) for k in range(self.shape[0])]


@dataclass(frozen=True)
class Orientation:
    """Brings an array and its grid to another axis order: transpose by `order`, then reverse the axes in `flip`."""

    order: tuple[int, int, int]
    flip: tuple[bool, bool, bool]

    @classmethod
    def towards(cls, axes: Floats, target: Floats = STORE_AXES) -> "Orientation":
        """The reordering that brings `axes` closest to `target`."""
        cosines = target @ axes.T
        order = max(permutations(range(3)), key=lambda order: sum(abs(cosines[i, order[i]]) for i in range(3)))
        return cls((order[0], order[1], order[2]), tuple(bool(cosines[i, order[i]] < 0) for i in range(3)))  # type: ignore[arg-type]

    @property
    def identity(self) -> bool:
        return self.order == (0, 1, 2) and not any(self.flip)

    def array(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`array` in the new order, C-contiguous; the array itself when nothing changes."""
        if self.identity:
            return array
        step = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)
        return np.ascontiguousarray(array.transpose(self.order)[step])

    def grid(self, grid: Grid) -> Grid:
        """`grid` in the new order."""
        order = list(self.order)
        axes, spacing = grid.axes[order], grid.spacing[order]
        shape = tuple(grid.shape[i] for i in order)
        origin = grid.origin.copy()
        for axis, flip in enumerate(self.flip):
            if flip:
                origin = origin + axes[axis] * spacing[axis] * (shape[axis] - 1)
        signs = np.where(self.flip, -1.0, 1.0)[:, None]
        return Grid((shape[0], shape[1], shape[2]), origin, axes * signs + 0.0, spacing)


def plane_axes(orientation: Sequence[float]) -> Floats:
    """Unit vectors (normal, row-index direction, column-index direction) of ImageOrientationPatient.

    DICOM's first triple points along a row (column index grows), the second down a column (row index grows).

    Raises:
        ValueError: the two triples are not perpendicular unit vectors.
    """
    along_row, down_column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lengths = np.linalg.norm(along_row), np.linalg.norm(down_column)
    if not np.allclose(lengths, 1.0, atol=1e-2) or abs(float(along_row @ down_column)) > 1e-2:
        raise ValueError("row and column directions are not perpendicular unit vectors")
    along_row = along_row / lengths[0]
    down_column = down_column - (down_column @ along_row) * along_row
    down_column /= np.linalg.norm(down_column)
    return np.array([np.cross(along_row, down_column), down_column, along_row])
