"""Parameters of plan-ingest."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """How an ingest is divided."""

    series_per_shard: int = Field(
        0, ge=0, description="series that one task of the ingest reads at most; 0 for one task that reads all"
    )
