"""The summary of the L3 study on runs whose figures are known."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tiny_models import tiny_model

from hounsfield.data.evaluation import KIND, VERSION
from hounsfield.data.model_store import ModelCard, read_card, write_model
from hounsfield.errors import InputError
from hounsfield.experiments.printed import TABLE_2
from hounsfield.experiments.study import ARMS, Run, summarise
from hounsfield.experiments.study_figures import draw, slice_scatters, training_curves
from hounsfield.experiments.study_page import study_page
from hounsfield.experiments.study_tables import as_text, tables
from hounsfield.plots import png
from hounsfield.storage import write_json, write_manifest

PATIENTS, FOLDS, THICKNESS, VERTEBRA = 20, 5, 5.0, 30.0
FOLD_OF = {f"p{number:02}": number % FOLDS for number in range(PATIENTS)}
OFFSETS = {"control": (-3, 0, 2, 8), "proposed": (0, -1, 1, 0)}


def row(patient: str, arm: str, seed: int, true: float) -> dict[str, Any]:
    """A series whose prediction is off by a known number of slices."""
    number = int(patient[1:])
    offset = OFFSETS[arm][(number // FOLDS + seed) % 4]
    return {
        "patient": patient,
        "series": f"s{number:02}",
        "detected": not (arm == "control" and number == 7),
        "predicted_slice": true + offset,
        "true_slice": true,
        "error_slices": float(abs(offset)),
        "error_mm": abs(offset) * THICKNESS,
    }


def make_run(arm: str, fold: int, seed: int = 0, **changes: Any) -> Run:
    patients = [patient for patient, own in FOLD_OF.items() if own == fold]
    true = {patient: 20.0 + 1.5 * int(patient[1:]) for patient in patients}
    history = [
        {"epoch": float(epoch), "train_accuracy": 0.8 + 0.02 * epoch + 0.01 * fold, "train_loss": 1 / epoch + fold}
        for epoch in (1, 2, 3)
    ]
    parameters = {
        "run_name": arm, "fold": fold, "seed": seed, "validation": "val", "architecture": "resnet18", "epochs": 3,
        "learning_rate": 1e-3 * (fold + 1), "l2": 1e-4, "batch_size": 16, "gradient_threshold": 3.0,
        "gradient_threshold_method": "l2norm", "oversampling_rate": 0.1, "class_weight": 0.5,
    }  # fmt: skip
    if arm == "control":
        parameters |= {"oversampling_rate": 0.0, "class_weight": 1.0}
    return Run(
        parameters=parameters | changes,
        history=history,
        metrics={"image_size": [96, 96], "per_patient": {"vertebra_mm": VERTEBRA}},
        series=[row(patient, arm, seed, true[patient]) for patient in patients],
        best_epoch=3,
        validation_f1=0.75,
    )


def study(seeds: tuple[int, ...] = (0,)) -> list[Run]:
    return [make_run(arm, fold, seed) for arm in ARMS for fold in range(FOLDS) for seed in seeds]


def errors_of(runs: list[Run], arm: str, name: str = "error_slices") -> np.ndarray:
    return np.array([row[name] for run in runs if run.arm == arm for row in run.series])


@pytest.mark.parametrize("arm", ARMS)
def test_errors_are_those_of_all_held_out_patients(arm: str) -> None:
    runs = study()
    own = summarise(runs, FOLD_OF)["arms"][arm]
    errors = errors_of(runs, arm)
    assert own["patients"] == own["predictions"] == PATIENTS
    assert own["slice_error_mean"] == pytest.approx(np.mean(errors))
    assert own["slice_error_sd"] == pytest.approx(np.std(errors, ddof=1))
    assert own["slice_error_median"] == np.median(errors)
    assert own["slice_error_mm_mean"] == pytest.approx(np.mean(errors) * THICKNESS)
    assert own["vertebra_error_rate"] == np.mean(errors * THICKNESS >= VERTEBRA)
    assert own["detection_rate"] == (0.95 if arm == "control" else 1.0)


@pytest.mark.parametrize("arm", ARMS)
def test_regression_is_that_of_scipy(arm: str) -> None:
    runs = study(seeds=(0, 1))
    own = summarise(runs, FOLD_OF)["arms"][arm]
    line = stats.linregress(errors_of(runs, arm, "true_slice"), errors_of(runs, arm, "predicted_slice"))
    assert own["slope"] == pytest.approx(line.slope)
    assert own["intercept"] == pytest.approx(line.intercept)
    assert own["r2"] == pytest.approx(line.rvalue**2)


def test_arms_are_compared_patient_by_patient() -> None:
    runs = study()
    pair = summarise(runs, FOLD_OF)["comparison"]
    difference = errors_of(runs, "proposed") - errors_of(runs, "control")
    assert pair["mean_difference"] == pytest.approx(difference.mean())
    assert pair["wilcoxon_p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert (pair["better"], pair["equal"], pair["worse"]) == tuple(
        int(np.sum(np.sign(difference) == sign)) for sign in (-1, 0, 1)
    )
    random = np.random.default_rng(5)
    means = random.choice(difference, (20_000, len(difference))).mean(axis=1)
    assert pair["interval"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.12)


def test_a_patient_counts_once_whatever_the_number_of_seeds() -> None:
    runs = study(seeds=(0, 1, 2))
    pair = summarise(runs, FOLD_OF)["comparison"]
    of = {(run.seed, row["patient"], run.arm): row["error_slices"] for run in runs for row in run.series}
    each = np.array([[of[s, p, "proposed"] - of[s, p, "control"] for p in sorted(FOLD_OF)] for s in (0, 1, 2)])
    assert pair["patients"] == PATIENTS
    assert pair["mean_difference"] == pytest.approx(each.mean())
    assert pair["wilcoxon_p"] == pytest.approx(stats.wilcoxon(each.mean(axis=0)).pvalue)
    for seed, own in pair["by_seed"].items():
        assert own["mean_difference"] == pytest.approx(each[int(seed)].mean())


def test_r2_difference_is_proposed_minus_control() -> None:
    summary = summarise(study(), FOLD_OF)
    arms = summary["arms"]
    assert summary["comparison"]["r2_difference"] == arms["proposed"]["r2"] - arms["control"]["r2"] > 0


def test_claim_is_judged_in_each_seed_and_over_them() -> None:
    runs = study(seeds=(0, 1))
    found = summarise(runs, FOLD_OF)["claims"][0]
    assert found["holds"] is True
    assert found["by_seed"] == {"0": True, "1": True}
    swapped = {"control": "proposed", "proposed": "control"}
    worse = [
        make
        if make.seed == 0
        else Run(**(vars(make) | {"parameters": make.parameters | {"run_name": swapped[make.arm]}}))
        for make in runs
    ]
    found = summarise(worse, FOLD_OF)["claims"][0]
    assert found["by_seed"] == {"0": True, "1": False}
    assert found["seeds_holding"] == 1


def test_equal_arms_do_not_confirm_the_claim() -> None:
    runs = [run for run in study() if run.arm == "proposed"]
    twins = [Run(**(vars(run) | {"parameters": run.parameters | {"run_name": "control"}})) for run in runs]
    summary = summarise(runs + twins, FOLD_OF)
    assert summary["claims"][0]["holds"] is False
    assert summary["comparison"]["wilcoxon_p"] is None
    assert any("signed-rank" in note for note in summary["notes"])


def test_missing_fold_is_said_and_its_patients_are_not_compared() -> None:
    runs = [run for run in study() if (run.arm, run.fold) != ("proposed", 3)]
    summary = summarise(runs, FOLD_OF)
    assert summary["arms"]["proposed"]["missing"] == [{"seed": 0, "fold": 3}]
    assert summary["arms"]["control"]["missing"] == []
    assert "Arm proposed, seed 0: fold 3 is missing, so its patients were never tested." in summary["notes"]
    assert summary["comparison"]["patients"] == PATIENTS - PATIENTS // FOLDS


def test_arms_that_were_not_trained_as_such_are_said() -> None:
    assert not any("Arm control" in note or "proposed" in note for note in summarise(study(), FOLD_OF)["notes"])
    runs = study()
    runs[0].parameters.update(class_weight=0.5)
    assert (
        "Arm control, seed 0, fold 0 was trained with over-sampling 0 and class weight 0.5: it is no control."
        in summarise(runs, FOLD_OF)["notes"]
    )
    alike = [make_run(arm, fold, oversampling_rate=0.0, class_weight=1.0) for arm in ARMS for fold in range(FOLDS)]
    assert any("both arms were trained alike" in note for note in summarise(alike, FOLD_OF)["notes"])


def test_missing_arm_leaves_its_figures_undefined() -> None:
    summary = summarise([run for run in study() if run.arm == "control"], FOLD_OF)
    assert summary["claims"][0]["holds"] is None
    assert summary["arms"]["proposed"]["slice_error_mean"] is None
    assert len(summary["arms"]["proposed"]["missing"]) == FOLDS
    assert table(summary, "table_2").rows[-1][2] == "–"
    assert len(draw(summary)) == 2


def test_a_patient_outside_of_the_held_out_fold_is_refused() -> None:
    runs = study()
    runs[0].series[0]["patient"] = "p01"
    with pytest.raises(InputError, match="who is in fold 1: evaluate the fold that the model did not see"):
        summarise(runs, FOLD_OF)


def test_two_runs_of_one_place_are_refused() -> None:
    with pytest.raises(InputError, match="two runs of arm control, fold 0, seed 0"):
        summarise([*study(), make_run("control", 0)], FOLD_OF)
    with pytest.raises(InputError, match="no run"):
        summarise([], FOLD_OF)


def test_unlabelled_series_have_no_error_and_are_said() -> None:
    runs = study()
    for run in runs:
        for series in run.series:
            if series["patient"] == "p03":
                series |= {"true_slice": None, "error_slices": None, "error_mm": None}
    summary = summarise(runs, FOLD_OF)
    assert summary["arms"]["control"]["patients"] == PATIENTS - 1
    assert any("1 patient without a labelled slice" in note for note in summary["notes"])


def test_history_is_mean_and_deviation_over_folds() -> None:
    runs = study()
    rows = summarise(runs, FOLD_OF)["history"]["proposed"]
    accuracy = np.array([[record["train_accuracy"] for record in run.history] for run in runs if run.arm == "proposed"])
    assert [row["train_accuracy_mean"] for row in rows] == pytest.approx(accuracy.mean(axis=0))
    assert [row["train_accuracy_sd"] for row in rows] == pytest.approx(accuracy.std(axis=0, ddof=1))
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def table(summary: dict[str, Any], name: str) -> Any:
    return next(item for item in tables(summary) if item.name == name)


def test_table_2_keeps_the_printed_rows_and_adds_ours() -> None:
    runs = study()
    summary = summarise(runs, FOLD_OF, data="phantoms")
    rows = table(summary, "table_2").rows
    assert [(row[0], row[1], row[2]) for row in rows[:-2]] == [
        (printed.method, printed.images, f"{printed.mean} ± {printed.sd}") for printed in TABLE_2
    ]
    assert {row[3] for row in rows[:-2]} == {"printed in the paper"}
    for arm, own in zip(ARMS, rows[-2:], strict=True):
        errors = errors_of(runs, arm)
        assert own[0] == f"resnet18 ({arm}), ours"
        assert own[2] == f"{errors.mean():.2f} ± {errors.std(ddof=1):.2f}"
        assert own[3] == f"phantoms, 96x96 pixels, {PATIENTS} patients"


def test_best_parameters_are_listed_by_arm_and_fold() -> None:
    summary = summarise(study(), FOLD_OF)
    own = table(summary, "best_parameters")
    assert [row[:3] for row in own.rows] == [[arm, "0", str(fold)] for arm in ARMS for fold in range(FOLDS)]
    assert [row[own.columns.index("learning rate")] for row in own.rows[:3]] == ["0.001", "0.002", "0.003"]


def test_optimistic_is_marked_everywhere() -> None:
    runs = [make_run(arm, fold, validation="test") for arm in ARMS for fold in range(FOLDS)]
    summary = summarise(runs, FOLD_OF)
    assert summary["optimistic"]
    assert summary["claims"][0]["optimistic"]
    assert any(note.startswith("Optimistic:") for note in summary["notes"])
    for item in tables(summary):
        assert "optimistic" in str([item.title, item.rows]), item.name
    for name, figure, caption in draw(summary):
        assert "Optimistic" in caption, name
        assert "optimistic" in figure.get_suptitle(), name
    honest = summarise(study(), FOLD_OF)
    assert not honest["optimistic"]
    assert all("(optimistic)" not in str([item.title, item.rows]) for item in tables(honest))
    assert all(not figure.get_suptitle() for _, figure, _ in draw(honest))


def test_figures_show_the_lines_and_points_of_both_arms() -> None:
    summary = summarise(study(), FOLD_OF)
    accuracy, loss = training_curves(summary["history"], False).axes
    assert len(accuracy.lines) == len(loss.lines) == 2
    assert loss.lines[0].get_ydata() == pytest.approx([3.0, 2.5, 1 / 3 + 2])
    panels = slice_scatters(summary).axes
    for arm, panel in zip(ARMS, panels, strict=True):
        shown = sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() == "o")
        assert shown == PATIENTS
        assert f"R² {summary['arms'][arm]['r2']:.3f}" in panel.get_title()
    assert all(png(figure).startswith(b"\x89PNG") for _, figure, _ in draw(summary))


def test_text_of_a_table_is_aligned() -> None:
    lines = list(as_text(table(summarise(study(), FOLD_OF), "table_2")))
    assert len(lines) == 2 + len(TABLE_2) + 2
    starts = {line.index("axial") for line in lines if "axial" in line}
    assert len(starts) == 1


def stored(tmp_path: Path, **parameters: Any) -> tuple[Path, Path]:
    """A model directory and an evaluation as the steps write them."""
    card = read_card(tiny_model(tmp_path, "l3-slice")).model_dump()
    model, evaluation = tmp_path / "model", tmp_path / "evaluation"
    model.mkdir()
    evaluation.mkdir()
    card |= {"parameters": parameters, "metrics": {"val_f1": 0.5}, "best_epoch": 2}
    write_model(model, ModelCard.model_validate(card), {}, make_run("control", 0).history)
    write_json(evaluation / "metrics.json", {"image_size": [96, 96], "per_patient": {"vertebra_mm": VERTEBRA}})
    pq.write_table(pa.Table.from_pylist(make_run("control", 2).series), evaluation / "patients.parquet")
    write_manifest(evaluation, KIND, VERSION)
    return model, evaluation


def test_a_run_is_read_from_its_artifacts(tmp_path: Path) -> None:
    run = Run.read(*stored(tmp_path, run_name="control", fold=2, seed=4))
    assert (run.arm, run.fold, run.seed, run.best_epoch, run.validation_f1) == ("control", 2, 4, 2, 0.5)
    assert run.series == make_run("control", 2).series
    assert len(run.history) == 3


def test_a_model_of_another_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run_name 'U-Net"):
        Run.read(*stored(tmp_path, run_name="U-Net+CL", fold=0, seed=0))


def test_report_holds_tables_figures_and_notes(tmp_path: Path) -> None:
    runs = [run for run in study(seeds=(0, 1)) if (run.arm, run.fold, run.seed) != ("control", 4, 1)]
    summary = summarise(runs, FOLD_OF, "phantoms")
    study_page(tmp_path, summary).write()
    html = (tmp_path / "report.html").read_text()
    for item in tables(summary):
        with (tmp_path / f"{item.name}.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [item.columns, *item.rows]
    for name, _, caption in draw(summary):
        assert caption in html
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text()
    assert "Arm control, seed 1: fold 4 is missing" in html
    assert "holds in 2 of 2 seeds" in html
