"""evaluate-pr-ap from slice set and model to its artifacts."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from hounsfield import models
from hounsfield.components.evaluate_pr_ap import run as step
from hounsfield.components.evaluate_pr_ap.config import Config
from hounsfield.data.arrow import write_slices
from hounsfield.data.evaluation import read_metrics
from hounsfield.data.model_store import ModelCard, read_card, write_model
from hounsfield.data.slice_set import DETECTION, KIND, SEGMENTATION, VERSION, SliceIndex, SliceSet, write_index
from hounsfield.errors import ArtifactError, InputError
from hounsfield.evaluation.card import markdown
from hounsfield.evaluation.report import card_html
from hounsfield.storage import atomic_directory, write_manifest
from hounsfield.windowing import window_for

SIZE = 32
SPACING = (5.0, 0.8, 0.7)
SEGMENTATION_PATIENTS = {"aa": ("test", 30), "bb": ("test", 6), "cc": ("test", 0), "dd": ("train", 20)}
DETECTION_SERIES = {"s1": range(4, 7), "s2": range(7, 9), "s3": range(2, 5)}


def write_slice_set(path: Path, task: str, index: list[SliceIndex], masks: np.ndarray, val: float = 0.2) -> Path:
    """A slice set whose images hold their own row number in the first two pixels."""
    window = window_for(task, size=SIZE)
    images = np.zeros((len(index), SIZE, SIZE), dtype=window.dtype)
    images[:, 0, 0] = np.arange(len(index))
    images[:, 4:, 4:] = np.random.default_rng(0).random((len(index), SIZE - 4, SIZE - 4)) * (255 if window.bits else 1)
    with atomic_directory(path) as directory:
        columns = {"image": images} | ({"mask": masks} if task == SEGMENTATION else {})
        write_slices(directory / "images.arrow", columns)
        write_index(directory, index)
        write_manifest(
            directory,
            KIND,
            VERSION,
            task=task,
            window=window.to_dict(),
            size=[SIZE, SIZE],
            dataset_hash="d" * 64,
            hash="e" * 64,
            split={"seed": 0, "val": val},
        )
    return path


def write_tiny_model(
    path: Path, task: str, changes: dict | None = None, patients: dict[str, list[str]] | None = None
) -> Path:
    torch.manual_seed(0)
    architecture, options = ("unet", {"base_channels": 2, "depth": 2}) if task == SEGMENTATION else ("resnet18", {})
    network = models.build(architecture, **options)
    card = ModelCard(
        task=task,
        architecture=architecture,
        architecture_options=options,
        parameters={},
        window=window_for(task, size=SIZE).to_dict(),
        image_size=[SIZE, SIZE],
        classes=["background", "foreground"],
        threshold=0.5,
        dataset_hash="d" * 64,
        slice_set_hash="e" * 64,
        training_patients=3,
        parameter_count=models.parameter_count(network),
        precision="float32",
        best_epoch=1,
        metrics={},
        code_version="0",
    )
    with atomic_directory(path) as directory:
        write_model(directory, card.model_copy(update=changes or {}), network.state_dict(), [], patients)
    return path


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    index, masks = [], []
    for patient, (split, pixels) in SEGMENTATION_PATIENTS.items():
        for number in range(3):
            mask = np.zeros(SIZE * SIZE, dtype=np.uint8)
            mask[100 : 100 + pixels * number] = 1
            masks.append(mask.reshape(SIZE, SIZE))
            index.append(SliceIndex(patient, f"{patient}-1", number, 5.0 * number, *SPACING, split, 0, pixels * number))
    return write_slice_set(tmp_path / "tumours", SEGMENTATION, index, np.stack(masks))


@pytest.fixture
def vertebrae(tmp_path: Path) -> Path:
    index = [
        SliceIndex(f"p{series}", series, number, 100 - 4.0 * number, 4.0, 0.8, 0.7, "test", 0, 9 * (number in labelled))
        for series, labelled in DETECTION_SERIES.items()
        for number in range(12)
    ]
    return write_slice_set(tmp_path / "vertebrae", DETECTION, index, np.zeros(0))


def predict_with(monkeypatch: pytest.MonkeyPatch, scores: np.ndarray) -> None:
    """Let the network answer image `row` with `scores[row]`."""
    monkeypatch.setattr(
        step, "predictor", lambda network: lambda images: scores[images[:, 0, 0].astype(int)].astype(np.float32)
    )


def test_segmentation_figures(tumours, tmp_path, monkeypatch, capsys):
    source = SliceSet(tumours)
    truth = np.stack([source.mask(row) for row in range(len(source))])
    scores = np.random.default_rng(1).normal(size=truth.shape).astype(np.float32) + 3 * truth - 2
    scores[[row for row, item in enumerate(source.index) if item.patient == "cc"]] = -4
    predict_with(monkeypatch, scores)
    metrics = step.run(
        Config(shown_cases=1, batch_size=2),
        tumours,
        write_tiny_model(tmp_path / "model", SEGMENTATION),
        tmp_path / "out",
    )

    assert read_metrics(tmp_path / "out") == json.loads(json.dumps(metrics))
    assert (metrics["split"], metrics["patients"], metrics["slices"], metrics["threshold"]) == ("test", 3, 9, 0.5)
    flat_truth, flat_scores = truth[:9].ravel(), scores[:9].ravel()
    pooled = metrics["pooled"]
    assert pooled["f1"] == pytest.approx(f1_score(flat_truth, flat_scores >= 0))
    lower, upper = pooled["average_precision_interval"]
    assert lower - 1e-12 <= average_precision_score(flat_truth, flat_scores) <= upper + 1e-12
    assert pooled["tp"] + pooled["fp"] + pooled["fn"] + pooled["tn"] == flat_truth.size

    dice = [f1_score(truth[rows].ravel(), scores[rows].ravel() >= 0) for rows in (slice(0, 3), slice(3, 6))]
    own = metrics["per_patient"]
    assert own["dice_mean"] == pytest.approx(np.mean(dice))
    assert own["dice_sd"] == pytest.approx(np.std(dice, ddof=1))
    assert (own["patients_with_tumour"], own["patients_without_tumour"], own["false_positive_patients"]) == (2, 1, 0)
    assert metrics["summary"]["dice_per_patient_mean"] == own["dice_mean"]

    patients = {row["patient"]: row for row in pq.read_table(tmp_path / "out" / "patients.parquet").to_pylist()}
    assert patients["cc"]["dice"] is None
    assert patients["aa"]["truth_ml"] == pytest.approx(90 * np.prod(SPACING) / 1000)
    assert patients["aa"]["shown_row"] == 2
    assert patients["aa"]["slice_spacing_mm"] == SPACING[0]
    printed = capsys.readouterr().out
    assert f"f1={pooled['f1']:.4f}\n" in printed
    assert any("Only 3 patients" in caveat for caveat in metrics["caveats"])


def test_detection_figures(vertebrae, tmp_path, monkeypatch):
    probability_of = {"s1": range(4, 7), "s2": range(5, 9), "s3": range(0)}
    scores = np.array(
        [
            3.0 if number in probability_of[series] else -3.0 + (series == "s3" and number == 11)
            for series in DETECTION_SERIES
            for number in range(12)
        ]
    )
    predict_with(monkeypatch, scores)
    metrics = step.run(
        Config(shown_cases=1), vertebrae, write_tiny_model(tmp_path / "model", DETECTION), tmp_path / "out"
    )

    # s1: 5 and 5; s2: 6.5 and 7.5; s3: not detected, 11 and 3
    own = metrics["per_patient"]
    assert own["slice_error_mean"] == pytest.approx(3.0)
    assert own["slice_error_sd"] == pytest.approx(np.std([0, 1, 8], ddof=1))
    assert own["slice_error_median"] == 1
    assert own["slice_error_mm_mean"] == pytest.approx(12.0)
    assert own["detection_rate"] == pytest.approx(2 / 3)
    assert own["vertebra_error_rate"] == pytest.approx(1 / 3)
    pooled = metrics["pooled"]
    assert (pooled["tp"], pooled["fp"], pooled["fn"], pooled["tn"]) == (5, 2, 3, 26)
    assert pooled["f1"] == pytest.approx(10 / 15)
    truth = [number in labelled for labelled in DETECTION_SERIES.values() for number in range(12)]
    assert pooled["average_precision"] == pytest.approx(average_precision_score(truth, scores))
    slope, intercept = np.polyfit([5, 7.5, 3], [5, 6.5, 11], 1)
    assert own["slope"] == pytest.approx(slope)
    assert own["intercept"] == pytest.approx(intercept)
    table = pq.read_table(tmp_path / "out" / "patients.parquet").to_pylist()
    assert [row["predicted_slice"] for row in table] == [5, 6.5, 11]
    assert [row["true_slice"] for row in table] == [5, 7.5, 3]


@pytest.mark.parametrize("task", [SEGMENTATION, DETECTION])
def test_report_is_self_contained_and_repeatable(task, tumours, vertebrae, tmp_path):
    slices = tumours if task == SEGMENTATION else vertebrae
    model = write_tiny_model(tmp_path / "model", task)
    for name in ("one", "two"):
        step.run(Config(shown_cases=1, batch_size=4), slices, model, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"report.html", "metrics.json", "pr_curve.parquet", "patients.parquet", "manifest.json"} <= set(
        map(str, files)
    )
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    html = (tmp_path / "one" / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "Research use only" in html
    assert html.count("<svg") == (2 if task == SEGMENTATION else 3)
    assert str(tmp_path) not in html
    curve = pq.read_table(tmp_path / "one" / "pr_curve.parquet").to_pydict()
    assert curve["recall"][-1] == 1


class CardOfReport(HTMLParser):
    """Text of the report's section with the model card by heading, and the rows of its tables."""

    def __init__(self, report: Path) -> None:
        super().__init__()
        self.inside = False
        self.heading = ""
        self.path: list[str] = []
        self.texts: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.feed(report.read_text())

    def handle_starttag(self, tag, attrs):
        self.inside = self.inside or (tag, dict(attrs).get("class")) == ("section", "card")
        self.path.append(tag)
        if self.inside and tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "section"
        self.path.remove(tag)

    def handle_data(self, data):
        if not self.inside or not data.strip():
            return
        if {"h2", "h3"} & set(self.path):
            self.heading = data
        elif {"td", "th"} & set(self.path):
            self.rows[-1].append(data)
        else:
            self.texts[self.heading] = self.texts.get(self.heading, "") + data


