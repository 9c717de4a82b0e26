"""Searches the parameters of a training: trials of the training step, the best of them, and a report."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hounsfield import __version__
from hounsfield.components.tune.config import Config
from hounsfield.errors import InputError, TrainingError
from hounsfield.progress import Progress, ProgressLine, reported_to
from hounsfield.search.objective import OWN, Objective
from hounsfield.search.result import KIND, VERSION, Result, write_tables
from hounsfield.search.space import Parameters, space_for
from hounsfield.step import StepConfig, parse
from hounsfield.storage import atomic_directory, read_manifest, sha256_bytes, write_manifest

if TYPE_CHECKING:
    from hounsfield.search.study import Trial

NOT_PART_OF_THE_STUDY = {"trials", "repeats", "experiment", "tracking_uri"}
"""Fields under which a study goes on instead of starting anew: more trials or repeats continue it."""


def run(config: Config, slices: Path, training: str, tuning: Path, checkpoints: Path | str | None = None) -> str:
    """Search the parameters of the training step of `config.task` on the slice set `slices`.

    The patients of the split "test" are not seen, unless the training's `validation` is "test"; then every output is
    marked optimistic. A search that was killed goes on where it was when called again.

    Args:
        training: JSON object text of the training step's configuration; values may be texts.
        tuning: artifact directory to write, see `hounsfield.search.result`.
        checkpoints: folder of the study and of the checkpoints of its trials; default `<tuning>.checkpoints`.

    Returns:
        JSON object text of the best parameters of the space; "{}" when `config.trials` is 0.

    Raises:
        InputError: a slice set of another task or without validation patients, or a configuration that does not fit.
        TrainingError: every trial failed; the message is the first cause.
        Preempted: SIGTERM came; the study goes on when called again.
    """
    slices, tuning = Path(slices), Path(tuning)
    base = training_config(config, training)
    values = base.model_dump()
    manifest = read_manifest(slices, "slice-set")
    if manifest["task"] != config.task:
        raise InputError(f"{slices} is a slice set for {manifest['task']}, expected one for {config.task}")
    optimistic = values["validation"] == "test"
    empty = Result(
        space=space_for(config.task, config.space),
        objective=Objective(config.objective or OWN[config.task]),
        strategy=config.strategy,
        optimistic=optimistic,
        fold=values["fold"],
        seed=config.search_seed,
    )
    if config.strategy == "greedy" and empty.space.name != "joint":
        raise InputError(f"strategy greedy searches the losses of lung-tumour, not {config.task}: use bayesian")
    identity = study_identity(config, values, str(manifest["hash"]))
    if config.trials:
        folder = (Path(checkpoints) if checkpoints else tuning.with_name(f"{tuning.name}.checkpoints")) / identity
        result = search(config, empty, base, slices, folder)
    else:
        result = empty
    provenance = {
        "identity": identity,
        "slice_set_hash": str(manifest["hash"]),
        "dataset_hash": str(manifest["dataset_hash"]),
        "code_version": __version__,
    }
    from hounsfield.search.report import write_report

    with atomic_directory(tuning) as directory:
        write_tables(directory, result, **provenance)
        write_report(directory, result, values, provenance)
        write_manifest(directory, KIND, VERSION, task=config.task, identity=identity, optimistic=optimistic)
    log(config, result, tuning, identity)
    summarise(result, tuning)
    return json.dumps(result.parameters, sort_keys=True)


def training_config(config: Config, training: str) -> StepConfig:
    """The configuration of the task's training step, with the fold of `config` and never a refit.

    Raises:
        InputError: `training` is not a JSON object, or a value that the step does not have or allow.
    """
    from hounsfield.components.train_l3.config import Config as ResNet
    from hounsfield.components.train_unet.config import Config as UNet

    try:
        values = json.loads(training or "{}")
    except ValueError as error:
        raise InputError(f"--training: expected a JSON object, came {training!r}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f'--training: expected a JSON object such as {{"epochs": 10}}, came {training!r}')
    values |= {"refit": False} | ({"fold": config.fold} if config.fold >= 0 else {})
    step: type[StepConfig] = UNet if config.task == "lung-tumour" else ResNet
    return parse(step, values)


def study_identity(config: Config, training: Mapping[str, Any], slice_set_hash: str) -> str:
    """Name of the study: searches with the same name go on from one another."""
    what = {
        "search": config.model_dump(exclude=NOT_PART_OF_THE_STUDY),
        "training": dict(training),
        "slice_set": slice_set_hash,
        "code": __version__,
    }
    return sha256_bytes(json.dumps(what, sort_keys=True).encode())[:16]


def search(config: Config, empty: Result, base: StepConfig, slices: Path, folder: Path) -> Result:
    """Run the trials and the repeats of the winner in the study under `folder`."""
    from dataclasses import replace

    from hounsfield.data.slice_set import SliceSet
    from hounsfield.search import greedy
    from hounsfield.search.proposals import bayesian, seeds
    from hounsfield.search.study import Study, best_of, locked, preemptible

    given = base.model_dump()
    if not SliceSet(slices, given["fold"]).rows(given["validation"]):
        raise InputError(
            f"{slices} has no slice in the split {given['validation']}, on which a search measures: use more patients "
            "or a larger val_fraction"
        )
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
    with preemptible(), locked(folder), Progress("tune", count + config.repeats - 1) as progress:
        trials = Trials(base, slices, folder, objective, progress)
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
        repeats = again.run(seeds(given["seed"], config.repeats), repeat, lambda _: None)
        if config.repeats > 1:
            progress.advance(config.repeats - 1)
    steps = greedy.winners(grids, finished) if grids else {}
    return replace(empty, trials=finished, best=best, repeats=repeats, steps=steps, grids=grids)


class Trials:
    """Trains settings with the task's step and shows how the search goes."""

    def __init__(self, base: StepConfig, slices: Path, folder: Path, objective: Objective, progress: Progress) -> None:
        self.base, self.slices, self.folder = base, slices, folder
        self.objective, self.progress = objective, progress
        self.best, self.shown = "no trial yet", -1

    def train(self, parameters: Parameters) -> Mapping[str, float]:
        """Validation metrics of a training with `parameters` in place of the given ones; its model is not kept."""
        from hounsfield.data.model_store import read_card

        config = parse(type(self.base), self.base.model_dump() | parameters)
        model, checkpoints = self.folder / "model", self.folder / "training"
        shutil.rmtree(model, ignore_errors=True)
        output = StringIO()
        try:
            with reported_to(self._hear), redirect_stdout(output):
                step(config)(config, self.slices, model, checkpoints)
            return read_card(model).metrics
        except TrainingError:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(model, ignore_errors=True)
            for line in output.getvalue().splitlines():
                if line.startswith("warning: "):
                    print(line, flush=True)

    def show(self, trials: Sequence["Trial"]) -> None:
        """A line for each trial that is new, and the best so far."""
        from hounsfield.search.study import best_of

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


def log(config: Config, result: Result, tuning: Path, identity: str) -> None:
    """Log the search to MLflow when there is a place for it."""
    import os

    if result.best is None or not (config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
        return
    from hounsfield.registry.search_log import log_search

    log_search(result, tuning, identity, config.experiment, config.tracking_uri)


def summarise(result: Result, tuning: Path) -> None:
    """The last lines of the step's log."""
    if result.best is None:
        print(f"no search (0 trials): the given parameters stay; tuning: {tuning}", flush=True)
        return
    assert result.best.score is not None
    print(f"best_{result.objective.metric}={result.best.score:.4f}")
    if result.spread.sd is not None:
        print(f"best_{result.objective.metric}_mean={result.spread.mean:.4f}")
        print(f"best_{result.objective.metric}_sd={result.spread.sd:.4f}")
    setting = " ".join(f"{name}={shown(value)}" for name, value in result.parameters.items())
    note = ", optimistic: chosen on test patients" if result.optimistic else ""
    print(f"best of {len(result.trials)} trials: {setting}{note}; tuning: {tuning}", flush=True)
