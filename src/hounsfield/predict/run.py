"""Every series of an input to a folder of results, one after the other; what is done is not done again."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hounsfield.dicom.headers import InputFile
from hounsfield.dicom.ingest import default_workers
from hounsfield.dicom.reasons import UnusableError
from hounsfield.errors import ArtifactError, HounsfieldError, InputError
from hounsfield.predict import results
from hounsfield.predict.model import USE, Predictor
from hounsfield.predict.objects import ObjectError
from hounsfield.predict.region import CHECKED, NOT_CHECKED, WRONG_REGION, WrongRegionError, check_region
from hounsfield.predict.results import UnpredictableError
from hounsfield.predict.series import Candidate, Found, Refusal, find
from hounsfield.progress import Progress
from hounsfield.storage import atomic_directory, read_manifest, sha256_bytes, write_json, write_manifest
from hounsfield.training.failures import is_out_of_memory

KIND = "prediction"
VERSION = 1
RESULT, RESULTS = "result.json", "results.json"
PREDICTED, DONE, REFUSED, FAILED = "predicted", "done", "refused", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one series; `figures` are those of its `result.json` in short."""

    series: str
    status: str
    reason: str = ""
    sentence: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def predict_files(
    task: str,
    files: Sequence[InputFile],
    predictor: Predictor,
    out: Path,
    min_slices: int,
    batch_size: int,
    any_region: bool = False,
) -> list[Outcome]:
    """Predict every CT series among `files` into `out/KEY` and write `out/results.json`.

    A series whose result is there already, of the same images, model and code, is left alone.

    Args:
        any_region: predict series that do not show the region of `task` as well.

    Raises:
        InputError: `out` cannot be written, or no series was or had been predicted.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    found = find(files, task, min_slices, default_workers())
    outcomes = [_refused(item) for item in found.refused]
    total = sum(item.row().slices for item in found.candidates)
    with Progress("slices", total) as progress, ThreadPoolExecutor(default_workers()) as pool:
        for candidate in found.candidates:
            end = progress.done + candidate.row().slices
            outcomes.append(_one(task, candidate, predictor, out, batch_size, any_region, progress, pool))
            if progress.done < end:
                progress.advance(end - progress.done)
    outcomes.sort(key=lambda item: item.series)
    _write_table(out, task, predictor, outcomes, found)
    if not any(item.status in (PREDICTED, DONE) for item in outcomes):
        raise InputError(_nothing(outcomes, found))
    return outcomes


def _one(
    task: str,
    candidate: Candidate,
    predictor: Predictor,
    out: Path,
    batch_size: int,
    any_region: bool,
    progress: Progress,
    pool: Executor,
) -> Outcome:
    target = out / candidate.key
    try:
        identity = _identity(task, candidate, predictor)
        earlier = _earlier(target, identity)
        if earlier is not None and _suffices(earlier, predictor, any_region):
            return Outcome(candidate.key, DONE, figures=short(earlier))
        with atomic_directory(target) as directory:
            volume = candidate.read(pool)
            if not any_region:
                check_region(task, volume.hu, volume.row.spacing)
            scores = predictor.scores(volume.hu, batch_size, progress.advance)
            write = results.tumour if task == "lung-tumour" else results.l3
            figures = write(candidate, volume, scores.log_odds, predictor, directory) | {"computed": scores.computed}
            figures["region"] = NOT_CHECKED if any_region else CHECKED
            described = results.described(task, volume.row, predictor, figures)
            write_json(directory / RESULT, described)
            write_manifest(directory, KIND, VERSION, task=task, identity=identity)
    except UnusableError as error:
        return Outcome(candidate.key, REFUSED, str(error.reason), error.sentence)
    except WrongRegionError as error:
        return Outcome(candidate.key, REFUSED, WRONG_REGION, str(error))
    except UnpredictableError as error:
        return Outcome(candidate.key, FAILED, error.reason, error.sentence)
    except ObjectError as error:
        return Outcome(candidate.key, FAILED, "dicom-headers", str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Outcome(
            candidate.key, FAILED, "out-of-memory", "the memory did not suffice for this series: lower --batch-size"
        )
    except HounsfieldError as error:
        return Outcome(candidate.key, FAILED, "not-written", str(error))
    except OSError as error:
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error
    return Outcome(candidate.key, PREDICTED, figures=short(described))


def short(described: dict[str, Any]) -> dict[str, Any]:
    """The figures of a `result.json` that stand in the table of all series."""
    if described["task"] == "lung-tumour":
        return dict(described["total"])
    figures = {
        name: described[name] for name in ("found", "slice", "instance_number", "position_mm") if name in described
    }
    others = len(described.get("other_places", ()))
    return figures | ({"other_places": others} if others else {})


def _identity(task: str, candidate: Candidate, predictor: Predictor) -> str:
    """Hash of what a result is made of: images by their SOP Instance UIDs and files' sizes, model and code."""
    made_of = [task, asdict(candidate.row()), candidate.sizes(), predictor.provenance()]
    return sha256_bytes(json.dumps(made_of, sort_keys=True).encode())


def _earlier(target: Path, identity: str) -> dict[str, Any] | None:
    """The complete result of an earlier call for the same `identity`, if there is one."""
    try:
        if read_manifest(target, KIND, VERSION).get("identity") != identity:
            return None
        described: dict[str, Any] = json.loads((target / RESULT).read_text())
    except (ArtifactError, OSError, ValueError):
        return None
    return described


def _suffices(earlier: dict[str, Any], predictor: Predictor, any_region: bool) -> bool:
    """Whether an earlier result was made with the checks and the precision that are asked for now."""
    exact = predictor.precision == "bf16" or str(earlier.get("computed", "")).startswith("fp32")
    return exact and (any_region or earlier.get("region") == CHECKED)


def _refused(item: Refusal) -> Outcome:
    return Outcome(item.key, REFUSED, item.reason, item.sentence)


def _write_table(out: Path, task: str, predictor: Predictor, outcomes: list[Outcome], found: Found) -> None:
    """Write `results.json` under a temporary name and rename it."""
    table = {
        "task": task,
        "use": USE,
        "provenance": predictor.provenance(),
        "series": [asdict(item) for item in outcomes],
        "files_not_used": not_used(found),
    }
    partial = out / f".{RESULTS}.partial-{os.getpid()}"
    try:
        write_json(partial, table)
        partial.replace(out / RESULTS)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write output {out}: {error.strerror}: choose a writable --out") from error


def not_used(found: Found) -> dict[str, dict[str, Any]]:
    """Files that belong to no series, by reason: their number and the sentence of the first; label objects too."""
    counts: Counter[str] = Counter()
    sentences: dict[str, str] = {}
    for row in sorted(found.rejected, key=lambda row: (row.reason, row.path_key)):
        counts[row.reason] += row.files
        sentences.setdefault(row.reason, row.sentence)
    if found.labels:
        counts["label"] = found.labels
        sentences["label"] = "labels are not needed for a prediction"
    return {reason: {"files": counts[reason], "sentence": sentences[reason]} for reason in sorted(counts)}


def _nothing(outcomes: Sequence[Outcome], found: Found) -> str:
    """Why no series was predicted."""
    series = Counter(item.reason for item in outcomes)
    sentences = {item.reason: item.sentence for item in outcomes}
    told = [f"{reason} ({count} series: {sentences[reason]})" for reason, count in sorted(series.items())]
    told += [f"{name} ({item['files']} files: {item['sentence']})" for name, item in not_used(found).items()]
    return f"no series was predicted: {'; '.join(told[:4])}"
