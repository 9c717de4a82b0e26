"""Two processes that share every batch train the network that one process trains, on one machine or by torchrun."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from s3_server import BUCKET, client
from safetensors.torch import load_file
from slice_sets import make_slices

from hounsfield import models
from hounsfield.components.train_unet.config import Config
from hounsfield.components.train_unet.run import run
from hounsfield.data.model_store import read_history
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.errors import InputError, Preempted
from hounsfield.losses import build_loss
from hounsfield.training import loop
from hounsfield.training.checkpoints import Checkpoints
from hounsfield.training.fit import train
from hounsfield.training.trainee import Plan

SMALL: dict[str, Any] = {
    "base_channels": 4, "depth": 2, "batch_size": 5, "learning_rate": 1e-3, "precision": "fp32", "epochs": 2,
}  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def assert_close_history(mine: list[dict[str, float]], others: list[dict[str, float]]) -> None:
    for one, other in zip(mine, others, strict=True):
        assert other["epoch"] == one["epoch"]
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert other["val_f1"] == pytest.approx(one["val_f1"], abs=1e-3)
        assert other["val_loss"] == pytest.approx(one["val_loss"], abs=0.05)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    slices = SliceSet(make_slices(tmp_path / "slices", SEGMENTATION))
    outcomes = []
    for devices in (1, 2):
        torch.manual_seed(0)
        network = models.build("unet", base_channels=4, depth=2)
        plan = Plan(epochs=2, batch_size=5, learning_rate=1e-3)
        folder = tmp_path / f"checkpoints-{devices}"
        outcomes.append(train(network, build_loss("cl"), slices, plan, folder, "test", "fp32", devices=devices))
    one, two = outcomes
    assert one is not None
    assert two is not None
    for name, value in one.state.items():
        torch.testing.assert_close(two.state[name], value, rtol=1e-3, atol=1e-5)
    assert_close_history(one.history, two.history)


def torchrun(slices: Path, out: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, *TORCHRUN, "-m", "hounsfield.components.train_unet", f"--slices={slices}"]
    return subprocess.run(
        [*command, f"--out={out}", *flags],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.slow
def test_processes_of_torchrun_equal_one_and_only_the_first_writes(tmp_path: Path) -> None:
    slices = make_slices(tmp_path / "slices", SEGMENTATION)
    ended = torchrun(slices, tmp_path / "two", {})
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("kept epoch") == 1
    run(Config(**SMALL), slices, tmp_path / "one")
    one, two = load_file(tmp_path / "one" / "weights.safetensors"), load_file(tmp_path / "two" / "weights.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    assert_close_history(read_history(tmp_path / "one"), read_history(tmp_path / "two"))
    assert {path.name for path in tmp_path.iterdir()} == {"slices", "one", "two"}


@pytest.mark.usefixtures("s3_environment")
class TestCheckpointsInS3:
    PREFIX = f"s3://{BUCKET}/checkpoints"

    def keys(self, endpoint: str) -> list[str]:
        listed = client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix="checkpoints/")
        return [item["Key"] for item in listed.get("Contents", [])]

    def stop_after(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        step, taken = loop._Loop._step, 0

        def counted(self: Any, *args: Any) -> None:
            nonlocal taken
            step(self, *args)
            taken += 1
            if taken == steps:
                self.preemption.requested = True

        monkeypatch.setattr(loop._Loop, "_step", counted)

    def test_another_machine_goes_on_from_them(
        self, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slices = make_slices(tmp_path / "slices", SEGMENTATION)
        run(Config(**SMALL), slices, tmp_path / "whole")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "machine-a"))
        (tmp_path / "machine-a").mkdir()
        with monkeypatch.context() as stopping:
            self.stop_after(stopping, 3)
            with pytest.raises(Preempted):
                run(Config(**SMALL), slices, tmp_path / "model", self.PREFIX)
        [key] = self.keys(s3_endpoint)
        assert key.endswith("/last.ckpt")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "machine-b"))
        (tmp_path / "machine-b").mkdir()
        monkeypatch.setenv("HOUNSFIELD_CHECKPOINTS", self.PREFIX)
        steps: list[int] = []
        step = loop._Loop._step
        monkeypatch.setattr(loop._Loop, "_step", lambda loop, *a: (steps.append(loop.trainee.step), step(loop, *a))[1])
        run(Config(**SMALL), slices, tmp_path / "model")
        assert steps[0] == 3
        one = load_file(tmp_path / "whole" / "weights.safetensors")
        other = load_file(tmp_path / "model" / "weights.safetensors")
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert self.keys(s3_endpoint) == []

    def test_storage_that_is_lost_on_the_way_does_not_end_a_training(
        self,
        s3_endpoint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        slices = make_slices(tmp_path / "slices", SEGMENTATION)
        opened = Checkpoints.open

        def lose(self: Checkpoints) -> None:
            opened(self)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")

        monkeypatch.setattr(Checkpoints, "open", lose)
        monkeypatch.setattr(Checkpoints, "discard", lambda self: None)
        run(Config(**SMALL), slices, tmp_path / "model", self.PREFIX)
        assert "warning: a checkpoint stays on this machine alone" in capsys.readouterr().out
        assert self.keys(s3_endpoint) == []

    def test_storage_that_refuses_is_known_before_the_first_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slices = make_slices(tmp_path / "slices", SEGMENTATION)
        monkeypatch.setattr(loop._Loop, "_step", lambda *_: pytest.fail("a step was taken"))
        with pytest.raises(InputError, match="s3://absent"):
            run(Config(**SMALL), slices, tmp_path / "model", "s3://absent/checkpoints")
