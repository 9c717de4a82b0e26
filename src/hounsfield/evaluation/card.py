"""The model card as Markdown: the end of an evaluation's report, and in MLflow a version's description and artifact.

Sections follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hounsfield.data import evaluation as evaluations
from hounsfield.data.comparison import Comparison
from hounsfield.data.model_store import ModelCard
from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.evaluation import card_texts as texts
from hounsfield.evaluation.bootstrap import Counted
from hounsfield.evaluation.intervals import VERTEBRA, Estimate, Row, estimate, groups
from hounsfield.evaluation.metrics import counted

MODEL_CARD = "model_card.md"
DESCRIPTION_LENGTH = 5000
"""Characters that MLflow's column for a version's description holds in PostgreSQL."""
SHORTENED = f"\n\n*Shortened: the complete card is `{MODEL_CARD}` among the artifacts of the run.*"
TITLES = {
    "slice_error_mean": "slice error in slices, mean",
    "slice_error_mm_mean": "slice error in mm, mean",
    "detection_rate": "detection rate",
    VERTEBRA: "rate of errors of a vertebra or more",
    "dice_per_patient_mean": "Dice per patient, mean",
    "average_precision": "average precision",
    "average_precision_mean": "average precision per patient, mean",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
}
"""Headline figures in the order in which they are shown."""
SPREADS = {
    "slice_error": "slice error in slices",
    "slice_error_mm": "slice error in mm",
    "dice": "Dice",
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
}
"""Figures per patient or series, likewise."""


def markdown(
    card: ModelCard, measured: dict[str, Any], evaluation: Path, commit: str = "", compared: Comparison | None = None
) -> str:
    """The complete model card.

    Args:
        measured: `metrics.json` of the evaluation; what it lacks is left out.
        evaluation: directory with the tables of patients and scores, for the intervals.
        commit: git commit of the code that registers, when it is known.
        compared: the comparison with the champion, if there was one.
    """
    table_of_patients = Path(evaluation) / evaluations.PATIENTS
    rows = pq.read_table(table_of_patients).to_pylist() if table_of_patients.is_file() else []
    scores = evaluations.read_scores(evaluation) if (Path(evaluation) / evaluations.SCORES).is_file() else {}
    purpose = (texts.PURPOSE[card.task].format(card.threshold), texts.USERS, texts.OUT_OF_SCOPE[card.task])
    sections = [
        f"# Model card: {card.task}, {card.architecture}\n\n{texts.RESEARCH}",
        f"## Intended use\n\n{bullets(purpose)}",
        f"## Limits\n\n{bullets((*measured.get('caveats', ()), *texts.LIMITS[card.task], *texts.EVERYWHERE))}",
        f"## Data\n\n{bullets(data(card, measured, rows))}",
        figures(measured, rows, scores),
        subgroups(measured, rows, scores),
        comparison(compared),
        f"## Preprocessing\n\n{preprocessing(card)}",
        f"## Papers\n\n{bullets(papers(card))}",
        f"## Architecture and training\n\n{training(card, measured, commit)}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def description(text: str) -> str:
    """`text` if MLflow can hold it as a description, else its first whole lines and where the rest is."""
    if len(text) <= DESCRIPTION_LENGTH:
        return text
    return text[: text.rindex("\n", 0, DESCRIPTION_LENGTH - len(SHORTENED))].rstrip() + SHORTENED


def data(card: ModelCard, measured: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Counts and hashes of the training and test data."""
    seen = measured.get("model", {}).get("seen") or {}
    fitted = f"Trained on {counted(card.training_patients, 'patient')}"
    if seen.get("slices"):
        others = seen["patients"] - card.training_patients
        fitted += f", validated on {counted(others, 'other')}; together " if others > 0 else ", "
        fitted += sizes(card.task, seen)
    else:
        fitted += "; their series and slices are not in the slice set of the evaluation"
    hashes = f"; dataset `{card.dataset_hash}`, slice set `{card.slice_set_hash}`."
    fold = f", fold {measured['fold']}" if measured.get("fold", -1) >= 0 else ""
    patients = counted(measured["patients"], "patient") if "patients" in measured else "patients not counted"
    tested = f"Evaluated on {patients}, {sizes(card.task, measured)}, split {measured.get('split') or 'test'}{fold}"
    own = [("dataset", "dataset_hash", card.dataset_hash), ("slice set", "slice_set_hash", card.slice_set_hash)]
    named = [
        f"the same {name}" if measured[key] == trained else f"{name} `{measured[key]}`"
        for name, key, trained in own
        if measured.get(key)
    ]
    lines = [fitted + hashes, "; ".join((tested, ", ".join(named) or "dataset not named")) + "."]
    if distances := sorted(row["slice_spacing_mm"] for row in rows if row.get("slice_spacing_mm")):
        middle = distances[len(distances) // 2]
        spread = f"{distances[0]:.3g} to {distances[-1]:.3g} mm, median {middle:.3g} mm"
        lines.append(f"Distance of the slices evaluated: {spread}.")
    return [
        *lines,
        "Truth: the labels that came with the images, taken as they are. Patients are known by pseudonyms alone.",
    ]


def sizes(task: str, counted_in: dict[str, Any]) -> str:
    """`6 series, 1,234 slices (56 with tumour)`."""
    parts = [f"{counted_in['series']:,} series"] if "series" in counted_in else ["series not counted"]
    slices = counted(counted_in["slices"], "slice") if "slices" in counted_in else "slices not counted"
    positive = counted_in.get("positive_slices")
    what = "with tumour" if task == SEGMENTATION else "of L3"
    return ", ".join([*parts, slices if positive is None else f"{slices} ({positive:,} {what})"])


def figures(measured: dict[str, Any], rows: Sequence[Row], scores: Mapping[str, Counted]) -> str:
    """The headline figures with their intervals, and the figures per patient or series."""
    own, headline = measured.get("per_patient", {}), headlines(measured)
    if not headline:
        return ""
    mm = own.get("vertebra_mm", math.inf)
    lines = [
        (TITLES[name], number(value), interval(estimate(name, rows, scores, mm))) for name, value in headline.items()
    ]
    notes = f"F1, precision, recall and average precision: over all {unit(measured)}s together"
    notes += f", at the threshold {measured['threshold']:g}." if "threshold" in measured else "."
    notes += f" An error of a vertebra or more: from {mm:g} mm." if VERTEBRA in headline else ""
    text = f"## Figures\n\n{notes}\n\n{table(('figure', 'value', '95 % interval'), lines)}\n\n{texts.INTERVALS}"
    spread = [
        (
            shown,
            number(own[f"{name}_mean"]),
            interval(estimate(f"{name}_mean", rows)),
            *(number(own.get(f"{name}_{part}")) for part in ("sd", "median", "min", "max")),
        )
        for name, shown in SPREADS.items()
        if f"{name}_mean" in own
    ]
    if spread:
        case = "per series" if "series_with_label" in own else "per patient"
        head = (case, "mean", "95 % interval", "SD", "median", "min", "max")
        text += f"\n\n{table(head, spread)}"
    return text


def headlines(measured: dict[str, Any]) -> dict[str, Any]:
    """The figures that stand for the evaluation."""
    known = {**measured.get("per_patient", {}), **measured.get("summary", {})}
    shown = {*measured.get("summary", {}), VERTEBRA}
    return {name: known[name] for name in TITLES if name in shown and name in known}


def unit(measured: dict[str, Any]) -> str:
    """What is counted as positive or negative."""
    return "pixel" if measured.get("task") == SEGMENTATION else "slice"


def subgroups(measured: dict[str, Any], rows: Sequence[Row], scores: Mapping[str, Counted]) -> str:
    """The headline figures of every subgroup with patients and intervals."""
    own = measured.get("per_patient", {})
    mm = own.get("vertebra_mm", math.inf)
    names = [name for name in TITLES if name in own or name in headlines(measured)]
    parts = []
    for kind, named in groups(rows).items():
        sized = {name: counted(len({row["patient"] for row in group}), "patient") for name, group in named.items()}
        if len(named) == 1:
            (only,) = named
            parts.append(f"By {kind}: one group alone, {only}, with {sized[only]}.")
            continue
        lines = [
            (TITLES[name], *(cell(estimate(name, group, scores, mm)) for group in named.values())) for name in names
        ]
        parts.append(table((kind, *(f"{name} ({size})" for name, size in sized.items())), lines))
    return "\n\n".join(["## Subgroups", *(parts or ["None: the evaluation knows no groups of its patients."])])


def comparison(compared: Comparison | None) -> str:
    """Differences from the champion with their intervals, and the verdict."""
    if compared is None or not compared.champion_version:
        return ""
    rows = [
        (name.replace("_", " "), *(number(found[part], ".4f") for part in ("difference", "low", "high")))
        for name, found in compared.figures.items()
    ]
    text = f"## Comparison\n\nWith the champion, version {compared.champion_version}: {one_line(compared.reason)}"
    return f"{text}\n\n{table(('figure', 'difference', '95 % from', 'to'), rows)}" if rows else text


def preprocessing(card: ModelCard) -> str:
    """What happens to HU inside the model."""
    window, (rows, columns) = card.window, card.image_size
    stretch = ", stretched to the smallest and largest value of each slice" if window.get("stretch") == "minmax" else ""
    levels = ", rounded to 256 levels" if window.get("bits") == 8 else ""
    return (
        "Input: HU slices (N, H, W), any real type but uint8, not windowed. Inside the model: clipped to "
        f"[{window['lower']:g}, {window['upper']:g}] HU, mapped to 0..1, resized to {rows} x {columns} pixels "
        f"(bilinear){stretch}{levels}."
    )


def training(card: ModelCard, measured: dict[str, Any], commit: str) -> str:
    """Network, code and parameters."""
    options = ", ".join(f"{name}={value}" for name, value in card.architecture_options.items())
    weights = f"; weights SHA-256 `{measured['model_hash']}`" if measured.get("model_hash") else ""
    text = (
        f"{card.architecture}{f' ({options})' if options else ''}, {card.parameter_count:,} parameters; trained in "
        f"{card.precision}, kept epoch {card.best_epoch}; code {card.code_version}"
        f"{f', commit {commit}' if commit else ''}{weights}."
    )
    rows = [(name, value) for name, value in sorted(card.parameters.items()) if value not in ("", None)]
    return f"{text}\n\n{table(('parameter', 'value'), rows)}" if rows else text


def papers(card: ModelCard) -> list[str]:
    """What the method, the network and the loss come from."""
    keys = [card.architecture.rstrip("0123456789")]
    if card.task == SEGMENTATION:
        keys += texts.LOSSES.get(str(card.parameters.get("loss", "")).lower(), ())
    return [f"Method: {texts.METHOD[card.task]}.", *(f"{texts.PAPERS[key]}." for key in keys if key in texts.PAPERS)]


def number(value: Any, form: str = ".3f") -> str:
    """A figure; a dash for what is undefined."""
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else "-"


def interval(found: Estimate) -> str:
    """`0.12 to 0.34`, or why there is none."""
    if found.interval is None:
        return f"none: {found.reason}"
    return f"{number(found.interval[0])} to {number(found.interval[1])}"


def cell(found: Estimate) -> str:
    """Value and interval."""
    return "undefined" if found.value is None else f"{number(found.value)} ({interval(found)})"


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
