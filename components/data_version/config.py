"""Parameters of data-version."""

from pydantic import Field

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Work out a version of the data, which changes with any file."""

    given: str = Field("", description="any text; another text is another version, whatever the data")
