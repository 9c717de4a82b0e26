"""Parameters of tune."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Search the parameters of a training on validation patients; an empty text stands for the task's own."""

    task: Literal["lung-tumour", "l3-slice"] = Field("lung-tumour", description="whose training is searched")
    trials: int = Field(0, ge=0, description="settings that the search trains; 0 keeps the given parameters")
    strategy: Literal["bayesian", "greedy"] = Field(
        "bayesian",
        description="Gaussian process over the whole space, or (lung-tumour) alpha under bl, then gamma under fl, then "
        "beta under cl, each on a grid that sets the number of trainings; it begins when trials is above 0",
    )
    space: Literal["", "joint", "proposed", "control"] = Field(
        "",
        description="joint (lung-tumour), proposed (l3-slice, 7 parameters) or control (l3-slice, without "
        "oversampling_rate and class_weight); empty for joint and proposed",
    )
    objective: Literal["", "f1", "average_precision"] = Field(
        "", description="validation metric to optimise; empty for average_precision (lung-tumour) and f1 (l3-slice)"
    )
    repeats: int = Field(
        1, ge=1, description="trainings of the winner in all, with seeds seed, seed + 1, ...: its spread is reported"
    )
    search_seed: int = Field(0, ge=0, description="seed of the search; the same seed tries the same parameters")
    start_from_given: bool = Field(
        True, description="try the given parameters first, when they lie in the space, so that the search never loses"
    )
    grid: str = Field(
        "", description='greedy: JSON such as {"alpha": [0.25, 0.75]} in place of the declared grids; empty for those'
    )
    fold: int = Field(-1, ge=-1, description="cross-validation fold held out in every trial; -1 for the training's own")
    experiment: str = Field("", description="MLflow experiment; empty for MLFLOW_EXPERIMENT_ID or the name of the task")
    tracking_uri: str = Field(
        "", description="MLflow tracking URI; empty for MLFLOW_TRACKING_URI, and without that nothing is logged"
    )
