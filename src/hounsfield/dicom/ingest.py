"""From files to a series store: scan headers, form series, attach labels, write volumes, account for the rest."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

from hounsfield.data.series_store import Rejection, SeriesRow, SeriesStoreWriter
from hounsfield.dicom.cases import CaseRow
from hounsfield.dicom.geometry import Orientation
from hounsfield.dicom.headers import (
    Header,
    InputFile,
    LabelHeader,
    SliceHeader,
    VolumeFile,
    is_volume_name,
    read_header,
)
from hounsfield.dicom.labels import Label, Place, attach_objects, attach_volumes, read_mask
from hounsfield.dicom.parallel import batched_map
from hounsfield.dicom.pseudonyms import Pseudonyms
from hounsfield.dicom.reasons import Reason, UnusableError
from hounsfield.dicom.rows import Image, geometry_flags, hash_slices, series_row, with_label
from hounsfield.dicom.selection import Selection
from hounsfield.dicom.series import DicomSeries, build_series
from hounsfield.dicom.sources import walk
from hounsfield.dicom.volumes import open_volume
from hounsfield.progress import Progress, track

_AT_ONCE = 2
_MANY = 400
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to ingest. `workers` threads read pixels; `allow_empty` keeps cases whose label has no voxel."""

    selection: Selection = field(default_factory=Selection)
    min_slices: int = 3
    allow_empty: bool = False
    workers: int = 2


@dataclass(frozen=True)
class Case:
    """One image with its label candidates, ready to be read."""

    image: Image
    labels: tuple[Label, ...]
    selection: Selection
    key: str
    patient: str
    split: str
    path: str
    files: int


@dataclass(frozen=True)
class Written:
    """One series in the store."""

    row: SeriesRow
    positions_mm: list[float]
    label_voxels: list[int]
    refused_labels: list[tuple[Label, UnusableError]]


@dataclass
class Scan:
    """The usable headers of a set of files."""

    slices: dict[str, list[SliceHeader]] = field(default_factory=dict)
    labels: list[LabelHeader] = field(default_factory=list)
    volumes: list[VolumeFile] = field(default_factory=list)
    spoiled: dict[str, UnusableError] = field(default_factory=dict)


