"""Parameters of tune."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Search the parameters of a training on validation patients; an empty text stands for the task's own."""

    task: Literal["lung-tumour", "l3-slice"] = Field("lung-tumour", description="whose training is searched")
    backend: Literal["auto", "embedded", "katib"] = Field(
        "auto",
        description="embedded trains the trials in this step, katib as Jobs on a cluster; auto is katib where the "
        "pipeline gave the step a pool for them (HOUNSFIELD_POOL)",
    )
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
    algorithm: Literal["bayesianoptimization", "tpe", "random"] = Field(
        "bayesianoptimization", description="katib: its algorithm; the first is a Gaussian process"
    )
    parallel_trials: int = Field(
        2, ge=1, description="katib: trials at once; the more, the less each can learn from the others"
    )
    trial_hours: float = Field(
        24.0, gt=0, description="katib: hours after which a trial fails, waiting for nodes included"
    )
    patience_minutes: int = Field(
        30, ge=1, description="katib: minutes without any trial at work after which the search is given up"
    )
    keep_experiment: bool = Field(
        True, description="katib: leave the finished Experiment in the cluster, for Katib's UI and for a repeated call"
    )
