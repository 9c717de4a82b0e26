"""A search in this process: trials of the training step one after another, in a study on disk."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hounsfield import remote
from hounsfield.components.tune.config import Config
from hounsfield.components.tune.lines import line
from hounsfield.errors import InputError, TrainingError
from hounsfield.progress import Progress, ProgressLine, reported_to
from hounsfield.search.objective import Objective
from hounsfield.search.result import Result
from hounsfield.search.space import Parameters
from hounsfield.step import StepConfig, parse

if TYPE_CHECKING:
    from hounsfield.search.study import Trial


def search(config: Config, empty: Result, base: StepConfig, slices: Path, location: str) -> Result:
    """Run the trials and the repeats of the winner in the study at `location`, a folder or an s3:// prefix."""
    from dataclasses import replace

    from hounsfield.search import greedy
    from hounsfield.search.proposals import bayesian, seeds
    from hounsfield.search.study import Study, best_of, locked, preemptible

    given = base.model_dump()
    space, objective = empty.space, empty.objective
    grids: dict[str, Sequence[float]] = {}
    count = config.trials
    if config.strategy == "greedy":
        grids = greedy.grids_of(space, grid_values(config.grid))
        count = greedy.trial_count(grids)
        propose = greedy.greedy(grids)
    else:
        first = space.given(given) if config.start_from_given else None
        propose = bayesian(space, config.trials, config.search_seed, first)
    folder = working_copy(location)
    with preemptible(), locked(folder), Progress("tune", count + config.repeats - 1) as progress:
        bring(location, folder)
        trials = Trials(base, slices, location, folder, objective, progress)
        study = Study(folder, "search", objective, space.distributions())
        finished = study.run(propose, lambda parameters: trials.train(dict(space.fixed) | parameters), trials.show)
        best = best_of(finished)
        if best is None:
            raise TrainingError(f"each of the {len(finished)} trials failed; the first: {finished[0].cause}")

        def repeat(parameters: Parameters) -> Mapping[str, float]:
            if parameters["seed"] == given["seed"]:
                return best.metrics
            return trials.train(dict(space.fixed) | best.parameters | parameters)

        again = Study(folder, f"repeats of trial {best.number}", objective, seed_distribution())
        repeats = again.run(seeds(given["seed"], config.repeats), repeat, lambda _: keep(folder, location))
        if config.repeats > 1:
            progress.advance(config.repeats - 1)
    steps = greedy.winners(grids, finished) if grids else {}
    return replace(empty, trials=finished, best=best, repeats=repeats, steps=steps, grids=grids)


class Trials:
    """Trains settings with the task's step and shows how the search goes."""

    def __init__(
        self,
        base: StepConfig,
        slices: Path,
        location: str,
        folder: Path,
        objective: Objective,
        progress: Progress,
    ) -> None:
        self.base, self.slices, self.location, self.folder = base, slices, location, folder
        self.objective, self.progress = objective, progress
        self.best, self.shown = "no trial yet", -1

    def train(self, parameters: Parameters) -> Mapping[str, float]:
        """Validation metrics of a training with `parameters` in place of the given ones; its model is not kept."""
        from hounsfield.data.model_store import read_card

        config = parse(type(self.base), self.base.model_dump() | parameters)
        model, checkpoints = self.folder / "model", f"{self.location}/training"
        shutil.rmtree(model, ignore_errors=True)
        output = StringIO()
        try:
            with reported_to(self._hear), redirect_stdout(output):
                step(config)(config, self.slices, model, checkpoints)
            return read_card(model).metrics
        except TrainingError:
            discard(checkpoints)
            raise
        finally:
            shutil.rmtree(model, ignore_errors=True)
            for line in output.getvalue().splitlines():
                if line.startswith("warning: "):
                    print(line, flush=True)

    def show(self, trials: Sequence["Trial"]) -> None:
        """A line for each trial that is new, and the best so far."""
        from hounsfield.search.study import best_of

        keep(self.folder, self.location)
        if best := best_of(trials):
            self.best = f"best {self.objective.name}={best.score:.4f} trial {best.number}"
        if self.shown < 0:
            self.shown = len(trials)
            if trials:
                print(f"resuming after {len(trials)} trials", flush=True)
            self.progress.advance(len(trials), self.best)
            return
        for trial in trials[self.shown :]:
            print(line(trial, self.objective), flush=True)
        self.progress.advance(len(trials) - self.shown, self.best)
        self.shown = len(trials)

    def _hear(self, heard: ProgressLine) -> None:
        self.progress.advance(0, f"{self.best}; now {heard.label} {heard.done}/{heard.total} {heard.detail}".rstrip())


def working_copy(location: str) -> Path:
    """The folder here of a study at `location`, which may be remote."""
    if not remote.is_remote(location):
        return Path(location)
    return Path(tempfile.gettempdir()) / "hounsfield-studies" / location.rpartition("/")[2]


def bring(location: str, folder: Path) -> None:
    """Continue from the study at a remote `location`, if an earlier process kept one there."""
    from hounsfield.search.study import DATABASE

    if not remote.is_remote(location):
        return
    if remote.exists(f"{location}/{DATABASE}"):
        remote.download(f"{location}/{DATABASE}", folder / DATABASE)
    else:
        (folder / DATABASE).unlink(missing_ok=True)


def keep(folder: Path, location: str) -> None:
    """Copy the study in `folder` to its remote `location`."""
    from hounsfield.search.study import DATABASE

    if remote.is_remote(location):
        remote.upload(folder / DATABASE, f"{location}/{DATABASE}")


def discard(location: str) -> None:
    """Remove the checkpoints below `location`."""
    if remote.is_remote(location):
        remote.remove(location)
    else:
        shutil.rmtree(location, ignore_errors=True)


def step(config: StepConfig) -> Any:
    """The `run` of the training step that `config` belongs to."""
    from hounsfield.components.train_l3.run import run as l3
    from hounsfield.components.train_unet.config import Config as UNet
    from hounsfield.components.train_unet.run import run as unet

    return unet if isinstance(config, UNet) else l3


def seed_distribution() -> Any:
    """The distribution of training seeds, as a study stores them."""
    from optuna.distributions import IntDistribution

    return {"seed": IntDistribution(0, 2**62)}


def grid_values(text: str) -> dict[str, list[float]]:
    """The grids of a JSON text such as {"alpha": [0.25, 0.75]}.

    Raises:
        InputError: not of that form.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(dict[str, list[float]]).validate_json(text or "{}")
    except ValidationError as error:
        raise InputError(f'--grid: expected JSON such as {{"alpha": [0.25, 0.75]}}, came {text!r}') from error