class Ingest:
    """Fills the `writer` of a series store.

    Args:
        known: rows of an earlier ingest by series key. A DICOM series with the same SOP Instance UIDs, geometry and
            label mask as there gets its row without its pixels being read, and no volume: see `taken_over`.
        written: called from several threads with each row whose volume has been written.

    `seen` has the keys of all series that were met, usable or not, and `taken_over` of those that were not read.
    """

    def __init__(
        self,
        writer: SeriesStoreWriter,
        pseudonyms: Pseudonyms,
        options: Options,
        known: Mapping[str, SeriesRow] | None = None,
        written: Callable[[SeriesRow], None] = lambda row: None,
    ) -> None:
        self.writer, self.pseudonyms, self.options = writer, pseudonyms, options
        self.known, self.written = known or {}, written
        self.seen: set[str] = set()
        self.taken_over: set[str] = set()

    def folders(self, files: Sequence[InputFile]) -> None:
        """Ingest every series among `files`, with the labels that refer to it or lie beside it."""
        with discreet(), ThreadPoolExecutor(self.options.workers) as pool:
            self._write_all(self._cases_of(files, self.options.selection, pool), pool)

    def cases(self, rows: Sequence[CaseRow]) -> None:
        """Ingest the images of a cases file."""
        with discreet(), ThreadPoolExecutor(self.options.workers) as pool:
            self._write_all([case for row in rows for case in self._case_of_row(row, pool)], pool)

    def reject(self, path: str, error: UnusableError, files: int = 1) -> None:
        """Record a file or series that is not used; `path` is hashed."""
        self.writer.reject(Rejection(self.pseudonyms.of("path", path), str(error.reason), error.sentence, files))

    def scan(self, files: Sequence[InputFile], pool: Executor) -> Scan:
        """Look at every file once; those of no use are recorded."""
        scan = Scan()
        headers = batched_map(pool, header_or_error, files, 64)
        for file, header in zip(files, _shown(headers, len(files)), strict=True):
            if isinstance(header, SliceHeader):
                scan.slices.setdefault(header.series, []).append(header)
            elif isinstance(header, LabelHeader):
                scan.labels.append(header)
            elif isinstance(header, VolumeFile):
                scan.volumes.append(header)
            else:
                self.reject(file.name, header)
                if header.series is not None:
                    scan.spoiled.setdefault(header.series, header)
        return scan

    def series(self, scan: Scan) -> dict[str, DicomSeries]:
        """The regular series by Series Instance UID; the others, and copies of slices, are recorded."""
        usable: dict[str, DicomSeries] = {}
        self.seen.update(self.pseudonyms.of("series", uid) for uid in (*scan.slices, *scan.spoiled))
        for uid, headers in sorted(scan.slices.items()):
            try:
                if uid in scan.spoiled:
                    fault = scan.spoiled[uid]
                    raise UnusableError(fault.reason, f"a slice of the series cannot be used: {fault.sentence}")
                usable[uid] = build_series(headers, self.options.min_slices)
            except UnusableError as error:
                self.reject(str(folder_of(headers)), error, len(headers))
                continue
            copy = UnusableError(Reason.DUPLICATE_SLICE, "an identical slice of the series is used")
            for header in usable[uid].copies:
                self.reject(header.file.name, copy)
        return usable

    def _cases_of(self, files: Sequence[InputFile], selection: Selection, pool: Executor) -> list[Case]:
        scan = self.scan(files, pool)
        usable = self.series(scan)
        places = {uid: Place(folder_of(headers), headers[0].patient) for uid, headers in scan.slices.items()}
        objects, refused = attach_objects(scan.labels, usable)
        volumes, refused_volumes = attach_volumes(scan.volumes, usable, places, objects, selection)
        for label, error in refused + refused_volumes:
            self.reject(label.file.name, error)
        return [
            self._dicom_case(item, (*objects.get(uid, ()), *volumes.get(uid, ())), selection, str(places[uid].folder))
            for uid, item in usable.items()
        ]

    def _dicom_case(
        self,
        series: DicomSeries,
        labels: tuple[Label, ...],
        selection: Selection,
        path: str,
        row: CaseRow | None = None,
    ) -> Case:
        patient = ("patient", row.patient) if row and row.patient else series.slices[0].patient
        key, split = self.pseudonyms.of("series", series.uid), row.split if row else ""
        return Case(series, labels, selection, key, self.pseudonyms.of(*patient), split, path, len(series.slices))

    def _case_of_row(self, row: CaseRow, pool: Executor) -> Iterator[Case]:
        base = self.options.selection
        selection = Selection(row.roi or base.roi, row.label_value or base.label_value)
        volume = row.image.is_file() and is_volume_name(row.image.name)
        key = self.pseudonyms.of("volume", row.image_name)
        if volume:
            self.seen.add(key)
        try:
            labels = self._labels_of_row(row, pool)
            if volume:
                image = open_volume(InputFile(row.image, row.image_name))
                patient = self.pseudonyms.of(*(("patient", row.patient) if row.patient else ("image", row.image_name)))
                yield Case(image, labels or (), selection, key, patient, row.split, row.image_name, 1)
                return
            cases = self._cases_of(walk(row.image, prefix=row.image_name), selection, pool)
            if len(cases) != 1:
                raise UnusableError(
                    Reason.AMBIGUOUS_IMAGE,
                    f"the image of line {row.line} has {len(cases)} usable CT series: expected one",
                )
            series = cases[0].image
            assert isinstance(series, DicomSeries)
            chosen = cases[0].labels if labels is None else labels
            self._supersede(cases[0].labels, chosen)
            yield self._dicom_case(series, chosen, selection, cases[0].path, row)
        except UnusableError as error:
            self.reject(row.image_name, error)
            if self.known and row.image.is_dir():
                headers = batched_map(pool, header_or_error, walk(row.image), 64)
                uids = {header.series for header in headers if isinstance(header, SliceHeader)}
                self.seen.update(self.pseudonyms.of("series", uid) for uid in uids)

    def _supersede(self, found: Iterable[Label], chosen: Sequence[Label]) -> None:
        """Record labels of the image's folder that give way to the one the cases file names."""
        used = {label.file.path.resolve() for label in chosen}
        error = UnusableError(Reason.SUPERSEDED_LABEL, "the cases file names another label")
        for label in found:
            if label.file.path.resolve() not in used:
                self.reject(label.file.name, error)

    def _labels_of_row(self, row: CaseRow, pool: Executor) -> tuple[Label, ...] | None:
        """The label of a cases row; None without one, which leaves the choice to the image's folder."""
        if row.label is None:
            return None
        scan = self.scan(walk(row.label, prefix=row.label_name), pool)
        labels: tuple[Label, ...] = (*scan.labels, *scan.volumes)
        if not labels:
            raise UnusableError(
                Reason.UNREADABLE, f"the label of line {row.line} holds no SEG, RTSTRUCT, NIfTI, NRRD or MHA"
            )
        return labels

    def _write_all(self, cases: Iterable[Case], pool: Executor) -> None:
        chosen: dict[str, Case] = {}
        for case in cases:
            self.seen.add(case.key)
            if case.key in chosen:
                self.reject(
                    case.path, UnusableError(Reason.DUPLICATE_SERIES, "the series is in the store already"), case.files
                )
            else:
                chosen[case.key] = case
        with Progress("series", len(chosen)) as progress, ThreadPoolExecutor(_AT_ONCE) as outer:
            for case, result in zip(
                chosen.values(), outer.map(lambda c: self._write(c, pool), chosen.values()), strict=True
            ):
                progress.advance()
                if isinstance(result, UnusableError):
                    self.reject(case.path, result, case.files)
                    for label in case.labels:
                        self.reject(label.file.name, UnusableError(result.reason, "the case of this label is not used"))
                    continue
                self.writer.add(result.row, result.positions_mm, result.label_voxels)
                for label, error in result.refused_labels:
                    self.reject(label.file.name, error)

    def _write(self, case: Case, pool: Executor) -> Written | UnusableError:
        try:
            return self._read_and_write(case, pool)
        except UnusableError as error:
            return error

    def _read_and_write(self, case: Case, pool: Executor) -> Written:
        turn = Orientation.towards(case.image.grid.axes)
        grid = turn.grid(case.image.grid)
        label, refused = read_mask(case.labels, grid, case.selection, self.options.allow_empty)
        mask = None if label is None else label.mask
        counts = [0] * grid.shape[0] if mask is None else np.count_nonzero(mask, axis=(1, 2)).tolist()
        label_hash = "" if mask is None else hash_slices(mask, pool)

        def row_of(pixel_hash: str, flags: frozenset[str]) -> SeriesRow:
            row = series_row(case.image, grid, (case.key, case.patient, case.split), pixel_hash, flags)
            return row if label is None else with_label(row, label, counts, label_hash)

        known = self.known.get(case.key)
        if known is not None and case.image.sops:
            row = row_of(known.pixel_sha256, frozenset(known.flags))
            if row == replace(known, patient=case.patient, split=case.split):
                self.taken_over.add(case.key)
                return Written(row, grid.positions_mm(), counts, refused)
        stored, flags = case.image.read(pool)
        hu = turn.array(stored)
        self.writer.write_volume(case.key, hu, mask)
        row = row_of(hash_slices(hu, pool), flags | geometry_flags(turn, grid, label))
        self.written(row)
        return Written(row, grid.positions_mm(), counts, refused)


@contextmanager
def discreet() -> Iterator[None]:
    """Silence pydicom, whose warnings and log lines quote values of the header."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def default_workers() -> int:
    """Cores that this process may use, at most eight."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)


def _shown(headers: Iterator[T], total: int) -> Iterator[T]:
    """The same headers, with a progress bar when there are many."""
    return track(headers, "headers", total) if total >= _MANY else headers


def header_or_error(file: InputFile) -> Header | UnusableError:
    """The header of a file, or why the file is of no use."""
    try:
        return read_header(file)
    except UnusableError as error:
        return error


def folder_of(headers: Sequence[SliceHeader]) -> PurePosixPath:
    """The folder that holds all slices, by name."""
    parents = {PurePosixPath(header.file.name).parent for header in headers}
    return PurePosixPath(os.path.commonpath([str(parent) for parent in parents]) or ".")
