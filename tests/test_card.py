"""Model card: what it says, how it is shown, intervals against scipy, and the length MLflow can hold."""

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score
from tiny_models import tiny_evaluation, tiny_model

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.data.comparison import Comparison
from hounsfield.data.evaluation import PATIENTS, read_metrics, read_scores, write_scores
from hounsfield.data.model_store import ModelCard, read_card
from hounsfield.evaluation import card as cards
from hounsfield.evaluation.bootstrap import FineHistogram
from hounsfield.evaluation.intervals import estimate, groups
from hounsfield.evaluation.report import card_html
from hounsfield.registry import tracking

DICE = (0.9, 0.8, 0.7, 0.55, 0.2)
MEASURED: dict[str, Any] = {
    "task": "lung-tumour",
    "split": "test",
    "fold": 2,
    "patients": 5,
    "series": 6,
    "slices": 1234,
    "positive_slices": 56,
    "threshold": 0.4,
    "dataset_hash": "e" * 64,
    "slice_set_hash": "5" * 64,
    "model": {"seen": {"patients": 7, "series": 8, "slices": 2345, "positive_slices": 67}},
    "model_hash": "a" * 64,
    "caveats": ["Only 5 patients: a single one can move every figure noticeably."],
    "summary": {"f1": 0.75, "precision": None, "average_precision": 0.7, "dice_per_patient_mean": 0.63, "patients": 5},
    "per_patient": {"dice_mean": 0.63, "dice_sd": 0.2747, "dice_median": 0.7, "dice_min": 0.2, "dice_max": 0.9},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("card"))


@pytest.fixture
def card(model: Path) -> ModelCard:
    return read_card(model)


def rows(dice: tuple[float, ...] = DICE) -> list[dict[str, Any]]:
    sites = ["chest-wall"] * 3 + ["intrapulmonary"] * 2
    return [
        {"patient": f"p{i}", "subgroup": sites[i], "dice": value, "tp": 10 * i + 5, "fp": 3 * i, "fn": 7 - i}
        | {"slice_spacing_mm": (1.0, 1.0, 2.0, 5.0, 5.0)[i]}
        for i, value in enumerate(dice)
    ]


def interval_of(name: str, table: list[dict[str, Any]]) -> tuple[float, float]:
    found = estimate(name, table).interval
    assert found is not None
    return found


def test_card_says_what_a_user_must_know(card: ModelCard, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / PATIENTS)
    text = cards.markdown(card, MEASURED, tmp_path, "c0ffee")
    heads = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "Intended use", "Limits", "Data", "Figures", "Subgroups", "Preprocessing", "Papers",
        "Architecture and training",
    ]  # fmt: skip
    low, high = interval_of("dice_per_patient_mean", rows())
    for part in (
        "**Research use only**",
        "Out of scope: screening",
        "Only 5 patients",
        "Sex, age and origin of the patients are not kept",
        "Trained on 5 patients, validated on 2 others; together 8 series, 2,345 slices (67 with tumour); "
        f"dataset `{'d' * 64}`, slice set `{'5' * 64}`.",
        "Evaluated on 5 patients, 6 series, 1,234 slices (56 with tumour), split test, fold 2; "
        f"dataset `{'e' * 64}`, the same slice set.",
        "1 to 5 mm, median 2 mm",
        "over all pixels together, at the threshold 0.4",
        f"| Dice per patient, mean | 0.630 | {low:.3f} to {high:.3f} |",
        "| average precision | 0.700 | none: scores are not kept by patient |",
        "| precision | - |",
        f"| Dice | 0.630 | {low:.3f} to {high:.3f} | 0.275 | 0.700 | 0.200 | 0.900 |",
        "[-125, 225] HU, mapped to 0..1, resized to 32 x 32 pixels (bilinear), rounded to 256 levels",
        "unet (base_channels=4, batch_norm=True, depth=3)",
        "commit c0ffee",
        "a" * 64,
        "| learning_rate | 0.001 |",
        "Weighted Integration Loss",
        "Ronneberger et al. 2015",
        "Lin et al. 2017",
        "Milletari et al. 2016",
    ):
        assert part in text


def test_subgroups_have_patients_values_and_intervals(card: ModelCard, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / PATIENTS)
    lines = cards.markdown(card, MEASURED, tmp_path).split("## Subgroups")[1].splitlines()
    assert "| tumour site | chest-wall (3 patients) | intrapulmonary (2 patients) |" in lines
    assert "| Dice per patient, mean | 0.800 (0.700 to 0.900) | 0.375 (0.200 to 0.550) |" in lines
    assert "| slice distance | 0 to 1.5 mm (2 patients) | 1.5 to 3 mm (1 patient) | over 3 mm (2 patients) |" in lines
    tp, fp, fn = (sum(row[name] for row in rows()[:3]) for name in ("tp", "fp", "fn"))
    (f1,) = (line for line in lines[:9] if line.startswith("| F1 |"))
    assert f"| F1 | {2 * tp / (2 * tp + fp + fn):.3f} (" in f1
    assert any("| 0.700 (none: 1 patient) |" in line for line in lines)


