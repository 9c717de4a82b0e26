"""Networks whose answer is known, as predictors (what is bright is tumour, or L3), and predictions with them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from torch import nn

from hounsfield.data.model_store import ModelCard
from hounsfield.dicom.sources import walk
from hounsfield.inference import Network
from hounsfield.predict.model import Predictor
from hounsfield.predict.run import Outcome, predict_files
from hounsfield.windowing import window_for

DATASET, WEIGHTS_HASH = "da7a" * 16, "3e16" * 16
BRIGHT_HU = 200
"""Far above the middle of the mediastinal window (50 HU), at which `Bright` decides."""
SHAPE = (12, 40, 40)
SPACING = (2.5, 0.8, 0.8)
BOXES = {1: (slice(2, 8), slice(10, 20), slice(5, 25)), 2: (slice(9, 11), slice(30, 34), slice(30, 33))}


class Bright(nn.Module):
    """Log-odds of a pixel: positive where the windowed image is above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        odds = 40 * (images - 0.5)
        return torch.cat([torch.zeros_like(odds), odds], dim=1)


class BrightSlice(nn.Module):
    """Log-odds of a slice: positive where more than a quarter of the stretched image is above one half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        odds = 20 * ((images > 0.5).float().mean(dim=(1, 2, 3)) - 0.25)
        return torch.stack([torch.zeros_like(odds), odds], dim=1)


def predictor(task: str = "lung-tumour", size: int = 40, version: str = "3") -> Predictor:
    """A predictor that answers by brightness; `size` is that of the network's images."""
    card = ModelCard(
        task=task,
        architecture="unet",
        architecture_options={},
        parameters={},
        window=window_for(task, size=size).to_dict(),
        image_size=[size, size],
        classes=["background", "foreground"],
        threshold=0.5,
        dataset_hash=DATASET,
        slice_set_hash="5" * 64,
        training_patients=5,
        parameter_count=0,
        precision="float32",
        best_epoch=1,
        metrics={},
        code_version="0.1.0",
    )
    module = Bright() if task == "lung-tumour" else BrightSlice()
    return Predictor(Network(module, card, torch.device("cpu")), f"ward {task}", version, WEIGHTS_HASH)


def scan(boxes: dict[int, Any] = BOXES) -> npt.NDArray[np.int16]:
    """A field of view inside a lung, with bright boxes."""
    hu = np.full(SHAPE, -800, np.int16)
    for box in boxes.values():
        hu[box] = BRIGHT_HU
    return hu


def predict(data: Path, out: Path, task: str = "lung-tumour", size: int = 40, version: str = "3") -> list[Outcome]:
    return predict_files(task, walk(data), predictor(task, size, version), out, min_slices=10, batch_size=5)


def result(out: Path) -> tuple[Path, dict[str, Any]]:
    """The only result folder below `out` and its figures."""
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder, json.loads((folder / "result.json").read_text())


def leaves(dataset: pydicom.Dataset) -> str:
    """Every value of a DICOM object as text."""
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR != "SQ")


def dicom_errors(path: Path) -> list[str]:
    """What dciodvfy calls errors in a DICOM file; skips the test where that is not installed, except in CI."""
    program = shutil.which("dciodvfy")
    if program is None:
        assert not os.environ.get("HOUNSFIELD_REQUIRE_REAL_DATA"), "dciodvfy is required here: install dicom3tools"
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]
