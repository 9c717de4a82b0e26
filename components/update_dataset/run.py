"""Brings a growing dataset up to date with folders, s3:// prefixes or a cases file; only what is new is read."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hounsfield import __version__
from hounsfield.components.data_version.run import version_of
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.dicom_ingest.run import fill, provenance, require_one, require_usable, summary
from hounsfield.components.update_dataset.config import Config
from hounsfield.data.dataset import Dataset
from hounsfield.data.series_store import SeriesRow, SeriesStore, SeriesStoreWriter
from hounsfield.dicom.pseudonyms import load_pseudonyms
from hounsfield.errors import InputError
from hounsfield.remote import is_remote

ATTEMPTS = 5


def run(config: Config, data: list[str], cases: str | None, dataset: str) -> str:
    """Ingest what `dataset` does not have yet from `data` or `cases`, and make it a new version if anything changed.

    A DICOM series with the SOP Instance UIDs, geometry and label mask that the dataset has is taken over unread. Volume
    files have no such identifiers and are read again.

    Returns:
        The number of the latest version, a new one or that of before, as text.

    Raises:
        InputError: nothing usable, another pseudonym key or other settings than those of the dataset, a `dataset` that
            is none or cannot be written, or too many updates at the same time.
    """
    require_one(data, cases)
    target = Dataset(dataset)
    settings = config.model_dump_json(exclude={"workers"})
    made_of = version_of(data, cases or "", f"{__version__} {settings} {load_pseudonyms().of('key')}")
    ingest_config = Ingest(**config.model_dump(exclude={"keep_absent"}))
    for _ in range(ATTEMPTS):
        version = target.latest()
        if version and target.made_of(version) == made_of:
            print(f"nothing changed: the input files of version {version} of dataset {dataset} are as they were")
            return str(version)
        before = target.tables(version) if version else None
        with TemporaryDirectory(prefix="hounsfield-update-") as folder:
            writer = SeriesStoreWriter(Path(folder))
            number = _update(config, ingest_config, data, cases, target, version, before, writer, made_of)
        if number is not None:
            return str(number)
        print("another update came first: once more, on its version", flush=True)
    raise InputError(f"dataset {dataset}: {ATTEMPTS} other updates came first: run one update at a time")


def _update(
    config: Config,
    ingest_config: Ingest,
    data: list[str],
    cases: str | None,
    target: Dataset,
    version: int,
    before: SeriesStore | None,
    writer: SeriesStoreWriter,
    made_of: str,
) -> int | None:
    """The latest version after this update; None when another update has made the next version meanwhile."""
    known = {row.key: row for row in before.series} if before else {}

    def written(row: SeriesRow) -> None:
        target.add_volume(row, writer.volume_file(row.key))

    own = None if is_remote(target.location) else Path(target.location)
    ingest = fill(ingest_config, data, cases, writer, exclude=own, known=known, written=written)
    how = provenance(ingest_config, ingest.pseudonyms)
    absent = set(known) - ingest.seen
    if before is not None:
        _check_settings(target, before, how, config.keep_absent and bool(absent))
        if config.keep_absent:
            writer.take_rows(before, absent)
    require_usable(writer)
    after = {row.key: row for row in writer.series}
    changes = _changes(known, after)
    kept = f"; {len(absent)} that the input does not have stay" if absent and config.keep_absent else ""
    print(f"{summary(writer)}; {len(ingest.taken_over)} known and not read{kept}")
    if before is not None and not changes:
        print(f"nothing changed: dataset {target.location} stays at version {version}", flush=True)
        return version
    writer.finish(**how)
    shutil.rmtree(writer.directory / "volumes")
    if not target.commit(version + 1, writer.directory, made_of):
        return None
    print(f"{changes}: dataset {target.location} is now at version {version + 1}", flush=True)
    return version + 1


def _check_settings(target: Dataset, before: SeriesStore, how: Mapping[str, object], mixed: bool) -> None:
    if before.manifest["key"] != how["key"]:
        raise InputError(
            f"dataset {target.location} was made under another pseudonym key, with which every patient would count as "
            "new: set HOUNSFIELD_PSEUDONYM_KEY to that key, or start a new dataset"
        )
    if mixed and before.manifest["config"] != how["config"]:
        raise InputError(
            f"dataset {target.location} was ingested with {before.manifest['config']}, this update has "
            f"{how['config']}, and the input lacks series of the dataset: use its settings, give all data, or set "
            "keep_absent=false"
        )


def _changes(before: Mapping[str, SeriesRow], after: Mapping[str, SeriesRow]) -> str:
    """What differs, in words; empty when nothing does."""
    both = before.keys() & after.keys()
    relabelled = {key for key in both if before[key].label_sha256 != after[key].label_sha256}
    reread = {key for key in both - relabelled if _voxels(before[key]) != _voxels(after[key])}
    moved = {key for key in both - relabelled - reread if before[key] != after[key]}
    counts = {
        "new": len(after.keys() - before.keys()),
        "relabelled": len(relabelled),
        "with other images": len(reread),
        "of another patient or split": len(moved),
        "taken out": len(before.keys() - after.keys()),
    }
    return ", ".join(f"{count} series {what}" for what, count in counts.items() if count)


def _voxels(row: SeriesRow) -> SeriesRow:
    return replace(row, patient="", split="")
