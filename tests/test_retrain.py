"""Scheduled retraining: when it trains, with what, against whom it is measured, and what a killed run leaves."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dicom_factory as factory
import mlflow
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from hounsfield.components.compare_models.config import Config as Compare
from hounsfield.components.compare_models.run import judge
from hounsfield.components.compare_models.run import run as compare
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.dicom_ingest.run import run as ingest
from hounsfield.components.evaluate_pr_ap.config import Config as Evaluate
from hounsfield.components.evaluate_pr_ap.run import run as evaluate
from hounsfield.components.plan_retraining.config import Config as Plan
from hounsfield.components.plan_retraining.run import run as plan
from hounsfield.components.register_model.config import Config as Register
from hounsfield.components.register_model.run import run as register
from hounsfield.components.update_dataset.config import Config as Update
from hounsfield.components.update_dataset.run import run as update
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.components.window_convert.run import run as window
from hounsfield.data.comparison import PAGE, Comparison, read_comparison
from hounsfield.data.model_store import PATIENTS, WEIGHTS, read_card
from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import split_of
from hounsfield.errors import ArtifactError, InputError
from hounsfield.registry import champion, policy, tracking
from hounsfield.storage import write_json

INJECTED = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "KFP_RUN_ID")
NAME = "lung-tumour"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUNSFIELD_PSEUDONYM_KEY", "a key of the tests")
    for name in INJECTED:
        monkeypatch.delenv(name, raising=False)


def patient(folder: Path, number: int, label: int = 1300) -> None:
    """A series of 32x32 pixels with a segmentation of the few voxels above `label` HU."""
    hu = factory.phantom((4, 32, 32), seed=number)
    uids = {"series": f"1.2.3.{number}", "frame_of_reference": f"1.2.{number}"}
    slices = factory.write_series(folder / f"p{number}" / "ct", hu, patient=f"P{number}", **uids)
    factory.write_seg(folder / f"p{number}" / "seg.dcm", slices, {"tumour": hu > label})


class Cycle:
    """The steps of the pipeline one by one, with an untrained network for a trained one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.dataset = folder, folder / "data", str(folder / "dataset")
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.runs = 0

    def begin(self, training: str = "", model_name: str = "") -> str:
        """Update and plan; the decision."""
        self.runs += 1
        self.out = self.folder / f"run-{self.runs}"
        self.version = update(Update(), [str(self.data)], "", self.dataset)
        config = Plan(tracking_uri=self.uri, model_name=model_name)
        self.plan = plan(config, self.dataset, self.version, training, self.out / "store")
        return self.plan.Output

    def begin_with(self, number: int) -> str:
        """Begin when another patient has come."""
        patient(self.data, number)
        return self.begin()

    def train(self, seed: int, split_seed: int = 0, twin: bool = False) -> None:
        """Window, train and evaluate; a `twin` has other weights with the same answers."""
        window(Window(size=32, split_seed=split_seed, test_fraction=0.4), self.out / "store", self.out / "slices")
        slices = SliceSet(self.out / "slices")
        self.model = tiny_model(self.out, seed=seed)
        card = read_card(self.model).model_dump() | {
            "dataset_hash": slices.dataset_hash,
            "slice_set_hash": slices.manifest["hash"],
            "parameters": json.loads(self.plan.training) | {"seed": seed},
        }
        write_json(self.model / "card.json", card)
        if twin:
            weights = load_file(self.model / WEIGHTS)
            counters = {name: value + 1 for name, value in weights.items() if name.endswith("num_batches_tracked")}
            assert counters
            save_file(weights | counters, self.model / WEIGHTS)
        seen = {name: sorted({slices.index[row].patient for row in slices.rows(name)}) for name in ("train", "val")}
        write_json(self.model / PATIENTS, {"trained_on": seen["train"], "chosen_by": seen["val"]})
        evaluate(Evaluate(), self.out / "slices", self.model, self.out / "evaluation")

    def compare(self, **rules: Any) -> Comparison:
        paths = self.out / "slices", self.model, self.out / "evaluation", self.out / "comparison"
        return compare(Compare(tracking_uri=self.uri, **rules), *paths, self.out / "store")

    def register(self) -> dict[str, Any]:
        paths = self.model, self.out / "evaluation"
        return register(Register(tracking_uri=self.uri), *paths, None, self.out / "comparison")

    def round(self, seed: int) -> dict[str, Any]:
        self.train(seed)
        self.compare()
        return self.register()

    def splits(self) -> dict[str, str]:
        return {item.patient: item.split for item in SliceSet(self.out / "slices").index}


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    made = Cycle(tmp_path)
    for number in range(6):
        patient(made.data, number)
    return made


