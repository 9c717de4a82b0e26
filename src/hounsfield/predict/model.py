"""The network of a prediction, its name and version, and its application to the slices of a volume."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hounsfield.data.model_store import WEIGHTS
from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.errors import ArtifactError
from hounsfield.inference import Network, Precision, has_bf16, load_network
from hounsfield.predict.scoring import Scorer, Scores
from hounsfield.storage import sha256_bytes

UNREGISTERED = "unregistered"
USE = "Research use only, not a medical device."


@dataclass(frozen=True)
class Predictor:
    """A loaded network that knows what to call itself: `name` and `version` of the registry, or of a local folder."""

    network: Network
    name: str
    version: str
    weights_sha256: str
    precision: Precision = "fp32"
    """bf16 screens the slices first: see `hounsfield.predict.scoring`."""

    def provenance(self) -> dict[str, Any]:
        """What made a prediction, for every object of it."""
        card = self.network.card
        return {
            "model_name": self.name,
            "model_version": self.version,
            "model_sha256": self.weights_sha256,
            "architecture": card.architecture,
            "dataset_hash": card.dataset_hash,
            "threshold": card.threshold,
            "trained_with": card.code_version,
            "code_version": version("hounsfield"),
        }

    @property
    def signature(self) -> str:
        """The same in short, for pictures."""
        card = self.network.card
        made = f"{self.name} version {self.version}, dataset {card.dataset_hash[:12]}"
        return f"{made}, hounsfield {version('hounsfield')}\n{USE}"

    def scores(
        self, hu: npt.NDArray[np.int16], batch_size: int, advance: Callable[[int], None] = lambda slices: None
    ) -> Scores:
        """Log-odds of the foreground: (slices,) for l3-slice, else (slice, row, column) on the grid of `hu`.

        Args:
            hu: (slice, row, column) int16, axes as in the series store.
            advance: called with the number of slices whenever some are done.
        """
        scorer = Scorer(self.network, hu, batch_size, advance)
        return scorer.screened() if self.precision == "bf16" else scorer.fp32()


def load_predictor(
    task: str, directory: Path, name: str = "", number: str = "", precision: Literal["auto"] | Precision = "auto"
) -> Predictor:
    """Load a model directory for `task`; without a registered `name` and version `number` it is an unregistered one.

    Args:
        precision: "auto" is bf16 for masks where the device has it. Probabilities of L3 are themselves a result, and
            in float32 they are the same everywhere.

    Raises:
        ArtifactError: no complete model, or one of another task.
    """
    network = load_network(directory)
    if network.card.task != task:
        raise ArtifactError(f"the model is for {network.card.task}, expected one for {task}: choose another --model")
    digest = sha256_bytes((Path(directory) / WEIGHTS).read_bytes())
    if precision == "auto":
        precision = "bf16" if task == SEGMENTATION and has_bf16(network.device) else "fp32"
    return Predictor(network, name or f"{UNREGISTERED} {task}", number or digest[:12], digest, precision)
