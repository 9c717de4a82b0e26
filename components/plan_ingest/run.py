"""Divides an ingest into shards of a bounded number of series, by looking at headers."""

from pathlib import Path

from hounsfield.components.plan_ingest.config import Config
from hounsfield.storage import write_json


def run(config: Config, data: list[str], cases: str | None, plan: Path) -> list[dict[str, str]]:
    """Write which files of `data`, or rows of `cases`, belong to which shard, without a name, into the file `plan`.

    Returns:
        An item for each shard, with its number as `shard`; an empty one for a single shard with everything.

    Raises:
        InputError: both or none are given, or an input does not exist.
    """
    if config.series_per_shard == 0:
        write_json(Path(plan), {"by": "", "shards": []})
        print("one shard with everything", flush=True)
        return [{"shard": ""}]

    from hounsfield.components.dicom_ingest.run import require_one
    from hounsfield.dicom import shards
    from hounsfield.dicom.ingest import default_workers
    from hounsfield.dicom.pseudonyms import load_pseudonyms
    from hounsfield.dicom.sources import listed_rows, local_files, remote_names

    require_one(data, cases)
    most = config.series_per_shard
    if cases:
        by, divided = shards.LINES, shards.of_rows(listed_rows(cases), most)
    else:
        pseudonyms = load_pseudonyms()
        files, names = local_files(data), remote_names(data)
        here = shards.of_files(files, pseudonyms, most, default_workers()) if files else []
        by, divided = shards.FILES, here + (shards.of_names(names, pseudonyms, most) if names else [])
    write_json(Path(plan), {"by": by, "shards": divided})
    print(f"{len(divided)} shards of at most {most} series, {sum(map(len, divided))} {by}", flush=True)
    return [{"shard": str(number) if len(divided) > 1 else ""} for number in range(len(divided))]
