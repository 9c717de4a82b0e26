"""The slice set: windowed 2-D images with their labels, ready to be mapped into memory by training.

manifest.json   kind, version, task, window, hash of the store and of this set, counts per split
index.parquet   one row per slice (`SliceIndex`), in the order of the images
images.arrow    column `image`: uint8 0..255 or float32 0..1, and for segmentation `mask` uint8 0/1
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hounsfield.data.arrow import ArrowSlices
from hounsfield.data.splits import held_out
from hounsfield.errors import ArtifactError, InputError
from hounsfield.storage import read_manifest
from hounsfield.windowing import Window

KIND = "slice-set"
VERSION = 2
SEGMENTATION, DETECTION = "lung-tumour", "l3-slice"
IMAGES = "images.arrow"
TASKS = (SEGMENTATION, DETECTION)


@dataclass(frozen=True)
class SliceIndex:
    """One image. Lengths in mm after resizing; `slice` is the index in the series' volume."""

    patient: str
    series: str
    slice: int
    position_mm: float
    spacing_slice: float
    spacing_row: float
    spacing_column: float
    split: str
    fold: int
    label_pixels: int
    subgroup: str = ""
    """The patient's tumour site (`hounsfield.data.tumour_site`): `chest-wall`, `intrapulmonary` or empty."""

    @property
    def positive(self) -> bool:
        return self.label_pixels > 0


SCHEMA = pa.schema(
    [
        ("patient", pa.string()),
        ("series", pa.string()),
        ("slice", pa.int32()),
        ("position_mm", pa.float64()),
        ("spacing_slice", pa.float64()),
        ("spacing_row", pa.float64()),
        ("spacing_column", pa.float64()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("label_pixels", pa.int64()),
        ("subgroup", pa.string()),
    ]
)


def write_index(directory: Path, index: Sequence[SliceIndex]) -> None:
    """Write index.parquet."""
    table = pa.Table.from_pylist([asdict(row) for row in index], schema=SCHEMA)
    pq.write_table(table, directory / "index.parquet", compression="zstd")


class SliceSet:
    """A complete slice set, read by memory map.

    With `fold` (0 or more) that cross-validation fold is the test split, and the other patients are divided into
    training and inner validation; without (-1), the splits are those of the index.

    Raises:
        ArtifactError: `directory` holds none, or one of another version.
        InputError: there is no such fold.
    """

    def __init__(self, directory: Path, fold: int = -1) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory, KIND, VERSION)
        self.window = Window(**self.manifest["window"])
        self.task = str(self.manifest["task"])
        try:
            rows = pq.read_table(self.directory / "index.parquet").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.directory}: index.parquet cannot be read ({error}): convert again") from error
        self.index = [SliceIndex(**row) for row in rows]
        if fold >= 0:
            self._hold_out(fold)
        self.shape: tuple[int, int] = (int(self.manifest["size"][0]), int(self.manifest["size"][1]))

    @cached_property
    def _slices(self) -> ArrowSlices:
        return ArrowSlices(self.directory / IMAGES, self.shape)

    def _hold_out(self, fold: int) -> None:
        folds = {item.patient: item.fold for item in self.index}
        if fold not in folds.values():
            raise InputError(
                f"{self.directory} has no patient in fold {fold}: its folds are {sorted(set(folds.values()))}"
            )
        split = self.manifest["split"]
        splits = held_out(folds, fold, split["seed"], split["val"])
        self.index = [replace(item, split=splits[item.patient]) for item in self.index]

    @property
    def dataset_hash(self) -> str:
        """Hash of the series store this set was made from."""
        return str(self.manifest["dataset_hash"])

    def __len__(self) -> int:
        return len(self.index)

    def image(self, row: int) -> npt.NDArray[Any]:
        """Image `row` (rows, columns), uint8 or float32, a read-only view of the file."""
        return self._slices.slice("image", row)

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Mask `row` (rows, columns) uint8 0/1; segmentation only."""
        return self._slices.slice("mask", row)

    def rows(self, *splits: str) -> list[int]:
        """Rows of the given splits, in order."""
        return [i for i, item in enumerate(self.index) if item.split in splits]

    def gather(self, name: str, rows: Sequence[int], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Copy `image` or `mask` of several rows into one array (len(rows), rows, columns), reusing `out` if given."""
        if out is None:
            out = np.empty((len(rows), *self.shape), dtype=self.window.dtype if name == "image" else np.uint8)
        for target, row in zip(out, rows, strict=True):
            target[...] = self._slices.slice(name, row)
        return out
