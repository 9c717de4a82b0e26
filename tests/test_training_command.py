"""The command lines of the trainings: locations, the trial of a search, its last lines, its resumption from S3."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import s3_server
from katib_api import DEFAULT_FILTER, collected
from s3_server import ACCESS, BUCKET, SECRET
from slice_sets import make_slices

from hounsfield.components import training_command
from hounsfield.components.train_l3 import __main__ as l3
from hounsfield.components.train_unet import __main__ as unet
from hounsfield.components.train_unet.config import Config
from hounsfield.components.training_command import assigned, train
from hounsfield.data.model_store import ModelCard, write_model
from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.errors import InputError, TrainingError
from hounsfield.katib.experiment import METRICS_FORMAT
from hounsfield.remote import upload

TEXTS = {"loss": "fl", "alpha": "137", "gamma": "30", "beta": "219"}


def arguments(**values: Any) -> unet.Arguments:
    return unet.Arguments(**({"slices": "s", "out": "o"} | values))


def fake(metrics: dict[str, float]) -> Any:
    """A training step that only writes a model with these metrics."""

    def run(config: Any, slices: Path, model: Path, checkpoints: str, tuned: str) -> None:
        model.mkdir(parents=True)
        card = ModelCard.model_construct(
            task="lung-tumour", architecture="unet", architecture_options={}, parameters=config.model_dump(), window={},
            image_size=[16, 16], classes=["a", "b"], threshold=0.5, dataset_hash="d", slice_set_hash="s",
            training_patients=1, parameter_count=1, precision="fp32", best_epoch=1, metrics=metrics, code_version="0",
        )  # fmt: skip
        write_model(model, card, {}, [])
        print("train-unet 1/1 val_average_precision=0.1111")

    return run


def test_assigned_texts_are_decoded_into_the_configuration() -> None:
    given = Config(epochs=3, beta=0.2)
    config = assigned(given, "lung-tumour", arguments(assigned=json.dumps(TEXTS), space="joint"))
    assert (config.loss, config.alpha, config.gamma, config.epochs) == ("fl", 0.35, 0.5, 3)
    assert config.beta == 0.2, "fl has no beta: what was assigned to it changes nothing"
    assert assigned(given, "lung-tumour", arguments()) == given
    fixed = l3.Arguments(
        slices="s", out="o", space="control",
        assigned=json.dumps({"l2": "0.00010", "learning_rate": "1e-05", "batch_size": "45", "gradient_threshold": "0",
                             "gradient_threshold_method": "l2norm"}),
    )  # fmt: skip
    values = assigned(l3.Config(oversampling_rate=0.2), "l3-slice", fixed)
    assert (values.oversampling_rate, values.class_weight, values.batch_size, values.l2) == (0, 1, 48, 1e-4)


@pytest.mark.parametrize(
    ("text", "space", "sentence"),
    [
        ("{", "", "--assigned: expected a JSON object"),
        ("[1]", "", "--assigned: expected a JSON object of texts"),
        ('{"alpha": 3}', "", "--assigned: expected a JSON object of texts"),
        ('{"alpha": "3"}', "", r"assigned are \['alpha'\]: expected \['alpha', 'beta', 'gamma', 'loss'\]"),
        (json.dumps(TEXTS | {"alpha": "380"}), "", "alpha is assigned 380: expected an integer from 0 to 379"),
        (json.dumps(TEXTS | {"alpha": "${trialParameters.alpha}"}), "", "alpha is .*: expected a number"),
        (json.dumps(TEXTS), "control", "lung-tumour has no search space control"),
    ],
)
def test_assigned_texts_that_cannot_be_used(text: str, space: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        assigned(Config(), "lung-tumour", arguments(assigned=text, space=space))


def test_trial_prints_its_objective_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"val_average_precision": 0.91234567, "val_f1": 0.5, "val_loss": 12345.678, "loss": 0.1}
    made = arguments(slices=str(tmp_path), out=str(tmp_path / "m"), assigned=json.dumps(TEXTS))
    train(made, Config, "lung-tumour", fake(metrics))
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "val_average_precision=0.912346"
    names = ["val_average_precision", "val_f1", "val_loss"]
    expected = {"val_average_precision": ["0.912346"], "val_f1": ["0.500000"], "val_loss": ["12345.678000"]}
    assert collected(printed, names, [METRICS_FORMAT]) == expected
    theirs = collected(printed, names, [DEFAULT_FILTER])
    assert {name: values[-1:] for name, values in theirs.items()} == expected, "their latest is ours too"


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"val_f1": 0.5}, "the training reported no val_average_precision"),
        ({"val_average_precision": 1.5, "val_f1": 0.5}, "expected 0 to 1"),
    ],
)
def test_trial_without_a_usable_objective_fails(tmp_path: Path, metrics: dict[str, float], sentence: str) -> None:
    made = arguments(slices=str(tmp_path), out=str(tmp_path / "m"), objective="average_precision")
    with pytest.raises(TrainingError, match=sentence):
        train(made, Config, "lung-tumour", fake(metrics))


def test_plain_training_needs_no_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(arguments(slices=str(tmp_path), out=str(tmp_path / "m")), Config, "lung-tumour", fake({"loss": 0.5}))
    assert capsys.readouterr().out == "train-unet 1/1 val_average_precision=0.1111\n"


def test_processes_that_follow_store_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_command, "_stores", lambda: False)
    seen: list[Path] = []
    made = arguments(slices=str(tmp_path), out="s3://nowhere/m", objective="f1")
    train(made, Config, "lung-tumour", lambda config, slices, model, *rest: seen.append(model))
    assert len(seen) == 1


@pytest.mark.slow
def test_trial_trains_on_s3_and_resumes_there_after_preemption(s3_endpoint: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patch.setenv(name, environment[name])
        upload(make_slices(tmp_path / "slices", SEGMENTATION), f"s3://{BUCKET}/trial/slices")
    checkpoints = f"s3://{BUCKET}/trial/checkpoints"
    command = [
        sys.executable, "-m", "hounsfield.components.train_unet", f"--slices=s3://{BUCKET}/trial/slices",
        "--base-channels=4", "--depth=2", "--batch-size=5", "--precision=fp32", "--epochs=30",
        "--objective=average_precision", "--space=joint", f"--assigned={json.dumps(TEXTS)}",
    ]  # fmt: skip

    def trial(name: str, preempted: bool = False) -> tuple[int, str]:
        """Exit code and output of a pod: its own /tmp, the bucket's checkpoints."""
        scratch = tmp_path / name
        scratch.mkdir()
        own = environment | {"TMPDIR": str(scratch), "HOUNSFIELD_CHECKPOINTS": f"{checkpoints}/{name[0]}"}
        process = subprocess.Popen(
            [*command, f"--out={scratch}/model"], env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while preempted and not keys(f"trial/checkpoints/{name[0]}/"):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        if preempted:
            process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def keys(prefix: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
                patch.setenv(name, environment[name])
            found = s3_server.client(s3_endpoint).list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    code, output = trial("a1", preempted=True)
    assert code == 75, output
    assert output.splitlines()[-1].startswith("preempted: checkpoint saved")
    assert any(key.endswith("last.ckpt") for key in keys("trial/checkpoints/a/"))
    code, resumed = trial("a2")
    assert code == 0, resumed
    assert not keys("trial/checkpoints/a/"), "checkpoints go with the model"
    code, whole = trial("b1")
    assert code == 0, whole
    metrics = [re.findall(r"^val_\w+=\d\.\d{6}$", text, re.MULTILINE) for text in (resumed, whole)]
    assert metrics[0] == metrics[1] != []
    assert metrics[0][-1].startswith("val_average_precision=")
