"""Parameters that both trainings have."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class TrainingConfig(StepConfig):
    """How a training goes, whatever it trains."""

    learning_rate_schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        "constant", description="constant, falling as half a cosine, or the same after a rise over the first tenth"
    )
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
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="fp32, bf16 autocast, or whichever a short probe finds faster on this device"
    )