def test_one_group_is_no_subgroup(card: ModelCard, tmp_path: Path) -> None:
    alike = [row | {"subgroup": "", "slice_spacing_mm": 5.0} for row in rows()]
    pq.write_table(pa.Table.from_pylist(alike), tmp_path / PATIENTS)
    text = cards.markdown(card, MEASURED, tmp_path)
    assert "By slice distance: one group alone, over 3 mm, with 5 patients." in text
    assert "tumour site" not in text
    assert set(groups(alike)) == {"slice distance"}


def test_what_the_evaluation_cannot_count_is_said(card: ModelCard, tmp_path: Path) -> None:
    text = cards.markdown(card, {"split": "test", "model": {"seen": None}}, tmp_path)
    assert "Trained on 5 patients; their series and slices are not in the slice set of the evaluation; dataset" in text
    assert "Evaluated on patients not counted, series not counted, slices not counted, split test" in text
    assert "None: the evaluation knows no groups of its patients." in text


def test_interval_of_a_mean_is_scipys() -> None:
    expected = bootstrap(
        (np.array(DICE),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    found = estimate("dice_per_patient_mean", rows())
    assert found.value == pytest.approx(np.mean(DICE))
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_interval_of_pooled_figures_resamples_patients() -> None:
    """Against resampling by hand, written out."""
    table = rows()
    rng, f1 = np.random.default_rng(3), []
    for _ in range(10_000):
        drawn = [table[i] for i in rng.integers(0, len(table), len(table))]
        tp, fp, fn = (sum(row[name] for row in drawn) for name in ("tp", "fp", "fn"))
        f1.append(2 * tp / (2 * tp + fp + fn))
    assert interval_of("f1", table) == pytest.approx(tuple(np.quantile(f1, (0.025, 0.975))), abs=0.01)


def test_patients_are_resampled_with_all_of_their_series() -> None:
    """Three copies of every series say nothing new: the interval must not shrink."""
    once = rows()
    assert interval_of("dice_per_patient_mean", once * 3) == pytest.approx(interval_of("dice_per_patient_mean", once))


def test_interval_of_the_pooled_average_precision_is_that_of_scikit_learn_and_scipy(tmp_path: Path) -> None:
    """Scores on a grid that the bins keep, through the file that an evaluation has of them."""
    generator = np.random.default_rng(4)
    truth = generator.random((len(DICE), 400)) < 0.2
    scores = np.round(truth * 2 + generator.normal(-1, 1.5, truth.shape), 1).astype(np.float32)
    histograms = {}
    for i, (own, labels) in enumerate(zip(scores, truth, strict=True)):
        fine = FineHistogram()
        fine.update(own, labels)
        histograms[f"p{i}"] = fine.counts
    write_scores(tmp_path, histograms)
    kept = read_scores(tmp_path)
    assert list(kept) == list(histograms)
    assert all(np.array_equal(kept[name], histograms[name]) for name in kept)

    def statistic(patients: np.ndarray) -> float:
        drawn = patients.astype(int)
        return float(average_precision_score(truth[drawn].ravel(), scores[drawn].ravel()))

    expected = bootstrap(
        (np.arange(float(len(DICE))),), statistic, n_resamples=10_000, vectorized=False, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    found = estimate("average_precision", rows(), kept)
    assert found.value == pytest.approx(average_precision_score(truth.ravel(), scores.ravel()), abs=1e-12)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    among = estimate("average_precision", rows()[:3], kept)
    assert among.value == pytest.approx(average_precision_score(truth[:3].ravel(), scores[:3].ravel()), abs=1e-12)
    assert estimate("average_precision", rows()[:1], kept).reason == "1 patient"


@pytest.mark.parametrize(
    ("name", "table", "value", "reason"),
    [
        ("f1", [], None, "undefined"),
        ("dice_mean", rows((0.9,)), 0.9, "1 patient"),
        ("dice_mean", [row | {"dice": None} for row in rows()], None, "undefined"),
        ("precision", [row | {"tp": 0, "fp": 0} for row in rows()], None, "undefined"),
        ("precision", [row | {"fp": 0} for row in rows()], 1.0, "the same in all 5 patients"),
        ("precision", [*rows()[:1], *(row | {"tp": 0, "fp": 0} for row in rows()[1:])], 1.0,
         "undefined in some resamples"),
        ("average_precision", rows(), None, "scores are not kept by patient"),
    ],
)  # fmt: skip
def test_figure_without_an_interval_says_why(
    name: str, table: list[dict[str, Any]], value: float | None, reason: str
) -> None:
    found = estimate(name, table)
    assert (found.value, found.interval, found.reason) == (value, None, reason)


def labelled(**changes: Any) -> dict[str, Any]:
    return {"true_slice": 4.0, "detected": True, "error_mm": 5.0, "error_slices": 1.0} | changes


def test_rate_that_all_patients_share_is_not_certain() -> None:
    """Clopper-Pearson in closed form: none of n fail, so the lower end is the n-th root of 0.025."""
    unlabelled = labelled(true_slice=None, detected=False, error_mm=None, error_slices=None)
    table = [{"patient": f"p{i}"} | (labelled() if i < 3 else unlabelled) for i in range(6)]
    assert interval_of("detection_rate", table) == pytest.approx((0.025 ** (1 / 3), 1.0))
    missed = estimate("vertebra_error_rate", table, vertebra_mm=30.0)
    assert missed.value == 0
    assert missed.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 3)))


