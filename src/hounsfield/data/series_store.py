"""The series store: every usable CT series as an int16 HU volume, its label, and the reason for whatever was left out.

    manifest.json     kind, version, dataset hash, counts, how it was made
    series.parquet    one row per series (`SeriesRow`)
    slices.parquet    one row per slice (`SliceRow`)
    rejected.parquet  one row per file or series not used (`Rejection`)
    volumes/KEY.arrow one row per slice: `hu` (int16) and, when labelled, `mask` (uint8 0/1), uncompressed
    index.html        montage per series

Axes are (slice, row, column): slices from inferior to superior, rows from anterior to posterior, columns from the
patient's right to the left. Nothing here names a patient: keys are keyed hashes.
"""

import os
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hounsfield.data.arrow import ArrowSlices, write_slices
from hounsfield.errors import ArtifactError
from hounsfield.storage import read_manifest, sha256_bytes, write_manifest

KIND = "series-store"
VERSION = 1

HU = npt.NDArray[np.int16]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SeriesRow:
    """One series. Lengths in mm; `origin` and `direction` are DICOM LPS coordinates of voxel (0, 0, 0) and the unit
    vectors of the slice, row-index and column-index axes (9 numbers, one axis after the other)."""

    key: str
    patient: str
    slices: int
    rows: int
    columns: int
    spacing_slice: float
    spacing_row: float
    spacing_column: float
    origin: list[float]
    direction: list[float]
    pixel_sha256: str
    sop_sha256: str
    """SHA-256 over the sorted SHA-256 of the SOP instance UIDs (of the pixels, for volumes that have none)."""
    source: str
    """`dicom`, `nifti`, `nrrd` or `metaimage`."""
    label_source: str = "none"
    """`seg`, `rtstruct`, `volume` or `none`."""
    label_sha256: str = ""
    label_voxels: int = 0
    label_first: int | None = None
    label_last: int | None = None
    split: str = ""
    """`train`, `val` or `test` when the cases file fixes it, else empty."""
    manufacturer: str = ""
    slice_thickness: float | None = None
    flags: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.slices, self.rows, self.columns

    @property
    def spacing(self) -> tuple[float, float, float]:
        return self.spacing_slice, self.spacing_row, self.spacing_column


@dataclass(frozen=True)
class SliceRow:
    """One slice: its index in the volume and its position in mm along the slice normal."""

    series: str
    index: int
    position_mm: float
    label_voxels: int


@dataclass(frozen=True)
class Rejection:
    """A file or series that was not used: keyed hash of its path, machine-readable reason and a sentence."""

    path_key: str
    reason: str
    sentence: str
    files: int = 1


SERIES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("patient", pa.string()),
        ("slices", pa.int32()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("spacing_slice", pa.float64()),
        ("spacing_row", pa.float64()),
        ("spacing_column", pa.float64()),
        ("origin", pa.list_(pa.float64())),
        ("direction", pa.list_(pa.float64())),
        ("pixel_sha256", pa.string()),
        ("sop_sha256", pa.string()),
        ("source", pa.string()),
        ("label_source", pa.string()),
        ("label_sha256", pa.string()),
        ("label_voxels", pa.int64()),
        ("label_first", pa.int32()),
        ("label_last", pa.int32()),
        ("split", pa.string()),
        ("manufacturer", pa.string()),
        ("slice_thickness", pa.float64()),
        ("flags", pa.list_(pa.string())),
    ]
)
SLICES_SCHEMA = pa.schema(
    [("series", pa.string()), ("index", pa.int32()), ("position_mm", pa.float64()), ("label_voxels", pa.int64())]
)
REJECTED_SCHEMA = pa.schema(
    [("path_key", pa.string()), ("reason", pa.string()), ("sentence", pa.string()), ("files", pa.int32())]
)


def volume_name(key: str) -> str:
    """Name of the file with the voxels of series `key`, relative to the store."""
    return f"volumes/{key}.arrow"


def dataset_hash(series: Sequence[SeriesRow]) -> str:
    """SHA-256 over SOP instance UID, pixel and label hashes of all series, independent of their order."""
    lines = sorted(f"{row.sop_sha256} {row.pixel_sha256} {row.label_sha256}\n" for row in series)
    return sha256_bytes("".join(lines).encode())


