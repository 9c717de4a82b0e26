"""The network of a prediction, its name and version, and its application to the slices of a volume."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hounsfield.data.model_store import WEIGHTS
from hounsfield.errors import ArtifactError
from hounsfield.inference import Network, load_network
from hounsfield.storage import sha256_bytes
from hounsfield.windowing import Window

UNREGISTERED = "unregistered"
USE = "Research use only, not a medical device."


@dataclass(frozen=True)
class Predictor:
    """A loaded network that knows what to call itself: `name` and `version` of the registry, or of a local folder."""

    network: Network
    name: str
    version: str
    weights_sha256: str

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

    def scores(
        self, hu: npt.NDArray[np.int16], batch_size: int, advance: Callable[[int], None] = lambda slices: None
    ) -> npt.NDArray[np.float32]:
        """Log-odds of the foreground: (slices,) for l3-slice, else (slice, row, column) on the grid of `hu`.

        The slices go through the window and size that the model was trained with; log-odds come back to the original
        matrix by bilinear interpolation.

        Args:
            hu: (slice, row, column) int16, axes as in the series store.
            advance: called with the number of slices of each batch that is done.
        """
        window = Window(**self.network.card.window)
        segmentation = self.network.card.task == "lung-tumour"
        out = np.empty(hu.shape if segmentation else hu.shape[:1], np.float32)
        for start in range(0, len(hu), batch_size):
            block = slice(start, start + batch_size)
            odds = self.network.foreground_logits(window(torch.tensor(hu[block])))
            if segmentation and odds.shape[1:] != hu.shape[1:]:
                odds = torch.nn.functional.interpolate(
                    odds[:, None], size=hu.shape[1:], mode="bilinear", align_corners=False, antialias=True
                )[:, 0]
            out[block] = odds.numpy()
            advance(len(odds))
        return out


def load_predictor(task: str, directory: Path, name: str = "", number: str = "") -> Predictor:
    """Load a model directory for `task`; without a registered `name` and version `number` it is an unregistered one.

    Raises:
        ArtifactError: no complete model, or one of another task.
    """
    network = load_network(directory)
    if network.card.task != task:
        raise ArtifactError(f"the model is for {network.card.task}, expected one for {task}: choose another --model")
    digest = sha256_bytes((Path(directory) / WEIGHTS).read_bytes())
    return Predictor(network, name or f"{UNREGISTERED} {task}", number or digest[:12], digest)
