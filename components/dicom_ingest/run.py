"""Step 1: CT series and labels to a series store."""

from pathlib import Path

from hounsfield.components.dicom_ingest.config import Config
from hounsfield.data.series_store import SeriesStoreWriter, dataset_hash
from hounsfield.dicom.cases import read_cases
from hounsfield.dicom.ingest import Ingest, Options, default_workers
from hounsfield.dicom.montage import write_page
from hounsfield.dicom.pseudonyms import load_pseudonyms
from hounsfield.dicom.reasons import Reason
from hounsfield.dicom.selection import Selection
from hounsfield.dicom.sources import input_files
from hounsfield.errors import InputError
from hounsfield.storage import atomic_directory


def run(config: Config, data: list[str], cases: str | None, store: Path) -> None:
    """Ingest the folders or s3:// prefixes `data`, or the cases file `cases`, into the series store `store`.

    Raises:
        InputError: nothing usable is found, an input does not exist, or `store` cannot be written.
    """
    if bool(data) == bool(cases):
        raise InputError("give either --data (folders or s3:// prefixes) or --cases (a CSV file)")
    rows = read_cases(Path(cases)) if cases else []
    pseudonyms = load_pseudonyms()
    options = Options(
        Selection(config.roi or None, config.label_value or None),
        config.min_slices,
        config.allow_empty_labels,
        config.workers or default_workers(),
    )
    with atomic_directory(store) as directory:
        writer = SeriesStoreWriter(directory)
        ingest = Ingest(writer, pseudonyms, options)
        if rows:
            ingest.cases(rows)
        else:
            with input_files(data, exclude=store) as files:
                ingest.folders(files)
        if not writer.series:
            raise InputError(_nothing(ingest))
        missing = ingest.first_sentences.get(Reason.NO_MATCHING_ROI)
        if missing and not any(row.label_source != "none" for row in writer.series):
            raise InputError(f"no label has the wanted region (--roi, --label-value): {missing}")
        write_page(writer, ingest.pictures, dataset_hash(writer.series))
        writer.finish(config=config.model_dump(exclude={"workers"}))
    print(_summary(writer, store))


def _nothing(ingest: Ingest) -> str:
    """Why no series is usable: the most telling reasons first."""
    counts = ingest.writer.rejections()
    told = [
        f"{reason} ({count} files: {ingest.first_sentences[reason]})"
        for reason, count in sorted(counts.items(), key=lambda item: (item[0] == "not-dicom", -item[1], item[0]))[:4]
    ]
    return f"no usable CT series: {'; '.join(told)}"


def _summary(writer: SeriesStoreWriter, out: Path) -> str:
    patients = len({row.patient for row in writer.series})
    labelled = sum(row.label_voxels > 0 for row in writer.series)
    counts = writer.rejections()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return (
        f"{len(writer.series)} series of {patients} patients ({labelled} labelled, {len(writer.slices)} slices), "
        f"{sum(counts.values())} files not used{': ' + reasons if reasons else ''}; store: {out}"
    )