@pytest.mark.parametrize(
    ("task", "trained", "tested", "use", "paper", "figure"),
    [
        (
            SEGMENTATION,
            "Trained on 1 patient, validated on 1 other; together 2 series, 6 slices (4 with tumour)",
            "Evaluated on 3 patients, 3 series, 9 slices (4 with tumour), split test",
            "Segmentation of lung tumours",
            "Weighted Integration Loss",
            "Dice per patient, mean",
        ),
        (
            DETECTION,
            "Trained on 1 patient, 1 series, 12 slices (3 of L3)",
            "Evaluated on 3 patients, 3 series, 36 slices (8 of L3), split test",
            "third lumbar vertebra",
            "Automate L3 Slice Detection",
            "slice error in mm, mean",
        ),
    ],
)
def test_report_ends_with_the_model_card(
    task, trained, tested, use, paper, figure, tumours, vertebrae, tmp_path, monkeypatch
):
    slices, size = (tumours, (12, SIZE, SIZE)) if task == SEGMENTATION else (vertebrae, (36,))
    seen = {"trained_on": ["dd"], "chosen_by": ["aa"]} if task == SEGMENTATION else {"trained_on": ["ps1"]}
    model = write_tiny_model(tmp_path / "model", task, {"training_patients": 1}, seen)
    predict_with(monkeypatch, np.random.default_rng(4).normal(size=size))
    step.run(Config(shown_cases=1), slices, model, tmp_path / "out")
    card = CardOfReport(tmp_path / "out" / "report.html")
    head = next(iter(card.texts))
    assert head.startswith("Model card: ")
    assert "Research use only" in card.texts[head]
    assert use in card.texts["Intended use"]
    assert "Out of scope" in card.texts["Intended use"]
    assert "Only 3 patients" in card.texts["Limits"]
    assert trained in card.texts["Data"]
    assert tested in card.texts["Data"]
    assert "d" * 64 in card.texts["Data"]
    assert "resized to 32 x 32 pixels" in card.texts["Preprocessing"]
    assert paper in card.texts["Papers"]
    (interval,) = [row[2] for row in card.rows if row[0] == figure and len(row) == 3]
    assert re.fullmatch(r"\d+\.\d{3} to \d+\.\d{3}", interval)

    registered = markdown(read_card(model), read_metrics(tmp_path / "out"), tmp_path / "out")
    assert card_html(registered) in (tmp_path / "out" / "report.html").read_text()


