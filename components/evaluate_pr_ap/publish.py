"""What the Kubeflow UI shows of an evaluation: scalar metrics, a confusion matrix and the report."""

import json
import shutil
from pathlib import Path
from typing import Any

from hounsfield.data.evaluation import REPORT, read_metrics


def publish(evaluation: str, metrics: Any, confusion: Any, report: Any) -> None:
    """Fill KFP's artifacts `metrics` (Metrics), `confusion` (ClassificationMetrics) and `report` (HTML).

    Metrics live in KFP's metadata; a file at their paths as well lets the local runner's cache find the step complete.
    """
    measured = read_metrics(Path(evaluation))
    pooled = measured["pooled"]
    figures = {**measured["per_patient"], **pooled, "patients": measured["patients"]}
    for name, value in figures.items():
        if isinstance(value, int | float):
            metrics.log_metric(name, float(value))
    positive = "tumour" if measured["task"] == "lung-tumour" else "L3"
    matrix = [[pooled["tn"], pooled["fp"]], [pooled["fn"], pooled["tp"]]]
    confusion.log_confusion_matrix(["background", positive], matrix)
    for artifact, content in ((metrics, figures), (confusion, matrix)):
        Path(artifact.path).write_text(json.dumps(content))
    shutil.copyfile(Path(evaluation) / REPORT, report.path)
