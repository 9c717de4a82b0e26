"""Two processes that share every batch train the network that one process trains."""

from pathlib import Path

import pytest
import torch
from slice_sets import make_slices

from hounsfield import models
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.losses import build_loss
from hounsfield.training.fit import train
from hounsfield.training.trainee import Plan


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
    assert [record["epoch"] for record in two.history] == [1, 2]
    for name, value in one.state.items():
        torch.testing.assert_close(two.state[name], value, rtol=1e-3, atol=1e-5)
    for mine, other in zip(one.history, two.history, strict=True):
        assert other["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-4)
        assert other["val_f1"] == pytest.approx(mine["val_f1"], abs=1e-3)
        assert other["val_loss"] == pytest.approx(mine["val_loss"], abs=0.05)
