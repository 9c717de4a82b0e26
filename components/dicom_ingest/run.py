"""Step 1: CT series and labels to a series store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.data.series_store import SeriesRow, SeriesStoreWriter
from hounsfield.dicom.ingest import Ingest, Options, default_workers
from hounsfield.dicom.montage import write_page
from hounsfield.dicom.pseudonyms import Pseudonyms, load_pseudonyms
from hounsfield.dicom.reasons import Reason
from hounsfield.dicom.selection import Selection
from hounsfield.dicom.shards import read_shard
from hounsfield.dicom.sources import case_rows, input_files
from hounsfield.errors import InputError
from hounsfield.storage import atomic_directory


def run(
    config: Config, data: list[str], cases: str | None, store: Path, plan: Path | None = None, shard: str = ""
) -> None:
    """Ingest the folders or s3:// prefixes `data`, or the cases file `cases`, into the series store `store`.

    With the `plan` of plan_ingest and the number of a `shard`, only what belongs to the shard: a store without a page,
    to be merged with the others, and possibly without a series.

    Raises:
        ArtifactError: `plan` is none, or has no such shard.
        InputError: nothing usable is found, an input does not exist, or `store` cannot be written.
    """
    with atomic_directory(store) as directory:
        writer = SeriesStoreWriter(directory)
        ingest = fill(config, data, cases, writer, exclude=store, part=(plan, int(shard)) if plan and shard else None)
        if not shard:
            require_usable(writer)
            write_page(writer)
        writer.finish(**provenance(config, ingest.pseudonyms))
    print(f"{summary(writer)}; store: {store}")


def fill(
    config: Config,
    data: list[str],
    cases: str | None,
    writer: SeriesStoreWriter,
    exclude: Path | None = None,
    part: tuple[Path, int] | None = None,
    known: Mapping[str, SeriesRow] | None = None,
    written: Callable[[SeriesRow], None] = lambda row: None,
) -> Ingest:
    """Ingest `data` or `cases` into `writer`; `known` and `written` as `hounsfield.dicom.ingest.Ingest` has them.

    `part` is a plan and the number of the only shard to ingest.

    Raises:
        ArtifactError: there is no such plan or shard.
        InputError: both or none are given, or an input does not exist.
    """
    require_one(data, cases)
    options = Options(
        Selection(config.roi or None, config.label_value or None),
        config.min_slices,
        config.allow_empty_labels,
        config.workers or default_workers(),
    )
    ingest = Ingest(writer, load_pseudonyms(), options, known, written)
    chosen = None if part is None else read_shard(*part, by="lines" if cases else "files")
    if cases:
        with case_rows(cases, chosen) as rows:
            ingest.cases(rows)
    else:
        wanted = None if chosen is None else lambda name: ingest.pseudonyms.of("path", name) in chosen
        with input_files(data, exclude, wanted) as files:
            ingest.folders(files)
    return ingest


def require_one(data: list[str], cases: str | None) -> None:
    """Check that either folders or a cases file is given.

    Raises:
        InputError: both or none.
    """
    if bool(data) == bool(cases):
        raise InputError("give either --data (folders or s3:// prefixes) or --cases (a CSV file)")


def require_usable(writer: SeriesStoreWriter) -> None:
    """Check that the store has a series, and a label when labels were given.

    Raises:
        InputError: it has none, with the reasons.
    """
    if not writer.series:
        raise InputError(_nothing(writer))
    missing = next((row.sentence for row in writer.rejected if row.reason == Reason.NO_MATCHING_ROI), "")
    if missing and not any(row.label_source != "none" for row in writer.series):
        raise InputError(f"no label has the wanted region (--roi, --label-value): {missing}")


def provenance(config: Config, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """How a store was made, for its manifest: equal stores can be joined."""
    return {"config": config.model_dump(include=set(Config.model_fields) - {"workers"}), "key": pseudonyms.of("key")}


def _nothing(writer: SeriesStoreWriter) -> str:
    """Why no series is usable: the most telling reasons first."""
    counts = writer.rejections()
    first = {row.reason: row.sentence for row in reversed(writer.rejected)}
    told = [
        f"{reason} ({count} files: {first[reason]})"
        for reason, count in sorted(counts.items(), key=lambda item: (item[0] == "not-dicom", -item[1], item[0]))[:4]
    ]
    return f"no usable CT series: {'; '.join(told)}"


def summary(writer: SeriesStoreWriter) -> str:
    """Counts of what is in the store and of what is not, and why not."""
    patients = len({row.patient for row in writer.series})
    labelled = sum(row.label_voxels > 0 for row in writer.series)
    counts = writer.rejections()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return (
        f"{len(writer.series)} series of {patients} patients ({labelled} labelled, {len(writer.slices)} slices), "
        f"{sum(counts.values())} files not used{': ' + reasons if reasons else ''}"
    )
