"""A search on a cluster: Katib proposes, and every trial is a Job on a pool of nodes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hounsfield.components.images import TRAINING_IMAGE
from hounsfield.components.tune.config import Config
from hounsfield.components.tune.lines import line
from hounsfield.errors import InputError, TrainingError
from hounsfield.katib.client import Cluster
from hounsfield.katib.experiment import Budget, Place, Training, repeats
from hounsfield.katib.experiment import search as searching
from hounsfield.katib.follow import Outcome, Waiting, carry_out
from hounsfield.pool import pool_named
from hounsfield.progress import Progress
from hounsfield.remote import is_remote
from hounsfield.search.objective import Objective
from hounsfield.search.result import Result
from hounsfield.search.space import Parameters, Space
from hounsfield.search.study import RUNNING, Trial, best_of, preemptible
from hounsfield.step import StepConfig

MODULES = {
    "lung-tumour": "hounsfield.components.train_unet",
    "l3-slice": "hounsfield.components.train_l3",
}


def search(config: Config, empty: Result, base: StepConfig, slices: str, contents: str) -> Result:
    """Search on Katib: the given parameters as an Experiment of one trial, the space, then the winner's repeats.

    Args:
        slices: where the trials find the slice set, an s3:// or minio:// location.
        contents: hash of the slice set; with everything else that decides the outcome it names the Experiments, so that
            a step that is started again goes on with them.

    Raises:
        InputError: trials could not read `slices`, or the cluster cannot carry the search out.
        TrainingError: too many trials failed.
        Preempted: SIGTERM came; the Experiment goes on.
    """
    if not is_remote(slices):
        raise InputError(
            f"trials on a cluster cannot read {slices}: give --slices as an s3:// location, or set backend to embedded"
        )
    place = place_of_trials(config)
    space, given = empty.space, base.model_dump()
    training = Training(config.task, MODULES[config.task], slices, contents, empty.objective, not_default(base))
    first = space.given(given) if config.start_from_given and config.trials > 1 else None
    count = config.trials - (first is not None)
    waiting = Waiting(patience=60.0 * config.patience_minutes)
    with preemptible(), Progress("tune", config.trials + config.repeats - 1) as progress:
        cluster = Cluster(place.namespace)
        told = Told(empty.objective, progress)

        def out(experiment: dict[str, Any], decode: Any) -> Outcome:
            return carry_out(
                cluster,
                experiment,
                place.pool,
                empty.objective,
                decode,
                told.show,
                waiting,
                config.keep_experiment,
            )

        def seeded(parameters: Parameters, seeds: Sequence[int]) -> dict[str, Any]:
            fields = without({**training.fields, **space.fixed, **parameters}, ["seed"])
            budget = Budget(len(seeds), config.parallel_trials, failures=len(seeds))
            return repeats(replace(training, fields=fields), list(seeds), budget, place)

        finished: list[Trial] = []
        if first is not None:
            begun = out(seeded(first, [given["seed"]]), lambda _: dict(first)).trials
            finished = list(begun)
            told.before(finished)
        experiment = searching(
            replace(training, fields=without(training.fields, space.names)),
            space,
            config.algorithm,
            config.search_seed,
            Budget(count, config.parallel_trials),
            place,
        )
        outcome = out(experiment, partial(searched, space))
        finished += [replace(trial, number=trial.number + len(finished)) for trial in outcome.trials]
        best = best_of(finished)
        if outcome.failure:
            raise TrainingError(outcome.failure)
        if best is None:
            raise TrainingError(f"each of the {len(finished)} trials failed; the first: {finished[0].cause}")
        winner = replace(best, number=0, parameters={"seed": given["seed"]})
        again: list[Trial] = []
        if config.repeats > 1:
            told.before(finished)
            seeds = range(given["seed"] + 1, given["seed"] + config.repeats)
            again = out(seeded(best.parameters, seeds), of_seed).trials
            again = sorted(again, key=lambda trial: int(trial.parameters["seed"]))
    numbered = [replace(trial, number=number) for number, trial in enumerate([winner, *again])]
    strategy = "bayesian" if config.algorithm == "bayesianoptimization" else config.algorithm
    return replace(empty, strategy=strategy, trials=finished, best=best, repeats=numbered)


class Told:
    """Shows how the trials of a search go."""

    def __init__(self, objective: Objective, progress: Progress) -> None:
        self.objective, self.progress = objective, progress
        self.earlier: list[Trial] = []
        self.shown: set[int] = set()

    def before(self, trials: Sequence[Trial]) -> None:
        """Take the next trials as those that follow `trials`."""
        self.earlier, self.shown = list(trials), set()

    def show(self, trials: Sequence[Trial]) -> None:
        """A line for each trial that has ended, and how many run, failed and are the best so far."""
        new = [trial for trial in trials if trial.state != RUNNING and trial.number not in self.shown]
        for trial in new:
            print(line(replace(trial, number=trial.number + len(self.earlier)), self.objective), flush=True)
        self.shown |= {trial.number for trial in new}
        failed = sum(trial.state == "failed" for trial in trials)
        running = sum(trial.state == RUNNING for trial in trials)
        best = best_of([*self.earlier, *trials])
        said = f"best {self.objective.name}={best.score:.4f}" if best and best.score is not None else "no trial yet"
        self.progress.advance(len(new), f"{said}; {running} running, {failed} failed")


def place_of_trials(config: Config) -> Place:
    """Namespace, image and pool of the trials, as the pipeline's placement gave them to this step.

    Raises:
        InputError: HOUNSFIELD_POOL names no pool.
    """
    return Place(
        namespace=os.environ.get("HOUNSFIELD_NAMESPACE", "hounsfield"),
        image=os.environ.get("HOUNSFIELD_TRAINING_IMAGE", TRAINING_IMAGE),
        pool=pool_named(os.environ.get("HOUNSFIELD_POOL", "nvidia")),
        hours=config.trial_hours,
        pull_secret=os.environ.get("HOUNSFIELD_PULL_SECRET", ""),
    )


def not_default(base: StepConfig) -> dict[str, Any]:
    """The fields of a training's configuration that are not its defaults."""
    return {name: value for name, value in base.model_dump().items() if value != type(base).model_fields[name].default}


def without(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`fields` but for those in `names`."""
    return {name: value for name, value in fields.items() if name not in names}


def searched(space: Space, assigned: dict[str, str]) -> Parameters:
    """The parameters that a search varies, from the texts that Katib assigned."""
    return {name: value for name, value in space.decode(assigned).items() if name in space.names}


def of_seed(assigned: dict[str, str]) -> Parameters:
    """The seed of a repeat, from the text that Katib assigned."""
    return {"seed": int(assigned["seed"])}
