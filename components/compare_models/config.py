"""Parameters of compare-models."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Which champion is compared with; an empty text stands for the default that its description names."""

    model_name: str = Field("", description="name of the registered model; empty for the task's, such as lung-tumour")
    tracking_uri: str = Field(
        "", description="MLflow tracking URI; empty for MLFLOW_TRACKING_URI or else sqlite:///mlflow.db"
    )
