"""Parameters of evaluate-pr-ap."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """A threshold of 0 stands for the model's own."""

    split: Literal["test", "val", "train", "all"] = Field("test", description="patients to evaluate")
    fold: int = Field(
        -1,
        ge=-1,
        description="cross-validation fold that is the test split, as in the training; -1 for the slice set's splits",
    )
    threshold: float = Field(
        0.0, ge=0, lt=1, description="probability from which a pixel or slice is positive; 0 for the model's own"
    )
    vertebra_mm: float = Field(
        30.0, gt=0, description="L3: slice errors from this length in mm count as one vertebra or more"
    )
    batch_size: int = Field(8, ge=1, description="images predicted at once")
    shown_cases: int = Field(3, ge=1, description="worst and best cases that the report shows, each")
