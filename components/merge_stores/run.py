"""Joins the series stores of the shards of an ingest into the one that an undivided ingest writes."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hounsfield.components.merge_stores.config import Config
from hounsfield.errors import InputError
from hounsfield.storage import atomic_directory

if TYPE_CHECKING:
    from hounsfield.data.series_store import SeriesStore, SeriesStoreWriter


def run(config: Config, stores: Sequence[Path], store: Path) -> None:
    """Merge `stores`, in the order of their shards, into `store`; files are hard links where the disk allows it.

    Of a series in several of them the first is taken, the others are recorded as duplicates.

    Raises:
        ArtifactError: one of them is not complete.
        InputError: none is given, they were made in different ways, or no series is usable.
    """
    if not stores:
        raise InputError("no store to merge: give at least one")
    with atomic_directory(store) as directory:
        if len(stores) == 1:
            shutil.copytree(stores[0], directory, copy_function=link, dirs_exist_ok=True)
            print(f"one store, taken as it is; store: {store}", flush=True)
            return
        from hounsfield.components.dicom_ingest.run import require_usable, summary
        from hounsfield.data.series_store import SeriesStore, SeriesStoreWriter
        from hounsfield.dicom.montage import write_page

        opened = [SeriesStore(path) for path in stores]
        how = {name: made_by(opened, name) for name in ("config", "key")}
        writer = SeriesStoreWriter(directory)
        for shard in opened:
            take(shard, writer)
        require_usable(writer)
        write_page(writer)
        writer.finish(**how)
    print(f"{summary(writer)}, from {len(stores)} shards; store: {store}", flush=True)


def link(source: str, target: str) -> str:
    """Hard link or, where that cannot be, copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def take(shard: "SeriesStore", writer: "SeriesStoreWriter") -> None:
    """Take over rows, rejections and voxels of a store."""
    from hounsfield.data.series_store import Rejection, volume_name
    from hounsfield.dicom.reasons import Reason

    present = {row.key for row in writer.series}
    new = {row.key for row in shard.series} - present
    for row in shard.series:
        if row.key in present:
            sentence = "the series is in the store already"
            writer.reject(Rejection(row.key, str(Reason.DUPLICATE_SERIES), sentence, row.slices))
    writer.take_rows(shard, new)
    writer.rejected += shard.rejected
    for key in new:
        writer.take_volume(key, shard.directory / volume_name(key))


def made_by(stores: Sequence["SeriesStore"], name: str) -> object:
    """What the manifests of all stores say under `name`.

    Raises:
        InputError: they differ.
    """
    first = stores[0].manifest.get(name)
    for other in stores[1:]:
        if other.manifest.get(name) != first:
            raise InputError(
                f"{stores[0].directory} and {other.directory} were made with different settings or pseudonym keys: "
                "ingest all shards with the same"
            )
    return first
