"""What a registered model runs: HU slices in, probabilities out, preprocessing inside.

MLflow stores this script with the model and runs it from there. It imports MLflow, torch, numpy and the files that
travel with the model, under the name that `hounsfield.registry.packaging` gives them.
"""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.torch import load_file

from hounsfield import models
from hounsfield.windowing import Window

PIXELS_AT_ONCE = 2**20
"""Input or network pixels of one batch, whichever are more: bounds the memory."""
HU_RANGE = (-32768, 32767)
AIR = -1024
"""Smallest HU of a scanner's usual range; padding may lie below."""
SCALED = 10
"""Values that stay this close to 0 were divided or normalised: the noise of a CT alone spans more."""
EXPECTED = (
    "expected HU slices: integers (not uint8) or floats of shape (N, H, W) "
    f"from {HU_RANGE[0]} to {HU_RANGE[1]}, air near -1000, water 0"
)


class ServedModel(PythonModel):
    """A network with its preprocessing, on the GPU when there is one, in float32: loading turns TF32 off there."""

    def load_context(self, context: PythonModelContext) -> None:
        card = json.loads(Path(context.artifacts["card"]).read_text())
        self.window = Window(**card["window"])
        self.size: tuple[int, int] = tuple(card["image_size"])
        self.segmentation = card["task"] == "lung-tumour"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.allow_tf32 = False
        network = models.build(card["architecture"], **card["architecture_options"])
        network.load_state_dict(load_file(context.artifacts["weights"]))
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Probability of the foreground class.

        Args:
            model_input: (N, H, W) Hounsfield units, integer or float; slices of any size, which are resized to the
                size of the training images.

        Returns:
            float32 in [0, 1]: lung-tumour (N, H, W) on the grid of the input, l3-slice (N,).

        Raises:
            MlflowException: the input is not of that shape, not finite, or cannot be HU.
        """
        hu = check_hu(model_input)
        rows, columns = hu.shape[1:]
        if len(hu) == 0:
            return np.empty((0, rows, columns) if self.segmentation else (0,), np.float32)
        step = max(1, PIXELS_AT_ONCE // max(rows * columns, self.size[0] * self.size[1]))
        parts = [self._probabilities(hu[start : start + step]) for start in range(0, len(hu), step)]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _probabilities(self, hu: np.ndarray) -> np.ndarray:
        slices = torch.from_numpy(np.ascontiguousarray(hu, dtype=np.float32)).to(self.device)
        images = fit(self.window(slices), self.size)
        logits = self.network(images[:, None]).float()
        log_odds = logits[:, 1] - logits[:, 0]
        if self.segmentation:
            log_odds = fit(log_odds, (hu.shape[1], hu.shape[2]))
        probabilities: np.ndarray = log_odds.sigmoid().cpu().numpy()
        return probabilities


def fit(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) resized to (N, *size), bilinear, antialiased when shrinking; unchanged when it already fits."""
    if tuple(images.shape[1:]) == size:
        return images
    return torch.nn.functional.interpolate(
        images[:, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]


def check_hu(slices: Any) -> np.ndarray:
    """`slices` as an array, if they can be Hounsfield units."""
    try:
        hu = np.asarray(slices)
    except ValueError:
        raise refused("slices of different sizes came") from None
    if hu.ndim != 3 or 0 in hu.shape[1:]:
        raise refused(f"shape {hu.shape} came")
    if hu.dtype.kind not in "iuf" or hu.dtype == np.uint8:
        raise refused(f"dtype {hu.dtype} came")
    if hu.size == 0:
        return hu
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite([low, high]).all():
        raise refused("NaN or infinite values came")
    came = f"values from {low:.7g} to {high:.7g} came"
    if low < HU_RANGE[0] or high > HU_RANGE[1]:
        raise refused(came)
    if low == high <= 0:
        return hu
    if max(-low, high) <= SCALED:
        raise refused(f"{came}: do not scale or normalise")
    if not AIR <= low < 0 and not ((hu >= AIR) & (hu < 0)).any():
        raise refused(f"{came}, none from {AIR} to 0: rescale stored values, do not window")
    return hu


def refused(came: str) -> MlflowException:
    """The error of an input that is not HU slices."""
    return MlflowException(f"{EXPECTED}; {came}", error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedModel())
