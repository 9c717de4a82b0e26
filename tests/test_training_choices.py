"""Which slices a training sees, what chooses its epoch, and the parameters that replace its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from slice_sets import PER_PATIENT, make_slices

from hounsfield.components.train_l3.config import Config as L3Config
from hounsfield.components.train_l3.run import run as run_l3
from hounsfield.components.train_unet.config import Config as UNetConfig
from hounsfield.components.train_unet.run import PUBLISHED_CHANNELS
from hounsfield.components.train_unet.run import run as run_unet
from hounsfield.data.model_store import read_card, read_history
from hounsfield.data.slice_set import DETECTION, SEGMENTATION, SliceSet
from hounsfield.errors import InputError
from hounsfield.inference import load_network
from hounsfield.step import StepConfig, with_tuned
from hounsfield.training.batches import Batches

SMALL: dict[str, Any] = {
    "base_channels": 4, "depth": 2, "batch_size": 5, "learning_rate": 0.01, "precision": "fp32", "epochs": 3,
}  # fmt: skip


@pytest.fixture
def tumours(tmp_path: Path) -> Path:
    return make_slices(tmp_path / "tumours", SEGMENTATION)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Rows that batches of training and of validation were made of."""
    rows: dict[str, set[int]] = {"train": set(), "val": set()}
    load = Batches._load

    def note(self: Batches, chosen: np.ndarray, *others: Any) -> Any:
        rows["val" if self.seed is None else "train"] |= set(chosen.tolist())
        return load(self, chosen, *others)

    monkeypatch.setattr(Batches, "_load", note)
    return rows


def patients(slices: Path, rows: set[int]) -> set[str]:
    return {SliceSet(slices).index[row].patient for row in rows}


