"""The artifact of a search: trials.parquet and best.json beside its report.

manifest.json    kind "tuning", version, task, identity of the study
trials.parquet   one row per trial: number, state, objective, cause, parameters (`param_*`), metrics
best.json        the best parameters, their objective, the spread of their repeats, the steps of a greedy search
report.html      history, importance, parallel coordinates, trials; figures/ has the figures as PNG and SVG
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from hounsfield.metrics.counts import Spread
from hounsfield.search.objective import Objective
from hounsfield.search.space import Parameters, Space
from hounsfield.storage import write_json

if TYPE_CHECKING:
    from hounsfield.search.study import Trial

KIND = "tuning"
VERSION = 1
TRIALS, BEST, REPORT, FIGURES = "trials.parquet", "best.json", "report.html", "figures"


@dataclass(frozen=True)
class Result:
    """A finished search. `repeats` are the trainings of the winner, `steps` the winners of a greedy search by loss."""

    space: Space
    objective: Objective
    strategy: str
    optimistic: bool
    fold: int
    seed: int
    trials: Sequence["Trial"] = ()
    best: "Trial | None" = None
    repeats: Sequence["Trial"] = ()
    steps: Mapping[str, "Trial"] = field(default_factory=dict)
    grids: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def parameters(self) -> Parameters:
        """The best parameters with those that the space holds fixed; empty without a search."""
        return {} if self.best is None else dict(self.space.fixed) | self.best.parameters

    @property
    def spread(self) -> Spread:
        """Of the objective over the repeats that ended well."""
        return Spread.of(trial.score for trial in self.repeats)

    def describe(self, **provenance: str) -> dict[str, Any]:
        """The content of best.json."""
        counts = {state: sum(trial.state == state for trial in self.trials) for state in ("complete", "failed")}
        repeats = [
            {"seed": trial.parameters["seed"], "objective": trial.score, "cause": trial.cause} for trial in self.repeats
        ]
        spread = self.spread
        return {
            "task": self.space.task,
            "space": self.space.name,
            "strategy": self.strategy,
            "objective": self.objective.name,
            "optimistic": self.optimistic,
            "fold": self.fold,
            "search_seed": self.seed,
            "parameters": self.parameters,
            "trial": -1 if self.best is None else self.best.number,
            "value": None if self.best is None else self.best.score,
            "trials": {"all": len(self.trials), **counts, "taken_over": sum(t.same_as >= 0 for t in self.trials)},
            "repeats": {
                "trainings": repeats,
                "n": spread.n,
                "mean": spread.mean,
                "sd": spread.sd,
                "min": spread.minimum,
                "max": spread.maximum,
            },
            "steps": {
                loss: {"parameters": trial.parameters, "trial": trial.number, "value": trial.score}
                for loss, trial in self.steps.items()
            },
            **provenance,
        }


def write_tables(directory: Path, result: Result, **provenance: str) -> None:
    """Write trials.parquet and best.json."""
    write_json(directory / BEST, result.describe(**provenance))
    metrics = sorted({name for trial in result.trials for name in trial.metrics})
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "number": (pa.int32(), [trial.number for trial in result.trials]),
        "state": (pa.string(), [trial.state for trial in result.trials]),
        "objective": (pa.float64(), [trial.score for trial in result.trials]),
        "value": (pa.float64(), [trial.value for trial in result.trials]),
        "cause": (pa.string(), [trial.cause for trial in result.trials]),
        "same_as": (pa.int32(), [trial.same_as for trial in result.trials]),
        "interruptions": (pa.int32(), [trial.interruptions for trial in result.trials]),
        "started": (pa.float64(), [trial.started for trial in result.trials]),
        "seconds": (pa.float64(), [trial.seconds for trial in result.trials]),
    }
    for name in result.space.names:
        values = [trial.parameters.get(name) for trial in result.trials]
        text = any(isinstance(value, str) for value in values)
        columns[f"param_{name}"] = (pa.string() if text else pa.float64(), values)
    for name in metrics:
        columns[name] = (pa.float64(), [trial.metrics.get(name) for trial in result.trials])
    arrays = [pa.array(values, type=kind) for kind, values in columns.values()]
    pq.write_table(pa.table(arrays, names=list(columns)), directory / TRIALS, compression="zstd")
