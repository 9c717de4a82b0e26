"""Experiments of the two papers: what they printed, which trainings they need, and their summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hounsfield.data.evaluation import read_metrics
from hounsfield.data.model_store import WEIGHTS, ModelCard, read_card, read_history
from hounsfield.errors import ArtifactError
from hounsfield.storage import sha256_bytes


@dataclass(frozen=True)
class Run:
    """A trained model with its evaluation on unseen patients."""

    card: ModelCard
    history: list[dict[str, float]]
    """Metrics by epoch."""
    model: Path
    metrics: dict[str, Any]
    """metrics.json of the evaluation."""
    evaluation: Path

    @property
    def name(self) -> str:
        """Name that the training was given: `U-Net+CL`, `proposed`."""
        return str(self.card.parameters["run_name"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.card.parameters["seed"])

    @property
    def fold(self) -> int:
        """Cross-validation fold that was held out, -1 for none."""
        return int(self.card.parameters["fold"])


def pair(models: Sequence[Path], evaluations: Sequence[Path]) -> list[Run]:
    """Each model with its evaluation, matched by the hash of the weights, in the order of the models.

    Two runs may end with the same weights (a repeated seed): they are matched in order.

    Raises:
        ArtifactError: a directory is incomplete, or a model has no evaluation, or an evaluation no model.
    """
    measured: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for evaluation in evaluations:
        metrics = read_metrics(evaluation)
        measured.setdefault(str(metrics["model_hash"]), []).append((evaluation, metrics))
    runs = []
    for model in models:
        card = read_card(model)
        found = measured.get(sha256_bytes((model / WEIGHTS).read_bytes()), [])
        if not found:
            raise ArtifactError(f"no evaluation of model {model} among {len(evaluations)}: evaluate it, then summarise")
        evaluation, metrics = found.pop(0)
        runs.append(Run(card, read_history(model), model, metrics, evaluation))
    left = [str(evaluation) for found in measured.values() for evaluation, _ in found]
    if left:
        raise ArtifactError(f"{left[0]} is an evaluation of none of the {len(models)} models: give its model as well")
    return runs