def test_card_does_not_count_another_slice_set(tumours, tmp_path):
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, {"slice_set_hash": "f" * 64})
    metrics = step.run(Config(shown_cases=1), tumours, model, tmp_path / "out")
    assert metrics["model"]["seen"] is None
    assert "not in the slice set of the evaluation" in CardOfReport(tmp_path / "out" / "report.html").texts["Data"]


def test_network_and_batches_do_not_change_the_counts(tumours, tmp_path):
    model = write_tiny_model(tmp_path / "model", SEGMENTATION)
    one = step.run(Config(shown_cases=1, batch_size=1, split="all"), tumours, model, tmp_path / "one")
    many = step.run(Config(shown_cases=1, batch_size=16, split="all"), tumours, model, tmp_path / "many")
    assert one["patients"] == 4
    assert one["pooled"]["tp"] + one["pooled"]["fn"] == sum(3 * pixels for _, pixels in SEGMENTATION_PATIENTS.values())
    assert one["pooled"]["average_precision"] == pytest.approx(many["pooled"]["average_precision"], abs=1e-4)
    assert any("flatter" in caveat for caveat in one["caveats"])


def test_nothing_positive_gives_nulls_and_caveats(tumours, tmp_path, monkeypatch):
    source = SliceSet(tumours)
    empty = [replace(item, label_pixels=0) for item in source.index]
    slices = write_slice_set(
        tmp_path / "empty", SEGMENTATION, empty, np.zeros((len(empty), SIZE, SIZE), dtype=np.uint8)
    )
    predict_with(monkeypatch, np.full((len(empty), SIZE, SIZE), -5.0))
    metrics = step.run(
        Config(shown_cases=1), slices, write_tiny_model(tmp_path / "model", SEGMENTATION), tmp_path / "out"
    )
    for name in ("precision", "recall", "f1", "average_precision", "average_precision_interval"):
        assert metrics["pooled"][name] is None
    assert metrics["per_patient"]["dice_mean"] is None
    assert "NaN" not in (tmp_path / "out" / "metrics.json").read_text()
    assert any("average precision" in caveat for caveat in metrics["caveats"])


