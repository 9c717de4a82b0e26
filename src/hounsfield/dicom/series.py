"""Slices of one Series Instance UID to one regular volume, or the reason why they do not make one."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hounsfield.dicom.geometry import Floats, Grid, plane_axes
from hounsfield.dicom.headers import SliceHeader
from hounsfield.dicom.pixels import Flags, read_slice, read_volume
from hounsfield.dicom.reasons import Reason, UnusableError

SAME_POSITION_MM = 0.01
_UNEVEN = 0.05
_UNEVEN_MM = 0.02
_ORIENTATION = 1e-3


@dataclass(frozen=True)
class DicomSeries:
    """A regular CT series: `slices` in ascending position along the grid's slice axis, `copies` left out."""

    slices: tuple[SliceHeader, ...]
    grid: Grid
    copies: tuple[SliceHeader, ...] = ()
    flags: Flags = field(default=frozenset())
    source: str = "dicom"

    @property
    def uid(self) -> str:
        return self.slices[0].series

    @cached_property
    def sops(self) -> tuple[str, ...]:
        """SOP Instance UIDs, none when any slice lacks it."""
        sops = tuple(header.sop for header in self.slices)
        return sops if all(sops) else ()

    def read(self, pool: Executor) -> tuple[npt.NDArray[np.int16], Flags]:
        """HU (slices, rows, columns) int16 on `grid`, and the flags of the pixels."""
        volume, flags = read_volume(self.slices, pool)
        return volume, flags | self.flags


def build_series(headers: Sequence[SliceHeader], min_slices: int) -> DicomSeries:
    """Sort the slices of one series along their normal and check that they form a regular grid.

    Raises:
        UnusableError: with the first fault found.
    """
    _require_one(headers, Reason.INCONSISTENT_PATIENT, "patient identifiers", lambda h: h.patient)
    _require_one(headers, Reason.INCONSISTENT_SIZE, "image sizes", lambda h: (h.rows, h.columns))
    spacings = np.array([header.pixel_spacing for header in headers])
    if np.ptp(spacings, axis=0).max() > 1e-4:
        raise UnusableError(Reason.INCONSISTENT_SIZE, "the pixel spacing changes within the series")
    orientations = np.array([header.orientation for header in headers])
    if np.ptp(orientations, axis=0).max() > _ORIENTATION:
        raise UnusableError(Reason.INCONSISTENT_ORIENTATION, "the slices of the series differ in orientation")
    try:
        axes = plane_axes(headers[0].orientation)
    except ValueError as error:
        raise UnusableError(Reason.NO_GEOMETRY, f"image orientation: {error}") from error
    if axes[0][np.abs(axes[0]).argmax()] < 0:
        axes[0] = -axes[0]
    kept, copies = _sorted_once(headers, axes[0])
    if len(kept) < max(min_slices, 2):
        raise UnusableError(
            Reason.TOO_FEW_SLICES, f"{len(kept)} of at least {max(min_slices, 2)} slices (--min-slices)"
        )
    spacing, flags = _slice_spacing(kept, axes)
    first = kept[0]
    grid = Grid(
        (len(kept), first.rows, first.columns),
        np.array(first.position),
        axes,
        np.array([spacing, *first.pixel_spacing]),
    )
    if any(header.rescale_type != "HU" for header in kept):
        flags |= {"unspecified-units"}
    return DicomSeries(tuple(kept), grid, tuple(copies), flags)


def _require_one(headers: Iterable[SliceHeader], reason: Reason, what: str, key: object) -> None:
    different = {key(header) for header in headers}  # type: ignore[operator]
    if len(different) > 1:
        raise UnusableError(reason, f"the series has {len(different)} different {what}")


def _sorted_once(headers: Sequence[SliceHeader], normal: Floats) -> tuple[list[SliceHeader], list[SliceHeader]]:
    """Slices in ascending position, identical copies taken out.

    Raises:
        UnusableError: different slices at one position.
    """
    placed = sorted(headers, key=lambda h: (float(np.dot(h.position, normal)), h.sop, h.file.name))
    kept, copies = [placed[0]], []
    for header in placed[1:]:
        apart = float(np.dot(np.subtract(header.position, kept[-1].position), normal))
        if apart > SAME_POSITION_MM:
            kept.append(header)
        elif np.allclose(header.position, kept[-1].position, atol=SAME_POSITION_MM) and _same(header, kept[-1]):
            copies.append(header)
        else:
            raise UnusableError(Reason.CONFLICTING_SLICES, "the series has different slices at one position")
    return kept, copies


def _same(one: SliceHeader, other: SliceHeader) -> bool:
    pixels = np.empty((2, one.rows, one.columns), np.int16)
    for header, out in zip((one, other), pixels, strict=True):
        read_slice(header, out)
    return np.array_equal(pixels[0], pixels[1])


def _slice_spacing(slices: Sequence[SliceHeader], axes: Floats) -> tuple[float, Flags]:
    """Distance of neighbouring slices in mm.

    Raises:
        UnusableError: a gap, uneven distances or a shear.
    """
    positions = np.array([header.position for header in slices])
    along = (positions - positions[0]) @ axes[0]
    steps = np.diff(along)
    step = float(np.median(steps))
    tolerance = max(_UNEVEN * step, _UNEVEN_MM)
    smallest = float(steps.min())
    multiples = steps / smallest
    if steps.max() > 1.5 * smallest and np.abs(multiples - np.rint(multiples)).max() <= 0.1:
        missing = int(np.rint(multiples).sum()) - len(steps)
        raise UnusableError(
            Reason.MISSING_SLICES,
            f"missing slices: {missing} between distances of {smallest:.2f} to {steps.max():.2f} mm between neighbours",
        )
    if np.abs(steps - step).max() > tolerance:
        raise UnusableError(
            Reason.IRREGULAR_SPACING,
            f"distances between neighbouring slices vary from {smallest:.2f} to {steps.max():.2f} mm",
        )
    lateral = (positions - positions[0]) @ axes[1:].T
    drift = float(np.abs(lateral).max())
    if drift > max(0.05, 1e-3 * float(along[-1])):
        fitted = np.outer(along / along[-1], lateral[-1])
        if np.abs(lateral - fitted).max() <= max(0.1, 0.05 * drift):
            degrees = float(np.degrees(np.arctan2(np.linalg.norm(lateral[-1]), along[-1])))
            raise UnusableError(Reason.GANTRY_TILT, f"the slices are sheared by {degrees:.1f} degrees of gantry tilt")
        raise UnusableError(Reason.IRREGULAR_SPACING, f"the slices are shifted sideways by up to {drift:.2f} mm")
    spacing = float(along[-1] / (len(slices) - 1))
    uneven = np.abs(steps - spacing).max() > 1e-3
    return round(spacing, 6), frozenset({"uneven-spacing"}) if uneven else frozenset()
