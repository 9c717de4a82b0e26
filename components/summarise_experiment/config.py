"""Parameters of summarise-experiment."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Summarise the runs of an experiment beside the paper's figures."""

    data_name: str = Field(
        "your data", description="what the images are, as the tables name them: phantoms, or a cohort"
    )
