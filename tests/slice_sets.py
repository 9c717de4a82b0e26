"""Small slice sets for the tests of training."""

from pathlib import Path

import numpy as np

from hounsfield.data.arrow import write_slices
from hounsfield.data.slice_set import KIND, SEGMENTATION, VERSION, SliceIndex, write_index
from hounsfield.data.tumour_site import SITES
from hounsfield.storage import atomic_directory, write_manifest
from hounsfield.windowing import MEDIASTINAL, Window

SIDE, PER_PATIENT = 16, 6
DETECTION_SIDE = 32


def make_slices(
    directory: Path, task: str, splits: str = "train train train val test", name: str = "a", side: int = 0
) -> Path:
    """A slice set of bright squares on noise, one patient per split and five folds."""
    random = np.random.default_rng(4)
    side = side or (SIDE if task == SEGMENTATION else DETECTION_SIDE)
    window = MEDIASTINAL if task == SEGMENTATION else Window(-200, 1500, "minmax", side)
    index: list[SliceIndex] = []
    images, masks = [], []
    for number, split in enumerate(splits.split()):
        for position in range(PER_PATIENT):
            mask = np.zeros((side, side), np.uint8)
            if position in (2, 3):
                row, column = random.integers(0, side - 5, size=2)
                mask[row : row + 5, column : column + 5] = 1
            image = random.random((side, side)) * 0.4 + 0.5 * mask
            images.append((image * 255).astype(np.uint8) if window.bits else image.astype(np.float32))
            masks.append(mask)
            site = SITES[number % 2] if task == SEGMENTATION else ""
            pixels = int(mask.sum())
            index.append(
                SliceIndex(
                    f"p{number}", f"s{number}", position, 5.0 * position, 5, 1, 1, split, number % 5, pixels, site
                )
            )
    columns = {"image": np.stack(images)} | ({"mask": np.stack(masks)} if task == SEGMENTATION else {})
    with atomic_directory(directory) as partial:
        write_slices(partial / "images.arrow", columns)
        write_index(partial, index)
        write_manifest(
            partial, KIND, VERSION, task=task, window=window.to_dict(), size=[side, side], dataset_hash="d" * 64,
            hash=name, split={"seed": 0, "val": 0.2, "test": 0.2},
        )  # fmt: skip
    return directory
