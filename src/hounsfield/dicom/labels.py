"""Which label belongs to which series, and the one mask of a case."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from hounsfield.dicom.geometry import AGREEMENT, Grid, Orientation
from hounsfield.dicom.headers import VOLUME_SUFFIXES, LabelHeader, VolumeFile
from hounsfield.dicom.reasons import Reason, UnusableError
from hounsfield.dicom.rtstruct import read_rtstruct
from hounsfield.dicom.seg import read_seg
from hounsfield.dicom.selection import Selection
from hounsfield.dicom.series import DicomSeries
from hounsfield.dicom.volumes import label_array, read_grid, select

Label = LabelHeader | VolumeFile
Refused = list[tuple[Label, UnusableError]]
_LABEL_FOLDER = re.compile("label|mask|seg|annotation|contour|roi", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a series was found, and whose it is."""

    folder: PurePosixPath
    patient: tuple[str, ...]


@dataclass(frozen=True)
class LabelMask:
    """Mask uint8 0/1 on the store's axes and where it came from (`seg`, `rtstruct`, `volume`)."""

    mask: npt.NDArray[np.uint8]
    source: str


def read_mask(
    labels: Sequence[Label], grid: Grid, selection: Selection, allow_empty: bool
) -> tuple[LabelMask | None, Refused]:
    """The one mask of a case on `grid`, and the labels that lack the wanted region.

    Raises:
        UnusableError: a label disagrees with the grid, is empty or corrupt, or several fit.
    """
    found: list[LabelMask] = []
    refused: Refused = []
    for label in labels:
        try:
            found.append(_read_one(label, grid, selection))
        except UnusableError as error:
            if error.reason is not Reason.NO_MATCHING_ROI:
                raise
            refused.append((label, error))
    if len(found) > 1:
        raise UnusableError(
            Reason.AMBIGUOUS_LABEL, f"{len(found)} labels fit the series: choose with --roi, or give a cases file"
        )
    if found and not allow_empty and not found[0].mask.any():
        raise UnusableError(Reason.EMPTY_LABEL, "the label has no voxel")
    return (found[0] if found else None), refused


def _read_one(label: Label, grid: Grid, selection: Selection) -> LabelMask:
    if isinstance(label, VolumeFile):
        return LabelMask(_volume_mask(label, grid, selection), "volume")
    path = label.file.path
    if label.kind == "seg":
        return LabelMask(read_seg(path, grid, selection), "seg")
    return LabelMask(read_rtstruct(path, grid, selection), "rtstruct")


def _volume_mask(label: VolumeFile, grid: Grid, selection: Selection) -> npt.NDArray[np.uint8]:
    own = read_grid(label.file.path)
    turn = Orientation.towards(own.axes, grid.axes)
    turned = turn.grid(own)
    if turned.shape != grid.shape:
        shapes = ["x".join(map(str, shape)) for shape in (turned.shape, grid.shape)]
        raise UnusableError(Reason.LABEL_GEOMETRY, f"the label has {shapes[0]} voxels, the image {shapes[1]}")
    if not turned.agrees(grid):
        raise UnusableError(
            Reason.LABEL_GEOMETRY,
            f"label and image lie up to {turned.distance_mm(grid):.3f} mm apart, "
            f"allowed are {AGREEMENT * float(grid.spacing.min()):.3f} mm",
        )
    values = label_array(label.file.path)
    if values is None:
        raise UnusableError(Reason.AMBIGUOUS_LABEL, "the label volume has values other than 0, 1, 2, ...")
    return turn.array(select(values, selection.label_value))


def stem(name: str) -> str:
    """File name without folder and volume suffix, the name of a label volume's region."""
    base = PurePosixPath(name).name
    suffix = next((suffix for suffix in VOLUME_SUFFIXES[::-1] if base.lower().endswith(suffix)), "")
    return base[: len(base) - len(suffix)]


