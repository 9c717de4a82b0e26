"""An evaluation on disk: the figures of one model on one split of a slice set.

manifest.json     kind, version, task, dataset hash, headline figures
metrics.json      every figure (see the README of the component evaluate_pr_ap)
pr_curve.parquet  threshold, log_odds, precision, recall, false_positive_rate; highest threshold first
patients.parquet  one row per patient (segmentation) or per series (slice detection)
report.html       self-contained report
figures/*.png     its figures
"""

import json
from pathlib import Path
from typing import Any

from hounsfield.errors import ArtifactError
from hounsfield.storage import read_manifest

KIND = "evaluation"
VERSION = 1
METRICS = "metrics.json"
CURVE = "pr_curve.parquet"
PATIENTS = "patients.parquet"
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
