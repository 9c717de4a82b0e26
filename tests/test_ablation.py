"""Ablation: its summary holds the figures of the evaluations, judges the paper's claims and says what is missing."""

import csv
import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from slice_sets import SIDE, make_slices

from hounsfield import models
from hounsfield.components.summarise_experiment.config import Config
from hounsfield.components.summarise_experiment.run import run as summarise
from hounsfield.data.evaluation import KIND, VERSION
from hounsfield.data.model_store import WEIGHTS, ModelCard, write_model
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.data.tumour_site import SITES
from hounsfield.errors import ArtifactError, InputError
from hounsfield.evaluation.agreement import audit_metrics
from hounsfield.experiments.ablation import cl_best, ordered, unet_best
from hounsfield.experiments.ablation_figures import view
from hounsfield.experiments.page import unique
from hounsfield.experiments.printed import TABLE_1
from hounsfield.metrics.counts import Spread
from hounsfield.storage import sha256_bytes, write_json, write_manifest

OPTIONS = {"base_channels": 2, "depth": 3, "batch_norm": True}


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "slices", SEGMENTATION, "train train test test test")


def make_run(folder: Path, slices: Path, name: str, seed: int, figures: dict[str, float]) -> tuple[Path, Path]:
    """A tiny model named as a row of Table 1 with an evaluation of the given figures."""
    row = next(row for row in TABLE_1 if row.run == name)
    source = SliceSet(slices)
    model, evaluation = folder / f"{name}-{seed}" / "model", folder / f"{name}-{seed}" / "evaluation"
    model.mkdir(parents=True)
    evaluation.mkdir()
    torch.manual_seed(int(sha256_bytes(f"{name} {seed}".encode())[:8], 16))
    network = models.build("unet", **OPTIONS)
    parameters = {
        "architecture": row.architecture, "loss": row.loss.lower(), "alpha": 0.25, "gamma": 4.0, "beta": 0.7,
        "seed": seed, "fold": -1, "run_name": name, "validation": "val", "learning_rate": 1e-3, "epochs": 2,
    }  # fmt: skip
    card = {
        "task": SEGMENTATION, "architecture": "unet", "architecture_options": OPTIONS, "parameters": parameters,
        "window": source.window.to_dict(), "image_size": [SIDE, SIDE], "classes": ["background", "tumour"],
        "threshold": 0.5, "dataset_hash": "d" * 64, "slice_set_hash": "5" * 64, "training_patients": 2,
        "parameter_count": models.parameter_count(network), "precision": "float32", "best_epoch": 2,
        "metrics": {}, "code_version": "0",
    }  # fmt: skip
    write_model(model, ModelCard.model_validate(card), network.state_dict(), [{"epoch": 1, "train_loss": 0.5}])
    weights = sha256_bytes((model / WEIGHTS).read_bytes())
    pooled = {name: figures[name] for name in ("f1", "precision", "recall", "average_precision")}
    dice = Spread.of([figures["dice_mean"]])
    site = {**pooled, "dice_mean": figures["dice_mean"], "dice_sd": None}
    metrics: dict[str, Any] = {
        "task": SEGMENTATION, "patients": 3, "slices": 18, "image_size": [SIDE, SIDE], "threshold": 0.5,
        "model_hash": weights, "pooled": {**pooled, "prevalence": 0.03},
        "per_patient": {"dice_mean": figures["dice_mean"], "dice_sd": 0.1},
        "subgroups": {
            SITES[0]: {**site, "patients": 2, "average_precision": figures["chest_wall"]},
            SITES[1]: {**site, "patients": 1},
        },
        "audit": audit_metrics(pooled, dice, "patient"),
    }  # fmt: skip
    write_json(evaluation / "metrics.json", metrics)
    recall = np.linspace(0, 1, 20)
    pq.write_table(pa.table({"recall": recall, "precision": 1 - 0.9 * recall}), evaluation / "pr_curve.parquet")
    rows = [
        {"patient": f"p{number}", "subgroup": SITES[number % 2], "truth_ml": float(number), "shown_row": 6 * number + 2}
        for number in (2, 3, 4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), evaluation / "patients.parquet")
    write_manifest(evaluation, KIND, VERSION, model_hash=weights)
    return model, evaluation


