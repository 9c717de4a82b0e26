"""The L3 study in figures: out-of-fold predictions of both arms, their errors, and the paper's Table 2 with ours.

Arms: `control` searches the five hyperparameters, `proposed` the correction design parameters (CDP: over-sampling rate
and class weight) as well. Every patient is tested once in each arm and seed, by the model that never saw it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from hounsfield.data.evaluation import PATIENTS, read_metrics
from hounsfield.data.model_store import read_card, read_history
from hounsfield.data.slice_set import DETECTION
from hounsfield.errors import InputError
from hounsfield.evaluation.decision import regression
from hounsfield.evaluation.metrics import counted, spread_metrics
from hounsfield.experiments.paired import compare
from hounsfield.metrics.counts import Spread, ratio

ARMS = ("control", "proposed")
DESIGN_VARIABLES = (
    "l2",
    "learning_rate",
    "batch_size",
    "gradient_threshold",
    "gradient_threshold_method",
    "oversampling_rate",
    "class_weight",
)
CURVES = ("train_accuracy", "train_loss")
FEW_PATIENTS = 30
CLAIM = "CDP lowers the error"


@dataclass(frozen=True)
class Run:
    """One training of the study with the evaluation of its held-out fold.

    `series` has a dictionary per series of that fold: the fields of `hounsfield.evaluation.detection.SeriesResult`.
    """

    parameters: dict[str, Any]
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    series: list[dict[str, Any]]
    best_epoch: int
    validation_f1: float | None

    @classmethod
    def read(cls, model: Path, evaluation: Path) -> "Run":
        """From a model directory and the evaluation of that model.

        Raises:
            ArtifactError: either is missing or incomplete.
            InputError: the model is of another task, or its run_name is not an arm of the study.
        """
        card, metrics = read_card(model), read_metrics(evaluation)
        arm = card.parameters.get("run_name")
        if card.task != DETECTION or arm not in ARMS:
            raise InputError(
                f"model {model} is of task {card.task} and run_name {arm!r}: the study takes {DETECTION} models named "
                f"{' or '.join(ARMS)}"
            )
        series = pq.read_table(Path(evaluation) / PATIENTS).to_pylist()
        f1 = card.metrics.get("val_f1")
        return cls(card.parameters, read_history(model), metrics, series, card.best_epoch, f1)

    @property
    def arm(self) -> str:
        return str(self.parameters["run_name"])

    @property
    def fold(self) -> int:
        return int(self.parameters["fold"])

    @property
    def seed(self) -> int:
        return int(self.parameters["seed"])

    @property
    def optimistic(self) -> bool:
        """Whether epoch and parameters were chosen by the patients that the figures are of."""
        return bool(self.parameters.get("validation", "val") == "test")


def summarise(runs: Sequence[Run], folds: Mapping[str, int], data: str = "your data") -> dict[str, Any]:
    """Every figure of the study, as the JSON of its summary.json; undefined ones are None.

    Args:
        runs: trainings in any order; arms, folds and seeds may be missing, which the notes then say.
        folds: fold of every patient of the slice set.
        data: what the images are, for the rows of Table 2 ("phantoms").

    Raises:
        InputError: no run, two runs of one arm, fold and seed, or a patient tested twice or outside of its fold.
    """
    check(runs, folds)
    seeds = sorted({run.seed for run in runs})
    arms = {arm: arm_figures([run for run in runs if run.arm == arm], folds, seeds) for arm in ARMS}
    optimistic = any(run.optimistic for run in runs)
    comparison = compare(*(errors_by_seed([run for run in runs if run.arm == arm]) for arm in ARMS))
    comparison |= r2_difference(arms)
    summary: dict[str, Any] = {
        "experiment": "l3-slice-study",
        "data": data,
        "image_size": runs[0].metrics["image_size"],
        "architecture": runs[0].parameters.get("architecture", ""),
        "epochs": runs[0].parameters.get("epochs"),
        "patients": len(folds),
        "folds": sorted(set(folds.values())),
        "seeds": seeds,
        "optimistic": optimistic,
        "arms": arms,
        "comparison": comparison,
        "best_parameters": best_parameters(runs),
        "history": {arm: mean_history([run for run in runs if run.arm == arm]) for arm in ARMS},
        "points": {arm: points([run for run in runs if run.arm == arm]) for arm in ARMS},
    }
    summary["claims"] = [claim(comparison, optimistic)]
    summary["notes"] = notes(summary)
    return summary


def check(runs: Sequence[Run], folds: Mapping[str, int]) -> None:
    """The runs must be those of one cross-validation.

    Raises:
        InputError: they are not.
    """
    if not runs:
        raise InputError("the study has no run: expected a model and its evaluation for every arm, fold and seed")
    seen: set[tuple[str, int, int]] = set()
    for run in runs:
        place = (run.arm, run.fold, run.seed)
        if place in seen:
            raise InputError(f"two runs of arm {run.arm}, fold {run.fold}, seed {run.seed}: expected one of each")
        seen.add(place)
        for row in run.series:
            fold = folds.get(row["patient"])
            if fold != run.fold:
                raise InputError(
                    f"arm {run.arm}, fold {run.fold}, seed {run.seed}: its evaluation has patient {row['patient']}, "
                    f"who is {'not in the slice set' if fold is None else f'in fold {fold}'}: evaluate the fold that "
                    "the model did not see"
                )


def arm_figures(runs: Sequence[Run], folds: Mapping[str, int], seeds: Iterable[int]) -> dict[str, Any]:
    """Figures over the out-of-fold predictions of all seeds together and of each, and what is missing."""
    by_seed = {seed: [run for run in runs if run.seed == seed] for seed in seeds}
    missing = [
        {"seed": seed, "fold": fold}
        for seed, own in by_seed.items()
        for fold in sorted(set(folds.values()) - {run.fold for run in own})
    ]
    each = {str(seed): figures(own) for seed, own in by_seed.items()}
    return {
        **figures(runs),
        "runs": len(runs),
        "missing": missing,
        "optimistic": any(run.optimistic for run in runs),
        "by_seed": each,
        "seed_means": spread_metrics("slice_error", Spread.of(own["slice_error_mean"] for own in each.values())),
    }


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Errors, rates and regression over the labelled series of `runs`, each series once a seed."""
    rows = [row for run in runs for row in run.series if row["true_slice"] is not None]
    line = regression([row["true_slice"] for row in rows], [row["predicted_slice"] for row in rows])
    lengths = {run.metrics["per_patient"]["vertebra_mm"] for run in runs}
    if len(lengths) > 1:
        raise InputError(f"the evaluations count errors from {sorted(lengths)} mm as a vertebra: expected one length")
    vertebra_mm = lengths.pop() if lengths else None
    return {
        "patients": len({row["patient"] for row in rows}),
        "predictions": len(rows),
        **spread_metrics("slice_error", Spread.of(row["error_slices"] for row in rows)),
        **spread_metrics("slice_error_mm", Spread.of(row["error_mm"] for row in rows)),
        "detection_rate": ratio(sum(bool(row["detected"]) for row in rows), len(rows)),
        "vertebra_mm": vertebra_mm,
        "vertebra_error_rate": ratio(sum(row["error_mm"] >= vertebra_mm for row in rows), len(rows)),
        "r2": line.r2,
        "slope": line.slope,
        "intercept": line.intercept,
    }


