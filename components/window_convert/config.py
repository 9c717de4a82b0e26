"""Parameters of window-convert."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """A width or size of 0 stands for the task's own: 350/50 HU at 512 pixels, or 1700/650 HU at 224."""

    task: Literal["lung-tumour", "l3-slice"] = Field("lung-tumour", description="what the slices are prepared for")
    width: float = Field(0.0, ge=0, description="window width in HU; 0 for the task's own window")
    level: float = Field(0.0, description="window level (centre) in HU; used together with width")
    size: int = Field(0, ge=0, description="rows and columns of the images in pixels; 0 for the task's own size")
    test_fraction: float = Field(0.2, ge=0, lt=1, description="share of the patients held out for the evaluation")
    val_fraction: float = Field(0.15, ge=0, lt=1, description="share of the patients that choose the best epoch")
    split_seed: int = Field(0, description="seed of the split; with a patient's key it alone decides the split")
    folds: int = Field(5, ge=2, description="number of cross-validation folds")
    max_prevalence: float = Field(
        0.0,
        ge=0,
        le=1,
        description="stop above this share of positive pixels (lung-tumour) or slices (l3-slice); 0 for 0.25 and 0.5",
    )
