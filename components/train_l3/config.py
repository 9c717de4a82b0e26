"""Parameters of train-l3."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Train an L3 slice detection network."""

    architecture: Literal["resnet50", "resnet34", "resnet18"] = Field("resnet50", description="classifier of slices")
    base_channels: int = Field(64, ge=1, description="channels of the first stage; they double at each of the four")
    initial_weights: str = Field(
        "", description="file or URI of weights to begin with, under the parameter names of torchvision or RadImageNet"
    )
    epochs: int = Field(10, ge=1, description="passes over the training slices")
    learning_rate: float = Field(3e-4, gt=0, description="initial learning rate of Adam")
    learning_rate_schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        "constant", description="constant, falling as half a cosine, or the same after a rise over the first tenth"
    )
    l2: float = Field(1e-4, ge=0, description="L2 regularisation: weight decay coupled with the gradient")
    batch_size: int = Field(32, ge=2, description="slices per step, over all devices together")
    gradient_threshold: float = Field(3.0, gt=0, description="L2 norm that gradients are scaled down to")
    gradient_threshold_method: Literal["l2norm", "global-l2norm"] = Field(
        "global-l2norm", description="clip each parameter tensor by its own norm, or all by the whole gradient's"
    )
    oversampling_rate: float = Field(
        0.0, ge=0, le=0.25, description="augmented L3 slices added, as a share of the number of other training slices"
    )
    class_weight: float = Field(1.0, ge=0, le=1, description="weight of the loss of the slices that are not L3")
    augment: bool = Field(False, description="random small affine maps and left-right reflections of training slices")
    keep: Literal["best", "last"] = Field(
        "best", description="weights of the epoch with the best F1 on the validation patients, or of the last epoch"
    )
    fold: int = Field(
        -1,
        ge=-1,
        description="cross-validation fold that is held out as test split; -1 for the splits of the slice set",
    )
    refit: bool = Field(
        False, description="train on the validation patients as well, without validation, and keep the last epoch"
    )
    validation: Literal["val", "test"] = Field(
        "val", description="split that chooses the epoch; test is optimistic: it is no longer unseen"
    )
    run_name: str = Field("", description="name under which reports list this training")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability above which a slice counts as L3")
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="fp32, bf16 autocast, or whichever a short probe finds faster on this device"
    )
