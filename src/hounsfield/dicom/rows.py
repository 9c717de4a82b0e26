"""Rows of the series store: geometry, hashes and flags of one series."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hounsfield.data.series_store import SeriesRow
from hounsfield.dicom.geometry import Grid, Orientation
from hounsfield.dicom.labels import LabelMask
from hounsfield.dicom.parallel import batched_map
from hounsfield.dicom.series import DicomSeries
from hounsfield.dicom.volumes import VolumeImage
from hounsfield.storage import sha256_bytes

Image = DicomSeries | VolumeImage
THICK_MM = 5.0


def hash_slices(volume: npt.NDArray[Any], pool: Executor) -> str:
    """SHA-256 over shape, type and the SHA-256 of every slice, computed in parallel."""

    def digest(k: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(volume[k]).data).digest()

    digests = batched_map(pool, digest, range(len(volume)), 16)
    return sha256_bytes(f"{volume.shape} {volume.dtype.str}".encode(), *digests)


def series_row(image: Image, grid: Grid, keys: tuple[str, str, str], pixels: str, flags: frozenset[str]) -> SeriesRow:
    """The row of an image on the store's `grid`; `keys` are series key, patient key and split."""
    sops = image.sops
    first = image.slices[0] if isinstance(image, DicomSeries) else None
    digests = sorted(hashlib.sha256(sop.encode()).hexdigest() for sop in sops)
    slices, rows, columns = grid.shape
    return SeriesRow(
        key=keys[0],
        patient=keys[1],
        slices=slices,
        rows=rows,
        columns=columns,
        spacing_slice=round(float(grid.spacing[0]), 6),
        spacing_row=round(float(grid.spacing[1]), 6),
        spacing_column=round(float(grid.spacing[2]), 6),
        origin=[round(float(value), 6) for value in grid.origin],
        direction=[round(float(value), 9) for value in grid.axes.reshape(-1)],
        pixel_sha256=pixels,
        sop_sha256=sha256_bytes("".join(digests).encode()) if digests else pixels,
        source=image.source,
        split=keys[2],
        manufacturer=first.manufacturer if first else "",
        slice_thickness=first.thickness if first else None,
        flags=sorted(flags),
    )


def with_label(row: SeriesRow, label: LabelMask, counts: Sequence[int], digest: str) -> SeriesRow:
    """The row with its label; `counts` are label voxels of each slice."""
    labelled = [index for index, count in enumerate(counts) if count]
    return replace(
        row,
        label_source=label.source,
        label_sha256=digest,
        label_voxels=sum(counts),
        label_first=labelled[0] if labelled else None,
        label_last=labelled[-1] if labelled else None,
    )


def geometry_flags(turn: Orientation, grid: Grid, label: LabelMask | None) -> frozenset[str]:
    """The flags that follow from the grid on the store's axes and from whether there is a label."""
    spacing = grid.spacing
    found: Mapping[str, bool] = {
        "reoriented": not turn.identity,
        "oblique": grid.oblique,
        "thick-slices": float(spacing[0]) > THICK_MM + 1e-3,
        "non-square-pixels": abs(float(spacing[1] - spacing[2])) > 0.01 * float(spacing[1]),
        "unlabelled": label is None,
    }
    return frozenset(name for name, present in found.items() if present)
