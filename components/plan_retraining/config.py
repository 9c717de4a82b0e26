"""Parameters of plan-retraining."""

from typing import Literal

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Which registered model is kept up to date; an empty text stands for the default that its description names."""

    task: Literal["lung-tumour", "l3-slice"] = Field("lung-tumour", description="what the model is for")
    model_name: str = Field("", description="name of the registered model; empty for the task's, such as lung-tumour")
    tracking_uri: str = Field(
        "", description="MLflow tracking URI; empty for MLFLOW_TRACKING_URI or else sqlite:///mlflow.db"
    )
