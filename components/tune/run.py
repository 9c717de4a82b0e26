"""Searches the parameters of a training: trials of the training step, the best of them, and a report."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hounsfield import __version__
from hounsfield.components.tune.config import Config
from hounsfield.components.tune.lines import shown
from hounsfield.errors import InputError
from hounsfield.search.objective import OWN, Objective
from hounsfield.search.result import KIND, VERSION, Result, write_tables
from hounsfield.search.space import space_for
from hounsfield.step import StepConfig, parse
from hounsfield.storage import atomic_directory, read_manifest, sha256_bytes, write_manifest

ON_KATIB = {"backend", "algorithm", "parallel_trials", "trial_hours", "patience_minutes", "keep_experiment"}
NOT_PART_OF_THE_STUDY = {"trials", "repeats", "experiment", "tracking_uri"} | ON_KATIB
"""Fields under which a study goes on instead of starting anew: more trials or repeats continue it."""


def run(
    config: Config,
    slices: Path,
    training: str,
    tuning: Path,
    checkpoints: Path | str | None = None,
    slices_uri: str = "",
) -> str:
    """Search the parameters of the training step of `config.task` on the slice set `slices`.

    The patients of the split "test" are not seen, unless the training's `validation` is "test"; then every output is
    marked optimistic. A search that was killed goes on where it was when called again.

    Args:
        training: JSON object text of the training step's configuration; values may be texts.
        tuning: artifact directory to write, see `hounsfield.search.result`.
        checkpoints: folder or s3:// prefix of the study and of the checkpoints of its trials, when the search is
            embedded; default `<tuning>.checkpoints`.
        slices_uri: where trials on a cluster find the slice set; default `slices`.

    Returns:
        JSON object text of the best parameters of the space; "{}" when `config.trials` is 0.

    Raises:
        InputError: a slice set of another task or without validation patients, a configuration that does not fit, or
            a cluster that cannot carry the search out.
        TrainingError: every trial failed, or too many on a cluster; the message is the first cause.
        Preempted: SIGTERM came; the search goes on when called again.
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
    chosen = backend(config)
    identity = study_identity(config, values, str(manifest["hash"]))
    result = empty
    if config.trials:
        check_measurable(slices, values)
        if chosen == "katib":
            from hounsfield.components.tune.on_katib import search as search_on_katib

            result = search_on_katib(config, empty, base, slices_uri or str(slices), str(manifest["hash"]))
        else:
            from hounsfield.components.tune.embedded import search

            root = checkpoints or tuning.with_name(f"{tuning.name}.checkpoints")
            result = search(config, empty, base, slices, f"{root}/{identity}")
    provenance = {
        "identity": identity,
        "backend": chosen,
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


def backend(config: Config) -> Literal["embedded", "katib"]:
    """Where `config` searches: "auto" is katib in a pod whose pipeline gave it a pool for trials, else this process.

    Raises:
        InputError: a greedy search on Katib, whose trials cannot wait for one another.
    """
    placed = bool(os.environ.get("KUBERNETES_SERVICE_HOST") and os.environ.get("HOUNSFIELD_POOL"))
    chosen: Literal["embedded", "katib"] = "embedded"
    if config.backend == "katib" or (config.backend == "auto" and placed):
        chosen = "katib"
    if chosen == "katib" and config.strategy == "greedy" and config.trials:
        raise InputError(
            "strategy greedy is not for Katib, whose trials do not wait for one another: set backend to "
            "embedded, or strategy to bayesian"
        )
    return chosen


def check_measurable(slices: Path, training: Mapping[str, Any]) -> None:
    """Check that a training on `slices` can measure an objective.

    Raises:
        InputError: no slice in the split that the training validates on.
    """
    from hounsfield.data.slice_set import SliceSet

    if not SliceSet(slices, training["fold"]).rows(training["validation"]):
        raise InputError(
            f"{slices} has no slice in the split {training['validation']}, on which a search measures: use more "
            "patients or a larger val_fraction"
        )


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
