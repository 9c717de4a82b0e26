"""The model card of a registered version, as Markdown: its description in MLflow and an artifact of its run.

Sections follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.stats import DegenerateDataWarning, bootstrap

from hounsfield.data import evaluation as evaluations
from hounsfield.data.comparison import Comparison
from hounsfield.data.model_store import ModelCard
from hounsfield.data.slice_set import SEGMENTATION

MODEL_CARD = "model_card.md"
DESCRIPTION_LENGTH = 5000
"""Characters that MLflow's column for a version's description holds in PostgreSQL."""
SHORTENED = f"\n\n*Shortened: the complete card is `{MODEL_CARD}` among the artifacts of the run.*"
RESAMPLES, BATCH, SEED = 10_000, 500, 0
RESEARCH = "**Research use only**, not a medical device: not for diagnosis, treatment or any decision about a patient."
PURPOSE = {
    "lung-tumour": "Segmentation of lung tumours on axial chest CT, slice by slice, for research on measurements. "
    "Output: tumour probabilities (N, H, W), float32; a pixel counts as tumour from {threshold:g}.",
    "l3-slice": "Detection of the slices at the third lumbar vertebra on axial abdominal CT, for research on body "
    "composition. Output: L3 probabilities (N,), float32; a slice counts as L3 from {threshold:g}.",
}
LIMITS = {
    "lung-tumour": (
        "It sees one slice at a time, and knows only tumours as they are labelled in its training data; other findings "
        "may be marked, and small or faint tumours missed.",
    ),
    "l3-slice": (
        "It sees one slice at a time, and expects a series that reaches L3; anomalies of the spine, such as a sixth "
        "lumbar vertebra, shift the level.",
    ),
}
EVERYWHERE = (
    "Scanners, protocols, contrast phases, ages and diseases that the test patients do not cover are untested.",
    "CT in Hounsfield units only: no MR, no windowed images, no cone-beam CT.",
)
PAPERS = {
    "unet": 'Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI',
    "segnet": 'Badrinarayanan et al. 2017, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image '
    'Segmentation", IEEE TPAMI 39',
    "enet": 'Paszke et al. 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", '
    "arXiv:1606.02147",
    "resnet": 'He et al. 2016, "Deep Residual Learning for Image Recognition", CVPR',
    "focal": 'Lin et al. 2017, "Focal Loss for Dense Object Detection", ICCV',
    "dice": 'Milletari et al. 2016, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image '
    'Segmentation", 3DV',
}
LOSSES = {"fl": ("focal",), "cl": ("focal", "dice"), "dice": ("dice",)}
Interval = tuple[float, float]
Terms = Callable[[dict[str, Any]], tuple[float, float] | None]


def markdown(
    card: ModelCard,
    measured: dict[str, Any],
    tested_on: str,
    commit: str,
    evaluation: Path,
    compared: Comparison | None,
) -> str:
    """The complete model card.

    Args:
        measured: `metrics.json` of the evaluation; what it lacks is left out.
        tested_on: dataset hash of the evaluation, or empty.
        commit: git commit of the code that registers, or empty.
        evaluation: directory with the table of patients, for the intervals.
        compared: the comparison with the champion, if there was one.
    """
    table_of_patients = Path(evaluation) / evaluations.PATIENTS
    rows = pq.read_table(table_of_patients).to_pylist() if table_of_patients.is_file() else []
    sections = [
        f"# {card.task}: {card.architecture}\n\n{RESEARCH}",
        f"## Intended use\n\n{PURPOSE[card.task].format(threshold=card.threshold)}",
        f"## Limits\n\n{bullets((*measured.get('caveats', ()), *LIMITS[card.task], *EVERYWHERE))}",
        f"## Data\n\n{bullets(data(card, measured, tested_on))}",
        figures(measured, intervals_of(rows)),
        subgroups(measured, rows),
        comparison(compared),
        f"## Preprocessing\n\n{preprocessing(card)}",
        f"## Architecture and training\n\n{training(card, commit)}",
        f"## Papers\n\n{bullets(papers(card))}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def description(text: str) -> str:
    """`text` if MLflow can hold it as a description, else its first whole lines and where the rest is."""
    if len(text) <= DESCRIPTION_LENGTH:
        return text
    return text[: text.rindex("\n", 0, DESCRIPTION_LENGTH - len(SHORTENED))].rstrip() + SHORTENED


def intervals_of(rows: Sequence[dict[str, Any]]) -> dict[str, Interval]:
    """95 % percentile-bootstrap intervals of the summary's figures, from rows of the table of patients.

    Patients are resampled, each with all of its series, 10,000 times with a fixed seed (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13). Every figure is a ratio of sums over patients. Fewer than two
    patients, or a figure that is undefined for some resamples, have no interval.
    """
    found = {}
    for name, terms in RATIOS.items():
        by_patient: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if (pair := terms(row)) is not None:
                by_patient.setdefault(row["patient"], []).append(pair)
        if len(by_patient) < 2:
            continue
        sums = np.array([np.sum(pairs, axis=0) for pairs in by_patient.values()])
        if sums[:, 1].any() and all(map(math.isfinite, ends := ratio_interval(sums[:, 0], sums[:, 1]))):
            found[name] = ends
    return found


def ratio_interval(numerators: npt.NDArray[Any], denominators: npt.NDArray[Any]) -> Interval:
    """95 % percentile-bootstrap interval of the ratio of the sums of two arrays (N,), drawn in pairs."""

    def ratio(over: npt.NDArray[Any], under: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: npt.NDArray[Any] = over.sum(axis) / under.sum(axis)
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (numerators, denominators), ratio, paired=True, vectorized=True, method="percentile", batch=BATCH,
            n_resamples=RESAMPLES, rng=np.random.default_rng(SEED),
        ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def mean_of(column: str) -> Terms:
    """Value and 1 where a row has the column."""
    return lambda row: None if row.get(column) is None else (float(row[column]), 1.0)


def counts(weights: tuple[int, int, int]) -> Terms:
    """`weights[0]` true positives over as many, plus weighted false positives and false negatives."""
    positive, fp, fn = weights
    return lambda row: (
        None
        if row.get("tp") is None
        else (positive * row["tp"], positive * row["tp"] + fp * row["fp"] + fn * row["fn"])
    )


RATIOS: dict[str, Terms] = {
    "f1": counts((2, 1, 1)),
    "precision": counts((1, 1, 0)),
    "recall": counts((1, 0, 1)),
    "dice_per_patient_mean": mean_of("dice"),
    "dice_mean": mean_of("dice"),
    "slice_error_mean": mean_of("error_slices"),
    "slice_error_mm_mean": mean_of("error_mm"),
    "detection_rate": lambda row: None if row.get("true_slice") is None else (float(row["detected"]), 1.0),
}
"""Figures of an evaluation that are ratios of sums over the rows of its table: a row's two terms, or None."""