class SeriesStoreWriter:
    """Fills the directory of a store; `finish` writes the tables and, last, the manifest.

    Use it inside `hounsfield.storage.atomic_directory`, so that a store is complete or absent.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "volumes").mkdir()
        self.series: list[SeriesRow] = []
        self.slices: list[SliceRow] = []
        self.rejected: list[Rejection] = []

    def write_volume(self, key: str, hu: HU, mask: Mask | None) -> None:
        """Write the voxels of one series. Safe to call from several threads or processes for different keys."""
        columns: dict[str, npt.NDArray[Any]] = {"hu": hu}
        if mask is not None:
            columns["mask"] = mask
        write_slices(self.volume_file(key), columns)

    def take_volume(self, key: str, file: Path) -> None:
        """Take over the voxels of a series from the `file` of another store: a hard link where the disk allows it."""
        target = self.volume_file(key)
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)

    def volume_file(self, key: str) -> Path:
        """The file with the voxels of a series that were written."""
        return self.directory / volume_name(key)

    def volume(self, row: SeriesRow) -> tuple[HU, Mask | None]:
        """The voxels of a series that were written, as read-only views of the file."""
        return read_volume(self.directory, row)

    def take_rows(self, store: "SeriesStore", keys: Collection[str]) -> None:
        """Record the series `keys` of another store, whose voxels are taken over apart."""
        self.series += [row for row in store.series if row.key in keys]
        self.slices += [row for row in store.slices() if row.series in keys]

    def add(self, row: SeriesRow, positions_mm: list[float], label_voxels: list[int]) -> None:
        """Record a series whose voxels were written, with position and label voxels of each slice."""
        self.series.append(row)
        pairs = zip(positions_mm, label_voxels, strict=True)
        self.slices.extend(SliceRow(row.key, i, position, voxels) for i, (position, voxels) in enumerate(pairs))

    def reject(self, rejection: Rejection) -> None:
        """Record a file or series that was not used."""
        self.rejected.append(rejection)

    def finish(self, **how: Any) -> None:
        """Write tables and manifest, rows sorted by key so that the same input gives the same bytes."""
        self.series.sort(key=lambda row: row.key)
        self.slices.sort(key=lambda row: (row.series, row.index))
        self.rejected.sort(key=lambda row: (row.reason, row.path_key, row.sentence, row.files))
        for name, rows, schema in (
            ("series", self.series, SERIES_SCHEMA),
            ("slices", self.slices, SLICES_SCHEMA),
            ("rejected", self.rejected, REJECTED_SCHEMA),
        ):
            table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
            pq.write_table(table, self.directory / f"{name}.parquet", compression="zstd")
        write_manifest(
            self.directory,
            KIND,
            VERSION,
            dataset_hash=dataset_hash(self.series),
            patients=len({row.patient for row in self.series}),
            series=len(self.series),
            labelled=sum(row.label_voxels > 0 for row in self.series),
            slices=len(self.slices),
            rejected=dict(sorted(self.rejections().items())),
            **how,
        )

    def rejections(self) -> Counter[str]:
        """Files not used, by reason."""
        counts: Counter[str] = Counter()
        for row in self.rejected:
            counts[row.reason] += row.files
        return counts


class SeriesStore:
    """A complete series store, read by memory map.

    Raises:
        ArtifactError: `directory` holds none, or one of another version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory, KIND, VERSION)
        self.series = [_row(SeriesRow, values) for values in self._table("series")]
        self.rejected = [_row(Rejection, values) for values in self._table("rejected")]

    @property
    def dataset_hash(self) -> str:
        return str(self.manifest["dataset_hash"])

    def slices(self) -> list[SliceRow]:
        """Every slice, by series key and index."""
        return [_row(SliceRow, values) for values in self._table("slices")]

    def volume(self, row: SeriesRow) -> tuple[HU, Mask | None]:
        """HU int16 (slice, row, column) and mask uint8 of the same shape or None, as read-only views of the file."""
        return read_volume(self.directory, row)

    def _table(self, name: str) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = pq.read_table(self.directory / f"{name}.parquet").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.directory / name}.parquet cannot be read ({error}): ingest again") from error
        return rows


def read_volume(directory: Path, row: SeriesRow) -> tuple[HU, Mask | None]:
    """HU int16 (slice, row, column) and mask uint8 of the same shape or None, as read-only views of the store's file.

    Raises:
        ArtifactError: the file is missing, incomplete or of another shape.
    """
    slices = ArrowSlices(directory / volume_name(row.key), (row.rows, row.columns))
    return slices.column("hu"), slices.column("mask") if "mask" in slices.names else None


def _row(kind: type[Any], values: dict[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
