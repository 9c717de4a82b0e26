"""NIfTI, NRRD and MetaImage volumes, as images and as labels."""

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hounsfield.dicom.geometry import Grid
from hounsfield.dicom.headers import InputFile
from hounsfield.dicom.mute import muted_libraries
from hounsfield.dicom.nifti import require_complete_nifti
from hounsfield.dicom.pixels import Flags
from hounsfield.dicom.reasons import Reason, UnusableError

_SOURCES = {".nii": "nifti", ".gz": "nifti", ".nrrd": "nrrd", ".nhdr": "nrrd", ".mha": "metaimage", ".mhd": "metaimage"}
_MAX_LABEL = 65535


@dataclass(frozen=True)
class VolumeImage:
    """A CT volume in Hounsfield units from a volume file."""

    file: InputFile
    grid: Grid
    source: str

    @property
    def sops(self) -> tuple[str, ...]:
        return ()

    def read(self, pool: Executor) -> tuple[npt.NDArray[np.int16], Flags]:
        """HU (slices, rows, columns) int16 on `grid`; flags `rounded` and `clipped` as for DICOM."""
        values = read_array(self.file.path)
        flags: set[str] = set()
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise UnusableError(Reason.NOT_HU, "the volume has voxels that are not numbers")
            rounded = np.rint(values)
            if not np.array_equal(rounded, values):
                flags.add("rounded")
            values = rounded
        low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
        if values.dtype != np.int16 and (values.min() < low or values.max() > high):
            flags.add("clipped")
            values = np.clip(values, low, high)
        return values.astype(np.int16, copy=False), frozenset(flags)


def open_volume(file: InputFile) -> VolumeImage:
    """Read the grid of a volume file, not its voxels.

    Raises:
        UnusableError: it cannot be read or is not a three-dimensional scalar volume.
    """
    return VolumeImage(file, read_grid(file.path), _SOURCES[Path(file.name).suffix.lower()])


def read_grid(path: Path) -> Grid:
    """The grid in LPS coordinates, axes in array order (k, j, i).

    Raises:
        UnusableError: as `open_volume`.
    """
    sitk = _sitk()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with muted_libraries():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise UnusableError(
            Reason.UNREADABLE, "the volume file is corrupt, or its axes are not perpendicular"
        ) from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise UnusableError(
            Reason.NOT_A_VOLUME,
            f"{reader.GetDimension()} dimensions and {reader.GetNumberOfComponents()} values a voxel: expected 3 and 1",
        )
    size = reader.GetSize()
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    spacing = np.array(reader.GetSpacing())
    if not (spacing > 0).all():
        raise UnusableError(Reason.NO_GEOMETRY, "the voxel spacing is not positive")
    return Grid(
        (int(size[2]), int(size[1]), int(size[0])),
        np.array(reader.GetOrigin()),
        np.ascontiguousarray(direction.T[::-1]) + 0.0,
        spacing[::-1].copy(),
    )


def read_array(path: Path) -> npt.NDArray[Any]:
    """Voxels (k, j, i) in the file's own type, rescaled as its header says.

    Raises:
        UnusableError: the file is corrupt.
    """
    sitk = _sitk()
    if path.name.lower().endswith((".nii", ".nii.gz")):
        require_complete_nifti(path)
    try:
        with muted_libraries():
            image = sitk.ReadImage(str(path))
        values: npt.NDArray[Any] = sitk.GetArrayFromImage(image)
        return values
    except RuntimeError as error:
        raise UnusableError(Reason.UNREADABLE, "the volume file is corrupt") from error


def _sitk() -> Any:
    """SimpleITK, loaded where it is needed; its calls have no types."""
    import SimpleITK

    return SimpleITK


def label_array(path: Path) -> npt.NDArray[Any] | None:
    """Voxels (k, j, i) of a label map, or None when the values are not small non-negative integers."""
    values = read_array(path)
    if values.min() < 0 or values.max() > _MAX_LABEL:
        return None
    if values.dtype.kind == "f":
        whole = values.astype(np.uint16)
        return whole if np.array_equal(whole, values) else None
    return values


def select(values: npt.NDArray[Any], label_value: int | None) -> npt.NDArray[np.uint8]:
    """Mask 0/1 of the voxels with `label_value`; without one, of the only value above zero.

    Raises:
        UnusableError: several values, and none was asked for.
    """
    if label_value is not None:
        return np.asarray(values == label_value, np.uint8)
    present = np.flatnonzero(np.bincount(values.reshape(-1).astype(np.uint16)))
    present = present[present > 0]
    if len(present) > 1:
        shown = ", ".join(str(value) for value in present[:20]) + (", ..." if len(present) > 20 else "")
        raise UnusableError(
            Reason.AMBIGUOUS_LABEL, f"the label volume has the values {shown}: choose one with --label-value"
        )
    return np.asarray(values > 0, np.uint8)