def data(card: ModelCard, measured: dict[str, Any], tested_on: str) -> list[str]:
    """Counts and hashes of the training and test data."""
    lines = [
        f"Trained on {plural(card.training_patients, 'patient')}; dataset `{card.dataset_hash}`, "
        f"slice set `{card.slice_set_hash}`."
    ]
    sizes = [plural(measured[name], name.removesuffix("s")) for name in ("patients", "slices") if name in measured]
    if "series" in measured:
        sizes.insert(1, f"{measured['series']:,} series")
    tested = ", ".join(sizes) or "patients that the evaluation does not count"
    hashed = f"; dataset `{tested_on}`" if tested_on and tested_on != card.dataset_hash else ""
    fold = f", fold {measured['fold']}" if measured.get("fold", -1) >= 0 else ""
    return [*lines, f"Evaluated on {tested} of split {measured.get('split') or 'test'}{fold}{hashed}."]


def figures(measured: dict[str, Any], intervals: dict[str, Interval]) -> str:
    """The headline figures with their intervals, and the figures per patient."""
    summary = {name: value for name, value in measured.get("summary", {}).items() if name != "patients"}
    if not summary:
        return ""
    rows = [(words(name), number(value), span(intervals.get(name))) for name, value in summary.items()]
    text = f"## Figures\n\n{table(('figure', 'value', '95 % interval'), rows)}"
    if intervals:
        text += "\n\nIntervals: percentile bootstrap over patients, 10,000 resamples."
    per_patient = measured.get("per_patient", {})
    names = [name.removesuffix("_mean") for name in per_patient if name.endswith("_mean")]
    spread = [
        (words(name), *(number(per_patient.get(f"{name}_{part}")) for part in ("mean", "sd", "median", "min", "max")))
        for name in names
    ]
    if spread:
        text += f"\n\n{table(('per patient', 'mean', 'SD', 'median', 'min', 'max'), spread)}"
    return text


