"""KFP signature of train-l3."""

from kfp import dsl

from hounsfield.components.describe import described
from hounsfield.components.images import TRAINING_IMAGE
from hounsfield.components.train_l3.config import Config


@dsl.component(base_image=TRAINING_IMAGE, install_kfp_package=False)
@described(Config)
def train_l3(
    slices: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    architecture: str = "resnet50",
    base_channels: int = 64,
    initial_weights: str = "",
    epochs: int = 10,
    learning_rate: float = 3e-4,
    learning_rate_schedule: str = "constant",
    l2: float = 1e-4,
    batch_size: int = 32,
    gradient_threshold: float = 3.0,
    gradient_threshold_method: str = "global-l2norm",
    oversampling_rate: float = 0.0,
    class_weight: float = 1.0,
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
    """Train an L3 slice detection network."""
    arguments = dict(locals())
    from hounsfield.components.train_l3.config import Config
    from hounsfield.components.train_l3.run import run
    from hounsfield.step import run_in_pipeline

    run_in_pipeline(run, Config, arguments)
