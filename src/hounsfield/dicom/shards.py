"""Batches of series that can be ingested apart from one another, with the same result as together.

The files of a series, labels and the series that they refer to or lie beside, and rows of a cases file with the same
image belong together, and are never divided.

    {"by": "files", "shards": [["KEY", ...], ...]}   files by the keyed hash of their names
    {"by": "lines", "shards": [[2, 3], ...]}         rows by their line in the cases file
"""

import json
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hounsfield.dicom.cases import CaseRow
from hounsfield.dicom.headers import InputFile, LabelHeader, SliceHeader, VolumeFile
from hounsfield.dicom.ingest import discreet, folder_of, header_or_error
from hounsfield.dicom.labels import Place, case_folder
from hounsfield.dicom.parallel import batched_map
from hounsfield.dicom.pseudonyms import Pseudonyms
from hounsfield.dicom.sources import walk
from hounsfield.errors import ArtifactError
from hounsfield.progress import track

FILES, LINES = "files", "lines"


class Groups:
    """Items that belong together, directly or through others; a union-find forest."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def root(self, item: Hashable) -> Hashable:
        """One item that stands for all those that `item` belongs to."""
        self._parent.setdefault(item, item)
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, item: Hashable, others: Iterable[Hashable]) -> None:
        """Say that `item` belongs together with `others`."""
        for other in others:
            self._parent[self.root(other)] = self.root(item)


@dataclass(frozen=True)
class Piece:
    """A file or row, what it belongs to, and the series it brings in."""

    name: str | int
    group: Hashable
    series: frozenset[Hashable]


def divide(pieces: Sequence[Piece], groups: Groups, most: int) -> list[list[str | int]]:
    """Shards of at most `most` series, each at least one group of pieces, in the order of the pieces."""
    members: dict[Hashable, list[Piece]] = {}
    for piece in pieces:
        members.setdefault(groups.root(piece.group), []).append(piece)
    shards: list[list[str | int]] = [[]]
    held = 0
    for group in members.values():
        weight = len(frozenset[Hashable]().union(*(piece.series for piece in group)))
        if held and held + weight > most:
            shards.append([])
            held = 0
        shards[-1] += [piece.name for piece in group]
        held += weight
    return shards


def of_files(files: Sequence[InputFile], pseudonyms: Pseudonyms, most: int, workers: int) -> list[list[str | int]]:
    """Shards of files on this machine, whose headers are read."""
    groups = Groups()
    with discreet(), ThreadPoolExecutor(workers) as pool:
        looked = batched_map(pool, header_or_error, files, 64)
        headers = list(track(looked, "headers", len(files)))
    slices: dict[str, list[SliceHeader]] = {}
    for header in headers:
        if isinstance(header, SliceHeader):
            slices.setdefault(header.series, []).append(header)
    frames: dict[str, set[str]] = {}
    for uid, members in slices.items():
        for frame in {header.frame_of_reference for header in members}:
            frames.setdefault(frame, set()).add(uid)
    places = {uid: Place(folder_of(members), members[0].patient) for uid, members in slices.items()}
    pieces = []
    for file, header in zip(files, headers, strict=True):
        own: set[str] = set()
        if isinstance(header, SliceHeader):
            own = {header.series}
        elif isinstance(header, LabelHeader):
            unnamed = frames.get(header.frame_of_reference, set()) if header.frame_of_reference else set()
            groups.join(file.name, [("series", uid) for uid in header.series or unnamed])
        elif isinstance(header, VolumeFile):
            groups.join(file.name, [("series", uid) for uid in case_folder(header, places)])
        elif header.series is not None:
            own = {header.series}
        groups.join(file.name, [("series", uid) for uid in own])
        pieces.append(Piece(pseudonyms.of("path", file.name), file.name, frozenset(own)))
    return divide(pieces, groups, most)


def of_names(names: Sequence[str], pseudonyms: Pseudonyms, most: int) -> list[list[str | int]]:
    """Shards of remote files, of which only the names are known.

    All that lies in one folder directly below the prefix belongs together and counts as one series.
    """
    groups, pieces = Groups(), []
    for name in names:
        folder = PurePosixPath(name).parts[:2]
        group = folder if len(PurePosixPath(name).parts) > 2 else folder[:1]
        pieces.append(Piece(pseudonyms.of("path", name), group, frozenset({group})))
    return divide(pieces, groups, most)


def of_rows(rows: Sequence[CaseRow], most: int) -> list[list[str | int]]:
    """Shards of the rows of a cases file; the headers of images on this machine are read."""
    groups, pieces = Groups(), []
    for row in rows:
        series: set[Hashable] = {row.image_name}
        if row.image.is_dir():
            with discreet():
                looked = [header_or_error(file) for file in walk(row.image, prefix=row.image_name)]
            series |= {("series", header.series) for header in looked if isinstance(header, SliceHeader)}
        groups.join(("line", row.line), series)
        pieces.append(Piece(row.line, ("line", row.line), frozenset({row.image_name})))
    return divide(pieces, groups, most)


def read_shard(plan: Path, number: int, by: str) -> frozenset[Any]:
    """What belongs to a shard: keys of files, or lines.

    Raises:
        ArtifactError: `plan` is no plan by that, or has no such shard.
    """
    try:
        content: dict[str, Any] = json.loads(Path(plan).read_text())
        shards, came = content["shards"], content["by"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{plan} is not a plan of an ingest ({type(error).__name__}): plan again") from error
    if came != by:
        raise ArtifactError(f"{plan} divides {came}, the input has {by}: plan again with this input")
    if not 0 <= number < len(shards):
        raise ArtifactError(f"{plan} has no shard {number}: it has {len(shards)}, the first is 0")
    return frozenset(shards[number])
