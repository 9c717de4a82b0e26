"""Files to CT series that a model can take, and the reason for every other, with the checks and codes of ingest."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from hounsfield.data.series_store import Rejection, SeriesRow, SeriesStoreWriter
from hounsfield.dicom.geometry import Orientation
from hounsfield.dicom.headers import InputFile
from hounsfield.dicom.ingest import Ingest, Options, Scan, discreet
from hounsfield.dicom.pseudonyms import load_pseudonyms
from hounsfield.dicom.reasons import Reason, UnusableError
from hounsfield.dicom.rows import geometry_flags, hash_slices, series_row
from hounsfield.dicom.series import DicomSeries

NO_IDENTIFIERS = "no-identifiers"
NOT_AXIAL = "not-axial"


@dataclass(frozen=True)
class Refusal:
    """A series that is not predicted: reason code and sentence."""

    key: str
    reason: str
    sentence: str
    slices: int = 0


@dataclass(frozen=True)
class Volume:
    """HU (slice, row, column) int16 on the axes of the series store, with its row."""

    hu: npt.NDArray[np.int16]
    row: SeriesRow
    positions_mm: list[float]


@dataclass(frozen=True)
class Candidate:
    """A regular CT series under its pseudonymous key."""

    key: str
    patient: str
    series: DicomSeries

    @property
    def turn(self) -> Orientation:
        """From the order of the files to the axes of the series store."""
        return Orientation.towards(self.series.grid.axes)

    def row(self, pixels: str = "", flags: frozenset[str] = frozenset()) -> SeriesRow:
        """What is known of the series, without its pixels as long as their hash is not given."""
        grid = self.turn.grid(self.series.grid)
        return series_row(self.series, grid, (self.key, self.patient, ""), pixels, flags)

    def read(self, pool: Executor) -> Volume:
        """The voxels.

        Raises:
            UnusableError: the pixels of a slice cannot be decoded.
        """
        grid = self.turn.grid(self.series.grid)
        with discreet():
            stored, flags = self.series.read(pool)
        hu = self.turn.array(stored)
        flags = (flags | geometry_flags(self.turn, grid, None)) - {"unlabelled"}
        return Volume(hu, self.row(hash_slices(hu, pool), flags), grid.positions_mm())

    def headers(self) -> list[Dataset]:
        """Headers of the source images, without pixels, in the order of `series.slices`.

        Raises:
            UnusableError: a file cannot be read any more.
        """
        with discreet(), _still_readable():
            return [pydicom.dcmread(item.file.path, stop_before_pixels=True, force=True) for item in self.series.slices]

    def sizes(self) -> list[int]:
        """Bytes of the files, in the order of `series.slices`.

        Raises:
            UnusableError: a file is not there any more.
        """
        with _still_readable():
            return [item.file.path.stat().st_size for item in self.series.slices]

    def to_source(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """An array on the axes of the series store on those of the files again (slice, row, column)."""
        stored = self.turn.grid(self.series.grid)
        return Orientation.towards(stored.axes, self.series.grid.axes).array(array)


@contextmanager
def _still_readable() -> Iterator[None]:
    """Name no file, whose path may name the patient."""
    try:
        yield
    except (OSError, InvalidDicomError) as error:
        raise UnusableError(Reason.UNREADABLE, "a file of the series cannot be read any more") from error


@dataclass(frozen=True)
class Found:
    """What is among the files: series to predict, series refused, files of no use and label objects left alone."""

    candidates: list[Candidate]
    refused: list[Refusal]
    rejected: list[Rejection]
    labels: int


def find(files: Sequence[InputFile], task: str, min_slices: int, workers: int) -> Found:
    """Sort the slices of `files` into series, as ingest does.

    Raises:
        InputError: there is no pseudonym key and none can be made.
    """
    pseudonyms = load_pseudonyms()
    with TemporaryDirectory(prefix="hounsfield-predict-") as scratch, discreet(), ThreadPoolExecutor(workers) as pool:
        writer = SeriesStoreWriter(Path(scratch))
        ingest = Ingest(writer, pseudonyms, Options(min_slices=min_slices, workers=workers))
        scan = ingest.scan(files, pool)
        volume = UnusableError(Reason.IMAGE_VOLUME, "volumes are not predicted: a result refers to DICOM images")
        for item in scan.volumes:
            ingest.reject(item.file.name, volume)
        candidates: list[Candidate] = []
        refused = [
            Refusal(pseudonyms.of("series", uid), str(error.reason), f"a slice cannot be used: {error.sentence}")
            for uid, error in scan.spoiled.items()
            if uid not in scan.slices
        ]
        for uid, headers in sorted(scan.slices.items()):
            before = len(writer.rejected)
            found = ingest.series(Scan({uid: headers}, spoiled=scan.spoiled)).get(uid)
            if found is None:
                why = writer.rejected.pop(before)
                refused.append(Refusal(pseudonyms.of("series", uid), why.reason, why.sentence, len(headers)))
            else:
                candidate = Candidate(pseudonyms.of("series", uid), pseudonyms.of(*headers[0].patient), found)
                fault = _fault(candidate, task)
                refused.append(fault) if fault else candidates.append(candidate)
        return Found(candidates, refused, writer.rejected, len(scan.labels))


def _fault(candidate: Candidate, task: str) -> Refusal | None:
    """What keeps a regular series from being predicted."""
    series = candidate.series
    first = series.slices[0]
    if not series.sops or not first.frame_of_reference or first.series.startswith("folder "):
        return Refusal(
            candidate.key,
            NO_IDENTIFIERS,
            "UIDs of images, series or frame of reference are missing: a DICOM result could not refer to the images",
            len(series.slices),
        )
    if task == "l3-slice" and candidate.turn.order[0] != 0:
        return Refusal(
            candidate.key,
            NOT_AXIAL,
            "the slices of the series are sagittal or coronal: L3 is looked for in axial slices",
            len(series.slices),
        )
    return None