def points(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The labelled series behind the figures, by seed, fold and series."""
    names = ("patient", "series", "true_slice", "predicted_slice", "error_slices", "error_mm", "detected")
    return [
        {"seed": run.seed, "fold": run.fold} | {name: row[name] for name in names}
        for run in sorted(runs, key=lambda run: (run.seed, run.fold))
        for row in sorted(run.series, key=lambda row: str(row["series"]))
        if row["true_slice"] is not None
    ]


def errors_by_seed(runs: Sequence[Run]) -> dict[int, dict[str, float]]:
    """Slice error of every patient by seed; of a patient with several series their mean."""
    errors: dict[int, dict[str, list[float]]] = {}
    for run in runs:
        own = errors.setdefault(run.seed, {})
        for row in run.series:
            if row["error_slices"] is not None:
                own.setdefault(row["patient"], []).append(row["error_slices"])
    return {seed: {patient: float(np.mean(values)) for patient, values in own.items()} for seed, own in errors.items()}


def r2_difference(arms: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """R2 of proposed minus that of control, over all seeds and for each; None where either is undefined."""

    def difference(control: dict[str, Any], proposed: dict[str, Any]) -> float | None:
        return None if control["r2"] is None or proposed["r2"] is None else proposed["r2"] - control["r2"]

    control, proposed = (arms[arm] for arm in ARMS)
    return {
        "r2_difference": difference(control, proposed),
        "r2_difference_by_seed": {
            seed: difference(control["by_seed"][seed], proposed["by_seed"][seed]) for seed in control["by_seed"]
        },
    }


def mean_history(runs: Sequence[Run]) -> list[dict[str, float | None]]:
    """Training accuracy and loss by epoch: mean and standard deviation (n - 1) over the runs that reached it."""
    values: dict[int, dict[str, list[float]]] = {}
    for run in runs:
        for record in run.history:
            own = values.setdefault(int(record["epoch"]), {name: [] for name in CURVES})
            for name in CURVES:
                own[name].append(record[name])
    rows: list[dict[str, float | None]] = []
    for epoch, own in sorted(values.items()):
        row: dict[str, float | None] = {"epoch": epoch, "runs": len(own[CURVES[0]])}
        for name in CURVES:
            spread = Spread.of(own[name])
            row |= {f"{name}_mean": spread.mean, f"{name}_sd": spread.sd}
        rows.append(row)
    return rows


def best_parameters(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The design variables each run was trained with, its kept epoch, validation F1 and mean error on its fold."""
    return [
        {"arm": run.arm, "seed": run.seed, "fold": run.fold}
        | {name: run.parameters.get(name) for name in DESIGN_VARIABLES}
        | {"epoch": run.best_epoch, "validation_f1": run.validation_f1}
        | {"slice_error_mean": Spread.of(row["error_slices"] for row in run.series).mean}
        for run in sorted(runs, key=lambda run: (ARMS.index(run.arm), run.seed, run.fold))
    ]


def claim(comparison: dict[str, Any], optimistic: bool) -> dict[str, Any]:
    """Whether the paper's claim holds in each seed and over the seeds; None where an arm has no patient."""

    def lower(difference: float | None) -> bool | None:
        return None if difference is None else difference < 0

    by_seed = {seed: lower(own["mean_difference"]) for seed, own in comparison["by_seed"].items()}
    return {
        "claim": CLAIM,
        "holds": lower(comparison["mean_difference"]),
        "by_seed": by_seed,
        "seeds_holding": sum(bool(holds) for holds in by_seed.values()),
        "seeds_judged": sum(holds is not None for holds in by_seed.values()),
        "optimistic": optimistic,
        "detail": sentence(comparison),
    }


def sentence(comparison: dict[str, Any]) -> str:
    """The comparison in words."""
    if comparison["mean_difference"] is None:
        return "No patient was tested in both arms."
    interval, p = comparison["interval"], comparison["wilcoxon_p"]
    words = f"Proposed minus control: {comparison['mean_difference']:+.2f} slices"
    if interval is not None:
        words += f", 95 % bootstrap interval [{interval[0]:+.2f}, {interval[1]:+.2f}]"
    if p is not None:
        words += f", Wilcoxon p {p:.2g}"
    own = comparison
    return (
        f"{words}; {counted(own['patients'], 'patient')}: {own['better']} better, {own['equal']} equal, "
        f"{own['worse']} worse."
    )


def notes(summary: dict[str, Any]) -> list[str]:
    """Sentences on what limits the figures."""
    found = []
    if summary["optimistic"]:
        found.append(
            "Optimistic: epoch and parameters were chosen by the F1 of the patients tested (validation = test), as the "
            "paper did; on new patients expect worse."
        )
    for arm in ARMS:
        own = summary["arms"][arm]
        for place in own["missing"]:
            found.append(
                f"Arm {arm}, seed {place['seed']}: fold {place['fold']} is missing, so its patients were never tested."
            )
        unlabelled = summary["patients"] - own["patients"]
        if not own["missing"] and unlabelled:
            found.append(f"Arm {arm}: {counted(unlabelled, 'patient')} without a labelled slice have no error.")
    found += arms_that_are_not(summary["best_parameters"])
    patients = summary["comparison"]["patients"]
    if patients < FEW_PATIENTS:
        found.append(
            f"Only {counted(patients, 'patient')} in both arms: one can move a mean or a p value noticeably; "
            "trust the interval, not its middle."
        )
    if summary["comparison"]["wilcoxon_p"] is None and patients:
        found.append("The signed-rank test is undefined: no patient's error differs between the arms.")
    return found


def arms_that_are_not(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on control runs that had CDP, and on a proposed arm that never had."""
    with_cdp = [row for row in rows if row["oversampling_rate"] or row["class_weight"] not in (1, None)]
    found = [
        f"Arm control, seed {row['seed']}, fold {row['fold']} was trained with over-sampling "
        f"{row['oversampling_rate']:g} and class weight {row['class_weight']:g}: it is no control."
        for row in with_cdp
        if row["arm"] == "control"
    ]
    proposed = [row for row in rows if row["arm"] == "proposed"]
    if proposed and not any(row in with_cdp for row in proposed):
        found.append("No run of arm proposed has over-sampling or a class weight: both arms were trained alike.")
    return found
