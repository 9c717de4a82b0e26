"""Lists the trainings of an experiment; those of the ablation with the loss parameters of the paper or of a search."""

import json
from pathlib import Path
from typing import Any

from hounsfield.components.plan_experiment.config import Config
from hounsfield.errors import InputError
from hounsfield.experiments.printed import TABLE_1
from hounsfield.storage import atomic_directory, write_json, write_manifest

KIND, VERSION = "plan", 1
ARMS = ("control", "proposed")
PARAMETERS = {"bl": ("alpha",), "fl": ("alpha", "gamma"), "cl": ("alpha", "gamma", "beta")}


def run(
    config: Config, slices: Path | None, plan: Path, training: str = "{}", checkpoints: Path | str | None = None
) -> list[dict[str, Any]]:
    """Write `plan` and return its runs.

    An ablation's run has run_name, architecture, base_channels, loss, alpha, gamma, beta and seed; parameters that a
    loss does not have are 0. A study's run has run_name (its arm), fold and seed.

    Args:
        slices: slice set that the greedy search trains on; not read otherwise.
        training: JSON object text of the training parameters that all runs share; the greedy search needs them.
        checkpoints: folder from which a killed search resumes.

    Raises:
        InputError: an unknown network, loss or arm, or training parameters that are no JSON object.
        TrainingError: a search failed.
    """
    with atomic_directory(plan) as directory:
        if config.experiment == "lung-tumour-ablation":
            runs = ablation(config, slices, directory, training, checkpoints)
        else:
            arms = chosen(config.arms, ARMS, "arms")
            runs = [{"run_name": arm, "fold": fold} for fold in range(config.folds) for arm in arms]
        seeds = range(config.first_seed, config.first_seed + config.seeds)
        planned = [{**run, "seed": seed} for seed in seeds for run in runs]
        write_json(directory / "plan.json", planned)
        write_manifest(directory, KIND, VERSION, experiment=config.experiment, runs=len(planned))
    for run in planned:
        print("  ".join(f"{name}={value}" for name, value in run.items()))
    print(f"{len(planned)} trainings planned", flush=True)
    return planned


def chosen(text: str, known: tuple[str, ...], name: str) -> list[str]:
    """The comma-separated names of `text`, in their order.

    Raises:
        InputError: one is not among the `known`, or none is given.
    """
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    wrong = [part for part in names if part not in known]
    if wrong or not names or len(set(names)) < len(names):
        raise InputError(f"--{name}: expected some of {','.join(known)}, each once, came {text!r}")
    return names


def ablation(
    config: Config, slices: Path | None, directory: Path, training: str, checkpoints: Path | str | None
) -> list[dict[str, Any]]:
    """Every chosen network with every chosen loss, in the order of Table 1."""
    rows = {(row.architecture, row.loss.lower()): row for row in TABLE_1}
    architectures = chosen(config.architectures, tuple(dict.fromkeys(key[0] for key in rows)), "architectures")
    losses = chosen(config.losses, tuple(PARAMETERS), "losses")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    if config.parameters == "greedy":
        shared = training_parameters(training)
        found = {name: search(config, name, slices, directory / name, shared, checkpoints) for name in architectures}
    runs = []
    for (architecture, loss), row in rows.items():
        if architecture not in architectures or loss not in losses:
            continue
        given = found[architecture][loss] if found else {name: getattr(row, name) for name in PARAMETERS[loss]}
        parameters = {name: float(given[name]) if name in PARAMETERS[loss] else 0.0 for name in PARAMETERS["cl"]}
        width = getattr(config, f"base_channels_{architecture}")
        kind = {"run_name": row.run, "architecture": architecture, "base_channels": width, "loss": loss}
        runs.append(kind | parameters)
    return runs


def training_parameters(training: str) -> dict[str, Any]:
    """The JSON object of `training`.

    Raises:
        InputError: it is none.
    """
    try:
        values = json.loads(training)
    except ValueError as error:
        raise InputError(f"--training: expected a JSON object, came {training!r}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f'--training: expected a JSON object such as {{"epochs": 10}}, came {training!r}')
    return values


def search(
    config: Config,
    architecture: str,
    slices: Path | None,
    tuning: Path,
    shared: dict[str, Any],
    checkpoints: Path | str | None,
) -> dict[str, dict[str, Any]]:
    """Parameters of each loss for one network: best alpha under BL, then gamma under FL, then beta under CL.

    Raises:
        InputError: there is no slice set to search on.
        TrainingError: every training of a step failed.
    """
    from hounsfield.components.tune.config import Config as Tune
    from hounsfield.components.tune.run import run as tune
    from hounsfield.search.result import BEST
    from hounsfield.step import parse

    if slices is None:
        raise InputError("parameters=greedy searches on the training patients: give the slice set")
    training = shared | {
        "architecture": architecture,
        "base_channels": getattr(config, f"base_channels_{architecture}"),
        "seed": config.first_seed,
    }
    settings = {"strategy": "greedy", "trials": 1, "grid": config.grid, "search_seed": config.first_seed}
    print(f"greedy search for {architecture}", flush=True)
    tune(parse(Tune, {"task": "lung-tumour", **settings}), slices, json.dumps(training), tuning, checkpoints)
    steps = json.loads((tuning / BEST).read_text())["steps"]
    return {loss: step["parameters"] for loss, step in steps.items()}