def test_series_without_label(vertebrae, tmp_path, monkeypatch):
    source = SliceSet(vertebrae)
    index = [replace(item, label_pixels=0) for item in source.index]
    slices = write_slice_set(tmp_path / "unlabelled", DETECTION, index, np.zeros(0))
    predict_with(monkeypatch, np.full(len(index), 2.0))
    metrics = step.run(Config(shown_cases=1), slices, write_tiny_model(tmp_path / "model", DETECTION), tmp_path / "out")
    assert metrics["per_patient"]["series_without_label"] == 3
    assert metrics["per_patient"]["detection_rate"] is None
    assert metrics["per_patient"]["slice_error_mean"] is None


def test_threshold_of_the_configuration_replaces_the_models(tumours, tmp_path, monkeypatch):
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, {"threshold": 0.9})
    predict_with(monkeypatch, np.full((12, SIZE, SIZE), 1.0))
    assert step.run(Config(shown_cases=1), tumours, model, tmp_path / "strict")["pooled"]["tp"] == 0
    assert step.run(Config(shown_cases=1, threshold=0.5), tumours, model, tmp_path / "loose")["pooled"]["fn"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": DETECTION}, "is for l3-slice, the slice set .* for lung-tumour"),
        (
            {"window": window_for(SEGMENTATION, 400, 40, SIZE).to_dict()},
            r"was trained for the window \[-160, 240\] HU, 8 bits, .* has \[-125, 225\] HU, 8 bits",
        ),
        ({"image_size": [48, 48]}, "was trained for images of 48 x 48 pixels"),
    ],
)
def test_model_of_other_images_is_refused(changes, words, tumours, tmp_path):
    model = write_tiny_model(tmp_path / "model", SEGMENTATION, changes)
    with pytest.raises(ArtifactError, match=words):
        step.run(Config(shown_cases=1), tumours, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_split_without_patients_says_what_to_do(tumours, tmp_path):
    with pytest.raises(InputError, match=r"no patient in split val \(1 train, 0 val, 3 test of 4\).*split seed"):
        step.run(
            Config(shown_cases=1, split="val"),
            tumours,
            write_tiny_model(tmp_path / "model", SEGMENTATION),
            tmp_path / "out",
        )


def test_nan_leaves_nothing_behind(tumours, tmp_path, monkeypatch):
    predict_with(monkeypatch, np.full((12, SIZE, SIZE), np.nan))
    with pytest.raises(InputError, match="NaN"):
        step.run(Config(shown_cases=1), tumours, write_tiny_model(tmp_path / "model", SEGMENTATION), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tumours"]


def test_incomplete_evaluation_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="not a complete evaluation"):
        read_metrics(tmp_path)
