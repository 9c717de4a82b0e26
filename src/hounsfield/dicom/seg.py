"""DICOM Segmentation objects (PS3.3 A.51) onto the grid of a CT series."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from hounsfield.dicom.geometry import AGREEMENT, Grid, Orientation, plane_axes
from hounsfield.dicom.reasons import Reason, UnusableError
from hounsfield.dicom.selection import Selection

Mask = npt.NDArray[np.uint8]


def read_seg(path: Path, grid: Grid, selection: Selection) -> Mask:
    """Mask uint8 0/1 (slices, rows, columns) on `grid` of the wanted segments, united (default: all of them).

    `selection` chooses by segment label (`roi`) and segment number (`label_value`). Frames may be fewer than slices.
    Fractional segments are cut at one half.

    Raises:
        UnusableError: the segments are not there, the frames do not lie on the grid, or the object is corrupt.
    """
    try:
        dataset = pydicom.dcmread(path, force=True)
        wanted = _segments(dataset, selection)
        mask = np.zeros(grid.shape, np.uint8)
        for frame, pixels in _frames(dataset, wanted):
            _place(mask, grid, _frame_grid(dataset, frame), pixels)
    except UnusableError:
        raise
    except Exception as error:  # pydicom raises many types on corrupt objects
        raise UnusableError(
            Reason.UNREADABLE, f"the segmentation object is corrupt or incomplete ({type(error).__name__})"
        ) from error
    return mask


def _segments(dataset: Dataset, selection: Selection) -> set[int]:
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.SegmentSequence}
    chosen = selection.choose(list(names.values()))
    number = selection.label_value
    wanted = {key for key, name in names.items() if name in chosen and key > 0 and number in (None, key)}
    if not wanted:
        shown = ", ".join(f"{key} {name}" for key, name in sorted(names.items())[:20])
        raise UnusableError(Reason.NO_MATCHING_ROI, f"the wanted segment is not among: {shown}")
    return wanted


def _frames(dataset: Dataset, wanted: set[int]) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Index and binary pixels (rows, columns) of the frames of the wanted segments."""
    pixels: npt.NDArray[Any] = dataset.pixel_array
    if pixels.ndim == 2:
        pixels = pixels[None]
    kind = str(dataset.SegmentationType)
    if kind == "LABELMAP":
        return [(i, np.isin(frame, list(wanted))) for i, frame in enumerate(pixels)]
    half = int(dataset.get("MaximumFractionalValue", 255)) / 2 if kind == "FRACTIONAL" else 0.5
    return [
        (i, frame >= half)
        for i, frame in enumerate(pixels)
        if int(_functional(dataset, i, "SegmentIdentificationSequence").ReferencedSegmentNumber) in wanted
    ]


def _functional(dataset: Dataset, frame: int, keyword: str) -> Dataset:
    """An item of the frame's functional groups, of the shared ones where the frame has none of its own."""
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    groups = own if keyword in own else dataset.SharedFunctionalGroupsSequence[0]
    if keyword not in groups:
        raise UnusableError(Reason.LABEL_GEOMETRY, "the segmentation's frames have no position, orientation or spacing")
    item: Dataset = groups[keyword].value[0]
    return item


def _frame_grid(dataset: Dataset, frame: int) -> Grid:
    position = _functional(dataset, frame, "PlanePositionSequence").ImagePositionPatient
    orientation = _functional(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
    measures = _functional(dataset, frame, "PixelMeasuresSequence")
    try:
        axes = plane_axes([float(value) for value in orientation])
    except ValueError as error:
        raise UnusableError(Reason.LABEL_GEOMETRY, f"orientation of the segmentation: {error}") from error
    spacing = np.array([1.0, *(float(value) for value in measures.PixelSpacing)])
    return Grid((1, int(dataset.Rows), int(dataset.Columns)), np.array(position, float), axes, spacing)


def _place(mask: Mask, grid: Grid, frame: Grid, pixels: npt.NDArray[np.bool_]) -> None:
    """Add a frame to the mask, voxel on voxel.

    Raises:
        UnusableError: the frame's pixels are not voxels of the grid.
    """
    turn = Orientation.towards(frame.axes, grid.axes)
    frame, pixels = turn.grid(frame), turn.array(pixels[None])
    corners = grid.indices(frame.corners()).reshape(2, 2, 2, 3)
    start = np.rint(corners[0, 0, 0]).astype(int)
    ends = np.array(np.meshgrid(*((a, a + n - 1) for a, n in zip(start, frame.shape, strict=True)), indexing="ij"))
    distance = float(np.abs((corners - np.moveaxis(ends, 0, -1)) * grid.spacing).max())
    if distance > 2 * AGREEMENT * float(grid.spacing.min()):
        raise UnusableError(
            Reason.LABEL_GEOMETRY, f"frames of the segmentation lie {distance:.3f} mm beside the voxels of the series"
        )
    occupied = np.argwhere(pixels)
    if not len(occupied):
        return
    target = occupied + start
    if (target < 0).any() or (target >= grid.shape).any():
        raise UnusableError(Reason.LABEL_GEOMETRY, "the segmentation reaches beyond the series")
    mask[tuple(target.T)] = 1
