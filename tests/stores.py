"""Small series stores for tests."""

from pathlib import Path

import numpy as np

from hounsfield.data.series_store import SeriesRow, SeriesStoreWriter
from hounsfield.storage import atomic_directory, sha256_bytes


def make_store(
    directory: Path,
    patients: list[str],
    shape: tuple[int, int, int] = (8, 24, 20),
    label_slices: tuple[int, int] = (3, 5),
    split: dict[str, str] | None = None,
    labelled: bool = True,
) -> Path:
    """One random series per patient with a square label on slices `label_slices[0]` up to `label_slices[1]` - 1."""
    with atomic_directory(directory) as out:
        writer = SeriesStoreWriter(out)
        for patient in patients:
            seed = int(sha256_bytes(patient.encode())[:8], 16)
            hu = np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)
            mask = np.zeros(shape, np.uint8)
            mask[label_slices[0] : label_slices[1], 4:10, 5:12] = 1
            key = sha256_bytes(b"series", patient.encode())[:16]
            writer.write_volume(key, hu, mask if labelled else None)
            per_slice = [int(n) for n in mask.sum(axis=(1, 2), dtype=int)] if labelled else [0] * shape[0]
            used = [i for i, n in enumerate(per_slice) if n]
            writer.add(
                SeriesRow(
                    key=key,
                    patient=patient,
                    slices=shape[0],
                    rows=shape[1],
                    columns=shape[2],
                    spacing_slice=5.0,
                    spacing_row=0.8,
                    spacing_column=0.7,
                    origin=[0.0, 0.0, 0.0],
                    direction=[0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
                    pixel_sha256=sha256_bytes(hu.tobytes()),
                    sop_sha256=sha256_bytes(patient.encode()),
                    source="dicom",
                    label_source="volume" if labelled else "none",
                    label_sha256=sha256_bytes(mask.tobytes()) if labelled else "",
                    label_voxels=sum(per_slice),
                    label_first=used[0] if used else None,
                    label_last=used[-1] if used else None,
                    split=(split or {}).get(patient, ""),
                ),
                [5.0 * i for i in range(shape[0])],
                per_slice,
            )
        writer.finish(made_by="test")
    return directory
