"""Stacks of equally sized slices in uncompressed Arrow IPC files that are read by memory map, without a copy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hounsfield.errors import ArtifactError

Array = npt.NDArray[Any]


class SliceWriter:
    """Appends blocks of slices to an Arrow file; a context manager.

    `columns` maps a name to (dtype, (rows, columns)).
    """

    def __init__(self, path: Path, columns: Mapping[str, tuple[npt.DTypeLike, tuple[int, int]]]) -> None:
        self._shapes = {name: shape for name, (_, shape) in columns.items()}
        self._schema = pa.schema(
            [
                (name, pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), rows * cols))
                for name, (dtype, (rows, cols)) in columns.items()
            ]
        )
        self._writer = pa.ipc.new_file(str(path), self._schema)

    def __enter__(self) -> "SliceWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def append(self, columns: Mapping[str, Array]) -> None:
        """Write one block: arrays of shape (slices, rows, columns), equally many slices each."""
        arrays = []
        for item in self._schema:
            values = np.ascontiguousarray(columns[item.name]).reshape(-1)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values, item.type.value_type), type=item.type))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))


def write_slices(path: Path, columns: Mapping[str, Array]) -> None:
    """Write arrays of shape (slices, rows, columns) as one block."""
    spec = {name: (array.dtype, (array.shape[1], array.shape[2])) for name, array in columns.items()}
    with SliceWriter(path, spec) as writer:
        writer.append(columns)


class ArrowSlices:
    """Memory-mapped slices of `shape` (rows, columns).

    Raises:
        ArtifactError: the file is missing, incomplete or of another shape.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._shape = shape
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [self._file.get_batch(i) for i in range(self._file.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{path} cannot be read ({error}): run the step that made it again") from error
        for item in self._file.schema:
            if item.type.list_size != shape[0] * shape[1]:
                raise ArtifactError(f"{path}: slices of {item.type.list_size} pixels, expected {shape[0]}x{shape[1]}")
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])

    @property
    def names(self) -> list[str]:
        return list(self._file.schema.names)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def slice(self, name: str, index: int) -> Array:
        """One slice (rows, columns) as a read-only view of the file."""
        block = int(np.searchsorted(self._starts, index, side="right")) - 1
        view: Array = self._view(name, block)[index - int(self._starts[block])]
        return view

    def column(self, name: str) -> Array:
        """All slices (slices, rows, columns); a view when the file has one block, else a copy."""
        views = [self._view(name, i) for i in range(len(self._batches))]
        return views[0] if len(views) == 1 else np.concatenate(views)

    def _view(self, name: str, block: int) -> Array:
        values = self._batches[block].column(name).flatten().to_numpy(zero_copy_only=True)
        view: Array = values.reshape(-1, *self._shape)
        return view
