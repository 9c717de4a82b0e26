"""Parameters of compare-models."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Which champion is compared with, and when it is replaced.

    An empty text stands for the default that its description names. Margins are losses that are put up with, of all
    patients together; a subgroup may lose `subgroup_margin` of them.
    """

    model_name: str = Field("", description="name of the registered model; empty for the task's, such as lung-tumour")
    tracking_uri: str = Field(
        "", description="MLflow tracking URI; empty for MLFLOW_TRACKING_URI or else sqlite:///mlflow.db"
    )
    policy: Literal["better", "simpler", "newer"] = Field(
        "newer",
        description="what makes the new model champion: better only, or also not worse within the margin and simpler "
        "(fewer parameters), or also not worse within the margin, being newer",
    )
    margin_average_precision: float = Field(0.02, ge=0, lt=1, description="lung-tumour: margin of average precision")
    margin_dice: float = Field(0.02, ge=0, lt=1, description="lung-tumour: margin of the mean Dice per patient")
    margin_slice_error_mm: float = Field(1.0, ge=0, description="l3-slice: margin of the mean slice error in mm")
    margin_detection_rate: float = Field(0.02, ge=0, lt=1, description="l3-slice: margin of the detection rate")
    min_patients: int = Field(
        10, ge=1, description="test patients with a tumour or a labelled L3 slice that a promotion needs at least"
    )
    subgroup_margin: float = Field(1.0, ge=1, description="how many margins a subgroup may lose")
    min_subgroup_patients: int = Field(
        10, ge=1, description="such patients that a subgroup needs to be able to forbid a promotion"
    )
    resamples: int = Field(10000, ge=1000, description="resamples of the patients for the 95 % intervals")
    bootstrap_seed: int = Field(0, ge=0, description="seed of the resamples: the same data gives the same verdict")
