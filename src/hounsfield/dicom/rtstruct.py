"""RT Structure Sets (PS3.3 A.19): closed planar contours filled at voxel centres."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from hounsfield.dicom.geometry import Floats, Grid
from hounsfield.dicom.reasons import Reason, UnusableError
from hounsfield.dicom.selection import Selection

Mask = npt.NDArray[np.uint8]
_PLANAR = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OFF_PLANE = 0.1


def read_rtstruct(path: Path, grid: Grid, selection: Selection) -> Mask:
    """Mask uint8 0/1 (slices, rows, columns) on `grid`: voxel centres inside the contours of the chosen regions.

    Even-odd over all contours of a region in one plane, so that inner contours are holes; regions are united. Without
    `selection.roi` the only region with closed planar contours is chosen.

    Raises:
        UnusableError: no or several regions fit, or the contours do not lie on slices of the grid.
    """
    try:
        dataset = pydicom.dcmread(path, force=True)
        regions = _regions(dataset)
        mask = np.zeros(grid.shape, np.uint8)
        for name in _chosen(regions, selection):
            mask |= fill(regions[name], grid)
    except UnusableError:
        raise
    except Exception as error:  # pydicom raises many types on corrupt objects
        raise UnusableError(
            Reason.UNREADABLE, f"the structure set is corrupt or incomplete ({type(error).__name__})"
        ) from error
    return mask


def _regions(dataset: Dataset) -> dict[str, list[Floats]]:
    """Closed planar contours, each (points, 3) in mm, by region name."""
    names = {int(item.ROINumber): str(item.get("ROIName", "")) for item in dataset.StructureSetROISequence}
    regions: dict[str, list[Floats]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        contours = [
            np.array(contour.ContourData, float).reshape(-1, 3)
            for contour in item.get("ContourSequence") or ()
            if str(contour.get("ContourGeometricType", "")) in _PLANAR and contour.get("ContourData")
        ]
        if contours:
            number = int(item.ReferencedROINumber)
            regions.setdefault(names.get(number, str(number)), []).extend(contours)
    return regions


def _chosen(regions: dict[str, list[Floats]], selection: Selection) -> list[str]:
    shown = ", ".join(sorted(regions)) or "none"
    if selection.roi is not None:
        wanted = selection.choose(list(regions))
        if not wanted:
            raise UnusableError(Reason.NO_MATCHING_ROI, f"the wanted region is not among the structure set's: {shown}")
        return wanted
    if not regions:
        raise UnusableError(Reason.EMPTY_LABEL, "the structure set has no closed planar contour")
    if len(regions) > 1:
        raise UnusableError(Reason.AMBIGUOUS_LABEL, f"the structure set has the regions {shown}: choose with --roi")
    return list(regions)


def fill(contours: list[Floats], grid: Grid) -> Mask:
    """Even-odd fill of contours, each (points, 3) in mm, at the voxel centres of `grid`.

    Raises:
        UnusableError: a contour is between slices or beyond the grid.
    """
    mask = np.zeros(grid.shape, np.uint8)
    for contour in contours:
        indices = grid.indices(contour)
        planes = indices[:, 0]
        k = round(float(np.median(planes)))
        off = float(np.abs(planes - k).max())
        if off > _OFF_PLANE:
            raise UnusableError(
                Reason.LABEL_GEOMETRY,
                f"a contour lies {off * grid.spacing[0]:.2f} mm off the slices of the series",
            )
        outside = (indices < -0.5 - _OFF_PLANE) | (indices > np.array(grid.shape) - 0.5 + _OFF_PLANE)
        if outside.any():
            raise UnusableError(Reason.LABEL_GEOMETRY, "the contours reach beyond the series")
        mask[k] ^= fill_polygon(indices[:, 1:], grid.shape[1:])
    return mask


def fill_polygon(points: Floats, shape: tuple[int, int]) -> Mask:
    """Even-odd fill uint8 (rows, columns) of one closed polygon, points (n, 2) in (row, column) indices.

    A pixel is inside when an odd number of edges crosses its row to the right of its centre. An edge owns its end with
    the smaller row, not the other one, so that no crossing at a corner is counted twice.
    """
    rows, columns = shape
    (y0, x0), (y1, x1) = points.T, np.roll(points, -1, axis=0).T
    crossings = np.zeros((rows, columns + 1), np.uint8)
    first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(int)
    after = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(int)
    for edge in np.flatnonzero(after > first):
        y = np.arange(first[edge], after[edge])
        x = x0[edge] + (y - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        crossings[y, np.clip(np.ceil(x), 0, columns).astype(int)] ^= 1
    filled: Mask = np.bitwise_xor.accumulate(crossings, axis=1)[:, :columns]
    return filled