class TestSplits:
    def test_by_default_validation_patients_choose_the_epoch(
        self, tumours: Path, tmp_path: Path, seen: dict[str, set[int]]
    ) -> None:
        run_unet(UNetConfig(**SMALL), tumours, tmp_path / "model")
        assert patients(tumours, seen["train"]) == {"p0", "p1", "p2"}
        assert patients(tumours, seen["val"]) == {"p3"}

    def test_test_patients_choose_the_epoch_when_asked(
        self, tumours: Path, tmp_path: Path, seen: dict[str, set[int]]
    ) -> None:
        run_unet(UNetConfig(validation="test", **SMALL), tumours, tmp_path / "model")
        assert patients(tumours, seen["train"]) == {"p0", "p1", "p2"}
        assert patients(tumours, seen["val"]) == {"p4"}
        assert read_card(tmp_path / "model").parameters["validation"] == "test"
        assert "val_f1" in read_card(tmp_path / "model").metrics

    def test_refit_trains_on_validation_patients_and_keeps_the_last_epoch(
        self, tumours: Path, tmp_path: Path, seen: dict[str, set[int]]
    ) -> None:
        run_unet(UNetConfig(refit=True, **SMALL), tumours, tmp_path / "model")
        assert patients(tumours, seen["train"]) == {"p0", "p1", "p2", "p3"}
        assert len(seen["train"]) == 4 * PER_PATIENT
        assert seen["val"] == set()
        card, history = read_card(tmp_path / "model"), read_history(tmp_path / "model")
        assert card.best_epoch == 3
        assert card.training_patients == 4
        assert set(card.metrics) == {"train_loss", "train_accuracy"}
        assert all(set(record) == {"epoch", "train_loss", "train_accuracy"} for record in history)

    @pytest.mark.parametrize("fold", [0, 3])
    def test_held_out_fold_is_never_seen(
        self, tumours: Path, tmp_path: Path, seen: dict[str, set[int]], fold: int
    ) -> None:
        run_unet(UNetConfig(fold=fold, run_name="U-Net", **SMALL), tumours, tmp_path / "model")
        assert len(patients(tumours, seen["train"])) == 3
        assert len(patients(tumours, seen["val"])) == 1
        assert patients(tumours, seen["train"] | seen["val"]) == {f"p{n}" for n in range(5)} - {f"p{fold}"}
        card = read_card(tmp_path / "model")
        assert (card.parameters["fold"], card.parameters["run_name"]) == (fold, "U-Net")

    def test_fold_that_does_not_exist_is_refused(self, tumours: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no patient in fold 9"):
            run_unet(UNetConfig(fold=9, **SMALL), tumours, tmp_path / "model")


class TestAveragePrecision:
    def test_it_is_that_of_scikit_learn_for_segmentation(self, tumours: Path, tmp_path: Path) -> None:
        run_unet(UNetConfig(**(SMALL | {"epochs": 6})), tumours, tmp_path / "model")
        slices = SliceSet(tumours)
        rows = slices.rows("val")
        images = torch.from_numpy(slices.gather("image", rows)).float() / 255
        odds = load_network(tmp_path / "model").foreground_logits(images).numpy().ravel()
        expected = average_precision_score(slices.gather("mask", rows).ravel(), odds)
        card, history = read_card(tmp_path / "model"), read_history(tmp_path / "model")
        assert card.metrics["val_average_precision"] == pytest.approx(expected, abs=1e-3)
        assert history[card.best_epoch - 1]["val_average_precision"] == card.metrics["val_average_precision"]
        assert all("val_average_precision" in record for record in history)
        assert expected > 0.05

    def test_it_is_that_of_scikit_learn_for_detection(self, tmp_path: Path) -> None:
        vertebrae = make_slices(tmp_path / "vertebrae", DETECTION)
        config = L3Config(architecture="resnet18", base_channels=4, epochs=3, batch_size=8, precision="fp32")
        run_l3(config, vertebrae, tmp_path / "model")
        slices = SliceSet(vertebrae)
        rows = slices.rows("val")
        odds = load_network(tmp_path / "model").foreground_logits(torch.from_numpy(slices.gather("image", rows)))
        expected = average_precision_score([slices.index[row].positive for row in rows], odds.numpy())
        assert read_card(tmp_path / "model").metrics["val_average_precision"] == pytest.approx(expected, abs=1e-3)

    def test_it_is_left_out_without_a_positive(self, tumours: Path, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        index = pq.read_table(tumours / "index.parquet").to_pandas()
        empty = (index["split"] == "val") & (index["label_pixels"] > 0)
        index.loc[empty, "split"] = "test"
        index.to_parquet(tumours / "index.parquet")
        run_unet(UNetConfig(**SMALL), tumours, tmp_path / "model")
        history = read_history(tmp_path / "model")
        assert all("val_f1" in record and "val_average_precision" not in record for record in history)


class TestTuned:
    def test_tuned_parameters_replace_those_given(self, tumours: Path, tmp_path: Path) -> None:
        run_unet(UNetConfig(seed=3, **SMALL), tumours, tmp_path / "tuned", tuned='{"alpha": 0.6, "gamma": "2.0"}')
        run_unet(UNetConfig(seed=3, alpha=0.6, gamma=2.0, **SMALL), tumours, tmp_path / "given")
        assert read_card(tmp_path / "tuned") == read_card(tmp_path / "given")
        one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("tuned", "given"))
        assert all(torch.equal(one[name], other[name]) for name in other)

    @pytest.mark.parametrize("text", ["", "  ", "{}"])
    def test_nothing_tuned_changes_nothing(self, text: str) -> None:
        config = UNetConfig(alpha=0.6)
        assert with_tuned(config, text) == config

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "expected a JSON object"),
            ("[1]", "expected a JSON object"),
            ('{"delta": 1}', "--delta: Extra inputs are not permitted"),
            ('{"alpha": 1.5}', "--alpha: Input should be less than or equal to 1"),
            ('{"gamma": NaN}', "--gamma"),
        ],
    )
    def test_what_does_not_fit_is_named(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            with_tuned(UNetConfig(), text)

    def test_any_configuration_can_be_tuned(self) -> None:
        class Other(StepConfig):
            size: int = 3

        assert with_tuned(Other(), json.dumps({"size": 4})) == Other(size=4)


class TestArchitectures:
    @pytest.mark.parametrize("architecture", ["segnet", "enet"])
    def test_other_networks_train_and_load(self, architecture: str, tmp_path: Path) -> None:
        slices = make_slices(tmp_path / "slices", SEGMENTATION, "train val test", side=32)
        config = UNetConfig(**(SMALL | {"architecture": architecture, "epochs": 1}))
        run_unet(config, slices, tmp_path / "model")
        card = read_card(tmp_path / "model")
        options = {"segnet": {"base_channels": 4, "depth": 2}, "enet": {"base_channels": 4}}[architecture]
        assert (card.architecture, card.architecture_options) == (architecture, options)
        assert load_network(tmp_path / "model").foreground_logits(torch.rand(1, 32, 32)).shape == (1, 32, 32)

    def test_width_zero_is_the_published_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from hounsfield.training import model

        slices = make_slices(tmp_path / "slices", SEGMENTATION, "train val test")
        built: list[Any] = []
        monkeypatch.setattr(model, "train_model", lambda architecture, *_, **__: built.append(architecture))
        for name in PUBLISHED_CHANNELS:
            run_unet(UNetConfig(architecture=name), slices, tmp_path / "model")
        assert [(one.name, one.options["base_channels"]) for one in built] == [
            ("unet", 64),
            ("segnet", 64),
            ("enet", 16),
        ]
        others = [set(one.options) - {"base_channels"} for one in built]
        assert others == [{"depth", "batch_norm"}, {"depth"}, set()]

    def test_training_begins_with_the_weights_given(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from hounsfield import models

        slices = make_slices(tmp_path / "slices", DETECTION)
        torch.manual_seed(9)
        given = models.build("resnet18", base_channels=4).state_dict()
        torch.save(given, tmp_path / "weights.pt")
        config = L3Config(
            architecture="resnet18", base_channels=4, epochs=1, batch_size=8, learning_rate=1e-12, l2=0.0,
            precision="fp32", initial_weights=str(tmp_path / "weights.pt"),
        )  # fmt: skip
        run_l3(config, slices, tmp_path / "model")
        trained = load_file(tmp_path / "model" / "weights.safetensors")
        for name, value in given.items():
            if name.endswith("weight") and not name.startswith("fc"):
                torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6)
        assert "initial weights: " in capsys.readouterr().out
