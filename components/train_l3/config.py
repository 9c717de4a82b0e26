"""Parameters of train-l3."""

from typing import Literal

from pydantic import Field

from hounsfield.components.training_config import TrainingConfig


class Config(TrainingConfig):
    """Train an L3 slice detection network."""

    architecture: Literal["resnet50", "resnet34", "resnet18"] = Field("resnet50", description="classifier of slices")
    base_channels: int = Field(64, ge=1, description="channels of the first stage; they double at each of the four")
    initial_weights: str = Field(
        "", description="file or URI of weights to begin with, under the parameter names of torchvision or RadImageNet"
    )
    epochs: int = Field(10, ge=1, description="passes over the training slices")
    learning_rate: float = Field(3e-4, gt=0, description="initial learning rate of Adam")
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
    threshold: float = Field(0.5, gt=0, lt=1, description="probability above which a slice counts as L3")
