"""A trained model as a pickle-free MLflow model that needs none of this package where it is loaded.

The files it needs travel with it. They are copied under a package name made of their content, so that versions with
different code can be loaded side by side in one process and never meet an installed hounsfield.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.models.model import ModelInfo
from mlflow.models.signature import ModelSignature
from mlflow.types import Schema, TensorSpec

import hounsfield
from hounsfield.data.model_store import CARD, WEIGHTS, ModelCard
from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.storage import sha256_bytes

MODEL_SIDE = ("__init__.py", "errors.py", "windowing.py", "models/*.py")
SCRIPT = Path(__file__).with_name("served.py")
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors")
IMPORT = re.compile(r"^(\s*(?:from|import)\s+)hounsfield\b", re.MULTILINE)


def log_model(directory: Path, card: ModelCard, run_id: str, tags: dict[str, str]) -> str:
    """Log the model of `directory` to the active run `run_id`, as a pyfunc model named after its task.

    A complete model with these `tags` that an earlier call logged to the run is taken as it is; what such a call left
    unfinished is deleted.

    Returns:
        The id of the logged model.
    """
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    of_run = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    earlier = [model for model in of_run if tags.items() <= model.tags.items()]
    for model in earlier:
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
    # MLflow records the paths of what it is given, so that everything is first copied to a folder that tells nothing.
    with tempfile.TemporaryDirectory(prefix="model-") as temporary:
        folder = Path(temporary)
        for name in (WEIGHTS, CARD):
            shutil.copyfile(directory / name, folder / name)
        with staged(folder) as (script, package):
            info: ModelInfo = mlflow.pyfunc.log_model(
                name=card.task,
                python_model=str(script),
                artifacts={"weights": str(folder / WEIGHTS), "card": str(folder / CARD)},
                code_paths=[str(package)],
                signature=signature(card.task),
                input_example=example(),
                pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
                metadata=metadata(card),
                tags=tags,
            )
    for model in earlier:
        client.delete_logged_model(model.model_id)
    return str(info.model_id)


@contextmanager
def staged(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Copies of the served script and of the package it imports, which is importable inside the block."""
    root = Path(hounsfield.__file__).parent
    sources = {path.relative_to(root): path.read_text() for glob in MODEL_SIDE for path in sorted(root.glob(glob))}
    script = SCRIPT.read_text()
    name = f"hounsfield_{sha256_bytes(*(text.encode() for text in (*sources.values(), script)))[:12]}"
    files = {Path(name) / relative: text for relative, text in sources.items()} | {Path(SCRIPT.name): script}
    for relative, text in files.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_text(IMPORT.sub(rf"\1{name}", text))
    sys.path.insert(0, str(folder))
    try:
        yield folder / SCRIPT.name, folder / name
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]


def signature(task: str) -> ModelSignature:
    """HU slices (N, H, W) to probabilities: (N, H, W) for lung-tumour, (N,) for l3-slice; float32."""
    shape = (-1, -1, -1) if task == SEGMENTATION else (-1,)
    float32 = np.dtype(np.float32)
    result = ModelSignature(Schema([TensorSpec(float32, (-1, -1, -1))]), Schema([TensorSpec(float32, shape)]))
    # MLflow then hands the input over as it came. Its own check would refuse int16, the type CT volumes have;
    # the served model checks more, and says what it expected.
    result._is_signature_from_type_hint = True
    return result


def example() -> npt.NDArray[np.float32]:
    """One slice of 16x16 pixels in HU: a disc of soft tissue in air."""
    rows, columns = np.mgrid[:16, :16] - 7.5
    return np.where(np.hypot(rows, columns) < 6, 40, -1000)[None].astype(np.float32)


def metadata(card: ModelCard) -> dict[str, Any]:
    """What a user of the loaded model may want to know without opening its card."""
    names = ("task", "architecture", "window", "image_size", "classes", "threshold")
    hashes = ("dataset_hash", "slice_set_hash", "code_version")
    return {name: getattr(card, name) for name in names + hashes} | {"input": "HU slices (N, H, W)"}