def attach_objects(
    labels: Iterable[LabelHeader], series: Mapping[str, DicomSeries]
) -> tuple[dict[str, list[Label]], Refused]:
    """DICOM label objects by the Series Instance UID they refer to.

    An object that refers to no series at all belongs to the only series of its frame of reference.
    """
    attached: dict[str, list[Label]] = {}
    refused: Refused = []
    for label in labels:
        targets = [uid for uid in series if uid in label.series]
        if not label.series:
            targets = [
                uid
                for uid, item in series.items()
                if label.frame_of_reference and item.slices[0].frame_of_reference == label.frame_of_reference
            ]
            targets = targets if len(targets) == 1 else []
        if not targets:
            error = UnusableError(
                Reason.LABEL_WITHOUT_IMAGE, "the series that the label refers to is absent or not used"
            )
            refused.append((label, error))
        for uid in targets:
            attached.setdefault(uid, []).append(label)
    return attached, refused


def attach_volumes(
    volumes: Iterable[VolumeFile],
    series: Mapping[str, DicomSeries],
    places: Mapping[str, Place],
    attached: Mapping[str, list[Label]],
    selection: Selection,
) -> tuple[dict[str, list[Label]], Refused]:
    """Label volumes by the Series Instance UID of the series on whose grid they lie.

    A volume belongs to a series of its case folder: its own folder, or the one above when its own is named for labels.
    `places` says where every series was found, usable or not. All series of the case folder must be of one patient, and
    exactly one must have the volume's grid. When the only series there has another grid and no other label, the volume
    is attached all the same, so that the case is refused for its geometry.
    """
    by_series: dict[str, list[Label]] = {}
    misfits: dict[str, list[Label]] = {}
    refused: Refused = []
    for volume in volumes:
        try:
            if not selection.choose([stem(volume.file.name)]):
                raise UnusableError(Reason.NO_MATCHING_ROI, "the name of the label volume is not the wanted region's")
            fitting, misfit = _fitting(volume, series, case_folder(volume, places))
            if fitting is not None and attached.get(fitting):
                raise UnusableError(Reason.SUPERSEDED_LABEL, "a DICOM label object refers to the series")
            if fitting is not None:
                by_series.setdefault(fitting, []).append(volume)
            elif misfit is not None:
                misfits.setdefault(misfit, []).append(volume)
        except UnusableError as error:
            refused.append((volume, error))
    for uid, candidates in misfits.items():
        if uid in by_series or attached.get(uid):
            beside = UnusableError(Reason.UNMATCHED_VOLUME, "the volume is not on the grid of the series beside it")
            refused += [(volume, beside) for volume in candidates]
        else:
            by_series[uid] = candidates
    return by_series, refused


def case_folder(volume: VolumeFile, places: Mapping[str, Place]) -> dict[str, Place]:
    """The series in the volume's case folder."""
    own = PurePosixPath(volume.file.name).parent
    for folder in (own, own.parent) if _LABEL_FOLDER.search(own.name) else (own,):
        near = {
            uid: place
            for uid, place in places.items()
            if place.folder.is_relative_to(folder) or own.is_relative_to(place.folder)
        }
        if near:
            return near
    return {}


def _fitting(
    volume: VolumeFile, series: Mapping[str, DicomSeries], near: Mapping[str, Place]
) -> tuple[str | None, str | None]:
    """The series on whose grid the volume lies, or the only series there when it does not."""
    grid = read_grid(volume.file.path)
    usable = {uid: series[uid] for uid in near if uid in series}
    fits = [
        uid
        for uid, item in usable.items()
        if Orientation.towards(grid.axes, item.grid.axes).grid(grid).agrees(item.grid)
    ]
    patients = len({place.patient for place in near.values()})
    if len(fits) != 1 and len(usable) > 1:
        raise UnusableError(
            Reason.UNMATCHED_VOLUME,
            f"{len(fits)} of the {len(usable)} series beside the volume have its grid: expected one",
        )
    if patients > 1:
        raise UnusableError(
            Reason.UNMATCHED_VOLUME, f"series of {patients} patients lie beside the volume: give a cases file"
        )
    if label_array(volume.file.path) is None:
        raise UnusableError(Reason.IMAGE_VOLUME, "the volume is an image, not a label: give it in a cases file")
    if not usable:
        raise UnusableError(
            Reason.LABEL_WITHOUT_IMAGE, "no usable CT series lies in the folder of the label: give a cases file"
        )
    return (fits[0], None) if fits else (None, next(iter(usable)))
