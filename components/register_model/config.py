"""Parameters of register-model."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Where the run and the model are recorded; an empty value stands for the default that its description names."""

    model_name: str = Field("", description="name of the registered model; empty for the task's, such as lung-tumour")
    experiment: str = Field(
        "", description="MLflow experiment; empty for MLFLOW_EXPERIMENT_ID or else the name of the registered model"
    )
    tracking_uri: str = Field(
        "", description="MLflow tracking URI; empty for MLFLOW_TRACKING_URI or else sqlite:///mlflow.db"
    )
    kfp_run_id: str = Field("", description="KFP run to tag the MLflow run with; empty for KFP_RUN_ID")