def figures_of(average_precision: float, f1: float, chest_wall: float = 0.5) -> dict[str, float]:
    """Figures that pass the audit: precision and recall both equal F1."""
    own = {"average_precision": average_precision, "f1": f1, "precision": f1, "recall": f1}
    return own | {"dice_mean": f1 - 0.01, "chest_wall": chest_wall}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_summary_holds_the_figures_of_the_evaluations_and_of_the_paper(slices: Path, tmp_path: Path) -> None:
    given = {(row.run, seed): figures_of(0.5 + 0.03 * place + 0.01 * seed, 0.4 + 0.02 * place + 0.02 * seed)
             for place, row in enumerate(TABLE_1) for seed in (3, 4)}  # fmt: skip
    pairs = [make_run(tmp_path, slices, name, seed, figures) for (name, seed), figures in given.items()]
    models_, evaluations = [m for m, _ in pairs], [e for _, e in reversed(pairs)]
    out = tmp_path / "summary"
    summary = summarise(Config(data_name="phantoms"), slices, models_, evaluations, out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [row["run"] for row in summary["rows"]] == [row.run for row in TABLE_1]
    for row, printed in zip(summary["rows"], table(out / "table_1.csv"), strict=True):
        own = [given[row["run"], seed] for seed in (3, 4)]
        for name, title in (
            ("f1", "F1"),
            ("precision", "precision"),
            ("recall", "recall"),
            ("average_precision", "AP"),
        ):
            values = [figures[name] for figures in own]
            assert row[name]["mean"] == pytest.approx(mean(values))
            assert row[name]["sd"] == pytest.approx(stdev(values))
            assert printed[f"{title}, here"] == f"{mean(values):.3f} ± {stdev(values):.3f}"
        for seed, figures in zip((3, 4), own, strict=True):
            assert row["by_seed"][str(seed)]["f1"] == figures["f1"]
            assert row["by_seed"][str(seed)]["subgroups"]["chest-wall"]["average_precision"] == 0.5
    best = summary["rows"][-1]
    assert best["run"] == "U-Net+CL"
    assert best["paper"]["f1"] == 0.8877
    assert best["paper"]["average_precision"] == 0.827
    assert best["paper"]["parameters"] == {"alpha": 0.25, "gamma": 4.0, "beta": 0.7}
    impossible = {row["run"] for row in summary["rows"] if row["paper"]["audit"]["verdict"] == "impossible"}
    assert impossible == {"E-Net+CL", "U-Net+BL"}
    assert all(claim["seeds_judged"] == 2 for claim in summary["claims"])


def test_report_is_one_page_with_every_figure_as_png_and_svg(slices: Path, tmp_path: Path) -> None:
    pairs = [make_run(tmp_path, slices, row.run, 0, figures_of(0.7, 0.6)) for row in TABLE_1]
    out = tmp_path / "summary"
    summarise(Config(), slices, [m for m, _ in pairs], [e for _, e in pairs], out)
    html = (out / "report.html").read_text()
    names = ["figure_4", "figure_3_segnet", "figure_3_enet", "figure_3_unet"]
    found = {path.name for path in (out / "figures").iterdir()}
    assert found == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for path in (out / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', html)
    identifiers = re.findall(r'\bid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    for text in (
        "U-Net+CL",
        "CL, AP 0.700",
        "chest wall",
        "1 seed: a difference",
        "E-Net+CL and U-Net+BL are impossible",
    ):
        assert text in html
    assert json.loads((out / "manifest.json").read_text())["kind"] == "experiment"


def test_missing_runs_are_said_and_claims_about_them_left_open(slices: Path, tmp_path: Path) -> None:
    given = {("U-Net+BL", 0): 0.6, ("U-Net+CL", 0): 0.7, ("U-Net+CL", 1): 0.8}
    pairs = [make_run(tmp_path, slices, name, seed, figures_of(ap, 0.5)) for (name, seed), ap in given.items()]
    out = tmp_path / "summary"
    summary = summarise(Config(), slices, [m for m, _ in pairs], [e for _, e in pairs], out)
    assert any("Not run: SegNet+BL" in note and "U-Net+FL" in note for note in summary["notes"])
    assert any(note.startswith("U-Net+BL lacks seed 1") for note in summary["notes"])
    assert all(claim["holds"] is None for claim in summary["claims"])
    row = next(row for row in table(out / "table_1.csv") if row["run"] == "U-Net+FL")
    assert row["AP, here"] == "–"
    assert "Not run: SegNet+BL" in (out / "report.html").read_text()


def test_claims_are_judged_by_the_mean_and_in_each_seed(slices: Path, tmp_path: Path) -> None:
    scores = {("U-Net+BL", 0): 0.5, ("U-Net+FL", 0): 0.6, ("U-Net+CL", 0): 0.9,
              ("U-Net+BL", 1): 0.7, ("U-Net+FL", 1): 0.6, ("U-Net+CL", 1): 0.8,
              ("U-Net+BL", 2): 0.5, ("U-Net+FL", 2): 0.8, ("U-Net+CL", 2): 0.9}  # fmt: skip
    pairs = [
        make_run(tmp_path, slices, name, seed, figures_of(ap, ap, chest_wall=1 - ap))
        for (name, seed), ap in scores.items()
    ]
    summary = summarise(Config(), slices, [m for m, _ in pairs], [e for _, e in pairs], tmp_path / "summary")
    claims = {claim["claim"]: claim for claim in summary["claims"]}
    order = claims["CL > FL > BL in AP (U-Net)"]
    assert order["holds"] is True
    assert order["by_seed"] == {"0": True, "1": False, "2": True}
    assert order["seeds_holding"] == 2
    assert claims["CL is the best loss at the chest wall in AP (U-Net)"]["holds"] is False
    assert claims["CL is the best loss at the chest wall in mean Dice (U-Net)"]["holds"] is True
    assert claims["CL > FL > BL in AP (SegNet)"]["holds"] is None


def test_rules_of_the_claims() -> None:
    values = {(name, loss): 0.1 for name in ("segnet", "enet", "unet") for loss in ("BL", "FL", "CL")}
    assert ordered(values, "unet") is False
    values |= {("unet", "FL"): 0.2, ("unet", "CL"): 0.3}
    assert ordered(values, "unet") is True
    assert cl_best(values, "unet") is True
    assert unet_best(values) is False
    assert unet_best(values | {("unet", "BL"): 0.2}) is True
    assert unet_best(values | {("unet", "BL"): None}) is True
    assert ordered(values | {("unet", "BL"): None}, "unet") is None


def test_foreign_and_repeated_runs_are_refused(slices: Path, tmp_path: Path) -> None:
    first, own = make_run(tmp_path / "a", slices, "U-Net+CL", 0, figures_of(0.5, 0.5))
    again, repeated = make_run(tmp_path / "b", slices, "U-Net+CL", 0, figures_of(0.5, 0.5))
    other, foreign = make_run(tmp_path, slices, "U-Net+FL", 0, figures_of(0.5, 0.5))
    with pytest.raises(InputError, match=r"two runs of U-Net\+CL with seed 0"):
        summarise(Config(), slices, [first, again], [own, repeated], tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"no evaluation of model .*a/U-Net\+CL-0/model"):
        summarise(Config(), slices, [first], [foreign], tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"an evaluation of none of the 1 models"):
        summarise(Config(), slices, [other], [foreign, own], tmp_path / "out")
    with pytest.raises(InputError, match="no model was given"):
        summarise(Config(), slices, [], [], tmp_path / "out")
    card = json.loads((first / "card.json").read_text())
    card["parameters"]["run_name"] = "mine"
    (first / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="run_name 'mine'"):
        summarise(Config(), slices, [first], [own], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_view_is_a_square_in_mm_around_the_mask_and_inside_the_image() -> None:
    mask = np.zeros((100, 200), bool)
    mask[2:12, 100:110] = True
    (top, bottom), (left, right) = view(mask, (2.0, 1.0))
    assert (bottom - top) * 2.0 == pytest.approx((right - left) * 1.0)
    assert top >= -0.5
    assert right <= 199.5
    assert left < 100
    assert right > 110


def test_figures_of_one_page_do_not_share_identifiers() -> None:
    svg = '<g id="a"><use xlink:href="#a" clip-path="url(#b)"/></g>'
    assert unique(svg, "x") == '<g id="x-a"><use xlink:href="#x-a" clip-path="url(#x-b)"/></g>'
