"""Small untrained models and evaluations in the layout of the real ones."""

from pathlib import Path
from typing import Any

import torch

from hounsfield import models
from hounsfield.data import evaluation as evaluations
from hounsfield.data.model_store import WEIGHTS, ModelCard, read_card, write_model
from hounsfield.storage import sha256_bytes, write_json, write_manifest
from hounsfield.windowing import window_for

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lung-tumour": ("unet", {"base_channels": 4, "depth": 3, "batch_norm": True}),
    "l3-slice": ("resnet18", {}),
}
HISTORY = [{"epoch": 0, "train_loss": 0.9, "val_f1": 0.1}, {"epoch": 1, "train_loss": 0.4, "val_f1": 0.6}]


def tiny_model(folder: Path, task: str = "lung-tumour", size: int = 32, seed: int = 7) -> Path:
    """A model directory with random weights, seeded."""
    architecture, options = NETWORKS[task]
    torch.manual_seed(seed)
    network = models.build(architecture, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    card = {
        "task": task,
        "architecture": architecture,
        "architecture_options": options,
        "parameters": {"learning_rate": 0.001, "loss": "CL"},
        "window": window_for(task, size=size).to_dict(),
        "image_size": [size, size],
        "classes": ["background", "foreground"],
        "threshold": 0.5,
        "dataset_hash": "d" * 64,
        "slice_set_hash": "5" * 64,
        "training_patients": 5,
        "parameter_count": models.parameter_count(network),
        "precision": "float32",
        "best_epoch": 1,
        "metrics": {"val_f1": 0.6},
        "code_version": "0.1.0",
    }
    directory = folder / f"model-{task}"
    directory.mkdir(parents=True)
    write_model(directory, ModelCard.model_validate(card), network.state_dict(), HISTORY)
    return directory


def tiny_evaluation(folder: Path, model: Path) -> Path:
    """An evaluation directory of `model` with a few figures."""
    task = read_card(model).task
    directory = folder / f"evaluation-{task}"
    (directory / "figures").mkdir(parents=True)
    described = {"task": task, "split": "test", "summary": {"f1": 0.8, "patients": 6}, "model": {"best_epoch": 1}}
    write_json(
        directory / "metrics.json",
        described | {"pooled": {"recall": 0.75, "precision": None}, "per_patient": {"dice_mean": 0.7}},
    )
    (directory / "report.html").write_text("<html></html>")
    (directory / "figures" / "pr_curve.png").write_bytes(b"\x89PNG")
    (directory / "unrelated.txt").write_text("stays here")
    weights = sha256_bytes((model / WEIGHTS).read_bytes())
    hashes = {"dataset_hash": "e" * 64, "model_hash": weights}
    write_manifest(directory, evaluations.KIND, evaluations.VERSION, task=task, **hashes)
    return directory
