"""An evaluation on disk: the figures of one model on one split of a slice set.

manifest.json     kind, version, task, dataset hash, headline figures
metrics.json      every figure (see the README of the component evaluate_pr_ap)
pr_curve.parquet  threshold, log_odds, precision, recall, false_positive_rate; highest threshold first
patients.parquet  one row per patient (segmentation) or per series (slice detection)
scores.parquet    patient, negatives, positives: pixels or slices of each patient by their score, low scores first
report.html       self-contained report
figures/*.png     its figures
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hounsfield.errors import ArtifactError
from hounsfield.storage import read_manifest

KIND = "evaluation"
VERSION = 2
METRICS = "metrics.json"
CURVE = "pr_curve.parquet"
PATIENTS = "patients.parquet"
SCORES = "scores.parquet"
REPORT = "report.html"
FIGURES = "figures"


def read_metrics(directory: Path) -> dict[str, Any]:
    """Every figure of an evaluation; undefined ones are None.

    Raises:
        ArtifactError: the directory holds no complete evaluation.
    """
    read_manifest(Path(directory), KIND, VERSION)
    try:
        metrics: dict[str, Any] = json.loads((Path(directory) / METRICS).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{directory}/{METRICS} cannot be read ({error}): evaluate again") from error
    return metrics


def write_scores(directory: Path, scores: Mapping[str, npt.NDArray[np.uint32]]) -> None:
    """Write the histograms (2, bins) of the patients, negatives before positives, into an evaluation being made."""
    columns = {
        "patient": pa.array(scores, pa.string()),
        "negatives": pa.array([counts[0] for counts in scores.values()], pa.list_(pa.uint32())),
        "positives": pa.array([counts[1] for counts in scores.values()], pa.list_(pa.uint32())),
    }
    pq.write_table(pa.table(columns), Path(directory) / SCORES, compression="zstd", row_group_size=64)


def read_scores(directory: Path) -> dict[str, npt.NDArray[np.uint32]]:
    """The histograms (2, bins) uint32 of the patients, negatives before positives.

    Raises:
        ArtifactError: there are none, or they cannot be read.
    """
    try:
        table = pq.read_table(Path(directory) / SCORES)
        negatives, positives = (
            table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
            for name in ("negatives", "positives")
        )
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(f"{directory}/{SCORES} cannot be read ({error}): evaluate again") from error
    return dict(zip(table["patient"].to_pylist(), np.stack([negatives, positives], axis=1), strict=True))
