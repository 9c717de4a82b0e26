"""Trials and parameters in words."""

from typing import TYPE_CHECKING

from hounsfield.search.objective import Objective

if TYPE_CHECKING:
    from hounsfield.search.study import Trial


def line(trial: "Trial", objective: Objective) -> str:
    """One line about a trial."""
    setting = " ".join(f"{name}={shown(value)}" for name, value in trial.parameters.items())
    if trial.same_as >= 0:
        return f"trial {trial.number}: as trial {trial.same_as} ({setting})"
    if trial.score is None:
        return f"trial {trial.number}: failed: {trial.cause} ({setting})"
    return f"trial {trial.number}: {objective.name}={trial.score:.4f} in {trial.seconds:.1f} s ({setting})"


def shown(value: str | float) -> str:
    """A parameter's value for people."""
    return value if isinstance(value, str) else f"{value:.4g}"
