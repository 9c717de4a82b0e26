"""The figures of both models on the same test patients, patient by patient, as the gate resamples them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hounsfield.components.compare_models.config import Config
from hounsfield.data.evaluation import PATIENTS, read_metrics, read_scores
from hounsfield.data.series_store import SeriesStore
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.data.splits import TEST
from hounsfield.errors import ArtifactError
from hounsfield.evaluation.bootstrap import BINS, Floats, MeanFigure, PooledPrecision, coarse
from hounsfield.evaluation.gate import Measure
from hounsfield.evaluation.intervals import spacing_group
from hounsfield.evaluation.prediction import rows_by


@dataclass(frozen=True)
class Trial:
    """What the gate decides by. Patients are in the order of their keys everywhere."""

    measures: list[Measure]
    carrying: list[bool]
    """Whether a patient has a tumour or a labelled L3 slice."""
    groups: list[dict[str, str]]
    pairs: dict[str, Floats]
    """What is plotted: a title, and challenger and champion of each patient that has the figure (2, patients)."""
    resolution: float = 0.0
    """How far the average precision from histograms of `BINS` bins is from that of the evaluation, at most."""


def trial(
    config: Config, slices: SliceSet, store: Path | None, evaluations: Sequence[Path]
) -> Trial:  # fmt: skip
    """The figures of challenger and champion, in this order, from their evaluations.

    Raises:
        ArtifactError: an evaluation is not of the test patients, or `store` has other series than `slices`.
    """
    rows = rows_by(slices, "patient", (TEST,))
    patients = list(rows)
    groups = groups_of(slices, rows, store)
    tables = [by_patient(evaluation, patients) for evaluation in evaluations]
    if slices.task != SEGMENTATION:
        return detection_trial(config, tables, groups)
    histograms = [coarse(scores_of(evaluation, patients), BINS) for evaluation in evaluations]
    negatives, positives = (padded([pair[place] for pair in histograms]) for place in range(2))
    precision = PooledPrecision(negatives, positives)
    dice, known = per_patient(tables, "dice")
    resolution = max(
        (
            abs(float(value) - exact)
            for value, exact in zip(precision.of(np.ones((1, len(patients))))[:, 0], pooled(evaluations), strict=True)
            if exact is not None
        ),
        default=0.0,
    )
    own_precision, _ = per_patient(tables, "average_precision")
    return Trial(
        measures=[
            Measure("average_precision", "average precision", precision, config.margin_average_precision, True),
            Measure("dice", "mean Dice per patient", MeanFigure(dice, known), config.margin_dice, True),
        ],
        carrying=[bool(count) for count in known],
        groups=groups,
        pairs={"Dice": dice[:, known > 0], "Average precision": own_precision[:, known > 0]},
        resolution=resolution,
    )


def detection_trial(
    config: Config, tables: Sequence[list[list[dict[str, Any]]]], groups: list[dict[str, str]]
) -> Trial:
    """Slice error and detection rate over the labelled series of the patients."""
    error, labelled = per_patient(tables, "error_mm")
    detected, _ = per_patient(tables, "detected", where="error_mm")
    return Trial(
        measures=[
            Measure("slice_error_mm", "mean slice error", MeanFigure(error, labelled), config.margin_slice_error_mm,
                    higher_is_better=False, unit="mm", digits=2),
            Measure("detection_rate", "detection rate", MeanFigure(detected, labelled), config.margin_detection_rate,
                    higher_is_better=True, rate=True),
        ],
        carrying=[bool(count) for count in labelled],
        groups=groups,
        pairs={"Slice error, mm": error[:, labelled > 0] / labelled[labelled > 0]},
    )  # fmt: skip


def by_patient(evaluation: Path, patients: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The rows of an evaluation's table of each patient.

    Raises:
        ArtifactError: the table cannot be read, or is of other patients.
    """
    file = Path(evaluation) / PATIENTS
    try:
        table = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{file} cannot be read ({error}): evaluate again") from error
    found: dict[str, list[dict[str, Any]]] = {patient: [] for patient in patients}
    if {row["patient"] for row in table} != set(patients):
        raise ArtifactError(
            f"{file} is of {len({row['patient'] for row in table})} patients, expected the {len(patients)} test "
            "patients of the slice set: evaluate on them"
        )
    for row in table:
        found[row["patient"]].append(row)
    return list(found.values())


def per_patient(
    tables: Sequence[list[list[dict[str, Any]]]], name: str, where: str = ""
) -> tuple[Floats, Floats]:  # fmt: skip
    """Sums of a column by model and patient (2, patients), and of how many rows: those where `where` (default: the
    column itself) is known."""
    known = [[[row for row in rows if row[where or name] is not None] for rows in table] for table in tables]
    sums = np.array([[sum(float(row[name] or 0.0) for row in rows) for rows in table] for table in known])
    return sums, np.array([len(rows) for rows in known[0]], dtype=np.float64)


def pooled(evaluations: Sequence[Path]) -> list[float | None]:
    """Average precision as each evaluation gives it."""
    return [read_metrics(evaluation)["pooled"]["average_precision"] for evaluation in evaluations]


def scores_of(evaluation: Path, patients: Sequence[str]) -> Any:
    """Fine histograms (patients, 2, FINE_BINS) uint32 of an evaluation.

    Raises:
        ArtifactError: they cannot be read, or are of other patients.
    """
    found = read_scores(evaluation)
    if found.keys() != set(patients):
        raise ArtifactError(
            f"{evaluation} has scores of {len(found)} patients, expected the {len(patients)} test patients of the "
            "slice set: evaluate on them"
        )
    return np.stack([found[patient] for patient in patients])


def padded(counts: Sequence[Floats]) -> Floats:
    """Both models' (patients, bins) as one (2, patients, bins), empty bins at the end of the shorter one."""
    width = max(item.shape[1] for item in counts)
    return np.stack([np.pad(item, ((0, 0), (0, width - item.shape[1]))) for item in counts])


MAKERS = {"ge": "GE", "siemens": "Siemens", "philips": "Philips", "canon": "Canon", "toshiba": "Canon"}
"""By the first word of DICOM's Manufacturer; Toshiba's scanners are Canon's since 2018."""


def maker(written: str) -> str:
    """The manufacturer, whatever its spelling: scanners write SIEMENS, Siemens and Siemens Healthineers."""
    words = written.split()
    return MAKERS.get(words[0].casefold(), " ".join(words).upper()) if words else ""


def groups_of(slices: SliceSet, rows: dict[str, list[int]], store: Path | None) -> list[dict[str, str]]:
    """The groups of each patient by kind, empty where unknown. Without a store no manufacturer is known, and
    the distance between the slices stands for their thickness, as it does where DICOM gives none.

    Raises:
        ArtifactError: `store` is not complete or lacks a series.
    """
    known = {} if store is None else {row.key: row for row in SeriesStore(store).series}
    found = []
    for own in rows.values():
        items = {slices.index[row].series: slices.index[row] for row in own}
        if store is not None and not items.keys() <= known.keys():
            raise ArtifactError(f"{store} lacks series of the slice set: give the store that it was made from")
        thickness = [
            (known[key].slice_thickness if key in known else None) or item.spacing_slice for key, item in items.items()
        ]
        makers = {maker(known[key].manufacturer) for key in items if key in known} - {""}
        found.append(
            {
                **({"tumour site": slices.index[own[0]].subgroup} if slices.task == SEGMENTATION else {}),
                "slice thickness": spacing_group(float(np.median(thickness))),
                "manufacturer": makers.pop() if len(makers) == 1 else "several" if makers else "",
            }
        )
    return found
