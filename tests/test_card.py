"""Model card: what it says, intervals against scipy on the same patients, and the length MLflow can hold."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from scipy.stats import bootstrap
from tiny_models import tiny_evaluation, tiny_model

from hounsfield.components.register_model.config import Config
from hounsfield.components.register_model.run import run
from hounsfield.data.comparison import Comparison
from hounsfield.data.evaluation import PATIENTS, read_metrics
from hounsfield.data.model_store import ModelCard, read_card
from hounsfield.registry import card as cards
from hounsfield.registry import tracking

DICE = (0.9, 0.8, 0.7, 0.55, 0.2)
MEASURED: dict[str, Any] = {
    "task": "lung-tumour",
    "split": "test",
    "fold": 2,
    "patients": 5,
    "series": 6,
    "slices": 1234,
    "caveats": ["Only 5 patients: a single one can move every figure noticeably."],
    "summary": {"f1": 0.75, "precision": None, "dice_per_patient_mean": 0.63, "patients": 5},
    "per_patient": {"dice_mean": 0.63, "dice_sd": 0.2747, "dice_median": 0.7, "dice_min": 0.2, "dice_max": 0.9},
    "subgroups": {
        "chest-wall": {"patients": 3, "dice_mean": 0.8},
        "intrapulmonary": {"patients": 2, "dice_mean": 0.375},
    },
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
        for i, value in enumerate(dice)
    ]


def test_card_says_what_a_user_must_know(card: ModelCard, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / PATIENTS)
    text = cards.markdown(card, MEASURED, "e" * 64, "c0ffee", tmp_path, None)
    heads = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "Intended use", "Limits", "Data", "Figures", "Subgroups", "Preprocessing", "Architecture and training",
        "Papers",
    ]  # fmt: skip
    low, high = cards.intervals_of(rows())["dice_per_patient_mean"]
    for part in (
        "**Research use only**",
        "Only 5 patients",
        f"Trained on 5 patients; dataset `{'d' * 64}`, slice set `{'5' * 64}`.",
        f"Evaluated on 5 patients, 6 series, 1,234 slices of split test, fold 2; dataset `{'e' * 64}`.",
        f"| dice per patient mean | 0.63 | {low:.4g} to {high:.4g} |",
        "| precision | - |",
        "| dice | 0.63 | 0.2747 | 0.7 | 0.2 | 0.9 |",
        "| chest-wall | 3 | 0.8 (0.7 to 0.9) |",
        "[-125, 225] HU, 32x32 pixels",
        "unet (base_channels=4, batch_norm=True, depth=3)",
        "commit c0ffee",
        "| learning_rate | 0.001 |",
        "Ronneberger et al. 2015",
        "Lin et al. 2017",
        "Milletari et al. 2016",
    ):
        assert part in text


def test_interval_of_a_mean_is_scipys() -> None:
    expected = bootstrap(
        (np.array(DICE),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    found = cards.intervals_of(rows())["dice_per_patient_mean"]
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_interval_of_pooled_figures_resamples_patients() -> None:
    """Against resampling by hand, written out."""
    table = rows()
    rng, f1 = np.random.default_rng(3), []
    for _ in range(10_000):
        drawn = [table[i] for i in rng.integers(0, len(table), len(table))]
        tp, fp, fn = (sum(row[name] for row in drawn) for name in ("tp", "fp", "fn"))
        f1.append(2 * tp / (2 * tp + fp + fn))
    assert cards.intervals_of(table)["f1"] == pytest.approx(tuple(np.quantile(f1, (0.025, 0.975))), abs=0.01)


def test_patients_are_resampled_with_all_of_their_series() -> None:
    """Three copies of every series say nothing new: the interval must not shrink."""
    once = rows()
    assert cards.intervals_of(once * 3)["dice_per_patient_mean"] == pytest.approx(
        cards.intervals_of(once)["dice_per_patient_mean"]
    )


def test_intervals_that_do_not_exist() -> None:
    assert cards.intervals_of([]) == {}
    assert cards.intervals_of(rows((0.9,))) == {}
    without = [row | {"dice": None, "tp": 0, "fp": 0} for row in rows()]
    assert set(cards.intervals_of(without)) == {"f1", "recall"}


def test_series_without_a_label_do_not_count_as_missed() -> None:
    labelled = {"true_slice": 4.0, "detected": True, "error_mm": 5.0, "error_slices": 1.0}
    absent = {"true_slice": None, "detected": False, "error_mm": None, "error_slices": None}
    table = [{"patient": f"p{i}"} | (labelled if i < 3 else absent) for i in range(6)]
    assert cards.intervals_of(table)["detection_rate"] == (1.0, 1.0)


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
        "| figure | difference | 95 % interval |",
        "| --- | --- | --- |",
        "| dice mean | 0.05 | 0.01 to - |",
    ]
    assert cards.comparison(Comparison.model_construct(champion_version="", reason="first", figures={})) == ""


def test_description_keeps_whole_lines_within_what_mlflow_holds(card: ModelCard, tmp_path: Path) -> None:
    many = card.model_copy(update={"parameters": {f"parameter_{i:04d}": "x" * 40 for i in range(200)}})
    text = cards.markdown(many, MEASURED, "", "", tmp_path, None)
    short = cards.description(text)
    assert len(text) > cards.DESCRIPTION_LENGTH >= len(short) > cards.DESCRIPTION_LENGTH - 200
    kept = short.removesuffix(cards.SHORTENED)
    assert kept != short
    assert text.startswith(kept + "\n")
    assert cards.description(kept) == kept


def test_cells_cannot_break_the_table(card: ModelCard, tmp_path: Path) -> None:
    odd = card.model_copy(update={"parameters": {"run_name": "a|b\n## Forged"}})
    text = cards.markdown(odd, MEASURED, "", "", tmp_path, None)
    assert "| run_name | a\\|b ## Forged |" in text
    assert "\n## Forged" not in text


def test_undefined_numbers_are_dashes() -> None:
    assert [cards.number(value) for value in (None, math.nan, math.inf, 0.123456)] == ["-", "-", "-", "0.1235"]


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
    assert shown == cards.markdown(read_card(model), read_metrics(evaluation), "e" * 64, commit, evaluation, None)
