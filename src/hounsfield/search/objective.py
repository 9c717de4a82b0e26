"""What a search optimises: the validation metric of a training, and the value that the optimiser sees."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hounsfield.errors import TrainingError

Name = Literal["f1", "average_precision"]
LOWEST_F1 = 0.01
"""1/F1 is infinite at F1 = 0, which early trials do reach."""
OWN: dict[str, Name] = {"lung-tumour": "average_precision", "l3-slice": "f1"}
SHORT: dict[Name, str] = {"f1": "F1", "average_precision": "AP"}


@dataclass(frozen=True)
class Objective:
    """A validation metric that is better when higher.

    For `f1` the optimiser minimises 1 / max(F1, 0.01), for `average_precision` it maximises AP.
    """

    name: Name

    @property
    def metric(self) -> str:
        """Name of the metric in a model's card."""
        return f"val_{self.name}"

    @property
    def short(self) -> str:
        return SHORT[self.name]

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if self.name == "f1" else "maximize"

    @property
    def formula(self) -> str:
        """What the optimiser sees, in words."""
        return "minimise 1 / max(F1, 0.01)" if self.name == "f1" else "maximise the average precision"

    def read(self, metrics: Mapping[str, float]) -> float:
        """The objective among the metrics of a training.

        Raises:
            TrainingError: it is missing, not a number, or not between 0 and 1.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise TrainingError(f"the training reported no {self.metric}: it reported {known}")
        score = float(metrics[self.metric])
        if not math.isfinite(score):
            raise TrainingError(f"{self.metric} is {score}: the training diverged or has no positive to find")
        if not 0 <= score <= 1:
            raise TrainingError(f"{self.metric} is {score}: expected 0 to 1")
        return score

    def value(self, score: float) -> float:
        """What the optimiser sees of the objective `score`."""
        return 1 / max(score, LOWEST_F1) if self.name == "f1" else score

    def notes(self, score: float) -> dict[str, float]:
        """What is recorded beside the value: the objective, and for F1 its logarithm (of at least 0.01)."""
        logarithm = {"log_f1": math.log(max(score, LOWEST_F1))} if self.name == "f1" else {}
        return {self.name: score} | logarithm
