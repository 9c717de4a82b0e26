"""Parameters of merge-stores."""

from hounsfield.step import StepConfig


class Config(StepConfig):
    """Merging has no parameter."""