@pytest.fixture
def client(cycle: Cycle) -> Iterator[MlflowClient]:
    with tracking.recording(cycle.uri):
        yield MlflowClient()


def test_trains_only_what_no_model_has_seen(
    cycle: Cycle, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cycle.begin('{"base_channels": 4, "epochs": 3}') == "retrain"
    assert json.loads(cycle.plan.training)["epochs"] == 3
    ingest(Ingest(), [str(cycle.data)], "", cycle.folder / "fresh")
    for path in (cycle.folder / "fresh").rglob("*.*"):
        assert path.read_bytes() == (cycle.out / "store" / path.relative_to(cycle.folder / "fresh")).read_bytes(), path
    first = cycle.round(seed=1)
    assert (first["version"], first["aliases"]) == (1, ["challenger", "champion"])
    before = cycle.splits()

    assert cycle.begin() == "current"
    assert not cycle.out.exists()
    assert "nothing to do: version 1 of lung-tumour was trained on version 1 of the dataset" in capsys.readouterr().out
    assert cycle.begin(model_name="another") == "retrain"

    for number in (6, 7, 8):
        patient(cycle.data, number)
    assert cycle.begin('{"epochs": 5}') == "retrain"
    inherited = json.loads(cycle.plan.training)
    assert (inherited["epochs"], inherited["base_channels"], inherited["seed"]) == (5, 4, 1)
    assert "with the parameters of champion lung-tumour version 1" in capsys.readouterr().out
    assert cycle.round(seed=2)["version"] == 2
    after = cycle.splits()
    assert len(after) == 9
    assert before == {key: after[key] for key in before}

    assert cycle.begin() == "current"
    patient(cycle.data, 3, label=1200)
    assert cycle.begin() == "retrain"
    assert cycle.version == "3"


@pytest.mark.parametrize("better", [True, False])
def test_champion_is_measured_on_the_same_patients(cycle: Cycle, client: MlflowClient, better: bool) -> None:
    cycle.begin()
    cycle.round(seed=1)
    cycle.begin_with(6)
    cycle.train(seed=2)
    outcome = cycle.compare()
    assert outcome == read_comparison(cycle.out / "comparison")
    old = evaluate(Evaluate(), cycle.out / "slices", cycle.folder / "run-1" / "model-lung-tumour", cycle.out / "again")
    assert outcome.champion == old["summary"]
    new = json.loads((cycle.out / "evaluation" / "metrics.json").read_text())["summary"]
    difference = new["average_precision"] - old["summary"]["average_precision"]
    assert outcome.metric == "average_precision"
    assert outcome.difference == pytest.approx(difference, abs=1e-3)
    for name, key in (("average_precision", "average_precision"), ("dice", "dice_per_patient_mean")):
        found = outcome.figures[name]
        assert (found["challenger"], found["champion"]) == pytest.approx((new[key], old["summary"][key]), abs=1e-3)
    assert (outcome.promote, outcome.reason[:37]) == (False, "Too few patients carry the verdict: 3")
    assert "lung-tumour version 1: unet" in (cycle.out / "comparison" / PAGE).read_text()

    decided = outcome.model_dump() | {"promote": better, "reason": "as the test says"}
    write_json(cycle.out / "comparison" / "comparison.json", decided)
    registered = cycle.register()
    assert registered["aliases"] == (["challenger", "champion"] if better else ["challenger"])
    assert int(client.get_model_version_by_alias(NAME, "champion").version) == 1 + better
    run = client.get_run(registered["run_id"]).data
    assert run.metrics["difference_average_precision"] == pytest.approx(outcome.difference)
    assert run.metrics["difference_dice_low"] == pytest.approx(outcome.figures["dice"]["low"])
    logged = {Path(item.path).name for item in client.list_artifacts(registered["run_id"], "comparison")}
    assert logged == {"comparison.json", PAGE}
    assert run.metrics["champion_f1"] == pytest.approx(old["summary"]["f1"])
    assert (run.tags["compared_with"], run.tags["verdict"]) == ("1", "as the test says")
    gate = client.get_model_version(NAME, "2").tags[champion.GATE]
    assert gate == ("promoted: as the test says" if better else "not promoted: as the test says")
    assert cycle.register()["aliases"] == registered["aliases"]


def test_gate_decides_by_the_rules_that_are_given(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    cycle.begin_with(6)
    cycle.train(seed=1, twin=True)
    rules: dict[str, Any] = {"min_patients": 1, "min_subgroup_patients": 1, "resamples": 1000}
    outcomes = {}
    for asked in ("newer", "better", "simpler"):
        outcome = outcomes[asked] = cycle.compare(policy=asked, **rules)
        assert (outcome.difference, outcome.promote) == (0.0, asked == "newer"), outcome.reason
        assert outcome.rules["policy"] == asked
    assert "not worse within the margin of 0.0200 and newer" in outcomes["newer"].reason
    assert "not simpler" in outcomes["simpler"].reason
    again = cycle.compare(policy="newer", **rules)
    assert again == outcomes["newer"]
    assert {name.split(":")[0] for name in again.subgroups} >= {"slice thickness", "manufacturer"}
    for kind in ("slice thickness", "manufacturer"):
        own = {name: group for name, group in again.subgroups.items() if name.startswith(kind)}
        assert sum(group["patients"] for group in own.values()) == again.figures["dice"]["patients"]
        assert all(group["judged"] and group["dice"] == 0.0 for group in own.values())
    assert cycle.register()["version"] == 2
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"


def test_champion_is_not_compared_with_itself(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    assert cycle.round(seed=1)["version"] == 1
    found = compare(
        Compare(tracking_uri=cycle.uri),
        cycle.out / "slices",
        cycle.model,
        cycle.out / "evaluation",
        cycle.out / "again",
    )
    assert (found.promote, found.champion_version, found.figures) == (False, "1", {})
    assert "the weights are the same" in found.reason


def test_l3_slice_is_judged_by_slice_error(cycle: Cycle, tmp_path: Path) -> None:
    cycle.begin()
    window(
        Window(task="l3-slice", size=32, test_fraction=0.4, max_prevalence=1.0),
        cycle.out / "store",
        cycle.out / "slices",
    )
    source, sides = SliceSet(cycle.out / "slices"), []
    for seed in (1, 2):
        model = tiny_model(tmp_path / f"of-{seed}", task="l3-slice", seed=seed)
        evaluate(Evaluate(), cycle.out / "slices", model, tmp_path / f"evaluation-{seed}")
        sides.append((model, tmp_path / f"evaluation-{seed}"))
    summaries = [json.loads((side[1] / "metrics.json").read_text())["summary"] for side in sides]
    decision = judge(Compare(resamples=1000), source, cycle.out / "store", sides, tmp_path / PAGE, "version 1")
    for name, key in (("slice_error_mm", "slice_error_mm_mean"), ("detection_rate", "detection_rate")):
        found = decision.differences[name]
        assert (found.challenger, found.champion) == pytest.approx(tuple(item[key] for item in summaries))
    assert "Slice error, mm of" in (tmp_path / PAGE).read_text()


def test_store_of_other_series_is_refused(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    patient(cycle.folder / "other", 50)
    ingest(Ingest(), [str(cycle.folder / "other")], "", cycle.folder / "fresh")
    model = tiny_model(cycle.folder / "second", seed=9)
    (model / PATIENTS).write_text((cycle.model / PATIENTS).read_text())
    evaluate(Evaluate(), cycle.out / "slices", model, cycle.out / "second")
    paths = cycle.out / "slices", model, cycle.out / "second", cycle.out / "x", cycle.folder / "fresh"
    with pytest.raises(ArtifactError, match="lacks series of the slice set"):
        compare(Compare(tracking_uri=cycle.uri), *paths)
    assert not (cycle.out / "x").exists()


def test_champion_of_another_split_stays_and_the_verdict_says_why(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    keys = cycle.splits()
    cycle.begin_with(6)
    other = next(
        seed for seed in range(1, 50) if {key for key, split in keys.items() if split == "train"}
        & {key for key in keys if split_of(key, seed, 0.15, 0.4) == "test"}
    )  # fmt: skip
    cycle.train(seed=2, split_seed=other)
    found = cycle.compare()
    assert not found.promote
    who = r"champion lung-tumour version 1"
    assert re.match(rf"It cannot be compared: the training of {who} saw \d of the \d test patients", found.reason)
    assert not (cycle.out / "comparison" / PAGE).exists()
    cycle.register()
    version = client.get_model_version(NAME, "2")
    assert version.tags["gate"].startswith("not promoted: It cannot be compared")
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "1"


def test_champion_that_does_not_say_whom_it_saw_is_refused(
    cycle: Cycle, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle.begin()
    cycle.train(seed=1)
    cycle.compare()
    monkeypatch.setattr("hounsfield.registry.logs.PATIENTS", "history.json")
    cycle.register()
    with pytest.raises(ArtifactError, match=r"version 1 of lung-tumour was registered without patients\.json"):
        champion.fetch(client.get_model_version(NAME, "1"), cycle.folder / "champion")


def test_evaluation_and_comparison_must_be_of_the_model(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    first = cycle.out / "comparison"
    cycle.runs += 1
    other = tiny_model(cycle.folder / "other", seed=9)
    (other / PATIENTS).write_text((cycle.model / PATIENTS).read_text())
    with pytest.raises(ArtifactError, match="has model_hash"):
        compare(Compare(tracking_uri=cycle.uri), cycle.out / "slices", other, cycle.out / "evaluation", cycle.out / "x")
    evaluate(Evaluate(), cycle.out / "slices", other, cycle.out / "other")
    with pytest.raises(InputError, match="compares another model"):
        register(Register(tracking_uri=cycle.uri), other, cycle.out / "other", None, first)


def test_registration_that_was_killed_is_taken_up(
    cycle: Cycle, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle.begin()
    cycle.train(seed=1)
    cycle.compare()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(policy, "assign_aliases", killed)
        with pytest.raises(KeyboardInterrupt):
            cycle.register()
    assert len(client.search_model_versions(f"name='{NAME}'")) == 1
    model, evaluation = cycle.model, cycle.out / "evaluation"
    assert cycle.begin() == "retrain"
    cycle.out, cycle.model = evaluation.parent, model
    assert cycle.register()["aliases"] == ["challenger", "champion"]
    assert cycle.begin() == "current"


def test_champion_that_came_after_the_comparison_stays(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    cycle.begin_with(6)
    cycle.round(seed=2)
    client.set_registered_model_alias(NAME, "champion", "1")
    cycle.begin_with(7)
    cycle.train(seed=3)
    outcome = cycle.compare()
    write_json(cycle.out / "comparison" / "comparison.json", outcome.model_dump() | {"promote": True})
    client.set_registered_model_alias(NAME, "champion", "2")
    assert cycle.register()["aliases"] == ["challenger"]
    assert client.get_model_version(NAME, "3").tags[champion.GATE].startswith("not promoted: version 2 became champion")


def test_later_verdict_on_the_same_weights_takes_the_place_of_the_first(cycle: Cycle, client: MlflowClient) -> None:
    cycle.begin()
    cycle.round(seed=1)
    cycle.begin_with(6)
    cycle.train(seed=2)
    refused = cycle.compare(min_patients=1000)
    assert cycle.register()["aliases"] == ["challenger"]
    write_json(cycle.out / "comparison" / "comparison.json", refused.model_dump() | {"promote": True, "reason": "Now."})
    again = cycle.register()
    assert (again["version"], again["aliases"]) == (2, ["challenger", "champion"])
    made = client.get_model_version(NAME, "2")
    run = client.get_run(str(made.run_id))
    assert made.tags[champion.GATE] == "promoted: Now."
    assert run.data.tags["verdict"] == "Now."
    card = mlflow.artifacts.load_text(f"runs:/{made.run_id}/model_card.md")
    assert "version 1: Now." in card
    assert "version 1: Now." in made.description
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{made.run_id}/comparison/comparison.json"))["promote"] is True
    client.update_model_version(NAME, "2", "Read by Dr. Roentgen.")
    cycle.register()
    assert client.get_model_version(NAME, "2").description == "Read by Dr. Roentgen."


def test_parameters_that_do_not_fit_are_named(cycle: Cycle) -> None:
    expected = "expected a JSON object"
    for training, sentence in (("{", expected), ("[1]", expected), ('{"epoch": 1}', "--epoch")):
        with pytest.raises(InputError, match=sentence):
            cycle.begin(training)
        assert not cycle.out.exists()