def test_rate_of_errors_counts_from_the_length_on() -> None:
    table = [{"patient": f"p{i}"} | labelled(error_mm=error) for i, error in enumerate((5.0, 30.0, 29.9, 60.0))]
    found = estimate("vertebra_error_rate", table, vertebra_mm=30.0)
    assert found.value == 0.5
    assert found.interval == (0.0, 1.0)


class Structure(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_card_in_a_page_has_headings_below_the_pages_title_and_tables(card: ModelCard, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / PATIENTS)
    text = cards.markdown(card, MEASURED, tmp_path)
    page = Structure(card_html(text))
    names = [tag for tag, _ in page.tags]
    assert [name for name in names if name.startswith("h")] == ["h2"] + ["h3"] * text.count("\n## ")
    assert names.count("table") == text.count("| --- |\n")
    assert "Model card: lung-tumour, unet" in page.text
    assert "|" not in page.text


def test_card_in_a_page_cannot_bring_markup(card: ModelCard, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> <b onclick=x> ![i](http://x/y.png) [l](javascript:x) <http://x.org> &lt;"
    odd = card.model_copy(update={"parameters": {"run_name": hostile}, "precision": hostile})
    plain = card.model_copy(update={"parameters": {"run_name": "plain"}, "precision": "plain"})
    page, expected = (
        Structure(card_html(cards.markdown(one, MEASURED | {"caveats": [one.precision]}, tmp_path)))
        for one in (odd, plain)
    )
    assert page.tags == expected.tags
    assert page.text.count(hostile) == 3


def test_comparison_with_the_champion_is_told_with_intervals() -> None:
    compared = Comparison.model_construct(
        champion_version="3",
        reason="It is better.\nNo subgroup is worse.",
        figures={"dice_mean": {"difference": 0.05, "low": 0.01, "high": None}},
    )
    assert cards.comparison(compared).splitlines() == [
        "## Comparison",
        "",
        "With the champion, version 3: It is better. No subgroup is worse.",
        "",
        "| figure | difference | 95 % from | to |",
        "| --- | --- | --- | --- |",
        "| dice mean | 0.0500 | 0.0100 | - |",
    ]
    assert cards.comparison(Comparison.model_construct(champion_version="", reason="first", figures={})) == ""


def test_description_keeps_whole_lines_within_what_mlflow_holds(card: ModelCard, tmp_path: Path) -> None:
    many = card.model_copy(update={"parameters": {f"parameter_{i:04d}": "x" * 40 for i in range(200)}})
    text = cards.markdown(many, MEASURED, tmp_path)
    short = cards.description(text)
    assert len(text) > cards.DESCRIPTION_LENGTH >= len(short) > cards.DESCRIPTION_LENGTH - 200
    kept = short.removesuffix(cards.SHORTENED)
    assert kept != short
    assert text.startswith(kept + "\n")
    assert cards.description(kept) == kept


def test_cells_cannot_break_the_table(card: ModelCard, tmp_path: Path) -> None:
    odd = card.model_copy(update={"parameters": {"run_name": "a|b\n## Forged"}})
    text = cards.markdown(odd, MEASURED, tmp_path)
    assert "| run_name | a\\|b ## Forged |" in text
    assert "\n## Forged" not in text


def test_undefined_numbers_are_dashes() -> None:
    assert [cards.number(value) for value in (None, math.nan, math.inf, 0.123456)] == ["-", "-", "-", "0.123"]


@pytest.mark.parametrize("task", ["lung-tumour", "l3-slice"])
def test_registered_version_shows_its_card(tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    model = tiny_model(tmp_path, task)
    evaluation = tiny_evaluation(tmp_path, model)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    outcome = run(Config(tracking_uri=uri), model, evaluation)
    with tracking.recording(uri):
        client = MlflowClient()
        shown = client.get_model_version(task, "1").description
        stored = Path(client.download_artifacts(outcome["run_id"], cards.MODEL_CARD, str(tmp_path))).read_text()
        commit = client.get_model_version(task, "1").tags.get("git_commit", "")
    assert shown == stored
    assert shown == cards.markdown(read_card(model), read_metrics(evaluation), evaluation, commit)
