"""Slice set and model to an evaluation: average precision, precision, recall, F1, and figures per patient."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.data.evaluation import CURVE, KIND, METRICS, PATIENTS, REPORT, VERSION, write_scores
from hounsfield.data.model_store import WEIGHTS, ModelCard, read_card, read_patients
from hounsfield.data.slice_set import SEGMENTATION, SliceIndex, SliceSet
from hounsfield.data.splits import SPLITS
from hounsfield.errors import ArtifactError, InputError
from hounsfield.evaluation import card as cards
from hounsfield.evaluation import metrics as figures_of
from hounsfield.evaluation.detection import evaluate_detection
from hounsfield.evaluation.detection_report import write_detection_report
from hounsfield.evaluation.prediction import Predict, Scores
from hounsfield.evaluation.segmentation import evaluate_segmentation
from hounsfield.evaluation.segmentation_report import write_segmentation_report
from hounsfield.inference import Network, load_network
from hounsfield.metrics.histogram import ScoreHistogram
from hounsfield.storage import atomic_directory, sha256_bytes, write_json, write_manifest
from hounsfield.windowing import unstored

CURVE_POINTS = 2000
MODEL_FIELDS = {
    "architecture",
    "architecture_options",
    "parameter_count",
    "best_epoch",
    "training_patients",
    "dataset_hash",
    "slice_set_hash",
    "code_version",
}


def run(config: Config, slices: Path, model: Path, evaluation: Path) -> dict[str, Any]:
    """Evaluate `model` on the patients of one split of `slices`, write `evaluation` and return its metrics.

    Raises:
        ArtifactError: no complete slice set or model, or a model of other images or another held-out fold.
        InputError: there is no such fold, the split has no patient, or the network gives NaN.
    """
    source = SliceSet(slices, config.fold)
    card = read_card(model)
    check_fit(card, source, model)
    check_fold(card, source, config)
    splits = SPLITS if config.split == "all" else (config.split,)
    rows = source.rows(*splits)
    if not rows:
        raise InputError(no_patient(source, config.split, slices))
    predict = predictor(load_network(model))
    threshold = config.threshold or card.threshold
    used = [source.index[row] for row in rows]
    described: dict[str, Any] = {
        "task": source.task,
        "split": config.split,
        "fold": config.fold,
        **counts_of(used),
        "image_size": list(source.shape),
        "threshold": threshold,
        "dataset_hash": source.dataset_hash,
        "slice_set_hash": str(source.manifest["hash"]),
        "model": {**card.model_dump(include=MODEL_FIELDS), **training_of(card), "seen": seen(card, source, model)},
        "model_hash": sha256_bytes((Path(model) / WEIGHTS).read_bytes()),
        "window": source.window.to_dict(),
        "code_version": version("hounsfield"),
    }
    with atomic_directory(evaluation) as directory:
        if source.task == SEGMENTATION:
            pixels = evaluate_segmentation(source, splits, predict, threshold, config.batch_size)
            complete(described, figures_of.segmentation_metrics(pixels))
            write_scores(directory, pixels.scores)
            write_tables(directory, pixels.histogram, with_distance(map(asdict, pixels.patients), used, "patient"))
            text = cards.markdown(card, described, directory)
            write_segmentation_report(directory, described, text, pixels, source, predict, config.shown_cases)
        else:
            found = evaluate_detection(source, splits, predict, threshold, config.batch_size)
            complete(described, figures_of.detection_metrics(found, config.vertebra_mm))
            write_scores(directory, found.scores)
            write_tables(directory, found.histogram, with_distance(map(asdict, found.series), used, "series"))
            text = cards.markdown(card, described, directory)
            write_detection_report(directory, described, text, found, source, config.shown_cases)
        write_json(directory / METRICS, described)
        fields = ("task", "split", "fold", "patients", "dataset_hash", "slice_set_hash", "model_hash", "summary")
        write_manifest(directory, KIND, VERSION, **{name: described[name] for name in fields})
    announce(described, Path(evaluation))
    return described


def check_fit(card: ModelCard, source: SliceSet, model: Path) -> None:
    """The model must have been trained for the task, window and image size of the slice set.

    Raises:
        ArtifactError: it was not.
    """
    if card.task != source.task:
        raise ArtifactError(
            f"model {model} is for {card.task}, the slice set {source.directory} for {source.task}: "
            "choose a model and a slice set of one task"
        )
    window = source.window.to_dict()
    for name, expected, came in (
        ("images of", _size(card.image_size), _size(source.shape)),
        ("the window", figures_of.window_text(card.window), figures_of.window_text(window)),
    ):
        if expected != came:
            raise ArtifactError(
                f"model {model} was trained for {name} {expected}, the slice set {source.directory} has {came}: "
                "run window_convert again with the model's window and size"
            )


def training_of(card: ModelCard) -> dict[str, Any]:
    """What decides which patients the model knows: the fold it held out, and the split that chose its epoch."""
    return {"fold": card.parameters.get("fold", -1), "validation": card.parameters.get("validation", "val")}


def check_fold(card: ModelCard, source: SliceSet, config: Config) -> None:
    """The test patients must be those that the training held out. A model of another slice set knows no fold of this.

    Raises:
        ArtifactError: they are not.
    """
    fold = training_of(card)["fold"]
    if config.split == "test" and fold != config.fold and card.slice_set_hash == source.manifest["hash"]:
        raise ArtifactError(
            f"the model was trained with fold={fold}, the evaluation is of fold={config.fold}: it was fitted to these "
            f"test patients, evaluate with fold={fold}"
        )


def counts_of(items: Sequence[SliceIndex]) -> dict[str, int]:
    """How many patients, series, slices, and slices with a label."""
    return {
        "patients": len({item.patient for item in items}),
        "series": len({item.series for item in items}),
        "slices": len(items),
        "positive_slices": sum(item.positive for item in items),
    }


def seen(card: ModelCard, source: SliceSet, model: Path) -> dict[str, int] | None:
    """What the training saw, to fit the network or to choose the epoch; None where `source` is another slice set.

    Raises:
        ArtifactError: the model does not say.
    """
    if card.slice_set_hash != source.manifest["hash"]:
        return None
    known = read_patients(model)
    return counts_of([item for item in source.index if item.patient in known])


def with_distance(rows: Iterable[dict[str, Any]], items: Sequence[SliceIndex], by: str) -> list[dict[str, Any]]:
    """Rows of the table of patients (or series: `by`) with the median distance of their slices in mm."""
    found: dict[str, list[float]] = {}
    for item in items:
        found.setdefault(getattr(item, by), []).append(item.spacing_slice)
    return [row | {"slice_spacing_mm": float(np.median(found[row[by]]))} for row in rows]


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def no_patient(source: SliceSet, split: str, slices: Path) -> str:
    """The sentence for an empty split."""
    counts = {name: len({item.patient for item in source.index if item.split == name}) for name in SPLITS}
    found = ", ".join(f"{count} {name}" for name, count in counts.items())
    return (
        f"slice set {slices} has no patient in split {split} ({found} of {sum(counts.values())}): add patients, "
        "choose another split seed or test fraction, or name the split in a `split` column of the cases file"
    )


def predictor(network: Network) -> Predict:
    """Log-odds by the network of images as the slice set stores them."""

    def predict(images: npt.NDArray[Any]) -> Scores:
        return np.asarray(network.foreground_logits(unstored(torch.from_numpy(images))).numpy())

    return predict


def complete(described: dict[str, Any], figures: dict[str, Any]) -> None:
    """Add the figures and what limits them."""
    described.update(figures)
    described["summary"] = {**figures["summary"], "patients": described["patients"]}
    described["caveats"] = figures_of.caveats(described)


def write_tables(directory: Path, histogram: ScoreHistogram, patients: Sequence[dict[str, Any]]) -> None:
    """Write the precision-recall curve and the table of patients or series."""
    curve = histogram.curve(CURVE_POINTS)
    names = ("threshold", "log_odds", "precision", "recall", "false_positive_rate")
    pq.write_table(pa.table({name: getattr(curve, name) for name in names}), directory / CURVE, compression="zstd")
    pq.write_table(pa.Table.from_pylist(list(patients)), directory / PATIENTS, compression="zstd")


def announce(described: dict[str, Any], out: Path) -> None:
    """Print the headline figures, one `name=value` a line, and a summary."""
    for name, value in described["summary"].items():
        if isinstance(value, float):
            print(f"{name}={value:.4f}")
    for caveat in described["caveats"]:
        print(f"note: {caveat}")
    patients = figures_of.counted(described["patients"], "patient")
    print(f"evaluated {patients} of split {described['split']}: {out / REPORT}", flush=True)