def subgroups(measured: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The figures of every subgroup of the evaluation, with intervals where its patients are in the table."""
    groups: dict[str, dict[str, Any]] = measured.get("subgroups", {})
    if not groups:
        return ""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    lines = []
    for group, values in groups.items():
        intervals = intervals_of([row for row in rows if row.get("subgroup") == group])
        cells = (f"{number(values.get(name))} {span(intervals.get(name), '({})')}".rstrip() for name in names)
        lines.append((group, *cells))
    return f"## Subgroups\n\n{table(('subgroup', *map(words, names)), lines)}"


def comparison(compared: Comparison | None) -> str:
    """Differences from the champion with their intervals, and the verdict."""
    if compared is None or not compared.champion_version:
        return ""
    rows = [
        (words(name), number(found["difference"]), f"{number(found['low'])} to {number(found['high'])}")
        for name, found in compared.figures.items()
    ]
    text = f"## Comparison\n\nWith the champion, version {compared.champion_version}: {one_line(compared.reason)}"
    return f"{text}\n\n{table(('figure', 'difference', '95 % interval'), rows)}" if rows else text


def preprocessing(card: ModelCard) -> str:
    """What happens to HU inside the model."""
    window = card.window
    stretch = ", stretched to the smallest and largest value of each slice" if window.get("stretch") == "minmax" else ""
    levels = ", 256 levels" if window.get("bits") == 8 else ""
    return (
        f"Input: HU slices (N, H, W), any real dtype, unwindowed. Inside the model: [{window['lower']:g}, "
        f"{window['upper']:g}] HU, {card.image_size[0]}x{card.image_size[1]} pixels{stretch}{levels}."
    )


def training(card: ModelCard, commit: str) -> str:
    """Network, code and parameters."""
    options = ", ".join(f"{name}={value}" for name, value in card.architecture_options.items())
    text = (
        f"{card.architecture}{f' ({options})' if options else ''}, {card.parameter_count:,} parameters; trained in "
        f"{card.precision}, kept epoch {card.best_epoch}; code {card.code_version}"
        f"{f', commit {commit}' if commit else ''}."
    )
    rows = [(name, value) for name, value in sorted(card.parameters.items()) if value not in ("", None)]
    return f"{text}\n\n{table(('parameter', 'value'), rows)}" if rows else text


def papers(card: ModelCard) -> list[str]:
    """What the network and the loss come from."""
    keys = [card.architecture.rstrip("0123456789")]
    if card.task == SEGMENTATION:
        keys += LOSSES.get(str(card.parameters.get("loss", "")).lower(), ())
    return [f"{PAPERS[key]}." for key in keys if key in PAPERS]


def plural(count: int, unit: str) -> str:
    """`1 patient`, `2,000 patients`."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def words(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def number(value: Any) -> str:
    """Four digits; a dash for what is undefined."""
    return f"{value:.4g}" if isinstance(value, int | float) and math.isfinite(value) else "-"


def span(interval: Interval | None, form: str = "{}") -> str:
    """`0.12 to 0.34`, or nothing."""
    return form.format(f"{number(interval[0])} to {number(interval[1])}") if interval else ""


def one_line(value: Any) -> str:
    """A text that stays inside its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {one_line(line)}" for line in lines)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; cells are kept on one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(one_line, line))} |" for line in lines)
