"""KFP signature of train-unet."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import TRAINING_IMAGE
from hounsfield.components.train_unet.config import Config


@dsl.component(base_image=TRAINING_IMAGE, install_kfp_package=False)
@described(Config)
def train_unet(
    slices: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    architecture: str = "unet",
    base_channels: int = 0,
    depth: int = 5,
    batch_norm: bool = False,
    loss: str = "cl",
    alpha: float = 0.25,
    gamma: float = 4.0,
    beta: float = 0.7,
    smooth: float = 1e-6,
    prior: float = 0.01,
    learning_rate: float = 1e-3,
    adam_beta2: float = 0.999,
    learning_rate_schedule: str = "constant",
    batch_size: int = 30,
    epochs: int = 100,
    negatives_per_positive: float = 0.0,
    augment: bool = False,
    keep: str = "best",
    fold: int = -1,
    refit: bool = False,
    validation: str = "val",
    run_name: str = "",
    threshold: float = 0.5,
    seed: int = 0,
    precision: str = "auto",
    training: str = "",
    tuned: str = "",
    checkpoints: str = "",
    code_version: str = "",
):
    """Train a lung-tumour segmentation network."""
    arguments = dict(locals())
    from hounsfield.components.train_unet.config import Config
    from hounsfield.components.train_unet.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
